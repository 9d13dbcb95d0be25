//! The runner's side of a run: passes the log on, keeps the limits that concern the log, and does not let go before
//! everything inside is gone.
//!
//! The builder's exit is the build's end, not that of its log (EIO on the terminal's master): a builder may close its standard
//! output and error and go on, which Nix takes for the end, and a daemon that keeps them open is killed with the builder.

use crate::{
    error::{RunnerDoing, SandboxError},
    launch::HelperProcess,
    report::{BuilderExit, BuilderReport},
    wire::{DoorSocket, Ending, Failure, HelperWord, receive},
};
use fodder_model::sandbox::Limits;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
    unistd::read,
};
use rustix::process::{Signal, pidfd_send_signal};
use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

/// What a read of the terminal can give at most is one page; more is for later kernels.
const CHUNK_BYTES: usize = 16 * 1024;

/// How long the last bytes may take from the dead builder's terminal to us. They are on a kernel work queue.
const DRAIN: Duration = Duration::from_secs(2);

/// How long killed processes may take to disappear before we say so rather than hang.
const DEATH: Duration = Duration::from_secs(30);

/// A run under way. Dropping it kills what is left of it.
pub(crate) struct Supervision {
    helper: HelperProcess,
    socket: OwnedFd,
    /// `None` once the log has ended.
    log: Option<OwnedFd>,
    /// PID 1, once the helper has introduced it.
    builder: Option<OwnedFd>,
    /// The helper's last word.
    last_word: Option<HelperWord>,
    /// The helper's end of the socket is closed.
    helper_is_gone: bool,
    deadline_seconds: Option<u64>,
    silence_seconds: Option<u64>,
    log_bytes: Option<u64>,
    log_bytes_seen: u64,
    last_output: Instant,
    /// Why the builder is to be killed, the first reason.
    reason: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Silent { seconds: u64 },
    LogLimitExceeded { bytes: u64 },
    Cancelled,
}

impl Supervision {
    pub(crate) fn new(helper: HelperProcess, log: OwnedFd, socket: OwnedFd, limits: &Limits) -> Self {
        let Limits {
            deadline_seconds,
            silence_seconds,
            log_bytes,
            memory_bytes: _,
            processes: _,
            scratch: _,
            scratch_bytes: _,
            scratch_files: _,
            control_group: _,
            settings: _,
            oom_score: _,
            resources: _,
        } = limits;
        Supervision {
            helper,
            socket,
            log: Some(log),
            builder: None,
            last_word: None,
            helper_is_gone: false,
            deadline_seconds: *deadline_seconds,
            silence_seconds: *silence_seconds,
            log_bytes: *log_bytes,
            log_bytes_seen: 0,
            last_output: Instant::now(),
            reason: None,
        }
    }

    /// Returns the report, or what the helper could not do.
    pub(crate) fn run(
        mut self,
        cancel: &EventFd,
        on_log: &mut dyn FnMut(&[u8]),
        on_door: &mut dyn FnMut(DoorSocket, OwnedFd),
    ) -> Result<Result<BuilderReport, Failure>, SandboxError> {
        while !self.helper_is_gone {
            self.step(cancel, on_log, on_door)?;
        }
        self.wait_until_dead()?;
        let status = self.helper.0.wait().runner("wait for the sandbox helper")?;
        self.drain(on_log)?;
        match self.last_word.take() {
            Some(HelperWord::Finished { ending, cpu_user_micros, cpu_system_micros, enforced, used }) => {
                Ok(Ok(BuilderReport {
                    exit: self.exit(ending),
                    cpu_user: Duration::from_micros(cpu_user_micros),
                    cpu_system: Duration::from_micros(cpu_system_micros),
                    enforced,
                    used,
                    control_group: None,
                    control_group_refused: None,
                    log_bytes: self.log_bytes_seen,
                }))
            }
            // Whatever else went wrong, that is why it ended; even if the helper died of the same keys, for want of a session.
            Some(HelperWord::Failed(_)) | None if self.reason == Some(Reason::Cancelled) => {
                Err(SandboxError::Cancelled)
            }
            Some(HelperWord::Failed(failure)) => Ok(Err(failure)),
            Some(HelperWord::Started | HelperWord::Door(_)) | None => {
                Err(SandboxError::HelperDied { status: status.to_string() })
            }
        }
    }

