//! Builds a group of the table (`cases/*.nix`) with both, and compares.

use super::nix::Nix;
use crate::{lab::Run, recipe::text};
use fodder_model::{hash::Hash, store_path::StorePath};
use fodder_store::Store;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// What is expected of one derivation; `cases/default.nix` says what the fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    name: String,
    #[serde(default)]
    ends: (i32, i32),
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    ours: Vec<String>,
    because: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
}

/// One derivation of the group, built by both.
struct Built {
    expectation: Expectation,
    path: StorePath,
    nix: Run,
    fodder: Run,
}

pub fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/cases")
}

/// Builds all derivations of a group with both and compares. All are tried, so that one difference does not hide the next.
#[track_caller]
pub fn alike(group: &str) {
    let nix = Nix::new();
    let (expectations, paths) = evaluate(&nix, group);
    let file = show(&nix, &paths);
    let waiting = Mutex::new(expectations.into_iter().zip(paths).rev().collect::<Vec<_>>());
    let built = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((expectation, path)) = waiting.lock().expect("the list").pop() else { return };
                    let flags: Vec<&str> = expectation.flags.iter().map(String::as_str).collect();
                    let fodder = nix.fodder(&file, &path, &flags);
                    let nix = nix.realise(&path, &for_nix(&flags));
                    built.lock().expect("the list").push(Built { expectation, path, nix, fodder });
                }
            });
        }
    });
    let known = path_infos(&nix);
    let mut failures = Vec::new();
    let built = built.into_inner().expect("the list");
    for case in &built {
        let findings = compare(&nix, case, &known);
        if !findings.is_empty() {
            failures.push(format!("--- {}\n{}", case.expectation.name, findings.join("\n")));
        }
    }
    failures.sort();
    assert!(failures.is_empty(), "{} of {} in {group}:\n{}", failures.len(), built.len(), failures.join("\n"));
}

/// Limits are flags of fodder and of `nix-build`, but not all of `nix-store`.
fn for_nix<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    let mut all = Vec::new();
    for flag in flags {
        if *flag == "--max-build-log-size" {
            all.extend(["--option", "max-build-log-size"]);
        } else {
            all.push(*flag);
        }
    }
    all
}

fn evaluate(nix: &Nix, group: &str) -> (Vec<Expectation>, Vec<StorePath>) {
    let table = table();
    let of = |attribute, more: &[&str]| {
        let arguments = [&[table.to_str().expect("UTF-8"), "--argstr", "group", group, "-A", attribute], more].concat();
        nix.run("nix-instantiate", &arguments)
    };
    let expectations = of("expectations", &["--eval", "--strict", "--json"]);
    let expectations: Vec<Expectation> = serde_json::from_str(&expectations).expect("expectations");
    let paths: Vec<StorePath> = of("derivations", &[])
        .lines()
        .map(|line| line.split('!').next().unwrap_or(line).parse().expect("a store path"))
        .collect();
    assert_eq!(expectations.len(), paths.len());
    for (Expectation { name, ends, ours, because, .. }, path) in expectations.iter().zip(&paths) {
        // Derivations that are named otherwise are about their names.
        assert!(path.name() == format!("{name}.drv") || name.starts_with("name"), "{name} is {path}");
        assert!(
            because.is_some() || (ends.0 == ends.1 && ours.is_empty()),
            "{name} is to differ, and does not say why"
        );
    }
    (expectations, paths)
}

/// The derivations as JSON in a file, and the sources that they need in fodder's store.
fn show(nix: &Nix, paths: &[StorePath]) -> String {
    let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let json = nix.run("nix", &[&["show-derivation", "--recursive"], &paths[..]].concat());
    let store = Store::open(&nix.lab.store()).expect("open the store");
    let closure = nix.run("nix-store", &[&["--query", "--requisites"], &paths[..]].concat());
    for member in closure.lines().map(|line| line.parse::<StorePath>().expect("a store path")) {
        // A derivation that is a source of another has to be there, with all that it refers to.
        if !member.is_derivation() || json.contains(&format!("\"{member}\"\n")) {
            nix.copy(&store, &member);
        }
    }
    let file = nix.lab.write("group.json", &json);
    file.to_str().expect("UTF-8").to_owned()
}

