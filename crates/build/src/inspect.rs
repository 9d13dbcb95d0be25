//! One walk over an output: puts it into canonical form, hashes it as a NAR and by the declared method, and finds what it refers
//! to. By descriptors, iterative, never through links; bounded memory whatever the output's size.
//!
//! The builder is gone when this runs, and what it left is below a directory that only we can enter. A descriptor of it that got out
//! all the same must be of no use: a directory is closed to others before it is listed, and a file before it is read, which is not
//! done while anybody can write to it.

mod canonical;
mod error;
mod gate;
mod links;
mod sink;

pub use error::InspectError;
pub use links::Links;

use fodder_model::{
    content_address::{ContentAddress, ContentMethod},
    harmless::harmless,
    hash::{Hash, HashAlgorithm},
    limits::Limit,
    nar::Writer,
    scan::{Candidates, Scan, scan_text},
    store_path::StorePath,
};
use fodder_sandbox::Writers;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use sink::HashSink;
use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Size of a read.
const CHUNK_SIZE: usize = 128 * 1024;

/// What an output turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// SHA-256 of its NAR.
    pub nar_hash: Hash,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Candidates that it mentions.
    pub references: BTreeSet<StorePath>,
    /// Its hash by the declared method; `None` when the method takes a single plain file and this is something else.
    pub content: Option<ContentAddress>,
    /// Whether it is a regular file that nobody may execute.
    pub is_plain_file: bool,
}

/// What to do beside hashing.
#[derive(Clone, Copy, Debug)]
pub struct Instructions<'a> {
    /// What to look for.
    pub candidates: &'a Candidates,
    /// A second hash to make.
    pub content: Option<(ContentMethod, HashAlgorithm)>,
    /// Whether to put the output into canonical form; otherwise it is only read.
    pub canonicalise: bool,
    /// When the builder ran as another user: who that was. Everything it made is then given to us.
    pub builder: Option<u32>,
    /// How large it may be.
    pub budget: Budget,
}

/// How large an output may be before the walk stops; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Bytes in all its files, holes included.
    pub bytes: Option<u64>,
    /// Files, directories and links.
    pub files: Option<u64>,
}

/// A path whose names are the builder's.
pub(crate) fn shown(path: &Path) -> String {
    harmless(path.as_os_str().as_bytes())
}

/// Walks what is at `name` in `directory`; `shown` stands for it in errors. `links` are counted over all outputs of a build.
pub fn inspect(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    shown: &Path,
    instructions: &Instructions<'_>,
    links: &mut Links,
) -> Result<Inspection, InspectError> {
    let status = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| match error {
        Errno::NOENT => InspectError::Missing { path: shown.to_owned() },
        error => system("examine", shown, error),
    })?;
    if instructions.canonicalise {
        check_top(&status, shown, instructions)?;
    }
    let kind = FileType::from_raw_mode(status.st_mode);
    let is_plain_file = kind == FileType::RegularFile && status.st_mode & 0o100 == 0;
    let content_sink = match instructions.content {
        Some((method, algorithm)) if method.is_single_file() && is_plain_file => Some(HashSink::new(algorithm)),
        _ => None,
    };
    let nar_sink = match instructions.content {
        Some((ContentMethod::Nar, algorithm)) if algorithm != HashAlgorithm::Sha256 => Some(HashSink::new(algorithm)),
        _ => None,
    };
    let output = Sinks { nar: HashSink::new(HashAlgorithm::Sha256), other: nar_sink };
    let mut walk = Walk {
        instructions,
        nar: Writer::new(output),
        contents: content_sink,
        references: BTreeSet::new(),
        levels: Vec::new(),
        chunk: vec![0; CHUNK_SIZE],
        links,
        top: shown,
        bytes: 0,
        files: 0,
    };
    let c_name = CString::new(name.as_bytes()).map_err(|_| InspectError::Missing { path: shown.to_owned() })?;
    walk.visit(directory, &c_name, kind, shown.to_owned())?;
    while let Some(level) = walk.levels.last_mut() {
        match level.entries.pop() {
            Some((name, kind)) => {
                let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
                let parent = level.directory.try_clone().map_err(|error| error_of("open", &path, error))?;
                walk.nar.entry(name.to_bytes()).map_err(|source| InspectError::Nar { path: path.clone(), source })?;
                scan_text(instructions.candidates, name.to_bytes(), &mut walk.references);
                walk.visit(parent.as_fd(), &name, kind, path)?;
            }
            None => walk.leave()?,
        }
    }
    let Walk { nar, contents, references, .. } = walk;
    let (sinks, nar_size) = nar.finish().map_err(|source| InspectError::Nar { path: shown.to_owned(), source })?;
    let finish = |sink: HashSink| sink.finish().map_err(|error| error_of("hash", shown, error));
    let nar_hash = finish(sinks.nar)?;
    let hash = match (instructions.content, contents, sinks.other) {
        (Some((ContentMethod::Git, algorithm)), _, _) => Some(fodder_store::git_object_id(shown, algorithm)?),
        (Some((ContentMethod::Nar, _)), _, None) => Some(nar_hash),
        (Some(_), Some(sink), _) | (Some(_), None, Some(sink)) => Some(finish(sink)?),
        (Some(_), None, None) | (None, _, _) => None,
    };
    let content = match (instructions.content, hash) {
        (Some((method, _)), Some(hash)) => Some(ContentAddress { method, hash }),
        _ => None,
    };
    Ok(Inspection { nar_hash, nar_size, references, content, is_plain_file })
}

