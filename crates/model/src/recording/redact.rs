//! Secrets stay out of recordings. In their place is a mark with sixteen bits of a salted hash: enough to tell two tokens of one
//! build apart, too little to find out or to confirm what they were.

use crate::hash::{HashAlgorithm, Hasher};

/// What stands where a secret was, followed by `-` and four digits.
pub(super) const MARK: &str = "REDACTED";

/// Digits after the mark.
const DIGITS: usize = 4;

/// Request headers whose values are written down as they are. Of all others only the names are: nobody knows all headers that
/// carry a password.
const HARMLESS: [&str; 19] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "git-protocol",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "range",
    "te",
    "user-agent",
];

/// Words in names of headers and parameters that carry secrets.
const SECRET_WORDS: [&str; 17] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "signature",
    "credential",
    "apikey",
    "api-key",
    "api_key",
    "accesskey",
    "access-key",
    "access_key",
    "authorization",
    "jwt",
    "session",
    "privatekey",
    "private_key",
];

/// Whole names of such parameters.
const SECRET_NAMES: [&str; 9] = ["sig", "auth", "key", "pwd", "pass", "code", "sid", "hmac", "policy"];

/// Schemes of `Authorization` that are no secret themselves.
const SCHEMES: [&str; 7] = ["basic", "bearer", "digest", "token", "negotiate", "ntlm", "aws4-hmac-sha256"];

/// Replaces secrets, always in the same way.
#[derive(Clone, Debug)]
pub struct Redactor {
    salt: String,
}

impl Redactor {
    /// With a salt that is another for every recording.
    pub fn new(salt: &str) -> Self {
        Redactor { salt: salt.to_owned() }
    }

    /// An address: values of parameters that look like secrets, and what is before an `@`.
    pub fn url(&self, url: &str) -> String {
        let (start, query) = match url.split_once('?') {
            Some((start, query)) => (start, Some(query)),
            None => (url, None),
        };
        let mut result = match start.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
                match authority.rsplit_once('@') {
                    Some((user, host)) => format!("{scheme}://{}@{host}{path}", self.mark(user)),
                    None => start.to_owned(),
                }
            }
            None => start.to_owned(),
        };
        let Some(query) = query else { return result };
        result.push('?');
        for piece in query.split_inclusive(['&', ';']) {
            let (pair, end) = match piece.strip_suffix(['&', ';']) {
                Some(pair) => (pair, &piece[pair.len()..]),
                None => (piece, ""),
            };
            match pair.split_once('=') {
                Some((name, value)) if !value.is_empty() && is_secret_parameter(name) => {
                    result.push_str(&format!("{name}={}", self.mark(value)));
                }
                Some(_) | None => result.push_str(pair),
            }
            result.push_str(end);
        }
        result
    }

    /// The value of a request's header.
    pub fn request_header(&self, name: &str, value: &str) -> String {
        match name {
            "authorization" | "proxy-authorization" => match value.split_once(' ') {
                Some((scheme, rest)) if SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) => {
                    format!("{scheme} {}", self.mark(rest))
                }
                Some(_) | None => self.mark(value),
            },
            "referer" => self.url(value),
            name if HARMLESS.contains(&name) => value.to_owned(),
            _ => self.mark(value),
        }
    }

    /// The value of an answer's header.
    pub fn response_header(&self, name: &str, value: &str) -> String {
        match name {
            "set-cookie" | "set-cookie2" => {
                let (cookie, rest) = value.find(';').map_or((value, ""), |at| value.split_at(at));
                match cookie.split_once('=') {
                    Some((name, secret)) => format!("{name}={}{rest}", self.mark(secret.trim())),
                    None => format!("{}{rest}", self.mark(cookie)),
                }
            }
            // What a client must answer to is no secret.
            "www-authenticate" | "proxy-authenticate" => value.to_owned(),
            // Lists which headers may be sent or seen; no values.
            name if name.starts_with("access-control-") => value.to_owned(),
            name if is_secret_name(name) => self.mark(value),
            _ if value.contains(['?', '@']) => self.urls_in(value),
            _ => value.to_owned(),
        }
    }

    /// A text with addresses in it, such as `Link: <https://…>; rel=next`.
    fn urls_in(&self, text: &str) -> String {
        let pieces = text.split_inclusive(['<', '>', '"', ' ', ',']);
        pieces
            .map(|piece| match piece.strip_suffix(['<', '>', '"', ' ', ',']) {
                Some(word) => format!("{}{}", self.url(word), &piece[word.len()..]),
                None => self.url(piece),
            })
            .collect()
    }

    fn mark(&self, secret: &str) -> String {
        // A client repeats what it was told in a replay.
        if let Some(digits) = secret.strip_prefix(MARK).and_then(|rest| rest.strip_prefix('-'))
            && is_digits(digits)
        {
            return secret.to_owned();
        }
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        hasher.update(self.salt.as_bytes());
        hasher.update(secret.as_bytes());
        let digest = hasher.finish().to_base16();
        format!("{MARK}-{}", &digest[..DIGITS])
    }
}

fn is_digits(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_secret_parameter(name: &str) -> bool {
    is_secret_name(&unescaped(name).to_ascii_lowercase())
}

fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.contains(&name) || SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `%41` is `A`: a name does not hide behind that.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            Some(_) | None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text with marks that are all the same: two recordings have different salts.
pub(super) fn without_digits(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, after) = rest.split_at(at + MARK.len());
        result.push_str(before);
        rest = match after.strip_prefix('-').filter(|digits| digits.get(..DIGITS).is_some_and(is_digits)) {
            Some(digits) => &digits[DIGITS..],
            None => after,
        };
    }
    result.push_str(rest);
    result
}
