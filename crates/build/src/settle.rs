//! After the walk: which path each output has. For most that is where the builder wrote it; where the path follows from the
//! contents, mentions of scratch paths become mentions of the paths that these turn out to be (reference, section 7.1).

use crate::{error::BuildError, inspect::Inspection, prepare::Prepared};
use fodder_model::{
    checks::{self, OutputFacts, Violation},
    content_address::{ContentAddress, ContentMethod},
    hash::Hash,
    plan::{BuildPlan, Content},
    rewrite::{HashModulo, Rewriter},
    store_path::StorePath,
};
use fodder_store::{ScratchPart, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, Write},
    path::PathBuf,
};

/// An output with its path, and where it lies in scratch.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) facts: OutputFacts,
    pub(crate) part: ScratchPart,
    /// Its name there.
    pub(crate) name: String,
}

/// Why outputs have no place in the store.
pub(crate) enum Unsettled {
    Cycle(String),
    Violation(Violation),
    /// The rewritten tree is no tree any more: names that held the scratch path have changed places.
    Unsorted(StoreError),
}

/// Gives every output its path, those that are referred to first.
pub(crate) fn settle(
    prepared: &Prepared,
    inspections: &BTreeMap<String, Inspection>,
) -> Result<Result<BTreeMap<String, Settled>, Unsettled>, BuildError> {
    let plan = &prepared.plan;
    let order = match order(plan, inspections) {
        Ok(order) => order,
        Err(message) => return Ok(Err(Unsettled::Cycle(message))),
    };
    let mut moved: BTreeMap<StorePath, StorePath> = BTreeMap::new();
    let mut settled = BTreeMap::new();
    for name in order {
        let written = &plan.outputs[name];
        let inspection = &inspections[name];
        let output = match &plan.content {
            Some(content) if content.declared.is_none() => {
                match (Output { prepared, content, name, written, inspection, moved: &moved }).settle()? {
                    Ok(output) => output,
                    Err(unsettled) => return Ok(Err(unsettled)),
                }
            }
            Some(content) => {
                let mut output = as_written(written, inspection);
                // As in Nix, what a fixed output says about itself does not count; it is refused for it all the same.
                if content.method == ContentMethod::Nar && inspection.references.contains(written) {
                    let output_hash =
                        Output { prepared, content, name, written, inspection, moved: &moved }.hash(&[])?;
                    output.facts.content =
                        inspection.content.map(|found| ContentAddress { hash: output_hash, ..found });
                }
                output
            }
            None => as_written(written, inspection),
        };
        moved.insert(written.clone(), output.facts.path.clone());
        settled.insert(name.clone(), output);
    }
    Ok(Ok(settled))
}

/// Names of the outputs, each after those that it refers to. Outputs that refer to each other in a circle cannot be registered
/// one after the other.
fn order<'a>(plan: &BuildPlan, inspections: &'a BTreeMap<String, Inspection>) -> Result<Vec<&'a String>, String> {
    let mut order = Vec::new();
    for name in inspections.keys() {
        visit(name, plan, inspections, &mut Vec::new(), &mut order).map_err(|(to, from)| {
            let derivation = &plan.derivation;
            format!("cycle detected in build of '{derivation}' in the references of output '{to}' from output '{from}'")
        })?;
    }
    Ok(order)
}

/// Goes by name and depth first, as Nix does, so that of several circles the same one is named: where it is closed, and from where.
fn visit<'a>(
    name: &'a String,
    plan: &BuildPlan,
    inspections: &'a BTreeMap<String, Inspection>,
    parents: &mut Vec<&'a String>,
    order: &mut Vec<&'a String>,
) -> Result<(), (&'a String, &'a String)> {
    if order.contains(&name) {
        return Ok(());
    }
    parents.push(name);
    for other in inspections.keys().filter(|other| *other != name) {
        if !inspections[name].references.contains(&plan.outputs[other]) {
            continue;
        }
        if parents.contains(&other) {
            return Err((other, name));
        }
        visit(other, plan, inspections, parents, order)?;
    }
    parents.pop();
    order.push(name);
    Ok(())
}

fn as_written(path: &StorePath, inspection: &Inspection) -> Settled {
    Settled {
        facts: OutputFacts {
            path: path.clone(),
            nar_hash: inspection.nar_hash,
            nar_size: inspection.nar_size,
            references: inspection.references.clone(),
            content: inspection.content,
            is_plain_file: inspection.is_plain_file,
        },
        part: ScratchPart::Store,
        name: path.base_name().to_owned(),
    }
}

/// An output whose path follows from its contents.
struct Output<'a> {
    prepared: &'a Prepared,
    content: &'a Content,
    name: &'a str,
    written: &'a StorePath,
    inspection: &'a Inspection,
    /// Outputs that have their path already, by where they were written.
    moved: &'a BTreeMap<StorePath, StorePath>,
}

