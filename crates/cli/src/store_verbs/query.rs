//! `fodder store query`

use super::{
    arguments::QueryArguments,
    names::{store_path, store_paths},
};
use crate::{
    diagnose::Failure,
    words::{harmless, print_line},
};
use fodder_model::{
    derivation::{Derivation, aterm},
    store_path::StorePath,
};
use fodder_store::{PathInfo, Root, Store, StoreError, references_first};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn query(store: &Store, arguments: &QueryArguments) -> Result<u8, Failure> {
    let QueryArguments {
        paths,
        outputs: _, // the question when there is none
        requisites,
        references,
        referrers,
        referrers_closure,
        deriver,
        valid_derivers,
        hash,
        size,
        tree,
        graph,
        roots,
        resolve,
        binding,
        use_output,
        include_outputs,
    } = arguments;
    let given = store_paths(store, paths)?;
    let asked = |use_output: bool| -> Result<Vec<StorePath>, Failure> {
        let mut asked = Vec::new();
        for path in &given {
            match use_output && path.is_derivation() {
                true => asked.extend(outputs_of(store, path)?.into_values()),
                false => asked.push(path.clone()),
            }
        }
        Ok(asked)
    };
    if *resolve {
        given.iter().for_each(print_path);
    } else if *requisites || *references || *referrers || *referrers_closure {
        let mut found = BTreeSet::new();
        for path in asked(*use_output)? {
            match () {
                () if *requisites => found.extend(requisites_of(store, path, *include_outputs)?),
                () if *references => found.extend(valid(store, &path)?.references),
                () if *referrers => found.extend(store.referrers(&path)?),
                () => found.extend(referrers_closure_of(store, path)?),
            }
        }
        print_sorted(store, found)?;
    } else if *deriver {
        for path in &given {
            match valid(store, path)?.deriver {
                Some(deriver) => print_path(&deriver),
                None => print_line("unknown-deriver"),
            }
        }
    } else if *valid_derivers {
        let mut found = BTreeSet::new();
        for path in &given {
            found.extend(store.valid_derivers(path)?);
        }
        print_sorted(store, found)?;
    } else if *hash || *size {
        for path in asked(*use_output)? {
            let info = valid(store, &path)?;
            print_line(&match hash {
                true => format!("sha256:{}", info.nar_hash.to_nix32()),
                false => info.nar_size.to_string(),
            });
        }
    } else if *tree {
        let mut done = BTreeSet::new();
        for path in &given {
            print_tree(store, path, &mut done)?;
        }
    } else if *graph {
        print_graph(&store.closure(&asked(*use_output)?)?);
    } else if *roots {
        print_roots_of(store, &asked(*use_output)?)?;
    } else if let Some(name) = binding {
        for path in &given {
            print_line(&binding_of(store, path, name)?);
        }
    } else {
        asked(true)?.iter().for_each(print_path);
    }
    Ok(0)
}

fn print_path(path: &StorePath) {
    print_line(&path.to_string());
}

fn valid(store: &Store, path: &StorePath) -> Result<PathInfo, StoreError> {
    store.query(path)?.ok_or_else(|| StoreError::NotValid { path: path.clone() })
}

/// References first. What is not valid (the outputs of a derivation need not be) has none.
fn print_sorted(store: &Store, paths: BTreeSet<StorePath>) -> Result<(), StoreError> {
    let mut infos = BTreeMap::new();
    for path in paths {
        let info = valid(store, &path)?;
        infos.insert(path, info);
    }
    references_first(&infos).iter().for_each(print_path);
    Ok(())
}

fn requisites_of(store: &Store, path: StorePath, include_outputs: bool) -> Result<BTreeSet<StorePath>, StoreError> {
    let mut found = BTreeSet::new();
    let mut pending = vec![path];
    while let Some(path) = pending.pop() {
        if found.contains(&path) {
            continue;
        }
        pending.extend(valid(store, &path)?.references);
        if include_outputs && path.is_derivation() {
            for output in store.derivation_outputs(&path)?.into_values() {
                if store.is_valid(&output)? {
                    pending.push(output);
                }
            }
        }
        found.insert(path);
    }
    Ok(found)
}

fn referrers_closure_of(store: &Store, path: StorePath) -> Result<BTreeSet<StorePath>, StoreError> {
    valid(store, &path)?;
    let mut found = BTreeSet::new();
    let mut pending = vec![path];
    while let Some(path) = pending.pop() {
        if !found.contains(&path) {
            pending.extend(store.referrers(&path)?);
            found.insert(path);
        }
    }
    Ok(found)
}

