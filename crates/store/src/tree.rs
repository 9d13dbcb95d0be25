//! Walks a file tree once: serialises it as a NAR and, if asked to, copies it in canonical form on the way.
//!
//! Iterative, by descriptors, never through links. Files are read, not mapped: a file that shrinks under a mapping kills
//! the process.

use crate::{
    directory::{CANONICAL_TIMES, Directory, as_os_str, file_type},
    error::{At, StoreError},
};
use fodder_model::nar::{NarError, Writer};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Size of a read. Larger ones do not get faster, smaller ones do get slower.
const CHUNK_SIZE: usize = 128 * 1024;

/// An open directory of the tree, whose entries are being visited.
struct Level {
    source: Directory,
    copy: Option<Directory>,
    names: std::vec::IntoIter<CString>,
}

/// Where a node is copied to: a directory, and the name in it.
type Destination<'a> = Option<(&'a Directory, &'a OsStr)>;

struct Walk<W> {
    nar: Writer<W>,
    levels: Vec<Level>,
    chunk: Vec<u8>,
}

/// Serialises the file, directory or link at `source` to `output`, and copies it to `destination`, which must not exist:
/// modes 0444, or 0555 for directories and for files that their owner may execute; modification time 1; nothing else kept.
/// Returns the output and the number of bytes written to it.
pub(crate) fn walk<W: Write>(source: &Path, destination: Destination<'_>, output: W) -> Result<(W, u64), StoreError> {
    // Without a trailing slash, behind which the kernel would follow a link.
    let source: PathBuf = source.components().collect();
    let mut walk = Walk { nar: Writer::new(output), levels: Vec::new(), chunk: vec![0; CHUNK_SIZE] };
    let root = walk.visit(CWD, source.as_os_str(), &source, destination)?;
    walk.levels.extend(root);
    while let Some(mut level) = walk.levels.pop() {
        let Some(name) = level.names.next() else {
            walk.nar.end_directory().map_err(|error| serialise(error, level.source.path()))?;
            if let Some(copy) = level.copy {
                seal(&copy, 0o555, copy.path())?;
            }
            continue;
        };
        let path = level.source.child(as_os_str(&name));
        walk.nar.entry(name.to_bytes()).map_err(|error| serialise(error, &path))?;
        let destination = level.copy.as_ref().map(|copy| (copy, as_os_str(&name)));
        let child = walk.visit(level.source.as_fd(), as_os_str(&name), &path, destination)?;
        walk.levels.push(level);
        walk.levels.extend(child);
    }
    walk.nar.finish().map_err(|error| serialise(error, &source))
}

impl<W: Write> Walk<W> {
    /// Serialises a node; a directory only begins, and is returned to be gone through.
    fn visit(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        destination: Destination<'_>,
    ) -> Result<Option<Level>, StoreError> {
        let status = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).at("examine", path)?;
        match file_type(&status) {
            FileType::Directory => {
                self.nar.directory().map_err(|error| serialise(error, path))?;
                let source = open(parent, name, path, OFlags::DIRECTORY)?;
                let source = Directory::from_descriptor(source, path.to_owned());
                let copy = destination.map(|(directory, name)| create_directory(directory, name)).transpose()?;
                let names = source.names()?.into_iter();
                Ok(Some(Level { source, copy, names }))
            }
            FileType::RegularFile => {
                let source = open(parent, name, path, OFlags::NONBLOCK | OFlags::NOCTTY)?;
                self.file(source.into(), path, destination).map(|()| None)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).at("read the link", path)?;
                self.nar.symlink(target.to_bytes()).map_err(|error| serialise(error, path))?;
                if let Some((directory, name)) = destination {
                    rustix::fs::symlinkat(&*target, directory, name).at("create the link", directory.child(name))?;
                    directory.set_canonical_time(name)?;
                }
                Ok(None)
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Err(StoreError::UnsupportedType { path: path.to_owned() }),
        }
    }

    fn file(&mut self, mut source: File, path: &Path, destination: Destination<'_>) -> Result<(), StoreError> {
        // Asked again of what was opened: it may be another file than the one that was looked at.
        let status = rustix::fs::fstat(&source).at("examine", path)?;
        if file_type(&status) != FileType::RegularFile {
            return Err(StoreError::Changed { path: path.to_owned() });
        }
        let is_executable = Mode::from_raw_mode(status.st_mode).contains(Mode::XUSR);
        let mut remaining = u64::try_from(status.st_size).unwrap_or(0);
        self.nar.file(is_executable, remaining).map_err(|error| serialise(error, path))?;
        let mut copy = match destination {
            None => None,
            Some((directory, name)) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let file = directory.open_file(name, flags, 0o600).at("create", directory.child(name))?;
                Some((File::from(file), directory.child(name)))
            }
        };
        while remaining > 0 {
            let wanted = self.chunk.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
            let length = match source.read(&mut self.chunk[..wanted]) {
                Ok(0) => return Err(StoreError::Changed { path: path.to_owned() }),
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).at("read", path),
            };
            let data = &self.chunk[..length];
            self.nar.contents(data).map_err(|error| serialise(error, path))?;
            if let Some((file, copy_path)) = &mut copy {
                file.write_all(data).at("write to", &*copy_path)?;
            }
            remaining -= length as u64;
        }
        match copy {
            Some((file, copy_path)) => seal(&file, if is_executable { 0o555 } else { 0o444 }, &copy_path),
            None => Ok(()),
        }
    }
}

/// Gives a finished file or directory the mode and time that store objects have.
pub(crate) fn seal(file: impl AsFd, mode: u32, path: &Path) -> Result<(), StoreError> {
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).at("change the mode of", path)?;
    rustix::fs::futimens(&file, &CANONICAL_TIMES).at("set the modification time of", path)
}

fn open(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, flags: OFlags) -> Result<OwnedFd, StoreError> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(descriptor) => Ok(descriptor),
        // It was what we open it as a moment ago.
        Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Err(StoreError::Changed { path: path.to_owned() }),
        Err(error) => Err(error).at("open", path),
    }
}

/// Creates a directory for us alone and opens it.
pub(crate) fn create_directory(parent: &Directory, name: &OsStr) -> Result<Directory, StoreError> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU).at("create the directory", parent.child(name))?;
    parent.open(OsString::from(name))
}

fn serialise(source: NarError, path: &Path) -> StoreError {
    StoreError::Serialise { path: path.to_owned(), source }
}