/// Only the top is looked at, as in Nix: what is inside is put right without asking.
fn check_top(status: &Stat, shown: &Path, instructions: &Instructions<'_>) -> Result<(), InspectError> {
    let is_link = FileType::from_raw_mode(status.st_mode) == FileType::Symlink;
    let is_foreign = instructions.builder.is_some_and(|builder| status.st_uid != builder);
    if !is_link && (status.st_mode & 0o022 != 0 || is_foreign) {
        return Err(InspectError::Suspicious { path: shown.to_owned() });
    }
    Ok(())
}

fn system(doing: &'static str, path: &Path, error: Errno) -> InspectError {
    error_of(doing, path, error.into())
}

fn error_of(doing: &'static str, path: &Path, source: std::io::Error) -> InspectError {
    InspectError::System { doing, path: path.to_owned(), source }
}

/// The NAR goes to one hash, or to two.
struct Sinks {
    nar: HashSink,
    other: Option<HashSink>,
}

impl Write for Sinks {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.nar.write_all(data)?;
        if let Some(other) = &mut self.other {
            other.write_all(data)?;
        }
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Level {
    directory: OwnedFd,
    path: PathBuf,
    /// Still to be visited, the next one last.
    entries: Vec<(CString, FileType)>,
}

struct Walk<'a> {
    instructions: &'a Instructions<'a>,
    nar: Writer<Sinks>,
    contents: Option<HashSink>,
    references: BTreeSet<StorePath>,
    levels: Vec<Level>,
    chunk: Vec<u8>,
    links: &'a mut Links,
    /// The output, and what was counted of it.
    top: &'a Path,
    bytes: u64,
    files: u64,
}

