//! What a run tells: how the builder ended, what it used, which protections it ran under.

use fodder_model::sandbox::{Namespace, Weakening};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// The result of a run. The builder may have failed; that is a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuilderReport {
    /// How it ended.
    pub exit: BuilderExit,
    /// User time of the builder and of everything that was waited for inside.
    pub cpu_user: Duration,
    /// System time, likewise.
    pub cpu_system: Duration,
    /// The protections that were in force.
    pub enforced: Enforced,
}

/// How the builder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuilderExit {
    /// By exit(2), or 1 when it could not be executed at all (the log then says why, in Nix's words).
    Exited(i32),
    /// By this signal; 9 when it closed its standard output and error and went on, as Nix does.
    Signaled(i32),
    /// Killed at its deadline.
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// Killed after being silent.
    Silent {
        /// The limit.
        seconds: u64,
    },
    /// Killed for writing more than this; exactly so many bytes were passed on.
    LogLimitExceeded {
        /// The limit.
        bytes: u64,
    },
    /// Killed because the caller asked for it.
    Cancelled,
}

/// Protections, as read back from the kernel by the process that became the builder, immediately before it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enforced {
    /// Namespaces that are not the runner's (compared by their identity, not by what was asked for).
    pub namespaces: BTreeSet<Namespace>,
    /// The uid on the host.
    pub outside_uid: u32,
    /// The gid on the host.
    pub outside_gid: u32,
    /// No supplementary group of the runner is left. An ordinary user cannot drop them in a user namespace.
    pub supplementary_groups_dropped: bool,
    /// All five capability sets are empty.
    pub no_capabilities: bool,
    /// execve(2) gives no privileges.
    pub no_new_privileges: bool,
    /// Instructions in the seccomp filter; `None` when the plan has none.
    pub seccomp_instructions: Option<usize>,
    /// Whether the runner's keys are out of reach.
    pub session_keyring: SessionKeyring,
    /// No namespace can be made inside: making one was tried, and refused.
    pub no_new_namespaces: bool,
    /// What the kernel's Landlock adds.
    pub landlock: Landlock,
    /// What the person took away of all this.
    pub allowed: BTreeSet<Weakening>,
}

/// What became of the runner's session keyring, see session-keyring(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKeyring {
    /// The builder has a new, empty one.
    New,
    /// keyctl(2) is refused to the runner already (as in Docker's default profile), hence to the builder.
    Unreachable,
}

/// How far Landlock is in force, see landlock(7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Landlock {
    /// Its version in this kernel; 0 where it has none, which is no error.
    pub abi: u32,
    /// Writing, making and removing files is refused but where the plan lets the builder write.
    pub writes_judged: bool,
    /// What does not reach outside.
    pub scopes: BTreeSet<LandlockScope>,
}

/// A way to others that Landlock closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LandlockScope {
    /// Abstract Unix sockets of others, which matter where the network is the host's.
    AbstractUnixSocket,
    /// Signals to others.
    Signal,
}
