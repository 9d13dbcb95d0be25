//! What a derivation depends on is built first, in parallel, once, and failures name the way to them.

use crate::{lab::Lab, recipe::Recipe};
use fodder_model::{
    derivation::{
        Derivation, Output, json,
        paths::{self, DerivationSet},
    },
    store_path::StorePath,
};
use serde_json::{Value, json};

/// A set of derivations in the making; each may name the ones before it.
#[derive(Default)]
pub struct Chain {
    /// By path.
    pub set: DerivationSet,
}

impl Chain {
    /// Adds a derivation whose script may use `$<name>` for each of `inputs`; returns its path and its output's.
    pub fn add(&mut self, recipe: Recipe, inputs: &[(&str, &StorePath)]) -> (StorePath, StorePath) {
        let mut recipe = recipe;
        for (name, path) in inputs {
            let input: &Derivation = &self.set[*path];
            let out = input.known_output_paths()["out"].clone().expect("a known path");
            recipe = recipe.env(name, &out.to_string());
            recipe.parts.input_derivations.insert((*path).clone(), ["out".to_owned()].into());
        }
        let derivation = paths::fill(recipe.parts, &self.set).expect("a derivation");
        let path = paths::derivation_path(&derivation).expect("a path");
        let out = derivation.known_output_paths()["out"].clone().expect("a known path");
        self.set.insert(path.clone(), derivation);
        (path, out)
    }

    /// Builds the last one.
    pub fn build(&self, lab: &Lab, arguments: &[&str]) -> (i32, Value) {
        lab.write("chain.json", json::write_set(&self.set));
        let mut all = arguments.to_vec();
        all.push("chain.json");
        lab.build_json(&all)
    }
}

/// Name and status of everything that was built first.
pub fn statuses(result: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |path: &Value| text(path).rsplit_once('-').map(|(_, name)| name.to_owned()).unwrap_or_default();
    let dependencies = result["dependencies"].as_array().expect("dependencies");
    dependencies.iter().map(|outcome| (name(&outcome["drvPath"]), text(&outcome["status"]))).collect()
}

#[test]
fn of_a_chain_everything_is_built_in_order_and_only_once() {
    let lab = Lab::new();
    let mut chain = Chain::default();
    let (first, first_out) = chain.add(Recipe::new("first", "echo first > $out"), &[]);
    let (fixed, _) = chain.add(Recipe::new("fixed", "echo hi > $out").fixed_to("hi\n"), &[]);
    let second = Recipe::new("second", "cat $a $f > $out; echo $a >> $out");
    let (second, _) = chain.add(second, &[("a", &first), ("f", &fixed)]);
    let (_, _) = chain.add(Recipe::new("third", "cat $b > $out"), &[("b", &second)]);
    let (code, result) = chain.build(&lab, &[]);
    assert_eq!((code, &result["status"]), (0, &json!("Built")), "{result:#}");
    let order = statuses(&result);
    assert_eq!(order.len(), 3, "{order:?}");
    assert!(order.iter().all(|(_, status)| status == "Built"), "{order:?}");
    assert_eq!(order[2].0, "second.drv", "what the third needs is last");
    let contents = std::fs::read_to_string(result["outputs"]["out"]["realPath"].as_str().expect("a path"));
    assert_eq!(contents.expect("the output"), format!("first\nhi\n{first_out}\n"));
    assert_eq!(result["outputs"]["out"]["references"], json!([first_out.to_string()]));

    let (code, result) = chain.build(&lab, &["--rebuild"]);
    assert_eq!((code, statuses(&result).len()), (0, 0), "what is valid is not built again: {result:#}");
}

