//! Who the builder is: the user namespace, its id maps, and becoming the ids inside.

use crate::{
    steps::{LeftOut, SetupStep},
    sys::fork_single_threaded,
    wire::{Doing, Failure, errno_of},
};
use fodder_model::sandbox::{Identity, Namespace};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        stat::Mode,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Gid, Uid, getegid, geteuid, pipe2, read, setgroups, setresgid, setresuid, write},
};
use std::{
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
};

/// The ids are written by whoever may: by this process when they are its own, else by a child that stays behind in the
/// parent namespace, where root's capabilities are (user_namespaces(7), "Defining user and group ID mappings").
/// Returns whether supplementary groups are gone; an ordinary user cannot drop them.
pub(super) fn enter_user_namespace(identity: &Identity, left_out: LeftOut<'_>) -> Result<bool, Failure> {
    let Identity { inside_uid, inside_gid, outside_uid, outside_gid } = *identity;
    let own_ids = geteuid().as_raw() == outside_uid && getegid().as_raw() == outside_gid;
    let process = open("/proc/self", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .doing("opening /proc/self")?;
    let maps = vec![
        ("uid_map", format!("{inside_uid} {outside_uid} 1")),
        // Required before gid_map from a process without CAP_SETGID in the parent namespace (Linux 3.19); with it, as Nix does it:
        // nothing in the namespace or below may change its groups.
        ("setgroups", "deny".into()),
        ("gid_map", format!("{inside_gid} {outside_gid} 1")),
    ];
    // Now or never: from the third line on it is refused.
    let groups_dropped = match if left_out.keeps(SetupStep::DropGroups) { setgroups(&[]) } else { Ok(()) } {
        Ok(()) => true,
        Err(Errno::EPERM) => false,
        Err(errno) => return Err(errno).doing("dropping supplementary groups"),
    };
    if own_ids {
        new_user_namespace()?;
        maps.iter().try_for_each(|(file, content)| write_map(&process, file, content))?;
    } else {
        let writer = Writer::start(process, maps)?;
        new_user_namespace()?;
        writer.finish()?;
    }
    Ok(groups_dropped)
}

fn new_user_namespace() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| Failure::Namespace { namespace: Namespace::User, errno: errno as i32 })
}

fn write_map(process: &OwnedFd, file: &str, content: &str) -> Result<(), Failure> {
    let written = openat(process, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|descriptor| std::fs::File::from(descriptor).write_all(content.as_bytes()));
    written.map_err(|error| Failure::IdMap { file: file.into(), errno: errno_of(&error) })
}

/// A child that waits for the namespace and then writes its maps.
struct Writer {
    process: nix::unistd::Pid,
    go: OwnedFd,
    answer: OwnedFd,
}

impl Writer {
    fn start(helper: OwnedFd, maps: Vec<(&'static str, String)>) -> Result<Self, Failure> {
        let (wait, go) = pipe2(OFlag::O_CLOEXEC).doing("making a pipe")?;
        let (answer, tell) = pipe2(OFlag::O_CLOEXEC).doing("making a pipe")?;
        match fork_single_threaded().doing("forking the writer of the id maps")? {
            ForkResult::Parent { child } => Ok(Writer { process: child, go, answer }),
            ForkResult::Child => {
                drop((go, answer));
                let mut byte = [0];
                // End of file instead of a byte: the helper gave up or died.
                if read(&wait, &mut byte) == Ok(1) {
                    let outcome = maps.iter().try_for_each(|(file, content)| write_map(&helper, file, content));
                    let _ = write(&tell, &serde_json::to_vec(&outcome.err()).unwrap_or_default());
                }
                crate::leave(0)
            }
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let Writer { process, go, answer } = self;
        write(&go, &[1]).doing("starting the writer of the id maps")?;
        let mut message = [0; 1024];
        let length = read(answer.as_fd(), &mut message).doing("waiting for the id maps")?;
        match waitpid(process, None) {
            Ok(WaitStatus::Exited(_, 0)) => {}
            Ok(status) => {
                return Err(Failure::Check { finding: format!("the writer of the id maps ended as {status:?}") });
            }
            Err(errno) => return Err(errno).doing("waiting for the writer of the id maps"),
        }
        match serde_json::from_slice::<Option<Failure>>(&message[..length]) {
            Ok(None) => Ok(()),
            Ok(Some(failure)) => Err(failure),
            Err(_) => Err(Failure::Check { finding: "the writer of the id maps gave no answer".into() }),
        }
    }
}

/// Becomes the inside ids, keeping the capabilities in the new namespace: none of the ids is that namespace's 0, so the
/// rule that takes capabilities from a root that stops being root (capabilities(7)) does not apply.
pub(super) fn become_inside_ids(identity: &Identity, left_out: LeftOut<'_>) -> Result<(), Failure> {
    left_out.step(SetupStep::InsideIds, || {
        let (uid, gid) = (Uid::from_raw(identity.inside_uid), Gid::from_raw(identity.inside_gid));
        setresgid(gid, gid, gid).doing("becoming the group inside")?;
        setresuid(uid, uid, uid).doing("becoming the user inside")
    })?;
    // From here on nobody of the same uid on the host can trace this process or open its /proc files. It had to be
    // dumpable before: a process that is not cannot write its own maps.
    match left_out.keeps(SetupStep::NonDumpable) {
        true => prctl::set_dumpable(false).doing("becoming non-dumpable"),
        false => prctl::set_dumpable(true).doing("becoming dumpable"),
    }
}
