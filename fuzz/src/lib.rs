//! What several targets need: a place to unpack to with something beside it that must not change, and second opinions.
#![forbid(unsafe_code)]

pub mod cidr;

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// An empty directory, and a canary beside it.
pub struct Place {
    directory: tempfile::TempDir,
    out: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// Both, in a temporary directory.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().join("out");
        fs::create_dir(&out).expect("a directory");
        let canary = directory.path().join("canary");
        fs::create_dir(&canary).expect("a directory");
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o700)).expect("a mode");
        fs::write(canary.join("file"), "canary").expect("a file");
        Place { directory, out }
    }

    /// Where to unpack to.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The canary is as it was, and alone.
    pub fn check(&self) {
        let canary = self.directory.path().join("canary");
        assert_eq!(canary.symlink_metadata().expect("the canary").mode(), 0o40700);
        assert_eq!(fs::read(canary.join("file")).expect("the canary"), b"canary");
        assert_eq!(canary.join("file").metadata().expect("the canary").nlink(), 1);
        assert_eq!(fs::read_dir(&canary).expect("the canary").count(), 1);
        assert_eq!(fs::read_dir(self.directory.path()).expect("the place").count(), 2);
    }
}

/// A tar archive in which every block that could be a header has the checksum of one.
pub fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block.iter().any(|byte| *byte != 0) && matches!(&block[257..263], b"ustar\0" | b"ustar ") {
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    bytes
}

/// An address from the first bytes, of either family.
pub fn address(data: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (kind, rest) = data.split_first()?;
    match kind % 2 {
        0 => rest.split_first_chunk::<4>().map(|(octets, rest)| (IpAddr::from(*octets), rest)),
        _ => rest.split_first_chunk::<16>().map(|(octets, rest)| (IpAddr::from(*octets), rest)),
    }
}
