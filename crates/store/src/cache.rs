//! Reading binary caches: directories and web servers with a `.narinfo` for each path and its archive, compressed, beside it.
//!
//! What a cache says is believed only as far as it is checked: signatures or content address before the download
//! ([`BinaryCache::accept`]), hash and size of the archive by the store that takes it ([`crate::Store::add_nar`]).

mod compression;
mod error;
mod location;
mod write;

pub use compression::Compression;
pub use error::CacheError;
pub use location::CacheLocation;
pub use write::{CacheWriter, Written};

use crate::{Http, HttpSettings, OnRetry, path_info::PathInfo};
use error::file_error;
use fodder_model::{
    narinfo::NarInfo,
    signature::PublicKey,
    store_path::{STORE_DIRECTORY, StorePath},
};
use location::Place;
use std::{
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path},
};

/// Largest `.narinfo` or `nix-cache-info` that is read, in bytes. The references of the largest closures fit many times over.
const TEXT_LIMIT: usize = 4 << 20;

/// Bytes between the network or disk and the decompressor.
const BUFFER_SIZE: usize = 64 * 1024;

/// A cache that has introduced itself.
#[derive(Debug)]
pub struct BinaryCache {
    location: CacheLocation,
    settings: HttpSettings,
    priority: i64,
}

/// A way to ask a cache, for one thread: downloads of several threads over one line would wait for the slowest.
#[derive(Debug)]
pub struct CacheConnection<'a> {
    cache: &'a BinaryCache,
    /// `None` for a directory.
    http: Option<Http>,
}

impl BinaryCache {
    /// Reads the cache's `nix-cache-info`, which must be there and say that the cache is for our store directory.
    pub fn open(
        location: CacheLocation,
        settings: &HttpSettings,
        on_retry: OnRetry<'_>,
    ) -> Result<BinaryCache, CacheError> {
        let mut cache = BinaryCache { location, settings: settings.clone(), priority: 0 };
        let text = cache.connect()?.small_file("nix-cache-info", on_retry)?;
        let text = text.ok_or_else(|| CacheError::NotACache { url: cache.url().to_owned() })?;
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key {
                "StoreDir" if value != STORE_DIRECTORY => {
                    let (url, found) = (cache.url().to_owned(), value.to_owned());
                    return Err(CacheError::OtherStore { url, found });
                }
                "Priority" => cache.priority = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        cache.priority = cache.location.priority().unwrap_or(cache.priority);
        Ok(cache)
    }

    /// Its address, for messages.
    pub fn url(&self) -> &str {
        self.location.url()
    }

    /// Caches with a lower one are asked first.
    pub fn priority(&self) -> i64 {
        self.priority
    }

    /// Connects to it, or rather: will, when something is asked for.
    pub fn connect(&self) -> Result<CacheConnection<'_>, CacheError> {
        let http = match self.location.place() {
            Place::Directory(_) => None,
            Place::Web(_) => {
                let failed = |source| CacheError::Http { url: self.url().to_owned(), source };
                Some(Http::new(&self.settings).map_err(failed)?)
            }
        };
        Ok(CacheConnection { cache: self, http })
    }

    /// What is to be recorded about a path, if somebody vouches for it: its content address, a signature by one of the keys, or
    /// the user, who called the whole cache trusted.
    pub fn accept(&self, info: &NarInfo, keys: &[PublicKey], time: i64) -> Result<PathInfo, CacheError> {
        let is_content_addressed = info.is_content_addressed();
        if !is_content_addressed && !self.location.is_trusted() && !info.is_signed_by(keys) {
            let (url, path) = (self.url().to_owned(), info.path.clone());
            return Err(CacheError::Untrusted { url, path, is_signed: !info.signatures.is_empty() });
        }
        let content_address = info.content_address.filter(|_| is_content_addressed);
        Ok(PathInfo {
            path: info.path.clone(),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            registration_time: time,
            ultimate: false,
            signatures: info.signatures.iter().cloned().collect(),
            content_address: content_address.map(|address| address.to_string()),
        })
    }
}

