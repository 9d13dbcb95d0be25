//! Before the builder: sources into the store, locks, inputs, the machine, scratch directories, the plan.

use crate::{
    BuildRequest, ProfileChoice,
    error::BuildError,
    host::{self, ProbeRequest},
    load::Loaded,
    outcome::Event,
};
use fodder_model::{
    bytes::ByteString,
    derivation::{Output, resolve::ResolveError},
    hash::Hash,
    plan::{self, BuildPlan, PlanError, Request, ScratchPaths},
    profile::{self, Profile},
    reference_graph::{Input, InputShape, source_address},
    sandbox::BindKind,
    short_form,
    store_path::StorePath,
};
use fodder_store::{BuildUser, PathInfo, PathLocks, Scratch, ScratchPart, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// A build that can run.
#[derive(Debug)]
pub struct Prepared {
    /// What will be done.
    pub plan: BuildPlan,
    /// The closure of the inputs.
    pub inputs: BTreeMap<StorePath, Input>,
    pub(crate) scratch: Scratch,
    /// The directory that the builder sees as the store.
    pub(crate) outputs: OwnedFd,
    /// Held for as long as files of this user may exist.
    pub(crate) user: Option<BuildUser>,
}

/// Why a derivation is not built on this machine; a result, not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The planner says no.
    #[error("{0}")]
    Plan(PlanError),
    /// Source paths that nobody has.
    #[error("path '{0}' is not valid: it is in no store that fodder uses")]
    MissingSource(StorePath),
    /// Outputs of input derivations that are not built.
    #[error("output '{output}' of its input derivation '{derivation}' is not built: '{path}' is not valid")]
    MissingDependency {
        /// The input derivation.
        derivation: StorePath,
        /// Its output.
        output: String,
        /// Where that would be.
        path: StorePath,
    },
    /// Outputs of input derivations whose paths nobody knows yet.
    #[error("{0}")]
    NotBuilt(ResolveError),
    /// The derivation itself is wrong.
    #[error("{0}")]
    Input(String),
    /// An input derivation that is nowhere.
    #[error("its input derivation '{0}' is neither in the file nor in the store")]
    MissingDerivation(StorePath),
}

/// Copies the sources of a short form and its setup script to the store, as far as they are not there.
pub(crate) fn add_sources(loaded: &Loaded, store: &Store, time: i64) -> Result<(), BuildError> {
    for source in &loaded.sources {
        store.add_temporary_roots([&source.path])?;
        if !store.is_valid(&source.path)? {
            let added = store.add_source(&source.name, &source.file, time)?;
            if added.path != source.path {
                let changed = std::io::Error::other("it changed while it was read");
                return Err(BuildError::Read { path: source.file.clone(), source: changed });
            }
        }
    }
    let setup = short_form::setup_script_path();
    if loaded.derivation.input_sources.contains(&setup) {
        store.add_temporary_roots([&setup])?;
        if !store.is_valid(&setup)? {
            let directory =
                tempfile::tempdir().map_err(|source| BuildError::Write { path: std::env::temp_dir(), source })?;
            let file = directory.path().join(short_form::SETUP_SCRIPT_NAME);
            std::fs::write(&file, short_form::setup_script())
                .map_err(|source| BuildError::Write { path: file.clone(), source })?;
            store.add_source(short_form::SETUP_SCRIPT_NAME, &file, time)?;
        }
    }
    Ok(())
}

/// The derivation becomes valid if all that it refers to is; otherwise its outputs name it as their deriver all the same, as Nix
/// allows.
pub(crate) fn add_derivation(loaded: &Loaded, store: &Store, time: i64) -> Result<(), BuildError> {
    let derivation = &loaded.derivation;
    let references: BTreeSet<StorePath> =
        derivation.input_sources.iter().chain(derivation.input_derivations.keys()).cloned().collect();
    for reference in &references {
        // Nor is anything copied from a store below ours for its sake.
        if !store.is_own(reference)? {
            return Ok(());
        }
    }
    let text = fodder_model::derivation::aterm::write(derivation);
    let outputs = derivation
        .known_output_paths()
        .into_iter()
        .filter_map(|(name, path)| path.map(|path| (name.to_owned(), path)))
        .collect();
    store.add_derivation(loaded.path.name(), &text, &references, &outputs, time)?;
    Ok(())
}

