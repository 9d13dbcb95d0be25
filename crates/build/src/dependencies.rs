//! Building first what a derivation needs and nobody has: whatever is not valid, dependencies before dependents, at most so many
//! at once.

use crate::{
    BuildRequest, build,
    clock::Clock,
    conclude,
    error::BuildError,
    known::Known,
    load::Loaded,
    outcome::{BuildOutcome, Event, Status},
    prepare::Refused,
    substitute,
};
use fodder_model::{
    derivation::{
        Derivation, Kind,
        paths::{DerivationSet, Modulo, derivation_path},
    },
    limits::LimitSettings,
    options::{self, Options},
    plan::may_reach_network,
    short_form::FileNetwork,
    store_path::StorePath,
};
use fodder_sandbox::Sandbox;
use fodder_store::Store;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
};

/// Events under way between builds and whoever shows them; a piece of log is at most 16 KiB.
const EVENTS: usize = 256;

/// Builds a derivation, and before it the input derivations whose outputs are not valid. `observe` is told what happens, and to
/// which derivation.
pub fn build_with_dependencies(
    root: &Loaded,
    store: &Store,
    sandbox: &Sandbox,
    request: &BuildRequest,
    observe: &mut dyn FnMut(&StorePath, Event),
) -> Result<BuildOutcome, BuildError> {
    let clock = Clock::start();
    let known = Known::new(&root.set, store);
    if let Some(refused) = depends_on_impure(&root.path, &root.derivation, &root.set) {
        return Ok(conclude::refused(root, refused, &clock));
    }
    let substituted = substitute::substitute(root, &known, store, request, observe)?;
    let mut pending = missing(root, &known, request)?;
    let mut finished = Vec::new();
    if !pending.is_empty() {
        let order: Vec<StorePath> = pending.keys().cloned().collect();
        finished = build_all(std::mem::take(&mut pending), &known, store, sandbox, request, observe)?;
        if finished.len() < order.len() || finished.iter().any(|outcome| !outcome.success) {
            return Ok(dependency_failed(root, finished, &clock));
        }
    }
    let path = root.path.clone();
    let mut outcome = build_resolved(root, &known, store, sandbox, request, &mut |event| observe(&path, event))?;
    outcome.dependencies = finished;
    substituted.tell(&mut outcome);
    Ok(outcome)
}

/// Builds a derivation whose inputs are built, in the form that names them as they turned out to be.
fn build_resolved(
    loaded: &Loaded,
    known: &Known<'_>,
    store: &Store,
    sandbox: &Sandbox,
    request: &BuildRequest,
    observe: &mut dyn FnMut(Event),
) -> Result<BuildOutcome, BuildError> {
    let clock = Clock::start();
    if let (Some(valid), false) = (known.valid_outputs(&loaded.path, &loaded.derivation, None)?, request.must_build()) {
        // Whatever was valid a moment ago stays so while we use it.
        store.add_temporary_roots(valid.values().map(|info| &info.path))?;
        if let Some(valid) = known.valid_outputs(&loaded.path, &loaded.derivation, None)? {
            return Ok(conclude::already_valid(loaded, &valid, store, &clock));
        }
    }
    let resolved = match known.resolve(loaded)? {
        Ok(resolved) => resolved,
        Err(refused) => return Ok(conclude::refused(loaded, refused, &clock)),
    };
    let mut outcome = build(resolved.as_ref().unwrap_or(loaded), store, sandbox, request, observe)?;
    outcome.drv_path = loaded.path.clone();
    if outcome.success {
        known.remember(loaded, &outcome, clock.start)?;
    }
    Ok(outcome)
}

/// A derivation that waits for others.
struct Pending {
    loaded: Loaded,
    waits_for: BTreeSet<StorePath>,
    /// Why it is not built at all.
    refused: Option<Refused>,
}

