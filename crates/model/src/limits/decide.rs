//! What a limit is in the end: from the machine, the profile, the person and the file; and who keeps it.

use super::{LIMITS, Limit, LimitInfo, LimitSettings};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the machine has to give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineResources {
    /// Bytes of memory, or fewer if we ourselves may have fewer.
    pub memory_bytes: u64,
    /// Processors.
    pub processors: u64,
    /// Size of the file system where builds take place; `None` when it does not say.
    pub disk_bytes: Option<u64>,
    /// What of it is free for us.
    pub disk_free_bytes: Option<u64>,
    /// Free inodes; `None` where they are made as they are needed.
    pub disk_free_files: Option<u64>,
    /// Soft limit of open files.
    pub open_files: Option<u64>,
    /// Limit of locked memory.
    pub locked_memory_bytes: Option<u64>,
    /// `user.max_inotify_instances`
    pub inotify_instances: Option<u64>,
    /// `user.max_inotify_watches`
    pub inotify_watches: Option<u64>,
    /// A control group that is ours to divide.
    pub control_group: ControlGroup,
}

/// Whether a control group can be had; decided by looking, changed by nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlGroup {
    /// Groups can be made below this directory, and limit memory and processes.
    Delegated {
        /// On the host.
        directory: crate::bytes::ByteString,
    },
    /// They cannot.
    Absent {
        /// Why, and what would help.
        why: String,
    },
}

impl Default for ControlGroup {
    fn default() -> Self {
        ControlGroup::Absent { why: "nobody has looked".to_owned() }
    }
}

/// Who set a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Nobody: it is the default.
    Default,
    /// The profile.
    Profile,
    /// Whoever builds.
    You,
    /// The file that is built, which can only lower it.
    File,
}

/// Who keeps a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// The kernel, for all processes together, by a control group.
    ControlGroup,
    /// The kernel, by setrlimit(2): for the build's own user for processes, else for each process.
    Rlimit,
    /// The helper, which looks several times a second: the limit can be exceeded for a moment.
    Watchdog,
    /// The runner, which has the log, the clock or the outputs in hand.
    Runner,
    /// The kernel, by the size of a file system or a setting of the namespace.
    Kernel,
    /// Nobody: there is no limit.
    Nothing,
}

/// A limit as it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// `None` is without limit.
    pub value: Option<u64>,
    /// Who said so.
    pub origin: Origin,
    /// Who keeps it.
    pub enforcement: Enforcement,
}

/// Every limit with its value.
pub type DecidedLimits = BTreeMap<Limit, Decided>;

/// Room on a disk that builds leave to everybody else: a twentieth of what is free, at most this.
pub(super) const RESERVE_BYTES: u64 = 2 << 30;

/// Files that no package has.
const MOST_FILES: u64 = 10_000_000;

/// What a limit is when nobody says, as generous as this machine can be. `None`: there is none.
fn default_value(limit: Limit, machine: &MachineResources) -> Option<u64> {
    let half = |value: Option<u64>| value.map(|value| (value / 2).max(1));
    match limit {
        Limit::Time => Some(24 * 3600),
        Limit::Silence => Some(2 * 3600),
        Limit::LogSize => Some(1 << 30),
        Limit::LogFile => Some(64 << 20),
        Limit::LogLine => Some(1 << 20),
        Limit::Memory => Some(machine.memory_bytes).filter(|bytes| *bytes > 0),
        Limit::Processes => Some(4096 + 256 * machine.processors),
        Limit::ScratchSize | Limit::OutputSize => {
            machine.disk_free_bytes.map(|free| free - (free / 20).min(RESERVE_BYTES))
        }
        Limit::ScratchFiles | Limit::OutputFiles => {
            Some(machine.disk_free_files.map_or(MOST_FILES, |free| (free / 10 * 9).clamp(1, MOST_FILES)))
        }
        Limit::FileSize => machine.disk_bytes,
        Limit::SharedMemory => half(Some(machine.memory_bytes).filter(|bytes| *bytes > 0)),
        Limit::Data => None,
        Limit::OpenFiles => machine.open_files.map(|yours| yours.min(524_288)),
        Limit::LockedMemory => machine.locked_memory_bytes.map(|yours| yours.min(8 << 20)),
        Limit::MessageQueues => Some(819_200),
        Limit::InotifyInstances => half(machine.inotify_instances),
        Limit::InotifyWatches => half(machine.inotify_watches),
    }
}

/// Who keeps a limit here.
fn enforcement(limit: Limit, group: &ControlGroup) -> Enforcement {
    let has_group = match group {
        ControlGroup::Delegated { directory: _ } => true,
        ControlGroup::Absent { why: _ } => false,
    };
    match limit {
        Limit::Memory | Limit::Processes if has_group => Enforcement::ControlGroup,
        Limit::Memory | Limit::ScratchSize | Limit::ScratchFiles => Enforcement::Watchdog,
        Limit::Processes
        | Limit::FileSize
        | Limit::Data
        | Limit::OpenFiles
        | Limit::LockedMemory
        | Limit::MessageQueues => Enforcement::Rlimit,
        Limit::Time
        | Limit::Silence
        | Limit::LogSize
        | Limit::LogFile
        | Limit::LogLine
        | Limit::OutputSize
        | Limit::OutputFiles => Enforcement::Runner,
        Limit::SharedMemory | Limit::InotifyInstances | Limit::InotifyWatches => Enforcement::Kernel,
    }
}

/// What is in force: the person before the profile before the default; the file that is built can only lower that.
pub fn decide(
    yours: &LimitSettings,
    profile: &LimitSettings,
    file: &LimitSettings,
    machine: &MachineResources,
) -> DecidedLimits {
    let decide = |info: &LimitInfo| {
        let limit = info.limit;
        let (value, origin) = match (yours.get(&limit), profile.get(&limit)) {
            (Some(value), _) => (*value, Origin::You),
            (None, Some(value)) => (*value, Origin::Profile),
            (None, None) => (default_value(limit, machine), Origin::Default),
        };
        let (value, origin) = match file.get(&limit).copied().flatten() {
            Some(lower) if value.is_none_or(|value| lower < value) => (Some(lower), Origin::File),
            Some(_) | None => (value, origin),
        };
        let enforcement = match value {
            Some(_) => enforcement(limit, &machine.control_group),
            None => Enforcement::Nothing,
        };
        (limit, Decided { value, origin, enforcement })
    };
    let mut decided: DecidedLimits = LIMITS.iter().map(decide).collect();
    // Derived from another limit where nobody says: half of the memory that the build may have, and outputs as large as what
    // they are made in.
    for (from, to, divisor) in [
        (Limit::Memory, Limit::SharedMemory, 2),
        (Limit::ScratchSize, Limit::OutputSize, 1),
        (Limit::ScratchFiles, Limit::OutputFiles, 1),
    ] {
        if let Some(to) = decided.get(&to).copied().filter(|decided| decided.origin == Origin::Default).map(|_| to)
            && let Some(source) = decided.get(&from).copied().filter(|source| source.origin != Origin::Default)
            && let Some(value) = source.value
            && let Some(target) = decided.get_mut(&to)
        {
            target.value = Some((value / divisor).max(1));
            target.enforcement = enforcement(to, &machine.control_group);
        }
    }
    decided
}

/// The value of one limit.
pub fn value(decided: &DecidedLimits, limit: Limit) -> Option<u64> {
    decided.get(&limit).and_then(|decided| decided.value)
}
