//! The JSON that `nix derivation show` prints, in every generation since 2.0, and version 4 written.
//!
//! Generations are told apart by shape (reference, section 1.1), because the older ones carry no version.

use super::{
    Derivation, DerivationParts, Output, aterm,
    paths::{self, DerivationSet},
    to_nix_json,
};
use crate::{
    content_address::{ContentAddress, ContentMethod},
    hash::{Hash, HashAlgorithm},
    json::{InputError, Member, Node, Value, nearest},
    store_path::StorePath,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Which shape a file had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generation {
    /// Nix 2.0 to 2.31 and Lix: a map from full paths.
    Legacy,
    /// Nix 2.32: a map from base names, `version` 3 in each derivation.
    Version3,
    /// Nix 2.33 and later: a wrapper with `version` 4.
    Version4,
    /// One derivation whose inputs are plain store paths.
    Resolved,
}

/// Keys of a derivation object, over all generations.
const KEYS: [&str; 13] = [
    "name",
    "version",
    "outputs",
    "inputs",
    "inputSrcs",
    "inputDrvs",
    "system",
    "platform",
    "builder",
    "args",
    "env",
    "structuredAttrs",
    "meta",
];

/// Whether an object looks like derivation JSON rather than like a short form.
pub fn recognises(root: &Node) -> bool {
    let Value::Object(members) = &root.value else { return false };
    root.get("derivations").is_some()
        || (root.get("outputs").is_some_and(|outputs| matches!(outputs.value, Value::Object(_)))
            && ["inputs", "inputSrcs", "inputDrvs", "args"].iter().any(|key| root.get(key).is_some()))
        || (!members.is_empty()
            && members
                .iter()
                .all(|member| member.key.ends_with(".drv") && matches!(member.node.value, Value::Object(_))))
}

/// Reads a file of derivations. Keys of the set are the paths that the file uses, so that its derivations find each other.
pub fn read(root: &Node) -> Result<(Generation, DerivationSet), InputError> {
    if let Some(derivations) = root.get("derivations") {
        let version = root.require("version")?;
        if version.to_serde() != json!(4) {
            return Err(unsupported_version(version));
        }
        return Ok((Generation::Version4, read_map(derivations)?));
    }
    if root.get("outputs").is_some() {
        let (generation, draft) = read_one(None, root)?;
        let derivation = complete(root, draft, &DerivationSet::new())?;
        let path = paths::derivation_path(&derivation).map_err(|error| root.error(error.to_string()))?;
        return Ok((generation, [(path, derivation)].into()));
    }
    let is_version_3 = root.object()?.iter().any(|member| member.node.get("version").is_some());
    Ok((if is_version_3 { Generation::Version3 } else { Generation::Legacy }, read_map(root)?))
}

fn unsupported_version(version: &Node) -> InputError {
    let found = version.excerpt();
    version
        .error(format!(
            "unsupported derivation JSON format version {found}; versions 3 and 4 and the ones before are known"
        ))
        .with_hint("print it again with another `nix derivation show`, or pass the `.drv` file itself")
}

fn read_map(map: &Node) -> Result<DerivationSet, InputError> {
    let mut set = DerivationSet::new();
    let mut waiting: BTreeMap<StorePath, (DerivationParts, &Node)> = BTreeMap::new();
    let mut problem = None;
    for member in map.object()? {
        let path = store_path(&member.key).map_err(|message| key_error(member, message))?;
        if set.contains_key(&path) || waiting.contains_key(&path) {
            return Err(twice(member, &path));
        }
        let (_, parts) = read_one(Some(&path), &member.node)?;
        // Most are complete as they are. The few that want a path or a variable filled in may need the others first.
        match complete(&member.node, parts.clone(), &set) {
            Ok(derivation) => drop(set.insert(path, derivation)),
            Err(error) => {
                problem.get_or_insert(error);
                waiting.insert(path, (parts, &member.node));
            }
        }
    }
    // Each once, when all that it waits for is there: trying all again and again would take the square of the time.
    let mut needs: BTreeMap<StorePath, usize> = BTreeMap::new();
    let mut needed_by: BTreeMap<StorePath, Vec<StorePath>> = BTreeMap::new();
    for (path, (parts, _)) in &waiting {
        let inputs: Vec<&StorePath> =
            parts.input_derivations.keys().filter(|input| waiting.contains_key(*input)).collect();
        needs.insert(path.clone(), inputs.len());
        inputs.into_iter().for_each(|input| needed_by.entry(input.clone()).or_default().push(path.clone()));
    }
    let mut ready: Vec<StorePath> =
        needs.iter().filter(|(_, count)| **count == 0).map(|(path, _)| path.clone()).collect();
    while let Some(path) = ready.pop() {
        let Some((parts, node)) = waiting.remove(&path) else { continue };
        set.insert(path.clone(), complete(node, parts, &set)?);
        for dependent in needed_by.remove(&path).unwrap_or_default() {
            if let Some(count) = needs.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.push(dependent);
                }
            }
        }
    }
    match problem {
        // They wait for each other.
        Some(problem) if !waiting.is_empty() => Err(problem),
        Some(_) | None => Ok(set),
    }
}

