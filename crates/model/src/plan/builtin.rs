//! Builders that are part of the runner: they run in the same sandbox as all others, as functions of this program.

use super::{PlanError, Request};
use crate::{
    bytes::ByteString,
    content_address::{ContentAddress, ContentMethod},
    derivation::Kind,
};
use std::collections::BTreeMap;

/// Their names.
pub const BUILTINS: [&str; 3] = ["builtin:buildenv", "builtin:fetchurl", "builtin:unpack-channel"];

/// The variable with the URLs that `builtin:fetchurl` tries first, separated by spaces. No derivation can set it: in a plan it is
/// put over whatever the derivation says.
pub const MIRRORS_VARIABLE: &str = "fodder:mirrors";

/// Name of the file in the build directory with passwords for servers.
pub const NETRC_FILE: &str = "netrc";

/// What tells programs about proxies.
pub(super) const PROXY_VARIABLES: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

impl Request<'_> {
    /// Whether its builder is one of these, or wants to be.
    pub(super) fn is_builtin(&self) -> bool {
        self.derivation.builder.starts_with(b"builtin:")
    }

    pub(super) fn check_builtin(&self) -> Result<(), PlanError> {
        let builder = &self.derivation.builder;
        let unsupported = |what: String| Err(PlanError::Unsupported { path: self.path.clone(), what });
        if !self.is_builtin() {
            return Ok(());
        }
        if !BUILTINS.iter().any(|builtin| *builder == *builtin) {
            let name = builder.to_string();
            let name = name.trim_start_matches("builtin:");
            return unsupported(format!(
                "has an unsupported builtin builder '{name}'; there are {}",
                BUILTINS.join(", ")
            ));
        }
        if self.derivation.structured_attributes.is_some() {
            return unsupported(format!("gives structured attributes to '{builder}', which reads variables"));
        }
        if !self.derivation.outputs.contains_key("out") {
            return unsupported(format!("is wrong: '{builder}' requires an 'out' output"));
        }
        match self.derivation.kind() {
            Kind::Fixed | Kind::Impure => Ok(()),
            Kind::InputAddressed | Kind::Floating | Kind::Deferred if *builder == "builtin:fetchurl" => {
                unsupported(format!("is wrong: '{builder}' must be a fixed-output or impure derivation"))
            }
            Kind::InputAddressed | Kind::Floating | Kind::Deferred => Ok(()),
        }
    }

    /// What a built-in builder is told beside the derivation's own variables: as in Nix, the caller's proxies.
    pub(super) fn add_builtin_variables(&self, environment: &mut BTreeMap<ByteString, ByteString>) {
        for name in PROXY_VARIABLES {
            if let Some(value) = self.host.environment.get(&ByteString::from(name)) {
                environment.entry(name.into()).or_insert_with(|| value.clone());
            }
        }
        environment.insert(MIRRORS_VARIABLE.into(), self.mirrors().join(" ").into());
    }

    /// Mirrors serve flat files by their hash.
    fn mirrors(&self) -> Vec<String> {
        match self.derivation.fixed_content() {
            Some(ContentAddress { method: ContentMethod::Flat, hash }) => {
                let address = |mirror: &String| {
                    format!("{}/{}/{}", mirror.trim_end_matches('/'), hash.algorithm(), hash.to_base16())
                };
                self.settings.hashed_mirrors.iter().map(address).collect()
            }
            Some(_) | None => Vec::new(),
        }
    }
}
