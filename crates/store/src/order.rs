//! Orders paths so that each comes after what it refers to.

use crate::path_info::PathInfo;
use fodder_model::store_path::StorePath;
use std::collections::{BTreeMap, BTreeSet};

/// The paths, references first: the order in which they may be registered, exported and printed. References to paths
/// that are not among them are ignored, and paths that refer to each other come in some order.
pub fn references_first(paths: &BTreeMap<StorePath, PathInfo>) -> Vec<StorePath> {
    let references = |path: &StorePath| {
        let mut found: Vec<&StorePath> =
            paths.get(path).map(|info| info.references.iter().collect()).unwrap_or_default();
        found.reverse(); // taken from the end
        found
    };
    let mut order = Vec::with_capacity(paths.len());
    let mut seen: BTreeSet<&StorePath> = BTreeSet::new();
    // Without recursion: chains of references can be longer than a stack.
    let mut open: Vec<(&StorePath, Vec<&StorePath>)> = Vec::new();
    for start in paths.keys() {
        if seen.insert(start) {
            open.push((start, references(start)));
        }
        while let Some((path, pending)) = open.last_mut() {
            match pending.pop() {
                Some(next) if paths.contains_key(next) && seen.insert(next) => {
                    let pending = references(next);
                    open.push((next, pending));
                }
                Some(_) => {}
                None => {
                    order.push((*path).clone());
                    open.pop();
                }
            }
        }
    }
    order
}
