//! JSON with positions: every value knows where it stands in the text, so that an error can point at it.
//!
//! The lexing is `serde_json`'s. Each level is read as `RawValue`s that borrow from the text, and a value's offset is the
//! distance of its slice from the beginning. Duplicate keys are errors: `serde_json` would keep the last in silence, and
//! a reviewer would have read the first.
//!
//! Texts come from anywhere. Depth is limited, so the recursion over levels is too; so is the number of values, each of which takes
//! many times its own text in memory; and a place is written out only when there is an error at it, because a long key with many
//! values below it would otherwise be kept once for each.

mod place;

pub use place::JsonPath;

use crate::bytes::ByteString;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{fmt, ops::Range};

/// How deep arrays and objects may nest; serde_json's own limit. Derivations have six levels, structured attributes a few more.
pub const DEPTH_LIMIT: usize = 128;

/// How many values a text may have: with about 150 bytes for each, a gigabyte of memory. A closure of twenty thousand derivations
/// has three million.
pub const VALUE_LIMIT: usize = 8 << 20;

/// Longest word, in bytes, for which a known one is looked for that was meant: the time and memory for that grow with it.
const NEAREST_LIMIT: usize = 100;

/// Something wrong with an input, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Byte range in the text.
    pub span: Range<usize>,
    /// JSON path of the value, `$.outputs.out.hash`; empty for texts that are not JSON.
    pub path: String,
    /// What is wrong, naming the offending value.
    pub message: String,
    /// What to do, when we know.
    pub hint: Option<String>,
}

impl InputError {
    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Line and column of the beginning, both counted from 1, the column in characters.
    pub fn line_and_column(&self, text: &[u8]) -> (usize, usize) {
        let before = &text[..self.span.start.min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(formatter, "at {}: ", self.path)?;
        }
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for InputError {}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Byte range in the text.
    pub span: Range<usize>,
    /// Where it is in the structure.
    pub path: JsonPath,
    /// The value.
    pub value: Value,
}

/// A JSON value. Objects keep the order of the text.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A string, unescaped.
    String(String),
    /// `[…]`
    Array(Vec<Node>),
    /// `{…}`
    Object(Vec<Member>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Member {
    /// The key, unescaped.
    pub key: String,
    /// Byte range of the key.
    pub key_span: Range<usize>,
    /// The value.
    pub node: Node,
}

/// Reads one JSON text.
pub fn parse(text: &[u8]) -> Result<Node, InputError> {
    let text = std::str::from_utf8(text).map_err(|error| InputError {
        span: error.valid_up_to()..error.valid_up_to() + 1,
        path: String::new(),
        message: "the file is not UTF-8".to_owned(),
        hint: None,
    })?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| syntax_error(text, 0..text.len(), "", &error))?;
    Levels { text, values: 0 }.node(raw, JsonPath::root(), 0)
}

fn syntax_error(text: &str, within: Range<usize>, path: &str, error: &serde_json::Error) -> InputError {
    let part = &text[within.clone()];
    let line_start: usize = part.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let start = within.start + (line_start + error.column()).saturating_sub(1).min(part.len());
    let mut message = error.to_string();
    if let Some(position) = message.rfind(" at line ") {
        message.truncate(position);
    }
    InputError {
        span: start..(start + 1).min(text.len()).max(start),
        path: path.to_owned(),
        message: format!("not valid JSON: {message}"),
        hint: None,
    }
}

/// The members of an object in order, still unread.
struct RawMembers<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawMembers<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A text that is being taken apart, level by level.
struct Levels<'a> {
    text: &'a str,
    /// How many there were so far.
    values: usize,
}

