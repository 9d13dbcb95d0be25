//! What becomes of outputs: canonical form on disk, what is refused, references, and every way of declaring a hash.

use crate::{
    lab::{Lab, need},
    recipe::{Recipe, text},
};
use fodder_model::{
    content_address::ContentMethod,
    hash::{Hash, HashAlgorithm},
};
use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

/// Mode and time of everything in a tree, by path.
fn state(top: &Path) -> BTreeMap<String, (u32, i64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("metadata");
        let name = path.strip_prefix(top).expect("below the top").display().to_string();
        found.insert(name, (metadata.mode() & 0o7777, metadata.mtime()));
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("list").map(|entry| entry.expect("an entry").path()));
        }
    }
    found
}

#[test]
fn modes_and_times_are_canonical_on_disk() {
    let lab = Lab::new();
    let script = "mkdir $out; cd $out; for m in 000 001 010 100 111 444 644 755 1755 777; do echo > f$m; chmod $m f$m; done; \
                  mkdir -m 000 d000; mkdir d1777; echo x > d1777/deep; chmod 1777 d1777; ln -s nowhere link; touch -d 1990-01-01 f644";
    let out = lab.made(&Recipe::new("modes", script), &[]);
    for (name, (mode, time)) in state(&out) {
        let expected = match name.as_str() {
            "link" => 0o777,
            "" | "d000" | "d1777" | "f100" | "f111" | "f755" | "f1755" | "f777" => 0o555,
            _ => 0o444,
        };
        assert_eq!((format!("{mode:o}"), time), (format!("{expected:o}"), 1), "{name}");
    }
    assert_eq!(state(&out).len(), 15);
}

#[test]
fn everything_in_the_store_belongs_to_the_caller() {
    let lab = Lab::new();
    let out = lab.made(&Recipe::new("owner", "mkdir $out; echo > $out/f; ln -s x $out/l"), &[]);
    let me = std::fs::metadata(lab.path()).expect("metadata").uid();
    for path in [out.clone(), out.join("f"), out.join("l")] {
        assert_eq!(std::fs::symlink_metadata(&path).expect("metadata").uid(), me, "{}", path.display());
    }
}

#[test]
fn set_id_bits_do_not_survive() {
    let lab = Lab::new();
    // open(2) with these bits is not refused, as under Nix; cpio makes files that way where chmod fails.
    let out = lab.made(&Recipe::new("bits", "mkdir $out; cd $out; mkdir d; chmod 1777 d; mknod -m 1755 x p 2>/dev/null; rm -f x; echo > f; chmod 1777 f"), &[]);
    assert!(state(&out).values().all(|(mode, _)| mode & 0o7000 == 0), "{:?}", state(&out));
}

/// Attack: OUT-11. Layer: canonical form.
#[test]
fn hard_links_stay_links_of_each_other_and_of_nothing_else() {
    let lab = Lab::new();
    let out = lab.made(
        &Recipe::new("links", "mkdir $out; echo x > /build/f; echo x > $out/a; ln $out/a $out/b; cp /build/f $out/c"),
        &[],
    );
    let metadata = |name: &str| std::fs::metadata(out.join(name)).expect("metadata");
    assert_eq!(metadata("a").ino(), metadata("b").ino());
    assert_eq!((metadata("a").nlink(), metadata("c").nlink()), (2, 1));
    assert_eq!(metadata("b").mode() & 0o777, 0o444);
}

#[test]
fn outputs_with_special_files_are_refused() {
    let lab = Lab::new();
    for (name, script) in [("fifo", "mkfifo $out"), ("deep-fifo", "mkdir -p $out/a/b; mkfifo $out/a/b/p")] {
        let (code, result) = lab.make_json(&Recipe::new(name, script), &[]);
        assert_eq!((code, text(&result, "/status")), (1, "OutputRejected"), "{result:#}");
        assert!(text(&result, "/errorMsg").contains("has an unsupported type"), "{result:#}");
    }
}

#[test]
fn an_output_that_others_can_write_to_is_refused_at_its_top_only() {
    let lab = Lab::new();
    for (name, script) in
        [("group", "echo > $out; chmod 664 $out"), ("world", "mkdir -m 757 $out"), ("both", "mkdir -m 777 $out")]
    {
        let (code, result) = lab.make_json(&Recipe::new(name, script), &[]);
        assert_eq!(code, 1, "{result:#}");
        let words = text(&result, "/errorMsg");
        assert!(
            words.starts_with("suspicious ownership or permission on \"")
                && words.ends_with("for output 'out'; rejecting this build output"),
            "{words}"
        );
    }
    lab.made(&Recipe::new("inside", "mkdir $out; echo > $out/f; chmod 666 $out/f; mkdir -m 777 $out/d"), &[]);
    lab.made(&Recipe::new("link", "ln -s x $out"), &[]);
}

