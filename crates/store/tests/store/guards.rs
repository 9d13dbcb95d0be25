//! Rules that nothing else would miss: what is locked, what counts as ours, what is never replaced.

use crate::lab::{Lab, NOW, chmod, mode, some_path};
use fodder_model::{
    content_address::{ContentAddress, ContentMethod},
    hash::{Hash, HashAlgorithm},
    store_path::StorePath,
};
use fodder_store::{
    Garbage, KeepRules, OptimiseEvent, PathInfo, Registration, RootHolder, Scratch, Store, StoreError, Unpacked, dump,
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

fn set(path: &StorePath) -> BTreeSet<StorePath> {
    BTreeSet::from([path.clone()])
}

fn state(lab: &Lab) -> std::path::PathBuf {
    lab.root().join("nix/var/nix")
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
}

/// Opens a store elsewhere, so that one that hangs is seen.
fn opened(lab: &Lab) -> mpsc::Receiver<Result<(), StoreError>> {
    let (sender, receiver) = mpsc::channel();
    let root = lab.root();
    std::thread::spawn(move || sender.send(Store::open(&root).map(drop)));
    receiver
}

/// As between two versions of Nix: whoever changes the schema has the lock alone.
#[test]
fn an_open_store_is_locked_and_one_that_is_made_is_locked_alone() {
    let lab = Lab::new();
    drop(lab.store());
    let lock = File::open(state(&lab).join("db/big-lock")).unwrap();
    let store = lab.store();
    lock.try_lock().expect_err("somebody has the store open");
    lock.try_lock_shared().expect("others may have it open");
    drop(store);
    lock.try_lock().expect("nobody has it open");

    let lab = Lab::new();
    fs::create_dir_all(state(&lab).join("db")).unwrap();
    for directory in ["", "nix", "nix/var", "nix/var/nix", "nix/var/nix/db"] {
        chmod(&lab.root().join(directory), 0o755);
    }
    let lock = File::create(state(&lab).join("db/big-lock")).unwrap();
    lock.lock_shared().unwrap();
    let opened = opened(&lab);
    assert_eq!(opened.recv_timeout(Duration::from_millis(300)).err(), Some(mpsc::RecvTimeoutError::Timeout));
    drop(lock);
    opened.recv_timeout(Duration::from_secs(120)).expect("the lock is free").unwrap();
}

/// Attack: FS-1 (what stands where the schema should). Layer: a few bytes of a file are read, and no pipe is waited for.
#[test]
fn a_schema_that_is_no_small_file_is_refused_at_once() {
    let lab = Lab::new();
    drop(lab.store());
    let schema = state(&lab).join("db/schema");
    File::create(&schema).unwrap().set_len(64 << 20).unwrap();
    match Store::open(&lab.root()) {
        Err(StoreError::UnknownSchema { found, .. }) => assert!(found.len() <= 64, "{}", found.len()),
        other => panic!("{other:?}"),
    }
    fs::remove_file(&schema).unwrap();
    fifo(&schema);
    let opened = opened(&lab).recv_timeout(Duration::from_secs(60)).expect("a pipe is not waited for");
    assert!(matches!(opened, Err(StoreError::UnknownSchema { .. })), "{opened:?}");
}

/// Attack: FS-1 (a directory like that of root's Nix). Layer: only root's may be shared.
#[test]
fn a_shared_directory_of_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can make one for us: see `only_the_objects_of_root_may_be_shared_with_build_users`.
    }
    let lab = Lab::new();
    drop(lab.store());
    let objects = lab.root().join("nix/store");
    std::os::unix::fs::chown(&objects, Some(12_345), None).unwrap();
    chmod(&objects, 0o1775);
    assert!(matches!(Store::open(&lab.root()), Err(StoreError::ForeignOwner { owner: 12_345, .. })));
}

