//! Mounts as descriptors: made detached, given their attributes, and only then attached, so that no mount is ever
//! visible with fewer restrictions than it is to have. Needs Linux 5.12 (mount_setattr(2)).

use crate::{
    steps::{LeftOut, SetupStep},
    sys,
};
use fodder_model::sandbox::{Access, BindKind};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};
use std::{io, os::fd::OwnedFd};

/// A new file system of a type that user namespaces may mount.
pub(super) fn new_file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(&context, *name, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Fresh storage: no set-id, no device nodes.
pub(super) fn storage_attributes() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
}

/// A detached copy of the mount at `source`, restricted as asked.
pub(super) fn copy(source: &OwnedFd, kind: BindKind, access: Access, left_out: LeftOut<'_>) -> io::Result<OwnedFd> {
    let recursive = match kind {
        // Not optional: the kernel refuses a copy that would uncover what an inherited mount covers
        // (has_locked_children in fs/namespace.c).
        BindKind::Directory => true,
        BindKind::File | BindKind::Device => false,
    };
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(source, "", flags)?;
    let mut attributes = MountAttrFlags::empty();
    if left_out.keeps(SetupStep::MountAttributes) {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
        attributes |= match kind {
            BindKind::Directory | BindKind::File => MountAttrFlags::MOUNT_ATTR_NODEV,
            BindKind::Device => MountAttrFlags::MOUNT_ATTR_NOEXEC,
        };
    }
    match access {
        Access::ReadOnly if !left_out.keeps(SetupStep::ReadOnlyMounts) => {}
        Access::ReadOnly => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
        Access::ReadWrite => {}
    }
    sys::mount_setattr(&tree, attributes.bits().into(), recursive)?;
    Ok(tree)
}

/// Shows a detached mount at an opened place.
pub(super) fn attach(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Makes one attached mount read-only, not what is mounted below it.
pub(super) fn make_read_only(mount: &OwnedFd) -> io::Result<()> {
    sys::mount_setattr(mount, MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), false)
}
