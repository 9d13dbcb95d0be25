//! What comes into a store and goes out of it, and its upkeep.

use super::{built, ours, ours_command, we_say};
use crate::aim::Aim;
use crate::judge::{nix, nix_command, nix_says, verified};
use crate::{lab::Lab, recipe::Recipe};
use std::{
    fs::File,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
    time::Duration,
};

fn shell_lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn what_is_added_has_the_path_that_nix_gives_it() {
    let lab = Lab::new();
    lab.write("tree/sub/file", "contents");
    lab.write("file", "contents\n");
    std::os::unix::fs::symlink("file", lab.path().join("link")).expect("link");
    std::fs::set_permissions(lab.path().join("tree/sub/file"), PermissionsExt::from_mode(0o755)).expect("chmod");
    let said = we_say(&lab, &["add", "tree", "file", "link", "./tree/"]);
    assert_eq!(shell_lines(&said)[0], shell_lines(&said)[3]);
    let theirs = nix_says(&lab, "nix-store", &["--add", "tree", "file", "link", "tree"]);
    assert_eq!(said, theirs);
    let theirs = nix_says(&lab, "nix-store", &["--add-fixed", "sha256", "file"]);
    assert_eq!(we_say(&lab, &["add", "--mode", "flat", "file"]), theirs);
    let flags = ["--extra-experimental-features", "nix-command"];
    let expression = ["eval", "--raw", "--expr", "builtins.toFile \"text\" \"contents\\n\""];
    let theirs = nix_says(&lab, "nix", &[&flags[..], &expression].concat());
    assert_eq!(we_say(&lab, &["add", "--mode", "text", "--name", "text", "file"]).trim(), theirs.trim());
    assert_ne!(we_say(&lab, &["add", "--name", "other", "tree"]), said);
    verified(&lab);
    for (arguments, word) in [
        (["add", "absent"].as_slice(), "cannot examine"),
        (&["add", "--mode", "flat", "tree"], "is not a regular file"),
        (&["add", "--mode", "text", "tree"], "is not a text"),
        (&["add", "/dev/null"], "unsupported type"),
        (&["add", "--mode", "flat", "/dev/null"], "is not a regular file"),
        (&["add", ".."], "gives no name"),
        (&["add", "--name", "a b", "file"], "illegal character"),
        (&["add", "--name", "a", "file", "tree"], "for a single file"),
    ] {
        let run = ours(&lab, arguments);
        assert!(run.code != 0 && run.stderr.contains(word), "{arguments:?}: {run:?}");
    }
}

/// A file with what `export` wrote.
fn exported(lab: &Lab, arguments: &[&str]) -> std::path::PathBuf {
    let file = lab.path().join("exported");
    let mut command = ours_command(lab, &[&["export"], arguments].concat());
    let status = command.stdout(File::create(&file).expect("create")).status().expect("run");
    assert!(status.success());
    file
}

#[test]
fn exports_are_those_of_nix_and_are_imported_by_both() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let (out, dev, derivation) =
        (recipe.out().to_string(), recipe.output_path("dev").to_string(), recipe.path().to_string());
    let file = exported(&lab, &["--recursive", &dev, &derivation]);
    let order = we_say(&lab, &["query", "--requisites", &dev, &derivation]);
    let mut command = nix_command(&lab, "nix-store", &[&["--export"], &shell_lines(&order)[..]].concat());
    let theirs = command.output().expect("run").stdout;
    assert!(theirs == std::fs::read(&file).expect("read"), "the bytes differ");

    let other = Lab::new();
    let import = |mut command: std::process::Command| {
        other.run({
            command.stdin(File::open(&file).expect("open"));
            command
        })
    };
    let run = import(nix_command(&other, "nix-store", &["--import"]));
    assert_eq!((run.code, &run.stdout), (0, &order), "{run:?}");
    verified(&other);
    we_say(&other, &["gc"]);
    let run = import(ours_command(&other, &["import"]));
    assert_eq!((run.code, &run.stdout), (0, &order), "{run:?}");
    verified(&other);
    for path in [&out, &dev, &derivation, &input.to_string()] {
        for question in ["--hash", "--references", "--deriver", "--outputs"] {
            assert_eq!(
                nix_says(&other, "nix-store", &["--query", question, path]),
                nix_says(&lab, "nix-store", &["--query", question, path])
            );
        }
    }
    // Sources and texts are known for what they are again.
    assert!(we_say(&other, &["path-info", "--sigs", &input.to_string()]).contains("ca:text:sha256:"));
    // What is there already is no news.
    assert_eq!(import(ours_command(&other, &["import"])).stdout, order);
}

