//! What is written beside the store has its name only when it is on the disk: after a power cut it is whole, or not there.

use crate::{
    https::fetch,
    lab::{Lab, need},
    recipe::Recipe,
    server::Server,
};
use std::{ffi::OsString, process::Command};

/// The calls of a command that flush or give names, in order.
fn calls(lab: &Lab, arguments: Vec<OsString>) -> Vec<String> {
    let trace = lab.path().join("trace");
    let mut command = Command::new(need("strace", "strace"));
    command.args(["-f", "-qq", "-y", "-s", "4096", "-e", "trace=fsync,syncfs,?rename,?renameat,?renameat2", "-o"]);
    command.arg(&trace).arg(env!("CARGO_BIN_EXE_fodder")).args(arguments);
    command.current_dir(lab.path()).env("FODDER_HOST_STORE", "none");
    let run = lab.run(command);
    assert_eq!(run.code, 0, "{run:?}");
    std::fs::read_to_string(trace).expect("the trace").lines().map(str::to_owned).collect()
}

/// What is renamed to something that ends like this, each checked to be flushed before.
#[track_caller]
fn flushed(calls: &[String], directory: &str, end: &str) -> usize {
    let mut found = 0;
    for (place, call) in calls.iter().enumerate().filter(|(_, call)| call.contains("rename")) {
        let names: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
        let [from, to] = names[..] else { continue };
        if !from.contains(directory) || !to.ends_with(end) {
            continue;
        }
        let is_it = |call: &&String| call.contains("fsync(") && call.contains(&format!("{from}>"));
        assert!(calls[..place].iter().any(|call| is_it(&call)), "{call}: {calls:#?}");
        found += 1;
    }
    found
}

#[test]
fn the_files_of_a_cache_are_flushed_before_they_are_offered() {
    let lab = Lab::new();
    let path = {
        let recipe = Recipe::new("cached", "echo contents > $out");
        lab.made(&recipe, &[]);
        recipe.out().to_string()
    };
    let to = format!("file://{}/cache?compression=none", lab.path().display());
    let store = lab.store().into_os_string();
    let arguments = ["store".into(), "--store".into(), store, "copy".into(), "--to".into(), to.into(), path.into()];
    let calls = calls(&lab, arguments.into());
    for end in ["/nix-cache-info", ".nar", ".narinfo"] {
        assert_eq!(flushed(&calls, "/cache/", end), 1, "{end}: {calls:#?}");
    }
}

#[test]
fn a_recording_and_its_bodies_are_flushed_before_it_is_one() {
    need("curl", "curl");
    let lab = Lab::new();
    let server = Server::start();
    let form = fetch(b"hello\n", &["curl -fsS $url -o $out"], &server.add("page", "hello\n"));
    lab.write("derivation.json", form.to_string());
    let port = server.port();
    let mut arguments: Vec<OsString> =
        ["build", "--no-link", "--store", "store", "--allow-loopback", &port, "--record"].map(OsString::from).into();
    arguments.extend(["made.recording".into(), "--ca-file".into(), server.ca_file().into(), "derivation.json".into()]);
    let calls = calls(&lab, arguments);
    assert_eq!(flushed(&calls, "made.recording.bodies/", "/made.recording"), 1, "{calls:#?}");
    let find = |is_it: &dyn Fn(&str) -> bool| calls.iter().position(|call| is_it(call)).expect("the call");
    let named = find(&|call| call.contains("rename") && call.contains("/made.recording\""));
    let bodies = find(&|call| call.contains("syncfs(") && call.contains("made.recording.bodies>"));
    assert!(bodies < named, "{calls:#?}");
}
