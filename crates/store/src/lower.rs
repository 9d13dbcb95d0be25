//! A store below ours: somebody else's, read and never written, whose valid paths count as valid inputs.
//!
//! Questions are asked of our own store first. What becomes valid in ours may only refer to what is valid in ours, or real
//! Nix, which has never heard of the other, would find it broken: such references are copied first ([`Store::adopt`]).

use crate::{error::StoreError, order::references_first, path_info::PathInfo, store::Store, unpacked::Unpacked};
use fodder_model::store_path::StorePath;
use std::collections::BTreeMap;

impl Store {
    /// Lets the valid paths of `lower`, opened for reading, count as valid here, with the same logical names. Collecting,
    /// verifying and listing remain about this store alone.
    pub fn with_lower(mut self, lower: Store) -> Store {
        // The same store twice is one store.
        self.lower = (lower.objects().path() != self.objects().path()).then(|| Box::new(lower));
        self
    }

    pub(crate) fn lower(&self) -> Option<&Store> {
        self.lower.as_deref()
    }

    /// What is known about a path that is valid in the store below.
    pub(crate) fn query_lower(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        match self.lower() {
            // Valid for it, and gone all the same: nothing keeps its collector from deleting what we found.
            Some(lower) if lower.objects().status(path.base_name())?.is_some() => lower.query_own(path),
            Some(_) | None => Ok(None),
        }
    }

    /// Copies a path and all that it refers to from the store below, as far as it is valid there and not here, and compares
    /// each with its hash. What is valid in neither is left to the caller.
    pub(crate) fn adopt(&self, path: &StorePath) -> Result<(), StoreError> {
        let Some(lower) = self.lower() else { return Ok(()) };
        if self.is_own(path)? || !lower.is_own(path)? {
            return Ok(());
        }
        let mut missing: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
        let mut pending = vec![path.clone()];
        while let Some(path) = pending.pop() {
            if missing.contains_key(&path) || self.is_own(&path)? {
                continue;
            }
            let Some(info) = lower.query_own(&path)? else { return Err(StoreError::NotValid { path }) };
            pending.extend(info.references.iter().cloned());
            missing.insert(path, info);
        }
        for path in references_first(&missing) {
            let Some(info) = missing.remove(&path) else { continue };
            let unpacked = Unpacked::copy(self, &lower.objects().child(path.base_name()))?;
            // Not built here: whoever trusts the other store decides whether this one is trusted.
            self.add_unpacked(unpacked, &PathInfo { ultimate: false, ..info })?;
        }
        Ok(())
    }
}
