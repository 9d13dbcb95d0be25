//! The builder's log, for people: whole lines where nobody watches, one live line where somebody does.

use crate::words::{harmless, print_note};
use fodder_build::{Event, FetchEvent};
use fodder_model::store_path::StorePath;
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use unicode_width::UnicodeWidthChar;

/// Longest line that is held, in bytes; the rest of it is dropped and said to be.
const LINE_LIMIT: usize = 64 * 1024;

/// How often the live line is drawn at least.
const TICK: Duration = Duration::from_secs(1);

/// How often the live line is drawn at most.
const REDRAW: Duration = Duration::from_millis(50);

/// Shows what happens during builds.
pub(crate) struct Progress {
    is_live: bool,
    shows_log: bool,
    started: Instant,
    drawn: Option<Instant>,
    builds: BTreeMap<StorePath, Build>,
    /// The build that spoke last; the live line is about it.
    current: Option<StorePath>,
    /// How far downloads are; they come before builds.
    fetching: Option<String>,
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
        Progress {
            is_live,
            shows_log: shows_log || !is_live,
            started,
            drawn: None,
            builds: BTreeMap::new(),
            current: None,
            fetching: None,
        }
    }

    pub(crate) fn observe(&mut self, path: &StorePath, event: &Event) {
        if let Event::Fetch(event) = event {
            return self.fetch(event);
        }
        let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
        let build =
            self.builds.entry(path.clone()).or_insert_with(|| Build { name: name.to_owned(), ..Build::default() });
        self.current = Some(path.clone());
        match event {
            Event::Fetch(event) => self.fetch(event),
            Event::Log(piece) => {
                let lines = build.feed(piece);
                if self.shows_log {
                    let name = build.name.clone();
                    for line in lines {
                        self.say(&format!("{name}> {line}"));
                    }
                }
                self.draw(false);
            }
            Event::WaitingFor(output) => {
                self.say(&format!("waiting for the lock on '{output}' (another build of it is running)"));
            }
            Event::Started => self.draw(true),
            Event::Inspecting => {
                build.phase = "reading the outputs".to_owned();
                build.last_line.clear();
                self.draw(true);
            }
        }
    }

    /// Downloads: a line each where nobody watches, a bar where somebody does.
    pub(crate) fn fetch(&mut self, event: &FetchEvent) {
        match event {
            FetchEvent::Started { path, url } if self.shows_log => {
                self.say(&format!("copying path '{path}' from '{url}'..."))
            }
            FetchEvent::Writing { path, url } if self.shows_log => {
                self.say(&format!("copying path '{path}' to '{url}'..."))
            }
            FetchEvent::Started { .. } | FetchEvent::Writing { .. } => {}
            FetchEvent::Progress { done, paths, bytes, total_bytes } => {
                self.fetching = Some(fetch_line(*done, *paths, *bytes, *total_bytes));
                self.draw(done == paths);
            }
            FetchEvent::Finished => {
                self.fetching = None;
                self.clear();
            }
            FetchEvent::Warning(text) => {
                self.say(&format!("warning: {}", text.lines().collect::<Vec<_>>().join("\n         ")));
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

    fn draw(&mut self, now: bool) {
        if !self.is_live || (!now && self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW)) {
            return;
        }
        let build = self.current.as_ref().and_then(|path| self.builds.get(path));
        if let Some(text) = self.fetching.clone().or_else(|| build.map(Build::live)) {
            self.draw_line(&format!("[{}s] {text}", self.started.elapsed().as_secs()));
        }
    }

    fn draw_line(&mut self, text: &str) {
        let text = fitting(text, width().saturating_sub(1));
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K{text}");
        self.drawn = Some(Instant::now());
    }
}

/// As much of a text as fits into so many columns: a line that wraps could not be taken back. Signs that take no room of their own
/// are few in a text and many in an attack.
fn fitting(text: &str, columns: usize) -> String {
    let (mut used, mut narrow) = (0, 0);
    let fits = |character: &char| {
        let width = character.width().unwrap_or(1);
        used += width;
        narrow += usize::from(width == 0);
        used <= columns && narrow <= columns
    };
    text.chars().take_while(fits).collect()
}

/// `copying [=====>    ] 3/12 paths, 14.2/80.1 MiB`
fn fetch_line(done: usize, paths: usize, bytes: u64, total_bytes: u64) -> String {
    const WIDTH: u64 = 20;
    let filled = u128::from(bytes.min(total_bytes)) * u128::from(WIDTH) / u128::from(total_bytes.max(1));
    let filled = usize::try_from(filled).unwrap_or_default();
    let head = if filled < WIDTH as usize { ">" } else { "" };
    let bar = format!("{}{head}", "=".repeat(filled));
    let mebibytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1_048_576.0);
    format!("copying [{bar:20}] {done}/{paths} paths, {}/{} MiB", mebibytes(bytes), mebibytes(total_bytes))
}

