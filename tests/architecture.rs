//! The picture in the design is true: crates depend on each other as it says and on nothing that their rule forbids.

use crate::lab::Lab;
use std::{collections::BTreeMap, process::Command};

/// Who may use whom.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("fodder-model", &[]),
    ("fodder-sandbox", &["fodder-model"]),
    ("fodder-store", &["fodder-model"]),
    ("fodder-gateway", &["fodder-model"]),
    ("fodder-build", &["fodder-model", "fodder-sandbox", "fodder-store", "fodder-gateway"]),
    ("fodder", &["fodder-model", "fodder-sandbox", "fodder-store", "fodder-gateway", "fodder-build"]),
];

#[test]
fn crates_depend_on_each_other_as_the_design_says() {
    let lab = Lab::new();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"));
    let run = lab.run(cargo);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let metadata: serde_json::Value = serde_json::from_str(&run.stdout).expect("cargo metadata prints JSON");
    let allowed: BTreeMap<_, _> = ALLOWED.into();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), ALLOWED.len(), "a crate was added: put it into the design, and here");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency = dependency["name"].as_str().expect("a name");
            let is_ours = dependency.starts_with("fodder");
            assert!(!is_ours || allowed[name].contains(&dependency), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn unsafe_code_is_in_its_one_room() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut open = vec![std::path::PathBuf::from(root)];
    let mut rooms = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                // Attack programs of the tests do what the kernel offers; the rule is for what is shipped.
                if !path.ends_with("tests") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("read");
                // Spelled in two parts, so that this file is not found by it.
                if text.contains(concat!("unsafe", " {")) || text.contains(concat!("unsafe", " fn")) {
                    rooms.push(path.strip_prefix(root).expect("below the root").display().to_string());
                }
            }
        }
    }
    assert_eq!(rooms, ["sandbox/src/sys.rs"]);
}

/// Tests can make a sandbox without one of its steps; nothing that is shipped may be able to.
#[test]
fn no_program_leaves_out_a_step_of_the_sandbox() {
    let mut found = Vec::new();
    let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("list") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && std::fs::read_to_string(&path).expect("read").contains("dispatch_helper_without")
            {
                found.push(path.file_name().expect("a name").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert_eq!(found, ["launch.rs", "left_out.rs", "lib.rs", "steps.rs"]);
}
