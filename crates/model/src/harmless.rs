//! Making other people's words safe to show: names, paths, values and logs come from derivations, builders and servers. One
//! function for a line, one for a text of ours with lines of its own, one for JSON; nothing else is to print such words.

use std::borrow::Cow;

/// Whether a character does something else than stand in its place: control characters (C0, DEL, C1), those that turn the direction
/// of text, that cannot be seen, that join or separate lines, and tags. Combining marks and the choice between two looks of a sign
/// (U+FE0F) are text.
pub fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// One line of somebody else's: colours are dropped, and every other deceptive character but the tabulator is spelled out, the
/// newline too, so that nothing printed can pass for something else.
pub fn harmless(line: impl AsRef<[u8]>) -> String {
    convert(&String::from_utf8_lossy(line.as_ref()), Colours::Dropped)
}

/// The same with colours, which end with the line; for a terminal that shows nothing but somebody else's words. Concealed and
/// blinking text is neither.
pub fn harmless_with_colours(line: impl AsRef<[u8]>) -> String {
    let text = convert(&String::from_utf8_lossy(line.as_ref()), Colours::Kept);
    if text.contains('\u{1b}') { text + "\u{1b}[0m" } else { text }
}

/// A text of ours that may hold words that nobody made harmless: its lines and tabulators stay.
pub fn inert(text: &str) -> Cow<'_, str> {
    let is_fine = |character: char| !is_deceptive(character) || matches!(character, '\n' | '\t');
    if text.chars().all(is_fine) {
        return Cow::Borrowed(text);
    }
    let spelled = |character: char| match is_fine(character) {
        true => String::from(character),
        false => character.escape_default().to_string(),
    };
    Cow::Owned(text.chars().map(spelled).collect())
}

/// JSON with the deceptive characters of its strings spelled as JSON spells them: the same value, fit for a terminal.
pub fn harmless_json(json: &str) -> Cow<'_, str> {
    let is_fine = |character: char| !is_deceptive(character) || character == '\n';
    if json.chars().all(is_fine) {
        return Cow::Borrowed(json);
    }
    let mut result = String::with_capacity(json.len());
    for character in json.chars() {
        if is_fine(character) {
            result.push(character);
        } else {
            let mut units = [0; 2];
            result.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Cow::Owned(result)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Colours {
    Dropped,
    Kept,
}

fn convert(text: &str, colours: Colours) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some((sequence, after)) = colour(rest) {
            if colours == Colours::Kept && is_plain_colour(sequence) {
                result.push_str(&rest[..rest.len() - after.len()]);
            }
            rest = after;
            continue;
        }
        rest = &rest[character.len_utf8()..];
        if is_deceptive(character) && character != '\t' {
            result.extend(character.escape_default());
        } else {
            result.push(character);
        }
    }
    result
}

/// A sequence that chooses colours (SGR, `ESC [ … m`) at the beginning: its parameters, and what comes after it.
fn colour(text: &str) -> Option<(&str, &str)> {
    let sequence = text.strip_prefix("\u{1b}[")?;
    let length = sequence.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')).count();
    let after = sequence[length..].strip_prefix('m')?;
    (length <= 64).then_some((&sequence[..length], after))
}