/// The roots of everything that keeps the paths: what refers to them, and the outputs of derivations among that.
fn print_roots_of(store: &Store, paths: &[StorePath]) -> Result<(), StoreError> {
    let mut found = BTreeSet::new();
    let mut pending = paths.to_vec();
    while let Some(path) = pending.pop() {
        if found.contains(&path) {
            continue;
        }
        valid(store, &path)?;
        pending.extend(store.referrers(&path)?);
        if path.is_derivation() {
            for output in store.derivation_outputs(&path)?.into_values() {
                if store.is_valid(&output)? {
                    pending.push(output);
                }
            }
        }
        found.insert(path);
    }
    for Root { holder, path } in store.find_roots()? {
        if found.contains(&path) {
            print_line(&format!("{} -> {path}", harmless(holder.to_string().as_bytes())));
        }
    }
    Ok(())
}

fn derivation(store: &Store, path: &StorePath) -> Result<Derivation, Failure> {
    valid(store, path)?;
    let file = store.real_path(path);
    let text = std::fs::read(&file)
        .map_err(|error| Failure::new(format!("error: cannot read '{}': {error}", file.display()), 1))?;
    let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
    aterm::parse(name, &text).map_err(|error| Failure::new(format!("error: '{}': {error}", file.display()), 1))
}

/// The outputs with known paths, by name: the database has them of every valid derivation.
fn outputs_of(store: &Store, path: &StorePath) -> Result<BTreeMap<String, StorePath>, Failure> {
    valid(store, path)?;
    let known = store.derivation_outputs(path)?;
    if !known.is_empty() {
        return Ok(known);
    }
    let derivation = derivation(store, path)?;
    let known = derivation.known_output_paths().into_iter();
    Ok(known.filter_map(|(name, path)| Some((name.to_owned(), path?))).collect())
}

fn binding_of(store: &Store, path: &StorePath, name: &str) -> Result<String, Failure> {
    let path = match path.is_derivation() {
        true => path.clone(),
        false => valid(store, path)?
            .deriver
            .ok_or_else(|| Failure::new(format!("error: deriver of path '{path}' is not known"), 1))?,
    };
    let derivation = derivation(store, &store_path(store, path.to_string().as_ref())?)?;
    match derivation.environment.get(&name.into()) {
        Some(value) => Ok(String::from_utf8_lossy(value).into_owned()),
        None => {
            let text = format!("error: derivation '{path}' has no environment binding named '{name}'");
            Err(Failure::new(text, 1))
        }
    }
}

/// Nix's drawing; a path that was drawn before is not drawn again with what is below it.
fn print_tree(store: &Store, top: &StorePath, done: &mut BTreeSet<StorePath>) -> Result<(), StoreError> {
    valid(store, top)?;
    let mut pending = vec![(top.clone(), String::new(), String::new())];
    while let Some((path, first, rest)) = pending.pop() {
        let is_drawn = !done.insert(path.clone());
        print_line(&format!("{first}{path}{}", if is_drawn { " [...]" } else { "" }));
        if is_drawn {
            continue;
        }
        let mut infos = BTreeMap::new();
        for reference in valid(store, &path)?.references {
            let info = valid(store, &reference)?;
            infos.insert(reference, info);
        }
        for (index, reference) in references_first(&infos).into_iter().rev().enumerate() {
            let (first, next) = if index == 0 { ("└───", "    ") } else { ("├───", "│   ") };
            pending.push((reference, format!("{rest}{first}"), format!("{rest}{next}")));
        }
    }
    Ok(())
}

/// Nix's picture for `dot`, without its colours for paths that are not there: all are.
fn print_graph(closure: &BTreeMap<StorePath, PathInfo>) {
    const COLOURS: [&str; 5] = ["black", "red", "green", "blue", "magenta"];
    print_line("digraph G {");
    let mut edges = 0..;
    for (path, info) in closure {
        let label = harmless(path.name().as_bytes());
        print_line(&format!(
            "\"{}\" [label = \"{label}\", shape = box, style = filled, fillcolor = \"#ff0000\"];",
            path.base_name()
        ));
        for reference in info.references.iter().filter(|reference| *reference != path) {
            let colour = COLOURS[edges.next().unwrap_or(0) % COLOURS.len()];
            print_line(&format!("\"{}\" -> \"{}\" [color = \"{colour}\"];", reference.base_name(), path.base_name()));
        }
    }
    print_line("}");
}
