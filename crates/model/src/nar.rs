//! The NAR format: the one serialisation of a file tree from which store hashes are computed.
//!
//! Only tokens: whoever walks the tree calls [`Writer`] in order, and gets an error instead of a malformed archive. The
//! format, from the Nix manual ("Nix Archive (NAR) format"), where every string is its length as a little-endian `u64`,
//! the bytes, and zeros up to a multiple of eight:
//!
//! ```text
//! archive = "nix-archive-1" node
//! node    = "(" "type" ( "regular" [ "executable" "" ] "contents" BYTES
//!                      | "symlink" "target" TARGET
//!                      | "directory" { "entry" "(" "name" NAME "node" node ")" } ) ")"
//! ```

mod reader;

pub use reader::{NarEvent, NarReadError, Reader};

use crate::bytes::ByteString;
use std::io::{self, Write};

/// Number of levels an archive may have: the root is level 0, so an object at level 64 is one too many. Nix refuses to
/// read more since the stack overflow of CVE-2026-44028.
pub const DEPTH_LIMIT: usize = 64;

/// Longest name of a directory entry, in bytes.
pub const NAME_LENGTH_LIMIT: usize = 255;

/// Longest target of a symbolic link, in bytes.
pub const TARGET_LENGTH_LIMIT: usize = 4095;

/// Most entries of an archive that is read, over all its directories. The largest known objects have half a million.
pub const ENTRY_LIMIT: u64 = 16 << 20;