/// Attack: OUT-10. Layer: depth limit of archives.
#[test]
fn deep_trees_end_where_nix_s_archives_end() {
    let lab = Lab::new();
    let script = |levels: u32| {
        format!("mkdir $out; cd $out; i=1; while [ $i -lt {levels} ]; do mkdir d; cd d; i=$((i+1)); done")
    };
    lab.made(&Recipe::new("deep", &script(60)), &[]);
    let (code, result) = lab.make_json(&Recipe::new("too-deep", &script(80)), &[]);
    assert_eq!(code, 1, "{result:#}");
    assert!(text(&result, "/errorMsg").contains("maximum NAR directory depth of 64"), "{result:#}");
}

#[test]
fn what_the_builder_leaves_beside_its_outputs_is_dropped() {
    let lab = Lab::new();
    let recipe = Recipe::new(
        "extra",
        "echo > $out; echo > /nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-extra; mkdir /nix/store/x",
    );
    let out = lab.made(&recipe, &[]);
    let names: Vec<_> = std::fs::read_dir(out.parent().expect("a parent"))
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(
        names.iter().all(|name| name.to_string_lossy().contains("extra.drv")
            || name == out.file_name().expect("a name")
            || name.to_string_lossy().ends_with(".lock")
            || name == ".links"),
        "{names:?}"
    );
}

#[test]
fn a_cycle_between_outputs_is_refused_and_a_self_reference_is_not() {
    let lab = Lab::new();
    let recipe = Recipe::new("cycle", "echo $dev > $out; echo $out > $dev").output("dev");
    let (code, result) = lab.make_json(&recipe, &[]);
    assert_eq!((code, text(&result, "/status")), (1, "OutputRejected"), "{result:#}");
    assert!(
        text(&result, "/errorMsg").starts_with(&format!("cycle detected in build of '{}'", recipe.path())),
        "{result:#}"
    );
    let recipe = Recipe::new("self", "echo $out > $out");
    let (_, result) = lab.make_json(&recipe, &[]);
    assert_eq!(result["outputs"]["out"]["references"], serde_json::json!([recipe.out().to_string()]));
}

#[test]
fn references_are_found_in_contents_names_and_link_targets() {
    let lab = Lab::new();
    let input = lab.text("input", "x");
    let hash_part = &input.base_name()[..32];
    let all = serde_json::json!([input.to_string()]);
    let none = serde_json::json!([]);
    for (name, script, expected) in [
        ("contents", "echo $input > $out".to_owned(), &all),
        ("part", format!("echo aaa{hash_part}bbb > $out"), &all),
        ("name", format!("mkdir $out; touch $out/{hash_part}"), &all),
        ("target", format!("ln -s /x/{hash_part} $out"), &all),
        ("directory", format!("mkdir -p $out/{hash_part}/d"), &all),
        ("edge", format!("{{ yes x | head -c 131060; echo {hash_part}; }} > $out"), &all),
        ("upper", format!("echo {hash_part} | tr a-z A-Z > $out"), &none),
        (
            "split",
            format!("mkdir $out; printf {} > $out/a; printf {} > $out/b", &hash_part[..16], &hash_part[16..]),
            &none,
        ),
        ("nothing", "echo > $out".to_owned(), &none),
    ] {
        let (code, result) =
            lab.make_json(&Recipe::new(name, &script).env("input", &input.to_string()).source(&input), &[]);
        assert_eq!(code, 0, "{result:#}");
        assert_eq!(result["outputs"]["out"]["references"], *expected, "{name}");
    }
}

// --- declared hashes

