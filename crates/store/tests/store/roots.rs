//! What a garbage collection by real Nix keeps.

use crate::lab::{Lab, NOW, as_process, process_arguments, some_path};
use fodder_model::store_path::StorePath;
use fodder_store::{Store, StoreError};
use std::{collections::BTreeSet, fs, io::Read, os::unix::fs::symlink, process::Stdio};

fn add(store: &Store, text: &str) -> StorePath {
    store.add_text("text", text.as_bytes(), &BTreeSet::new(), NOW).unwrap().path
}

#[test]
fn a_collection_keeps_what_is_linked_and_deletes_the_rest() {
    let lab = Lab::new();
    let store = lab.store();
    let result = lab.path().join("result");
    let dependency = add(&store, "dependency");
    let linked = store.add_text("linked", b"x", &BTreeSet::from([dependency.clone()]), NOW).unwrap().path;
    store.make_out_link(&result, &linked).unwrap();
    assert_eq!(fs::read_link(&result).unwrap(), store.real_path(&linked));
    assert_eq!(fs::read(&result).unwrap(), b"x");
    let by_user = add(&store, "by user");
    let user_link = lab.path().join("user");
    symlink(by_user.to_string(), &user_link).unwrap();
    store.add_indirect_root(&user_link).unwrap();
    let garbage = add(&store, "garbage");
    drop(store);

    lab.nix(&["--gc"]);
    let store = lab.store();
    let kept = BTreeSet::from([dependency.clone(), linked.clone(), by_user.clone()]);
    assert_eq!(store.all_paths().unwrap(), kept);
    assert!(!store.real_path(&garbage).exists());
    lab.verify();

    // A link that was replaced keeps the new path, one that was removed keeps nothing.
    let newer = add(&store, "newer");
    store.make_out_link(&result, &newer).unwrap();
    fs::remove_file(&user_link).unwrap();
    drop(store);
    lab.nix(&["--gc"]);
    assert_eq!(lab.store().all_paths().unwrap(), BTreeSet::from([newer]));
    fs::remove_file(&result).unwrap();
    assert_eq!(lab.store().prune_out_links().unwrap(), 1);
    assert_eq!(lab.store().prune_out_links().unwrap(), 0);
    lab.nix(&["--gc"]);
    assert!(lab.store().all_paths().unwrap().is_empty());
    assert!(lab.objects().is_empty());
}

#[test]
fn a_result_link_replaces_only_result_links() {
    let lab = Lab::new();
    let store = lab.store();
    let path = add(&store, "x");
    let taken = lab.file("taken", "mine");
    assert!(matches!(store.make_out_link(&taken, &path), Err(StoreError::LinkOccupied { .. })));
    let elsewhere = lab.path().join("elsewhere");
    symlink("/etc", &elsewhere).unwrap();
    assert!(matches!(store.make_out_link(&elsewhere, &path), Err(StoreError::LinkOccupied { .. })));
    assert_eq!(fs::read(&taken).unwrap(), b"mine");
    let invalid = store.make_out_link(&lab.path().join("new"), &some_path("invalid"));
    assert!(matches!(invalid, Err(StoreError::NotValid { .. })));
    let nix_link = lab.path().join("by-nix");
    symlink(some_path("old").to_string(), &nix_link).unwrap();
    store.make_out_link(&nix_link, &path).unwrap();
    assert_eq!(fs::read(&nix_link).unwrap(), b"x");
}

#[test]
fn nix_sees_the_same_root_as_we_made() {
    let lab = Lab::new();
    let store = lab.store();
    let path = add(&store, "x");
    let link = lab.path().join("link");
    store.add_indirect_root(&link).unwrap();
    // The name is Nix's, so that its own `--add-root` of the same link replaces ours.
    let name =
        fodder_model::hash::Hash::of(fodder_model::hash::HashAlgorithm::Sha1, link.as_os_str().as_encoded_bytes());
    let root = lab.root().join("nix/var/nix/gcroots/auto").join(name.to_nix32());
    assert_eq!(fs::read_link(&root).unwrap(), link);
    fs::remove_file(&root).unwrap();
    lab.nix(&["--realise", &path.to_string(), "--add-root", link.to_str().unwrap(), "--indirect"]);
    assert_eq!(fs::read_link(&root).unwrap(), link);
}

#[test]
fn an_open_store_keeps_what_it_added() {
    let lab = Lab::new();
    let store = lab.store();
    let (kept, also_kept) = (add(&store, "kept"), add(&lab.store(), "garbage when its store is closed"));
    let locked = some_path("in-the-making");
    let locks = store.lock_paths(&BTreeSet::from([locked.clone()]), |_| {}).unwrap();
    fs::write(store.real_path(&locked), "half").unwrap();
    lab.nix(&["--gc"]);
    assert!(store.is_valid(&kept).unwrap() && !store.is_valid(&also_kept).unwrap());
    assert!(store.real_path(&locked).exists(), "not valid yet, but a temporary root");
    let lock = lab.root().join(format!("nix/store/{}.lock", locked.base_name()));
    assert!(lock.exists(), "the collector leaves the lock");
    drop(locks);
    drop(store);
    assert!(crate::lab::names(&lab.root().join("nix/var/nix/temproots")).is_empty());
    lab.nix(&["--gc"]);
    assert!(lab.objects().is_empty());
}

#[test]
fn several_stores_in_one_process_keep_their_own() {
    let lab = Lab::new();
    let stores: Vec<Store> = (0..3).map(|_| lab.store()).collect();
    let kept: BTreeSet<StorePath> =
        stores.iter().enumerate().map(|(number, store)| add(store, &number.to_string())).collect();
    lab.nix(&["--gc"]);
    assert_eq!(stores[0].all_paths().unwrap(), kept);
}

#[test]
fn roots_of_a_killed_process_are_forgotten() {
    let lab = Lab::new();
    let mut child = as_process("roots::child_holds_a_root", &lab.root(), "")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    lab.nix(&["--gc"]);
    assert_eq!(lab.store().all_paths().unwrap().len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    lab.nix(&["--gc"]);
    assert!(lab.store().all_paths().unwrap().is_empty());
}

#[test]
#[ignore = "run as a process by the test above"]
fn child_holds_a_root() {
    let Some((root, _)) = process_arguments() else { return };
    let store = Store::open(&root).unwrap();
    add(&store, "held");
    rustix::io::write(rustix::stdio::stderr(), b"!").unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Additions and collections at once: whatever was added last is there, with its references, and the store verifies.
#[test]
fn collections_do_not_disturb_additions() {
    let lab = Lab::new();
    let store = lab.store();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| (0..8).for_each(|_| drop(lab.nix(&["--gc"]))));
        let mut number = 0;
        while !collector.is_finished() {
            let source = lab.file("f", format!("source {number}"));
            let source = store.add_source("f", &source, NOW).unwrap().path;
            let text = store.add_text("t", b"x", &BTreeSet::from([source.clone()]), NOW).unwrap().path;
            assert!(store.is_valid(&source).unwrap() && store.is_valid(&text).unwrap());
            assert!(store.real_path(&source).exists() && store.real_path(&text).exists());
            number += 1;
        }
    });
    lab.verify();
}
