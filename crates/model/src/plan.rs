//! The planner: from a derivation and a machine to everything that will be done. Pure; `explain` prints its result and
//! `fodder-build` executes the same.

mod root;

use crate::{
    bytes::ByteString,
    checks::Rules,
    content_address::ContentMethod,
    derivation::{Derivation, Kind, Output, resolve},
    environment::{self, BUILD_DIRECTORY},
    hash::{Hash, HashAlgorithm},
    host::{Certificates, HostFacts},
    options::Options,
    profile::Profile,
    reference_graph::{self, GraphError, Input},
    rewrite::SelfReferences,
    sandbox::{HostName, Identity, Limits, Namespace, Process, Program, Resource, ResourceLimit, SandboxPlan},
    short_form::Tool,
    store_path::{StorePath, StorePathError},
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that building one derivation will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildPlan {
    /// The derivation.
    pub derivation: StorePath,
    /// Its kind.
    pub kind: Kind,
    /// Where the builder writes each output.
    pub outputs: BTreeMap<String, StorePath>,
    /// Name of the profile.
    pub profile: String,
    /// Whether the network is there, and why.
    pub network: Network,
    /// The certificate bundle that the builder sees.
    pub certificates: Option<Certificates>,
    /// Variables whose values are the caller's.
    pub impure_variables: Vec<ByteString>,
    /// What outputs will be judged by.
    pub rules: Rules,
    /// How the output is hashed, and the hash where it is declared; `None` for input-addressed ones.
    pub content: Option<Content>,
    /// Outputs that are not scanned for references.
    pub discard_references: BTreeSet<String>,
    /// What the reader should know before it runs.
    pub notes: Vec<String>,
    /// Why things are in the root, by path inside.
    pub reasons: BTreeMap<String, String>,
    /// The sandbox.
    pub sandbox: SandboxPlan,
}

/// How outputs are hashed whose path follows from what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// How.
    pub method: ContentMethod,
    /// With what.
    pub algorithm: HashAlgorithm,
    /// The hash that is declared, if one is.
    pub declared: Option<Hash>,
    /// How mentions of the output's own path count in the hash.
    pub self_references: SelfReferences,
}

/// How the build is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// A network namespace of its own with nothing but `lo`.
    None,
    /// The host's network namespace.
    Host,
}

/// The network and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Which.
    pub mode: NetworkMode,
    /// Why.
    pub why: String,
}

/// What the person asked for, apart from the derivation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--cores`; 0 is all.
    pub cores: u32,
    /// `--timeout`, `--max-silent-time`, `--max-log-size`; 0 is off.
    pub deadline_seconds: u64,
    /// Seconds.
    pub silence_seconds: u64,
    /// Bytes.
    pub log_bytes: u64,
    /// `--network`
    pub network: Option<NetworkMode>,
    /// `--extra-sandbox-paths`
    pub extra_paths: Vec<ExtraPath>,
    /// `--self-references`
    pub self_references: SelfReferences,
}

/// Places inside that nothing of the host's may take.
const RESERVED_TARGETS: [&str; 9] = ["", "/build", "/dev", "/etc", "/fodder", "/nix", "/nix/store", "/proc", "/tmp"];

/// A path of the host's that the person wants in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraPath {
    /// Inside.
    pub target: String,
    /// On the host.
    pub source: ByteString,
    /// Whether it is left out in silence when it does not exist.
    pub optional: bool,
}

impl ExtraPath {
    /// Reads `target[=source][?]`, Nix's spelling.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (text, optional) = match text.strip_suffix('?') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (target, source) = text.split_once('=').unwrap_or((text, text));
        for path in [target, source] {
            if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return Err(format!("'{path}' is not an absolute path without '..'; write TARGET or TARGET=SOURCE"));
            }
        }
        let clean: String =
            target.split('/').filter(|part| !part.is_empty() && *part != ".").map(|part| format!("/{part}")).collect();
        if RESERVED_TARGETS.contains(&clean.as_str()) {
            return Err(format!("'{target}' is the sandbox's own; name something below it, or another place"));
        }
        Ok(ExtraPath { target: clean, source: source.into(), optional })
    }
}

