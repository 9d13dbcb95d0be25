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
    /// `allowSubstitutes` is there and false: the outputs are built, also where a cache has them.
    pub forbids_substitutes: bool,
    /// `__impureHostDeps`: paths of the machine that it wants to see; no setting allows any.
    pub impure_host_paths: Vec<String>,
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
#[error("while parsing attribute {}: {}", crate::harmless::harmless(attribute), crate::harmless::harmless(message))]
pub struct OptionError {
    /// Its name in the quotes that Nix gives it, with a path for nested ones.
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
        forbids_substitutes: value("allowSubstitutes").is_some_and(|text| text != "1"),
        impure_host_paths: list("__impureHostDeps"),
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
    let error = |message: String| OptionError { attribute: "\"exportReferencesGraph\"".to_owned(), message };
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
    // These mean nothing here, but a value of the wrong type is as wrong as in Nix.
    for name in ["preferLocalBuild", "__darwinAllowLocalNetworking"] {
        boolean(attributes.get(name), &format!("\"{name}\""))?;
    }
    if let Some(value) = attributes.get("__sandboxProfile")
        && !value.is_string()
    {
        return Err(wrong_type("\"__sandboxProfile\"", "string", value));
    }
    let list = |name: &str| strings(attributes, name, &format!("\"{name}\"")).map(Option::unwrap_or_default);
    let mut options = Options {
        impure_variables: list("impureEnvVars")?.into_iter().map(Into::into).collect(),
        required_features: list("requiredSystemFeatures")?.into_iter().collect(),
        wants_no_sandbox: boolean(attributes.get("__noChroot"), "\"__noChroot\"")?,
        forbids_substitutes: attributes.contains_key("allowSubstitutes")
            && !boolean(attributes.get("allowSubstitutes"), "\"allowSubstitutes\"")?,
        impure_host_paths: list("__impureHostDeps")?,
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
        for (output, check) in object(checks, "\"outputChecks\"")? {
            let path = |name: &str| format!("'outputChecks.\"{output}\".{name}'");
            let check = object(check, &format!("'outputChecks.\"{output}\"'"))?;
            each.insert(
                output.clone(),
                OutputCheck {
                    allowed_references: strings(check, "allowedReferences", &path("allowedReferences"))?,
                    allowed_requisites: strings(check, "allowedRequisites", &path("allowedRequisites"))?,
                    disallowed_references: strings(check, "disallowedReferences", &path("disallowedReferences"))?
                        .unwrap_or_default(),
                    disallowed_requisites: strings(check, "disallowedRequisites", &path("disallowedRequisites"))?
                        .unwrap_or_default(),
                    max_size: integer(check, "maxSize", &path("maxSize"))?,
                    max_closure_size: integer(check, "maxClosureSize", &path("maxClosureSize"))?,
                    counts_itself: true,
                },
            );
        }
        options.checks = OutputChecks::Each(each);
    }
    if let Some(discard) = attributes.get("unsafeDiscardReferences") {
        for (output, value) in object(discard, "'unsafeDiscardReferences'")? {
            if boolean(Some(value), "'unsafeDiscardReferences'")? {
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
                        return Err(OptionError {
                            attribute: "\"exportReferencesGraph\"".to_owned(),
                            message: format!("'exportReferencesGraph' value is not an array or a string: {value}"),
                        });
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

/// Any number is a limit, as in Nix: fractions are cut off, and a negative one is so large that nothing exceeds it.
fn integer(object: &JsonObject, name: &str, attribute: &str) -> Result<Option<u64>, OptionError> {
    let Some(value) = object.get(name) else { return Ok(None) };
    let limit = match (value.as_u64(), value.as_i64(), value.as_f64()) {
        (Some(limit), _, _) => limit,
        (None, Some(negative), _) => negative.cast_unsigned(),
        (None, None, Some(fraction)) if fraction < 0.0 => (fraction as i64).cast_unsigned(),
        (None, None, Some(fraction)) => fraction as u64,
        (None, None, None) => return Err(wrong_type(attribute, "number", value)),
    };
    Ok(Some(limit))
}

fn strings(object: &JsonObject, name: &str, attribute: &str) -> Result<Option<Vec<String>>, OptionError> {
    let Some(value) = object.get(name) else { return Ok(None) };
    let elements = value.as_array().ok_or_else(|| wrong_type(attribute, "array", value))?;
    elements
        .iter()
        .map(|element| element.as_str().map(str::to_owned).ok_or_else(|| wrong_type(attribute, "string", element)))
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_structured(attributes: Value) -> Result<Options, String> {
        let Value::Object(attributes) = attributes else { unreachable!("an object") };
        structured(&attributes).map_err(|error| error.to_string())
    }

    /// What Nix 2.34 says.
    #[test]
    fn values_of_the_wrong_type_are_refused_in_nixs_words() {
        let number = |kind: &str| format!("Expected JSON value to be of type '{kind}' but it is of type 'number': 1");
        for (attributes, words) in [
            (json!({"__noChroot": 1}), format!("while parsing attribute \"__noChroot\": {}", number("boolean"))),
            (json!({"preferLocalBuild": 1}), number("boolean")),
            (json!({"allowSubstitutes": 1}), number("boolean")),
            (json!({"__darwinAllowLocalNetworking": 1}), number("boolean")),
            (json!({"__sandboxProfile": 1}), number("string")),
            (json!({"__impureHostDeps": 1}), number("array")),
            (json!({"impureEnvVars": [1]}), number("string")),
            (json!({"requiredSystemFeatures": 1}), number("array")),
            (json!({"outputChecks": 1}), number("object")),
            (
                json!({"outputChecks": {"out": {"allowedReferences": 1}}}),
                format!("while parsing attribute 'outputChecks.\"out\".allowedReferences': {}", number("array")),
            ),
            (
                json!({"unsafeDiscardReferences": {"out": 1}}),
                format!("while parsing attribute 'unsafeDiscardReferences': {}", number("boolean")),
            ),
            (
                json!({"exportReferencesGraph": {"g": 1}}),
                "'exportReferencesGraph' value is not an array or a string".to_owned(),
            ),
        ] {
            let error = read_structured(attributes.clone()).expect_err("a refusal");
            assert!(error.contains(&words), "{attributes}: {error}");
        }
    }

    #[test]
    fn words_of_variables_are_read() {
        let read =
            |name: &str, text: &str| plain(&[(name.into(), text.into())].into()).map_err(|error| error.to_string());
        assert!(read("__noChroot", "1").unwrap().wants_no_sandbox && !read("__noChroot", "").unwrap().wants_no_sandbox);
        assert_eq!(read("__impureHostDeps", "/a /b").unwrap().impure_host_paths, ["/a", "/b"]);
        assert_eq!(read("requiredSystemFeatures", " kvm ").unwrap().required_features, ["kvm".to_owned()].into());
        assert!(read("exportReferencesGraph", "a b c").unwrap_err().contains("odd number of tokens"));
        for name in ["../a", "/a", "a/b", ".a", "-a", "1a"] {
            let error = read("exportReferencesGraph", &format!("{name} /nix/store/x")).unwrap_err();
            assert!(error.contains("invalid file name"), "{error}");
        }
    }

    #[test]
    fn any_number_is_a_limit() {
        for (value, limit) in
            [(json!(10), 10), (json!(1.9), 1), (json!(1e3), 1000), (json!(-1), u64::MAX), (json!(-1.5), u64::MAX)]
        {
            let options = read_structured(json!({"outputChecks": {"out": {"maxSize": value}}})).expect("options");
            let OutputChecks::Each(each) = options.checks else { panic!("checks by output") };
            assert_eq!(each["out"].max_size, Some(limit), "{value}");
        }
    }
}
