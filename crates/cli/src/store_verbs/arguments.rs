//! What can be typed after `fodder store`. Names that Nix has are Nix's.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
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
    /// Copy files into the store and print their store paths.
    Add(AddArguments),
    /// Write paths to standard output, for `import` or `nix-store --import` elsewhere.
    Export(ExportArguments),
    /// Read from standard input what `export` or `nix-store --export` wrote, and print the paths.
    Import,
    /// Compare the store's database with what is on disk, as `nix-store --verify` does.
    Verify(VerifyArguments),
    /// Print what keeps which path from garbage collection; add and remove links that do.
    Roots(RootsArguments),
    /// Delete what nothing keeps, as `nix-store --gc` does.
    Gc(GcArguments),
    /// Copy paths, with all that they refer to, between this store and a binary cache or another store.
    Copy(CopyArguments),
    /// Make a key to sign with: the secret one is printed, or written to a file; the public one is printed.
    GenerateKey(GenerateKeyArguments),
    /// Save space by linking files with the same contents, as `nix-store --optimise` does.
    #[command(alias = "optimize")]
    Optimise,
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

#[derive(Args, Debug)]
pub(crate) struct AddArguments {
    /// Files, directories or links to copy into the store.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Name of the store path [default: the file's].
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// What the path is computed from.
    #[arg(long, value_enum, default_value_t = AddMode::Nar)]
    pub(crate) mode: AddMode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AddMode {
    /// The NAR, as `nix-store --add` has it.
    #[value(alias = "recursive")]
    Nar,
    /// The bytes of a file, as `nix-store --add-fixed sha256` has it.
    Flat,
    /// The bytes of a file, as `builtins.toFile` has it.
    Text,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArguments {
    #[arg(value_name = "PATH", required = true, help = PATHS_HELP)]
    pub(crate) paths: Vec<PathBuf>,
    /// Also everything that the paths refer to; without it, that must be there where they are imported.
    #[arg(short, long)]
    pub(crate) recursive: bool,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("other").required(true).args(["to", "from"])), group(ArgGroup::new("what").required(true).args(["paths", "all"])))]
pub(crate) struct CopyArguments {
    #[arg(value_name = "PATH", help = PATHS_HELP)]
    pub(crate) paths: Vec<PathBuf>,
    /// Every valid path of the store.
    #[arg(long, conflicts_with = "from")]
    pub(crate) all: bool,
    /// Copy to a binary cache, file:///DIR?compression=xz|zstd|bzip2|gzip|br|none&secret-key=FILE, or to the store below a
    /// directory.
    #[arg(long, value_name = "URL|DIR")]
    pub(crate) to: Option<String>,
    /// Copy from a binary cache, https://, http:// or file://, or from the store below a directory.
    #[arg(long, value_name = "URL|DIR")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) trust: crate::arguments::TrustArguments,
    /// Believe the cache without signatures.
    #[arg(long, requires = "from")]
    pub(crate) no_check_sigs: bool,
    /// Certificate bundle for https:// [default: $NIX_SSL_CERT_FILE, $SSL_CERT_FILE, the system's, Mozilla's].
    #[arg(long, value_name = "FILE", requires = "from")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct GenerateKeyArguments {
    /// Name of the key, such as cache.example.org-1.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Write the secret key to this new file, for its owner alone, and print the public one.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArguments {
    /// Read every object and compare it with its hash.
    #[arg(long)]
    pub(crate) check_contents: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RootsArguments {
    #[command(subcommand)]
    pub(crate) verb: Option<RootsVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RootsVerb {
    /// Make LINK point to a path, which is kept for as long as the link is there.
    Add {
        #[arg(value_name = "PATH", help = PATHS_HELP)]
        path: PathBuf,
        /// The link.
        link: PathBuf,
    },
    /// Remove a link to the store, and stop keeping what it pointed to.
    Remove {
        /// The link.
        link: PathBuf,
    },
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("action").args(["print_roots", "print_live", "print_dead", "dry_run", "delete"])))]
pub(crate) struct GcArguments {
    #[arg(value_name = "PATH", requires = "delete", help = PATHS_HELP)]
    pub(crate) paths: Vec<PathBuf>,
    /// Print what keeps which path.
    #[arg(long)]
    pub(crate) print_roots: bool,
    /// Print the paths that are kept.
    #[arg(long)]
    pub(crate) print_live: bool,
    /// Print the paths that would be deleted.
    #[arg(long)]
    pub(crate) print_dead: bool,
    /// Print the paths that would be deleted, and how much that would free at most.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete the named paths and nothing else, unless something keeps one of them.
    #[arg(long, requires = "paths")]
    pub(crate) delete: bool,
    /// With --delete, do not ask what keeps them; other paths that refer to them still do.
    #[arg(long, requires = "delete")]
    pub(crate) ignore_liveness: bool,
    /// Stop when more than this many bytes are freed; K, M, G and T may follow the number.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "action")]
    pub(crate) max_freed: Option<u64>,
    /// Also keep the outputs of derivations that are kept.
    #[arg(long)]
    pub(crate) keep_outputs: bool,
    /// Do not keep the derivations of paths that are kept.
    #[arg(long)]
    pub(crate) no_keep_derivations: bool,
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, power) = match text.char_indices().next_back() {
        Some((end, letter @ ('K' | 'M' | 'G' | 'T'))) => (&text[..end], 1 + "KMGT".find(letter).unwrap_or(0)),
        Some(_) | None => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a number of bytes, such as 500M".to_owned())?;
    (0..power).try_fold(number, |number, _| number.checked_mul(1024)).ok_or_else(|| "too large".to_owned())
}