/// Real Nix asks a lock file that it waited for whether it is empty, and for nothing else.
#[test]
fn who_waits_for_a_lock_that_goes_is_told_by_its_contents() {
    let lab = Lab::new();
    let store = lab.store();
    let path = some_path("locked");
    let locks = store.lock_paths(&set(&path), |_| {}).unwrap();
    let waiting = File::open(lab.root().join("nix/store").join(format!("{}.lock", path.base_name()))).unwrap();
    drop(locks);
    let status = waiting.metadata().unwrap();
    assert_eq!((status.nlink(), status.len()), (0, 1));
}

#[test]
fn what_is_locked_is_kept_from_collections() {
    let lab = Lab::new();
    let store = lab.store();
    let (one, other) = (some_path("one"), some_path("other"));
    let _locks = (store.lock_paths(&set(&one), |_| {}).unwrap(), store.try_lock_paths(&set(&other)).unwrap());
    let roots = store.find_roots().unwrap();
    let is_kept = |path: &StorePath| {
        roots.iter().any(|root| root.path == *path && matches!(root.holder, RootHolder::Temporary(_)))
    };
    assert!(is_kept(&one) && is_kept(&other), "{roots:?}");
}

#[test]
fn a_path_is_registered_with_one_hash_or_not_at_all() {
    let lab = Lab::new();
    let store = lab.store();
    let model = store.add_text("model", b"model", &BTreeSet::new(), NOW).unwrap();
    let with = |nar_hash| Registration::from(PathInfo { path: some_path("x"), nar_hash, ..model.clone() });
    let other = Hash::of(HashAlgorithm::Sha256, b"other");
    assert!(matches!(store.register(&[with(Hash::of(HashAlgorithm::Sha1, b""))]), Err(StoreError::NotSha256 { .. })));
    let twice = store.register(&[with(model.nar_hash), with(other)]);
    assert!(matches!(twice, Err(StoreError::Conflict { field: "hash", .. })), "{twice:?}");
    assert!(!store.is_valid(&some_path("x")).unwrap());
    store.register(&[with(model.nar_hash)]).unwrap();
    let later = store.register(&[with(other)]);
    assert!(matches!(later, Err(StoreError::Conflict { field: "hash", .. })), "{later:?}");
}

#[test]
fn what_is_kept_replaces_nothing() {
    let lab = Lab::new();
    let scratch = Scratch::create(&lab.store()).unwrap();
    let (builds, name) = (scratch.path().parent().unwrap(), scratch.path().file_name().unwrap());
    let taken = builds.join(format!("kept-{}", name.to_str().unwrap()));
    fs::create_dir(&taken).unwrap();
    chmod(&taken, 0o700);
    assert!(scratch.keep().is_err());
    assert!(taken.is_dir());
}

/// Between the making of the file and its lock somebody may have taken it for that of a dead run.
#[test]
fn a_scratch_directory_that_was_just_made_is_nobody_elses_to_remove() {
    let lab = Lab::new();
    drop(lab.store());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let store = lab.store();
                while !is_over.load(Ordering::Relaxed) {
                    Scratch::reap_stale(&store).unwrap();
                }
            });
        }
        let makers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let store = lab.store();
                    (0..1500).all(|_| {
                        let scratch = Scratch::create(&store).unwrap();
                        let mut lock = scratch.path().as_os_str().to_owned();
                        lock.push(".lock");
                        Path::new(&lock).exists() && scratch.path().exists()
                    })
                })
            })
            .collect();
        let are_good = makers.into_iter().map(|maker| maker.join().unwrap_or(false)).collect::<Vec<_>>();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(are_good, [true, true]);
    });
}

