use super::*;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
};

/// What is unpacked to, and beside it what must not be touched.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { directory };
        fs::create_dir(place.out()).unwrap();
        fs::create_dir(place.canary()).unwrap();
        fs::write(place.canary().join("file"), "canary").unwrap();
        fs::set_permissions(place.canary(), fs::Permissions::from_mode(0o700)).unwrap();
        place
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn canary(&self) -> PathBuf {
        self.directory.path().join("canary")
    }

    /// Unpacks, and looks whether anything changed elsewhere.
    fn unpack(&self, archive: &[u8]) -> Result<(), String> {
        let out = File::open(self.out()).unwrap();
        let result = unpack_tar(archive, std::os::fd::AsFd::as_fd(&out), &self.out());
        self.check();
        result.map_err(|error| crate::chain(&error))
    }

    /// The canary is as it was.
    fn check(&self) {
        let status = self.canary().metadata().unwrap();
        assert_eq!(status.mode() & 0o7777, 0o700);
        assert_eq!(fs::read(self.canary().join("file")).unwrap(), b"canary");
        assert_eq!(self.canary().join("file").metadata().unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.canary()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.directory.path()).unwrap().count(), 2);
    }
}

/// A member that no honest program writes.
fn member(kind: u8, name: &str, target: &str, contents: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o6777);
    header.set_size(contents.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), contents].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

/// Attack: PARSE-4, CVE-2026-33056, CVE-2026-32766. Layer: directories are opened without following links.
#[test]
fn nothing_is_unpacked_through_a_link_of_a_tar_archive() {
    for target in ["ABSOLUTE", "../canary"] {
        let absolute = Place::new();
        let canary = absolute.canary();
        let target = if target == "ABSOLUTE" { canary.to_str().unwrap() } else { target };
        for members in [
            // A file through a link, a directory in the place of a link (whose mode would be changed), a link in a link.
            vec![member(b'2', "x", target, b""), member(b'0', "x/evil", "", b"x")],
            vec![member(b'2', "x", target, b""), member(b'5', "x", "", b"")],
            vec![member(b'2', "x", target, b""), member(b'5', "x/", "", b"")],
            vec![member(b'2', "x", target, b""), member(b'0', "x", "", b"x")],
            vec![member(b'2', "x", &format!("{target}/file"), b""), member(b'0', "x", "", b"x")],
            vec![member(b'2', "a", ".", b""), member(b'2', "a/x", target, b"")],
            vec![member(b'2', "x", target, b""), member(b'2', "y", "x", b""), member(b'0', "y/evil", "", b"x")],
        ] {
            let place = Place::new();
            place.unpack(&archive(&members)).unwrap_err();
            absolute.check();
        }
    }
}

/// Attack: PARSE-11, CVE-2026-23745. Layer: hard links are copies of files that the archive brought.
#[test]
fn hard_links_lead_to_nothing_but_files_of_the_archive() {
    let place = Place::new();
    let file = format!("{}/file", place.canary().display());
    for members in [
        vec![member(b'2', "x", &file, b""), member(b'1', "y", "x", b"")],
        vec![member(b'2', "x", "../canary", b""), member(b'1', "y", "x/file", b"")],
        vec![member(b'2', "a", "..", b""), member(b'2', "b", "a", b""), member(b'1', "y", "b/canary/file", b"")],
        vec![member(b'1', "y", "missing", b"")],
        vec![member(b'5', "d", "", b""), member(b'1', "y", "d", b"")],
        vec![member(b'1', "y", ".", b"")],
    ] {
        let place = Place::new();
        place.unpack(&archive(&members)).unwrap_err();
        assert!(!place.out().join("y").exists());
    }
    let place = Place::new();
    place.unpack(&archive(&[member(b'0', "x", "", b"hi"), member(b'1', "d/y", "x", b"")])).unwrap();
    let [one, other] = ["x", "d/y"].map(|name| place.out().join(name).metadata().unwrap());
    assert_eq!((other.len(), other.nlink(), other.mode() & 0o7777), (2, 1, 0o755));
    assert_ne!(one.ino(), other.ino());
}

/// Attack: PARSE-4. Layer: `O_EXCL`.
#[test]
fn a_member_never_replaces_another_and_has_no_special_mode() {
    let place = Place::new();
    let twice = [member(b'0', "x", "", b"1"), member(b'0', "x", "", b"2")];
    assert!(place.unpack(&archive(&twice)).unwrap_err().contains("File exists"));
    let place = Place::new();
    place
        .unpack(&archive(&[member(b'5', "d", "", b""), member(b'0', "d/x", "", b"1"), member(b'5', "d", "", b"")]))
        .unwrap();
    assert_eq!(place.out().join("d/x").metadata().unwrap().mode() & 0o7000, 0);
    assert_eq!(place.out().join("d").metadata().unwrap().mode() & 0o7000, 0);
}

/// What GNU tar packs, in each of its formats, is what is unpacked.
#[test]
fn archives_of_gnu_tar_come_out_as_they_went_in() {
    let source = tempfile::tempdir().unwrap();
    let tree = source.path().join("tree");
    let deep = tree.join("d".repeat(60)).join("e".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(90)), "long").unwrap();
    fs::write(tree.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.join("large"), vec![7; 1_000_000]).unwrap();
    fs::write(tree.join("umlaut-\u{e4}"), "").unwrap();
    symlink("x".repeat(200), tree.join("link")).unwrap();
    fs::hard_link(tree.join("run"), tree.join("same")).unwrap();
    let expected = |root: &Path| crate::dump(&root.join("tree"), Vec::new()).unwrap().0;
    for format in ["gnu", "oldgnu", "pax", "ustar"] {
        if format == "ustar" {
            // Its targets have at most 100 bytes.
            fs::remove_file(tree.join("link")).unwrap();
            symlink("x", tree.join("link")).unwrap();
        }
        let mut command = Command::new("tar");
        command.args(["--create", "--format", format, "--directory"]).arg(source.path()).arg("tree");
        let output = command.output().expect("tar is on every machine");
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        let place = Place::new();
        place.unpack(&output.stdout).unwrap();
        assert!(expected(source.path()) == expected(&place.out()), "{format}");
    }
}
