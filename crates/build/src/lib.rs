//! The straight line from a derivation to a registered store path. Prints nothing and never exits.
#![forbid(unsafe_code)]

mod advice;
pub mod builtin;
mod clock;
mod conclude;
mod dependencies;
pub mod error;
pub mod fetch;
pub mod host;
mod inputs;
pub mod inspect;
mod judge;
mod known;
mod limits;
pub mod load;
pub mod locate;
mod log_file;
mod network_problem;
pub mod outcome;
mod prepare;
mod recording;
mod run;
mod settle;
mod sources;
mod substitute;

pub use dependencies::build_with_dependencies;
pub use error::BuildError;
pub use fetch::{FetchEvent, Fetched, Fetcher, Substitution, upload};
pub use fodder_store::chain;
pub use known::resolve_if_possible;
pub use limits::{ExceededLimit, LimitReport, LimitsReport};
pub use network_problem::{NetworkProblem, ProblemKind};
pub use outcome::{BuildOutcome, Event, Status, exit_code};
pub use prepare::{Prepared, Refused, prepare, prepare_to_explain};
pub use recording::{RecordingReport, RecordingRequest};
pub use run::announced_phase;

use fodder_model::plan::{NetworkMode, Settings};
use fodder_sandbox::{BuilderExit, Sandbox};
use fodder_store::Store;
use load::Loaded;
use std::path::PathBuf;

/// What a person asks for, apart from the derivation.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Limits, network, extra paths.
    pub settings: Settings,
    /// Profile by name, or text of one; the input's own choice when absent.
    pub profile: Option<ProfileChoice>,
    /// `--ca-file`
    pub ca_file: Option<PathBuf>,
    /// `--netrc-file`: passwords for servers, for `builtin:fetchurl`.
    pub netrc_file: Option<PathBuf>,
    /// Build although the outputs are valid, and compare.
    pub rebuild: bool,
    /// Keep scratch and outputs of a build that failed.
    pub keep_failed: bool,
    /// Never use the network.
    pub offline: bool,
    /// How many derivations are built at once; 0 counts as 1.
    pub max_jobs: usize,
    /// Go on with what does not depend on a failure.
    pub keep_going: bool,
    /// Where to look for what would otherwise be built.
    pub substitution: Substitution,
    /// Whether to record what the build exchanges, or to answer it from a recording. Either way it is built, even if its outputs
    /// are valid. Only the derivation itself is meant, not what must be built before it.
    pub recording: Option<RecordingRequest>,
}

impl BuildRequest {
    /// Whether the builder runs although the outputs are valid.
    fn must_build(&self) -> bool {
        self.rebuild || self.recording.is_some()
    }

    /// Whether there is no network for anything but the recorded build itself.
    fn calls_nobody(&self) -> bool {
        self.offline || matches!(self.recording, Some(RecordingRequest::Replay(_)))
    }

    fn settings(&self) -> Settings {
        // A replay calls nobody either, but it has a door.
        let network = if self.offline && !matches!(self.recording, Some(RecordingRequest::Replay(_))) {
            Some(NetworkMode::None)
        } else {
            self.settings.network
        };
        Settings { network, ..self.settings.clone() }
    }
}

/// A sandbox profile.
#[derive(Clone, Debug)]
pub enum ProfileChoice {
    /// One that is compiled in.
    Named(String),
    /// The text of a file.
    Text {
        /// For errors.
        name: String,
        /// TOML.
        text: String,
    },
}

/// Builds one derivation whose inputs are valid. This is the whole of it; each line is a module.
pub fn build(
    loaded: &Loaded,
    store: &Store,
    sandbox: &Sandbox,
    request: &BuildRequest,
    observe: &mut dyn FnMut(Event),
) -> Result<BuildOutcome, BuildError> {
    let clock = clock::Clock::start();
    sources::add_sources(loaded, store, clock.start)?;
    let locks = prepare::lock_outputs(loaded, store, observe)?;
    let known = known::Known::new(&loaded.set, store);
    let previous = known.valid_outputs(&loaded.path, &loaded.derivation, None)?;
    if let (Some(valid), false) = (&previous, request.must_build()) {
        return Ok(conclude::already_valid(loaded, valid, store, &clock));
    }
    // It starts while the plan is made.
    let helper = sandbox.start()?;
    let mut prepared = match prepare(loaded, store, request)? {
        Ok(prepared) => prepared,
        Err(refused) => return Ok(conclude::refused(loaded, refused, &clock)),
    };
    // Nothing waits for the derivation's own path, so it is written while the builder runs.
    let ran = std::thread::scope(|scope| {
        let adding = scope.spawn(|| sources::add_derivation(loaded, store, clock.start));
        let ran = run::run(&prepared, store, helper, request, observe);
        match adding.join() {
            Ok(added) => added.and(ran),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    if let Some(report) = &ran.recording {
        prepared.plan.notes.extend(recording::notes(report, &prepared.tap, &loaded.path.to_string()));
    }
    if ran.report.exit != BuilderExit::Exited(0) || !ran.missing().is_empty() {
        return conclude::failed(loaded, prepared, ran, request, &clock);
    }
    observe(Event::Inspecting);
    let inspected = judge::inspect_outputs(&prepared)?;
    let verdict = judge::judge(&prepared, inspected, &previous.unwrap_or_default())?;
    let outcome = conclude::register(loaded, prepared, ran, verdict, store, locks, request, &clock, observe)?;
    if outcome.success {
        known.remember(loaded, &outcome, clock.start)?;
    }
    Ok(outcome)
}
