//! Why we could not find out how a build ends. That it fails is not here: see [`crate::outcome`].

use fodder_sandbox::SandboxError;
use fodder_store::StoreError;
use std::path::PathBuf;

/// Everything that keeps a build from having an outcome.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The sandbox could not be set up or supervised.
    #[error("the sandbox could not be set up")]
    Sandbox(#[from] SandboxError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An output could not be read.
    #[error(transparent)]
    Inspect(#[from] crate::inspect::InspectError),
    /// A file could not be read.
    #[error("cannot read '{}'", crate::inspect::shown(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write '{}'", crate::inspect::shown(path))]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There is no plan for this derivation on this machine, for a reason that is not the derivation's.
    #[error(transparent)]
    Plan(fodder_model::plan::PlanError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] fodder_model::profile::ProfileError),
    /// A binary cache.
    #[error(transparent)]
    Cache(#[from] fodder_store::CacheError),
    /// The gateway could not be opened.
    #[error("the gateway could not be opened")]
    Gateway(#[source] std::io::Error),
    /// A recording.
    #[error(transparent)]
    Recording(#[from] fodder_gateway::record::RecordError),
    /// What has no gateway has nothing that could be recorded.
    #[error("cannot {what} the build of '{derivation}': only builds with a gateway can be, and this has none: {why}")]
    NoGateway {
        /// Which.
        derivation: fodder_model::store_path::StorePath,
        /// `record` or `replay`.
        what: &'static str,
        /// Why it has none.
        why: String,
    },
    /// Cancelled by the caller.
    #[error("cancelled")]
    Cancelled,
}
