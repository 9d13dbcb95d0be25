//! What a derivation asks for, and gets only from the person.

use crate::{
    lab::{Lab, Run},
    recipe::{Recipe, text},
};
use serde_json::Value;

/// The sandbox that a recipe would be built in, without what it says to its own builder.
fn sandbox(lab: &Lab, recipe: &Recipe, arguments: &[&str]) -> Value {
    let file = recipe.write(lab);
    let store = lab.store();
    let mut all = vec!["explain", "--json", "--store", store.to_str().expect("UTF-8")];
    all.extend(arguments);
    all.push(file.to_str().expect("UTF-8"));
    let run = lab.fodder(&all);
    assert_eq!(run.code, 0, "{run:?}");
    let plan: Value = serde_json::from_str(&run.stdout).expect("a plan");
    let mut sandbox = plan["sandbox"].clone();
    sandbox["process"].as_object_mut().expect("an object").remove("environment");
    // What is free on the disk now is not what was free a moment ago.
    sandbox["limits"].as_object_mut().expect("an object").remove("scratch_bytes");
    serde_json::json!({ "sandbox": sandbox, "network": plan["network"], "allowed": plan["allowed"] })
}

/// Attack: DRV-3, CVE-2026-53492, CVE-2024-23653. Layer: one function decides on privileges, and no wish gets there
#[test]
fn no_wish_of_a_derivation_changes_its_sandbox() {
    let lab = Lab::new();
    let plain = sandbox(&lab, &Recipe::new("wish", "echo > $out"), &[]);
    assert_eq!(plain["allowed"], serde_json::json!([]));
    for (name, value) in [
        ("impureEnvVars", "HOME SSH_AUTH_SOCK"),
        ("__sandboxProfile", "(allow default)"),
        ("sandbox", "false"),
        ("sandbox-paths", "/etc/shadow"),
        ("extra-sandbox-paths", "/root"),
        ("__darwinAllowLocalNetworking", "1"),
        ("__impureDefaultEnv", "1"),
        ("allowSubstitutes", ""),
        ("preferLocalBuild", "1"),
        ("outputHashMode", "recursive"),
        ("NIX_OUTPUT_CHECKED", "1"),
        ("FODDER_OPEN_FILES", "1000000"),
        ("FODDER_HOST_STORE", "/"),
        ("network", "host"),
        ("fodder", "{\"network\":{\"mode\":\"host\"}}"),
        ("http_proxy", "http://127.0.0.1:22"),
    ] {
        let wished = sandbox(&lab, &Recipe::new("wish", "echo > $out").env(name, value), &[]);
        assert!(wished == plain, "{name}={value}");
    }
    // Control: the person can change it.
    let asked = sandbox(&lab, &Recipe::new("wish", "echo > $out"), &["--allow-path", "/opt=/etc"]);
    assert_eq!(asked["allowed"], serde_json::json!(["--allow-path /opt=/etc"]));
    assert!(asked["sandbox"] != plain["sandbox"]);
}

/// Attack: DRV-3. Layer: what cannot be had is refused
#[test]
fn wishes_that_cannot_be_granted_are_refused() {
    let lab = Lab::new();
    for (name, value, words) in [
        ("__noChroot", "1", "__noChroot"),
        ("__impureHostDeps", "/etc/shadow", "/etc/shadow"),
        ("requiredSystemFeatures", "uid-range", "uid-range"),
        ("requiredSystemFeatures", "recursive-nix", "recursive-nix"),
    ] {
        let run = lab.make(&Recipe::new("wish", "echo ran; echo > $out").env(name, value), &[]);
        assert_ne!(run.code, 0, "{name}: {run:?}");
        assert!(run.stderr.contains(words) && !run.stderr.contains("> ran"), "{name}: {run:?}");
    }
}