#[test]
fn what_waits_for_nothing_is_built_at_the_same_time() {
    let lab = Lab::new();
    let mut chain = Chain::default();
    // Two builders that wait for each other through nothing but time: one after the other takes twice as long.
    let (one, _) = chain.add(Recipe::new("one", "sleep 2; echo 1 > $out"), &[]);
    let (two, _) = chain.add(Recipe::new("two", "sleep 2; echo 2 > $out"), &[]);
    chain.add(Recipe::new("both", "cat $a $b > $out"), &[("a", &one), ("b", &two)]);
    let (code, result) = chain.build(&lab, &["-j", "2"]);
    assert_eq!(code, 0, "{result:#}");
    let times: Vec<(i64, i64)> = result["dependencies"]
        .as_array()
        .expect("dependencies")
        .iter()
        .map(|outcome| (outcome["startTime"].as_i64().expect("a time"), outcome["stopTime"].as_i64().expect("a time")))
        .collect();
    assert!(times[0].0 < times[1].1 && times[1].0 < times[0].1, "they overlap: {times:?}");
}

#[test]
fn a_failure_names_the_way_to_it_and_gives_its_exit_code() {
    let lab = Lab::new();
    let mut chain = Chain::default();
    let (bad, _) = chain.add(Recipe::new("bad", "echo other > $out").fixed_to("hi\n"), &[]);
    let (middle, _) = chain.add(Recipe::new("middle", "cat $a > $out"), &[("a", &bad)]);
    let (root, output) = chain.add(Recipe::new("root", "cat $a > $out"), &[("a", &middle)]);
    let (code, result) = chain.build(&lab, &[]);
    assert_eq!((code, &result["status"]), (102, &json!("DependencyFailed")), "{result:#}");
    let message = result["errorMsg"].as_str().expect("a message");
    assert_eq!(
        message,
        format!(
            "Cannot build '{root}'.\nReason: 1 dependency failed.\nOutput paths:\n  {output}\nWhy:\n  '{root}'\n    which needs '{middle}'\n    which needs '{bad}'"
        )
    );
    assert_eq!(statuses(&result), [("bad.drv".to_owned(), "HashMismatch".to_owned())]);
}

#[test]
fn after_a_failure_the_rest_is_built_only_with_keep_going() {
    let build = |arguments: &[&str]| {
        let lab = Lab::new();
        let mut chain = Chain::default();
        let (bad, _) = chain.add(Recipe::new("bad", "exit 3"), &[]);
        let (good, _) = chain.add(Recipe::new("good", "sleep 1; echo > $out"), &[]);
        let (late, _) = chain.add(Recipe::new("late", "echo > $out"), &[("a", &good)]);
        chain.add(Recipe::new("root", "echo > $out"), &[("a", &bad), ("b", &late)]);
        let (code, result) = chain.build(&lab, arguments);
        assert_eq!((code, &result["status"]), (100, &json!("DependencyFailed")), "{result:#}");
        statuses(&result).into_iter().map(|(name, status)| format!("{name} {status}")).collect::<Vec<_>>()
    };
    let all = build(&["-j", "2", "-k"]);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all.contains(&"late.drv Built".to_owned()), "{all:?}");
    let first = build(&["-j", "2"]);
    assert!(!first.contains(&"late.drv Built".to_owned()), "{first:?}");
    assert!(first.contains(&"bad.drv PermanentFailure".to_owned()), "{first:?}");
}

#[test]
fn a_dependency_that_is_wrong_is_refused_in_its_own_words() {
    let lab = Lab::new();
    let mut chain = Chain::default();
    let odd = Recipe::new("odd", "echo > $out").env("exportReferencesGraph", "odd");
    let (odd, _) = chain.add(odd, &[]);
    let (middle, _) = chain.add(Recipe::new("middle", "echo > $out"), &[("a", &odd)]);
    chain.add(Recipe::new("root", "echo > $out"), &[("a", &middle)]);
    let (code, result) = chain.build(&lab, &[]);
    assert_eq!(code, 100, "{result:#}");
    assert!(result["errorMsg"].as_str().expect("words").contains("1 dependency failed"), "{result:#}");
    let words = result["dependencies"][0]["errorMsg"].as_str().expect("words");
    assert!(words.contains("odd number of tokens in 'exportReferencesGraph'"), "{words}");
}

