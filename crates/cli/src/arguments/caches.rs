//! Arguments about binary caches.

use clap::Args;
use fodder_build::Substitution;
use fodder_model::signature::{DEFAULT_PUBLIC_KEY, PublicKey};
use fodder_store::CacheLocation;

/// Binary caches and who is believed about them.
#[derive(Args, Clone, Debug)]
pub(crate) struct CacheArguments {
    #[command(flatten)]
    pub(crate) trust: TrustArguments,
    /// Binary caches to copy from what would otherwise be built, https://, http:// or file://, separated by spaces; none by default.
    #[arg(long, visible_alias = "extra-substituters", value_name = "URLS", value_parser = parse_caches)]
    pub(crate) substituters: Vec<Words<CacheLocation>>,
    /// Build everything, whatever caches are named.
    #[arg(long, visible_alias = "no-substituters")]
    pub(crate) no_substitute: bool,
}

/// Who is believed about binary caches.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrustArguments {
    /// Keys whose signatures are believed, NAME:BASE64, separated by spaces [default: cache.nixos.org's].
    #[arg(long, value_name = "KEYS", value_parser = parse_keys)]
    pub(crate) trusted_public_keys: Option<Words<PublicKey>>,
    /// Further keys whose signatures are believed.
    #[arg(long, value_name = "KEYS", value_parser = parse_keys)]
    pub(crate) extra_trusted_public_keys: Vec<Words<PublicKey>>,
}

/// Several things in one argument, as Nix has its lists.
#[derive(Clone, Debug)]
pub(crate) struct Words<T>(Vec<T>);

impl CacheArguments {
    /// What they come to.
    pub(crate) fn substitution(&self) -> Substitution {
        let CacheArguments { trust, substituters, no_substitute } = self;
        let caches = match no_substitute {
            true => Vec::new(),
            false => substituters.iter().flat_map(|words| words.0.clone()).collect(),
        };
        Substitution { caches, keys: trust.keys() }
    }
}

impl TrustArguments {
    /// The keys that are believed.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        let TrustArguments { trusted_public_keys, extra_trusted_public_keys } = self;
        let first = match trusted_public_keys {
            Some(words) => words.0.clone(),
            None => PublicKey::parse(DEFAULT_PUBLIC_KEY).into_iter().collect(),
        };
        first.into_iter().chain(extra_trusted_public_keys.iter().flat_map(|words| words.0.clone())).collect()
    }
}

fn parse_caches(text: &str) -> Result<Words<CacheLocation>, String> {
    let words = text.split_whitespace().map(CacheLocation::parse).collect::<Result<_, _>>();
    words.map(Words).map_err(|error| error.to_string())
}

fn parse_keys(text: &str) -> Result<Words<PublicKey>, String> {
    let words = text.split_whitespace().map(PublicKey::parse).collect::<Result<_, _>>();
    words.map(Words).map_err(|error| error.to_string())
}
