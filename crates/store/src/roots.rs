//! Garbage collector roots: the links that users keep to what they built.
//!
//! Nix follows `gcroots/auto/<hash>` to the user's link, and keeps what that names if it is spelled `/nix/store/…`. Our
//! links name the real place, `ROOT/nix/store/…`, so that they lead somewhere; Nix takes no notice of them. Hence a second,
//! direct link for each, `gcroots/fodder/<hash>` → `/nix/store/…`, which every version of Nix honours, and which we remove
//! when the user's link has gone ([`Store::prune_out_links`]).

use crate::{
    directory::Directory,
    error::{At, StoreError},
    lock,
    store::Store,
};
use fodder_model::{
    hash::{Hash, HashAlgorithm},
    store_path::{STORE_DIRECTORY, StorePath},
};
use rustix::{
    fs::{AtFlags, FlockOperation, OFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    io::ErrorKind,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// How the name of a link begins before it has its own.
const NEW: &str = ".fodder-new-";

impl Store {
    /// Records that the link at `link` is a root, whatever it points to now or later (if spelled `/nix/store/…`).
    pub fn add_indirect_root(&self, link: &Path) -> Result<(), StoreError> {
        self.check_writable("add a root")?;
        let link = absolute(link)?;
        let _lock = self.lock_out_links()?;
        self.add_indirect_root_locked(&link)
    }

    fn add_indirect_root_locked(&self, link: &Path) -> Result<(), StoreError> {
        let automatic = self.state().ensure("gcroots", 0o755)?.ensure("auto", 0o755)?;
        replace_link(&automatic, &root_name(link), link.as_os_str(), &new_name(link))
    }

    /// Makes `link` point to the real place of a valid path, and keeps that path until the link is removed. Replaces a
    /// link into this store, and nothing else.
    pub fn make_out_link(&self, link: &Path, target: &StorePath) -> Result<(), StoreError> {
        self.check_writable("make a result link")?;
        let link = absolute(link)?;
        // Nothing else keeps the path before the last step.
        self.add_temporary_roots([target])?;
        // A link keeps a path of ours; what is below belongs to somebody else, who may delete it.
        self.adopt(target)?;
        if !self.is_own(target)? {
            return Err(StoreError::NotValid { path: target.clone() });
        }
        let _lock = self.lock_out_links()?;
        self.prune_locked()?;
        match std::fs::read_link(&link) {
            Ok(old) if old.starts_with(self.objects().path()) || old.starts_with(STORE_DIRECTORY) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(error).at("read the link", &link),
            Ok(_) | Err(_) => return Err(StoreError::LinkOccupied { path: link }),
        }
        let real = self.real_path(target);
        let (Some(parent), Some(name)) = (link.parent(), link.file_name()) else {
            return Err(StoreError::LinkOccupied { path: link });
        };
        // The user's directory may be reached through links; only the store's own must not.
        let parent = parent.canonicalize().at("resolve", parent)?;
        // The link last: killed before, what we keep is put right by whoever prunes next; killed behind it, all is done.
        self.add_indirect_root_locked(&link)?;
        if real != Path::new(&target.to_string()) {
            let target = target.to_string();
            replace_link(&self.direct_roots()?, &root_name(&link), OsStr::new(&target), &new_name(&link))?;
        }
        replace_link(&Directory::open_path(&parent)?, name, real.as_os_str(), &new_name(&link))?;
        // Once more: a collector may have taken it for one whose link is gone.
        self.add_indirect_root_locked(&link)
    }

    /// Stops keeping paths whose result link was removed or points elsewhere; returns how many. A garbage collection by
    /// real Nix knows nothing of this, so it is to be called before one.
    pub fn prune_out_links(&self) -> Result<usize, StoreError> {
        self.check_writable("remove stale roots")?;
        let _lock = self.lock_out_links()?;
        self.prune_locked()
    }

    fn prune_locked(&self) -> Result<usize, StoreError> {
        let automatic = self.state().ensure("gcroots", 0o755)?.ensure("auto", 0o755)?;
        let direct = self.direct_roots()?;
        let mut count = 0;
        for name in direct.names()? {
            let user_link = read_link(&automatic, &name)?;
            let points_to = match user_link.map(std::fs::read_link) {
                Some(Ok(target)) => Some(target),
                // A link that cannot be looked at now may be there all the same.
                Some(Err(error)) if !is_no_link(&error) => continue,
                Some(Err(_)) | None => None,
            };
            let kept = read_link(&direct, &name)?;
            let real = kept.and_then(|path| Some(self.objects().child(path.strip_prefix(STORE_DIRECTORY).ok()?)));
            if points_to.is_some() && points_to == real {
                continue;
            }
            // Somebody was killed between this and the link, or it was changed by hand: what it names is what is wanted.
            if let Some(wanted) = points_to.and_then(|target| self.path_at(&target))
                && self.is_own(&wanted)?
            {
                let temporary = format!("{NEW}{}", name.to_string_lossy());
                replace_link(&direct, OsStr::from_bytes(name.to_bytes()), OsStr::new(&wanted.to_string()), &temporary)?;
            } else {
                rustix::fs::unlinkat(&direct, &*name, AtFlags::empty()).at("remove the root", direct.path())?;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Removes links that killed runs had not given their names yet, ours and those beside the user's.
    pub(crate) fn remove_half_made_links(&self) -> Result<(), StoreError> {
        let _lock = self.lock_out_links()?;
        let automatic = self.state().ensure("gcroots", 0o755)?.ensure("auto", 0o755)?;
        for directory in [&automatic, &self.direct_roots()?] {
            for name in directory.names()? {
                if name.to_bytes().starts_with(NEW.as_bytes()) {
                    rustix::fs::unlinkat(directory, &*name, AtFlags::empty()).at("remove", directory.path())?;
                }
            }
        }
        for name in automatic.names()? {
            let Some(link) = read_link(&automatic, &name)? else { continue };
            let half_made = link.with_file_name(new_name(&link));
            // In somebody's directory: only what is certainly ours.
            if std::fs::read_link(&half_made).is_ok_and(|target| self.path_at(&target).is_some()) {
                let _ = std::fs::remove_file(&half_made);
            }
        }
        Ok(())
    }

    /// The path whose object is exactly there.
    fn path_at(&self, place: &Path) -> Option<StorePath> {
        let name = place.strip_prefix(self.objects().path()).ok()?.to_str()?;
        StorePath::from_base_name(name).ok()
    }

    fn direct_roots(&self) -> Result<Directory, StoreError> {
        self.state().ensure("gcroots", 0o755)?.ensure("fodder", 0o755)
    }

    /// One at a time: whoever prunes must not see another's link half made.
    fn lock_out_links(&self) -> Result<OwnedFd, StoreError> {
        let name = "out-links.lock";
        let path = self.state().child(name);
        let file = self.state().open_file(name, OFlags::RDWR | OFlags::CREATE, 0o600).at("open the lock", &path)?;
        lock::wait_for(&file, FlockOperation::LockExclusive, &path)?;
        Ok(file)
    }
}

/// Nix's name for the root of a link: nix32 of the SHA-1 of its path.
fn root_name(link: &Path) -> std::ffi::OsString {
    Hash::of(HashAlgorithm::Sha1, link.as_os_str().as_bytes()).to_nix32().into()
}

fn absolute(link: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(link).at("resolve", link)
}

/// Whether a link is certainly not there.
fn is_no_link(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput)
}

fn read_link(directory: &Directory, name: &std::ffi::CStr) -> Result<Option<PathBuf>, StoreError> {
    match rustix::fs::readlinkat(directory, name, Vec::new()) {
        Ok(target) => Ok(Some(OsStr::from_bytes(target.to_bytes()).into())),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(error).at("read the link", directory.path()),
    }
}

/// What a link is called before it has its own name. Always the same for the same link, so that what a killed run has left is
/// replaced by the next, in a directory that is the user's to look through.
fn new_name(link: &Path) -> String {
    format!("{NEW}{}", Hash::of(HashAlgorithm::Sha1, link.as_os_str().as_bytes()).to_nix32())
}

/// Creates a link, or replaces one in a single step, so that no collector finds it missing.
fn replace_link(directory: &Directory, name: &OsStr, target: &OsStr, temporary: &str) -> Result<(), StoreError> {
    let shown = || directory.child(name);
    match rustix::fs::symlinkat(target, directory, temporary) {
        // Left by a killed run: the caller holds the lock on links.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(directory, temporary, AtFlags::empty()).at("remove", directory.child(temporary))?;
            rustix::fs::symlinkat(target, directory, temporary)
        }
        created => created,
    }
    .at("create the link", shown())?;
    let renamed = rustix::fs::renameat(directory, temporary, directory, name);
    if renamed.is_err() {
        let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
    }
    renamed.at("create the link", shown())
}
