//! The store that builds leave behind is one that real Nix takes for its own, whatever happened to the builds.

use crate::{
    aim::Aim,
    judge::{names, nix_says, verified},
    lab::Lab,
    recipe::{NO_HASH, Recipe, text},
};
use fodder_model::content_address::ContentMethod;
use std::{process::Stdio, time::Duration};

#[test]
fn nix_verifies_the_store_after_builds_that_succeeded_and_builds_that_did_not() {
    let lab = Lab::new();
    let input = lab.text("input", "x");
    let good = Recipe::new(
        "good",
        "mkdir $out; echo $input $dev > $out/f; ln $out/f $out/g; chmod 4711 $out/f 2>/dev/null; echo > $dev",
    )
    .output("dev")
    .env("input", &input.to_string())
    .source(&input);
    lab.made(&good, &[]);
    for (recipe, code) in [
        (Recipe::new("exit", "echo > $out; exit 1"), 100),
        (Recipe::new("half", "echo > $out").output("dev"), 1),
        (Recipe::new("wrong", "echo > $out").fixed(ContentMethod::Nar, NO_HASH), 102),
        (Recipe::new("pipe", "mkdir $out; mkfifo $out/p"), 1),
        (Recipe::new("writable", "echo > $out; chmod 666 $out"), 1),
        (
            Recipe::new("refers", "echo $input > $out")
                .env("input", &input.to_string())
                .source(&input)
                .fixed(ContentMethod::Flat, NO_HASH),
            112,
        ),
        (Recipe::new("slow", "echo > $out; sleep 20"), 101),
    ] {
        let run = lab.make(&recipe, &["--timeout", "1"]);
        assert_eq!(run.code, code, "{run:?}");
        assert!(!lab.real(&recipe.out()).exists(), "{}", recipe.out());
    }
    verified(&lab);
    assert!(names(&lab, "nix/var/nix/builds").is_empty(), "nothing is left of any of them");
    let locks: Vec<String> = names(&lab, "nix/store").into_iter().filter(|name| name.ends_with(".lock")).collect();
    assert!(
        locks.is_empty()
            || locks
                .iter()
                .all(|name| std::fs::metadata(lab.store().join("nix/store").join(name))
                    .is_ok_and(|lock| lock.len() == 0))
    );
}

