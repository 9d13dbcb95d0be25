//! What the reader refuses is what Nix refuses, and what the writer writes it reads.

use super::*;
use crate::nar::Writer;
use proptest::prelude::*;

/// Events with contents, or the error in words.
fn read(bytes: &[u8]) -> Result<Vec<(NarEvent, Vec<u8>)>, String> {
    let mut reader = Reader::new(bytes);
    let mut events = Vec::new();
    let mut run = || -> Result<(), NarReadError> {
        while let Some(event) = reader.next_event()? {
            let mut contents = Vec::new();
            if let NarEvent::File { .. } = event {
                let mut piece = [0; 7];
                loop {
                    match reader.contents(&mut piece)? {
                        0 => break,
                        count => contents.extend(&piece[..count]),
                    }
                }
            }
            events.push((event, contents));
        }
        Ok(())
    };
    run().map_err(|error| error.to_string())?;
    reader.finish().map_err(|error| error.to_string())?;
    Ok(events)
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(*part);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

fn directory(names: &[&[u8]]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
    for name in names {
        parts.extend([
            b"entry" as &[u8],
            b"(",
            b"name",
            name,
            b"node",
            b"(",
            b"type",
            b"symlink",
            b"target",
            b"t",
            b")",
            b")",
        ]);
    }
    parts.push(b")");
    strings(&parts)
}

/// Attack: PARSE-1, CVE-2024-45593. Layer: NAR reader.
#[test]
fn what_nix_refuses_is_refused() {
    let file = |tail: &[&[u8]]| strings(&[&[b"nix-archive-1" as &[u8], b"(", b"type", b"regular"], tail].concat());
    let link = |target: &[u8]| strings(&[b"nix-archive-1", b"(", b"type", b"symlink", b"target", target, b")"]);
    let long_name = vec![b'x'; 256];
    let long_target = vec![b'x'; 4096];
    for (label, bytes, expected) in [
        ("magic", strings(&[b"nix-archive-2"]), "input doesn't look like a Nix archive"),
        ("nothing", Vec::new(), "it ends after 0 bytes"),
        ("slash", directory(&[b"a/b"]), "invalid file name"),
        ("dots", directory(&[b".."]), "invalid file name"),
        ("dot", directory(&[b"."]), "invalid file name"),
        ("empty name", directory(&[b""]), "invalid file name"),
        ("NUL", directory(&[b"a\0b"]), "invalid file name"),
        ("absolute", directory(&[b"/a"]), "invalid file name"),
        ("twice", directory(&[b"a", b"a"]), "not sorted"),
        ("unsorted", directory(&[b"b", b"a"]), "not sorted"),
        ("long name", directory(&[&long_name]), "file name of 256 bytes"),
        ("empty target", link(b""), "invalid symbolic link target"),
        ("NUL target", link(b"a\0"), "invalid symbolic link target"),
        ("long target", link(&long_target), "link target of 4096 bytes"),
        ("type", strings(&[b"nix-archive-1", b"(", b"type", b"fifo"]), "got 'fifo'"),
        ("executable twice", file(&[b"executable", b"", b"executable", b""]), "expected 'contents'"),
        ("executable full", file(&[b"executable", b"x"]), "expected an empty string"),
        ("trailing", [file(&[b"contents", b"", b")"]), vec![0]].concat(), "goes on after its end"),
        ("truncated", file(&[b"contents", b"abc"]), "in the middle"),
    ] {
        let error = read(&bytes).expect_err(label);
        assert!(error.contains(expected), "{label}: {error}");
    }
}

/// Attack: PARSE-3, CVE-2026-44028. Layer: lengths are compared with limits before anything is allocated.
#[test]
fn lengths_near_the_end_of_the_number_range_allocate_nothing() {
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40] {
        let mut bytes = strings(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents"]);
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 64]);
        assert!(read(&bytes).unwrap_err().contains("in the middle"), "{length}");
        let mut bytes = strings(&[b"nix-archive-1", b"("]);
        bytes.extend(length.to_le_bytes());
        assert!(read(&bytes).unwrap_err().contains("a keyword of"), "{length}");
    }
}

#[test]
fn padding_must_be_zero() {
    let mut bytes = strings(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents", b"abc"]);
    let last = bytes.len() - 1;
    bytes[last] = 1;
    assert!(read(&bytes).unwrap_err().contains("non-zero padding"));
}

/// Attack: PARSE-2, CVE-2026-44028. Layer: depth limit of the NAR reader.
#[test]
fn depth_is_limited_without_recursion() {
    let nested = |levels: usize| {
        let mut parts: Vec<&[u8]> = vec![b"nix-archive-1"];
        for _ in 0..levels {
            parts.extend([b"(" as &[u8], b"type", b"directory", b"entry", b"(", b"name", b"d", b"node"]);
        }
        parts.extend([b"(" as &[u8], b"type", b"symlink", b"target", b"t", b")"]);
        for _ in 0..levels {
            parts.extend([b")" as &[u8], b")"]);
        }
        strings(&parts)
    };
    assert!(read(&nested(63)).is_ok());
    for levels in [64, 65, 100_000] {
        assert!(read(&nested(levels)).unwrap_err().contains("maximum NAR directory depth of 64"), "{levels}");
    }
}

/// Attack: PARSE-2 (count). Layer: entry limit of the NAR reader.
#[test]
fn entries_are_counted() {
    let bytes = directory(&[b"a", b"b"]);
    let mut reader = Reader { entries: ENTRY_LIMIT - 1, ..Reader::new(&bytes[..]) };
    let error = loop {
        match reader.next_event() {
            Ok(event) => assert!(event.is_some(), "it came to its end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, NarReadError::TooMany), "{error}");
}

proptest! {
    /// Whatever the writer writes is read back, event by event.
    #[test]
    fn reading_undoes_writing(files in proptest::collection::btree_map("[a-z]{1,3}", (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8)) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        let mut expected = vec![(NarEvent::Directory, Vec::new())];
        writer.directory().unwrap();
        for (name, (executable, contents)) in &files {
            writer.entry(name.as_bytes()).unwrap();
            writer.file(*executable, contents.len() as u64).unwrap();
            writer.contents(contents).unwrap();
            expected.push((NarEvent::Entry(name.as_str().into()), Vec::new()));
            expected.push((NarEvent::File { executable: *executable, size: contents.len() as u64 }, contents.clone()));
        }
        writer.end_directory().unwrap();
        writer.finish().unwrap();
        expected.push((NarEvent::EndDirectory, Vec::new()));
        prop_assert_eq!(read(&bytes), Ok(expected));
    }

    /// No bytes make it panic, recurse or allocate without limit.
    #[test]
    fn damaged_archives_are_errors(at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = directory(&[b"a", b"b", b"c"]);
        let at = at % bytes.len();
        let is_changed = bytes[at] != byte;
        bytes[at] = byte;
        let result = read(&bytes);
        // Letters of names and targets may change; everything else may not.
        if is_changed && result.is_ok() {
            prop_assert!(byte != 0);
        }
    }
}
