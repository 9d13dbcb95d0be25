//! After the builder: what became of its outputs, and what to tell about it.

use crate::{
    BuildRequest,
    advice::advice,
    error::BuildError,
    inspect::{self, InspectError, Inspection, Instructions},
    load::Loaded,
    locate::{self, ReferenceHit, Wanted},
    outcome::{BuildOutcome, HashReport, OutputReport, Status, is_reference},
    outcome_clock::{Clock, now},
    prepare::{Prepared, Refused},
    run::Ran,
};
use fodder_model::{
    checks::{self, OutputFacts, Violation},
    scan::Candidates,
    store_path::StorePath,
};
use fodder_sandbox::BuilderExit;
use fodder_store::{PathInfo, PathLocks, Registration, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::fd::AsFd,
    path::Path,
};

/// What was found in the outputs, or why they cannot be taken at all.
pub(crate) enum Inspected {
    Outputs(BTreeMap<String, Inspection>),
    Rejected(String),
}

/// The judgement on outputs that could be read.
pub(crate) struct Verdict {
    outputs: BTreeMap<String, Inspection>,
    status: Status,
    message: String,
    violations: Vec<Violation>,
    references: Vec<ReferenceHit>,
}

/// The outcome when all outputs are valid already; `None` when there is something to build.
pub(crate) fn already_valid(loaded: &Loaded, store: &Store, clock: &Clock) -> Result<Option<BuildOutcome>, BuildError> {
    let mut outputs = BTreeMap::new();
    for (name, path) in loaded.derivation.known_output_paths() {
        let Some(path) = path else { return Ok(None) };
        let Some(info) = store.query(&path)? else { return Ok(None) };
        outputs.insert(name.to_owned(), report(&info, store));
    }
    let mut outcome = outcome(loaded, Status::AlreadyValid, String::new(), clock);
    outcome.outputs = outputs;
    outcome.hash = loaded.derivation.fixed_content().map(|content| HashReport { specified: content.hash, got: None });
    Ok(Some(outcome))
}

/// The outcome of a derivation that is not built here.
pub(crate) fn refused(loaded: &Loaded, refused: Refused, clock: &Clock) -> BuildOutcome {
    let status = match &refused {
        Refused::MissingDependency { .. } | Refused::MissingDerivation(_) => Status::DependencyFailed,
        Refused::MissingSource(_) | Refused::Plan(_) => Status::InputRejected,
    };
    let message = format!("Cannot build '{}'.\nReason: {refused}", loaded.path);
    outcome(loaded, status, message, clock)
}

/// The outcome of a builder that failed.
pub(crate) fn failed(
    loaded: &Loaded,
    prepared: Prepared,
    ran: Ran,
    request: &BuildRequest,
    clock: &Clock,
) -> Result<BuildOutcome, BuildError> {
    let (status, reason) = match ran.report.exit {
        BuilderExit::Exited(code) => (Status::PermanentFailure, format!("builder failed with exit code {code}")),
        BuilderExit::Signaled(signal) => {
            (Status::PermanentFailure, format!("builder failed due to signal {signal} ({})", signal_words(signal)))
        }
        BuilderExit::TimedOut { seconds } => (Status::TimedOut, format!("timed out after {seconds} seconds")),
        BuilderExit::Silent { seconds } => (Status::TimedOut, format!("timed out after {seconds} seconds of silence")),
        BuilderExit::LogLimitExceeded { bytes } => {
            (Status::LogLimitExceeded, format!("killed after writing more than {bytes} bytes of log output"))
        }
        BuilderExit::Cancelled => return Err(BuildError::Cancelled),
    };
    let mut message = format!("Cannot build '{}'.\nReason: {reason}.\nOutput paths:", loaded.path);
    for path in prepared.plan.outputs.values() {
        message.push_str(&format!("\n  {path}"));
    }
    if !ran.tail.is_empty() {
        message.push_str(&format!("\nLast {} log lines:", ran.tail.len()));
        for line in &ran.tail {
            message.push_str(&format!("\n> {line}"));
        }
        message.push_str(&format!("\nFor full logs, see:\n  {}", ran.log_file.display()));
    }
    let mut outcome = ran_outcome(loaded, &prepared, &ran, status, message, clock);
    outcome.notes.extend(advice(&prepared.plan, loaded.format, &ran.tail));
    keep_or_remove(outcome, prepared, request)
}

