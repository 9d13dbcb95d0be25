//! Verifying and optimising, beside real Nix.

use crate::{
    aim::Aim,
    lab::{Lab, NOW, as_process, chmod, mode, names, process_arguments},
};
use fodder_model::store_path::StorePath;
use fodder_store::{Garbage, KeepRules, OptimiseEvent, Store, VerifyEvent};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

fn overwrite(path: &Path, contents: &str) {
    chmod(path, 0o644);
    fs::write(path, contents).unwrap();
    chmod(path, 0o444);
}

fn findings(store: &Store, check_contents: bool) -> (bool, Vec<String>) {
    let mut found = Vec::new();
    let is_sound = store.verify(check_contents, &mut |event| match event {
        VerifyEvent::CheckingExistence | VerifyEvent::CheckingLinks | VerifyEvent::CheckingContents => {}
        VerifyEvent::Disappeared(path) => found.push(format!("gone {}", path.name())),
        VerifyEvent::DisappearedWithReferrers(path) => found.push(format!("needed {}", path.name())),
        VerifyEvent::Modified { path, .. } => found.push(format!("modified {}", path.name())),
        VerifyEvent::LinkModified { .. } => found.push("link".to_owned()),
        VerifyEvent::Unreadable { path, .. } => found.push(format!("unreadable {}", path.name())),
    });
    found.sort();
    (is_sound.unwrap(), found)
}

#[test]
fn verifying_finds_what_nix_finds_and_forgets_what_nix_forgets() {
    let lab = Lab::new();
    let store = lab.store();
    let add = |name: &str, references: &[&StorePath]| {
        let references = references.iter().map(|path| (*path).clone()).collect();
        store.add_text(name, b"x", &references, NOW).unwrap().path
    };
    let good = add("good", &[]);
    let low = add("low", &[&good]);
    let high = add("high", &[&low]);
    let needed = add("needed", &[]);
    let needs = add("needs", &[&needed]);
    let modified = add("modified", &[]);
    let broken = add("broken", &[]);
    assert_eq!(findings(&store, true), (true, Vec::new()));
    for path in [&low, &high, &needed] {
        fs::remove_file(store.real_path(path)).unwrap();
    }
    overwrite(&store.real_path(&modified), "y");
    fs::remove_file(store.real_path(&broken)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        store.real_path(&broken),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o444),
        0,
    )
    .unwrap();
    assert_eq!(findings(&store, false), (false, vec!["gone high".into(), "gone low".into(), "needed needed".into()]));
    assert_eq!(findings(&store, true).1, ["modified modified", "needed needed", "unreadable broken"]);
    let left = BTreeSet::from([&good, &needed, &needs, &modified, &broken].map(Clone::clone));
    assert_eq!(store.all_paths().unwrap(), left);
    // Nix sees the same, and has nothing to add.
    let run = lab.nix_store(&["--verify", "--check-contents"]);
    let messages = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(messages.contains(&format!("path '{modified}' was modified!")), "{messages}");
    assert!(
        messages.contains(&format!("path '{needed}' disappeared, but it still has valid referrers!")),
        "{messages}"
    );
    assert_eq!(store.all_paths().unwrap(), left);
}

#[test]
fn a_damaged_shared_file_is_found() {
    let lab = Lab::new();
    let store = lab.store();
    for name in ["one", "two"] {
        store.add_source(name, &lab.file("f", "contents"), NOW).unwrap();
    }
    store.optimise(&mut |_| {}).unwrap();
    assert_eq!(findings(&store, true), (true, Vec::new()));
    let links = lab.root().join("nix/store/.links");
    overwrite(&links.join(&names(&links)[0]), "changed!");
    assert_eq!(findings(&store, true), (false, vec!["link".into(), "modified one".into(), "modified two".into()]));
}

/// A store with much that is the same; the directory of each object, and its files.
#[expect(clippy::disallowed_methods, reason = "a tree that nobody else writes to")]
fn alike(lab: &Lab) -> Vec<PathBuf> {
    let store = lab.store();
    let tree = lab.path().join("tree");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("sub/deep")).unwrap();
    for name in ["a", "sub/b", "sub/deep/c"] {
        fs::write(tree.join(name), "the same contents").unwrap();
        fs::write(tree.join(format!("{name}.empty")), "").unwrap();
        fs::write(tree.join(format!("{name}.run")), "the same contents").unwrap();
        chmod(&tree.join(format!("{name}.run")), 0o755);
    }
    std::os::unix::fs::symlink("a", tree.join("link")).unwrap();
    let mut objects = Vec::new();
    for number in 0..5 {
        fs::write(tree.join("own"), format!("{number}")).unwrap();
        objects.push(store.add_source("tree", &tree, NOW).unwrap().path);
    }
    objects.push(store.add_source("single", &lab.file("single", "the same contents"), NOW).unwrap().path);
    objects.into_iter().map(|path| store.real_path(&path)).collect()
}

fn inode(path: PathBuf) -> u64 {
    path.symlink_metadata().unwrap().ino()
}

