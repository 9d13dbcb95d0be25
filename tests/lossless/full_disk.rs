//! When nothing more can be written: a full file system, a call that fails, a store that is read-only.

use super::{Random, count_calls, nothing_is_left, rounds, tell, verified};
use crate::{
    lab::{Lab, Run, need},
    recipe::Recipe,
};
use std::{collections::BTreeMap, process::Command};

/// Runs a script in a mount namespace of its own, with `$as_me` before commands that must not be root there: an ordinary user is
/// root in a namespace that can mount, and needs another one inside to be itself again.
fn in_mount_namespace(lab: &Lab, script: &str) -> Run {
    let mut command = Command::new(need("unshare", "util-linux"));
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let as_me = match user.is_root() {
        true => {
            command.arg("-m");
            String::new()
        }
        false => {
            command.arg("-rm");
            format!("unshare -U --map-user={} --map-group={}", user.as_raw(), group.as_raw())
        }
    };
    command.args(["sh", "-ec", script]).current_dir(lab.path()).env("as_me", as_me).env("FODDER_HOST_STORE", "none");
    command.env("fodder", env!("CARGO_BIN_EXE_fodder")).env("HOME", lab.path()).env("NIX_CONF_DIR", lab.path());
    lab.run(command)
}

#[test]
fn a_full_disk_loses_nothing_and_is_named() {
    need("nix-store", "nix-bin");
    let lab = Lab::new();
    let script = "mkdir $out; i=0; while [ $i -lt 40 ]; do head -c 8192 /dev/zero > $out/$i || exit 3; i=$((i+1)); done; head -c 100000 /dev/zero > $dev || exit 3";
    let recipe = Recipe::new("filling", script).output("dev");
    lab.write("d.json", recipe.json());
    lab.write("first.json", Recipe::new("first", "echo first > $out").json());
    lab.write("source/file", "x".repeat(60_000));
    let run = in_mount_namespace(
        &lab,
        r#"
        mkdir -p disk
        mount -t tmpfs -o size=64m,mode=755 none disk
        cd disk # what is below the mount point
        $as_me $fodder build --no-link --store store ../first.json 2>&1
        first=$(cat store/nix/store/*-first)
        for more in 0 4 16 60 100 140 200 280 340 400 440 480 520; do
            used=$(df --output=used -k . | tail -1)
            mount -o remount,size=$((used + more))k none .
            if $as_me $fodder build --no-link --store store ../d.json >/dev/null 2>../said-$more; then code=0; else code=$?; fi
            if $as_me $fodder store --store store add ../source > /dev/null 2>../added-$more; then added=0; else added=$?; fi
            mount -o remount,size=64m none .
            $as_me $fodder store --store store verify --check-contents >/dev/null
            $as_me nix-store --store $PWD/store --option build-users-group '' --verify --check-contents 2>&1
            test "$(cat store/nix/store/*-first)" = "$first"
            echo "round $more $code $added"
            $as_me $fodder store --store store gc >/dev/null 2>&1
            $as_me $fodder build --no-link --store store ../first.json 2>/dev/null
            test -z "$(ls store/nix/var/nix/builds store/nix/var/nix/temproots | grep -v :)"
        done
        $as_me $fodder build --no-link --store store ../d.json
        echo finished
        "#,
    );
    assert!(run.code == 0 && run.stdout.ends_with("finished\n"), "{run:?}");
    for word in ["warning", "modified", "missing", "disappeared"] {
        assert!(!run.stdout.contains(word), "{}", run.stdout);
    }
    let mut failed = 0;
    for line in run.stdout.lines().filter_map(|line| line.strip_prefix("round ")) {
        let [more, code, added] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        for (code, file) in [(code, format!("said-{more}")), (added, format!("added-{more}"))] {
            let said = std::fs::read_to_string(lab.path().join(file)).expect("read");
            assert!(!said.contains("mistake in fodder"), "{said}");
            if code != "0" {
                failed += 1;
                assert!(
                    said.contains("No space left") || said.contains("full") || said.contains("failed with exit code"),
                    "{code}: {said}"
                );
            }
        }
    }
    assert!(failed >= 6, "{}", run.stdout);
}

/// Calls that need space on some file system or other.
const CALLS: [&str; 10] =
    ["write", "pwrite64", "mkdirat", "fsync", "fdatasync", "renameat2", "renameat", "ftruncate", "symlinkat", "linkat"];

#[test]
fn whichever_call_fails_nothing_is_lost() {
    let strace = need("strace", "strace");
    let lab = Lab::new();
    let store = lab.store().display().to_string();
    lab.text("first", "x");
    lab.write("added/file", "x");
    let recipe = |name: &str| {
        Recipe::new(name, "echo said; mkdir $out; echo > $out/f; ln -s f $out/l; echo > $dev").output("dev")
    };
    let traced = |tracing: &[&str], what: &[&str]| {
        let mut command = Command::new(&strace);
        command.args(["-qq", "-o"]).arg(lab.path().join("trace")).args(tracing).arg(env!("CARGO_BIN_EXE_fodder"));
        command.args(what).current_dir(lab.path()).env("FODDER_HOST_STORE", "none");
        lab.run(command)
    };
    let build = |name: &str| {
        let file = recipe(name).write(&lab).display().to_string();
        let link = lab.path().join("result").display().to_string();
        ["build", "--store", &store, "-o", &link, &file].map(str::to_owned)
    };
    let add = |name: &str| ["store", "--store", &store, "add", "--name", name, "added"].map(str::to_owned);
    let commands = |number: u64, name: &str| -> Vec<String> {
        if number.is_multiple_of(3) { add(name).to_vec() } else { build(name).to_vec() }
    };
    // How often each is called.
    let mut counts: Vec<BTreeMap<String, u64>> = Vec::new();
    for number in 0..2 {
        let arguments = commands(number, &format!("counted-{number}"));
        let run = traced(
            &["-e", &format!("trace={}", CALLS.join(","))],
            &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        assert_eq!(run.code, 0, "{run:?}");
        counts.push(count_calls(&std::fs::read_to_string(lab.path().join("trace")).expect("the trace")));
    }
    let mut random = Random::new();
    let (mut failed, count) = (0, rounds(25));
    for round in 0..count {
        let calls = &counts[usize::from(!round.is_multiple_of(3))];
        let call = calls.keys().nth(random.below(calls.len() as u64) as usize).expect("a call");
        let when = 1 + random.below(calls[call]);
        let error = ["ENOSPC", "EIO", "EDQUOT"][random.below(3) as usize];
        let name = format!("round-{round}");
        let arguments = commands(round, &name);
        let injection = format!("inject={call}:error={error}:when={when}");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = traced(&["-e", &format!("trace={call}"), "-e", &injection], &arguments);
        assert!(!run.stderr.contains("mistake in fodder") && !run.stderr.contains("panicked"), "{injection}: {run:?}");
        if run.code != 0 {
            failed += 1;
            assert!(run.stderr.contains("error") || call == "write", "{injection}: {run:?}");
        }
        if let Ok(target) = std::fs::read_link(lab.path().join("result")) {
            assert!(target.exists(), "{injection}: the link leads nowhere");
        }
        if round % 10 == 9 {
            verified(&lab);
        }
        // And then it works.
        let run = lab.fodder(&arguments);
        assert_eq!(run.code, 0, "after {injection}: {run:?}");
    }
    tell(&format!("{failed} of {count} failed"));
    assert!(failed * 4 > count, "only {failed} of {count} failed");
    lab.made(&Recipe::new("next", "echo > $out"), &[]);
    nothing_is_left(&lab);
    verified(&lab);
}

#[test]
fn a_store_that_cannot_be_written_to_is_named_and_stays_as_it_is() {
    let lab = Lab::new();
    lab.write("first.json", Recipe::new("first", "echo first > $out").json());
    lab.write("d.json", Recipe::new("second", "echo second > $out").json());
    let run = in_mount_namespace(
        &lab,
        r#"
        mkdir -p disk
        mount -t tmpfs -o size=64m,mode=755 none disk
        $as_me $fodder build --no-link --store disk/store first.json 2>&1
        # With a source, so that mount(8) adds no options of its own, which an ordinary user cannot give again. Namespaces that have ended let go of their mounts a moment later.
        i=0; until mount -o remount,ro none disk 2>/dev/null; do sleep 0.1; i=$((i+1)); test $i -lt 100; done
        for verb in "build --no-link --store disk/store d.json" "store --store disk/store add first.json" "store --store disk/store gc"; do
            if $as_me $fodder $verb >out 2>&1; then echo "it worked: $verb"; else echo "code $?: $(cat out)"; fi
        done
        $as_me $fodder store --store disk/store query --references disk/store/nix/store/*-first
        mount -o remount,rw none disk
        $as_me $fodder build --no-link --store disk/store d.json
        $as_me nix-store --store $PWD/disk/store --option build-users-group '' --verify --check-contents
        echo finished
        "#,
    );
    assert!(run.code == 0 && run.stdout.ends_with("finished\n"), "{run:?}");
    let refused: Vec<&str> = run.stdout.lines().filter(|line| line.starts_with("code ")).collect();
    assert_eq!(refused.len(), 3, "{}", run.stdout);
    for line in refused {
        assert!(
            line.starts_with("code 1: error:") && line.contains("disk/store/nix") && line.contains("Read-only"),
            "{line}"
        );
    }
}
