//! Unpacks a tar archive beneath an open, empty directory that nobody else changes.
//!
//! Everything is reached by single names from there, never through a link, and created anew (`O_EXCL`, `O_NOFOLLOW`). What the
//! archive calls a hard link becomes a copy: the objects of a store know no others, and `link(2)` reaches what we do not hold.

use crate::{
    directory::{Directory, file_type},
    error::{At, StoreError},
};
use fodder_model::{
    bytes::ByteString,
    tar::{Components, Member, MemberKind, Reader, TarError},
};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::Path,
};

/// Size of a piece of a file on its way to the disk.
const CHUNK_SIZE: usize = 128 * 1024;

/// Unpacks the archive that is all of `input`: modes 0755, or 0644 for files that nobody may execute. What a failure leaves is the
/// caller's to remove. `shown` is the directory's name for messages.
pub fn unpack_tar(input: impl Read, directory: BorrowedFd<'_>, shown: &Path) -> Result<(), StoreError> {
    let descriptor = directory.try_clone_to_owned().at("open", shown)?;
    let root = Directory::from_descriptor(descriptor, shown.to_owned());
    let mut reader = Reader::new(input);
    let mut chunk = vec![0; CHUNK_SIZE];
    let damaged = |source: TarError| StoreError::Untar { path: shown.to_owned(), source };
    while let Some(Member { path, kind }) = reader.next_member().map_err(damaged)? {
        let Some((name, above)) = path.split_last() else { continue };
        let parent = make_directories(&root, above)?;
        let parent = parent.as_ref().unwrap_or(&root);
        let name = OsStr::from_bytes(name);
        match kind {
            MemberKind::Directory => drop(make_directory(parent, name)?),
            MemberKind::Symlink { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, name)
                    .at("create the link", parent.child(name))?;
            }
            MemberKind::File { executable, size: _ } => {
                let mut file = create(parent, name, executable)?;
                loop {
                    match reader.contents(&mut chunk).map_err(damaged)? {
                        0 => break,
                        count => file.write_all(&chunk[..count]).at("write to", parent.child(name))?,
                    }
                }
            }
            MemberKind::HardLink { target } => {
                let (mut source, executable, size) = open_member(&root, &target)?;
                reader.count(size).map_err(damaged)?;
                let mut file = create(parent, name, executable)?;
                std::io::copy(&mut source, &mut file).at("write to", parent.child(name))?;
            }
        }
    }
    Ok(())
}

/// The directory at the end of a way, made where it is missing; `None` for the root itself.
fn make_directories(root: &Directory, way: &[ByteString]) -> Result<Option<Directory>, StoreError> {
    let mut directory: Option<Directory> = None;
    for name in way {
        directory = Some(make_directory(directory.as_ref().unwrap_or(root), OsStr::from_bytes(name))?);
    }
    Ok(directory)
}

fn make_directory(parent: &Directory, name: &OsStr) -> Result<Directory, StoreError> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        // One of the archive's own; anything else is refused when it is opened, a link to a directory too.
        Ok(()) | Err(Errno::EXIST) => parent.open(name),
        Err(error) => Err(error).at("create the directory", parent.child(name)),
    }
}

fn create(parent: &Directory, name: &OsStr, executable: bool) -> Result<File, StoreError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mode = if executable { 0o755 } else { 0o644 };
    Ok(File::from(parent.open_file(name, flags, mode).at("create", parent.child(name))?))
}

/// A file that the archive has brought.
fn open_member(root: &Directory, path: &Components) -> Result<(File, bool, u64), StoreError> {
    let Some((name, above)) = path.split_last() else {
        return Err(StoreError::NotAFile { path: root.path().to_owned() });
    };
    let mut directory: Option<Directory> = None;
    for name in above {
        directory = Some(directory.as_ref().unwrap_or(root).open(OsStr::from_bytes(name))?);
    }
    let parent = directory.as_ref().unwrap_or(root);
    let name = OsStr::from_bytes(name);
    let path = parent.child(name);
    let file = match parent.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK, 0) {
        Err(Errno::LOOP) => return Err(StoreError::NotAFile { path }),
        file => file.at("open", &path)?,
    };
    let status = rustix::fs::fstat(&file).at("examine", &path)?;
    match file_type(&status) {
        FileType::RegularFile => {
            Ok((file.into(), status.st_mode & 0o100 != 0, u64::try_from(status.st_size).unwrap_or(0)))
        }
        FileType::Directory
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(StoreError::NotAFile { path }),
    }
}

#[cfg(test)]
mod tests;
