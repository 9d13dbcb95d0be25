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

/// Who can be reached from an index that nobody reviews is not in the program. Licences and duplicates need the sources of all
/// crates, which only the continuous check has: `.ci/supply-chain`.
#[test]
fn crates_are_from_the_registry_and_none_is_banned() {
    let read = |file: &str| {
        let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        toml::from_str::<toml::Table>(&text).expect("TOML")
    };
    let (rules, lock) = (read("deny.toml"), read("Cargo.lock"));
    let banned: Vec<&str> = rules["bans"]["deny"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|ban| {
            assert!(ban["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{ban:?}");
            ban["crate"].as_str().expect("a name")
        })
        .collect();
    let packages = lock["package"].as_array().expect("packages");
    assert!(packages.len() > 100);
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        assert!(!banned.contains(&name), "{name} is banned: see deny.toml");
        match package.get("source").and_then(toml::Value::as_str) {
            Some(source) => assert!(source.starts_with("registry+"), "{name} is from {source}"),
            None => assert!(name.starts_with("fodder"), "{name} is from this machine"),
        }
        assert_eq!(package.get("checksum").is_some(), package.get("source").is_some(), "{name}");
    }
}

#[test]
fn every_crate_but_the_sandbox_forbids_unsafe_code() {
    let crates = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for (package, _) in ALLOWED {
        let folder = crates.join(package.strip_prefix("fodder-").unwrap_or("cli"));
        let root = ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file)).into_iter().filter(|file| file.exists());
        for file in root {
            let text = std::fs::read_to_string(&file).expect("read");
            assert_eq!(text.contains("#![forbid(unsafe_code)]"), package != "fodder-sandbox", "{}", file.display());
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
