//! Destinations, proxies, netrc files.
#![no_main]

use fodder_model::{
    netrc,
    network_policy::Destination,
    proxy::{Proxies, Proxy},
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(destination) = Destination::parse(text) {
        assert_eq!(Destination::parse(&destination.to_string()).as_ref(), Ok(&destination));
    }
    if let Some(proxy) = Proxy::parse(text) {
        assert!(!proxy.host.is_empty());
    }
    let proxies =
        Proxies::read(|name| Some(if name == "no_proxy" { text } else { "http://proxy.example:3128" }.to_owned()));
    let _ = proxies.of("host.example", 443);
    let (url, file) = text.split_once('\n').unwrap_or((text, ""));
    let with = netrc::with_password(url, file);
    if with != url {
        // A password is put in, and nothing else is changed.
        let (scheme, rest) = url.split_once("://").expect("an address");
        let (front, back) = with.split_once('@').expect("a password");
        assert_eq!(back, rest);
        assert!(front.starts_with(&format!("{scheme}://")));
    }
});
