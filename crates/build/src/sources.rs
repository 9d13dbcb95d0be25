//! What must be in the store before a build: a short form's sources and setup script, and derivations.

use crate::{error::BuildError, load::Loaded};
use fodder_model::{
    derivation::{Derivation, aterm},
    short_form,
    store_path::StorePath,
};
use fodder_store::Store;
use std::collections::BTreeSet;

/// Copies the sources of a short form and its setup script to the store, as far as they are not there.
pub(crate) fn add_sources(loaded: &Loaded, store: &Store, time: i64) -> Result<(), BuildError> {
    for source in &loaded.sources {
        store.add_temporary_roots([&source.path])?;
        if !store.is_valid(&source.path)? {
            let added = store.add_source(&source.name, &source.file, time)?;
            if added.path != source.path {
                let changed = std::io::Error::other("it changed while it was read");
                return Err(BuildError::Read { path: source.file.clone(), source: changed });
            }
        }
    }
    add_source_derivations(loaded, store, time)?;
    let setup = short_form::setup_script_path();
    if loaded.derivation.input_sources.contains(&setup) {
        store.add_temporary_roots([&setup])?;
        if !store.is_valid(&setup)? {
            let directory =
                tempfile::tempdir().map_err(|source| BuildError::Write { path: std::env::temp_dir(), source })?;
            let file = directory.path().join(short_form::SETUP_SCRIPT_NAME);
            std::fs::write(&file, short_form::setup_script())
                .map_err(|source| BuildError::Write { path: file.clone(), source })?;
            store.add_source(short_form::SETUP_SCRIPT_NAME, &file, time)?;
        }
    }
    Ok(())
}

/// Derivations can be sources themselves (`drv.drvPath` in Nix); those that came with the file are written to the store, after
/// the ones that they refer to.
fn add_source_derivations(loaded: &Loaded, store: &Store, time: i64) -> Result<(), BuildError> {
    let mut open: Vec<(StorePath, bool)> =
        loaded.derivation.input_sources.iter().map(|path| (path.clone(), false)).collect();
    let mut seen = BTreeSet::new();
    while let Some((path, is_ready)) = open.pop() {
        let Some(derivation) = loaded.set.get(&path) else { continue };
        if is_ready {
            add_derivation_file(&path, derivation, store, time)?;
        } else if seen.insert(path.clone()) && !store.is_valid(&path)? {
            open.push((path, true));
            let references = derivation.input_sources.iter().chain(derivation.input_derivations.keys());
            open.extend(references.map(|path| (path.clone(), false)));
        }
    }
    Ok(())
}

/// The derivation becomes valid if all that it refers to is; otherwise its outputs name it as their deriver all the same, as Nix
/// allows.
pub(crate) fn add_derivation(loaded: &Loaded, store: &Store, time: i64) -> Result<(), BuildError> {
    add_derivation_file(&loaded.path, &loaded.derivation, store, time)
}

fn add_derivation_file(path: &StorePath, derivation: &Derivation, store: &Store, time: i64) -> Result<(), BuildError> {
    let references: BTreeSet<StorePath> =
        derivation.input_sources.iter().chain(derivation.input_derivations.keys()).cloned().collect();
    for reference in &references {
        // Nor is anything copied from a store below ours for its sake.
        if !store.is_own(reference)? {
            return Ok(());
        }
    }
    let text = aterm::write(derivation);
    let outputs = derivation
        .known_output_paths()
        .into_iter()
        .filter_map(|(name, path)| path.map(|path| (name.to_owned(), path)))
        .collect();
    store.add_derivation(path.name(), &text, &references, &outputs, time)?;
    Ok(())
}
