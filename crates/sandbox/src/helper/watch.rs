//! Watching PID 1 until it is gone. The deadline is kept here, so that a runner that is stopped cannot prolong a build.

use crate::wire::{BuilderWord, Doing, Ending, Failure, HelperWord, receive, send};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{UsageWho, getrusage},
        time::{TimeVal, TimeValLike},
    },
};
use rustix::{
    io::Errno as RawErrno,
    process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

/// Waits for the child, and with it for everything in its pid namespace: the kernel lets PID 1 be reaped only when the
/// others are gone (zap_pid_ns_processes in kernel/pid_namespace.c).
pub(super) fn watch(
    child: Pid,
    runner: &OwnedFd,
    builder: &OwnedFd,
    deadline_seconds: Option<u64>,
) -> Result<HelperWord, Failure> {
    let deadline = deadline_seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let pidfd = pidfd_open(child, PidfdFlags::empty()).doing("opening a pidfd of the builder")?;
    let introduced = send(runner, &HelperWord::Started, Some(&pidfd));
    let late = introduced.is_err() || !wait_for_exit(&pidfd, runner, deadline)?;
    if late {
        // ESRCH: it has ended meanwhile.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    // Not nix's: it takes death by a real-time signal for an error.
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(RawErrno::INTR) => continue,
            waited => break waited.doing("waiting for the builder")?.map(|(_pid, status)| status),
        }
    };
    let ending = match (status.and_then(|status| status.exit_status()), status.and_then(|s| s.terminating_signal())) {
        (Some(code), _) => Ending::Exited(code),
        (None, Some(libc::SIGKILL)) if late => Ending::Deadline,
        (None, Some(signal)) => Ending::Signaled(signal),
        (None, None) => {
            return Err(Failure::Check { finding: format!("the builder ended as {status:?}") });
        }
    };
    match last_word(builder)? {
        Some(BuilderWord::Ready(enforced)) => {
            let used = getrusage(UsageWho::RUSAGE_CHILDREN).doing("reading the resources used")?;
            Ok(HelperWord::Finished {
                ending,
                cpu_user_micros: micros(used.user_time()),
                cpu_system_micros: micros(used.system_time()),
                enforced,
            })
        }
        Some(BuilderWord::Failed(failure)) => Err(failure),
        None if late => Err(Errno::ETIMEDOUT).doing("getting the builder to start before its deadline"),
        None => Err(Failure::Check { finding: format!("the builder's set-up ended without a word ({ending:?})") }),
    }
}

/// Returns whether the child has ended by itself; `false` when its time is up or the runner is gone.
fn wait_for_exit(pidfd: &OwnedFd, runner: &OwnedFd, deadline: Option<Instant>) -> Result<bool, Failure> {
    loop {
        let mut watched =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(runner.as_fd(), PollFlags::empty())];
        match poll(&mut watched, timeout(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing("watching the builder"),
        }
        if watched[0].any() == Some(true) {
            return Ok(true);
        }
        if watched[1].any() == Some(true) || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
    }
}

/// Rounded up to the next millisecond: rounding down would spin through the last one.
fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    PollTimeout::try_from(left.min(60_000)).unwrap_or(PollTimeout::MAX)
}

/// What the builder-to-be said last; it says one thing only, unless its execve fails.
fn last_word(builder: &OwnedFd) -> Result<Option<BuilderWord>, Failure> {
    let mut last = None;
    while let Some((word, _descriptor)) = receive(builder).doing("listening to the builder's set-up")? {
        last = Some(word);
    }
    Ok(last)
}

fn micros(time: TimeVal) -> u64 {
    u64::try_from(time.num_microseconds()).unwrap_or(0)
}