fn with_secrets(lab: &Lab, recipe: &Recipe, arguments: &[&str]) -> Run {
    let file = recipe.write(lab);
    let mut command = lab.command(&["build", "--json", "--no-link", "--store"]);
    command.arg(lab.store()).args(arguments).arg(file);
    command.env("AWS_SECRET_ACCESS_KEY", "hunter2").env("https_proxy", "http://proxy.example:1/");
    lab.run(command)
}

/// Attack: ENV-3. Layer: only the person's list, and the variables of proxies
#[test]
fn a_secret_that_a_derivation_names_stays_outside() {
    let lab = Lab::new();
    let script = "echo \"$AWS_SECRET_ACCESS_KEY|$https_proxy\" > $out";
    let recipe = |expected| {
        Recipe::new("thief", script).fixed_to(expected).env("impureEnvVars", "AWS_SECRET_ACCESS_KEY https_proxy")
    };
    let run = with_secrets(&lab, &recipe("|http://proxy.example:1/\n"), &[]);
    assert_eq!(run.code, 0, "{run:?}");
    let result: Value = serde_json::from_str(&run.stdout).expect("a result");
    assert_eq!(
        (&result["impureVariables"], &result["allowed"]),
        (&serde_json::json!(["https_proxy"]), &serde_json::json!([]))
    );
    assert!(result["notes"].to_string().contains("--allow-env AWS_SECRET_ACCESS_KEY hands it out"), "{result:#}");
    assert!(!run.stdout.contains("hunter2") && !run.stderr.contains("hunter2"), "{run:?}");
    // Control: the person can say so, and the result says that they did.
    let run =
        with_secrets(&lab, &recipe("hunter2|http://proxy.example:1/\n"), &["--allow-env", "AWS_SECRET_ACCESS_KEY"]);
    assert_eq!(run.code, 0, "{run:?}");
    let result: Value = serde_json::from_str(&run.stdout).expect("a result");
    assert_eq!(result["allowed"], serde_json::json!(["--allow-env AWS_SECRET_ACCESS_KEY"]));
    assert_eq!(result["impureVariables"], serde_json::json!(["AWS_SECRET_ACCESS_KEY", "https_proxy"]));
}

/// Attack: NET-5. Layer: only the port of a proxy that the build is told of is open, and the result says so
#[test]
fn a_proxy_on_loopback_is_reachable_and_the_result_says_so() {
    let lab = Lab::new();
    for (wanted, expected) in
        [("https_proxy", serde_json::json!(["--allow-loopback 3128"])), ("", serde_json::json!([]))]
    {
        let recipe = Recipe::new("told", "echo > $out").fixed_to("\n").env("impureEnvVars", wanted);
        let mut command = lab.command(&["build", "--json", "--no-link", "--store"]);
        command.arg(lab.store()).arg(recipe.write(&lab)).env("https_proxy", "http://127.0.0.1:3128/");
        command.env_remove("http_proxy").env_remove("all_proxy");
        let run = lab.run(command);
        let result: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        assert_eq!((run.code, &result["allowed"]), (0, &expected), "{run:?}");
    }
}

