//! What a build may use up: one table of limits, how they are written, what they are when nobody says, and who may change them.
//!
//! Whoever builds may raise, lower or lift every one of them, by command line or profile. A file that is built can only lower.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// A limit, by the name that it has everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "LIMITS describes each")]
pub enum Limit {
    Time,
    Silence,
    LogSize,
    LogFile,
    LogLine,
    Memory,
    Processes,
    ScratchSize,
    ScratchFiles,
    FileSize,
    OutputSize,
    OutputFiles,
    SharedMemory,
    Data,
    OpenFiles,
    LockedMemory,
    MessageQueues,
    InotifyInstances,
    InotifyWatches,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Written with or without K, M, G, T, each 1024 of the one before.
    Bytes,
    /// Written with or without s, m, h, d.
    Seconds,
    /// A number.
    Count,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct LimitInfo {
    /// Which.
    pub limit: Limit,
    /// As it is written.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it is when nobody says.
    pub default: &'static str,
    /// What is limited, and how.
    pub description: &'static str,
}

const fn row(
    limit: Limit,
    name: &'static str,
    unit: Unit,
    default: &'static str,
    description: &'static str,
) -> LimitInfo {
    LimitInfo { limit, name, unit, default, description }
}

use Unit::{Bytes, Count, Seconds};

/// Every limit. Parser, `explain` and documentation read this.
pub const LIMITS: [LimitInfo; 19] = [
    row(Limit::Time, "time", Seconds, "24h", "from the start to the end of a build; also `--timeout`"),
    row(Limit::Silence, "silence", Seconds, "2h", "without a byte of log; also `--max-silent-time`"),
    row(Limit::LogSize, "log-size", Bytes, "1G", "all that the build writes to its log; also `--max-build-log-size`"),
    row(
        Limit::LogFile,
        "log-file",
        Bytes,
        "64M",
        "what is kept of the log: the beginning and the end; the build goes on",
    ),
    row(Limit::LogLine, "log-line", Bytes, "1M", "what is kept of one line of the log; the build goes on"),
    row(Limit::Memory, "memory", Bytes, "the machine's", "memory of all processes of a build together, and its tmpfs"),
    row(Limit::Processes, "processes", Count, "4096 and 256 a processor", "processes and threads at one time"),
    row(
        Limit::ScratchSize,
        "scratch-size",
        Bytes,
        "what is free on the store's disk, without a reserve",
        "disk that the build directory, `/tmp` and the outputs take while it builds",
    ),
    row(Limit::ScratchFiles, "scratch-files", Count, "10000000, or 9 of 10 free inodes", "files and directories there"),
    row(Limit::FileSize, "file-size", Bytes, "the size of the store's disk", "length of one file, holes included"),
    row(Limit::OutputSize, "output-size", Bytes, "as scratch-size", "length of one output's files, holes included"),
    row(Limit::OutputFiles, "output-files", Count, "as scratch-files", "files, directories and links in one output"),
    row(Limit::SharedMemory, "shared-memory", Bytes, "half of the memory", "`/dev/shm` and other tmpfs, each"),
    row(
        Limit::Data,
        "data",
        Bytes,
        "none",
        "writable private memory of one process that is promised, used or not (RLIMIT_DATA)",
    ),
    row(Limit::OpenFiles, "open-files", Count, "yours, at most 524288", "open files of one process"),
    row(Limit::LockedMemory, "locked-memory", Bytes, "yours, at most 8M", "memory of one process that is not swapped"),
    row(Limit::MessageQueues, "message-queues", Bytes, "800K", "POSIX message queues"),
    row(
        Limit::InotifyInstances,
        "inotify-instances",
        Count,
        "half of yours",
        "watchers of files; the kernel counts them as yours",
    ),
    row(Limit::InotifyWatches, "inotify-watches", Count, "half of yours", "watched files, likewise"),
];

impl Limit {
    /// Its row.
    pub fn info(self) -> &'static LimitInfo {
        // The table has a row for each, which a test sees to.
        LIMITS.iter().find(|info| info.limit == self).unwrap_or(&LIMITS[0])
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// A value of this limit, for people.
    pub fn words(self, value: u64) -> String {
        match self.info().unit {
            Unit::Bytes => bytes_words(value),
            Unit::Seconds => format!("{value} seconds"),
            Unit::Count => value.to_string(),
        }
    }

