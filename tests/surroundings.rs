//! What a builder finds itself in, to the last entry: a golden list, so that nothing new comes in unseen; and the flags that take
//! protections away.

use crate::{lab::Lab, recipe::Recipe};
use serde_json::json;

/// A recipe that the static shell of profile `nix` runs.
fn recipe(name: &str, script: &str) -> Recipe {
    Recipe::new(name, script)
}

/// Attack: FS-10, FS-11. Layer: the profile's root.
#[test]
fn the_surroundings_are_this_list() {
    let lab = Lab::new();
    let script = "
        for d in / /dev /etc /bin /build /tmp /dev/pts /dev/shm; do echo $d: $(ls -A $d); done
        for f in /dev/*; do [ -c $f ] && [ ! -L $f ] && stat -c '%n %t:%T' $f; done
        cut -d' ' -f5,6 /proc/self/mountinfo | sed 's/,relatime//; s/,noatime//' | sort -u
        grep -E '^(Uid|Gid|NoNewPrivs|Seccomp|Cap...|SigBlk|Umask):' /proc/1/status | tr '\\t' ' '
        grep -E 'core|priority' /proc/1/limits | tr -s ' ' | sed 's/ $//'
        pwd; uname -n; cat /proc/sys/kernel/domainname; cat /proc/self/cgroup | cut -d: -f3 | sort -u
        ls /sys /home /root /run /var /usr 2>/dev/null; ls /dev/kvm /dev/net /dev/fuse /dev/mem /dev/log 2>/dev/null; true";
    let expected = "\
/: bin build dev etc nix proc tmp
/dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero
/etc: group hosts passwd
/bin: sh
/build:
/tmp:
/dev/pts: ptmx
/dev/shm:
/dev/full 1:7
/dev/null 1:3
/dev/random 1:8
/dev/tty 5:0
/dev/urandom 1:9
/dev/zero 1:5
/ ro,nosuid,nodev
/bin/sh ro,nosuid,nodev
/build rw,nosuid,nodev
/dev/full ro,nosuid,noexec
/dev/null ro,nosuid,noexec
/dev/pts rw,nosuid,noexec
/dev/random ro,nosuid,noexec
/dev/shm rw,nosuid,nodev
/dev/tty ro,nosuid,noexec
/dev/urandom ro,nosuid,noexec
/dev/zero ro,nosuid,noexec
/nix/store rw,nosuid,nodev
/proc rw,nosuid,nodev,noexec
/tmp rw,nosuid,nodev
Umask: 0022
Uid: 1000 1000 1000 1000
Gid: 100 100 100 100
SigBlk: 0000000000000000
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
Seccomp: 2
Max core file size 1 1 bytes
Max nice priority 0 0
Max realtime priority 0 0
/build
localhost
(none)
/
";
    let found = lab.said(&recipe("surroundings", &format!("({script}) > $out 2>&1; echo")), &[]);
    let [found, expected] = [&*found, expected].map(|text| text.lines().collect::<Vec<_>>());
    assert_eq!(found, expected);
}

/// Attack: RES-2. Layer: RLIMIT_CORE of 1, soft and hard.
#[test]
fn no_core_is_dumped_and_none_can_be_asked_for() {
    let lab = Lab::new();
    let script = "ulimit -c unlimited 2>&1; grep core /proc/self/limits | tr -s ' '; sh -c 'kill -SEGV $$'; ls -A > $out; cat $out";
    let run = lab.make(&recipe("core", script), &[]);
    assert!(run.code == 0 && run.stderr.contains("Max core file size 1 1 bytes"), "{run:?}");
    assert!(!run.stderr.contains("core.") && !run.stderr.contains("> core\n"), "{run:?}");
    // The control: a process of ours may have a larger one, or the machine forbids it to all.
    let own = std::fs::read_to_string("/proc/self/limits").expect("limits");
    assert!(own.lines().any(|line| line.starts_with("Max core file size") && !line.contains(" 1 ")), "{own}");
}

/// Attack: KRN-4, DRV-3. Layer: only the person's flag gives namespaces, and the result says so.
#[test]
fn namespaces_of_its_own_are_had_by_a_flag_alone() {
    let lab = Lab::new();
    let script = "unshare -U true 2> message && echo made > $out || echo refused > $out; cat message; cat $out";
    let wish = |recipe: Recipe| {
        let wishes = json!({ "allowNestedNamespaces": true, "__allowNestedNamespaces": true });
        recipe.structured(json!({ "name": "namespaces", "sandbox": wishes, "allowed": ["nested-namespaces"] }))
    };
    let (code, result) = lab.make_json(&recipe("namespaces", script), &[]);
    assert_eq!((code, &result["allowed"]), (0, &json!([])), "{result}");
    assert_eq!(result["isolation"]["noNewNamespaces"], true);
    assert_eq!(lab.said(&recipe("namespaces", script), &[]), "refused\n");
    let wished = wish(recipe("namespaces", script.replace("$out", "$NIX_BUILD_TOP/x").as_str()));
    let (_, result) = lab.make_json(&wished, &[]);
    assert_eq!(result["allowed"], json!([]), "{result}");

    let other = Lab::new();
    let (code, result) = other.make_json(&recipe("namespaces", script), &["--allow-nested-namespaces"]);
    assert_eq!((code, &result["allowed"]), (0, &json!(["--allow-nested-namespaces"])), "{result}");
    assert_eq!(result["isolation"]["noNewNamespaces"], false);
    assert_eq!(other.said(&recipe("namespaces", script), &["--allow-nested-namespaces"]), "made\n");
}

#[test]
fn what_was_taken_away_is_said_before_and_after() {
    let lab = Lab::new();
    let file = recipe("plain", "echo > $out").write(&lab);
    let run = lab.fodder(&["explain", "--allow-socketcall", file.to_str().expect("UTF-8")]);
    assert!(run.stdout.contains("Protections that you took away\n  32-bit programs may ask for sockets"), "{run:?}");
    assert!(run.stdout.contains("  executed: socketcall\n"), "{run:?}");
    let run = lab.fodder(&["explain", file.to_str().expect("UTF-8")]);
    assert!(run.stdout.contains("Protections that you took away\n  none\n"), "{run:?}");
    assert!(run.stdout.contains("  ENOSYS: socketcall\n"), "{run:?}");
    let (_, result) = lab.make_json(&recipe("plain", "echo > $out"), &["--allow-socketcall"]);
    assert_eq!(result["allowed"], json!(["--allow-socketcall"]), "{result}");
}
