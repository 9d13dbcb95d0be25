//! Caches and lines that fail, and runs that are killed: nothing half-written is ever valid.

use super::{Written, absent, complete, server::Fault};
use crate::lab::Lab;
use serde_json::json;
use std::time::{Duration, Instant};

const ALWAYS: usize = 1000;

/// What is wrong, on which file, and what is said about it.
fn faults(written: &Written) -> Vec<(String, Fault, &'static str)> {
    let archive = written.archive(&written.base);
    let narinfo = format!("{}.narinfo", written.base.hash_part());
    vec![
        (archive.clone(), Fault::Status(404), "HTTP error 404"),
        (archive.clone(), Fault::Status(500), "HTTP error 500"),
        (archive.clone(), Fault::Cut(0), "unable to download"),
        (archive, Fault::Garbled, "hash mismatch importing path"),
        (narinfo.clone(), Fault::Status(404), "no binary cache has it"),
        (narinfo.clone(), Fault::Status(503), "HTTP error 503"),
        (narinfo, Fault::Garbled, "binary cache"),
        ("nix-cache-info".to_owned(), Fault::Status(404), "is not a binary cache"),
        ("nix-cache-info".to_owned(), Fault::Status(500), "HTTP error 500"),
    ]
}

/// Attack: PARSE-6. Layer: unpacking in scratch, hash before publishing.
#[test]
fn whatever_is_broken_nothing_of_it_becomes_valid_and_a_build_goes_on() {
    let written = Written::new("none");
    let server = written.serve();
    for (file, fault, reason) in faults(&written) {
        server.heal();
        server.fault(&file, fault.clone(), ALWAYS);
        let lab = Lab::new();
        let ca_file = server.ca_file();
        let run = written.copy(&lab, &server.url(), &["--ca-file", &ca_file]);
        assert_eq!(run.code, 1, "{file} {fault:?}: {run:?}");
        assert!(run.stderr.contains(reason), "{file} {fault:?}: {}", run.stderr);
        absent(&written, &lab);
    }
    // One of them in a build: said, and built instead.
    server.heal();
    server.fault(&written.archive(&written.base), Fault::Garbled, ALWAYS);
    let lab = Lab::new();
    let (code, result) = written.build(&lab, &server.url(), &["--ca-file", &server.ca_file()]);
    assert_eq!((code, &result["status"]), (0, &json!("Built")), "{result:#}");
    complete(&written, &lab);
}

#[test]
fn what_fails_for_a_while_is_tried_again() {
    let written = Written::new("none");
    for knows_ranges in [true, false] {
        let server = written.serve();
        if !knows_ranges {
            server.forget_ranges();
        }
        let archive = written.archive(&written.base);
        server.fault("nix-cache-info", Fault::Status(503), 1);
        server.fault(".narinfo", Fault::Status(500), 1);
        server.fault(&archive, Fault::Status(502), 1);
        server.fault(&archive, Fault::Cut(400_000), 2);
        let lab = Lab::new();
        let (code, result) = written.build(&lab, &server.url(), &["--ca-file", &server.ca_file()]);
        assert_eq!((code, &result["status"]), (0, &json!("Substituted")), "{result:#}");
        complete(&written, &lab);
        let asked: Vec<String> = server.requests().into_iter().filter(|request| request.contains(&archive)).collect();
        // The refusal, the first cut, the second, the rest.
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert_eq!(asked[0], asked[1]);
        // What arrived is not asked for again; a record of TLS that was cut may have been lost.
        let range =
            |request: &str| request.split_once(" bytes=").map(|(_, range)| range.trim_end_matches('-').to_owned());
        let first: usize = range(&asked[2]).expect("a range").parse().expect("a number");
        assert!((300_000..=400_000).contains(&first), "{asked:?}");
        assert!(range(&asked[3]).is_some(), "{asked:?}");
    }
}

#[test]
fn another_cache_gives_what_the_first_promised() {
    let written = Written::new("none");
    let (bad, good) = (written.serve(), written.serve());
    bad.fault(&written.archive(&written.base), Fault::Garbled, ALWAYS);
    let both = [std::fs::read(bad.ca_file()), std::fs::read(good.ca_file())].map(Result::unwrap).concat();
    let bundle = written.lab.write("both.pem", both);
    let lab = Lab::new();
    let urls = format!("{} {}", bad.url(), good.url());
    let (_, result) = written.build(&lab, &urls, &["--ca-file", bundle.to_str().expect("UTF-8")]);
    assert_eq!(result["status"], json!("Substituted"), "{result:#}");
    complete(&written, &lab);
}

