//! Landlock, as a second layer where the kernel has it (landlock(7)): writing is granted only at the places that the plan makes
//! writable, and neither signals nor abstract sockets reach anybody outside.
//!
//! Only writing is judged. Whatever can be seen is there to be read and executed, so judging that would cost every open(2) a walk up
//! the tree and refuse nothing. Inputs below the writable `/nix/store` gain nothing from it, since permissions of a directory hold
//! for all that is below it; the host's directories, tools and files outside of it do. What it cannot express is left to the mounts:
//! modes, owners, times. Devices are few and chosen, so their ioctls are not judged either.

use crate::{
    report::{Landlock, LandlockScope},
    sys,
    wire::{Doing, Failure},
};
use fodder_model::sandbox::{Access, BindKind, RootStep, Weakening};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

// LANDLOCK_ACCESS_FS_* and LANDLOCK_SCOPE_* of linux/landlock.h.
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_AND_MAKE: u64 = 0x1FF << 4;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;

/// What a place that is no directory can be granted.
const OF_FILES: u64 = WRITE_FILE | TRUNCATE;

/// The first ABI with renames between directories (Linux 5.19). Before it they are always refused, which no build survives.
const FIRST_USABLE_ABI: u32 = 2;

/// What this kernel's Landlock can do for us: accesses to judge and scopes to close.
fn handled(abi: u32) -> (u64, u64) {
    if abi < FIRST_USABLE_ABI {
        return (0, 0);
    }
    let truncate = if abi >= 3 { TRUNCATE } else { 0 };
    let scopes = if abi >= 6 { SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL } else { 0 };
    (WRITE_FILE | REMOVE_AND_MAKE | REFER | truncate, scopes)
}

/// Restricts this process and all that will come of it. Must come after the last mount, which it forbids, and after
/// no_new_privs. Returns what is in force; a kernel without Landlock is no error.
pub(super) fn restrict(
    root: &[RootStep],
    queues: Option<&OwnedFd>,
    allowed: &BTreeSet<Weakening>,
) -> Result<Landlock, Failure> {
    let abi = sys::landlock_abi();
    let (mut accesses, scopes) = handled(abi);
    // A process with such a rule cannot mount anything, in whatever namespace.
    if allowed.contains(&Weakening::NestedNamespaces) {
        accesses = 0;
    }
    if accesses == 0 && scopes == 0 {
        return Ok(Landlock { abi, writes_judged: false, scopes: BTreeSet::new() });
    }
    let ruleset = sys::landlock_ruleset(accesses, scopes).doing("making a Landlock ruleset")?;
    if accesses != 0 {
        for (path, granted) in writable(root) {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let place = open(path, flags, Mode::empty()).doing(format!("opening {} for Landlock", path.display()))?;
            grant(ruleset.as_fd(), place.as_fd(), granted & accesses, path)?;
        }
        if let Some(queues) = queues {
            grant(ruleset.as_fd(), queues.as_fd(), accesses, Path::new("message queues"))?;
        }
        // Open already, but opened again by programs that write to /dev/stdout.
        let (input, output) = (std::io::stdin(), std::io::stdout());
        for stream in [input.as_fd(), output.as_fd()] {
            grant(ruleset.as_fd(), stream, OF_FILES & accesses, Path::new("a stream"))?;
        }
    }
    sys::landlock_restrict(ruleset.as_fd()).doing("restricting the builder with Landlock")?;
    let closed =
        [(SCOPE_ABSTRACT_UNIX_SOCKET, LandlockScope::AbstractUnixSocket), (SCOPE_SIGNAL, LandlockScope::Signal)];
    Ok(Landlock {
        abi,
        writes_judged: accesses != 0,
        scopes: closed.into_iter().filter_map(|(bit, scope)| (scopes & bit != 0).then_some(scope)).collect(),
    })
}

fn grant(ruleset: BorrowedFd<'_>, place: BorrowedFd<'_>, accesses: u64, path: &Path) -> Result<(), Failure> {
    sys::landlock_allow_beneath(ruleset, place, accesses).doing(format!("granting {} with Landlock", path.display()))
}

/// The places where the plan lets the builder write, with what it may do there.
fn writable(root: &[RootStep]) -> BTreeMap<&Path, u64> {
    const EVERYTHING: u64 = u64::MAX;
    let mut places = BTreeMap::from([(Path::new("/"), EVERYTHING)]);
    for step in root {
        let (path, granted) = match step {
            RootStep::Bind { source: _, target, kind, access } => {
                let granted = match (kind, access) {
                    // Writing to a device changes no file system, and a read-only mount does not keep anybody from it.
                    (BindKind::Device, Access::ReadOnly | Access::ReadWrite) => Some(OF_FILES),
                    (BindKind::Directory | BindKind::File, Access::ReadOnly) => None,
                    (BindKind::Directory, Access::ReadWrite) => Some(EVERYTHING),
                    (BindKind::File, Access::ReadWrite) => Some(OF_FILES),
                };
                (target, granted)
            }
            RootStep::Tmpfs { path, mode: _, size: _ } => (path, Some(EVERYTHING)),
            RootStep::Proc { path } | RootStep::Pts { path } => (path, Some(OF_FILES)),
            RootStep::ReadOnly { path } => (path, None),
            RootStep::Directory { path: _, mode: _ }
            | RootStep::File { path: _, mode: _, content: _ }
            | RootStep::Symlink { path: _, target: _ }
            | RootStep::Mode { path: _, mode: _ } => continue,
        };
        match granted {
            Some(granted) => places.insert(path.as_path(), granted),
            None => places.remove(path.as_path()),
        };
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(target: &str, access: Access) -> RootStep {
        RootStep::Bind { source: "/source".into(), target: target.into(), kind: BindKind::Directory, access }
    }

    #[test]
    fn the_root_is_writable_until_a_step_says_otherwise() {
        let mut steps = vec![bind("/a", Access::ReadWrite), bind("/b", Access::ReadOnly)];
        assert!(writable(&steps).into_keys().eq(["/", "/a"].map(Path::new)));
        steps.push(RootStep::ReadOnly { path: "/".into() });
        steps.push(bind("/a", Access::ReadOnly));
        assert!(writable(&steps).is_empty());
        let device = |access| RootStep::Bind {
            source: "/dev/full".into(),
            target: "/dev/full".into(),
            kind: BindKind::Device,
            access,
        };
        steps.push(device(Access::ReadOnly));
        assert!(writable(&steps).into_iter().eq([(Path::new("/dev/full"), OF_FILES)]));
        let of_the_kernel = [RootStep::Proc { path: "/proc".into() }, RootStep::Pts { path: "/pts".into() }];
        let granted = writable(&of_the_kernel);
        assert_eq!((granted[Path::new("/proc")], granted[Path::new("/pts")]), (OF_FILES, OF_FILES));
    }

    #[test]
    fn an_abi_is_used_as_far_as_it_goes() {
        assert_eq!(handled(0), (0, 0));
        assert_eq!(handled(1), (0, 0), "it refuses every rename between directories");
        assert_eq!(handled(2), (0x3FF2, 0));
        assert_eq!(handled(3), (0x7FF2, 0));
        assert_eq!(handled(6), (0x7FF2, 3));
        assert_eq!(handled(7), (0x7FF2, 3));
    }
}
