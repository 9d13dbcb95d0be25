//! What can be typed. Names that Nix has are Nix's.

mod caches;

pub(crate) use caches::{CacheArguments, TrustArguments};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fodder_model::{
    limits::{self, Limit, LimitSettings},
    network_policy::Destination,
    plan::{ExtraPath, NetworkMode},
    rewrite::SelfReferences,
};
use std::path::PathBuf;

/// Runs one Nix-style derivation as you: no daemon, no root, a sandbox that either holds or refuses to start.
///
/// FILE is JSON as `nix derivation show` prints it, a `.drv` file, or a short form (an object with `name` and phases);
/// `-` is standard input. Only a derivation that declares an output hash reaches the network.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 100 builder failed or input rejected; 101 timed out; 102 hash mismatch; 104 not \
                  deterministic; 112 forbidden references; 125 the sandbox could not be set up; 2 usage; 1 anything else."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build a derivation and register its outputs.
    Build(BuildArguments),
    /// Print the derivation that FILE stands for.
    Show(ShowArguments),
    /// Print the log of the last build of FILE, which may also be a store path.
    Log(LogArguments),
    /// Print what building FILE would do, and why, without doing it.
    Explain(ExplainArguments),
    /// Print the hash of a file or directory, as a fixed output of these contents would declare it.
    Hash(HashArguments),
    /// List every place in a file or directory that mentions a store path.
    Refs(RefsArguments),
    /// Look at recordings of builds.
    #[command(subcommand)]
    Recording(crate::recording_verbs::RecordingVerb),
    /// Look into the store, and look after it.
    Store(crate::store_verbs::arguments::StoreArguments),
    /// Print a completion script for a shell.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// What to build, and in which store.