#[test]
fn a_dependency_that_was_changed_after_it_was_printed_is_not_built_under_its_old_name() {
    let lab = Lab::new();
    let mut chain = Chain::default();
    let (fixed, _) = chain.add(Recipe::new("fixed", "echo hi > $out").fixed_to("hi\n"), &[]);
    chain.add(Recipe::new("root", "cat $a > $out"), &[("a", &fixed)]);
    let text = json::write_set(&chain.set).replace("echo hi > $out", "printf 'hi\\\\n' > $out");
    lab.write("changed.json", text);
    let (code, result) = lab.build_json(&["changed.json"]);
    assert_eq!(code, 100, "{result:#}");
    let words = result["dependencies"][0]["errorMsg"].as_str().expect("words");
    assert!(words.contains("it was changed since"), "{words}");
}

/// Whoever writes a file can name each derivation rightly, and an output as he likes.
///
/// Attack: DRV-7 (an output of a dependency that is somebody else's path). Layer: paths are computed anew, of dependencies too.
#[test]
fn a_dependency_cannot_take_the_path_of_another_output() {
    let lab = Lab::new();
    let victim = Recipe::new("victim", "echo good > $out").out();
    let mut chain = Chain::default();
    let mut parts = Recipe::new("evil", "echo evil > $out").parts;
    parts.outputs = [("out".to_owned(), Output::InputAddressed { path: victim.clone() })].into();
    parts.environment.insert("out".into(), victim.to_string().into());
    let evil = Derivation::new(parts).expect("a derivation");
    let path = paths::derivation_path(&evil).expect("a path");
    chain.set.insert(path.clone(), evil);
    chain.add(Recipe::new("root", "cat $a > $out"), &[("a", &path)]);
    let (code, result) = chain.build(&lab, &[]);
    assert_eq!(code, 100, "{result:#}");
    let words = result["dependencies"][0]["errorMsg"].as_str().expect("words");
    assert!(words.contains(&format!("derivation has incorrect output '{victim}'")), "{words}");
    assert!(!lab.real(&victim).exists());
}

/// A flag is about the derivation that is named; a replay calls nobody, not for what it is built from either.
///
/// Attack: NET-8 (a download beside a replay). Layer: dependencies of a replay have no network.
#[test]
fn a_network_is_for_what_may_have_one_and_a_replay_has_none() {
    let fixed = |name: &str| Recipe::new(name, "printf hi > $out").fixed_to("hi");
    let mut chain = Chain::default();
    let (plain, _) = chain.add(Recipe::new("plain", "echo > $out"), &[]);
    let (first, _) = chain.add(fixed("first"), &[]);
    chain.add(fixed("root"), &[("a", &first), ("b", &plain)]);
    let (recording, modes) = (Lab::new(), |result: &Value| {
        let mode = |outcome: &Value| (outcome["drvPath"].clone(), outcome["network"]["mode"].clone());
        let mut modes: Vec<_> = result["dependencies"].as_array().expect("an array").iter().map(mode).collect();
        modes.sort_by_key(|(path, _)| path.as_str().is_some_and(|path| path.ends_with("-plain.drv")));
        modes.into_iter().map(|(_, mode)| mode).collect::<Vec<_>>()
    });
    let file = recording.path().join("recording").display().to_string();
    for (flags, expected) in
        [(["--network", "gateway"], "gateway"), (["--record", &file], "gateway"), (["--replay", &file], "none")]
    {
        let (code, result) = chain.build(&Lab::new(), &flags);
        assert_eq!((code, modes(&result)), (0, vec![json!(expected), json!("none")]), "{flags:?}: {result:#}");
    }
}

#[test]
fn explain_plans_with_what_would_be_built_first() {
    let lab = Lab::new();
    let mut chain = Chain::default();
    let (first, first_out) = chain.add(Recipe::new("first", "echo first > $out"), &[]);
    chain.add(Recipe::new("second", "cat $a > $out"), &[("a", &first)]);
    lab.write("chain.json", json::write_set(&chain.set));
    let store = lab.store();
    let run = lab.fodder(&["explain", "--store", store.to_str().expect("UTF-8"), "chain.json"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains(&format!("'{first_out}' is not there yet and would be built first")), "{}", run.stdout);
    assert!(!store.exists(), "explain writes nothing");
}
