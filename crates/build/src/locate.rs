//! Where a file tree mentions store paths: every place, with a line of context and how it probably got there.

use crate::{error::BuildError, inspect};
use fodder_model::{
    bytes::ByteString,
    scan::{Candidates, Hit, Scan, spelled_out},
    store_path::StorePath,
};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
};
use serde::Serialize;
use std::{
    ffi::{CStr, CString},
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

/// Size of a read.
const CHUNK_SIZE: usize = 256 * 1024;

/// Bytes shown on each side of a match.
const CONTEXT: u64 = 60;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceHit {
    /// The output, by its name in the derivation; `None` when the tree is not one that was just built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// File in the tree, relative to its top; for the top itself its own name, and empty as long as nobody has filled that in.
    pub file: ByteString,
    /// Bytes from the beginning of the file (or of the name, or of the link's target) to the hash part.
    pub offset: u64,
    /// What is mentioned.
    pub path: StorePath,
    /// How it probably got there.
    pub cause: Cause,
    /// The text around it, control characters and foreign bytes shown as dots.
    pub context: String,
}

/// How a mention probably got into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The name of a file.
    FileName,
    /// A symbolic link's target.
    LinkTarget,
    /// The first line of a script.
    Interpreter,
    /// The program interpreter of an ELF file.
    ElfInterpreter,
    /// A library directory in an ELF file.
    ElfRunPath,
    /// Another string in an ELF file.
    ElfString,
    /// `pyvenv.cfg` of a Python environment.
    PythonEnvironment,
    /// Compiled Python.
    PythonBytecode,
    /// A pkg-config or libtool file.
    BuildMetadata,
    /// Text.
    Text,
    /// Other data.
    Binary,
}

impl Cause {
    /// A few words for people.
    pub fn words(self) -> &'static str {
        match self {
            Cause::FileName => "the name of a file",
            Cause::LinkTarget => "target of a symbolic link",
            Cause::Interpreter => "interpreter line of a script (shebang)",
            Cause::ElfInterpreter => "program interpreter of an ELF file",
            Cause::ElfRunPath => "library search path of an ELF file (RPATH)",
            Cause::ElfString => "string in an ELF file",
            Cause::PythonEnvironment => "home of a Python environment (pyvenv.cfg)",
            Cause::PythonBytecode => "source path in compiled Python",
            Cause::BuildMetadata => "pkg-config or libtool file",
            Cause::Text => "text",
            Cause::Binary => "binary data",
        }
    }
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// These paths, by their hash parts.
    Paths(&'a Candidates),
    /// Whatever is spelled out as `/nix/store/<hash part>-<name>`.
    Anything,
}

/// Looks through the tree at `top`, calling `report` for each place, files in byte order. Never follows links.
pub fn locate(top: &Path, wanted: Wanted<'_>, report: &mut dyn FnMut(ReferenceHit)) -> Result<(), BuildError> {
    locate_at(CWD, top, top, wanted, report)
}

/// The same for what is at `name` in `directory`; `shown` stands for it in errors. By descriptors: a path may be longer than the
/// kernel takes. Memory is bounded by what directories list.
pub fn locate_at(
    directory: BorrowedFd<'_>,
    name: &Path,
    shown: &Path,
    wanted: Wanted<'_>,
    report: &mut dyn FnMut(ReferenceHit),
) -> Result<(), BuildError> {
    let mut walk = Walk { shown, wanted, report, levels: Vec::new() };
    let name = CString::new(name.as_os_str().as_bytes())
        .map_err(|error| BuildError::Read { path: shown.to_owned(), source: error.into() })?;
    walk.visit(directory, &name, FileType::Unknown, ByteString::default())?;
    while let Some(mut level) = walk.levels.pop() {
        let Some((name, kind)) = level.entries.pop() else { continue };
        let mut file = level.file.to_vec();
        if !file.is_empty() {
            file.push(b'/');
        }
        file.extend(name.to_bytes());
        let file = ByteString::from(file);
        walk.in_text(name.to_bytes(), &file, Cause::FileName);
        let directory = Rc::clone(&level.directory);
        walk.levels.push(level);
        walk.visit(directory.as_fd(), &name, kind, file)?;
    }
    Ok(())
}

/// A directory that is being walked.
struct Level {
    directory: Rc<OwnedFd>,
    /// The directory, relative to the top.
    file: ByteString,
    /// Still to be visited, the next one last.
    entries: Vec<(CString, FileType)>,
}

struct Walk<'a> {
    shown: &'a Path,
    wanted: Wanted<'a>,
    report: &'a mut dyn FnMut(ReferenceHit),
    levels: Vec<Level>,
}