impl Levels<'_> {
    fn node(&mut self, raw: &RawValue, path: JsonPath, depth: usize) -> Result<Node, InputError> {
        let (text, part) = (self.text, raw.get());
        let offset = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
        let span = offset(part)..offset(part) + part.len();
        let refuse = |message: String| {
            let at = span.start..(span.start + 1).min(text.len());
            Err(InputError { span: at, path: path.to_string(), message, hint: None })
        };
        let syntax = |error: serde_json::Error| syntax_error(text, span.clone(), &path.to_string(), &error);
        if depth > DEPTH_LIMIT {
            return refuse(format!("nested more than {DEPTH_LIMIT} levels deep"));
        }
        self.values += 1;
        if self.values > VALUE_LIMIT {
            return refuse(format!("the text has more than {VALUE_LIMIT} values"));
        }
        let value = match part.as_bytes()[0] {
            b'{' => {
                let RawMembers(raw_members) = serde_json::from_str(part).map_err(syntax)?;
                let here = std::sync::Arc::new(path.clone());
                let mut members: Vec<Member> = Vec::new();
                let mut seen = std::collections::BTreeSet::new();
                for (raw_key, raw_value) in raw_members {
                    let key: String = serde_json::from_str(raw_key.get()).map_err(syntax)?;
                    let key_span = offset(raw_key.get())..offset(raw_key.get()) + raw_key.get().len();
                    let member_path = JsonPath::member(&here, &key);
                    if !seen.insert(key.clone()) {
                        let message = format!("duplicate key '{}'", place::shortened(&key));
                        let path = member_path.to_string();
                        return Err(
                            InputError { span: key_span, path, message, hint: None }.with_hint("remove one of the two")
                        );
                    }
                    members.push(Member { key, key_span, node: self.node(raw_value, member_path, depth + 1)? });
                }
                Value::Object(members)
            }
            b'[' => {
                let elements: Vec<&RawValue> = serde_json::from_str(part).map_err(syntax)?;
                let here = std::sync::Arc::new(path.clone());
                let nodes = elements
                    .into_iter()
                    .enumerate()
                    .map(|(index, element)| self.node(element, JsonPath::element(&here, index), depth + 1));
                Value::Array(nodes.collect::<Result<_, _>>()?)
            }
            b'"' => Value::String(serde_json::from_str(part).map_err(syntax)?),
            b't' => Value::Bool(true),
            b'f' => Value::Bool(false),
            b'n' => Value::Null,
            _ => Value::Number(part.to_owned()),
        };
        Ok(Node { span, path, value })
    }
}

impl Value {
    /// `string`, `object`, …, as error messages name types.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

impl Node {
    /// An error at this value.
    pub fn error(&self, message: impl Into<String>) -> InputError {
        InputError { span: self.span.clone(), path: self.path.to_string(), message: message.into(), hint: None }
    }

    /// The value on one line, shortened for messages.
    pub fn excerpt(&self) -> String {
        let mut text = ByteString::from(self.to_serde().to_string()).to_string();
        if text.len() > 60 {
            let end = (0..=57).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
            text.truncate(end);
            text.push('…');
        }
        text
    }

    fn wrong_type(&self, expected: &str) -> InputError {
        let found = self.value.type_name();
        self.error(format!("expected a value of type '{expected}' but it is of type '{found}': {}", self.excerpt()))
    }

    /// The value as a string.
    pub fn string(&self) -> Result<&str, InputError> {
        match &self.value {
            Value::String(text) => Ok(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                Err(self.wrong_type("string"))
            }
        }
    }

    /// The value as a boolean.
    pub fn boolean(&self) -> Result<bool, InputError> {
        match &self.value {
            Value::Bool(truth) => Ok(*truth),
            Value::Null | Value::String(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                Err(self.wrong_type("boolean"))
            }
        }
    }

    /// The value as an array.
    pub fn array(&self) -> Result<&[Node], InputError> {
        match &self.value {
            Value::Array(elements) => Ok(elements),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Err(self.wrong_type("array"))
            }
        }
    }

    /// The value as an object.
    pub fn object(&self) -> Result<&[Member], InputError> {
        match &self.value {
            Value::Object(members) => Ok(members),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(self.wrong_type("object"))
            }
        }
    }

    /// A member of an object, if the value is one and has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Object(members) => members.iter().find(|member| member.key == key).map(|member| &member.node),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        }
    }

    /// A member that must be there.
    pub fn require(&self, key: &str) -> Result<&Node, InputError> {
        self.object()?;
        self.get(key).ok_or_else(|| {
            self.error(format!("expected the object to contain key '{key}' but it does not: {}", self.excerpt()))
        })
    }

    /// The members of an object without positions.
    pub fn to_serde_object(&self) -> Result<serde_json::Map<String, serde_json::Value>, InputError> {
        Ok(self.object()?.iter().map(|member| (member.key.clone(), member.node.to_serde())).collect())
    }

    /// The value without positions. Numbers become what Nix's reader makes of them: integers that fit 64 bits, else doubles.
    pub fn to_serde(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(truth) => Json::Bool(*truth),
            Value::Number(text) => serde_json::from_str(text).unwrap_or(Json::Null),
            Value::String(text) => Json::String(text.clone()),
            Value::Array(elements) => elements.iter().map(Node::to_serde).collect(),
            Value::Object(members) => {
                Json::Object(members.iter().map(|member| (member.key.clone(), member.node.to_serde())).collect())
            }
        }
    }
}

