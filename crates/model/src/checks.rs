//! Judging outputs from gathered facts, purely. All violations are reported, not the first.

use crate::{
    content_address::{ContentAddress, ContentMethod},
    harmless::harmless,
    hash::Hash,
    options::{OutputCheck, OutputChecks},
    store_path::StorePath,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of an output after it was walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFacts {
    /// Where the builder wrote it, and where it will be unless its hash says otherwise.
    pub path: StorePath,
    /// SHA-256 of its NAR.
    pub nar_hash: Hash,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// What it refers to, itself included if it does.
    pub references: BTreeSet<StorePath>,
    /// Its content hash by the declared method; `None` when the output has no such hash to be.
    pub content: Option<ContentAddress>,
    /// Whether it is a regular file without the executable bit: what `flat` and `text` take.
    pub is_plain_file: bool,
}

/// Something wrong with an output. The words are Nix's where Nix has words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum Violation {
    /// A flat output that is not a plain file.
    #[error(
        "output path '{path}' should be a non-executable regular file since recursive hashing is not enabled (one of outputHashMode={{flat,text}} is true)"
    )]
    NotAPlainFile {
        /// The output.
        path: StorePath,
    },
    /// Another hash than the declared one.
    #[error("hash mismatch in fixed-output derivation '{derivation}':\n  specified: {specified}\n     got:    {got}")]
    HashMismatch {
        /// The derivation.
        derivation: StorePath,
        /// Declared.
        specified: Hash,
        /// Found.
        got: Hash,
    },
    /// A fixed output that refers to store paths.
    #[error(
        "fixed-output derivations must not reference store paths: '{derivation}' references {} distinct paths, e.g. '{}'",
        references.len(), references.first().map(ToString::to_string).unwrap_or_default()
    )]
    FixedRefers {
        /// The derivation.
        derivation: StorePath,
        /// What it refers to.
        references: BTreeSet<StorePath>,
    },
    /// A mention of store paths in contents whose address has no place for references.
    #[error(
        "fixed output derivation '{}' is not allowed to refer to other store paths.\nYou may need to use the 'unsafeDiscardReferences' derivation attribute, see the manual for more details.",
        path.name()
    )]
    NoPlaceForReferences {
        /// The output.
        path: StorePath,
        /// What it refers to.
        references: BTreeSet<StorePath>,
    },
    /// A text that mentions its own path.
    #[error("self-reference not allowed with text hashing")]
    SelfReference {
        /// The output.
        path: StorePath,
    },
    /// References or requisites outside the allowed, or among the disallowed.
    #[error("output '{path}' is not allowed to refer to the following paths:{}", list(paths))]
    Disallowed {
        /// The output.
        path: StorePath,
        /// The attribute that forbids it.
        attribute: String,
        /// What must not be referred to.
        paths: BTreeSet<StorePath>,
    },
    /// A check that names an output the derivation does not have.
    #[error(
        "derivation '{derivation}' output check for '{}' contains output name '{}', but this is not a valid output of this derivation. (Valid outputs are [{}].)", harmless(output), harmless(name), harmless(valid.join(", "))
    )]
    UnknownOutput {
        /// The derivation.
        derivation: StorePath,
        /// Output that is checked.
        output: String,
        /// What the check names.
        name: String,
        /// What it could have named.
        valid: Vec<String>,
    },
    /// `maxSize`
    #[error("path '{path}' is too large at {size} bytes; limit is {limit} bytes")]
    TooLarge {
        /// The output.
        path: StorePath,
        /// Bytes of its NAR.
        size: u64,
        /// Allowed.
        limit: u64,
    },
    /// `maxClosureSize`
    #[error("closure of path '{path}' is too large at {size} bytes; limit is {limit} bytes")]
    ClosureTooLarge {
        /// The output.
        path: StorePath,
        /// Bytes of all NARs.
        size: u64,
        /// Allowed.
        limit: u64,
    },
}

fn list(paths: &BTreeSet<StorePath>) -> String {
    paths.iter().map(|path| format!("\n  {path}")).collect()
}

/// What outputs are judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// The derivation, for messages.
    pub derivation: StorePath,
    /// Declared content of a fixed output.
    pub fixed: Option<Hash>,
    /// The output checks.
    pub outputs: OutputChecks,
}

/// What a path refers to and its NAR's size, for paths that outputs refer to.
pub type Closure = BTreeMap<StorePath, (BTreeSet<StorePath>, u64)>;

