//! Which paths are alive: what roots hold, all that it refers to, and what is kept for its sake.

use crate::error::StoreError;
use crate::store::Store;
use fodder_model::store_path::StorePath;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What else is kept of a live path; the defaults are Nix's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepRules {
    /// The derivation that it was built from (`keep-derivations`).
    pub derivations: bool,
    /// The outputs of a derivation (`keep-outputs`).
    pub outputs: bool,
}

impl Default for KeepRules {
    fn default() -> Self {
        KeepRules { derivations: true, outputs: false }
    }
}

/// All valid paths and how they hang together, as of one moment.
pub(crate) struct Graph {
    ids: HashMap<StorePath, i64>,
    nodes: BTreeMap<i64, Node>,
}

struct Node {
    path: StorePath,
    references: Vec<i64>,
    deriver: Option<StorePath>,
    outputs: Vec<StorePath>,
}

impl Graph {
    pub(crate) fn load(store: &Store) -> Result<Graph, StoreError> {
        let failed = |source| store.failed("read all paths", source);
        let database = store.database();
        // One transaction, one moment.
        let transaction = database.unchecked_transaction().map_err(failed)?;
        let mut graph = Graph { ids: HashMap::new(), nodes: BTreeMap::new() };
        let parse = |text: String| {
            let corrupt = |_| StoreError::CorruptRow { path: text.clone(), field: "path", value: text.clone() };
            StorePath::from_full_path(&text).map_err(corrupt)
        };
        let rows = |sql: &str| rows::<String>(&transaction, sql);
        for (id, text) in rows("select id, path from ValidPaths").map_err(failed)? {
            let path = parse(text)?;
            graph.ids.insert(path.clone(), id);
            graph.nodes.insert(id, Node { path, references: Vec::new(), deriver: None, outputs: Vec::new() });
        }
        for (id, text) in rows("select id, deriver from ValidPaths where deriver <> ''").map_err(failed)? {
            let deriver = parse(text)?;
            if let Some(node) = graph.nodes.get_mut(&id) {
                node.deriver = Some(deriver);
            }
        }
        for (id, reference) in self::rows(&transaction, "select referrer, reference from Refs").map_err(failed)? {
            if let Some(node) = graph.nodes.get_mut(&id) {
                node.references.push(reference);
            }
        }
        for (id, text) in rows("select drv, path from DerivationOutputs").map_err(failed)? {
            let output = parse(text)?;
            if let Some(node) = graph.nodes.get_mut(&id) {
                node.outputs.push(output);
            }
        }
        Ok(graph)
    }

    pub(crate) fn contains(&self, path: &StorePath) -> bool {
        self.ids.contains_key(path)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &StorePath> {
        self.nodes.values().map(|node| &node.path)
    }

    /// Adds to `live` what is kept by keeping `starts`.
    pub(crate) fn keep<'a>(
        &'a self,
        starts: impl IntoIterator<Item = &'a StorePath>,
        rules: KeepRules,
        live: &mut BTreeSet<StorePath>,
    ) {
        let mut pending: Vec<i64> = starts.into_iter().filter_map(|path| self.ids.get(path).copied()).collect();
        while let Some(id) = pending.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            if !live.insert(node.path.clone()) {
                continue;
            }
            let Node { path: _, references, deriver, outputs } = node;
            pending.extend(references);
            if rules.derivations {
                pending.extend(deriver.iter().filter_map(|path| self.ids.get(path)));
            }
            if rules.outputs {
                pending.extend(outputs.iter().filter_map(|path| self.ids.get(path)));
            }
        }
    }

    /// The paths among `wanted` so that each comes before what it refers to: the order in which they can be deleted.
    pub(crate) fn referrers_first(&self, wanted: &BTreeSet<StorePath>) -> Vec<StorePath> {
        let mut order = Vec::new();
        let mut seen: HashSet<i64> = HashSet::new();
        for start in wanted.iter().filter_map(|path| self.ids.get(path)) {
            let mut open = vec![(*start, 0)];
            if !seen.insert(*start) {
                continue;
            }
            while let Some((id, index)) = open.last_mut() {
                let Some(node) = self.nodes.get(id) else { break };
                match node.references.get(*index) {
                    Some(next) => {
                        *index += 1;
                        if seen.insert(*next) {
                            open.push((*next, 0));
                        }
                    }
                    None => {
                        if wanted.contains(&node.path) {
                            order.push(node.path.clone());
                        }
                        open.pop();
                    }
                }
            }
        }
        order.reverse();
        order
    }

    /// What refers to the given paths, directly or not, and these themselves.
    pub(crate) fn referrers_closure(&self, paths: &BTreeSet<StorePath>) -> BTreeSet<StorePath> {
        let mut referrers: HashMap<i64, Vec<i64>> = HashMap::new();
        for (id, node) in &self.nodes {
            for reference in &node.references {
                referrers.entry(*reference).or_default().push(*id);
            }
        }
        let mut found = BTreeSet::new();
        let mut pending: Vec<i64> = paths.iter().filter_map(|path| self.ids.get(path).copied()).collect();
        while let Some(id) = pending.pop() {
            if self.nodes.get(&id).is_some_and(|node| found.insert(node.path.clone())) {
                pending.extend(referrers.get(&id).into_iter().flatten());
            }
        }
        found
    }
}

/// All rows of two columns, the first of which is a row number.
fn rows<T: rusqlite::types::FromSql>(database: &rusqlite::Connection, sql: &str) -> rusqlite::Result<Vec<(i64, T)>> {
    database.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
