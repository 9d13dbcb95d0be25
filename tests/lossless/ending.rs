//! Being asked to end, being stopped, and waiting for somebody who is killed.

use super::{builder_of, family, is_gone, kill, nothing_is_left, signal, verified, within};
use crate::{
    lab::{Lab, need},
    recipe::Recipe,
};
use rustix::process::Signal;
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Starts a build.
fn start(lab: &Lab, recipe: &Recipe, more: &[&str]) -> Child {
    let file = recipe.write(lab);
    start_with(lab, &file, more)
}

fn start_with(lab: &Lab, file: &Path, more: &[&str]) -> Child {
    let store = lab.store();
    let plain = lab.command(&["build", "--no-link", "--store", store.to_str().expect("UTF-8")]);
    // Whoever started the tests may ignore signals (nohup, a job in the background), and the program would respect that.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP,INT,TERM").arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(lab.path());
    command.args(more).arg(file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("start")
}

/// Waits for a line of its standard error that contains these words.
#[track_caller]
fn until_it_says(child: &mut Child, words: &str) -> BufReader<std::process::ChildStderr> {
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let (mut text, mut line) = (String::new(), 0);
    while !text[line..].contains(words) {
        line = text.len();
        assert_ne!(said.read_line(&mut text).expect("a line"), 0, "it ended without '{words}': {text}");
    }
    said
}

fn rest(mut said: impl Read) -> String {
    let mut text = String::new();
    said.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn an_interrupted_build_ends_as_under_nix_and_leaves_nothing() {
    let lab = Lab::new();
    for (number, one) in [Signal::INT, Signal::TERM, Signal::HUP].into_iter().enumerate() {
        let recipe =
            Recipe::new(&format!("interrupted-{number}"), "trap '' INT TERM HUP; echo > $out; echo began; sleep 60");
        let mut child = start(&lab, &recipe, if number == 2 { &["--json"] } else { &[] });
        let said = until_it_says(&mut child, "> began");
        let everybody = family(child.id());
        signal(child.id(), one);
        let text = rest(said);
        let mut output = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut output).expect("text");
        assert_eq!(child.wait().expect("wait").code(), Some(1), "{text}");
        assert_eq!(text, "error: interrupted by the user\n");
        if number == 2 {
            let result: serde_json::Value = serde_json::from_str(&output).expect("JSON");
            assert_eq!(result["errorMsg"], "interrupted by the user");
        }
        assert!(everybody.len() >= 4 && everybody.iter().all(|process| is_gone(*process)));
        nothing_is_left(&lab);
    }
    verified(&lab);
}

#[test]
fn who_waits_for_a_lock_can_be_interrupted_and_goes_on_when_its_holder_is_killed() {
    let lab = Lab::new();
    // The first one does not end by itself, however long the others take to come.
    let recipe = Recipe::new("waited-for", "echo began; [ -e /short ] || sleep 1000; echo > $out");
    let file = recipe.write(&lab);
    let mut holder = start_with(&lab, &file, &[]);
    let _said = until_it_says(&mut holder, "> began");
    let short = format!("/short={}", lab.write("short", "").display());
    let mut waiters: Vec<Child> = (0..3).map(|_| start_with(&lab, &file, &["--allow-path", &short])).collect();
    let mut said: Vec<_> = waiters.iter_mut().map(|child| until_it_says(child, "waiting for the lock on")).collect();
    signal(waiters[0].id(), Signal::INT);
    assert_eq!(waiters.remove(0).wait().expect("wait").code(), Some(1));
    assert!(rest(said.remove(0)).ends_with("error: interrupted by the user\n"));
    kill(holder.id());
    holder.wait().expect("wait");
    let mut built = 0;
    for (mut waiter, said) in waiters.into_iter().zip(said) {
        let text = rest(said);
        assert!(waiter.wait().expect("wait").success(), "{text}");
        built += usize::from(text.contains("> began"));
    }
    assert_eq!(built, 1, "one of them builds, and the other finds it built");
    // The waiter may have got its lock a moment before the killed one's other locks were let go.
    lab.made(&Recipe::new("next", "echo > $out"), &[]);
    nothing_is_left(&lab);
    verified(&lab);
}

/// Attack: OUT-14, PROC-1. Layer: locks that the kernel lets go.
#[test]
fn fifty_builds_of_one_path_of_which_some_are_killed() {
    let lab = Lab::new();
    // However slow this machine is, nobody is done before two were killed.
    let script = "echo ran; echo $RANDOM$RANDOM > $out; until [ -s /enough ]; do sleep 0.05; done";
    let recipe = Recipe::new("fifty", script);
    let (file, enough) = (recipe.write(&lab), lab.write("enough", ""));
    let allowed = format!("/enough={}", enough.display());
    let mut children: Vec<Child> =
        (0..50).map(|_| start_with(&lab, &file, &["--json", "--allow-path", &allowed])).collect();
    // Whoever builds is killed, twice, and so are some of those that wait.
    for _ in 0..2 {
        let mut builder = None;
        assert!(within(Duration::from_secs(30), || {
            builder = children.iter().position(|child| family(child.id()).len() >= 4);
            builder.is_some()
        }));
        for number in [builder.expect("one builds"), 0, children.len() / 3] {
            let mut child = children.remove(number);
            kill(child.id());
            child.wait().expect("wait");
        }
    }
    std::fs::write(enough, "yes").expect("write");
    let mut hashes = std::collections::BTreeSet::new();
    let mut built = 0;
    for child in children {
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        built += usize::from(result["status"] == "Built");
        hashes.insert(result["outputs"]["out"]["narHash"].to_string());
    }
    assert!(built <= 1 && hashes.len() == 1, "{built} {hashes:?}");
    lab.made(&Recipe::new("next", "echo > $out"), &[]);
    nothing_is_left(&lab);
    verified(&lab);
}

/// Attack: PROC-1. Layer: parent-death signals, which reach stopped processes as well.
#[test]
fn of_a_build_that_was_stopped_nothing_outlives_the_runner() {
    let lab = Lab::new();
    for stopped in 0..4 {
        let recipe = Recipe::new(&format!("stopped-{stopped}"), "echo > $out; echo began; sleep 60 & sleep 60");
        let mut child = start(&lab, &recipe, &[]);
        let everybody = builder_of(&child);
        signal(everybody[stopped], Signal::STOP);
        kill(child.id());
        child.wait().expect("wait");
        assert!(within(Duration::from_secs(1), || everybody.iter().all(|process| is_gone(*process))), "{stopped}");
    }
    lab.made(&Recipe::new("next", "echo > $out"), &[]);
    nothing_is_left(&lab);
}

/// A builder that has no parent-death signal and ignores every other that can be.
const CLINGING: &str = r#"
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void) {
    prctl(PR_SET_PDEATHSIG, 0);
    for (int number = 1; number < 32; number++) signal(number, SIG_IGN);
    if (write(2, "began\n", 6) != 6) return 1;
    for (int seconds = 0; seconds < 60; seconds++) sleep(1);
    return 0;
}
"#;

