//! Garbage collection beside real Nix: the same verdict on what is alive, and nothing lost.

use crate::lab::{Lab, NOW, names};
use fodder_model::store_path::StorePath;
use fodder_store::{CollectionEvent, Garbage, KeepRules, Store, StoreError};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::Path,
};

const EVERYTHING: Garbage =
    Garbage::Everything { keep: KeepRules { derivations: true, outputs: false }, max_freed_bytes: None };

fn collect(store: &Store, garbage: &Garbage) -> (u64, BTreeSet<OsString>) {
    let mut deleted = BTreeSet::new();
    let collected = store.collect_garbage(garbage, &mut |event| {
        if let CollectionEvent::Deleting(name) = event {
            deleted.insert(name);
        }
    });
    (collected.unwrap().count, deleted)
}

fn root(lab: &Lab, directory: &str, name: &str, target: impl AsRef<Path>) {
    let directory = lab.root().join("nix/var/nix").join(directory);
    fs::create_dir_all(&directory).unwrap();
    symlink(target, directory.join(name)).unwrap();
}

/// One path of a random store.
#[derive(Clone, Debug)]
struct Member {
    references: Vec<prop::sample::Index>,
    reference_count: usize,
    is_derivation: bool,
    deriver: Option<prop::sample::Index>,
    root: u8,
}

fn member() -> impl Strategy<Value = Member> {
    (
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        any::<bool>(),
        prop::option::of(any::<prop::sample::Index>()),
        0..14_u8,
    )
        .prop_map(|(references, is_derivation, deriver, root)| Member {
            reference_count: references.len(),
            references,
            is_derivation,
            deriver,
            root,
        })
}

/// Adds random members in order, each referring to earlier ones; roots of every kind.
fn random_store(lab: &Lab, members: &[Member]) -> Vec<StorePath> {
    let store = lab.store();
    let mut paths: Vec<StorePath> = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let Member { references, reference_count, is_derivation, deriver, root: kind } = member;
        let references: BTreeSet<StorePath> = match paths.is_empty() {
            true => BTreeSet::new(),
            false => references[..*reference_count].iter().map(|index| index.get(&paths).clone()).collect(),
        };
        let derivations: Vec<&StorePath> = paths.iter().filter(|path| path.is_derivation()).collect();
        let contents = format!("{number}");
        let path = if *is_derivation {
            // The outputs of a derivation are named before they exist; Nix reads its file for them.
            let output = StorePath::of_text(&format!("out-{number}"), b"", &BTreeSet::new()).unwrap();
            let text =
                format!("Derive([(\"out\",\"{output}\",\"\",\"\")],[],[],\"x\",\"/x\",[],[(\"out\",\"{output}\")])");
            let known = BTreeMap::from([("out".to_owned(), output)]);
            let name = format!("d{number}.drv");
            store.add_derivation(&name, text.as_bytes(), &references, &known, NOW).unwrap().path
        } else if let (Some(deriver), false) = (deriver, derivations.is_empty()) {
            // An output, with the derivation it was built from: registered by hand.
            let deriver = deriver.get(&derivations);
            let output = store.derivation_outputs(deriver).unwrap().remove("out").unwrap();
            if !store.is_valid(&output).unwrap() {
                fs::write(store.real_path(&output), "").unwrap();
                let model = store.add_text(&format!("m{number}"), b"", &BTreeSet::new(), NOW).unwrap();
                let info = fodder_store::PathInfo {
                    path: output.clone(),
                    references,
                    deriver: Some((*deriver).clone()),
                    content_address: None,
                    ..model
                };
                store.register(&[info.into()]).unwrap();
            }
            output
        } else {
            store.add_text(&format!("t{number}"), contents.as_bytes(), &references, NOW).unwrap().path
        };
        let name = format!("r{number}");
        match kind {
            0 => root(lab, "gcroots", &name, path.to_string()),
            1 => root(lab, "profiles", &name, format!("{path}/bin/x")),
            2 => {
                symlink(path.to_string(), lab.path().join(&name)).unwrap();
                store.add_indirect_root(&lab.path().join(&name)).unwrap();
            }
            3 => fs::write(lab.root().join("nix/var/nix/gcroots").join(path.base_name()), "").unwrap(),
            4 => root(lab, "profiles/deep/er", &name, path.to_string()),
            5 => root(lab, "gcroots/auto", &name, lab.path().join("absent")),
            6 => root(lab, "gcroots", &name, lab.path()),
            _ => {}
        }
        paths.push(path);
    }
    // What is not valid goes as well.
    fs::write(lab.root().join("nix/store").join(format!("{}-left.lock", "0".repeat(32))), "").unwrap();
    fs::create_dir_all(lab.root().join("nix/store").join(format!("{}-left", "1".repeat(32)))).unwrap();
    paths
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn our_dead_are_the_dead_of_nix(members in prop::collection::vec(member(), 1..25), outputs in any::<bool>(), derivations in any::<bool>()) {
        let lab = Lab::new();
        random_store(&lab, &members);
        let keep = KeepRules { derivations, outputs };
        let survey = lab.store().survey(keep).unwrap();
        let options = ["--option", "keep-outputs", &outputs.to_string(), "--option", "keep-derivations", &derivations.to_string()].map(str::to_owned);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let base = |line: &String| OsString::from(line.strip_prefix("/nix/store/").unwrap());
        let theirs: BTreeSet<OsString> = lab.nix(&[&["--gc", "--print-dead"], &options[..]].concat()).iter().map(base).collect();
        prop_assert_eq!(&survey.dead, &theirs);
        let theirs: BTreeSet<OsString> = lab.nix(&[&["--gc", "--print-live"], &options[..]].concat()).iter().map(base).collect();
        let ours: BTreeSet<OsString> = survey.live.iter().map(|path| path.base_name().into()).collect();
        prop_assert_eq!(&ours, &theirs);
        // And these, no others, are deleted.
        let (count, deleted) = collect(&lab.store(), &Garbage::Everything { keep, max_freed_bytes: None });
        prop_assert_eq!(&deleted, &survey.dead);
        prop_assert_eq!(count, survey.dead.len() as u64);
        let left: BTreeSet<OsString> = lab.objects().into_iter().map(OsString::from).collect();
        prop_assert_eq!(&left, &ours);
        prop_assert_eq!(lab.store().all_paths().unwrap(), survey.live);
        let verified = lab.nix_store(&["--verify"]);
        let messages = String::from_utf8_lossy(&verified.stderr).into_owned();
        prop_assert!(!messages.contains("disappeared"), "{}", messages);
        // Nothing is left for Nix.
        prop_assert_eq!(lab.nix(&[&["--gc", "--print-dead"], &options[..]].concat()).len(), 0);
    }
}