/// strsignal(3) in glibc's words.
fn signal_words(signal: i32) -> &'static str {
    match signal {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        31 => "Bad system call",
        _ => "Unknown signal",
    }
}

/// Walks every output.
pub(crate) fn inspect_outputs(prepared: &Prepared) -> Result<Inspected, BuildError> {
    let plan = &prepared.plan;
    let candidates = Candidates::new(prepared.inputs.keys().chain(plan.outputs.values()));
    let nothing = Candidates::new([]);
    let mut outputs = BTreeMap::new();
    for (name, path) in &plan.outputs {
        let shown = plan.sandbox.root_mount_point.as_path().with_file_name("store").join(path.base_name());
        let instructions = Instructions {
            candidates: if plan.discard_references.contains(name) { &nothing } else { &candidates },
            content: plan.content.map(|content| (content.method, content.hash.algorithm())),
            canonicalise: true,
            builder: prepared.user.as_ref().map(|user| user.uid),
        };
        match inspect::inspect(prepared.outputs.as_fd(), OsStr::new(path.base_name()), &shown, &instructions) {
            Ok(inspection) => drop(outputs.insert(name.clone(), inspection)),
            Err(error) if error.is_rejection() => {
                return Ok(Inspected::Rejected(rejection(plan, name, &error)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Inspected::Outputs(outputs))
}

/// Nix's words for an output that cannot be taken.
fn rejection(plan: &fodder_model::plan::BuildPlan, name: &str, error: &InspectError) -> String {
    match error {
        InspectError::Missing { path } => format!(
            "builder for '{}' failed to produce output path for output '{name}' at \"{}\"",
            plan.derivation,
            path.display()
        ),
        InspectError::Suspicious { path } => format!(
            "suspicious ownership or permission on \"{}\" for output '{name}'; rejecting this build output",
            path.display()
        ),
        InspectError::Nar { path, source } => format!("path '{}' {source}", path.display()),
        InspectError::UnsupportedType { .. } | InspectError::System { .. } => error.to_string(),
    }
}

/// Judges what was found.
pub(crate) fn judge(
    prepared: &Prepared,
    inspected: Inspected,
    store: &Store,
    request: &BuildRequest,
) -> Result<Verdict, BuildError> {
    let plan = &prepared.plan;
    let mut verdict = Verdict {
        outputs: BTreeMap::new(),
        status: Status::Built,
        message: String::new(),
        violations: Vec::new(),
        references: Vec::new(),
    };
    let outputs = match inspected {
        Inspected::Outputs(outputs) => outputs,
        Inspected::Rejected(message) => {
            verdict.status = Status::OutputRejected;
            verdict.message = message;
            return Ok(verdict);
        }
    };
    let facts: BTreeMap<String, OutputFacts> =
        outputs.iter().map(|(name, inspection)| (name.clone(), facts(&plan.outputs[name], inspection))).collect();
    let closure = prepared
        .inputs
        .iter()
        .map(|(path, input)| (path.clone(), (input.references.clone(), input.nar_size)))
        .collect();
    verdict.outputs = outputs;
    if let Some(message) = cycle(plan, &facts) {
        verdict.status = Status::OutputRejected;
        verdict.message = message;
        return Ok(verdict);
    }
    verdict.violations = checks::check(&plan.rules, &facts, &closure);
    verdict.references = reference_hits(prepared, &verdict.violations)?;
    if let Some(leading) = leading(&verdict.violations, plan.rules.fixed) {
        verdict.status = match leading {
            Violation::HashMismatch { .. } => Status::HashMismatch,
            Violation::NotAPlainFile { .. }
            | Violation::FixedRefers { .. }
            | Violation::Disallowed { .. }
            | Violation::UnknownOutput { .. }
            | Violation::TooLarge { .. }
            | Violation::ClosureTooLarge { .. } => Status::OutputRejected,
        };
        verdict.message = std::iter::once(leading)
            .chain(verdict.violations.iter().filter(|violation| *violation != leading))
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        return Ok(verdict);
    }
    if request.rebuild {
        for (name, path) in &plan.outputs {
            if let Some(info) = store.query(path)?
                && info.nar_hash != verdict.outputs[name].nar_hash
            {
                verdict.status = Status::NotDeterministic;
                verdict.message = format!(
                    "derivation '{}' may not be deterministic: output \"{path}\" differs\nbefore: {}\nnow:    {}",
                    plan.derivation, info.nar_hash, verdict.outputs[name].nar_hash
                );
                break;
            }
        }
    }
    Ok(verdict)
}

/// The violation that names the outcome. A person who asks for the hash of an output that may not exist at all is told so first:
/// no hash would help.
fn leading(violations: &[Violation], specified: Option<fodder_model::hash::Hash>) -> Option<&Violation> {
    let asks = specified.is_some_and(|hash| hash.is_zero());
    let reference = violations.iter().find(|violation| is_reference(violation));
    if asks { reference.or(violations.first()) } else { violations.first() }
}

fn facts(path: &StorePath, inspection: &Inspection) -> OutputFacts {
    OutputFacts {
        path: path.clone(),
        nar_hash: inspection.nar_hash,
        nar_size: inspection.nar_size,
        references: inspection.references.clone(),
        content: inspection.content,
        is_plain_file: inspection.is_plain_file,
    }
}

/// Outputs that refer to each other in a circle cannot be registered one after the other.
fn cycle(plan: &fodder_model::plan::BuildPlan, facts: &BTreeMap<String, OutputFacts>) -> Option<String> {
    let names: BTreeMap<&StorePath, &String> = facts.iter().map(|(name, facts)| (&facts.path, name)).collect();
    let mut settled: BTreeSet<&String> = BTreeSet::new();
    loop {
        let waiting: Vec<(&String, &String)> = facts
            .iter()
            .filter(|(name, _)| !settled.contains(name))
            .filter_map(|(name, facts)| {
                let blocked = |other: &&&String| **other != name && !settled.contains(**other);
                facts.references.iter().filter_map(|path| names.get(path)).find(blocked).map(|other| (name, *other))
            })
            .collect();
        let before = settled.len();
        settled.extend(facts.keys().filter(|name| !waiting.iter().any(|(blocked, _)| blocked == name)));
        match waiting.first() {
            None => return None,
            Some((to, from)) if settled.len() == before => {
                return Some(format!(
                    "cycle detected in build of '{}' in the references of output '{from}' from output '{to}'",
                    plan.derivation
                ));
            }
            Some(_) => {}
        }
    }
}

/// Every place in the outputs that mentions a path which it must not.
fn reference_hits(prepared: &Prepared, violations: &[Violation]) -> Result<Vec<ReferenceHit>, BuildError> {
    let mut forbidden: BTreeSet<&StorePath> = BTreeSet::new();
    for violation in violations {
        match violation {
            Violation::FixedRefers { references, derivation: _ } => forbidden.extend(references),
            Violation::Disallowed { paths, path: _, attribute: _ } => forbidden.extend(paths),
            Violation::NotAPlainFile { .. }
            | Violation::HashMismatch { .. }
            | Violation::UnknownOutput { .. }
            | Violation::TooLarge { .. }
            | Violation::ClosureTooLarge { .. } => {}
        }
    }
    let mut hits = Vec::new();
    if !forbidden.is_empty() {
        let candidates = Candidates::new(forbidden);
        let store = prepared.plan.sandbox.root_mount_point.as_path().with_file_name("store");
        for path in prepared.plan.outputs.values() {
            locate::locate(&store.join(path.base_name()), Wanted::Paths(&candidates), &mut |hit| hits.push(hit))?;
        }
    }
    Ok(hits)
}

/// Moves good outputs into the store and registers them in one transaction; bad ones never leave scratch.
#[expect(clippy::too_many_arguments, reason = "the end of the line: everything that was found on it meets here")]
pub(crate) fn register(
    loaded: &Loaded,
    prepared: Prepared,
    ran: Ran,
    verdict: Verdict,
    store: &Store,
    locks: PathLocks<'_>,
    request: &BuildRequest,
    clock: &Clock,
) -> Result<BuildOutcome, BuildError> {
    let Verdict { outputs, status, message, violations, references } = verdict;
    let mut outcome = ran_outcome(loaded, &prepared, &ran, status, message, clock);
    outcome.violations = violations;
    outcome.references = references;
    outcome.hash = prepared.plan.content.map(|content| HashReport {
        specified: content.hash,
        got: outputs.get("out").and_then(|inspection| inspection.content).map(|content| content.hash),
    });
    if status != Status::Built {
        return keep_or_remove(outcome, prepared, request);
    }
    let mut registrations = Vec::new();
    for (name, path) in &prepared.plan.outputs {
        if let Some(info) = store.query(path)? {
            outcome.outputs.insert(name.clone(), report(&info, store));
            continue;
        }
        let inspection = &outputs[name];
        let info = PathInfo {
            path: path.clone(),
            nar_hash: inspection.nar_hash,
            nar_size: inspection.nar_size,
            references: inspection.references.clone(),
            deriver: Some(loaded.path.clone()),
            registration_time: now(),
            ultimate: true,
            signatures: Vec::new(),
            content_address: inspection.content.map(|content| content.to_string()),
        };
        store.publish(&locks, prepared.outputs.as_fd(), OsStr::new(path.base_name()), path)?;
        outcome.outputs.insert(name.clone(), report(&info, store));
        registrations.push(Registration::from(info));
    }
    store.register(&registrations)?;
    drop(locks);
    prepared.scratch.remove()?;
    Ok(outcome)
}

fn keep_or_remove(
    mut outcome: BuildOutcome,
    prepared: Prepared,
    request: &BuildRequest,
) -> Result<BuildOutcome, BuildError> {
    if request.keep_failed {
        outcome.kept = Some(prepared.scratch.keep()?);
    } else {
        prepared.scratch.remove()?;
    }
    Ok(outcome)
}

fn report(info: &PathInfo, store: &Store) -> OutputReport {
    OutputReport {
        path: info.path.clone(),
        real_path: store.real_path(&info.path),
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references.clone(),
        ca: info.content_address.clone(),
    }
}

fn ran_outcome(
    loaded: &Loaded,
    prepared: &Prepared,
    ran: &Ran,
    status: Status,
    message: String,
    clock: &Clock,
) -> BuildOutcome {
    let mut outcome = outcome(loaded, status, message, clock);
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    outcome.isolation = Some(ran.report.enforced.clone());
    outcome.network = Some(prepared.plan.network.clone());
    outcome.profile = Some(prepared.plan.profile.clone());
    outcome.impure_variables = prepared.plan.impure_variables.clone();
    outcome.log_file = Some(Path::new(&ran.log_file).to_owned());
    outcome.cpu_user = Some(micros(ran.report.cpu_user));
    outcome.cpu_system = Some(micros(ran.report.cpu_system));
    outcome.notes = prepared.plan.notes.clone();
    outcome
}

pub(crate) fn outcome(loaded: &Loaded, status: Status, error_msg: String, clock: &Clock) -> BuildOutcome {
    BuildOutcome {
        version: 1,
        success: matches!(status, Status::Built | Status::AlreadyValid | Status::Substituted),
        status,
        error_msg,
        drv_path: loaded.path.clone(),
        outputs: BTreeMap::new(),
        hash: None,
        isolation: None,
        network: None,
        profile: None,
        impure_variables: Vec::new(),
        violations: Vec::new(),
        references: Vec::new(),
        dependencies: Vec::new(),
        log_file: None,
        kept: None,
        start_time: clock.start,
        stop_time: now(),
        cpu_user: None,
        cpu_system: None,
        notes: loaded.notes.clone(),
    }
}
