//! What is kept and what is deleted, also while real Nix or fodder is working on the same store.

use super::{built, ours, ours_command, we_say};
use crate::judge::{nix, nix_command, nix_says, verified};
use crate::{
    lab::{Lab, need},
    recipe::Recipe,
};
use std::{
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    process::Stdio,
    time::Duration,
};

/// What derivations of these tests have in common.
const COMMON: &str = "system = builtins.currentSystem; builder = \"/bin/sh\";";

/// A second or so, with nothing but a shell.
const PAUSE: &str = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";

fn file_names(lab: &Lab, directory: &str) -> Vec<String> {
    let list = std::fs::read_dir(lab.store().join(directory)).expect("list");
    let names = list.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name != ".links").collect()
}

#[test]
fn gc_deletes_what_no_root_keeps() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let out = recipe.out().to_string();
    symlink(lab.real(&recipe.out()), lab.path().join("unknown")).expect("link");
    let by_hand = lab.store().join("nix/var/nix/gcroots/by-hand");
    symlink(lab.real(&input), &by_hand).expect("link");
    assert!(!we_say(&lab, &["gc", "--print-dead"]).contains(&input.to_string()));
    assert!(nix_says(&lab, "nix-store", &["--gc", "--print-dead"]).contains(&input.to_string()));
    std::fs::remove_file(by_hand).expect("remove");
    we_say(&lab, &["roots", "add", &out, "kept"]);
    assert_eq!(std::fs::read_link(lab.path().join("kept")).expect("a link"), lab.real(&recipe.out()));
    let loose = lab.text("loose", &"x".repeat(3_000_000));
    let dev = recipe.output_path("dev");
    let dead = we_say(&lab, &["gc", "--print-dead"]);
    assert_eq!(dead, nix_says(&lab, "nix-store", &["--gc", "--print-dead"]));
    assert_eq!(dead.lines().count(), 2, "{dead}");
    let run = ours(&lab, &["gc", "--dry-run"]);
    assert_eq!(run.stdout, dead);
    assert!(run.stderr.contains("2 store paths would be deleted, up to 2.86 MiB freed"), "{}", run.stderr);
    let live = we_say(&lab, &["gc", "--print-live"]);
    assert!(live.contains(&out) && live.contains(&input.to_string()) && live.contains(&recipe.path().to_string()));
    let roots = we_say(&lab, &["gc", "--print-roots"]);
    assert!(roots.contains("gcroots/fodder/") && roots.contains(&format!(" -> {out}\n")), "{roots}");
    assert_eq!(we_say(&lab, &["roots"]), roots);
    assert!(we_say(&lab, &["query", "--roots", &input.to_string()]).contains(&out));
    let run = ours(&lab, &["gc"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "2 store paths deleted, 2.86 MiB freed\n"), "{run:?}");
    assert!(run.stderr.contains(&format!("deleting '{loose}'")), "{}", run.stderr);
    assert!(!lab.real(&dev).exists() && lab.real(&recipe.out()).exists() && lab.real(&input).exists());
    verified(&lab);
    we_say(&lab, &["roots", "remove", "kept"]);
    assert!(lab.path().join("unknown").symlink_metadata().is_ok());
    we_say(&lab, &["gc"]);
    assert!(file_names(&lab, "nix/store").is_empty());
    verified(&lab);
}

