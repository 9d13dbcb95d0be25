//! Before the builder: sources into the store, locks, inputs, the machine, scratch directories, the plan.

use crate::{
    BuildRequest, ProfileChoice,
    error::BuildError,
    host::{self, ProbeRequest},
    inputs::{derivation_outputs, inputs, is_valid, shape},
    load::Loaded,
    outcome::Event,
    recording,
};
use fodder_gateway::record::Tap;
use fodder_model::{
    bytes::ByteString,
    derivation::{Output, resolve::ResolveError},
    hash::Hash,
    netrc,
    plan::{self, BuildPlan, NETRC_FILE, PlanError, Request, ScratchPaths, Settings},
    profile::{self, Profile},
    reference_graph::{DerivationOutputs, Input, InputShape, source_address},
    sandbox::BindKind,
    short_form::{self, FileNetwork},
    store_path::StorePath,
};
use fodder_store::{BuildUser, PathLocks, Scratch, ScratchPart, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::Path,
};

/// A build that can run.
#[derive(Debug)]
pub struct Prepared {
    /// What will be done.
    pub plan: BuildPlan,
    /// The closure of the inputs.
    pub inputs: BTreeMap<StorePath, Input>,
    pub(crate) scratch: Scratch,
    /// What is done with its exchanges.
    pub(crate) tap: Tap,
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
    store.remove_leftovers()?;
    let scratch = Scratch::create(store)?;
    let user = if nix::unistd::geteuid().is_root() { Some(fodder_store::allocate_build_user(store)?) } else { None };
    let owner = user.as_ref().map(|user| (user.uid, user.gid));
    scratch.part(ScratchPart::Root, 0o700, None)?;
    scratch.part(ScratchPart::Build, 0o700, owner)?;
    scratch.part(ScratchPart::Tmp, 0o1777, owner)?;
    let outputs = scratch.part(ScratchPart::Store, 0o1775, owner)?;
    let paths = scratch_paths(scratch.path());
    let identity = owner.unwrap_or_else(host::own_identity);
    let built = match derivation_outputs(loaded, store, &inputs)? {
        Ok(built) => built,
        Err(refused) => return Ok(Err(refused)),
    };
    hand_over_passwords(loaded, request, &scratch, owner)?;
    let tap = recording::open(request)?;
    let adapted = recording::with_authority(request, &tap, scratch.path(), &inputs)?;
    match plan_with(loaded, &inputs, &built, &adapted, identity, Some(scratch.path()), &paths)? {
        Ok(mut plan) => {
            recording::adapt(&mut plan, &tap, request)?;
            Ok(Ok(Prepared { plan, inputs, scratch, tap, outputs, user }))
        }
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
    let built = match store {
        Some(store) => match derivation_outputs(loaded, store, &inputs)? {
            Ok(built) => built,
            Err(refused) => return Ok(Err(refused)),
        },
        None => DerivationOutputs::default(),
    };
    let plan = plan_with(loaded, &inputs, &built, request, identity, None, &scratch_paths(&scratch))?;
    Ok(plan.map(|mut plan| {
        plan.notes.extend(notes);
        plan
    }))
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
    built: &DerivationOutputs,
    request: &BuildRequest,
    builder: (u32, u32),
    scratch: Option<&Path>,
    paths: &ScratchPaths,
) -> Result<Result<BuildPlan, Refused>, BuildError> {
    let profile = profile_of(loaded, request)?;
    let settings = settings(loaded, request, &profile);
    let host = host::probe(&ProbeRequest {
        profile: &profile,
        extra_paths: &settings.extra_paths,
        own_paths: &settings.own_paths,
        tools: &loaded.tools,
        ca_file: request.ca_file.as_deref(),
        scratch,
        builder,
        disk: paths.root.as_path(),
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
        derivation_outputs: built,
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

/// Puts a copy of the file with passwords where the built-in fetcher looks for it, for nobody else to read; no other builder gets
/// one. Not part of the plan: that is printed.
fn hand_over_passwords(
    loaded: &Loaded,
    request: &BuildRequest,
    scratch: &Scratch,
    owner: Option<(u32, u32)>,
) -> Result<(), BuildError> {
    use std::{io::Read as _, os::unix::fs::OpenOptionsExt as _};
    let Some(source) = request.netrc_file.as_ref().filter(|_| loaded.derivation.builder == *"builtin:fetchurl") else {
        return Ok(());
    };
    let mut text = Vec::new();
    let opened = std::fs::File::open(source);
    let read = opened.and_then(|file| file.take(netrc::SIZE_LIMIT + 1).read_to_end(&mut text));
    let size = read.map_err(|error| BuildError::Read { path: source.clone(), source: error })?;
    if size as u64 > netrc::SIZE_LIMIT {
        let error = std::io::Error::other(format!("it is larger than {} bytes", netrc::SIZE_LIMIT));
        return Err(BuildError::Read { path: source.clone(), source: error });
    }
    let path = scratch.part_path(ScratchPart::Build).join(NETRC_FILE);
    let failed = |source| BuildError::Write { path: path.clone(), source };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    std::io::Write::write_all(&mut file, &text).map_err(failed)?;
    if let Some((user, group)) = owner {
        std::os::unix::fs::fchown(&file, Some(user), Some(group)).map_err(failed)?;
    }
    Ok(())
}

/// What was asked for, with what the profile and the file say about the network: the person comes first, and a file can only take
/// away.
fn settings(loaded: &Loaded, request: &BuildRequest, profile: &Profile) -> Settings {
    let mut settings = request.settings();
    let FileNetwork { mode, allow, deny } = loaded.network.clone();
    if plan::may_reach_network(&loaded.derivation) {
        settings.network = settings.network.or(mode).or(profile.network.mode);
    }
    settings.file_limits = loaded.limits.clone();
    let policy = &mut settings.network_policy;
    policy.allow.extend(profile.network.policy.allow.iter().cloned());
    policy.deny.extend(profile.network.policy.deny.iter().cloned());
    policy.loopback_ports.extend(&profile.network.policy.loopback_ports);
    policy.deny.extend(deny);
    policy.only.extend(allow);
    settings
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
