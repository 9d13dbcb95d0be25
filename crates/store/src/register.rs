//! Making paths valid: one transaction, after which they all are, or none.

use crate::{
    error::StoreError,
    path_info::{PathInfo, Registration},
    query::id_of,
    store::Store,
};
use fodder_model::{
    hash::{Hash, HashAlgorithm},
    store_path::StorePath,
};
use rusqlite::{Connection, TransactionBehavior, params};
use std::collections::BTreeMap;

impl Store {
    /// Makes paths valid whose objects are in place. References must be valid or among `registrations`, in any order.
    ///
    /// A path that is valid already stays as it is recorded; it is an error if its hash or references differ.
    pub fn register(&self, registrations: &[Registration]) -> Result<(), StoreError> {
        self.check_writable("register paths")?;
        let failed = |source| self.failed("register paths", source);
        for Registration { info, derivation_outputs: _ } in registrations {
            for reference in &info.references {
                // What is registered along with it is nobody else's.
                if !registrations.iter().any(|registration| registration.info.path == *reference) {
                    self.adopt(reference)?;
                }
            }
        }
        let mut database = self.database();
        // IMMEDIATE, because SQLite does not wait when a transaction that has read finds that it cannot write.
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut new: BTreeMap<&StorePath, &Registration> = BTreeMap::new();
        for registration in registrations {
            let path = &registration.info.path;
            if registration.info.nar_hash.algorithm() != HashAlgorithm::Sha256 {
                return Err(StoreError::NotSha256 { path: path.clone() });
            }
            if let Some(other) = new.get(path) {
                check_same(&other.info, &registration.info)?;
            } else if let Some(known) = self.query_with(&transaction, path)? {
                check_same(&known, &registration.info)?;
            } else {
                insert_path(&transaction, &registration.info).map_err(failed)?;
                new.insert(path, registration);
            }
        }
        // References second: those of one batch may form a chain in any order.
        for Registration { info, derivation_outputs } in new.into_values() {
            let id = id_of(&transaction, &info.path).map_err(failed)?.unwrap_or_default();
            for reference in &info.references {
                let Some(reference_id) = id_of(&transaction, reference).map_err(failed)? else {
                    let (path, reference) = (info.path.clone(), reference.clone());
                    return Err(StoreError::InvalidReference { path, reference });
                };
                execute(
                    &transaction,
                    "insert into Refs (referrer, reference) values (?, ?)",
                    params![id, reference_id],
                )
                .map_err(failed)?;
            }
            for (name, path) in derivation_outputs {
                let sql = "insert or replace into DerivationOutputs (drv, id, path) values (?, ?, ?)";
                execute(&transaction, sql, params![id, name, path.to_string()]).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }
}

fn insert_path(database: &Connection, info: &PathInfo) -> rusqlite::Result<()> {
    let PathInfo {
        path,
        nar_hash,
        nar_size,
        references: _, // a table of their own
        deriver,
        registration_time,
        ultimate,
        signatures,
        content_address,
    } = info;
    let sql = "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) \
               values (?, ?, ?, ?, ?, ?, ?, ?)";
    execute(
        database,
        sql,
        params![
            path.to_string(),
            database_hash(nar_hash),
            registration_time,
            deriver.as_ref().map(StorePath::to_string),
            (*nar_size != 0).then_some(*nar_size as i64),
            ultimate.then_some(1),
            (!signatures.is_empty()).then(|| signatures.join(" ")),
            content_address,
        ],
    )
}

/// `sha256:<base16>`, the only spelling that Nix reads here.
fn database_hash(hash: &Hash) -> String {
    format!("{}:{}", hash.algorithm(), hash.to_base16())
}

fn execute(database: &Connection, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<()> {
    database.prepare_cached(sql)?.execute(parameters).map(drop)
}

/// The rest of a row may differ: who built a path, and when, does not change what it is.
fn check_same(known: &PathInfo, offered: &PathInfo) -> Result<(), StoreError> {
    let field = match () {
        () if known.nar_hash != offered.nar_hash => "hash",
        () if known.references != offered.references => "set of references",
        () => return Ok(()),
    };
    Err(StoreError::Conflict { path: offered.path.clone(), field })
}
