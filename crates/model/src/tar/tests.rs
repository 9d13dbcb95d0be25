use super::*;
use proptest::prelude::*;

/// A header with its checksum, and the contents filled up.
fn member(kind: u8, name: &str, target: &str, contents: &[u8]) -> Vec<u8> {
    with_size(kind, name, target, contents.len() as u64, contents)
}

fn with_size(kind: u8, name: &str, target: &str, size: u64, contents: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000755");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    let mut bytes = seal(block).to_vec();
    bytes.extend(contents);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn seal(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length += 1;
    }
    format!("{length}{rest}").into_bytes()
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.extend([0; 2 * BLOCK]);
    bytes
}

type Found = Vec<(String, MemberKind, Vec<u8>)>;

fn read(bytes: &[u8]) -> Result<Found, String> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    let mut run = || -> Result<(), TarError> {
        while let Some(Member { path, kind }) = reader.next_member()? {
            let mut contents = Vec::new();
            let mut piece = [0; 100];
            loop {
                match reader.contents(&mut piece)? {
                    0 => break,
                    count => contents.extend(&piece[..count]),
                }
            }
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            found.push((path.join("/"), kind, contents));
        }
        Ok(())
    };
    run().map_err(|error| error.to_string()).map(|()| found)
}

#[track_caller]
fn refused(members: &[Vec<u8>], words: &str) {
    let error = read(&archive(members)).expect_err(words);
    assert!(error.contains(words), "{error}");
}

#[test]
fn members_are_read_with_all_that_extensions_say() {
    let long = "d/".repeat(60) + "file";
    let bytes = archive(&[
        member(b'g', "pax_global_header", "", &record("comment", "abc")),
        member(b'5', "./a/", "", b""),
        member(b'0', "a/b", "", b"hello"),
        member(b'x', "x", "", &[record("path", &long), record("mtime", "1.5"), record("size", "3")].concat()),
        member(b'0', "short", "", b"abc"),
        member(b'L', "././@LongLink", "", b"a/long\0"),
        member(b'K', "././@LongLink", "", b"/target\0"),
        member(b'2', "a/lon", "/tar", b""),
        member(b'1', "a/c", "a/b", b""),
        member(0, "old/", "", b""),
    ]);
    let kind = |size| MemberKind::File { executable: true, size };
    let target = vec![ByteString::from("a"), ByteString::from("b")];
    assert_eq!(
        read(&bytes).unwrap(),
        [
            ("a".to_owned(), MemberKind::Directory, Vec::new()),
            ("a/b".to_owned(), kind(5), b"hello".to_vec()),
            (long, kind(3), b"abc".to_vec()),
            ("a/long".to_owned(), MemberKind::Symlink { target: "/target".into() }, Vec::new()),
            ("a/c".to_owned(), MemberKind::HardLink { target }, Vec::new()),
            ("old".to_owned(), MemberKind::Directory, Vec::new()),
        ]
    );
}

