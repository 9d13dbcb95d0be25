//! Canonical form: owner, extended attributes, mode and time as every store object has them.

use super::{InspectError, system};
use rustix::{
    fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid},
    io::Errno,
};
use std::{ffi::CStr, os::fd::BorrowedFd, path::Path};

/// Extended attributes that stay, as in Nix: they belong to the system and not to the output.
const KEPT_ATTRIBUTES: [&[u8]; 3] = [b"security.csm", b"security.selinux", b"system.nfs4_acl"];

/// Every time stamp in a store.
const CANONICAL_TIME: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Gives a file or directory its canonical owner, no attributes, and this mode, in this order: changing the owner clears bits of the
/// mode.
pub(super) fn close(
    builder: Option<u32>,
    file: BorrowedFd<'_>,
    status: &Stat,
    mode: u32,
    path: &Path,
) -> Result<(), InspectError> {
    if builder == Some(status.st_uid) {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        rustix::fs::fchown(file, Some(user), Some(group))
            .map_err(|error| system("change the owner of", path, error))?;
    }
    remove_attributes(file, path)?;
    if status.st_mode & 0o7777 != mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
            .map_err(|error| system("change the mode of", path, error))?;
    }
    Ok(())
}

/// Lets others read a directory.
pub(super) fn open_up(directory: BorrowedFd<'_>, path: &Path) -> Result<(), InspectError> {
    rustix::fs::fchmod(directory, Mode::from_raw_mode(0o555)).map_err(|error| system("change the mode of", path, error))
}

/// Sets the canonical time. Last: everything else changes it.
pub(super) fn stamp(file: BorrowedFd<'_>, path: &Path) -> Result<(), InspectError> {
    rustix::fs::futimens(file, &Timestamps { last_access: CANONICAL_TIME, last_modification: CANONICAL_TIME })
        .map_err(|error| system("change the time of", path, error))
}

/// The same for a symbolic link, which has neither mode nor attributes.
pub(super) fn seal_link(
    builder: Option<u32>,
    parent: BorrowedFd<'_>,
    name: &CStr,
    path: &Path,
) -> Result<(), InspectError> {
    if builder.is_some() {
        let (user, group): (Uid, Gid) = (rustix::process::geteuid(), rustix::process::getegid());
        rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| system("change the owner of", path, error))?;
    }
    let times = Timestamps { last_access: CANONICAL_TIME, last_modification: CANONICAL_TIME };
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| system("change the time of", path, error))
}

fn remove_attributes(file: BorrowedFd<'_>, path: &Path) -> Result<(), InspectError> {
    let mut names = [0u8; 1024];
    loop {
        let length = match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
            Ok(length) => length,
            // More names than any builder has a use for: take them a bufferful at a time is not possible, so say it.
            Err(error) => return Err(system("list the extended attributes of", path, error)),
        };
        let mut removed = false;
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if KEPT_ATTRIBUTES.contains(&name) {
                continue;
            }
            match rustix::fs::fremovexattr(file, name) {
                Ok(()) => removed = true,
                Err(Errno::NODATA) => {}
                Err(error) => return Err(system("remove an extended attribute of", path, error)),
            }
        }
        if !removed {
            return Ok(());
        }
    }
}
