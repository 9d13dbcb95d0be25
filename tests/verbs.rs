//! The verbs beside building: show, explain, hash, refs.

use crate::{
    lab::{Lab, need},
    recipe::{Recipe, text},
};
use fodder_build::{BuildRequest, load};
use fodder_model::{content_address::ContentMethod, derivation::aterm, limits::parse_setting};
use fodder_store::Store;
use serde_json::Value;
use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

const SHORT: &str = r#"{
    "name": "short", "greeting": "grüß \"Gott\"", "outputs": ["out", "doc"], "dontUnpack": true,
    "buildPhase": ["echo one", "echo two > file"],
    "installPhase": "mkdir $out $doc; cp file $out; echo \"$greeting\" > $doc/greeting"
}"#;

// --- show

#[test]
fn what_show_prints_is_read_back_to_the_same_derivation() {
    let lab = Lab::new();
    lab.write("short.json", SHORT);
    let path = lab.fodder(&["show", "--format", "path", "short.json"]).stdout;
    let outputs = lab.fodder(&["show", "--format", "outputs", "short.json"]).stdout;
    assert!(path.starts_with("/nix/store/") && path.ends_with("-short.drv\n"), "{path}");
    assert_eq!(outputs.lines().count(), 2, "{outputs}");
    let printed = lab.fodder(&["show", "short.json"]).stdout;
    lab.write("four.json", &printed);
    let text = lab.fodder(&["show", "--format", "aterm", "short.json"]).stdout;
    lab.write("short.drv", &text);
    for file in ["four.json", "short.drv"] {
        assert_eq!(lab.fodder(&["show", "--format", "path", file]).stdout, path, "{file}");
        assert_eq!(lab.fodder(&["show", "--format", "outputs", file]).stdout, outputs, "{file}");
        assert_eq!(lab.fodder(&["show", "--format", "aterm", file]).stdout, text, "{file}");
        assert_eq!(lab.fodder(&["show", file]).stdout, printed, "{file}");
    }
    let value: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(value["version"], 4);
}

#[test]
fn show_prints_fixed_structured_and_floating_derivations_alike() {
    let lab = Lab::new();
    let structured = Recipe::new("structured", "true")
        .structured(serde_json::json!({ "a": [1, true, null, 1.5], "b": { "c": "é" }, "name": "structured" }));
    for recipe in
        [Recipe::new("fixed", "x").fixed_to("y"), structured, Recipe::new("many", "x").output("dev").output("a")]
    {
        let file = recipe.write(&lab);
        let run = lab.fodder(&["show", "--format", "aterm", file.to_str().expect("UTF-8")]);
        assert_eq!(run.stdout.as_bytes(), aterm::write(&recipe.derivation()), "{}", run.stderr);
        assert_eq!(lab.fodder(&["show", file.to_str().expect("UTF-8")]).stdout.trim_end(), recipe.json());
    }
}

// --- explain

