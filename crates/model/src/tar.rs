//! Reading a tar archive from hostile bytes: member by member, iterative, in memory that no number in the archive decides.
//!
//! Written here rather than taken from a library, because every library is generous where generosity was the hole: sizes that two
//! headers give differently (CVE-2025-62518), extensions that are skipped when they are malformed (RUSTSEC-2026-0112), names that
//! lead out of the archive (CVE-2026-44029). Whatever two programs could read differently is an error here.
//!
//! The format is that of POSIX (`ustar` and `pax`, in pax(1)) and GNU's long names; blocks of 512 bytes, a header for each member.

mod extension;
mod header;

use crate::{
    bytes::ByteString,
    nar::{DEPTH_LIMIT, NAME_LENGTH_LIMIT, TARGET_LENGTH_LIMIT},
};
use extension::Extensions;
use header::{Header, Kind};
use std::io::{self, Read};

/// Size of a header, and what contents are filled up to.
pub(crate) const BLOCK: usize = 512;

/// Most members. All of nixpkgs has fifty thousand.
pub const MEMBER_LIMIT: u64 = 1 << 20;

/// Most bytes of contents, all members together: 64 GiB, a hundred times the largest sources that are packed like this.
pub const CONTENTS_LIMIT: u64 = 64 << 30;

/// Largest extension header (long names, pax records), in bytes. They hold two paths and some numbers.
pub const EXTENSION_LIMIT: u64 = 1 << 20;

/// Why bytes are not a tar archive that can be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// A header is wrong.
    #[error("bad tar archive at byte {offset}: {problem}")]
    Header {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A member that is none of files, directories and links.
    #[error("bad tar archive: '{path}' is {what}, which is not unpacked")]
    Type {
        /// Its name.
        path: ByteString,
        /// What it is.
        what: &'static str,
    },
    /// A name that leads elsewhere, or that no file can have.
    #[error("bad tar archive: '{path}' {problem}")]
    Path {
        /// The name.
        path: ByteString,
        /// Why not.
        problem: &'static str,
    },
    /// It ends too early.
    #[error("bad tar archive: it ends after {offset} bytes, in the middle")]
    Truncated {
        /// Bytes that there were.
        offset: u64,
    },
    /// Something follows the end mark.
    #[error("bad tar archive: it goes on after its end mark at byte {offset}")]
    Trailing {
        /// Where the end mark is.
        offset: u64,
    },
    /// More than anybody packs.
    #[error("bad tar archive: more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
    /// A call at a place where it makes no sense: a mistake of the calling program.
    #[error("{what} while reading a tar archive")]
    Misused {
        /// What was asked for.
        what: &'static str,
    },
    /// The bytes could not be read.
    #[error("cannot read the archive")]
    Input(#[source] io::Error),
}

/// The components of a name, none of which is `.` or `..`.
pub type Components = Vec<ByteString>;

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it goes; empty for the directory that everything is unpacked to.
    pub path: Components,
    /// What it is.
    pub kind: MemberKind,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A directory; it may have been there.
    Directory,
    /// A file; its contents are to be taken with [`Reader::contents`].
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Bytes that follow. A claim of the input: allocate nothing by it.
        size: u64,
    },
    /// A symbolic link to anything.
    Symlink {
        /// Where to.
        target: ByteString,
    },
    /// Another name for a file of the archive.
    HardLink {
        /// The file.
        target: Components,
    },
}

