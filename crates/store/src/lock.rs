//! `flock` on files, and the lock of a store path exactly as Nix takes it: `<path>.lock` beside the object.
//!
//! A lock file may be unlinked while somebody waits for it. Nix marks such a file by writing into it after unlinking, so
//! whoever gets a lock on a file that is not empty holds nothing and tries again (`pathlocks.cc`).

use crate::{
    error::{At, StoreError},
    store::Store,
};
use fodder_model::store_path::StorePath;
use rustix::{
    fs::{AtFlags, FlockOperation, OFlags},
    io::{Errno, retry_on_intr},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Takes a lock, waiting for it.
pub(crate) fn wait_for(file: impl AsFd, operation: FlockOperation, path: &Path) -> Result<(), StoreError> {
    retry_on_intr(|| rustix::fs::flock(&file, operation)).at("lock", path)
}

/// Takes a lock if it is free; `operation` is one of the non-blocking ones.
pub(crate) fn try_take(file: impl AsFd, operation: FlockOperation, path: &Path) -> Result<bool, StoreError> {
    match retry_on_intr(|| rustix::fs::flock(&file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error).at("lock", path),
    }
}

/// Whether the file was unlinked or marked as stale before we got its lock.
pub(crate) fn is_stale(file: BorrowedFd<'_>, path: &Path) -> Result<bool, StoreError> {
    let status = rustix::fs::fstat(file).at("examine", path)?;
    Ok(status.st_nlink == 0 || status.st_size != 0)
}

/// The locks of some store paths, held until this is dropped, which removes the lock files.
///
/// Between processes and between threads alike; taking a path's lock twice in one thread waits for ever.
#[derive(Debug)]
pub struct PathLocks<'store> {
    store: &'store Store,
    files: BTreeMap<StorePath, OwnedFd>,
}

impl PathLocks<'_> {
    /// Whether the lock of `path` is among these.
    pub fn holds(&self, path: &StorePath) -> bool {
        self.files.contains_key(path)
    }
}

impl Store {
    /// Locks paths against other builds of them, in sorted order, so that two callers cannot wait for each other.
    /// `on_wait` is called with a path before waiting for it.
    ///
    /// Also makes the paths temporary roots: a garbage collector takes lock files of unknown paths for garbage.
    pub fn lock_paths(
        &self,
        paths: &BTreeSet<StorePath>,
        mut on_wait: impl FnMut(&StorePath),
    ) -> Result<PathLocks<'_>, StoreError> {
        self.add_temporary_roots(paths)?;
        let mut locks = PathLocks { store: self, files: BTreeMap::new() };
        for path in paths {
            let file = match self.try_lock(path)? {
                Some(file) => file,
                None => {
                    on_wait(path);
                    self.wait_for_lock(path)?
                }
            };
            locks.files.insert(path.clone(), file);
        }
        Ok(locks)
    }

    /// Locks paths if none of them is locked; `None` when one is.
    pub fn try_lock_paths(&self, paths: &BTreeSet<StorePath>) -> Result<Option<PathLocks<'_>>, StoreError> {
        self.add_temporary_roots(paths)?;
        let mut locks = PathLocks { store: self, files: BTreeMap::new() };
        for path in paths {
            match self.try_lock(path)? {
                Some(file) => locks.files.insert(path.clone(), file),
                None => return Ok(None),
            };
        }
        Ok(Some(locks))
    }

    fn try_lock(&self, path: &StorePath) -> Result<Option<OwnedFd>, StoreError> {
        let (name, shown) = self.lock_name(path);
        loop {
            let file = self.open_lock(&name)?;
            if !try_take(&file, FlockOperation::NonBlockingLockExclusive, &shown)? {
                return Ok(None);
            }
            if !is_stale(file.as_fd(), &shown)? {
                return Ok(Some(file));
            }
            self.discard_marked(&name, &file)?;
        }
    }

    fn wait_for_lock(&self, path: &StorePath) -> Result<OwnedFd, StoreError> {
        let (name, shown) = self.lock_name(path);
        loop {
            let file = self.open_lock(&name)?;
            wait_for(&file, FlockOperation::LockExclusive, &shown)?;
            if !is_stale(file.as_fd(), &shown)? {
                return Ok(file);
            }
            self.discard_marked(&name, &file)?;
        }
    }

    /// A marked file that still has its name would make us try for ever (a holder whose `unlink` failed). We hold its
    /// lock, so nobody else can be using it.
    fn discard_marked(&self, name: &str, file: &OwnedFd) -> Result<(), StoreError> {
        let shown = self.objects().child(name);
        if rustix::fs::fstat(file).at("examine", &shown)?.st_nlink == 0 {
            return Ok(());
        }
        rustix::fs::unlinkat(self.objects(), name, AtFlags::empty()).at("remove the stale lock", shown)
    }

    fn lock_name(&self, path: &StorePath) -> (String, std::path::PathBuf) {
        let name = format!("{}.lock", path.base_name());
        let shown = self.objects().child(&name);
        (name, shown)
    }

    fn open_lock(&self, name: &str) -> Result<OwnedFd, StoreError> {
        let opened = self.objects().open_file(name, OFlags::RDWR | OFlags::CREATE, 0o600);
        opened.at("open the lock", self.objects().child(name))
    }
}

/// Unlinks, then marks the files for those who wait on them: in the other order a file without a waiter would stay.
impl Drop for PathLocks<'_> {
    fn drop(&mut self) {
        for (path, file) in &self.files {
            // A failure leaves an empty, unlocked file: the next holder uses it, or the garbage collector takes it.
            let (name, _) = self.store.lock_name(path);
            if rustix::fs::unlinkat(self.store.objects(), &name, AtFlags::empty()).is_ok() {
                let _ = rustix::io::write(file, b"d");
            }
        }
    }
}
