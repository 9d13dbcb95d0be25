//! Adds sources and texts: objects whose path follows from what is in them.

use crate::{
    directory::file_type,
    error::{At, StoreError},
    path_info::{PathInfo, Registration},
    scratch::Scratch,
    store::Store,
    tree::{seal, walk},
};
use fodder_model::{
    content_address::{ContentAddress, ContentMethod},
    hash::{Hash, HashAlgorithm, Hasher},
    nar::Writer,
    store_path::{StorePath, StorePathError, check_name},
};
use rustix::fs::OFlags;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    path::Path,
};

/// Name of the object while it is in scratch.
const OBJECT: &str = "object";

/// Serialises a file tree as a NAR; returns the output and the number of bytes written.
pub fn dump<W: Write>(source: &Path, output: W) -> Result<(W, u64), StoreError> {
    walk(source, None, output)
}

/// The store path that [`Store::add_source`] would give a file tree, its NAR hash and the NAR's size in bytes. Needs no
/// store, because the path depends on nothing else.
pub fn source_path(name: &str, source: &Path) -> Result<(StorePath, Hash, u64), StoreError> {
    check_name(name).map_err(|error| invalid(name, error))?;
    let (hasher, nar_size) = dump(source, Hasher::new(HashAlgorithm::Sha256))?;
    let nar_hash = hasher.finish();
    let path = StorePath::of_source(name, &nar_hash, &BTreeSet::new(), false);
    Ok((path.map_err(|error| invalid(name, error))?, nar_hash, nar_size))
}

impl Store {
    /// Copies a file, directory or link into the store, as `nix-store --add` does; returns what is recorded about it.
    /// `registration_time` is in seconds since 1970 and is used if the path is new.
    ///
    /// Copies first and asks later, since the path is known only when everything has been read: for a source that is
    /// probably there already, [`source_path`] is cheaper. The path is a temporary root from then on.
    pub fn add_source(&self, name: &str, source: &Path, registration_time: i64) -> Result<PathInfo, StoreError> {
        check_name(name).map_err(|error| invalid(name, error))?;
        let scratch = Scratch::create(self)?;
        let destination = Some((scratch.directory(), OsStr::new(OBJECT)));
        let (hasher, nar_size) = walk(source, destination, Hasher::new(HashAlgorithm::Sha256))?;
        let nar_hash = hasher.finish();
        let path = StorePath::of_source(name, &nar_hash, &BTreeSet::new(), false);
        let info = PathInfo {
            path: path.map_err(|error| invalid(name, error))?,
            nar_hash,
            nar_size,
            references: BTreeSet::new(),
            deriver: None,
            registration_time,
            ultimate: false,
            signatures: Vec::new(),
            content_address: Some(format!("fixed:r:sha256:{}", nar_hash.to_nix32())),
        };
        self.move_in(scratch, Registration::from(info))
    }

