//! A recording that is being made.

use super::{
    RecordError,
    authority::{Authority, provider},
    bodies::{Bodies, Writer, directory_of},
};
use crate::ledger::{NameEntry, NameOutcome};
use fodder_model::recording::{Exchange, Host, HostKind, Recording, Redactor, VERSION};
use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most exchanges of one recording, and most hosts: a build could fill the memory with them. A large `npm ci` has two thousand.
const EXCHANGE_LIMIT: usize = 200_000;

/// Keeps what a build exchanges. Nothing of it counts before [`Recorder::finish`].
#[derive(Debug)]
pub struct Recorder {
    file: PathBuf,
    bodies: Bodies,
    pub(super) authority: Authority,
    /// `None` when the bundle vouches for nobody.
    pub(super) verifier: Option<Arc<WebPkiServerVerifier>>,
    salt: String,
    pub(super) redactor: Redactor,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    exchanges: BTreeMap<u64, Exchange>,
    hosts: BTreeMap<String, Host>,
    loopback_ports: BTreeSet<u16>,
    not_recorded: BTreeSet<String>,
    error: Option<io::Error>,
}

impl Recorder {
    /// Gets ready to write `file`. `bundle` are the certificates in PEM that real servers are judged by.
    pub fn create(file: &Path, bundle: &[u8]) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Write { path: file.to_owned(), source };
        let file = std::path::absolute(file).map_err(failed)?;
        if file.is_dir() {
            return Err(RecordError::Write { path: file, source: io::ErrorKind::IsADirectory.into() });
        }
        let mut salt = [0; 16];
        rustix::rand::getrandom(&mut salt[..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed(error.into()))?;
        let salt: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle).flatten() {
            // Bundles hold certificates that nobody can use; everybody leaves them out.
            let _ = roots.add(certificate);
        }
        Ok(Recorder {
            bodies: Bodies::create(directory_of(&file))?,
            file,
            authority: Authority::new()?,
            verifier: WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build().ok(),
            redactor: Redactor::new(&salt),
            salt,
            state: Mutex::default(),
        })
    }

    /// The certificate that the build must trust, in PEM.
    pub fn certificate(&self) -> &str {
        self.authority.pem()
    }

    /// Writes the recording, whole or not at all. `names` are those of the ledger.
    pub fn finish(&self, derivation: &str, names: &[NameEntry]) -> Result<Recording, RecordError> {
        let failed = |source| RecordError::Write { path: self.file.clone(), source };
        let mut state = self.state();
        if let Some(source) = state.error.take() {
            return Err(RecordError::Write { path: self.bodies.path.clone(), source });
        }
        let recording = Recording {
            version: VERSION,
            derivation: derivation.to_owned(),
            salt: self.salt.clone(),
            names: names.iter().map(|entry| (entry.name.clone(), entry.outcome == NameOutcome::Found)).collect(),
            hosts: std::mem::take(&mut state.hosts),
            loopback_ports: std::mem::take(&mut state.loopback_ports),
            exchanges: std::mem::take(&mut state.exchanges).into_values().collect(),
            not_recorded: std::mem::take(&mut state.not_recorded),
        };
        drop(state);
        rustix::fs::syncfs(self.bodies.directory()).map_err(|error| failed(error.into()))?;
        // Among the bodies, where the next recording removes what a killed run has left.
        let mut file = self.bodies.new_file().map_err(failed)?;
        file.write_all(recording.write().as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.file).map_err(|error| failed(error.error))?;
        // Only now: until then the previous recording was the valid one, and these were its bodies.
        self.bodies.keep_only(&recording.bodies());
        Ok(recording)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a request.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        state.next
    }

    pub(super) fn add(&self, number: u64, exchange: Exchange) {
        let mut state = self.state();
        if state.exchanges.len() < EXCHANGE_LIMIT {
            state.exchanges.insert(number, exchange);
        } else {
            let problem = format!("the build makes more than {EXCHANGE_LIMIT} requests");
            state.error.get_or_insert_with(|| io::Error::other(problem));
        }
    }

    /// How a host was reached; the best way counts.
    pub(crate) fn host(&self, name: &str, port: u16, kind: HostKind, http2: bool) {
        let mut state = self.state();
        if state.hosts.len() >= EXCHANGE_LIMIT {
            let problem = format!("the build calls more than {EXCHANGE_LIMIT} hosts");
            state.error.get_or_insert_with(|| io::Error::other(problem));
            return;
        }
        let host = state.hosts.entry(format!("{name}:{port}")).or_insert(Host { kind, http2 });
        host.kind = host.kind.max(kind);
        host.http2 |= http2;
    }

    /// A connection begins.
    pub(crate) fn calls(&self, target: SocketAddr) {
        if target.ip().is_loopback() {
            self.state().loopback_ports.insert(target.port());
        }
    }

    /// Nobody was there, or nobody may be called there.
    pub(crate) fn unreachable(&self, target: SocketAddr, names: &BTreeSet<String>) {
        if names.is_empty() {
            self.host(&target.ip().to_string(), target.port(), HostKind::Unreachable, false);
        }
        for name in names {
            self.host(name, target.port(), HostKind::Unreachable, false);
        }
    }

    pub(super) fn cannot_record(&self, what: String) {
        let mut state = self.state();
        if state.not_recorded.len() < EXCHANGE_LIMIT {
            state.not_recorded.insert(what);
        }
    }

    pub(super) fn start_body(&self) -> Option<Writer> {
        self.bodies.start().map_err(|error| self.fail(error)).ok()
    }

    /// The build goes on; there will be no recording.
    pub(super) fn fail(&self, error: io::Error) {
        self.state().error.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fodder_model::recording::{Body, Request};

    fn exchange() -> Exchange {
        let body = Body { sha256: String::new(), size: 0 };
        let text = String::new;
        let request = Request { method: text(), url: text(), protocol: text(), headers: Vec::new(), body };
        Exchange { request, response: None }
    }

    /// Attack: RES-5 (requests without end). Layer: limits of a recording, beyond which there is none.
    #[test]
    fn what_a_build_can_make_a_recording_remember_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("recording");
        let numbers = || 0..EXCHANGE_LIMIT + 1;
        let requests = Recorder::create(&file, b"").unwrap();
        numbers().for_each(|number| requests.add(number as u64, exchange()));
        assert_eq!(requests.state().exchanges.len(), EXCHANGE_LIMIT);
        assert!(matches!(requests.finish("x", &[]), Err(RecordError::Write { .. })));
        drop(requests);
        let hosts = Recorder::create(&file, b"").unwrap();
        numbers().for_each(|number| hosts.host(&number.to_string(), 80, HostKind::Http, false));
        assert_eq!(hosts.state().hosts.len(), EXCHANGE_LIMIT);
        assert!(matches!(hosts.finish("x", &[]), Err(RecordError::Write { .. })));
        drop(hosts);
        // What cannot be recorded is no reason to have no recording.
        let others = Recorder::create(&file, b"").unwrap();
        numbers().for_each(|number| others.cannot_record(number.to_string()));
        assert_eq!(others.finish("x", &[]).unwrap().not_recorded.len(), EXCHANGE_LIMIT);
    }
}
