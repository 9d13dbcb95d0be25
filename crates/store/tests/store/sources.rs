//! Adding sources gives the paths and the bytes that real Nix gives.

use crate::lab::{Lab, NOW, chmod, mode};
use fodder_store::{StoreError, dump, source_path};
use proptest::prelude::*;
use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, symlink},
    },
    path::Path,
};

/// A tree to be made on disk.
#[derive(Clone, Debug)]
enum Tree {
    File { contents: Vec<u8>, mode: u32 },
    Link { target: Vec<u8> },
    Directory { entries: Vec<(Vec<u8>, Tree)>, mode: u32 },
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd_byte = any::<u8>().prop_filter("bytes a name can have", |byte| !matches!(byte, 0 | b'/'));
    let name = prop_oneof![
        "[a-c.~ -]{1,3}".prop_map(String::into_bytes),
        proptest::collection::vec(odd_byte, 1..8),
        Just(b"x".repeat(255)),
        Just(b"a\n\x1b[2J".to_vec()),
    ];
    name.prop_filter("names a directory can have", |name| !matches!(name.as_slice(), b"." | b".."))
}

fn tree() -> impl Strategy<Value = Tree> {
    let contents = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        (0usize..300_000).prop_map(|size| (0..size).map(|index| index as u8).collect()),
    ];
    let file_mode = prop::sample::select(vec![0o644, 0o755, 0o444, 0o744, 0o654, 0o4755, 0o600, 0o700, 0o411]);
    let file = (contents, file_mode).prop_map(|(contents, mode)| Tree::File { contents, mode: mode | 0o400 });
    let link = prop_oneof![
        Just(b"../nowhere".to_vec()),
        Just(b"/".to_vec()),
        Just(b"/etc/passwd".to_vec()),
        Just(b"\xff\xfe".to_vec()),
        Just(b"x".repeat(4095)),
    ];
    let leaf = prop_oneof![3 => file, 1 => link.prop_map(|target| Tree::Link { target })];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let entries = proptest::collection::vec((name(), inner), 0..6);
        let directory_mode = prop::sample::select(vec![0o755, 0o700, 0o500, 0o1777, 0o2755]);
        (entries, directory_mode).prop_map(|(entries, mode)| Tree::Directory { entries, mode })
    })
}

fn make(path: &Path, tree: &Tree) {
    match tree {
        Tree::File { contents, mode } => {
            fs::write(path, contents).unwrap();
            chmod(path, *mode);
        }
        Tree::Link { target } => symlink(OsStr::from_bytes(target), path).unwrap(),
        Tree::Directory { entries, mode } => {
            fs::create_dir(path).unwrap();
            for (name, child) in entries {
                let child_path = path.join(OsStr::from_bytes(name));
                if child_path.symlink_metadata().is_err() {
                    make(&child_path, child);
                }
            }
            chmod(path, *mode);
        }
    }
}

fn check_canonical(path: &Path) {
    let status = path.symlink_metadata().unwrap();
    assert_eq!((status.mtime(), status.mtime_nsec()), (1, 0), "{path:?}");
    if status.is_dir() {
        assert_eq!(mode(path), 0o555, "{path:?}");
        fs::read_dir(path).unwrap().for_each(|entry| check_canonical(&entry.unwrap().path()));
    } else if status.is_file() {
        assert!(matches!(mode(path), 0o444 | 0o555), "{path:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_gets_the_path_and_the_bytes_that_nix_gives_it(tree in tree()) {
        let ours = Lab::new();
        let theirs = Lab::new();
        let source = ours.path().join("tree");
        make(&source, &tree);
        let store = ours.store();
        let info = store.add_source("tree", &source, NOW).unwrap();

        let added = theirs.nix(&["--add", source.to_str().unwrap()]);
        prop_assert_eq!(&added, &[info.path.to_string()]);
        let (path, nar_hash, nar_size) = source_path("tree", &source).unwrap();
        prop_assert_eq!((&path, nar_hash, nar_size), (&info.path, info.nar_hash, info.nar_size));

        let dumped = theirs.nix_store(&["--dump", source.to_str().unwrap()]).stdout;
        let (ours_dumped, size) = dump(&source, Vec::new()).unwrap();
        prop_assert!(ours_dumped == dumped && size == dumped.len() as u64);
        let (stored, _) = dump(&store.real_path(&info.path), Vec::new()).unwrap();
        prop_assert!(stored == dumped);
        check_canonical(&store.real_path(&info.path));

        let recorded = theirs.store().query(&info.path).unwrap().unwrap();
        prop_assert_eq!(recorded.content_address, info.content_address.clone());
        prop_assert_eq!((recorded.nar_hash, recorded.nar_size, recorded.references), (nar_hash, nar_size, info.references));
        ours.verify();
        prop_assert!(ours.scratch().is_empty());
    }
}

#[test]
fn the_last_component_is_not_followed() {
    let lab = Lab::new();
    let canary = lab.file("canary", "secret");
    let link = lab.path().join("link");
    symlink(&canary, &link).unwrap();
    let info = lab.store().add_source("link", &link, NOW).unwrap();
    assert_eq!(fs::read_link(lab.store().real_path(&info.path)).unwrap(), canary);
    let directory = lab.path().join("directory");
    fs::create_dir(&directory).unwrap();
    // Behind a slash the kernel follows it.
    let to_directory = lab.path().join("to-directory");
    symlink(&directory, &to_directory).unwrap();
    assert_eq!(source_path("d", &to_directory.join("")).unwrap(), source_path("d", &to_directory).unwrap());
    let plain = source_path("d", &directory).unwrap().0;
    assert_eq!(source_path("d", &directory.join("")).unwrap().0, plain);
}

#[test]
fn special_files_are_refused_by_name() {
    let lab = Lab::new();
    let directory = lab.path().join("tree");
    fs::create_dir(&directory).unwrap();
    let fifo = directory.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    for source in [&directory, &fifo] {
        let error = lab.store().add_source("tree", source, NOW).unwrap_err();
        assert_eq!(error.to_string(), format!("file '{}' has an unsupported type", fifo.display()));
    }
    assert!(lab.objects().is_empty() && lab.scratch().is_empty());
}

#[test]
fn trees_may_be_as_deep_as_nix_allows() {
    let nested = |directories: usize| {
        let lab = Lab::new();
        let path: std::path::PathBuf =
            std::iter::once(lab.path().join("tree")).chain(std::iter::repeat_n("d".into(), directories - 1)).collect();
        fs::create_dir_all(path).unwrap();
        let result = lab.store().add_source("tree", &lab.path().join("tree"), NOW);
        assert!(lab.scratch().is_empty());
        result
    };
    assert!(nested(64).is_ok());
    assert!(matches!(nested(65), Err(StoreError::Serialise { .. })));
}

#[test]
fn names_and_missing_files_are_reported() {
    let lab = Lab::new();
    let store = lab.store();
    let file = lab.file("f", "");
    for name in ["", "a/b", ".", "a b", &"x".repeat(212)] {
        assert!(matches!(store.add_source(name, &file, NOW), Err(StoreError::Name { .. })), "{name}");
        assert!(matches!(store.add_text(name, b"", &Default::default(), NOW), Err(StoreError::Name { .. })), "{name}");
    }
    let error = store.add_source("a", &lab.path().join("none\u{1b}"), NOW).unwrap_err();
    let expected = format!("cannot examine '{}/none\\u{{1b}}'", lab.path().display());
    assert_eq!(error.to_string(), expected);
    assert!(!format!("{:?}", std::error::Error::source(&error)).contains("None"));
}
