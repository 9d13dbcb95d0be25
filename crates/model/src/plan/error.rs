//! Why there is no plan.

use crate::{
    bytes::ByteString,
    harmless::harmless,
    reference_graph::GraphError,
    store_path::{StorePath, StorePathError},
};
use std::collections::BTreeSet;

/// Why there is no plan. The words are Nix's where Nix has words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The machine cannot run it. Nix tells of missing features in the same breath.
    #[error("platform mismatch\nRequired system: '{}'\nCurrent system: '{current}'{}", harmless(required), also(features.as_deref()))]
    Platform {
        /// The derivation's.
        required: String,
        /// The machine's.
        current: String,
        /// Features that it lacks as well.
        features: Option<Box<PlanError>>,
    },
    /// The machine lacks something.
    #[error(
        "missing system features\nRequired features: {{{}}}\nAvailable features: {{{}}}",
        join(required),
        join(available)
    )]
    Features {
        /// The derivation's.
        required: BTreeSet<String>,
        /// The machine's.
        available: BTreeSet<String>,
    },
    /// `__noChroot`
    #[error(
        "derivation '{path}' has '__noChroot' set, but that's not allowed when 'sandbox' is 'true': there is no build without a sandbox"
    )]
    NoSandbox {
        /// The derivation.
        path: StorePath,
    },
    /// `__impureHostDeps`
    #[error(
        "derivation '{path}' requested impure path '{}', but it was not in allowed-impure-host-deps",
        harmless(wanted)
    )]
    ImpurePath {
        /// The derivation.
        path: StorePath,
        /// What it wants to see of the machine.
        wanted: String,
    },
    /// A kind that cannot be built here.
    #[error("derivation '{path}' {what}")]
    Unsupported {
        /// The derivation.
        path: StorePath,
        /// `is impure`, …
        what: String,
    },
    /// `--network host` without a declared hash.
    #[error("derivation '{path}' declares no output hash, so it gets no network")]
    NetworkNotDeclared {
        /// The derivation.
        path: StorePath,
    },
    /// An output's path cannot be formed.
    #[error(transparent)]
    Path(#[from] StorePathError),
    /// A reference graph that cannot be exported.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Something that the profile or the command line names is not there.
    #[error("the sandbox needs '{path}' of this machine for '{target}', and it is not there")]
    HostFile {
        /// On the host.
        path: ByteString,
        /// Inside.
        target: String,
    },
    /// There is no bundle to give to a build that needs one.
    #[error("no certificate bundle was found on this machine")]
    NoCertificates,
}

fn also(features: Option<&PlanError>) -> String {
    features.map(|features| format!("\nReason: {features}")).unwrap_or_default()
}

fn join(features: &BTreeSet<String>) -> String {
    features.iter().map(harmless).collect::<Vec<_>>().join(", ")
}