impl Output<'_> {
    fn settle(&self) -> Result<Result<Settled, Unsettled>, BuildError> {
        let Output { prepared, content: _, name, written, inspection, moved } = self;
        let Some(found) = inspection.content else {
            return Ok(Err(Unsettled::Violation(Violation::NotAPlainFile { path: (*written).clone() })));
        };
        let refers_to_itself = inspection.references.contains(written);
        // Nobody looked for mentions where references are discarded; scratch paths in the contents become final ones all the same.
        let is_discarded = prepared.plan.discard_references.contains(*name);
        let mentioned: Vec<(&StorePath, &StorePath)> =
            moved.iter().filter(|(from, _)| is_discarded || inspection.references.contains(*from)).collect();
        let others: BTreeSet<StorePath> = inspection
            .references
            .iter()
            .filter(|path| path != written)
            .map(|path| moved.get(path).unwrap_or(path).clone())
            .collect();
        if let Some(violation) = checks::no_place_for(&found, written, &inspection.references) {
            return Ok(Err(Unsettled::Violation(violation)));
        }
        let is_rewritten = refers_to_itself || is_discarded || !mentioned.is_empty();
        let address = match is_rewritten {
            true => ContentAddress { hash: self.hash(&mentioned)?, ..found },
            false => found,
        };
        let derivation_name = prepared.plan.derivation.name();
        let derivation_name = derivation_name.strip_suffix(".drv").unwrap_or(derivation_name);
        let path_name = fodder_model::derivation::output_path_name(derivation_name, name);
        let path = address
            .store_path_with_references(&path_name, &others, refers_to_itself)
            .map_err(|error| BuildError::Plan(error.into()))?;
        let mut settled = as_written(written, inspection);
        if is_rewritten {
            let replacements = mentioned.into_iter().chain([(*written, &path)]).collect();
            match self.rewrite(replacements, &path)? {
                Ok((nar_hash, nar_size)) => {
                    settled.facts.nar_hash = nar_hash;
                    settled.facts.nar_size = nar_size;
                }
                Err(error) => return Ok(Err(Unsettled::Unsorted(error))),
            }
            settled.part = ScratchPart::Rewritten;
            settled.name = path.base_name().to_owned();
        }
        settled.facts.references = others;
        if refers_to_itself {
            settled.facts.references.insert(path.clone());
        }
        settled.facts.content = Some(address);
        settled.facts.path = path;
        Ok(Ok(settled))
    }

    fn source(&self) -> PathBuf {
        self.prepared.scratch.part_path(ScratchPart::Store).join(self.written.base_name())
    }

    /// The hash by the declared method with others' final paths put in, in which the own path does not count.
    fn hash(&self, mentioned: &[(&StorePath, &StorePath)]) -> Result<Hash, BuildError> {
        let source = self.source();
        let failed = |error| BuildError::Read { path: source.clone(), source: error };
        let Content { algorithm, self_references, .. } = *self.content;
        match self.content.method {
            ContentMethod::Nar => {
                let modulo = HashModulo::new(algorithm, self.written);
                let (rewriter, _) = fodder_store::dump(&source, Rewriter::new(modulo, mentioned.iter().copied()))?;
                let hashes = rewriter.finish().and_then(|(modulo, _)| modulo.finish()).map_err(failed)?;
                Ok(hashes.by(self_references))
            }
            ContentMethod::Text | ContentMethod::Flat => {
                let mut file = std::fs::File::open(&source).map_err(failed)?;
                let modulo = HashModulo::new(algorithm, self.written);
                let mut rewriter = Rewriter::new(modulo, mentioned.iter().copied());
                io::copy(&mut file, &mut rewriter).map_err(failed)?;
                let hashes = rewriter.finish().and_then(|(modulo, _)| modulo.finish()).map_err(failed)?;
                Ok(hashes.by(self_references))
            }
            // As it is: git's object ids leave nothing out.
            ContentMethod::Git => Ok(fodder_store::git_object_id(&source, algorithm)?),
        }
    }

    /// Makes the tree anew with other paths in it, as Nix does: through a NAR, so that names and links are rewritten as well, and
    /// nothing that the builder still shares with another output is touched.
    fn rewrite(
        &self,
        replacements: Vec<(&StorePath, &StorePath)>,
        path: &StorePath,
    ) -> Result<Result<(Hash, u64), StoreError>, BuildError> {
        use std::os::fd::AsFd as _;
        let source = self.source();
        let directory = self.prepared.scratch.part(ScratchPart::Rewritten, 0o700, None)?;
        let failed = |error| BuildError::Read { path: source.clone(), source: error };
        let (reader, writer) = io::pipe().map_err(failed)?;
        let (dumped, restored) = std::thread::scope(|scope| {
            let dumping = scope.spawn(|| -> Result<(), BuildError> {
                let (rewriter, _) = fodder_store::dump(&source, Rewriter::new(writer, replacements))?;
                rewriter.finish().and_then(|(mut writer, _)| writer.flush()).map_err(failed)
            });
            let name = std::ffi::OsStr::new(path.base_name());
            let restored = fodder_store::restore(BufReader::new(reader), directory.as_fd(), name);
            (dumping.join(), restored)
        });
        match (restored, dumped) {
            (Err(error @ StoreError::Unpack { .. }), _) => Ok(Err(error)),
            (Err(error), _) => Err(error.into()),
            (Ok(_), Err(panic)) => std::panic::resume_unwind(panic),
            (Ok(_), Ok(Err(error))) => Err(error),
            (Ok(found), Ok(Ok(()))) => Ok(Ok(found)),
        }
    }
}