/// Directories of the runner's that the sandbox shows, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScratchPaths {
    /// Mount point of the root.
    pub root: ByteString,
    /// `/build`
    pub build: ByteString,
    /// `/tmp`
    pub temporary: ByteString,
    /// `/nix/store`
    pub store: ByteString,
}

/// All that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to build.
    pub derivation: &'a Derivation,
    /// Its path.
    pub path: &'a StorePath,
    /// Its options.
    pub options: &'a Options,
    /// The closure of its inputs.
    pub inputs: &'a BTreeMap<StorePath, Input>,
    /// The machine.
    pub host: &'a HostFacts,
    /// What the sandbox shows.
    pub profile: &'a Profile,
    /// What the person asked for.
    pub settings: &'a Settings,
    /// Tools that the short form asks for.
    pub tools: &'a [Tool],
    /// Scratch directories.
    pub scratch: &'a ScratchPaths,
    /// Another text for every build: what an impure output must not be the same as before for.
    pub unique: &'a str,
}

/// Why there is no plan. The words are Nix's where Nix has words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The machine cannot run it. Nix tells of missing features in the same breath.
    #[error("platform mismatch\nRequired system: '{required}'\nCurrent system: '{current}'{}", also(features.as_deref()))]
    Platform {
        /// The derivation's.
        required: String,
        /// The machine's.
        current: String,
        /// Features that it lacks as well.
        features: Option<Box<PlanError>>,
    },
    /// The machine lacks something.
    #[error(
        "missing system features\nRequired features: {{{}}}\nAvailable features: {{{}}}",
        join(required),
        join(available)
    )]
    Features {
        /// The derivation's.
        required: BTreeSet<String>,
        /// The machine's.
        available: BTreeSet<String>,
    },
    /// `__noChroot`
    #[error(
        "derivation '{path}' has '__noChroot' set, but that's not allowed when 'sandbox' is 'true': there is no build without a sandbox"
    )]
    NoSandbox {
        /// The derivation.
        path: StorePath,
    },
    /// `__impureHostDeps`
    #[error("derivation '{path}' requested impure path '{wanted}', but it was not in allowed-impure-host-deps")]
    ImpurePath {
        /// The derivation.
        path: StorePath,
        /// What it wants to see of the machine.
        wanted: String,
    },
    /// A kind that cannot be built here.
    #[error("derivation '{path}' {what}")]
    Unsupported {
        /// The derivation.
        path: StorePath,
        /// `is impure`, …
        what: String,
    },
    /// `--network host` without a declared hash.
    #[error("derivation '{path}' declares no output hash, so it gets no network")]
    NetworkNotDeclared {
        /// The derivation.
        path: StorePath,
    },
    /// An output's path cannot be formed.
    #[error(transparent)]
    Path(#[from] StorePathError),
    /// A reference graph that cannot be exported.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Something that the profile or the command line names is not there.
    #[error("the sandbox needs '{path}' of this machine for '{target}', and it is not there")]
    HostFile {
        /// On the host.
        path: ByteString,
        /// Inside.
        target: String,
    },
    /// There is no bundle to give to a build that needs one.
    #[error("no certificate bundle was found on this machine")]
    NoCertificates,
}

fn also(features: Option<&PlanError>) -> String {
    features.map(|features| format!("\nReason: {features}")).unwrap_or_default()
}

