use super::*;
use fodder_model::nar::Writer;
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

fn unpack(archive: &[u8]) -> (tempfile::TempDir, PathBuf, Result<(Hash, u64), StoreError>) {
    let directory = tempfile::tempdir().unwrap();
    let parent = Directory::open_path(directory.path()).unwrap();
    let result = restore_in(archive, &parent, OsStr::new("object"), u64::MAX);
    let object = directory.path().join("object");
    (directory, object, result)
}

/// A directory with everything that an archive can hold.
fn archive() -> Vec<u8> {
    let mut nar = Writer::new(Vec::new());
    nar.directory().unwrap();
    for (name, executable) in [("a", false), ("b", true)] {
        nar.entry(name.as_bytes()).unwrap();
        nar.file(executable, 3).unwrap();
        nar.contents(b"hi\n").unwrap();
    }
    nar.entry(b"c").unwrap();
    nar.directory().unwrap();
    nar.entry(b"empty").unwrap();
    nar.file(false, 0).unwrap();
    nar.end_directory().unwrap();
    nar.entry(b"link").unwrap();
    nar.symlink(b"../../etc").unwrap();
    nar.end_directory().unwrap();
    nar.finish().unwrap().0
}

#[test]
fn a_tree_comes_out_as_it_went_in_and_canonical() {
    let archive = archive();
    let (_directory, object, result) = unpack(&archive);
    assert_eq!(result.unwrap(), (Hash::of(HashAlgorithm::Sha256, &archive), archive.len() as u64));
    for (name, mode) in [("", 0o040555), ("a", 0o100444), ("b", 0o100555), ("c", 0o040555), ("c/empty", 0o100444)] {
        let status = object.join(name).symlink_metadata().unwrap();
        assert_eq!((status.mode(), status.mtime(), status.mtime_nsec()), (mode, 1, 0), "{name}");
    }
    assert_eq!(fs::read(object.join("b")).unwrap(), b"hi\n");
    assert_eq!(fs::read_link(object.join("link")).unwrap(), Path::new("../../etc"));
    assert_eq!(object.join("link").symlink_metadata().unwrap().mtime(), 1);
    assert_eq!(crate::dump(&object, Vec::new()).unwrap().0, archive);
}

#[test]
fn what_follows_the_archive_is_left_in_the_input() {
    let mut bytes = archive();
    bytes.extend(b"more");
    let directory = tempfile::tempdir().unwrap();
    let parent = File::open(directory.path()).unwrap();
    let mut input = &bytes[..];
    restore(&mut input, std::os::fd::AsFd::as_fd(&parent), OsStr::new("object")).unwrap();
    assert_eq!(input, b"more");
}

#[test]
fn an_archive_that_ends_anywhere_too_early_is_refused() {
    let archive = archive();
    for length in 0..archive.len() {
        let (_directory, _, result) = unpack(&archive[..length]);
        assert!(matches!(result, Err(StoreError::Unpack { .. })), "{length} bytes");
    }
}

#[test]
fn an_archive_over_its_limit_stops_there() {
    let archive = archive();
    let size = archive.len() as u64;
    for (limit, is_good) in [(size, true), (size - 1, false), (0, false)] {
        let directory = tempfile::tempdir().unwrap();
        let parent = Directory::open_path(directory.path()).unwrap();
        let result = restore_in(&archive[..], &parent, OsStr::new("object"), limit);
        assert_eq!(result.is_ok(), is_good, "{limit}");
    }
}

#[test]
fn what_is_there_already_is_neither_replaced_nor_followed() {
    let file = |contents: &[u8]| {
        let mut nar = Writer::new(Vec::new());
        nar.file(false, contents.len() as u64).unwrap();
        nar.contents(contents).unwrap();
        nar.finish().unwrap().0
    };
    for archive in [archive(), file(b"new")] {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "old").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join("object")).unwrap();
        let parent = Directory::open_path(directory.path()).unwrap();
        for name in ["object", "victim"] {
            let error = restore_in(&archive[..], &parent, OsStr::new(name), u64::MAX).unwrap_err();
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
            assert_eq!(fs::read(&victim).unwrap(), b"old");
        }
    }
}

/// A link and a directory of one name: the second would be written through the first. The reader refuses it as unsorted; the
/// tree is made by hand, because our own writer refuses as well.
#[test]
fn an_entry_cannot_be_written_through_an_earlier_link() {
    fn string(bytes: &[u8]) -> Vec<u8> {
        let padding = (8 - bytes.len() % 8) % 8;
        [&(bytes.len() as u64).to_le_bytes()[..], bytes, &[0; 8][..padding]].concat()
    }
    let words: Vec<&[u8]> = vec![
        b"nix-archive-1",
        b"(",
        b"type",
        b"directory", //
        b"entry",
        b"(",
        b"name",
        b"x",
        b"node",
        b"(",
        b"type",
        b"symlink",
        b"target",
        b"/tmp",
        b")",
        b")", //
        b"entry",
        b"(",
        b"name",
        b"x",
        b"node",
        b"(",
        b"type",
        b"directory",
        b")",
        b")",
        b")",
    ];
    let archive: Vec<u8> = words.into_iter().flat_map(string).collect();
    let (_directory, _, result) = unpack(&archive);
    let error = crate::chain(&result.unwrap_err());
    assert!(error.contains("NAR directory is not sorted: 'x' comes after 'x'"), "{error}");
}

/// Hostile input: sizes that no disk holds, cut at once.
#[test]
fn a_claimed_size_allocates_nothing() {
    let mut nar = Writer::new(Vec::new());
    nar.file(false, u64::MAX - 7).unwrap();
    drop(nar);
    let archive = archive();
    let position = archive.windows(8).position(|word| word == 3u64.to_le_bytes()).unwrap();
    let mut claimed = archive.clone();
    claimed[position..position + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    let (_directory, _, result) = unpack(&claimed);
    assert!(matches!(result, Err(StoreError::Unpack { .. })));
}
