//! What a build may use up: one table of limits, how they are written, what they are when nobody says, and who may change them.
//!
//! Whoever builds may raise, lower or lift every one of them, by command line or profile. A file that is built can only lower.

mod decide;

pub use decide::{ControlGroup, Decided, DecidedLimits, Enforcement, MachineResources, Origin, decide, value};

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

#[cfg(test)]
mod tests;
