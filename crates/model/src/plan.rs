//! The planner: from a derivation and a machine to everything that will be done. Pure; `explain` prints its result and
//! `fodder-build` executes the same.

mod builtin;
mod content;
mod error;
mod handed_out;
mod limits;
mod network;
mod root;
mod settings;
mod weakened;

pub use builtin::{BUILTINS, MIRRORS_VARIABLE, NETRC_FILE};
pub use content::Content;
pub use error::PlanError;
pub use network::{NAME_SERVER, Network, NetworkMode, may_reach_network};
pub use settings::{ExtraPath, Settings};

use crate::{
    bytes::ByteString,
    checks::Rules,
    derivation::{Derivation, Kind},
    environment::{self, BUILD_DIRECTORY},
    host::{Certificates, HostFacts},
    limits::{ControlGroup, DecidedLimits, decide},
    network_policy::NetworkPolicy,
    options::Options,
    profile::Profile,
    reference_graph::{self, DerivationOutputs, Input},
    sandbox::{HostName, Identity, Namespace, Process, Program, SandboxPlan},
    short_form::Tool,
    store_path::StorePath,
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
    /// Who may be called through the gateway.
    pub network_policy: NetworkPolicy,
    /// The certificate bundle that the builder sees.
    pub certificates: Option<Certificates>,
    /// Variables whose values are the caller's.
    pub impure_variables: Vec<ByteString>,
    /// What protects less than usual, because the person who started the build asked for it; as they would ask again.
    pub allowed: Vec<String>,
    /// What outputs will be judged by.
    pub rules: Rules,
    /// How the output is hashed, and the hash where it is declared; `None` for input-addressed ones.
    pub content: Option<Content>,
    /// Outputs that are not scanned for references.
    pub discard_references: BTreeSet<String>,
    /// What the reader should know before it runs.
    pub notes: Vec<String>,
    /// What it may use up.
    pub limits: DecidedLimits,
    /// Whether a control group keeps some of them.
    pub control_group: ControlGroup,
    /// Why things are in the root, by path inside.
    pub reasons: BTreeMap<String, String>,
    /// The sandbox.
    pub sandbox: SandboxPlan,
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
    /// For derivations among the inputs whose reference graphs are asked for: what they were built as.
    pub derivation_outputs: &'a DerivationOutputs,
}

/// Makes the plan.
pub fn plan(request: &Request<'_>) -> Result<BuildPlan, PlanError> {
    let Request {
        derivation,
        path,
        options,
        inputs,
        host,
        profile,
        settings,
        tools,
        scratch,
        unique,
        derivation_outputs,
    } = *request;
    refuse_what_cannot_run(request)?;
    let outputs = content::written_paths(derivation, path, unique)?;
    let network = network::network(derivation, path, settings)?;
    let has_network = match network.mode {
        NetworkMode::None => false,
        NetworkMode::Gateway | NetworkMode::Host => true,
    };
    let graphs = reference_graph::graphs(options, inputs, derivation_outputs)?;
    let cores = if settings.cores == 0 { host.cores } else { settings.cores };
    let has_bundle = has_network && host.certificates.is_some();
    let given = handed_out::variables(&host.environment, &settings.environment, has_bundle);
    let start = environment::builder_inputs(derivation, options, &outputs, &graphs, cores, &given);
    let mut notes = options.warnings.clone();
    notes.extend(handed_out::notes(derivation, options, &given));
    let limits = decide(&settings.limits, &profile.limits, &settings.file_limits, &host.resources);
    let mut root = root::Root {
        inputs,
        outputs: &outputs,
        host,
        profile,
        extra_paths: &settings.extra_paths,
        own_paths: &settings.own_paths,
        tools,
        scratch,
        files: &start.files,
        network: network.mode,
    }
    .steps(&mut notes)?;
    limits::limit_tmpfs(&mut root.steps, &limits, &host.resources);

    let mut namespaces: BTreeSet<Namespace> =
        [Namespace::User, Namespace::Mount, Namespace::Pid, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup].into();
    match network.mode {
        NetworkMode::None | NetworkMode::Gateway => drop(namespaces.insert(Namespace::Network)),
        NetworkMode::Host => {}
    }
    let mut environment = start.environment;
    let program = if request.is_builtin() {
        request.add_builtin_variables(&mut environment);
        Program::Internal(derivation.builder.to_string())
    } else {
        Program::Execute(derivation.builder.clone())
    };
    // Only what the caller gave counts: a derivation may say what it likes in variables of the same names.
    let told: BTreeMap<ByteString, ByteString> = builtin::PROXY_VARIABLES
        .iter()
        .map(|name| ByteString::from(*name))
        .filter(|name| request.is_builtin() || start.impure.contains(name))
        .filter_map(|name| host.environment.get_key_value(&name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let network_policy = network::policy(settings, &told);
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
        limits: limits::sandbox_limits(&limits, &host.resources, scratch),
        seccomp: profile.seccomp.lifted(&settings.allowed),
        door: network::door(network.mode, host, &network_policy),
        allowed: settings.allowed.clone(),
    };
    let allowed = weakened::flags(settings, network.mode, &network_policy, &start.impure);
    Ok(BuildPlan {
        derivation: path.clone(),
        kind: derivation.kind(),
        outputs,
        profile: profile.name.clone(),
        certificates: host.certificates.clone().filter(|_| has_network),
        network,
        network_policy,
        allowed,
        impure_variables: start.impure,
        rules: Rules {
            derivation: path.clone(),
            fixed: derivation.fixed_content().map(|content| content.hash),
            outputs: options.checks.clone(),
        },
        content: content::content(derivation, settings.self_references),
        discard_references: options.discard_references.clone(),
        notes,
        limits,
        control_group: host.resources.control_group.clone(),
        reasons: root.reasons,
        sandbox,
    })
}

fn refuse_what_cannot_run(request: &Request<'_>) -> Result<(), PlanError> {
    let Request { derivation, path, options, host, .. } = *request;
    request.check_builtin()?;
    let features = (!options.required_features.is_subset(&host.features))
        .then(|| PlanError::Features { required: options.required_features.clone(), available: host.features.clone() });
    if !request.is_builtin() && derivation.system != host.system && !host.extra_platforms.contains(&derivation.system) {
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

#[cfg(test)]
mod tests;
