//! Archives that mean harm: what real Nix says of them and what we say, and where that differs, why.

use crate::lab::Lab;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
};

/// Why we refuse what Nix 2.8 accepts.
const DEPTH: &str = "Nix 2.34.7 and later refuse it too (CVE-2026-44028)";
const TRAILING: &str = "what follows an archive would be hashed by some and not by others (PARSE-15)";
const GRAMMAR: &str = "Nix 2.8 reads the fields of a node in any order and any number; later versions refuse it too";
const ORDER: &str =
    "Nix 2.8 compares names only on machines whose file systems ignore case; later versions refuse it too";
const TARGET: &str = "Nix 2.8 cuts the target off at the NUL; later versions refuse it too";

/// Strings as archives have them.
fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(*part);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

fn archive(parts: &[&[u8]]) -> Vec<u8> {
    strings(&[&[b"nix-archive-1".as_slice()], parts].concat())
}

const LINK: [&[u8]; 6] = [b"(", b"type", b"symlink", b"target", b"t", b")"];
const FILE: [&[u8]; 6] = [b"(", b"type", b"regular", b"contents", b"hello", b")"];
const EMPTY: [&[u8]; 4] = [b"(", b"type", b"directory", b")"];

/// A directory of entries.
fn directory(entries: &[(&[u8], &[&[u8]])]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = vec![b"(", b"type", b"directory"];
    for (name, node) in entries {
        parts.extend([b"entry".as_slice(), b"(", b"name", name, b"node"]);
        parts.extend(*node);
        parts.push(b")");
    }
    parts.push(b")");
    archive(&parts)
}

fn nested(levels: usize) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    (0..levels)
        .for_each(|_| parts.extend([b"(".as_slice(), b"type", b"directory", b"entry", b"(", b"name", b"d", b"node"]));
    parts.extend(LINK);
    (0..levels).for_each(|_| parts.extend([b")".as_slice(), b")"]));
    archive(&parts)
}

fn with_size(size: u64) -> Vec<u8> {
    let mut bytes = archive(&[b"(", b"type", b"regular", b"contents"]);
    bytes.extend(size.to_le_bytes());
    bytes.extend([b'x'; 64]);
    bytes
}

/// Section 2e of the notes on security: a name, the archive, whether we accept it, and why Nix does what we do not.
#[rustfmt::skip]
fn corpus() -> Vec<(&'static str, Vec<u8>, bool, Option<&'static str>)> {
    let long_name = vec![b'n'; 256];
    let long_target = vec![b't'; 5000];
    let one = |name: &[u8]| directory(&[(name, &FILE)]);
    let link = |target: &[u8]| archive(&[b"(", b"type", b"symlink", b"target", target, b")"]);
    let file = |fields: &[&[u8]]| archive(&[&[b"(".as_slice(), b"type", b"regular"], fields, &[b")"]].concat());
    let padded = |at: usize| { let mut bytes = archive(&FILE); let length = bytes.len(); bytes[length - at] = 1; bytes };
    vec![
        ("a file", archive(&FILE), true, None),
        ("a link", archive(&LINK), true, None),
        ("an empty directory", archive(&EMPTY), true, None),
        ("a tree", directory(&[(b"a", &FILE), (b"b", &LINK), (b"c", &EMPTY)]), true, None),
        ("a link to elsewhere", link(b"/etc/passwd"), true, None),
        ("a link upwards", link(b"../../../.."), true, None),
        ("a name of the case hack", one(b"x~nix~case~hack~1"), true, None),
        ("names that are no text", directory(&[(b"\x01\n", &FILE), (b"\xff\xfe", &FILE)]), true, None),
        ("the longest name", one(&long_name[1..]), true, None),
        ("slash", one(b"a/b"), false, None),
        ("two dots", one(b".."), false, None),
        ("one dot", one(b"."), false, None),
        ("no name", one(b""), false, None),
        ("NUL in a name", one(b"a\0b"), false, None),
        ("absolute name", one(b"/a"), false, None),
        ("a name that is too long", one(&long_name), false, None),
        ("twice", directory(&[(b"a", &FILE), (b"a", &FILE)]), false, None),
        ("link, then directory", directory(&[(b"a", &LINK), (b"a", &EMPTY)]), false, None),
        ("unsorted", directory(&[(b"b", &FILE), (b"a", &FILE)]), false, Some(ORDER)),
        ("no target", link(b""), false, None),
        ("NUL in a target", link(b"a\0b"), false, Some(TARGET)),
        ("a target that is too long", link(&long_target), false, None),
        ("63 levels", nested(63), true, None),
        ("64 levels", nested(64), false, Some(DEPTH)),
        ("65 levels", nested(65), false, Some(DEPTH)),
        ("100 levels", nested(100), false, Some(DEPTH)),
        ("a size of 2^64 - 1", with_size(u64::MAX), false, None),
        ("a size of 2^64 - 8", with_size(u64::MAX - 7), false, None),
        ("a size of 2^63", with_size(1 << 63), false, None),
        ("a size of 2^40", with_size(1 << 40), false, None),
        ("a keyword of 2^33", [strings(&[b"nix-archive-1"]), (1_u64 << 33).to_le_bytes().to_vec()].concat(), false, None),
        ("padding of a file", padded(17), false, None),
        ("padding of a keyword", padded(1), false, None),
        ("unknown type", archive(&[b"(", b"type", b"fifo", b")"]), false, None),
        ("unknown field", file(&[b"mode", b"4755"]), false, None),
        ("executable twice", file(&[b"executable", b"", b"executable", b"", b"contents", b""]), false, Some(GRAMMAR)),
        ("executable with a value", file(&[b"executable", b"x", b"contents", b""]), false, None),
        ("executable afterwards", file(&[b"contents", b"", b"executable", b""]), false, Some(GRAMMAR)),
        ("contents twice", file(&[b"contents", b"a", b"contents", b"b"]), false, Some(GRAMMAR)),
        ("no contents", file(&[]), false, Some(GRAMMAR)),
        ("entry in a file", file(&[b"entry", b"("]), false, None),
        ("two types", archive(&[b"(", b"type", b"regular", b"type", b"directory", b")"]), false, None),
        ("nothing at all", Vec::new(), false, None),
        ("another magic", strings(&[b"nix-archive-2"]), false, None),
        ("junk behind it", [archive(&FILE), b"junk".to_vec()].concat(), false, Some(TRAILING)),
        ("another archive behind it", archive(&FILE).repeat(2), false, Some(TRAILING)),
        ("cut in the middle", archive(&FILE)[..60].to_vec(), false, None),
    ]
}

