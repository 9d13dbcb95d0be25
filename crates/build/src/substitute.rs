//! What a build takes from binary caches: its outputs, or else the inputs that nobody has, or else what those are built from.

use crate::{
    BuildRequest,
    clock::Clock,
    error::BuildError,
    fetch::{FetchPlan, Fetched, Fetcher},
    known::Known,
    load::Loaded,
    outcome::{BuildOutcome, Event, Status},
};
use fodder_model::{
    derivation::{Derivation, Kind},
    options, short_form,
    store_path::StorePath,
};
use fodder_store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of asking anew without what could not be downloaded.
const ROUNDS: usize = 10;

/// What was copied before a build.
#[derive(Debug, Default)]
pub(crate) struct Substituted {
    new: BTreeSet<StorePath>,
    failed: BTreeMap<StorePath, String>,
}

impl Substituted {
    /// Says in an outcome what came from a cache.
    pub(crate) fn tell(&self, outcome: &mut BuildOutcome) {
        let is_new = outcome.outputs.values().any(|output| self.new.contains(&output.path));
        if outcome.status == Status::AlreadyValid && is_new {
            outcome.status = Status::Substituted;
        }
        // Where a path was missed, the reader wants to know why no cache gave it.
        for (path, reason) in &self.failed {
            if outcome.error_msg.contains(path.base_name()) {
                outcome.error_msg.push_str(&format!("\nNo binary cache gave '{path}': {reason}"));
            }
        }
    }
}

/// Copies what is there, as far up as possible.
pub(crate) fn substitute(
    root: &Loaded,
    known: &Known<'_>,
    store: &Store,
    request: &BuildRequest,
    observe: &mut dyn FnMut(&StorePath, Event),
) -> Result<Substituted, BuildError> {
    let mut substituted = Substituted::default();
    if request.substitution.caches.is_empty() {
        return Ok(substituted);
    }
    let is_built = known.valid_outputs(&root.path, &root.derivation, None)?.is_some();
    if is_built && !request.must_build() {
        return Ok(substituted);
    }
    let mut observe = |event| observe(&root.path, Event::Fetch(event));
    let (offline, ca_file) = (request.calls_nobody(), request.ca_file.as_deref());
    let fetcher = Fetcher::open(store, &request.substitution, offline, ca_file, Clock::start().start, &mut observe)?;
    for _ in 0..ROUNDS {
        let plan = plan(root, known, &fetcher, request, &substituted.failed, &mut observe)?;
        let Fetched { new, failed } = fetcher.fetch(plan, &mut observe)?;
        substituted.new.extend(new);
        let before = substituted.failed.len();
        substituted.failed.extend(failed);
        // What failed now may be built instead, from inputs that were not asked for until now.
        if substituted.failed.len() == before {
            break;
        }
    }
    Ok(substituted)
}

/// Asks for the root's outputs; where they are not to be had, for what it is built from, and so on.
fn plan(
    root: &Loaded,
    known: &Known<'_>,
    fetcher: &Fetcher<'_>,
    request: &BuildRequest,
    failed: &BTreeMap<StorePath, String>,
    observe: &mut dyn FnMut(crate::FetchEvent),
) -> Result<FetchPlan, BuildError> {
    let mut whole = FetchPlan::default();
    if !request.must_build() && !root.options.forbids_substitutes {
        let outputs = known_outputs(&root.path, &root.derivation, None, known)?;
        if let Some(outputs) = outputs.filter(|outputs| !outputs.iter().any(|path| failed.contains_key(path))) {
            let plan = fetcher.plan(&outputs, observe)?;
            if can_be_had(&plan, &outputs, known)? {
                return Ok(plan);
            }
            whole.note_failures(plan);
        }
    }
    let given: BTreeSet<StorePath> =
        root.sources.iter().map(|source| source.path.clone()).chain([short_form::setup_script_path()]).collect();
    // What came with the file is put into the store from there.
    let is_nowhere = |source: &&StorePath| !given.contains(*source) && !root.set.contains_key(*source);
    let mut seen = BTreeSet::new();
    let mut level = vec![&root.derivation];
    while !level.is_empty() {
        let mut wanted: BTreeSet<StorePath> = BTreeSet::new();
        let mut inputs: Vec<(&StorePath, &Derivation, Option<BTreeSet<StorePath>>)> = Vec::new();
        for derivation in std::mem::take(&mut level) {
            wanted.extend(derivation.input_sources.iter().filter(is_nowhere).cloned());
            for (path, names) in &derivation.input_derivations {
                let Some(input) = root.set.get(path) else { continue };
                if !seen.insert((path.clone(), names.clone()))
                    || known.valid_outputs(path, input, Some(names))?.is_some()
                {
                    continue;
                }
                let forbids = options::read(input).map_or(true, |options| options.forbids_substitutes);
                let outputs = if forbids { None } else { known_outputs(path, input, Some(names), known)? };
                let outputs = outputs.filter(|outputs| !outputs.iter().any(|path| failed.contains_key(path)));
                wanted.extend(outputs.iter().flatten().cloned());
                inputs.push((path, input, outputs));
            }
        }
        wanted.retain(|path| !failed.contains_key(path) && !whole.offers(path));
        let mut plan = fetcher.plan(&wanted, observe)?;
        let mut dropped: BTreeSet<&StorePath> = BTreeSet::new();
        for (_, derivation, outputs) in &inputs {
            match outputs {
                // All that is used of a derivation, or none: it is built as a whole.
                Some(outputs)
                    if can_be_had(&plan, outputs, known)? || outputs.iter().all(|path| whole.offers(path)) => {}
                Some(outputs) => {
                    dropped.extend(outputs);
                    level.push(derivation);
                }
                None => level.push(derivation),
            }
        }
        let kept: Vec<&StorePath> = wanted.iter().filter(|path| !dropped.contains(path)).collect();
        plan.restrict(kept);
        whole.merge(plan);
    }
    Ok(whole)
}

/// The paths of the outputs that are not valid; `None` when one is not known before it is built.
fn known_outputs(
    path: &StorePath,
    derivation: &Derivation,
    only: Option<&BTreeSet<String>>,
    known: &Known<'_>,
) -> Result<Option<BTreeSet<StorePath>>, BuildError> {
    if derivation.kind() == Kind::Impure {
        return Ok(None);
    }
    let outputs = known.output_paths(path, derivation)?;
    Ok(outputs
        .into_iter()
        .filter(|(name, _)| only.is_none_or(|only| only.contains(name)))
        .map(|(_, path)| path)
        .collect())
}

fn can_be_had(plan: &FetchPlan, outputs: &BTreeSet<StorePath>, known: &Known<'_>) -> Result<bool, BuildError> {
    for path in outputs {
        if !plan.offers(path) && !known.store().is_valid(path)? {
            return Ok(false);
        }
    }
    Ok(!outputs.is_empty())
}
