//! Opening and creating stores.

use crate::lab::{Lab, NOW, chmod, mode, names, some_path};
use fodder_store::{Store, StoreError, allocate_build_user};
use std::{fs, os::unix::fs::symlink, path::Path};

#[test]
fn a_new_store_is_private_and_has_what_nix_expects() {
    let lab = Lab::new();
    lab.store();
    assert_eq!(mode(&lab.root()), 0o700);
    assert_eq!(mode(&lab.root().join("nix/store")), 0o755);
    let state = lab.root().join("nix/var/nix");
    assert_eq!(fs::read(state.join("db/schema")).unwrap(), b"10");
    assert_eq!(fs::read_link(state.join("gcroots/profiles")).unwrap(), state.join("profiles"));
    lab.verify();
    assert!(lab.nix(&["--query", "--requisites", "--include-outputs"]).is_empty());
}

#[test]
fn an_existing_root_keeps_its_mode_and_opening_twice_changes_nothing() {
    let lab = Lab::new();
    fs::create_dir(lab.root()).unwrap();
    chmod(&lab.root(), 0o755);
    lab.store();
    assert_eq!(mode(&lab.root()), 0o755);
    let before = names(&lab.root().join("nix/var/nix/db"));
    lab.store();
    assert_eq!(names(&lab.root().join("nix/var/nix/db")), before);
    // However it is spelled.
    let slash = lab.root().join("nix/.././");
    assert_eq!(Store::open(&slash).unwrap().root(), lab.store().root());
}

/// Attack: FS-1, CVE-2019-17365, CVE-2019-18192. Layer: every directory of the store is ours alone, and no link.
#[test]
fn directories_that_others_control_are_refused_by_name() {
    for part in ["", "nix", "nix/store", "nix/var", "nix/var/nix", "nix/var/nix/db"] {
        let lab = Lab::new();
        lab.store();
        let directory = lab.root().join(part).components().collect::<std::path::PathBuf>();
        let message = || Store::open(&lab.root()).unwrap_err().to_string();

        let original = mode(&directory);
        chmod(&directory, 0o777);
        let expected = format!("may be changed by others (mode 0777); run `chmod go-w '{}'`", directory.display());
        assert!(message().contains(&expected), "{}", message());
        chmod(&directory, original);

        let elsewhere = lab.path().join("elsewhere");
        fs::rename(&directory, &elsewhere).unwrap();
        symlink(&elsewhere, &directory).unwrap();
        assert!(message().contains(&format!("'{}' is a symbolic link", directory.display())), "{}", message());
        // A slash at the end is no way around it.
        assert!(Store::open(&Path::new(&format!("{}/", lab.root().display())).join("")).is_err());
        fs::remove_file(&directory).unwrap();
        fs::write(&directory, "").unwrap();
        assert!(message().contains("is not a directory"), "{}", message());
    }
}

#[test]
fn only_the_objects_of_root_may_be_shared_with_build_users() {
    let lab = Lab::new();
    lab.store();
    // What real Nix does to a store that root uses without turning `build-users-group` off.
    chmod(&lab.root().join("nix/store"), 0o1775);
    assert_eq!(Store::open(&lab.root()).is_ok(), rustix::process::geteuid().is_root());
    for mode in [0o775, 0o1777] {
        chmod(&lab.root().join("nix/store"), mode);
        assert!(matches!(Store::open(&lab.root()), Err(StoreError::WritableByOthers { .. })));
    }
    chmod(&lab.root().join("nix/store"), 0o755);
    chmod(&lab.root().join("nix/var"), 0o1775);
    assert!(matches!(Store::open(&lab.root()), Err(StoreError::WritableByOthers { .. })));
}

/// Attack: FS-1, CVE-2019-17365, CVE-2019-18192. Layer: every directory of the store belongs to us.
#[test]
fn directories_of_somebody_else_are_refused() {
    let lab = Lab::new();
    let ours = rustix::process::geteuid();
    let (root, owner) = match ours.is_root() {
        true => {
            lab.store();
            std::os::unix::fs::chown(lab.root().join("nix/var"), Some(12_345), None).unwrap();
            (lab.root(), 12_345)
        }
        false => ("/usr/share".into(), 0),
    };
    match Store::open(&root) {
        Err(StoreError::ForeignOwner { owner: found, expected, .. }) => {
            assert_eq!((found, expected), (owner, ours.as_raw()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_schema_is_refused() {
    for schema in ["11", "10\n", "", "7"] {
        let lab = Lab::new();
        lab.store();
        fs::write(lab.root().join("nix/var/nix/db/schema"), schema).unwrap();
        assert!(matches!(Store::open(&lab.root()), Err(StoreError::UnknownSchema { .. })), "{schema:?}");
        assert!(matches!(Store::open_existing_read_only(&lab.root()), Err(StoreError::UnknownSchema { .. })));
    }
}

#[test]
fn a_store_whose_creation_was_killed_is_finished() {
    let lab = Lab::new();
    lab.store();
    let database = lab.root().join("nix/var/nix/db");
    fs::remove_file(database.join("schema")).unwrap();
    fs::write(database.join("schema.new"), "1").unwrap();
    fs::remove_dir(lab.root().join("nix/var/nix/gcroots/auto")).unwrap();
    lab.store().add_source("f", &lab.file("f", "x"), NOW).unwrap();
    lab.verify();
}

#[test]
fn reading_changes_nothing_and_cannot_write() {
    let lab = Lab::new();
    let added = lab.store().add_source("f", &lab.file("f", "x"), NOW).unwrap();
    let store = Store::open_existing_read_only(&lab.root()).unwrap();
    assert_eq!(store.query(&added.path).unwrap(), Some(added.clone()));
    assert_eq!(store.query(&some_path("none")).unwrap(), None);
    assert!(matches!(store.add_source("f", &lab.path().join("f"), NOW), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.add_temporary_roots([&added.path]), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(allocate_build_user(&store), Err(StoreError::ReadOnly { .. })));
    assert!(Store::open_existing_read_only(&lab.path().join("nowhere")).is_err());
}

#[test]
fn build_users_are_different_for_the_life_of_a_build() {
    let lab = Lab::new();
    let store = lab.store();
    let (first, second) = match (allocate_build_user(&store), allocate_build_user(&store)) {
        (Ok(first), Ok(second)) => (first, second),
        // A container with a single id: there is nobody to take.
        (Err(StoreError::NoBuildUser { mapped: 1, .. }), _) => return,
        other => panic!("{other:?}"),
    };
    assert_ne!(first.uid, second.uid);
    assert!(first.uid >= 10_000 && first.uid == first.gid);
    let uid = first.uid;
    drop(first);
    assert_eq!(allocate_build_user(&store).unwrap().uid, uid);
}