#[test]
fn the_plan_that_explain_prints_is_the_plan_that_is_executed() {
    let lab = Lab::new();
    lab.write("short.json", SHORT);
    let tool = lab.text("tool", "x");
    let recipe = Recipe::new("plain", "echo $tool > $out").env("tool", &tool.to_string()).source(&tool);
    let fixed = Recipe::new("fixed", "echo hi > $out").fixed_to("hi\n");
    let store = Store::open(&lab.store()).expect("open the store");
    for file in [recipe.write(&lab), fixed.write(&lab), lab.path().join("short.json")] {
        let store_root = lab.store();
        // A short form's sources are in the store only once it is built; explain takes them as if they were.
        let (root, path) = (store_root.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
        // What is free on a disk changes all the time, and with it these.
        let volatile = ["scratch-size=1G", "scratch-files=1000"];
        let arguments = ["explain", "--json", "--limit", volatile[0], "--limit", volatile[1], "--store", root, path];
        let run = lab.fodder(&arguments);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(lab.build(&[file.to_str().expect("UTF-8")]).code, 0);
        assert_eq!(lab.fodder(&arguments).stdout, run.stdout, "building changes nothing about the plan");

        let request = load::LoadRequest { wanted: None, system: fodder_build::host::system() };
        let loaded = load::load(&file, &request, &mut |_| None).expect("load");
        let mut request = BuildRequest::default();
        request.settings.limits = volatile.map(|text| parse_setting(text).expect("a limit")).into();
        let prepared = fodder_build::prepare(&loaded, &store, &request).expect("prepare").expect("a plan");
        let root = prepared.plan.sandbox.root_mount_point.to_string();
        let scratch =
            Path::new(&root).parent().expect("a parent").file_name().expect("a name").to_str().expect("UTF-8");
        let executed = serde_json::to_string(&prepared.plan).expect("JSON").replace(scratch, "SCRATCH");
        let (executed, explained): (Value, Value) =
            (serde_json::from_str(&executed).expect("JSON"), serde_json::from_str(&run.stdout).expect("JSON"));
        assert_eq!(executed["sandbox"], explained["sandbox"], "{}", file.display());
        assert_eq!(executed, explained, "{}", file.display());
    }
}

#[test]
fn explain_tells_people_why_there_is_a_network_or_none() {
    let lab = Lab::new();
    let explain = |recipe: &Recipe| {
        let file = recipe.write(&lab);
        lab.fodder(&["explain", "--store", "store", file.to_str().expect("UTF-8")]).stdout
    };
    let plain = explain(&Recipe::new("plain", "true"));
    assert!(plain.contains("\n  none         because no output hash is declared"), "{plain}");
    let fixed = explain(&Recipe::new("fixed", "true").fixed_to(""));
    assert!(fixed.contains("\n  gateway      because "), "{fixed}");
    for heading in ["Namespaces", "Identity", "Root", "Builder", "Environment", "Limits", "Afterwards"] {
        assert!(plain.contains(&format!("\n{heading}\n")), "no {heading}: {plain}");
    }
    assert!(plain.contains("\n  HOME=/homeless-shelter\n"), "{plain}");
    assert!(!plain.contains("outside      uid 0"), "{plain}");
}

#[test]
fn explain_builds_nothing_and_writes_nothing() {
    let lab = Lab::new();
    lab.write("short.json", SHORT);
    let run = lab.fodder(&["explain", "--store", "store", "short.json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(!lab.store().exists());
}

#[test]
fn explain_refuses_what_build_refuses() {
    let lab = Lab::new();
    let file = Recipe::new("foreign", "true").system("foo-bar").write(&lab);
    let run = lab.fodder(&["explain", "--store", "store", file.to_str().expect("UTF-8")]);
    assert_eq!(run.code, 100);
    assert!(run.stderr.contains("platform mismatch"), "{}", run.stderr);
}

// --- hash and refs

/// A tree with every kind of file.
fn tree(lab: &Lab) -> std::path::PathBuf {
    lab.write("tree/plain", "hi\n");
    let program = lab.write("tree/sub/program", "#!/bin/sh\n");
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("chmod");
    lab.write("tree/sub.x", "sorts between");
    lab.write("tree/ünï", "");
    symlink("sub/program", lab.path().join("tree/link")).expect("link");
    lab.path().join("tree")
}

#[test]
fn hashes_are_those_of_nix_hash_in_every_base() {
    let nix_hash = need("nix-hash", "nix-bin");
    let lab = Lab::new();
    tree(&lab);
    for path in ["tree", "tree/plain", "tree/sub/program", "tree/link"] {
        for algorithm in ["md5", "sha1", "sha256", "sha512"] {
            for (base, flag) in [("base16", None), ("nix32", Some("--base32"))] {
                let mut command = Command::new(&nix_hash);
                command.args(["--type", algorithm, path]).args(flag).current_dir(lab.path());
                let theirs = lab.run(command);
                let ours = lab.fodder(&["hash", path, "--algo", algorithm, "--base", base]);
                assert_eq!(ours.stdout, theirs.stdout, "{path} {algorithm} {base}: {}", theirs.stderr);
                let ours = lab.fodder(&["hash", path, "--algo", algorithm, "--base", base, "--mode", "recursive"]);
                assert_eq!(ours.stdout, theirs.stdout, "{path} {algorithm} {base}");
            }
        }
    }
}

#[test]
fn flat_hashes_are_those_of_coreutils_in_every_base() {
    let lab = Lab::new();
    tree(&lab);
    for (algorithm, program) in
        [("md5", "md5sum"), ("sha1", "sha1sum"), ("sha256", "sha256sum"), ("sha512", "sha512sum")]
    {
        let mut command = Command::new(need(program, "coreutils"));
        let sum = lab.run({
            command.arg("tree/plain").current_dir(lab.path());
            command
        });
        let sum = sum.stdout.split_whitespace().next().expect("a sum").to_owned();
        let run = lab.fodder(&["hash", "tree/plain", "--mode", "flat", "--algo", algorithm, "--base", "base16"]);
        assert_eq!(run.stdout.trim(), sum, "{algorithm}");
        let run = lab.fodder(&["hash", "tree/plain", "--mode", "flat", "--algo", algorithm, "--json"]);
        let value: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!((text(&value, "/base16"), text(&value, "/algorithm")), (sum.as_str(), algorithm));
        assert_eq!(text(&value, "/sri"), format!("{algorithm}-{}", text(&value, "/base64")));
    }
    let run = lab.fodder(&["hash", "tree/plain", "--mode", "text"]);
    assert_eq!(run.stdout.trim(), "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=");
    // Published vector: BLAKE3 of nothing.
    lab.write("empty", "");
    let run = lab.fodder(&["hash", "empty", "--mode", "flat", "--algo", "blake3", "--base", "base16"]);
    assert_eq!(run.stdout.trim(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
}

#[test]
fn git_hashes_are_those_of_git() {
    let git = need("git", "git");
    let lab = Lab::new();
    tree(&lab);
    let run_git = |arguments: &[&str]| {
        let mut command = Command::new(&git);
        command.args(arguments).current_dir(lab.path().join("tree"));
        command
            .env("HOME", lab.path())
            .env("GIT_DIR", lab.path().join("git"))
            .env("GIT_WORK_TREE", lab.path().join("tree"));
        let run = lab.run(command);
        assert_eq!(run.code, 0, "git {arguments:?}: {}", run.stderr);
        run.stdout
    };
    for (format, algorithm) in [("sha1", "sha1"), ("sha256", "sha256")] {
        std::fs::rename(lab.path().join("git"), lab.path().join(format!("git-before-{format}"))).ok();
        run_git(&["init", "--quiet", &format!("--object-format={format}")]);
        run_git(&["add", "--all"]);
        let ours =
            |path: &str| lab.fodder(&["hash", path, "--mode", "git", "--algo", algorithm, "--base", "base16"]).stdout;
        assert_eq!(ours("tree"), run_git(&["write-tree"]), "{algorithm}");
        assert_eq!(ours("tree/plain"), run_git(&["hash-object", "plain"]), "{algorithm}");
    }
}

#[test]
fn what_has_no_such_hash_is_refused() {
    let lab = Lab::new();
    tree(&lab);
    assert_eq!(lab.fodder(&["hash", "tree", "--mode", "flat"]).code, 1);
    assert_eq!(lab.fodder(&["hash", "tree/sub/program", "--mode", "text"]).code, 1);
    assert_eq!(lab.fodder(&["hash", "tree", "--mode", "git", "--algo", "md5"]).code, 2);
    assert_eq!(lab.fodder(&["hash", "tree", "--algo", "sha3"]).code, 2);
    assert_eq!(lab.fodder(&["hash", "absent"]).code, 1);
}

#[test]
fn looking_at_files_does_not_change_them() {
    let lab = Lab::new();
    let tree = tree(&lab);
    let state = || {
        let mut command = Command::new("find");
        command.arg(&tree).args(["-printf", "%p %m %T@ %U\\n"]);
        lab.run(command).stdout
    };
    let before = state();
    for mode in ["nar", "git"] {
        assert_eq!(lab.fodder(&["hash", "tree", "--mode", mode, "--algo", "sha1"]).code, 0);
    }
    assert_eq!(lab.fodder(&["refs", "tree"]).code, 0);
    assert_eq!(state(), before);
}

#[test]
fn refs_lists_every_place_with_its_offset() {
    let lab = Lab::new();
    let path = "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt";
    lab.write("tree/a", format!("x {path}\n{path}/y"));
    lab.write("tree/script", format!("#!{path}/bin/sh\n"));
    lab.write("tree/bare", "aaa7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4bbb");
    symlink(format!("{path}/z"), lab.path().join("tree/link")).expect("link");
    let run = lab.fodder(&["refs", "tree"]);
    let expected = format!(
        "a:13  {path}  text\na:{}  {path}  text\nlink:11  {path}  target of a symbolic link\n\
         script:13  {path}  interpreter line of a script (shebang)\n",
        13 + path.len() + 1
    );
    assert_eq!((run.code, run.stdout), (0, expected));
    // By the hash part also what is not spelled out in full.
    let run = lab.fodder(&["refs", "tree", "--to", path]);
    assert!(run.stdout.lines().any(|line| line.starts_with(&format!("bare:3  {path}"))), "{}", run.stdout);
    assert_eq!(run.stdout.lines().count(), 5);
    let run = lab.fodder(&["refs", "tree", "--json"]);
    let hits: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(hits.as_array().expect("hits").len(), 4);
    assert_eq!(
        hits[0],
        serde_json::json!({ "file": "a", "offset": 13, "path": path, "cause": "text", "context": hits[0]["context"] })
    );
    assert!(text(&hits, "/0/context").contains(path));
}

#[test]
fn refs_finds_store_paths_in_the_store() {
    let lab = Lab::new();
    let tool = lab.text("tool", "x");
    let recipe = Recipe::new("refers", "echo $tool > $out").env("tool", &tool.to_string()).source(&tool);
    lab.made(&recipe, &[]);
    let store = lab.store();
    let run = lab.fodder(&["refs", "--store", store.to_str().expect("UTF-8"), &recipe.out().to_string()]);
    assert_eq!(run.stdout, format!("{}:11  {tool}  text\n", recipe.out().base_name()), "{}", run.stderr);
}

#[test]
fn the_hash_that_is_printed_is_the_hash_that_a_fixed_output_declares() {
    let lab = Lab::new();
    tree(&lab);
    for (mode, method) in [("nar", ContentMethod::Nar), ("flat", ContentMethod::Flat), ("git", ContentMethod::Git)] {
        lab.write("same", "hi\n");
        let sri = lab.fodder(&["hash", "same", "--mode", mode]).stdout;
        let recipe = Recipe::new("same", "echo hi > $out").fixed(method, sri.trim());
        let run = lab.make(&recipe, &[]);
        assert_eq!(run.code, 0, "{mode}: {}", run.stderr);
    }
}
