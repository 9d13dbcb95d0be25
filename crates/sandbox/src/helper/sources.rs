//! What the root is made from, opened at the one moment when it can be.
//!
//! After the mount namespace is new, because open_tree(2) takes only mounts of the caller's own namespace; before the
//! ids change, because a runner that is root may keep its sources below directories that only root may search.

use crate::wire::{Doing, Failure, errno_of};
use fodder_model::{
    bytes::ByteString,
    sandbox::{BindKind, RootStep, SandboxPlan},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, fstat},
};
use std::{collections::BTreeMap, io, os::fd::OwnedFd};

/// Descriptors without access rights (`O_PATH`), by the step that uses them.
pub(crate) struct Sources {
    /// Where the new root is mounted.
    pub(crate) root_mount_point: OwnedFd,
    /// The source of each bind, by the index of its step.
    pub(crate) binds: BTreeMap<usize, OwnedFd>,
}

impl Sources {
    pub(super) fn open(plan: &SandboxPlan) -> Result<Self, Failure> {
        // Or our mounts would appear on the host, where "/" is usually shared (mount_namespaces(7)).
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
            .doing("making mounts private")?;
        let mut binds = BTreeMap::new();
        for (index, step) in plan.root.iter().enumerate() {
            if let RootStep::Bind { source, target: _, kind, access: _ } = step {
                let opened = open_source(source, *kind).map_err(|error| Failure::Step {
                    index,
                    doing: format!("opening its source as a {}", kind_name(*kind)),
                    errno: errno_of(&error),
                })?;
                binds.insert(index, opened);
            }
        }
        let root_mount_point = open_source(&plan.root_mount_point, BindKind::Directory)
            .doing(format!("opening the mount point of the root, {}", plan.root_mount_point))?;
        Ok(Sources { root_mount_point, binds })
    }
}

/// Opens a path without following a symbolic link at its end, and makes sure of what it is by the descriptor, not by
/// the path, which could be exchanged in between.
fn open_source(path: &ByteString, kind: BindKind) -> io::Result<OwnedFd> {
    let source = open(path.as_path(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = SFlag::from_bits_truncate(fstat(&source)?.st_mode) & SFlag::S_IFMT;
    let (wanted, otherwise) = match kind {
        BindKind::Directory => (SFlag::S_IFDIR, Errno::ENOTDIR),
        BindKind::File => (SFlag::S_IFREG, Errno::EINVAL),
        BindKind::Device => (SFlag::S_IFCHR, Errno::ENODEV),
    };
    match found {
        _ if found == wanted => Ok(source),
        SFlag::S_IFLNK => Err(Errno::ELOOP.into()),
        SFlag::S_IFDIR => Err(Errno::EISDIR.into()),
        _ => Err(otherwise.into()),
    }
}

fn kind_name(kind: BindKind) -> &'static str {
    match kind {
        BindKind::Directory => "directory",
        BindKind::File => "regular file",
        BindKind::Device => "character device",
    }
}
