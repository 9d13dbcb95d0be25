//! After the builder: reading its outputs and judging them.

use crate::{
    BuildRequest,
    error::BuildError,
    inspect::{self, InspectError, Inspection, Instructions},
    locate::{self, ReferenceHit, Wanted},
    outcome::{Status, is_reference},
    prepare::Prepared,
};
use fodder_model::{
    checks::{self, OutputFacts, Violation},
    scan::Candidates,
    store_path::StorePath,
};
use fodder_store::Store;
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
    pub(crate) outputs: BTreeMap<String, Inspection>,
    pub(crate) status: Status,
    pub(crate) message: String,
    pub(crate) violations: Vec<Violation>,
    pub(crate) references: References,
}

/// The places that mention what they must not, as many as are worth reading: there may be millions.
#[derive(Default)]
pub(crate) struct References {
    pub(crate) hits: Vec<ReferenceHit>,
    pub(crate) omitted: u64,
}

/// How many places are listed.
const HIT_LIMIT: usize = 1000;

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
        references: References::default(),
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
    let (mut visited, mut parents) = (BTreeSet::new(), Vec::new());
    let (to, from) = facts.keys().find_map(|name| cycle_below(name, facts, &mut visited, &mut parents))?;
    Some(format!(
        "cycle detected in build of '{}' in the references of output '{to}' from output '{from}'",
        plan.derivation
    ))
}

/// Visits outputs in the order in which Nix does (by name, depth first), so that of several circles the same one is named.
fn cycle_below<'a>(
    name: &'a String,
    facts: &'a BTreeMap<String, OutputFacts>,
    visited: &mut BTreeSet<&'a String>,
    parents: &mut Vec<&'a String>,
) -> Option<(&'a String, &'a String)> {
    if !visited.insert(name) {
        return None;
    }
    parents.push(name);
    let references = &facts[name].references;
    for (other, other_facts) in facts {
        if other == name || !references.contains(&other_facts.path) {
            continue;
        }
        if parents.contains(&other) {
            return Some((other, name));
        }
        if let Some(cycle) = cycle_below(other, facts, visited, parents) {
            return Some(cycle);
        }
    }
    parents.pop();
    None
}

/// The places in each output that mention a path which that output must not.
fn reference_hits(prepared: &Prepared, violations: &[Violation]) -> Result<References, BuildError> {
    let mut references = References::default();
    let store = prepared.plan.sandbox.root_mount_point.as_path().with_file_name("store");
    for (name, output) in &prepared.plan.outputs {
        let mut forbidden: BTreeSet<&StorePath> = BTreeSet::new();
        for violation in violations {
            match violation {
                Violation::FixedRefers { references, derivation: _, path: _, allows_references: _ } => {
                    forbidden.extend(references)
                }
                Violation::Disallowed { paths, path, attribute: _ } if path == output => forbidden.extend(paths),
                Violation::Disallowed { .. }
                | Violation::NotAPlainFile { .. }
                | Violation::HashMismatch { .. }
                | Violation::UnknownOutput { .. }
                | Violation::TooLarge { .. }
                | Violation::ClosureTooLarge { .. } => {}
            }
        }
        if forbidden.is_empty() {
            continue;
        }
        let candidates = Candidates::new(forbidden);
        let mut report = |mut hit: ReferenceHit| {
            if references.hits.len() == HIT_LIMIT {
                references.omitted += 1;
                return;
            }
            hit.output = Some(name.clone());
            if hit.file.is_empty() {
                hit.file = output.base_name().into();
            }
            references.hits.push(hit);
        };
        let base = Path::new(output.base_name());
        locate::locate_at(prepared.outputs.as_fd(), base, &store.join(base), Wanted::Paths(&candidates), &mut report)?;
    }
    Ok(references)
}
