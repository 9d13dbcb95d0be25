//! A fresh store in a temporary directory, and real Nix to judge it.

use fodder_model::store_path::StorePath;
use fodder_store::Store;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Any time will do.
pub(crate) const NOW: i64 = 1_700_000_000;

pub(crate) struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Lab { directory: tempfile::Builder::new().prefix("fodder-store").tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }

    /// A file to add, outside the store.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Runs `nix-store --store ROOT` with arguments.
    pub(crate) fn nix_store(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("nix-store");
        command.arg("--store").arg(self.root()).args(["--option", "build-users-group", ""]).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // Nix 2.8 insists on a name, also for an id without one.
        command.env("USER", "somebody");
        command.env("HOME", self.path()).env("NIX_CONF_DIR", self.path()).stdin(Stdio::null());
        loop {
            let output = command.output().expect("real Nix is needed: apt-get install nix-bin");
            let words = String::from_utf8_lossy(&output.stderr);
            // Its collector looks at the open files of all processes, and stumbles over another test's 100 000 levels. And 2.8 aborts
            // where the thread for a caller of its socket ends before it was written down.
            let stumbles = ["reading symlink: File name too long", "terminate called without an active exception"];
            if !stumbles.iter().any(|stumble| words.contains(stumble)) {
                return output;
            }
        }
    }

    /// The same, which must succeed; returns its lines.
    pub(crate) fn nix(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.nix_store(arguments);
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nix-store {arguments:?}: {messages}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Real Nix finds nothing wrong, neither in the database nor in the objects.
    pub(crate) fn verify(&self) {
        let output = self.nix_store(&["--verify", "--check-contents"]);
        let messages = String::from_utf8_lossy(&output.stderr);
        let complaints: Vec<&str> = messages
            .lines()
            .filter(|line| !line.starts_with("reading the Nix store") && !line.starts_with("checking"))
            .collect();
        assert!(output.status.success() && complaints.is_empty(), "{messages}");
    }

    /// Names in the store directory, without `.links`.
    pub(crate) fn objects(&self) -> Vec<String> {
        names(&self.root().join("nix/store")).into_iter().filter(|name| name != ".links").collect()
    }

    /// Names of scratch directories and their locks.
    pub(crate) fn scratch(&self) -> Vec<String> {
        names(&self.root().join("nix/var/nix/builds"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // An ordinary user cannot remove what is in read-only directories.
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.path()).stderr(Stdio::null()).status();
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

pub(crate) fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A path that nothing has.
pub(crate) fn some_path(name: &str) -> StorePath {
    StorePath::of_text(name, b"never stored", &Default::default()).unwrap()
}

/// Runs one of this binary's ignored tests as another process.
pub(crate) fn as_process(test: &str, root: &Path, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", test]).env("FODDER_TEST_ROOT", root).env("FODDER_TEST_ARGUMENT", argument);
    command.stdout(Stdio::null());
    command
}

/// What [`as_process`] was given; `None` when somebody runs ignored tests by hand.
pub(crate) fn process_arguments() -> Option<(PathBuf, String)> {
    Some((std::env::var_os("FODDER_TEST_ROOT")?.into(), std::env::var("FODDER_TEST_ARGUMENT").ok()?))
}
