//! Somebody else on the machine, of the same user, changes names while we work on what is behind them.

use super::{nothing_is_left, verified};
use crate::{lab::Lab, recipe::Recipe};
use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// A directory that nobody may touch, with a file in it.
fn canary(lab: &Lab) -> PathBuf {
    let file = lab.write("canary/inner/file", "canary");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("chmod");
    lab.path().join("canary")
}

#[track_caller]
fn is_untouched(canary: &Path) {
    let file = canary.join("inner/file");
    assert_eq!(std::fs::read_to_string(&file).expect("the canary"), "canary");
    assert_eq!(std::fs::metadata(&file).expect("the canary").permissions().mode() & 0o7777, 0o640);
    assert_eq!(std::fs::read_dir(canary.join("inner")).expect("the canary").count(), 1);
}

#[expect(clippy::disallowed_methods, reason = "what is removed is the test's own, and nobody else is there by then")]
fn remove(tree: &Path) {
    let _ = std::fs::remove_dir_all(tree);
}

/// Exchanges directories of whatever build there is with links to the canary, for as long as something runs.
fn while_names_are_exchanged(lab: &Lab, canary: &Path, act: impl FnOnce()) -> u64 {
    let (ends, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let builds = lab.store().join("nix/var/nix/builds");
    let link = lab.path().join("a-link");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let _ = std::fs::remove_file(&link);
                remove(&link);
                let _ = symlink(canary, &link);
                for build in std::fs::read_dir(&builds).into_iter().flatten().flatten() {
                    for place in ["store", "build", "build/a", "build/a/b", "tmp", "build/c"] {
                        let place = build.path().join(place);
                        for _ in 0..20 {
                            let exchange = rustix::fs::RenameFlags::EXCHANGE;
                            let exchanged =
                                rustix::fs::renameat_with(rustix::fs::CWD, &link, rustix::fs::CWD, &place, exchange);
                            if exchanged.is_err() {
                                break;
                            }
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        });
        act();
        ends.store(true, Ordering::Relaxed);
    });
    count.into_inner()
}

/// Attack: FS-2, CVE-2021-27851, CVE-2025-46415. Layer: removal by descriptor, one component at a time.
#[test]
fn exchanging_directories_for_links_while_a_failed_build_is_removed_or_kept_redirects_nothing() {
    let lab = Lab::new();
    let canary = canary(&lab);
    let script = "mkdir -p a/b c; i=0; while [ $i -lt 50 ]; do mkdir a/b/$i a/$i c/$i; echo > a/b/$i/file; echo > c/file$i; i=$((i+1)); done; mkdir $out; exit 1";
    lab.text("first", "x");
    let mut exchanged = 0;
    for round in 0..super::rounds(12) {
        let recipe = Recipe::new(&format!("swapped-{round}"), script);
        let (file, store) = (recipe.write(&lab), lab.store());
        let keep: &[&str] = if round % 3 == 0 { &["-K"] } else { &[] };
        exchanged += while_names_are_exchanged(&lab, &canary, || {
            let mut command = lab.command(&["build", "--no-link", "--store", store.to_str().expect("UTF-8")]);
            command.args(keep).arg(file).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().expect("run");
        });
        is_untouched(&canary);
        for name in super::names(&lab, "nix/var/nix/builds").into_iter().filter(|name| name.starts_with("kept-")) {
            let kept = lab.store().join("nix/var/nix/builds").join(name);
            remove(&kept);
        }
    }
    assert!(exchanged > 100, "only {exchanged} exchanges");
    lab.made(&Recipe::new("next", "echo > $out"), &[]);
    is_untouched(&canary);
    nothing_is_left(&lab);
    verified(&lab);
}

/// Attack: FS-1, CVE-2019-17365. Layer: directories are opened without following links, and belong to us alone.
#[test]
fn directories_that_somebody_made_before_us_are_refused_by_name() {
    for place in [
        "",
        "nix",
        "nix/store",
        "nix/var",
        "nix/var/nix",
        "nix/var/nix/db",
        "nix/var/nix/builds",
        "nix/var/nix/temproots",
    ] {
        for kind in ["link", "open"] {
            let lab = Lab::new();
            let canary = canary(&lab);
            let path = lab.store().join(place);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("create");
            match kind {
                "link" => symlink(&canary, lab.store().join(place).components().collect::<PathBuf>()).expect("link"),
                _ => {
                    std::fs::create_dir_all(&path).expect("create");
                    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("chmod");
                }
            }
            let run = lab.make(&Recipe::new("any", "echo > $out"), &[]);
            assert_eq!(run.code, 1, "{place} {kind}: {run:?}");
            let shown = path.components().collect::<PathBuf>().display().to_string();
            assert!(run.stderr.contains(&shown), "{place} {kind}: {}", run.stderr);
            is_untouched(&canary);
            assert_eq!(std::fs::read_dir(&canary).expect("list").count(), 1, "{place} {kind}");
        }
    }
}

