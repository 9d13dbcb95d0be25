//! The builder's log, for people: whole lines where nobody watches, one live line where somebody does.

use crate::words::{harmless, print_note};
use fodder_build::Event;
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// Longest line that is held, in bytes; the rest of it is dropped and said to be.
const LINE_LIMIT: usize = 64 * 1024;

/// How often the live line is drawn at most.
const REDRAW: Duration = Duration::from_millis(50);

/// Shows what happens during a build.
pub(crate) struct Progress {
    name: String,
    is_live: bool,
    shows_log: bool,
    started: Instant,
    drawn: Option<Instant>,
    phase: String,
    last_line: String,
    line: Vec<u8>,
    is_cut: bool,
}

impl Progress {
    /// For a derivation of this name; `is_live` on a terminal, `shows_log` for `-L`.
    pub(crate) fn new(name: &str, is_live: bool, shows_log: bool) -> Self {
        Progress {
            name: name.to_owned(),
            is_live,
            shows_log: shows_log || !is_live,
            started: Instant::now(),
            drawn: None,
            phase: String::new(),
            last_line: String::new(),
            line: Vec::new(),
            is_cut: false,
        }
    }

    pub(crate) fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Log(piece) => self.feed(piece),
            Event::WaitingFor(path) => self.say(&format!("waiting for the lock on '{path}' (another build of it is running)")),
            Event::Started => {
                self.started = Instant::now();
                self.draw(true);
            }
            Event::Inspecting => {
                self.phase = "reading the outputs".to_owned();
                self.last_line.clear();
                self.draw(true);
            }
        }
    }

    /// Ends the live line, so that other words can be printed.
    pub(crate) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.clear();
    }

    fn feed(&mut self, piece: &[u8]) {
        for byte in piece {
            match byte {
                b'\n' => self.end_line(),
                byte if self.line.len() < LINE_LIMIT => self.line.push(*byte),
                _ => self.is_cut = true,
            }
        }
        self.draw(false);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.is_cut);
        if let Some(phase) = phase_of(&line) {
            self.phase = phase;
            return;
        }
        // What stands after the last carriage return is what a terminal would show; a text that ends in one is a line all the same.
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let shown = line.rsplit(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut text = harmless(shown);
        if is_cut {
            text.push_str("… (line cut)");
        }
        if self.shows_log {
            let name = self.name.clone();
            self.say(&format!("{name}> {text}"));
        }
        self.last_line = text;
    }

    fn say(&mut self, line: &str) {
        self.clear();
        print_note(line);
    }

    fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn draw(&mut self, now: bool) {
        if !self.is_live || (!now && self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW)) {
            return;
        }
        let mut text = format!("[{}s] {}", self.started.elapsed().as_secs(), self.name);
        if !self.phase.is_empty() {
            text.push_str(&format!(" ({})", self.phase));
        }
        if !self.last_line.is_empty() {
            text.push_str(&format!(": {}", self.last_line.replace('\t', " ")));
        }
        let text: String = text.chars().take(width().saturating_sub(1)).collect();
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K{text}");
        self.drawn = Some(Instant::now());
    }
}

/// Columns of the terminal; 80 when it does not say.
fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(80)
}

/// The phase that a message to the runner announces. No other message is listened to: a builder could forge them.
fn phase_of(line: &[u8]) -> Option<String> {
    let message: serde_json::Value = serde_json::from_slice(line.strip_prefix(b"@nix ")?).ok()?;
    (message["action"] == "setPhase").then(|| harmless(message["phase"].as_str().unwrap_or_default().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_phase_is_taken_from_messages() {
        assert_eq!(phase_of(br#"@nix { "action": "setPhase", "phase": "buildPhase" }"#).as_deref(), Some("buildPhase"));
        assert_eq!(phase_of(br#"@nix {"action":"msg","level":0,"msg":"error: you are hacked"}"#), None);
        assert_eq!(phase_of(b"@nix not json"), None);
        assert_eq!(phase_of(b"plain"), None);
    }
}