    /// Stores the contents of a regular file, addressed by nothing but them (`nix-store --add-fixed`); whether it may be
    /// executed is lost.
    pub fn add_file(&self, name: &str, source: &Path, registration_time: i64) -> Result<PathInfo, StoreError> {
        check_name(name).map_err(|error| invalid(name, error))?;
        let scratch = Scratch::create(self)?;
        // Once through for its address; once more, from our copy, for its NAR.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(source, flags, rustix::fs::Mode::empty()).at("open", source)?;
        if file_type(&rustix::fs::fstat(&file).at("examine", source)?) != rustix::fs::FileType::RegularFile {
            return Err(StoreError::NotAFile { path: source.to_owned() });
        }
        let object_path = scratch.path().join(OBJECT);
        let copy = scratch.directory().open_file(OBJECT, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600);
        let mut copy = File::from(copy.at("create", &object_path)?);
        let mut file = File::from(file);
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        let mut chunk = vec![0; 128 * 1024];
        loop {
            let length = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).at("read", source),
            };
            hasher.update(&chunk[..length]);
            copy.write_all(&chunk[..length]).at("write to", &object_path)?;
        }
        seal(&copy, 0o444, &object_path)?;
        let address = ContentAddress { method: ContentMethod::Flat, hash: hasher.finish() };
        let (nar_hasher, nar_size) = dump(&object_path, Hasher::new(HashAlgorithm::Sha256))?;
        let info = PathInfo {
            path: address.store_path(name).map_err(|error| invalid(name, error))?,
            nar_hash: nar_hasher.finish(),
            nar_size,
            references: BTreeSet::new(),
            deriver: None,
            registration_time,
            ultimate: false,
            signatures: Vec::new(),
            content_address: Some(format!("fixed:sha256:{}", address.hash.to_nix32())),
        };
        self.move_in(scratch, Registration::from(info))
    }

    /// Stores a text, as `builtins.toFile` does; `references` must be valid.
    pub fn add_text(
        &self,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<StorePath>,
        registration_time: i64,
    ) -> Result<PathInfo, StoreError> {
        self.add_text_object(name, contents, references, &BTreeMap::new(), registration_time)
    }

    /// Stores a derivation file. `name` ends in `.drv`, `references` are its sources and input derivations, `outputs` the
    /// paths that are known of its outputs.
    pub fn add_derivation(
        &self,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<StorePath>,
        outputs: &BTreeMap<String, StorePath>,
        registration_time: i64,
    ) -> Result<PathInfo, StoreError> {
        self.add_text_object(name, contents, references, outputs, registration_time)
    }

    fn add_text_object(
        &self,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<StorePath>,
        outputs: &BTreeMap<String, StorePath>,
        registration_time: i64,
    ) -> Result<PathInfo, StoreError> {
        let path = StorePath::of_text(name, contents, references).map_err(|error| invalid(name, error))?;
        // Before the question, or a collector may delete the path after the answer.
        self.add_temporary_roots([&path])?;
        if let Some(known) = self.query(&path)? {
            return Ok(known);
        }
        let scratch = Scratch::create(self)?;
        let object_path = scratch.path().join(OBJECT);
        let file = scratch.directory().open_file(OBJECT, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600);
        let mut file = File::from(file.at("create", &object_path)?);
        file.write_all(contents).at("write to", &object_path)?;
        seal(&file, 0o444, &object_path)?;

        let mut nar = Writer::new(Hasher::new(HashAlgorithm::Sha256));
        let serialised = nar.file(false, contents.len() as u64).and_then(|()| nar.contents(contents));
        let (hasher, nar_size) = serialised
            .and_then(|()| nar.finish())
            .map_err(|source| StoreError::Serialise { path: object_path, source })?;
        let text_hash = Hash::of(HashAlgorithm::Sha256, contents);
        let info = PathInfo {
            path,
            nar_hash: hasher.finish(),
            nar_size,
            references: references.clone(),
            deriver: None,
            registration_time,
            ultimate: false,
            signatures: Vec::new(),
            content_address: Some(format!("text:sha256:{}", text_hash.to_nix32())),
        };
        self.move_in(scratch, Registration { info, derivation_outputs: outputs.clone() })
    }

    /// Makes the object in `scratch` valid, unless somebody else was faster.
    fn move_in(&self, scratch: Scratch, registration: Registration) -> Result<PathInfo, StoreError> {
        let path = &registration.info.path;
        // Whoever has the lock is doing the same as we are, and will be done in a moment.
        let locks = self.lock_paths(&BTreeSet::from([path.clone()]), |_| {})?;
        if let Some(known) = self.query_own(path)? {
            return Ok(known);
        }
        if let Some(missing) = self.first_invalid(&registration.info)? {
            return Err(StoreError::InvalidReference { path: path.clone(), reference: missing });
        }
        self.publish(&locks, scratch.descriptor(), OsStr::new(OBJECT), path)?;
        self.register(std::slice::from_ref(&registration))?;
        Ok(registration.info)
    }

    /// Asked before anything is moved, so that a refused object leaves nothing behind. What only the store below has is copied.
    pub(crate) fn first_invalid(&self, info: &PathInfo) -> Result<Option<StorePath>, StoreError> {
        for reference in info.references.iter().filter(|reference| **reference != info.path) {
            self.adopt(reference)?;
            if !self.is_own(reference)? {
                return Ok(Some(reference.clone()));
            }
        }
        Ok(None)
    }
}

fn invalid(name: &str, source: StorePathError) -> StoreError {
    StoreError::Name { name: name.to_owned(), source }
}
