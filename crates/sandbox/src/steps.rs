//! The steps of the set-up that protect somebody, by name, so that tests can leave each of them out once and see that the sandbox
//! notices or that an attack succeeds. Programs that are shipped leave out nothing: only [`dispatch_helper_without`] can, and
//! `tests/architecture.rs` sees to it that nobody but a test calls it.
//!
//! [`dispatch_helper_without`]: crate::dispatch_helper_without

use crate::wire::Failure;

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $step:ident,)+) => {
        /// One step of the set-up.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum SetupStep {
            $($(#[doc = $doc])+ $step,)+
        }

        impl SetupStep {
            /// Every one, in no particular order.
            pub const ALL: &'static [SetupStep] = &[$(SetupStep::$step),+];

            /// The step of this name, as `Debug` writes it.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($step) => Some(SetupStep::$step),)+
                    _ => None,
                }
            }
        }
    };
}

steps! {
    /// Closing the caller's descriptors in the helper.
    CloseInherited,
    /// Default dispositions for all signals.
    ResetSignals,
    /// No signal blocked.
    UnblockSignals,
    /// Policy, nice value, I/O priority, processors, timer slack, the out-of-memory score.
    ResetScheduling,
    /// An empty session keyring.
    SessionKeyring,
    /// No supplementary groups, where that is possible.
    DropGroups,
    /// A mount namespace.
    MountNamespace,
    /// A pid namespace.
    PidNamespace,
    /// An IPC namespace.
    IpcNamespace,
    /// A UTS namespace.
    UtsNamespace,
    /// A network namespace.
    NetworkNamespace,
    /// A cgroup namespace.
    CgroupNamespace,
    /// The ids of the plan.
    InsideIds,
    /// No tracing of the helper by other processes of the caller.
    NonDumpable,
    /// The helper dies with the runner.
    DieWithRunner,
    /// The builder dies with the helper.
    DieWithHelper,
    /// A session of the builder's own.
    NewSession,
    /// Read-only binds and the read-only root.
    ReadOnlyMounts,
    /// `nosuid` and `nodev`.
    MountAttributes,
    /// Taking the old root away.
    DetachOldRoot,
    /// No further namespaces.
    NamespaceLimits,
    /// setrlimit(2).
    ResourceLimits,
    /// personality(2).
    Personality,
    /// chdir(2).
    WorkingDirectory,
    /// umask(2).
    Umask,
    /// Everything above descriptor 2 is closed by execve(2).
    CloseOnExec,
    /// The bounding set.
    BoundingSet,
    /// The inheritable and permitted capabilities, and with them the effective and ambient ones.
    Capabilities,
    /// no_new_privs.
    NoNewPrivileges,
    /// Looking at all of this once more.
    SelfCheck,
    /// Landlock.
    Landlock,
    /// The system-call filter.
    Seccomp,
}

/// What is left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeftOut<'a>(pub(crate) &'a [SetupStep]);

impl LeftOut<'_> {
    /// Whether the step is to be carried out.
    pub(crate) fn keeps(self, step: SetupStep) -> bool {
        !self.0.contains(&step)
    }

    /// Carries it out, or does not.
    pub(crate) fn step(self, step: SetupStep, carry_out: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        if self.keeps(step) { carry_out() } else { Ok(()) }
    }
}
