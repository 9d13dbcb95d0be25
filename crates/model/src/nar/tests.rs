//! The writer, beside archives that real Nix wrote.

use super::*;
use crate::hash::{Hash, HashAlgorithm};

fn written(steps: impl FnOnce(&mut Writer<Vec<u8>>) -> Result<(), NarError>) -> Result<Vec<u8>, NarError> {
    let mut writer = Writer::new(Vec::new());
    steps(&mut writer)?;
    let position = writer.position();
    let (bytes, size) = writer.finish()?;
    assert_eq!((size, position), (bytes.len() as u64, bytes.len() as u64));
    Ok(bytes)
}

#[test]
fn vectors_from_nix_agree() {
    let empty = written(|nar| nar.file(false, 0)).unwrap();
    assert_eq!(empty.len(), 112);
    let hash = Hash::of(HashAlgorithm::Sha256, &empty);
    assert_eq!(hash.to_base16(), "77ac62e2629d8e45f624589c0c8bf99e24b3a722349bf1e79bc186008534e246");
    let hello = written(|nar| {
        nar.file(false, 5)?;
        nar.contents(b"he")?;
        nar.contents(b"llo")
    });
    let hello = hello.unwrap();
    assert_eq!(hello.len(), 120);
    let hash = Hash::of(HashAlgorithm::Sha256, &hello);
    assert_eq!(hash.to_sri(), "sha256-CkMIecJm+LV/QJKg+TXPP6zUi7zN5XYNR0jKQFFx6Wk=");
}

#[test]
fn contents_of_any_chunking_give_the_same_bytes() {
    let data: Vec<u8> = (0..100_003u32).map(|number| number as u8).collect();
    let chunked = |size: usize| {
        written(|nar| {
            nar.directory()?;
            nar.entry(b"a")?;
            nar.file(true, data.len() as u64)?;
            data.chunks(size).try_for_each(|chunk| nar.contents(chunk))?;
            nar.entry(b"b")?;
            nar.symlink(b"a")?;
            nar.end_directory()
        })
        .unwrap()
    };
    let whole = chunked(data.len());
    for size in [1, 7, 4095, 4096, 8191, 16_384, 65_536] {
        assert!(chunked(size) == whole, "{size}");
    }
}

#[test]
fn only_64_levels_can_be_written() {
    let nested = |directories: usize| {
        written(|nar| {
            for level in 0..directories {
                if level > 0 {
                    nar.entry(b"d")?;
                }
                nar.directory()?;
            }
            (0..directories).try_for_each(|_| nar.end_directory())
        })
    };
    assert!(nested(64).is_ok());
    assert!(matches!(nested(65), Err(NarError::TooDeep)));
}

#[test]
fn names_are_bytes_in_strict_order() {
    let entries = |names: &[&[u8]]| {
        written(|nar| {
            nar.directory()?;
            for name in names {
                nar.entry(name)?;
                nar.file(false, 0)?;
            }
            nar.end_directory()
        })
    };
    let longest = [b'x'; 255];
    assert!(entries(&[b"\x01\n", b"A", b"a", b"a.", b"ab", &longest, b"\xff\xfe"]).is_ok());
    for bad in [b"".as_slice(), b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
        assert!(matches!(entries(&[bad]), Err(NarError::InvalidName { .. })), "{bad:?}");
    }
    assert!(matches!(entries(&[b"b", b"a"]), Err(NarError::Unsorted { .. })));
    assert!(matches!(entries(&[b"a", b"a"]), Err(NarError::Unsorted { .. })));
    assert!(matches!(written(|nar| nar.symlink(b"")), Err(NarError::InvalidTarget { .. })));
    assert!(matches!(written(|nar| nar.symlink(&[b'x'; 4096])), Err(NarError::InvalidTarget { .. })));
}

#[test]
fn a_file_has_exactly_its_declared_size() {
    let file = |declared, data: &[u8]| {
        written(|nar| {
            nar.file(false, declared)?;
            nar.contents(data)
        })
    };
    assert!(matches!(file(3, b"ab"), Err(NarError::TooShort { declared_bytes: 3, written_bytes: 2 })));
    assert!(matches!(file(3, b"abcd"), Err(NarError::TooLong { declared_bytes: 3, written_bytes: 4 })));
    assert!(matches!(file(0, b"a"), Err(NarError::Misplaced { .. })));
    assert!(file(3, b"abc").is_ok());
}

#[test]
fn tokens_out_of_place_are_refused() {
    type Step = fn(&mut Writer<Vec<u8>>) -> Result<(), NarError>;
    let wrong: [Step; 5] = [
        |_| Ok(()),
        |nar| nar.entry(b"a"),
        |nar| nar.end_directory(),
        |nar| nar.directory(),
        |nar| nar.symlink(b"a").and_then(|()| nar.symlink(b"b")),
    ];
    for (index, step) in wrong.into_iter().enumerate() {
        assert!(matches!(written(step), Err(NarError::Misplaced { .. })), "{index}");
    }
}