    /// How whoever builds raises it.
    pub fn flag(self) -> String {
        format!("--limit {}=VALUE", self.name())
    }

    /// Reads a value: a number with a unit, or `none`.
    pub fn parse_value(self, text: &str) -> Result<Option<u64>, LimitError> {
        let wrong = || LimitError::Value {
            limit: self,
            text: text.to_owned(),
            expected: match self.info().unit {
                Unit::Bytes => "a number of bytes such as 500M or 8G",
                Unit::Seconds => "a time such as 90, 30m or 24h",
                Unit::Count => "a number",
            },
        };
        if matches!(text, "none" | "unlimited") {
            return Ok(None);
        }
        let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
        let suffix = &text[digits.len()..];
        let factor = match (self.info().unit, suffix) {
            (_, "") => 1,
            (Unit::Bytes, "K" | "k" | "KiB") => 1 << 10,
            (Unit::Bytes, "M" | "MiB") => 1 << 20,
            (Unit::Bytes, "G" | "GiB") => 1 << 30,
            (Unit::Bytes, "T" | "TiB") => 1 << 40,
            (Unit::Seconds, "s") => 1,
            (Unit::Seconds, "m") => 60,
            (Unit::Seconds, "h") => 3600,
            (Unit::Seconds, "d") => 86_400,
            (Unit::Bytes | Unit::Seconds | Unit::Count, _) => return Err(wrong()),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u64>().ok().filter(|number| is_number && *number > 0).ok_or_else(wrong)?;
        number.checked_mul(factor).map(Some).ok_or_else(wrong)
    }
}

/// `12.5 GiB (13421772800 bytes)`
fn bytes_words(value: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| value >= *size) {
        Some((unit, size)) if value.is_multiple_of(*size) => format!("{} {unit}", value / size),
        Some((unit, size)) => format!("{:.1} {unit} ({value} bytes)", value as f64 / *size as f64),
        None => format!("{value} bytes"),
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a limit cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No `=`.
    #[error("'{0}' is not NAME=VALUE")]
    NoValue(String),
    /// No such limit.
    #[error("there is no limit '{name}'; there are {}", names())]
    Unknown {
        /// As written.
        name: String,
    },
    /// Not a value of it.
    #[error("'{text}' is not a value of the limit '{limit}'; it takes {expected}, or 'none'")]
    Value {
        /// Which limit.
        limit: Limit,
        /// As written.
        text: String,
        /// What it takes.
        expected: &'static str,
    },
}

fn names() -> String {
    LIMITS.iter().map(|info| info.name).collect::<Vec<_>>().join(", ")
}

/// Limits that somebody set; `None` lifts one.
pub type LimitSettings = BTreeMap<Limit, Option<u64>>;

/// Finds a limit by its name.
pub fn find(name: &str) -> Result<Limit, LimitError> {
    let row = LIMITS.iter().find(|info| info.name == name);
    row.map(|info| info.limit).ok_or_else(|| LimitError::Unknown { name: name.to_owned() })
}

/// Reads `NAME=VALUE`.
pub fn parse_setting(text: &str) -> Result<(Limit, Option<u64>), LimitError> {
    let (name, value) = text.split_once('=').ok_or_else(|| LimitError::NoValue(text.to_owned()))?;
    let limit = find(name)?;
    Ok((limit, limit.parse_value(value)?))
}

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
const RESERVE_BYTES: u64 = 2 << 30;

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

#[cfg(test)]
mod tests;