/// Tokens collect here before they are passed on, so that a tree of small files is not hashed eight bytes at a time.
const BUFFER_SIZE: usize = 16 * 1024;

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum NarError {
    /// An entry's name is empty, `.`, `..`, too long, or contains `/` or NUL.
    #[error("'{name}' cannot be the name of a directory entry in a NAR")]
    InvalidName {
        /// What was given.
        name: ByteString,
    },
    /// Entries must come in strictly increasing order of their bytes.
    #[error("NAR directory is not sorted: '{name}' comes after '{previous}'")]
    Unsorted {
        /// The entry before.
        previous: ByteString,
        /// The entry that does not sort after it.
        name: ByteString,
    },
    /// A link's target is empty, too long, or contains NUL.
    #[error("'{target}' cannot be the target of a symbolic link in a NAR")]
    InvalidTarget {
        /// What was given.
        target: ByteString,
    },
    /// The tree has too many levels.
    #[error("exceeds maximum NAR directory depth of {DEPTH_LIMIT}")]
    TooDeep,
    /// A file goes on after its declared size.
    #[error("file was declared with {declared_bytes} bytes and has at least {written_bytes}")]
    TooLong {
        /// Size in the header.
        declared_bytes: u64,
        /// Bytes that would have been written.
        written_bytes: u64,
    },
    /// A file ended before its declared size.
    #[error("file was declared with {declared_bytes} bytes and has {written_bytes}")]
    TooShort {
        /// Size in the header.
        declared_bytes: u64,
        /// Bytes that were written.
        written_bytes: u64,
    },
    /// A token at a place where the grammar has none: a mistake of the calling program.
    #[error("a NAR has no place for a {token} here")]
    Misplaced {
        /// What was to be written.
        token: &'static str,
    },
    /// The bytes could not be passed on.
    #[error("cannot write a NAR")]
    Output(#[source] io::Error),
}

/// What the grammar allows next.
#[derive(Clone, Copy)]
enum Next {
    /// The root, or the node of an entry whose name has been written.
    Node,
    /// Another entry, or the end, of the innermost directory.
    Entry,
    /// `remaining_bytes` of a file.
    Contents { declared_bytes: u64, remaining_bytes: u64 },
    /// Nothing.
    End,
}

/// Serialises one file tree.
///
/// ```
/// use fodder_model::{hash::{HashAlgorithm, Hasher}, nar};
/// let mut hasher = Hasher::new(HashAlgorithm::Sha256);
/// let mut writer = nar::Writer::new(&mut hasher);
/// writer.directory()?;
/// writer.entry(b"greeting")?;
/// writer.file(false, 5)?;
/// writer.contents(b"hello")?;
/// writer.end_directory()?;
/// let (_, nar_size) = writer.finish()?;
/// assert_eq!(nar_size, 288);
/// # Ok::<(), nar::NarError>(())
/// ```
pub struct Writer<W> {
    output: W,
    buffer: Vec<u8>,
    /// Bytes passed on, without the buffer.
    passed_on: u64,
    next: Next,
    /// For each open directory the name of its latest entry, empty before the first.
    directories: Vec<Vec<u8>>,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(output: W) -> Self {
        let buffer = Vec::with_capacity(BUFFER_SIZE);
        let mut writer = Writer { output, buffer, passed_on: 0, next: Next::Node, directories: Vec::new() };
        writer.string(b"nix-archive-1");
        writer
    }

    /// Bytes written so far: the offset in the archive of what comes next.
    pub fn position(&self) -> u64 {
        self.passed_on + self.buffer.len() as u64
    }

    /// Starts a directory; entries follow, then [`Writer::end_directory`].
    pub fn directory(&mut self) -> Result<(), NarError> {
        self.node("directory")?;
        self.directories.push(Vec::new());
        self.next = Next::Entry;
        self.spill()
    }

    /// Starts an entry of the innermost open directory; its node follows.
    pub fn entry(&mut self, name: &[u8]) -> Result<(), NarError> {
        let (Next::Entry, Some(previous)) = (self.next, self.directories.last_mut()) else {
            return Err(self.refuse("directory entry"));
        };
        let reserved = name.is_empty() || name == b"." || name == b"..";
        if reserved || name.len() > NAME_LENGTH_LIMIT || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(NarError::InvalidName { name: name.into() });
        }
        if name <= previous.as_slice() {
            return Err(NarError::Unsorted { previous: previous.as_slice().into(), name: name.into() });
        }
        name.clone_into(previous);
        for token in [b"entry".as_slice(), b"(", b"name", name, b"node"] {
            self.string(token);
        }
        self.next = Next::Node;
        Ok(())
    }

    /// Ends the innermost open directory.
    pub fn end_directory(&mut self) -> Result<(), NarError> {
        if !matches!(self.next, Next::Entry) || self.directories.pop().is_none() {
            return Err(self.refuse("directory end"));
        }
        self.end_node();
        self.spill()
    }

    /// Starts a file of `size` bytes; exactly that many go through [`Writer::contents`], none when it is 0.
    pub fn file(&mut self, executable: bool, size: u64) -> Result<(), NarError> {
        self.node("regular")?;
        if executable {
            self.string(b"executable");
            self.string(b"");
        }
        self.string(b"contents");
        self.buffer.extend_from_slice(&size.to_le_bytes());
        self.next = Next::Contents { declared_bytes: size, remaining_bytes: size };
        if size == 0 {
            self.end_node();
        }
        self.spill()
    }

    /// Writes the next bytes of the open file. The file ends with its last declared byte.
    pub fn contents(&mut self, data: &[u8]) -> Result<(), NarError> {
        if data.is_empty() {
            return Ok(());
        }
        let Next::Contents { declared_bytes, remaining_bytes } = self.next else {
            return Err(self.refuse("file content"));
        };
        let length = data.len() as u64;
        let Some(remaining_bytes) = remaining_bytes.checked_sub(length) else {
            let written_bytes = declared_bytes - remaining_bytes + length;
            return Err(NarError::TooLong { declared_bytes, written_bytes });
        };
        if data.len() < BUFFER_SIZE / 4 {
            self.buffer.extend_from_slice(data);
        } else {
            self.pass_on()?;
            self.output.write_all(data).map_err(NarError::Output)?;
            self.passed_on += length;
        }
        self.next = Next::Contents { declared_bytes, remaining_bytes };
        if remaining_bytes == 0 {
            self.pad(declared_bytes);
            self.end_node();
        }
        self.spill()
    }

    /// Writes a symbolic link.
    pub fn symlink(&mut self, target: &[u8]) -> Result<(), NarError> {
        if target.is_empty() || target.len() > TARGET_LENGTH_LIMIT || target.contains(&0) {
            return Err(NarError::InvalidTarget { target: target.into() });
        }
        self.node("symlink")?;
        self.string(b"target");
        self.string(target);
        self.end_node();
        self.spill()
    }

    /// Ends the archive; gives the output back, and the archive's size in bytes.
    pub fn finish(mut self) -> Result<(W, u64), NarError> {
        match self.next {
            Next::End => {}
            Next::Node | Next::Entry | Next::Contents { .. } => return Err(self.refuse("end of archive")),
        }
        self.pass_on()?;
        self.output.flush().map_err(NarError::Output)?;
        Ok((self.output, self.passed_on))
    }

    fn node(&mut self, kind: &'static str) -> Result<(), NarError> {
        if !matches!(self.next, Next::Node) {
            return Err(self.refuse(kind));
        }
        if self.directories.len() >= DEPTH_LIMIT {
            return Err(NarError::TooDeep);
        }
        for token in ["(", "type", kind] {
            self.string(token.as_bytes());
        }
        Ok(())
    }

    /// Closes a node and the entry that holds it.
    fn end_node(&mut self) {
        self.string(b")");
        self.next = match self.directories.is_empty() {
            true => Next::End,
            false => {
                self.string(b")");
                Next::Entry
            }
        };
    }

    /// A token out of place inside a file means that the file is too short; say that, it is what went wrong.
    fn refuse(&self, token: &'static str) -> NarError {
        match self.next {
            Next::Contents { declared_bytes, remaining_bytes } => {
                NarError::TooShort { declared_bytes, written_bytes: declared_bytes - remaining_bytes }
            }
            Next::Node | Next::Entry | Next::End => NarError::Misplaced { token },
        }
    }

    fn string(&mut self, text: &[u8]) {
        self.buffer.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(text);
        self.pad(text.len() as u64);
    }

    fn pad(&mut self, length: u64) {
        let zeros = (8 - length % 8) % 8;
        self.buffer.extend_from_slice(&[0; 8][..zeros as usize]);
    }

    fn spill(&mut self) -> Result<(), NarError> {
        if self.buffer.len() < BUFFER_SIZE / 2 { Ok(()) } else { self.pass_on() }
    }

    fn pass_on(&mut self) -> Result<(), NarError> {
        self.output.write_all(&self.buffer).map_err(NarError::Output)?;
        self.passed_on += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
