//! What the person took away from the sandbox, spelled as the flags that do it. Nothing else can: a derivation's wishes do not get
//! here.

use super::{NetworkMode, Settings};
use crate::{bytes::ByteString, network_policy::NetworkPolicy};

/// The flags of a build. Those for variables count where a derivation got one, and a proxy on this machine's loopback that the
/// build is told of counts like a port that was asked for: it can be called. What only a recording answers for cannot.
pub(super) fn flags(
    settings: &Settings,
    network: NetworkMode,
    policy: &NetworkPolicy,
    handed_out: &[ByteString],
) -> Vec<String> {
    let mut flags: Vec<String> = settings.allowed.iter().map(|weakening| weakening.flag().to_owned()).collect();
    match network {
        NetworkMode::Host => flags.push("--unsafe-host-network".to_owned()),
        NetworkMode::Gateway => {
            let asked = &settings.network_policy.loopback_ports;
            let is_open = |port: &&u16| asked.contains(port) || !settings.answered_ports.contains(port);
            flags
                .extend(policy.allow.iter().filter(|allow| allow.is_address()).map(|allow| format!("--allow {allow}")));
            flags.extend(policy.loopback_ports.iter().filter(is_open).map(|port| format!("--allow-loopback {port}")));
        }
        NetworkMode::None => {}
    }
    flags.extend(settings.extra_paths.iter().map(|path| format!("--allow-path {}={}", path.target, path.source)));
    flags.extend(
        handed_out.iter().filter(|name| settings.environment.contains(*name)).map(|name| format!("--allow-env {name}")),
    );
    flags
}
