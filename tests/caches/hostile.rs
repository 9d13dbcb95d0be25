//! Caches that mean harm: what no signature covers has no effect, and nothing is asked elsewhere.

use super::{Written, absent, complete};
use crate::{lab::Lab, recipe::Recipe};
use fodder_model::{content_address::ContentMethod, derivation::Output, environment::placeholder, hash::HashAlgorithm};
use std::{net::TcpListener, time::Duration};

/// Attack: PARSE-14. Layer: signatures; for the fields that they do not cover, nothing that depends on them.
#[test]
fn what_no_signature_covers_has_no_effect_and_what_one_covers_cannot_be_changed() {
    let written = Written::new("none");
    let original = std::fs::read_to_string(written.narinfo(&written.top)).expect("a narinfo");
    let line = |name: &str| original.lines().find(|line| line.starts_with(name)).expect("a field").to_owned();
    let number =
        |name: &str| line(name).rsplit(' ').next().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let zeros = "0".repeat(52);
    for (field, other, is_covered) in [
        ("StorePath", format!("StorePath: {}", written.base), true),
        ("NarHash", format!("NarHash: sha256:{zeros}"), true),
        ("NarSize", format!("NarSize: {}", number("NarSize") + 1), true),
        ("References", format!("References: {}", written.base.base_name()), true),
        ("FileHash", format!("FileHash: sha256:{zeros}"), false),
        ("FileSize", "FileSize: 1".to_owned(), false),
        ("FileSize", format!("FileSize: {}", u64::MAX), false),
        ("Deriver", "Deriver: unknown-deriver".to_owned(), false),
        ("Deriver", format!("Deriver: {}.drv", written.base.base_name()), false),
        ("Sig", format!("CA: text:sha256:{zeros}\n{}", line("Sig")), false),
        ("Sig", format!("CA: fixed:r:sha256:{zeros}\n{}", line("Sig")), false),
        ("Sig", format!("FutureField: x\n{}", line("Sig")), false),
    ] {
        std::fs::write(written.narinfo(&written.top), original.replace(&line(field), &other)).expect("write");
        let lab = Lab::new();
        let run = written.copy(&lab, &written.url(), &[]);
        if is_covered {
            assert_eq!(run.code, 1, "{other}: {run:?}");
            assert!(!lab.real(&written.top).exists());
        } else {
            assert_eq!(run.code, 0, "{other}: {run:?}");
            complete(&written, &lab);
        }
    }
}

/// Attack: PARSE-8, Guix 2026-07-02. Layer: archives are below the address of their cache.
#[test]
fn a_narinfo_lets_nobody_else_be_called() {
    let written = Written::new("none");
    let server = written.serve();
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    elsewhere.set_nonblocking(true).expect("a mode");
    let port = elsewhere.local_addr().expect("an address").port();
    let archive = written.archive(&written.top);
    for url in [
        format!("http://127.0.0.1:{port}/{archive}"),
        format!("https://127.0.0.1:{port}/{archive}"),
        format!("//127.0.0.1:{port}/{archive}"),
        format!("http://[::ffff:127.0.0.1]:{port}/x"),
        "file:///etc/passwd".to_owned(),
        "../../../etc/passwd".to_owned(),
        "%2e%2e/x".to_owned(),
    ] {
        written.edit(&written.top, |text| text.replace(&format!("URL: {archive}\n"), &format!("URL: {url}\n")));
        let lab = Lab::new();
        let run = written.copy(&lab, &server.url(), &["--ca-file", &server.ca_file()]);
        assert_eq!(run.code, 1, "{url}: {run:?}");
        assert!(!lab.real(&written.top).exists(), "{url}");
        written.edit(&written.top, |text| text.replace(&format!("URL: {url}\n"), &format!("URL: {archive}\n")));
    }
    // A knock would be in the queue.
    std::thread::sleep(Duration::from_millis(50));
    assert!(elsewhere.accept().is_err(), "somebody called");
    // The control: the same cache as it was.
    let lab = Lab::new();
    assert_eq!(written.copy(&lab, &server.url(), &["--ca-file", &server.ca_file()]).code, 0);
}

/// Attack: PARSE-15, PARSE-6. Layer: nothing may follow an archive; unpacking in scratch.
#[test]
fn bytes_behind_an_archive_are_refused_and_leave_nothing() {
    for compression in ["none", "xz"] {
        let written = Written::new(compression);
        let file = written.directory().join(written.archive(&written.base));
        let good = std::fs::read(&file).expect("an archive");
        std::fs::write(&file, [&good[..], b"junk"].concat()).expect("write");
        let lab = Lab::new();
        let run = written.copy(&lab, &written.url(), &[]);
        assert_eq!(run.code, 1, "{compression}: {run:?}");
        absent(&written, &lab);
        std::fs::write(&file, good).expect("write");
        assert_eq!(written.copy(&lab, &written.url(), &[]).code, 0);
    }
}

/// Attack: PARSE-5, PARSE-9. Layer: caches are asked for nothing but paths, by names that are digests.
#[test]
fn realisations_of_a_cache_are_never_asked_for() {
    let written = Written::new("none");
    let server = written.serve();
    let lab = Lab::new();
    let mut recipe = Recipe::new("floating", "echo built > $out").env("out", &placeholder("out"));
    let floating = Output::Floating { method: ContentMethod::Nar, algorithm: HashAlgorithm::Sha256 };
    recipe.parts.outputs = [("out".to_owned(), floating)].into();
    let arguments =
        ["--substituters", &server.url(), "--trusted-public-keys", &written.key, "--ca-file", &server.ca_file()];
    let (code, result) = lab.make_json(&recipe, &arguments);
    assert_eq!((code, &result["status"]), (0, &serde_json::json!("Built")), "{result:#}");
    let (code, result) = written.build(&Lab::new(), &server.url(), &["--ca-file", &server.ca_file()]);
    assert_eq!(code, 0, "{result:#}");
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.ends_with(".narinfo")), "{requests:?}");
    for request in requests {
        let name = request.split(' ').next().unwrap_or_default().trim_start_matches('/');
        let is_narinfo = name
            .strip_suffix(".narinfo")
            .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(is_narinfo || name == "nix-cache-info" || name.starts_with("nar/"), "{request}");
    }
}
