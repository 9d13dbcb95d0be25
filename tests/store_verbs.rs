//! `fodder store …` beside the real Nix, on one store.

mod host; // the store of the machine, below ours
mod keeping; // gc and roots, also while others work
mod looking; // path-info, query, and how paths are named
mod moving; // add, export, import, verify, optimise

use crate::{
    lab::{Lab, Run, need},
    recipe::Recipe,
};
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

/// `fodder store` on the lab's store.
pub fn ours(lab: &Lab, arguments: &[&str]) -> Run {
    lab.run(ours_command(lab, arguments))
}

pub fn ours_command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.command(&["store"]);
    command.arg("--store").arg(lab.store()).args(arguments);
    command
}

/// The same; it must succeed.
#[track_caller]
pub fn we_say(lab: &Lab, arguments: &[&str]) -> String {
    let run = ours(lab, arguments);
    assert_eq!(run.code, 0, "fodder store {arguments:?}: {}", run.stderr);
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

/// A store in which something was built from something, with two outputs; the recipe, and its input.
pub fn built(lab: &Lab) -> (Recipe, fodder_model::store_path::StorePath) {
    let input = lab.text("input", "x");
    let recipe = Recipe::new("refers", "mkdir $out; echo $input > $out/file; echo $out > $dev")
        .output("dev")
        .env("input", &input.to_string())
        .source(&input);
    lab.made(&recipe, &[]);
    (recipe, input)
}