    /// Waits for one thing to happen and deals with it.
    fn step(
        &mut self,
        cancel: &EventFd,
        on_log: &mut dyn FnMut(&[u8]),
        on_door: &mut dyn FnMut(DoorSocket, OwnedFd),
    ) -> Result<(), SandboxError> {
        let silence = self.silence_left();
        let cancelled = self.reason == Some(Reason::Cancelled);
        let mut watched = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // A cancelled descriptor stays readable; to watch it further would be to spin.
        let cancel_place = (!cancelled).then(|| push(&mut watched, cancel.as_fd()));
        let log_place = self.log.as_ref().map(|log| push(&mut watched, log.as_fd()));
        match poll(&mut watched, timeout(silence)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).runner("watch the build"),
        }
        let happened = |place: Option<usize>| place.is_some_and(|place| watched[place].any() == Some(true));
        let (heard, wants_end, log) = (happened(Some(0)), happened(cancel_place), happened(log_place));
        if wants_end {
            // Even over another reason: the builder is dying already, and what the caller asked for comes first.
            self.reason = Some(Reason::Cancelled);
            self.kill();
        }
        if log {
            self.read_log(on_log)?;
        }
        if heard {
            self.listen(on_door)?;
        }
        if let Some(seconds) = self.silence_seconds
            && self.silence_left() == Some(Duration::ZERO)
        {
            self.end(Reason::Silent { seconds });
        }
        Ok(())
    }

    fn listen(&mut self, on_door: &mut dyn FnMut(DoorSocket, OwnedFd)) -> Result<(), SandboxError> {
        match receive(&self.socket).runner("listen to the sandbox helper")? {
            None => self.helper_is_gone = true,
            Some((HelperWord::Started, builder)) => {
                self.builder = builder;
                if self.reason.is_some() {
                    self.kill();
                }
            }
            Some((HelperWord::Door(purpose), Some(socket))) => on_door(purpose, socket),
            Some((word, _descriptor)) => self.last_word = Some(word),
        }
        Ok(())
    }

    /// Reads once. A log that has ended has nobody left to write to it; the builder may go on without.
    fn read_log(&mut self, on_log: &mut dyn FnMut(&[u8])) -> Result<(), SandboxError> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut buffer = [0; CHUNK_BYTES];
        match read(log, &mut buffer) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) | Err(Errno::EIO) => self.log = None,
            Err(errno) => return Err(errno).runner("read the build log"),
            Ok(length) => {
                self.last_output = Instant::now();
                self.pass_on(&buffer[..length], on_log);
            }
        }
        Ok(())
    }

    /// Passes on what is within the limit.
    fn pass_on(&mut self, bytes: &[u8], on_log: &mut dyn FnMut(&[u8])) {
        let seen = self.log_bytes_seen;
        self.log_bytes_seen = seen.saturating_add(bytes.len() as u64);
        let room = self.log_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(seen));
        let within = &bytes[..usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()))];
        if !within.is_empty() {
            on_log(within);
        }
        if let Some(limit) = self.log_bytes
            && self.log_bytes_seen > limit
        {
            self.end(Reason::LogLimitExceeded { bytes: limit });
        }
    }

    /// Kills the builder for the first reason that comes up.
    fn end(&mut self, reason: Reason) {
        if self.reason.is_none() {
            self.reason = Some(reason);
            self.kill();
        }
    }

    /// By its pidfd, so that it cannot hit anybody else; it takes the whole pid namespace along. A builder that has
    /// exited keeps its status.
    fn kill(&self) {
        if let Some(builder) = &self.builder {
            let _ = pidfd_send_signal(builder, Signal::KILL);
        }
    }

    /// After a helper that finished its work this is immediate. One that was killed leaves a builder that is dying.
    fn wait_until_dead(&self) -> Result<(), SandboxError> {
        let Some(builder) = &self.builder else { return Ok(()) };
        self.kill();
        let until = Instant::now() + DEATH;
        loop {
            let mut watched = [PollFd::new(builder.as_fd(), PollFlags::POLLIN)];
            let left = until.saturating_duration_since(Instant::now());
            match poll(&mut watched, timeout(Some(left))) {
                Ok(0) if left.is_zero() => return Err(Errno::ETIMEDOUT).runner("get rid of the killed builder"),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno).runner("wait for the builder's end"),
            }
        }
    }

    /// Everybody who could write is gone; what they wrote may still be on its way.
    fn drain(&mut self, on_log: &mut dyn FnMut(&[u8])) -> Result<(), SandboxError> {
        let until = Instant::now() + DRAIN;
        while let Some(log) = &self.log {
            let left = until.saturating_duration_since(Instant::now());
            let mut watched = [PollFd::new(log.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, timeout(Some(left))) {
                Ok(0) if left.is_zero() => break,
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => self.read_log(on_log)?,
                Err(errno) => return Err(errno).runner("read the end of the build log"),
            }
        }
        Ok(())
    }

    fn silence_left(&self) -> Option<Duration> {
        if self.reason.is_some() {
            return None;
        }
        let limit = Duration::from_secs(self.silence_seconds?);
        Some(limit.saturating_sub(self.last_output.elapsed()))
    }

    /// A builder that ended by itself while it was being killed keeps its status, but for the log limit, where what it
    /// wrote is what it did wrong.
    fn exit(&self, ending: Ending) -> BuilderExit {
        match (self.reason, ending) {
            (Some(Reason::LogLimitExceeded { bytes }), _) => BuilderExit::LogLimitExceeded { bytes },
            (Some(Reason::Silent { seconds }), Ending::Signaled(libc::SIGKILL)) => BuilderExit::Silent { seconds },
            (Some(Reason::Cancelled), Ending::Signaled(libc::SIGKILL)) => BuilderExit::Cancelled,
            (_, Ending::OverLimit { limit, allowed, used }) => BuilderExit::OverLimit { limit, allowed, used },
            (_, Ending::Deadline) => BuilderExit::TimedOut { seconds: self.deadline_seconds.unwrap_or_default() },
            (_, Ending::Exited(code)) => BuilderExit::Exited(code),
            (_, Ending::Signaled(signal)) => BuilderExit::Signaled(signal),
        }
    }
}

/// Reached with everything dead already, but for an error or a panic of `on_log`; then nothing may be left either.
impl Drop for Supervision {
    fn drop(&mut self) {
        let _ = self.helper.0.kill();
        let _ = self.helper.0.wait();
        let _ = self.wait_until_dead();
    }
}

fn push<'fd>(watched: &mut Vec<PollFd<'fd>>, descriptor: std::os::fd::BorrowedFd<'fd>) -> usize {
    watched.push(PollFd::new(descriptor, PollFlags::POLLIN));
    watched.len() - 1
}

/// Rounded up to the next millisecond, so that the last one is not spent spinning.
fn timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else { return PollTimeout::NONE };
    let milliseconds = left.as_micros().div_ceil(1000).min(60_000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}
