//! What a build may use up, as people meet it: flags, profiles and files, results and messages. That the limits hold is tested in
//! `crates/sandbox/tests`.

use crate::{
    lab::Lab,
    recipe::{Recipe, text},
};
use serde_json::{Value, json};

fn exceeded(result: &Value) -> &str {
    text(result, "/limits/exceeded/limit")
}

/// Attack: RES-5. Layer: limit on memory, from the command line to the result.
#[test]
fn a_build_that_uses_too_much_memory_is_told_what_to_do() {
    let lab = Lab::new();
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=150 2>/dev/null; sleep 1; echo > $out";
    let recipe = Recipe::new("memory", fill);
    let (code, result) = lab.make_json(&recipe, &["--limit", "memory=100M", "--limit", "shared-memory=1G"]);
    assert_eq!((code, text(&result, "/status")), (100, "PermanentFailure"), "{result:#}");
    assert_eq!(exceeded(&result), "memory");
    assert_eq!(result["limits"]["exceeded"]["value"], json!(100 << 20));
    assert!(result["limits"]["exceeded"]["used"].as_u64().expect("a number") > 100 << 20, "{result:#}");
    let run = lab.make(&recipe, &["--limit", "memory=100M", "--limit", "shared-memory=1G"]);
    for words in [
        "Reason: builder was killed: its memory, 1",
        "over the limit of 100 MiB",
        "you set this limit; --limit memory=VALUE",
    ] {
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    let (code, result) = lab.make_json(&recipe, &["--limit", "memory=none", "--limit", "shared-memory=1G"]);
    assert_eq!((code, &result["limits"]["exceeded"]), (0, &Value::Null), "{result:#}");
    assert_eq!(result["limits"]["limits"]["memory"]["value"], Value::Null);
    assert_eq!(result["limits"]["limits"]["memory"]["enforcement"], "nothing");
    assert_eq!(result["limits"]["limits"]["memory"]["origin"], "you");
}

/// Attack: RES-4. Layer: limit on the length of a file, RLIMIT_FSIZE.
#[test]
fn a_sparse_file_of_a_tebibyte_is_refused_and_the_refusal_explained() {
    let lab = Lab::new();
    let recipe = Recipe::new("sparse", "truncate -s 1099511627776 x || exit 9; echo > $out");
    let (code, result) = lab.make_json(&recipe, &["--limit", "file-size=1G"]);
    assert_eq!(code, 100, "{result:#}");
    let notes = result["notes"].to_string();
    assert!(notes.contains("one file may have 1 GiB; --limit file-size=VALUE changes that"), "{result:#}");
    assert_eq!(lab.make_json(&recipe, &["--limit", "file-size=none"]).0, 0);
}

/// Attack: RES-4. Layer: limits on scratch and on outputs.
#[test]
fn disk_and_files_are_limited_while_building_and_in_what_was_built() {
    let lab = Lab::new();
    let fill = Recipe::new("fill", "dd if=/dev/zero of=x bs=1M count=80 2>/dev/null; sleep 2; echo > $out");
    let (code, result) = lab.make_json(&fill, &["--limit", "scratch-size=30M"]);
    assert_eq!((code, exceeded(&result)), (100, "scratch-size"), "{result:#}");
    assert_eq!(lab.make_json(&fill, &[]).0, 0);

    let many = Recipe::new("many", "i=0; while [ $i -lt 2000 ]; do : > $i; i=$((i+1)); done; sleep 2; echo > $out");
    let (code, result) = lab.make_json(&many, &["--limit", "scratch-files=500"]);
    assert_eq!((code, exceeded(&result)), (100, "scratch-files"), "{result:#}");

    let large = Recipe::new("large", "mkdir $out; truncate -s 2000000000 $out/sparse; : > $out/a; : > $out/b");
    for (limit, words) in [("output-size=1G", "has more than 1 GiB"), ("output-files=2", "has more than 2")] {
        let (code, result) = lab.make_json(&large, &["--limit", limit]);
        assert_eq!((code, text(&result, "/status")), (1, "OutputRejected"), "{result:#}");
        assert_eq!(exceeded(&result), limit.split('=').next().expect("a name"));
        assert!(text(&result, "/errorMsg").contains(words), "{result:#}");
        assert!(!lab.real(&large.out()).exists());
    }
    assert_eq!(lab.make_json(&large, &[]).0, 0);
}

/// Attack: RES-3. Layer: limit on processes, whoever runs the build.
#[test]
fn a_fork_bomb_is_refused_processes_and_the_rest_goes_on() {
    let lab = Lab::new();
    let bomb = "i=0; while [ $i -lt 200 ]; do (sleep 5 & exec sleep 5) & i=$((i+1)); done; echo > $out";
    let recipe = Recipe::new("bomb", bomb);
    let (code, result) = lab.make_json(&recipe, &["--limit", "processes=40"]);
    assert_eq!(code, 100, "{result:#}");
    let notes = result["notes"].to_string();
    assert!(notes.contains("a build may have 40 processes and threads; --limit processes=VALUE"), "{result:#}");
    assert_eq!(lab.make_json(&recipe, &[]).0, 0, "without the limit it goes on");
}

/// Attack: RES-6. Layer: time and silence are limited by default.
#[test]
fn every_limit_is_on_by_default_and_explain_and_result_show_it() {
    let lab = Lab::new();
    let recipe = Recipe::new("plain", "ulimit -c; cat /proc/self/limits; sleep 0.4; echo > $out");
    let (_, result) = lab.make_json(&recipe, &[]);
    let limits = &result["limits"]["limits"];
    assert_eq!(limits["time"]["value"], json!(24 * 3600), "{result:#}");
    assert_eq!(limits["silence"]["value"], json!(2 * 3600));
    assert_eq!(limits["log-file"]["value"], json!(64 << 20));
    assert_eq!(limits["log-line"]["value"], json!(1 << 20));
    for name in [
        "memory",
        "processes",
        "scratch-size",
        "scratch-files",
        "file-size",
        "output-size",
        "output-files",
        "open-files",
    ] {
        assert!(limits[name]["value"].as_u64().is_some_and(|value| value > 1000), "{name}: {limits:#}");
        assert_eq!(limits[name]["origin"], "default");
        assert_ne!(limits[name]["enforcement"], "nothing");
    }
    assert!(limits["memory"]["used"].as_u64().is_some_and(|bytes| bytes > 0), "{limits:#}");
    assert!(limits["processes"]["used"].as_u64().is_some_and(|count| count > 0), "{limits:#}");
    assert!(result["limits"]["controlGroup"].is_array() != result["limits"]["noControlGroupBecause"].is_string());
    let log = std::fs::read_to_string(text(&result, "/logFile")).expect("the log");
    let has =
        |words: &str| log.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").contains(words));
    assert!(log.starts_with("0\n"), "no core dumps: {log}");
    assert!(has("Max core file size 1 1 bytes"), "not even to a program of the host's: {log}");
    assert!(has(&format!("Max processes {0} {0} processes", limits["processes"]["value"])), "{log}");
    assert!(has(&format!("Max file size {0} {0} bytes", limits["file-size"]["value"])), "{log}");
    assert!(has("Max msgqueue size 819200 819200 bytes"), "{log}");

    let file = recipe.write(&lab);
    let store = lab.store();
    let explain = |arguments: &[&str]| {
        let mut all = vec!["explain", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")];
        all.extend(arguments);
        lab.fodder(&all).stdout
    };
    let shown = explain(&["--limit", "memory=2G", "--limit", "time=none", "--timeout", "5"]);
    assert!(shown.contains("  memory            2 GiB (yours, "), "{shown}");
    assert!(shown.contains("  time              none (yours)\n"), "the later name wins: {shown}");
    assert!(shown.contains("  silence           7200 seconds (default, kept by fodder)\n"), "{shown}");
    assert!(shown.contains("  control group "), "{shown}");
}

#[test]
fn a_profile_sets_limits_and_a_file_can_only_lower_them() {
    let lab = Lab::new();
    let profile = lab.write(
        "small.toml",
        "name = \"small\"\nextends = \"host-tools\"\n[limits]\nmemory = \"1G\"\ntime = \"1h\"\nwhy = \"a small machine\"\n",
    );
    let short = |limits: Value| {
        json!({"name": "s", "dontUnpack": true, "buildPhase": "true", "installPhase": "echo > $out", "fodder": {"limits": limits}})
            .to_string()
    };
    lab.write("lower.json", short(json!({"memory": "500M", "time": "2h"})));
    let (code, result) = lab.build_json(&["--profile", profile.to_str().expect("UTF-8"), "lower.json"]);
    assert_eq!(code, 0, "{result:#}");
    let limits = &result["limits"]["limits"];
    assert_eq!((&limits["memory"]["value"], &limits["memory"]["origin"]), (&json!(500 << 20), &json!("file")));
    assert_eq!((&limits["time"]["value"], &limits["time"]["origin"]), (&json!(3600), &json!("profile")));
    for (limits, words) in [
        (json!({"memory": "none"}), "a file cannot lift the limit 'memory'"),
        (json!({"memry": "1G"}), "did you mean 'memory'?"),
        (json!({"memory": "much"}), "is not a value of the limit 'memory'"),
    ] {
        lab.write("bad.json", short(limits));
        let run = lab.build(&["bad.json"]);
        assert_eq!(run.code, 100, "{run:?}");
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    for (flag, words) in
        [("memory", "is not NAME=VALUE"), ("x=1", "there is no limit 'x'"), ("time=-1", "is not a value of")]
    {
        let run = lab.build(&["--limit", flag, "lower.json"]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
}
