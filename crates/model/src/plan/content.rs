//! Where outputs are written, and how they are hashed.

use super::PlanError;
use crate::{
    content_address::ContentMethod,
    derivation::{Derivation, Output, resolve},
    hash::{Hash, HashAlgorithm},
    rewrite::SelfReferences,
    store_path::StorePath,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// How outputs are hashed whose path follows from what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// How.
    pub method: ContentMethod,
    /// With what.
    pub algorithm: HashAlgorithm,
    /// The hash that is declared, if one is.
    pub declared: Option<Hash>,
    /// How mentions of the output's own path count in the hash.
    pub self_references: SelfReferences,
}

/// Where the builder writes its outputs: at their paths, or at scratch paths where the path follows from what is written.
pub(super) fn written_paths(
    derivation: &Derivation,
    path: &StorePath,
    unique: &str,
) -> Result<BTreeMap<String, StorePath>, PlanError> {
    let mut paths = BTreeMap::new();
    for (name, output) in &derivation.outputs {
        let written = match output {
            Output::InputAddressed { path } => path.clone(),
            Output::Fixed { content } => content.store_path(&derivation.output_path_name(name))?,
            Output::Floating { .. } => resolve::scratch_path(path, &derivation.name, name)?,
            Output::Impure { .. } => resolve::impure_scratch_path(unique, &derivation.name, name)?,
            Output::Deferred => {
                let what = "depends on outputs that have no path yet; build it, or them, first".to_owned();
                return Err(PlanError::Unsupported { path: path.clone(), what });
            }
        };
        paths.insert(name.clone(), written);
    }
    Ok(paths)
}

pub(super) fn content(derivation: &Derivation, self_references: SelfReferences) -> Option<Content> {
    let (method, algorithm, declared) = match derivation.outputs.values().next()? {
        Output::Fixed { content } => (content.method, content.hash.algorithm(), Some(content.hash)),
        Output::Floating { method, algorithm } | Output::Impure { method, algorithm } => (*method, *algorithm, None),
        Output::InputAddressed { .. } | Output::Deferred => return None,
    };
    Some(Content { method, algorithm, declared, self_references })
}
