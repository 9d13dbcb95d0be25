//! `fodder store …` beside the real Nix, on one store.

mod host; // the store of the machine, below ours
mod keeping; // gc and roots, also while others work
mod looking; // path-info, query, and how paths are named
mod moving; // add, export, import, verify, optimise

use crate::{
    lab::{Lab, Run},
    recipe::Recipe,
};
use std::process::Command;

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
