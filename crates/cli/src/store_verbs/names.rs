//! What somebody typed, and the store path that it stands for.

use crate::diagnose::Failure;
use fodder_model::store_path::{STORE_DIRECTORY, StorePath};
use fodder_store::Store;
use std::{
    collections::VecDeque,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

/// As many links as the kernel follows.
const LINK_LIMIT: u32 = 40;

/// Finds the store path: given in full, as a base name, as a file in the store's directory on disk, or as a link to any
/// of these. What is below an object stands for the object. Whether it is valid is another question.
pub(crate) fn store_path(store: &Store, name: &Path) -> Result<StorePath, Failure> {
    if let Some(path) = name.to_str().and_then(|text| StorePath::from_base_name(text).ok()) {
        return Ok(path);
    }
    let shown = name.display();
    let absolute = std::path::absolute(name)
        .map_err(|error| Failure::new(format!("error: cannot resolve '{shown}': {error}"), 1))?;
    let mut pending: VecDeque<OsString> = parts(&absolute).collect();
    let mut place = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = pending.pop_front() {
        if part == ".." {
            place.pop();
            continue;
        }
        if place == Path::new(STORE_DIRECTORY) || place == store.objects_path() {
            return part.to_str().map(StorePath::from_base_name).and_then(Result::ok).ok_or_else(|| {
                Failure::new(format!("error: '{}' is not a store path", place.join(&part).display()), 1)
            });
        }
        let next = place.join(&part);
        match std::fs::read_link(&next) {
            Ok(_) if links == LINK_LIMIT => {
                return Err(Failure::new(format!("error: '{shown}' leads through too many links"), 1));
            }
            Ok(target) => {
                links += 1;
                if target.is_absolute() {
                    place = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(part);
                }
            }
            // No link, or nothing at all: what follows may still be spelled like a store path.
            Err(_) => place = next,
        }
    }
    if let Err(error) = absolute.symlink_metadata() {
        return Err(Failure::new(format!("error: cannot find '{shown}': {error}"), 1));
    }
    let text = format!("error: path '{shown}' is not in the store '{}'", store.objects_path().display());
    Err(Failure::new(text, 1).with_hint("is it in another? name that with --store DIR"))
}

/// The same for several, in their order.
pub(crate) fn store_paths(store: &Store, names: &[PathBuf]) -> Result<Vec<StorePath>, Failure> {
    names.iter().map(|name| store_path(store, name)).collect()
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
}