/// Judges all outputs. `inputs` must hold whatever outputs may refer to that is not an output.
pub fn check(rules: &Rules, outputs: &BTreeMap<String, OutputFacts>, inputs: &Closure) -> Vec<Violation> {
    let mut violations = Vec::new();
    if let Some(specified) = rules.fixed {
        for facts in outputs.values() {
            fixed(rules, specified, facts, &mut violations);
        }
    }
    let mut closure = inputs.clone();
    for facts in outputs.values() {
        closure.insert(facts.path.clone(), (facts.references.clone(), facts.nar_size));
    }
    for (name, facts) in outputs {
        let check = match &rules.outputs {
            OutputChecks::All(check) => check,
            OutputChecks::Each(each) => match each.get(name) {
                Some(check) => check,
                None => continue,
            },
        };
        output(rules, name, facts, check, outputs, &closure, &mut violations);
    }
    violations
}

/// In Nix's order: the shape, then references where the address has no place for them, then the hash, then other references.
fn fixed(rules: &Rules, specified: Hash, facts: &OutputFacts, violations: &mut Vec<Violation>) {
    let Some(content) = facts.content else {
        violations.push(Violation::NotAPlainFile { path: facts.path.clone() });
        return;
    };
    let no_place = no_place_for(&content, &facts.path, &facts.references);
    let mismatch = (content.hash != specified).then(|| Violation::HashMismatch {
        derivation: rules.derivation.clone(),
        specified,
        got: content.hash,
    });
    let refers = (no_place.is_none() && !facts.references.is_empty())
        .then(|| Violation::FixedRefers { derivation: rules.derivation.clone(), references: facts.references.clone() });
    violations.extend(no_place);
    violations.extend(mismatch);
    violations.extend(refers);
}

/// What is wrong with references of contents whose address has no place for them.
pub fn no_place_for(content: &ContentAddress, path: &StorePath, references: &BTreeSet<StorePath>) -> Option<Violation> {
    if content.method == ContentMethod::Text && references.contains(path) {
        return Some(Violation::SelfReference { path: path.clone() });
    }
    (!content.allows_references() && !references.is_empty())
        .then(|| Violation::NoPlaceForReferences { path: path.clone(), references: references.clone() })
}

