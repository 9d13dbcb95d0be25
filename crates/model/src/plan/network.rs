//! How a build is connected, and why.

use super::{PlanError, Settings};
use crate::{
    bytes::ByteString,
    derivation::{Derivation, Kind},
    host::HostFacts,
    network_policy::NetworkPolicy,
    proxy::{Proxies, Proxy},
    sandbox::Door,
    store_path::StorePath,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

/// How the build is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// A network namespace of its own with nothing but `lo`.
    None,
    /// A network namespace of its own with one door, at which the runner decides who is called, and knows it afterwards.
    Gateway,
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
        (false, Some(NetworkMode::Gateway)) if is_impure => {
            network(NetworkMode::Gateway, "it is impure, and you asked for the gateway")
        }
        (false, None) if is_impure => {
            network(NetworkMode::None, "it is impure and declares no output hash; `--network gateway` lets it out")
        }
        (false, Some(NetworkMode::Host | NetworkMode::Gateway)) => {
            Err(PlanError::NetworkNotDeclared { path: path.clone() })
        }
        (false, None | Some(NetworkMode::None)) => {
            network(NetworkMode::None, "no output hash is declared, so nothing would notice what was downloaded")
        }
        (true, Some(NetworkMode::None)) => network(NetworkMode::None, "you asked for none"),
        (true, Some(NetworkMode::Host)) => {
            network(NetworkMode::Host, "an output hash is declared, and you asked for the host's namespace")
        }
        (true, None | Some(NetworkMode::Gateway)) => {
            network(NetworkMode::Gateway, "an output hash is declared, so whatever was downloaded is checked")
        }
    }
}

/// The builder's address; the one that is usual for such networks.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);

const ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);

/// Where name servers are found, likewise.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// What fetchers use, for kernels that cannot redirect all ports: ssh, whois, domain, http and kin, rsync, svn, git, …
const PORTS: [u16; 16] = [21, 22, 43, 53, 80, 443, 873, 990, 3128, 3690, 5000, 8000, 8080, 8081, 8443, 9418];

/// The door of a build with a gateway.
pub(super) fn door(mode: NetworkMode, host: &HostFacts, policy: &NetworkPolicy) -> Option<Door> {
    match mode {
        NetworkMode::None | NetworkMode::Host => None,
        NetworkMode::Gateway => Some(Door {
            address: ADDRESS,
            address6: host.has_ipv6.then_some(ADDRESS_6),
            name_server: NAME_SERVER,
            loopback_ports: policy.loopback_ports.iter().copied().collect(),
            ports: PORTS.to_vec(),
            redirect: true,
        }),
    }
}

/// The policy for a build that is told of the caller's proxies: one on this machine's loopback may be called. What a recording
/// answers for has to get as far as that.
pub(super) fn policy(settings: &Settings, told: &BTreeMap<ByteString, ByteString>) -> NetworkPolicy {
    let mut policy = settings.network_policy.clone();
    policy.loopback_ports.extend(&settings.answered_ports);
    let proxies = Proxies::read(|name| told.get(&ByteString::from(name)).map(ToString::to_string));
    let on_loopback = [proxies.http, proxies.https].into_iter().flatten().filter(Proxy::is_on_loopback);
    policy.loopback_ports.extend(on_loopback.map(|proxy| proxy.port));
    policy
}
