//! `fodder store …`: looking into a store and looking after it. Names and words are those of `nix-store` and `nix store`.

pub(crate) mod arguments;
mod names;
mod path_info;
mod query;

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
    }
}

/// A store that is only looked at is not created.
fn open_to_read(root: &Path) -> Result<Store, Failure> {
    if !root.join("nix/var/nix/db/schema").exists() {
        return Err(Failure::new(format!("error: there is no store in '{}'", root.display()), 1)
            .with_hint("name another with --store DIR; the first build, or `fodder store add`, makes one"));
    }
    Ok(Store::open_existing_read_only(root)?)
}