/// Attack: ENV-4. Layer: the environment and the root are made from nothing
#[test]
fn agents_and_sockets_of_the_person_are_out_of_reach() {
    let lab = Lab::new();
    let socket = lab.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("listen");
    let script = "env > $out; for p in /run /var/run /home /root /tmp/.X11-unix $SSH_AUTH_SOCK; do ls -A $p 2>/dev/null; done >> $out; :";
    let recipe = Recipe::new("agents", script);
    let file = recipe.write(&lab);
    let mut command = lab.command(&["build", "--no-link", "--store"]);
    command.arg(lab.store()).arg(file);
    for name in
        ["SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "WAYLAND_DISPLAY", "DISPLAY", "DOCKER_HOST", "GPG_AGENT_INFO"]
    {
        command.env(name, &socket);
    }
    let run = lab.run(command);
    assert_eq!(run.code, 0, "{run:?}");
    let said = std::fs::read_to_string(lab.real(&recipe.out())).expect("read");
    let place = socket.display().to_string();
    assert!(said.contains("HOME=/homeless-shelter") && !said.contains(&place), "{said}");
    assert!(said.lines().all(|line| line.contains('=')), "nothing is listed: {said}");
}

/// Attack: ENV-1, CVE-2021-21261. Layer: a derivation's variables go to its builder and to nobody else
#[test]
fn variables_of_a_derivation_reach_its_builder_only() {
    let lab = Lab::new();
    let canary = lab.path().join("canary");
    let library = lab.write("evil.so", "no library");
    let mut recipe = Recipe::new("loader", "echo \"$LD_PRELOAD|$IFS\" > $out");
    for (name, value) in [
        ("LD_PRELOAD", library.to_str().expect("UTF-8")),
        ("LD_LIBRARY_PATH", "/tmp"),
        ("GCONV_PATH", "/tmp"),
        ("IFS", "x"),
        ("PATH", "/evil"),
        ("NIX_STORE_DIR", "/evil"),
        ("FODDER_OPEN_FILES", "7"),
        ("TMPDIR", canary.to_str().expect("UTF-8")),
        ("XDG_DATA_HOME", canary.to_str().expect("UTF-8")),
    ] {
        recipe = recipe.env(name, value);
    }
    let (code, result) = lab.make_json(&recipe, &[]);
    assert_eq!(code, 0, "{result:#}");
    assert!(text(&result, "/outputs/out/realPath").starts_with(lab.store().to_str().expect("UTF-8")), "{result:#}");
    assert!(
        std::fs::read_to_string(lab.real(&recipe.out())).expect("read").starts_with(library.to_str().expect("UTF-8"))
    );
    assert!(!canary.exists());
}

/// Attack: DRV-4, CVE-2024-32462. Layer: nothing of a derivation is an argument of a program of ours
#[test]
fn texts_that_look_like_options_are_texts() {
    let lab = Lab::new();
    let mut recipe = Recipe::new("options", "");
    recipe.parts.builder = "/bin/sh".into();
    recipe.parts.arguments =
        vec!["-c".into(), "echo \"$0 $1 $2\" > $out".into(), "--help".into(), "--store".into(), "-K".into()];
    assert_eq!(lab.said(&recipe, &[]), "--help --store -K\n");
    let run = lab.make(&Recipe::new("platform", "echo > $out").system("--version"), &[]);
    assert_eq!(run.code, 100, "{run:?}");
}

/// Attack: PROC-4, CVE-2020-5291, CVE-2016-8659. Layer: a program with borrowed rights does nothing.
#[test]
fn a_copy_with_a_set_id_bit_refuses_to_run() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    let lab = Lab::new();
    let copy = lab.path().join("fodder");
    let program = std::fs::read(env!("CARGO_BIN_EXE_fodder")).expect("read the program");
    std::fs::write(&copy, program).expect("copy it");
    let run = |mode: u32| {
        for (path, mode) in [(lab.path(), 0o755), (copy.as_path(), mode)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("change the mode");
        }
        let mut command = std::process::Command::new(&copy);
        command.arg("--version").env_clear();
        if nix::unistd::geteuid().is_root() {
            // Somebody else, to whom the bit gives root's rights.
            command.uid(23_457).gid(23_457);
        }
        lab.run(command)
    };
    assert_eq!(run(0o755).code, 0, "control: without the bit it runs");
    let with_bit = run(0o4755);
    // The bit of one's own file gives an ordinary user nothing, and nothing is refused.
    if nix::unistd::geteuid().is_root() {
        assert_eq!(with_bit.code, 1, "{with_bit:?}");
        assert!(with_bit.stderr.contains("has a set-id bit"), "{with_bit:?}");
    } else {
        assert_eq!(with_bit.code, 0, "{with_bit:?}");
    }
}
