//! From a short form to an ordinary derivation, purely.

use super::ShortForm;
use crate::{
    bytes::ByteString,
    content_address::{ContentAddress, ContentMethod},
    derivation::{
        Derivation, DerivationParts, Output,
        paths::{self, DerivationSet},
    },
    environment::placeholder,
    hash::{Hash, HashAlgorithm},
    json::InputError,
    store_path::StorePath,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Name of the setup script's store object.
pub const SETUP_SCRIPT_NAME: &str = "fodder-setup.sh";

/// The shell that runs the setup script. It must be bash: the phases of nixpkgs are written for it.
const SHELL: &str = "/bin/bash";

/// Search path of a build whose tools come from the machine. `/fodder/bin` holds links to tools from elsewhere.
const SEARCH_PATH: &str = "/fodder/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// A fresh directory that the setup script makes.
const HOME: &str = "/build/.home";

/// Where the sandbox shows the certificate bundle.
pub const CERTIFICATE_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Variables that common tools read the bundle's place from.
pub const CERTIFICATE_VARIABLES: [&str; 10] = [
    "SSL_CERT_FILE",
    "NIX_SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
];

/// Attributes that say what the derivation is and are not handed to the builder.
const NOT_FOR_THE_BUILDER: [&str; 4] = ["args", "env", "__contentAddressed", "__impure"];

/// The script that runs the phases, which must be a store source of this name: [`SETUP_SCRIPT_NAME`].
pub fn setup_script() -> &'static str {
    include_str!("setup.sh")
}

/// The store path of [`setup_script`].
pub fn setup_script_path() -> StorePath {
    let mut hasher = crate::hash::Hasher::new(HashAlgorithm::Sha256);
    let mut nar = crate::nar::Writer::new(&mut hasher);
    let script = setup_script().as_bytes();
    let written = nar.file(false, script.len() as u64).and_then(|()| nar.contents(script)).and_then(|()| nar.finish());
    debug_assert!(written.is_ok(), "a single file always has a NAR");
    drop(written);
    StorePath::of_source(SETUP_SCRIPT_NAME, &hasher.finish(), &BTreeSet::new(), false)
        .unwrap_or_else(|error| unreachable!("the name is a constant and valid: {error}"))
}