/// Hash of the file "hi\n" or of the directory with that file as `f`, by fodder's own verb, which has tests of its own.
fn declared(lab: &Lab, path: &str, method: &str, algorithm: HashAlgorithm) -> Hash {
    lab.write("hashed/f", "hi\n");
    let run = lab.fodder(&["hash", path, "--mode", method, "--algo", algorithm.name()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    Hash::parse_sri(run.stdout.trim()).expect("a hash")
}

#[test]
fn every_method_takes_the_hashes_it_can_take() {
    let lab = Lab::new();
    for (method, algorithms) in [
        (ContentMethod::Flat, &["md5", "sha1", "sha256", "sha512", "blake3"][..]),
        (ContentMethod::Nar, &["md5", "sha1", "sha256", "sha512", "blake3"]),
        (ContentMethod::Text, &["sha256"]),
        (ContentMethod::Git, &["sha1", "sha256"]),
    ] {
        for algorithm in algorithms {
            let algorithm = HashAlgorithm::parse(algorithm).expect("an algorithm");
            let name = format!("{}-{}", method.name(), algorithm.name());
            let hash = declared(&lab, "hashed/f", method.name(), algorithm);
            let recipe = Recipe::new(&name, "echo hi > $out").fixed(method, &hash.to_sri());
            let (code, result) = lab.make_json(&recipe, &[]);
            assert_eq!(code, 0, "{name}: {result:#}");
            // Contents that differ are noticed, by every one of them.
            let recipe = Recipe::new(&name, "echo hI > $out").fixed(method, &hash.to_sri());
            let (code, result) = lab.make_json(&recipe, &["--rebuild"]);
            assert_eq!((code, text(&result, "/hash/specified")), (102, hash.to_sri().as_str()), "{name}: {result:#}");
            assert_ne!(result["hash"]["got"], result["hash"]["specified"]);
            if method == ContentMethod::Nar || method == ContentMethod::Git {
                let hash = declared(&lab, "hashed", method.name(), algorithm);
                let recipe =
                    Recipe::new(&format!("{name}-d"), "mkdir $out; echo hi > $out/f").fixed(method, &hash.to_sri());
                let (code, result) = lab.make_json(&recipe, &[]);
                assert_eq!(code, 0, "{name}: {result:#}");
            }
        }
    }
}

#[test]
fn flat_and_text_take_a_plain_file_only() {
    let lab = Lab::new();
    for method in [ContentMethod::Flat, ContentMethod::Text] {
        for (name, script) in
            [("directory", "mkdir $out"), ("program", "echo hi > $out; chmod +x $out"), ("link", "ln -s x $out")]
        {
            let recipe = Recipe::new(&format!("{name}-{}", method.name()), script)
                .fixed(method, &Hash::of(HashAlgorithm::Sha256, b"hi\n").to_sri());
            let (code, result) = lab.make_json(&recipe, &[]);
            assert_eq!((code, text(&result, "/status")), (1, "OutputRejected"), "{result:#}");
            assert!(text(&result, "/errorMsg").contains("should be a non-executable regular file"), "{result:#}");
        }
    }
}

#[test]
fn every_spelling_of_a_hash_means_the_same() {
    let lab = Lab::new();
    need("bash", "bash");
    let hash = Hash::of(HashAlgorithm::Sha256, b"hi\n");
    let mut paths = std::collections::BTreeSet::new();
    for (spelling, algorithm) in [
        (hash.to_sri(), None),
        (hash.to_base16(), Some("sha256")),
        (hash.to_base16().to_uppercase(), Some("sha256")),
        (hash.to_nix32(), Some("sha256")),
        (hash.to_base64(), Some("sha256")),
        (format!("sha256:{}", hash.to_base16()), None),
        (format!("sha256:{}", hash.to_nix32()), None),
        (format!("sha256:{}", hash.to_base64()), None),
        (hash.to_sri(), Some("sha256")),
        (format!("{}?a-comment", hash.to_sri()), None),
        (hash.to_sri().trim_end_matches('=').to_owned(), None),
    ] {
        let mut form = serde_json::json!({ "name": "spelt", "dontUnpack": true, "installPhase": "echo hi > $out", "outputHash": spelling });
        if let Some(algorithm) = algorithm {
            form["outputHashAlgo"] = algorithm.into();
        }
        lab.write("spelt.json", form.to_string());
        let (code, result) = lab.build_json(&["--rebuild", "spelt.json"]);
        assert_eq!(code, 0, "{spelling}: {result:#}");
        paths.insert(text(&result, "/outputs/out/path").to_owned());
    }
    assert_eq!(paths.len(), 1, "{paths:?}");
    lab.write(
        "spelt.json",
        serde_json::json!({ "name": "x", "outputHash": hash.to_sri(), "outputHashAlgo": "sha1", "installPhase": "x" })
            .to_string(),
    );
    let run = lab.build(&["spelt.json"]);
    assert_eq!(run.code, 100);
    assert!(run.stderr.contains("should have type 'sha1'"), "{}", run.stderr);
}

#[test]
fn an_empty_hash_asks_for_it() {
    let lab = Lab::new();
    lab.write("ask.json", r#"{"name": "ask", "dontUnpack": true, "installPhase": "mkdir $out; echo hi > $out/f", "outputHash": "", "outputHashMode": "recursive"}"#);
    let (code, result) = lab.build_json(&["ask.json"]);
    assert_eq!((code, text(&result, "/status")), (102, "HashMismatch"), "{result:#}");
    let got = text(&result, "/hash/got").to_owned();
    lab.write(
        "told.json",
        std::fs::read_to_string(lab.path().join("ask.json"))
            .expect("read")
            .replace("\"outputHash\": \"\"", &format!("\"outputHash\": \"{got}\"")),
    );
    let run = lab.build(&["told.json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}
