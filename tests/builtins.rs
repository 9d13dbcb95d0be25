//! Builders that are part of the program, against real servers and real Nix.

use crate::{
    https::{build, fetch, must_build, text},
    lab::{Lab, need},
    oracle::nix::Nix,
    recipe::Recipe,
    server::Server,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::process::Command;

/// A download by the program itself, in the sandbox that any other builder gets.
fn builtin_fetch(contents: &[u8], url: &str) -> Value {
    let mut form = fetch(contents, &[], url);
    form["builder"] = "builtin:fetchurl".into();
    form["system"] = "builtin".into();
    form["fodder"] = json!({ "profile": "nix" });
    form
}

/// Attack: DRV-1, NET-3, CVE-2024-47174. Layer: schemes and certificates of the built-in fetcher.
#[test]
fn the_built_in_fetcher_verifies_and_fetches_nothing_but_http() {
    let server = Server::start();
    let url = server.add("page", "hello\n");
    let ca_file = server.ca_file();
    must_build(&server, &builtin_fetch(b"hello\n", &url));
    let fails = |form: &Value, arguments: &[&str], code: i32, words: &str| {
        let run = build(&Lab::new(), form, arguments, &[]);
        assert_eq!(run.code, code, "{form}: {run:?}");
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    };
    let trusting = ["--ca-file", text(&ca_file)];
    // Without the server's authority nothing is fetched, and there is no switch for that.
    fails(&builtin_fetch(b"hello\n", &url), &[], 100, "certificate");
    fails(&builtin_fetch(b"other\n", &url), &trusting, 102, "hash mismatch");
    fails(&builtin_fetch(b"x", &server.url("nothing")), &trusting, 100, "HTTP error 404");
    for local in ["file:///etc/resolv.conf", "file:///proc/self/environ", "/etc/passwd", "ftp://127.0.0.1/x"] {
        fails(&builtin_fetch(b"x", local), &trusting, 100, "only http:// and https:// are fetched");
    }
    let mut without_hash = builtin_fetch(b"hello\n", &url);
    for name in ["outputHash", "outputHashAlgo", "outputHashMode"] {
        without_hash.as_object_mut().expect("an object").remove(name);
    }
    fails(&without_hash, &trusting, 100, "must be a fixed-output or impure derivation");
}

/// A greeting, compressed.
fn compress(program: &str, package: &str) -> Vec<u8> {
    let lab = Lab::new();
    lab.write("page", "hello\n");
    let run = Command::new(need(program, package))
        .arg("-c")
        .arg(lab.path().join("page"))
        .output()
        .expect("a program that runs");
    assert!(run.status.success(), "{program}: {run:?}");
    run.stdout
}

/// Some servers encode without having been asked. Nix undoes that, and so must whoever has a hash from Nix.
#[test]
fn what_a_server_encodes_on_the_way_is_decoded() {
    let server = Server::start();
    for (coding, program, package) in [
        ("gzip", "gzip", "gzip"),
        ("x-gzip", "gzip", "gzip"),
        ("xz", "xz", "xz-utils"),
        ("bzip2", "bzip2", "bzip2"),
        ("zstd", "zstd", "zstd"),
    ] {
        let encoded = compress(program, package);
        let url = server.add(&format!("encoded/{coding}/page"), &encoded);
        must_build(&server, &builtin_fetch(b"hello\n", &url));
    }
    let mut damaged = compress("gzip", "gzip");
    damaged.truncate(damaged.len() - 4);
    for (name, contents, words) in [
        ("encoded/gzip/cut", damaged, "unable to download"),
        ("encoded/rot13/page", b"uryyb".to_vec(), "encoded it as 'rot13'"),
    ] {
        let url = server.add(name, contents);
        let run = build(&Lab::new(), &builtin_fetch(b"hello\n", &url), &["--ca-file", text(&server.ca_file())], &[]);
        assert_eq!(run.code, 100, "{run:?}");
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
}

/// Attack: DRV-1, CVE-2024-51481. Layer: built-in builders run in the sandbox.
#[test]
fn the_built_in_fetcher_runs_under_the_protections_of_any_builder() {
    let server = Server::start();
    let url = server.add("page", "hello\n");
    let lab = Lab::new();
    lab.write("derivation.json", builtin_fetch(b"hello\n", &url).to_string());
    let ca_file = server.ca_file();
    let (code, result) =
        lab.build_json(&["--ca-file", text(&ca_file), "--allow-loopback", &server.port(), "derivation.json"]);
    assert_eq!(code, 0, "{result:#}");
    let isolation = &result["isolation"];
    for protection in ["noCapabilities", "noNewPrivileges"] {
        assert_eq!(isolation[protection], true, "{isolation:#}");
    }
    assert!(isolation["seccompInstructions"].as_u64().expect("a filter") > 100, "{isolation:#}");
    for namespace in ["user", "mount", "pid", "ipc", "uts", "network"] {
        let found = isolation["namespaces"].as_array().expect("namespaces");
        assert!(found.contains(&json!(namespace)), "{namespace}: {isolation:#}");
    }
}

/// The NAR of an executable file and its hash.
fn archive() -> (Vec<u8>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "#!/bin/sh\n").expect("write");
    let mut permissions = std::fs::metadata(&file).expect("metadata").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&file, permissions).expect("make executable");
    let (nar, _) = fodder_store::dump(&file, Vec::new()).expect("a NAR");
    let hash = Sha256::digest(&nar).iter().map(|byte| format!("{byte:02x}")).collect();
    (nar, hash)
}