#[test]
fn an_import_needs_references_and_takes_nothing_that_is_damaged() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let out = recipe.out().to_string();
    let alone = std::fs::read(exported(&lab, &[&out])).expect("read");
    let whole = std::fs::read(exported(&lab, &["-r", &out])).expect("read");
    let other = Lab::new();
    let import = |bytes: &[u8]| {
        let file = other.write("stream", bytes);
        let mut command = ours_command(&other, &["import"]);
        command.stdin(File::open(file).expect("open"));
        other.run(command)
    };
    let run = import(&alone);
    assert!(run.code == 1 && run.stderr.contains(&format!("refers to '{input}', which is not valid")), "{run:?}");
    for (bytes, word) in [
        (b"garbage garbage".as_slice(), "doesn't look like something created by"),
        (b"", "the input ended"),
        (&[1, 0, 0, 0, 0, 0, 0, 0], "bad archive"),
        (&whole[..whole.len() - 8], "the input ended"),
        (&whole[..whole.len() / 2], ""),
    ] {
        let run = import(bytes);
        assert!(run.code == 1 && run.stderr.contains(word), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    let magic = whole.windows(4).position(|window| window == b"NIXE").expect("the magic number");
    for (offset, byte, word) in
        [(magic, b'X', "wrong format"), (magic + 16, b'X', "is not a store path"), (magic + 9, 0xff, "wrong format")]
    {
        let mut bytes = whole.clone();
        bytes[offset] = byte;
        let run = import(&bytes);
        assert!(run.code == 1 && run.stderr.contains(word), "{offset}: {run:?}");
    }
    // Damage in the store is not passed on.
    let real = lab.real(&input);
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o644)).expect("chmod");
    std::fs::write(&real, "y").expect("write");
    let run = ours(&lab, &["export", &input.to_string()]);
    assert!(run.code == 1 && run.stderr.contains("has changed from"), "{}", run.stderr);
    verified(&other);
    assert!(std::fs::read_dir(other.store().join("nix/var/nix/builds")).expect("list").next().is_none());
}

#[test]
fn a_killed_import_leaves_a_valid_store() {
    let lab = Lab::new();
    let script = "mkdir $out; i=0; while [ $i -lt 300 ]; do echo $i > $out/$i; i=$((i+1)); done; echo $out > $dev";
    let recipe = Recipe::new("many", script).output("dev");
    lab.made(&recipe, &[]);
    let file = exported(&lab, &["-r", &recipe.output_path("dev").to_string()]);
    let mut aim = Aim::new(Duration::from_millis(40));
    while aim.has_hit_fewer_than(6) {
        // What was imported whole would not be imported again: so into another store each time.
        let other = Lab::new();
        let import = || {
            let mut command = ours_command(&other, &["import"]);
            command.stdin(File::open(&file).expect("open")).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        aim.shoot(&mut import().spawn().expect("start"));
        verified(&other);
        assert_eq!(other.run(import()).code, 0);
        verified(&other);
    }
}

#[test]
fn verify_says_what_nix_says() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let run = ours(&lab, &["verify", "--check-contents"]);
    assert_eq!(run.code, 0, "{run:?}");
    let real = lab.real(&recipe.output_path("dev"));
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o644)).expect("chmod");
    std::fs::write(&real, "changed").expect("write");
    std::fs::remove_file(lab.real(&input)).expect("remove");
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().filter(|line| line.contains("path '")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let theirs = nix(&lab, "nix-store", &["--verify", "--check-contents"]);
    let said = ours(&lab, &["verify", "--check-contents"]);
    assert_eq!((said.code, theirs.code), (1, 1), "{said:?} {theirs:?}");
    assert_eq!(lines(&said.stderr), lines(&theirs.stderr));
    assert_eq!(lines(&said.stderr).len(), 2);
    assert!(said.stderr.contains("was modified! expected hash 'sha256:"), "{}", said.stderr);
    assert_eq!(ours(&lab, &["verify"]).code, 1, "a valid path needs the one that has gone");
    let derivation = recipe.path();
    let real = lab.real(&derivation);
    std::fs::remove_file(real).expect("remove");
    let run = ours(&lab, &["verify"]);
    assert!(run.stderr.contains(&format!("path '{derivation}' disappeared, removing from database...")), "{run:?}");
    assert_eq!(ours(&lab, &["path-info", &derivation.to_string()]).code, 1);
}

#[test]
fn optimise_saves_space_and_nix_verifies() {
    let lab = Lab::new();
    let big = "x".repeat(2_000_000);
    for name in ["one", "two", "three"] {
        lab.text(name, &big);
    }
    let said = we_say(&lab, &["optimise"]);
    assert_eq!(said, "3.81 MiB freed by hard-linking 2 files\n");
    let links: Vec<u64> = std::fs::read_dir(lab.store().join("nix/store/.links"))
        .expect("list")
        .map(|entry| entry.expect("an entry").metadata().expect("look").nlink())
        .collect();
    assert_eq!(links, [4]);
    verified(&lab);
    assert!(we_say(&lab, &["optimize"]).ends_with("hard-linking 0 files\n"));
    let run = ours(&lab, &["gc"]);
    assert!(run.stdout.starts_with("3 store paths deleted"), "{run:?}");
}

#[test]
fn optimise_does_not_spread_damage() {
    let lab = Lab::new();
    let one = lab.text("one", "good contents");
    we_say(&lab, &["optimise"]);
    std::fs::set_permissions(lab.real(&one), PermissionsExt::from_mode(0o644)).expect("chmod");
    std::fs::write(lab.real(&one), "evil contents").expect("write");
    std::fs::set_permissions(lab.real(&one), PermissionsExt::from_mode(0o444)).expect("chmod");
    let two = lab.text("two", "good contents");
    let run = ours(&lab, &["optimise"]);
    assert!(run.code == 0 && run.stderr.contains("removing corrupted link"), "{run:?}");
    assert_eq!(std::fs::read_to_string(lab.real(&two)).expect("read"), "good contents");
    assert_eq!(ours(&lab, &["verify", "--check-contents"]).code, 1);
}

#[test]
fn verify_repairs_nothing() {
    let lab = Lab::new();
    let run = lab.fodder(&["store", "verify", "--repair", "--store", "store"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("--repair"), "{}", run.stderr);
}