#[derive(Args, Debug)]
pub(crate) struct InputArguments {
    /// Derivation: JSON, `.drv`, or short form; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Name or path of the one to take when FILE holds several.
    pub(crate) derivation: Option<String>,
    /// Root of the store; a chroot store as Nix lays it out [default: $XDG_DATA_HOME/fodder].
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Root of a further store, only read, whose valid paths are valid inputs; `none` for none [default: `/`, where this
    /// machine has a `/nix/store` of root's or yours].
    #[arg(long, value_name = "DIR|none", env = "FODDER_HOST_STORE", hide_env_values = true)]
    pub(crate) host_store: Option<PathBuf>,
}

/// What the sandbox is to be.
#[derive(Args, Debug)]
pub(crate) struct SandboxArguments {
    /// Sandbox profile: `nix`, `host-tools`, or a TOML file [default: host-tools for short forms, nix for all else].
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) profile: Option<String>,
    /// Network of a fixed-output build; any other has none [default: gateway].
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<NetworkArgument>,
    /// Give a fixed-output or impure build the host's network namespace: it reaches everything that listens on this machine, and
    /// nothing is written down.
    #[arg(long, conflicts_with_all = ["network", "offline"])]
    pub(crate) unsafe_host_network: bool,
    /// Only these hosts may be called: a name, *.NAME, an address or ADDRESS/BITS, with :PORT if only that. An address of this
    /// machine or its link is allowed in addition to all others.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = Destination::parse)]
    pub(crate) allow: Vec<Destination>,
    /// These hosts may not be called, whatever is allowed; `*` is everybody.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = Destination::parse)]
    pub(crate) deny: Vec<Destination>,
    /// The build may call this port of this machine's loopback, as 127.0.0.1 or localhost.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) allow_loopback: Vec<u16>,
    /// Certificate bundle for fixed-output builds [default: $NIX_SSL_CERT_FILE, $SSL_CERT_FILE, the system's, Mozilla's].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Show more of this machine in the sandbox, read-only: TARGET or TARGET=SOURCE, `?` at the end if it may be absent.
    #[arg(long, visible_alias = "extra-sandbox-paths", value_name = "PATH", value_parser = ExtraPath::parse, value_delimiter = ' ')]
    pub(crate) allow_path: Vec<ExtraPath>,
    /// Hand out this variable of your environment to a fixed-output or impure build that asks for it (impureEnvVars); those of
    /// proxies are handed out without.
    #[arg(long, value_name = "NAME", value_delimiter = ' ')]
    pub(crate) allow_env: Vec<String>,
    /// Let the builder make namespaces and mounts of its own, for bubblewrap's tests or Nix within Nix. It then reaches parts of
    /// the kernel that are a common source of ways out. The result says so.
    #[arg(long)]
    pub(crate) allow_nested_namespaces: bool,
    /// Let 32-bit x86 programs use socketcall(2), which glibc does for every socket; its address families cannot be judged. The
    /// result says so.
    #[arg(long)]
    pub(crate) allow_socketcall: bool,
    /// Value of NIX_BUILD_CORES; 0 is all of this machine's.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) cores: u32,
    /// Set a limit of the build, or lift it with `none`: `--limit memory=8G --limit time=none`. `fodder explain` lists all of them.
    #[arg(long, value_name = "NAME=VALUE", value_parser = limits::parse_setting)]
    pub(crate) limit: Vec<(Limit, Option<u64>)>,
    /// Seconds until the build is killed, `--limit time`; 0 is never [default: 24 hours].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Seconds without output until the build is killed, `--limit silence`; 0 is never [default: 2 hours].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_silent_time: Option<u64>,
    /// Bytes of log until the build is killed, `--limit log-size`; 0 is without limit [default: 1 GiB].
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_build_log_size: Option<u64>,
    /// Where `builtin:fetchurl` looks for a flat file by its hash first: URL/sha256/HASH.
    #[arg(long, value_name = "URL", value_delimiter = ' ')]
    pub(crate) hashed_mirrors: Vec<String>,
    /// Passwords for servers, for `builtin:fetchurl`, in the format of curl's netrc.
    #[arg(long, value_name = "FILE")]
    pub(crate) netrc_file: Option<PathBuf>,
    /// How mentions of an output's own path count in the path that its contents give it; Nix 2.17 to 2.34 do it the second way.
    #[arg(long, value_name = "RULE", default_value = "with-positions")]
    pub(crate) self_references: SelfReferencesArgument,
    /// Do not use the network, whatever the derivation declares; also not for binary caches.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Keep every HTTP(S) exchange of the build in this file and the directory beside it, without secrets. It is built even if its
    /// output is valid.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["replay", "offline"])]
    pub(crate) record: Option<PathBuf>,
    /// Call nobody, and answer what the build asks for from this recording. It is built even if its output is valid.
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) caches: CacheArguments,
}