#[test]
fn files_alike_become_one_and_nix_does_not_mind() {
    let lab = Lab::new();
    let objects = alike(&lab);
    let store = lab.store();
    let saved = store.optimise(&mut |event| panic!("{event:?}")).unwrap();
    // 16 plain ones, 15 programs, 15 empty files and 5 links were there; one of each is left.
    assert_eq!((saved.files, saved.bytes), (15 + 14 + 14 + 4, (15 + 14) * 17 + 4));
    assert_eq!(inode(objects[0].join("link")), inode(objects[1].join("link")));
    assert_eq!(inode(objects[0].join("a")), inode(objects[4].join("sub/deep/c")));
    assert_eq!(inode(objects[0].join("a")), inode(objects[5].clone()));
    assert_ne!(inode(objects[0].join("a")), inode(objects[0].join("a.run")));
    assert_eq!(inode(objects[0].join("a.empty")), inode(objects[1].join("a.empty")));
    for directory in ["", "sub", "sub/deep"] {
        let directory = objects[2].join(directory);
        assert_eq!((mode(&directory), directory.metadata().unwrap().mtime()), (0o555, 1), "{}", directory.display());
    }
    lab.verify();
    assert_eq!(store.optimise(&mut |event| panic!("{event:?}")).unwrap().files, 0);
    // Nix finds nothing left to do, and what it does is ours to use.
    let names_before = names(&lab.root().join("nix/store/.links"));
    let run = lab.nix_store(&["--optimise"]);
    assert!(
        String::from_utf8_lossy(&run.stderr).contains("by hard-linking 0 files"),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert_eq!(names(&lab.root().join("nix/store/.links")), names_before);
    let sum = |directory: &Path| names(directory).len();
    assert!(lab.scratch().is_empty() && sum(&lab.root().join("nix/store")) == 7);
    // Shared files go with the last that shares them.
    let collected =
        store.collect_garbage(&Garbage::Everything { keep: KeepRules::default(), max_freed_bytes: None }, &mut |_| {});
    drop(store);
    // While the store was open, what it looked at was in use.
    assert_eq!(collected.unwrap().count, 0);
    let everything = Garbage::Everything { keep: KeepRules::default(), max_freed_bytes: None };
    assert_eq!(lab.store().collect_garbage(&everything, &mut |_| {}).unwrap().count, 6);
    assert!(names(&lab.root().join("nix/store/.links")).is_empty());
}

#[test]
fn what_nix_has_linked_is_not_linked_again() {
    let lab = Lab::new();
    alike(&lab);
    lab.nix(&["--optimise"]);
    let saved = lab.store().optimise(&mut |event| panic!("{event:?}")).unwrap();
    assert_eq!(saved.files, 0);
    lab.verify();
}

#[test]
fn a_damaged_shared_file_replaces_nothing() {
    let lab = Lab::new();
    let store = lab.store();
    let one = store.add_source("one", &lab.file("f", "contents"), NOW).unwrap().path;
    store.optimise(&mut |_| {}).unwrap();
    overwrite(&store.real_path(&one), "CONTENTS");
    let two = store.add_source("two", &lab.file("f", "contents"), NOW).unwrap().path;
    let mut events = Vec::new();
    store.optimise(&mut |event| events.push(event)).unwrap();
    assert!(matches!(events[..], [OptimiseEvent::CorruptLink(_)]), "{events:?}");
    assert_eq!(fs::read_to_string(store.real_path(&two)).unwrap(), "contents");
    assert_eq!(findings(&store, true), (false, vec!["modified one".into()]));
    // A file that can be written to is left alone.
    chmod(&store.real_path(&two), 0o644);
    let mut events = Vec::new();
    store.optimise(&mut |event| events.push(event)).unwrap();
    assert!(matches!(events[..], [OptimiseEvent::Writable(_)]), "{events:?}");
}

#[test]
fn killed_at_any_moment_optimising_and_collecting_leave_a_valid_store() {
    let lab = Lab::new();
    let mut work = ["optimise", "collect"].map(|what| (what, Aim::new(Duration::from_millis(20))));
    while work.iter().any(|(_, aim)| aim.has_hit_fewer_than(4)) {
        alike(&lab);
        for (what, aim) in &mut work {
            aim.shoot(&mut as_process("upkeep::work_for_somebody_who_kills", &lab.root(), what).spawn().unwrap());
            lab.verify();
        }
    }
    let everything = Garbage::Everything { keep: KeepRules::default(), max_freed_bytes: None };
    lab.store().collect_garbage(&everything, &mut |_| {}).unwrap();
    assert!(lab.objects().is_empty() && lab.scratch().is_empty(), "{:?} {:?}", lab.objects(), lab.scratch());
}

#[test]
#[ignore = "run by killed_at_any_moment_optimising_and_collecting_leave_a_valid_store"]
fn work_for_somebody_who_kills() {
    let Some((root, what)) = process_arguments() else { return };
    let store = Store::open(&root).unwrap();
    if what == "optimise" {
        store.optimise(&mut |_| {}).unwrap();
    } else {
        let everything = Garbage::Everything { keep: KeepRules::default(), max_freed_bytes: None };
        store.collect_garbage(&everything, &mut |_| {}).unwrap();
    }
}
