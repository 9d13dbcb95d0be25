//! `fodder store …`: looking into a store and looking after it. Names and words are those of `nix-store` and `nix store`.

mod add;
pub(crate) mod arguments;
mod copy;
mod export;
mod gc;
mod generate_key;
mod names;
mod optimise;
mod path_info;
mod query;
mod roots;
mod verify;

pub(crate) use names::store_path;

use crate::{build::store_root, diagnose::Failure};
use arguments::{StoreArguments, StoreVerb};
use fodder_store::Store;
use std::path::Path;

pub(crate) fn store(arguments: &StoreArguments) -> Result<u8, Failure> {
    let StoreArguments { store, verb } = arguments;
    let root = store_root(store.as_deref())?;
    match verb {
        StoreVerb::PathInfo(arguments) => path_info::path_info(&open_to_read(&root)?, arguments),
        StoreVerb::Query(arguments) => query::query(&open_to_read(&root)?, arguments),
        StoreVerb::Add(arguments) => add::add(&open_or_create(&root)?, arguments),
        StoreVerb::Export(arguments) => export::export(&open_to_change(&root)?, arguments),
        StoreVerb::Import => export::import(&open_or_create(&root)?),
        StoreVerb::Verify(arguments) => verify::verify(&open_to_change(&root)?, arguments),
        StoreVerb::Roots(arguments) => roots::roots(&root, arguments),
        StoreVerb::Gc(arguments) => gc::gc(&open_to_change(&root)?, arguments),
        StoreVerb::Copy(arguments) => copy::copy(&root, arguments),
        StoreVerb::GenerateKey(arguments) => generate_key::generate_key(arguments),
        StoreVerb::Optimise => optimise::optimise(&open_to_change(&root)?),
    }
}

/// A store that is only looked at is not created.
fn open_to_read(root: &Path) -> Result<Store, Failure> {
    check_exists(root)?;
    Ok(Store::open_existing_read_only(root)?)
}

/// Nor is one that is looked after.
fn open_to_change(root: &Path) -> Result<Store, Failure> {
    check_exists(root)?;
    open_or_create(root)
}

/// Every run that may change a store puts away what killed ones have left there.
pub(crate) fn open_or_create(root: &Path) -> Result<Store, Failure> {
    let store = Store::open(root)?;
    store.remove_leftovers()?;
    Ok(store)
}

fn check_exists(root: &Path) -> Result<(), Failure> {
    if !root.join("nix/var/nix/db/schema").exists() {
        return Err(Failure::new(format!("error: there is no store in '{}'", root.display()), 1)
            .with_hint("name another with --store DIR; the first build, or `fodder store add`, makes one"));
    }
    Ok(())
}

/// A size as Nix says what was freed.
fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / 1_048_576.0)
}
