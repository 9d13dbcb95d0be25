//! The walk over an output: what it makes canonical, and what it finds.

use super::*;
use fodder_model::scan::Candidates;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn run(directory: &Path, instructions: &Instructions<'_>) -> Result<Inspection, InspectError> {
    let parent = File::open(directory).unwrap();
    inspect(parent.as_fd(), OsStr::new("out"), &directory.join("out"), instructions, &mut Links::default())
}

#[test]
fn a_tree_becomes_canonical_and_its_references_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    std::fs::create_dir_all(out.join("bin")).unwrap();
    let input = StorePath::from_base_name("k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt").unwrap();
    std::fs::write(out.join("bin/tool"), format!("#!{input}/bin/sh\n")).unwrap();
    std::fs::set_permissions(out.join("bin/tool"), std::fs::Permissions::from_mode(0o6555)).unwrap();
    symlink("bin/tool", out.join("link")).unwrap();
    let candidates = Candidates::new([&input]);
    let reading = Instructions {
        candidates: &candidates,
        content: None,
        canonicalise: false,
        builder: None,
        budget: Budget::default(),
    };
    let before = run(directory.path(), &reading).unwrap();
    let inspection = run(directory.path(), &Instructions { canonicalise: true, ..reading }).unwrap();
    assert_eq!(inspection, before, "canonical form changes nothing that a NAR holds");
    assert_eq!(inspection.references, [input].into());
    assert!(!inspection.is_plain_file);
    for (path, mode) in [("", 0o555), ("bin", 0o555), ("bin/tool", 0o555)] {
        let metadata = std::fs::metadata(out.join(path)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (mode, 1), "{path}");
    }
}

#[test]
fn what_is_not_there_or_has_no_place_in_a_store_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let candidates = Candidates::new([]);
    let instructions = Instructions {
        candidates: &candidates,
        content: None,
        canonicalise: true,
        builder: None,
        budget: Budget::default(),
    };
    let missing = run(directory.path(), &instructions).unwrap_err();
    assert!(matches!(missing, InspectError::Missing { .. }) && missing.is_rejection());
    std::fs::create_dir(directory.path().join("out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("out/socket")).unwrap();
    let socket = run(directory.path(), &instructions).unwrap_err();
    assert!(matches!(socket, InspectError::UnsupportedType { .. }) && socket.is_rejection(), "{socket}");
    std::fs::remove_file(directory.path().join("out/socket")).unwrap();
    // What a builder made belongs to it, and not to whoever we are.
    let somebody = Some(rustix::process::geteuid().as_raw() + 1);
    let foreign = run(directory.path(), &Instructions { builder: somebody, ..instructions }).unwrap_err();
    assert!(matches!(foreign, InspectError::Suspicious { .. }) && foreign.is_rejection(), "{foreign}");
}

/// As if somebody had exchanged them after the directory was listed.
///
/// Attack: OUT-9, OUT-12 (a race). Layer: what was opened is asked what it is, and no link is followed.
#[test]
fn what_is_no_file_any_more_is_not_read_as_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("secret"), "secret").unwrap();
    symlink("secret", directory.path().join("link")).unwrap();
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let candidates = Candidates::new([]);
    let instructions = Instructions {
        candidates: &candidates,
        content: None,
        canonicalise: true,
        builder: None,
        budget: Budget::default(),
    };
    let parent = File::open(directory.path()).unwrap();
    for (name, kind) in [
        (c"link", FileType::RegularFile),
        (c"directory", FileType::RegularFile),
        (c"pipe", FileType::RegularFile),
        (c"link", FileType::Directory),
    ] {
        let mut links = Links::default();
        let mut walk = Walk {
            instructions: &instructions,
            nar: Writer::new(Sinks { nar: HashSink::new(HashAlgorithm::Sha256), other: None }),
            contents: None,
            references: BTreeSet::new(),
            levels: Vec::new(),
            chunk: vec![0; CHUNK_SIZE],
            links: &mut links,
            top: directory.path(),
            bytes: 0,
            files: 0,
        };
        let error = walk.visit(parent.as_fd(), name, kind, directory.path().to_owned()).unwrap_err();
        assert!(
            matches!(error, InspectError::UnsupportedType { .. } | InspectError::System { doing: "open", .. }),
            "{name:?}: {error:?}"
        );
    }
    let mode = std::fs::metadata(directory.path().join("secret")).unwrap().mode();
    assert_ne!(mode & 0o777, 0o444, "nothing was done to it");
}

#[test]
fn of_a_directory_no_more_is_listed_than_there_is_room_for() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..100 {
        std::fs::write(directory.path().join(number.to_string()), "").unwrap();
    }
    let open = || OwnedFd::from(File::open(directory.path()).unwrap());
    assert_eq!(entries(&open(), directory.path(), None).unwrap().len(), 100);
    assert_eq!(entries(&open(), directory.path(), Some(10)).unwrap().len(), 11, "one too many");
}

/// Attack: OUT-1. Layer: links are counted for each file of each disk.
#[test]
fn files_of_two_disks_with_one_number_are_two_files() {
    let directory = tempfile::tempdir().unwrap();
    let (inside, outside) = (directory.path().join("inside"), directory.path().join("outside"));
    std::fs::write(&inside, "").unwrap();
    std::fs::hard_link(&inside, outside).unwrap();
    let status = rustix::fs::stat(&inside).unwrap();
    let mut elsewhere = status;
    elsewhere.st_dev += 1;
    let mut links = Links::default();
    links.count(&status, &inside);
    links.count(&elsewhere, &inside);
    assert!(matches!(links.check(), Err(InspectError::LinkedElsewhere { .. })));
}

/// A hard link to somebody else's file is no reason to give us that file.
#[test]
fn only_what_belongs_to_the_builder_changes_its_owner() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can give files away.
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "").unwrap();
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    let file = File::open(&path).unwrap();
    let close = |builder| {
        let status = rustix::fs::fstat(&file).unwrap();
        canonical::close(Some(builder), file.as_fd(), &status, 0o444, &path).unwrap();
        std::fs::metadata(&path).unwrap().uid()
    };
    assert_eq!(close(12_346), 12_345);
    assert_eq!(close(12_345), 0);
}

#[test]
fn an_output_that_is_too_large_is_not_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    std::fs::create_dir(&out).unwrap();
    for number in 0..10 {
        std::fs::write(out.join(number.to_string()), vec![b'x'; 100]).unwrap();
    }
    // Holes count: a NAR has none.
    std::fs::File::create(out.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let candidates = Candidates::new([]);
    let with = |bytes, files| {
        let budget = Budget { bytes, files };
        run(
            directory.path(),
            &Instructions { candidates: &candidates, content: None, canonicalise: false, builder: None, budget },
        )
    };
    let before = std::time::Instant::now();
    for (bytes, files, expected) in [
        (Some(1 << 30), None, Limit::OutputSize),
        (Some(999), None, Limit::OutputSize),
        (None, Some(10), Limit::OutputFiles),
        (Some(1), Some(1), Limit::OutputFiles),
    ] {
        let error = with(bytes, files).unwrap_err();
        assert!(error.is_rejection());
        assert!(matches!(error, InspectError::TooLarge { limit, .. } if limit == expected), "{error}");
    }
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    std::fs::remove_file(out.join("sparse")).unwrap();
    assert!(with(Some(1000), Some(10)).is_ok());
}
