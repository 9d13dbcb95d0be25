//! What the database knows about a path, as data.

use fodder_model::{content_address::ContentAddress, hash::Hash, store_path::StorePath};
use std::collections::{BTreeMap, BTreeSet};

/// A valid path: one row of the database with its references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of the object's NAR serialisation.
    pub nar_hash: Hash,
    /// Size of the NAR serialisation in bytes; 0 means unknown.
    pub nar_size: u64,
    /// The paths that occur in the object, possibly itself.
    pub references: BTreeSet<StorePath>,
    /// The derivation that it was built from, if known; need not be valid.
    pub deriver: Option<StorePath>,
    /// When the path became valid, in seconds since 1970.
    pub registration_time: i64,
    /// Whether it was built here, so that no signature is needed to trust it.
    pub ultimate: bool,
    /// Signatures, each `<key name>:<base64>`.
    pub signatures: Vec<String>,
    /// The content address as Nix spells it (`text:sha256:…`, `fixed:r:sha256:…`, `fixed:sha1:…`, digests in nix32), for
    /// a path that can be computed from its contents.
    pub content_address: Option<String>,
}

impl PathInfo {
    /// Whether the path follows from its content address and references, so that nobody need vouch for it. Says nothing about
    /// whether the contents have that address.
    pub fn is_content_addressed(&self) -> bool {
        let address = self.content_address.as_deref().and_then(|text| ContentAddress::parse(text).ok());
        let Some(address) = address else { return false };
        let mut references = self.references.clone();
        let self_reference = references.remove(&self.path);
        address.is_path_of(&self.path, &references, self_reference)
    }
}

/// A path to be made valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What is to be known about it.
    pub info: PathInfo,
    /// For a derivation: its outputs with a known path, by output name.
    pub derivation_outputs: BTreeMap<String, StorePath>,
}

impl From<PathInfo> for Registration {
    /// For everything but derivations.
    fn from(info: PathInfo) -> Self {
        Registration { info, derivation_outputs: BTreeMap::new() }
    }
}
