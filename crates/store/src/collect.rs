//! Garbage collection, by Nix's protocol: `gc.lock` is held exclusively, roots are found once, and who begins to use a path
//! meanwhile says so over the socket.
//!
//! A path is first made invalid, then moved aside, then deleted. Killed at any instant, this leaves a store in which all
//! that is valid is whole, and scraps that the next run removes. The database itself refuses to forget a path that a
//! valid one refers to.

mod socket;

use crate::{
    directory::{Directory, as_os_str, file_type},
    error::{At, StoreError},
    find_roots::Stale,
    liveness::{Graph, KeepRules},
    lock,
    remove::{make_accessible, remove_tree},
    scratch::Scratch,
    store::Store,
    temporary_roots,
};
use fodder_model::store_path::StorePath;
use rustix::{
    fs::{AtFlags, FileType, FlockOperation, OFlags},
    io::Errno,
};
use socket::Ear;
use std::{
    collections::{BTreeSet, HashSet},
    ffi::{CString, OsStr, OsString},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::PathBuf,
};

/// Name of the directory with the files that objects share.
pub(crate) const LINKS: &str = ".links";

/// What is to be deleted.
#[derive(Clone, Debug)]
pub enum Garbage {
    /// All that is not alive.
    Everything {
        /// What is alive.
        keep: KeepRules,
        /// Stop when more bytes than this are freed.
        max_freed_bytes: Option<u64>,
    },
    /// These paths, and it is an error if one of them is alive or something else refers to it.
    Paths {
        /// Which.
        paths: BTreeSet<StorePath>,
        /// Do not ask whether they are alive; what running processes are working on stays all the same.
        ignore_liveness: bool,
    },
}

/// What a collection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CollectionEvent {
    /// Another collection, or somebody who is about to use a path, goes first.
    Waiting,
    /// Looking for roots.
    FindingRoots,
    /// Deleting an entry of the store directory.
    Deleting(OsString),
    /// Deleting shared files that nobody shares any more.
    DeletingLinks,
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many entries of the store directory were deleted.
    pub count: u64,
    /// How many bytes of files these had to themselves.
    pub freed_bytes: u64,
    /// How many bytes files that are still shared save.
    pub shared_bytes: u64,
}

/// What a collection would find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Valid paths that are kept.
    pub live: BTreeSet<StorePath>,
    /// Entries of the store directory that are not, valid or not, and valid paths without one.
    pub dead: BTreeSet<OsString>,
    /// Size of the NARs of the valid ones among these.
    pub dead_bytes: u64,
}

/// An entry that nothing keeps.
enum Dead {
    Valid(StorePath),
    /// Its name, and the path that it may become.
    Leftover(CString, Option<StorePath>),
}

impl Store {
    /// What is alive and what is not, at this moment; changes nothing.
    pub fn survey(&self, keep: KeepRules) -> Result<Survey, StoreError> {
        let names = self.objects().names()?;
        let roots = self.find_roots()?;
        let graph = Graph::load(self)?;
        let mut live = BTreeSet::new();
        graph.keep(roots.iter().map(|root| &root.path), keep, &mut live);
        let hash_parts = roots.iter().map(|root| root.path.hash_part().to_owned()).collect();
        let mut dead: BTreeSet<OsString> = BTreeSet::new();
        let mut dead_bytes = 0;
        for path in graph.paths().filter(|path| !live.contains(*path)) {
            dead_bytes += self.query_own(path)?.map_or(0, |info| info.nar_size);
            dead.insert(path.base_name().into());
        }
        for (name, _) in self.leftovers(names, &graph, &hash_parts)? {
            dead.insert(as_os_str(&name).to_owned());
        }
        Ok(Survey { live, dead, dead_bytes })
    }

