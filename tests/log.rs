//! The builder's log: every byte in the file, harmless lines on standard error.

use crate::{
    lab::{Lab, need},
    recipe::{Recipe, text},
};

#[test]
fn the_stored_log_is_every_byte_and_the_shown_one_cannot_do_harm() {
    let lab = Lab::new();
    let script = "printf 'a\\000b\\377c\\n\\033[31mred\\033[0m\\n\\033]0;title\\007\\n10%%\\r20%%\\rdone\\nwindows\\r\\nno newline'; echo > $out";
    let recipe = Recipe::new("bytes", script);
    let run = lab.make(&recipe, &[]);
    assert_eq!(
        run.stderr,
        "bytes> a\\u{0}b\u{fffd}c\nbytes> red\nbytes> \\u{1b}]0;title\\u{7}\nbytes> done\nbytes> windows\nbytes> no newline\n"
    );
    let (_, result) = lab.make_json(&recipe, &["--rebuild"]);
    let log = std::fs::read(text(&result, "/logFile")).expect("the log");
    assert_eq!(log, b"a\0b\xffc\n\x1b[31mred\x1b[0m\n\x1b]0;title\x07\n10%\r20%\rdone\nwindows\r\nno newline");
}

#[test]
fn phases_are_announced_and_other_messages_to_nix_are_shown_as_they_are() {
    let lab = Lab::new();
    let script = "echo '@nix { \"action\": \"setPhase\", \"phase\": \"buildPhase\" }'; echo '@nix { \"action\": \"msg\", \"level\": 1, \"msg\": \"hi\" }'; echo '@nix nonsense'; exit 1";
    let recipe = Recipe::new("phases", script);
    let run = lab.make(&recipe, &[]);
    let shown: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("phases> ")).collect();
    assert_eq!(shown, ["phases> @nix { \"action\": \"msg\", \"level\": 1, \"msg\": \"hi\" }", "phases> @nix nonsense"]);
    let (_, result) = lab.make_json(&recipe, &[]);
    let log = std::fs::read_to_string(text(&result, "/logFile")).expect("the log");
    assert_eq!(log.lines().count(), 3, "{log}");
    let words = text(&result, "/errorMsg");
    assert!(
        words.contains("Last 2 log lines:\n> @nix { \"action\": \"msg\"") && words.contains("\n> @nix nonsense\n"),
        "{words}"
    );
}

#[test]
fn the_log_of_the_last_run_is_the_one_that_is_kept() {
    let lab = Lab::new();
    let recipe = Recipe::new("twice", "echo a very long line that is only there the first time: $RANDOM; echo > $out");
    let (_, first) = lab.make_json(&recipe, &[]);
    let (_, second) = lab.make_json(&recipe, &["--rebuild"]);
    assert_eq!(first["logFile"], second["logFile"]);
    let log = std::fs::read_to_string(text(&second, "/logFile")).expect("the log");
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn a_failure_shows_the_last_25_lines() {
    let lab = Lab::new();
    let recipe = Recipe::new("long", "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; done; exit 1");
    let (_, result) = lab.make_json(&recipe, &[]);
    let words = text(&result, "/errorMsg");
    assert!(
        words.contains("Last 25 log lines:\n> line 16\n") && words.contains("\n> line 40\nFor full logs, see:\n"),
        "{words}"
    );
    assert!(!words.contains("> line 15\n"), "{words}");
}

#[test]
fn a_terminal_gets_one_live_line_with_phase_and_time_that_goes_on_in_silence() {
    need("script", "bsdutils");
    let lab = Lab::new();
    let store = lab.store();
    lab.write(
        "slow.json",
        r#"{"name": "slow", "dontUnpack": true, "buildPhase": "echo working; sleep 2.5", "installPhase": "echo > $out"}"#,
    );
    let command = format!("{} build --no-link --store {} slow.json", env!("CARGO_BIN_EXE_fodder"), store.display());
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).current_dir(lab.path()).env("TERM", "xterm");
    script.stdin(std::process::Stdio::null());
    let run = lab.run(script);
    assert_eq!(run.code, 0, "{run:?}");
    for expected in ["\r\u{1b}[K[0s] slow", "[1s] slow (buildPhase): working", "[2s] slow (buildPhase): working"] {
        assert!(run.stdout.contains(expected), "{expected:?}: {run:?}");
    }
    assert!(!run.stdout.contains("slow> working"), "the log itself is printed only with -L: {run:?}");
}
