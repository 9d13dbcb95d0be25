//! Nix's SQLite database: its tables to the letter, and how a connection is set up.
//!
//! Differences from Nix in how it is used, none in what is stored: a connection does not checkpoint when it closes (that
//! costs two `fsync`s a command and deletes the files through which other users read), and checkpoints after 1 MiB of
//! log instead of 160, so that the log which the next command has to read stays small.

mod contents;

use crate::{
    directory::{Directory, file_type},
    error::StoreError,
};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use rustix::fs::FileType;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Name of the database in `var/nix/db`.
pub(crate) const FILE_NAME: &str = "db.sqlite";

/// Tables of schema 10 as Nix 2.8 and 2.34 create them. `IndexReferrer` duplicates the primary key; 2.36 drops it.
const TABLES: &str = "
create table if not exists ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer, -- null implies \"false\"
    sigs             text, -- space-separated
    ca               text -- if not null, an assertion that the path is content-addressed; see ValidPathInfo
);
create table if not exists Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReferrer on Refs(referrer);
create index if not exists IndexReference on Refs(reference);
-- Paths can refer to themselves, causing a tuple (N, N) in the Refs table. This trigger removes it first.
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create table if not exists DerivationOutputs (
    drv  integer not null,
    id   text not null, -- symbolic output id, usually \"out\"
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
";

/// How often a busy database is tried, about a minute in all. Nix tries for ever; we return, so that a stopped process
/// cannot hang every other one without a word.
const BUSY_TRIES: i32 = 1200;

/// File systems shared between machines, where the shared memory of a write-ahead log does not reach the others
/// (`statfs(2)`): NFS, SMB, SMB 2, CIFS, 9P, AFS, Ceph, Lustre.
const SHARED_FILE_SYSTEMS: [u64; 8] =
    [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x0102_1997, 0x5346_414f, 0x00c3_6400, 0x0bd0_0bd0];

/// Opens the database for reading and writing. `is_new` creates an empty one when there is none.
pub(crate) fn open(directory: &Directory, is_new: bool) -> Result<Connection, StoreError> {
    let path = directory.child(FILE_NAME);
    check_file(directory, is_new)?;
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, is_new);
    let connection = connect(&path, flags)?;
    check_contents(&connection, &path, is_new)?;
    let set_up = || {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch("pragma foreign_keys = on; pragma synchronous = normal;")?;
        let journal_mode = |wanted: &str| {
            connection.query_row(&format!("pragma main.journal_mode{wanted}"), [], |row| row.get::<_, String>(0))
        };
        if journal_mode("")? != "wal" && (on_shared_file_system(directory) || journal_mode(" = wal")? != "wal") {
            journal_mode(" = truncate")?;
        }
        connection.execute_batch("pragma wal_autocheckpoint = 256; pragma journal_size_limit = 1099511627776;")
    };
    set_up().map_err(|source| failed("set up a connection", path, source))?;
    Ok(connection)
}

/// Opens the database for reading. One that cannot be written and has no log beside it is taken as it is.
pub(crate) fn open_read_only(directory: &Directory) -> Result<Connection, StoreError> {
    let path = directory.child(FILE_NAME);
    check_file(directory, false)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = connect(&path, flags)?;
    let read = connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(()));
    match read {
        Ok(()) => {}
        // Its log cannot be created here. `immutable` ignores the log, so it is right only where there is none.
        Err(error) if !is_damage(&error) && !directory.child("db.sqlite-wal").exists() => {
            connection = connect(&immutable(&path), flags | OpenFlags::SQLITE_OPEN_URI)?;
        }
        Err(source) => return Err(failed("read", path, source)),
    }
    check_contents(&connection, &path, false)?;
    Ok(connection)
}

/// Creates what a new store's database consists of.
pub(crate) fn create_tables(connection: &Connection, directory: &Directory) -> Result<(), StoreError> {
    let created = connection.execute_batch(&format!("begin exclusive; {TABLES} commit;"));
    created.map_err(|source| failed("create the tables", directory.child(FILE_NAME), source))
}

/// What SQLite answered. Damage gets words of its own, since trying again is no use.
pub(crate) fn failed(action: &'static str, path: PathBuf, source: rusqlite::Error) -> StoreError {
    match is_damage(&source) {
        true => StoreError::DamagedDatabase { path, problem: format!("cannot {action}: {source}") },
        false => StoreError::Database { action, path, source },
    }
}

/// Whether an answer means that the file does not hold what Nix and we write.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    if let Error::SqliteFailure(failure, _) = error {
        return matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TooBig);
    }
    // A value of another type, or text that is none.
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

/// SQLite opens whatever has the name, and would wait for ever at a pipe.
fn check_file(directory: &Directory, may_be_new: bool) -> Result<(), StoreError> {
    let problem = match directory.status(FILE_NAME)? {
        Some(status) if file_type(&status) == FileType::RegularFile => return Ok(()),
        None if may_be_new => return Ok(()),
        Some(_) => "it is not a regular file",
        None => "it is missing",
    };
    Err(StoreError::DamagedDatabase { path: directory.child(FILE_NAME), problem: problem.to_owned() })
}

fn check_contents(connection: &Connection, path: &Path, may_be_new: bool) -> Result<(), StoreError> {
    match contents::check(connection, may_be_new) {
        Ok(None) => Ok(()),
        Ok(Some(problem)) => Err(StoreError::DamagedDatabase { path: path.to_owned(), problem }),
        Err(source) => Err(failed("read its tables", path.to_owned(), source)),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let open = || {
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_handler(Some(|tries: i32| {
            std::thread::sleep(Duration::from_millis(tries.clamp(1, 50).unsigned_abs().into()));
            tries < BUSY_TRIES
        }))?;
        contents::distrust(&connection)?;
        Ok(connection)
    };
    open().map_err(|source| failed("open a connection", path.to_owned(), source))
}

fn immutable(path: &Path) -> PathBuf {
    let escaped: String = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?immutable=1").into()
}

fn on_shared_file_system(directory: &Directory) -> bool {
    // An unknown answer means an ordinary file system: SQLite itself then refuses a log that cannot work.
    rustix::fs::fstatfs(directory)
        .is_ok_and(|status| SHARED_FILE_SYSTEMS.contains(&(status.f_type as u64 & 0xffff_ffff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: PROC-1. Layer: what is committed is written in an order that a power cut cannot turn around.
    #[test]
    fn a_connection_keeps_what_it_commits_as_nix_does() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open_path(place.path()).unwrap();
        let connection = open(&directory, true).unwrap();
        let number =
            |pragma: &str| connection.query_row(&format!("pragma {pragma}"), [], |row| row.get::<_, i64>(0)).unwrap();
        // 1 is `normal`: with a write-ahead log a power cut may cost the last transactions, and never the database.
        assert_eq!((number("synchronous"), number("foreign_keys"), number("wal_autocheckpoint")), (1, 1, 256));
        let mode: String = connection.query_row("pragma journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}