/// Takes the locks of all outputs, so that two builds of one path take turns. Outputs whose path will follow from their contents
/// are locked by derivation and name, as in Nix; nobody waits for an impure one.
pub(crate) fn lock_outputs<'store>(
    loaded: &Loaded,
    store: &'store Store,
    observe: &mut dyn FnMut(Event),
) -> Result<PathLocks<'store>, BuildError> {
    let mut paths: BTreeSet<StorePath> = loaded.derivation.known_output_paths().into_values().flatten().collect();
    for (name, output) in &loaded.derivation.outputs {
        match output {
            Output::InputAddressed { .. } | Output::Fixed { .. } | Output::Deferred | Output::Impure { .. } => {}
            Output::Floating { .. } => {
                paths.extend(StorePath::from_base_name(&format!("{}.{name}", loaded.path.base_name())));
            }
        }
    }
    store.add_temporary_roots(&paths)?;
    Ok(store.lock_paths(&paths, |path: &StorePath| observe(Event::WaitingFor(path.clone())))?)
}

/// The plan, with everything in place to execute it.
pub fn prepare(
    loaded: &Loaded,
    store: &Store,
    request: &BuildRequest,
) -> Result<Result<Prepared, Refused>, BuildError> {
    let inputs = match inputs(loaded, Some(store), &BTreeMap::new())? {
        Ok(inputs) => inputs,
        Err(refused) => return Ok(Err(refused)),
    };
    // What runs that were killed have left is removed by the next one, which is this.
    Scratch::reap_stale(store)?;
    let scratch = Scratch::create(store)?;
    let user = if nix::unistd::geteuid().is_root() { Some(fodder_store::allocate_build_user(store)?) } else { None };
    let owner = user.as_ref().map(|user| (user.uid, user.gid));
    scratch.part(ScratchPart::Root, 0o700, None)?;
    scratch.part(ScratchPart::Build, 0o700, owner)?;
    scratch.part(ScratchPart::Tmp, 0o1777, owner)?;
    let outputs = scratch.part(ScratchPart::Store, 0o1775, owner)?;
    let paths = scratch_paths(scratch.path());
    let identity = owner.unwrap_or_else(host::own_identity);
    match plan_with(loaded, &inputs, request, identity, Some(scratch.path()), &paths)? {
        Ok(plan) => Ok(Ok(Prepared { plan, inputs, scratch, outputs, user })),
        Err(refused) => Ok(Err(refused)),
    }
}

/// The same plan, without touching anything: the scratch directory's name is a stand-in, and sources that are not in the store
/// yet count as if they were.
pub fn prepare_to_explain(
    loaded: &Loaded,
    store: Option<&Store>,
    store_root: &Path,
    request: &BuildRequest,
) -> Result<Result<BuildPlan, Refused>, BuildError> {
    let mut planned = BTreeMap::new();
    let hash = Hash::zero(fodder_model::hash::HashAlgorithm::Sha256);
    let mut add = |path: &StorePath, shape| {
        let real_path = store_root.join("nix/store").join(path.base_name());
        let input = Input {
            references: BTreeSet::new(),
            nar_hash: hash,
            nar_size: 0,
            content_address: Some(source_address(hash)),
            real_path: ByteString::from(real_path.as_path()),
            shape,
        };
        planned.insert(path.clone(), input);
    };
    for source in &loaded.sources {
        add(&source.path, shape(&source.file)?);
    }
    add(&short_form::setup_script_path(), InputShape::Mountable(BindKind::File));
    // What would be built first counts as if it were; what it will be is not known yet, and most outputs are directories.
    let mut notes = Vec::new();
    for (path, outputs) in &loaded.derivation.input_derivations {
        let known = loaded.set.get(path).map(fodder_model::derivation::Derivation::known_output_paths);
        for output in known.into_iter().flatten().filter(|(name, _)| outputs.contains(*name)) {
            if let (_, Some(output_path)) = output
                && !is_valid(store, &output_path)?
            {
                add(&output_path, InputShape::Mountable(BindKind::Directory));
                notes.push(format!("'{output_path}' is not there yet and would be built first"));
            }
        }
    }
    let inputs = match inputs(loaded, store, &planned)? {
        Ok(inputs) => inputs,
        Err(refused) => return Ok(Err(refused)),
    };
    let scratch = store_root.join("nix/var/nix/builds/SCRATCH");
    let identity = if nix::unistd::geteuid().is_root() {
        let id = fodder_store::first_build_user()?;
        (id, id)
    } else {
        host::own_identity()
    };
    let plan = plan_with(loaded, &inputs, request, identity, None, &scratch_paths(&scratch))?;
    Ok(plan.map(|mut plan| {
        plan.notes.extend(notes);
        plan
    }))
}

