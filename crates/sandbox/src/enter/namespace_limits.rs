//! The limits that a user namespace sets for itself: no namespace can be made in it any more, and nothing can be watched through
//! fanotify. See namespaces(7), "The /proc/sys/user directory".

use super::mounts::new_file_system;
use crate::wire::{Doing, Failure};
use fodder_model::sandbox::Weakening;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};
use rustix::mount::MountAttrFlags;
use std::{collections::BTreeSet, fs::File, io::Write, os::fd::OwnedFd};

/// In this order: `mnt` last, since mounts that are not attached anywhere count as namespaces.
const NAMESPACES: [&str; 8] = ["user", "pid", "ipc", "uts", "net", "cgroup", "time", "mnt"];

/// What a build has no use for; those of inotify are among the plan's limits.
const FANOTIFY: [(&str, &str); 2] = [("max_fanotify_groups", "0"), ("max_fanotify_marks", "0")];

/// `/proc/sys/user`, opened while a procfs can still be made: in a container the one of the host may be read-only, and later
/// there is nothing to see any more.
pub(super) struct NamespaceLimits {
    directory: OwnedFd,
}

impl NamespaceLimits {
    pub(super) fn open() -> Result<Self, Failure> {
        let procfs = new_file_system("proc", &[], MountAttrFlags::MOUNT_ATTR_NOSUID)
            .doing("making a procfs to set limits through")?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(&procfs, "sys/user", flags, Mode::empty()).doing("opening /proc/sys/user")?;
        Ok(NamespaceLimits { directory })
    }

    /// Must come after the last mount and before capabilities are given up: it takes one to lower a limit, and to raise it again.
    pub(super) fn apply(&self, allowed: &BTreeSet<Weakening>) -> Result<(), Failure> {
        if !allowed.contains(&Weakening::NestedNamespaces) {
            for kind in NAMESPACES {
                let name = format!("max_{kind}_namespaces");
                self.write(&name, "0").doing(format!("setting user.{name}"))?;
            }
        }
        for (name, limit) in FANOTIFY {
            match self.write(name, limit) {
                // A kernel without them needs no limit.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).doing(format!("setting user.{name}")),
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Errno> {
        let file = openat(&self.directory, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        File::from(file).write_all(value.as_bytes()).map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
    }
}
