//! Keeping what a build exchanges over HTTP(S), and answering from what was kept. TLS ends here, with a certificate authority
//! that lives as long as the build and is in its bundle.

mod answer;
mod authority;
mod bodies;
mod first_bytes;
mod forward;
mod http;
mod intercept;
mod player;
mod recorder;
mod stream;

pub use player::{Player, read};
pub use recorder::Recorder;

pub(crate) use answer::answer;
pub(crate) use authority::provider;
pub(crate) use intercept::{Target, intercept};

use fodder_model::recording::{Body, RecordingError};
use std::{path::PathBuf, sync::Arc};

/// What is done with the exchanges of a build.
#[derive(Clone, Debug, Default)]
pub enum Tap {
    /// Nothing.
    #[default]
    None,
    /// They are kept.
    Record(Arc<Recorder>),
    /// They are answered from a recording, and nobody is called.
    Replay(Arc<Player>),
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file of it cannot be read.
    #[error("cannot read '{}'", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file of it cannot be written.
    #[error("cannot write '{}'", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Somebody else writes it.
    #[error("another build is being recorded into '{}'", path.display())]
    Busy {
        /// The directory of its bodies.
        path: PathBuf,
    },
    /// The file is no recording.
    #[error("cannot use the recording '{}'", path.display())]
    Recording {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: RecordingError,
    },
    /// A body is not what was recorded.
    #[error(
        "the recording is damaged: '{}' is not the {} bytes with sha256 {} that belong there; a recording is its file and the directory beside it, which are copied together",
        path.display(), body.size, body.sha256
    )]
    Damaged {
        /// Where it should be.
        path: PathBuf,
        /// What it should be.
        body: Body,
    },
    /// The bundle, or a certificate of our own.
    #[error("cannot make certificates for the recording: {0}")]
    Certificates(String),
}
