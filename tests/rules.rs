//! The rules of the sandbox as a builder sees them, in both profiles, and whatever the caller is.

use crate::{lab::Lab, recipe::Recipe};
use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a script prints in a profile. The output is what it wrote.
fn in_profile(lab: &Lab, profile: &str, name: &str, script: &str) -> String {
    lab.said(&profiled(profile, name, script), &["--profile", profile])
}

/// A recipe for a profile. Where `/bin/sh` is the host's, the busybox of the host runs the script.
fn profiled(profile: &str, name: &str, script: &str) -> Recipe {
    let mut recipe = Recipe::new(&format!("{name}-{profile}"), script);
    if profile == "host-tools" {
        recipe.parts.builder = "/bin/busybox".into();
        recipe.parts.arguments = vec!["sh".into(), "-c".into(), script.into()];
    }
    recipe
}

const PROFILES: [&str; 2] = ["nix", "host-tools"];

/// The busybox of the host, in both profiles: its applets are what the scripts are written for.
fn in_both(name: &str, script: &str, expected: &str) {
    let lab = Lab::new();
    for profile in PROFILES {
        assert_eq!(in_profile(&lab, profile, name, script), expected, "in profile {profile}");
    }
}

// --- network

#[test]
fn a_builder_without_a_declared_hash_has_nothing_but_its_own_loopback() {
    in_both(
        "loopback",
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' > $out; tail -n +2 /proc/net/route | wc -l >> $out",
        "lo\n0\n",
    );
}

/// Counts the connections to a port on the host's loopback.
fn listener() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    (port, count)
}

