//! A recording that answers.

use super::{
    RecordError,
    authority::Authority,
    bodies::{check, directory_of},
};
use fodder_model::recording::{Answers, Host, Recording, Redactor, Request, Response, SIZE_LIMIT};
use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Answers a build from what was recorded.
#[derive(Debug)]
pub struct Player {
    recording: Recording,
    directory: PathBuf,
    pub(super) authority: Authority,
    pub(super) redactor: Redactor,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answers: Answers,
    answered: u64,
    missing: BTreeSet<String>,
}

impl Player {
    /// Reads a recording and makes sure that all of it is there.
    pub fn open(file: &Path) -> Result<Self, RecordError> {
        let recording = read(file)?;
        let file = std::path::absolute(file).map_err(|source| RecordError::Read { path: file.to_owned(), source })?;
        let directory = directory_of(&file);
        for body in recording.bodies() {
            check(&directory, body)?;
        }
        let answers = Answers::new(&recording);
        Ok(Player {
            redactor: Redactor::new(&recording.salt),
            directory,
            authority: Authority::new()?,
            state: Mutex::new(State { answers, answered: 0, missing: BTreeSet::new() }),
            recording,
        })
    }

    /// The certificate that the build must trust, in PEM.
    pub fn certificate(&self) -> &str {
        self.authority.pem()
    }

    /// The derivation that was recorded.
    pub fn derivation(&self) -> &str {
        &self.recording.derivation
    }

    /// How many requests were answered.
    pub fn answered(&self) -> u64 {
        self.state().answered
    }

    /// Ports of this machine's loopback that are answered for.
    pub fn loopback_ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.recording.loopback_ports.iter().copied()
    }

    /// What the build asked for and was not recorded, in words.
    pub fn missing(&self) -> Vec<String> {
        self.state().missing.iter().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn miss(&self, what: String) {
        self.state().missing.insert(what);
    }

    /// Whether it is known that there is no such name. Names that were not asked for count as names, so that the request that
    /// follows can be told in full.
    pub(crate) fn knows_no(&self, name: &str) -> bool {
        self.recording.names.get(name) == Some(&false)
    }

    pub(super) fn host(&self, name: &str, port: u16) -> Option<&Host> {
        self.recording.hosts.get(&format!("{name}:{port}"))
    }

    /// The recorded answer: `None` when there is none, `Some(None)` when the connection ended without one.
    pub(super) fn answer(&self, request: &Request) -> Option<Option<&Response>> {
        let mut state = self.state();
        let index = state.answers.next(request)?;
        state.answered += 1;
        Some(self.recording.exchanges[index].response.as_ref())
    }

    pub(super) fn body(&self, response: &Response) -> PathBuf {
        self.directory.join(&response.body.sha256)
    }
}

/// Reads the file alone.
pub fn read(file: &Path) -> Result<Recording, RecordError> {
    let mut text = Vec::new();
    let opened = std::fs::File::open(file);
    // One byte more than may be there, so that a larger file is seen to be one.
    let read = opened.and_then(|opened| opened.take(SIZE_LIMIT as u64 + 1).read_to_end(&mut text));
    read.map_err(|source| RecordError::Read { path: file.to_owned(), source })?;
    Recording::parse(&text).map_err(|source| RecordError::Recording { path: file.to_owned(), source })
}