/// Makes the derivation. `sources` gives the store path of each of [`ShortForm::sources`] by its path as written, `setup` that
/// of the setup script, `machine` the platform to use when none is named.
pub fn desugar(
    form: &ShortForm,
    sources: &BTreeMap<String, StorePath>,
    setup: &StorePath,
    machine: &str,
) -> Result<Derivation, InputError> {
    let system = form.system.clone().unwrap_or_else(|| machine.to_owned());
    let outputs = outputs(form)?;
    let is_fixed = matches!(outputs.values().next(), Some(Output::Fixed { .. }));
    let mut input_sources: BTreeSet<StorePath> = BTreeSet::new();

    let (builder, arguments) = match form.attributes.get("builder") {
        Some(builder) => {
            let builder = builder.node.string()?;
            let arguments = form.attributes.get("args").map(|args| {
                args.node.array()?.iter().map(|argument| Ok(ByteString::from(argument.string()?))).collect()
            });
            (builder.to_owned(), arguments.transpose()?.unwrap_or_default())
        }
        None => {
            input_sources.insert(setup.clone());
            (SHELL.to_owned(), vec!["-e".into(), setup.to_string().into()])
        }
    };
    let runs_phases = !form.attributes.contains_key("builder");

    let mut attributes: BTreeMap<String, Value> = BTreeMap::new();
    for (name, attribute) in &form.attributes {
        if !NOT_FOR_THE_BUILDER.contains(&name.as_str()) {
            // Elsewhere the same text means something else: `.` is a `src` and a `sourceRoot`.
            let value = if super::names_sources(name) {
                with_sources(&attribute.value, sources)
            } else {
                attribute.value.clone()
            };
            attributes.insert(name.clone(), value);
        }
    }
    attributes.insert("name".to_owned(), form.name.clone().into());
    attributes.insert("system".to_owned(), system.clone().into());
    attributes.insert("builder".to_owned(), builder.clone().into());

    let mut variables: BTreeMap<String, Value> = BTreeMap::new();
    if runs_phases {
        variables.insert("PATH".to_owned(), SEARCH_PATH.into());
        variables.insert("HOME".to_owned(), HOME.into());
        if is_fixed {
            variables.extend(CERTIFICATE_VARIABLES.map(|name| (name.to_owned(), CERTIFICATE_BUNDLE.into())));
        }
    }
    if let Some(env) = form.attributes.get("env") {
        for member in env.node.object()? {
            let text = coerce(&member.node.to_serde()).ok_or_else(|| {
                member.node.error(format!("a variable is a string, not an {}", member.node.value.type_name()))
            })?;
            variables.insert(member.key.clone(), text.into());
        }
    }
    collect_store_paths(attributes.values().chain(variables.values()), &mut input_sources);

    let mut environment: BTreeMap<ByteString, ByteString> = BTreeMap::new();
    let is_structured = form.attributes.get("__structuredAttrs").is_some_and(|value| value.value == true);
    let structured_attributes = if is_structured {
        attributes.insert("outputs".to_owned(), outputs.keys().cloned().collect());
        let env = attributes.entry("env".to_owned()).or_insert_with(|| Value::Object(Default::default()));
        if let Value::Object(env) = env {
            env.extend(variables);
        }
        attributes.remove("__structuredAttrs");
        Some(attributes.into_iter().collect::<serde_json::Map<_, _>>().into())
    } else {
        attributes.remove("__structuredAttrs");
        // What the user wrote wins over what we provide.
        variables.retain(|name, _| !attributes.contains_key(name));
        for (name, value) in attributes.into_iter().chain(variables) {
            let text = coerce(&value).ok_or_else(|| {
                let node = &form.attributes[&name].node;
                node.error(format!("an object cannot become the environment variable '{name}'"))
                    .with_hint("set '__structuredAttrs' to pass it as JSON")
            })?;
            environment.insert(name.into(), text.into());
        }
        None
    };
    for (name, output) in &outputs {
        let variable = match output {
            // Filled in with the path, once that is computed.
            Output::InputAddressed { .. } | Output::Fixed { .. } | Output::Deferred => String::new(),
            Output::Floating { .. } | Output::Impure { .. } => placeholder(name),
        };
        environment.insert(name.as_str().into(), variable.into());
    }
    let parts = DerivationParts {
        name: form.name.clone(),
        outputs,
        input_sources,
        input_derivations: BTreeMap::new(),
        system,
        builder: builder.into(),
        arguments,
        environment,
        structured_attributes,
    };
    paths::fill(parts, &DerivationSet::new()).map_err(|error| form.error(error.to_string()))
}

/// Attributes become variables as Nix coerces them; `None` for objects.
fn coerce(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null | Value::Bool(false) => String::new(),
        Value::Bool(true) => "1".to_owned(),
        Value::Number(number) if number.is_f64() => format!("{:.6}", number.as_f64().unwrap_or_default()),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => elements.iter().map(coerce).collect::<Option<Vec<_>>>()?.join(" "),
        Value::Object(_) => return None,
    })
}