/// Everything below the root that must be built, with what it waits for. Keys are the paths that dependents use.
fn missing(
    root: &Loaded,
    known: &Known<'_>,
    request: &BuildRequest,
) -> Result<BTreeMap<StorePath, Pending>, BuildError> {
    let mut found: BTreeMap<StorePath, Pending> = BTreeMap::new();
    let mut modulo = Modulo::new(&root.set);
    let wants_build = request.must_build() || known.valid_outputs(&root.path, &root.derivation, None)?.is_none();
    let mut open: Vec<StorePath> =
        if wants_build { needed(&root.derivation, root, known)?.into_iter().collect() } else { Vec::new() };
    while let Some(path) = open.pop() {
        if found.contains_key(&path) {
            continue;
        }
        let Some(derivation) = root.set.get(&path) else { continue };
        let waits_for = needed(derivation, root, known)?;
        open.extend(waits_for.iter().cloned());
        let (options, refused) = match accept(&path, derivation, &mut modulo) {
            Ok(options) => (options, depends_on_impure(&path, derivation, &root.set)),
            Err(message) => (Options::default(), Some(Refused::Input(message))),
        };
        let loaded = Loaded {
            derivation: derivation.clone(),
            path: path.clone(),
            options,
            set: Arc::clone(&root.set),
            profile: "nix".to_owned(),
            limits: LimitSettings::new(),
            network: FileNetwork::default(),
            format: root.format,
            tools: Vec::new(),
            sources: Vec::new(),
            notes: Vec::new(),
        };
        found.insert(path, Pending { loaded, waits_for, refused });
    }
    Ok(found)
}

/// What is the same whenever it is built cannot be made of what never is. A fixed output can: its hash says what it is.
fn depends_on_impure(path: &StorePath, derivation: &Derivation, set: &DerivationSet) -> Option<Refused> {
    if matches!(derivation.kind(), Kind::Impure | Kind::Fixed) {
        return None;
    }
    let is_impure = |input: &&StorePath| set.get(input).is_some_and(|derivation| derivation.kind() == Kind::Impure);
    let input = derivation.input_derivations.keys().find(is_impure)?;
    Some(Refused::Input(format!("pure derivation '{path}' depends on impure derivation '{input}'")))
}

/// What the root was checked for when it was loaded.
fn accept(path: &StorePath, derivation: &Derivation, modulo: &mut Modulo<'_>) -> Result<Options, String> {
    modulo.check(derivation).map_err(|error| error.to_string())?;
    let actual = derivation_path(derivation).map_err(|error| error.to_string())?;
    if actual != *path {
        return Err(format!(
            "the file calls this derivation '{path}', but it was changed since and is now '{actual}'; print the file again"
        ));
    }
    options::read(derivation).map_err(|error| error.to_string())
}

/// Input derivations with an output that is used and not valid. One that is nowhere is left out here: preparing the dependent
/// says so, in words that name it.
fn needed(derivation: &Derivation, root: &Loaded, known: &Known<'_>) -> Result<BTreeSet<StorePath>, BuildError> {
    let mut needed = BTreeSet::new();
    for (path, outputs) in &derivation.input_derivations {
        if let Some(input) = root.set.get(path)
            && known.valid_outputs(path, input, Some(outputs))?.is_none()
        {
            needed.insert(path.clone());
        }
    }
    Ok(needed)
}

