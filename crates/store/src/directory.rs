//! Directories held open, with the name they had for messages. Everything in the store is reached from one of these, a
//! single component at a time, so that nobody can redirect us by swapping a directory for a link.

use crate::error::{At, StoreError};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};
use std::{
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Opens a directory for reading, never through a symbolic link.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Directory {
    /// Takes a descriptor and the path to name in messages.
    pub(crate) fn from_descriptor(descriptor: OwnedFd, path: PathBuf) -> Self {
        Directory { descriptor, path }
    }

    /// The same directory under another name.
    pub(crate) fn named(self, path: PathBuf) -> Self {
        Directory { path, ..self }
    }

    /// Opens by path; only the last component must not be a link.
    pub(crate) fn open_path(path: &Path) -> Result<Self, StoreError> {
        match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
            Ok(descriptor) => Ok(Directory { descriptor, path: path.to_owned() }),
            Err(error) => Err(not_a_directory(error, path)),
        }
    }

    /// The path for messages, and for callers that cannot use descriptors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Path of an entry, for the same uses.
    pub(crate) fn child(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// Opens a subdirectory.
    pub(crate) fn open(&self, name: impl AsRef<OsStr>) -> Result<Self, StoreError> {
        let path = self.child(&name);
        match rustix::fs::openat(self, name.as_ref(), DIRECTORY, Mode::empty()) {
            Ok(descriptor) => Ok(Directory { descriptor, path }),
            Err(error) => Err(not_a_directory(error, &path)),
        }
    }

    /// Opens a subdirectory that only we may change, creating it when it is missing. Any number of processes may do this
    /// at once.
    pub(crate) fn ensure(&self, name: &str, mode: u32) -> Result<Self, StoreError> {
        let directory = self.open_or_create(name, mode)?;
        directory.check_ours()?;
        Ok(directory)
    }

    /// As [`Directory::ensure`], for the directory that holds the objects. Real Nix run by root gives it to the group of
    /// its build users, with the sticky bit (01775): they may add names, which we treat as leftovers, and replace none.
    pub(crate) fn ensure_objects(&self, name: &str) -> Result<Self, StoreError> {
        let directory = self.open_or_create(name, 0o755)?;
        let status = rustix::fs::fstat(&directory).at("examine", &directory.path)?;
        if status.st_uid != 0 || !rustix::process::geteuid().is_root() || status.st_mode & 0o1022 != 0o1020 {
            directory.check_ours()?;
        }
        Ok(directory)
    }

    fn open_or_create(&self, name: &str, mode: u32) -> Result<Self, StoreError> {
        let open = || rustix::fs::openat(self, name, DIRECTORY, Mode::empty());
        let path = self.child(name);
        let descriptor = match open() {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(self, name, Mode::from_raw_mode(mode)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error).at("create the directory", path),
                }
                open()
            }
            other => other,
        };
        let descriptor = descriptor.map_err(|error| not_a_directory(error, &path))?;
        Ok(Directory { descriptor, path })
    }

    /// Refuses a directory that somebody else could change (FS-1: pre-created state directories of CVE-2019-17365).
    pub(crate) fn check_ours(&self) -> Result<(), StoreError> {
        let status = rustix::fs::fstat(self).at("examine", &self.path)?;
        let expected = rustix::process::geteuid().as_raw();
        let mode = status.st_mode & 0o7777;
        if status.st_uid != expected {
            return Err(StoreError::ForeignOwner { path: self.path.clone(), owner: status.st_uid, expected });
        }
        if mode & 0o022 != 0 {
            return Err(StoreError::WritableByOthers { path: self.path.clone(), mode });
        }
        Ok(())
    }

    /// Status of an entry itself, links not followed; `None` when there is none.
    pub(crate) fn status(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>, StoreError> {
        match rustix::fs::statat(self, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).at("examine", self.child(name)),
        }
    }

    /// Opens a file that holds nothing but a lock or a note of ours, creating it when it is missing.
    pub(crate) fn open_file(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: u32) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self, name.as_ref(), flags, Mode::from_raw_mode(mode))
    }

    /// Names of all entries, sorted by bytes, without `.` and `..`.
    pub(crate) fn names(&self) -> Result<Vec<CString>, StoreError> {
        let entries = rustix::fs::Dir::read_from(self).at("list", &self.path)?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.at("list", &self.path)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Sets the modification time of an entry to 1, as every store object has it; links are not followed.
    pub(crate) fn set_canonical_time(&self, name: impl AsRef<OsStr>) -> Result<(), StoreError> {
        rustix::fs::utimensat(self, name.as_ref(), &CANONICAL_TIMES, AtFlags::SYMLINK_NOFOLLOW)
            .at("set the modification time of", self.child(name))
    }
}

/// Modification time 1, access time as it is.
pub(crate) const CANONICAL_TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

/// Type of what a status describes.
pub(crate) fn file_type(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

/// A name as paths and messages take it.
pub(crate) fn as_os_str(name: &std::ffi::CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

/// A name that nobody can guess or has used: 128 random bits in hexadecimal.
pub fn random_name() -> Result<String, StoreError> {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    filled.at("read random bytes from", "/dev/urandom")?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

/// 32 bytes that nobody can guess, for a key.
pub fn random_seed() -> Result<[u8; 32], StoreError> {
    let mut bytes = [0u8; 32];
    // So few come whole or not at all (getrandom(2)).
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled.at("read random bytes from", "/dev/urandom")? {
        32 => Ok(bytes),
        _ => Err(std::io::Error::other("too few came")).at("read random bytes from", "/dev/urandom"),
    }
}

fn not_a_directory(error: Errno, path: &Path) -> StoreError {
    match error {
        Errno::NOTDIR | Errno::LOOP => match path.symlink_metadata() {
            Ok(status) if status.is_symlink() => StoreError::SymbolicLink { path: path.to_owned() },
            Ok(_) | Err(_) => StoreError::NotADirectory { path: path.to_owned() },
        },
        error => StoreError::Io { action: "open", path: path.to_owned(), source: error.into() },
    }
}