#[test]
fn a_service_on_the_host_is_out_of_reach_unless_there_is_a_declared_hash_and_a_word_of_the_person() {
    let lab = Lab::new();
    let (port, count) = listener();
    let script =
        format!("busybox nc 127.0.0.1 {port} < /dev/null 2> message; echo $? > code; cat message code; cp code $out");
    for profile in PROFILES {
        let plain = profiled(profile, "plain", &script);
        let run = lab.make(&plain, &["--profile", profile]);
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.stderr.contains("Connection refused"), "{profile}: {}", run.stderr);
        assert_eq!(count.load(Ordering::SeqCst), 0, "{profile}");
    }
    let fixed = Recipe::new("fixed", &script).fixed_to("0\n");
    let run = lab.make(&fixed, &["--allow-loopback", &port.to_string()]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let shared = Recipe::new("shared", &script).fixed_to("0\n");
    let run = lab.make(&shared, &["--unsafe-host-network"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let refused = Recipe::new("refused", &script).fixed_to("1\n");
    let run = lab.make(&refused, &[]);
    assert_eq!(run.code, 0, "{run:?}");
    let refused = Recipe::new("offline", &script).fixed_to("1\n");
    let run = lab.make(&refused, &["--network", "none"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(count.load(Ordering::SeqCst), 2, "--network none takes the network away");
}

#[test]
fn a_hash_in_the_environment_alone_opens_nothing() {
    let lab = Lab::new();
    let script = "echo ${NIX_OUTPUT_CHECKED-unset} > $out; tail -n +3 /proc/net/dev | wc -l >> $out; [ -e /etc/resolv.conf ] || echo no resolvers >> $out; echo $secret >> $out";
    let recipe = Recipe::new("pretender", script)
        .env("outputHash", "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .env("outputHashAlgo", "sha256")
        .env("outputHashMode", "flat")
        .env("impureEnvVars", "secret");
    let file = recipe.write(&lab);
    let store = lab.store();
    let mut command =
        lab.command(&["build", "--no-link", "--store", store.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")]);
    command.env("secret", "leaked");
    assert_eq!(lab.run(command).code, 0);
    let said = std::fs::read_to_string(lab.real(&recipe.out())).expect("the output");
    assert_eq!(said, "unset\n1\nno resolvers\n\n");
}

#[test]
fn the_loopback_inside_works() {
    in_both(
        "inner",
        "(echo inner | busybox nc -l -p 7777) & for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; busybox nc 127.0.0.1 7777 < /dev/null > got && break; done; cp got $out",
        "inner\n",
    );
}

// --- environment

#[test]
fn a_minimal_derivation_has_nix_s_variables_and_no_other() {
    let lab = Lab::new();
    let recipe = Recipe::new("minimal", "cat /proc/1/environ > $out; true");
    let file = recipe.write(&lab);
    let store = lab.store();
    let mut command = lab.command(&[
        "build",
        "--no-link",
        "--cores",
        "7",
        "--store",
        store.to_str().expect("UTF-8"),
        file.to_str().expect("UTF-8"),
    ]);
    command.env("LEAK", "1").env("LD_PRELOAD", "/nonexistent.so").env("LANG", "C.UTF-8");
    let run = lab.run(command);
    assert_eq!(run.code, 0, "{run:?}");
    let said = std::fs::read_to_string(lab.real(&recipe.out())).expect("the output").replace('\0', "\n");
    let expected = format!(
        "HOME=/homeless-shelter\nNIX_BUILD_CORES=7\nNIX_BUILD_TOP=/build\nNIX_LOG_FD=2\nNIX_STORE=/nix/store\n\
         PATH=/path-not-set\nPWD=/build\nTEMP=/build\nTEMPDIR=/build\nTERM=xterm-256color\nTMP=/build\nTMPDIR=/build\n\
         builder=/bin/sh\nname=minimal\nout={}\nsystem={}-linux\n",
        recipe.out(),
        std::env::consts::ARCH
    );
    assert_eq!(said, expected);
}

#[test]
fn the_environment_of_process_1_is_sorted() {
    let lab = Lab::new();
    let recipe = Recipe::new("sorted", "cat /proc/1/environ > $out; true")
        .env("a b", "1")
        .env("_", "2")
        .env("9x", "3")
        .env("Zebra", "4");
    let said = lab.said(&recipe, &[]);
    let names: Vec<&str> = said.split_terminator('\0').map(|line| line.split('=').next().expect("a name")).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    assert!(names.contains(&"a b") && names.contains(&"9x") && !names.contains(&"SHLVL"), "{names:?}");
}

#[test]
fn some_variables_can_be_overridden_and_others_cannot() {
    let lab = Lab::new();
    let recipe = Recipe::new(
        "overridden",
        "echo $HOME $PATH $NIX_STORE $NIX_BUILD_CORES $TMPDIR $TERM $NIX_LOG_FD $NIX_BUILD_TOP > $out",
    );
    let recipe = ["HOME", "PATH", "NIX_STORE", "NIX_BUILD_CORES", "TMPDIR", "TERM", "NIX_LOG_FD", "NIX_BUILD_TOP"]
        .iter()
        .fold(recipe, |recipe, name| recipe.env(name, "mine"));
    assert_eq!(lab.said(&recipe, &[]), "mine mine mine mine /build xterm-256color 2 /build\n");
}

#[test]
fn impure_variables_reach_fixed_outputs_only() {
    let lab = Lab::new();
    let script = "echo \"$secret|$TMPDIR|$HOME|${absent-unset}|$NIX_OUTPUT_CHECKED\" > $out";
    for (recipe, expected) in [
        (Recipe::new("fixed", script).fixed_to("told|/elsewhere|/home/me||1\n"), "told|/elsewhere|/home/me||1\n"),
        (Recipe::new("plain", script), "|/build|/homeless-shelter|unset|\n"),
    ] {
        let recipe = recipe.env("impureEnvVars", "secret TMPDIR\nHOME absent");
        let file = recipe.write(&lab);
        let store = lab.store();
        let mut command = lab.command(&[
            "build",
            "--no-link",
            "--allow-env=secret",
            "--allow-env=TMPDIR HOME",
            "--store",
            store.to_str().expect("UTF-8"),
            file.to_str().expect("UTF-8"),
        ]);
        command.env("secret", "told").env("HOME", "/home/me").env("TMPDIR", "/elsewhere").env_remove("absent");
        // The lab's directory is not below $TMPDIR; nothing of the program may depend on it either.
        let run = lab.run(command);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(std::fs::read_to_string(lab.real(&recipe.out())).expect("the output"), expected);
    }
}

#[test]
fn attributes_passed_as_files_are_files() {
    let lab = Lab::new();
    let recipe = Recipe::new("files", "echo ${big-unset} $bigPath > $out; cat $bigPath >> $out; stat -c '%a %U %G' $bigPath >> $out; echo $emptyPath >> $out; echo $otherPath >> $out")
        .env("passAsFile", " big\tempty absent other ")
        .env("big", "many words")
        .env("empty", "")
        .env("other", "x")
        .env("otherPath", "mine");
    assert_eq!(
        lab.said(&recipe, &[]),
        "unset /build/.attr-1lak0mvllw8rv9i9ygkglvhqsq19qi9ynl4bi7gbf69ab5nzw89a\nmany words644 nixbld UNKNOWN\n\
         /build/.attr-03gix05jz3k6myp6lq9zfy5yn5050zm2qqxfpnxnrhimn21gl71f\nmine\n"
            .replace("UNKNOWN", "nixbld")
    );
}

#[test]
fn structured_attributes_are_files_and_no_variables() {
    let lab = Lab::new();
    // The shell here has no arrays: what its file says is compared as text.
    let script = "o=$(sed 's/.*\"outputs\":{\"out\":\"\\([^\"]*\\)\".*/\\1/' $NIX_ATTRS_JSON_FILE); { echo ${out-unset} $NIX_ATTRS_SH_FILE $NIX_ATTRS_JSON_FILE; cat $NIX_ATTRS_SH_FILE $NIX_ATTRS_JSON_FILE; } > $o";
    let recipe = Recipe::new("structured", script).structured(serde_json::json!({
        "name": "structured", "list": ["a", "b c", 3, true, null], "map": { "x": "1", "y z": "w'" }, "big": 3_000_000_000_u64,
        "half": 1.5, "yes": true, "no": false, "nothing": null,
    }));
    let out = recipe.out();
    assert_eq!(
        lab.said(&recipe, &[]),
        format!(
            "unset /build/.attrs.sh /build/.attrs.json\n\
             declare big=-1294967296\ndeclare -a list=('a' 'b c' 3 1 '' )\ndeclare -A map=(['x']='1' ['y z']='w'\\''' )\n\
             declare name='structured'\ndeclare no=\ndeclare nothing=''\ndeclare -A outputs=(['out']='{out}' )\ndeclare yes=1\n\
             {{\"big\":3000000000,\"half\":1.5,\"list\":[\"a\",\"b c\",3,true,null],\"map\":{{\"x\":\"1\",\"y z\":\"w'\"}},\
             \"name\":\"structured\",\"no\":false,\"nothing\":null,\"outputs\":{{\"out\":\"{out}\"}},\"yes\":true}}"
        )
    );
}

// --- files

#[test]
fn nothing_can_be_created_outside_the_places_for_it() {
    in_both(
        "closed",
        "for d in / /etc /dev /bin /nix /proc /homeless-shelter/x; do (touch $d/new) 2>/dev/null && echo created in $d >> list; done; \
         mkdir -p $HOME 2>/dev/null && echo home >> list; echo x 2>/dev/null >> /etc/passwd && echo passwd >> list; \
         for d in /build /tmp /nix/store /dev/shm; do touch $d/new || echo not in $d >> list; done; touch list; cp list $out",
        "",
    );
}

/// Attack: FS-6. Layer: read-only mounts.
#[test]
fn inputs_can_be_read_and_not_changed() {
    let lab = Lab::new();
    let directory = lab.directory("input", "original\n");
    let file = lab.text("text", "original\n");
    for profile in PROFILES {
        let script = "cat $directory/file $file > $out; for f in $directory/file $file; do \
             (echo changed > $f) 2>/dev/null && echo written >> $out; chmod 777 $f 2>/dev/null && echo chmod >> $out; \
             rm -f $f 2>/dev/null && echo removed >> $out; mv $f /tmp/x 2>/dev/null && echo moved >> $out; \
             ln $f /nix/store/linked 2>/dev/null && echo linked >> $out; done; \
             touch $directory/new 2>/dev/null && echo created >> $out; true";
        let recipe = profiled(profile, "changes", script)
            .env("directory", &directory.to_string())
            .env("file", &file.to_string())
            .source(&directory)
            .source(&file);
        assert_eq!(lab.said(&recipe, &["--profile", profile]), "original\noriginal\n", "{profile}");
    }
    assert_eq!(std::fs::read_to_string(lab.real(&directory).join("file")).expect("the input"), "original\n");
    assert_eq!(std::fs::read_to_string(lab.real(&file)).expect("the input"), "original\n");
}

#[test]
fn only_the_inputs_are_seen_of_the_store() {
    let lab = Lab::new();
    let (used, unused) = (lab.text("used", "x"), lab.text("unused", "x"));
    let recipe = Recipe::new("lists", "cd /nix/store; echo * > $out; [ -e $unused ] || echo absent >> $out")
        .env("used", &used.to_string())
        .env("unused", &unused.to_string())
        .source(&used);
    // The output exists when the shell has opened it, which is before it expands the star.
    let said = lab.said(&recipe, &[]);
    let names: Vec<&str> = said.lines().next().expect("a line").split(' ').collect();
    let mut expected = vec![used.base_name().to_owned(), recipe.out().base_name().to_owned()];
    expected.sort();
    expected.retain(|name| names.contains(&name.as_str()) || *name == used.base_name());
    assert_eq!(names, expected);
    assert!(said.ends_with("absent\n"), "{said}");
}

#[test]
fn the_root_holds_what_nix_s_holds() {
    let lab = Lab::new();
    let said = in_profile(
        &lab,
        "nix",
        "root",
        "cd /; echo * > $out; ls /etc /dev >> $out; cat /etc/passwd /etc/group /etc/hosts >> $out; stat -c '%a %n' / /etc /tmp /build /nix/store /dev/shm >> $out",
    );
    assert_eq!(
        said,
        "bin build dev etc nix proc tmp\n/dev:\nfd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\n\
         /etc:\ngroup\nhosts\npasswd\n\
         root:x:0:0:Nix build user:/build:/noshell\nnixbld:x:1000:100:Nix build user:/build:/noshell\nnobody:x:65534:65534:Nobody:/:/noshell\n\
         root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n127.0.0.1 localhost\n::1 localhost\n\
         750 /\n555 /etc\n1777 /tmp\n700 /build\n1775 /nix/store\n1777 /dev/shm\n"
    );
}

#[test]
fn the_tools_of_the_machine_are_there_in_one_profile_and_not_in_the_other() {
    let lab = Lab::new();
    let script = "[ -e /usr/bin/env ] && echo usr > $out || echo none > $out; ls -d /home /root /var /run /sys /srv /mnt /opt 2>/dev/null >> $out; true";
    assert_eq!(in_profile(&lab, "nix", "tools", script), "none\n");
    assert_eq!(in_profile(&lab, "host-tools", "tools", script), "usr\n");
}

// --- identity and processes

#[test]
fn the_builder_is_process_1_uid_1000_gid_100_without_capabilities() {
    in_both(
        "identity",
        "echo $$ $PPID $(id -u) $(id -g) > $out; grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/1/status | tr '\\t' ' ' >> $out; umask >> $out; ulimit -c >> $out; pwd >> $out; hostname >> $out",
        "1 0 1000 100\nCapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapAmb: 0000000000000000\n\
         NoNewPrivs: 1\nSeccomp: 2\n0022\n0\n/build\nlocalhost\n",
    );
}

#[test]
fn only_processes_of_the_build_are_seen() {
    in_both(
        "processes",
        "cd /proc; for p in [0-9]*; do [ $p -lt 100 ] || echo $p; done > $out; kill -0 1 && echo one >> $out",
        "one\n",
    );
}

#[test]
fn the_log_is_a_terminal_and_input_is_not() {
    in_both(
        "terminal",
        "[ -t 1 ] && [ -t 2 ] && [ ! -t 0 ] && echo yes > $out; (: < /dev/tty) 2>/dev/null && echo tty >> $out; cat >> $out; ls /proc/self/fd | wc -l >> $out",
        "yes\n4\n",
    );
}

#[test]
fn signals_of_its_own_do_not_kill_process_1_and_what_it_started_ends_with_it() {
    in_both("signals", "kill -9 $$; kill -TERM $$; (sleep 1; echo late >> $out) & echo hi > $out", "hi\n");
}

#[test]
fn set_id_files_cannot_be_made_by_chmod() {
    in_both(
        "setid",
        "touch f; chmod 4755 f 2>/dev/null && echo setuid; chmod 2755 f 2>/dev/null && echo setgid; chmod 1755 f && stat -c %a f > $out",
        "1755\n",
    );
}

#[test]
fn moving_between_build_and_tmp_is_a_copy_as_under_nix() {
    in_both(
        "mounts",
        "echo x > /build/a; ln /build/a /tmp/a 2>/dev/null && echo linked > $out || echo separate > $out",
        "separate\n",
    );
}

#[test]
fn there_is_one_root_and_nothing_on_top_of_it() {
    in_both(
        "roots",
        "cd /..; touch new 2>/dev/null && echo writable; stat -c %a / . > $out; grep -c ' / ' /proc/mounts >> $out",
        "750\n750\n1\n",
    );
}
