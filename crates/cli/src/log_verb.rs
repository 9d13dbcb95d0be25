//! `fodder log`: what the last build of a derivation wrote, as it was kept into a pipe or a file, and harmless on a terminal.

use crate::{
    arguments::LogArguments,
    build::{load, open_to_look, store_root},
    diagnose::Failure,
    store_verbs::store_path,
    words::{harmless, print_log},
};
use fodder_build::BuildError;
use fodder_model::store_path::StorePath;
use fodder_store::Store;
use std::fs::File;

pub(crate) fn log(arguments: &LogArguments) -> Result<u8, Failure> {
    let LogArguments { input } = arguments;
    let root = store_root(input.store.as_deref())?;
    let store = open_to_look(&root, input)?;
    let derivation = derivation(arguments, store.as_ref())?;
    let file = store.as_ref().map(|store| store.log_path(&derivation));
    let Some((file, opened)) = file.and_then(|file| File::open(&file).ok().map(|opened| (file, opened))) else {
        return Err(Failure::new(format!("error: there is no log of '{derivation}' in this store"), 1)
            .with_hint("it is there once it was built here; --store DIR names another store"));
    };
    print_log(opened).map_err(|source| Failure::from(BuildError::Read { path: file, source }))?;
    Ok(0)
}

/// What was named: a store path, whose derivation is asked for if it is an output, or a file with a derivation.
fn derivation(arguments: &LogArguments, store: Option<&Store>) -> Result<StorePath, Failure> {
    let named = store.and_then(|store| store_path(store, &arguments.input.file).ok());
    let (Some(store), Some(path)) = (store, named) else {
        return Ok(load(&arguments.input, store)?.path);
    };
    if path.name().ends_with(".drv") {
        return Ok(path);
    }
    store.query(&path)?.and_then(|info| info.deriver).ok_or_else(|| {
        let shown = harmless(path.to_string());
        Failure::new(format!("error: nobody knows what '{shown}' was built by"), 1).with_hint("name the derivation")
    })
}
