//! Saves space: files with the same contents become one file with several names, by way of `.links/<hash>`, as Nix has
//! them (`optimise-store.cc`).
//!
//! The hash is that of the file's NAR, so executable and other files are never the same. Symbolic links are shared, too. A file is replaced in one step, by
//! a link that was made elsewhere: at no instant is it missing. Unlike Nix, a shared file is read before it replaces
//! another, so that one that was damaged does not damage more.

use crate::{
    add::dump,
    collect::LINKS,
    directory::{Directory, as_os_str, file_type},
    error::{At, StoreError},
    scratch::Scratch,
    store::Store,
    tree::seal,
};
use fodder_model::{
    hash::{Hash, HashAlgorithm, Hasher},
    store_path::StorePath,
};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, Stat},
    io::Errno,
};
use std::{collections::HashSet, ffi::OsStr, path::PathBuf};

/// Name of a new link on its way into the store.
const NEW: &str = "link";

/// What was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optimised {
    /// How many files were replaced by links.
    pub files: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// What was left as it is, for a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptimiseEvent {
    /// A file in the store that can be written to; somebody may be doing that.
    Writable(PathBuf),
    /// A shared file was not what its name says, and is not shared further.
    CorruptLink(PathBuf),
}

struct Run<'a> {
    store: &'a Store,
    links: Directory,
    scratch: Scratch,
    /// Inodes of shared files: a file that is one of them needs no look.
    shared: HashSet<u64>,
    /// Inodes of shared files that have been read and are what their name says.
    read: HashSet<u64>,
    saved: Optimised,
    observe: &'a mut dyn FnMut(OptimiseEvent),
}

impl Store {
    /// Links files with the same contents to each other, in all valid paths.
    pub fn optimise(&self, observe: &mut dyn FnMut(OptimiseEvent)) -> Result<Optimised, StoreError> {
        self.check_writable("optimise it")?;
        self.remove_leftovers()?;
        let links = self.objects().ensure(LINKS, 0o755)?;
        let mut shared = HashSet::new();
        for entry in Dir::read_from(&links).at("list", links.path())? {
            shared.insert(entry.at("list", links.path())?.ino());
        }
        let scratch = Scratch::create(self)?;
        let mut run =
            Run { store: self, links, scratch, shared, read: HashSet::new(), saved: Optimised::default(), observe };
        for path in self.all_paths()? {
            self.add_temporary_roots([&path])?;
            if self.is_own(&path)? {
                run.object(&path)?;
            }
        }
        let saved = run.saved;
        run.scratch.remove()?;
        Ok(saved)
    }
}

