//! Passwords for servers from a netrc file (the format of ftp(1) and curl): `machine HOST login NAME password WORD`, `default …`.

/// Largest file that is read, in bytes.
pub const SIZE_LIMIT: u64 = 1 << 20;

/// A URL with the name and password that the file has for its host; as it is when there are none, or when it has its own.
pub fn with_password(url: &str, netrc: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // Nothing else is fetched, and what is no scheme could hold what looks like another host.
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return url.to_owned();
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return url.to_owned();
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    };
    match entry(netrc, host) {
        Some((name, password)) => format!("{scheme}://{}:{}@{rest}", encoded(&name), encoded(&password)),
        None => url.to_owned(),
    }
}

fn entry(netrc: &str, host: &str) -> Option<(String, String)> {
    let mut is_macro = false;
    let lines = netrc.lines().map(str::trim_start).filter(|line| {
        // A macro goes on to the next empty line; what it says is no entry.
        is_macro = !line.is_empty() && (is_macro || line.split_ascii_whitespace().next() == Some("macdef"));
        !is_macro && !line.starts_with('#')
    });
    let mut words = lines.flat_map(str::split_ascii_whitespace);
    let (mut applies, mut found) = (false, (None, None));
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if let (Some(name), Some(password)) = found {
                    return Some((name, password));
                }
                found = (None, None);
                applies = word == "default" || words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
            }
            "login" | "password" if !applies => drop(words.next()),
            "login" => found.0 = words.next().map(str::to_owned),
            "password" => found.1 = words.next().map(str::to_owned),
            _ => {}
        }
    }
    Some((found.0?, found.1?))
}

/// Everything but letters and digits in the form that URLs carry it.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::with_password;

    #[test]
    fn the_first_entry_for_a_host_is_used_and_the_default_for_all_others() {
        let netrc = "# ours\nmachine one.example login me password p@ss\nmachine two.example\n  login you\n  password x y\n\
                     default login any password body\n";
        for (url, expected) in [
            ("https://one.example/f", "https://me:p%40ss@one.example/f"),
            ("https://ONE.example:8443/f", "https://me:p%40ss@ONE.example:8443/f"),
            ("https://two.example", "https://you:x@two.example"),
            ("http://three.example/f", "http://any:body@three.example/f"),
            ("https://own:word@one.example/f", "https://own:word@one.example/f"),
        ] {
            assert_eq!(with_password(url, netrc), expected);
        }
        assert_eq!(
            with_password("https://three.example/", "machine one.example login a password b"),
            "https://three.example/"
        );
        assert_eq!(with_password("https://one.example/", "machine one.example login a"), "https://one.example/");
    }

    /// Attack: NET-3 (an address that two readers split differently). Layer: only the very host gets its password.
    #[test]
    fn no_spelling_of_another_host_gets_a_password() {
        let netrc = "machine good.example login me password secret";
        for url in [
            "https://good.example.evil.example/",
            "https://evil.example/@good.example/",
            "https://evil.example\\@good.example/",
            "https://good.example\\.evil.example/",
            "https://good.example\t.evil.example/",
            "https://good.example:80:x/",
            "https://good.example:x/",
            "https://evil.example?good.example",
            "https://evil.example#@good.example",
            "good.example",
            "https:good.example",
            "@evil.example://good.example/",
            "ftp://good.example/",
        ] {
            assert_eq!(with_password(url, netrc), url);
        }
        let netrc =
            "macdef init\nmachine good.example login evil password evil\n\nmachine good.example login me password p";
        assert_eq!(with_password("https://good.example/", netrc), "https://me:p@good.example/");
        let netrc = " # machine good.example login evil password evil\nmachine good.example login me password p";
        assert_eq!(with_password("https://good.example/", netrc), "https://me:p@good.example/");
    }
}