/// Attack: PROC-1. Layer: the pid namespace of the helper, below which is the builder's.
#[test]
fn a_builder_that_unties_itself_dies_with_any_of_those_above_it() {
    let lab = Lab::new();
    let (source, program) = (lab.write("clinging.c", CLINGING), lab.path().join("clinging"));
    let mut compiler = Command::new(need("cc", "build-essential"));
    compiler.args(["-static", "-o"]).arg(&program).arg(source);
    let run = lab.run(compiler);
    assert_eq!(run.code, 0, "{run:?}");
    let store = fodder_store::Store::open(&lab.store()).expect("open");
    let builder = store.add_source("clinging", &program, 1).expect("add").path;
    drop(store);
    for victim in 0..3 {
        let mut recipe =
            Recipe::new(&format!("clinging-{victim}"), "").source(&builder).env("builder", &builder.to_string());
        recipe.parts.builder = builder.to_string().as_str().into();
        recipe.parts.arguments.clear();
        let mut child = start(&lab, &recipe, &[]);
        let _said = until_it_says(&mut child, "> began");
        let everybody = builder_of(&child);
        kill(everybody[victim]);
        assert!(within(Duration::from_secs(1), || is_gone(everybody[3])), "it outlives number {victim}");
        child.wait().expect("wait");
        assert!(everybody.iter().all(|process| within(Duration::from_secs(1), || is_gone(*process))));
    }
    lab.made(&Recipe::new("next", "echo > $out"), &[]);
    nothing_is_left(&lab);
}