/// Reads one archive.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    offset: u64,
    /// Of the member that was read last.
    remaining: u64,
    padding: u64,
    members: u64,
    contents: u64,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from the beginning of an archive.
    pub fn new(input: R) -> Self {
        Reader { input, offset: 0, remaining: 0, padding: 0, members: 0, contents: 0, is_over: false }
    }

    /// The next member; `None` when the archive is over and nothing follows. Contents of a file must have been taken.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        if self.is_over {
            return Ok(None);
        }
        if self.remaining > 0 {
            return Err(TarError::Misused { what: "a file's contents were not taken" });
        }
        let mut extensions = Extensions::default();
        loop {
            self.pad()?;
            let at = self.offset;
            let mut block = [0; BLOCK];
            self.exactly(&mut block)?;
            if block == [0; BLOCK] {
                extensions.none_is_left(at)?;
                self.is_over = true;
                return self.nothing_follows(at).map(|()| None);
            }
            let header = Header::read(&block).map_err(|problem| TarError::Header { offset: at, problem })?;
            self.members += 1;
            if self.members > MEMBER_LIMIT {
                return Err(TarError::TooMuch { what: "members", limit: MEMBER_LIMIT });
            }
            self.padding = header.size.next_multiple_of(BLOCK as u64) - header.size;
            match header.kind {
                Kind::Extension(extension) => {
                    if header.size > EXTENSION_LIMIT {
                        return Err(TarError::TooMuch { what: "bytes of an extension", limit: EXTENSION_LIMIT });
                    }
                    // Grows with what is there, not with what is claimed.
                    let mut text = Vec::new();
                    let read = (&mut self.input).take(header.size).read_to_end(&mut text).map_err(TarError::Input)?;
                    self.offset += read as u64;
                    if read as u64 != header.size {
                        return Err(TarError::Truncated { offset: self.offset });
                    }
                    extensions.add(extension, &text).map_err(|problem| TarError::Header { offset: at, problem })?;
                }
                Kind::Directory | Kind::File { .. } | Kind::Symlink | Kind::HardLink | Kind::Unsupported(_) => {
                    return self.member(header, extensions, at).map(Some);
                }
            }
        }
    }

    fn member(&mut self, header: Header, extensions: Extensions, at: u64) -> Result<Member, TarError> {
        let Extensions { path, target, size, .. } = extensions;
        let wrong = |problem| Err(TarError::Header { offset: at, problem });
        if size.is_some_and(|size| size != header.size) {
            return wrong("an extension gives another size than the header");
        }
        let path = path.unwrap_or(header.path);
        let target = target.unwrap_or(header.target);
        let kind = match header.kind {
            Kind::Unsupported(what) => return Err(TarError::Type { path: path.into(), what }),
            // Before there was a type for directories.
            Kind::File { .. } if path.ends_with(b"/") && header.size == 0 => MemberKind::Directory,
            Kind::File { executable } => MemberKind::File { executable, size: header.size },
            Kind::Directory | Kind::Symlink | Kind::HardLink | Kind::Extension(_) if header.size != 0 => {
                return wrong("a directory or a link has contents");
            }
            Kind::Symlink => {
                if target.is_empty() || target.len() > TARGET_LENGTH_LIMIT || target.contains(&0) {
                    return wrong("a symbolic link has a target that no link can have");
                }
                MemberKind::Symlink { target: target.into() }
            }
            Kind::HardLink => MemberKind::HardLink { target: components(&target)? },
            Kind::Directory | Kind::Extension(_) => MemberKind::Directory,
        };
        let components = components(&path)?;
        if components.is_empty() && kind != MemberKind::Directory {
            return Err(TarError::Path { path: path.into(), problem: "names no file" });
        }
        if let MemberKind::File { executable: _, size } = kind {
            self.count(size)?;
            self.remaining = size;
        }
        Ok(Member { path: components, kind })
    }

    /// Counts bytes that are about to be written, here or for a link that becomes a copy.
    pub fn count(&mut self, size: u64) -> Result<(), TarError> {
        self.contents = self.contents.saturating_add(size);
        match self.contents <= CONTENTS_LIMIT {
            true => Ok(()),
            false => Err(TarError::TooMuch { what: "bytes of contents", limit: CONTENTS_LIMIT }),
        }
    }

    /// Takes contents of the file that began; 0 at its end, and only there unless `buffer` is empty.
    pub fn contents(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let limit = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(0);
        }
        let count = self.some(&mut buffer[..limit])?;
        if count == 0 {
            return Err(TarError::Truncated { offset: self.offset });
        }
        self.remaining -= count as u64;
        Ok(count)
    }

    /// Behind the end mark there is nothing but zeros: another archive there would be seen by some and not by others.
    fn nothing_follows(&mut self, at: u64) -> Result<(), TarError> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.some(&mut buffer)? {
                0 => return Ok(()),
                count if buffer[..count].iter().all(|byte| *byte == 0) => {}
                _ => return Err(TarError::Trailing { offset: at }),
            }
        }
    }

    fn pad(&mut self) -> Result<(), TarError> {
        let mut block = [0; BLOCK];
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(0);
        // What is in it is nobody's business: some programs write what was in their memory.
        self.exactly(&mut block[..padding])
    }

    fn some(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        loop {
            match self.input.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Input(error)),
            }
        }
    }

    fn exactly(&mut self, mut buffer: &mut [u8]) -> Result<(), TarError> {
        while !buffer.is_empty() {
            match self.some(buffer)? {
                0 => return Err(TarError::Truncated { offset: self.offset }),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }
}

/// The components of a name, which must lead down.
fn components(path: &[u8]) -> Result<Components, TarError> {
    let wrong = |problem| Err(TarError::Path { path: path.into(), problem });
    if path.starts_with(b"/") {
        return wrong("is absolute");
    }
    if path.contains(&0) {
        return wrong("has a NUL byte");
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return wrong("leads out of the archive"),
            component if component.len() > NAME_LENGTH_LIMIT => return wrong("has a component that is too long"),
            component => components.push(ByteString::from(component)),
        }
        if components.len() >= DEPTH_LIMIT {
            return wrong("is too deep");
        }
    }
    Ok(components)
}

#[cfg(test)]
mod tests;
