//! What can be wrong with an output.

use super::shown;
use fodder_model::{limits::Limit, nar::NarError};
use std::path::PathBuf;

/// Why an output cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is none.
    #[error("there is no '{}'", shown(path))]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Not a regular file, directory or symbolic link.
    #[error("file \"{}\" has an unsupported type", shown(path))]
    UnsupportedType {
        /// Which file.
        path: PathBuf,
    },
    /// The top is writable for others, or belongs to somebody else.
    #[error("suspicious ownership or permission on \"{}\"; rejecting this build output", shown(path))]
    Suspicious {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody outside of the sandbox can still change it.
    #[error("file \"{}\" is still open for writing; rejecting this build output", shown(path))]
    StillOpen {
        /// Which file.
        path: PathBuf,
    },
    /// A link that the builder did not make leads to it.
    #[error("file \"{}\" is linked from outside of this build; rejecting this build output", shown(path))]
    LinkedElsewhere {
        /// Which file.
        path: PathBuf,
    },
    /// It is larger than it may be.
    #[error("\"{}\" has more than {} ({limit}); {} changes that", shown(path), limit.words(*allowed), limit.flag())]
    TooLarge {
        /// The output.
        path: PathBuf,
        /// Which limit.
        limit: Limit,
        /// What it allows.
        allowed: u64,
    },
    /// It has no NAR: too deep, or a name that NARs do not take.
    #[error("path '{}'", shown(path))]
    Nar {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: NarError,
    },
    /// It could not be read again.
    #[error(transparent)]
    Again(#[from] fodder_store::StoreError),
    /// The system failed us.
    #[error("cannot {doing} '{}'", shown(path))]
    System {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl InspectError {
    /// Whether the output is to blame, and not the machine.
    pub fn is_rejection(&self) -> bool {
        match self {
            InspectError::Missing { .. }
            | InspectError::UnsupportedType { .. }
            | InspectError::Suspicious { .. }
            | InspectError::StillOpen { .. }
            | InspectError::LinkedElsewhere { .. }
            | InspectError::TooLarge { .. } => true,
            InspectError::Nar { source, path: _ } => !matches!(source, NarError::Output(_)),
            InspectError::Again(_) | InspectError::System { .. } => false,
        }
    }
}
