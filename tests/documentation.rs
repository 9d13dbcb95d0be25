//! The pages tell the truth: what is generated is up to date, and what they show is what happens.
//!
//! A fenced block tagged `console run` is a transcript: a line that begins with `$ ` is run by bash (lines that end in `\` go
//! on), and the lines after it are what it prints, both streams together. `…` stands for anything within a line, and a line of
//! nothing but `…` for any number of lines. A block tagged with `file=NAME` is written to that file first. All blocks of a page
//! share one fresh directory, in which `examples` is the repository's, `fodder` is on the search path, and its store is new.
//!
//! `FODDER_UPDATE=1 cargo test --test tests documentation` rewrites what is generated.

use crate::lab::Lab;
use fodder_model::{
    attributes::{ATTRIBUTES, AttributeKind, Group},
    limits::{LIMITS, LimitInfo},
    profile::{self, When},
    short_form::{CERTIFICATE_VARIABLES, schema::schema},
};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page, by its path below the root of the repository.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    for folder in ["docs", "docs/decisions"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        pages.extend(
            entries
                .map(|entry| format!("{folder}/{}", entry.expect("an entry").file_name().to_str().expect("UTF-8")))
                .filter(|name| name.ends_with(".md")),
        );
    }
    pages.sort();
    pages.insert(0, "README.md".to_owned());
    pages
}

