//! After the builder: reading its outputs and judging them.

use crate::{
    error::BuildError,
    inspect::{self, Budget, InspectError, Inspection, Instructions, Links},
    limits::ExceededLimit,
    locate::{self, ReferenceHit, Wanted},
    outcome::{Status, is_reference},
    prepare::Prepared,
    settle::{Settled, Unsettled, settle},
};
use fodder_model::{
    checks::{self, OutputFacts, Violation},
    limits::{Limit, value},
    scan::Candidates,
    store_path::StorePath,
};
use fodder_store::{PathInfo, ScratchPart};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::fd::AsFd,
    path::Path,
};

/// What was found in the outputs, or why they cannot be taken at all.
pub(crate) enum Inspected {
    Outputs(BTreeMap<String, Inspection>),
    Rejected { message: String, exceeded: Option<ExceededLimit> },
}

/// The judgement on outputs that could be read.
pub(crate) struct Verdict {
    pub(crate) outputs: BTreeMap<String, Settled>,
    pub(crate) status: Status,
    pub(crate) message: String,
    pub(crate) violations: Vec<Violation>,
    pub(crate) references: References,
    /// The limit that an output went over.
    pub(crate) exceeded: Option<ExceededLimit>,
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
    let mut links = Links::default();
    for (name, path) in &plan.outputs {
        let shown = plan.sandbox.root_mount_point.as_path().with_file_name("store").join(path.base_name());
        let instructions = Instructions {
            candidates: if plan.discard_references.contains(name) { &nothing } else { &candidates },
            content: plan.content.map(|content| (content.method, content.algorithm)),
            canonicalise: true,
            builder: prepared.user.as_ref().map(|user| user.uid),
            budget: Budget {
                bytes: value(&plan.limits, Limit::OutputSize),
                files: value(&plan.limits, Limit::OutputFiles),
            },
        };
        match inspect::inspect(
            prepared.outputs.as_fd(),
            OsStr::new(path.base_name()),
            &shown,
            &instructions,
            &mut links,
        ) {
            Ok(inspection) => drop(outputs.insert(name.clone(), inspection)),
            Err(error) if error.is_rejection() => {
                let exceeded = match &error {
                    InspectError::TooLarge { path: _, limit, allowed } => {
                        Some(ExceededLimit { limit: *limit, value: *allowed, used: None, flag: limit.flag() })
                    }
                    InspectError::Missing { .. }
                    | InspectError::UnsupportedType { .. }
                    | InspectError::Suspicious { .. }
                    | InspectError::StillOpen { .. }
                    | InspectError::LinkedElsewhere { .. }
                    | InspectError::Nar { .. }
                    | InspectError::Again(_)
                    | InspectError::System { .. } => None,
                };
                return Ok(Inspected::Rejected { message: rejection(plan, name, &error), exceeded });
            }
            Err(error) => return Err(error.into()),
        }
    }
    if links.check().is_err() {
        // The others may be what the builder left beside its outputs, which is dropped anyway.
        let names: BTreeSet<&str> = plan.outputs.values().map(StorePath::base_name).collect();
        prepared.scratch.remove_others(ScratchPart::Store, &names)?;
        if let Err(error) = links.check() {
            return if error.is_rejection() {
                Ok(Inspected::Rejected { message: error.to_string(), exceeded: None })
            } else {
                Err(error.into())
            };
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
            inspect::shown(path)
        ),
        InspectError::Suspicious { path } => format!(
            "suspicious ownership or permission on \"{}\" for output '{name}'; rejecting this build output",
            inspect::shown(path)
        ),
        InspectError::Nar { path, source } => format!("path '{}' {source}", inspect::shown(path)),
        InspectError::TooLarge { path: _, limit, allowed } => format!(
            "output '{name}' of '{}' has more than {} ({limit}); {} changes that",
            plan.derivation,
            limit.words(*allowed),
            limit.flag()
        ),
        InspectError::UnsupportedType { .. }
        | InspectError::StillOpen { .. }
        | InspectError::LinkedElsewhere { .. }
        | InspectError::Again(_)
        | InspectError::System { .. } => error.to_string(),
    }
}

