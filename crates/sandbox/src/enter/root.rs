//! The interpreter of the root's steps. It asks the host nothing: whatever a step needs is in the step or was opened
//! for it before.

use super::{
    inside::{Inside, Place},
    mounts::{attach, copy, make_read_only, new_file_system, storage_attributes},
};
use crate::{
    helper::Sources,
    steps::{LeftOut, SetupStep},
    wire::{Doing, Failure, errno_of},
};
use fodder_model::sandbox::{BindKind, RootStep};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    unistd::{fchdir, pivot_root},
};
use rustix::{
    fs::{Mode, OFlags, fchmod, fstat, mkdirat, openat, symlinkat},
    mount::MountAttrFlags,
};
use std::{ffi::OsStr, fs::File, io, io::Write, os::fd::OwnedFd, os::unix::ffi::OsStrExt};

/// Room for directories and symbolic links beside the files of the plan.
const ROOT_BYTES_TO_SPARE: usize = 4 << 20;

/// Pseudo-terminals of one build. All that are not the host's own share 3072 on the whole machine (`kernel.pty`), those of other builds
/// and of containers among them.
const MOST_TERMINALS: &str = "256";

/// Directories made on the way to a mount point.
const MOUNT_POINT_MODE: u32 = 0o755;

/// Builds the root on a fresh tmpfs and makes it the working directory. Must run with umask 0.
pub(super) fn build(steps: &[RootStep], sources: Sources, left_out: LeftOut<'_>) -> Result<(), Failure> {
    let Sources { root_mount_point, mut binds } = sources;
    let size = root_size_bytes(steps).to_string();
    let options = [("mode", "0755"), ("size", &size)];
    let root = new_file_system("tmpfs", &options, storage_attributes()).doing("making the root's tmpfs")?;
    attach(&root, &root_mount_point).doing("mounting the root")?;

    let mut builder =
        Builder { own_devices: vec![device_of(&root).doing("examining the root")?], inside: Inside { root }, left_out };
    for (index, step) in steps.iter().enumerate() {
        builder.carry_out(step, binds.remove(&index)).map_err(|(doing, error)| Failure::Step {
            index,
            doing: doing.into(),
            errno: errno_of(&error),
        })?;
    }
    fchdir(&builder.inside.root).doing("entering the root")
}

/// Makes the working directory the root and lets the old one go.
pub(super) fn pivot(left_out: LeftOut<'_>) -> Result<(), Failure> {
    // The old root lands on top of the new one, from where it is taken away at once: pivot_root(2), "pivot_root(".", ".")".
    pivot_root(".", ".").doing("exchanging the root")?;
    left_out
        .step(SetupStep::DetachOldRoot, || umount2(".", MntFlags::MNT_DETACH).doing("letting go of the host's root"))
}

/// The root must not be a way around the limits on what a builder may write, nor too small for the plan's own files,
/// which take whole pages of up to 64 KiB.
fn root_size_bytes(steps: &[RootStep]) -> usize {
    let size = |step: &RootStep| match step {
        RootStep::File { path: _, mode: _, content } => content.len() + (64 << 10),
        RootStep::Directory { .. }
        | RootStep::Symlink { .. }
        | RootStep::Bind { .. }
        | RootStep::Tmpfs { .. }
        | RootStep::Proc { .. }
        | RootStep::Pts { .. }
        | RootStep::Mode { .. }
        | RootStep::ReadOnly { .. } => 0,
    };
    ROOT_BYTES_TO_SPARE + steps.iter().map(size).sum::<usize>()
}

struct Builder<'a> {
    inside: Inside,
    /// Device numbers of the file systems made here, as opposed to the host's that are bound.
    own_devices: Vec<u64>,
    left_out: LeftOut<'a>,
}