/// Attack: FS-4, CVE-2025-52991. Layer: scratch is in the store, whatever the caller's variables say.
#[test]
fn temporary_directories_of_the_caller_are_not_used() {
    let lab = Lab::new();
    let open = lab.path().join("open");
    std::fs::create_dir(&open).expect("create");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o1777)).expect("chmod");
    let (pipe, store) = (lab.path().join("trace"), lab.store());
    let recipe = Recipe::new("placed", "echo > $out; echo x > file; sleep 0.2");
    let mut command = lab.command(&["build", "--no-link", "--store", store.to_str().expect("UTF-8")]);
    command.arg(recipe.write(&lab));
    for name in
        ["TMPDIR", "TMP", "TEMP", "TEMPDIR", "NIX_BUILD_TOP", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"]
    {
        command.env(name, &open);
    }
    drop(pipe);
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("start");
    super::builder_of(&child);
    assert_eq!(std::fs::read_dir(&open).expect("list").count(), 0);
    let builds = store.join("nix/var/nix/builds");
    let mode = |path: &Path| std::fs::metadata(path).expect("a directory").permissions().mode() & 0o7777;
    assert_eq!(mode(&builds), 0o700);
    let scratch: Vec<PathBuf> = std::fs::read_dir(&builds)
        .expect("list")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(scratch.len() == 1 && mode(&scratch[0]) == 0o700, "two closed directories, one in the other");
    assert!(child.wait().expect("wait").success());
    assert_eq!(std::fs::read_dir(&open).expect("list").count(), 0);
}

/// Attack: FS-5, CVE-2025-52993. Layer: names of files are ours, and they are written before there is a builder.
#[test]
fn names_of_attributes_that_are_passed_as_files_lead_nowhere() {
    let lab = Lab::new();
    let canary = canary(&lab);
    let up = "../../../../../../../../..";
    let evil = format!("{up}{}", canary.join("inner/file").display());
    let absolute = canary.join("inner/file").display().to_string();
    let names = [evil.as_str(), &absolute, "..", ".", "a/b", "nul", &"x".repeat(3000)];
    let mut recipe = Recipe::new(
        "passed",
        "for f in $(env | grep 'Path=' | cut -d= -f2); do test -f $f && echo file; done; ls -la; echo > $out",
    );
    recipe = recipe.env("passAsFile", &names.join(" "));
    for name in names {
        recipe = recipe.env(name, "overwritten");
    }
    let run = lab.make(&recipe, &[]);
    is_untouched(&canary);
    assert!(run.code == 0 || run.code == 100, "{run:?}");
    assert!(!lab.path().join("b").exists());
    let listed: Vec<&str> = run.stderr.lines().filter(|line| line.contains(".attr-")).collect();
    assert!(run.code != 0 || listed.len() == names.len(), "{run:?}");
}

/// Attack: FS-7, CVE-2026-87766, CVE-2019-19921. Layer: inputs are opened without following links, mount points in a fresh root.
#[test]
fn inputs_that_are_links_and_targets_with_links_reach_nothing_of_the_host() {
    let lab = Lab::new();
    let canary = canary(&lab);
    // An input that is a link to the host's root is a link to the sandbox's.
    let store = fodder_store::Store::open(&lab.store()).expect("open");
    symlink("/", lab.path().join("to-root")).expect("link");
    symlink(&canary, lab.path().join("to-canary")).expect("link");
    let root = store.add_source("to-root", &lab.path().join("to-root"), 1).expect("add").path;
    let there = store.add_source("to-canary", &lab.path().join("to-canary"), 1).expect("add").path;
    drop(store);
    let script = format!(
        "cat $there/inner/file; cat $root{}/inner/file; echo x > $there/inner/file; echo x > $root{}/inner/file; chmod 777 $there/inner/file; echo done > $out",
        canary.display(),
        canary.display()
    );
    let recipe = Recipe::new("linked", &script)
        .env("root", &root.to_string())
        .env("there", &there.to_string())
        .source(&root)
        .source(&there);
    let run = lab.make(&recipe, &[]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!run.stderr.contains("> canary"), "{run:?}");
    is_untouched(&canary);
    // The person's own extra paths: a target that goes up, or through a link of an input.
    for target in [
        "/../../../../tmp/x".to_owned(),
        format!("{there}/inner/file"),
        format!("{root}/etc/passwd"),
        "/build/../../etc/x".to_owned(),
    ] {
        let allowed = format!("{target}={}", canary.join("inner/file").display());
        let run =
            lab.make(&Recipe::new("any", "echo > $out").source(&there).source(&root), &["--allow-path", &allowed]);
        is_untouched(&canary);
        assert!(run.code != 0 || !Path::new("/tmp/x").exists(), "{target}: {run:?}");
    }
}
