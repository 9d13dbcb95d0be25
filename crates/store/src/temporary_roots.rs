//! Temporary roots: what a process is using, so that no garbage collector deletes it meanwhile.
//!
//! As Nix has it (`gc.cc`): a file `temproots/<pid>` that its owner keeps locked, holding full paths that each end with a
//! NUL. A collector holds `gc.lock` exclusively while it runs and reads these files once at its start, so paths are added
//! under a shared `gc.lock`, or by telling the running collector over its socket.

use crate::{
    directory::{Directory, as_os_str},
    error::{At, StoreError},
    find_roots::{Root, RootHolder, Stale},
    lock,
    store::Store,
};
use fodder_model::store_path::StorePath;
use rustix::{
    fs::{AtFlags, FlockOperation, OFlags},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::Duration,
};

/// The file of this process and what is in it.
#[derive(Debug)]
pub(crate) struct TemporaryRoots {
    directory: Directory,
    name: String,
    file: File,
    collector_lock: File,
    paths: BTreeSet<StorePath>,
}

impl Store {
    /// Keeps paths, valid or not yet, from garbage collection for as long as this store is open.
    pub fn add_temporary_roots<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> Result<(), StoreError> {
        self.check_writable("keep paths from garbage collection")?;
        let mut guard = self.temporary_roots();
        let roots = match guard.as_mut() {
            Some(roots) => roots,
            None => guard.insert(TemporaryRoots::create(self)?),
        };
        let new: Vec<&StorePath> = paths.into_iter().filter(|path| !roots.paths.contains(*path)).collect();
        if new.is_empty() {
            return Ok(());
        }
        roots.add(self, &new)
    }
}

impl TemporaryRoots {
    fn create(store: &Store) -> Result<Self, StoreError> {
        let directory = store.state().ensure("temproots", 0o755)?;
        let path = store.state().child("gc.lock");
        let collector_lock = store.state().open_file("gc.lock", OFlags::RDWR | OFlags::CREATE, 0o600);
        let collector_lock = File::from(collector_lock.at("open the lock", path)?);
        let process = rustix::process::getpid().as_raw_nonzero();
        for attempt in 0.. {
            // Several stores in one process, and processes of containers that share the store, have the same process id.
            // Collectors read the number at the start of the name and ignore the rest.
            let name = if attempt == 0 { process.to_string() } else { format!("{process}-{attempt}") };
            if let Some(file) = take(&directory, &name)? {
                return Ok(TemporaryRoots { directory, name, file, collector_lock, paths: BTreeSet::new() });
            }
        }
        unreachable!("more names than descriptors")
    }

    fn add(&mut self, store: &Store, paths: &[&StorePath]) -> Result<(), StoreError> {
        let lock_path = store.state().child("gc.lock");
        while !lock::try_take(&self.collector_lock, FlockOperation::NonBlockingLockShared, &lock_path)? {
            if tell_collector(store, paths) {
                return self.record(paths);
            }
            // Either it has no socket yet, or it has finished, or it is too old to have one.
            std::thread::sleep(Duration::from_millis(20));
        }
        let recorded = self.record(paths);
        lock::wait_for(&self.collector_lock, FlockOperation::Unlock, &lock_path)?;
        recorded
    }

    fn record(&mut self, paths: &[&StorePath]) -> Result<(), StoreError> {
        let lines: String = paths.iter().map(|path| format!("{path}\0")).collect();
        self.file.write_all(lines.as_bytes()).at("write to", self.directory.child(&self.name))?;
        self.paths.extend(paths.iter().map(|path| (*path).clone()));
        Ok(())
    }
}

/// Takes the file `name` for this process; `None` when somebody alive has it.
fn take(directory: &Directory, name: &str) -> Result<Option<File>, StoreError> {
    let path = directory.child(name);
    loop {
        let file = directory.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::APPEND, 0o600);
        let file = file.at("open the temporary roots", &path)?;
        if !lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
            return Ok(None);
        }
        if !lock::is_stale(file.as_fd(), &path)? {
            return Ok(Some(file.into()));
        }
        // Left by a killed process with our number, or just taken away by a collector.
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).at("remove", path),
        }
    }
}