/// Puts store paths in the place of sources: the whole of a string or of an array's element, whatever is in it, else the words of
/// a string.
fn with_sources(value: &Value, sources: &BTreeMap<String, StorePath>) -> Value {
    let whole =
        |value: &Value| value.as_str().and_then(|text| sources.get(text)).map(|path| Value::from(path.to_string()));
    match value {
        Value::String(text) => whole(value).unwrap_or_else(|| {
            let word = |word: &str| sources.get(word).map_or_else(|| word.to_owned(), ToString::to_string);
            text.split_ascii_whitespace().map(word).collect::<Vec<_>>().join(" ").into()
        }),
        Value::Array(elements) => {
            elements.iter().map(|element| whole(element).unwrap_or_else(|| element.clone())).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.clone(),
    }
}

/// Every store path that an attribute mentions is an input, as string contexts make it one in Nix.
fn collect_store_paths<'a>(values: impl Iterator<Item = &'a Value>, found: &mut BTreeSet<StorePath>) {
    let mut open: Vec<&Value> = values.collect();
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => {
                for (start, _) in text.match_indices("/nix/store/") {
                    let rest = &text[start + "/nix/store/".len()..];
                    let end = rest
                        .find(|character: char| !(character.is_ascii_alphanumeric() || "+-._?=".contains(character)))
                        .unwrap_or(rest.len());
                    if let Ok(path) = StorePath::from_base_name(&rest[..end]) {
                        found.insert(path);
                    }
                }
            }
            Value::Array(elements) => open.extend(elements),
            Value::Object(members) => open.extend(members.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

fn outputs(form: &ShortForm) -> Result<BTreeMap<String, Output>, InputError> {
    let names: Vec<String> = match form.attributes.get("outputs") {
        Some(outputs) => form.entries(&outputs.node)?.into_iter().map(|(name, _)| name.to_owned()).collect(),
        None => vec!["out".to_owned()],
    };
    let is_set = |name: &str| form.attributes.get(name).is_some_and(|attribute| attribute.value == true);
    let (is_floating, is_impure) = (is_set("__contentAddressed"), is_set("__impure"));
    if is_floating && is_impure {
        return Err(form.error("'__contentAddressed' and '__impure' exclude each other"));
    }
    let Some(hash) = form.attributes.get("outputHash") else {
        let (method, algorithm) =
            (method(form, ContentMethod::Nar)?, algorithm(form)?.unwrap_or(HashAlgorithm::Sha256));
        return Ok(names
            .into_iter()
            .map(|name| match (is_floating, is_impure) {
                (true, _) => (name, Output::Floating { method, algorithm }),
                (_, true) => (name, Output::Impure { method, algorithm }),
                (false, false) => (name, Output::Deferred),
            })
            .collect());
    };
    if names != ["out"] {
        let node = form.attributes.get("outputs").map_or(&hash.node, |outputs| &outputs.node);
        return Err(node
            .error("multiple outputs are not supported in fixed-output derivations")
            .with_hint("a fixed-output derivation has the one output 'out'"));
    }
    let text = hash.node.string()?;
    let hash_at = |error: crate::hash::HashError| hash.node.error(error.to_string());
    let hash = match (text, algorithm(form)?) {
        ("", algorithm) => Hash::zero(algorithm.unwrap_or(HashAlgorithm::Sha256)),
        (text, algorithm) => Hash::parse_any(text, algorithm).map_err(hash_at)?,
    };
    let content = ContentAddress { method: method(form, ContentMethod::Flat)?, hash };
    Ok([("out".to_owned(), Output::Fixed { content })].into())
}

fn algorithm(form: &ShortForm) -> Result<Option<HashAlgorithm>, InputError> {
    form.attributes
        .get("outputHashAlgo")
        .filter(|attribute| attribute.value != "")
        .map(|attribute| {
            let name = attribute.node.string()?;
            HashAlgorithm::parse(name).map_err(|error| attribute.node.error(error.to_string()))
        })
        .transpose()
}

fn method(form: &ShortForm, default: ContentMethod) -> Result<ContentMethod, InputError> {
    let Some(mode) = form.attributes.get("outputHashMode") else {
        return Ok(default);
    };
    match mode.node.string()? {
        "recursive" => Ok(ContentMethod::Nar),
        name => ContentMethod::parse(name).ok_or_else(|| {
            mode.node
                .error(format!("invalid value '{name}' for 'outputHashMode' attribute"))
                .with_hint("use 'flat' for a file, 'recursive' (or 'nar') for a directory, 'text' or 'git'")
        }),
    }
}