#[test]
fn an_object_without_its_references_leaves_nothing() {
    let lab = Lab::new();
    let store = lab.store();
    let (nar, _) = dump(&lab.file("f", "x"), Vec::new()).unwrap();
    let unpacked = Unpacked::read(&store, &nar[..], nar.len() as u64).unwrap();
    let model = store.add_text("model", b"model", &BTreeSet::new(), NOW).unwrap();
    let info = PathInfo {
        path: some_path("x"),
        nar_hash: unpacked.nar_hash(),
        nar_size: unpacked.nar_size(),
        references: set(&some_path("missing")),
        content_address: None,
        ..model.clone()
    };
    assert!(matches!(store.add_unpacked(unpacked, &info), Err(StoreError::InvalidReference { .. })));
    assert_eq!(lab.objects(), [model.path.base_name()]);
}

/// Attack: PARSE-6 (a link where a file was promised). Layer: what was unpacked is opened without following links.
#[test]
fn the_address_of_a_file_is_not_that_of_what_a_link_leads_to() {
    let lab = Lab::new();
    let store = lab.store();
    let target = lab.file("target", "known to everybody");
    let address = ContentAddress {
        method: ContentMethod::Flat,
        hash: Hash::of(HashAlgorithm::Sha256, &fs::read(&target).unwrap()),
    };
    let (link, directory) = (lab.path().join("link"), lab.path().join("directory"));
    symlink(&target, &link).unwrap();
    fs::create_dir(&directory).unwrap();
    for source in [link, directory] {
        let (nar, nar_size) = dump(&source, Vec::new()).unwrap();
        let info = PathInfo {
            path: address.store_path("x").unwrap(),
            nar_hash: Hash::of(HashAlgorithm::Sha256, &nar),
            nar_size,
            references: BTreeSet::new(),
            deriver: None,
            registration_time: NOW,
            ultimate: false,
            signatures: Vec::new(),
            content_address: Some(address.to_string()),
        };
        let added = store.add_nar(&info, |_| {}, || Ok::<_, StoreError>(&nar[..]));
        assert!(matches!(added, Err(StoreError::NotAFile { .. })), "{}: {added:?}", source.display());
    }
    assert!(lab.objects().is_empty());
}

/// A file of temporary roots whose owner has died makes the next run look for the rest.
fn somebody_died(lab: &Lab) {
    let directory = state(lab).join("temproots");
    fs::write(directory.join("4194304"), "").unwrap();
    fs::write(directory.join(".nfs0001"), "").unwrap();
}

