//! Removing what a builder left, whatever it is and whoever is still changing it.

use crate::lab::{Lab, as_process, chmod, names, process_arguments};
use fodder_store::{Scratch, ScratchPart, Store, StoreError};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with};
use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    os::unix::{ffi::OsStrExt, fs::symlink},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

fn with_build(test: impl FnOnce(&Lab, &std::path::Path)) {
    let lab = Lab::new();
    let store = lab.store();
    let scratch = Scratch::create(&store).unwrap();
    drop(scratch.part(ScratchPart::Build, 0o700, None).unwrap());
    test(&lab, &scratch.part_path(ScratchPart::Build));
    scratch.remove().unwrap();
    assert!(lab.scratch().is_empty());
}

#[test]
fn a_hundred_thousand_levels_are_removed() {
    with_build(|_, build| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = openat(CWD, build, flags, Mode::empty()).unwrap();
        for _ in 0..100_000 {
            mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = openat(&directory, "d", flags, Mode::empty()).unwrap();
        }
    });
}

#[test]
fn unreadable_directories_and_odd_names_are_removed() {
    with_build(|lab, build| {
        let canary = lab.file("canary", "alive");
        for name in [b"\xff\xfe".as_slice(), b"a\nb", &[b'x'; 255], b"-rf", b"~"] {
            let directory = build.join(OsStr::from_bytes(name));
            fs::create_dir_all(directory.join("inner/most")).unwrap();
            fs::write(directory.join("inner/file"), "").unwrap();
            symlink(&canary, directory.join("link")).unwrap();
            symlink(lab.path(), directory.join("inner/out")).unwrap();
            for part in ["inner/most", "inner", ""] {
                chmod(&directory.join(part), 0);
            }
        }
        chmod(build, 0);
    });
}

#[test]
fn wide_directories_are_removed() {
    with_build(|_, build| {
        for number in 0..3000 {
            fs::write(build.join(format!("f{number}")), "").unwrap();
            fs::create_dir_all(build.join(format!("d{number}/x"))).unwrap();
        }
    });
}

#[test]
fn links_are_removed_and_not_followed() {
    let lab = Lab::new();
    let canary = lab.path().join("canary");
    fs::create_dir_all(canary.join("inside")).unwrap();
    let store = lab.store();
    let scratch = Scratch::create(&store).unwrap();
    // Even where a part belongs.
    symlink(&canary, scratch.part_path(ScratchPart::Build)).unwrap();
    assert!(scratch.part(ScratchPart::Build, 0o700, None).is_err());
    scratch.remove().unwrap();
    assert_eq!(names(&canary), ["inside"]);
}

#[test]
fn mount_points_are_refused_and_not_entered() {
    let lab = Lab::new();
    lab.store();
    let build = lab.root().join("nix/var/nix/builds").join("0".repeat(32)).join("build");
    fs::create_dir_all(build.join("mount")).unwrap();
    let script = "mount -t tmpfs tmpfs \"$1\" && touch \"$1/canary\" && shift && exec \"$@\"";
    let child = as_process("removing::child_reaps_a_mount_point", &lab.root(), "");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(build.join("mount"))
        .arg(child.get_program())
        .args(child.get_args())
        .envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .status();
    assert!(status.unwrap().success(), "needs user namespaces and the programs of util-linux");
}

#[test]
#[ignore = "run as a process by the test above"]
fn child_reaps_a_mount_point() {
    let Some((root, _)) = process_arguments() else { return };
    let store = Store::open(&root).unwrap();
    let canary = root.join("nix/var/nix/builds").join("0".repeat(32)).join("build/mount/canary");
    assert!(canary.exists());
    let error = Scratch::reap_stale(&store).unwrap_err();
    assert!(matches!(&error, StoreError::Io { source, .. } if source.kind() == ErrorKind::ResourceBusy), "{error:?}");
    assert_eq!(fs::read_dir(root.join("nix/var/nix/builds")).unwrap().count(), 2, "directory and lock stay");
}

/// Attack: FS-2, CVE-2025-46415. Layer: removal by descriptor, one component at a time.
/// While the remover runs, somebody swaps directories for links to a directory that must not be touched.
#[test]
fn swapping_directories_for_links_redirects_nothing() {
    let lab = Lab::new();
    let store = lab.store();
    let canary = lab.path().join("canary");
    fs::create_dir_all(canary.join("a/b")).unwrap();
    fs::write(canary.join("file"), "alive").unwrap();
    chmod(&canary, 0o500);

    let until = Instant::now() + Duration::from_secs(4);
    let (mut rounds, mut swaps) = (0, 0);
    while Instant::now() < until {
        let scratch = Scratch::create(&store).unwrap();
        drop(scratch.part(ScratchPart::Build, 0o700, None).unwrap());
        let build = scratch.part_path(ScratchPart::Build);
        for number in 0..20 {
            fs::create_dir_all(build.join(format!("deep/{number}/a/b"))).unwrap();
            fs::write(build.join(format!("deep/{number}/file")), "").unwrap();
            symlink(&canary, build.join(format!("deep/{number}/link"))).unwrap();
        }
        symlink(&canary, build.join("link")).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inner = openat(CWD, build.join("deep/7"), flags, Mode::empty()).unwrap();
        let build = openat(CWD, &build, flags, Mode::empty()).unwrap();
        let done = AtomicBool::new(false);
        swaps += thread::scope(|scope| {
            let swapper = scope.spawn(|| {
                let mut count = 0u64;
                while !done.load(Ordering::Relaxed) {
                    let outer = renameat_with(&build, "deep", &build, "link", RenameFlags::EXCHANGE);
                    let inner = renameat_with(&inner, "a", &inner, "link", RenameFlags::EXCHANGE);
                    count += u64::from(outer.is_ok()) + u64::from(inner.is_ok());
                }
                count
            });
            scratch.remove().unwrap();
            done.store(true, Ordering::Relaxed);
            swapper.join().unwrap()
        });
        rounds += 1;
        assert_eq!(names(&canary), ["a", "file"]);
        assert_eq!(names(&canary.join("a")), ["b"]);
        assert_eq!(crate::lab::mode(&canary), 0o500);
    }
    assert!(swaps > rounds, "{swaps} swaps in {rounds} rounds");
    assert!(lab.scratch().is_empty());
}