/// Attack: PARSE-4, CVE-2026-44029, CVE-2007-4559, CVE-2025-4517. Layer: names of the tar reader.
#[test]
fn names_that_lead_out_of_a_tar_archive_are_refused() {
    for (name, words) in [
        ("/etc/passwd", "is absolute"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a/..", "leads out"),
        ("..", "leads out"),
        ("", "names no file"),
        (".", "names no file"),
    ] {
        refused(&[member(b'0', name, "", b"x")], words);
        refused(
            &[
                member(b'x', "x", "", &record("path", &format!("{name}{}", "/".repeat(usize::from(name.is_empty()))))),
                member(b'0', "a", "", b"x"),
            ],
            if name.is_empty() { "is absolute" } else { words },
        );
    }
    refused(&[member(b'x', "x", "", &record("path", "a\0b")), member(b'0', "a", "", b"")], "has a NUL byte");
    refused(&[member(b'x', "x", "", &record("path", &"x".repeat(256))), member(b'0', "a", "", b"")], "too long");
    refused(&[member(b'x', "x", "", &record("path", &"d/".repeat(100_000))), member(b'0', "a", "", b"")], "too deep");
}

/// Attack: PARSE-11, CVE-2026-23745, CVE-2026-26960. Layer: names of the tar reader.
#[test]
fn hard_links_that_lead_out_of_a_tar_archive_are_refused() {
    for (target, words) in [("/etc/passwd", "is absolute"), ("../x", "leads out"), ("a/../../x", "leads out")] {
        refused(&[member(b'1', "a", target, b"")], words);
        refused(&[member(b'x', "x", "", &record("linkpath", target)), member(b'1', "a", "b", b"")], words);
    }
}

/// An archive in an archive is contents to one reader and members to another.
///
/// Attack: PARSE-10, CVE-2025-62518. Layer: sizes that two headers give differently.
#[test]
fn a_size_that_is_given_twice_and_differently_is_refused() {
    let hidden = member(b'0', "evil", "", b"#!/bin/sh\n");
    let size = record("size", &hidden.len().to_string());
    refused(&[member(b'x', "x", "", &size), with_size(b'0', "outer", "", 0, &hidden)], "another size than the header");
    refused(&[member(b'x', "x", "", &record("size", "0")), member(b'0', "outer", "", &hidden)], "another size");
    let twice = [record("size", &hidden.len().to_string()), record("size", "0")].concat();
    refused(&[member(b'x', "x", "", &twice), member(b'0', "outer", "", &hidden)], "the same thing twice");
    refused(&[member(b'g', "x", "", &record("size", "0")), member(b'0', "outer", "", &hidden)], "a global extension");
}

/// Attack: PARSE-10, RUSTSEC-2026-0112, RUSTSEC-2026-0113. Layer: malformed extensions are errors.
#[test]
fn a_malformed_extension_is_never_skipped() {
    for text in [
        "x",
        "5",
        " path=a\n",
        "0 path=a\n",
        "8 path=a\n",
        "11 path=a\n",
        "99999999999999999999 path=a\n",
        "8 path a\n",
        "10 path=a\nx",
        "-1 a=b\n",
        "+9 a=bc\n",
        "5 =a\n",
    ] {
        refused(&[member(b'x', "x", "", text.as_bytes()), member(b'0', "a", "", b"")], "an extension is malformed");
    }
    refused(&[member(b'x', "x", "", &record("size", "1x")), member(b'0', "a", "", b"1")], "size is not a number");
    refused(&[member(b'x', "x", "", &record("size", "+1")), member(b'0', "a", "", b"1")], "size is not a number");
    refused(&[member(b'L', "x", "", b"a\0b\0"), member(b'0', "a", "", b"")], "a long name is malformed");
    refused(&[member(b'L', "x", "", b""), member(b'0', "a", "", b"")], "a long name is malformed");
    let path = member(b'x', "x", "", &record("path", "b"));
    let path_of_b = path.clone();
    refused(&[path.clone(), path.clone(), member(b'0', "a", "", b"")], "two extensions are about one member");
    refused(&[path.clone(), member(b'L', "x", "", b"c\0"), member(b'0', "a", "", b"")], "the same thing twice");
    refused(&[path], "an extension is about no member");
    refused(&[member(b'x', "x", "", &record("GNU.sparse.major", "1")), member(b'0', "a", "", b"")], "sparse files");
    refused(&[with_size(b'x', "x", "", 1 << 30, b"")], "more than 1048576 bytes of an extension");
    let cut = read(&path_of_b[..BLOCK + 5]).expect_err("a cut extension");
    assert!(cut.contains("it ends after 517 bytes, in the middle"), "{cut}");
}

/// Attack: PARSE-4, 1e (special files). Layer: types of the tar reader.
#[test]
fn members_that_are_no_files_are_refused() {
    for (kind, words) in
        [(b'3', "a device"), (b'4', "a device"), (b'6', "a pipe"), (b'S', "a sparse file"), (b'!', "an unknown type")]
    {
        refused(&[member(kind, "a", "", b"")], words);
    }
    refused(&[member(b'5', "a", "", b"x")], "has contents");
    refused(&[member(b'2', "a", "t", b"x")], "has contents");
    refused(&[member(b'1', "a", "t", b"x")], "has contents");
    refused(&[member(b'2', "a", "", b"")], "a target that no link can have");
}

/// Attack: PARSE-15. Layer: nothing but zeros behind the end mark.
#[test]
fn nothing_may_follow_the_end_mark() {
    let one = archive(&[member(b'0', "a", "", b"x")]);
    assert!(read(&[one.clone(), vec![0; 20 * BLOCK]].concat()).is_ok());
    assert!(read(&[one.clone(), vec![1]].concat()).unwrap_err().contains("goes on after its end mark"));
    assert!(read(&[one.clone(), one.clone()].concat()).unwrap_err().contains("goes on after its end mark"));
    for length in 0..one.len() - 2 * BLOCK {
        assert!(read(&one[..length]).unwrap_err().contains("in the middle"), "{length}");
    }
}

#[test]
fn a_header_is_what_it_should_be_to_the_bit() {
    let good = member(b'0', "a", "", b"");
    for at in 0..BLOCK {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            // The checksum's digits may have a zero or a blank more.
            assert!(read(&archive(&[bytes])).is_err() || (148..156).contains(&at), "{at} {bit}");
        }
    }
    for size in [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"9          \0",
        b"-1         \0",
        b"+1         \0",
        b"1 1        \0",
    ] {
        let mut block: [u8; BLOCK] = good[..BLOCK].try_into().unwrap();
        block[124..136].copy_from_slice(size);
        refused(&[seal(block).to_vec()], "the size is not a number");
    }
    let mut block: [u8; BLOCK] = good[..BLOCK].try_into().unwrap();
    block[257..265].copy_from_slice(b"notustar");
    refused(&[seal(block).to_vec()], "another format");
}

/// Attack: PARSE-3, PARSE-12. Layer: limits of the tar reader.
#[test]
fn claimed_sizes_and_endless_members_are_limited() {
    refused(&[with_size(b'0', "a", "", (8 << 30) - 1, b""), with_size(b'0', "b", "", 0, b"")], "in the middle");
    let mut block: [u8; BLOCK] = member(b'0', "a", "", b"")[..BLOCK].try_into().unwrap();
    block[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\x10\0\0\0\x01");
    refused(&[seal(block).to_vec()], "more than 68719476736 bytes of contents");
    let mut reader = Reader::new(&b""[..]);
    reader.members = MEMBER_LIMIT;
    let bytes = archive(&[member(b'5', "a", "", b"")]);
    let mut reader = Reader { input: &bytes[..], ..reader };
    assert!(reader.next_member().unwrap_err().to_string().contains("more than 1048576 members"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_tar_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in any::<u8>()) {
        let _ = read(&bytes);
        let _ = read(&archive(&[member(kind, "x", "", &bytes), member(b'0', "a", "", b"1")]));
    }
}