#[test]
fn a_link_to_the_real_place_holds_as_well() {
    let lab = Lab::new();
    let store = lab.store();
    let add = |name: &str| store.add_text(name, b"x", &BTreeSet::new(), NOW).unwrap().path;
    let (direct, chain, relative) = (add("direct"), add("chain"), add("relative"));
    root(&lab, "gcroots", "direct", store.real_path(&direct));
    symlink(store.real_path(&chain), lab.path().join("last")).unwrap();
    symlink("last", lab.path().join("middle")).unwrap();
    symlink("middle", lab.path().join("first")).unwrap();
    store.add_indirect_root(&lab.path().join("first")).unwrap();
    root(&lab, "gcroots", "relative", format!("../../../store/{}", relative.base_name()));
    drop(store);
    assert_eq!(collect(&lab.store(), &EVERYTHING).0, 0);
    fs::remove_file(lab.path().join("last")).unwrap();
    assert_eq!(collect(&lab.store(), &EVERYTHING).0, 1);
}

#[test]
fn what_a_process_is_using_stays() {
    let lab = Lab::new();
    let user = lab.store();
    let kept = user.add_text("kept", b"x", &BTreeSet::new(), NOW).unwrap().path;
    let other = lab.store();
    let input = other.add_text("input", b"x", &BTreeSet::new(), NOW).unwrap().path;
    let built = other.add_text("built", b"x", &BTreeSet::from([input.clone()]), NOW).unwrap().path;
    drop(other);
    // A path that is only being made: its lock and its directory stay, too.
    let planned = crate::lab::some_path("planned");
    let lock = user.lock_paths(&BTreeSet::from([planned.clone()]), |_| {}).unwrap();
    let real = user.real_path(&planned);
    fs::create_dir(&real).unwrap();
    fs::create_dir(real.with_extension("drv.chroot")).unwrap();
    user.add_temporary_roots([&built]).unwrap();
    let (count, _) = collect(&lab.store(), &EVERYTHING);
    assert_eq!(count, 0, "{:?}", lab.objects());
    drop(lock);
    drop(user);
    let (count, deleted) = collect(&lab.store(), &EVERYTHING);
    let gone: BTreeSet<OsString> = [&kept, &input, &built, &planned].map(|path| path.base_name().into()).into();
    assert!(deleted.is_superset(&gone), "{deleted:?}");
    assert_eq!((count, lab.objects().len()), (5, 0));
    assert!(names(&lab.root().join("nix/var/nix/temproots")).is_empty());
    lab.verify();
}

