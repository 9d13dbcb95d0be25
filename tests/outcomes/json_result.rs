//! What `--json` prints.

use super::{HI, ends};
use crate::{
    lab::Lab,
    recipe::{Recipe, text},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn the_json_result_has_the_fields_that_scripts_rely_on() {
    let lab = Lab::new();
    let recipe = Recipe::new("result", "echo $dev > $out; echo > $dev").output("dev").env("dev", "");
    let result = ends(&lab, &recipe, &[], 0, "Built");
    let names: BTreeSet<&str> = result.as_object().expect("an object").keys().map(String::as_str).collect();
    for name in [
        "version",
        "success",
        "status",
        "errorMsg",
        "drvPath",
        "outputs",
        "hash",
        "isolation",
        "network",
        "logFile",
        "startTime",
        "stopTime",
        "cpuUser",
        "cpuSystem",
    ] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    assert_eq!(result["version"], 1);
    assert_eq!(text(&result, "/drvPath"), recipe.path().to_string());
    assert_eq!(text(&result, "/network/mode"), "none");
    assert_eq!(result["hash"], Value::Null);
    let out = &result["outputs"]["out"];
    let fields: BTreeSet<&str> = out.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["path", "realPath", "narHash", "narSize", "references", "ca"]));
    assert_eq!(text(out, "/path"), recipe.out().to_string());
    assert_eq!(text(out, "/realPath"), lab.real(&recipe.out()).display().to_string());
    assert_eq!(out["references"], json!([recipe.output_path("dev").to_string()]));
    assert_eq!(out["ca"], Value::Null);
    let hash = lab.fodder(&["hash", text(out, "/realPath"), "--json"]);
    let hash: Value = serde_json::from_str(&hash.stdout).expect("JSON");
    assert_eq!((&out["narHash"], &out["narSize"]), (&hash["narHash"], &hash["narSize"]));
    for time in ["startTime", "stopTime", "cpuUser", "cpuSystem"] {
        assert!(result[time].is_u64(), "{time}: {result:#}");
    }
    assert!(result["stopTime"].as_u64() >= result["startTime"].as_u64());
    assert!(std::path::Path::new(text(&result, "/logFile")).is_file());
    let isolation = &result["isolation"];
    assert_eq!(
        isolation["namespaces"],
        json!(["user", "mount", "pid", "ipc", "uts", "network", "cgroup"]),
        "{isolation:#}"
    );
    assert_eq!((&isolation["noCapabilities"], &isolation["noNewPrivileges"]), (&json!(true), &json!(true)));
    assert_ne!(isolation["outsideUid"], 0, "the builder is never root on the host");
}

#[test]
fn the_json_result_of_a_fixed_output_has_its_content_address() {
    let lab = Lab::new();
    let recipe = Recipe::new("fixed", "echo hi > $out").fixed_to("hi\n");
    let result = ends(&lab, &recipe, &[], 0, "Built");
    assert_eq!(text(&result, "/outputs/out/ca"), "fixed:sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq");
    assert_eq!(result["hash"], json!({ "specified": HI, "got": HI }));
    assert_eq!(text(&result, "/network/mode"), "gateway");
}

#[test]
fn json_keeps_standard_output_to_one_object_whatever_happens() {
    let lab = Lab::new();
    for (recipe, code) in [
        (Recipe::new("good", "echo noise; echo noise >&2; echo > $out"), 0),
        (Recipe::new("bad", "echo noise; exit 1"), 100),
        (Recipe::new("foreign", "echo noise").system("foo-bar"), 100),
    ] {
        let run = lab.make(&recipe, &["--json"]);
        assert_eq!(run.code, code, "{run:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
        assert!(serde_json::from_str::<Value>(&run.stdout).expect("JSON").is_object());
    }
}