/// Not 5, 6 (blinking) or 8 (concealed), wherever they stand.
fn is_plain_colour(parameters: &str) -> bool {
    let mut numbers = parameters.split([';', ':']).map(|number| number.trim_start_matches('0'));
    while let Some(number) = numbers.next() {
        match number {
            // A colour by number or by its parts, which may be any.
            "38" | "48" | "58" => {
                let rest = if numbers.next() == Some("5") { 1 } else { 3 };
                numbers.by_ref().take(rest).for_each(drop);
            }
            "5" | "6" | "8" => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_spelled_out_and_colours_dropped() {
        for (line, expected) in [
            ("plain\ttext é 日本 ✔\u{fe0f} e\u{301}", "plain\ttext é 日本 ✔\u{fe0f} e\u{301}"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[1;38;5;9mx\u{1b}[m", "x"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("\u{1b}[1;2", "\\u{1b}[1;2"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "\\u{1b}]8;;http://x\\u{1b}\\link"),
            ("\u{1b}P1$r\u{1b}\\", "\\u{1b}P1$r\\u{1b}\\"),
            ("a\rb\nc\u{8}d\u{7f}", "a\\rb\\nc\\u{8}d\\u{7f}"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("\u{9b}2J\u{9d}0;x\u{9c}", "\\u{9b}2J\\u{9d}0;x\\u{9c}"),
            ("pa\u{200b}y\u{200d}pal\u{feff}\u{2060}", "pa\\u{200b}y\\u{200d}pal\\u{feff}\\u{2060}"),
            ("one\u{2028}two\u{2029}\u{85}", "one\\u{2028}two\\u{2029}\\u{85}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(harmless(line), expected);
        }
        assert_eq!(harmless(b"a\x9b2J\xffb\0"), "a\u{fffd}2J\u{fffd}b\\u{0}", "raw C1 bytes are no text");
    }

    #[test]
    fn each_deceptive_character_is_known_to_both_ends_of_its_range() {
        for ends in [
            ['\0', '\u{1f}'],
            ['\u{7f}', '\u{9f}'],
            ['\u{ad}', '\u{34f}'],
            ['\u{61c}', '\u{115f}'],
            ['\u{1160}', '\u{17b4}'],
            ['\u{17b5}', '\u{180b}'],
            ['\u{180f}', '\u{200b}'],
            ['\u{200e}', '\u{200f}'],
            ['\u{2028}', '\u{202e}'],
            ['\u{202a}', '\u{2069}'],
            ['\u{2060}', '\u{206f}'],
            ['\u{3164}', '\u{feff}'],
            ['\u{ffa0}', '\u{fff9}'],
            ['\u{fffb}', '\u{1bca0}'],
            ['\u{1bca3}', '\u{1d173}'],
            ['\u{1d17a}', '\u{e0000}'],
            ['\u{e0041}', '\u{e0fff}'],
        ] {
            for character in ends {
                assert!(is_deceptive(character), "{character:?}");
                assert!(harmless(format!("a{character}b")).starts_with("a\\"), "{character:?}");
            }
        }
        for text in ['a', ' ', 'é', '日', '\u{301}', '\u{fe0f}', '\u{fffd}', '✔'] {
            assert!(!is_deceptive(text), "{text:?}");
        }
        let long = format!("\u{1b}[{}m", "1".repeat(65));
        assert!(harmless(&long).starts_with("\\u{1b}[1"), "no colour is so long");
    }

    #[test]
    fn with_colours_only_colours_pass_and_end_with_the_line() {
        assert_eq!(harmless_with_colours("\u{1b}[31mred"), "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(harmless_with_colours("\u{1b}[38;2;5;6;8mx"), "\u{1b}[38;2;5;6;8mx\u{1b}[0m");
        assert_eq!(
            harmless_with_colours("\u{1b}[8mhidden \u{1b}[1;08mhidden \u{1b}[5mx\u{1b}[6my"),
            "hidden hidden xy"
        );
        assert_eq!(harmless_with_colours("\u{1b}[2J\r\u{9b}31m"), "\\u{1b}[2J\\r\\u{9b}31m");
        assert_eq!(harmless_with_colours("plain"), "plain");
    }

    #[test]
    fn json_stays_the_same_value() {
        for text in ["plain", "\u{9b}2J\u{7f}\u{202e}\u{e0041}\u{1b}[2J\r\n\t", "日本"] {
            let json = serde_json::to_string(&serde_json::json!({ "a": text })).unwrap();
            let shown = harmless_json(&json);
            assert!(!shown.chars().any(is_deceptive), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["a"], text);
        }
    }

    #[test]
    fn texts_of_ours_keep_their_lines() {
        assert_eq!(inert("a\n\tb"), "a\n\tb");
        assert_eq!(inert("a\n\u{1b}[31mb\r"), "a\n\\u{1b}[31mb\\r");
    }

    proptest::proptest! {
        #[test]
        fn nothing_deceptive_is_left_of_any_bytes(bytes: Vec<u8>) {
            proptest::prop_assert!(!harmless(&bytes).chars().any(|character| is_deceptive(character) && character != '\t'));
            let coloured = harmless_with_colours(&bytes).replace('\u{1b}', "");
            proptest::prop_assert!(!coloured.chars().any(|character| is_deceptive(character) && character != '\t'));
        }
    }
}
