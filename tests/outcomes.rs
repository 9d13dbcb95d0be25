//! How builds end: every status, its exit code, its words and its JSON.

mod json_result; // what `--json` prints

use crate::{
    lab::{Lab, need},
    recipe::{NO_HASH, Recipe, text},
};
use fodder_model::content_address::ContentMethod;
use serde_json::{Value, json};
use std::{collections::BTreeSet, process::Command};

#[track_caller]
fn ends(lab: &Lab, recipe: &Recipe, arguments: &[&str], code: i32, status: &str) -> Value {
    let (found, result) = lab.make_json(recipe, arguments);
    assert_eq!((found, text(&result, "/status")), (code, status), "{result:#}");
    assert_eq!(result["success"], json!(code == 0), "{result:#}");
    assert_eq!(text(&result, "/errorMsg").is_empty(), code == 0, "{result:#}");
    result
}

#[test]
fn a_built_output_is_printed_on_standard_output_and_the_log_on_standard_error() {
    let lab = Lab::new();
    let recipe = Recipe::new("hello", "echo said; echo $out > $out");
    let run = lab.make(&recipe, &[]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stdout, format!("{}\n", recipe.out()));
    assert_eq!(run.stderr, "hello> said\n");
    assert_eq!(std::fs::read_to_string(lab.real(&recipe.out())).expect("the output"), format!("{}\n", recipe.out()));
}

#[test]
fn what_is_valid_is_not_rebuilt_and_the_result_says_so() {
    let lab = Lab::new();
    let recipe = Recipe::new("hello", "echo ran; echo > $out");
    lab.made(&recipe, &[]);
    let run = lab.make(&recipe, &[]);
    assert_eq!((run.code, run.stdout), (0, format!("{}\n", recipe.out())));
    assert_eq!(
        run.stderr,
        format!("AlreadyValid: '{}' was there before and was not rebuilt; use --rebuild\n", recipe.out())
    );
    ends(&lab, &recipe, &[], 0, "AlreadyValid");
}

#[test]
fn a_valid_fixed_output_comes_with_a_warning_that_it_may_be_old() {
    let lab = Lab::new();
    let recipe = Recipe::new("fixed", "echo hi > $out").fixed_to("hi\n");
    lab.made(&recipe, &[]);
    let changed = Recipe::new("fixed", "echo something else > $out").fixed_to("hi\n");
    let run = lab.make(&changed, &[]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.starts_with("AlreadyValid: "), "{}", run.stderr);
    assert!(run.stderr.contains("if you changed what is fetched, this is the old one"), "{}", run.stderr);
    ends(&lab, &changed, &["--rebuild"], 102, "HashMismatch");
}

#[test]
fn a_builder_that_fails_gives_100_and_nix_s_words_with_the_end_of_its_log() {
    let lab = Lab::new();
    let recipe = Recipe::new("fails", "echo line1; echo line2 >&2; exit 3");
    let run = lab.make(&recipe, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (100, ""), "{run:?}");
    let log = lab.store().join("nix/var/log/nix/drvs");
    let base_name = recipe.path().base_name().to_owned();
    let expected = format!(
        "fails> line1\nfails> line2\n\
         error: Cannot build '{}'.\n       Reason: builder failed with exit code 3.\n       Output paths:\n         {}\n       \
         Last 2 log lines:\n       > line1\n       > line2\n       For full logs, see:\n         {}\n",
        recipe.path(),
        recipe.out(),
        log.join(&base_name[..2]).join(&base_name[2..]).display()
    );
    assert_eq!(run.stderr, expected);
    ends(&lab, &recipe, &[], 100, "PermanentFailure");
    assert!(!lab.real(&recipe.out()).exists());
}

#[test]
fn a_builder_that_dies_of_a_signal_gives_100_and_the_signal() {
    let lab = Lab::new();
    // Process 1 is not killed by its own signals, but by the kernel's.
    let recipe = Recipe::new("killed", "ulimit -t 1; while :; do :; done");
    let result = ends(&lab, &recipe, &[], 100, "PermanentFailure");
    assert!(text(&result, "/errorMsg").contains("builder failed due to signal 9 (Killed)"), "{result:#}");
}

