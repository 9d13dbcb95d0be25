//! A recording that answers.

use super::{
    RecordError,
    authority::Authority,
    bodies::{check, directory_of},
};
use fodder_model::recording::{Answers, Host, Recording, Redactor, Request, Response};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Addresses for names begin here: this network is for tests of network devices (RFC 2544), so nobody is there.
const FIRST_ADDRESS: u32 = Ipv4Addr::new(198, 18, 0, 1).to_bits();

/// How many there are.
const ADDRESSES: usize = (1 << 17) - 2;

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
    addresses: BTreeMap<String, IpAddr>,
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
            state: Mutex::new(State { answers, addresses: BTreeMap::new(), missing: BTreeSet::new() }),
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

    /// An address for a name, unless the name is known not to exist. Names that were not asked for have one as well, so that
    /// the request that follows can be told in full.
    pub(crate) fn address_of(&self, name: &str) -> Option<IpAddr> {
        if self.recording.names.get(name) == Some(&false) {
            return None;
        }
        let mut state = self.state();
        let count = state.addresses.len();
        if !state.addresses.contains_key(name) && count >= ADDRESSES {
            return None;
        }
        let next = FIRST_ADDRESS + u32::try_from(count).unwrap_or_default();
        Some(*state.addresses.entry(name.to_owned()).or_insert(IpAddr::V4(Ipv4Addr::from_bits(next))))
    }

    pub(super) fn host(&self, name: &str, port: u16) -> Option<&Host> {
        self.recording.hosts.get(&format!("{name}:{port}"))
    }

    /// The recorded answer: `None` when there is none, `Some(None)` when the connection ended without one.
    pub(super) fn answer(&self, request: &Request) -> Option<Option<&Response>> {
        let index = self.state().answers.next(request)?;
        Some(self.recording.exchanges[index].response.as_ref())
    }

    pub(super) fn body(&self, response: &Response) -> PathBuf {
        self.directory.join(&response.body.sha256)
    }
}

/// Reads the file alone.
pub fn read(file: &Path) -> Result<Recording, RecordError> {
    let text = std::fs::read(file).map_err(|source| RecordError::Read { path: file.to_owned(), source })?;
    Recording::parse(&text).map_err(|source| RecordError::Recording { path: file.to_owned(), source })
}