#[test]
fn archives_are_unpacked_and_decompressed_by_their_name() {
    let server = Server::start();
    let (nar, hash) = archive();
    let lab = Lab::new();
    need("xz", "xz-utils");
    lab.write("x.nar", &nar);
    let compressed = lab.run({
        let mut command = Command::new("xz");
        command.args(["-k", "x.nar"]).current_dir(lab.path());
        command
    });
    assert_eq!(compressed.code, 0, "{}", compressed.stderr);
    let xz = std::fs::read(lab.path().join("x.nar.xz")).expect("read");
    let form = |url: &str| {
        let mut form = builtin_fetch(b"", url);
        form["unpack"] = true.into();
        form["outputHashMode"] = "nar".into();
        form["outputHash"] = hash.clone().into();
        form
    };
    must_build(&server, &form(&server.add("x.nar", &nar)));
    must_build(&server, &form(&server.add("x.nar.xz", &xz)));
    let mut longer = nar.clone();
    longer.extend(b"more");
    let ca_file = server.ca_file();
    for (name, contents, words) in [
        ("longer", longer, "the archive goes on after its end"),
        ("not-decompressed", xz, "input doesn't look like a Nix archive"),
        ("cut", nar[..nar.len() / 2].to_vec(), "it ends after"),
    ] {
        let run = build(&Lab::new(), &form(&server.add(name, contents)), &["--ca-file", text(&ca_file)], &[]);
        assert_eq!(run.code, 100, "{name}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{name}: {}", run.stderr);
    }
}

#[test]
fn an_executable_is_made_one() {
    let server = Server::start();
    let (_, hash) = archive();
    let mut form = builtin_fetch(b"", &server.add("script", "#!/bin/sh\n"));
    form["executable"] = true.into();
    form["outputHashMode"] = "nar".into();
    form["outputHash"] = hash.into();
    must_build(&server, &form);
}

