//! `exportReferencesGraph`: closures of inputs, listed for the builder (reference, section 4.4).

use crate::{content_address::ContentAddress, hash::Hash, options::Options, sandbox::BindKind, store_path::StorePath};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a valid input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What it refers to, itself included if it does.
    pub references: BTreeSet<StorePath>,
    /// SHA-256 of its NAR.
    pub nar_hash: Hash,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Its content address, as databases spell it.
    pub content_address: Option<String>,
    /// Where it is on the host.
    pub real_path: crate::bytes::ByteString,
    /// What it is.
    pub shape: InputShape,
}

/// What an input is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputShape {
    /// Something that can be mounted.
    Mountable(BindKind),
    /// A symbolic link, which is copied.
    Symlink(crate::bytes::ByteString),
}

/// What derivations among the inputs were built as. A builder sees none of this unless it is an input as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DerivationOutputs {
    /// The outputs of each derivation.
    pub outputs: BTreeMap<StorePath, BTreeSet<StorePath>>,
    /// Their closures.
    pub closure: BTreeMap<StorePath, Input>,
}

/// Closures in both forms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graphs {
    /// File contents by file name.
    pub plain: BTreeMap<String, String>,
    /// Members of `.attrs.json` by key.
    pub structured: serde_json::Map<String, Value>,
}

/// Why a graph cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Not a store path.
    #[error("path '{path}' is not in the Nix store")]
    NotInStore {
        /// What was given.
        path: String,
    },
    /// Not an input.
    #[error("cannot export references of path '{path}' because it is not in the input closure of the derivation")]
    NotAnInput {
        /// Which.
        path: StorePath,
    },
}

/// Makes the graphs that a derivation asks for. As in Nix, where a derivation is in a closure, what it was built as is listed too.
pub fn graphs(
    options: &Options,
    inputs: &BTreeMap<StorePath, Input>,
    built: &DerivationOutputs,
) -> Result<Graphs, GraphError> {
    let mut graphs = Graphs::default();
    let known: BTreeMap<StorePath, Input> = match options.reference_graphs.is_empty() {
        true => return Ok(graphs),
        false => inputs.iter().chain(&built.closure).map(|(path, input)| (path.clone(), input.clone())).collect(),
    };
    for (name, paths) in &options.reference_graphs {
        let mut open = Vec::new();
        for path in paths {
            let not_in_store = || GraphError::NotInStore { path: path.clone() };
            let base = path.strip_prefix("/nix/store/").ok_or_else(not_in_store)?.split('/').next().unwrap_or_default();
            let path = StorePath::from_base_name(base).map_err(|_| not_in_store())?;
            let (path, _) = inputs.get_key_value(&path).ok_or(GraphError::NotAnInput { path })?;
            open.push(path);
        }
        let mut members = closure(open, &known);
        let outputs = members.iter().filter_map(|path| built.outputs.get(*path)).flatten().collect();
        members.extend(closure(outputs, &known));
        let found = || members.iter().filter_map(|path| known.get(*path).map(|input| (*path, input)));
        graphs.plain.insert(name.clone(), found().map(|(path, input)| plain(path, input)).collect());
        graphs.structured.insert(name.clone(), found().map(|(path, input)| structured(path, input, &known)).collect());
    }
    Ok(graphs)
}

/// Some paths and all that they refer to.
fn closure<'a>(mut open: Vec<&'a StorePath>, known: &'a BTreeMap<StorePath, Input>) -> BTreeSet<&'a StorePath> {
    let mut members = BTreeSet::new();
    while let Some(path) = open.pop() {
        if members.insert(path)
            && let Some(input) = known.get(path)
        {
            open.extend(&input.references);
        }
    }
    members
}

fn plain(path: &StorePath, input: &Input) -> String {
    let references: String = input.references.iter().map(|reference| format!("{reference}\n")).collect();
    format!("{path}\n\n{}\n{references}", input.references.len())
}

fn structured(path: &StorePath, input: &Input, inputs: &BTreeMap<StorePath, Input>) -> Value {
    let mut object = json!({
        "closureSize": closure_size(path, inputs),
        "narHash": format!("sha256:{}", input.nar_hash.to_nix32()),
        "narSize": input.nar_size,
        "path": path,
        "references": input.references,
        "valid": true,
    });
    if let Some(address) = &input.content_address {
        object["ca"] = address.clone().into();
    }
    object
}

/// Bytes of all NARs in a path's closure.
fn closure_size(path: &StorePath, known: &BTreeMap<StorePath, Input>) -> u64 {
    closure(vec![path], known).into_iter().filter_map(|path| known.get(path)).map(|input| input.nar_size).sum()
}

/// The content address of a source, as databases spell it.
pub fn source_address(nar_hash: Hash) -> String {
    ContentAddress { method: crate::content_address::ContentMethod::Nar, hash: nar_hash }.to_string()
}