/// The same path, spelled once as a whole and once as its name.
fn twice(member: &Member, path: &StorePath) -> InputError {
    key_error(member, format!("'{path}' is there twice")).with_hint("remove one of the two")
}

fn complete(node: &Node, parts: DerivationParts, set: &DerivationSet) -> Result<Derivation, InputError> {
    paths::fill(parts, set).map_err(|error| node.error(error.to_string()))
}

fn key_error(member: &Member, message: String) -> InputError {
    InputError { span: member.key_span.clone(), path: member.node.path.to_string(), message, hint: None }
}

/// Full path or base name: generations differ, and a file that mixes them is still unambiguous.
fn store_path(text: &str) -> Result<StorePath, String> {
    let read = if text.starts_with('/') { StorePath::from_full_path(text) } else { StorePath::from_base_name(text) };
    read.map_err(|error| error.to_string())
}

fn store_path_at(node: &Node) -> Result<StorePath, InputError> {
    store_path(node.string()?).map_err(|message| node.error(message))
}

fn read_one(path: Option<&StorePath>, node: &Node) -> Result<(Generation, DerivationParts), InputError> {
    let generation = match (node.get("version"), node.get("inputs").map(|inputs| &inputs.value)) {
        (Some(version), _) if ![json!(3), json!(4)].contains(&version.to_serde()) => {
            return Err(unsupported_version(version));
        }
        (_, Some(Value::Array(_))) => Generation::Resolved,
        (Some(version), _) if version.to_serde() == json!(3) => Generation::Version3,
        (Some(_), _) => Generation::Version4,
        (None, _) => Generation::Legacy,
    };
    for member in node.object()? {
        if let (false, Some(known)) = (KEYS.contains(&member.key.as_str()), nearest(&member.key, KEYS)) {
            return Err(key_error(member, format!("unknown key '{}' in a derivation", member.key))
                .with_hint(format!("did you mean '{known}'?")));
        }
    }
    let name = match (node.get("name"), path) {
        (Some(name), _) => name.string()?.to_owned(),
        (None, Some(path)) => path.name().trim_end_matches(".drv").to_owned(),
        (None, None) => node.require("name")?.string()?.to_owned(),
    };
    let mut outputs = BTreeMap::new();
    for member in node.require("outputs")?.object()? {
        outputs.insert(member.key.clone(), read_output(&name, member, generation)?);
    }
    let (input_sources, input_derivations) = read_inputs(node)?;
    let system = match (node.get("system"), node.get("platform")) {
        (None, Some(platform)) => platform.string()?.to_owned(),
        _ => node.require("system")?.string()?.to_owned(),
    };
    let mut environment = BTreeMap::new();
    for member in node.require("env")?.object()? {
        environment.insert(member.key.as_str().into(), member.node.string()?.into());
    }
    let from_environment = match generation {
        Generation::Legacy => aterm::take_structured(&mut environment).map_err(|message| node.error(message))?,
        Generation::Version3 | Generation::Version4 | Generation::Resolved => None,
    };
    let structured_attributes = match node.get("structuredAttrs") {
        Some(attributes) => Some(attributes.to_serde_object()?.into()),
        None => from_environment,
    };
    let parts = DerivationParts {
        name,
        outputs,
        input_sources,
        input_derivations,
        system,
        builder: node.require("builder")?.string()?.into(),
        arguments: strings(node.require("args")?)?.into_iter().map(Into::into).collect(),
        environment,
        structured_attributes,
    };
    Ok((generation, parts))
}

