//! Store paths of derivations and of their outputs: the "hash modulo" of the Nix manual.

use super::{Derivation, DerivationParts, Kind, Output, aterm};
use crate::{
    bytes::ByteString,
    hash::{Hash, HashAlgorithm},
    store_path::{StorePath, StorePathError},
};
use std::collections::{BTreeMap, BTreeSet};

/// Derivations by their path. What a file, a store, or both together hold.
pub type DerivationSet = BTreeMap<StorePath, Derivation>;

/// Why output paths cannot be computed or are not what they should be. The words are Nix's where Nix has words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// An input derivation is not at hand.
    #[error("the input derivation '{path}' is not in the file and not in the store")]
    MissingDerivation {
        /// Which.
        path: StorePath,
    },
    /// An input derivation lacks a named output.
    #[error("derivation '{path}' does not have an output named '{output}'")]
    MissingOutput {
        /// The input derivation.
        path: StorePath,
        /// The output that it lacks.
        output: String,
    },
    /// Inputs go round in a circle.
    #[error("derivation '{path}' depends on itself")]
    Cycle {
        /// One that is on the circle.
        path: StorePath,
    },
    /// An output path is not the one that follows from the derivation.
    #[error("derivation has incorrect output '{given}', should be '{expected}'")]
    OtherOutput {
        /// In the derivation.
        given: StorePath,
        /// Computed.
        expected: StorePath,
    },
    /// The variable of an output is not its path.
    #[error("derivation has incorrect environment variable '{name}', should be '{expected}' but is actually '{given}'")]
    OtherVariable {
        /// Name of the output and of its variable.
        name: String,
        /// In the derivation.
        given: ByteString,
        /// Computed.
        expected: StorePath,
    },
    /// The variable of an output is not there.
    #[error("derivation has missing environment variable '{name}', should be '{expected}' but is not present")]
    MissingVariable {
        /// Name of the output and of its variable.
        name: String,
        /// Computed.
        expected: StorePath,
    },
    /// A path could not be formed.
    #[error(transparent)]
    Path(#[from] StorePathError),
}

/// Path of the `.drv` file.
pub fn derivation_path(derivation: &Derivation) -> Result<StorePath, StorePathError> {
    let references = derivation.input_sources.iter().chain(derivation.input_derivations.keys()).cloned().collect();
    StorePath::of_text(&format!("{}.drv", derivation.name), &aterm::write(derivation), &references)
}

/// Hashes of derivations, remembered, over a set that must hold all input derivations.
pub struct Modulo<'a> {
    set: &'a DerivationSet,
    known: BTreeMap<StorePath, ModuloHash>,
}

/// What stands for a derivation in the text of its dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ModuloHash {
    hash: Hash,
    /// Whether it, or something below it, has outputs without a path: then its dependents' outputs have none either.
    is_deferred: bool,
}

impl<'a> Modulo<'a> {
    /// Starts with nothing computed.
    pub fn new(set: &'a DerivationSet) -> Self {
        Modulo { set, known: BTreeMap::new() }
    }

    /// Output paths of an input-addressed derivation by output name; `None` when an input has no path yet (deferred).
    pub fn output_paths(&mut self, derivation: &Derivation) -> Result<Option<BTreeMap<String, StorePath>>, PathsError> {
        self.prepare(derivation)?;
        let masked = self.hash(derivation, true)?;
        if masked.is_deferred {
            return Ok(None);
        }
        derivation
            .outputs
            .keys()
            .map(|name| {
                let tag = format!("output:{name}");
                let path = StorePath::compute(&tag, &masked.hash, &derivation.output_path_name(name))?;
                Ok((name.clone(), path))
            })
            .collect::<Result<_, PathsError>>()
            .map(Some)
    }

    /// The hash under which databases remember what the outputs of a derivation turned out to be; `None` where that is nothing to
    /// remember, because the path is declared or other every time.
    pub fn realisation_hash(&mut self, derivation: &Derivation) -> Result<Option<Hash>, PathsError> {
        match derivation.kind() {
            Kind::Fixed | Kind::Impure => Ok(None),
            Kind::InputAddressed | Kind::Floating | Kind::Deferred => {
                self.prepare(derivation)?;
                Ok(Some(self.hash(derivation, true)?.hash))
            }
        }
    }

