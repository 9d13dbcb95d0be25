//! Substitution in builds.

use super::{Written, absent, complete};
use crate::{dependencies::statuses, judge::verified, lab::Lab, recipe::Recipe};
use serde_json::json;

#[test]
fn every_compression_that_nix_writes_is_read() {
    for compression in ["none", "xz", "bzip2", "gzip", "zstd", "br", "lzma", "lzip"] {
        let written = Written::new(compression);
        let lab = Lab::new();
        let (code, result) = written.build(&lab, &written.url(), &[]);
        assert_eq!((code, &result["status"]), (0, &json!("Substituted")), "{compression}: {result:#}");
        assert_eq!(statuses(&result), []);
        complete(&written, &lab);
    }
}

#[test]
fn a_cache_over_https_is_verified_and_asked_once_for_each_file() {
    let written = Written::new("xz");
    let server = written.serve();
    let lab = Lab::new();
    let (code, result) = written.build(&lab, &server.url(), &["--ca-file", &server.ca_file()]);
    assert_eq!((code, &result["status"]), (0, &json!("Substituted")), "{result:#}");
    complete(&written, &lab);
    let mut requests = server.requests();
    requests.sort();
    let mut expected = vec!["/nix-cache-info".to_owned()];
    for path in [&written.base, &written.top] {
        expected.push(format!("/{}.narinfo", path.hash_part()));
        expected.push(format!("/{}", written.archive(path)));
    }
    expected.sort();
    assert_eq!(requests, expected);
    // It is there now.
    let (_, result) = written.build(&lab, &server.url(), &["--ca-file", &server.ca_file()]);
    assert_eq!(result["status"], json!("AlreadyValid"));
    assert_eq!(server.requests().len(), expected.len());

    // Without its authority the server is nobody.
    let lab = Lab::new();
    let (code, result) = written.build(&lab, &server.url(), &["--ca-file", "/etc/ssl/certs/ca-certificates.crt"]);
    assert_eq!((code, &result["status"]), (0, &json!("Built")), "{result:#}");
}

#[test]
fn of_a_root_that_no_cache_has_the_inputs_are_copied() {
    let written = Written::new("zstd");
    std::fs::remove_file(written.narinfo(&written.top)).expect("remove the narinfo");
    let lab = Lab::new();
    let (code, result) = written.build(&lab, &written.url(), &[]);
    assert_eq!((code, &result["status"]), (0, &json!("Built")), "{result:#}");
    assert_eq!(statuses(&result), [], "the input was not built");
    complete(&written, &lab);
}

#[test]
fn a_source_that_nobody_has_is_copied() {
    let producer = Lab::new();
    let source = producer.text("source", "from elsewhere\n");
    let cache = format!("file://{}", producer.path().join("cache").display());
    let run = crate::store_verbs::ours(&producer, &["copy", "--to", &cache, &source.to_string()]);
    assert_eq!(run.code, 0, "{run:?}");
    let recipe = Recipe::new("user", "cat $source > $out").env("source", &source.to_string()).source(&source);
    let lab = Lab::new();
    let (code, result) = lab.make_json(&recipe, &[]);
    assert_eq!((code, &result["status"]), (100, &json!("InputRejected")), "{result:#}");
    // Where a cache was asked and did not have it, that is said too.
    let empty = producer.path().join("empty");
    std::fs::create_dir(&empty).expect("create a directory");
    std::fs::write(empty.join("nix-cache-info"), "StoreDir: /nix/store\n").expect("write");
    let (code, result) = lab.make_json(&recipe, &["--substituters", &format!("file://{}", empty.display())]);
    let message = crate::recipe::text(&result, "/errorMsg");
    assert_eq!(code, 100);
    assert!(message.contains(&format!("No binary cache gave '{source}': no binary cache has it")), "{message}");
    // Content-addressed: nobody need have signed it.
    let (code, result) = lab.make_json(&recipe, &["--substituters", &cache, "--trusted-public-keys", ""]);
    assert_eq!((code, &result["status"]), (0, &json!("Built")), "{result:#}");
    verified(&lab);
}

