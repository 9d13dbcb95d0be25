//! The short form: a JSON object with the attribute names that nixpkgs users know. It is sugar; [`desugar`] turns it into an
//! ordinary derivation, which real Nix can build as well.

mod desugar;
mod packages;
pub mod schema;

pub use desugar::{
    CERTIFICATE_BUNDLE, CERTIFICATE_VARIABLES, SETUP_SCRIPT_NAME, desugar, setup_script, setup_script_path,
};
pub use packages::commands_of;

use crate::{
    attributes::{self, AttributeKind},
    json::{InputError, Member, Node, Value, nearest},
    limits::{self, LimitSettings},
    network_policy::Destination,
    plan::NetworkMode,
    store_path::StorePath,
};
use std::{collections::BTreeMap, ops::Range};

/// A short form, read but not yet tied to store paths.
#[derive(Clone, Debug)]
pub struct ShortForm {
    /// Name of the derivation.
    pub name: String,
    /// Platform; the machine's own when absent.
    pub system: Option<String>,
    /// All attributes that reach the builder, by name.
    pub attributes: BTreeMap<String, Attribute>,
    /// Files to be copied to the store, in the order of the text.
    pub sources: Vec<SourceFile>,
    /// What `nativeBuildInputs` and its like ask of the machine: command names and absolute paths.
    pub tools: Vec<Tool>,
    /// The sandbox profile that the file asks for.
    pub profile: Option<String>,
    /// What it says about its network.
    pub network: FileNetwork,
    /// Limits that it sets itself; they can only be lower than what there would be.
    pub limits: LimitSettings,
    /// Place of the whole object, for errors that concern all of it.
    place: Node,
}

/// An attribute's value with its place.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// The value as JSON; scripts are joined to one string.
    pub value: serde_json::Value,
    /// Where it stands.
    pub node: Node,
}

/// A path that must become a store path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As written; relative to the file's directory.
    pub path: String,
    /// Byte range in the text.
    pub span: Range<usize>,
    /// Its JSON path.
    pub json_path: String,
}

/// A tool that a build asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// Looked up on the machine's search path.
    Command(String),
    /// An executable outside the directories that the profile shows.
    Path(String),
}

/// Attributes whose entries are other packages; `./…` among them is copied to the store, as in `src`.
const INPUT_LISTS: [&str; 6] = [
    "nativeBuildInputs",
    "buildInputs",
    "propagatedBuildInputs",
    "propagatedNativeBuildInputs",
    "nativeCheckInputs",
    "checkInputs",
];

/// Attributes whose entries are tools.
const TOOL_LISTS: [&str; 2] = ["nativeBuildInputs", "nativeCheckInputs"];

/// Whether an object looks like a short form at all.
pub fn recognises(root: &Node) -> bool {
    ["name", "pname", "buildPhase", "installPhase", "buildCommand", "builder", "src", "outputHash"]
        .iter()
        .any(|key| root.get(key).is_some())
}

/// What a file says about its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileNetwork {
    /// Which kind; never the host's.
    pub mode: Option<NetworkMode>,
    /// Only these may be called, of those that may be called at all.
    pub allow: Vec<Destination>,
    /// These may not.
    pub deny: Vec<Destination>,
}

/// Reads a short form.
pub fn read(root: &Node) -> Result<ShortForm, InputError> {
    let mut form = ShortForm {
        name: name(root)?,
        system: root.get("system").map(|system| system.string().map(str::to_owned)).transpose()?,
        attributes: BTreeMap::new(),
        sources: Vec::new(),
        tools: Vec::new(),
        profile: None,
        network: FileNetwork::default(),
        limits: LimitSettings::new(),
        place: root.clone(),
    };
    for member in root.object()? {
        match member.key.as_str() {
            "$schema" | "meta" | "passthru" => {}
            "fodder" => settings(&member.node, &mut form)?,
            "__noChroot" if is_true(&member.node) => {
                return Err(member
                    .node
                    .error("there is no build without a sandbox, and '__noChroot' asks for one")
                    .with_hint("remove it; a build that needs the network declares an 'outputHash'"));
            }
            _ => form.attribute(member)?,
        }
    }
    Ok(form)
}

/// Whether an attribute's value is replaced by store paths where it names sources.
fn names_sources(key: &str) -> bool {
    INPUT_LISTS.contains(&key) || attributes::find(key).is_some_and(|attribute| attribute.kind == AttributeKind::Source)
}

