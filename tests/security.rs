//! The page on security: its table is made of the lines `/// Attack: …. Layer: ….` above the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The families of the catalogue.
const FAMILIES: [&str; 10] = ["NET", "FS", "OUT", "PROC", "RES", "KRN", "PARSE", "DRV", "ENV", "LOG"];

/// What a test is about.
struct Attack {
    words: String,
    /// Those of the catalogue that the words name.
    ids: Vec<String>,
    layer: String,
    test: String,
}

/// Every source file below the folders that hold tests.
fn sources() -> Vec<PathBuf> {
    let mut open = vec![root().join("tests"), root().join("crates")];
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for file in sources() {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let place = file.strip_prefix(root()).expect("below the root").display().to_string();
        let mut lines = text.lines().map(str::trim).peekable();
        while let Some(line) = lines.next() {
            let Some(words) = line.strip_prefix("/// Attack: ") else { continue };
            let mut words = words.to_owned();
            // The layer may go on in the next line.
            while let Some(more) = lines.next_if(|line| line.starts_with("///")) {
                words = format!("{words} {}", more.trim_start_matches('/').trim());
            }
            let name = lines.find_map(|line| line.strip_prefix("fn ")).and_then(|rest| rest.split(['(', '<']).next());
            let name = name.unwrap_or_else(|| panic!("{place}: no test follows '{words}'"));
            let (ids, layer) =
                words.split_once("Layer: ").unwrap_or_else(|| panic!("{place}: '{words}' names no layer"));
            let words = ids.trim().trim_end_matches('.').to_owned();
            let tokens = words.split(|character: char| !character.is_ascii_alphanumeric() && character != '-');
            let is_id = |token: &&str| {
                token.split_once('-').is_some_and(|(family, number)| {
                    FAMILIES.contains(&family) && number.bytes().all(|byte| byte.is_ascii_digit())
                })
            };
            let ids = tokens.filter(is_id).map(str::to_owned).collect();
            let layer = layer.trim_end_matches('.').to_owned();
            attacks.push(Attack { words, ids, layer, test: format!("`{name}` ({place})") });
        }
    }
    attacks
}

/// The table of `docs/security.md`.
pub fn table() -> String {
    let mut rows: BTreeMap<(usize, u32, String), (String, String)> = BTreeMap::new();
    for attack in attacks() {
        // In the order of the catalogue; what it has no id for comes last.
        let first = attack.ids.first().and_then(|id| id.split_once('-')).unwrap_or(("", ""));
        let family = FAMILIES.iter().position(|family| *family == first.0).unwrap_or(FAMILIES.len());
        rows.insert((family, first.1.parse().unwrap_or_default(), attack.test.clone()), (attack.words, attack.layer));
    }
    let mut text = "| attack | layer | test |\n|---|---|---|\n".to_owned();
    for ((_, _, test), (words, layer)) in rows {
        writeln!(text, "| {words} | {layer} | {test} |").expect("a string");
    }
    text
}

#[test]
fn every_attack_of_the_catalogue_has_a_test_and_no_test_an_attack_that_is_not_there() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).expect("the page");
    let catalogue = page.split("| id | what is tried |").nth(1).and_then(|rest| rest.split("\n\n").next());
    let listed: BTreeSet<&str> = catalogue
        .expect("the catalogue")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .flat_map(|ids| ids.split(", "))
        .collect();
    assert!(listed.len() > 80, "{listed:?}");
    let attacks = attacks();
    let tested: BTreeSet<&str> = attacks.iter().flat_map(|attack| &attack.ids).map(String::as_str).collect();
    assert_eq!(listed.difference(&tested).collect::<Vec<_>>(), [&""; 0], "no test attacks these");
    assert_eq!(tested.difference(&listed).collect::<Vec<_>>(), [&""; 0], "the catalogue does not say what these are");
}
