//! Where a file tree mentions store paths: every place, with a line of context and how it probably got there.

use crate::error::BuildError;
use fodder_model::{
    bytes::ByteString,
    scan::{Candidates, Hit, Scan, spelled_out},
    store_path::StorePath,
};
use rustix::fs::FileType;
use serde::Serialize;
use std::{
    fs::File,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
};

/// Size of a read.
const CHUNK_SIZE: usize = 256 * 1024;

/// Bytes shown on each side of a match.
const CONTEXT: u64 = 60;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceHit {
    /// File in the tree, relative to its top; empty for the top itself.
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
    let mut open: Vec<(PathBuf, ByteString)> = vec![(top.to_owned(), ByteString::default())];
    while let Some((path, relative)) = open.pop() {
        let at = |source: std::io::Error| BuildError::Read { path: path.clone(), source };
        let metadata = std::fs::symlink_metadata(&path).map_err(at)?;
        if !relative.is_empty() {
            let name = path.file_name().unwrap_or_default().as_bytes();
            in_text(name, &relative, Cause::FileName, wanted, report);
        }
        let kind = FileType::from_raw_mode(std::os::unix::fs::MetadataExt::mode(&metadata));
        match kind {
            FileType::Directory => {
                let mut names = std::fs::read_dir(&path)
                    .map_err(at)?
                    .map(|entry| entry.map(|entry| entry.file_name()))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(at)?;
                names.sort_unstable_by(|a, b| b.cmp(a));
                for name in names {
                    let mut child = relative.to_vec();
                    if !child.is_empty() {
                        child.push(b'/');
                    }
                    child.extend(name.as_bytes());
                    open.push((path.join(&name), child.into()));
                }
            }
            FileType::Symlink => {
                let target = std::fs::read_link(&path).map_err(at)?;
                in_text(target.as_os_str().as_bytes(), &relative, Cause::LinkTarget, wanted, report);
            }
            FileType::RegularFile => in_file(&path, &relative, wanted, report)?,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {}
        }
    }
    Ok(())
}

fn in_text(text: &[u8], file: &ByteString, cause: Cause, wanted: Wanted<'_>, report: &mut dyn FnMut(ReferenceHit)) {
    let mut hit = |offset, path| {
        report(ReferenceHit { file: file.clone(), offset, path, cause, context: printable(text) });
    };
    match wanted {
        Wanted::Paths(candidates) => Scan::new(candidates).feed(text, |found| hit(found.offset, found.path)),
        Wanted::Anything => {
            for (offset, path) in spelled_out(text) {
                hit(offset as u64, path);
            }
        }
    }
}

fn in_file(
    path: &Path,
    relative: &ByteString,
    wanted: Wanted<'_>,
    report: &mut dyn FnMut(ReferenceHit),
) -> Result<(), BuildError> {
    let at = |source| BuildError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(at)?;
    let mut hits: Vec<Hit> = Vec::new();
    let mut head = Vec::new();
    match wanted {
        Wanted::Paths(candidates) => {
            let mut scan = Scan::new(candidates);
            let mut chunk = vec![0; CHUNK_SIZE];
            loop {
                let count = file.read(&mut chunk).map_err(at)?;
                if count == 0 {
                    break;
                }
                if head.is_empty() {
                    head.extend(&chunk[..count.min(256)]);
                }
                scan.feed(&chunk[..count], |hit| hits.push(hit));
            }
        }
        Wanted::Anything => {
            // A path with its prefix is at most 255 bytes: so much is carried over to the next piece, which may complete it.
            const CARRY: usize = 255;
            let mut buffer: Vec<u8> = Vec::new();
            let (mut base, mut reported) = (0u64, None);
            let mut chunk = vec![0; CHUNK_SIZE];
            loop {
                let count = file.read(&mut chunk).map_err(at)?;
                buffer.extend(&chunk[..count]);
                if head.is_empty() {
                    head.extend(&buffer[..buffer.len().min(256)]);
                }
                let is_complete = |offset: usize| count == 0 || offset + CARRY <= buffer.len();
                for (offset, path) in spelled_out(&buffer) {
                    let absolute = base + offset as u64;
                    if is_complete(offset) && reported.is_none_or(|last| absolute > last) {
                        hits.push(Hit { offset: absolute, path });
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
    for hit in hits {
        let start = hit.offset.saturating_sub(CONTEXT);
        let mut around = vec![0; (hit.offset - start + 32 + CONTEXT) as usize];
        let count = file.read_at(&mut around, start).map_err(at)?;
        around.truncate(count);
        let within = (hit.offset - start) as usize;
        let (context, after) = line_around(&around, within);
        let cause = classify(path, &head, hit.offset, after);
        report(ReferenceHit { file: relative.clone(), offset: hit.offset, path: hit.path, cause, context });
    }
    Ok(())
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