fn strings(node: &Node) -> Result<Vec<&str>, InputError> {
    node.array()?.iter().map(Node::string).collect()
}

type Inputs = (BTreeSet<StorePath>, BTreeMap<StorePath, BTreeSet<String>>);

fn read_inputs(node: &Node) -> Result<Inputs, InputError> {
    let (sources, derivations) = match node.get("inputs") {
        Some(inputs) if matches!(inputs.value, Value::Array(_)) => (inputs, None),
        Some(inputs) => (inputs.require("srcs")?, Some(inputs.require("drvs")?)),
        None => (node.require("inputSrcs")?, Some(node.require("inputDrvs")?)),
    };
    let sources = sources.array()?.iter().map(store_path_at).collect::<Result<_, _>>()?;
    let mut by_path = BTreeMap::new();
    for member in derivations.map(Node::object).transpose()?.unwrap_or_default() {
        let path = store_path(&member.key).map_err(|message| key_error(member, message))?;
        let outputs = match &member.node.value {
            Value::Array(_) => &member.node,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                if let Some(dynamic) = member.node.get("dynamicOutputs")
                    && !dynamic.object()?.is_empty()
                {
                    return Err(dynamic
                        .error("derivations with dynamic outputs are not supported")
                        .with_hint("build the derivation that makes this one first, and pass its result"));
                }
                member.node.require("outputs")?
            }
        };
        if by_path.contains_key(&path) {
            return Err(twice(member, &path));
        }
        by_path.insert(path, strings(outputs)?.into_iter().map(str::to_owned).collect());
    }
    Ok((sources, by_path))
}

fn read_output(derivation: &str, member: &Member, generation: Generation) -> Result<Output, InputError> {
    let node = &member.node;
    let mut keys: Vec<&str> = node.object()?.iter().map(|member| member.key.as_str()).collect();
    keys.sort_unstable();
    let text = |key: &str| node.require(key)?.string();
    let invalid = |message: &str| node.error(format!("{message}: {}", node.excerpt()));
    let algorithm = |node: &Node, name: &str| HashAlgorithm::parse(name).map_err(|error| node.error(error.to_string()));
    match keys[..] {
        [] => Ok(Output::Deferred),
        ["path"] => Ok(Output::InputAddressed { path: store_path_at(node.require("path")?)? }),
        ["hash", "method"] => {
            let hash = node.require("hash")?;
            let hash = Hash::parse_sri(hash.string()?).map_err(|error| hash.error(error.to_string()))?;
            Ok(Output::Fixed { content: ContentAddress { method: method(node)?, hash } })
        }
        ["hashAlgo", "method"] => Ok(Output::Floating {
            method: method(node)?,
            algorithm: algorithm(node.require("hashAlgo")?, text("hashAlgo")?)?,
        }),
        ["hashAlgo", "impure", "method"] => Ok(Output::Impure {
            method: method(node)?,
            algorithm: algorithm(node.require("hashAlgo")?, text("hashAlgo")?)?,
        }),
        // Before 2.23 the method is a prefix of the algorithm; from 2.23 on it stands apart; a fixed output has its path.
        ["hash", "hashAlgo", "method"] | ["hash", "hashAlgo", "method", "path"] => {
            let path = node.get("path").map(store_path_at).transpose()?;
            let prefixed = format!("{}{}", method(node)?.prefix(), text("hashAlgo")?);
            let path = path.map(|path| path.to_string()).unwrap_or_default();
            aterm::output(derivation, &member.key, &path, &prefixed, text("hash")?)
                .map_err(|error| node.error(error.to_string()))
        }
        ["hashAlgo"] | ["hash", "hashAlgo"] | ["hash", "hashAlgo", "path"] | ["hashAlgo", "impure"]
            if generation == Generation::Legacy =>
        {
            let path = node.get("path").map(store_path_at).transpose()?.map(|path| path.to_string());
            let hash = match (node.get("hash"), node.get("impure")) {
                (Some(hash), _) => hash.string()?,
                (None, Some(_)) => "impure",
                (None, None) => "",
            };
            aterm::output(derivation, &member.key, &path.unwrap_or_default(), text("hashAlgo")?, hash)
                .map_err(|error| node.error(error.to_string()))
        }
        _ => Err(invalid("invalid JSON for derivation output")
            .with_hint("an output has 'path', or 'method' with 'hash' or 'hashAlgo', or nothing")),
    }
}

