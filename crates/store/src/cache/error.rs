//! Everything that can go wrong with a binary cache.

use crate::HttpError;
use fodder_model::{
    bytes::ByteString,
    narinfo::NarInfoError,
    signature::KeyError,
    store_path::{STORE_DIRECTORY, StorePath},
};
use std::{io, path::Path};

/// Why something could not be had from a cache, or written to one.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// An address that nobody understands.
    #[error("'{url}' is not a binary cache: {reason}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no `nix-cache-info`.
    #[error("'{url}' is not a binary cache: it has no 'nix-cache-info'")]
    NotACache {
        /// The cache.
        url: String,
    },
    /// It holds paths of another store directory. The words are Nix's.
    #[error("binary cache '{url}' is for Nix stores with prefix '{found}', not '{STORE_DIRECTORY}'")]
    OtherStore {
        /// The cache.
        url: String,
        /// Its store directory.
        found: String,
    },
    /// A download failed.
    #[error("cannot read the binary cache '{url}'")]
    Http {
        /// The cache.
        url: String,
        /// Why.
        source: HttpError,
    },
    /// The kernel refused something.
    #[error("cannot use the file '{file}' of the binary cache '{url}'")]
    File {
        /// The cache.
        url: String,
        /// The file.
        file: ByteString,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A text file that is none.
    #[error("the file '{file}' of the binary cache '{url}' is not text")]
    NotText {
        /// The cache.
        url: String,
        /// The file.
        file: String,
    },
    /// A narinfo is damaged.
    #[error("the binary cache '{url}' is damaged")]
    NarInfo {
        /// The cache.
        url: String,
        /// Which, where and how.
        source: NarInfoError,
    },
    /// A narinfo of another path than was asked for.
    #[error("the binary cache '{url}' was asked for '{asked}' and speaks of '{found}'")]
    OtherPath {
        /// The cache.
        url: String,
        /// What was asked for.
        asked: StorePath,
        /// What it answers about.
        found: StorePath,
    },
    /// The archive that a narinfo names is not there.
    #[error("the binary cache '{url}' lacks the file '{file}', which one of its narinfos names")]
    NoArchive {
        /// The cache.
        url: String,
        /// The file.
        file: String,
    },
    /// A narinfo that names a file elsewhere on this machine.
    #[error("a narinfo of the binary cache '{url}' names the file '{file}', which is not in the cache")]
    Outside {
        /// The cache.
        url: String,
        /// The file.
        file: String,
    },
    /// A compression that nobody here can undo.
    #[error("the binary cache '{url}' has '{path}' compressed as '{name}'; known are {}", super::Compression::names())]
    UnknownCompression {
        /// The cache.
        url: String,
        /// The path.
        path: StorePath,
        /// What the narinfo says.
        name: String,
    },
    /// The decompressor could not be started.
    #[error("cannot decompress '{path}'")]
    Decompressor {
        /// The path.
        path: StorePath,
        /// Why.
        source: io::Error,
    },
    /// Nobody vouches for a path.
    #[error("cannot add path '{path}' from '{url}' because it lacks a signature by a trusted key{}", signed_hint(*is_signed))]
    Untrusted {
        /// The cache.
        url: String,
        /// The path.
        path: StorePath,
        /// Whether it has any signature.
        is_signed: bool,
    },
    /// A signing key is not one.
    #[error("cannot use the signing key '{file}'")]
    Key {
        /// The file.
        file: ByteString,
        /// What is wrong with it.
        source: KeyError,
    },
    /// An object could not be read or written.
    #[error(transparent)]
    Store(#[from] crate::StoreError),
}

fn signed_hint(is_signed: bool) -> &'static str {
    if is_signed { ": its signatures are wrong or by other keys" } else { ": it has none" }
}

pub(super) fn file_error(url: &str, file: &Path, source: io::Error) -> CacheError {
    CacheError::File { url: url.to_owned(), file: file.into(), source }
}
