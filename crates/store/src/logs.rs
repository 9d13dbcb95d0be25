//! Build logs, where `nix log` and `nix-store --read-log` look for them.
//!
//! Written plain, as Nix does with `compress-build-log = false`: both read it, and a killed build leaves a log that can be
//! read to its end. Compression (`.bz2`) may come later.

use crate::{
    error::{At, StoreError},
    store::Store,
};
use fodder_model::store_path::StorePath;
use rustix::fs::OFlags;
use std::{fs::File, path::PathBuf};

impl Store {
    /// Where the log of a derivation's latest build is: `ROOT/nix/var/log/nix/drvs/xx/rest`, split after two letters.
    pub fn log_path(&self, derivation: &StorePath) -> PathBuf {
        let (directory, name) = derivation.base_name().split_at(2);
        self.root().join("nix/var/log/nix/drvs").join(directory).join(name)
    }

    /// Starts a log, empty; the directories are created when missing. The lock of an output keeps two builds of the same
    /// derivation from writing into each other's.
    pub fn open_log(&self, derivation: &StorePath) -> Result<File, StoreError> {
        self.check_writable("write a log")?;
        let (directory, name) = derivation.base_name().split_at(2);
        let directory = self.logs()?.ensure(directory, 0o755)?;
        let file = directory.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o644);
        file.map(File::from).at("create the log", directory.child(name))
    }
}
