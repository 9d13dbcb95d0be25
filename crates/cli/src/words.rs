//! Where words go. Whatever is printed goes through here, and nothing that goes through here can harm a terminal.

pub(crate) use fodder_model::harmless::harmless;

use crate::progress::remaining;
use fodder_model::harmless::{harmless_json, harmless_with_colours, inert};
use std::io::{BufRead, IsTerminal, Read, Write};

/// Writes a line to standard output. A reader that went away (`fodder … | head`) is no error, as for every filter.
pub(crate) fn print_line(line: &str) {
    write_line(&mut std::io::stdout().lock(), line);
}

/// Writes JSON to standard output.
pub(crate) fn print_json(json: &str) {
    write_json(&mut std::io::stdout().lock(), json);
}

/// Writes a line to standard error.
pub(crate) fn print_note(line: &str) {
    write_line(&mut std::io::stderr().lock(), line);
}

/// Writes lines with colours of our own, whose other parts are harmless.
pub(crate) fn print_styled_note(lines: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{lines}");
}

/// Somebody else's bytes: as they are into a file or a pipe, harmless on a terminal.
pub(crate) fn print_bytes(bytes: &[u8]) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    if output.is_terminal() { write_text(&mut output, bytes) } else { output.write_all(bytes) }
}

/// A builder's log, a piece at a time: as it is into a file or a pipe; on a terminal nothing but text and colours.
pub(crate) fn print_log(mut log: std::fs::File) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    if output.is_terminal() {
        return write_log(&mut output, log);
    }
    match std::io::copy(&mut log, &mut output) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied.map(drop),
    }
}

fn write_line(output: &mut impl Write, line: &str) {
    let _ = writeln!(output, "{}", inert(line));
}

fn write_json(output: &mut impl Write, json: &str) {
    let _ = writeln!(output, "{}", harmless_json(json));
}

fn write_text(output: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    bytes.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| match line.strip_suffix(b"\n") {
        Some(line) => writeln!(output, "{}", harmless(line)),
        None => write!(output, "{}", harmless(line)),
    })
}

/// Longest piece of a line that is shown at once.
const SHOWN_BYTES: u64 = 64 * 1024;

fn write_log(output: &mut impl Write, log: impl Read) -> std::io::Result<()> {
    let mut log = std::io::BufReader::new(log);
    let mut line = Vec::new();
    while std::io::Read::by_ref(&mut log).take(SHOWN_BYTES).read_until(b'\n', &mut line)? > 0 {
        let ends = line.pop_if(|byte| *byte == b'\n').is_some();
        let shown = harmless_with_colours(remaining(&line));
        let _ = write!(output, "{shown}{}", if ends { "\n" } else { "" });
        line.clear();
    }
    Ok(())
}

/// Whether a person watches standard error.
pub(crate) fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\r";

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut output = Vec::new();
        write(&mut output);
        String::from_utf8(output).unwrap()
    }

    /// Attack: LOG-2. Layer: the last place before a terminal, whoever forgot about it before.
    #[test]
    fn nothing_that_was_forgotten_gets_to_a_terminal() {
        let line = written(|output| write_line(output, &format!("a\n\tb{HOSTILE}")));
        let json = written(|output| write_json(output, &format!("{{\"a\":\"{}\"}}", &HOSTILE[HOSTILE.len() - 4..])));
        let text = written(|output| write_text(output, format!("{HOSTILE}\n{HOSTILE}").as_bytes()).unwrap());
        let log = written(|output| write_log(output, format!("{HOSTILE}x\n{HOSTILE}y").as_bytes()).unwrap());
        for shown in [&line, &json, &text, &log] {
            let is_fine = |c: char| !fodder_model::harmless::is_deceptive(c) || matches!(c, '\n' | '\t');
            assert!(shown.chars().all(is_fine), "{shown:?}");
        }
        assert!(line.starts_with("a\n\tb\\u{1b}[2J") && line.ends_with("\\r\n"), "{line:?}");
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert_eq!(log, "x\ny", "what a carriage return took back is not shown");
    }

    /// Attack: LOG-1. Layer: of a line without end a piece at a time is held.
    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        struct Pieces(Vec<usize>);
        impl Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.push(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut pieces = Pieces(Vec::new());
        write_log(&mut pieces, std::io::repeat(b'x').take(5 * SHOWN_BYTES)).unwrap();
        assert_eq!(pieces.0.iter().sum::<usize>() as u64, 5 * SHOWN_BYTES);
        assert!(pieces.0.iter().all(|piece| *piece as u64 <= SHOWN_BYTES), "{:?}", pieces.0);
    }
}