    /// Deletes garbage.
    pub fn collect_garbage(
        &self,
        garbage: &Garbage,
        observe: &mut dyn FnMut(CollectionEvent),
    ) -> Result<Collected, StoreError> {
        self.check_writable("collect garbage")?;
        self.prune_out_links()?;
        socket::prepare(self.state())?;
        let _lock = self.lock_collector(observe)?;
        let ear = Ear::open(self.state())?;
        // A filler that real Nix keeps for this purpose: deleting takes space in the database.
        let _ = rustix::fs::unlinkat(self.state().open("db")?, "reserved", AtFlags::empty());

        observe(CollectionEvent::FindingRoots);
        self.remove_leftovers()?;
        let (keep, ignores) = match garbage {
            Garbage::Everything { keep, .. } => (*keep, false),
            Garbage::Paths { ignore_liveness, .. } => {
                (KeepRules { derivations: false, outputs: false }, *ignore_liveness)
            }
        };
        let mut roots = if ignores { BTreeSet::new() } else { self.permanent_roots(Stale::Remove)? };
        roots.extend(temporary_roots::read_all(self, Stale::Remove)?);
        ear.heard().hash_parts.extend(roots.iter().map(|root| root.path.hash_part().to_owned()));
        // The directory before the database: what is added from now on is in neither list.
        let names = self.objects().names()?;
        let graph = Graph::load(self)?;
        let mut live = BTreeSet::new();
        graph.keep(roots.iter().map(|root| &root.path), keep, &mut live);
        let (dead, limit) = match garbage {
            Garbage::Everything { keep: _, max_freed_bytes } => {
                let valid: BTreeSet<StorePath> = graph.paths().filter(|path| !live.contains(*path)).cloned().collect();
                let mut dead: Vec<Dead> = graph.referrers_first(&valid).into_iter().map(Dead::Valid).collect();
                let leftovers = self.leftovers(names, &graph, &ear.heard().hash_parts)?;
                dead.extend(leftovers.into_iter().map(|(name, path)| Dead::Leftover(name, path)));
                (dead, *max_freed_bytes)
            }
            Garbage::Paths { paths, ignore_liveness: _ } => {
                let needed = graph.referrers_closure(paths);
                let refused =
                    paths.iter().find(|path| live.contains(*path) || ear.heard().hash_parts.contains(path.hash_part()));
                if let Some(path) = refused.or_else(|| needed.iter().find(|path| !paths.contains(*path))) {
                    let referrer = (!paths.contains(path)).then(|| path.clone());
                    let path = match &referrer {
                        None => path.clone(),
                        Some(referrer) => self.referred_among(paths, referrer, &graph),
                    };
                    return Err(StoreError::Alive { path, referrer });
                }
                let mut dead: Vec<Dead> = graph.referrers_first(paths).into_iter().map(Dead::Valid).collect();
                dead.extend(
                    paths.iter().filter(|path| !graph.contains(path)).filter_map(|path| {
                        Some(Dead::Leftover(CString::new(path.base_name()).ok()?, Some(path.clone())))
                    }),
                );
                (dead, None)
            }
        };
        let mut collected = self.delete(dead, limit, keep, &ear, live, observe)?;
        observe(CollectionEvent::DeletingLinks);
        collected.shared_bytes = self.delete_unused_links()?;
        Ok(collected)
    }

    fn delete(
        &self,
        dead: Vec<Dead>,
        limit: Option<u64>,
        keep: KeepRules,
        ear: &Ear,
        mut live: BTreeSet<StorePath>,
        observe: &mut dyn FnMut(CollectionEvent),
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        if limit == Some(0) {
            return Ok(collected);
        }
        let trash = Scratch::create(self)?;
        for item in dead {
            let (name, path) = match &item {
                Dead::Valid(path) => (OsString::from(path.base_name()), Some(path)),
                Dead::Leftover(name, path) => (as_os_str(name).to_owned(), path.as_ref()),
            };
            let taken = {
                // Whoever speaks up from here on is answered when the path is gone, and sees that it is.
                let mut heard = ear.heard();
                if !heard.new.is_empty() {
                    let new = std::mem::take(&mut heard.new);
                    Graph::load(self)?.keep(&new, keep, &mut live);
                }
                let is_heard =
                    path.is_some_and(|path| heard.hash_parts.contains(path.hash_part()) || live.contains(path));
                if is_heard || !self.forget(&item)? {
                    continue;
                }
                self.move_aside(&name, trash.directory())?
            };
            observe(CollectionEvent::Deleting(name.clone()));
            collected.count += 1;
            let place = if taken { trash.directory() } else { self.objects() };
            collected.freed_bytes += own_bytes(place.child(&name));
            remove_tree(place, &name)?;
            if limit.is_some_and(|limit| collected.freed_bytes > limit) {
                break;
            }
        }
        trash.remove()?;
        Ok(collected)
    }

    /// Makes an entry invalid; false when it may not be deleted after all.
    fn forget(&self, item: &Dead) -> Result<bool, StoreError> {
        match item {
            Dead::Valid(path) => self.invalidate(path),
            // Somebody may have made it valid since; they hold it, or whoever uses it does.
            Dead::Leftover(_, Some(path)) => Ok(!self.is_own(path)?),
            Dead::Leftover(name, None) => self.is_unlocked(name),
        }
    }

