//! Why a sandbox could not be set up or supervised. A builder that fails is not here: that is a report.

use crate::{
    remedy::{HostSettings, Refusal, remedy},
    wire::Failure,
};
use fodder_model::sandbox::{Namespace, RootStep, SandboxPlan};
use std::{io, path::PathBuf};
use thiserror::Error;

/// Everything that can keep a plan from being executed. In all cases but [`SandboxError::HelperDied`] the builder has
/// not run; in all cases nothing of the sandbox is left.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A kind of namespace cannot be created here.
    #[error("cannot create a new {} namespace", namespace_name(*.namespace))]
    NamespaceUnavailable {
        /// Which.
        namespace: Namespace,
        /// What the kernel said.
        source: io::Error,
        /// What the user may change.
        remedy: Option<String>,
    },
    /// The user namespace could be made but not given its ids.
    #[error("cannot write {file} of the new user namespace")]
    IdMap {
        /// `uid_map`, `gid_map` or `setgroups`.
        file: String,
        /// What the kernel said.
        source: io::Error,
        /// What the user may change.
        remedy: Option<String>,
    },
    /// A step of the new root could not be carried out.
    #[error("step {index} of the root, {description}: {doing}")]
    RootStep {
        /// Its place in the plan, counted from 0.
        index: usize,
        /// The step in words.
        description: String,
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: io::Error,
        /// What the user may change.
        remedy: Option<String>,
    },
    /// The plan cannot be carried out on any machine.
    #[error("the sandbox plan is refused: {reason}")]
    PlanRefused {
        /// What is wrong with it.
        reason: String,
    },
    /// Something else that belongs to the set-up failed.
    #[error("cannot set up the sandbox: {doing}")]
    Setup {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel accepted everything and yet a protection is not in force.
    #[error("the sandbox does not hold: {finding}")]
    SelfCheck {
        /// What was expected and what was found.
        finding: String,
    },
    /// [`crate::Helper::current_exe`] was used in a program that does not call [`crate::dispatch_helper`].
    #[error("this program cannot be its own sandbox helper, since its main function does not dispatch it")]
    HelperNotDispatched,
    /// The helper program could not be started.
    #[error("cannot start the sandbox helper {}", .path.display())]
    HelperStart {
        /// Which program.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The run was cancelled before there was a builder; later it is a report.
    #[error("cancelled before the builder ran")]
    Cancelled,
    /// The helper ended without saying how the builder ended: killed from outside, or out of memory. The builder died
    /// with it.
    #[error("the sandbox helper ended without a report ({status})")]
    HelperDied {
        /// How it ended.
        status: String,
    },
    /// The runner's own side failed.
    #[error("cannot {doing}")]
    Runner {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SandboxError {
    /// What the user may change so that it works, naming the setting; kept apart from the message.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            SandboxError::NamespaceUnavailable { remedy, .. }
            | SandboxError::IdMap { remedy, .. }
            | SandboxError::RootStep { remedy, .. } => remedy.as_deref(),
            SandboxError::HelperNotDispatched => {
                Some("call fodder_sandbox::dispatch_helper() first in main, or name a helper with Helper::at")
            }
            SandboxError::HelperDied { .. } => Some("look for the out-of-memory killer in the kernel log (dmesg)"),
            SandboxError::PlanRefused { .. }
            | SandboxError::Setup { .. }
            | SandboxError::SelfCheck { .. }
            | SandboxError::Cancelled
            | SandboxError::HelperStart { .. }
            | SandboxError::Runner { .. } => None,
        }
    }

    /// Gives a failure of the other side its name, the step in words, and the remedy that this host's settings suggest.
    pub(crate) fn from_failure(failure: Failure, plan: &SandboxPlan) -> Self {
        let os = io::Error::from_raw_os_error;
        match failure {
            Failure::Plan { reason } => SandboxError::PlanRefused { reason },
            Failure::Namespace { namespace, errno } => SandboxError::NamespaceUnavailable {
                namespace,
                source: os(errno),
                remedy: remedy(Refusal::Namespace(namespace), errno, &HostSettings::read()),
            },
            Failure::IdMap { file, errno } => SandboxError::IdMap {
                file,
                source: os(errno),
                remedy: remedy(Refusal::IdMap, errno, &HostSettings::read()),
            },
            Failure::Step { index, doing, errno } => SandboxError::RootStep {
                index,
                description: plan.root.get(index).map_or_else(|| "the root itself".into(), describe),
                doing,
                source: os(errno),
                remedy: match plan.root.get(index) {
                    Some(RootStep::Proc { path: _ }) => remedy(Refusal::Proc, errno, &HostSettings::read()),
                    Some(_) | None => remedy(Refusal::Mount, errno, &HostSettings::read()),
                },
            },
            Failure::Setup { doing, errno } => SandboxError::Setup { doing, source: os(errno) },
            Failure::Check { finding } => SandboxError::SelfCheck { finding },
        }
    }
}

/// Adds what the runner was doing to an error of its own.
pub(crate) trait RunnerDoing<T> {
    /// Turns the error into [`SandboxError::Runner`]; the words follow "cannot".
    fn runner(self, doing: &'static str) -> Result<T, SandboxError>;
}

impl<T, E: Into<io::Error>> RunnerDoing<T> for Result<T, E> {
    fn runner(self, doing: &'static str) -> Result<T, SandboxError> {
        self.map_err(|error| SandboxError::Runner { doing, source: error.into() })
    }
}

fn namespace_name(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::User => "user",
        Namespace::Mount => "mount",
        Namespace::Pid => "pid",
        Namespace::Ipc => "ipc",
        Namespace::Uts => "uts",
        Namespace::Network => "network",
        Namespace::Cgroup => "cgroup",
    }
}

fn describe(step: &RootStep) -> String {
    match step {
        RootStep::Directory { path, mode } => format!("directory {path} with mode {mode:04o}"),
        RootStep::File { path, mode, content } => {
            format!("file {path} with mode {mode:04o} and {} bytes", content.len())
        }
        RootStep::Symlink { path, target } => format!("symbolic link {path} to {target}"),
        RootStep::Bind { source, target, kind, access } => format!("bind {source} at {target} ({kind:?}, {access:?})"),
        RootStep::Tmpfs { path, mode, size } => format!("tmpfs {path} with mode {mode:04o} and size {size}"),
        RootStep::Proc { path } => format!("procfs {path}"),
        RootStep::Pts { path } => format!("devpts {path}"),
        RootStep::Mode { path, mode } => format!("mode {mode:04o} of {path}"),
        RootStep::ReadOnly { path } => format!("read-only {path}"),
    }
}