/// The known word nearest to `word`, when it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > NEAREST_LIMIT {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 8 && candidate.len() > 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_where_they_stand() {
        let text = b"{\n  \"outputs\": {\"out\": {\"hash\": 12}},\n  \"a b\": [1, \"\xc3\xa9\", {}]\n}";
        let root = parse(text).unwrap();
        let hash = root.get("outputs").unwrap().get("out").unwrap().get("hash").unwrap();
        assert_eq!(&text[hash.span.clone()], b"12");
        let error = hash.string().unwrap_err();
        assert_eq!(error.line_and_column(text), (2, 31));
        assert_eq!(
            error.to_string(),
            "at $.outputs.out.hash: expected a value of type 'string' but it is of type 'number': 12"
        );
        let last = &root.get("a b").unwrap().array().unwrap()[2];
        assert_eq!((last.path.to_string().as_str(), last.error("").line_and_column(text)), ("$[\"a b\"][2]", (3, 19)));
    }

    #[test]
    fn duplicate_keys_are_errors_at_the_second() {
        let text = br#"{"a": 1, "b": {"x": 1, "\u0078": 2}}"#;
        let error = parse(text).unwrap_err();
        assert_eq!(error.to_string(), "at $.b.x: duplicate key 'x'");
        assert_eq!(error.line_and_column(text), (1, 24));
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let text = b"{\n \"a\": tru\n}";
        let error = parse(text).unwrap_err();
        assert_eq!(error.line_and_column(text).0, 2, "{error:?}");
        assert!(error.message.starts_with("not valid JSON: "), "{error:?}");
        assert!(parse(b"{} x").is_err());
        assert!(parse(b"\xff").is_err());
        assert!(parse(b"").is_err());
    }

    /// Attack: DRV-6 (depth). Layer: depth limit of the JSON reader.
    #[test]
    fn nesting_is_limited_and_does_not_exhaust_the_stack() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(deep(100).as_bytes()).is_ok());
        assert!(parse(deep(1000).as_bytes()).unwrap_err().message.contains("128"));
        assert!(parse(deep(1_000_000).as_bytes()).is_err());
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    /// A text of three megabytes would take a terabyte if every value kept its path as text.
    ///
    /// Attack: DRV-6 (memory). Layer: places that are shared.
    #[test]
    fn a_long_key_is_kept_once_however_many_values_are_below_it() {
        let text = format!("{{\"{}\":[{}0]}}", "k".repeat(1 << 20), "1,".repeat(1 << 20));
        let root = parse(text.as_bytes()).unwrap();
        let Value::Object(members) = &root.value else { panic!("an object") };
        let last = members[0].node.array().unwrap().last().unwrap();
        let path = last.path.to_string();
        assert!(path.len() < 200 && path.ends_with("[1048576]"), "{path}");
    }

    /// Attack: DRV-6 (count). Layer: value limit of the JSON reader.
    #[test]
    fn values_are_counted() {
        let mut levels = Levels { text: "[1,2]", values: VALUE_LIMIT - 2 };
        let raw: &RawValue = serde_json::from_str(levels.text).unwrap();
        let error = levels.node(raw, JsonPath::root(), 0).unwrap_err();
        assert_eq!(error.to_string(), "at $[1]: the text has more than 8388608 values");
    }

    /// A name of a hundred megabytes is compared with no other: that alone would take gigabytes.
    #[test]
    fn a_word_that_nobody_can_have_meant_is_compared_with_nothing() {
        assert_eq!(nearest(&"buildPhase".repeat(10_000_000), ["buildPhase"]), None);
    }

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        let known = ["buildPhase", "installPhase", "outputHash", "src"];
        assert_eq!(nearest("buildphase", known), Some("buildPhase"));
        assert_eq!(nearest("instalPhase", known), Some("installPhase"));
        assert_eq!(nearest("ouputHash", known), Some("outputHash"));
        assert_eq!(nearest("fooBarBaz", known), None);
    }
}
