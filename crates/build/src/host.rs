//! Looking at the machine, once, before a plan is made. The only place that reads the environment.

mod certificates;
mod control_group;
pub(crate) mod network;
mod resources;
mod shell;
mod tools;

use crate::error::BuildError;
use fodder_model::{
    bytes::ByteString,
    host::{HostFacts, HostFile},
    plan::ExtraPath,
    profile::Profile,
    sandbox::BindKind,
    short_form::Tool,
};
use fodder_store::{HttpSettings, Proxies};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::{ffi::OsStringExt, fs::FileTypeExt},
    path::Path,
};

/// What a build wants to know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct ProbeRequest<'a> {
    /// Names the host paths to look at.
    pub profile: &'a Profile,
    /// Likewise.
    pub extra_paths: &'a [ExtraPath],
    /// What the runner shows there of its own.
    pub own_paths: &'a [ExtraPath],
    /// Tools to find.
    pub tools: &'a [Tool],
    /// `--ca-file`
    pub ca_file: Option<&'a Path>,
    /// Where to write the embedded certificates if the machine has none; `None` when no build will run.
    pub scratch: Option<&'a Path>,
    /// Uid and gid that the builder gets outside.
    pub builder: (u32, u32),
    /// The store, or where it will be: builds take place on its disk.
    pub disk: &'a Path,
}

/// The platform of this machine, as derivations name it.
pub fn system() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x86_64-linux",
        "aarch64" => "aarch64-linux",
        "x86" => "i686-linux",
        "riscv64" => "riscv64-linux",
        other => other,
    }
}

/// How often a download is tried; Nix's default.
const ATTEMPTS: u32 = 5;

/// How this machine reaches the web: certificates in the order that builds have them, and the usual proxy variables.
pub fn http_settings(ca_file: Option<&Path>) -> Result<HttpSettings, BuildError> {
    let environment = environment();
    let value = |name: &str| {
        let upper = name.to_uppercase();
        let found = [name, &upper].into_iter().filter_map(|name| environment.get(&ByteString::from(name)));
        found.map(ToString::to_string).find(|value| !value.is_empty()).unwrap_or_default()
    };
    let proxies = Proxies {
        http: value("http_proxy"),
        https: value("https_proxy"),
        all: value("all_proxy"),
        except: value("no_proxy"),
    };
    Ok(HttpSettings { certificates: certificates::read(ca_file, &environment)?, attempts: ATTEMPTS, proxies })
}

/// The certificates of this machine, in PEM.
pub(crate) fn certificate_bundle(ca_file: Option<&Path>) -> Result<Vec<u8>, BuildError> {
    certificates::read(ca_file, &environment())
}

/// Where they are from.
pub(crate) fn certificates(ca_file: Option<&Path>) -> Result<Option<String>, BuildError> {
    Ok(certificates::find(ca_file, &environment(), None)?.map(|found| found.origin))
}

fn environment() -> BTreeMap<ByteString, ByteString> {
    std::env::vars_os()
        .map(|(name, value)| (ByteString::from(name.into_vec()), ByteString::from(value.into_vec())))
        .collect()
}

/// Looks at the machine.
pub fn probe(request: &ProbeRequest<'_>) -> Result<HostFacts, BuildError> {
    let ProbeRequest { profile, extra_paths, own_paths, tools, ca_file, scratch, builder, disk } = *request;
    let environment = environment();
    let extra = extra_paths.iter().chain(own_paths).map(|extra| extra.source.clone());
    let paths = profile.host_paths().into_iter().chain(extra);
    let files = paths
        .map(|path| {
            let file = host_file(path.as_path());
            (path, file)
        })
        .collect();
    let search_path = environment.get(&ByteString::from("PATH")).cloned().unwrap_or_default();
    let home = environment.get(&ByteString::from("HOME")).cloned().unwrap_or_default();
    Ok(HostFacts {
        system: system().to_owned(),
        extra_platforms: extra_platforms(),
        features: features(),
        cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        builder_uid: builder.0,
        builder_gid: builder.1,
        files,
        shell: shell::find(),
        certificates: certificates::find(ca_file, &environment, scratch)?,
        tools: tools.iter().map(|tool| (tool.clone(), tools::find(tool, &search_path, home.as_path()))).collect(),
        resources: resources::read(disk),
        has_ipv6: network::has_ipv6(),
        environment,
    })
}

/// The builder's uid and gid outside for a caller that is not root: the caller's own.
pub fn own_identity() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

fn host_file(path: &Path) -> HostFile {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return HostFile::Absent;
    };
    if !metadata.file_type().is_symlink() {
        return kind(&metadata).map_or(HostFile::Absent, HostFile::Present);
    }
    let Ok(target) = std::fs::read_link(path) else {
        return HostFile::Absent;
    };
    let resolved = std::fs::canonicalize(path).ok().and_then(|resolved| {
        let kind = kind(&std::fs::metadata(&resolved).ok()?)?;
        Some((ByteString::from(resolved.as_path()), kind))
    });
    HostFile::Symlink { target: ByteString::from(target.as_path()), resolved }
}

fn kind(metadata: &std::fs::Metadata) -> Option<BindKind> {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        Some(BindKind::Directory)
    } else if file_type.is_file() {
        Some(BindKind::File)
    } else if file_type.is_char_device() {
        Some(BindKind::Device)
    } else {
        None
    }
}

/// What else the processor runs: 32-bit programs on x86-64, and its micro-architecture levels.
fn extra_platforms() -> BTreeSet<String> {
    let mut platforms = BTreeSet::new();
    #[cfg(target_arch = "x86_64")]
    {
        platforms.extend(["i686-linux", "x86_64-v1-linux"].map(str::to_owned));
        // The psABI's levels; three features that arrived last stand for each.
        let is_v2 = std::is_x86_feature_detected!("sse4.2") && std::is_x86_feature_detected!("popcnt");
        let is_v3 = is_v2 && std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2");
        let is_v4 = is_v3 && std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512vl");
        for (level, is_supported) in [("v2", is_v2), ("v3", is_v3), ("v4", is_v4)] {
            if is_supported {
                platforms.insert(format!("x86_64-{level}-linux"));
            }
        }
    }
    platforms
}

/// Nix's default features, and that of the experimental one that is built here. Not `kvm`, since no profile shows `/dev/kvm`; not
/// `uid-range`, since there is one id.
fn features() -> BTreeSet<String> {
    ["benchmark", "big-parallel", "ca-derivations", "nixos-test"].map(str::to_owned).into()
}