/// The files of processes that are gone, locked.
pub(crate) struct StaleRoots {
    directory: Directory,
    files: Vec<(CString, OwnedFd)>,
}

impl StaleRoots {
    pub(crate) fn find(store: &Store) -> Result<Self, StoreError> {
        let directory = store.state().ensure("temproots", 0o755)?;
        let mut files = Vec::new();
        for name in directory.names()? {
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            let path = directory.child(as_os_str(&name));
            let file = match directory.open_file(as_os_str(&name), OFlags::RDWR, 0) {
                Ok(file) => file,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).at("open the temporary roots", path),
            };
            if lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &path)?
                && rustix::fs::fstat(&file).at("examine", &path)?.st_nlink > 0
            {
                files.push((name, file));
            }
        }
        Ok(StaleRoots { directory, files })
    }

    pub(crate) fn count(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn remove(self) {
        for (name, file) in &self.files {
            remove_marked(&self.directory, name, file);
        }
    }
}

/// Unlinks, then tells whoever has just opened it and waits for its lock.
fn remove_marked(directory: &Directory, name: &CStr, file: impl AsFd) {
    let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    let _ = rustix::io::write(file, b"d");
}

/// The temporary roots of all processes that are alive.
pub(crate) fn read_all(store: &Store, stale: Stale) -> Result<Vec<Root>, StoreError> {
    let directory = match store.state().status("temproots")? {
        Some(_) => store.state().open("temproots")?,
        None => return Ok(Vec::new()),
    };
    let mut roots = Vec::new();
    for name in directory.names()? {
        let path = directory.child(as_os_str(&name));
        // Real Nix ignores hidden files as well.
        if name.to_bytes().starts_with(b".") {
            continue;
        }
        let file = match directory.open_file(as_os_str(&name), OFlags::RDWR, 0) {
            Ok(file) => file,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).at("open the temporary roots", path),
        };
        // Free only when its owner has died.
        if lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
            if stale == Stale::Remove {
                remove_marked(&directory, &name, &file);
            }
            continue;
        }
        let mut contents = Vec::new();
        File::from(file).read_to_end(&mut contents).at("read", &path)?;
        // What has no NUL yet is still being written, by somebody who tells the collector as well.
        let mut lines: Vec<&[u8]> = contents.split(|byte| *byte == 0).collect();
        lines.pop();
        for line in lines {
            let root = std::str::from_utf8(line).ok().and_then(|text| StorePath::from_full_path(text).ok());
            let holder = RootHolder::Temporary(as_os_str(&name).to_string_lossy().into_owned());
            match root {
                Some(path) => roots.push(Root { holder, path }),
                None => return Err(StoreError::TemporaryRoot { path, found: line.into() }),
            }
        }
    }
    Ok(roots)
}

/// Tells a running collector about paths over its socket. False when there is none or it went away: then its lock will
/// be free, or its socket there, in a moment.
fn tell_collector(store: &Store, paths: &[&StorePath]) -> bool {
    let Ok(directory) = store.state().open("gc-socket") else { return false };
    // A socket's name has 107 bytes at most; the detour through the descriptor is always short enough.
    let socket = PathBuf::from(format!("/proc/self/fd/{}/socket", directory.as_fd().as_raw_fd()));
    let tell = || {
        let mut stream = UnixStream::connect(socket)?;
        let mut answer = [0];
        for path in paths {
            stream.write_all(format!("{path}\n").as_bytes())?;
            stream.read_exact(&mut answer)?;
        }
        std::io::Result::Ok(answer == *b"1")
    };
    tell().unwrap_or(false)
}

impl Drop for TemporaryRoots {
    fn drop(&mut self) {
        // A file that stays is unlocked and empty of meaning: the next collector removes it.
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}