/// Gives outputs their paths and judges what was found. `previous` are the valid outputs that a rebuild is compared with.
pub(crate) fn judge(
    prepared: &Prepared,
    inspected: Inspected,
    previous: &BTreeMap<String, PathInfo>,
) -> Result<Verdict, BuildError> {
    let plan = &prepared.plan;
    let mut verdict = Verdict {
        outputs: BTreeMap::new(),
        status: Status::Built,
        message: String::new(),
        violations: Vec::new(),
        references: References::default(),
        exceeded: None,
    };
    let outputs = match inspected {
        Inspected::Outputs(outputs) => outputs,
        Inspected::Rejected { message, exceeded } => {
            verdict.exceeded = exceeded;
            return Ok(verdict.rejected(message));
        }
    };
    let unsettled = match settle(prepared, &outputs)? {
        Ok(settled) => {
            verdict.outputs = settled;
            None
        }
        Err(Unsettled::Violation(violation)) => Some(violation),
        Err(Unsettled::Cycle(message)) => return Ok(verdict.rejected(message)),
        Err(Unsettled::Unsorted(error)) => return Ok(verdict.rejected(crate::chain(&error))),
    };
    let facts: BTreeMap<String, OutputFacts> =
        verdict.outputs.iter().map(|(name, settled)| (name.clone(), settled.facts.clone())).collect();
    let closure = prepared
        .inputs
        .iter()
        .map(|(path, input)| (path.clone(), (input.references.clone(), input.nar_size)))
        .collect();
    verdict.violations = match unsettled {
        Some(violation) => vec![violation],
        None => checks::check(&plan.rules, &facts, &closure),
    };
    verdict.references = reference_hits(prepared, &verdict.outputs, &verdict.violations)?;
    if let Some(leading) = leading(&verdict.violations, plan.rules.fixed) {
        verdict.status = match leading {
            Violation::HashMismatch { .. } => Status::HashMismatch,
            Violation::NotAPlainFile { .. }
            | Violation::FixedRefers { .. }
            | Violation::NoPlaceForReferences { .. }
            | Violation::SelfReference { .. }
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
    for (name, known) in previous {
        if let Some(Settled { facts, .. }) = verdict.outputs.get(name)
            && known.nar_hash != facts.nar_hash
        {
            verdict.status = Status::NotDeterministic;
            verdict.message = format!(
                "derivation '{}' may not be deterministic: output \"{}\" differs\nbefore: {}\nnow:    {}",
                plan.derivation, known.path, known.nar_hash, facts.nar_hash
            );
            break;
        }
    }
    Ok(verdict)
}

impl Verdict {
    fn rejected(mut self, message: String) -> Self {
        self.status = Status::OutputRejected;
        self.message = message;
        self
    }
}

/// The violation that names the outcome. A person who asks for the hash of an output that may not exist at all is told so first:
/// no hash would help.
fn leading(violations: &[Violation], specified: Option<fodder_model::hash::Hash>) -> Option<&Violation> {
    let asks = specified.is_some_and(|hash| hash.is_zero());
    let reference = violations.iter().find(|violation| is_reference(violation));
    if asks { reference.or(violations.first()) } else { violations.first() }
}

/// The places in each output that mention a path which that output must not.
fn reference_hits(
    prepared: &Prepared,
    settled: &BTreeMap<String, Settled>,
    violations: &[Violation],
) -> Result<References, BuildError> {
    let mut references = References::default();
    for (name, written) in &prepared.plan.outputs {
        // As it is now: with final paths in it where it has them, and else as the builder left it.
        let (output, part, file) = match settled.get(name) {
            Some(Settled { facts, part, name }) => (&facts.path, *part, name.as_str()),
            None => (written, ScratchPart::Store, written.base_name()),
        };
        let mut forbidden: BTreeSet<&StorePath> = BTreeSet::new();
        for violation in violations {
            match violation {
                Violation::FixedRefers { references, derivation: _ }
                | Violation::NoPlaceForReferences { references, path: _ } => forbidden.extend(references),
                Violation::SelfReference { path } if path == written => drop(forbidden.insert(path)),
                Violation::Disallowed { paths, path, attribute: _ } if path == output => forbidden.extend(paths),
                Violation::Disallowed { .. }
                | Violation::SelfReference { .. }
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
        let directory = prepared.scratch.part(part, 0o700, None)?;
        let shown = prepared.scratch.part_path(part).join(file);
        locate::locate_at(directory.as_fd(), Path::new(file), &shown, Wanted::Paths(&candidates), &mut report)?;
    }
    Ok(references)
}
