//! Proxies as environment variables name them, purely: which one a connection takes, if any.

use crate::network_policy::Destination;
use std::net::IpAddr;

/// A proxy's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `name:password`, as it is in the variable but decoded.
    pub credentials: Option<String>,
}

impl Proxy {
    /// Reads `[http://][name:password@]host[:port][/]`; `None` for nothing, and for kinds that are not HTTP.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return None,
            None => text,
        };
        let rest = rest.split('/').next().unwrap_or_default();
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(decoded(credentials)), address),
            None => (None, rest),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, port.parse().ok()?),
            Some(_) | None => (address, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Proxy { host: host.to_owned(), port, credentials })
    }

    /// Whether it is on this machine's loopback.
    pub fn is_on_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut result = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code =
            bytes.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(byte)) => {
                result.push(byte);
                at += 3;
            }
            (byte, _) => {
                result.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&result).into_owned()
}

/// What a machine's variables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `http_proxy`: for port 80.
    pub http: Option<Proxy>,
    /// `https_proxy`: for everything else.
    pub https: Option<Proxy>,
    /// `no_proxy`, its entries.
    except: Vec<String>,
}

impl Proxies {
    /// Reads the variables; `value` gives one by its name, the lower-case names go first, as with curl.
    pub fn read(value: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| value(name).filter(|text| !text.is_empty()).or_else(|| value(&name.to_uppercase()));
        let all = either("all_proxy");
        let proxy = |name: &str| either(name).or_else(|| all.clone()).and_then(|text| Proxy::parse(&text));
        let except = either("no_proxy").unwrap_or_default();
        let except = except.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase());
        Proxies {
            http: proxy("http_proxy"),
            https: proxy("https_proxy"),
            except: except.filter(|entry| !entry.is_empty()).collect(),
        }
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The proxy for a connection to a host, which is called by a name or by its address.
    pub fn of(&self, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if port == 80 { self.http.as_ref() } else { self.https.as_ref() }?;
        let host = host.to_ascii_lowercase();
        (!self.except.iter().any(|entry| is_excepted(entry, &host, port))).then_some(proxy)
    }
}

/// An entry is a name with all that is below it, an address, a network, or `*`; perhaps with a port.
fn is_excepted(entry: &str, host: &str, port: u16) -> bool {
    let name = entry.trim_start_matches("*.").trim_start_matches('.');
    let Ok(destination) = Destination::parse(if name.is_empty() { entry } else { name }) else { return false };
    if destination.port.is_some_and(|only| only != port) {
        return false;
    }
    match host.parse::<IpAddr>() {
        Ok(address) => destination.host.covers_address(address),
        Err(_) => {
            let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
            destination.host.covers_name(host) || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn proxies_are_read_in_every_spelling() {
        let proxy = |host: &str, port, credentials: Option<&str>| {
            Some(Proxy { host: host.to_owned(), port, credentials: credentials.map(str::to_owned) })
        };
        assert_eq!(Proxy::parse("http://proxy.example:3128/"), proxy("proxy.example", 3128, None));
        assert_eq!(Proxy::parse("proxy.example"), proxy("proxy.example", 80, None));
        assert_eq!(Proxy::parse("http://me:p%40ss@10.0.0.1:8080"), proxy("10.0.0.1", 8080, Some("me:p@ss")));
        assert_eq!(Proxy::parse("http://[::1]:3128"), proxy("::1", 3128, None));
        for text in ["", "http://", "socks5://proxy:1080", "http://proxy:port"] {
            assert_eq!(Proxy::parse(text), None, "{text}");
        }
        assert!(Proxy::parse("http://127.0.0.1:3128").is_some_and(|proxy| proxy.is_on_loopback()));
        assert!(Proxy::parse("LocalHost:3128").is_some_and(|proxy| proxy.is_on_loopback()));
    }

    #[test]
    fn which_proxy_a_connection_takes() {
        let both = proxies(&[
            ("http_proxy", "http://a:1"),
            ("HTTPS_PROXY", "http://b:2"),
            ("no_proxy", "localhost, .corp.example,10.0.0.0/8,x.example:8443"),
        ]);
        for (host, port, expected) in [
            ("example.org", 80, Some("a")),
            ("example.org", 443, Some("b")),
            ("example.org", 9418, Some("b")),
            ("localhost", 80, None),
            ("git.corp.example", 443, None),
            ("corp.example", 443, None),
            ("notcorp.example", 443, Some("b")),
            ("10.1.2.3", 443, None),
            ("11.1.2.3", 443, Some("b")),
            ("x.example", 8443, None),
            ("x.example", 443, Some("b")),
        ] {
            assert_eq!(both.of(host, port).map(|proxy| proxy.host.as_str()), expected, "{host}:{port}");
        }
        assert_eq!(proxies(&[("all_proxy", "c:3")]).of("example.org", 443).map(|proxy| proxy.port), Some(3));
        assert_eq!(proxies(&[("http_proxy", "a:1"), ("NO_PROXY", "*")]).of("example.org", 80), None);
        assert!(proxies(&[]).is_empty());
        // An empty lower-case variable hides nothing.
        assert!(proxies(&[("https_proxy", ""), ("HTTPS_PROXY", "b:2")]).https.is_some());
    }
}