impl Run<'_> {
    fn object(&mut self, path: &StorePath) -> Result<(), StoreError> {
        let objects = self.store.objects();
        match objects.status(path.base_name())? {
            Some(status) if file_type(&status) == FileType::Directory => {
                let mut pending = vec![objects.open(path.base_name())?];
                while let Some(directory) = pending.pop() {
                    pending.extend(self.directory(&directory)?);
                }
                Ok(())
            }
            Some(status) if matches!(file_type(&status), FileType::RegularFile | FileType::Symlink) => {
                self.file(objects, OsStr::new(path.base_name()), &status)
            }
            // Nothing, or nothing that belongs here: that is for `verify` to say.
            Some(_) | None => Ok(()),
        }
    }

    /// Shares the files of a directory; returns the directories in it.
    fn directory(&mut self, directory: &Directory) -> Result<Vec<Directory>, StoreError> {
        let mut inner = Vec::new();
        let mut files = Vec::new();
        for entry in Dir::read_from(directory).at("list", directory.path())? {
            let entry = entry.at("list", directory.path())?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") && !self.shared.contains(&entry.ino()) {
                files.push(entry.file_name().to_owned());
            }
        }
        files.sort_unstable();
        for name in files {
            let name = as_os_str(&name);
            let Some(status) = directory.status(name)? else { continue };
            match file_type(&status) {
                FileType::Directory => inner.push(directory.open(name)?),
                FileType::RegularFile | FileType::Symlink => self.file(directory, name, &status)?,
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => {}
            }
        }
        // Also what a killed run has left writable.
        let status = rustix::fs::fstat(directory).at("examine", directory.path())?;
        if status.st_mode & 0o7777 != 0o555 || status.st_mtime != 1 {
            seal(directory, 0o555, directory.path())?;
        }
        Ok(inner)
    }

    fn file(&mut self, parent: &Directory, name: &OsStr, status: &Stat) -> Result<(), StoreError> {
        let is_link = file_type(status) == FileType::Symlink;
        if !is_link && Mode::from_raw_mode(status.st_mode).contains(Mode::WUSR) {
            (self.observe)(OptimiseEvent::Writable(parent.child(name)));
            return Ok(());
        }
        // Top-level files are not left out before.
        if self.shared.contains(&status.st_ino) {
            return Ok(());
        }
        let hash = file_hash(parent, name)?;
        let link = hash.to_nix32();
        let shared = match self.usable(&link, &hash, status)? {
            Some(shared) => shared,
            None => {
                return match rustix::fs::linkat(parent, name, &self.links, &link, AtFlags::empty()) {
                    Ok(()) => {
                        self.shared.insert(status.st_ino);
                        self.read.insert(status.st_ino);
                        Ok(())
                    }
                    // Somebody else was faster, the directory is full, or the file has all the names that it can have.
                    Err(Errno::EXIST | Errno::NOSPC | Errno::MLINK | Errno::NOENT) => Ok(()),
                    Err(error) => Err(error).at("link", parent.child(name)),
                };
            }
        };
        if shared.st_ino == status.st_ino {
            return Ok(());
        }
        let scratch = self.scratch.directory();
        match rustix::fs::linkat(&self.links, &link, scratch, NEW, AtFlags::empty()) {
            Ok(()) => {}
            // As many names as it can have (an empty file, most likely), or collected since.
            Err(Errno::MLINK | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error).at("link", self.links.child(&link)),
        }
        if parent.path() != self.store.objects().path() {
            rustix::fs::fchmod(parent, Mode::from_raw_mode(0o755)).at("make writable", parent.path())?;
        }
        match rustix::fs::renameat(scratch, NEW, parent, name) {
            Ok(()) => {
                self.saved.files += 1;
                self.saved.bytes += u64::try_from(status.st_size).unwrap_or(0);
                Ok(())
            }
            // Some file systems count the name that goes away only later.
            Err(Errno::MLINK) => rustix::fs::unlinkat(scratch, NEW, AtFlags::empty()).at("remove", scratch.child(NEW)),
            Err(error) => Err(error).at("replace", parent.child(name)),
        }
    }

    /// The shared file with this hash, if there is one and it can stand for a file.
    fn usable(&mut self, link: &str, hash: &Hash, status: &Stat) -> Result<Option<Stat>, StoreError> {
        let Some(shared) = self.links.status(link)? else { return Ok(None) };
        if shared.st_ino == status.st_ino || self.read.contains(&shared.st_ino) {
            return Ok(Some(shared));
        }
        if shared.st_size == status.st_size
            && shared.st_mode == status.st_mode
            && file_hash(&self.links, OsStr::new(link))? == *hash
        {
            self.read.insert(shared.st_ino);
            return Ok(Some(shared));
        }
        (self.observe)(OptimiseEvent::CorruptLink(self.links.child(link)));
        match rustix::fs::unlinkat(&self.links, link, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).at("remove", self.links.child(link)),
        }
        self.shared.remove(&shared.st_ino);
        Ok(None)
    }
}

/// Hash of the NAR of a single file.
fn file_hash(parent: &Directory, name: &OsStr) -> Result<Hash, StoreError> {
    let (hasher, _) = dump(&parent.child(name), Hasher::new(HashAlgorithm::Sha256))?;
    Ok(hasher.finish())
}
