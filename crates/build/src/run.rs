//! Running the plan: the builder's log goes to its file, to the observer, and its last lines are kept for the failure message.

use crate::{
    BuildRequest, RecordingReport, error::BuildError, host::network, log_file::LogFile, outcome::Event,
    prepare::Prepared, recording,
};
use fodder_gateway::{Gateway, Ledger, Settings, Socket};
use fodder_model::{
    limits::{Limit, value},
    proxy::Proxies,
};
use fodder_sandbox::{BuilderExit, BuilderReport, DoorSocket, WaitingHelper};
use fodder_store::Store;
use std::{collections::VecDeque, path::PathBuf};

/// Lines that a failure message shows, as in Nix.
const TAIL_LINES: usize = 25;

/// Longest line that is kept for it, in bytes: a builder may write without a newline for ever.
const TAIL_LINE_LIMIT: usize = 4096;

/// How a builder ended, and what it said last.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) report: BuilderReport,
    pub(crate) log_file: PathBuf,
    pub(crate) tail: Vec<String>,
    /// Who was called, when there was a gateway.
    pub(crate) ledger: Option<Ledger>,
    /// Whether all ports lead to the gateway.
    pub(crate) all_ports: Option<bool>,
    /// What became of its exchanges, when somebody wanted to know.
    pub(crate) recording: Option<RecordingReport>,
}

impl Ran {
    /// What it asked for and was not in the recording.
    pub(crate) fn missing(&self) -> &[String] {
        self.recording.as_ref().map(|report| report.missing.as_slice()).unwrap_or_default()
    }
}

/// Executes the plan.
pub(crate) fn run(
    prepared: &Prepared,
    store: &Store,
    helper: WaitingHelper<'_>,
    request: &BuildRequest,
    observe: &mut dyn FnMut(Event),
) -> Result<Ran, BuildError> {
    let log_file = store.log_path(&prepared.plan.derivation);
    let limits = &prepared.plan.limits;
    let kept = (value(limits, Limit::LogFile), value(limits, Limit::LogLine));
    let mut log = LogFile::new(store.open_log(&prepared.plan.derivation)?, kept.0, kept.1);
    let mut tail = Tail::default();
    let mut write_error = None;
    let gateway = open_gateway(prepared)?;
    observe(Event::Started);
    let mut on_log = |piece: &[u8]| {
        if write_error.is_none() {
            write_error = log.write(piece).err();
        }
        tail.feed(piece);
        observe(Event::Log(piece.to_vec()));
    };
    let mut all_ports = gateway.as_ref().map(|_| false);
    let report = helper.run(&prepared.plan.sandbox, &mut on_log, &mut |purpose, socket| {
        if let Some(gateway) = &gateway {
            gateway.serve(match purpose {
                DoorSocket::Redirected => {
                    all_ports = Some(true);
                    Socket::Redirected(socket)
                }
                DoorSocket::Port => Socket::Port(socket),
                DoorSocket::Names => Socket::Names(socket),
            });
        }
    });
    let ledger = gateway.map(Gateway::close);
    let report = report?;
    let recording = match &ledger {
        // Half of a build is no recording.
        Some(ledger) if report.exit != BuilderExit::Cancelled => {
            recording::close(&prepared.tap, request, &prepared.plan.derivation.to_string(), ledger)?
        }
        Some(_) | None => None,
    };
    let finished = log.finish();
    match write_error.or(finished.err()) {
        Some(source) => Err(BuildError::Write { path: log_file, source }),
        None => Ok(Ran { report, log_file, tail: tail.finish(), ledger, all_ports, recording }),
    }
}

/// Somebody behind the door, where the plan has one.
fn open_gateway(prepared: &Prepared) -> Result<Option<Gateway>, BuildError> {
    let Some(door) = &prepared.plan.sandbox.door else { return Ok(None) };
    let settings = Settings {
        policy: prepared.plan.network_policy.clone(),
        own_addresses: network::own_addresses(),
        resolvers: network::resolvers(),
        proxies: Proxies::read(|name| std::env::var(name).ok()),
        has_ipv6: door.address6.is_some(),
        name_server: door.name_server,
        tap: prepared.tap.clone(),
    };
    Gateway::open(settings).map(Some).map_err(BuildError::Gateway)
}

/// The phase that a message to the runner announces; such a line is not shown (reference, section 4.7). No other message is
/// listened to, and so they are lines like all others: a builder could forge them.
pub fn announced_phase(line: &[u8]) -> Option<String> {
    let message: serde_json::Value = serde_json::from_slice(line.strip_prefix(b"@nix ")?).ok()?;
    (message["action"] == "setPhase").then(|| message["phase"].as_str().unwrap_or_default().to_owned())
}

/// The last lines of a log, in bounded memory.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    current: Vec<u8>,
    is_cut: bool,
}

impl Tail {
    fn feed(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match part {
                [text @ .., end @ (b'\n' | b'\r')] => (text, Some(*end)),
                text => (text, None),
            };
            let kept = text.len().min(TAIL_LINE_LIMIT.saturating_sub(self.current.len()));
            self.current.extend(&text[..kept]);
            self.is_cut |= kept < text.len();
            match end {
                Some(b'\n') => self.end_line(),
                // A progress bar starts its line again.
                Some(_) => {
                    self.current.clear();
                    self.is_cut = false;
                }
                None => {}
            }
        }
    }

    fn end_line(&mut self) {
        let mut line = String::from_utf8_lossy(&self.current).into_owned();
        if std::mem::take(&mut self.is_cut) {
            line.push('…');
        }
        self.current.clear();
        if announced_phase(line.as_bytes()).is_some() {
            return;
        }
        self.lines.push_back(line);
        if self.lines.len() > TAIL_LINES {
            self.lines.pop_front();
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.end_line();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_phase_is_taken_from_messages() {
        let announced = |line: &str| announced_phase(line.as_bytes());
        assert_eq!(announced(r#"@nix { "action": "setPhase", "phase": "buildPhase" }"#).as_deref(), Some("buildPhase"));
        assert_eq!(announced(r#"@nix {"action":"msg","level":0,"msg":"error: you are hacked"}"#), None);
        assert_eq!(announced("@nix not json"), None);
        assert_eq!(announced("plain"), None);
    }

    #[test]
    fn the_tail_keeps_the_last_lines_and_no_more_of_each_than_it_may() {
        let mut tail = Tail::default();
        for number in 0..40 {
            tail.feed(format!("line {number}\n").as_bytes());
        }
        tail.feed(b"@nix {\"action\":\"setPhase\"}\n10%\r20%\rdone\n");
        tail.feed(&vec![b'x'; 1_000_000]);
        let lines = tail.finish();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines[TAIL_LINES - 2], "done");
        assert_eq!(lines[TAIL_LINES - 1].chars().count(), TAIL_LINE_LIMIT + 1);
        assert_eq!(lines[0], "line 17");
    }
}