#[test]
fn what_may_not_or_shall_not_be_substituted_is_built() {
    let written = Written::new("xz");
    let server = written.serve();
    let ca_file = server.ca_file();
    let remote = ["--ca-file", &ca_file];
    for arguments in [&["--no-substitute"][..], &["--offline"], &["--rebuild"]] {
        let lab = Lab::new();
        let all: Vec<&str> = remote.into_iter().chain(arguments.iter().copied()).collect();
        let (code, result) = written.build(&lab, &server.url(), &all);
        assert_eq!((code, &result["status"]), (0, &json!("Built")), "{arguments:?} {result:#}");
        let top = format!("/{}.narinfo", written.top.hash_part());
        assert!(!server.requests().contains(&top), "{arguments:?}");
        if arguments != ["--rebuild"] {
            assert_eq!(server.requests(), [""; 0], "{arguments:?}");
        }
    }
    // A directory is no network.
    let (_, result) = written.build(&Lab::new(), &written.url(), &["--offline"]);
    assert_eq!(result["status"], json!("Substituted"));
    // The derivation's own word: another one, so the cache is written for it.
    let recipe = Recipe::new("own", "echo own > $out").env("allowSubstitutes", "");
    let producer = Lab::new();
    producer.made(&recipe, &[]);
    let cache = format!("file://{}?trusted=1", producer.path().join("cache").display());
    let run = crate::store_verbs::ours(&producer, &["copy", "--to", &cache, "--all"]);
    assert_eq!(run.code, 0, "{run:?}");
    let (_, result) = Lab::new().make_json(&recipe, &["--substituters", &cache]);
    assert_eq!(result["status"], json!("Built"), "{result:#}");
    let recipe = Recipe::new("own", "echo own > $out").env("allowSubstitutes", "1");
    producer.made(&recipe, &[]);
    let run = crate::store_verbs::ours(&producer, &["copy", "--to", &cache, "--all"]);
    assert_eq!(run.code, 0, "{run:?}");
    let (_, result) = Lab::new().make_json(&recipe, &["--substituters", &cache]);
    assert_eq!(result["status"], json!("Substituted"), "{result:#}");
}

#[test]
fn nobody_is_believed_without_a_signature() {
    let written = Written::new("xz");
    let unsigned =
        |text: String| text.lines().filter(|line| !line.starts_with("Sig")).map(|line| format!("{line}\n")).collect();
    let lab = Lab::new();
    let other = "test-1:k+yGiTOGZfBbzu91mrysM5895ibA9ygOevV8SjG+x0Y=";
    let run = lab.run({
        let mut command = lab.command(&["store", "--store"]);
        command.arg(lab.store()).args(["copy", "--from", &written.url(), "--trusted-public-keys", other]);
        command.arg(written.top.to_string());
        command
    });
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("lacks a signature by a trusted key: its signatures are wrong"), "{}", run.stderr);
    absent(&written, &lab);
    for path in [&written.base, &written.top] {
        written.edit(path, unsigned);
    }
    let run = written.copy(&lab, &written.url(), &[]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("lacks a signature by a trusted key: it has none"), "{}", run.stderr);
    absent(&written, &lab);
    // A build goes on without.
    let (code, result) = written.build(&Lab::new(), &written.url(), &[]);
    assert_eq!((code, &result["status"]), (0, &json!("Built")), "{result:#}");
    // Unless somebody says so.
    let run = written.copy(&lab, &written.url(), &["--no-check-sigs"]);
    assert_eq!(run.code, 0, "{run:?}");
    complete(&written, &lab);
}

#[test]
fn caches_are_asked_in_the_order_of_their_priority() {
    let written = Written::new("xz");
    let (first, second) = (written.serve(), FaultyServerPair::start(&written));
    let info = written.directory().join("nix-cache-info");
    std::fs::write(info, "StoreDir: /nix/store\nPriority: 40\nWantMassQuery: 1\nFuture: x\nnonsense\n").expect("write");
    let bundle = written.lab.write(
        "both.pem",
        [std::fs::read(first.ca_file()), std::fs::read(second.0.ca_file())].map(Result::unwrap).concat(),
    );
    let urls = format!("{} {}?priority=10", first.url(), second.0.url());
    let (_, result) = written.build(&Lab::new(), &urls, &["--ca-file", bundle.to_str().expect("UTF-8")]);
    assert_eq!(result["status"], json!("Substituted"), "{result:#}");
    assert_eq!(first.requests(), ["/nix-cache-info"]);
    assert!(second.0.requests().len() > 1);
}

/// The same directory once more.
struct FaultyServerPair(super::server::FaultyServer);

impl FaultyServerPair {
    fn start(written: &Written) -> Self {
        FaultyServerPair(written.serve())
    }
}

#[test]
fn flags_are_refused_with_a_reason() {
    let lab = Lab::new();
    for (arguments, reason) in [
        (["--substituters", "s3://bucket"], "only https://, http:// and file:// are known"),
        (["--substituters", "https://x?trutsed=1"], "the parameter 'trutsed' is not known"),
        (["--trusted-public-keys", "nonsense"], "public key is corrupt"),
        (["--extra-trusted-public-keys", "k:AAAA"], "public key 'k' is not valid"),
    ] {
        let run = lab.build(&[arguments[0], arguments[1], "x.json"]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains(reason), "{}", run.stderr);
    }
}