/// All that Nix's database knows, by path.
fn path_infos(nix: &Nix) -> BTreeMap<String, Value> {
    let infos: Vec<Value> = serde_json::from_str(&nix.run("nix", &["path-info", "--all", "--json"])).expect("JSON");
    infos.into_iter().map(|info| (text(&info, "/path").to_owned(), info)).collect()
}

fn compare(nix: &Nix, case: &Built, known: &BTreeMap<String, Value>) -> Vec<String> {
    let Built { expectation, path, nix: by_nix, fodder } = case;
    let mut findings = Vec::new();
    if (by_nix.code, fodder.code) != expectation.ends {
        findings.push(format!(
            "ended with {} and {} instead of {:?}\nNix: {}\nfodder: {}",
            by_nix.code, fodder.code, expectation.ends, by_nix.stderr, fodder.stderr
        ));
        return findings;
    }
    for word in &expectation.says {
        for (who, run) in [("Nix", by_nix), ("fodder", fodder)] {
            if !run.stderr.contains(word) {
                findings.push(format!("{who} does not say {word:?}: {}", run.stderr));
            }
        }
    }
    let result: Value = serde_json::from_str(&fodder.stdout).unwrap_or(Value::Null);
    if !expectation.ours.is_empty() {
        let mut said = fodder.stderr.clone();
        for output in result["outputs"].as_object().into_iter().flat_map(|outputs| outputs.values()) {
            said.push_str(&std::fs::read_to_string(text(output, "/realPath")).unwrap_or_default());
        }
        let missing = expectation.ours.iter().filter(|word| !said.contains(*word));
        findings.extend(missing.map(|word| format!("fodder does not say {word:?}: {said}")));
    }
    if expectation.because.is_some() {
        return findings;
    }
    if fodder.code == 0 {
        if text(&result, "/drvPath") != path.to_string() {
            findings.push(format!("{path} is {}", result["drvPath"]));
        }
        for output in result["outputs"].as_object().expect("outputs").values() {
            findings.extend(difference(nix, output, known.get(text(output, "/path"))));
        }
    }
    // Both logs are the same to the byte, also of builds that failed; there is none of one that did not start.
    if let Some(log) = result["logFile"].as_str() {
        let (ours, theirs) = (std::fs::read(log).expect("our log"), nix.log(path));
        if ours != theirs {
            let (theirs, ours) = (theirs.escape_ascii(), ours.escape_ascii());
            findings.push(format!("the logs differ:\n  Nix:    {theirs}\n  fodder: {ours}"));
        }
    }
    findings
}

/// What differs in an output and in what the databases know of it.
fn difference(nix: &Nix, output: &Value, theirs: Option<&Value>) -> Option<String> {
    let path: StorePath = text(output, "/path").parse().expect("a store path");
    let Some(theirs) = theirs else { return Some(format!("Nix does not have {path}")) };
    let hash = |value: &Value| {
        let text = text(value, "/narHash").to_owned();
        Hash::parse_sri(&text).map_or(text, |hash| format!("sha256:{}", hash.to_nix32()))
    };
    let set = |value: &Value| -> BTreeSet<String> {
        value["references"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|path| path.as_str().map(str::to_owned))
            .collect()
    };
    if set(output) != set(theirs) {
        return Some(format!("{path} refers to {:?} (Nix) and {:?} (fodder)", set(theirs), set(output)));
    }
    if output["ca"].as_str() != theirs["ca"].as_str() {
        return Some(format!("{path} has the content address {} (Nix) and {} (fodder)", theirs["ca"], output["ca"]));
    }
    (hash(output) != hash(theirs) || output["narSize"] != theirs["narSize"]).then(|| {
        let mut diff = std::process::Command::new("diff");
        diff.args(["-r", "-a", "--no-dereference"]).arg(nix.real(&path)).arg(nix.lab.real(&path));
        format!("{path} differs (Nix's, ours):\n{}", nix.lab.run(diff).stdout)
    })
}
