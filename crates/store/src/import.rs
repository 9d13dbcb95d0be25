//! Reads what `export`, or `nix-store --export`, wrote.
//!
//! The stream comes from anywhere: each path is unpacked in scratch and becomes valid, with its references, before the next
//! one is looked at. The stream has no hashes and no signatures; whoever may write to a store may import into it.

use crate::{
    error::{ImportProblem, StoreError},
    export::MAGIC,
    path_info::PathInfo,
    restore::SIZE_LIMIT,
    store::Store,
    unpacked::Unpacked,
};
use fodder_model::{
    hash::{Hash, HashAlgorithm, Hasher},
    store_path::StorePath,
};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read},
};

/// Longest text that can be a store path: the store directory, a hash part and the longest name.
const PATH_LIMIT: u64 = 255;

/// Longest signature of old versions of Nix; it is read and ignored.
const SIGNATURE_LIMIT: u64 = 1 << 20;

/// Most references of one path. Whole systems have ten thousand.
const REFERENCE_LIMIT: u64 = 1 << 20;

/// A stream, and how many paths were read from it.
struct Stream<R> {
    input: R,
    count: usize,
}

impl Store {
    /// Adds all paths of a stream and returns them, in its order. Those before an error stay.
    pub fn import(&self, input: impl Read, registration_time: i64) -> Result<Vec<StorePath>, StoreError> {
        let mut stream = Stream { input, count: 0 };
        let mut imported = Vec::new();
        loop {
            match stream.number()? {
                0 => return stream.nothing_follows().map(|()| imported),
                1 => {}
                _ => return Err(stream.wrong(ImportProblem::NotAnExport)),
            }
            // First the object, then what it is: it waits in scratch.
            let unpacked = Unpacked::read(self, &mut stream.input, SIZE_LIMIT)?;
            if stream.number()? != MAGIC {
                return Err(stream.wrong(ImportProblem::WrongFormat));
            }
            let path = stream.path()?;
            let mut references = BTreeSet::new();
            let count = stream.number()?;
            if count > REFERENCE_LIMIT {
                return Err(stream.wrong(ImportProblem::WrongFormat));
            }
            for _ in 0..count {
                references.insert(stream.path()?);
            }
            let deriver = stream.text(PATH_LIMIT)?;
            let deriver = if deriver.is_empty() { None } else { Some(stream.as_path(deriver)?) };
            match stream.number()? {
                0 => {}
                1 => drop(stream.text(SIGNATURE_LIMIT)?),
                _ => return Err(stream.wrong(ImportProblem::WrongFormat)),
            }
            let info = PathInfo {
                content_address: content_address(&path, &references, &unpacked),
                path: path.clone(),
                nar_hash: unpacked.nar_hash(),
                nar_size: unpacked.nar_size(),
                references,
                deriver,
                registration_time,
                ultimate: false,
                signatures: Vec::new(),
            };
            self.add_unpacked(unpacked, &info)?;
            imported.push(path);
            stream.count += 1;
        }
    }
}

/// The stream does not say whether a path was computed from its contents, but for sources and texts that can be seen.
fn content_address(path: &StorePath, references: &BTreeSet<StorePath>, unpacked: &Unpacked) -> Option<String> {
    let refers_to_itself = references.contains(path);
    let nar_hash = unpacked.nar_hash();
    if refers_to_itself {
        return None;
    }
    if StorePath::of_source(path.name(), &nar_hash, references, false).is_ok_and(|computed| computed == *path) {
        return Some(format!("fixed:r:sha256:{}", nar_hash.to_nix32()));
    }
    let object = unpacked.path();
    if !object.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut hasher = Hasher::new(HashAlgorithm::Sha256);
    io::copy(&mut std::fs::File::open(object).ok()?, &mut hasher).ok()?;
    let hash: Hash = hasher.finish();
    let text = StorePath::of_text_hash(path.name(), &hash, references);
    text.is_ok_and(|computed| computed == *path).then(|| format!("text:sha256:{}", hash.to_nix32()))
}

impl<R: Read> Stream<R> {
    fn wrong(&self, problem: ImportProblem) -> StoreError {
        StoreError::Import { count: self.count, problem, source: None }
    }

    fn failed(&self, error: io::Error) -> StoreError {
        let source = (error.kind() != ErrorKind::UnexpectedEof).then_some(error);
        StoreError::Import { count: self.count, problem: ImportProblem::Ended, source }
    }

    /// A second export behind the first would not be imported, and nobody would say so.
    fn nothing_follows(&mut self) -> Result<(), StoreError> {
        match self.input.read(&mut [0]).map_err(|error| self.failed(error))? {
            0 => Ok(()),
            _ => Err(self.wrong(ImportProblem::Trailing)),
        }
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes).map_err(|error| self.failed(error))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&mut self, limit: u64) -> Result<Vec<u8>, StoreError> {
        let length = self.number()?;
        if length > limit {
            return Err(self.wrong(ImportProblem::WrongFormat));
        }
        let mut text = vec![0; usize::try_from(length.next_multiple_of(8)).unwrap_or(0)];
        self.input.read_exact(&mut text).map_err(|error| self.failed(error))?;
        let padding = text.split_off(usize::try_from(length).unwrap_or(0));
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.wrong(ImportProblem::WrongFormat));
        }
        Ok(text)
    }

    fn path(&mut self) -> Result<StorePath, StoreError> {
        let text = self.text(PATH_LIMIT)?;
        self.as_path(text)
    }

    fn as_path(&self, text: Vec<u8>) -> Result<StorePath, StoreError> {
        let path = std::str::from_utf8(&text).ok().and_then(|text| StorePath::from_full_path(text).ok());
        path.ok_or_else(|| self.wrong(ImportProblem::NotAPath { found: text.into() }))
    }
}
