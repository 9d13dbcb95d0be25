//! The builder's log, for people: whole lines where nobody watches, one live line where somebody does.

use crate::words::{harmless, print_note};
use fodder_build::Event;
use fodder_model::store_path::StorePath;
use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

/// Longest line that is held, in bytes; the rest of it is dropped and said to be.
const LINE_LIMIT: usize = 64 * 1024;

/// How often the live line is drawn at most.
const REDRAW: Duration = Duration::from_millis(50);

/// Shows what happens during builds.
pub(crate) struct Progress {
    is_live: bool,
    shows_log: bool,
    started: Instant,
    drawn: Option<Instant>,
    builds: BTreeMap<StorePath, Build>,
}

/// What is known of one build.
#[derive(Default)]
struct Build {
    name: String,
    phase: String,
    last_line: String,
    line: Vec<u8>,
    is_cut: bool,
}

impl Progress {
    /// `is_live` on a terminal, `shows_log` for `-L`.
    pub(crate) fn new(is_live: bool, shows_log: bool) -> Self {
        let started = Instant::now();
        Progress { is_live, shows_log: shows_log || !is_live, started, drawn: None, builds: BTreeMap::new() }
    }

    pub(crate) fn observe(&mut self, path: &StorePath, event: &Event) {
        let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
        let build =
            self.builds.entry(path.clone()).or_insert_with(|| Build { name: name.to_owned(), ..Build::default() });
        match event {
            Event::Log(piece) => {
                let lines = build.feed(piece);
                if self.shows_log {
                    let name = build.name.clone();
                    for line in lines {
                        self.say(&format!("{name}> {line}"));
                    }
                }
                self.draw(path, false);
            }
            Event::WaitingFor(output) => {
                self.say(&format!("waiting for the lock on '{output}' (another build of it is running)"));
            }
            Event::Started => self.draw(path, true),
            Event::Inspecting => {
                build.phase = "reading the outputs".to_owned();
                build.last_line.clear();
                self.draw(path, true);
            }
        }
    }

    /// Ends the live line, so that other words can be printed, and what builders left without a newline.
    pub(crate) fn finish(&mut self) {
        for mut build in std::mem::take(&mut self.builds).into_values().filter(|build| !build.line.is_empty()) {
            if let (Some(line), true) = (build.end_line(), self.shows_log) {
                self.say(&format!("{}> {line}", build.name));
            }
        }
        self.clear();
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

    fn draw(&mut self, path: &StorePath, now: bool) {
        if !self.is_live || (!now && self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW)) {
            return;
        }
        let Some(Build { name, phase, last_line, .. }) = self.builds.get(path) else { return };
        let mut text = format!("[{}s] {name}", self.started.elapsed().as_secs());
        if !phase.is_empty() {
            text.push_str(&format!(" ({phase})"));
        }
        if !last_line.is_empty() {
            text.push_str(&format!(": {}", last_line.replace('\t', " ")));
        }
        let text: String = text.chars().take(width().saturating_sub(1)).collect();
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K{text}");
        self.drawn = Some(Instant::now());
    }
}

impl Build {
    /// Adds a piece of log; returns the lines that it ended, ready to be printed.
    fn feed(&mut self, piece: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in piece {
            match byte {
                b'\n' => lines.extend(self.end_line()),
                byte if self.line.len() < LINE_LIMIT => self.line.push(*byte),
                _ => self.is_cut = true,
            }
        }
        lines
    }

    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.is_cut);
        if let Some(phase) = phase_of(&line) {
            self.phase = phase;
            return None;
        }
        // What stands after the last carriage return is what a terminal would show; a text that ends in one is a line all the same.
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let shown = line.rsplit(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut text = harmless(shown);
        if is_cut {
            text.push_str("… (line cut)");
        }
        self.last_line.clone_from(&text);
        Some(text)
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
