//! Opening a store: its directories, its schema and its database.
//!
//! Opening an existing store is on the path of every command, so it does six `open`s, two reads and no writes.

use crate::{
    database,
    directory::Directory,
    error::{At, StoreError},
    lock,
    temporary_roots::TemporaryRoots,
};
use fodder_model::store_path::StorePath;
use rusqlite::Connection;
use rustix::{
    fs::{FlockOperation, OFlags},
    io::Errno,
};
use std::{
    fs::DirBuilder,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Component, Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The only database format that Nix has written since 2016; in the file `schema` without a newline, which Nix would
/// call corrupt.
const SCHEMA: &[u8] = b"10";

/// A store on disk, laid out as Nix lays out `nix --store ROOT`: objects in `ROOT/nix/store`, state in
/// `ROOT/nix/var/nix`, logs in `ROOT/nix/var/log/nix/drvs`. The logical paths in it start with `/nix/store` all the same.
///
/// Can be shared between threads. Any number of processes may have the same store open, real Nix among them.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    objects: Directory,
    state: Directory,
    database: Mutex<Connection>,
    temporary_roots: Mutex<Option<TemporaryRoots>>,
    is_writable: bool,
    /// Where else to look.
    pub(crate) lower: Option<Box<Store>>,
    /// Locked (shared) while the store is open, so that no real Nix upgrades the schema meanwhile.
    _big_lock: Option<OwnedFd>,
}

impl Store {
    /// Opens the store below `root`, creating what is missing.
    ///
    /// A missing `root` is created for the caller alone (0700), because a world-readable store is a way to hand set-id
    /// files to other users (`docs/security.md`); an existing one keeps its mode. `root` and every directory of the
    /// store must belong to the caller, be writable by nobody else, and be no symbolic link.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let root_directory = open_root(root, true)?;
        root_directory.check_ours()?;
        let nix = root_directory.ensure("nix", 0o755)?;
        let objects = nix.ensure_objects("store")?;
        let state = nix.ensure("var", 0o755)?.ensure("nix", 0o755)?;
        let database_directory = state.ensure("db", 0o755)?;

        let lock_path = database_directory.child("big-lock");
        let big_lock = database_directory.open_file("big-lock", OFlags::RDWR | OFlags::CREATE, 0o600);
        let big_lock = big_lock.at("open the lock", &lock_path)?;
        lock::wait_for(&big_lock, FlockOperation::LockShared, &lock_path)?;
        let connection = match read_schema(&database_directory)? {
            true => database::open(&database_directory, false)?,
            false => {
                // Two upgrades of a shared lock would wait for each other; the conversion lets go of it first.
                lock::wait_for(&big_lock, FlockOperation::LockExclusive, &lock_path)?;
                let connection = database::open(&database_directory, true)?;
                if !read_schema(&database_directory)? {
                    create_state(&state)?;
                    database::create_tables(&connection, &database_directory)?;
                    write_schema(&database_directory)?;
                }
                lock::wait_for(&big_lock, FlockOperation::LockShared, &lock_path)?;
                connection
            }
        };
        Ok(Store {
            root: root_directory.path().to_owned(),
            objects,
            state,
            database: Mutex::new(connection),
            temporary_roots: Mutex::new(None),
            is_writable: true,
            lower: None,
            _big_lock: Some(big_lock),
        })
    }

    /// Opens somebody else's store, for example the machine's own with `root` `/`, for queries only. Nothing is created,
    /// and nothing keeps a garbage collector from deleting what was found.
    pub fn open_existing_read_only(root: &Path) -> Result<Store, StoreError> {
        let root_directory = open_root(root, false)?;
        let nix = root_directory.open("nix")?;
        let objects = nix.open("store")?;
        let state = nix.open("var")?.open("nix")?;
        let database_directory = state.open("db")?;
        if !read_schema(&database_directory)? {
            return Err(StoreError::UnknownSchema { path: database_directory.child("schema"), found: Vec::new() });
        }
        Ok(Store {
            root: root_directory.path().to_owned(),
            objects,
            state,
            database: Mutex::new(database::open_read_only(&database_directory)?),
            temporary_roots: Mutex::new(None),
            is_writable: false,
            lower: None,
            _big_lock: None,
        })
    }

    /// The root, absolute and without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that holds the objects, `ROOT/nix/store`.
    pub fn objects_path(&self) -> &Path {
        self.objects.path()
    }

    /// Where an object is on disk: `ROOT/nix/store/<base name>`, with the root of the store below where only that has it.
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        if let Some(lower) = self.lower()
            // What cannot be asked is not there.
            && !self.is_own(path).unwrap_or(true)
            && lower.is_own(path).unwrap_or(false)
        {
            return lower.objects.child(path.base_name());
        }
        self.objects.child(path.base_name())
    }

    pub(crate) fn objects(&self) -> &Directory {
        &self.objects
    }

    pub(crate) fn state(&self) -> &Directory {
        &self.state
    }

    /// The directory for build logs, created when missing.
    pub(crate) fn logs(&self) -> Result<Directory, StoreError> {
        let mut directory = open_root(&self.root, false)?;
        for name in ["nix", "var", "log", "nix", "drvs"] {
            directory = directory.ensure(name, 0o755)?;
        }
        Ok(directory)
    }

    /// The connection; a panic in another thread rolled its transaction back, so the connection is good.
    pub(crate) fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn database_path(&self) -> PathBuf {
        self.state.child("db").join(database::FILE_NAME)
    }

    pub(crate) fn temporary_roots(&self) -> MutexGuard<'_, Option<TemporaryRoots>> {
        self.temporary_roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was opened to be changed.
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Refuses to change a store that was opened for reading.
    pub(crate) fn check_writable(&self, action: &'static str) -> Result<(), StoreError> {
        match self.is_writable {
            true => Ok(()),
            false => Err(StoreError::ReadOnly { action, root: self.root.clone() }),
        }
    }
}

