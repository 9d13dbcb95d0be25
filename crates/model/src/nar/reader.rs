//! Reading a NAR from hostile bytes: iterative, in memory that no length in the input decides, refusing whatever Nix refuses.
//!
//! One thing is stricter than Nix's own reader: [`Reader::finish`] wants the input to end where the archive does. Bytes after it
//! would be hashed or not hashed depending on who reads, and two tools would disagree about one file.

use super::{DEPTH_LIMIT, ENTRY_LIMIT, NAME_LENGTH_LIMIT, TARGET_LENGTH_LIMIT};
use crate::bytes::ByteString;
use std::io::{self, Read};

/// Longest keyword of the grammar, with room to quote a wrong one.
const TAG_LENGTH_LIMIT: usize = 32;

/// Why bytes are not a NAR. The words are Nix's where Nix has words.
#[derive(Debug, thiserror::Error)]
pub enum NarReadError {
    /// It begins with something else.
    #[error("bad archive: input doesn't look like a Nix archive")]
    NotAnArchive,
    /// Another keyword than the grammar has here.
    #[error("bad archive at byte {offset}: expected {expected}, got '{found}'")]
    UnexpectedTag {
        /// Bytes from the beginning to behind the keyword.
        offset: u64,
        /// What the grammar has.
        expected: &'static str,
        /// What is there.
        found: ByteString,
    },
    /// A string that is longer than anything at this place may be.
    #[error("bad archive at byte {offset}: a {what} of {length} bytes; the limit is {limit}")]
    TooLong {
        /// Bytes from the beginning to behind the length.
        offset: u64,
        /// Keyword, name or link target.
        what: &'static str,
        /// What the input claims.
        length: u64,
        /// What is allowed.
        limit: usize,
    },
    /// Padding that is not zero.
    #[error("bad archive at byte {offset}: non-zero padding")]
    Padding {
        /// Bytes from the beginning to behind the padding.
        offset: u64,
    },
    /// A name that no directory entry may have.
    #[error("bad archive: NAR contains invalid file name '{name}'")]
    InvalidName {
        /// The name.
        name: ByteString,
    },
    /// Names that are not in strictly increasing order.
    #[error("bad archive: NAR directory is not sorted: '{name}' comes after '{previous}'")]
    Unsorted {
        /// The entry before.
        previous: ByteString,
        /// The entry that does not sort after it.
        name: ByteString,
    },
    /// A target that no link may have.
    #[error("bad archive: invalid symbolic link target '{target}'")]
    InvalidTarget {
        /// The target.
        target: ByteString,
    },
    /// Too many levels.
    #[error("bad archive: exceeds maximum NAR directory depth of {DEPTH_LIMIT}")]
    TooDeep,
    /// Too many entries.
    #[error("bad archive: more than {ENTRY_LIMIT} files, directories and links")]
    TooMany,
    /// The input ends too early.
    #[error("bad archive: it ends after {offset} bytes, in the middle")]
    Truncated {
        /// Bytes that there were.
        offset: u64,
    },
    /// The input goes on.
    #[error("bad archive: the input goes on after its end at byte {offset}")]
    Trailing {
        /// Bytes of the archive.
        offset: u64,
    },
    /// A call at a place where it makes no sense: a mistake of the calling program.
    #[error("{what} while reading a NAR")]
    Misused {
        /// What was asked for.
        what: &'static str,
    },
    /// The bytes could not be read.
    #[error("cannot read the archive")]
    Input(#[source] io::Error),
}

/// What comes next in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NarEvent {
    /// A directory begins; entries follow, then [`NarEvent::EndDirectory`].
    Directory,
    /// An entry of the innermost directory; its node follows.
    Entry(ByteString),
    /// The innermost directory ends.
    EndDirectory,
    /// A file begins; its contents are to be taken with [`Reader::contents`].
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Bytes that follow. A claim of the input: allocate nothing by it.
        size: u64,
    },
    /// A symbolic link.
    Symlink(ByteString),
}