/// Attack: PARSE-7, PARSE-8, PARSE-12. Layer: narinfo reader, asked path, promised size.
#[test]
fn hostile_narinfos_are_refused() {
    let written = Written::new("none");
    let top = written.top.to_string();
    let original = std::fs::read_to_string(written.narinfo(&written.top)).expect("a narinfo");
    let line = |name: &str| original.lines().find(|line| line.starts_with(name)).expect("a field").to_owned();
    let secret = written.lab.write("victim", "secret");
    for (from, to, reason) in [
        (line("URL"), format!("URL: ../../..{}", secret.display()), "which is not in the cache"),
        (line("URL"), format!("URL: {}", secret.display()), "which is not in the cache"),
        (line("URL"), format!("URL: file://{}", secret.display()), "lacks the file"),
        (line("Compression"), "Compression: lzop".to_owned(), "compressed as 'lzop'; known are none, xz"),
        (line("Compression"), "Compression: xz".to_owned(), "cannot unpack"),
        (line("NarSize"), "NarSize: 1".to_owned(), "lacks a signature"),
        (line("References"), "References: ".to_owned(), "lacks a signature"),
        (line("NarHash"), "NarHash: sha256:x".to_owned(), "bad hash at line 6"),
        (line("NarSize"), format!("{0}\n{0}", line("NarSize")), "extra NarSize at line 8"),
        (line("StorePath"), format!("StorePath: {}", written.base), "was asked for"),
    ] {
        std::fs::write(written.narinfo(&written.top), original.replace(&from, &to)).expect("write the narinfo");
        let lab = Lab::new();
        let run = written.copy(&lab, &written.url(), &[]);
        assert_eq!(run.code, 1, "{to}: {run:?}");
        assert!(run.stderr.contains(reason), "{to}: {}", run.stderr);
        assert!(!lab.real(&written.top).exists(), "{top}");
    }
    // A size that is too small stops the unpacking, also where nobody asks for a signature.
    std::fs::write(written.narinfo(&written.top), &original).expect("write the narinfo");
    written.edit(&written.base, |text| {
        let size = text.lines().find(|line| line.starts_with("NarSize")).expect("a size").to_owned();
        text.replace(&size, "NarSize: 4096")
    });
    let lab = Lab::new();
    let run = written.copy(&lab, &written.url(), &["--no-check-sigs"]);
    assert!(run.stderr.contains("size mismatch importing path"), "{}", run.stderr);
    absent(&written, &lab);
    // Another store directory.
    std::fs::write(written.directory().join("nix-cache-info"), "StoreDir: /gnu/store\n").expect("write");
    let run = written.copy(&lab, &written.url(), &[]);
    assert!(run.stderr.contains("is for Nix stores with prefix '/gnu/store', not '/nix/store'"), "{}", run.stderr);
}

#[test]
fn paths_that_refer_to_each_other_are_refused_and_waited_for_by_nobody() {
    let written = Written::new("none");
    let base_name = written.top.base_name().to_owned();
    written.edit(&written.base, |text| text.replace("References: ", &format!("References: {base_name}")));
    let lab = Lab::new();
    let run = written.copy(&lab, &written.url(), &["--no-check-sigs"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("cannot be copied either"), "{}", run.stderr);
    absent(&written, &lab);
}

#[test]
fn a_run_that_is_killed_leaves_nothing_that_the_next_one_minds() {
    let written = Written::new("none");
    let server = written.serve();
    server.fault(&written.archive(&written.base), Fault::Slow(20_000, 100), 1);
    let lab = Lab::new();
    written.lab.write("chain.json", fodder_model::derivation::json::write_set(&written.chain.set));
    let command = || {
        let mut command = lab.command(&["build", "--no-link", "--json", "--store"]);
        command.arg(lab.store()).args(["--substituters", &server.url(), "--trusted-public-keys", &written.key]);
        command.args(["--ca-file", &server.ca_file()]).arg(written.lab.path().join("chain.json"));
        command
    };
    let mut killed = command().stdout(std::process::Stdio::null()).spawn().expect("start");
    // Half way: something is on the disk.
    let builds = lab.store().join("nix/var/nix/builds");
    let is_unpacking = || {
        let mut entries = std::fs::read_dir(&builds).into_iter().flatten().flatten();
        entries.any(|entry| entry.path().join("object/numbers").metadata().is_ok_and(|status| status.len() > 10_000))
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_unpacking() {
        assert!(Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(Duration::from_millis(20));
    }
    killed.kill().expect("kill");
    killed.wait().expect("wait");
    assert!(!lab.real(&written.base).exists() && !lab.real(&written.top).exists());
    let run = crate::store_verbs::ours(&lab, &["path-info", &written.base.to_string()]);
    assert_ne!(run.code, 0, "{run:?}");
    let run = lab.run(command());
    assert!(run.stdout.contains("\"status\":\"Substituted\""), "{run:?}");
    complete(&written, &lab);
}

#[test]
fn two_processes_download_a_path_once() {
    let written = Written::new("none");
    let server = written.serve();
    server.fault(&written.archive(&written.base), Fault::Slow(100_000, 100), ALWAYS);
    let lab = Lab::new();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| written.copy(&lab, &server.url(), &["--ca-file", &server.ca_file()])))
            .collect();
        for run in runs {
            let run = run.join().expect("no panic");
            assert_eq!(run.code, 0, "{run:?}");
        }
    });
    complete(&written, &lab);
    for path in [&written.base, &written.top] {
        let archive = format!("/{}", written.archive(path));
        assert_eq!(server.requests().iter().filter(|request| **request == archive).count(), 1);
    }
}
