//! Questions to the database.

use crate::{database, error::StoreError, path_info::PathInfo, store::Store};
use fodder_model::{
    hash::{Hash, HashAlgorithm},
    store_path::StorePath,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{BTreeMap, BTreeSet};

/// A row of `ValidPaths` as SQLite gives it.
struct ValidPath {
    id: i64,
    hash: String,
    registration_time: i64,
    deriver: Option<String>,
    nar_size: Option<i64>,
    ultimate: Option<i64>,
    signatures: Option<String>,
    content_address: Option<String>,
}

impl ValidPath {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(ValidPath {
            id: row.get(0)?,
            hash: row.get(1)?,
            registration_time: row.get(2)?,
            deriver: row.get(3)?,
            nar_size: row.get(4)?,
            ultimate: row.get(5)?,
            signatures: row.get(6)?,
            content_address: row.get(7)?,
        })
    }
}

impl Store {
    /// What is known about a path; `None` when it is not valid.
    pub fn query(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        match self.query_own(path)? {
            Some(info) => Ok(Some(info)),
            None => self.query_lower(path),
        }
    }

    /// The same, without the store below.
    pub fn query_own(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        self.query_with(&self.database(), path)
    }

    /// Whether a path is valid: complete on disk and recorded in the database.
    pub fn is_valid(&self, path: &StorePath) -> Result<bool, StoreError> {
        Ok(self.is_own(path)? || self.query_lower(path)?.is_some())
    }

    /// Whether a path is valid in this very store, not only in one below it.
    pub fn is_own(&self, path: &StorePath) -> Result<bool, StoreError> {
        let database = self.database();
        id_of(&database, path).map(|id| id.is_some()).map_err(|source| self.failed("look a path up", source))
    }

    /// The given paths and all that they refer to, directly or through others.
    pub fn closure<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeMap<StorePath, PathInfo>, StoreError> {
        let mut pending: BTreeSet<StorePath> = paths.into_iter().cloned().collect();
        let mut found = BTreeMap::new();
        while let Some(path) = pending.pop_first() {
            let Some(info) = self.query(&path)? else { return Err(StoreError::NotValid { path }) };
            pending.extend(info.references.iter().filter(|reference| !found.contains_key(*reference)).cloned());
            pending.remove(&path);
            found.insert(path, info);
        }
        Ok(found)
    }

    /// The valid paths that refer to a path, possibly itself.
    pub fn referrers(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, StoreError> {
        let sql = "select path from Refs join ValidPaths on referrer = id \
                   where reference = (select id from ValidPaths where path = ?)";
        self.paths("look referrers up", sql, &path.to_string())
    }

    /// The valid derivations that have a path as an output.
    pub fn valid_derivers(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, StoreError> {
        let sql = "select v.path from DerivationOutputs d join ValidPaths v on d.drv = v.id where d.path = ?";
        self.paths("look derivers up", sql, &path.to_string())
    }

    /// Every valid path.
    pub fn all_paths(&self) -> Result<BTreeSet<StorePath>, StoreError> {
        // The parameter is there for the sake of `paths`; no path is empty.
        self.paths("list all paths", "select path from ValidPaths where path <> ?", "")
    }

    /// The valid path with these first 32 letters after the store directory.
    pub fn path_from_hash_part(&self, hash_part: &str) -> Result<Option<StorePath>, StoreError> {
        let prefix = format!("{}/{hash_part}", fodder_model::store_path::STORE_DIRECTORY);
        let sql = "select path from ValidPaths where path >= ? order by path limit 1";
        let next = self.paths("look a hash part up", sql, &prefix)?;
        Ok(next.into_iter().find(|path| path.hash_part() == hash_part))
    }

    /// The outputs of a valid derivation whose paths were known when it was registered, by output name.
    pub fn derivation_outputs(&self, derivation: &StorePath) -> Result<BTreeMap<String, StorePath>, StoreError> {
        let database = self.database();
        let rows = || -> rusqlite::Result<Vec<(String, String)>> {
            let sql = "select d.id, d.path from DerivationOutputs d join ValidPaths v on d.drv = v.id where v.path = ?";
            let mut statement = database.prepare_cached(sql)?;
            statement.query_map([derivation.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let rows = rows().map_err(|source| self.failed("look outputs up", source))?;
        rows.into_iter().map(|(name, text)| Ok((name, parse_path(derivation, "output path", text)?))).collect()
    }

    pub(crate) fn query_with(&self, database: &Connection, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        let full_path = path.to_string();
        let read = || -> rusqlite::Result<Option<(ValidPath, Vec<String>)>> {
            let sql = "select id, hash, registrationTime, deriver, narSize, ultimate, sigs, ca \
                       from ValidPaths where path = ?";
            let mut statement = database.prepare_cached(sql)?;
            let Some(row) = statement.query_row([&full_path], ValidPath::from_row).optional()? else { return Ok(None) };
            let sql = "select path from Refs join ValidPaths on reference = id where referrer = ?";
            let mut statement = database.prepare_cached(sql)?;
            let references = statement.query_map([row.id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(Some((row, references)))
        };
        let Some((row, references)) = read().map_err(|source| self.failed("look a path up", source))? else {
            return Ok(None);
        };
        let ValidPath { id: _, hash, registration_time, deriver, nar_size, ultimate, signatures, content_address } =
            row;
        let nar_hash = Hash::parse_any(&hash, Some(HashAlgorithm::Sha256));
        let references = references.into_iter().map(|text| parse_path(path, "reference", text));
        Ok(Some(PathInfo {
            path: path.clone(),
            nar_hash: nar_hash.map_err(|_| StoreError::CorruptRow { path: full_path, field: "hash", value: hash })?,
            nar_size: nar_size.and_then(|size| size.try_into().ok()).unwrap_or(0),
            references: references.collect::<Result<_, _>>()?,
            deriver: deriver.map(|text| parse_path(path, "deriver", text)).transpose()?,
            registration_time,
            ultimate: ultimate == Some(1),
            signatures: signatures.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect(),
            content_address: content_address.filter(|text| !text.is_empty()),
        }))
    }

    pub(crate) fn failed(&self, action: &'static str, source: rusqlite::Error) -> StoreError {
        database::failed(action, self.database_path(), source)
    }

    fn paths(&self, action: &'static str, sql: &str, parameter: &str) -> Result<BTreeSet<StorePath>, StoreError> {
        let database = self.database();
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement = database.prepare_cached(sql)?;
            statement.query_map(params![parameter], |row| row.get(0))?.collect()
        };
        let rows = read().map_err(|source| self.failed(action, source))?;
        let parse = |text: String| {
            let corrupt = |_| StoreError::CorruptRow { path: text.clone(), field: "path", value: text.clone() };
            StorePath::from_full_path(&text).map_err(corrupt)
        };
        rows.into_iter().map(parse).collect()
    }
}

/// The row number of a valid path.
pub(crate) fn id_of(database: &Connection, path: &StorePath) -> rusqlite::Result<Option<i64>> {
    let mut statement = database.prepare_cached("select id from ValidPaths where path = ?")?;
    statement.query_row([path.to_string()], |row| row.get(0)).optional()
}

fn parse_path(of: &StorePath, field: &'static str, text: String) -> Result<StorePath, StoreError> {
    StorePath::from_full_path(&text).map_err(|_| StoreError::CorruptRow { path: of.to_string(), field, value: text })
}