#[derive(Clone, Copy)]
enum Next {
    Start,
    Node,
    Entry,
    Contents { size: u64, remaining: u64 },
    End,
}

/// Reads one archive, event by event.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    offset: u64,
    next: Next,
    /// For each open directory the name of its latest entry, empty before the first.
    directories: Vec<Vec<u8>>,
    /// How many there were so far.
    entries: u64,
}

impl std::fmt::Debug for Next {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Next::Start => "start",
            Next::Node => "node",
            Next::Entry => "entry",
            Next::Contents { .. } => "contents",
            Next::End => "end",
        })
    }
}

impl<R: Read> Reader<R> {
    /// Starts at the beginning of an archive. The input is read in small pieces, so it should be buffered.
    pub fn new(input: R) -> Self {
        Reader { input, offset: 0, next: Next::Start, directories: Vec::new(), entries: 0 }
    }

    /// The next event; `None` after the root's end. Contents of a file must have been taken completely.
    pub fn next_event(&mut self) -> Result<Option<NarEvent>, NarReadError> {
        match self.next {
            Next::Start => {
                match self.string("keyword", TAG_LENGTH_LIMIT) {
                    Ok(magic) if magic == b"nix-archive-1" => {}
                    Ok(_) | Err(NarReadError::TooLong { .. }) => return Err(NarReadError::NotAnArchive),
                    Err(error) => return Err(error),
                }
                self.node().map(Some)
            }
            Next::Node => self.node().map(Some),
            Next::Entry => self.entry().map(Some),
            Next::Contents { size: _, remaining: 0 } => {
                self.end_node()?;
                self.next_event()
            }
            Next::Contents { .. } => Err(NarReadError::Misused { what: "a file's contents were not taken" }),
            Next::End => Ok(None),
        }
    }

