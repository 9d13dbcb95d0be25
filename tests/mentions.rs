//! The places that mention store paths which they must not: listed up to a bound, for the output that is at fault, at any depth.

use crate::{
    lab::Lab,
    recipe::{NO_HASH, Recipe, text},
};
use fodder_model::{content_address::ContentMethod, store_path::StorePath};
use serde_json::{Value, json};

/// A fixed derivation that may not mention `tool`, and does.
fn refers(tool: &StorePath, script: &str) -> Recipe {
    Recipe::new("refers", script).env("tool", &tool.to_string()).source(tool).fixed(ContentMethod::Nar, NO_HASH)
}

fn places(outcome: &Value) -> Vec<(&str, &str, u64)> {
    let hits = outcome["references"].as_array().expect("places");
    hits.iter()
        .map(|hit| (text(hit, "/output"), text(hit, "/file"), hit["offset"].as_u64().expect("an offset")))
        .collect()
}

#[test]
fn a_thousand_places_are_listed_and_the_rest_is_counted() {
    let lab = Lab::new();
    let tool = lab.text("tool", "x");
    let recipe = refers(&tool, "yes $tool | head -n 1234 > $out");
    let (code, outcome) = lab.make_json(&recipe, &[]);
    assert_eq!((code, &outcome["referencesOmitted"]), (112, &json!(234)));
    assert_eq!(places(&outcome).len(), 1000);
    let run = lab.make(&recipe, &[]);
    let is_place = |line: &&str| line.ends_with(&format!("  {tool}  text"));
    assert_eq!(run.stderr.lines().filter(is_place).count(), 1000);
    let line = run.stderr.lines().find(|line| line.contains("… and 234 more; ")).expect("the rest");
    assert!(line.contains("-K") && line.contains("`fodder refs --to STORE-PATH DIR`"), "{line}");
    // What the words advise.
    let (_, outcome) = lab.make_json(&recipe, &["-K"]);
    let output = format!("{}/store/{}", text(&outcome, "/kept"), recipe.out().base_name());
    let all = lab.fodder(&["refs", "--to", &tool.to_string(), &output]);
    assert_eq!((all.code, all.stdout.lines().filter(is_place).count()), (0, 1234), "{}", all.stderr);
    let all = lab.fodder(&["refs", "--json", &output]);
    let hits: Value = serde_json::from_str(&all.stdout).expect("JSON");
    assert_eq!(hits.as_array().map(Vec::len), Some(1234));
    let run = lab.make(&recipe, &["-K"]);
    let line = run.stderr.lines().find(|line| line.contains("… and 234 more; ")).expect("the rest");
    assert!(line.contains("/kept-") && line.ends_with("/store'"), "{line}");
}

#[test]
fn nothing_is_an_empty_array() {
    let lab = Lab::new();
    lab.write("tree/file", "nothing");
    let run = lab.fodder(&["refs", "--json", "tree"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "[]\n"), "{}", run.stderr);
    let run = lab.fodder(&["refs", "--json", "absent"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
}

#[test]
fn what_one_output_must_not_mention_is_not_listed_for_another() {
    let lab = Lab::new();
    let (tool, other) = (lab.text("tool", "x"), lab.text("other", "x"));
    // The shell has no associative arrays, so the outputs' paths are cut out of the file of attributes.
    let script = format!(
        r#"of() {{ sed -n "s/.*\['$1'\]='\([^']*\)'.*/\1/p" $NIX_ATTRS_SH_FILE; }}
        mkdir $(of out); echo {tool} {other} > $(of out)/both; echo {tool} {other} > $(of dev); echo {tool} {other} > $(of lib)"#
    );
    let recipe = Recipe::new("refers", &script).output("dev").output("lib").source(&tool).source(&other).structured(
        json!({ "outputChecks": {
            "out": { "disallowedReferences": [other.to_string()] },
            "dev": { "disallowedRequisites": [tool.to_string()] },
        } }),
    );
    let (code, outcome) = lab.make_json(&recipe, &[]);
    assert_eq!(code, 112, "{outcome:#}");
    let second = tool.to_string().len() as u64 + 1;
    let dev = recipe.output_path("dev");
    assert_eq!(places(&outcome), [("dev", dev.base_name(), 11), ("out", "both", second + 11)]);
    let run = lab.make(&recipe, &[]);
    let at = |line: &str| {
        run.stderr.lines().position(|found| found.trim() == line).unwrap_or_else(|| panic!("no {line}: {}", run.stderr))
    };
    assert_eq!(at("in output 'dev':") + 1, at(&format!("{}:11  {tool}  text", dev.base_name())));
    assert_eq!(at("in output 'out':") + 1, at(&format!("both:{}  {other}  text", second + 11)));
}

#[test]
fn a_path_longer_than_the_kernel_takes_is_no_obstacle() {
    let lab = Lab::new();
    let tool = lab.text("tool", "x");
    let script = "mkdir $out; cd $out; n=$(printf %0200d 0); i=0
        while [ $i -lt 30 ]; do mkdir $n; cd -P $n 2>/dev/null; i=$((i+1)); done; echo $tool > leaf";
    let (code, outcome) = lab.make_json(&refers(&tool, script), &[]);
    assert_eq!(code, 112, "{outcome:#}");
    let file = format!("{}leaf", format!("{}/", "0".repeat(200)).repeat(30));
    assert_eq!(places(&outcome), [("out", file.as_str(), 11)]);
}

#[test]
fn the_advice_for_fixed_outputs_is_for_fixed_outputs() {
    let lab = Lab::new();
    let tool = lab.text("tool", "x");
    let fixed = lab.make(&refers(&tool, "echo $tool > $out"), &[]);
    let recipe = Recipe::new("refers", "echo $tool > $out").env("tool", &tool.to_string()).source(&tool);
    let other = lab.make(&recipe.clone().env("disallowedReferences", &tool.to_string()), &[]);
    for (run, is_fixed) in [(fixed, true), (other, false)] {
        assert_eq!(run.code, 112, "{run:?}");
        assert_eq!(run.stderr.contains("hint: a fixed output"), is_fixed, "{}", run.stderr);
        // A file that is the output itself has a name, too.
        let is_place = |line: &str| line.ends_with(&format!("-refers:11  {tool}  text"));
        assert!(run.stderr.lines().any(is_place), "{}", run.stderr);
    }
}