/// Whether a path is valid; nothing is, where there is no store.
fn is_valid(store: Option<&Store>, path: &StorePath) -> Result<bool, BuildError> {
    Ok(match store {
        Some(store) => store.is_valid(path)?,
        None => false,
    })
}

fn scratch_paths(scratch: &Path) -> ScratchPaths {
    let part = |part: ScratchPart| ByteString::from(scratch.join(part.name()).as_path());
    ScratchPaths {
        root: part(ScratchPart::Root),
        build: part(ScratchPart::Build),
        temporary: part(ScratchPart::Tmp),
        store: part(ScratchPart::Store),
    }
}

fn plan_with(
    loaded: &Loaded,
    inputs: &BTreeMap<StorePath, Input>,
    request: &BuildRequest,
    builder: (u32, u32),
    scratch: Option<&Path>,
    paths: &ScratchPaths,
) -> Result<Result<BuildPlan, Refused>, BuildError> {
    let profile = profile_of(loaded, request)?;
    let settings = request.settings();
    let host = host::probe(&ProbeRequest {
        profile: &profile,
        extra_paths: &settings.extra_paths,
        tools: &loaded.tools,
        ca_file: request.ca_file.as_deref(),
        scratch,
        builder,
    })?;
    let planned = plan::plan(&Request {
        derivation: &loaded.derivation,
        path: &loaded.path,
        options: &loaded.options,
        inputs,
        host: &host,
        profile: &profile,
        settings: &settings,
        tools: &loaded.tools,
        scratch: paths,
        unique: &scratch.and_then(Path::file_name).unwrap_or_default().to_string_lossy(),
    });
    match planned {
        Ok(mut plan) => {
            plan.notes.splice(0..0, loaded.notes.iter().cloned());
            Ok(Ok(plan))
        }
        Err(
            error @ (PlanError::HostFile { .. } | PlanError::NoCertificates | PlanError::NetworkNotDeclared { .. }),
        ) => Err(BuildError::Plan(error)),
        Err(
            error @ (PlanError::Platform { .. }
            | PlanError::Features { .. }
            | PlanError::NoSandbox { .. }
            | PlanError::ImpurePath { .. }
            | PlanError::Unsupported { .. }
            | PlanError::Path(_)
            | PlanError::Graph(_)),
        ) => Ok(Err(Refused::Plan(error))),
    }
}

fn profile_of(loaded: &Loaded, request: &BuildRequest) -> Result<Profile, BuildError> {
    let (name, text) = match &request.profile {
        Some(ProfileChoice::Text { name, text }) => return Ok(profile::parse(name, text)?),
        Some(ProfileChoice::Named(name)) => (name.as_str(), profile::built_in(name)),
        None => (loaded.profile.as_str(), profile::built_in(&loaded.profile)),
    };
    match text {
        Some(text) => Ok(profile::parse(name, text)?),
        None => Err(profile::ProfileError::UnknownBase { name: name.to_owned(), base: name.to_owned() }.into()),
    }
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

/// The closure of the inputs. `planned` stands in for paths that are not in the store yet.
fn inputs(
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

fn shape(path: &Path) -> Result<InputShape, BuildError> {
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