/// Whether Nix restores it, and to what.
fn of_nix(lab: &Lab, bytes: &[u8], number: usize) -> Option<Vec<u8>> {
    let place = lab.path().join(format!("nix-{number}"));
    fs::create_dir(&place).unwrap();
    let mut command = Command::new("nix-store");
    command.arg("--restore").arg(place.join("object")).stdin(Stdio::piped()).stderr(Stdio::null());
    command.env("HOME", lab.path()).env("NIX_CONF_DIR", lab.path()).env("USER", "somebody");
    let mut child = command.spawn().expect("real Nix is needed: apt-get install nix-bin");
    // It may stop in the middle.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let is_restored = child.wait().unwrap().success();
    is_restored
        .then(|| fodder_store::dump(&place.join("object"), Vec::new()).map(|(bytes, _)| bytes).unwrap_or_default())
}

/// The same of ours, with the rule that nothing may follow.
fn of_ours(lab: &Lab, bytes: &[u8], number: usize) -> Option<Vec<u8>> {
    let place = lab.path().join(format!("ours-{number}"));
    fs::create_dir(&place).unwrap();
    let parent = File::open(&place).unwrap();
    let mut input = bytes;
    let result = fodder_store::restore(&mut input, parent.as_fd(), OsStr::new("object"));
    // Alone in its directory, whatever it was.
    assert!(names(&place).iter().all(|name| name == "object"));
    (result.is_ok() && input.is_empty()).then(|| fodder_store::dump(&place.join("object"), Vec::new()).unwrap().0)
}

fn names(place: &Path) -> Vec<String> {
    fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Attack: PARSE-1, PARSE-2, PARSE-3, PARSE-15, CVE-2024-45593, CVE-2026-44028. Layer: NAR reader, unpacking by descriptor.
#[test]
fn evil_archives_are_judged_as_nix_judges_them_or_there_is_a_reason() {
    let lab = Lab::new();
    let canary = lab.file("canary", "canary");
    let mut surprises: Vec<String> = Vec::new();
    for (number, (label, bytes, is_accepted, difference)) in corpus().into_iter().enumerate() {
        let (nix, ours) = (of_nix(&lab, &bytes, number), of_ours(&lab, &bytes, number));
        assert_eq!(ours.is_some(), is_accepted, "{label}");
        // The control: what we refuse for a reason, Nix 2.8 accepts.
        if nix.is_some() != (is_accepted || difference.is_some()) {
            surprises.push(format!("{label}: Nix accepts it: {}", nix.is_some()));
        }
        if is_accepted {
            assert!(nix == ours && ours.as_deref() == Some(&bytes[..]), "{label}");
        }
    }
    assert_eq!(surprises, [""; 0]);
    assert_eq!(fs::read(canary).unwrap(), b"canary");
}

/// Good archives with some bytes changed: nothing is accepted that Nix refuses, and what both accept is the same tree.
#[test]
fn nothing_is_accepted_that_nix_refuses() {
    let lab = Lab::new();
    let originals: Vec<Vec<u8>> =
        corpus().into_iter().filter(|(.., is_accepted, _)| *is_accepted).map(|(_, bytes, ..)| bytes).collect();
    // The same numbers every time.
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let change = (0..originals.len(), 0_usize..10_000, 0_u8..=255, 0_usize..4);
    let mut accepted = 0;
    for number in 0..150 {
        let (which, at, byte, how) = change.new_tree(&mut runner).unwrap().current();
        let mut bytes = originals[which].clone();
        let at = at % bytes.len();
        match how {
            0 => bytes[at] = byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.truncate(at),
            // A token again, or one less.
            _ if byte % 2 == 0 => drop(bytes.drain(at / 8 * 8..(at / 8 * 8 + 16).min(originals[which].len()))),
            _ => bytes
                .splice(at / 8 * 8..at / 8 * 8, originals[which][at / 8 * 8..].iter().take(16).copied())
                .for_each(drop),
        }
        let Some(ours) = of_ours(&lab, &bytes, 1000 + number) else { continue };
        accepted += 1;
        assert!(of_nix(&lab, &bytes, 1000 + number).as_ref() == Some(&ours), "{which} {at} {byte} {how}");
    }
    assert!(accepted > 2, "the changes are too great to say anything: {accepted}");
}