#[test]
fn gc_deletes_chosen_paths_and_refuses_live_ones() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let (out, dev) = (recipe.out().to_string(), recipe.output_path("dev").to_string());
    we_say(&lab, &["roots", "add", &out, "kept"]);
    for path in [&out, &input.to_string()] {
        let run = ours(&lab, &["gc", "--delete", path]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
        assert!(run.stderr.contains(&format!("cannot delete path '{path}' since it is still alive")), "{}", run.stderr);
    }
    assert!(we_say(&lab, &["gc", "--delete", &dev]).starts_with("1 store paths deleted"));
    let run = ours(&lab, &["gc", "--delete", "--ignore-liveness", "kept"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!lab.real(&recipe.out()).exists());
    for arguments in
        [["gc", "--max-freed", "1K", "--dry-run"].as_slice(), &["gc", "--max-freed", "x"], &["gc", "--ignore-liveness"]]
    {
        assert_eq!(ours(&lab, arguments).code, 2, "{arguments:?}");
    }
    assert!(we_say(&lab, &["gc", "--max-freed", "0"]).starts_with("0 store"));
    verified(&lab);
}

#[test]
fn roots_are_not_made_in_the_place_of_files_nor_removed_where_there_are_none() {
    let lab = Lab::new();
    let (recipe, _) = built(&lab);
    lab.write("file", "precious");
    let run = ours(&lab, &["roots", "add", &recipe.out().to_string(), "file"]);
    assert!(run.code == 1 && run.stderr.contains("something else is there"), "{run:?}");
    symlink("file", lab.path().join("elsewhere")).expect("link");
    for name in ["file", "elsewhere", "absent"] {
        let run = ours(&lab, &["roots", "remove", name]);
        assert!(run.code == 1 && run.stderr.contains("is no link into the store"), "{run:?}");
    }
    assert_eq!(std::fs::read_to_string(lab.path().join("elsewhere")).expect("read"), "precious");
    let missing = "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt";
    assert_eq!(ours(&lab, &["roots", "add", missing, "link"]).code, 1);
    assert!(lab.path().join("link").symlink_metadata().is_err());
}

/// Collects with both, again and again, while `fodder build` runs.
#[test]
fn what_fodder_is_building_and_building_from_stays() {
    let lab = Lab::new();
    let input = lab.text("input", "precious");
    // In no variable: what the environment of a process names is kept for another reason.
    let script = format!("echo began; sleep 1.5; cat {input}; cat {input} > $out");
    let recipe = Recipe::new("slow", &script).source(&input);
    let (file, store) = (recipe.write(&lab), lab.store());
    let arguments = ["build", "--no-link", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")];
    let mut child = lab.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    assert_eq!(line, "slow> began\n");
    let mut rounds = 0;
    while child.try_wait().expect("look").is_none() {
        let run = match rounds % 2 {
            0 => nix(&lab, "nix-store", &["--gc"]),
            _ => ours(&lab, &["gc"]),
        };
        assert_eq!(run.code, 0, "{run:?}");
        if rounds == 0 {
            assert!(lab.real(&input).exists(), "{run:?}");
        }
        rounds += 1;
    }
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{output:?}");
    assert!(rounds >= 2, "only {rounds} collections");
    verified(&lab);
    // Now nobody uses it.
    nix_says(&lab, "nix-collect-garbage", &[]);
    assert!(!lab.real(&input).exists());
}

#[test]
fn what_was_built_to_build_something_else_stays_until_that_is_built() {
    let (lab, other) = (Lab::new(), Lab::new());
    let step = |name: &str, from: &str| {
        format!(
            "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; from = {from}; \
             args = [ \"-c\" \"i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo $name > $out\" ]; }}"
        )
    };
    let many = ["one", "two", "three", "four"].map(|name| format!("({})", step(name, "null"))).join(" ");
    other.write("chain.nix", step("last", &format!("[ ({}) {many} ]", step("middle", &format!("[ {many} ]")))));
    let derivation = nix_says(&other, "nix-instantiate", &["chain.nix"]);
    let flags = ["--extra-experimental-features", "nix-command", "show-derivation", "--recursive"];
    lab.write("chain.json", nix_says(&other, "nix", &[&flags[..], &[derivation.trim()]].concat()));
    let store = lab.store();
    let arguments = ["build", "-j1", "--no-link", "--store", store.to_str().expect("UTF-8"), "chain.json", "last"];
    let mut command = lab.command(&arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let mut rounds = 0;
    while child.try_wait().expect("look").is_none() {
        if store.join("nix/var/nix/db/schema").exists() {
            let run = if rounds % 2 == 0 { ours(&lab, &["gc"]) } else { nix(&lab, "nix-store", &["--gc"]) };
            assert_eq!(run.code, 0, "{run:?}");
            rounds += 1;
        }
    }
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{rounds} collections: {}", String::from_utf8_lossy(&output.stderr));
    assert!(rounds >= 3, "only {rounds} collections");
    verified(&lab);
}

#[test]
fn an_input_that_was_there_before_stays_until_the_build_is_over() {
    let (lab, other) = (Lab::new(), Lab::new());
    // Named in no variable: what the environment of a process names is kept for another reason.
    other.write(
        "two.nix",
        format!(
            "let first = derivation {{ {COMMON} name = \"first\"; args = [ \"-c\" \"echo first > $out\" ]; }};\n\
             in derivation {{ {COMMON} name = \"second\"; args = [ \"-c\" \"echo began; {PAUSE}; read line < ${{first}}; echo $line > $out\" ]; }}"
        ),
    );
    let derivation = nix_says(&other, "nix-instantiate", &["two.nix"]);
    let flags = ["--extra-experimental-features", "nix-command", "show-derivation", "--recursive"];
    lab.write("two.json", nix_says(&other, "nix", &[&flags[..], &[derivation.trim()]].concat()));
    let first = lab.build(&["two.json", "first"]).stdout.trim().parse().expect("a store path");
    let store = lab.store();
    let arguments = ["build", "--no-link", "--store", store.to_str().expect("UTF-8"), "two.json", "second"];
    let mut command = lab.command(&arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    assert_eq!(line, "second> began\n");
    for run in [ours(&lab, &["gc"]), nix(&lab, "nix-store", &["--gc"])] {
        assert_eq!(run.code, 0, "{run:?}");
        assert!(child.try_wait().expect("look").is_none(), "the builder has not waited");
        assert!(lab.real(&first).exists(), "{run:?}");
    }
    assert!(child.wait().expect("wait").success());
    verified(&lab);
    we_say(&lab, &["gc"]);
    assert!(!lab.real(&first).exists());
}

#[test]
fn what_nix_is_building_stays() {
    need("busybox", "busybox-static");
    let lab = Lab::new();
    lab.write(
        "slow.nix",
        "let dep = derivation { name = \"dep\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo dep > $out\" ]; }; in\n\
         derivation { name = \"slow\"; system = builtins.currentSystem; builder = \"/bin/sh\"; inherit dep; \
         args = [ \"-c\" \"i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; read line < $dep; echo $line > $out\" ]; }",
    );
    let sandbox = [
        "--option",
        "sandbox",
        "true",
        "--option",
        "sandbox-paths",
        "/bin/sh=/bin/busybox",
        "--option",
        "substitute",
        "false",
    ];
    let mut command = nix_command(&lab, "nix-build", &[&["--no-out-link", "slow.nix"], &sandbox[..]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let mut rounds = 0;
    while child.try_wait().expect("look").is_none() {
        if lab.store().join("nix/var/nix/db/schema").exists() {
            let run = ours(&lab, &["gc"]);
            assert_eq!(run.code, 0, "{run:?}");
            rounds += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{rounds} collections: {}", String::from_utf8_lossy(&output.stderr));
    assert!(rounds >= 2, "only {rounds} collections");
    verified(&lab);
    we_say(&lab, &["gc"]);
    assert!(file_names(&lab, "nix/store").is_empty(), "{:?}", file_names(&lab, "nix/store"));
}

#[test]
fn collectors_of_both_kinds_take_turns() {
    let lab = Lab::new();
    for round in 0..3 {
        for number in 0..30 {
            lab.text(&format!("t{round}-{number}"), "x");
        }
        let children: Vec<_> = (0..4)
            .map(|number| {
                let mut command = match number % 2 {
                    0 => ours_command(&lab, &["gc"]),
                    _ => nix_command(&lab, "nix-store", &["--gc"]),
                };
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start")
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().expect("wait");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(file_names(&lab, "nix/store").is_empty());
        verified(&lab);
    }
}
