//! Many at once, and killed half way.

use crate::lab::{Lab, NOW, as_process, process_arguments, some_path};
use fodder_store::{Scratch, Store};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

#[test]
fn twenty_processes_create_and_fill_one_store() {
    let lab = Lab::new();
    let processes: Vec<_> = (0..20)
        .map(|number| {
            as_process("concurrency::child_adds_shared_and_own", &lab.root(), &number.to_string()).spawn().unwrap()
        })
        .collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let store = lab.store();
    // 10 shared files, and 5 of each process.
    assert_eq!(store.all_paths().unwrap().len(), 110);
    assert_eq!(lab.objects().len(), 110, "no lock files are left");
    assert!(lab.scratch().is_empty());
    lab.verify();
}

#[test]
#[ignore = "run as a process by the test above"]
fn child_adds_shared_and_own() {
    let Some((root, number)) = process_arguments() else { return };
    let lab = Lab::new();
    let store = Store::open(&root).unwrap();
    for index in 0..10 {
        let shared = lab.file("shared", format!("shared {index}"));
        store.add_source("shared", &shared, NOW).unwrap();
        if index % 2 == 0 {
            store.add_text("own", format!("{number} {index}").as_bytes(), &BTreeSet::new(), NOW).unwrap();
        }
    }
}

#[test]
fn twenty_threads_use_one_store_or_their_own() {
    for share in [true, false] {
        let lab = Lab::new();
        let source = lab.file("f", "the same");
        let shared = share.then(|| lab.store());
        thread::scope(|scope| {
            for number in 0..20 {
                let (lab, source, shared) = (&lab, &source, &shared);
                scope.spawn(move || {
                    let own;
                    let store = match shared {
                        Some(store) => store,
                        None => {
                            own = lab.store();
                            &own
                        }
                    };
                    let source = store.add_source("f", source, NOW).unwrap();
                    let references = BTreeSet::from([source.path]);
                    store.add_text("t", format!("{number}").as_bytes(), &references, NOW).unwrap();
                });
            }
        });
        assert_eq!(lab.store().all_paths().unwrap().len(), 21);
        lab.verify();
    }
}

#[test]
fn a_killed_addition_leaves_a_valid_store_and_nothing_else() {
    let lab = Lab::new();
    let tree = lab.path().join("tree");
    for directory in 0..30 {
        let directory = tree.join(directory.to_string());
        fs::create_dir_all(&directory).unwrap();
        for file in 0..30 {
            fs::write(directory.join(file.to_string()), vec![file; 3000]).unwrap();
        }
    }
    lab.store();
    let (mut killed_inside, mut round) = (0, 0u64);
    while round < 40 || killed_inside <= 5 {
        assert!(round < 400, "only {killed_inside} rounds tested anything");
        let mut process = as_process("concurrency::child_adds_for_ever", &lab.root(), tree.to_str().unwrap());
        let mut process = process.spawn().unwrap();
        // Start-up takes a few milliseconds, an addition some tens: so most rounds end in the middle of one.
        thread::sleep(Duration::from_millis(10 + round * 3));
        process.kill().unwrap();
        assert_eq!(process.wait().unwrap().signal(), Some(9));
        killed_inside += usize::from(!lab.scratch().is_empty());
        let store = lab.store();
        Scratch::reap_stale(&store).unwrap();
        assert!(lab.scratch().is_empty());
        if round % 8 == 0 {
            drop(store);
            lab.verify();
        }
        round += 1;
    }
    lab.verify();
    // What was moved in but not registered is replaced by the next addition, and locks left behind are taken over.
    let store = lab.store();
    for number in 0..3 {
        store.add_source(&format!("tree{number}"), &tree, NOW).unwrap();
    }
    lab.verify();
}

#[test]
#[ignore = "run as a process by the test above"]
fn child_adds_for_ever() {
    let Some((root, tree)) = process_arguments() else { return };
    let store = Store::open(&root).unwrap();
    for number in 0.. {
        store.add_source(&format!("tree{number}"), tree.as_ref(), NOW).unwrap();
    }
}

#[test]
fn a_lock_is_waited_for_and_says_so() {
    let lab = Lab::new();
    let (store, other) = (lab.store(), lab.store());
    let (a, b) = (some_path("a"), some_path("b"));
    let both = BTreeSet::from([a.clone(), b.clone()]);
    let held = store.lock_paths(&BTreeSet::from([b.clone()]), |_| panic!("nobody has it")).unwrap();
    assert!(held.holds(&b) && !held.holds(&a));
    assert!(other.try_lock_paths(&both).unwrap().is_none());
    // A failed try lets go of those that it had.
    drop(store.try_lock_paths(&BTreeSet::from([a.clone()])).unwrap().unwrap());

    let waiting = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut waited_for = Vec::new();
            let locks = other.lock_paths(&both, |path| {
                waited_for.push(path.clone());
                waiting.store(true, Ordering::SeqCst);
            });
            assert!(locks.unwrap().holds(&a));
            waited_for
        });
        while !waiting.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(held);
        assert_eq!(waiter.join().unwrap(), std::slice::from_ref(&b));
    });
    assert!(lab.objects().is_empty(), "lock files are removed");
}

/// Attack: OUT-14. Layer: a locked file for each path.
#[test]
fn only_one_of_many_has_a_lock_at_a_time() {
    let lab = Lab::new();
    let counter = lab.file("counter", "0");
    let path = BTreeSet::from([some_path("counted")]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = lab.store();
                for _ in 0..50 {
                    let _locks = store.lock_paths(&path, |_| {}).unwrap();
                    let count: u32 = fs::read_to_string(&counter).unwrap().parse().unwrap();
                    fs::write(&counter, (count + 1).to_string()).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(&counter).unwrap(), "400");
}

#[test]
fn a_stale_lock_file_is_not_a_lock() {
    let lab = Lab::new();
    let store = lab.store();
    let path = some_path("stale");
    let lock = lab.root().join(format!("nix/store/{}.lock", path.base_name()));
    fs::write(&lock, "d").unwrap();
    let inode = fs::metadata(&lock).unwrap().ino();
    let held = store.try_lock_paths(&BTreeSet::from([path])).unwrap();
    assert!(held.is_some());
    assert!(fs::metadata(&lock).unwrap().len() == 0 || fs::metadata(&lock).unwrap().ino() != inode);
}

#[test]
fn writers_wait_for_each_other_and_readers_do_not() {
    let lab = Lab::new();
    let store = lab.store();
    let first = store.add_text("first", b"", &BTreeSet::new(), NOW).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let lab = &lab;
            scope.spawn(move || {
                let store = lab.store();
                for number in 0..25 {
                    let text = format!("{writer} {number}");
                    store.add_text("t", text.as_bytes(), &BTreeSet::new(), NOW).unwrap();
                }
            });
        }
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            assert!(lab.store().is_valid(&first.path).unwrap());
        }
    });
    assert_eq!(store.all_paths().unwrap().len(), 101);
}
