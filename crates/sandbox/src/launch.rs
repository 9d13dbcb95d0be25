//! Starting a sandbox: which program is the helper, and how it is started.

use crate::{
    control_group::ControlGroup,
    error::{RunnerDoing, SandboxError},
    helper,
    pump::Supervision,
    report::BuilderReport,
    steps::{LeftOut, SetupStep},
    terminal::Terminal,
    wire::{CONTROL_GROUP_VARIABLE, DoorSocket, HELPER_ARGUMENT, OPEN_FILES_VARIABLE, socket_pair},
};
use fodder_model::{bytes::ByteString, sandbox::SandboxPlan};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        eventfd::{EfdFlags, EventFd},
        memfd::{MFdFlags, memfd_create},
        resource::{Resource, getrlimit},
    },
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Seek, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Set by [`dispatch_helper`], so that a program which does not dispatch cannot start itself over and over.
static DISPATCHES: AtomicBool = AtomicBool::new(false);

/// Becomes the sandbox helper if this process was started as one, and then never returns; else does nothing.
///
/// Call it first in `main`: before threads, logging, argument parsing or a runtime. The helper asserts that it has one
/// thread.
pub fn dispatch_helper() {
    dispatch_helper_with(&[]);
}

/// A function that a plan may name instead of a file to execute ([`fodder_model::sandbox::Program::Internal`]). It runs as PID 1
/// of the finished sandbox, under everything that an executed builder is under, and its result is the exit status.
#[derive(Clone, Copy, Debug)]
pub struct InternalProgram {
    /// The name in plans.
    pub name: &'static str,
    /// Gets the plan's environment; that of the process is empty.
    pub run: fn(&[(ByteString, ByteString)]) -> i32,
}

/// [`dispatch_helper`] for programs that bring functions of their own.
pub fn dispatch_helper_with(internal_programs: &[InternalProgram]) {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(HELPER_ARGUMENT)) {
        helper::run(internal_programs, LeftOut::default());
        crate::leave(0)
    }
    DISPATCHES.store(true, Ordering::Relaxed);
}

/// [`dispatch_helper`] for tests that want to see what happens when steps of the set-up are missing. No other program may call it.
#[doc(hidden)]
pub fn dispatch_helper_without(steps: &[SetupStep]) {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(HELPER_ARGUMENT)) {
        helper::run(&[], LeftOut(steps));
        crate::leave(0)
    }
}

/// The program that is started to make the sandbox. Never guessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    path: PathBuf,
}

impl Helper {
    /// This very program, even if its file has been replaced meanwhile.
    ///
    /// # Errors
    /// [`SandboxError::HelperNotDispatched`] when `main` did not call [`dispatch_helper`].
    pub fn current_exe() -> Result<Self, SandboxError> {
        if DISPATCHES.load(Ordering::Relaxed) {
            Ok(Helper { path: PathBuf::from("/proc/self/exe") })
        } else {
            Err(SandboxError::HelperNotDispatched)
        }
    }

    /// Another program, whose `main` calls [`dispatch_helper`].
    pub fn at(path: impl AsRef<Path>) -> Self {
        Helper { path: path.as_ref().to_owned() }
    }
}

/// Ends runs from another thread. Clones end the same runs.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<EventFd>);

impl Canceller {
    /// Kills the builder of the runs that are under way, which return [`crate::BuilderExit::Cancelled`] unless they had
    /// ended by themselves, and keeps later ones from having a builder: [`SandboxError::Cancelled`].
    pub fn cancel(&self) {
        // The only failure is a counter that is full, and then it is readable already.
        let _ = self.0.write(1);
    }

    /// Readable for ever once cancelled, as nobody reads it.
    pub(crate) fn event(&self) -> &EventFd {
        &self.0
    }
}

/// Runs plans.
#[derive(Clone, Debug)]
pub struct Sandbox {
    helper: Helper,
    canceller: Canceller,
    /// Soft limit of open files when this was made: builders get it, whatever the runner needs for itself by then.
    open_files: u64,
}

