//! What can be typed after `fodder store`. Names that Nix has are Nix's.

use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct StoreArguments {
    /// Root of the store; a chroot store as Nix lays it out [default: $XDG_DATA_HOME/fodder].
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) store: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: StoreVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreVerb {
    /// Print what is known about paths, as `nix path-info` does.
    PathInfo(PathInfoArguments),
    /// Answer a question about paths, as `nix-store --query` does.
    Query(QueryArguments),
}

/// How paths are named, wherever they are: for the help of every verb.
const PATHS_HELP: &str = "Store path in full, its base name, a file in the store, or a link to one";

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).args(["paths", "all"])))]
pub(crate) struct PathInfoArguments {
    #[arg(value_name = "PATH", help = PATHS_HELP)]
    pub(crate) paths: Vec<PathBuf>,
    /// Every valid path of the store.
    #[arg(long)]
    pub(crate) all: bool,
    /// Also everything that the paths refer to, directly or not.
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Print the size of each path's NAR.
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Print the size of each path with all that it refers to.
    #[arg(short = 'S', long)]
    pub(crate) closure_size: bool,
    /// Print sizes in KiB, MiB, ….
    #[arg(long)]
    pub(crate) human_readable: bool,
    /// Print the signatures, and whether a path was built here.
    #[arg(long)]
    pub(crate) sigs: bool,
    /// Print one JSON object, with an entry for each path, null for one that is not valid.
    #[arg(long)]
    pub(crate) json: bool,
    /// Version of that JSON, for scripts that say which they read.
    #[arg(long, value_name = "VERSION", value_parser = ["1"], default_value = "1", requires = "json")]
    pub(crate) json_format: String,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("question").args([
    "outputs", "requisites", "references", "referrers", "referrers_closure", "deriver", "valid_derivers", "hash", "size",
    "tree", "graph", "roots", "resolve", "binding",
])))]
pub(crate) struct QueryArguments {
    #[arg(value_name = "PATH", required = true, help = PATHS_HELP)]
    pub(crate) paths: Vec<PathBuf>,
    /// The outputs of derivations; this is the question when none is given.
    #[arg(long)]
    pub(crate) outputs: bool,
    /// The paths and everything that they refer to, directly or not.
    #[arg(short = 'R', long)]
    pub(crate) requisites: bool,
    /// What the paths refer to.
    #[arg(long)]
    pub(crate) references: bool,
    /// What refers to the paths.
    #[arg(long, alias = "referers")]
    pub(crate) referrers: bool,
    /// The paths and everything that refers to them, directly or not.
    #[arg(long, alias = "referers-closure")]
    pub(crate) referrers_closure: bool,
    /// The derivation that each path was built from.
    #[arg(short, long)]
    pub(crate) deriver: bool,
    /// All valid derivations that have one of the paths as an output.
    #[arg(long)]
    pub(crate) valid_derivers: bool,
    /// The hash of each path's NAR.
    #[arg(long)]
    pub(crate) hash: bool,
    /// The size of each path's NAR in bytes.
    #[arg(long)]
    pub(crate) size: bool,
    /// What each path refers to, as a tree.
    #[arg(long)]
    pub(crate) tree: bool,
    /// What the paths refer to, for `dot`.
    #[arg(long)]
    pub(crate) graph: bool,
    /// The links and processes that keep the paths from garbage collection.
    #[arg(long)]
    pub(crate) roots: bool,
    /// The store path that each argument stands for.
    #[arg(long)]
    pub(crate) resolve: bool,
    /// A variable in the environment of each path's derivation.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) binding: Option<String>,
    /// With a derivation, ask about its outputs.
    #[arg(short, long)]
    pub(crate) use_output: bool,
    /// With --requisites, also the valid outputs of derivations.
    #[arg(long, requires = "requisites")]
    pub(crate) include_outputs: bool,
}