    /// Forgets a path, unless a valid one refers to it: the database says no, and nothing is lost.
    pub(crate) fn invalidate(&self, path: &StorePath) -> Result<bool, StoreError> {
        let deleted = self.database().execute("delete from ValidPaths where path = ?", [path.to_string()]);
        match deleted {
            Ok(_) => Ok(true),
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == rusqlite::ErrorCode::ConstraintViolation => {
                Ok(false)
            }
            Err(source) => Err(self.failed("remove a path", source)),
        }
    }

    /// Real Nix holds a lock on the temporary directories (`tmp-…`) that it is using.
    fn is_unlocked(&self, name: &CString) -> Result<bool, StoreError> {
        let shown = self.objects().child(as_os_str(name));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.objects().open_file(as_os_str(name), flags, 0) {
            Ok(directory) => lock::try_take(&directory, FlockOperation::NonBlockingLockExclusive, &shown),
            Err(Errno::NOENT) => Ok(false),
            Err(_) => Ok(true),
        }
    }

    /// Moves an entry to the trash; false when it has to be deleted where it is.
    fn move_aside(&self, name: &OsStr, trash: &Directory) -> Result<bool, StoreError> {
        if self.objects().status(name)?.is_some_and(|status| file_type(&status) == FileType::Directory) {
            // Moving a directory changes its "..", which takes the permission to write in it.
            make_accessible(self.objects(), name)?;
        }
        match rustix::fs::renameat(self.objects(), name, trash, name) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::XDEV | Errno::BUSY | Errno::PERM | Errno::ACCESS) => Ok(false),
            Err(error) => Err(error).at("move away", self.objects().child(name)),
        }
    }

    /// Entries of the store directory that are not valid and that nobody is working on.
    fn leftovers(
        &self,
        names: Vec<CString>,
        graph: &Graph,
        hash_parts: &HashSet<String>,
    ) -> Result<Vec<(CString, Option<StorePath>)>, StoreError> {
        let mut found = Vec::new();
        for name in names {
            // A lock file and the directory of a build are named like a store path, with the hash part of theirs.
            let path = name.to_str().ok().and_then(|name| StorePath::from_base_name(name).ok());
            let is_kept = match &path {
                Some(path) => graph.contains(path) || hash_parts.contains(path.hash_part()),
                None => name.to_bytes() == LINKS.as_bytes() || !self.is_unlocked(&name)?,
            };
            if !is_kept {
                found.push((name, path));
            }
        }
        Ok(found)
    }

    /// For a message: the path that was to be deleted and that `referrer` refers to, directly or not.
    fn referred_among(&self, paths: &BTreeSet<StorePath>, referrer: &StorePath, graph: &Graph) -> StorePath {
        let mut closure = BTreeSet::new();
        graph.keep([referrer], KeepRules { derivations: false, outputs: false }, &mut closure);
        paths.iter().find(|path| closure.contains(*path)).unwrap_or(referrer).clone()
    }

    /// Deletes shared files that no object has any more; returns the bytes that the others save.
    fn delete_unused_links(&self) -> Result<u64, StoreError> {
        let links = match self.objects().status(LINKS)? {
            Some(_) => self.objects().open(LINKS)?,
            None => return Ok(0),
        };
        let mut saved = 0;
        for name in links.names()? {
            let path = links.child(as_os_str(&name));
            let Ok(status) = path.symlink_metadata() else { continue };
            if status.nlink() == 1 {
                match rustix::fs::unlinkat(&links, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error).at("remove", path),
                }
            } else {
                saved += status.nlink().saturating_sub(2) * status.len();
            }
        }
        Ok(saved)
    }

    /// Takes `gc.lock` exclusively.
    fn lock_collector(&self, observe: &mut dyn FnMut(CollectionEvent)) -> Result<OwnedFd, StoreError> {
        let path = self.state().child("gc.lock");
        let file =
            self.state().open_file("gc.lock", OFlags::RDWR | OFlags::CREATE, 0o600).at("open the lock", &path)?;
        if !lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
            observe(CollectionEvent::Waiting);
            lock::wait_for(&file, FlockOperation::LockExclusive, &path)?;
        }
        Ok(file)
    }
}

/// Bytes of the files below a path that nobody else has, or only the directory of shared files, where they go with it:
/// how Nix counts. For a number that is shown; what cannot be read is not counted.
fn own_bytes(top: PathBuf) -> u64 {
    let mut bytes = 0;
    let mut pending = vec![top];
    while let Some(path) = pending.pop() {
        let Ok(status) = path.symlink_metadata() else { continue };
        if status.is_dir() {
            pending.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if status.nlink() <= 2 {
            bytes += status.len();
        }
    }
    bytes
}