impl Build {
    /// What the live line says of it. A tabulator would make it wider than it is known to be.
    fn live(&self) -> String {
        let Build { name, phase, last_line, line: _, is_cut: _ } = self;
        let mut text = name.clone();
        if !phase.is_empty() {
            text.push_str(&format!(" ({phase})"));
        }
        if !last_line.is_empty() {
            text.push_str(&format!(": {last_line}"));
        }
        text.replace('\t', " ")
    }

    /// Adds a piece of log; returns the lines that it ended, ready to be printed.
    fn feed(&mut self, piece: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part {
                [text @ .., b'\n'] => (text, true),
                text => (text, false),
            };
            let kept = text.len().min(LINE_LIMIT.saturating_sub(self.line.len()));
            self.line.extend(&text[..kept]);
            self.is_cut |= kept < text.len();
            if ends {
                lines.extend(self.end_line());
            }
        }
        lines
    }

    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.is_cut);
        if let Some(phase) = fodder_build::announced_phase(&line) {
            self.phase = harmless(phase.as_bytes());
            return None;
        }
        let mut text = harmless(remaining(&line));
        if is_cut {
            text.push_str("… (line cut)");
        }
        self.last_line.clone_from(&text);
        Some(text)
    }
}

/// What a terminal would be left with after a line that draws over itself, as progress displays do: a carriage return, and the
/// sequences for the first column and for erasing a line, begin again. A line that ends in them is a line all the same.
pub(crate) fn remaining(line: &[u8]) -> Vec<u8> {
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
    rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(80)
}

/// Shares progress with a thread that draws the time anew while builders are silent.
pub(crate) struct Ticker {
    progress: Arc<Mutex<Progress>>,
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Ticker {
    pub(crate) fn start(progress: Progress) -> Self {
        let is_live = progress.is_live;
        let progress = Arc::new(Mutex::new(progress));
        let shared = Arc::clone(&progress);
        let thread = is_live.then(|| {
            let (stop, stopped) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    lock(&shared).draw(false);
                }
            });
            (stop, thread)
        });
        Ticker { progress, thread }
    }

    pub(crate) fn observe(&self, path: &StorePath, event: &Event) {
        lock(&self.progress).observe(path, event);
    }

    pub(crate) fn fetch(&self, event: &FetchEvent) {
        lock(&self.progress).fetch(event);
    }

    /// Ends the live line for good.
    pub(crate) fn finish(self) {
        if let Some((stop, thread)) = self.thread {
            drop(stop);
            let _ = thread.join();
        }
        lock(&self.progress).finish();
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_from_nothing_to_everything() {
        const MIB: u64 = 1 << 20;
        assert_eq!(fetch_line(0, 12, 0, 80 * MIB), "copying [>                   ] 0/12 paths, 0.0/80.0 MiB");
        assert_eq!(fetch_line(3, 12, 20 * MIB, 80 * MIB), "copying [=====>              ] 3/12 paths, 20.0/80.0 MiB");
        assert_eq!(fetch_line(12, 12, 80 * MIB, 80 * MIB), "copying [====================] 12/12 paths, 80.0/80.0 MiB");
        // Hostile sizes.
        fetch_line(0, 1, u64::MAX, u64::MAX);
        fetch_line(0, 1, 1, 0);
    }

    #[test]
    fn a_live_line_is_no_wider_than_the_terminal() {
        assert_eq!(fitting("plain", 10), "plain");
        assert_eq!(fitting("plain", 3), "pla");
        assert_eq!(fitting("日本語", 5), "日本");
        assert_eq!(fitting(&"a\u{301}".repeat(100), 3).chars().count(), 6);
        assert!(fitting(&"\u{301}".repeat(100_000), 80).len() <= 160);
    }

    /// Attack: LOG-2. Layer: phases and lines are harmless before they are part of the live line.
    #[test]
    fn what_a_build_says_cannot_move_the_live_line() {
        let mut build = Build { name: "name".to_owned(), ..Build::default() };
        build.feed(b"@nix {\"action\":\"setPhase\",\"phase\":\"a\\u001b[2J\\n\\tb\"}\none\ttwo\x1b[1A\n");
        assert_eq!(build.live(), "name (a\\u{1b}[2J\\n b): one two\\u{1b}[1A");
    }

    #[test]
    fn the_live_line_is_not_drawn_for_every_line_of_a_flood() {
        let mut progress = Progress::new(true, false);
        let (path, later) =
            (StorePath::from_base_name(&format!("{}-x.drv", "0".repeat(32))), Duration::from_secs(3600));
        progress.observe(&path.unwrap(), &Event::Started);
        // Drawn a moment ago, however slow this machine is.
        let drawn = Instant::now() + later;
        progress.drawn = Some(drawn);
        progress.draw(false);
        assert_eq!(progress.drawn, Some(drawn));
        progress.draw(true);
        assert!(progress.drawn < Some(drawn));
        progress.clear();
    }

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
}