#[test]
fn who_speaks_up_during_a_collection_is_heard() {
    let lab = Lab::new();
    let store = lab.store();
    let references = |path: &StorePath| BTreeSet::from([path.clone()]);
    let low = store.add_text("low", b"x", &BTreeSet::new(), NOW).unwrap().path;
    let top = store.add_text("top", b"x", &references(&low), NOW).unwrap().path;
    let mut all = Vec::new();
    for number in 0..20 {
        all.push(store.add_text(&format!("other-{number}"), b"x", &BTreeSet::new(), NOW).unwrap().path);
    }
    drop(store);
    // The collector waits in the middle for somebody who begins to use what it has not deleted yet.
    let mut saved = None;
    let collector = lab.store();
    let collected = collector.collect_garbage(&EVERYTHING, &mut |event| {
        if let (CollectionEvent::Deleting(_), None) = (&event, &saved) {
            let user = lab.store();
            let wanted = if user.is_valid(&top).unwrap() { &top } else { &low };
            user.add_temporary_roots([wanted]).unwrap();
            let alive = user.is_valid(wanted).unwrap();
            saved = Some((user, wanted.clone(), alive));
        }
    });
    let (user, wanted, alive) = saved.unwrap();
    assert!(collected.unwrap().count >= 20);
    assert_eq!(user.is_valid(&wanted).unwrap(), alive);
    if wanted == top && alive {
        assert!(user.is_valid(&low).unwrap(), "what it refers to stays with it");
    }
    drop(user);
    lab.verify();
}

#[test]
fn chosen_paths_are_deleted_only_when_nothing_keeps_them() {
    let lab = Lab::new();
    let store = lab.store();
    let low = store.add_text("low", b"x", &BTreeSet::new(), NOW).unwrap().path;
    let top = store.add_text("top", b"x", &BTreeSet::from([low.clone()]), NOW).unwrap().path;
    let rooted = store.add_text("rooted", b"x", &BTreeSet::new(), NOW).unwrap().path;
    root(&lab, "gcroots", "r", rooted.to_string());
    drop(store);
    let delete = |paths: &[&StorePath], ignore_liveness| {
        let paths = paths.iter().map(|path| (*path).clone()).collect();
        lab.store().collect_garbage(&Garbage::Paths { paths, ignore_liveness }, &mut |_| {})
    };
    for ignores in [false, true] {
        match delete(&[&low], ignores) {
            Err(StoreError::Alive { path, referrer }) => assert_eq!((path, referrer), (low.clone(), Some(top.clone()))),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(delete(&[&low, &rooted], false), Err(StoreError::Alive { referrer: None, .. })));
    assert_eq!(lab.objects().len(), 3, "all or nothing");
    assert_eq!(delete(&[&low, &top], false).unwrap().count, 2);
    assert_eq!(delete(&[&rooted], true).unwrap().count, 1);
    assert!(lab.objects().is_empty());
    lab.verify();
}

#[test]
fn a_collection_stops_when_it_has_freed_enough() {
    let lab = Lab::new();
    let store = lab.store();
    for number in 0..10 {
        store.add_text(&format!("t{number}"), &[b'x'; 1000], &BTreeSet::new(), NOW).unwrap();
    }
    drop(store);
    let upto = |bytes| Garbage::Everything { keep: KeepRules::default(), max_freed_bytes: Some(bytes) };
    assert_eq!(collect(&lab.store(), &upto(0)).0, 0);
    let collected = lab.store().collect_garbage(&upto(2500), &mut |_| {}).unwrap();
    assert_eq!((collected.count, collected.freed_bytes), (3, 3000));
    assert_eq!(lab.objects().len(), 7);
    lab.verify();
}

#[test]
fn temporary_directories_of_nix_stay_while_they_are_locked() {
    let lab = Lab::new();
    let store = lab.store();
    let directory = lab.root().join("nix/store/tmp-123-0");
    fs::create_dir(&directory).unwrap();
    fs::write(lab.root().join("nix/store/odd name"), "").unwrap();
    let held = fs::File::open(&directory).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(collect(&store, &EVERYTHING).1, BTreeSet::from(["odd name".into()]));
    drop(held);
    assert_eq!(collect(&store, &EVERYTHING).1, BTreeSet::from(["tmp-123-0".into()]));
}

#[test]
fn garbage_in_temporary_roots_stops_a_collection() {
    let lab = Lab::new();
    let store = lab.store();
    store.add_text("t", b"x", &BTreeSet::new(), NOW).unwrap();
    let file = lab.root().join("nix/var/nix/temproots/4194305");
    fs::write(&file, "/somewhere/else\0").unwrap();
    let held = fs::File::open(&file).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(store);
    match lab.store().collect_garbage(&EVERYTHING, &mut |_| {}) {
        Err(StoreError::TemporaryRoot { path, .. }) => assert_eq!(path, file.canonicalize().unwrap()),
        other => panic!("{other:?}"),
    }
    assert_eq!(lab.objects().len(), 1);
    // Unlocked, it is a dead process's, and holds nothing.
    drop(held);
    assert_eq!(collect(&lab.store(), &EVERYTHING).0, 1);
    assert!(!file.exists());
}
