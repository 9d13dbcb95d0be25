//! For file systems that do not tell whether a file has writers: a copy has none.

use super::{InspectError, error_of, system};
use rustix::fs::{Mode, OFlags};
use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Puts a copy of a file in its place, and opens that. Its directory is closed to others.
pub(super) fn replace_by_copy(
    parent: BorrowedFd<'_>,
    name: &CStr,
    mut file: File,
    mode: u32,
    path: &Path,
) -> Result<File, InspectError> {
    let copy_name = fodder_store::random_name()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy: OwnedFd = rustix::fs::openat(parent, &*copy_name, flags, Mode::RUSR)
        .map_err(|error| system("make a copy of", path, error))?;
    let mut copy = File::from(copy);
    io::copy(&mut file, &mut copy).map_err(|error| error_of("copy", path, error))?;
    rustix::fs::fchmod(copy.as_fd(), Mode::from_raw_mode(mode))
        .map_err(|error| system("change the mode of", path, error))?;
    rustix::fs::renameat(parent, &*copy_name, parent, name).map_err(|error| system("replace", path, error))?;
    io::Seek::rewind(&mut copy).map_err(|error| error_of("read", path, error))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::{Read, Write},
        os::unix::fs::MetadataExt,
    };

    #[test]
    fn a_copy_is_out_of_the_writers_reach() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"good").unwrap();
        let parent = File::open(directory.path()).unwrap();
        let mut copy = replace_by_copy(parent.as_fd(), c"file", File::open(&path).unwrap(), 0o444, &path).unwrap();
        writer.write_all(b" and evil").unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), fs::read_to_string(&path).unwrap().as_str()), ("good", "good"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
