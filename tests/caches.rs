//! Binary caches: what real Nix wrote is read, what we write real Nix reads, and what is broken does no harm.

mod broken; // caches and lines that fail, and runs that are killed
mod hostile; // caches that mean harm
mod reading; // substitution in builds
mod server; // an HTTPS server with faults
mod writing; // `store copy` and `store generate-key`

use crate::{
    dependencies::Chain,
    judge::{nix_says, verified},
    lab::{Lab, Run},
    recipe::Recipe,
};
use fodder_model::store_path::StorePath;
use serde_json::Value;
use server::FaultyServer;
use std::path::PathBuf;

/// A closure of two, built, and a signed cache of it that real Nix wrote.
pub struct Written {
    /// With the store that it was built in.
    pub lab: Lab,
    /// `base` and `top`.
    pub chain: Chain,
    /// Refers to nothing; 1.3 MB.
    pub base: StorePath,
    /// Refers to `base` and to itself.
    pub top: StorePath,
    /// The public key.
    pub key: String,
}

impl Written {
    /// `compression` as Nix spells it.
    pub fn new(compression: &str) -> Self {
        let lab = Lab::new();
        let mut chain = Chain::default();
        let (base_drv, base) = chain.add(Recipe::new("base", "mkdir $out; seq 1 200000 > $out/numbers"), &[]);
        let (_, top) = chain.add(Recipe::new("top", "echo $base $out > $out"), &[("base", &base_drv)]);
        let (code, result) = chain.build(&lab, &[]);
        assert_eq!(code, 0, "{result:#}");
        let secret = lab.path().join("secret-key");
        let run =
            lab.fodder(&["store", "generate-key", "test-1", "--secret-key-file", secret.to_str().expect("UTF-8")]);
        assert_eq!(run.code, 0, "{run:?}");
        let written = Written { lab, chain, base, top, key: run.stdout.trim().to_owned() };
        let to = format!("{}?compression={compression}&secret-key={}", written.url(), secret.display());
        nix_says(
            &written.lab,
            "nix",
            &["--extra-experimental-features", "nix-command", "copy", "--to", &to, &written.top.to_string()],
        );
        written
    }

    pub fn directory(&self) -> PathBuf {
        self.lab.path().join("cache")
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.directory().display())
    }

    pub fn serve(&self) -> FaultyServer {
        FaultyServer::start(&self.directory())
    }

    pub fn narinfo(&self, path: &StorePath) -> PathBuf {
        self.directory().join(format!("{}.narinfo", path.hash_part()))
    }

    /// Changes a narinfo.
    pub fn edit(&self, path: &StorePath, edit: impl Fn(String) -> String) {
        let file = self.narinfo(path);
        let text = std::fs::read_to_string(&file).expect("a narinfo");
        let edited = edit(text.clone());
        assert_ne!(text, edited);
        std::fs::write(file, edited).expect("write the narinfo");
    }

    /// The archive's path below the cache.
    pub fn archive(&self, path: &StorePath) -> String {
        let text = std::fs::read_to_string(self.narinfo(path)).expect("a narinfo");
        text.lines().find_map(|line| line.strip_prefix("URL: ")).expect("an address").to_owned()
    }

    /// Builds the closure elsewhere, with this as its cache.
    pub fn build(&self, lab: &Lab, url: &str, arguments: &[&str]) -> (i32, Value) {
        let mut all = vec!["--substituters", url, "--trusted-public-keys", &self.key];
        all.extend(arguments);
        self.chain.build(lab, &all)
    }

    /// Copies `top` to another store.
    pub fn copy(&self, lab: &Lab, url: &str, arguments: &[&str]) -> Run {
        let mut command = lab.command(&["store", "--store"]);
        command.arg(lab.store()).args(["copy", "--from", url, "--trusted-public-keys", &self.key]);
        command.args(arguments).arg(self.top.to_string());
        lab.run(command)
    }
}

/// Everything of the closure is there, and as it should be.
#[track_caller]
pub fn complete(written: &Written, lab: &Lab) {
    for path in [&written.base, &written.top] {
        assert!(lab.real(path).exists(), "{path}");
    }
    verified(lab);
    clean(lab);
}

/// Nothing lies about: no scratch directory, no lock.
#[track_caller]
pub fn clean(lab: &Lab) {
    let names = |directory: &str| -> Vec<String> {
        let entries = std::fs::read_dir(lab.store().join(directory)).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names("nix/var/nix/builds"), [""; 0]);
    assert!(!names("nix/store").iter().any(|name| name.ends_with(".lock")));
}

/// Nothing of the closure is valid, or anywhere.
#[track_caller]
pub fn absent(written: &Written, lab: &Lab) {
    for path in [&written.base, &written.top] {
        let run = crate::store_verbs::ours(lab, &["path-info", &path.to_string()]);
        assert_ne!(run.code, 0, "{run:?}");
        assert!(!lab.real(path).exists());
    }
    clean(lab);
}
