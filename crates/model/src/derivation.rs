//! Derivations: what one is, and the rules that every one obeys. Formats are in the modules below.

pub mod aterm;
mod grisu;
pub mod json;
mod nix_json;
pub mod paths;
pub mod resolve;
mod structured;

pub use nix_json::to_nix_json;
pub use structured::StructuredAttributes;

use crate::{
    bytes::ByteString,
    content_address::{ContentAddress, ContentMethod},
    hash::HashAlgorithm,
    store_path::{StorePath, StorePathError, check_name},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

/// The environment key under which ATerm carries structured attributes.
pub const STRUCTURED_KEY: &str = "__json";

/// The parts of a derivation, not yet checked.
#[derive(Clone, Debug, PartialEq)]
pub struct DerivationParts {
    /// Name, without `.drv`.
    pub name: String,
    /// What it makes, by output name.
    pub outputs: BTreeMap<String, Output>,
    /// Store paths that are inputs as they are.
    pub input_sources: BTreeSet<StorePath>,
    /// Derivations whose named outputs are inputs.
    pub input_derivations: BTreeMap<StorePath, BTreeSet<String>>,
    /// `x86_64-linux`, …
    pub system: String,
    /// Path of the program, or `builtin:…`.
    pub builder: ByteString,
    /// Arguments after `argv[0]`.
    pub arguments: Vec<ByteString>,
    /// Variables; without structured attributes these are all attributes.
    pub environment: BTreeMap<ByteString, ByteString>,
    /// Structured attributes, if the derivation uses them.
    pub structured_attributes: Option<StructuredAttributes>,
}

/// A valid derivation: its parts, and the promise that they fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct Derivation(DerivationParts);

impl Deref for Derivation {
    type Target = DerivationParts;
    fn deref(&self) -> &DerivationParts {
        &self.0
    }
}

/// What is known of an output before it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The path follows from the derivation's inputs.
    InputAddressed {
        /// Where it will be.
        path: StorePath,
    },
    /// The hash is declared, and with it the path.
    Fixed {
        /// Method and hash.
        content: ContentAddress,
    },
    /// The path will follow from what is built.
    Floating {
        /// How it will be hashed.
        method: ContentMethod,
        /// With what.
        algorithm: HashAlgorithm,
    },
    /// The path follows from inputs that have no path yet.
    Deferred,
    /// Built anew every time, with the network.
    Impure {
        /// How it will be hashed.
        method: ContentMethod,
        /// With what.
        algorithm: HashAlgorithm,
    },
}

/// The kind of a derivation; its outputs are all of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// See [`Output::InputAddressed`].
    InputAddressed,
    /// See [`Output::Fixed`].
    Fixed,
    /// See [`Output::Floating`].
    Floating,
    /// See [`Output::Deferred`].
    Deferred,
    /// See [`Output::Impure`].
    Impure,
}

impl Output {
    fn kind(&self) -> Kind {
        match self {
            Output::InputAddressed { .. } => Kind::InputAddressed,
            Output::Fixed { .. } => Kind::Fixed,
            Output::Floating { .. } => Kind::Floating,
            Output::Deferred => Kind::Deferred,
            Output::Impure { .. } => Kind::Impure,
        }
    }
}

/// Why parts are not a derivation. The words are Nix's where Nix has words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerivationError {
    /// The derivation's own name.
    #[error(transparent)]
    Name(#[from] StorePathError),
    /// An output's name.
    #[error("output name '{name}' is not valid: {source}")]
    OutputName {
        /// What was given.
        name: String,
        /// Why not.
        source: StorePathError,
    },
    /// No output at all.
    #[error("must have at least one output")]
    NoOutputs,
    /// Outputs of different kinds.
    #[error("can't mix derivation output types")]
    MixedOutputs,
    /// A fixed output that is not called `out`.
    #[error("single fixed output must be named \"out\", not '{name}'")]
    FixedOutputName {
        /// Its name.
        name: String,
    },
    /// Two fixed outputs.
    #[error("only one fixed output is allowed for now")]
    SeveralFixedOutputs,
    /// Floating outputs with different algorithms.
    #[error("all floating outputs must use the same hash algorithm")]
    MixedAlgorithms,
    /// A method that does not go with an algorithm.
    #[error("output '{name}': method '{}' cannot be used with '{algorithm}'", method.name())]
    MethodAlgorithm {
        /// Output name.
        name: String,
        /// The method.
        method: ContentMethod,
        /// The algorithm.
        algorithm: HashAlgorithm,
    },
    /// A NUL byte where the kernel takes C strings.
    #[error("{what} contains a NUL byte, which no process can be given")]
    Nul {
        /// `builder`, `argument 3`, `environment variable 'x'`.
        what: String,
    },
    /// The reserved environment key.
    #[error(
        "cannot have an environment variable named '__json'; this key is reserved for encoding structured attributes"
    )]
    ReservedKey,
}

