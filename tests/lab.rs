//! A laboratory for one test: a directory of its own with a store in it, and the program under test.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A fresh directory; removed with the store when it is dropped.
pub struct Lab {
    directory: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Run {
    /// Exit code; 128 and more for signals, as shells count.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Lab {
    /// Makes one.
    pub fn new() -> Self {
        Lab { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// The directory that commands run in.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Root of the store.
    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Writes a file, with its directories, and returns its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create a directory");
        std::fs::write(&path, contents).expect("write a file");
        path
    }

    /// Runs `fodder` with the lab's store and without links.
    pub fn build(&self, arguments: &[&str]) -> Run {
        let store = self.store();
        let mut all = vec!["build", "--no-link", "--store", store.to_str().expect("UTF-8")];
        all.extend(arguments);
        self.fodder(&all)
    }

    /// Runs `fodder build --json` and parses what it says.
    pub fn build_json(&self, arguments: &[&str]) -> (i32, serde_json::Value) {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let run = self.build(&all);
        let value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        (run.code, value)
    }

    /// Runs `fodder` as it is.
    pub fn fodder(&self, arguments: &[&str]) -> Run {
        self.run(self.command(arguments))
    }

    /// `fodder`, to be changed before it runs.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fodder"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        // What this machine has in a store of its own is none of a test's business.
        command.env("FODDER_HOST_STORE", "none");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, mut command: Command) -> Run {
        let output: Output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        use std::os::unix::process::ExitStatusExt;
        Run {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The path of a program that a test cannot do without.
pub fn need(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("this test needs '{program}': apt-get install {package}"))
}
