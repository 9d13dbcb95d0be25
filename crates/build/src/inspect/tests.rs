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
    std::fs::set_permissions(out.join("bin/tool"), std::fs::Permissions::from_mode(0o4700)).unwrap();
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