#[test]
fn nix_verifies_the_store_after_fodder_was_killed_in_the_middle() {
    let lab = Lab::new();
    // Long enough to be killed in every part of it: a log, a large file, many small ones, two outputs.
    let script = "echo began; yes text | head -c 3000000 > $dev; mkdir $out; i=0; while [ $i -lt 300 ]; do echo $dev $i > $out/$i; i=$((i+1)); done; echo done";
    let (mut aim, mut recipes) = (Aim::new(Duration::from_millis(200)), Vec::new());
    while aim.has_hit_fewer_than(10) {
        let recipe = Recipe::new(&format!("killed-{}", recipes.len()), script).output("dev");
        let (file, store) = (recipe.write(&lab), lab.store());
        let mut command = lab.command(&[
            "build",
            "--no-link",
            "--store",
            store.to_str().expect("UTF-8"),
            file.to_str().expect("UTF-8"),
        ]);
        aim.shoot(&mut command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start"));
        recipes.push(recipe);
        if recipes.len() % 4 == 0 {
            verified(&lab);
        }
    }
    // Each can be built now, and what the killed runs have left is gone.
    for recipe in recipes {
        let run = lab.make(&recipe, &[]);
        assert_eq!(run.code, 0, "{run:?}");
    }
    verified(&lab);
    assert!(names(&lab, "nix/var/nix/builds").is_empty(), "{:?}", names(&lab, "nix/var/nix/builds"));
}

/// Attack: OUT-14. Layer: locks of output paths.
#[test]
fn of_builds_of_one_derivation_at_once_one_builds_and_the_others_wait() {
    let lab = Lab::new();
    let recipe = Recipe::new("contended", "echo ran; sleep 0.5; echo $RANDOM > $out");
    let (file, store) = (recipe.write(&lab), lab.store());
    let children: Vec<_> = (0..8)
        .map(|_| {
            let arguments = [
                "build",
                "--json",
                "--no-link",
                "--store",
                store.to_str().expect("UTF-8"),
                file.to_str().expect("UTF-8"),
            ];
            lab.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start")
        })
        .collect();
    let mut statuses = Vec::new();
    let mut hashes = std::collections::BTreeSet::new();
    for child in children {
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        statuses.push(text(&result, "/status").to_owned());
        hashes.insert(text(&result, "/outputs/out/narHash").to_owned());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(words.contains("contended> ran"), text(&result, "/status") == "Built", "{words}");
    }
    statuses.sort();
    assert_eq!(statuses, [vec!["AlreadyValid"; 7], vec!["Built"]].concat());
    assert_eq!(hashes.len(), 1);
    verified(&lab);
}

#[test]
fn different_derivations_at_once_do_not_disturb_each_other() {
    let lab = Lab::new();
    let recipes: Vec<Recipe> = (0..8)
        .map(|number| Recipe::new(&format!("at-once-{number}"), "mkdir $out; echo $name > $out/f; sleep 0.2"))
        .collect();
    let store = lab.store();
    let children: Vec<_> = recipes
        .iter()
        .map(|recipe| {
            let file = recipe.write(&lab);
            let arguments =
                ["build", "--no-link", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")];
            lab.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    verified(&lab);
}

#[test]
fn a_path_whose_contents_were_changed_is_what_nix_complains_about() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    let recipe = Recipe::new("changed", "echo original > $out");
    let file = lab.made(&recipe, &[]);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("chmod");
    std::fs::write(&file, "changed").expect("write");
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| verified(&lab)));
    assert!(panic.is_err(), "the other tests of this file must be able to fail");
}

#[test]
fn a_killed_builder_leaves_no_process() {
    let lab = Lab::new();
    let mark = format!("7{:05}", std::process::id());
    let recipe = Recipe::new("left", &format!("echo began; (sleep {mark} &); sleep {mark}"));
    let (file, store) = (recipe.write(&lab), lab.store());
    let mut command =
        lab.command(&["build", "--no-link", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start");
    let mut log = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).expect("a line");
    assert_eq!(line, "left> began\n");
    let running = || {
        let list = std::fs::read_dir("/proc").expect("list");
        list.flatten()
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .filter(|line| line.starts_with(b"sleep\0") && line.windows(mark.len()).any(|part| part == mark.as_bytes()))
            .count()
    };
    let soon = std::time::Instant::now() + Duration::from_secs(10);
    while running() < 2 && std::time::Instant::now() < soon {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(running(), 2, "the builder's processes are seen before");
    child.kill().expect("kill");
    child.wait().expect("wait");
    let soon = std::time::Instant::now() + Duration::from_secs(5);
    while running() > 0 && std::time::Instant::now() < soon {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(running(), 0);
}

#[test]
fn nix_collects_what_no_link_holds_and_nothing_else() {
    let lab = Lab::new();
    let input = lab.text("input", "x");
    let held = Recipe::new("held", "echo $input > $out").env("input", &input.to_string()).source(&input);
    let loose = Recipe::new("loose", "echo > $out");
    lab.made(&loose, &[]);
    let (file, store) = (held.write(&lab), lab.store());
    let run = lab.fodder(&["build", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")]);
    assert_eq!(run.code, 0, "{run:?}");
    nix_says(&lab, "nix-store", &["--gc"]);
    assert!(lab.real(&held.out()).exists() && lab.real(&input).exists());
    assert!(!lab.real(&loose.out()).exists());
    verified(&lab);
    // What was collected is built again.
    lab.made(&loose, &[]);
}

#[test]
fn a_missing_output_is_built_beside_one_that_is_valid() {
    let lab = Lab::new();
    let recipe = Recipe::new("partly", "echo $RANDOM$RANDOM > $out; echo $RANDOM$RANDOM > $dev").output("dev");
    let before = lab.said(&recipe, &[]);
    let dev = recipe.output_path("dev");
    nix_says(&lab, "nix-store", &["--delete", "--ignore-liveness", &dev.to_string()]);
    assert!(!lab.real(&dev).exists());
    let (code, result) = lab.make_json(&recipe, &[]);
    assert_eq!((code, text(&result, "/status")), (0, "Built"), "{result:#}");
    assert!(lab.real(&dev).exists());
    assert_eq!(std::fs::read_to_string(lab.real(&recipe.out())).expect("the output"), before, "the valid one stays");
    verified(&lab);
}