    /// Checks that the output paths in a derivation, and the variables that carry them, follow from it; then nothing in a
    /// derivation can point an output elsewhere.
    pub fn check(&mut self, derivation: &Derivation) -> Result<(), PathsError> {
        let expected: BTreeMap<String, StorePath> = match derivation.outputs.values().next() {
            Some(Output::InputAddressed { .. }) => {
                let computed = self.output_paths(derivation)?.unwrap_or_default();
                for (name, output) in &derivation.outputs {
                    if let (Output::InputAddressed { path }, Some(expected)) = (output, computed.get(name))
                        && path != expected
                    {
                        return Err(PathsError::OtherOutput { given: path.clone(), expected: expected.clone() });
                    }
                }
                computed
            }
            Some(Output::Fixed { content }) => {
                [("out".to_owned(), content.store_path(&derivation.output_path_name("out"))?)].into()
            }
            Some(Output::Floating { .. } | Output::Deferred | Output::Impure { .. }) | None => BTreeMap::new(),
        };
        for (name, path) in &expected {
            match derivation.environment.get(&ByteString::from(name.as_str())) {
                Some(given) if given == path.to_string().as_str() => {}
                Some(given) => {
                    return Err(PathsError::OtherVariable {
                        name: name.clone(),
                        given: given.clone(),
                        expected: path.clone(),
                    });
                }
                None => return Err(PathsError::MissingVariable { name: name.clone(), expected: path.clone() }),
            }
        }
        Ok(())
    }

    /// Computes the hashes of all inputs, deepest first, without recursion: chains of derivations can be long.
    fn prepare(&mut self, derivation: &Derivation) -> Result<(), PathsError> {
        let mut open: BTreeSet<StorePath> = BTreeSet::new();
        let mut stack: Vec<StorePath> = derivation.input_derivations.keys().cloned().collect();
        while let Some(path) = stack.last().cloned() {
            if self.known.contains_key(&path) {
                stack.pop();
                continue;
            }
            let input = self.set.get(&path).ok_or_else(|| PathsError::MissingDerivation { path: path.clone() })?;
            match input.kind() {
                // Their inputs do not matter: the declared hash stands for them, or nothing does.
                Kind::Fixed | Kind::Impure => {
                    let hash = Hash::of(HashAlgorithm::Sha256, b"impure");
                    self.known.insert(path, ModuloHash { hash, is_deferred: true });
                    continue;
                }
                Kind::InputAddressed | Kind::Floating | Kind::Deferred => {}
            }
            let missing: Vec<StorePath> =
                input.input_derivations.keys().filter(|input| !self.known.contains_key(*input)).cloned().collect();
            if missing.is_empty() {
                let hash = self.hash(input, false)?;
                self.known.insert(path.clone(), hash);
                open.remove(&path);
                stack.pop();
            } else if open.insert(path.clone()) {
                stack.extend(missing);
            } else {
                return Err(PathsError::Cycle { path });
            }
        }
        Ok(())
    }

    /// The hash of a derivation whose inputs are prepared.
    fn hash(&self, derivation: &Derivation, mask: bool) -> Result<ModuloHash, PathsError> {
        let mut is_deferred = match derivation.kind() {
            Kind::Floating | Kind::Impure => true,
            Kind::InputAddressed | Kind::Fixed | Kind::Deferred => false,
        };
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, used) in &derivation.input_derivations {
            let missing = || PathsError::MissingDerivation { path: path.clone() };
            let input = self.set.get(path).ok_or_else(missing)?;
            for output in used {
                if !input.outputs.contains_key(output) {
                    return Err(PathsError::MissingOutput { path: path.clone(), output: output.clone() });
                }
            }
            if let Some(content) = input.fixed_content() {
                for output in used {
                    let output_path = content.store_path(&input.output_path_name(output))?;
                    let text = content.inner_text(&output_path.to_string());
                    let key = Hash::of(HashAlgorithm::Sha256, text.as_bytes()).to_base16();
                    keys.entry(key).or_default().insert("out".to_owned());
                }
            } else {
                let known = self.known.get(path).ok_or_else(missing)?;
                is_deferred |= known.is_deferred;
                keys.entry(known.hash.to_base16()).or_default().extend(used.iter().cloned());
            }
        }
        let hash = Hash::of(HashAlgorithm::Sha256, &aterm::write_with(derivation, &keys, mask));
        Ok(ModuloHash { hash, is_deferred })
    }
}

/// [`Modulo::check`] for one derivation.
pub fn check(derivation: &Derivation, set: &DerivationSet) -> Result<(), PathsError> {
    Modulo::new(set).check(derivation)
}