/// What the workers share.
struct State {
    pending: BTreeMap<StorePath, Pending>,
    running: usize,
    finished: Vec<BuildOutcome>,
    error: Option<BuildError>,
    stops: bool,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A worker that panicked has not left the state half changed: it is only changed between builds.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn build_all(
    pending: BTreeMap<StorePath, Pending>,
    known: &Known<'_>,
    store: &Store,
    sandbox: &Sandbox,
    request: &BuildRequest,
    observe: &mut dyn FnMut(&StorePath, Event),
) -> Result<Vec<BuildOutcome>, BuildError> {
    let jobs = request.max_jobs.clamp(1, pending.len());
    let state = Mutex::new(State { pending, running: 0, finished: Vec::new(), error: None, stops: false });
    let changed = Condvar::new();
    // Only the root is built again and compared, and recorded or answered from a recording.
    let offline = request.calls_nobody();
    let request = BuildRequest { rebuild: false, recording: None, offline, ..request.clone() };
    // A builder that writes faster than somebody reads waits, and does not fill our memory.
    let (sender, events) = mpsc::sync_channel::<(StorePath, Event)>(EVENTS);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.clone();
            let (state, changed, request) = (&state, &changed, &request);
            scope.spawn(move || work(state, changed, known, store, sandbox, request, &sender));
        }
        drop(sender);
        for (path, event) in events {
            observe(&path, event);
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.error {
        Some(error) => Err(error),
        None => Ok(state.finished),
    }
}

/// A network that was asked for is for those that may have one; the others are built as if nothing had been said.
fn for_dependency(request: &BuildRequest, loaded: &Loaded) -> BuildRequest {
    let mut request = request.clone();
    if !may_reach_network(&loaded.derivation) && loaded.derivation.kind() != Kind::Impure {
        request.settings.network = None;
    }
    request
}

fn work(
    state: &Mutex<State>,
    changed: &Condvar,
    known: &Known<'_>,
    store: &Store,
    sandbox: &Sandbox,
    request: &BuildRequest,
    events: &mpsc::SyncSender<(StorePath, Event)>,
) {
    loop {
        let mut shared = lock(state);
        let job = loop {
            if shared.stops {
                break None;
            }
            let ready = shared.pending.iter().find(|(_, job)| job.waits_for.is_empty()).map(|(path, _)| path.clone());
            match ready {
                Some(path) => break shared.pending.remove_entry(&path),
                // Nobody runs who could make anything ready: what is left waits for a failure, or there is nothing left.
                None if shared.running == 0 => break None,
                None => shared = changed.wait(shared).unwrap_or_else(PoisonError::into_inner),
            }
        };
        let Some((path, job)) = job else {
            changed.notify_all();
            return;
        };
        shared.running += 1;
        drop(shared);
        let result = match job.refused {
            Some(refused) => Ok(conclude::refused(&job.loaded, refused, &Clock::start())),
            None => build_resolved(
                &job.loaded,
                known,
                store,
                sandbox,
                &for_dependency(request, &job.loaded),
                &mut |event| {
                    // The receiver is gone only when everything is.
                    let _ = events.send((path.clone(), event));
                },
            ),
        };
        let mut shared = lock(state);
        shared.running -= 1;
        match result {
            Ok(outcome) => {
                if outcome.success {
                    for job in shared.pending.values_mut() {
                        job.waits_for.remove(&path);
                    }
                } else if !request.keep_going {
                    shared.stops = true;
                    sandbox.canceller().cancel();
                }
                shared.finished.push(outcome);
            }
            // Cancelled because another one failed.
            Err(BuildError::Cancelled | BuildError::Sandbox(fodder_sandbox::SandboxError::Cancelled))
                if shared.stops => {}
            Err(error) => {
                shared.stops = true;
                shared.error.get_or_insert(error);
                sandbox.canceller().cancel();
            }
        }
        changed.notify_all();
    }
}

/// The root's outcome when something below it failed: it names the way from the root to each failure.
fn dependency_failed(root: &Loaded, finished: Vec<BuildOutcome>, clock: &Clock) -> BuildOutcome {
    let failed: Vec<&StorePath> =
        finished.iter().filter(|outcome| !outcome.success).map(|outcome| &outcome.drv_path).collect();
    let count = failed.len();
    let word = if count == 1 { "dependency" } else { "dependencies" };
    let mut message = format!("Cannot build '{}'.\nReason: {count} {word} failed.", root.path);
    message.push_str("\nOutput paths:");
    for path in root.derivation.known_output_paths().into_values().flatten() {
        message.push_str(&format!("\n  {path}"));
    }
    message.push_str("\nWhy:");
    for path in failed {
        let chain: Vec<String> = chain(root, path).iter().map(|path| format!("\n    which needs '{path}'")).collect();
        message.push_str(&format!("\n  '{}'{}", root.path, chain.concat()));
    }
    let mut outcome = conclude::outcome(root, Status::DependencyFailed, message, clock);
    outcome.dependencies = finished;
    outcome
}

/// The shortest way from the root to a derivation below it, without the root.
fn chain(root: &Loaded, target: &StorePath) -> Vec<StorePath> {
    let mut came_from: BTreeMap<StorePath, Option<StorePath>> = BTreeMap::new();
    let mut open: std::collections::VecDeque<StorePath> = Default::default();
    for path in root.derivation.input_derivations.keys() {
        came_from.insert(path.clone(), None);
        open.push_back(path.clone());
    }
    while let Some(path) = open.pop_front() {
        if path == *target {
            let mut chain = vec![path.clone()];
            let mut at = &path;
            while let Some(Some(previous)) = came_from.get(at) {
                chain.push(previous.clone());
                at = previous;
            }
            chain.reverse();
            return chain;
        }
        for input in root.set.get(&path).into_iter().flat_map(|derivation| derivation.input_derivations.keys()) {
            if !came_from.contains_key(input) {
                came_from.insert(input.clone(), Some(path.clone()));
                open.push_back(input.clone());
            }
        }
    }
    vec![target.clone()]
}
