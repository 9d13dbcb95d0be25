//! Scratch directories, and moving objects from them into the store.

use crate::lab::{Lab, NOW, chmod, mode, names, some_path};
use fodder_model::store_path::StorePath;
use fodder_store::{Scratch, ScratchPart, Store, StoreError};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, symlink},
    },
};

fn publish(store: &Store, scratch: &Scratch, name: &str, path: &StorePath) -> Result<(), StoreError> {
    let outputs = scratch.part(ScratchPart::Store, 0o755, None)?;
    let locks = store.lock_paths(&BTreeSet::from([path.clone()]), |_| {})?;
    store.publish(&locks, outputs.as_fd(), OsStr::new(name), path)
}

#[test]
fn objects_of_every_type_arrive_canonical() {
    let lab = Lab::new();
    let store = lab.store();
    let scratch = Scratch::create(&store).unwrap();
    let outputs = scratch.part_path(ScratchPart::Store);
    drop(scratch.part(ScratchPart::Store, 0o755, None).unwrap());
    let canonical = |name: &str| {
        let path = outputs.join(name);
        let times = ["-h", "-d", "@1"];
        assert!(std::process::Command::new("touch").args(times).arg(&path).status().unwrap().success());
    };
    fs::create_dir(outputs.join("directory")).unwrap();
    fs::write(outputs.join("directory/inside"), "x").unwrap();
    chmod(&outputs.join("directory"), 0o555);
    fs::write(outputs.join("file"), "x").unwrap();
    chmod(&outputs.join("file"), 0o444);
    symlink("/nowhere", outputs.join("link")).unwrap();
    for name in ["directory", "file", "link"] {
        canonical(name);
        let path = some_path(name);
        publish(&store, &scratch, name, &path).unwrap();
        let status = store.real_path(&path).symlink_metadata().unwrap();
        assert_eq!(status.mtime(), 1, "{name}");
    }
    assert_eq!(mode(&store.real_path(&some_path("directory"))), 0o555);
    assert!(names(&outputs).is_empty());
}

#[test]
fn what_a_killed_run_left_is_replaced_and_what_is_valid_is_not() {
    let lab = Lab::new();
    let store = lab.store();
    let scratch = Scratch::create(&store).unwrap();
    drop(scratch.part(ScratchPart::Store, 0o755, None).unwrap());
    let outputs = scratch.part_path(ScratchPart::Store);
    fs::write(outputs.join("new"), "new").unwrap();

    let path = some_path("left");
    let leftover = store.real_path(&path);
    fs::create_dir_all(leftover.join("a/b")).unwrap();
    fs::write(leftover.join("a/b/c"), "").unwrap();
    chmod(&leftover.join("a"), 0o555);
    chmod(&leftover, 0);
    publish(&store, &scratch, "new", &path).unwrap();
    assert_eq!(fs::read(&leftover).unwrap(), b"new");

    let valid = store.add_source("valid", &lab.file("f", "valid"), NOW).unwrap().path;
    fs::write(outputs.join("new"), "new").unwrap();
    assert!(matches!(publish(&store, &scratch, "new", &valid), Err(StoreError::AlreadyValid { .. })));
    assert_eq!(fs::read(store.real_path(&valid)).unwrap(), b"valid");
}

#[test]
fn an_object_needs_its_own_lock_and_a_supported_type() {
    let lab = Lab::new();
    let store = lab.store();
    let scratch = Scratch::create(&store).unwrap();
    let outputs = scratch.part(ScratchPart::Store, 0o755, None).unwrap();
    let path = some_path("object");
    let other = store.lock_paths(&BTreeSet::from([some_path("other")]), |_| {}).unwrap();
    let refused = store.publish(&other, outputs.as_fd(), OsStr::new("x"), &path);
    assert!(matches!(refused, Err(StoreError::NotLocked { .. })));
    rustix::fs::mknodat(&outputs, "x", rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    assert!(matches!(publish(&store, &scratch, "x", &path), Err(StoreError::UnsupportedType { .. })));
    match publish(&store, &scratch, "missing", &path) {
        Err(StoreError::Io { path, .. }) => assert_eq!(path, scratch.part_path(ScratchPart::Store).join("missing")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn scratch_is_closed_to_others_and_parts_have_the_mode_asked_for() {
    let lab = Lab::new();
    let store = lab.store();
    let scratch = Scratch::create(&store).unwrap();
    assert_eq!(mode(scratch.path().parent().unwrap()), 0o700);
    assert_eq!(mode(scratch.path()), 0o700);
    for (part, wanted) in [(ScratchPart::Build, 0o777), (ScratchPart::Tmp, 0o1777), (ScratchPart::Root, 0o500)] {
        scratch.part(part, wanted, None).unwrap();
        assert_eq!(mode(&scratch.part_path(part)), wanted);
    }
    if rustix::process::geteuid().is_root() {
        scratch.part(ScratchPart::Store, 0o700, Some((12_345, 12_346))).unwrap();
        let status = fs::metadata(scratch.part_path(ScratchPart::Store)).unwrap();
        assert_eq!((status.uid(), status.gid()), (12_345, 12_346));
    }
    let path = scratch.path().to_owned();
    scratch.remove().unwrap();
    assert!(!path.exists() && lab.scratch().is_empty());
}

#[test]
fn only_the_scratch_of_the_dead_is_reaped() {
    let lab = Lab::new();
    let store = lab.store();
    let alive = Scratch::create(&store).unwrap();
    let failed = Scratch::create(&store).unwrap();
    drop(failed.part(ScratchPart::Build, 0o777, None).unwrap());
    let kept = failed.keep().unwrap();
    assert!(kept.join("build").is_dir());

    let builds = alive.path().parent().unwrap();
    let dead = builds.join("0".repeat(32));
    fs::create_dir_all(dead.join("build/x")).unwrap();
    fs::write(builds.join("1".repeat(32) + ".lock"), "").unwrap();
    // Real Nix keeps its build directories in the same place.
    fs::create_dir(builds.join("nix-1-2")).unwrap();

    assert_eq!(Scratch::reap_stale(&store).unwrap(), 2);
    assert_eq!(Scratch::reap_stale(&store).unwrap(), 0);
    assert!(alive.path().is_dir() && kept.is_dir() && builds.join("nix-1-2").is_dir());
    drop(alive);
    let kept_name = kept.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(lab.scratch(), [kept_name, "nix-1-2".to_owned()]);
}