#[test]
fn a_builder_for_another_platform_does_not_run() {
    let lab = Lab::new();
    let recipe = Recipe::new("foreign", "echo ran").system("foo-bar");
    let run = lab.make(&recipe, &[]);
    let expected = format!(
        "error: Cannot build '{}'.\n       Reason: platform mismatch\n       Required system: 'foo-bar'\n       Current system: '{}-linux'\n",
        recipe.path(),
        std::env::consts::ARCH
    );
    assert_eq!((run.code, run.stderr), (100, expected));
    let result = ends(&lab, &recipe, &[], 100, "InputRejected");
    assert_eq!((&result["isolation"], &result["logFile"]), (&Value::Null, &Value::Null), "{result:#}");
}

#[test]
fn a_builder_that_needs_other_features_does_not_run() {
    let lab = Lab::new();
    let recipe = Recipe::new("features", "echo ran").env("requiredSystemFeatures", "zebra  apple\n");
    let run = lab.make(&recipe, &[]);
    assert_eq!(run.code, 100, "{run:?}");
    assert!(
        run.stderr.starts_with(&format!(
            "error: Cannot build '{}'.\n       Reason: missing system features\n       Required features: {{apple, zebra}}\n       Available features: {{",
            recipe.path()
        )),
        "{}",
        run.stderr
    );
    ends(&lab, &recipe, &[], 100, "InputRejected");
}

#[test]
fn a_missing_source_is_named_and_the_builder_does_not_run() {
    let lab = Lab::new();
    let missing = "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt".parse().expect("a path");
    let recipe = Recipe::new("sourceless", "echo ran").source(&missing);
    let result = ends(&lab, &recipe, &[], 100, "InputRejected");
    assert!(
        text(&result, "/errorMsg").contains("7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt' is not valid"),
        "{result:#}"
    );
    assert_eq!(result["isolation"], Value::Null);
}

#[test]
fn a_deadline_ends_the_build_with_101() {
    let lab = Lab::new();
    let recipe = Recipe::new("slow", "echo began; sleep 60; echo > $out");
    let result = ends(&lab, &recipe, &["--timeout", "1"], 101, "TimedOut");
    assert!(text(&result, "/errorMsg").contains("timed out after 1 seconds."), "{result:#}");
}

