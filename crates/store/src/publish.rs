//! Moves a finished object from scratch into the store.
//!
//! What survives what: a killed process leaves an object that no row of the database names, which whoever locks the path
//! next removes. For a power cut, the object's own inode and the store directory are flushed before the path can be
//! registered, so that a valid path exists; the data of the files inside is left to the kernel, as Nix leaves it by default
//! (`fsync-store-paths = false`), and a hole there is what `nix-store --verify --check-contents` finds.

use crate::{
    directory::{Directory, file_type},
    error::{At, StoreError},
    lock::PathLocks,
    remove::remove_tree,
    store::Store,
};
use fodder_model::store_path::StorePath;
use rustix::{
    fs::{FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

impl Store {
    /// Moves `name` in `directory` to the place of `path`, whose lock the caller holds. The object must be canonical
    /// already and on the store's file system; what an earlier run left at its place is removed. The path becomes valid
    /// by [`Store::register`], not by this.
    pub fn publish(
        &self,
        locks: &PathLocks<'_>,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &StorePath,
    ) -> Result<(), StoreError> {
        self.check_writable("move an object into it")?;
        if !locks.holds(path) {
            return Err(StoreError::NotLocked { path: path.clone() });
        }
        if self.is_own(path)? {
            return Err(StoreError::AlreadyValid { path: path.clone() });
        }
        let objects = self.objects();
        if objects.status(path.base_name())?.is_some() {
            remove_tree(objects, path.base_name())?;
        }
        let source_path = path_of(directory).join(name);
        let status = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        let status = status.at("examine", &source_path)?;
        match file_type(&status) {
            FileType::Directory => move_directory(directory, &source_path, name, objects, path.base_name())?,
            FileType::RegularFile => {
                let file = open(directory, name, OFlags::empty()).at("open", &source_path)?;
                move_entry(directory, &source_path, name, objects, path.base_name())?;
                // After the move, so that one commit of the file system's journal holds both; the flush of the store
                // directory below then has nothing left to do. Nothing is valid before it is registered.
                rustix::fs::fsync(file).at("flush", objects.child(path.base_name()))?;
            }
            FileType::Symlink => move_entry(directory, &source_path, name, objects, path.base_name())?,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(StoreError::UnsupportedType { path: source_path }),
        }
        rustix::fs::fsync(objects).at("flush", objects.path())
    }
}

/// Moving a directory changes its "..", which takes the permission to write in it: an ordinary user has to lend it.
fn move_directory(
    from: BorrowedFd<'_>,
    source_path: &Path,
    name: &OsStr,
    objects: &Directory,
    new_name: &str,
) -> Result<(), StoreError> {
    let directory = open(from, name, OFlags::DIRECTORY).at("open", source_path)?;
    let status = rustix::fs::fstat(&directory).at("examine", source_path)?;
    let mode = Mode::from_raw_mode(status.st_mode);
    let needs_loan = !mode.contains(Mode::WUSR) && !rustix::process::geteuid().is_root();
    if needs_loan {
        rustix::fs::fchmod(&directory, mode | Mode::WUSR).at("make writable", source_path)?;
    }
    move_entry(from, source_path, name, objects, new_name)?;
    if needs_loan {
        rustix::fs::fchmod(&directory, mode).at("make read-only", objects.child(new_name))?;
    }
    // Some file systems count the new ".." as a modification.
    objects.set_canonical_time(new_name)?;
    rustix::fs::fsync(&directory).at("flush", objects.child(new_name))
}

fn move_entry(
    from: BorrowedFd<'_>,
    source_path: &Path,
    name: &OsStr,
    objects: &Directory,
    new_name: &str,
) -> Result<(), StoreError> {
    let moved = match rustix::fs::renameat_with(from, name, objects, new_name, RenameFlags::NOREPLACE) {
        // A file system without that flag (NFS, some FUSE). We hold the path's lock and have seen that its place is empty.
        Err(Errno::INVAL | Errno::NOSYS) if objects.status(new_name)?.is_none() => {
            rustix::fs::renameat(from, name, objects, new_name)
        }
        other => other,
    };
    moved.at("move into the store", source_path)
}

/// The present path of an open directory, for messages.
fn path_of(directory: BorrowedFd<'_>) -> PathBuf {
    let entry = format!("/proc/self/fd/{}", directory.as_raw_fd());
    std::fs::read_link(&entry).unwrap_or_else(|_| entry.into())
}

fn open(directory: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}
