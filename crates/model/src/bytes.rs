//! Byte strings that need not be UTF-8: builder arguments, environments, host paths.
//! Nix passes them through verbatim, so they must survive every format we write.

use crate::harmless::is_deceptive;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{collections::BTreeMap, ffi::OsStr, fmt, ops::Deref, os::unix::ffi::OsStrExt, path::Path};

/// A sequence of bytes that is text most of the time.
///
/// Serialises as a JSON string when it is UTF-8 and as `{"base64": "…"}` otherwise, so that plans stay readable
/// and nothing is lost.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(Vec<u8>);

impl ByteString {
    /// The bytes as a path, as the kernel would take them.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The bytes as text, or `None` when they are not UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Gives up the wrapper.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl Deref for ByteString {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        ByteString(text.as_bytes().to_vec())
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        ByteString(text.into_bytes())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        ByteString(bytes)
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        ByteString(bytes.to_vec())
    }
}

impl From<&Path> for ByteString {
    fn from(path: &Path) -> Self {
        ByteString(path.as_os_str().as_bytes().to_vec())
    }
}

impl PartialEq<str> for ByteString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for ByteString {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// Shows text as it is and replaces bytes that are not UTF-8; deceptive characters are escaped, because these
/// strings come from derivations and end up on terminals.
impl fmt::Display for ByteString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in String::from_utf8_lossy(&self.0).chars() {
            if is_deceptive(character) {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                write!(formatter, "{character}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotText {
    base64: String,
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => NotText { base64: data_encoding::BASE64.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ByteString;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or {\"base64\": …}")
            }
            fn visit_str<E>(self, text: &str) -> Result<ByteString, E> {
                Ok(text.into())
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<ByteString, A::Error> {
                let NotText { base64 } = NotText::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                data_encoding::BASE64.decode(base64.as_bytes()).map(ByteString).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Texts that stand for others, and what they are to become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacements(BTreeMap<String, String>);

impl Replacements {
    /// Adds one; `from` must not be empty.
    pub fn add(&mut self, from: String, to: String) {
        self.0.insert(from, to);
    }

    /// A text with all of them made, one kind after the other.
    pub fn apply(&self, text: &[u8]) -> ByteString {
        let mut text = text.to_vec();
        for (from, to) in &self.0 {
            let mut result = Vec::with_capacity(text.len());
            let mut rest = &text[..];
            while let Some(position) = find(rest, from.as_bytes()) {
                result.extend(&rest[..position]);
                result.extend(to.as_bytes());
                rest = &rest[position + from.len()..];
            }
            result.extend(rest);
            text = result;
        }
        text.into()
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::ByteString;

    #[test]
    fn bytes_that_are_not_text_survive_json() {
        for bytes in [b"plain".to_vec(), b"\xff\x00odd".to_vec(), Vec::new()] {
            let original = ByteString::from(bytes);
            let json = serde_json::to_string(&original).unwrap();
            assert_eq!(serde_json::from_str::<ByteString>(&json).unwrap(), original, "{json}");
        }
    }

    #[test]
    fn display_cannot_move_the_cursor() {
        assert_eq!(ByteString::from("a\u{1b}[2Jb\r").to_string(), "a\\u{1b}[2Jb\\r");
    }
}
