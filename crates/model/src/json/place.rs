//! Where a value is in a JSON text: `$.outputs.out.hash`, written out only for messages.

use std::{fmt, sync::Arc};

/// Most bytes of a key that are shown.
const SHOWN_LIMIT: usize = 100;

/// The way from the root to a value. Values of one object or array share the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    above: Option<Arc<JsonPath>>,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Root,
    Member(Box<str>),
    Element(usize),
}

impl JsonPath {
    pub(super) fn root() -> Self {
        JsonPath { above: None, step: Step::Root }
    }

    pub(super) fn member(above: &Arc<JsonPath>, key: &str) -> Self {
        JsonPath { above: Some(Arc::clone(above)), step: Step::Member(shortened(key).into()) }
    }

    pub(super) fn element(above: &Arc<JsonPath>, index: usize) -> Self {
        JsonPath { above: Some(Arc::clone(above)), step: Step::Element(index) }
    }
}

/// A key for a message: nobody reads a megabyte.
pub(super) fn shortened(key: &str) -> String {
    match (0..=SHOWN_LIMIT).rev().find(|end| key.is_char_boundary(*end)) {
        Some(end) if end < key.len() => format!("{}…", &key[..end]),
        Some(_) | None => key.to_owned(),
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = Vec::new();
        let mut next = Some(self);
        while let Some(path) = next {
            steps.push(&path.step);
            next = path.above.as_deref();
        }
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => formatter.write_str("$")?,
                Step::Element(index) => write!(formatter, "[{index}]")?,
                Step::Member(key) => {
                    let is_plain =
                        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                    match is_plain {
                        true => write!(formatter, ".{key}")?,
                        false => write!(formatter, "[{}]", serde_json::Value::from(&**key))?,
                    }
                }
            }
        }
        Ok(())
    }
}
