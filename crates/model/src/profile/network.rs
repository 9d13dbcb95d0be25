//! The `[network]` table of a profile.

use crate::{
    network_policy::{Destination, NetworkPolicy},
    plan::NetworkMode,
};
use serde::Deserialize;
use std::collections::BTreeSet;

/// What a profile says about the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileNetwork {
    /// Which kind, unless the command line says.
    pub mode: Option<NetworkMode>,
    /// In addition to what the command line says.
    pub policy: NetworkPolicy,
}

/// The table as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct NetworkText {
    mode: Option<ModeText>,
    allow: Vec<String>,
    deny: Vec<String>,
    allow_loopback: BTreeSet<u16>,
    why: String,
}

/// A kind of network as a profile spells it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ModeText {
    None,
    Gateway,
    /// The host's: as loud as `--unsafe-host-network`.
    UnsafeHost,
}

impl From<ModeText> for NetworkMode {
    fn from(mode: ModeText) -> Self {
        match mode {
            ModeText::None => NetworkMode::None,
            ModeText::Gateway => NetworkMode::Gateway,
            ModeText::UnsafeHost => NetworkMode::Host,
        }
    }
}

impl NetworkText {
    pub(super) fn read(self) -> Result<ProfileNetwork, String> {
        let NetworkText { mode, allow, deny, allow_loopback, why } = self;
        if why.trim().is_empty() {
            return Err("[network] has no 'why'".to_owned());
        }
        let read = |texts: Vec<String>| {
            let all: Result<Vec<Destination>, _> = texts.iter().map(|text| Destination::parse(text)).collect();
            all.map_err(|error| format!("[network]: {error}"))
        };
        let policy =
            NetworkPolicy { allow: read(allow)?, deny: read(deny)?, loopback_ports: allow_loopback, only: Vec::new() };
        Ok(ProfileNetwork { mode: mode.map(Into::into), policy })
    }
}

#[cfg(test)]
mod tests {
    use crate::profile;

    #[test]
    fn a_profile_says_who_may_be_called_and_why() {
        let text = "extends = \"nix\"\n[network]\nmode = \"gateway\"\nallow = [\"*.example.org\", \"10.0.0.0/8:443\"]\ndeny = [\"bad.example.org\"]\nallow-loopback = [3128]\nwhy = \"the mirror\"\n";
        let network = profile::parse("p", text).expect("a profile").network;
        assert_eq!(network.mode, Some(crate::plan::NetworkMode::Gateway));
        assert_eq!(network.policy.allow.len(), 2);
        assert_eq!(network.policy.loopback_ports, [3128].into());
        for (from, to, words) in [
            ("why = \"the mirror\"", "", "has no 'why'"),
            ("10.0.0.0/8:443", "10.0.0.0/99", "is not HOST or HOST:PORT"),
            ("\"gateway\"", "\"everything\"", "unknown variant"),
            ("allow-loopback", "allow-everything", "unknown field"),
        ] {
            let error = profile::parse("p", &text.replace(from, to)).expect_err("a refusal").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
