//! Everything that can go wrong with a store.
//!
//! Messages say what we were doing and to which path; what the kernel or SQLite answered is the `source()`, never both.

use fodder_model::{
    bytes::ByteString,
    nar::{NarError, NarReadError},
    store_path::StorePath,
    store_path::StorePathError,
    tar::TarError,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel refused something: no space, no permission, a damaged disk.
    #[error("cannot {action} '{}'", shown(path))]
    Io {
        /// What we were doing, as it reads after "cannot".
        action: &'static str,
        /// What we were doing it to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A directory of the store is a symbolic link, which somebody else may have put there.
    #[error("'{}' is a symbolic link, which a store must not contain; name the directory it points to", shown(path))]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// Something else is where a directory of the store belongs.
    #[error("'{}' is in the way of the store: it is not a directory; move it away", shown(path))]
    NotADirectory {
        /// The file.
        path: PathBuf,
    },
    /// A directory of the store belongs to somebody else, who could change what is in it.
    #[error("'{}' belongs to user {owner}, not to user {expected}; choose another store, or `chown` it", shown(path))]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        expected: u32,
    },
    /// Others may replace what is in a directory of the store.
    #[error("'{0}' may be changed by others (mode {mode:04o}); run `chmod go-w '{0}'`", shown(path))]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The store has another format.
    #[error("'{}' says that the store has schema '{}', and only '10' is known", shown(path), found.escape_ascii())]
    UnknownSchema {
        /// The schema file.
        path: PathBuf,
        /// Its contents.
        found: Vec<u8>,
    },
    /// SQLite failed.
    #[error("cannot {action} in the database '{}'", shown(path))]
    Database {
        /// What we were doing, as it reads after "cannot".
        action: &'static str,
        /// The database file.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// The database holds what neither Nix nor we write: a damaged disk, or somebody's trap.
    #[error(
        "the database '{}' cannot be used: {problem}; put a copy of it back, or move the store away and begin a new one; \
         nothing was changed",
        shown(path)
    )]
    DamagedDatabase {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A row of the database holds something that no version of Nix writes.
    #[error("the database has the {field} '{value}' for '{path}', which is not one")]
    CorruptRow {
        /// The path whose row it is.
        path: String,
        /// The column, in words.
        field: &'static str,
        /// What the column holds.
        value: String,
    },
    /// A path that is needed is not valid.
    #[error("path '{path}' is not valid")]
    NotValid {
        /// The path.
        path: StorePath,
    },
    /// Something keeps a path that was to be deleted. The first words are Nix's.
    #[error(
        "cannot delete path '{path}' since it is still alive{}",
        referrer.as_ref().map(|path| format!(": '{path}' refers to it")).unwrap_or_default()
    )]
    Alive {
        /// The path.
        path: StorePath,
        /// A path that refers to it, when that is why.
        referrer: Option<StorePath>,
    },
    /// A file of temporary roots holds something else: nobody knows what its owner is using.
    #[error(
        "'{}' has '{found}' where a store path was expected; end the process that it is named after, or remove it",
        shown(path)
    )]
    TemporaryRoot {
        /// The file.
        path: PathBuf,
        /// What is in it.
        found: ByteString,
    },
    /// Only paths whose references are valid may be registered.
    #[error("cannot register '{path}': it refers to '{reference}', which is not valid")]
    InvalidReference {
        /// The path that was to be registered.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// The path is valid already, with other contents.
    #[error("cannot register '{path}': it is valid already with another {field}")]
    Conflict {
        /// The path.
        path: StorePath,
        /// What differs.
        field: &'static str,
    },
    /// A path that is already valid must not be replaced.
    #[error("cannot move an object to '{path}': it is valid already")]
    AlreadyValid {
        /// The path.
        path: StorePath,
    },
    /// Only the holder of a path's lock may put something there: a mistake of the calling program.
    #[error("cannot move an object to '{path}': its lock is not held")]
    NotLocked {
        /// The path.
        path: StorePath,
    },
    /// The store records NAR hashes as SHA-256: a mistake of the calling program.
    #[error("cannot register '{path}': its NAR hash is not a sha256")]
    NotSha256 {
        /// The path.
        path: StorePath,
    },
    /// The name or contents do not make a store path.
    #[error("cannot make a store path named '{name}'")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: StorePathError,
    },
    /// Only files, directories and symbolic links can be store objects. The words are Nix's.
    #[error("file '{}' has an unsupported type", shown(path))]
    UnsupportedType {
        /// The device, socket or pipe.
        path: PathBuf,
    },
    /// The tree does not fit into a NAR.
    #[error("cannot serialise '{}'", shown(path))]
    Serialise {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        source: NarError,
    },
    /// Bytes are not a NAR, end too early, or could not be had.
    #[error("cannot unpack '{}'", shown(path))]
    Unpack {
        /// The file or directory that was being unpacked.
        path: PathBuf,
        /// What is wrong with the archive.
        source: NarReadError,
    },
    /// Bytes are not a tar archive, end too early, or would be unpacked elsewhere.
    #[error("cannot unpack to '{}'", shown(path))]
    Untar {
        /// Where it was unpacked to.
        path: PathBuf,
        /// What is wrong with the archive.
        source: TarError,
    },
    /// An object is not what was promised. The words are Nix's.
    #[error("{what} mismatch importing path '{path}';\n  specified: {specified}\n  got:       {got}")]
    ImportMismatch {
        /// The path.
        path: StorePath,
        /// What differs.
        what: &'static str,
        /// What was promised.
        specified: String,
        /// What it is.
        got: String,
    },
    /// A content address from which another path follows. The words are Nix's.
    #[error("cannot add path '{path}' to the Nix store because it claims to be content-addressed but isn't")]
    NotContentAddressed {
        /// The path.
        path: StorePath,
    },
    /// A path that ends in `.drv` must be a derivation.
    #[error("cannot add '{path}': it is not a derivation: {reason}")]
    NotADerivation {
        /// The path.
        path: StorePath,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory, link or device where a regular file must be.
    #[error("'{}' is not a regular file", shown(path))]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Something wrote to a tree while it was copied.
    #[error("'{}' changed while it was read", shown(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An object on disk is not what was registered. The words are Nix's.
    #[error("hash of path '{path}' has changed from 'sha256:{expected}' to 'sha256:{found}'!")]
    HashChanged {
        /// The path.
        path: StorePath,
        /// The hash in the database, in nix32.
        expected: String,
        /// The hash on disk.
        found: String,
    },
    /// A stream is not one that was exported.
    #[error("cannot import after {count} paths: {problem}")]
    Import {
        /// How many paths came before.
        count: usize,
        /// What is wrong.
        problem: ImportProblem,
        /// What reading answered.
        source: Option<io::Error>,
    },
    /// A stream of exported paths could not be passed on.
    #[error("cannot write the export")]
    Export {
        /// What writing answered.
        source: io::Error,
    },
    /// Something adds files as fast as they are removed.
    #[error("cannot remove '{}': something keeps adding files to it", shown(path))]
    KeepsGrowing {
        /// The directory.
        path: PathBuf,
    },
    /// A result link would replace something that is not one.
    #[error("cannot create the link '{}': something else is there", shown(path))]
    LinkOccupied {
        /// The link.
        path: PathBuf,
    },
    /// The store was opened for reading only: a mistake of the calling program.
    #[error("cannot {action}: the store '{}' is open for reading only", shown(root))]
    ReadOnly {
        /// What was asked for.
        action: &'static str,
        /// The store's root.
        root: PathBuf,
    },
    /// No id is free to run a build as.
    #[error("no unused user id is free for a build: {mapped} ids are mapped here and {busy} of those tried are in use")]
    NoBuildUser {
        /// Number of user ids in the caller's user namespace. With 1, builds can only run as the caller.
        mapped: u64,
        /// How many candidates other builds hold.
        busy: u64,
    },
}

/// What is wrong with a stream of exported paths. The words are Nix's where Nix has words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportProblem {
    /// It begins with something else.
    #[error("input doesn't look like something created by 'nix-store --export'")]
    NotAnExport,
    /// What follows an archive is something else.
    #[error("Nix archive cannot be imported; wrong format")]
    WrongFormat,
    /// It ends too early, or cannot be read.
    #[error("the input ended")]
    Ended,
    /// It goes on.
    #[error("the input goes on after its end mark; import one export at a time")]
    Trailing,
    /// Something in it should be a store path.
    #[error("'{found}' is not a store path")]
    NotAPath {
        /// What is there.
        found: ByteString,
    },
}

/// A path for a message: bytes that could move a terminal's cursor are escaped, names come from anywhere.
fn shown(path: &Path) -> ByteString {
    path.into()
}

/// Names the path in errors of system calls.
pub(crate) trait At<T> {
    /// Says what was being done to which path.
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { action, path: path.into(), source: source.into() })
    }
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
