//! The format of `nix-store --export`: for each path the number 1, its NAR, a magic number, the path, its references, its
//! deriver, and 0 where signatures used to be; then 0. Numbers are `u64`, texts as in a NAR.

use crate::{add::dump, error::StoreError, order::references_first, store::Store};
use fodder_model::{
    hash::{HashAlgorithm, Hasher},
    store_path::StorePath,
};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// Between a NAR and what is said about it: "NIXE".
pub(crate) const MAGIC: u64 = 0x4558_494e;

/// Hashes what passes.
struct Tee<'a, W> {
    output: &'a mut W,
    hasher: Hasher,
}

impl<W: Write> Write for Tee<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl Store {
    /// Writes valid paths, references first. Stops without the end mark at an object that is not what was registered, so
    /// that damage does not spread.
    pub fn export(&self, paths: &[StorePath], output: &mut impl Write) -> Result<(), StoreError> {
        if self.is_writable() {
            self.add_temporary_roots(paths)?;
        }
        let mut infos = BTreeMap::new();
        for path in paths {
            let info = self.query(path)?.ok_or_else(|| StoreError::NotValid { path: path.clone() })?;
            infos.insert(path.clone(), info);
        }
        let failed = |source| StoreError::Export { source };
        for path in references_first(&infos) {
            let Some(info) = infos.get(&path) else { continue };
            number(output, 1).map_err(failed)?;
            let tee = Tee { output: &mut *output, hasher: Hasher::new(HashAlgorithm::Sha256) };
            let (tee, _) = dump(&self.real_path(&path), tee)?;
            let found = tee.hasher.finish();
            if found != info.nar_hash && !info.nar_hash.is_zero() {
                let (expected, found) = (info.nar_hash.to_nix32(), found.to_nix32());
                return Err(StoreError::HashChanged { path, expected, found });
            }
            let mut write = || {
                number(output, MAGIC)?;
                text(output, &path.to_string())?;
                number(output, info.references.len() as u64)?;
                for reference in &info.references {
                    text(output, &reference.to_string())?;
                }
                text(output, &info.deriver.as_ref().map(StorePath::to_string).unwrap_or_default())?;
                number(output, 0)
            };
            write().map_err(failed)?;
        }
        number(output, 0).and_then(|()| output.flush()).map_err(failed)
    }
}

fn number(output: &mut impl Write, number: u64) -> io::Result<()> {
    output.write_all(&number.to_le_bytes())
}

fn text(output: &mut impl Write, text: &str) -> io::Result<()> {
    number(output, text.len() as u64)?;
    output.write_all(text.as_bytes())?;
    output.write_all(&[0; 7][..text.len().next_multiple_of(8) - text.len()])
}
