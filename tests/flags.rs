//! Flags of build that do not change how it ends: links, standard input, what to take, what to keep, what to show.

use crate::{
    lab::Lab,
    recipe::{Recipe, text},
};
use std::{io::Write, path::Path, process::Stdio};

#[test]
fn a_link_to_each_output_is_made_and_keeps_it_alive() {
    let lab = Lab::new();
    let recipe = Recipe::new("two", "echo out > $out; echo dev > $dev").output("dev");
    let (file, store) = (recipe.write(&lab), lab.store());
    let (file, store) = (file.to_str().expect("UTF-8"), store.to_str().expect("UTF-8"));
    assert_eq!(lab.fodder(&["build", "--store", store, file]).code, 0);
    assert_eq!(std::fs::read_to_string(lab.path().join("result")).expect("result"), "out\n");
    assert_eq!(std::fs::read_to_string(lab.path().join("result-dev")).expect("result-dev"), "dev\n");
    assert_eq!(lab.fodder(&["build", "--store", store, "-o", "named", file]).code, 0);
    assert_eq!(std::fs::read_to_string(lab.path().join("named-dev")).expect("named-dev"), "dev\n");
    let roots = std::fs::read_dir(lab.store().join("nix/var/nix/gcroots/auto")).expect("list").count();
    assert_eq!(roots, 4, "each link is a root of the garbage collector");
    assert_eq!(lab.fodder(&["build", "--store", store, "-o", "x", "--no-link", file]).code, 2);
}

#[test]
fn no_link_is_made_when_none_is_wanted_or_the_build_failed() {
    let lab = Lab::new();
    assert_eq!(lab.make(&Recipe::new("good", "echo > $out"), &[]).code, 0);
    let failing = Recipe::new("bad", "exit 1").write(&lab);
    let store = lab.store();
    let run = lab.fodder(&["build", "--store", store.to_str().expect("UTF-8"), failing.to_str().expect("UTF-8")]);
    assert_eq!(run.code, 100);
    assert!(!lab.path().join("result").is_symlink());
}