/// Compares a file with what it should be, or writes it.
fn must_be(path: &Path, expected: &str) {
    if std::env::var_os("FODDER_UPDATE").is_some() {
        std::fs::write(path, expected).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let is_current = std::fs::read_to_string(path).is_ok_and(|found| found == expected);
    assert!(is_current, "{} is out of date: run the tests with FODDER_UPDATE=1", path.display());
}

#[test]
fn the_schema_is_the_one_that_the_program_has() {
    let text = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
    must_be(&root().join("docs/short-form.schema.json"), &text);
}

#[test]
fn the_generated_parts_of_pages_are_up_to_date() {
    let mut seen = BTreeSet::new();
    for page in pages() {
        let path = root().join(&page);
        let mut result = String::new();
        let mut lines = read(&path).lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
        while let Some(line) = lines.next() {
            result.push_str(&line);
            result.push('\n');
            let Some(what) = line.strip_prefix("<!-- generated: ").and_then(|rest| rest.strip_suffix(" -->")) else {
                continue;
            };
            seen.insert(what.to_owned());
            let end = lines.by_ref().find(|line| line == "<!-- end -->");
            assert!(end.is_some(), "{page}: '{what}' has no end");
            write!(result, "\n{}\n<!-- end -->\n", generated(what)).expect("a string");
        }
        must_be(&path, &result);
    }
    let expected = [
        "attacks",
        "attributes",
        "certificate variables",
        "limits",
        "profile base",
        "profile host-tools",
        "profile nix",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

fn generated(what: &str) -> String {
    match what {
        "attributes" => attributes(),
        "attacks" => crate::security::table(),
        "limits" => limits(),
        "certificate variables" => CERTIFICATE_VARIABLES.map(|name| format!("- `{name}`\n")).concat(),
        _ => match what.strip_prefix("profile ") {
            Some(name) => profile_entries(name),
            None => panic!("nothing is generated under the name '{what}'"),
        },
    }
}

fn limits() -> String {
    let mut text = "| limit | when nobody says | of what |\n|---|---|---|\n".to_owned();
    for LimitInfo { limit: _, name, unit: _, default, description } in LIMITS {
        writeln!(text, "| `{name}` | {default} | {description} |").expect("a string");
    }
    text
}

fn attributes() -> String {
    let groups: BTreeSet<Group> = ATTRIBUTES.iter().map(|attribute| attribute.group).collect();
    let mut text = String::new();
    for group in groups {
        write!(text, "## {}\n\n| attribute | value | meaning |\n|---|---|---|\n", heading(group)).expect("a string");
        for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.group == group) {
            let kind = kind(attribute.kind);
            writeln!(text, "| `{}` | {kind} | {} |", attribute.name, attribute.description).expect("a string");
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn heading(group: Group) -> &'static str {
    match group {
        Group::Identity => "Identity",
        Group::Inputs => "Inputs",
        Group::Phases => "Phases",
        Group::Hooks => "Hooks",
        Group::Switches => "Switches",
        Group::PhaseSettings => "Settings of phases",
        Group::FixedOutput => "Fixed outputs",
        Group::OutputChecks => "Checks of outputs",
        Group::Environment => "Environment",
        Group::Builder => "A builder of your own",
        Group::Fodder => "This program",
    }
}

fn kind(kind: AttributeKind) -> &'static str {
    match kind {
        AttributeKind::Text => "text",
        AttributeKind::Script => "script",
        AttributeKind::List => "list",
        AttributeKind::Switch => "switch",
        AttributeKind::Source => "path, or list of paths",
        AttributeKind::Object => "object",
        AttributeKind::Any => "anything",
    }
}

/// The entries that a profile adds to the one it extends.
fn profile_entries(name: &str) -> String {
    let entries = |name: &str| match profile::built_in(name) {
        Some(text) => profile::parse(name, text).expect("a built-in profile is valid").entries,
        None => panic!("there is no profile '{name}'"),
    };
    let base: BTreeSet<String> = if name == "base" {
        BTreeSet::new()
    } else {
        entries("base").iter().map(|entry| entry.path().to_owned()).collect()
    };
    let mut text = "| path | when | why |\n|---|---|---|\n".to_owned();
    for entry in entries(name).iter().filter(|entry| !base.contains(entry.path())) {
        let when = match entry.when {
            When::Always => "always",
            When::Network => "with the network",
            When::NoNetwork => "without the network",
            When::Gateway => "with the gateway",
            When::HostNetwork => "with the host's network",
        };
        writeln!(text, "| `{}` | {when} | {} |", entry.path(), entry.why.replace('|', "\\|")).expect("a string");
    }
    text
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    for page in pages() {
        let path = root().join(&page);
        if let Some(name) = page.strip_prefix("docs/").filter(|name| *name != "SUMMARY.md") {
            assert!(summary.contains(&format!("({name})")), "{page} is not in docs/SUMMARY.md");
        }
        for link in read(&path).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !link.contains("://") {
                let target = path.parent().expect("a directory").join(file);
                assert!(target.exists(), "{page} links to {link}");
            }
        }
    }
}

#[test]
fn every_field_of_the_result_is_described() {
    let lab = Lab::new();
    let page = read(&root().join("docs/results.md"));
    lab.write("x.json", r#"{"name": "x", "dontUnpack": true, "buildPhase": "echo > $out", "outputHash": ""}"#);
    let (_, failed) = lab.build_json(&["x.json"]);
    lab.write("y.json", r#"{"name": "y", "dontUnpack": true, "buildPhase": "echo > $out"}"#);
    let (_, built) = lab.build_json(&["y.json"]);
    for object in [&failed, &failed["hash"], &built["outputs"]["out"]] {
        for field in object.as_object().expect("an object").keys() {
            // `hash.got` is spelled as the path of a field, and so are outputs.
            let is_described = [format!("`{field}`"), format!("`{field}."), format!(".{field}`")];
            assert!(is_described.iter().any(|words| page.contains(words)), "'{field}' is not in docs/results.md");
        }
    }
}

/// Whoever follows the README has what CI has.
#[test]
fn the_readme_names_the_packages_that_ci_installs() {
    let run = read(&root().join(".ci/run"));
    let (_, rest) = run.split_once("packages=(").expect("a list of packages");
    let (list, rest) = rest.split_once("\n)").expect("its end");
    let more = rest.split_once("packages+=(").and_then(|(_, rest)| rest.split(')').next()).expect("those of npm");
    let of_ci: BTreeSet<&str> = list
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .chain(more.split_whitespace())
        .collect();
    let readme = read(&root().join("README.md"));
    let (_, rest) = readme.split_once("apt-get install ").expect("a line with the packages");
    let named: BTreeSet<&str> = rest.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(named, of_ci);
}

/// A command with what it prints.
struct Step {
    command: String,
    expected: Vec<String>,
}

/// A fenced block.
enum Block {
    File { name: String, contents: String },
    Transcript(Vec<Step>),
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(tag) = line.strip_prefix("```").filter(|tag| !tag.is_empty()) else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if let Some(name) = tag.split(' ').find_map(|word| word.strip_prefix("file=")) {
            blocks.push(Block::File { name: name.to_owned(), contents: body.join("\n") + "\n" });
        } else if tag == "console run" {
            let mut steps: Vec<Step> = Vec::new();
            let mut goes_on = false;
            for line in body {
                match (line.strip_prefix("$ "), steps.last_mut()) {
                    (_, Some(step)) if goes_on => step.command.push_str(&format!("\n{line}")),
                    (Some(command), _) => {
                        steps.push(Step { command: command.to_owned(), expected: Vec::new() });
                    }
                    (None, Some(step)) => step.expected.push(line.to_owned()),
                    (None, None) => panic!("a transcript begins with '$ ', not with '{line}'"),
                }
                let is_command = goes_on || line.starts_with("$ ");
                goes_on = is_command && line.ends_with('\\');
            }
            blocks.push(Block::Transcript(steps));
        }
    }
    blocks
}

/// Whether lines are as a transcript shows them.
fn matches(expected: &[String], found: &[&str]) -> bool {
    match (expected.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "…" => (0..=found.len()).any(|skipped| matches(rest, &found[skipped..])),
        (Some((first, rest)), Some((line, others))) => line_matches(first, line) && matches(rest, others),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn line_matches(expected: &str, found: &str) -> bool {
    match expected.split_once('…') {
        None => expected == found,
        Some((start, rest)) => found.strip_prefix(start).is_some_and(|found| {
            (0..=found.len())
                .filter(|skipped| found.is_char_boundary(*skipped))
                .any(|skipped| line_matches(rest, &found[skipped..]))
        }),
    }
}

#[test]
fn transcripts_are_matched_with_and_without_gaps() {
    let expected = ["a", "…", "b … d"].map(str::to_owned);
    assert!(matches(&expected, &["a", "x", "y", "b c d"]));
    assert!(matches(&expected, &["a", "b  d"]));
    assert!(!matches(&expected, &["a", "x", "b c"]));
    assert!(!matches(&expected, &["a"]));
}

#[test]
fn the_pages_show_what_happens() {
    let mut transcripts = 0;
    let path = std::env::var("PATH").expect("a search path");
    let program = Path::new(env!("CARGO_BIN_EXE_fodder")).parent().expect("a directory");
    for page in pages() {
        let lab = Lab::new();
        let examples = root().join("examples").canonicalize().expect("the examples");
        std::os::unix::fs::symlink(examples, lab.path().join("examples")).expect("link");
        let mut status = 0;
        for block in blocks(&read(&root().join(&page))) {
            let steps = match block {
                Block::File { name, contents } => {
                    lab.write(&name, contents);
                    continue;
                }
                Block::Transcript(steps) => steps,
            };
            transcripts += 1;
            for Step { command, expected } in steps {
                let mut bash = std::process::Command::new("bash");
                bash.env("FODDER_HOST_STORE", "none");
                // `$?` of the command before, as at a prompt.
                bash.args(["-c", &format!("exec 2>&1\n(exit {status})\n{command}")]).current_dir(lab.path());
                bash.env("PATH", format!("{}:{path}", program.display()));
                bash.env("XDG_DATA_HOME", lab.path().join("data"));
                let run = lab.run(bash);
                status = run.code;
                let found: Vec<&str> = run.stdout.lines().collect();
                assert!(
                    matches(&expected, &found),
                    "{page}: $ {command}\nexpected:\n{}\n\nfound:\n{}",
                    expected.join("\n"),
                    run.stdout
                );
            }
        }
    }
    assert!(transcripts >= 8, "only {transcripts} transcripts were found: was the tag changed?");
}
