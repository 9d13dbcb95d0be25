//! The setup script has a test suite of its own, in the language that it is written in.

use crate::lab::Lab;
use std::process::Command;

#[test]
fn the_setup_script_passes_its_own_tests() {
    let mut suite = Command::new("bash");
    suite.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/setup-script/run.sh"));
    let run = Lab::new().run(suite);
    let last = run.stdout.lines().last().unwrap_or_default();
    let passed = last.strip_suffix(" passed, 0 failed").and_then(|count| count.parse::<u32>().ok());
    assert!(run.code == 0 && passed.is_some_and(|count| count > 0), "{}\n{}", run.stdout, run.stderr);
}
