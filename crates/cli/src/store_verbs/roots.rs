//! `fodder store roots`

use super::{
    arguments::{RootsArguments, RootsVerb},
    names::store_path,
    open_to_change, open_to_read,
};
use crate::{
    diagnose::Failure,
    words::{harmless, print_line},
};
use fodder_store::{Root, Store};
use std::path::Path;

pub(crate) fn roots(store: &Path, arguments: &RootsArguments) -> Result<u8, Failure> {
    match &arguments.verb {
        None => print_roots(&open_to_read(store)?),
        Some(RootsVerb::Add { path, link }) => {
            let store = open_to_change(store)?;
            let path = store_path(&store, path)?;
            store.make_out_link(link, &path)?;
            print_line(&harmless(link.as_os_str().as_encoded_bytes()));
            Ok(0)
        }
        Some(RootsVerb::Remove { link }) => {
            let store = open_to_change(store)?;
            let is_link = link.symlink_metadata().is_ok_and(|status| status.is_symlink());
            // A link that leads elsewhere is none of ours.
            if !is_link || store_path(&store, link).is_err() {
                let text = format!("error: '{}' is no link into the store", link.display());
                return Err(Failure::new(text, 1).with_hint("`fodder store roots` prints the links that there are"));
            }
            std::fs::remove_file(link)
                .map_err(|error| Failure::new(format!("error: cannot remove '{}': {error}", link.display()), 1))?;
            store.prune_out_links()?;
            Ok(0)
        }
    }
}

pub(crate) fn print_roots(store: &Store) -> Result<u8, Failure> {
    for Root { holder, path } in store.find_roots()? {
        print_line(&format!("{} -> {path}", harmless(holder.to_string().as_bytes())));
    }
    Ok(0)
}
