//! Scratch directories: where a build, or an addition to the store, takes place before its result is moved in.
//!
//! `ROOT/nix/var/nix/builds/<random>` is on the file system of the store, closed to other users whatever a builder does
//! to the modes of its own directories (CVE-2024-38531, CVE-2025-52991), has no user name in its path, and is nothing
//! that Nix's garbage collector looks at. A locked file `<random>.lock` beside it says that its owner is alive; the
//! next run removes what is not locked.

use crate::{
    directory::{Directory, random_name},
    error::{At, StoreError},
    lock,
    remove::remove_tree,
    store::Store,
};
use rustix::{
    fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// A scratch directory of ours; removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    builds: Directory,
    directory: Directory,
    name: String,
    is_kept: bool,
    /// Locked for as long as this lives.
    _lock: OwnedFd,
}

/// A part of a scratch directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScratchPart {
    /// The builder's working directory.
    Build,
    /// The builder's temporary directory.
    Tmp,
    /// Where the builder's outputs appear.
    Store,
    /// Where outputs are made anew with other paths in them.
    Rewritten,
    /// Where the root directory of the sandbox is put together.
    Root,
}

impl ScratchPart {
    /// Name of its directory.
    pub const fn name(self) -> &'static str {
        match self {
            ScratchPart::Build => "build",
            ScratchPart::Tmp => "tmp",
            ScratchPart::Store => "store",
            ScratchPart::Rewritten => "rewritten",
            ScratchPart::Root => "root",
        }
    }
}

impl Scratch {
    /// Creates an empty scratch directory.
    pub fn create(store: &Store) -> Result<Scratch, StoreError> {
        store.check_writable("create a scratch directory")?;
        let builds = builds_of(store)?;
        loop {
            let name = random_name()?;
            let lock_name = format!("{name}.lock");
            let lock_path = builds.child(&lock_name);
            let file = builds.open_file(&lock_name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, 0o600);
            let file = file.at("create the lock", &lock_path)?;
            // Another run may have found the file before we lock it, and taken it for a dead one.
            let locked = lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &lock_path)?;
            if !locked || lock::is_stale(file.as_fd(), &lock_path)? {
                continue;
            }
            rustix::fs::mkdirat(&builds, &name, Mode::RWXU).at("create the directory", builds.child(&name))?;
            let directory = builds.open(&name)?;
            return Ok(Scratch { builds, directory, name, is_kept: false, _lock: file });
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory itself; closed to everyone else, so that what is in it may be opened by name.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Creates a part with this mode, whatever the umask, and opens it; opens it as it is when it is there already.
    /// `owner` (user, group) is for callers that are root and run the builder as somebody else.
    pub fn part(&self, part: ScratchPart, mode: u32, owner: Option<(u32, u32)>) -> Result<OwnedFd, StoreError> {
        let path = self.part_path(part);
        match rustix::fs::mkdirat(&self.directory, part.name(), Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.open_part(part),
            Err(error) => return Err(error).at("create the directory", path),
        }
        let descriptor = self.open_part(part)?;
        if let Some((user, group)) = owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::fs::fchown(&descriptor, Some(user), Some(group)).at("change the owner of", &path)?;
        }
        // Last: a change of owner clears the set-group-id bit.
        rustix::fs::fchmod(&descriptor, Mode::from_raw_mode(mode)).at("change the mode of", &path)?;
        Ok(descriptor)
    }

    /// Removes what is in a part under other names than these.
    pub fn remove_others(&self, part: ScratchPart, names: &BTreeSet<&str>) -> Result<(), StoreError> {
        let directory = self.directory.open(part.name())?;
        for name in directory.names()? {
            if !names.iter().any(|kept| kept.as_bytes() == name.to_bytes()) {
                remove_tree(&directory, OsStr::from_bytes(name.to_bytes()))?;
            }
        }
        Ok(())
    }

    /// Where a part is, whether it exists or not.
    pub fn part_path(&self, part: ScratchPart) -> PathBuf {
        self.directory.child(part.name())
    }

    fn open_part(&self, part: ScratchPart) -> Result<OwnedFd, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.directory.open_file(part.name(), flags, 0).at("open", self.part_path(part))
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Removes it now, and says if that fails.
    pub fn remove(mut self) -> Result<(), StoreError> {
        self.is_kept = true; // dropping is not to try again
        remove_with_lock(&self.builds, &self.name)
    }

    /// Leaves it to the user (`--keep-failed`) and returns where it is then. No later run removes it.
    pub fn keep(mut self) -> Result<PathBuf, StoreError> {
        let kept = format!("kept-{}", self.name);
        rustix::fs::renameat_with(&self.builds, &self.name, &self.builds, &kept, RenameFlags::NOREPLACE)
            .at("rename", self.directory.path())?;
        self.is_kept = true;
        remove_with_lock(&self.builds, &self.name)?;
        Ok(self.builds.child(kept))
    }

    /// Removes the scratch directories of runs that were killed; returns how many there were.
    pub fn reap_stale(store: &Store) -> Result<usize, StoreError> {
        store.check_writable("remove stale scratch directories")?;
        let builds = builds_of(store)?;
        let mut names: Vec<String> = builds.names()?.iter().filter_map(|name| own_name(name.as_bytes())).collect();
        names.dedup();
        let mut count = 0;
        for name in names {
            count += usize::from(reap(&builds, &name)?);
        }
        Ok(count)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now is found by a later `reap_stale`, which reports it.
            let _ = remove_with_lock(&self.builds, &self.name);
        }
    }
}

/// Where they are. Nobody else may look in, whatever a builder does to the modes of what is its own.
fn builds_of(store: &Store) -> Result<Directory, StoreError> {
    store.state().ensure("builds", 0o700)
}

/// Removes one scratch directory if nobody holds its lock.
fn reap(builds: &Directory, name: &str) -> Result<bool, StoreError> {
    let lock_name = format!("{name}.lock");
    let path = builds.child(&lock_name);
    // Created if missing: somebody may have removed the lock and been killed before the directory was gone.
    let file = builds.open_file(&lock_name, OFlags::RDWR | OFlags::CREATE, 0o600).at("open the lock", &path)?;
    if !lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &path)? || lock::is_stale(file.as_fd(), &path)?
    {
        return Ok(false);
    }
    remove_with_lock(builds, name)?;
    Ok(true)
}

/// The lock goes last, so that nobody sees the directory without it.
fn remove_with_lock(builds: &Directory, name: &str) -> Result<(), StoreError> {
    remove_tree(builds, name)?;
    let lock_name = format!("{name}.lock");
    match rustix::fs::unlinkat(builds, &lock_name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("remove the lock", builds.child(lock_name)),
    }
}

/// The name of a scratch directory, from its own name or its lock's; real Nix keeps other things here.
fn own_name(name: &[u8]) -> Option<String> {
    let name = OsStr::from_bytes(name).to_str()?;
    let name = name.strip_suffix(".lock").unwrap_or(name);
    let is_random = name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_random.then(|| name.to_owned())
}
