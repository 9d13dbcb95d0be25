//! Databases that are damaged or somebody's trap.

use crate::lab::{Lab, NOW, some_path};
use fodder_store::{Store, StoreError};
use rusqlite::Connection;
use std::{fs, path::PathBuf};

/// A store with one path, closed, and where its database is.
fn store() -> (Lab, PathBuf) {
    let lab = Lab::new();
    lab.store().add_source("f", &lab.file("f", "x"), NOW).unwrap();
    let path = lab.root().join("nix/var/nix/db/db.sqlite");
    // All of it in one file, so that what a test does to that is what is read.
    let connection = Connection::open(&path).unwrap();
    connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    drop(connection);
    (lab, path)
}

/// Both ways to open it must refuse with these words.
#[track_caller]
fn refused(lab: &Lab, words: &str) {
    for error in [Store::open(&lab.root()).unwrap_err(), Store::open_existing_read_only(&lab.root()).unwrap_err()] {
        let message = error.to_string();
        assert!(matches!(error, StoreError::DamagedDatabase { .. }), "{message}");
        assert!(message.contains(words) && message.contains("put a copy of it back"), "{message}");
    }
}

/// Attack: PARSE-16 (SQL in a stranger's database). Layer: schema check.
#[test]
fn a_database_with_sql_of_its_own_is_refused() {
    for (sql, words) in [
        ("create view V as select 1", "the view 'V', which no version of Nix makes"),
        (
            "drop trigger DeleteSelfRefs; alter table ValidPaths rename to Old; create view ValidPaths as select * from Old",
            "the view 'ValidPaths'",
        ),
        ("create trigger T after insert on ValidPaths begin delete from ValidPaths; end", "the trigger 'T'"),
        (
            "drop trigger DeleteSelfRefs; \
             create trigger DeleteSelfRefs before delete on ValidPaths begin delete from ValidPaths; end",
            "the trigger 'DeleteSelfRefs'",
        ),
        ("create virtual table S using fts5(x)", "a virtual table 'S'"),
        ("drop table Refs", "no table 'Refs'"),
        (
            "drop table Refs; create table Refs (referrer integer, reference as (referrer + 1))",
            "'Refs' has no plain column 'reference'",
        ),
        ("alter table ValidPaths drop column ca", "'ValidPaths' has no plain column 'ca'"),
    ] {
        let (lab, path) = store();
        let changed = Connection::open(&path).unwrap().execute_batch(sql);
        // A build of SQLite without full-text search cannot make one, nor be shown one.
        if changed.is_err() && sql.contains("fts5") {
            continue;
        }
        changed.unwrap();
        refused(&lab, words);
    }
}

/// Tables that a newer version may add hold nothing that runs.
#[test]
fn a_plain_table_that_nobody_knows_is_no_reason_to_refuse() {
    let (lab, path) = store();
    Connection::open(&path).unwrap().execute_batch("create table Newer (x text); create index I on Newer(x)").unwrap();
    assert_eq!(lab.store().all_paths().unwrap().len(), 1);
}

/// Attack: PARSE-16 (a damaged database). Layer: one error that says what to do.
#[test]
fn a_damaged_database_is_one_error_that_says_what_to_do() {
    let (lab, path) = store();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, "this is no database, and long enough to have had a header ".repeat(100)).unwrap();
    refused(&lab, "file is not a database");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = Store::open(&lab.root()).and_then(|store| store.all_paths().map(drop)).unwrap_err();
    assert!(matches!(error, StoreError::DamagedDatabase { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    refused(&lab, "it is missing");
    assert!(!path.exists(), "a database that is missing is not made anew: its paths would be lost in silence");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused(&lab, "it is not a regular file");
    fs::remove_file(&path).unwrap();
    fs::write(&path, &whole).unwrap();
    assert_eq!(lab.store().all_paths().unwrap().len(), 1);
}

/// No page is read in a way that its bytes choose: whatever they are, there is an answer or an error.
#[test]
fn no_byte_of_a_database_makes_the_reader_fail_in_another_way() {
    let (lab, path) = store();
    let whole = fs::read(&path).unwrap();
    for step in 0..120 {
        let mut bytes = whole.clone();
        // Spread over all pages, headers of pages most of all.
        let at = (step * 4096 / 8 + step % 13) % bytes.len();
        bytes[at] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
        for name in ["db.sqlite-wal", "db.sqlite-shm"] {
            let _ = fs::remove_file(path.with_file_name(name));
        }
        let Ok(store) = Store::open(&lab.root()) else { continue };
        let _ = store.all_paths();
        let _ = store.query(&some_path("none"));
    }
}

/// Attack: PARSE-16 (values of other types and sizes). Layer: value limit, checked conversion.
#[test]
fn values_that_nix_does_not_write_are_refused() {
    for (sql, words) in [
        ("update ValidPaths set hash = zeroblob(100)", "Invalid column type Blob"),
        ("update ValidPaths set hash = cast(x'ff' as text)", "invalid utf-8"),
        ("update ValidPaths set registrationTime = 'yesterday'", "Invalid column type Text"),
        ("update ValidPaths set sigs = hex(zeroblob(600000))", "string or blob too big"),
        ("update ValidPaths set hash = 'sha256:short'", "has the hash 'sha256:short'"),
        ("update ValidPaths set deriver = '/nix/store/../../etc/passwd'", "has the deriver"),
    ] {
        let (lab, path) = store();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let store = lab.store();
        let known = store.all_paths().unwrap().pop_first().unwrap();
        let message = store.query(&known).unwrap_err().to_string();
        assert!(message.contains(words), "{sql}: {message}");
    }
}