fn join(features: &BTreeSet<String>) -> String {
    features.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Decides whether a build may reach the network: from its outputs, and from nothing else.
pub fn may_reach_network(derivation: &Derivation) -> bool {
    match derivation.kind() {
        Kind::Fixed => true,
        Kind::InputAddressed | Kind::Floating | Kind::Deferred | Kind::Impure => false,
    }
}

/// Builders that are part of the runner.
pub const BUILTINS: [&str; 1] = ["builtin:fetchurl"];

/// What tells programs about proxies.
const PROXY_VARIABLES: [&str; 8] =
    ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

fn is_builtin(derivation: &Derivation) -> bool {
    derivation.builder.starts_with(b"builtin:")
}

/// Makes the plan.
pub fn plan(request: &Request<'_>) -> Result<BuildPlan, PlanError> {
    let Request { derivation, path, options, inputs, host, profile, settings, tools, scratch, unique } = *request;
    refuse_what_cannot_run(request)?;
    let outputs = written_paths(derivation, path, unique)?;
    let network = network(derivation, path, settings)?;
    let has_network = network.mode == NetworkMode::Host;
    let graphs = reference_graph::graphs(options, inputs)?;
    let cores = if settings.cores == 0 { host.cores } else { settings.cores };
    let start = environment::builder_inputs(derivation, options, &outputs, &graphs, cores, &host.environment);
    let mut notes = options.warnings.clone();
    let root = root::Root {
        inputs,
        outputs: &outputs,
        host,
        profile,
        extra_paths: &settings.extra_paths,
        tools,
        scratch,
        files: &start.files,
        has_network,
    }
    .steps(&mut notes)?;

    let mut namespaces: BTreeSet<Namespace> =
        [Namespace::User, Namespace::Mount, Namespace::Pid, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup].into();
    if !has_network {
        namespaces.insert(Namespace::Network);
    }
    let mut environment = start.environment;
    let program = if is_builtin(derivation) {
        // Built-in builders are part of the runner: as in Nix, they use the caller's proxies without being told to.
        for name in PROXY_VARIABLES {
            if let Some(value) = host.environment.get(&ByteString::from(name)) {
                environment.entry(name.into()).or_insert_with(|| value.clone());
            }
        }
        Program::Internal(derivation.builder.to_string())
    } else {
        Program::Execute(derivation.builder.clone())
    };
    let sandbox = SandboxPlan {
        namespaces,
        identity: Identity {
            inside_uid: 1000,
            inside_gid: 100,
            outside_uid: host.builder_uid,
            outside_gid: host.builder_gid,
        },
        host_name: HostName { host: "localhost".to_owned(), domain: "(none)".to_owned() },
        root_mount_point: scratch.root.clone(),
        root: root.steps,
        process: Process {
            program,
            arguments: start.arguments,
            environment: environment.into_iter().collect(),
            working_directory: BUILD_DIRECTORY.into(),
            umask: 0o022,
            fixed_addresses: true,
            linux32: matches!(
                derivation.system.as_str(),
                "i686-linux" | "armv7l-linux" | "armv6l-linux" | "armv5tel-linux"
            ) && derivation.system != host.system,
        },
        limits: Limits {
            deadline_seconds: some(settings.deadline_seconds),
            silence_seconds: some(settings.silence_seconds),
            log_bytes: some(settings.log_bytes),
            resources: vec![ResourceLimit { resource: Resource::Core, soft: Some(0), hard: None }],
        },
        seccomp: profile.seccomp.clone(),
    };
    Ok(BuildPlan {
        derivation: path.clone(),
        kind: derivation.kind(),
        outputs,
        profile: profile.name.clone(),
        certificates: host.certificates.clone().filter(|_| has_network),
        network,
        impure_variables: start.impure,
        rules: Rules {
            derivation: path.clone(),
            fixed: derivation.fixed_content().map(|content| content.hash),
            outputs: options.checks.clone(),
        },
        content: content(derivation, settings.self_references),
        discard_references: options.discard_references.clone(),
        notes,
        reasons: root.reasons,
        sandbox,
    })
}

/// Where the builder writes its outputs: at their paths, or at scratch paths where the path follows from what is written.
fn written_paths(
    derivation: &Derivation,
    path: &StorePath,
    unique: &str,
) -> Result<BTreeMap<String, StorePath>, PlanError> {
    let mut paths = BTreeMap::new();
    for (name, output) in &derivation.outputs {
        let written = match output {
            Output::InputAddressed { path } => path.clone(),
            Output::Fixed { content } => content.store_path(&derivation.output_path_name(name))?,
            Output::Floating { .. } => resolve::scratch_path(path, &derivation.name, name)?,
            Output::Impure { .. } => resolve::impure_scratch_path(unique, &derivation.name, name)?,
            Output::Deferred => {
                let what = "depends on outputs that have no path yet; build it, or them, first".to_owned();
                return Err(PlanError::Unsupported { path: path.clone(), what });
            }
        };
        paths.insert(name.clone(), written);
    }
    Ok(paths)
}

fn content(derivation: &Derivation, self_references: SelfReferences) -> Option<Content> {
    let (method, algorithm, declared) = match derivation.outputs.values().next()? {
        Output::Fixed { content } => (content.method, content.hash.algorithm(), Some(content.hash)),
        Output::Floating { method, algorithm } | Output::Impure { method, algorithm } => (*method, *algorithm, None),
        Output::InputAddressed { .. } | Output::Deferred => return None,
    };
    Some(Content { method, algorithm, declared, self_references })
}

fn some(limit: u64) -> Option<u64> {
    (limit != 0).then_some(limit)
}

fn refuse_what_cannot_run(request: &Request<'_>) -> Result<(), PlanError> {
    let Request { derivation, path, options, host, .. } = *request;
    let unsupported = |what: &str| Err(PlanError::Unsupported { path: path.clone(), what: what.to_owned() });
    if is_builtin(derivation) && !BUILTINS.iter().any(|builtin| derivation.builder == *builtin) {
        return unsupported(&format!("has the builder '{}', which is not supported yet", derivation.builder));
    }
    if is_builtin(derivation) && derivation.kind() != Kind::Fixed {
        return unsupported(&format!("has the builder '{}' and must be a fixed-output derivation", derivation.builder));
    }
    if is_builtin(derivation) && derivation.structured_attributes.is_some() {
        return unsupported(&format!("gives structured attributes to '{}', which reads variables", derivation.builder));
    }
    let features = (!options.required_features.is_subset(&host.features))
        .then(|| PlanError::Features { required: options.required_features.clone(), available: host.features.clone() });
    if !is_builtin(derivation) && derivation.system != host.system && !host.extra_platforms.contains(&derivation.system)
    {
        let (required, current) = (derivation.system.clone(), host.system.clone());
        return Err(PlanError::Platform { required, current, features: features.map(Box::new) });
    }
    if let Some(features) = features {
        return Err(features);
    }
    if options.wants_no_sandbox {
        return Err(PlanError::NoSandbox { path: path.clone() });
    }
    if let Some(wanted) = options.impure_host_paths.first() {
        return Err(PlanError::ImpurePath { path: path.clone(), wanted: wanted.clone() });
    }
    Ok(())
}

fn network(derivation: &Derivation, path: &StorePath, settings: &Settings) -> Result<Network, PlanError> {
    let network = |mode, why: &str| Ok(Network { mode, why: why.to_owned() });
    let is_impure = derivation.kind() == Kind::Impure;
    match (may_reach_network(derivation), settings.network) {
        (false, Some(NetworkMode::Host)) if is_impure => {
            network(NetworkMode::Host, "it is impure, and you asked for the host's namespace")
        }
        (false, None) if is_impure => {
            network(NetworkMode::None, "it is impure and declares no output hash; `--network host` lets it out")
        }
        (false, Some(NetworkMode::Host)) => Err(PlanError::NetworkNotDeclared { path: path.clone() }),
        (false, None | Some(NetworkMode::None)) => {
            network(NetworkMode::None, "no output hash is declared, so nothing would notice what was downloaded")
        }
        (true, Some(NetworkMode::None)) => network(NetworkMode::None, "you asked for none"),
        (true, Some(NetworkMode::Host)) => {
            network(NetworkMode::Host, "an output hash is declared, and you asked for the host's namespace")
        }
        (true, None) => network(NetworkMode::Host, "an output hash is declared, so whatever was downloaded is checked"),
    }
}