impl CacheConnection<'_> {
    /// What the cache says about a path; `None` when it does not have it.
    pub fn lookup(&self, path: &StorePath, on_retry: OnRetry<'_>) -> Result<Option<NarInfo>, CacheError> {
        let file = format!("{}.narinfo", path.hash_part());
        let Some(text) = self.small_file(&file, on_retry)? else { return Ok(None) };
        let url = self.cache.url().to_owned();
        let info = NarInfo::parse(&text, &file).map_err(|source| CacheError::NarInfo { url: url.clone(), source })?;
        match info.path == *path {
            true => Ok(Some(info)),
            false => Err(CacheError::OtherPath { url, asked: path.clone(), found: info.path }),
        }
    }

    /// The archive of a path, decompressed while it is read.
    pub fn archive<'b>(&'b self, info: &NarInfo, on_retry: OnRetry<'b>) -> Result<impl Read + 'b, CacheError> {
        let url = self.cache.url();
        let compression = Compression::parse(&info.compression).ok_or_else(|| CacheError::UnknownCompression {
            url: url.to_owned(),
            path: info.path.clone(),
            name: info.compression.clone(),
        })?;
        let expected = (info.file_size != 0).then_some(info.file_size);
        let input: Box<dyn Read + 'b> = match (self.cache.location.place(), &self.http) {
            (Place::Directory(directory), _) => {
                if !is_inside(&info.url) {
                    let (url, file) = (url.to_owned(), info.url.clone());
                    return Err(CacheError::Outside { url, file });
                }
                let file = directory.join(&info.url);
                let opened = open_file(&file).map_err(|error| file_error(url, &file, error))?;
                Box::new(opened.ok_or_else(|| CacheError::NoArchive { url: url.to_owned(), file: info.url.clone() })?)
            }
            (Place::Web(base), Some(http)) => {
                let failed = |source| CacheError::Http { url: url.to_owned(), source };
                let Some(address) = below(base, &info.url) else {
                    let (url, file) = (url.to_owned(), info.url.clone());
                    return Err(CacheError::Outside { url, file });
                };
                Box::new(http.open(&address, expected, on_retry).map_err(failed)?)
            }
            (Place::Web(_), None) => return Err(CacheError::NotACache { url: url.to_owned() }),
        };
        compression
            .reader(BufReader::with_capacity(BUFFER_SIZE, input))
            .map_err(|error| CacheError::Decompressor { path: info.path.clone(), source: error })
    }

    fn small_file(&self, name: &str, on_retry: OnRetry<'_>) -> Result<Option<String>, CacheError> {
        let url = self.cache.url();
        let bytes = match (self.cache.location.place(), &self.http) {
            (Place::Directory(directory), _) => {
                let file = directory.join(name);
                let read = || {
                    let Some(opened) = open_file(&file)? else { return Ok(None) };
                    read_text(opened).map(Some)
                };
                let bytes = read().map_err(|error| file_error(url, &file, error))?;
                if bytes.as_ref().is_some_and(|bytes| bytes.len() > TEXT_LIMIT) {
                    return Err(file_error(url, &file, std::io::Error::other("it is too large")));
                }
                bytes
            }
            (Place::Web(base), Some(http)) => http
                .get(&format!("{base}/{name}"), TEXT_LIMIT, on_retry)
                .map_err(|source| CacheError::Http { url: url.to_owned(), source })?,
            (Place::Web(_), None) => None,
        };
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| CacheError::NotText { url: url.to_owned(), file: name.to_owned() })
    }
}

/// As much as a text may have, and one byte more, by which a larger file is seen to be one.
fn read_text(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(TEXT_LIMIT as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
}

/// Opens a regular file; `None` when nothing is there. A pipe would let us wait for ever.
fn open_file(path: &Path) -> std::io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(std::io::Error::other("it is not a regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a name leads nowhere but into the directory that it is relative to.
fn is_inside(name: &str) -> bool {
    Path::new(name).components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

/// The address of an archive, if it is below that of its cache. No signature covers what a narinfo says about the place: whoever
/// can change it could otherwise let us call any host that we reach.
fn below(base: &str, name: &str) -> Option<String> {
    let base = reqwest::Url::parse(&format!("{}/", base.trim_end_matches('/'))).ok()?;
    let address = base.join(name).ok()?;
    // After all that an address can hide: dots, however they are spelled, other hosts, other ports.
    let is_below = address.origin() == base.origin() && address.path().starts_with(base.path());
    (is_below && address.username() == base.username() && address.password() == base.password())
        .then(|| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: RES-5 (a small file without end). Layer: no more of it is read than it may have.
    #[test]
    fn of_a_text_no_more_is_read_than_it_may_have() {
        let mut input = std::io::repeat(b'x').take(4 * TEXT_LIMIT as u64);
        assert_eq!(read_text(&mut input).unwrap().len(), TEXT_LIMIT + 1);
        assert_eq!(input.limit(), 3 * TEXT_LIMIT as u64 - 1);
    }

    /// Attack: PARSE-8, Guix 2026-07-02 (3). Layer: addresses below the cache.
    #[test]
    fn archives_are_below_their_cache() {
        for (base, name, expected) in [
            ("https://cache.example", "nar/x.nar.xz", Some("https://cache.example/nar/x.nar.xz")),
            ("https://cache.example/a/b", "nar/x?y=1", Some("https://cache.example/a/b/nar/x?y=1")),
            ("https://cache.example/a/", "./nar/x", Some("https://cache.example/a/nar/x")),
            ("https://cache.example/a", "https://cache.example/a/nar/x", Some("https://cache.example/a/nar/x")),
            ("https://cache.example/a", "https://cache.example:443/a/x", Some("https://cache.example/a/x")),
            ("https://cache.example/a", "../x", None),
            ("https://cache.example/a", "nar/../../x", None),
            ("https://cache.example/a", "%2e%2E/x", None),
            ("https://cache.example/a", ".%2e/x", None),
            ("https://cache.example/a", "..\\x", None),
            ("https://cache.example/a", "/x", None),
            ("https://cache.example/a", "//other.example/a/x", None),
            ("https://cache.example/a", "\\\\other.example/a/x", None),
            ("https://cache.example/a", "http://cache.example/a/x", None),
            ("https://cache.example/a", "https://cache.example:444/a/x", None),
            ("https://cache.example/a", "https://me:secret@cache.example/a/x", None),
            ("https://cache.example/a", "https://me@cache.example/a/x", None),
            ("https://cache.example/a", "https://:secret@cache.example/a/x", None),
            ("https://cache.example/a", "http://127.0.0.1/a/x", None),
            ("https://cache.example/a", "http://169.254.169.254/", None),
            ("https://cache.example/a", "file:///etc/passwd", None),
            ("https://cache.example/a", "data:text/plain,x", None),
        ] {
            assert_eq!(below(base, name).as_deref(), expected, "{base} {name}");
        }
    }
}
