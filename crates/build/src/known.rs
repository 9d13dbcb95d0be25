//! What outputs are known to be: declared by their derivation, remembered by the database, or built in this run.

use crate::{error::BuildError, load::Loaded, outcome::BuildOutcome, prepare::Refused, sources::add_derivation};
use fodder_model::{
    derivation::{
        Derivation, Kind,
        paths::{DerivationSet, Modulo, derivation_path},
        resolve::{self, BuiltOutputs, ResolveError},
    },
    hash::Hash,
    options,
    store_path::StorePath,
};
use fodder_store::{PathInfo, Realisation, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

/// Knowledge of outputs, growing while a closure is built. Shared by the workers.
pub(crate) struct Known<'a> {
    store: &'a Store,
    hashes: Mutex<Modulo<'a>>,
    built: Mutex<BuiltOutputs>,
}

impl<'a> Known<'a> {
    pub(crate) fn new(set: &'a DerivationSet, store: &'a Store) -> Self {
        Known { store, hashes: Mutex::new(Modulo::new(set)), built: Mutex::default() }
    }

    /// The store that is asked.
    pub(crate) fn store(&self) -> &'a Store {
        self.store
    }

    /// The paths of a derivation's outputs by output name, as far as they are known.
    pub(crate) fn output_paths(
        &self,
        path: &StorePath,
        derivation: &Derivation,
    ) -> Result<BTreeMap<String, Option<StorePath>>, BuildError> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned().unwrap_or_default();
        let mut paths = BTreeMap::new();
        for (name, declared) in derivation.known_output_paths() {
            let found = match declared.or_else(|| built.get(name).cloned()) {
                Some(found) => Some(found),
                None => match self.realisation_hash(derivation) {
                    Some(hash) => self.store.realisation(&hash, name)?,
                    None => None,
                },
            };
            paths.insert(name.to_owned(), found);
        }
        Ok(paths)
    }

    /// What the database says of all outputs, or of the named ones; `None` when one of them is not valid.
    pub(crate) fn valid_outputs(
        &self,
        path: &StorePath,
        derivation: &Derivation,
        only: Option<&BTreeSet<String>>,
    ) -> Result<Option<BTreeMap<String, PathInfo>>, BuildError> {
        let mut wanted = self.output_paths(path, derivation)?;
        wanted.retain(|name, _| only.is_none_or(|only| only.contains(name)));
        if self.store.is_writable() {
            // Before the question: a collector would delete them after the answer.
            self.store.add_temporary_roots(wanted.values().flatten())?;
        }
        let mut valid = BTreeMap::new();
        for (name, path) in wanted {
            let Some(path) = path else { return Ok(None) };
            // What is asked for as an input may be in a store below ours; what is to be built is to be in ours.
            let info = if only.is_some() { self.store.query(&path)? } else { self.store.query_own(&path)? };
            let Some(info) = info else { return Ok(None) };
            valid.insert(name, info);
        }
        Ok(Some(valid))
    }

    /// The derivation that is built in the place of this one: itself, unless it waits for paths that are known only now.
    pub(crate) fn resolve(&self, loaded: &Loaded) -> Result<Result<Option<Loaded>, Refused>, BuildError> {
        if !resolve::needs_resolving(&loaded.derivation, &loaded.set) {
            return Ok(Ok(None));
        }
        let mut built = BuiltOutputs::new();
        for path in loaded.derivation.input_derivations.keys() {
            let Some(input) = loaded.set.get(path) else {
                return Ok(Err(Refused::MissingDerivation(path.clone())));
            };
            let known = self.output_paths(path, input)?;
            built.insert(path.clone(), known.into_iter().filter_map(|(name, path)| Some((name, path?))).collect());
        }
        let derivation = match resolve::resolve(&loaded.derivation, &built) {
            Ok(derivation) => derivation,
            Err(error @ ResolveError::NotBuilt { .. }) => return Ok(Err(Refused::NotBuilt(error))),
            Err(error @ (ResolveError::Derivation(_) | ResolveError::Structured(_) | ResolveError::Paths(_))) => {
                return Ok(Err(Refused::Input(error.to_string())));
            }
        };
        let path = match derivation_path(&derivation) {
            Ok(path) => path,
            Err(error) => return Ok(Err(Refused::Input(error.to_string()))),
        };
        let options = match options::read(&derivation) {
            Ok(options) => options,
            Err(error) => return Ok(Err(Refused::Input(error.to_string()))),
        };
        let mut resolved = Loaded { derivation, path, options, ..loaded.clone() };
        resolved.notes.push(format!("resolved derivation: '{}' -> '{}'", loaded.path, resolved.path));
        Ok(Ok(Some(resolved)))
    }

    /// Keeps what a derivation was built as: for its dependents in this run, and in the database where it does not follow from
    /// the derivation.
    pub(crate) fn remember(&self, loaded: &Loaded, outcome: &BuildOutcome, time: i64) -> Result<(), BuildError> {
        let outputs: BTreeMap<String, StorePath> =
            outcome.outputs.iter().map(|(name, output)| (name.clone(), output.path.clone())).collect();
        if loaded.derivation.known_output_paths().values().any(Option::is_none) {
            add_derivation(loaded, self.store, time)?;
            if let Some(hash) = self.realisation_hash(&loaded.derivation) {
                let realisations: Vec<Realisation> = outputs
                    .iter()
                    .map(|(name, path)| Realisation { derivation_hash: hash, output: name.clone(), path: path.clone() })
                    .collect();
                self.store.register_realisations(&realisations)?;
            }
        }
        self.built.lock().unwrap_or_else(PoisonError::into_inner).insert(loaded.path.clone(), outputs);
        Ok(())
    }

    /// What stands for a derivation in the database; `None` too when an input derivation is nowhere, which is said elsewhere.
    fn realisation_hash(&self, derivation: &Derivation) -> Option<Hash> {
        match derivation.kind() {
            Kind::InputAddressed | Kind::Fixed | Kind::Impure => None,
            Kind::Floating | Kind::Deferred => {
                let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
                hashes.realisation_hash(derivation).ok().flatten()
            }
        }
    }
}

/// The derivation that a build would build now, as far as that is known: for `explain`.
pub fn resolve_if_possible(loaded: Loaded, store: Option<&Store>) -> Result<Loaded, BuildError> {
    let Some(store) = store else { return Ok(loaded) };
    let set = std::sync::Arc::clone(&loaded.set);
    let resolved = Known::new(&set, store).resolve(&loaded)?;
    Ok(resolved.ok().flatten().unwrap_or(loaded))
}
