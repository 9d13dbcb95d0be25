//! What is planned for a build that nobody has asked anything for: all that a protection hangs on, field by field. The sandbox does
//! what the plan says, so what the plan forgets nobody does.

use crate::{lab::Lab, recipe::Recipe};
use serde_json::{Value, json};

/// The sandbox of a recipe, as `fodder explain` shows it.
fn sandbox(recipe: &Recipe, arguments: &[&str]) -> Value {
    let lab = Lab::new();
    let file = recipe.write(&lab);
    let store = lab.store();
    let mut all = vec!["explain", "--json", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")];
    all.extend(arguments);
    let run = lab.fodder(&all);
    assert_eq!(run.code, 0, "{run:?}");
    let mut plan: Value = serde_json::from_str(&run.stdout).expect("a plan");
    plan["sandbox"].take()
}

fn plain() -> Recipe {
    Recipe::new("plain", "echo > $out")
}

fn steps<'a>(plan: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    plan["root"].as_array().expect("steps").iter().filter(move |step| step["step"] == kind)
}

/// Attack: KRN-1. Layer: the plan has every namespace, a filter, ids of nobody's, and nothing that takes them away.
#[test]
fn every_build_is_shut_in_the_same_way() {
    for (recipe, has_door) in [(plain(), false), (plain().fixed_to("\n"), true)] {
        let plan = sandbox(&recipe, &[]);
        assert_eq!(plan["namespaces"], json!(["user", "mount", "pid", "ipc", "uts", "network", "cgroup"]));
        assert_eq!(plan["allowed"], json!([]));
        assert_eq!(plan["door"].is_object(), has_door);
        assert!(!has_door || plan["door"]["redirect"] == true && plan["door"]["address"] == "10.0.2.100");
        assert_eq!((&plan["identity"]["inside_uid"], &plan["identity"]["inside_gid"]), (&json!(1000), &json!(100)));
        assert_ne!(plan["identity"]["outside_uid"], 0);
        let process = &plan["process"];
        assert_eq!(process["working_directory"], "/build");
        assert_eq!((&process["umask"], &process["fixed_addresses"]), (&json!(0o022), &json!(true)));
        assert_eq!(plan["seccomp"]["default"], json!({ "errno": 38 }), "ENOSYS");
        let written = include_str!("../sandbox-profiles/seccomp.toml").matches("[[rules]]").count();
        assert_eq!(plan["seccomp"]["rules"].as_array().expect("rules").len(), written);
    }
}

/// Attack: FS-6, RES-4. Layer: what the plan lets the builder write to.
#[test]
fn a_build_writes_to_three_places_and_to_nothing_of_the_host() {
    for arguments in [&[][..], &["--profile", "host-tools", "--allow-path", "/opt=/etc"]] {
        let plan = sandbox(&plain(), arguments);
        let writable: Vec<&Value> =
            steps(&plan, "bind").filter(|bind| bind["access"] != "read-only").map(|bind| &bind["target"]).collect();
        assert_eq!(writable, ["/nix/store", "/build", "/tmp"]);
        let root = plan["root"].as_array().expect("steps");
        assert_eq!(root[0], json!({ "step": "mode", "path": "/", "mode": 0o750 }));
        let end = json!([
            { "step": "mode", "path": "/etc", "mode": 0o555 },
            { "step": "mode", "path": "/", "mode": 0o750 },
            { "step": "read-only", "path": "/" },
        ]);
        assert_eq!(root[root.len() - 3..], end.as_array().expect("three")[..]);
        let devices: Vec<&Value> =
            steps(&plan, "bind").filter(|bind| bind["kind"] == "device").map(|bind| &bind["target"]).collect();
        assert_eq!(devices, ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"]);
    }
    let plan = sandbox(&plain(), &["--limit", "shared-memory=1M"]);
    let tmpfs: Vec<&Value> = steps(&plan, "tmpfs").collect();
    assert_eq!(tmpfs, [&json!({ "step": "tmpfs", "path": "/dev/shm", "mode": 0o1777, "size": "1048576" })]);
}

/// Attack: RES-2, RES-3, RES-4, RES-5, RES-6, RES-7. Layer: every limit is in the plan, where nobody has said anything about it.
#[test]
fn every_limit_reaches_whoever_keeps_it() {
    let plan = sandbox(&plain(), &["--limit", "data=1G"]);
    let limits = &plan["limits"];
    for (name, least) in [
        ("deadline_seconds", 3600),
        ("silence_seconds", 600),
        ("log_bytes", 1 << 20),
        ("memory_bytes", 1 << 20),
        ("processes", 1000),
        ("scratch_bytes", 1 << 20),
        ("scratch_files", 1000),
    ] {
        assert!(limits[name].as_u64().is_some_and(|value| value >= least), "{name}: {limits:#}");
    }
    assert_eq!(limits["oom_score"], 500);
    let scratch: Vec<&str> = limits["scratch"].as_array().expect("paths").iter().filter_map(Value::as_str).collect();
    let ends = scratch.iter().map(|path| path.rsplit('/').next().expect("a name"));
    assert!(ends.eq(["build", "tmp", "store"]), "{scratch:?}");
    let settings = limits["settings"].as_array().expect("settings").iter().map(|setting| &setting[0]);
    assert!(settings.eq(["user/max_inotify_instances", "user/max_inotify_watches"]), "{limits:#}");
    let both = |name: &str, value: u64| json!({ "resource": name, "soft": value, "hard": value });
    let resources = limits["resources"].as_array().expect("limits");
    for expected in [both("core", 1), both("data", 1 << 30), both("real-time-priority", 0), both("nice-priority", 0)] {
        assert!(resources.contains(&expected), "{expected}: {limits:#}");
    }
    for name in ["processes", "file-size", "open-files", "locked-memory", "message-queues"] {
        let limit = resources.iter().find(|limit| limit["resource"] == name).unwrap_or_else(|| panic!("{name}"));
        assert!(limit["soft"].is_u64() && limit["hard"].is_u64(), "{limit}");
        assert!(name != "open-files" || limit["hard"].as_u64() <= Some(524_288), "{limit}");
    }
}
