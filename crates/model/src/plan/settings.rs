//! What a person can ask for, apart from the derivation.

use super::NetworkMode;
use crate::{
    bytes::ByteString, limits::LimitSettings, network_policy::NetworkPolicy, rewrite::SelfReferences,
    sandbox::Weakening,
};
use std::collections::BTreeSet;

/// What the person asked for, apart from the derivation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--cores`; 0 is all.
    pub cores: u32,
    /// `--limit`, `--timeout`, `--max-silent-time`, `--max-build-log-size`
    pub limits: LimitSettings,
    /// Limits of the file that is built, which can only lower those.
    pub file_limits: LimitSettings,
    /// `--network`
    pub network: Option<NetworkMode>,
    /// `--allow`, `--deny`, `--allow-loopback`
    pub network_policy: NetworkPolicy,
    /// `--allow-path`
    pub extra_paths: Vec<ExtraPath>,
    /// Files of the runner's own that stand in for what is there: a bundle with a recording's authority over that of an input.
    pub own_paths: Vec<ExtraPath>,
    /// Loopback ports that a recording answers for: nothing of this machine's is called.
    pub answered_ports: BTreeSet<u16>,
    /// `--allow-env`: variables that a derivation gets if it asks for them, beside those of proxies.
    pub environment: BTreeSet<ByteString>,
    /// `--hashed-mirrors`: where `builtin:fetchurl` looks for a file by its hash first.
    pub hashed_mirrors: Vec<String>,
    /// `--self-references`
    pub self_references: SelfReferences,
    /// `--allow-nested-namespaces`, `--allow-socketcall`
    pub allowed: BTreeSet<Weakening>,
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
