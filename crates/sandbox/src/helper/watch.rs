//! Watching PID 1 until it is gone. The deadline is kept here, so that a runner that is stopped cannot prolong a build.

use super::watchdog::Watchdog;
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

/// Why the builder must end before it has ended.
#[derive(Clone, Copy)]
enum Late {
    /// Its time is up, or the runner is gone.
    Deadline,
    /// The watchdog has seen too much of something.
    OverLimit(Ending),
}

/// Waits for the child, and with it for everything in its pid namespace: the kernel lets PID 1 be reaped only when the
/// others are gone (zap_pid_ns_processes in kernel/pid_namespace.c).
pub(super) fn watch(
    child: Pid,
    runner: &OwnedFd,
    builder: &OwnedFd,
    deadline_seconds: Option<u64>,
    watchdog: Watchdog,
) -> Result<HelperWord, Failure> {
    let deadline = deadline_seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let pidfd = pidfd_open(child, PidfdFlags::empty()).doing("opening a pidfd of the builder")?;
    // A runner that is gone is seen at once, below.
    let _ = send(runner, &HelperWord::Started, Some(&pidfd));
    let mut watch = Watch { pidfd, runner, builder, deadline, watchdog, word: None, has_spoken: false };
    let late = watch.wait_for_exit()?;
    if late.is_some() {
        // ESRCH: it has ended meanwhile.
        let _ = pidfd_send_signal(&watch.pidfd, Signal::KILL);
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
        (None, Some(libc::SIGKILL)) if late.is_some() => match late {
            Some(Late::OverLimit(ending)) => ending,
            Some(Late::Deadline) | None => Ending::Deadline,
        },
        (None, Some(signal)) => Ending::Signaled(signal),
        (None, None) => {
            return Err(Failure::Check { finding: format!("the builder ended as {status:?}") });
        }
    };
    while watch.listen()? {}
    let used = watch.watchdog.into_used();
    match watch.word {
        Some(BuilderWord::Ready(enforced)) => {
            let times = getrusage(UsageWho::RUSAGE_CHILDREN).doing("reading the resources used")?;
            Ok(HelperWord::Finished {
                ending,
                cpu_user_micros: micros(times.user_time()),
                cpu_system_micros: micros(times.system_time()),
                enforced,
                used,
            })
        }
        Some(BuilderWord::Failed(failure)) => Err(failure),
        None if late.is_some() => Err(Errno::ETIMEDOUT).doing("getting the builder to start before its deadline"),
        None => Err(Failure::Check { finding: format!("the builder's set-up ended without a word ({ending:?})") }),
    }
}

struct Watch<'a> {
    pidfd: OwnedFd,
    runner: &'a OwnedFd,
    builder: &'a OwnedFd,
    deadline: Option<Instant>,
    watchdog: Watchdog,
    /// What the builder-to-be said last; it says one thing only, unless its execve fails.
    word: Option<BuilderWord>,
    /// Its end of the channel is closed.
    has_spoken: bool,
}

impl Watch<'_> {
    /// Returns `None` when the child has ended by itself.
    fn wait_for_exit(&mut self) -> Result<Option<Late>, Failure> {
        loop {
            let mut watched = vec![
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.runner.as_fd(), PollFlags::empty()),
            ];
            if !self.has_spoken {
                watched.push(PollFd::new(self.builder.as_fd(), PollFlags::POLLIN));
            }
            let next = [self.deadline, self.watchdog.next_look()].into_iter().flatten().min();
            match poll(&mut watched, timeout(next)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).doing("watching the builder"),
            }
            let happened = |place: usize| watched.get(place).is_some_and(|place| place.any() == Some(true));
            let (has_ended, runner_is_gone, speaks) = (happened(0), happened(1), happened(2));
            if has_ended {
                return Ok(None);
            }
            if runner_is_gone || self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Some(Late::Deadline));
            }
            if speaks {
                self.listen()?;
            }
            if let Some(ending) = self.watchdog.look() {
                return Ok(Some(Late::OverLimit(ending)));
            }
        }
    }

    /// Hears one word of the builder-to-be; `false` when there will be none.
    fn listen(&mut self) -> Result<bool, Failure> {
        if self.has_spoken {
            return Ok(false);
        }
        match receive(self.builder).doing("listening to the builder's set-up")? {
            None => self.has_spoken = true,
            Some((word, _descriptor)) => {
                if let BuilderWord::Ready(_) = word {
                    self.watchdog.start();
                }
                self.word = Some(word);
            }
        }
        Ok(!self.has_spoken)
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

fn micros(time: TimeVal) -> u64 {
    u64::try_from(time.num_microseconds()).unwrap_or(0)
}