impl Walk<'_> {
    /// Where a file is, for errors.
    fn path(&self, file: &ByteString) -> PathBuf {
        if file.is_empty() { self.shown.to_owned() } else { self.shown.join(file.as_path()) }
    }

    fn visit(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        file: ByteString,
    ) -> Result<(), BuildError> {
        let failed = |error: Errno| BuildError::Read { path: self.path(&file), source: error.into() };
        let open = |flags| {
            let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)
        };
        let kind = if kind == FileType::Unknown {
            let status = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            FileType::from_raw_mode(status.st_mode)
        } else {
            kind
        };
        match kind {
            FileType::Directory => {
                let directory = open(OFlags::DIRECTORY)?;
                let entries = inspect::entries(&directory, &self.path(&file), None)?;
                self.levels.push(Level { directory: Rc::new(directory), file, entries });
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed)?;
                self.in_text(target.to_bytes(), &file, Cause::LinkTarget);
            }
            FileType::RegularFile => {
                let contents = File::from(open(OFlags::NONBLOCK | OFlags::NOCTTY)?);
                let path = self.path(&file);
                self.in_file(contents, &file, &path).map_err(|source| BuildError::Read { path, source })?;
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {}
        }
        Ok(())
    }

    fn in_text(&mut self, text: &[u8], file: &ByteString, cause: Cause) {
        let mut hit = |offset: u64, path| {
            let (start, end) = (offset.saturating_sub(CONTEXT) as usize, (offset + 32 + CONTEXT) as usize);
            let context = printable(&text[start..end.min(text.len())]);
            (self.report)(ReferenceHit { output: None, file: file.clone(), offset, path, cause, context });
        };
        match self.wanted {
            Wanted::Paths(candidates) => Scan::new(candidates).feed(text, |found| hit(found.offset, found.path)),
            Wanted::Anything => {
                for (offset, path) in spelled_out(text) {
                    hit(offset as u64, path);
                }
            }
        }
    }

    /// Reports while it reads: a file may mention paths without end.
    fn in_file(&mut self, mut contents: File, file: &ByteString, path: &Path) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_SIZE];
        let count = contents.read_at(&mut chunk[..256], 0)?;
        let head = chunk[..count].to_vec();
        let report = &mut *self.report;
        let around = contents.try_clone()?;
        let mut result = Ok(());
        let mut found = |hit: Hit| {
            if result.is_ok() {
                result = hit_in_file(&around, &head, file, path, hit).map(&mut *report);
            }
        };
        match self.wanted {
            Wanted::Paths(candidates) => {
                let mut scan = Scan::new(candidates);
                loop {
                    let count = contents.read(&mut chunk)?;
                    if count == 0 {
                        break;
                    }
                    scan.feed(&chunk[..count], &mut found);
                }
            }
            Wanted::Anything => {
                // A path with its prefix is at most 255 bytes: so much is carried over to the next piece, which may complete it.
                const CARRY: usize = 255;
                let mut buffer: Vec<u8> = Vec::new();
                let (mut base, mut reported) = (0u64, None);
                loop {
                    let count = contents.read(&mut chunk)?;
                    buffer.extend(&chunk[..count]);
                    let is_complete = |offset: usize| count == 0 || offset + CARRY <= buffer.len();
                    for (offset, path) in spelled_out(&buffer) {
                        let absolute = base + offset as u64;
                        if is_complete(offset) && reported.is_none_or(|last| absolute > last) {
                            found(Hit { offset: absolute, path });
                            reported = Some(absolute);
                        }
                    }
                    if count == 0 {
                        break;
                    }
                    let done = buffer.len().saturating_sub(2 * CARRY);
                    buffer.drain(..done);
                    base += done as u64;
                }
            }
        }
        result
    }
}

/// A match with what is around it.
fn hit_in_file(
    contents: &File,
    head: &[u8],
    file: &ByteString,
    path: &Path,
    hit: Hit,
) -> std::io::Result<ReferenceHit> {
    let Hit { offset, path: mentioned } = hit;
    let start = offset.saturating_sub(CONTEXT);
    let mut around = vec![0; (offset - start + 32 + CONTEXT) as usize];
    let count = contents.read_at(&mut around, start)?;
    around.truncate(count);
    let within = ((offset - start) as usize).min(count);
    let (context, after) = line_around(&around, within);
    let cause = classify(path, head, offset, after);
    Ok(ReferenceHit { output: None, file: file.clone(), offset, path: mentioned, cause, context })
}

/// The line around a match, and what follows the match in it.
fn line_around(around: &[u8], at: usize) -> (String, &[u8]) {
    let is_break = |byte: &u8| *byte == b'\n' || *byte == 0;
    let start = around[..at].iter().rposition(is_break).map_or(0, |position| position + 1);
    let end = around[at..].iter().position(is_break).map_or(around.len(), |position| at + position);
    (printable(&around[start..end]), &around[(at + 32).min(end)..end])
}

fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if (0x20..0x7f).contains(byte) { *byte as char } else { '.' }).collect()
}

fn classify(path: &Path, head: &[u8], offset: u64, after: &[u8]) -> Cause {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let extension = path.extension().unwrap_or_default().as_bytes();
    let first_line = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len()) as u64;
    let contains = |needle: &[u8]| after.windows(needle.len()).any(|window| window == needle);
    if head.starts_with(b"\x7fELF") {
        // What follows the hash part is "-name/lib/ld-linux…", "-name/lib:…" or something else.
        if contains(b"/ld-linux") || contains(b"/ld-musl") || contains(b"/ld.so") {
            Cause::ElfInterpreter
        } else if after.ends_with(b"/lib") || after.ends_with(b"/lib64") || contains(b"/lib:") || contains(b"/lib64:") {
            Cause::ElfRunPath
        } else {
            Cause::ElfString
        }
    } else if head.starts_with(b"#!") && offset < first_line {
        Cause::Interpreter
    } else if name == b"pyvenv.cfg" {
        Cause::PythonEnvironment
    } else if extension == b"pyc" || extension == b"pyo" {
        Cause::PythonBytecode
    } else if extension == b"pc" || extension == b"la" {
        Cause::BuildMetadata
    } else if head.contains(&0) {
        Cause::Binary
    } else {
        Cause::Text
    }
}
