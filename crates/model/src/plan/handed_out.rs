//! What of the caller's environment a derivation gets that asks for it (`impureEnvVars`). Nix gives whatever is named; here a name in
//! a derivation is a wish, and the person decides (ENV-3 of the notes on security: a fixed output that names `AWS_SECRET_ACCESS_KEY`
//! gets it, and has a network to send it through).

use super::builtin::PROXY_VARIABLES;
use crate::{
    bytes::ByteString,
    derivation::{Derivation, Kind},
    environment::HandedOut,
    options::Options,
    short_form::CERTIFICATE_BUNDLE,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where nixpkgs' fetchers look for a bundle; they name it among the variables of proxies, whose authority it may hold.
const BUNDLE_VARIABLE: &str = "NIX_SSL_CERT_FILE";

/// The variables that may be handed out, with their values: those of proxies, and those that the person named. The bundle is at
/// another place inside.
pub(super) fn variables(
    caller: &BTreeMap<ByteString, ByteString>,
    named: &BTreeSet<ByteString>,
    has_bundle: bool,
) -> HandedOut {
    let mut values: BTreeMap<ByteString, ByteString> = caller
        .iter()
        .filter(|(name, _)| PROXY_VARIABLES.iter().any(|proxy| **name == **proxy) || named.contains(*name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if has_bundle && caller.contains_key(&ByteString::from(BUNDLE_VARIABLE)) {
        values.entry(BUNDLE_VARIABLE.into()).or_insert_with(|| CERTIFICATE_BUNDLE.into());
    }
    let withheld = caller.keys().filter(|name| !values.contains_key(*name)).cloned().collect();
    HandedOut { values, withheld }
}

/// Says which wishes were not granted.
pub(super) fn notes(derivation: &Derivation, options: &Options, given: &HandedOut) -> Vec<String> {
    if !matches!(derivation.kind(), Kind::Fixed | Kind::Impure) {
        return Vec::new();
    }
    let note = |name: &ByteString| {
        format!(
            "'{name}' of your environment, which the derivation asks for, stays outside; --allow-env {name} hands it out"
        )
    };
    options.impure_variables.iter().filter(|name| given.withheld.contains(*name)).map(note).collect()
}
