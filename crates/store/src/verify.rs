//! Compares the database with what is on disk.

use crate::{
    add::dump,
    collect::LINKS,
    directory::as_os_str,
    error::{At, StoreError},
    liveness::Graph,
    lock,
    store::Store,
};
use fodder_model::{
    hash::{HashAlgorithm, Hasher},
    store_path::StorePath,
};
use rustix::fs::{FlockOperation, OFlags};
use std::{collections::BTreeSet, path::PathBuf};

/// What a verification is doing or has found.
#[derive(Debug)]
pub enum VerifyEvent {
    /// Looking whether every valid path exists.
    CheckingExistence,
    /// Comparing the files that objects share with their names.
    CheckingLinks,
    /// Comparing objects with their hashes.
    CheckingContents,
    /// A path was valid without being there; it no longer is.
    Disappeared(StorePath),
    /// The same, but valid paths refer to it, so it could not be forgotten.
    DisappearedWithReferrers(StorePath),
    /// An object is not what it was.
    Modified {
        /// Its path.
        path: StorePath,
        /// The hash in the database.
        expected: fodder_model::hash::Hash,
        /// The hash on disk.
        found: fodder_model::hash::Hash,
    },
    /// A shared file is not what its name says; objects that share it are modified, too.
    LinkModified {
        /// The file in `.links`.
        path: PathBuf,
        /// The hash on disk.
        found: fodder_model::hash::Hash,
    },
    /// An object cannot be read.
    Unreadable {
        /// Its path.
        path: StorePath,
        /// Why not.
        error: StoreError,
    },
}

impl Store {
    /// Forgets valid paths that do not exist, unless valid paths refer to them, and with `check_contents` reads everything
    /// and compares it with its hash. False when something is wrong and still is. Never removes a file.
    pub fn verify(&self, check_contents: bool, observe: &mut dyn FnMut(VerifyEvent)) -> Result<bool, StoreError> {
        self.check_writable("verify it")?;
        // So that nothing is collected while it is looked at.
        let lock_path = self.state().child("gc.lock");
        let file =
            self.state().open_file("gc.lock", OFlags::RDWR | OFlags::CREATE, 0o600).at("open the lock", &lock_path)?;
        lock::wait_for(&file, FlockOperation::LockShared, &lock_path)?;

        observe(VerifyEvent::CheckingExistence);
        let mut is_sound = true;
        let graph = Graph::load(self)?;
        let mut missing = BTreeSet::new();
        for path in graph.paths() {
            if self.objects().status(path.base_name())?.is_none() {
                missing.insert(path.clone());
            }
        }
        for path in graph.referrers_first(&missing) {
            if self.invalidate(&path)? {
                observe(VerifyEvent::Disappeared(path));
            } else {
                is_sound = false;
                observe(VerifyEvent::DisappearedWithReferrers(path));
            }
        }
        if check_contents {
            observe(VerifyEvent::CheckingLinks);
            is_sound &= self.verify_links(observe)?;
            observe(VerifyEvent::CheckingContents);
            let existing: BTreeSet<&StorePath> = graph.paths().filter(|path| !missing.contains(*path)).collect();
            for path in existing {
                is_sound &= self.verify_contents(path, observe)?;
            }
        }
        Ok(is_sound)
    }

    fn verify_contents(&self, path: &StorePath, observe: &mut dyn FnMut(VerifyEvent)) -> Result<bool, StoreError> {
        let dumped = dump(&self.objects().child(path.base_name()), Hasher::new(HashAlgorithm::Sha256));
        // Asked second: somebody may have deleted it since.
        let Some(info) = self.query_own(path)? else { return Ok(true) };
        match dumped {
            Ok((hasher, size)) => {
                let found = hasher.finish();
                if info.nar_hash == found {
                    if info.nar_size == 0 {
                        self.set_size(path, size)?;
                    }
                    return Ok(true);
                }
                observe(VerifyEvent::Modified { path: path.clone(), expected: info.nar_hash, found });
            }
            Err(error) => observe(VerifyEvent::Unreadable { path: path.clone(), error }),
        }
        Ok(false)
    }

    /// Old stores do not have it; Nix fills it in as well.
    fn set_size(&self, path: &StorePath, size: u64) -> Result<(), StoreError> {
        let parameters = rusqlite::params![size as i64, path.to_string()];
        let updated = self.database().execute("update ValidPaths set narSize = ? where path = ?", parameters);
        updated.map(drop).map_err(|source| self.failed("record a size", source))
    }

    fn verify_links(&self, observe: &mut dyn FnMut(VerifyEvent)) -> Result<bool, StoreError> {
        if self.objects().status(LINKS)?.is_none() {
            return Ok(true);
        }
        let links = self.objects().open(LINKS)?;
        let mut is_sound = true;
        for name in links.names()? {
            let path = links.child(as_os_str(&name));
            let found = match dump(&path, Hasher::new(HashAlgorithm::Sha256)) {
                Ok((hasher, _)) => hasher.finish(),
                // Removed by somebody who found that nobody shares it any more.
                Err(_) if links.status(as_os_str(&name))?.is_none() => continue,
                Err(error) => return Err(error),
            };
            if found.to_nix32().as_bytes() != name.to_bytes() {
                is_sound = false;
                observe(VerifyEvent::LinkModified { path, found });
            }
        }
        Ok(is_sound)
    }
}
