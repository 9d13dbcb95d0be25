//! The ends of the line: every way in which a build becomes an outcome, and the registration of good outputs.

use crate::{
    BuildRequest,
    advice::advice,
    clock::{Clock, now},
    error::BuildError,
    judge::Verdict,
    limits,
    load::Loaded,
    network_problem,
    outcome::{BuildOutcome, Event, HashReport, NetworkReport, OutputReport, Status},
    prepare::{Prepared, Refused},
    run::Ran,
    settle::Settled,
};
use fodder_gateway::{Ledger, record::Tap};
use fodder_model::{
    plan::{Network, NetworkMode},
    proxy::Proxies,
    store_path::StorePath,
};
use fodder_sandbox::BuilderExit;
use fodder_store::{PathInfo, PathLocks, Registration, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::fd::AsFd,
};

/// The outcome when all outputs are valid already.
pub(crate) fn already_valid(
    loaded: &Loaded,
    valid: &BTreeMap<String, PathInfo>,
    store: &Store,
    clock: &Clock,
) -> BuildOutcome {
    let mut outcome = outcome(loaded, Status::AlreadyValid, String::new(), clock);
    outcome.outputs = valid.iter().map(|(name, info)| (name.clone(), report(info, store))).collect();
    outcome.hash = loaded.derivation.fixed_content().map(|content| HashReport { specified: content.hash, got: None });
    outcome
}

/// The outcome of a derivation that is not built here.
pub(crate) fn refused(loaded: &Loaded, refused: Refused, clock: &Clock) -> BuildOutcome {
    let status = match &refused {
        Refused::MissingDependency { .. } | Refused::MissingDerivation(_) | Refused::NotBuilt(_) => {
            Status::DependencyFailed
        }
        Refused::MissingSource(_) | Refused::Plan(_) | Refused::Input(_) => Status::InputRejected,
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
        BuilderExit::Exited(0) => {
            (Status::PermanentFailure, "the builder succeeded, but not with what was recorded".to_owned())
        }
        BuilderExit::Exited(code) => (Status::PermanentFailure, format!("builder failed with exit code {code}")),
        BuilderExit::Signaled(signal) => {
            (Status::PermanentFailure, format!("builder failed due to signal {signal} ({})", signal_words(signal)))
        }
        BuilderExit::TimedOut { seconds } => (Status::TimedOut, format!("timed out after {seconds} seconds")),
        BuilderExit::Silent { seconds } => (Status::TimedOut, format!("timed out after {seconds} seconds of silence")),
        BuilderExit::LogLimitExceeded { bytes } => {
            let killed = format!("killed after writing more than {bytes} bytes of log output");
            (Status::LogLimitExceeded, format!("building derivation '{}' {killed}", loaded.path))
        }
        BuilderExit::OverLimit { limit, allowed, used } => {
            (Status::PermanentFailure, limits::exceeded_words(limit, allowed, used))
        }
        BuilderExit::Cancelled => return Err(BuildError::Cancelled),
    };
    let mut message = format!("Cannot build '{}'.\nReason: {reason}.", loaded.path);
    for missing in ran.missing() {
        message.push_str(&format!("\nNot in the recording: {missing}"));
    }
    message.push_str("\nOutput paths:");
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
    observe: &mut dyn FnMut(Event),
) -> Result<BuildOutcome, BuildError> {
    let Verdict { outputs, status, message, violations, references, exceeded } = verdict;
    let mut outcome = ran_outcome(loaded, &prepared, &ran, status, message, clock);
    outcome.violations = violations;
    if let Some(limits) = &mut outcome.limits
        && exceeded.is_some()
    {
        limits.exceeded = exceeded;
    }
    outcome.references = references.hits;
    outcome.references_omitted = references.omitted;
    let got = outputs.get("out").and_then(|output| output.facts.content).map(|content| content.hash);
    outcome.hash =
        prepared.plan.content.and_then(|content| content.declared).map(|specified| HashReport { specified, got });
    if status != Status::Built {
        return keep_or_remove(outcome, prepared, request);
    }
    // Paths that follow from contents are known only now; all at once and in order, so that nobody waits for somebody who waits.
    let paths: BTreeSet<StorePath> = outputs.values().map(|output| output.facts.path.clone()).collect();
    let final_locks = if paths.iter().all(|path| locks.holds(path)) {
        None
    } else {
        Some(store.lock_paths(&paths, |path: &StorePath| observe(Event::WaitingFor(path.clone())))?)
    };
    let mut registrations = Vec::new();
    for (name, Settled { facts, part, name: file }) in outputs {
        if let Some(info) = store.query_own(&facts.path)? {
            outcome.outputs.insert(name, report(&info, store));
            continue;
        }
        let info = PathInfo {
            path: facts.path,
            nar_hash: facts.nar_hash,
            nar_size: facts.nar_size,
            references: facts.references,
            deriver: Some(loaded.path.clone()),
            registration_time: now(),
            ultimate: true,
            signatures: Vec::new(),
            content_address: facts.content.map(|content| content.to_string()),
        };
        let directory = prepared.scratch.part(part, 0o700, None)?;
        let locks = final_locks.as_ref().unwrap_or(&locks);
        store.publish(locks, directory.as_fd(), OsStr::new(&file), &info.path)?;
        outcome.outputs.insert(name, report(&info, store));
        registrations.push(Registration::from(info));
    }
    store.register(&registrations)?;
    drop(final_locks);
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
        real_path: store.objects_path().join(info.path.base_name()),
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
    let Network { mode, why } = prepared.plan.network.clone();
    let ledger = ran.ledger.clone().unwrap_or_default();
    let is_told = status == Status::Built || mode == NetworkMode::None || !ran.missing().is_empty();
    let mut problem = if is_told { None } else { network_problem::find(&ledger, &ran.tail) };
    // A replay calls nobody, not even for this.
    if let (Some(problem), false) = (&mut problem, matches!(prepared.tap, Tap::Replay(_))) {
        problem.find_issuer(&ledger, &Proxies::read(|name| std::env::var(name).ok()));
    }
    let Ledger { hosts, names } = ledger;
    let (all_ports, recording) = (ran.all_ports, ran.recording.clone());
    outcome.network = Some(NetworkReport { mode, why, hosts, names, problem, all_ports, recording });
    let report = limits::report(&prepared.plan, &ran.report);
    outcome.notes = prepared.plan.notes.clone();
    outcome.notes.extend(limits::notes(&prepared.plan, ran, status));
    outcome.limits = Some(report);
    outcome.profile = Some(prepared.plan.profile.clone());
    outcome.impure_variables = prepared.plan.impure_variables.clone();
    outcome.log_file = Some(ran.log_file.clone());
    outcome.cpu_user = Some(micros(ran.report.cpu_user));
    outcome.cpu_system = Some(micros(ran.report.cpu_system));
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
        limits: None,
        profile: None,
        impure_variables: Vec::new(),
        violations: Vec::new(),
        references: Vec::new(),
        references_omitted: 0,
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