#[test]
fn a_file_that_is_in_the_way_of_the_link_stays() {
    let lab = Lab::new();
    lab.write("result", "precious");
    let file = Recipe::new("good", "echo > $out").write(&lab);
    let store = lab.store();
    let run = lab.fodder(&["build", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")]);
    assert_eq!(run.code, 0);
    assert!(run.stderr.contains("warning: no link was made"), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(lab.path().join("result")).expect("result"), "precious");
}

#[test]
fn a_dash_is_standard_input() {
    let lab = Lab::new();
    let recipe = Recipe::new("piped", "echo hi > $out");
    let store = lab.store();
    let mut command = lab.command(&["build", "--no-link", "--store", store.to_str().expect("UTF-8"), "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start");
    child.stdin.take().expect("a pipe").write_all(recipe.json().as_bytes()).expect("write");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", recipe.out()));
}

#[test]
fn of_several_derivations_the_one_that_is_named_is_built() {
    let lab = Lab::new();
    let (one, two) = (Recipe::new("one", "echo 1 > $out"), Recipe::new("two", "echo 2 > $out"));
    let set = [&one, &two].map(|recipe| (recipe.path(), recipe.derivation())).into();
    lab.write("both.json", fodder_model::derivation::json::write_set(&set));
    let run = lab.build(&["both.json"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("the file holds 2 derivations"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: name the one to build after FILE"), "{}", run.stderr);
    let base_name = two.path().base_name().to_owned();
    for name in ["two", base_name.as_str(), &two.path().to_string()] {
        let run = lab.build(&["both.json", name]);
        assert_eq!((run.code, run.stdout.trim()), (0, two.out().to_string().as_str()), "{name}");
    }
    assert_eq!(lab.build(&["both.json", "three"]).code, 2);
}

#[test]
fn a_failed_build_is_kept_when_asked_and_only_then() {
    let lab = Lab::new();
    let recipe = Recipe::new("fails", "echo precious > /build/file; mkdir $out; exit 1");
    let builds = lab.store().join("nix/var/nix/builds");
    assert_eq!(lab.make(&recipe, &[]).code, 100);
    assert_eq!(std::fs::read_dir(&builds).expect("list").count(), 0);
    let run = lab.make(&recipe, &["-K"]);
    assert_eq!(run.code, 100);
    let line = run
        .stderr
        .lines()
        .find(|line| line.starts_with("note: keeping build directory \""))
        .unwrap_or_else(|| panic!("{run:?}"));
    let kept = Path::new(line.split('"').nth(1).expect("a path"));
    assert_eq!(std::fs::read_to_string(kept.join("build/file")).expect("the file"), "precious\n");
    assert!(kept.join("store").join(recipe.out().base_name()).is_dir());
    // The next build, which removes what killed ones have left, leaves it alone.
    assert_eq!(lab.make(&Recipe::new("next", "echo > $out"), &[]).code, 0);
    assert!(kept.join("build/file").exists());
}

#[test]
fn more_of_the_machine_is_shown_where_it_is_asked_for() {
    let lab = Lab::new();
    lab.write("shown/file", "shown\n");
    let shown = lab.path().join("shown");
    let script = "cat /opt/x/file > $out; (echo changed > /opt/x/file) 2>&1 | grep -q 'Read-only' && echo ro >> $out; [ -e /opt/y ] || echo none >> $out";
    let said = lab.said(
        &Recipe::new("shown", script),
        &["--allow-path", &format!("/opt/x={}", shown.display()), "--allow-path", "/opt/y=/nonexistent?"],
    );
    assert_eq!(said, "shown\nro\nnone\n");
    assert_eq!(std::fs::read_to_string(shown.join("file")).expect("the file"), "shown\n");
    let run = lab.make(&Recipe::new("absent", "echo > $out"), &["--allow-path", "/opt/y=/nonexistent"]);
    assert_ne!(run.code, 0, "a path that is not marked optional must be there");
    assert!(run.stderr.contains("/nonexistent"), "{}", run.stderr);
}

#[test]
fn a_profile_of_ones_own_is_a_file() {
    let lab = Lab::new();
    lab.write("profile.toml", "name = \"mine\"\nextends = \"nix\"\nsummary = \"mine\"\n\n[[entry]]\nfile = \"/etc/motto\"\ncontent = \"mine\"\nwhy = \"a test\"\n");
    let recipe = Recipe::new("profiled", "cat /etc/motto > $out");
    assert_eq!(lab.said(&recipe, &["--profile", "profile.toml"]), "mine");
    assert_ne!(lab.make(&recipe, &["--rebuild"]).code, 0, "the ordinary profile has no such file");
    let run = lab.make(&recipe, &["--rebuild", "--profile", "absent.toml"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("known profiles are"), "{}", run.stderr);
    lab.write("bad.toml", "name = \"bad\"\n[[entry]]\nfile = \"/x\"\nwhy = \"a test\"\nunknown = 1\n");
    let run = lab.make(&recipe, &["--rebuild", "--profile", "bad.toml"]);
    assert_eq!(run.code, 125, "{run:?}");
    assert!(run.stderr.contains("bad.toml") && run.stderr.contains("unknown"), "{}", run.stderr);
}

#[test]
fn cores_are_what_was_said_or_all_there_are() {
    let lab = Lab::new();
    let script = "echo $NIX_BUILD_CORES > $out";
    assert_eq!(lab.said(&Recipe::new("three", script), &["--cores", "3"]), "3\n");
    let all: usize = lab.said(&Recipe::new("all", script), &["--cores", "0"]).trim().parse().expect("a number");
    assert!(all >= 1 && all <= std::thread::available_parallelism().expect("cores").get(), "{all}");
}

#[test]
fn offline_leaves_even_a_fixed_output_without_a_network() {
    let lab = Lab::new();
    let recipe = Recipe::new("offline", "echo hi > $out").fixed_to("hi\n");
    let (code, result) = lab.make_json(&recipe, &["--offline"]);
    assert_eq!((code, text(&result, "/network/mode")), (0, "none"), "{result:#}");
}

#[test]
fn the_default_store_follows_the_data_directory_of_the_user() {
    let lab = Lab::new();
    let recipe = Recipe::new("home", "echo > $out");
    let file = recipe.write(&lab);
    let mut command = lab.command(&["build".as_ref(), "--no-link".as_ref(), file.as_os_str()]);
    command.env("XDG_DATA_HOME", lab.path().join("data"));
    let run = lab.run(command);
    let expected = lab.path().join("data/fodder/nix/store").join(recipe.out().base_name());
    assert_eq!((run.code, expected.exists()), (0, true), "{}", run.stderr);
    let mut command = lab.command(&["build".as_ref(), file.as_os_str()]);
    command.env_remove("XDG_DATA_HOME").env_remove("HOME");
    let run = lab.run(command);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("hint: name it with --store DIR"), "{}", run.stderr);
}

#[test]
fn places_of_the_sandbox_s_own_cannot_be_taken_by_an_extra_path() {
    let lab = Lab::new();
    let file = Recipe::new("x", "echo > $out").write(&lab);
    for target in ["/", "//", "/.", "/=/tmp", "/nix/store", "/etc/", "/proc", "/./build", "relative", "/a/../b"] {
        let run = lab.build(&["--allow-path", target, file.to_str().expect("UTF-8")]);
        assert_eq!(run.code, 2, "{target}: {run:?}");
    }
    let data = lab.write("data", "shown");
    let recipe = Recipe::new("reads", "cat /data/x/y > $out");
    let target = format!("//data/./x//y={}", data.display());
    let run = lab.make(&recipe, &["--allow-path", &target]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(std::fs::read_to_string(lab.real(&recipe.out())).expect("the output"), "shown");
}