impl Derivation {
    /// Checks that parts fit together. Output paths of input-addressed derivations are checked by [`paths`], which needs the
    /// input derivations.
    pub fn new(parts: DerivationParts) -> Result<Self, DerivationError> {
        check_name(&format!("{}.drv", parts.name)).and_then(|()| check_name(&parts.name))?;
        let Some(first) = parts.outputs.values().next() else {
            return Err(DerivationError::NoOutputs);
        };
        for (name, output) in &parts.outputs {
            check_name(name)
                .and_then(|()| check_name(&output_path_name(&parts.name, name)))
                .map_err(|source| DerivationError::OutputName { name: name.clone(), source })?;
            if output.kind() != first.kind() {
                return Err(DerivationError::MixedOutputs);
            }
            Self::check_output(&parts, name, output, first)?;
        }
        let nul = |what: String, bytes: &[u8]| {
            if bytes.contains(&0) { Err(DerivationError::Nul { what }) } else { Ok(()) }
        };
        nul("builder".to_owned(), &parts.builder)?;
        nul("system".to_owned(), parts.system.as_bytes())?;
        for (index, argument) in parts.arguments.iter().enumerate() {
            nul(format!("argument {}", index + 1), argument)?;
        }
        for (name, value) in &parts.environment {
            nul("name of an environment variable".to_owned(), name)?;
            nul(format!("environment variable '{name}'"), value)?;
            if name == STRUCTURED_KEY {
                return Err(DerivationError::ReservedKey);
            }
        }
        Ok(Derivation(parts))
    }

    fn check_output(
        parts: &DerivationParts,
        name: &str,
        output: &Output,
        first: &Output,
    ) -> Result<(), DerivationError> {
        let check = |method: ContentMethod, algorithm: HashAlgorithm| {
            if method.allows(algorithm) {
                Ok(())
            } else {
                Err(DerivationError::MethodAlgorithm { name: name.to_owned(), method, algorithm })
            }
        };
        match output {
            Output::InputAddressed { path: _ } | Output::Deferred => Ok(()),
            Output::Fixed { content } => {
                if name != "out" {
                    return Err(DerivationError::FixedOutputName { name: name.to_owned() });
                }
                if parts.outputs.len() > 1 {
                    return Err(DerivationError::SeveralFixedOutputs);
                }
                check(content.method, content.hash.algorithm())
            }
            Output::Floating { method, algorithm } | Output::Impure { method, algorithm } => {
                let first_algorithm = match first {
                    Output::Floating { algorithm, .. } | Output::Impure { algorithm, .. } => algorithm,
                    Output::InputAddressed { .. } | Output::Fixed { .. } | Output::Deferred => algorithm,
                };
                if algorithm != first_algorithm {
                    return Err(DerivationError::MixedAlgorithms);
                }
                check(*method, *algorithm)
            }
        }
    }

    /// What kind of outputs it has.
    pub fn kind(&self) -> Kind {
        self.outputs.values().next().map_or(Kind::Deferred, Output::kind)
    }

    /// The declared content of a fixed-output derivation. This, and nothing in the environment, makes it one.
    pub fn fixed_content(&self) -> Option<ContentAddress> {
        match self.outputs.values().next() {
            Some(Output::Fixed { content }) => Some(*content),
            Some(
                Output::InputAddressed { .. } | Output::Floating { .. } | Output::Deferred | Output::Impure { .. },
            )
            | None => None,
        }
    }

    /// Name of the store path of an output: the derivation's for `out`, else with the output's appended.
    pub fn output_path_name(&self, output: &str) -> String {
        output_path_name(&self.name, output)
    }

    /// Store paths of the outputs as far as they are known before building, by output name.
    pub fn known_output_paths(&self) -> BTreeMap<&str, Option<StorePath>> {
        self.outputs
            .iter()
            .map(|(name, output)| {
                let path = match output {
                    Output::InputAddressed { path } => Some(path.clone()),
                    Output::Fixed { content } => content.store_path(&self.output_path_name(name)).ok(),
                    Output::Floating { .. } | Output::Deferred | Output::Impure { .. } => None,
                };
                (name.as_str(), path)
            })
            .collect()
    }

    /// The parts, to make another derivation of.
    pub fn into_parts(self) -> DerivationParts {
        self.0
    }

    /// The environment with the structured attributes under [`STRUCTURED_KEY`], as ATerm and old JSON carry them.
    pub fn environment_with_structured(&self) -> BTreeMap<ByteString, ByteString> {
        let mut environment = self.environment.clone();
        if let Some(attributes) = &self.structured_attributes {
            environment.insert(STRUCTURED_KEY.into(), attributes.text().into());
        }
        environment
    }
}

/// See [`Derivation::output_path_name`].
pub fn output_path_name(derivation_name: &str, output: &str) -> String {
    if output == "out" { derivation_name.to_owned() } else { format!("{derivation_name}-{output}") }
}

#[cfg(test)]
mod tests;
