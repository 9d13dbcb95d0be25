//! Where words go. Whatever is printed goes through here, and nothing that goes through here can harm a terminal.

pub(crate) use fodder_model::harmless::harmless;

use crate::progress::remaining;
use fodder_model::harmless::{harmless_json, harmless_with_colours, inert};
use std::io::{BufRead, IsTerminal, Read, Write};

/// Writes a line to standard output. A reader that went away (`fodder … | head`) is no error, as for every filter.
pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", inert(line));
}

/// Writes JSON to standard output.
pub(crate) fn print_json(json: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", harmless_json(json));
}

/// Writes a line to standard error.
pub(crate) fn print_note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", inert(line));
}

/// Writes lines with colours of our own, whose other parts are harmless.
pub(crate) fn print_styled_note(lines: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{lines}");
}

/// Somebody else's bytes: as they are into a file or a pipe, harmless on a terminal.
pub(crate) fn print_bytes(bytes: &[u8]) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    if !output.is_terminal() {
        return output.write_all(bytes);
    }
    bytes.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| match line.strip_suffix(b"\n") {
        Some(line) => writeln!(output, "{}", harmless(line)),
        None => write!(output, "{}", harmless(line)),
    })
}

/// Longest piece of a line that is shown at once.
const SHOWN_BYTES: u64 = 64 * 1024;

/// A builder's log, a piece at a time: as it is into a file or a pipe; on a terminal nothing but text and colours.
pub(crate) fn print_log(mut log: std::fs::File) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    if !output.is_terminal() {
        return match std::io::copy(&mut log, &mut output) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            copied => copied.map(drop),
        };
    }
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
