//! `fodder store copy` and `fodder store generate-key`: caches that real Nix accepts.

use super::{Written, complete};
use crate::{
    judge::{nix, nix_says, verified},
    lab::Lab,
    store_verbs::{ours, we_say},
};

const NEW: [&str; 2] = ["--extra-experimental-features", "nix-command"];

#[test]
fn nix_reads_every_cache_that_we_write() {
    let written = Written::new("none");
    let secret = written.lab.path().join("secret-key");
    let top = written.top.to_string();
    for compression in ["none", "xz", "zstd", "bzip2", "gzip", "br"] {
        let url = format!("file://{}", written.lab.path().join(compression).display());
        let to = format!("{url}?compression={compression}&secret-key={}", secret.display());
        we_say(&written.lab, &["copy", "--to", &to, &top]);
        let lab = Lab::new();
        let trust = ["--option", "trusted-public-keys", &written.key];
        let said = nix_says(&lab, "nix", &[&NEW[..], &["copy", "--from", &url], &trust, &[&top]].concat());
        assert_eq!(said, "");
        complete(&written, &lab);
        let lab = Lab::new();
        nix_says(&lab, "nix-store", &[&["-r", &top, "--option", "substituters", &url][..], &trust].concat());
        complete(&written, &lab);
        // Known to it without a copy; the store is the cache here.
        let mut command = std::process::Command::new("nix");
        command.args(NEW).args(["path-info", "--store", &url, "--sigs", "-r", &top]);
        command.env("HOME", lab.path()).env("USER", "tester");
        let run = lab.run(command);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.stdout.matches("test-1:").count(), 2, "{}", run.stdout);
    }
    // To the byte what Nix wrote, where the compressor leaves no choice: archives, signatures and all.
    for path in [&written.base, &written.top] {
        let name = format!("{}.narinfo", path.hash_part());
        let ours = std::fs::read_to_string(written.lab.path().join("none").join(&name)).expect("our narinfo");
        let theirs = std::fs::read_to_string(written.narinfo(path)).expect("Nix's narinfo");
        assert_eq!(ours, theirs);
    }
    let info =
        |directory: &str| std::fs::read(written.lab.path().join(directory).join("nix-cache-info")).expect("a file");
    assert_eq!(info("none"), info("cache"));
}

#[test]
fn a_cache_is_added_to_and_damage_is_repaired() {
    let written = Written::new("none");
    let top = written.top.to_string();
    let said = ours(&written.lab, &["copy", "--to", &written.url(), &top]);
    assert!(said.stderr.contains("copied 0 paths"), "{said:?}");
    std::fs::remove_file(written.directory().join(written.archive(&written.base))).expect("remove the archive");
    std::fs::write(written.narinfo(&written.top), "StorePath: ").expect("damage the narinfo");
    let said = ours(&written.lab, &["copy", "--to", &format!("{}?compression=none", written.url()), &top]);
    assert!(said.stderr.contains("copied 2 paths"), "{said:?}");
    let lab = Lab::new();
    let run = written.copy(&lab, &written.url(), &["--no-check-sigs"]);
    assert_eq!(run.code, 0, "{run:?}");
    complete(&written, &lab);
    let leftovers = std::fs::read_dir(written.directory().join("nar")).expect("a directory").flatten();
    assert!(leftovers.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".new-")));
    // What was changed on disk is not handed on.
    let lab = Lab::new();
    let text = lab.text("changed", "before");
    let file = lab.real(&text);
    std::fs::remove_file(&file).expect("remove");
    std::fs::write(&file, "after!").expect("write");
    let to = format!("file://{}", lab.path().join("cache").display());
    let run = ours(&lab, &["copy", "--to", &to, &text.to_string()]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("hash mismatch importing path"), "{run:?}");
    assert!(!lab.path().join("cache").join(format!("{}.narinfo", text.hash_part())).exists());
}

#[test]
fn stores_are_copied_to_each_other() {
    let written = Written::new("none");
    let top = written.top.to_string();
    let (one, two) = (Lab::new(), Lab::new());
    let directory = |lab: &Lab| lab.store().to_str().expect("UTF-8").to_owned();
    we_say(&written.lab, &["copy", "--to", &directory(&one), &top]);
    complete(&written, &one);
    we_say(&two, &["copy", "--from", &directory(&one), &top]);
    complete(&written, &two);
    // Real Nix takes it from there.
    let three = Lab::new();
    let run = nix(&three, "nix", &[&NEW[..], &["copy", "--no-check-sigs", "--from", &directory(&two), &top]].concat());
    assert_eq!(run.code, 0, "{run:?}");
    complete(&written, &three);
    verified(&written.lab);
    // And what is not there is said.
    let run = ours(&Lab::new(), &["copy", "--from", &directory(&Lab::new()), &top]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("there is no store in"), "{run:?}");
}

#[test]
fn keys_are_made_as_nix_makes_them() {
    let lab = Lab::new();
    let run = lab.fodder(&["store", "generate-key", "example-1"]);
    assert_eq!(run.code, 0, "{run:?}");
    let secret = lab.write("secret", &run.stdout);
    let mut command = std::process::Command::new("nix");
    command.args(NEW).args(["key", "convert-secret-to-public"]).stdin(std::fs::File::open(secret).expect("the key"));
    command.env("HOME", lab.path()).env("USER", "tester");
    let public = lab.run(command).stdout;
    assert!(public.starts_with("example-1:"), "{public}");
    assert_eq!(run.stderr.trim(), format!("public key: {}", public.trim()));

    let file = lab.path().join("key");
    let file = file.to_str().expect("UTF-8");
    let run = lab.fodder(&["store", "generate-key", "k", "--secret-key-file", file]);
    assert!(run.stdout.starts_with("k:"), "{run:?}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(file).expect("the key").permissions().mode() & 0o777, 0o600);
    let again = lab.fodder(&["store", "generate-key", "k", "--secret-key-file", file]);
    assert_eq!(again.code, 1, "a key is not replaced: {again:?}");
    assert_eq!(lab.fodder(&["store", "generate-key", "a:b"]).code, 2);
}
