//! What a build came to. A failed build is a value of this; an error means that we could not find out.

use crate::{
    RecordingReport, fetch::FetchEvent, limits::LimitsReport, locate::ReferenceHit, network_problem::NetworkProblem,
};
use fodder_gateway::{HostEntry, NameEntry};
use fodder_model::{bytes::ByteString, checks::Violation, hash::Hash, plan::NetworkMode, store_path::StorePath};
use fodder_sandbox::Enforced;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// How a build ended, in the words of Nix's build results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the words are Nix's")]
pub enum Status {
    Built,
    AlreadyValid,
    Substituted,
    PermanentFailure,
    TimedOut,
    HashMismatch,
    OutputRejected,
    InputRejected,
    LogLimitExceeded,
    NotDeterministic,
    DependencyFailed,
    MiscFailure,
}

/// The result of one derivation. Field names are those of Nix's build result where it has them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildOutcome {
    /// Of this format.
    pub version: u32,
    /// Whether all outputs are valid now.
    pub success: bool,
    /// How it ended.
    pub status: Status,
    /// What went wrong, in words; empty when nothing did.
    pub error_msg: String,
    /// The derivation.
    pub drv_path: StorePath,
    /// Outputs that are valid, by name.
    pub outputs: BTreeMap<String, OutputReport>,
    /// Declared and found hash of a fixed output.
    pub hash: Option<HashReport>,
    /// What the builder ran under; `None` when it did not run.
    pub isolation: Option<Enforced>,
    /// How it was connected, why, and who was called; `None` when it did not run.
    pub network: Option<NetworkReport>,
    /// What it might use, what it used, and what ended it; `None` when it did not run.
    pub limits: Option<LimitsReport>,
    /// The profile.
    pub profile: Option<String>,
    /// Variables whose values were the caller's.
    pub impure_variables: Vec<ByteString>,
    /// Everything that outputs were found guilty of.
    pub violations: Vec<Violation>,
    /// The places that mention a path which must not be mentioned there: the first thousand.
    pub references: Vec<ReferenceHit>,
    /// How many more there are.
    pub references_omitted: u64,
    /// What had to be built first, in the order in which it ended.
    pub dependencies: Vec<BuildOutcome>,
    /// The whole log.
    pub log_file: Option<PathBuf>,
    /// What `--keep-failed` left.
    pub kept: Option<PathBuf>,
    /// Seconds since 1970.
    pub start_time: i64,
    /// Seconds since 1970.
    pub stop_time: i64,
    /// Microseconds of processor time; `None` when the builder did not run.
    pub cpu_user: Option<u64>,
    /// Microseconds of the kernel's time on its behalf.
    pub cpu_system: Option<u64>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// The network of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkReport {
    /// Which.
    pub mode: NetworkMode,
    /// Why.
    pub why: String,
    /// Who was called; only a gateway knows.
    pub hosts: Vec<HostEntry>,
    /// Whose addresses were asked for; likewise.
    pub names: Vec<NameEntry>,
    /// What kept a build that failed from getting what it wanted.
    pub problem: Option<NetworkProblem>,
    /// Whether connections to all ports reached the gateway, or only to those that fetchers use: a kernel without nf_tables can do
    /// no more, and refuses the others. `None` without a gateway.
    pub all_ports: Option<bool>,
    /// What was recorded, or answered from a recording.
    pub recording: Option<RecordingReport>,
}

/// A valid output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputReport {
    /// Its store path.
    pub path: StorePath,
    /// Where it is on disk.
    pub real_path: PathBuf,
    /// SHA-256 of its NAR.
    pub nar_hash: Hash,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// What it refers to.
    pub references: BTreeSet<StorePath>,
    /// Its content address, as databases spell it.
    pub ca: Option<String>,
}

/// Hashes of a fixed output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HashReport {
    /// In the derivation; all zero for "tell me".
    pub specified: Hash,
    /// Of what was built; `None` when it has none.
    pub got: Option<Hash>,
}

/// The exit code for an outcome: Nix's own numbers, and 112 for forbidden references, which Nix does not tell apart. A failed
/// dependency gives its own.
pub fn exit_code(outcome: &BuildOutcome) -> u8 {
    match outcome.status {
        Status::Built | Status::AlreadyValid | Status::Substituted => 0,
        Status::DependencyFailed => outcome.dependencies.iter().map(exit_code).find(|code| *code != 0).unwrap_or(100),
        Status::PermanentFailure | Status::InputRejected => 100,
        Status::TimedOut => 101,
        Status::HashMismatch => 102,
        Status::NotDeterministic => 104,
        Status::OutputRejected if outcome.violations.iter().any(is_reference) => 112,
        Status::OutputRejected | Status::LogLimitExceeded | Status::MiscFailure => 1,
    }
}

/// Whether a violation is about references.
pub(crate) fn is_reference(violation: &Violation) -> bool {
    match violation {
        Violation::FixedRefers { .. }
        | Violation::NoPlaceForReferences { .. }
        | Violation::SelfReference { .. }
        | Violation::Disallowed { .. } => true,
        Violation::NotAPlainFile { .. }
        | Violation::HashMismatch { .. }
        | Violation::UnknownOutput { .. }
        | Violation::TooLarge { .. }
        | Violation::ClosureTooLarge { .. } => false,
    }
}

/// Something that happens during a build.
#[derive(Debug)]
pub enum Event {
    /// Paths are copied from binary caches.
    Fetch(FetchEvent),
    /// A piece of the builder's log, raw.
    Log(Vec<u8>),
    /// Another process builds the same path, and we wait for it.
    WaitingFor(StorePath),
    /// The builder has been started.
    Started,
    /// The builder has ended and its outputs are being read.
    Inspecting,
}