impl SandboxArguments {
    /// Limits in Nix's own flags, where 0 is none, and in ours, which come last.
    pub(crate) fn limits(&self) -> LimitSettings {
        let flags = [
            (Limit::Time, self.timeout),
            (Limit::Silence, self.max_silent_time),
            (Limit::LogSize, self.max_build_log_size),
        ];
        let nixs = flags
            .into_iter()
            .filter_map(|(limit, value)| Some((limit, value.map(|value| (value != 0).then_some(value))?)));
        nixs.chain(self.limit.iter().copied()).collect()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SelfReferencesArgument {
    /// The places are hashed as well: Nix up to 2.16, and from 2.35 on.
    WithPositions,
    /// Only that something stands there: Nix 2.17 to 2.34.
    WithoutPositions,
}

impl From<SelfReferencesArgument> for SelfReferences {
    fn from(argument: SelfReferencesArgument) -> Self {
        match argument {
            SelfReferencesArgument::WithPositions => SelfReferences::WithPositions,
            SelfReferencesArgument::WithoutPositions => SelfReferences::WithoutPositions,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NetworkArgument {
    /// A namespace of its own with one door, at which it is decided and written down who is called.
    Gateway,
    /// A namespace with nothing but `lo`.
    None,
}

impl From<NetworkArgument> for NetworkMode {
    fn from(argument: NetworkArgument) -> Self {
        match argument {
            NetworkArgument::Gateway => NetworkMode::Gateway,
            NetworkArgument::None => NetworkMode::None,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct BuildArguments {
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArguments,
    /// Build although the outputs are valid, and compare with them.
    #[arg(long, visible_alias = "check")]
    pub(crate) rebuild: bool,
    /// Keep the build directory and the outputs of a build that failed.
    #[arg(short = 'K', long)]
    pub(crate) keep_failed: bool,
    /// Print the whole log also on a terminal.
    #[arg(short = 'L', long)]
    pub(crate) print_build_logs: bool,
    /// Link to the output; further outputs get their name appended [default: result].
    #[arg(short = 'o', long, value_name = "LINK", conflicts_with = "no_link")]
    pub(crate) out_link: Option<PathBuf>,
    /// Make no link.
    #[arg(long)]
    pub(crate) no_link: bool,
    /// Print the result as one JSON object instead of the store paths.
    #[arg(long)]
    pub(crate) json: bool,
    /// How many derivations to build at once, where FILE holds what its derivation depends on; `auto` is one a processor.
    #[arg(short = 'j', long, value_name = "N", default_value = "auto", value_parser = parse_jobs)]
    pub(crate) max_jobs: usize,
    /// After a failure, go on with everything that does not depend on it.
    #[arg(short = 'k', long)]
    pub(crate) keep_going: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArguments,
    /// Print the plan itself, the very data that `build` executes.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LogArguments {
    #[command(flatten)]
    pub(crate) input: InputArguments,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    pub(crate) input: InputArguments,
    /// In which form.
    #[arg(long, value_enum, default_value_t = ShowFormat::Json)]
    pub(crate) format: ShowFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ShowFormat {
    /// As `nix derivation show` prints it (version 4).
    Json,
    /// The text of the `.drv` file.
    Aterm,
    /// The path of the `.drv` file.
    Path,
    /// The paths of the outputs.
    Outputs,
}

#[derive(Args, Debug)]
pub(crate) struct HashArguments {
    /// File, directory or link.
    pub(crate) path: PathBuf,
    /// How the contents are hashed.
    #[arg(long, visible_alias = "type", value_enum, default_value_t = MethodArgument::Nar)]
    pub(crate) mode: MethodArgument,
    /// md5, sha1, sha256, sha512 or blake3.
    #[arg(long, default_value = "sha256", value_parser = parse_algorithm)]
    pub(crate) algo: fodder_model::hash::HashAlgorithm,
    /// Spelling.
    #[arg(long, visible_alias = "format", value_enum, default_value_t = BaseArgument::Sri)]
    pub(crate) base: BaseArgument,
    /// Print all spellings as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_jobs(text: &str) -> Result<usize, String> {
    match text {
        "auto" => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        text => text.parse().map_err(|_| "expected a number, or 'auto'".to_owned()),
    }
}

fn parse_algorithm(name: &str) -> Result<fodder_model::hash::HashAlgorithm, String> {
    fodder_model::hash::HashAlgorithm::parse(name).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MethodArgument {
    /// The NAR; `outputHashMode = "recursive"`.
    #[value(alias = "recursive")]
    Nar,
    /// The bytes of a file.
    Flat,
    /// The bytes of a file, as `builtins.toFile` is addressed.
    Text,
    /// The git object.
    Git,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BaseArgument {
    /// `sha256-<base64>`
    Sri,
    /// Hexadecimal.
    Base16,
    /// Nix's base 32.
    #[value(alias = "base32")]
    Nix32,
    /// Base 64.
    Base64,
}

#[derive(Args, Debug)]
pub(crate) struct RefsArguments {
    /// File, directory, or store path.
    pub(crate) path: PathBuf,
    /// Look for this store path by its hash part, instead of for anything that is spelled out in full; may be repeated.
    #[arg(long, value_name = "STORE-PATH")]
    pub(crate) to: Vec<fodder_model::store_path::StorePath>,
    /// Root of the store, for store paths [default: $XDG_DATA_HOME/fodder].
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Print one JSON array.
    #[arg(long)]
    pub(crate) json: bool,
}
