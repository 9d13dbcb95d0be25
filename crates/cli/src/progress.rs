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
            Event::WaitingFor(path) => {
                self.say(&format!("waiting for the lock on '{path}' (another build of it is running)"))
            }
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
        let mut text = harmless(&remaining(&line));
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

/// What a terminal would be left with after a line that draws over itself, as progress displays do: a carriage return, and the
/// sequences for the first column and for erasing a line, begin again. A line that ends in them is a line all the same.
fn remaining(line: &[u8]) -> Vec<u8> {
    let mut shown: Vec<u8> = Vec::new();
    let mut before = Vec::new();
    let mut begin_again = |shown: &mut Vec<u8>| {
        if !shown.is_empty() {
            before = std::mem::take(shown);
        }
    };
    let mut rest = line;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'\r' {
            begin_again(&mut shown);
            continue;
        }
        let sequence = after.strip_prefix(b"[").filter(|_| *byte == 0x1b).and_then(|sequence| {
            let digits = sequence.iter().take_while(|byte| byte.is_ascii_digit()).count();
            Some((&sequence[..digits], *sequence.get(digits)?, &sequence[digits + 1..]))
        });
        match sequence {
            Some((b"" | b"1", b'G', after)) | Some((b"1" | b"2", b'K', after)) => {
                begin_again(&mut shown);
                rest = after;
            }
            Some((b"" | b"0", b'K', after)) => rest = after,
            Some(_) | None => shown.push(*byte),
        }
    }
    if shown.is_empty() { before } else { shown }
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
    fn of_a_line_that_draws_over_itself_the_last_remains() {
        for (line, expected) in [
            ("plain", "plain"),
            ("windows\r", "windows"),
            ("10 %\r100 %", "100 %"),
            ("10 %\r100 %\r", "100 %"),
            ("\u{1b}[2KResolved 3 packages", "Resolved 3 packages"),
            ("|\u{1b}[1G\u{1b}[0K/\u{1b}[1G\u{1b}[0Kadded 2 packages", "added 2 packages"),
            ("two colours \u{1b}[31mred\u{1b}[0m", "two colours \u{1b}[31mred\u{1b}[0m"),
            ("\u{1b}[2Jgone\u{1b}", "\u{1b}[2Jgone\u{1b}"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(remaining(line.as_bytes())).unwrap(), expected);
        }
    }

    #[test]
    fn only_the_phase_is_taken_from_messages() {
        assert_eq!(phase_of(br#"@nix { "action": "setPhase", "phase": "buildPhase" }"#).as_deref(), Some("buildPhase"));
        assert_eq!(phase_of(br#"@nix {"action":"msg","level":0,"msg":"error: you are hacked"}"#), None);
        assert_eq!(phase_of(b"@nix not json"), None);
        assert_eq!(phase_of(b"plain"), None);
    }
}