#[test]
fn of_all_that_looks_like_a_lock_only_those_of_the_dead_are_removed() {
    let lab = Lab::new();
    let store = lab.store();
    let valid = store.add_text("Cargo.lock", b"", &BTreeSet::new(), NOW).unwrap().path;
    // A copy of a `Cargo.lock` that was writable when it was registered, as some stores have it.
    chmod(&store.real_path(&valid), 0o644);
    let objects = lab.root().join("nix/store");
    let place = |name: &str| objects.join(format!("{}.lock", some_path(name).base_name()));
    fs::write(place("dead"), "").unwrap();
    fs::write(place("object"), "").unwrap();
    chmod(&place("object"), 0o444);
    fs::write(objects.join("other.lock"), "").unwrap();
    fifo(&place("pipe"));
    fs::create_dir(place("directory")).unwrap();
    symlink("/nowhere", place("link")).unwrap();
    let _locks = store.lock_paths(&set(&some_path("alive")), |_| {}).unwrap();
    somebody_died(&lab);
    assert_eq!(store.remove_leftovers().unwrap(), 2, "the file of roots and one lock");
    let mut left: Vec<String> =
        ["object", "pipe", "directory", "link", "alive"].map(place).iter().map(|path| name_of(path)).collect();
    left.extend([valid.base_name().to_owned(), "other.lock".to_owned()]);
    left.sort();
    assert_eq!(lab.objects(), left);
    assert!(state(&lab).join("temproots/.nfs0001").exists(), "files of NFS are not ours");
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn half_made_links_of_others_stay() {
    let lab = Lab::new();
    let store = lab.store();
    let path = store.add_text("x", b"x", &BTreeSet::new(), NOW).unwrap().path;
    let half_made = |link: &Path| {
        let name = Hash::of(HashAlgorithm::Sha1, link.as_os_str().as_encoded_bytes()).to_nix32();
        link.with_file_name(format!(".fodder-new-{name}"))
    };
    let (ours, theirs) = (lab.path().join("ours"), lab.path().join("theirs"));
    for link in [&ours, &theirs] {
        store.make_out_link(link, &path).unwrap();
    }
    symlink(store.real_path(&path), half_made(&ours)).unwrap();
    symlink("/etc/passwd", half_made(&theirs)).unwrap();
    somebody_died(&lab);
    store.remove_leftovers().unwrap();
    assert!(half_made(&ours).symlink_metadata().is_err() && half_made(&theirs).symlink_metadata().is_ok());
}

/// A disk that is not there now may be there tomorrow.
#[test]
fn a_link_that_cannot_be_looked_at_keeps_its_path() {
    let lab = Lab::new();
    let store = lab.store();
    let path = store.add_text("x", b"x", &BTreeSet::new(), NOW).unwrap().path;
    let directory = lab.path().join("directory");
    fs::create_dir(&directory).unwrap();
    store.make_out_link(&directory.join("result"), &path).unwrap();
    let roots = store.find_roots().unwrap();
    assert!(roots.iter().any(|root| root.path == path && matches!(root.holder, RootHolder::Temporary(_))), "{roots:?}");
    fs::rename(&directory, lab.path().join("moved")).unwrap();
    symlink(&directory, &directory).unwrap();
    assert_eq!(store.prune_out_links().unwrap(), 0);
    fs::remove_file(&directory).unwrap();
    assert_eq!(store.prune_out_links().unwrap(), 1, "gone for certain");
}

/// A process may have the number of one that was killed.
#[test]
fn roots_that_a_killed_process_with_our_number_left_are_not_ours() {
    let lab = Lab::new();
    let store = lab.store();
    drop(lab.store());
    let file = state(&lab).join("temproots").join(std::process::id().to_string());
    let (left, ours) = (some_path("left"), some_path("ours"));
    fs::write(&file, format!("{left}\0")).unwrap();
    store.add_temporary_roots([&ours]).unwrap();
    let kept: Vec<StorePath> = store.find_roots().unwrap().into_iter().map(|root| root.path).collect();
    assert_eq!(kept, [ours]);
}

#[test]
fn what_is_being_made_is_no_garbage() {
    let lab = Lab::new();
    let (store, builder) = (lab.store(), lab.store());
    let (made, dead) = (some_path("made"), some_path("dead"));
    builder.add_temporary_roots([&made]).unwrap();
    for path in [&made, &dead] {
        fs::write(store.real_path(path), "half").unwrap();
        fs::create_dir(lab.root().join("nix/store").join(format!("{}.drv.chroot", path.base_name()))).unwrap();
    }
    let everything = Garbage::Everything { keep: KeepRules::default(), max_freed_bytes: None };
    store.collect_garbage(&everything, &mut |_| {}).unwrap();
    assert_eq!(lab.objects(), [made.base_name().to_owned(), format!("{}.drv.chroot", made.base_name())]);
}

/// Somebody may be writing to it.
#[test]
fn a_shared_file_that_can_be_written_to_replaces_nothing() {
    let lab = Lab::new();
    let store = lab.store();
    let path = store.add_text("x", b"the same", &BTreeSet::new(), NOW).unwrap().path;
    let links = lab.root().join("nix/store/.links");
    fs::create_dir(&links).unwrap();
    let shared = links.join(store.query(&path).unwrap().unwrap().nar_hash.to_nix32());
    fs::write(&shared, "the same").unwrap();
    chmod(&shared, 0o644);
    let mut events = Vec::new();
    store.optimise(&mut |event| events.push(event)).unwrap();
    assert_eq!(events, [OptimiseEvent::CorruptLink(shared)]);
    assert_eq!(mode(&store.real_path(&path)), 0o444);
}