/// Opens `root` itself, not what it may link to, under its name without symbolic links.
fn open_root(root: &Path, create: bool) -> Result<Directory, StoreError> {
    // Without a trailing slash or dot, behind which the kernel would follow a link.
    let root: PathBuf = match root.components().next() {
        None => PathBuf::from("."),
        Some(Component::CurDir) if root.components().count() == 1 => PathBuf::from("."),
        Some(_) => root.components().collect(),
    };
    let directory = match Directory::open_path(&root) {
        Err(StoreError::Io { source, .. }) if create && source.kind() == std::io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(&root).at("create the directory", &root)?;
            Directory::open_path(&root)?
        }
        other => other?,
    };
    let canonical = root.canonicalize().at("resolve", &root)?;
    Ok(directory.named(canonical))
}

/// Whether the schema is there; an error when it is not ours.
fn read_schema(database_directory: &Directory) -> Result<bool, StoreError> {
    let path = database_directory.child("schema");
    let file = match database_directory.open_file("schema", OFlags::RDONLY | OFlags::NONBLOCK, 0) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error).at("open", path),
    };
    let mut found = Vec::new();
    file.take(64).read_to_end(&mut found).at("read", &path)?;
    if found == SCHEMA { Ok(true) } else { Err(StoreError::UnknownSchema { path, found }) }
}

/// Written last, and appears whole: a store without it was not finished and is finished by whoever opens it next.
fn write_schema(database_directory: &Directory) -> Result<(), StoreError> {
    let temporary = "schema.new";
    let path = database_directory.child(temporary);
    let file = database_directory.open_file(temporary, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o644);
    let mut file = std::fs::File::from(file.at("create", &path)?);
    file.write_all(SCHEMA).and_then(|()| file.sync_all()).at("write", &path)?;
    rustix::fs::renameat(database_directory, temporary, database_directory, "schema").at("rename", path)
}

/// What real Nix creates only when `gcroots` is missing, and would lack if we created that alone: without the link, its
/// garbage collector would delete what profiles hold.
fn create_state(state: &Directory) -> Result<(), StoreError> {
    state.ensure("temproots", 0o755)?;
    state.ensure("profiles", 0o755)?;
    let roots = state.ensure("gcroots", 0o755)?;
    roots.ensure("auto", 0o755)?;
    match rustix::fs::symlinkat(state.child("profiles"), &roots, "profiles") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).at("create the link", roots.child("profiles")),
    }
}
