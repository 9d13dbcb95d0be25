//! Attributes of a derivation that change how it is built or judged, read in one place. With structured attributes they have
//! types, otherwise they are strings that are split (reference, section 4.6).

use crate::{bytes::ByteString, derivation::Derivation};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a derivation asks of its runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `impureEnvVars`: variables taken from the caller.
    pub impure_variables: Vec<ByteString>,
    /// `requiredSystemFeatures`
    pub required_features: BTreeSet<String>,
    /// `__noChroot`
    pub wants_no_sandbox: bool,
    /// `passAsFile`: variables given as files.
    pub pass_as_file: BTreeSet<ByteString>,
    /// `exportReferencesGraph`: paths by file name.
    pub reference_graphs: BTreeMap<String, Vec<String>>,
    /// What outputs may refer to.
    pub checks: OutputChecks,
    /// `unsafeDiscardReferences`: outputs that are not scanned.
    pub discard_references: BTreeSet<String>,
    /// Attributes that have no effect although they look as if they had.
    pub warnings: Vec<String>,
}

/// Checks of outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputChecks {
    /// The same for all.
    All(OutputCheck),
    /// By output name; outputs that are not here are not checked.
    Each(BTreeMap<String, OutputCheck>),
}

impl Default for OutputChecks {
    fn default() -> Self {
        OutputChecks::All(OutputCheck::default())
    }
}

/// What one output may be. Lists hold store paths and names of outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputCheck {
    /// The only direct references. Absent is not empty.
    pub allowed_references: Option<Vec<String>>,
    /// The only members of the closure. Absent is not empty.
    pub allowed_requisites: Option<Vec<String>>,
    /// Forbidden direct references.
    pub disallowed_references: Vec<String>,
    /// Forbidden members of the closure.
    pub disallowed_requisites: Vec<String>,
    /// Bytes of the NAR.
    pub max_size: Option<u64>,
    /// Bytes of all NARs of the closure.
    pub max_closure_size: Option<u64>,
    /// Whether the path itself counts in closures; it does with structured attributes only, as in Nix.
    pub counts_itself: bool,
}

/// Why an attribute cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("while parsing attribute \"{attribute}\": {message}")]
pub struct OptionError {
    /// Its name, with a path for nested ones.
    pub attribute: String,
    /// What is wrong.
    pub message: String,
}

const TOP_LEVEL_CHECKS: [&str; 6] = [
    "allowedReferences",
    "allowedRequisites",
    "disallowedReferences",
    "disallowedRequisites",
    "maxSize",
    "maxClosureSize",
];

/// Reads all options of a derivation.
pub fn read(derivation: &Derivation) -> Result<Options, OptionError> {
    match &derivation.structured_attributes {
        Some(attributes) => structured(attributes),
        None => plain(&derivation.environment),
    }
}

fn plain(environment: &BTreeMap<ByteString, ByteString>) -> Result<Options, OptionError> {
    let value = |name: &str| environment.get(&ByteString::from(name));
    let words = |name: &str| -> Option<Vec<String>> {
        value(name).map(|text| String::from_utf8_lossy(text).split_ascii_whitespace().map(str::to_owned).collect())
    };
    let list = |name: &str| words(name).unwrap_or_default();
    let as_bytes = |words: Vec<String>| words.into_iter().map(ByteString::from);
    Ok(Options {
        impure_variables: as_bytes(list("impureEnvVars")).collect(),
        required_features: list("requiredSystemFeatures").into_iter().collect(),
        wants_no_sandbox: value("__noChroot").is_some_and(|text| text == "1"),
        pass_as_file: as_bytes(list("passAsFile")).collect(),
        reference_graphs: plain_graphs(&list("exportReferencesGraph"))?,
        checks: OutputChecks::All(OutputCheck {
            allowed_references: words("allowedReferences"),
            allowed_requisites: words("allowedRequisites"),
            disallowed_references: list("disallowedReferences"),
            disallowed_requisites: list("disallowedRequisites"),
            max_size: None,
            max_closure_size: None,
            counts_itself: false,
        }),
        discard_references: BTreeSet::new(),
        warnings: Vec::new(),
    })
}

fn plain_graphs(words: &[String]) -> Result<BTreeMap<String, Vec<String>>, OptionError> {
    let error = |message: String| OptionError { attribute: "exportReferencesGraph".to_owned(), message };
    if !words.len().is_multiple_of(2) {
        return Err(error(format!("odd number of tokens in 'exportReferencesGraph': '{}'", words.join(" "))));
    }
    words
        .chunks_exact(2)
        .map(|pair| {
            let name = &pair[0];
            let is_first = |character: char| character.is_ascii_alphabetic() || character == '_';
            let is_rest = |character: char| character.is_ascii_alphanumeric() || "_.-".contains(character);
            if !(name.starts_with(is_first) && name.chars().all(is_rest)) {
                return Err(error(format!("invalid file name '{name}' in 'exportReferencesGraph'")));
            }
            Ok((name.clone(), vec![pair[1].clone()]))
        })
        .collect()
}

