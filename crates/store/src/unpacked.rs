//! Adds objects that come as a NAR from somewhere else: unpacked in scratch, compared with what was promised, and only then
//! moved in and made valid.

use crate::{
    add::dump,
    error::{At, StoreError},
    git,
    lock::PathLocks,
    path_info::{PathInfo, Registration},
    restore::{OverLimit, SIZE_LIMIT, restore_in},
    scratch::Scratch,
    store::Store,
    tree::walk,
};
use fodder_model::{
    content_address::{ContentAddress, ContentMethod},
    derivation::aterm,
    hash::{Hash, HashAlgorithm, Hasher},
    nar::NarReadError,
    rewrite::{HashModulo, SelfReferences},
    store_path::StorePath,
};
use rustix::io::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::File,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Name of the object while it is in scratch.
const OBJECT: &str = "object";

/// Longest derivation file that is read back to learn its outputs.
const DERIVATION_LIMIT: u64 = 256 << 20;

/// An object that was unpacked from a NAR and is not in the store yet; gone when this is dropped.
#[derive(Debug)]
pub struct Unpacked {
    scratch: Scratch,
    nar_hash: Hash,
    nar_size: u64,
}

impl Unpacked {
    /// Unpacks the archive that `input` is at, and reads no further; `limit` is the size in bytes that it may have.
    pub fn read(store: &Store, input: impl Read, limit: u64) -> Result<Self, StoreError> {
        let scratch = Scratch::create(store)?;
        let (nar_hash, nar_size) = restore_in(input, scratch.directory(), OsStr::new(OBJECT), limit)?;
        Ok(Unpacked { scratch, nar_hash, nar_size })
    }

    /// Copies an object of another store.
    pub fn copy(store: &Store, source: &Path) -> Result<Self, StoreError> {
        let scratch = Scratch::create(store)?;
        let destination = Some((scratch.directory(), OsStr::new(OBJECT)));
        let (hasher, nar_size) = walk(source, destination, Hasher::new(HashAlgorithm::Sha256))?;
        Ok(Unpacked { scratch, nar_hash: hasher.finish(), nar_size })
    }

    /// SHA-256 of the archive.
    pub fn nar_hash(&self) -> Hash {
        self.nar_hash
    }

