//! The inputs of a build: the closure of its sources and of its input derivations' outputs.

use crate::{error::BuildError, load::Loaded, prepare::Refused};
use fodder_model::{
    bytes::ByteString,
    derivation::aterm,
    reference_graph::{DerivationOutputs, Input, InputShape},
    sandbox::BindKind,
    store_path::StorePath,
};
use fodder_store::{PathInfo, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The closure of the inputs. `planned` stands in for paths that are not in the store yet.
pub(crate) fn inputs(
    loaded: &Loaded,
    store: Option<&Store>,
    planned: &BTreeMap<StorePath, Input>,
) -> Result<Result<BTreeMap<StorePath, Input>, Refused>, BuildError> {
    keep_inputs(loaded, store)?;
    let mut wanted: BTreeSet<StorePath> = BTreeSet::new();
    let mut inputs = BTreeMap::new();
    for source in &loaded.derivation.input_sources {
        if is_valid(store, source)? {
            wanted.insert(source.clone());
        } else if let Some(input) = planned.get(source) {
            inputs.insert(source.clone(), input.clone());
        } else {
            return Ok(Err(Refused::MissingSource(source.clone())));
        }
    }
    for (path, outputs) in &loaded.derivation.input_derivations {
        let Some(derivation) = loaded.set.get(path) else {
            return Ok(Err(Refused::MissingDerivation(path.clone())));
        };
        let known = derivation.known_output_paths();
        for output in outputs {
            match known.get(output.as_str()) {
                Some(Some(output_path)) if is_valid(store, output_path)? => drop(wanted.insert(output_path.clone())),
                Some(Some(output_path)) if planned.contains_key(output_path) => {
                    inputs
                        .extend(planned.get_key_value(output_path).map(|(path, input)| (path.clone(), input.clone())));
                }
                Some(Some(output_path)) => {
                    return Ok(Err(Refused::MissingDependency {
                        derivation: path.clone(),
                        output: output.clone(),
                        path: output_path.clone(),
                    }));
                }
                Some(None) | None => return Ok(Err(Refused::MissingDerivation(path.clone()))),
            }
        }
    }
    if let Some(store) = store {
        for (path, info) in store.closure(&wanted)? {
            inputs.insert(path, input(&info, &store.real_path(&info.path))?);
        }
    }
    Ok(Ok(inputs))
}

fn input(info: &PathInfo, real_path: &Path) -> Result<Input, BuildError> {
    Ok(Input {
        references: info.references.clone(),
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        content_address: info.content_address.clone(),
        real_path: ByteString::from(real_path),
        shape: shape(real_path)?,
    })
}

pub(crate) fn shape(path: &Path) -> Result<InputShape, BuildError> {
    let at = |source| BuildError::Read { path: PathBuf::from(path), source };
    let metadata = std::fs::symlink_metadata(path).map_err(at)?;
    Ok(if metadata.is_symlink() {
        InputShape::Symlink(ByteString::from(std::fs::read_link(path).map_err(at)?.as_path()))
    } else if metadata.is_dir() {
        InputShape::Mountable(BindKind::Directory)
    } else {
        InputShape::Mountable(BindKind::File)
    })
}

/// What derivations among the inputs were built as, where a reference graph is asked for: it lists that too, as in Nix.
pub(crate) fn derivation_outputs(
    loaded: &Loaded,
    store: &Store,
    inputs: &BTreeMap<StorePath, Input>,
) -> Result<Result<DerivationOutputs, Refused>, BuildError> {
    let mut built = DerivationOutputs::default();
    if loaded.options.reference_graphs.is_empty() {
        return Ok(Ok(built));
    }
    for path in inputs.keys().filter(|path| path.is_derivation()) {
        let file = store.real_path(path);
        let text = std::fs::read(&file).map_err(|source| BuildError::Read { path: file, source })?;
        let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
        let Ok(derivation) = aterm::parse(name, &text) else { continue };
        let mut outputs = BTreeSet::new();
        for (_, output) in derivation.known_output_paths() {
            let Some(output) = output else {
                let words = "exportReferences on CA derivations is not yet implemented";
                return Ok(Err(Refused::Input(format!("'{path}': {words}"))));
            };
            if !store.is_valid(&output)? {
                return Ok(Err(Refused::MissingSource(output)));
            }
            outputs.insert(output);
        }
        for (path, info) in store.closure(&outputs)? {
            built.closure.insert(path, input(&info, &store.real_path(&info.path))?);
        }
        built.outputs.insert(path.clone(), outputs);
    }
    Ok(Ok(built))
}

/// Keeps whatever will be asked for from garbage collection, before it is: a collector that runs meanwhile would delete it
/// after the answer.
fn keep_inputs(loaded: &Loaded, store: Option<&Store>) -> Result<(), BuildError> {
    let Some(store) = store.filter(|store| store.is_writable()) else { return Ok(()) };
    let outputs = loaded.derivation.input_derivations.keys().filter_map(|path| loaded.set.get(path));
    let outputs: Vec<StorePath> =
        outputs.flat_map(|derivation| derivation.known_output_paths().into_values().flatten()).collect();
    store.add_temporary_roots(loaded.derivation.input_sources.iter().chain(&outputs))?;
    Ok(())
}

/// Whether a path is valid; nothing is, where there is no store.
pub(crate) fn is_valid(store: Option<&Store>, path: &StorePath) -> Result<bool, BuildError> {
    Ok(match store {
        Some(store) => store.is_valid(path)?,
        None => false,
    })
}