/// Fills in what `nix derivation add` fills in: paths of outputs that were given as deferred although their inputs have
/// paths, and variables of outputs that are absent or empty.
pub fn fill(mut parts: DerivationParts, set: &DerivationSet) -> Result<Derivation, FillError> {
    let is_deferred = parts.outputs.values().all(|output| *output == Output::Deferred);
    if is_deferred {
        // The masked text has every output's variable present and empty.
        for name in parts.outputs.keys() {
            parts.environment.insert(name.as_str().into(), ByteString::default());
        }
        let draft = Derivation::new(parts.clone())?;
        if let Some(paths) = Modulo::new(set).output_paths(&draft)? {
            parts.outputs = paths.into_iter().map(|(name, path)| (name, Output::InputAddressed { path })).collect();
        }
    }
    let derivation = Derivation::new(parts.clone())?;
    for (name, path) in derivation.known_output_paths() {
        if let Some(path) = path {
            let variable = parts.environment.entry(name.into()).or_default();
            if variable.is_empty() {
                *variable = path.to_string().into();
            }
        }
    }
    Ok(Derivation::new(parts)?)
}

/// Why [`fill`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The parts do not fit together.
    #[error(transparent)]
    Derivation(#[from] super::DerivationError),
    /// A path could not be computed.
    #[error(transparent)]
    Paths(#[from] PathsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMPLE: &str = r#"Derive([("out","/nix/store/01ph28nczfrrl2zmqg1wc2fqv237wxa6-simple","","")],[],["/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt"],"x86_64-linux","/bin/sh",["-c","echo hi > $out"],[("builder","/bin/sh"),("name","simple"),("out","/nix/store/01ph28nczfrrl2zmqg1wc2fqv237wxa6-simple"),("src","/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt"),("system","x86_64-linux")])"#;

    /// Vector 3 of the reference.
    #[test]
    fn paths_of_a_simple_derivation_agree_with_nix() {
        let derivation = aterm::parse("simple", SIMPLE.as_bytes()).unwrap();
        assert_eq!(aterm::write(&derivation), SIMPLE.as_bytes());
        assert_eq!(derivation_path(&derivation).unwrap().base_name(), "cmjw9zscdp39w299jrjwiik9c1xr39p2-simple.drv");
        check(&derivation, &DerivationSet::new()).unwrap();
        let unmasked = Modulo::new(&DerivationSet::new()).hash(&derivation, false).unwrap();
        assert_eq!(unmasked.hash.to_base16(), "c025677b8e549318346a8f2439b94be6ac0cc1a9d52722de5c96ef157011b439");
    }

    #[test]
    fn wrong_paths_are_named_with_the_right_one() {
        let wrong = SIMPLE.replace("01ph28ncz", "11ph28ncz");
        let derivation = aterm::parse("simple", wrong.as_bytes()).unwrap();
        let message = check(&derivation, &DerivationSet::new()).unwrap_err().to_string();
        assert_eq!(
            message,
            "derivation has incorrect output '/nix/store/11ph28nczfrrl2zmqg1wc2fqv237wxa6-simple', should be '/nix/store/01ph28nczfrrl2zmqg1wc2fqv237wxa6-simple'"
        );
        let variable = SIMPLE
            .replace(r#"("out","/nix/store/01ph28nczfrrl2zmqg1wc2fqv237wxa6-simple"),"#, r#"("out","/etc/passwd"),"#);
        let derivation = aterm::parse("simple", variable.as_bytes()).unwrap();
        let message = check(&derivation, &DerivationSet::new()).unwrap_err().to_string();
        assert!(message.contains("is actually '/etc/passwd'"), "{message}");
    }

    #[test]
    fn a_missing_variable_or_output_is_named() {
        let zero = "0".repeat(64);
        let fixed = format!(r#"Derive([("out","","sha256","{zero}")],[],[],"x86_64-linux","/bin/sh",[],[])"#);
        let fixed = aterm::parse("fixed", fixed.as_bytes()).unwrap();
        let error = check(&fixed, &DerivationSet::new()).unwrap_err();
        assert!(matches!(&error, PathsError::MissingVariable { name, .. } if name == "out"), "{error}");

        let derivation = aterm::parse("simple", SIMPLE.as_bytes()).unwrap();
        let path = derivation_path(&derivation).unwrap();
        let mut parts = derivation.clone().into_parts();
        parts.input_derivations = [(path.clone(), ["dev".to_owned()].into())].into();
        let error = check(&Derivation::new(parts).unwrap(), &[(path.clone(), derivation)].into()).unwrap_err();
        assert_eq!(error, PathsError::MissingOutput { path, output: "dev".to_owned() });
    }

    #[test]
    fn filling_in_gives_what_was_left_out() {
        let full = aterm::parse("simple", SIMPLE.as_bytes()).unwrap();
        let mut parts = full.clone().into_parts();
        parts.outputs = [("out".to_owned(), Output::Deferred)].into();
        parts.environment.remove(&ByteString::from("out"));
        assert_eq!(fill(parts, &DerivationSet::new()).unwrap(), full);
    }
}
