//! The table is in `cases/*.nix`, a file for each group; these are the groups.

use super::group::{alike, table};

#[test]
fn environments_are_the_same() {
    alike("environment");
}

#[test]
fn structured_attributes_are_the_same() {
    alike("structured");
}

#[test]
fn reference_graphs_are_the_same() {
    alike("graphs");
}

#[test]
fn surroundings_are_the_same() {
    alike("surroundings");
}

#[test]
fn outputs_are_the_same() {
    alike("outputs");
}

#[test]
fn references_and_their_checks_are_the_same() {
    alike("references");
}

#[test]
fn fixed_outputs_are_the_same() {
    alike("fixed");
}

#[test]
fn endings_and_logs_are_the_same() {
    alike("endings");
}

#[test]
fn every_group_of_the_table_is_built() {
    let own = include_str!("cases.rs");
    let mut derivations = 0;
    for entry in std::fs::read_dir(table()).expect("the table") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        if let Some(group) = name.strip_suffix(".nix").filter(|group| *group != "default") {
            assert!(own.contains(&format!("alike(\"{group}\")")), "nothing builds {name}");
            let text = std::fs::read_to_string(entry.path()).expect("read");
            let cases = text.split("\nin\n").last().expect("an attribute set").lines();
            derivations +=
                cases.filter(|line| line.starts_with("  ") && line[2..].starts_with(char::is_alphanumeric)).count();
        }
    }
    assert!(derivations >= 240, "only {derivations} derivations are compared");
}