impl Walk<'_> {
    /// Before anything of this size is read.
    fn spend(&mut self, bytes: u64, files: u64) -> Result<(), InspectError> {
        let Budget { bytes: most_bytes, files: most_files } = self.instructions.budget;
        self.bytes = self.bytes.saturating_add(bytes);
        self.files = self.files.saturating_add(files);
        for (limit, most, used) in
            [(Limit::OutputSize, most_bytes, self.bytes), (Limit::OutputFiles, most_files, self.files)]
        {
            if let Some(allowed) = most.filter(|most| used > *most) {
                return Err(InspectError::TooLarge { path: self.top.to_owned(), limit, allowed });
            }
        }
        Ok(())
    }

    fn visit(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        path: PathBuf,
    ) -> Result<(), InspectError> {
        let nar = |source| InspectError::Nar { path: path.clone(), source };
        match kind {
            FileType::Directory => {
                let directory = self.open(parent, name, &path, OFlags::DIRECTORY)?;
                if self.instructions.canonicalise {
                    let status = rustix::fs::fstat(&directory).map_err(|error| system("examine", &path, error))?;
                    canonical::close(self.instructions.builder, directory.as_fd(), &status, 0o700, &path)?;
                }
                self.nar.directory().map_err(nar)?;
                let room = self.instructions.budget.files.map(|most| most.saturating_sub(self.files));
                let entries = entries(&directory, &path, room)?;
                self.spend(0, entries.len() as u64)?;
                self.levels.push(Level { directory, path, entries });
                Ok(())
            }
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|error| system("read the link", &path, error))?;
                self.nar.symlink(target.to_bytes()).map_err(nar)?;
                scan_text(self.instructions.candidates, target.to_bytes(), &mut self.references);
                if self.instructions.canonicalise {
                    canonical::seal_link(self.instructions.builder, parent, name, &path)?;
                }
                Ok(())
            }
            FileType::Unknown => {
                let status = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| system("examine", &path, error))?;
                let kind = FileType::from_raw_mode(status.st_mode);
                if kind == FileType::Unknown {
                    return Err(InspectError::UnsupportedType { path });
                }
                self.visit(parent, name, kind, path)
            }
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
                Err(InspectError::UnsupportedType { path })
            }
        }
    }

    fn leave(&mut self) -> Result<(), InspectError> {
        if let Some(level) = self.levels.pop() {
            self.nar.end_directory().map_err(|source| InspectError::Nar { path: level.path.clone(), source })?;
            if self.instructions.canonicalise {
                canonical::open_up(level.directory.as_fd(), &level.path)?;
                canonical::stamp(level.directory.as_fd(), &level.path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: PathBuf) -> Result<(), InspectError> {
        let mut file = File::from(self.open(parent, name, &path, OFlags::NONBLOCK | OFlags::NOCTTY)?);
        // Asked of what was opened: it is this that is hashed.
        let status = rustix::fs::fstat(&file).map_err(|error| system("examine", &path, error))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(InspectError::UnsupportedType { path });
        }
        let is_executable = status.st_mode & 0o100 != 0;
        self.spend(u64::try_from(status.st_size).unwrap_or_default(), 0)?;
        let mut status = status;
        if self.instructions.canonicalise {
            let mode = if is_executable { 0o555 } else { 0o444 };
            canonical::close(self.instructions.builder, file.as_fd(), &status, mode, &path)?;
            match fodder_sandbox::hold_off_writers(file.as_fd()) {
                Writers::None => {}
                Writers::Some => return Err(InspectError::StillOpen { path }),
                Writers::Unknown => {
                    file = gate::replace_by_copy(parent, name, file, mode, &path)?;
                    status = rustix::fs::fstat(&file).map_err(|error| system("examine", &path, error))?;
                }
            }
            self.links.count(&status, &path);
        }
        let mut remaining = u64::try_from(status.st_size).unwrap_or_default();
        let nar = |source| InspectError::Nar { path: path.clone(), source };
        self.nar.file(is_executable, remaining).map_err(nar)?;
        let mut scan = Scan::new(self.instructions.candidates);
        while remaining > 0 {
            let limit = self.chunk.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
            let count = match file.read(&mut self.chunk[..limit]) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error_of("read", &path, error)),
            };
            if count == 0 {
                let source = std::io::Error::other("it became shorter while it was read");
                return Err(error_of("read", &path, source));
            }
            let data = &self.chunk[..count];
            self.nar.contents(data).map_err(nar)?;
            scan.feed(data, |hit| {
                self.references.insert(hit.path);
            });
            if let Some(contents) = &mut self.contents {
                contents.write_all(data).map_err(|error| error_of("hash", &path, error))?;
            }
            remaining -= count as u64;
        }
        if self.instructions.canonicalise {
            canonical::stamp(file.as_fd(), &path)?;
        }
        Ok(())
    }

    /// Opens for reading. What the builder closed to itself (mode 0) is opened up first, if we may change it.
    fn open(&self, parent: BorrowedFd<'_>, name: &CStr, path: &Path, flags: OFlags) -> Result<OwnedFd, InspectError> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Err(Errno::ACCESS) if self.instructions.canonicalise => {
                let handle =
                    rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                        .map_err(|error| system("open", path, error))?;
                let status = rustix::fs::fstat(&handle).map_err(|error| system("examine", path, error))?;
                let mode = Mode::from_raw_mode(status.st_mode & 0o777)
                    | Mode::RUSR
                    | Mode::from_raw_mode(if flags.contains(OFlags::DIRECTORY) { 0o300 } else { 0 });
                let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
                rustix::fs::chmod(&through, mode).map_err(|error| system("change the mode of", path, error))?;
                rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|error| system("open", path, error))
            }
            result => result.map_err(|error| system("open", path, error)),
        }
    }
}

/// Names in a directory with their types, the first in byte order last; not many more of them than there is room for.
pub(crate) fn entries(
    directory: &OwnedFd,
    path: &Path,
    room: Option<u64>,
) -> Result<Vec<(CString, FileType)>, InspectError> {
    let list = Dir::read_from(directory).map_err(|error| system("list", path, error))?;
    let mut entries = Vec::new();
    for entry in list {
        let entry = entry.map_err(|error| system("list", path, error))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            if room.is_some_and(|room| entries.len() as u64 > room) {
                break;
            }
            entries.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    entries.sort_unstable_by(|(a, _), (b, _)| b.to_bytes().cmp(a.to_bytes()));
    Ok(entries)
}

#[cfg(test)]
mod tests;