#[test]
fn mirrors_that_know_files_by_hash_come_first_and_may_fail() {
    let server = Server::start();
    let hash: String = Sha256::digest(b"hello\n").iter().map(|byte| format!("{byte:02x}")).collect();
    let url = server.add("page", "hello\n");
    let mirrors = format!("{} {}", server.url("empty/"), server.url("mirror"));
    let ca_file = server.ca_file();
    let arguments = ["--ca-file", text(&ca_file), "--hashed-mirrors", &mirrors];
    let run = build(&Lab::new(), &builtin_fetch(b"hello\n", &url), &arguments, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let asked = [format!("GET /empty/sha256/{hash}"), format!("GET /mirror/sha256/{hash}"), "GET /page".to_owned()];
    assert_eq!(server.requests(), asked);
    server.add(&format!("mirror/sha256/{hash}"), "hello\n");
    let run = build(&Lab::new(), &builtin_fetch(b"hello\n", &server.url("gone")), &arguments, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(server.requests().len(), 5, "nothing is asked for after the mirror that had it");
    // A derivation cannot name mirrors of its own.
    let mut own = builtin_fetch(b"hello\n", &server.url("gone"));
    own["env"] = json!({ "fodder:mirrors": format!("{}/sha256/{hash}", server.url("mirror")) });
    let run = build(&Lab::new(), &own, &["--ca-file", text(&ca_file)], &[]);
    assert_eq!(run.code, 100, "{}", run.stderr);
}

#[test]
fn passwords_reach_the_fetcher_and_no_other_builder() {
    let server = Server::start();
    let url = server.add("private/page", "hello\n");
    let ca_file = server.ca_file();
    let lab = Lab::new();
    let netrc =
        lab.write("netrc", "machine elsewhere login a password b\nmachine localhost login me password s3cret\n");
    let without = build(&Lab::new(), &builtin_fetch(b"hello\n", &url), &["--ca-file", text(&ca_file)], &[]);
    assert_eq!(without.code, 100, "{}", without.stderr);
    assert!(without.stderr.contains("HTTP error 401"), "{}", without.stderr);
    let arguments = ["--ca-file", text(&ca_file), "--netrc-file", text(&netrc)];
    let run = build(&lab, &builtin_fetch(b"hello\n", &url), &arguments, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    // What stays of a failed build is closed to others.
    let lab = Lab::new();
    let run = build(&lab, &builtin_fetch(b"other\n", &url), &[&arguments[..], &["--keep-failed"]].concat(), &[]);
    assert_eq!(run.code, 102, "{}", run.stderr);
    let kept = run.stderr.split("keeping build directory \"").nth(1).and_then(|rest| rest.split('"').next());
    let passwords = std::path::Path::new(kept.expect("a directory")).join("build").join(fodder_model::plan::NETRC_FILE);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(passwords).expect("the file"));
    assert_eq!(mode & 0o777, 0o600);
    let large = lab.write("large", vec![b' '; (1 << 20) + 1]);
    let run =
        build(&lab, &builtin_fetch(b"x", &url), &["--ca-file", text(&ca_file), "--netrc-file", text(&large)], &[]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("it is larger than 1048576 bytes"), "{}", run.stderr);
    let form = fetch(b"no netrc\n", &["test ! -e /build/netrc && echo no netrc > $out"], &url);
    let run = build(&Lab::new(), &form, &arguments, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// Expressions that real Nix and fodder build alike, or refuse alike.
const EXPRESSIONS: &str = r#"
let
  make = name: script: attributes: derivation ({ inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" script ]; } // attributes);
  farm = name: derivations: derivation { inherit name derivations; system = "builtin"; builder = "builtin:buildenv"; manifest = builtins.toFile "manifest" "m"; };
  one = make "one" "mkdir -p $out/bin $out/share/a $out/lib/x $out/nix-support $out/info; echo 1 > $out/bin/one; echo > $out/share/a/f; echo > $out/lib/x/y; echo > $out/.hidden; echo > $out/nix-support/z; ln -s nowhere $out/dangling; echo > $out/info/dir; echo > $out/log; echo > $out/manifest.nix; echo > $out/info/kept" {};
  two = make "two" "mkdir -p $out/bin $out/share/a $out/only/deep; echo 2 > $out/bin/two; echo > $out/share/a/g; echo > $out/only/deep/f" {};
  same = make "same" "mkdir -p $out/bin; echo 3 > $out/bin/one" {};
  file = make "file" "echo > $out" {};
  propagates = make "propagates" "mkdir -p $out/nix-support $out/p; echo > $out/p/q; echo ${two} > $out/nix-support/propagated-user-env-packages" {};
  notdir = make "notdir" "mkdir -p $out; echo > $out/bin" {};
  tar = name: script: make name ("mkdir top; echo x > top/file; chmod +x top/file; ln -s file top/link; mkdir top/empty; " + script) {};
  channel = name: src: derivation { inherit name src; system = "builtin"; builder = "builtin:unpack-channel"; channelName = "chan"; };
in {
  single = farm "single" [ "true" 5 1 one ];
  merged = farm "merged" [ "true" 5 1 one "true" 5 1 two ];
  inactive = farm "inactive" [ "true" 5 1 one "false" 5 1 two ];
  stronger = farm "stronger" [ "true" 5 1 one "true" 3 1 same ];
  weaker = farm "weaker" [ "true" 5 2 one two "true" 7 1 same ];
  conflict = farm "conflict" [ "true" 5 1 one "true" 5 1 same ];
  afile = farm "afile" [ "true" 5 2 one file ];
  propagated = farm "propagated" [ "true" 5 1 propagates "true" 5 1 one ];
  collision = farm "collision" [ "true" 5 1 two "true" 5 1 notdir ];
  nothing = farm "nothing" [ ];
  plain = channel "plain" (tar "plain.tar" "tar -cf $out top");
  gzip = channel "gzip" (tar "gzip" "tar -cf - top | gzip > $out");
  two-at-top = channel "two-at-top" (tar "two" "tar -cf $out top/file top/link; mkdir other; tar -cf $out top other");
  slash = derivation { name = "slash"; src = file; system = "builtin"; builder = "builtin:unpack-channel"; channelName = "a/b"; };
}
"#;

#[test]
fn farms_and_channels_are_those_of_nix() {
    need("busybox", "busybox-static");
    let nix = Nix::new();
    let file = nix.lab.write("all.nix", EXPRESSIONS);
    let file = file.to_str().expect("UTF-8");
    for (name, words) in [
        ("single", None),
        ("merged", None),
        ("inactive", None),
        ("stronger", None),
        ("weaker", None),
        ("afile", None),
        ("propagated", None),
        ("nothing", None),
        ("plain", None),
        ("gzip", None),
        (
            "conflict",
            Some(("have the same priority 5", "Unable to build profile. There is a conflict for the following files")),
        ),
        (
            "collision",
            Some(("have the same priority 5", "Unable to build profile. There is a conflict for the following files")),
        ),
        ("two-at-top", Some(("contains more than one file", "contains more than one file"))),
        ("slash", Some(("builder for", "channelName is not allowed to contain filesystem separators, got a/b"))),
    ] {
        let expression = format!("(import {file}).{name}");
        let endings = nix.both(name, &expression);
        match words {
            None => nix.same_outputs(name, &endings),
            // Those of Nix 2.8, and of 2.34.
            Some((old, words)) => {
                assert_ne!(endings.nix.code, 0, "{name}: {}", endings.nix.stderr);
                assert!(endings.nix.stderr.contains(old), "{name}: {}", endings.nix.stderr);
                assert_eq!(endings.fodder.code, 100, "{name}: {}", endings.fodder.stderr);
                assert!(endings.fodder.stderr.contains(words), "{name}: {}", endings.fodder.stderr);
            }
        }
    }
}

#[test]
fn what_built_in_builders_are_given_is_checked_before() {
    let lab = Lab::new();
    for (builder, structured, words) in [
        ("builtin:buildenv", true, "gives structured attributes to 'builtin:buildenv', which reads variables"),
        ("builtin:fetchurl", false, "'builtin:fetchurl' must be a fixed-output or impure derivation"),
    ] {
        let mut recipe = Recipe::new("given", "").system("builtin");
        recipe.parts.builder = builder.into();
        recipe = recipe.env("builder", builder);
        if structured {
            recipe = recipe.structured(json!({ "manifest": "/nowhere", "derivations": [] }));
        }
        let (code, result) = lab.make_json(&recipe, &[]);
        assert_eq!((code, &result["status"]), (100, &json!("InputRejected")), "{result:#}");
        assert!(result["errorMsg"].as_str().is_some_and(|message| message.contains(words)), "{result:#}");
    }
}
