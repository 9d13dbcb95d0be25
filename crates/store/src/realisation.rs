//! Realisations: what the outputs of derivations turned out to be, where that does not follow from the derivation. The tables are
//! those of Nix 2.7 to 2.34 (migration `20220326-ca-derivations`); Nix creates them when the feature is on, we when there is
//! something to remember.

use crate::{error::StoreError, store::Store};
use fodder_model::{hash::Hash, store_path::StorePath};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// The tables as Nix 2.34 has them; the same statements do nothing where they are there already.
pub(crate) const TABLES: &str = "
create table if not exists SchemaMigrations (migration text primary key not null);
create table if not exists Realisations (
    id integer primary key autoincrement not null,
    drvPath text not null,
    outputName text not null,
    outputPath integer not null,
    signatures text,
    foreign key (outputPath) references ValidPaths(id) on delete cascade
);
create index if not exists IndexRealisations on Realisations(drvPath, outputName);
create trigger if not exists DeleteSelfRefsViaRealisations before delete on ValidPaths
  begin
    delete from RealisationsRefs where realisationReference in (
      select id from Realisations where outputPath = old.id
    );
  end;
create table if not exists RealisationsRefs (
    referrer integer not null,
    realisationReference integer,
    foreign key (referrer) references Realisations(id) on delete cascade,
    foreign key (realisationReference) references Realisations(id) on delete restrict
);
create index if not exists IndexRealisationsRefsRealisationReference on RealisationsRefs(realisationReference);
create index if not exists IndexRealisationsRefs on RealisationsRefs(referrer);
create index if not exists IndexRealisationsRefsOnOutputPath on Realisations(outputPath);
insert or ignore into SchemaMigrations values ('20220326-ca-derivations');
";

/// What an output turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realisation {
    /// Stands for the derivation: [`fodder_model::derivation::paths::Modulo::realisation_hash`].
    pub derivation_hash: Hash,
    /// Name of the output.
    pub output: String,
    /// Its path, which is valid.
    pub path: StorePath,
}

impl Store {
    /// What an output of a derivation turned out to be; `None` when nobody knows, or when it is not there any more.
    pub fn realisation(&self, derivation_hash: &Hash, output: &str) -> Result<Option<StorePath>, StoreError> {
        let found = find(&self.database(), &key(derivation_hash), output);
        let found = found.map_err(|source| self.failed("look a realisation up", source))?;
        let corrupt = |text: String| StoreError::CorruptRow { path: text.clone(), field: "path", value: text };
        found.map(|text| StorePath::from_full_path(&text).map_err(|_| corrupt(text))).transpose()
    }

    /// Remembers what outputs turned out to be; the paths must be valid. What is remembered already stays.
    pub fn register_realisations(&self, realisations: &[Realisation]) -> Result<(), StoreError> {
        self.check_writable("register realisations")?;
        let failed = |source| self.failed("register realisations", source);
        for realisation in realisations {
            self.adopt(&realisation.path)?;
        }
        let mut database = self.database();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute_batch(TABLES).map_err(failed)?;
        for Realisation { derivation_hash, output, path } in realisations {
            let key = key(derivation_hash);
            if find(&transaction, &key, output).map_err(failed)?.is_none() {
                let sql = "insert into Realisations (drvPath, outputName, outputPath, signatures) \
                           select ?, ?, id, '' from ValidPaths where path = ?";
                let count = transaction.execute(sql, params![key, output, path.to_string()]).map_err(failed)?;
                if count == 0 {
                    return Err(StoreError::NotValid { path: path.clone() });
                }
            }
        }
        transaction.commit().map_err(failed)
    }
}

fn find(database: &Connection, key: &str, output: &str) -> rusqlite::Result<Option<String>> {
    let sql = "select count(*) from sqlite_master where type = 'table' and name = 'Realisations'";
    if database.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(None);
    }
    let sql =
        "select path from Realisations r join ValidPaths v on r.outputPath = v.id where drvPath = ? and outputName = ?";
    database.prepare_cached(sql)?.query_row([key, output], |row| row.get(0)).optional()
}

/// The spelling of the column that is called `drvPath` for historical reasons.
fn key(derivation_hash: &Hash) -> String {
    format!("{}:{}", derivation_hash.algorithm(), derivation_hash.to_base16())
}