fn method(node: &Node) -> Result<ContentMethod, InputError> {
    let method = node.require("method")?;
    let name = method.string()?;
    ContentMethod::parse(name).ok_or_else(|| {
        method.error(format!("unknown file ingestion method '{name}', expect `flat`, `nar`, `text`, or `git`"))
    })
}

/// One derivation as `nix derivation show` (version 4) prints it.
pub fn write(derivation: &Derivation) -> serde_json::Value {
    let base_names =
        |paths: &BTreeSet<StorePath>| -> Vec<String> { paths.iter().map(|path| path.base_name().to_owned()).collect() };
    let drvs: serde_json::Map<String, serde_json::Value> = derivation
        .input_derivations
        .iter()
        .map(|(path, outputs)| (path.base_name().to_owned(), json!({ "dynamicOutputs": {}, "outputs": outputs })))
        .collect();
    let env: serde_json::Map<String, serde_json::Value> = derivation
        .environment
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into()))
        .collect();
    let outputs: serde_json::Map<String, serde_json::Value> =
        derivation.outputs.iter().map(|(name, output)| (name.clone(), write_output(output))).collect();
    let mut object = json!({
        "args": derivation.arguments.iter().map(|argument| String::from_utf8_lossy(argument).into_owned()).collect::<Vec<_>>(),
        "builder": String::from_utf8_lossy(&derivation.builder),
        "env": env,
        "inputs": { "drvs": drvs, "srcs": base_names(&derivation.input_sources) },
        "name": derivation.name,
        "outputs": outputs,
        "system": derivation.system,
        "version": 4,
    });
    if let Some(attributes) = &derivation.structured_attributes {
        object["structuredAttrs"] = serde_json::Value::Object((**attributes).clone());
    }
    object
}

/// A set of derivations as `nix derivation show` (version 4) prints it, on one line.
pub fn write_set(set: &DerivationSet) -> String {
    let derivations: serde_json::Map<String, serde_json::Value> =
        set.iter().map(|(path, derivation)| (path.base_name().to_owned(), write(derivation))).collect();
    to_nix_json(&json!({ "derivations": derivations, "version": 4 }))
}

fn write_output(output: &Output) -> serde_json::Value {
    match output {
        Output::InputAddressed { path } => json!({ "path": path.base_name() }),
        Output::Fixed { content } => json!({ "hash": content.hash.to_sri(), "method": content.method.name() }),
        Output::Floating { method, algorithm } => json!({ "hashAlgo": algorithm.name(), "method": method.name() }),
        Output::Impure { method, algorithm } => {
            json!({ "hashAlgo": algorithm.name(), "impure": true, "method": method.name() })
        }
        Output::Deferred => json!({}),
    }
}

#[cfg(test)]
mod tests;
