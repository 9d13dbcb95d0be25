//! How a build is connected, and why.

use super::{PlanError, Settings};
use crate::{
    derivation::{Derivation, Kind},
    store_path::StorePath,
};
use serde::Serialize;

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

/// Decides whether a build may reach the network: from its outputs, and from nothing else.
pub fn may_reach_network(derivation: &Derivation) -> bool {
    match derivation.kind() {
        Kind::Fixed => true,
        Kind::InputAddressed | Kind::Floating | Kind::Deferred | Kind::Impure => false,
    }
}

pub(super) fn network(derivation: &Derivation, path: &StorePath, settings: &Settings) -> Result<Network, PlanError> {
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