    /// Takes contents of the file that began; 0 at its end, and only there unless `buffer` is empty.
    pub fn contents(&mut self, buffer: &mut [u8]) -> Result<usize, NarReadError> {
        let Next::Contents { size, remaining } = self.next else {
            return Err(NarReadError::Misused { what: "contents were asked for where there are none" });
        };
        if remaining == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let limit = buffer.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
        let count = loop {
            match self.input.read(&mut buffer[..limit]) {
                Ok(0) => return Err(NarReadError::Truncated { offset: self.offset }),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NarReadError::Input(error)),
            }
        };
        self.offset += count as u64;
        let remaining = remaining - count as u64;
        self.next = Next::Contents { size, remaining };
        if remaining == 0 {
            self.padding(size)?;
        }
        Ok(count)
    }

    /// Checks that everything was read and that nothing follows; returns the input and the archive's size in bytes.
    pub fn finish(mut self) -> Result<(R, u64), NarReadError> {
        if !matches!(self.next, Next::End) {
            return Err(NarReadError::Misused { what: "the end was asked for before it" });
        }
        let mut byte = [0];
        match self.input.read(&mut byte).map_err(NarReadError::Input)? {
            0 => Ok((self.input, self.offset)),
            _ => Err(NarReadError::Trailing { offset: self.offset }),
        }
    }

    /// Gives the input back, wherever it is, with the number of bytes that were read: for an archive inside a longer stream.
    /// After [`Reader::next_event`] has returned `None`, this is the first byte behind the archive.
    pub fn into_input(self) -> (R, u64) {
        (self.input, self.offset)
    }

    fn node(&mut self) -> Result<NarEvent, NarReadError> {
        if self.directories.len() >= DEPTH_LIMIT {
            return Err(NarReadError::TooDeep);
        }
        self.tag("'('", &[b"("])?;
        self.tag("'type'", &[b"type"])?;
        match self.tag("'regular', 'symlink' or 'directory'", &[b"regular", b"symlink", b"directory"])? {
            0 => {
                let executable = self.tag("'executable' or 'contents'", &[b"executable", b"contents"])? == 0;
                if executable {
                    self.tag("an empty string", &[b""])?;
                    self.tag("'contents'", &[b"contents"])?;
                }
                let size = self.number()?;
                self.next = Next::Contents { size, remaining: size };
                Ok(NarEvent::File { executable, size })
            }
            1 => {
                self.tag("'target'", &[b"target"])?;
                let target = self.string("link target", TARGET_LENGTH_LIMIT)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(NarReadError::InvalidTarget { target: target.into() });
                }
                self.end_node()?;
                Ok(NarEvent::Symlink(target.into()))
            }
            _ => {
                self.directories.push(Vec::new());
                self.next = Next::Entry;
                Ok(NarEvent::Directory)
            }
        }
    }

    fn entry(&mut self) -> Result<NarEvent, NarReadError> {
        if self.tag("'entry' or ')'", &[b"entry", b")"])? == 1 {
            self.directories.pop();
            self.close_entry()?;
            return Ok(NarEvent::EndDirectory);
        }
        self.tag("'('", &[b"("])?;
        self.tag("'name'", &[b"name"])?;
        let name = self.string("file name", NAME_LENGTH_LIMIT)?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(NarReadError::InvalidName { name: name.into() });
        }
        if let Some(previous) = self.directories.last_mut() {
            if *previous >= name {
                let previous = std::mem::take(previous).into();
                return Err(NarReadError::Unsorted { previous, name: name.into() });
            }
            previous.clone_from(&name);
        }
        self.entries += 1;
        if self.entries > ENTRY_LIMIT {
            return Err(NarReadError::TooMany);
        }
        self.tag("'node'", &[b"node"])?;
        self.next = Next::Node;
        Ok(NarEvent::Entry(name.into()))
    }

    /// Behind a file or a link.
    fn end_node(&mut self) -> Result<(), NarReadError> {
        self.tag("')'", &[b")"])?;
        self.close_entry()
    }

    /// Behind a node: the entry that holds it ends, or the archive.
    fn close_entry(&mut self) -> Result<(), NarReadError> {
        if self.directories.is_empty() {
            self.next = Next::End;
        } else {
            self.tag("')'", &[b")"])?;
            self.next = Next::Entry;
        }
        Ok(())
    }

    /// Reads a keyword; returns which of the allowed ones it is.
    fn tag(&mut self, expected: &'static str, allowed: &[&[u8]]) -> Result<usize, NarReadError> {
        let found = self.string("keyword", TAG_LENGTH_LIMIT)?;
        allowed.iter().position(|tag| *tag == found).ok_or_else(|| NarReadError::UnexpectedTag {
            offset: self.offset,
            expected,
            found: found.into(),
        })
    }

    fn number(&mut self) -> Result<u64, NarReadError> {
        let mut bytes = [0; 8];
        self.exactly(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads a string of at most `limit` bytes; the length is looked at before anything is allocated.
    fn string(&mut self, what: &'static str, limit: usize) -> Result<Vec<u8>, NarReadError> {
        let length = self.number()?;
        match usize::try_from(length) {
            Ok(size) if size <= limit => {
                let mut bytes = vec![0; size];
                self.exactly(&mut bytes)?;
                self.padding(length)?;
                Ok(bytes)
            }
            Ok(_) | Err(_) => Err(NarReadError::TooLong { offset: self.offset, what, length, limit }),
        }
    }

    fn padding(&mut self, length: u64) -> Result<(), NarReadError> {
        let mut zeros = [0; 8];
        let count = ((8 - length % 8) % 8) as usize;
        self.exactly(&mut zeros[..count])?;
        if zeros == [0; 8] { Ok(()) } else { Err(NarReadError::Padding { offset: self.offset }) }
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), NarReadError> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(NarReadError::Truncated { offset: self.offset })
            }
            Err(error) => Err(NarReadError::Input(error)),
        }
    }
}

#[cfg(test)]
mod tests;