    /// Size of the archive in bytes.
    pub fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// Where it is at present.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join(OBJECT)
    }

    /// Compares it with what is to be recorded about it: hash, size and, where there is one, the content address.
    pub fn check(&self, info: &PathInfo) -> Result<(), StoreError> {
        let mismatch = |what, specified: String, got: String| {
            Err(StoreError::ImportMismatch { path: info.path.clone(), what, specified, got })
        };
        if self.nar_hash != info.nar_hash {
            return mismatch("hash", colon_nix32(&info.nar_hash), colon_nix32(&self.nar_hash));
        }
        if info.nar_size != 0 && self.nar_size != info.nar_size {
            return mismatch("size", info.nar_size.to_string(), self.nar_size.to_string());
        }
        let Some(text) = &info.content_address else { return Ok(()) };
        if !info.is_content_addressed() {
            return Err(StoreError::NotContentAddressed { path: info.path.clone() });
        }
        let Ok(address) = ContentAddress::parse(text) else {
            return Err(StoreError::NotContentAddressed { path: info.path.clone() });
        };
        let found = self.content_hashes(info, &address)?;
        match found.last() {
            Some(last) if !found.contains(&address.hash) => {
                mismatch("ca hash", text.clone(), ContentAddress { hash: *last, ..address }.to_string())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The hashes that a content address with this method may name. Two for an object that refers to itself, because Nix 2.17
    /// to 2.34 count the places where it does so differently from all others.
    fn content_hashes(&self, info: &PathInfo, address: &ContentAddress) -> Result<Vec<Hash>, StoreError> {
        let path = self.path();
        let algorithm = address.hash.algorithm();
        match address.method {
            ContentMethod::Nar if info.references.contains(&info.path) => {
                let (modulo, _) = dump(&path, HashModulo::new(algorithm, &info.path))?;
                let hashes = modulo.finish().at("hash", &path)?;
                Ok(vec![hashes.by(SelfReferences::WithPositions), hashes.by(SelfReferences::WithoutPositions)])
            }
            ContentMethod::Nar if algorithm == HashAlgorithm::Sha256 => Ok(vec![self.nar_hash]),
            ContentMethod::Nar => Ok(vec![dump(&path, Hasher::new(algorithm))?.0.finish()]),
            ContentMethod::Flat | ContentMethod::Text => {
                let mut hasher = Hasher::new(algorithm);
                std::io::copy(&mut open_file(&path)?, &mut hasher).at("read", &path)?;
                Ok(vec![hasher.finish()])
            }
            ContentMethod::Git => Ok(vec![git::object_id(&path, algorithm)?]),
        }
    }

    /// For a derivation: the paths it has for its outputs, by their names.
    fn derivation_outputs(&self, path: &StorePath) -> Result<BTreeMap<String, StorePath>, StoreError> {
        let Some(name) = path.name().strip_suffix(".drv") else { return Ok(BTreeMap::new()) };
        let mut text = Vec::new();
        open_file(&self.path())?.take(DERIVATION_LIMIT).read_to_end(&mut text).at("read", self.path())?;
        let derivation = aterm::parse(name, &text)
            .map_err(|error| StoreError::NotADerivation { path: path.clone(), reason: crate::error::chain(&error) })?;
        let outputs = derivation.known_output_paths().into_iter();
        Ok(outputs.filter_map(|(name, path)| Some((name.to_owned(), path?))).collect())
    }
}

impl Store {
    /// Adds an object from a NAR, under the lock of its path: `open` is called when it turns out that the path is not valid
    /// yet. Nothing may follow the archive; checks hash, size and content address; references must be valid.
    /// Whether the object is to be trusted is the caller's affair. Returns what is recorded about the path, and whether it is
    /// new. `on_wait` is called before waiting for somebody else who is adding the same path.
    pub fn add_nar<R: Read, E: From<StoreError>>(
        &self,
        info: &PathInfo,
        on_wait: impl FnMut(&StorePath),
        open: impl FnOnce() -> Result<R, E>,
    ) -> Result<(PathInfo, bool), E> {
        let locks = self.lock_paths(&BTreeSet::from([info.path.clone()]), on_wait)?;
        if let Some(known) = self.query_own(&info.path)? {
            return Ok((known, false));
        }
        self.check_references(info)?;
        let limit = if info.nar_size == 0 { SIZE_LIMIT } else { info.nar_size };
        let mut input = open()?;
        let unpacked = Unpacked::read(self, &mut input, limit).map_err(|error| over_limit(info, error))?;
        nothing_follows(input, &unpacked)?;
        Ok((self.add_locked(&locks, unpacked, info)?, true))
    }

    /// Adds an object that was unpacked before anything was known about it; for the rest see [`Store::add_nar`].
    pub fn add_unpacked(&self, unpacked: Unpacked, info: &PathInfo) -> Result<(PathInfo, bool), StoreError> {
        let locks = self.lock_paths(&BTreeSet::from([info.path.clone()]), |_| {})?;
        if let Some(known) = self.query_own(&info.path)? {
            return Ok((known, false));
        }
        self.check_references(info)?;
        Ok((self.add_locked(&locks, unpacked, info)?, true))
    }

    fn add_locked(&self, locks: &PathLocks<'_>, unpacked: Unpacked, info: &PathInfo) -> Result<PathInfo, StoreError> {
        unpacked.check(info)?;
        let derivation_outputs = unpacked.derivation_outputs(&info.path)?;
        let info = PathInfo { nar_size: unpacked.nar_size, ..info.clone() };
        self.publish(locks, unpacked.scratch.descriptor(), OsStr::new(OBJECT), &info.path)?;
        let registration = Registration { info, derivation_outputs };
        self.register(std::slice::from_ref(&registration))?;
        Ok(registration.info)
    }

    fn check_references(&self, info: &PathInfo) -> Result<(), StoreError> {
        match self.first_invalid(info)? {
            Some(reference) => Err(StoreError::InvalidReference { path: info.path.clone(), reference }),
            None => Ok(()),
        }
    }
}

/// Reads the end of the input, too: bytes behind an archive are hashed by some and not by others, and a decompressor compares its
/// checksum only there.
fn nothing_follows(mut input: impl Read, unpacked: &Unpacked) -> Result<(), StoreError> {
    let problem = match input.read(&mut [0]) {
        Ok(0) => return Ok(()),
        Ok(_) => NarReadError::Trailing { offset: unpacked.nar_size },
        Err(error) => NarReadError::Input(error),
    };
    Err(StoreError::Unpack { path: unpacked.path(), source: problem })
}

/// An archive that is larger than it should be does not match, as Nix finds when it has read all of it.
fn over_limit(info: &PathInfo, error: StoreError) -> StoreError {
    let StoreError::Unpack { path: _, source: NarReadError::Input(input) } = &error else { return error };
    if !input.get_ref().is_some_and(|error| error.is::<OverLimit>()) {
        return error;
    }
    let (path, specified) = (info.path.clone(), info.nar_size.to_string());
    StoreError::ImportMismatch { path, what: "size", specified, got: "more".to_owned() }
}

/// Opens a file that we unpacked ourselves; anything else that may be there is refused.
fn open_file(path: &Path) -> Result<File, StoreError> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = match File::options().read(true).custom_flags(flags as i32).open(path) {
        // A link: what is wrong is the archive and not the store.
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(StoreError::NotAFile { path: path.to_owned() });
        }
        file => file.at("open the file", path)?,
    };
    match file.metadata().at("examine", path)?.is_file() {
        true => Ok(file),
        false => Err(StoreError::NotAFile { path: path.to_owned() }),
    }
}

/// `sha256:<nix32>`, as Nix shows hashes of objects that do not match.
fn colon_nix32(hash: &Hash) -> String {
    format!("{}:{}", hash.algorithm(), hash.to_nix32())
}
