//! Derivations for tests, written as `nix derivation show` writes them. Paths come from the library; that they are Nix's is
//! what the oracle's tests are for.

use crate::lab::{Lab, Run, need};
use fodder_model::{
    content_address::{ContentAddress, ContentMethod},
    derivation::{
        Derivation, DerivationParts, Output, json,
        paths::{self, DerivationSet},
    },
    hash::{Hash, HashAlgorithm},
    store_path::StorePath,
};
use fodder_store::Store;
use std::{collections::BTreeMap, path::PathBuf};

/// SRI of nothing yet: the one Nix assumes for an empty `outputHash`.
pub const NO_HASH: &str = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A derivation in the making: a shell script, unless it is changed.
#[derive(Clone)]
pub struct Recipe {
    /// Everything about it.
    pub parts: DerivationParts,
}

impl Recipe {
    /// A derivation of one output that a shell (busybox) makes with this script.
    pub fn new(name: &str, script: &str) -> Self {
        need("busybox", "busybox-static");
        let parts = DerivationParts {
            name: name.to_owned(),
            outputs: [("out".to_owned(), Output::Deferred)].into(),
            input_sources: [].into(),
            input_derivations: BTreeMap::new(),
            system: format!("{}-linux", std::env::consts::ARCH),
            builder: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: BTreeMap::new(),
            structured_attributes: None,
        };
        Recipe { parts }
            .env("builder", "/bin/sh")
            .env("name", name)
            .system(&format!("{}-linux", std::env::consts::ARCH))
    }

    /// With a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.parts.environment.insert(name.into(), value.into());
        self
    }

    /// For another platform.
    pub fn system(mut self, system: &str) -> Self {
        self.parts.system = system.to_owned();
        self.env("system", system)
    }

    /// With a further output.
    pub fn output(mut self, name: &str) -> Self {
        self.parts.outputs.insert(name.to_owned(), Output::Deferred);
        self
    }

    /// With a declared hash.
    pub fn fixed(mut self, method: ContentMethod, hash: &str) -> Self {
        let hash = Hash::parse_sri(hash).expect("an SRI hash");
        self.parts.outputs = [("out".to_owned(), Output::Fixed { content: ContentAddress { method, hash } })].into();
        self.env("outputHash", &hash.to_sri())
    }

    /// A flat fixed output of these contents.
    pub fn fixed_to(self, contents: &str) -> Self {
        self.fixed(ContentMethod::Flat, &Hash::of(HashAlgorithm::Sha256, contents.as_bytes()).to_sri())
    }

    /// With a source.
    pub fn source(mut self, path: &StorePath) -> Self {
        self.parts.input_sources.insert(path.clone());
        self
    }

    /// With structured attributes instead of an environment.
    pub fn structured(mut self, attributes: serde_json::Value) -> Self {
        let serde_json::Value::Object(attributes) = attributes else { panic!("attributes are an object") };
        self.parts.structured_attributes = Some(attributes.into());
        self.parts.environment.clear();
        self
    }

    /// The derivation, with all paths.
    pub fn derivation(&self) -> Derivation {
        paths::fill(self.parts.clone(), &DerivationSet::new()).expect("a derivation")
    }

    /// Its path.
    pub fn path(&self) -> StorePath {
        paths::derivation_path(&self.derivation()).expect("a path")
    }

    /// Where an output will be.
    pub fn output_path(&self, name: &str) -> StorePath {
        self.derivation().known_output_paths()[name].clone().expect("a known path")
    }

    /// Where the output will be.
    pub fn out(&self) -> StorePath {
        self.output_path("out")
    }

    /// Its JSON.
    pub fn json(&self) -> String {
        json::write_set(&[(self.path(), self.derivation())].into())
    }

    /// A file with its JSON.
    pub fn write(&self, lab: &Lab) -> PathBuf {
        lab.write(&format!("{}.json", self.path().base_name()), self.json())
    }
}

impl Lab {
    /// Builds a recipe.
    pub fn make(&self, recipe: &Recipe, arguments: &[&str]) -> Run {
        let file = recipe.write(self);
        let mut all = arguments.to_vec();
        all.push(file.to_str().expect("UTF-8"));
        self.build(&all)
    }

    /// Builds a recipe and parses the result.
    pub fn make_json(&self, recipe: &Recipe, arguments: &[&str]) -> (i32, serde_json::Value) {
        let file = recipe.write(self);
        let mut all = arguments.to_vec();
        all.push(file.to_str().expect("UTF-8"));
        self.build_json(&all)
    }

    /// Builds a recipe that must succeed, and says where its output is on disk.
    #[track_caller]
    pub fn made(&self, recipe: &Recipe, arguments: &[&str]) -> PathBuf {
        let run = self.make(recipe, arguments);
        assert_eq!(run.code, 0, "{run:?}");
        self.real(&recipe.out())
    }

    /// What the builder of this recipe wrote into its one output, a file.
    #[track_caller]
    pub fn said(&self, recipe: &Recipe, arguments: &[&str]) -> String {
        let file = self.made(recipe, arguments);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// Where a store path is on disk.
    pub fn real(&self, path: &StorePath) -> PathBuf {
        self.store().join("nix/store").join(path.base_name())
    }

    /// Puts a text into the store.
    pub fn text(&self, name: &str, contents: &str) -> StorePath {
        let store = Store::open(&self.store()).expect("open the store");
        store.add_text(name, contents.as_bytes(), &[].into(), 1).expect("add a text").path
    }

    /// Puts a directory with one file, `file`, into the store.
    pub fn directory(&self, name: &str, contents: &str) -> StorePath {
        self.write(&format!("sources/{name}/file"), contents);
        let store = Store::open(&self.store()).expect("open the store");
        store.add_source(name, &self.path().join("sources").join(name), 1).expect("add a source").path
    }
}

/// The field at a path of keys, as text.
#[track_caller]
pub fn text<'a>(value: &'a serde_json::Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(serde_json::Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer}: {value}"))
}