/// A path that is meant to be one, as Nix's grammar has it: with a dot in front, so that it cannot be a name.
fn is_relative_path(text: &str) -> bool {
    text.starts_with("./") || text.starts_with("../") || text == "."
}

fn is_true(node: &Node) -> bool {
    matches!(&node.value, Value::Bool(true)) || matches!(&node.value, Value::String(text) if text == "1")
}

fn name(root: &Node) -> Result<String, InputError> {
    let (node, name) = match (root.get("name"), root.get("pname"), root.get("version")) {
        (Some(node), _, _) => (node, node.string()?.to_owned()),
        (None, Some(pname), Some(version)) => (pname, format!("{}-{}", pname.string()?, version.string()?)),
        (None, Some(_), None) => {
            return Err(root.error("there is a 'pname' and no 'version'").with_hint("add 'version', or use 'name'"));
        }
        (None, None, _) => {
            return Err(root.error("there is no 'name'").with_hint("add 'name', or 'pname' and 'version'"));
        }
    };
    crate::store_path::check_name(&name).map_err(|error| node.error(error.to_string()))?;
    Ok(name)
}

fn settings(node: &Node, form: &mut ShortForm) -> Result<(), InputError> {
    for member in node.object()? {
        match member.key.as_str() {
            "profile" => {
                let name = member.node.string()?;
                if !crate::profile::NAMES.contains(&name) {
                    let known = crate::profile::NAMES.join("' or '");
                    return Err(member
                        .node
                        .error(format!("unknown profile '{name}'"))
                        .with_hint(format!("write '{known}'; a file is named with --profile FILE")));
                }
                form.profile = Some(name.to_owned());
            }
            "network" => form.network = network(&member.node)?,
            "limits" => form.limits = limits(&member.node)?,
            key => return Err(unknown_setting(&member.node, key, &["profile", "network", "limits"])),
        }
    }
    Ok(())
}

