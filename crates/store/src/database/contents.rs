//! What a database may hold before anything in it is believed. It may be damaged, or somebody else's: SQL that it brings along
//! (views, triggers, computed columns) would run when we only mean to read.

use crate::realisation;
use rusqlite::{Connection, config::DbConfig, limits::Limit};
use std::collections::BTreeSet;

/// Largest value or row, in bytes: a path, its hash and its signatures need some hundreds. SQLite's own limit is a gigabyte,
/// which one claimed length would let it allocate.
const VALUE_LIMIT: i32 = 1 << 20;

/// Most tables, indices and triggers. Nix has 17 with everything turned on.
const OBJECT_LIMIT: usize = 200;

/// The tables that are read and written, with the columns that must be plain ones.
const COLUMNS: [(&str, &[&str]); 3] = [
    ("ValidPaths", &["id", "path", "hash", "registrationTime", "deriver", "narSize", "ultimate", "sigs", "ca"]),
    ("Refs", &["referrer", "reference"]),
    ("DerivationOutputs", &["drv", "id", "path"]),
];

/// Tables of features that may be off.
const OPTIONAL_COLUMNS: [(&str, &[&str]); 1] =
    [("Realisations", &["id", "drvPath", "outputName", "outputPath", "signatures"])];

/// Turns off what only a hostile database needs. Before the first statement.
pub(super) fn distrust(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_LIMIT)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    // Mapped, a file that shrinks kills the process.
    connection.execute_batch("pragma cell_size_check = on; pragma mmap_size = 0;")
}

/// Says what is wrong with the schema, if anything is. A database that is being made may still be empty.
pub(super) fn check(connection: &Connection, may_be_new: bool) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare("select type, name, coalesce(sql, '') from sqlite_schema")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut objects: Vec<(String, String, String)> = Vec::new();
    for row in rows {
        objects.push(row?);
        if objects.len() > OBJECT_LIMIT {
            return Ok(Some(format!("it has more than {OBJECT_LIMIT} tables, indices and triggers")));
        }
    }
    for (kind, name, sql) in &objects {
        let sql = normal(sql);
        match kind.as_str() {
            "table" if sql.starts_with("create virtual") => {
                return Ok(Some(format!("it has a virtual table '{name}'")));
            }
            "table" | "index" => {}
            "trigger" if known_triggers().any(|known| sql == format!("create trigger {known}")) => {}
            kind => return Ok(Some(format!("it has the {kind} '{name}', which no version of Nix makes"))),
        }
    }
    let tables: BTreeSet<&str> =
        objects.iter().filter(|(kind, ..)| kind == "table").map(|(_, name, _)| name.as_str()).collect();
    let required = COLUMNS.iter().filter(|(table, _)| !may_be_new || tables.contains(table));
    for (table, columns) in required.chain(OPTIONAL_COLUMNS.iter().filter(|(table, _)| tables.contains(table))) {
        if !tables.contains(table) {
            return Ok(Some(format!("it has no table '{table}'")));
        }
        let plain = plain_columns(connection, table)?;
        if let Some(column) = columns.iter().find(|column| !plain.contains(**column)) {
            return Ok(Some(format!("its table '{table}' has no plain column '{column}'")));
        }
    }
    Ok(None)
}

/// Columns that hold what was put in, as opposed to what an expression makes of the others.
fn plain_columns(connection: &Connection, table: &str) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = connection.prepare_cached("select name from pragma_table_xinfo(?) where hidden = 0")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// The bodies of Nix's triggers, from the statements that make them.
fn known_triggers() -> impl Iterator<Item = String> {
    [super::TABLES, realisation::TABLES].into_iter().flat_map(|statements| {
        statements.split("create trigger if not exists ").skip(1).filter_map(|rest| {
            let end = rest.find("end;")?;
            Some(normal(&rest[..end + "end".len()]))
        })
    })
}

/// SQL in lower case with single spaces.
fn normal(sql: &str) -> String {
    sql.split_ascii_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: PARSE-16 (SQL that runs while we read). Layer: what only a hostile database needs is off.
    #[test]
    fn a_connection_trusts_nothing_that_a_database_brings() {
        let connection = Connection::open_in_memory().unwrap();
        distrust(&connection).unwrap();
        for (setting, expected) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        ] {
            assert_eq!(connection.db_config(setting).unwrap(), expected, "{setting:?}");
        }
        assert_eq!(connection.limit(Limit::SQLITE_LIMIT_LENGTH).unwrap(), VALUE_LIMIT);
        assert!(connection.execute_batch("attach ':memory:' as other").is_err());
        let checks = connection.query_row("pragma cell_size_check", [], |row| row.get::<_, bool>(0));
        assert!(checks.unwrap());
    }

    #[test]
    fn more_tables_than_nix_has_are_refused() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(super::super::TABLES).unwrap();
        let tables: String = (0..OBJECT_LIMIT).map(|number| format!("create table T{number} (x);")).collect();
        assert_eq!(check(&connection, false).unwrap(), None);
        connection.execute_batch(&tables).unwrap();
        let problem = check(&connection, false).unwrap().expect("a problem");
        assert!(problem.contains("more than 200 tables"), "{problem}");
    }
}