fn output(
    rules: &Rules,
    name: &str,
    facts: &OutputFacts,
    check: &OutputCheck,
    outputs: &BTreeMap<String, OutputFacts>,
    closure: &Closure,
    violations: &mut Vec<Violation>,
) {
    let OutputCheck {
        allowed_references,
        allowed_requisites,
        disallowed_references,
        disallowed_requisites,
        max_size,
        max_closure_size,
        counts_itself,
    } = check;
    let mut members = BTreeSet::new();
    let mut open = vec![&facts.path];
    while let Some(path) = open.pop() {
        if members.insert(path.clone())
            && let Some((references, _)) = closure.get(path)
        {
            open.extend(references);
        }
    }
    let size = members.iter().filter_map(|path| closure.get(path)).map(|(_, size)| size).sum();
    if !counts_itself {
        members.remove(&facts.path);
    }
    if let Some(limit) = *max_size
        && facts.nar_size > limit
    {
        violations.push(Violation::TooLarge { path: facts.path.clone(), size: facts.nar_size, limit });
    }
    if let Some(limit) = *max_closure_size
        && size > limit
    {
        violations.push(Violation::ClosureTooLarge { path: facts.path.clone(), size, limit });
    }
    let mut judge = |attribute: &str, specifiers: &[String], actual: &BTreeSet<StorePath>, is_allowed: bool| {
        let mut named = BTreeSet::new();
        for specifier in specifiers {
            if let Ok(path) = StorePath::from_full_path(specifier) {
                named.insert(path);
            } else if let Some(output) = outputs.get(specifier) {
                named.insert(output.path.clone());
            } else {
                violations.push(Violation::UnknownOutput {
                    derivation: rules.derivation.clone(),
                    output: name.to_owned(),
                    name: specifier.clone(),
                    valid: outputs.keys().cloned().collect(),
                });
                return;
            }
        }
        let bad: BTreeSet<StorePath> =
            actual.iter().filter(|path| named.contains(*path) != is_allowed).cloned().collect();
        if !bad.is_empty() {
            violations.push(Violation::Disallowed {
                path: facts.path.clone(),
                attribute: attribute.to_owned(),
                paths: bad,
            });
        }
    };
    if let Some(allowed) = allowed_references {
        judge("allowedReferences", allowed, &facts.references, true);
    }
    if let Some(allowed) = allowed_requisites {
        judge("allowedRequisites", allowed, &members, true);
    }
    judge("disallowedReferences", disallowed_references, &facts.references, false);
    judge("disallowedRequisites", disallowed_requisites, &members, false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashAlgorithm;

    fn path(name: &str) -> StorePath {
        StorePath::from_base_name(&format!("{}-{name}", "0".repeat(32))).unwrap()
    }

    fn facts(references: &[&str], method: ContentMethod) -> OutputFacts {
        let hash = Hash::of(HashAlgorithm::Sha256, b"x");
        OutputFacts {
            path: path("self"),
            nar_hash: hash,
            nar_size: 100,
            references: references.iter().map(|name| path(name)).collect(),
            content: Some(ContentAddress { method, hash }),
            is_plain_file: true,
        }
    }

    fn judge(fixed: Option<Hash>, check_of_out: OutputCheck, facts: OutputFacts) -> Vec<String> {
        let rules = Rules { derivation: path("x.drv"), fixed, outputs: OutputChecks::All(check_of_out) };
        let inputs = [
            (path("a"), ([path("b")].into(), 10)),
            (path("b"), (BTreeSet::new(), 5)),
            (path("self"), (BTreeSet::new(), 0)),
        ];
        check(&rules, &[("out".to_owned(), facts)].into(), &inputs.into())
            .into_iter()
            .map(|violation| format!("{violation:?}").split([' ', '{']).next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_fixed_output_is_judged_by_hash_and_references_in_the_order_of_nix() {
        let right = Hash::of(HashAlgorithm::Sha256, b"x");
        let wrong = Hash::zero(HashAlgorithm::Sha256);
        let of =
            |hash, references: &[&str], method| judge(Some(hash), OutputCheck::default(), facts(references, method));
        assert!(of(right, &[], ContentMethod::Nar).is_empty());
        assert_eq!(of(wrong, &[], ContentMethod::Nar), ["HashMismatch"]);
        assert_eq!(of(right, &["a"], ContentMethod::Nar), ["FixedRefers"]);
        assert_eq!(of(wrong, &["a"], ContentMethod::Nar), ["HashMismatch", "FixedRefers"]);
        assert_eq!(of(wrong, &["a"], ContentMethod::Flat), ["NoPlaceForReferences", "HashMismatch"]);
        assert_eq!(of(wrong, &["self"], ContentMethod::Text), ["SelfReference", "HashMismatch"]);
        let mut directory = facts(&[], ContentMethod::Flat);
        directory.content = None;
        assert_eq!(judge(Some(right), OutputCheck::default(), directory), ["NotAPlainFile"]);
    }

    #[test]
    fn lists_are_judged_and_an_absent_list_is_not_an_empty_one() {
        let text = |names: &[&str]| -> Vec<String> { names.iter().map(|name| path(name).to_string()).collect() };
        let plain = |references: &[&str]| facts(references, ContentMethod::Nar);
        let with = |change: &dyn Fn(&mut OutputCheck), facts| {
            let mut check = OutputCheck::default();
            change(&mut check);
            judge(None, check, facts)
        };
        assert!(with(&|_| {}, plain(&["a"])).is_empty());
        assert_eq!(with(&|check| check.allowed_references = Some(vec![]), plain(&["a"])), ["Disallowed"]);
        assert!(with(&|check| check.allowed_references = Some(text(&["a"])), plain(&["a"])).is_empty());
        assert_eq!(with(&|check| check.allowed_references = Some(vec![]), plain(&["self"])), ["Disallowed"]);
        assert!(with(&|check| check.allowed_references = Some(vec!["out".into()]), plain(&["self"])).is_empty());
        assert_eq!(with(&|check| check.allowed_requisites = Some(text(&["a"])), plain(&["a"])), ["Disallowed"]);
        assert!(with(&|check| check.allowed_requisites = Some(text(&["a", "b"])), plain(&["a"])).is_empty());
        assert_eq!(
            with(
                &|check| {
                    check.allowed_requisites = Some(text(&["a", "b"]));
                    check.counts_itself = true;
                },
                plain(&["a"])
            ),
            ["Disallowed"],
            "with structured attributes the path itself counts"
        );
        assert_eq!(with(&|check| check.disallowed_references = text(&["a"]), plain(&["a"])), ["Disallowed"]);
        assert!(with(&|check| check.disallowed_references = text(&["b"]), plain(&["a"])).is_empty());
        assert_eq!(with(&|check| check.disallowed_requisites = text(&["b"]), plain(&["a"])), ["Disallowed"]);
        assert_eq!(with(&|check| check.allowed_references = Some(vec!["dev".into()]), plain(&[])), ["UnknownOutput"]);
        assert_eq!(with(&|check| check.max_size = Some(99), plain(&[])), ["TooLarge"]);
        assert_eq!(with(&|check| check.max_closure_size = Some(114), plain(&["a"])), ["ClosureTooLarge"]);
        assert!(with(&|check| check.max_closure_size = Some(115), plain(&["a"])).is_empty());
    }
}
