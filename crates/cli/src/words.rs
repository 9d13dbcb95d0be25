//! Where words go, and making other people's words safe to print.

use std::io::{IsTerminal, Write};

/// Writes a line to standard output. A reader that went away (`fodder … | head`) is no error, as for every filter.
pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes a line to standard error.
pub(crate) fn print_note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether a person watches standard error.
pub(crate) fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// One line of somebody else's: colours are dropped, every other control character is spelled out, and so are the characters that
/// turn the direction of text, so that nothing printed can pass for something else.
pub(crate) fn harmless(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\t' => result.push('\t'),
            '\u{1b}' if characters.peek() == Some(&'[') => {
                let rest: String = characters.clone().skip(1).take_while(|c| c.is_ascii_digit() || *c == ';').collect();
                if characters.clone().nth(1 + rest.len()) == Some('m') {
                    characters.nth(1 + rest.len());
                } else {
                    result.push_str("\\u{1b}");
                }
            }
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                result.extend(character.escape_unicode());
            }
            character if character.is_control() => result.extend(character.escape_default()),
            character => result.push(character),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn escapes_are_spelled_out_and_colours_dropped() {
        for (line, expected) in [
            ("plain\ttext é", "plain\ttext é"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[1;38;5;9mx\u{1b}[m", "x"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\rb", "a\\rb"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{9b}2J", "\\u{9b}2J"),
        ] {
            assert_eq!(harmless(line.as_bytes()), expected);
        }
    }
}
