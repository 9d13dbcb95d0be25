//! Removes a tree that somebody else may have filled, and may still be changing.
//!
//! * Only single components relative to open directories are ever named, and links are never followed, so swapping a
//!   directory for a link redirects nothing (FS-2; the recursive deletes of CVE-2025-46415 mixed descriptors and paths).
//! * Instead of going down, a directory found inside is moved up beside the others, so that a tree of any depth takes
//!   three descriptors, no stack, and no `..`. A mount point cannot be moved, so none is ever entered.
//! * Builders leave directories that they made unreadable; these are ours, and get their permissions back first.

use crate::{
    directory::{Directory, as_os_str, random_name},
    error::{At, StoreError},
};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    io::ErrorKind,
    os::fd::{AsFd, AsRawFd},
};

/// How often a directory may gain entries while it is emptied.
const RESCAN_LIMIT: u32 = 10_000;

/// Removes `name` and everything in it. Nothing there is a success.
pub(crate) fn remove_tree(parent: &Directory, name: impl AsRef<OsStr>) -> Result<(), StoreError> {
    let name = name.as_ref();
    if !is_full_directory(parent, name, FileType::Directory)? {
        return Ok(());
    }
    make_accessible(parent, name)?;
    let top = match parent.open(name) {
        // It was swapped for something else between the look and the opening: that something is removed as it is.
        Err(StoreError::SymbolicLink { .. } | StoreError::NotADirectory { .. }) => {
            return unlink(parent, name, AtFlags::empty());
        }
        other => other?,
    };
    let prefix = random_name()?;
    let mut moved = Moved { top: &top, prefix, count: 0, removed: 0 };
    for _ in 0..RESCAN_LIMIT {
        moved.empty(&top)?;
        while moved.removed < moved.count {
            let next = moved.name(moved.removed);
            moved.remove_one(&next)?;
            moved.removed += 1;
        }
        if !is_full_directory(parent, name, FileType::Directory)? {
            return Ok(());
        }
    }
    Err(StoreError::KeepsGrowing { path: parent.child(name) })
}

/// Directories that were moved to the top: `<prefix>-<number>`, those below `removed` are gone again.
struct Moved<'a> {
    top: &'a Directory,
    prefix: String,
    count: u64,
    removed: u64,
}

impl Moved<'_> {
    fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Empties and removes one directory at the top.
    fn remove_one(&mut self, name: &str) -> Result<(), StoreError> {
        for _ in 0..RESCAN_LIMIT {
            make_accessible(self.top, OsStr::new(name))?;
            match self.top.open(name) {
                Ok(directory) => self.empty(&directory)?,
                // It was swapped for something else: the next round removes that.
                Err(StoreError::SymbolicLink { .. } | StoreError::NotADirectory { .. }) => {}
                Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
            if !is_full_directory(self.top, OsStr::new(name), FileType::Directory)? {
                return Ok(());
            }
        }
        Err(StoreError::KeepsGrowing { path: self.top.child(name) })
    }

    /// Removes files and empty directories, and moves other directories to the top.
    fn empty(&mut self, directory: &Directory) -> Result<(), StoreError> {
        let entries = Dir::read_from(directory).at("list", directory.path())?;
        for entry in entries {
            let entry = entry.at("list", directory.path())?;
            let name = as_os_str(entry.file_name());
            let ours = name.as_encoded_bytes().starts_with(self.prefix.as_bytes());
            if name == "." || name == ".." || ours || !is_full_directory(directory, name, entry.file_type())? {
                continue;
            }
            // Moving a directory changes its "..", which takes the permission to write in it.
            make_accessible(directory, name)?;
            let new_name = self.name(self.count);
            match rustix::fs::renameat(directory, name, self.top, &new_name) {
                Ok(()) => self.count += 1,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).at("move away", directory.child(name)),
            }
        }
        Ok(())
    }
}

/// Removes `name` unless it is a directory with entries, and says whether it is one. `guess` is what to try first.
fn is_full_directory(parent: &Directory, name: &OsStr, guess: FileType) -> Result<bool, StoreError> {
    let mut as_directory = guess == FileType::Directory;
    // More than two tries only if somebody turns a file into a directory and back all the time.
    for _ in 0..RESCAN_LIMIT {
        let flags = if as_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(parent, name, flags) {
            Ok(()) | Err(Errno::NOENT) => return Ok(false),
            Err(Errno::NOTEMPTY | Errno::EXIST) if as_directory => return Ok(true),
            Err(Errno::ISDIR | Errno::NOTDIR) => as_directory = !as_directory,
            Err(error) => return Err(error).at("remove", parent.child(name)),
        }
    }
    Err(StoreError::KeepsGrowing { path: parent.child(name) })
}

fn unlink(parent: &Directory, name: &OsStr, flags: AtFlags) -> Result<(), StoreError> {
    match rustix::fs::unlinkat(parent, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("remove", parent.child(name)),
    }
}

/// Gives the owner all permissions on a directory; leaves anything else alone.
pub(crate) fn make_accessible(parent: &Directory, name: &OsStr) -> Result<(), StoreError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).at("open", parent.child(name)),
    };
    let status = rustix::fs::fstat(&directory).at("examine", parent.child(name))?;
    let mode = Mode::from_raw_mode(status.st_mode);
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory || mode.contains(Mode::RWXU) {
        return Ok(());
    }
    // A descriptor that was opened without reading cannot be changed itself, but its entry in /proc names exactly what
    // was opened, whatever happens to the path meanwhile. `fchmodat2` would do; it came with Linux 6.6.
    let entry = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    rustix::fs::chmod(entry, mode | Mode::RWXU).at("make accessible", parent.child(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    /// A file that takes a directory's place may have other names: its mode is not ours to change.
    ///
    /// Attack: OUT-1, the clean-up of Nix 1.4. Layer: only directories are made accessible, and no link is followed.
    #[test]
    fn only_directories_are_made_accessible() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode: u32| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let (file, inner, link) =
            (directory.path().join("file"), directory.path().join("inner"), directory.path().join("link"));
        fs::write(&file, "").unwrap();
        mode(&file, 0o444);
        fs::create_dir(&inner).unwrap();
        mode(&inner, 0o500);
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let parent = Directory::open_path(directory.path()).unwrap();
        for name in ["file", "link", "nothing"] {
            make_accessible(&parent, OsStr::new(name)).unwrap();
        }
        let modes = || [&file, &inner].map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777);
        assert_eq!(modes(), [0o444, 0o500]);
        make_accessible(&parent, OsStr::new("inner")).unwrap();
        assert_eq!(modes(), [0o444, 0o700]);
    }
}