fn structured(attributes: &serde_json::Map<String, Value>) -> Result<Options, OptionError> {
    let mut options = Options {
        impure_variables: strings(attributes, "impureEnvVars", "")?
            .unwrap_or_default()
            .into_iter()
            .map(Into::into)
            .collect(),
        required_features: strings(attributes, "requiredSystemFeatures", "")?.unwrap_or_default().into_iter().collect(),
        wants_no_sandbox: boolean(attributes.get("__noChroot"), "__noChroot")?,
        checks: OutputChecks::Each(BTreeMap::new()),
        ..Options::default()
    };
    for name in TOP_LEVEL_CHECKS {
        if attributes.contains_key(name) {
            options.warnings.push(format!(
                "'structuredAttrs' disables the effect of the top-level attribute '{name}'; use 'outputChecks' instead"
            ));
        }
    }
    if let Some(checks) = attributes.get("outputChecks") {
        let mut each = BTreeMap::new();
        for (output, check) in object(checks, "outputChecks")? {
            let path = format!("outputChecks.{output}.");
            let check = object(check, &format!("outputChecks.{output}"))?;
            each.insert(
                output.clone(),
                OutputCheck {
                    allowed_references: strings(check, "allowedReferences", &path)?,
                    allowed_requisites: strings(check, "allowedRequisites", &path)?,
                    disallowed_references: strings(check, "disallowedReferences", &path)?.unwrap_or_default(),
                    disallowed_requisites: strings(check, "disallowedRequisites", &path)?.unwrap_or_default(),
                    max_size: integer(check, "maxSize", &path)?,
                    max_closure_size: integer(check, "maxClosureSize", &path)?,
                    counts_itself: true,
                },
            );
        }
        options.checks = OutputChecks::Each(each);
    }
    if let Some(discard) = attributes.get("unsafeDiscardReferences") {
        for (output, value) in object(discard, "unsafeDiscardReferences")? {
            if boolean(Some(value), &format!("unsafeDiscardReferences.{output}"))? {
                options.discard_references.insert(output.clone());
            }
        }
    }
    match attributes.get("exportReferencesGraph") {
        None => {}
        Some(Value::Object(graphs)) => {
            for (name, paths) in graphs {
                let mut found = Vec::new();
                let mut open = vec![paths];
                while let Some(value) = open.pop() {
                    if let Value::String(path) = value {
                        found.push(path.clone());
                    } else if let Value::Array(elements) = value {
                        open.extend(elements.iter().rev());
                    } else {
                        return Err(wrong_type("exportReferencesGraph", "array", value));
                    }
                }
                options.reference_graphs.insert(name.clone(), found);
            }
        }
        Some(_) => options
            .warnings
            .push("'exportReferencesGraph' in structured attrs is not a JSON object, ignoring".to_owned()),
    }
    Ok(options)
}

fn wrong_type(attribute: &str, expected: &str, found: &Value) -> OptionError {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let message = format!("Expected JSON value to be of type '{expected}' but it is of type '{kind}': {found}");
    OptionError { attribute: attribute.to_owned(), message }
}

type JsonObject = serde_json::Map<String, Value>;

fn object<'a>(value: &'a Value, attribute: &str) -> Result<&'a JsonObject, OptionError> {
    value.as_object().ok_or_else(|| wrong_type(attribute, "object", value))
}

fn boolean(value: Option<&Value>, attribute: &str) -> Result<bool, OptionError> {
    value.map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong_type(attribute, "boolean", value)))
}

fn integer(object: &JsonObject, name: &str, path: &str) -> Result<Option<u64>, OptionError> {
    object
        .get(name)
        .map(|value| value.as_u64().ok_or_else(|| wrong_type(&format!("{path}{name}"), "number", value)))
        .transpose()
}

fn strings(object: &JsonObject, name: &str, path: &str) -> Result<Option<Vec<String>>, OptionError> {
    let attribute = format!("{path}{name}");
    let Some(value) = object.get(name) else { return Ok(None) };
    let elements = value.as_array().ok_or_else(|| wrong_type(&attribute, "array", value))?;
    elements
        .iter()
        .map(|element| element.as_str().map(str::to_owned).ok_or_else(|| wrong_type(&attribute, "string", element)))
        .collect::<Result<_, _>>()
        .map(Some)
}
