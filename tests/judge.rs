//! Real Nix looks at a laboratory's store, or changes it.

use crate::lab::{Lab, Run, need};
use std::process::Command;

/// A command of real Nix on the lab's store.
pub fn nix_command(lab: &Lab, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(need(program, "nix-bin"));
    command.args(arguments).arg("--store").arg(lab.store()).args(["--option", "build-users-group", ""]);
    let home = lab.path().join("nix-home");
    std::fs::create_dir_all(&home).expect("create a directory");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(lab.path());
    command.env("NIX_CONF_DIR", &home).env("HOME", &home).env("USER", "tester").env("TMPDIR", std::env::temp_dir());
    command.stdin(std::process::Stdio::null());
    command
}

/// Runs it.
pub fn nix(lab: &Lab, program: &str, arguments: &[&str]) -> Run {
    lab.run(nix_command(lab, program, arguments))
}

/// Runs it; it must succeed.
#[track_caller]
pub fn nix_says(lab: &Lab, program: &str, arguments: &[&str]) -> String {
    let run = nix(lab, program, arguments);
    assert_eq!(run.code, 0, "{program} {arguments:?}: {}", run.stderr);
    run.stdout
}

/// Real Nix reads every path of the store and finds nothing to say.
#[track_caller]
pub fn verified(lab: &Lab) {
    let run = nix(lab, "nix-store", &["--verify", "--check-contents"]);
    assert_eq!(run.code, 0, "{run:?}");
    for word in ["error", "warning", "modified", "missing", "disappeared"] {
        assert!(!run.stderr.contains(word), "{}", run.stderr);
    }
}

/// What is in a directory of the store, sorted; nothing when there is no such directory.
pub fn names(lab: &Lab, directory: &str) -> Vec<String> {
    let Ok(list) = std::fs::read_dir(lab.store().join(directory)) else { return Vec::new() };
    let mut names: Vec<String> =
        list.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