type Outcome = Result<(), (&'static str, io::Error)>;

impl Builder<'_> {
    fn carry_out(&mut self, step: &RootStep, source: Option<OwnedFd>) -> Outcome {
        match step {
            RootStep::Directory { path, mode } => self.directory(path, *mode).map_err(because("making it")),
            RootStep::File { path, mode, content } => self.file(path, *mode, content).map_err(because("writing it")),
            RootStep::Symlink { path, target } => self.symlink(path, target).map_err(because("making it")),
            RootStep::Bind { source: _, target, kind, access } => {
                let source = source.ok_or(("finding its source", Errno::EBADF.into()))?;
                let mount = copy(&source, *kind, *access, self.left_out).map_err(because("copying its mount"))?;
                self.attach_at(target, mount, *kind)
            }
            RootStep::Tmpfs { path, mode, size } => {
                let mode = format!("{mode:o}");
                let mount = new_file_system("tmpfs", &[("mode", &mode), ("size", size)], storage_attributes())
                    .map_err(because("making the file system"))?;
                self.own_devices.push(device_of(&mount).map_err(because("examining it"))?);
                self.attach_at(path, mount, BindKind::Directory)
            }
            RootStep::Proc { path } => {
                let attributes = storage_attributes() | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                let mount = new_file_system("proc", &[], attributes).map_err(because("making the file system"))?;
                self.attach_at(path, mount, BindKind::Directory)
            }
            RootStep::Pts { path } => {
                // Every mount of devpts is an instance of its own since Linux 4.7; nodev would make its nodes useless.
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                let options = [("ptmxmode", "0666"), ("mode", "0620"), ("max", MOST_TERMINALS)];
                let mount =
                    new_file_system("devpts", &options, attributes).map_err(because("making the file system"))?;
                self.attach_at(path, mount, BindKind::Directory)
            }
            RootStep::Mode { path, mode } => self.mode(path, *mode).map_err(because("changing it")),
            RootStep::ReadOnly { path: _ } if !self.left_out.keeps(SetupStep::ReadOnlyMounts) => Ok(()),
            RootStep::ReadOnly { path } => {
                let mount = self.inside.open(path, OFlags::PATH).map_err(because("opening it"))?;
                make_read_only(&mount).map_err(because("changing its mount"))
            }
        }
    }

    fn directory(&self, path: &[u8], mode: u32) -> io::Result<()> {
        let Place { parent, name } = self.inside.place(path)?;
        mkdirat(&parent, name, Mode::from_raw_mode(mode))?;
        // mkdir(2) leaves out set-group-id, and a default ACL or umask could take more.
        let directory = self.inside.open(path, OFlags::DIRECTORY)?;
        Ok(fchmod(&directory, Mode::from_raw_mode(mode))?)
    }

    fn file(&self, path: &[u8], mode: u32, content: &[u8]) -> io::Result<()> {
        let mut file = File::from(create(&self.inside.place(path)?)?);
        file.write_all(content)?;
        Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    fn symlink(&self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let Place { parent, name } = self.inside.place(path)?;
        Ok(symlinkat(OsStr::from_bytes(target), &parent, name)?)
    }

    fn mode(&self, path: &[u8], mode: u32) -> io::Result<()> {
        let file = self.inside.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        // A bind would carry the change to the host.
        if !self.own_devices.contains(&device_of(&file)?) {
            return Err(Errno::EXDEV.into());
        }
        Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    fn attach_at(&self, target: &[u8], mount: OwnedFd, kind: BindKind) -> Outcome {
        let point = match self.inside.open(target, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.mount_point(target, kind).map_err(because("making its mount point"))?
            }
            opened => opened.map_err(because("opening its mount point"))?,
        };
        attach(&mount, &point).map_err(because("mounting it"))
    }

    fn mount_point(&self, path: &[u8], kind: BindKind) -> io::Result<OwnedFd> {
        let place = self.inside.place(path)?;
        match kind {
            BindKind::Directory => mkdirat(&place.parent, place.name, Mode::from_raw_mode(MOUNT_POINT_MODE))?,
            BindKind::File | BindKind::Device => drop(create(&place)?),
        }
        self.inside.open(path, OFlags::PATH)
    }
}

/// Creates an empty file that did not exist, not even as a symbolic link (`O_EXCL`).
fn create(Place { parent, name }: &Place<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(openat(parent, *name, flags, Mode::from_raw_mode(0o600))?)
}

fn device_of(file: &impl std::os::fd::AsFd) -> io::Result<u64> {
    Ok(fstat(file)?.st_dev)
}

fn because<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> (&'static str, io::Error) {
    move |error| (doing, error.into())
}
