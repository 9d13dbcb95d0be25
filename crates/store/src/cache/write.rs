//! Writing a binary cache into a directory: the archive first, its narinfo last, each appearing whole under its name.

use super::{CacheError, CacheLocation, compression::Compressor, error::file_error, is_inside, open_file};
use crate::{add::dump, path_info::PathInfo, store::Store};
use fodder_model::{
    content_address::ContentAddress,
    hash::{Hash, HashAlgorithm, Hasher},
    narinfo::NarInfo,
    signature::SecretKey,
    store_path::{STORE_DIRECTORY, StorePath},
};
use std::{
    fs::{self, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// How names of files begin that are being written.
const NEW: &str = ".new-";

/// A cache in a directory, to be added to.
#[derive(Debug)]
pub struct CacheWriter {
    location: CacheLocation,
    directory: PathBuf,
    key: Option<SecretKey>,
}

/// A path whose archive is in place, and which the cache does not offer yet.
#[derive(Debug)]
pub struct Written {
    name: String,
    text: String,
}

/// Hashes and counts what is written to a file.
struct Counted {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl Write for Counted {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.file.write(data)?;
        self.hasher.update(&data[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Hashes an archive on its way to the compressor.
struct Hashed<W: Write> {
    output: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.output.write(data)?;
        self.hasher.update(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl CacheWriter {
    /// Opens a cache in a directory, creating directory and `nix-cache-info` when they are missing.
    pub fn open(location: CacheLocation) -> Result<Self, CacheError> {
        let url = location.url().to_owned();
        let Some(directory) = location.directory().map(Path::to_owned) else {
            return Err(CacheError::Address { url, reason: "only file:// can be written to".to_owned() });
        };
        let key = location.secret_key().map(read_key).transpose()?;
        let writer = CacheWriter { location, directory, key };
        for directory in [writer.directory.clone(), writer.directory.join("nar")] {
            fs::create_dir_all(&directory).map_err(|error| file_error(&url, &directory, error))?;
            remove_unfinished(&directory).map_err(|error| file_error(&url, &directory, error))?;
        }
        let file = writer.directory.join("nix-cache-info");
        match open_file(&file).map_err(|error| file_error(&url, &file, error))? {
            None => writer.write_text("nix-cache-info", &format!("StoreDir: {STORE_DIRECTORY}\n"))?,
            Some(opened) => {
                let mut text = String::new();
                opened.take(1 << 20).read_to_string(&mut text).map_err(|error| file_error(&url, &file, error))?;
                let found = text.lines().find_map(|line| line.strip_prefix("StoreDir:"));
                if let Some(found) = found.map(str::trim).filter(|found| *found != STORE_DIRECTORY) {
                    return Err(CacheError::OtherStore { url, found: found.to_owned() });
                }
            }
        }
        Ok(writer)
    }

    /// Its address, for messages.
    pub fn url(&self) -> &str {
        self.location.url()
    }

    /// Writes the archive of a valid path of a store. `on_write` is called before that; when the cache has the path, it is not,
    /// and there is nothing to publish.
    pub fn write(
        &self,
        store: &Store,
        info: &PathInfo,
        on_write: impl FnOnce(),
    ) -> Result<Option<Written>, CacheError> {
        let name = format!("{}.narinfo", info.path.hash_part());
        if self.known(&name, &info.path)? {
            return Ok(None);
        }
        on_write();
        let archives = self.directory.join("nar");
        let failed = |error| file_error(self.url(), &archives, error);
        let compression = self.location.compression();
        let file = new_file(&archives).map_err(failed)?;
        let counted = Counted { file, hasher: Hasher::new(HashAlgorithm::Sha256), size: 0 };
        let compressor: Compressor<Counted> = compression.writer(counted).map_err(failed)?;
        let hashed = Hashed { output: compressor, hasher: Hasher::new(HashAlgorithm::Sha256) };
        let (Hashed { output, hasher }, nar_size) = dump(&store.real_path(&info.path), hashed)?;
        let nar_hash = hasher.finish();
        // What others are told about a path must be true of what they get.
        if nar_hash != info.nar_hash {
            return Err(CacheError::Store(crate::StoreError::ImportMismatch {
                path: info.path.clone(),
                what: "hash",
                specified: format!("sha256:{}", info.nar_hash.to_nix32()),
                got: format!("sha256:{}", nar_hash.to_nix32()),
            }));
        }
        let Counted { file, hasher, size } = output.finish().map_err(failed)?;
        let file_hash = hasher.finish();
        let url = format!("nar/{}.nar{}", file_hash.to_nix32(), compression.suffix());
        persist(file, &self.directory.join(&url)).map_err(failed)?;
        let text = self.narinfo(info, nar_size, url, file_hash, size).to_string();
        Ok(Some(Written { name, text }))
    }

    /// Offers a path; what it refers to should be offered already.
    pub fn publish(&self, written: &Written) -> Result<(), CacheError> {
        self.write_text(&written.name, &written.text)
    }

    fn narinfo(&self, info: &PathInfo, nar_size: u64, url: String, file_hash: Hash, file_size: u64) -> NarInfo {
        let mut narinfo = NarInfo {
            path: info.path.clone(),
            url,
            compression: self.location.compression().name().to_owned(),
            file_hash: Some(file_hash),
            file_size,
            nar_hash: info.nar_hash,
            nar_size,
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            signatures: info.signatures.iter().cloned().collect(),
            content_address: info.content_address.as_deref().and_then(|text| ContentAddress::parse(text).ok()),
        };
        if let Some(key) = &self.key {
            narinfo.signatures.insert(key.sign(&narinfo.fingerprint()));
        }
        narinfo
    }

    /// Whether the cache has a path, with its archive: somebody may have removed that alone.
    fn known(&self, name: &str, path: &StorePath) -> Result<bool, CacheError> {
        let file = self.directory.join(name);
        let failed = |error| file_error(self.url(), &file, error);
        let Some(opened) = open_file(&file).map_err(failed)? else { return Ok(false) };
        let mut text = String::new();
        opened.take(super::TEXT_LIMIT as u64).read_to_string(&mut text).map_err(failed)?;
        // A damaged one is written anew.
        Ok(NarInfo::parse(&text, name)
            .is_ok_and(|info| info.path == *path && is_inside(&info.url) && self.directory.join(&info.url).is_file()))
    }

    fn write_text(&self, name: &str, text: &str) -> Result<(), CacheError> {
        let path = self.directory.join(name);
        let write = || {
            let mut file = new_file(&self.directory)?;
            file.write_all(text.as_bytes())?;
            persist(file, &path)
        };
        write().map_err(|error| file_error(self.url(), &path, error))
    }
}

/// A file that is not offered yet, locked for as long as somebody writes it.
fn new_file(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    loop {
        let file = tempfile::Builder::new().prefix(NEW).tempfile_in(directory)?;
        file.as_file().lock()?;
        // Somebody may have seen it before it was locked, and taken it for a dead one's.
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// Removes what writers that were killed have left: whoever lives has a lock.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(NEW.as_bytes()) {
            continue;
        }
        match fs::OpenOptions::new().read(true).custom_flags(no_surprises()).open(entry.path()) {
            // Whose it was may have been faster.
            Ok(file) if file.try_lock().is_ok() => drop(fs::remove_file(entry.path())),
            // Alive; or somebody else's, just given its name, no file at all.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// A link or a pipe with such a name is nobody's unfinished file.
fn no_surprises() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32
}

/// Flushed before it has its name, so that a power cut leaves no name with nothing behind it.
fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn read_key(file: &Path) -> Result<SecretKey, CacheError> {
    let text = fs::read_to_string(file).map_err(|error| CacheError::File {
        url: "secret-key".to_owned(),
        file: file.into(),
        source: error,
    })?;
    SecretKey::parse(&text).map_err(|source| CacheError::Key { file: file.into(), source })
}