fn unknown_setting(node: &Node, key: &str, known: &[&'static str]) -> InputError {
    let error = node.error(format!("unknown setting '{key}'"));
    match nearest(key, known.iter().copied()) {
        Some(known) => error.with_hint(format!("did you mean '{known}'?")),
        None => error.with_hint(format!("there are '{}'", known.join("' and '"))),
    }
}

/// What a file says about its network: less than a person could, since it must not open the machine that it is built on.
fn network(node: &Node) -> Result<FileNetwork, InputError> {
    let mut network = FileNetwork::default();
    let destinations = |node: &Node| -> Result<Vec<Destination>, InputError> {
        let read =
            |element: &Node| Destination::parse(element.string()?).map_err(|error| element.error(error.to_string()));
        node.array()?.iter().map(read).collect()
    };
    for member in node.object()? {
        match member.key.as_str() {
            "allow" => network.allow = destinations(&member.node)?,
            "deny" => network.deny = destinations(&member.node)?,
            "mode" => {
                network.mode = Some(match member.node.string()? {
                    "gateway" => NetworkMode::Gateway,
                    "none" => NetworkMode::None,
                    other => {
                        return Err(member
                            .node
                            .error(format!("a file cannot ask for the network '{other}'"))
                            .with_hint("write 'gateway' or 'none'; whoever builds it can say --network host"));
                    }
                });
            }
            key => return Err(unknown_setting(&member.node, key, &["allow", "deny", "mode"])),
        }
    }
    Ok(network)
}

/// What a file sets itself to: texts with units, as on the command line. It cannot lift anything.
fn limits(node: &Node) -> Result<LimitSettings, InputError> {
    let read = |member: &Member| {
        let node = &member.node;
        let limit = limits::find(&member.key).map_err(|error| {
            let error = node.error(error.to_string());
            match nearest(&member.key, limits::LIMITS.iter().map(|info| info.name)) {
                Some(known) => error.with_hint(format!("did you mean '{known}'?")),
                None => error,
            }
        })?;
        let value = limit.parse_value(node.string()?).map_err(|error| node.error(error.to_string()))?;
        match value {
            Some(value) => Ok((limit, Some(value))),
            None => Err(node
                .error(format!("a file cannot lift the limit '{limit}'"))
                .with_hint(format!("remove it; whoever builds it can say --limit {limit}=none"))),
        }
    };
    node.object()?.iter().map(read).collect()
}

impl ShortForm {
    fn attribute(&mut self, member: &Member) -> Result<(), InputError> {
        let Member { key, key_span, node } = member;
        if let Some(meant) = attributes::meant(key) {
            return Err(InputError {
                span: key_span.clone(),
                path: node.path.to_string(),
                message: format!("unknown attribute '{key}'"),
                hint: Some(format!("did you mean '{meant}'? (put it into 'env' if it is a variable of your own)")),
            });
        }
        let kind = attributes::find(key).map_or(AttributeKind::Any, |attribute| attribute.kind);
        let value = match (kind, &node.value) {
            (_, Value::Null) => return Ok(()),
            (AttributeKind::Script, Value::Array(lines)) => {
                let lines = lines.iter().map(Node::string).collect::<Result<Vec<_>, _>>()?;
                serde_json::Value::from(lines.join("\n") + "\n")
            }
            (AttributeKind::Script, _) => node.string()?.into(),
            // One source may have spaces in its path; in a list, a path with spaces is an element of an array.
            (AttributeKind::Source, Value::String(path)) if key == "src" => {
                self.source((path, node))?;
                node.to_serde()
            }
            (AttributeKind::Source, _) => {
                for path in self.entries(node)? {
                    self.source(path)?;
                }
                node.to_serde()
            }
            (AttributeKind::List, Value::Array(_) | Value::String(_)) => {
                for entry in self.entries(node)? {
                    if !INPUT_LISTS.contains(&key.as_str()) {
                        continue;
                    } else if is_relative_path(entry.0) {
                        self.source(entry)?;
                    } else if TOOL_LISTS.contains(&key.as_str()) {
                        self.tool(entry)?;
                    }
                }
                node.to_serde()
            }
            (AttributeKind::List, _) => return Err(expected(node, "an array of strings, or a string")),
            (AttributeKind::Switch, Value::Bool(_)) => node.to_serde(),
            (AttributeKind::Switch, Value::Number(text) | Value::String(text))
                if ["", "0", "1"].contains(&text.as_str()) =>
            {
                serde_json::Value::Bool(text == "1")
            }
            (AttributeKind::Switch, _) => return Err(expected(node, "true or false")),
            (AttributeKind::Text, Value::Array(_) | Value::Object(_)) => return Err(expected(node, "a string")),
            (AttributeKind::Text | AttributeKind::Any, _) => node.to_serde(),
            (AttributeKind::Object, _) => {
                node.object()?;
                node.to_serde()
            }
        };
        self.attributes.insert(key.clone(), Attribute { value, node: node.clone() });
        Ok(())
    }

    /// The strings of a list attribute: elements of an array, or the words of one string, each with its place.
    fn entries<'a>(&self, node: &'a Node) -> Result<Vec<(&'a str, &'a Node)>, InputError> {
        match &node.value {
            Value::Array(elements) => elements.iter().map(|element| Ok((element.string()?, element))).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Ok(node.string()?.split_ascii_whitespace().map(|word| (word, node)).collect())
            }
        }
    }

    fn source(&mut self, (path, node): (&str, &Node)) -> Result<(), InputError> {
        if StorePath::from_full_path(path).is_ok() {
            return Ok(());
        }
        if path.contains("://") {
            return Err(node
                .error(format!("'{path}' is a URL, and a source is a file"))
                .with_hint("download it in a derivation with an 'outputHash', and use its output as 'src'"));
        }
        if !(is_relative_path(path) || path.starts_with('/')) {
            return Err(node.error(format!("'{path}' is not a path")).with_hint(format!(
                "write './{path}' for a file next to this one; paths with spaces go into an array"
            )));
        }
        self.sources.push(SourceFile {
            path: path.to_owned(),
            span: node.span.clone(),
            json_path: node.path.to_string(),
        });
        Ok(())
    }

    fn tool(&mut self, (word, node): (&str, &Node)) -> Result<(), InputError> {
        if StorePath::from_full_path(word).is_ok() {
            return Ok(());
        }
        let tools = if word.starts_with('/') {
            vec![Tool::Path(word.to_owned())]
        } else if word.is_empty() || word.contains('/') || word.contains('\0') {
            return Err(node
                .error(format!("'{word}' is neither a command name nor an absolute path"))
                .with_hint("write 'git', or '/opt/git/bin/git'"));
        } else {
            commands_of(word).into_iter().map(Tool::Command).collect()
        };
        for tool in tools {
            if !self.tools.contains(&tool) {
                self.tools.push(tool);
            }
        }
        Ok(())
    }

    /// An error about the whole.
    pub fn error(&self, message: impl Into<String>) -> InputError {
        self.place.error(message)
    }
}

fn expected(node: &Node, what: &str) -> InputError {
    node.error(format!("expected {what}, found a {}: {}", node.value.type_name(), node.excerpt()))
}

#[cfg(test)]
mod tests;
