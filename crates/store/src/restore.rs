//! Unpacks a NAR beneath an open directory, in canonical form, hashing and counting what was read.
//!
//! The archive comes from anywhere. Everything is created anew, by single names relative to directories that we created
//! ourselves (`O_EXCL`, `O_NOFOLLOW`), so no entry can be written through a link that an earlier entry made. No length in the
//! archive decides how much memory is used.

use crate::{
    directory::Directory,
    error::{At, StoreError},
    tree::{create_directory, seal},
};
use fodder_model::{
    hash::{Hash, HashAlgorithm, Hasher},
    nar::{NarEvent, NarReadError, Reader},
};
use rustix::fs::OFlags;
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::Path,
};

/// Largest archive of which nobody said how large it is, in bytes: a tebibyte. Nothing that is imported comes near it; it is there for
/// streams without an end.
pub(crate) const SIZE_LIMIT: u64 = 1 << 40;

/// Size of a piece of a file on its way to the disk.
const CHUNK_SIZE: usize = 128 * 1024;

/// Hashes and counts what passes, and lets no more pass than was promised.
struct Measured<R> {
    input: R,
    hasher: Hasher,
    size: u64,
    limit: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        // What was promised is all that may be written: a few compressed bytes can become terabytes.
        if self.size > self.limit { Err(io::Error::other(OverLimit)) } else { Ok(count) }
    }
}

/// The archive is larger than was promised.
#[derive(Debug, thiserror::Error)]
#[error("the archive is larger than the size that was given for it")]
pub(crate) struct OverLimit;

/// Unpacks the archive that `input` is at to `name` in `parent`, where nothing may be: modes 0444, or 0555 for directories and
/// executable files; modification time 1. Returns the archive's SHA-256 and size.
///
/// Reads to the archive's last byte and no further: whether something may follow is the caller's affair. The input is read in
/// small pieces, so it should be buffered. What a failure leaves at `name` is the caller's to remove.
pub fn restore(input: impl Read, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(Hash, u64), StoreError> {
    let shown = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&parent)));
    let descriptor = parent.try_clone_to_owned().at("open", Path::new(name))?;
    let parent = Directory::from_descriptor(descriptor, shown.unwrap_or_default());
    restore_in(input, &parent, name, SIZE_LIMIT)
}

/// As [`restore`], for an archive of at most `limit` bytes.
pub(crate) fn restore_in(
    input: impl Read,
    parent: &Directory,
    name: &OsStr,
    limit: u64,
) -> Result<(Hash, u64), StoreError> {
    let measured = Measured { input, hasher: Hasher::new(HashAlgorithm::Sha256), size: 0, limit };
    let mut reader = Reader::new(measured);
    let mut chunk = vec![0; CHUNK_SIZE];
    let mut open: Vec<Directory> = Vec::new();
    let mut entry = name.to_owned();
    loop {
        let damaged = |directory: &Directory, entry: &OsStr, source: NarReadError| StoreError::Unpack {
            path: directory.child(entry),
            source,
        };
        let directory = open.last().unwrap_or(parent);
        let event = reader.next_event().map_err(|source| damaged(directory, &entry, source))?;
        match event {
            Some(NarEvent::Entry(name)) => entry = OsStr::from_bytes(&name).to_owned(),
            Some(NarEvent::Directory) => {
                let created = create_directory(directory, &entry)?;
                open.push(created);
            }
            Some(NarEvent::EndDirectory) => {
                if let Some(finished) = open.pop() {
                    seal(&finished, 0o555, finished.path())?;
                }
            }
            Some(NarEvent::Symlink(target)) => {
                let path = directory.child(&entry);
                rustix::fs::symlinkat(OsStr::from_bytes(&target), directory, &entry).at("create the link", path)?;
                directory.set_canonical_time(&entry)?;
            }
            Some(NarEvent::File { executable, size: _ }) => {
                let path = directory.child(&entry);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let mut file = File::from(directory.open_file(&entry, flags, 0o600).at("create", &path)?);
                loop {
                    match reader.contents(&mut chunk).map_err(|source| damaged(directory, &entry, source))? {
                        0 => break,
                        count => file.write_all(&chunk[..count]).at("write to", &path)?,
                    }
                }
                seal(&file, if executable { 0o555 } else { 0o444 }, &path)?;
            }
            None => break,
        }
    }
    let (measured, _) = reader.into_input();
    Ok((measured.hasher.finish(), measured.size))
}

#[cfg(test)]
mod tests;
