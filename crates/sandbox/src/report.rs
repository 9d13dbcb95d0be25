//! What a run tells: how the builder ended, what it used, which protections it ran under.

use fodder_model::{limits::Limit, sandbox::Namespace};
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
    /// What it used, as far as somebody looked.
    pub used: Used,
    /// What the control group counted, where there was one.
    pub control_group: Option<GroupReport>,
    /// Why there was none although the plan has one.
    pub control_group_refused: Option<String>,
    /// Bytes that it wrote to its log, as far as they were read.
    pub log_bytes: u64,
}

impl BuilderReport {
    /// What a group counted is exact, and whoever it killed was killed by a limit.
    pub(crate) fn take_group(&mut self, group: GroupReport, allowed: Option<u64>) {
        if let (BuilderExit::Signaled(libc::SIGKILL), Some(allowed)) = (self.exit, allowed)
            && group.out_of_memory_kills > 0
        {
            let used = group.memory_peak_bytes.unwrap_or(allowed);
            self.exit = BuilderExit::OverLimit { limit: Limit::Memory, allowed, used };
        }
        self.used.memory_bytes = group.memory_peak_bytes.or(self.used.memory_bytes);
        self.used.processes = group.processes_peak.or(self.used.processes);
        self.cpu_user = group.cpu_user.unwrap_or(self.cpu_user);
        self.cpu_system = group.cpu_system.unwrap_or(self.cpu_system);
        self.control_group = Some(group);
    }
}

/// The most that was seen of each resource by looking now and then. Short builds are over before somebody looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Bytes of memory of all processes, shared ones once, and of the tmpfs.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Bytes on disk.
    pub scratch_bytes: Option<u64>,
    /// Files and directories.
    pub scratch_files: Option<u64>,
    /// Settings of the plan that this kernel, or a read-only `/proc/sys`, did not take.
    pub refused_settings: Vec<String>,
}

/// What a control group counted, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Its controllers.
    pub controllers: BTreeSet<String>,
    /// `memory.peak`
    pub memory_peak_bytes: Option<u64>,
    /// `pids.peak`
    pub processes_peak: Option<u64>,
    /// How often the kernel killed for want of memory.
    pub out_of_memory_kills: u64,
    /// How often a process could not be made.
    pub refused_processes: u64,
    /// Processor time of the user.
    pub cpu_user: Option<Duration>,
    /// Processor time of the kernel.
    pub cpu_system: Option<Duration>,
}

/// How the builder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuilderExit {
    /// By exit(2), or 1 when it could not be executed at all (the log then says why, in Nix's words).
    Exited(i32),
    /// By this signal.
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
    /// Killed for using more of something than it may.
    OverLimit {
        /// Of what.
        limit: Limit,
        /// How much it may.
        allowed: u64,
        /// How much it was when somebody looked.
        used: u64,
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