impl Sandbox {
    /// A runner of plans that starts this helper.
    ///
    /// # Errors
    /// [`SandboxError::Runner`] when the process has no descriptor left.
    pub fn new(helper: Helper) -> Result<Self, SandboxError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags).runner("make an event descriptor")?;
        let (open_files, _) = getrlimit(Resource::RLIMIT_NOFILE).runner("read the limit of open files")?;
        Ok(Sandbox { helper, canceller: Canceller(Arc::new(event)), open_files })
    }

    /// What ends the runs of this sandbox.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Executes a plan, passing on the log as it comes, and returns when nothing of the sandbox is left: no process, no
    /// mount, no descriptor. Blocks; the thread must live as long as the run, since the helper dies with it.
    ///
    /// # Errors
    /// When the sandbox could not be set up or its helper was lost. A builder that fails is a report.
    pub fn run(&self, plan: &SandboxPlan, on_log: &mut dyn FnMut(&[u8])) -> Result<BuilderReport, SandboxError> {
        // Without anybody behind the door, what comes to it is refused.
        self.run_with_door(plan, on_log, &mut |_, _| {})
    }

    /// [`Sandbox::run`], handing out the sockets of the plan's door before the builder starts.
    pub fn run_with_door(
        &self,
        plan: &SandboxPlan,
        on_log: &mut dyn FnMut(&[u8]),
        on_door: &mut dyn FnMut(DoorSocket, OwnedFd),
    ) -> Result<BuilderReport, SandboxError> {
        let Terminal { master, slave } = Terminal::open(&plan.identity).runner("open a pseudo-terminal")?;
        let (socket, helper_socket) = socket_pair().runner("make a socket pair")?;
        let written = sealed_plan(plan).runner("write the plan into memory")?;
        let limits = &plan.limits;
        let made = limits.control_group.as_ref().map(|parent| {
            ControlGroup::create(parent.as_path(), limits.memory_bytes, limits.processes)
                .map_err(|error| format!("no control group could be made in '{parent}': {error}"))
        });
        let (group, refused) = match made.transpose() {
            Ok(group) => (group, None),
            Err(words) => (None, Some(words)),
        };
        let child = self.start(written, helper_socket, slave, group.as_ref())?;
        let supervision = Supervision::new(child, master, socket, limits);
        let ended = supervision.run(self.canceller.event(), on_log, on_door)?;
        let mut report = ended.map_err(|failure| SandboxError::from_failure(failure, plan))?;
        report.control_group_refused = refused;
        if let Some(group) = &group {
            report.take_group(group.report(), limits.memory_bytes);
        }
        Ok(report)
    }

    /// The runner keeps none of the three descriptors: each is the sign of somebody's life.
    fn start(
        &self,
        plan: File,
        socket: OwnedFd,
        slave: OwnedFd,
        group: Option<&ControlGroup>,
    ) -> Result<Child, SandboxError> {
        let mut command = Command::new(&self.helper.path);
        command.arg0("fodder-sandbox-helper").arg(HELPER_ARGUMENT).env_clear();
        command.env(OPEN_FILES_VARIABLE, self.open_files.to_string());
        if let Some(group) = group {
            command.env(CONTROL_GROUP_VARIABLE, group.path());
        }
        command.stdin(plan).stdout(socket).stderr(slave);
        let started = command.spawn();
        started.map_err(|source| SandboxError::HelperStart { path: self.helper.path.clone(), source })
    }
}

fn sealed_plan(plan: &SandboxPlan) -> io::Result<File> {
    sealed(&serde_json::to_vec(plan)?)
}

/// A file that cannot change any more, not even if the helper is not the program it should be.
fn sealed(bytes: &[u8]) -> io::Result<File> {
    let memory = memfd_create(c"fodder-sandbox-plan", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno: Errno| io::Error::from(errno))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: KRN-1 (somebody changes the plan). Layer: seals of the memory that it is in.
    #[test]
    fn a_plan_cannot_be_changed_any_more() {
        let mut file = sealed(b"plan").unwrap();
        assert_eq!(io::read_to_string(&file).unwrap(), "plan");
        file.rewind().unwrap();
        assert_eq!(file.write_all(b"lies").unwrap_err().raw_os_error(), Some(libc::EPERM));
        for length in [3, 5] {
            assert_eq!(file.set_len(length).unwrap_err().raw_os_error(), Some(libc::EPERM), "{length}");
        }
        assert_eq!(fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE)), Err(Errno::EPERM));
    }
}
