//! Whether somebody can still change a file that a builder has left.

use crate::sys;
use rustix::{fs::fstatfs, io::Errno};
use std::os::fd::BorrowedFd;

/// Who can write to an open file, beside those who may open it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody, and nobody will be able to for as long as the descriptor that was asked about is open.
    None,
    /// Somebody: by a descriptor, wherever it is (even on its way in a message), or by a mapping.
    Some,
    /// The file system does not tell.
    Unknown,
}

/// `NFS_SUPER_MAGIC` of statfs(2). Its leases need a delegation by the server, without which it says the same as for a writer
/// (`nfs4_setlease`).
const NFS: i64 = 0x6969;

/// Finds out who can write to a regular file of ours, and keeps everybody from it until `file` is closed. A read lease is granted
/// only for a file that nobody has open for writing: descriptors, mappings, descriptors in flight and files registered with
/// io_uring all count (security notes, section 2f). Does not see descriptors that only name the file (`O_PATH`).
pub fn hold_off_writers(file: BorrowedFd<'_>) -> Writers {
    let Err(error) = sys::lease_for_reading(file) else { return Writers::None };
    let is_network = fstatfs(file).map_or(true, |status| status.f_type == NFS);
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN) if !is_network => Writers::Some,
        Some(_) | None => Writers::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsFd};

    #[test]
    fn a_writer_is_seen_and_one_to_come_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(hold_off_writers(reader.as_fd()), Writers::Some);
        drop(writer);
        assert_eq!(hold_off_writers(reader.as_fd()), Writers::None);
        let open = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        let late = || rustix::fs::open(&path, open, rustix::fs::Mode::empty());
        assert_eq!(late().map(drop), Err(Errno::AGAIN));
        drop(reader);
        assert_eq!(late().map(drop), Ok(()));
    }

    #[test]
    fn what_has_no_leases_does_not_tell() {
        let (pipe, _writer) = nix::unistd::pipe().unwrap();
        assert_eq!(hold_off_writers(pipe.as_fd()), Writers::Unknown);
    }
}