#[test]
fn silence_ends_the_build_with_101_and_talk_does_not() {
    let lab = Lab::new();
    let talks = Recipe::new("talks", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.3; done; echo > $out");
    ends(&lab, &talks, &["--max-silent-time", "1"], 0, "Built");
    let silent = Recipe::new("silent", "echo began; sleep 60; echo > $out");
    let result = ends(&lab, &silent, &["--max-silent-time", "1"], 101, "TimedOut");
    assert!(text(&result, "/errorMsg").contains("timed out after 1 seconds of silence"), "{result:#}");
}

#[test]
fn a_log_beyond_its_limit_ends_the_build_with_1_and_is_cut_there() {
    let lab = Lab::new();
    let recipe = Recipe::new("chatty", "yes");
    let result = ends(&lab, &recipe, &["--max-build-log-size", "10000"], 1, "LogLimitExceeded");
    assert!(text(&result, "/errorMsg").contains("killed after writing more than 10000 bytes of log output"));
    assert_eq!(std::fs::metadata(text(&result, "/logFile")).expect("the log").len(), 10_000);
}

#[test]
fn a_mismatch_gives_102_and_a_block_that_scripts_can_read() {
    let lab = Lab::new();
    let recipe = Recipe::new("wrong", "echo hi > $out").fixed(ContentMethod::Flat, NO_HASH);
    let run = lab.make(&recipe, &[]);
    let expected = format!(
        "error: hash mismatch in fixed-output derivation '{}':\n         specified: {NO_HASH}\n            got:    {HI}\n",
        recipe.path()
    );
    assert_eq!((run.code, run.stdout, run.stderr), (102, String::new(), expected));
    let result = ends(&lab, &recipe, &[], 102, "HashMismatch");
    assert_eq!(result["hash"], json!({ "specified": NO_HASH, "got": HI }));
    assert_eq!(result["outputs"], json!({}));
    assert!(text(&result, "/errorMsg").contains(&format!("\n  specified: {NO_HASH}\n     got:    {HI}")), "{result:#}");
    let objects = std::fs::read_dir(lab.store().join("nix/store")).expect("list");
    let names: Vec<_> =
        objects.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert!(
        names.iter().all(|name| [".drv", ".lock", ".links"].iter().any(|end| name.ends_with(end))),
        "a wrong output is kept under no name: {names:?}"
    );
}

/// SHA-256 of "hi\n".
const HI: &str = "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=";

#[test]
fn a_rebuild_that_differs_gives_104_and_leaves_the_old_one() {
    let lab = Lab::new();
    let recipe = Recipe::new("random", "echo $RANDOM$RANDOM$RANDOM > $out");
    let before = lab.said(&recipe, &[]);
    let result = ends(&lab, &recipe, &["--rebuild"], 104, "NotDeterministic");
    assert!(
        text(&result, "/errorMsg")
            .starts_with(&format!("derivation '{}' may not be deterministic: output", recipe.path())),
        "{result:#}"
    );
    assert_eq!(std::fs::read_to_string(lab.real(&recipe.out())).expect("the old output"), before);
    ends(&lab, &recipe, &["--check"], 104, "NotDeterministic");
}

#[test]
fn a_rebuild_that_agrees_gives_0_and_runs_the_builder() {
    let lab = Lab::new();
    let recipe = Recipe::new("stable", "echo ran; echo hi > $out");
    lab.made(&recipe, &[]);
    let run = lab.make(&recipe, &["--rebuild"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, "stable> ran\n"));
    ends(&lab, &recipe, &["--rebuild"], 0, "Built");
}

#[test]
fn forbidden_references_give_112_with_every_place() {
    let lab = Lab::new();
    let tool = lab.text("tool", "x");
    let hash_part = &tool.base_name()[..32];
    let script = format!(
        "mkdir $out; echo first; echo \"one $tool two $tool\" > $out/text; printf 'x{hash_part}' > $out/late; ln -s $tool/bin $out/link; echo > $out/{hash_part}-name"
    );
    let recipe =
        Recipe::new("refers", &script).env("tool", &tool.to_string()).source(&tool).fixed(ContentMethod::Nar, NO_HASH);
    let run = lab.make(&recipe, &[]);
    assert_eq!(run.code, 112, "{run:?}");
    let lines: Vec<&str> = run.stderr.lines().collect();
    for (place, context) in [
        (format!("text:15  {tool}  text"), format!("one {tool} two {tool}")),
        (format!("text:{}  {tool}  text", 15 + tool.to_string().len() + 5), format!("one {tool} two {tool}")),
        (format!("late:1  {tool}  text"), format!("x{hash_part}")),
        (format!("link:11  {tool}  target of a symbolic link"), format!("{tool}/bin")),
        (format!("{hash_part}-name:0  {tool}  the name of a file"), format!("{hash_part}-name")),
    ] {
        let at =
            lines.iter().position(|line| line.trim() == place).unwrap_or_else(|| panic!("no {place}: {}", run.stderr));
        assert!(lines[at + 1].contains(&context) || context.contains(lines[at + 1].trim()), "{}", run.stderr);
    }
    assert_eq!(lines.iter().filter(|line| line.contains(&format!("  {tool}  "))).count(), 5, "{}", run.stderr);
    assert!(lines.iter().any(|line| line.starts_with("hint: ")), "{}", run.stderr);
    // Whoever asks for a hash is told about the references first: no hash would help.
    assert!(
        lines.iter().position(|line| line.starts_with("error: fixed-output derivations must not reference")).is_some()
    );
    let result = ends(&lab, &recipe, &[], 112, "OutputRejected");
    let places: BTreeSet<(&str, u64)> = result["references"]
        .as_array()
        .expect("places")
        .iter()
        .map(|hit| (text(hit, "/file"), hit["offset"].as_u64().expect("an offset")))
        .collect();
    assert_eq!(places.len(), 5, "{result:#}");
    assert!(places.contains(&("late", 1)), "{result:#}");
}

#[test]
fn a_disallowed_reference_gives_112_too() {
    let lab = Lab::new();
    let tool = lab.text("tool", "x");
    let recipe = Recipe::new("refers", "echo $tool > $out")
        .env("tool", &tool.to_string())
        .env("disallowedReferences", &tool.to_string())
        .source(&tool);
    let result = ends(&lab, &recipe, &[], 112, "OutputRejected");
    assert_eq!(
        text(&result, "/errorMsg"),
        format!("output '{}' is not allowed to refer to the following paths:\n  {tool}", recipe.out())
    );
}

#[test]
fn a_usage_error_gives_2() {
    let lab = Lab::new();
    for arguments in
        [&["build"][..], &["bake", "x"], &["build", "--no-such-flag", "x"], &["build", "--cores", "many", "x"]]
    {
        let run = lab.fodder(arguments);
        assert_eq!(run.code, 2, "{run:?}");
    }
}

#[test]
fn the_network_cannot_be_asked_for_by_flag_alone() {
    let lab = Lab::new();
    let run = lab.make(&Recipe::new("plain", "echo > $out"), &["--unsafe-host-network"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("hint: declare an 'outputHash'"), "{}", run.stderr);
}

#[test]
fn a_file_that_cannot_be_read_gives_1() {
    let lab = Lab::new();
    let run = lab.build(&["absent.json"]);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: cannot read 'absent.json': No such file or directory (os error 2)\n")
    );
    let (code, result) = lab.build_json(&["absent.json"]);
    assert_eq!((code, text(&result, "/status")), (1, "MiscFailure"));
}

#[test]
fn a_missing_output_gives_1() {
    let lab = Lab::new();
    let recipe = Recipe::new("nothing", "true");
    let result = ends(&lab, &recipe, &[], 1, "OutputRejected");
    let words = format!("builder for '{}' failed to produce output path for output 'out' at \"", recipe.path());
    assert!(text(&result, "/errorMsg").starts_with(&words), "{result:#}");
}

#[test]
fn a_builder_that_is_not_there_fails_like_any_other() {
    let lab = Lab::new();
    let mut recipe = Recipe::new("absent", "");
    recipe.parts.builder = "/bin/nope".into();
    let run = lab.make(&recipe, &[]);
    assert_eq!(run.code, 100, "{run:?}");
    assert!(
        run.stderr.starts_with("absent> error: executing '/bin/nope': No such file or directory\n"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("Reason: builder failed with exit code 1."), "{}", run.stderr);
}

#[test]
fn where_namespaces_are_refused_the_build_ends_with_125_and_the_builder_does_not_run() {
    let unshare = need("unshare", "util-linux");
    let lab = Lab::new();
    let recipe = Recipe::new("unprotected", "echo ran; echo > $out");
    let file = recipe.write(&lab);
    let mut command = Command::new(unshare);
    command.args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c"]);
    command.arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"").arg("sh");
    command.arg(env!("CARGO_BIN_EXE_fodder")).args(["build", "--no-link", "--store"]).arg(lab.store()).arg(file);
    command.current_dir(lab.path());
    let run = lab.run(command);
    assert_eq!(run.code, 125, "{run:?}");
    assert!(!run.stderr.contains("ran"), "{}", run.stderr);
    let hint =
        run.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_else(|| panic!("no hint: {}", run.stderr));
    assert!(hint.contains("user.max_user_namespaces"), "{hint}");
    assert!(!lab.real(&recipe.out()).exists());
}
