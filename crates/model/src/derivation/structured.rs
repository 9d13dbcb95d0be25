//! Structured attributes: what they are, and the text that they are hashed as. Reads and writes nothing else.

use super::to_nix_json;
use serde_json::{Map, Value};
use std::ops::Deref;

/// Attributes as JSON.
///
/// The text is kept where there is one: it is part of what output paths are computed from, and Nix has not always spelled numbers
/// as it does today (`1.67772e+07`, before 2.14 or so).
#[derive(Clone, Debug, PartialEq)]
pub struct StructuredAttributes {
    text: String,
    attributes: Map<String, Value>,
}

impl StructuredAttributes {
    /// Reads the text that a derivation carries under `__json`; otherwise says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let node = crate::json::parse(text).map_err(|error| format!("environment variable '__json': {error}"))?;
        let attributes =
            node.to_serde_object().map_err(|_| "environment variable '__json' is not a JSON object".to_owned())?;
        // What was parsed is UTF-8.
        Ok(StructuredAttributes { text: String::from_utf8_lossy(text).into_owned(), attributes })
    }

    /// The text that they are hashed as.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<Map<String, Value>> for StructuredAttributes {
    fn from(attributes: Map<String, Value>) -> Self {
        StructuredAttributes { text: to_nix_json(&Value::Object(attributes.clone())), attributes }
    }
}

impl Deref for StructuredAttributes {
    type Target = Map<String, Value>;
    fn deref(&self) -> &Self::Target {
        &self.attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_was_read_is_kept_and_one_that_was_not_is_written_as_nix_does() {
        let read = StructuredAttributes::parse(br#"{ "b" : 1.67772e+07, "a": 1 }"#).unwrap();
        assert_eq!(read.text(), r#"{ "b" : 1.67772e+07, "a": 1 }"#);
        assert_eq!(StructuredAttributes::from(read.deref().clone()).text(), r#"{"a":1,"b":16777200.0}"#);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in ["", "1", "[]", "{"] {
            assert!(StructuredAttributes::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
