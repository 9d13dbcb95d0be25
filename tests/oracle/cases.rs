//! The table: derivations that both build alike, and derivations that both refuse.

use super::nix::{Nix, expression};
use std::sync::Mutex;

/// Name, script, further attributes.
type Case = (&'static str, &'static str, &'static str);

/// Builds all with both and compares. All cases are tried, so that one difference does not hide the next.
fn alike(cases: &[Case]) {
    let failures: Mutex<Vec<String>> = Mutex::default();
    let nix = Nix::new();
    for (name, script, attributes) in cases {
        let one = std::panic::AssertUnwindSafe(|| {
            let endings = nix.both(name, &expression(name, script, attributes));
            nix.same(name, &endings);
        });
        if let Err(panic) = std::panic::catch_unwind(one) {
            let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            failures.lock().expect("a list").push(format!("{name}: {words}"));
        }
    }
    let failures = failures.into_inner().expect("a list");
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn environments_are_the_same() {
    const DUMP: &str = "cat /proc/1/environ > $out; true";
    alike(&[
        ("minimal", DUMP, ""),
        ("numbers", DUMP, "a = 1; b = -7; c = 1.5; d = true; e = false; f = null; g = [ 1 \"two words\" true [ 3 ] ];"),
        ("texts", DUMP, "a = \"\"; b = \" x \"; c = \"a\\nb\\tc\\rd\"; d = \"\\\\ \\\" ' \\$ `\"; e = \"grüß 😀\";"),
        (
            "odd-names",
            DUMP,
            "\"a b\" = \"1\"; \"x=y\" = \"2\"; \"9\" = \"3\"; _ = \"4\"; \"ü\" = \"5\"; \"a.b-c\" = \"6\";",
        ),
        (
            "overrides",
            DUMP,
            "HOME = \"h\"; PATH = \"p\"; NIX_STORE = \"s\"; NIX_BUILD_CORES = \"c\"; TMPDIR = \"t\"; TERM = \"x\"; NIX_LOG_FD = \"9\"; PWD = \"w\"; NIX_OUTPUT_CHECKED = \"1\";",
        ),
        (
            "placeholders",
            DUMP,
            "p = placeholder \"out\"; \"${placeholder \"out\"}\" = \"name\"; q = placeholder \"other\";",
        ),
        ("inputs", DUMP, "inherit dep src refers; d = two.dev; f = fixed;"),
        ("outputs", "echo > $out; cat /proc/1/environ > $lib; echo > $dev", "outputs = [ \"lib\" \"out\" \"dev\" ];"),
        ("no-out", "cat /proc/1/environ > $lib; true", "outputs = [ \"lib\" ];"),
        (
            "as-file",
            "cat $bigPath $emptyPath > $out; cat /proc/1/environ >> $out; ls -l /build | sed 's/.*\\.attr/.attr/' >> $out",
            "passAsFile = [ \"big\" \"empty\" \"none\" ]; big = \"x\\ny${placeholder \"out\"}\"; empty = \"\";",
        ),
        ("as-file-explicit", DUMP, "passAsFile = \"big\"; big = \"x\"; bigPath = \"mine\";"),
        ("impure-ignored", DUMP, "impureEnvVars = [ \"told\" ];"),
        ("pretends", DUMP, "OUTPUTHASH = \"x\"; outputHashAlgo = \"sha256\"; outputHashMode = \"flat\";"),
    ]);
}

#[test]
fn structured_attributes_are_the_same() {
    // Nix 2.8 names the files by where they are outside the sandbox; newer ones as we do.
    const DUMP: &str = "o=$(sed 's/.*\"outputs\":{\"out\":\"\\([^\"]*\\)\".*/\\1/' .attrs.json); cat .attrs.sh .attrs.json > $o; stat -c '%n %a %u %g' .attrs.* >> $o; echo ${out-unset} $name >> $o";
    alike(&[
        (
            "plain",
            DUMP,
            "__structuredAttrs = true; a = \"x'y\"; b = [ 1 \"two\" true false null ]; c = { d = \"1\"; \"e f\" = 2; };",
        ),
        (
            "numbers",
            DUMP,
            "__structuredAttrs = true; a = 3000000000; b = 1.5; c = [ 1.5 ]; d = 2.0; e = 1.0e-5; f = 1.0e100; g = 9007199254740993; h = -5; i = 16777217.5; j = 0.1234567890123;",
        ),
        (
            "nested",
            DUMP,
            "__structuredAttrs = true; a = [ [ 1 ] ]; b = { c = { d = 1; }; }; \"not a name\" = 1; e = [ ]; f = { };",
        ),
        (
            "texts",
            DUMP,
            "__structuredAttrs = true; a = \"grüß 😀 \\n \\t \\\\ \\\" /\"; p = placeholder \"out\"; inherit dep;",
        ),
        ("ignored", DUMP, "__structuredAttrs = true; passAsFile = [ \"a\" ]; a = \"x\"; allowedReferences = [ ];"),
    ]);
}

#[test]
fn surroundings_are_the_same() {
    alike(&[
        (
            "process",
            "echo $$ $PPID $0 $# > $out; id >> $out; umask >> $out; ulimit -c >> $out; cat /proc/1/personality /proc/1/cmdline >> $out; grep -E 'Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp:|SigBlk' /proc/1/status >> $out",
            "",
        ),
        (
            "streams",
            "[ -t 0 ] || echo in; [ -t 1 ] && [ -t 2 ]; echo $? > $out; stty -a < /proc/self/fd/1 | head -1 >> $out; readlink /proc/self/fd/0 >> $out; for f in /proc/1/fd/*; do echo $f >> $out; done",
            "",
        ),
        ("names", "hostname > $out; cat /proc/sys/kernel/domainname /etc/passwd /etc/group /etc/hosts >> $out", ""),
        (
            "devices",
            "cd /dev; stat -c '%n %F %a %t %T' full null random tty urandom zero fd stdin stdout stderr ptmx shm pts pts/ptmx > $out; for l in fd stdin stdout stderr ptmx; do readlink $l >> $out; done",
            "",
        ),
        (
            "places",
            "cd /; ls -A > $out; stat -c '%n %a %u %g' / /build /tmp /nix /nix/store /dev /bin /dev/shm >> $out; pwd >> $out; ls -A /etc /bin >> $out",
            "",
        ),
        (
            "network",
            "tail -n +3 /proc/net/dev | cut -d: -f1 > $out; cat /proc/net/if_inet6 >> $out; ip -o addr show >> $out; nc 127.0.0.1 9 2>> $out; true",
            "",
        ),
        (
            "set-id",
            "touch f; chmod 4755 f 2>> $out; chmod 2755 f 2>> $out; chmod 1755 f; stat -c %a f >> $out; mkdir -m 2755 d 2>> $out; true",
            "",
        ),
        ("store", "cd /nix/store; set -- *; echo $* > $out; touch x", "inherit src dep;"),
        ("signals", "kill -9 $$; kill -TERM $$; (sleep 1; echo late >> $out) & echo hi > $out", ""),
        (
            "argv",
            "",
            "args = [ \"-c\" \"for a in \\\"$0\\\" \\\"$@\\\"; do echo \\\"<$a>\\\"; done > $out; tr '\\\\\\\\0' ' ' < /proc/1/cmdline >> $out; true\" \"zero\" \"\" \"a b\" \"${placeholder \"out\"}\" \"ü\" ];",
        ),
        (
            "log",
            "printf 'plain\\n\\033[31mred\\033[0m\\r\\nno newline\\000\\377'; echo >&2 err; echo '@nix { \"action\": \"setPhase\", \"phase\": \"x\" }'; echo '@nix nonsense'; printf end; echo > $out",
            "",
        ),
        (
            "long-log",
            "i=0; while [ $i -lt 3000 ]; do echo line $i of a log that is longer than a pipe or a terminal holds; i=$((i+1)); done; echo > $out",
            "",
        ),
    ]);
}

#[test]
fn outputs_are_the_same() {
    alike(&[
        ("file", "echo hi > $out", ""),
        ("empty-file", ": > $out", ""),
        ("empty-directory", "mkdir $out", ""),
        ("link", "ln -s /nonexistent/target $out", ""),
        ("link-to-self", "ln -s $out/x $out", ""),
        ("executable", "echo x > $out; chmod 755 $out", ""),
        (
            "modes",
            "mkdir $out; cd $out; for m in 000 001 010 100 111 200 400 444 644 700 755 1755 777; do echo $m > f$m; chmod $m f$m; done; mkdir -m 000 d; mkdir -m 1777 e",
            "",
        ),
        (
            "names",
            "mkdir $out; cd $out; for n in a A .a ..b 'a b' 'a\nb' '*' \"'\" '\"' '\\' - -- ü é é '~' 'a~nix~case~hack~1' a.lock; do echo \"$n\" > \"$n\"; done",
            "",
        ),
        (
            "sizes",
            "mkdir $out; cd $out; for s in 0 1 7 8 9 15 16 17 4095 4096 4097 65535 65536 65537 131071 131072 131073 262144 1048577; do yes abcdefg | head -c $s > s$s; done",
            "",
        ),
        (
            "hard-links",
            "mkdir $out; echo x > $out/a; ln $out/a $out/b; mkdir $out/c; ln $out/a $out/c/d; chmod +x $out/b",
            "",
        ),
        ("deep", "mkdir $out; cd $out; i=0; while [ $i -lt 60 ]; do mkdir d; cd d; i=$((i+1)); done; echo x > f", ""),
        ("many", "mkdir $out; cd $out; i=0; while [ $i -lt 1000 ]; do echo $i > $i; i=$((i+1)); done", ""),
        ("old", "mkdir $out; echo > $out/f; touch -d 1980-01-01 $out/f $out", ""),
        ("sparse", "truncate -s 3000000 $out", ""),
        ("extra", "echo hi > $out; echo x > /nix/store/extra; mkdir /nix/store/more", ""),
    ]);
}

#[test]
fn references_are_the_same() {
    alike(&[
        ("none", "echo > $out", "inherit dep src refers;"),
        ("self", "echo $out > $out", ""),
        ("text", "echo $dep $src > $out", "inherit dep src refers;"),
        ("indirect", "echo $refers > $out", "inherit refers;"),
        ("closure", "cat $refers > $out", "inherit refers;"),
        ("link", "ln -s $dep/x $out", "inherit dep;"),
        ("name", "mkdir $out; touch $out/x${dep:11:32}y", "inherit dep;"),
        ("hash-only", "echo aaa${dep:11:32}bbb > $out", "inherit dep;"),
        ("upper-case", "echo $dep | tr a-z A-Z > $out", "inherit dep;"),
        ("split", "mkdir $out; echo ${dep:11:16} > $out/a; echo ${dep:27:16} > $out/b", "inherit dep;"),
        (
            "at-block-edges",
            "mkdir $out; for s in 4070 65520 131060 131072 262130; do { yes x | head -c $s; echo $dep; } > $out/s$s; done",
            "inherit dep;",
        ),
        ("compressed", "echo $dep | gzip > $out", "inherit dep;"),
        (
            "between-outputs",
            "echo $dev > $out; echo $lib > $dev; echo $dep > $lib",
            "outputs = [ \"out\" \"dev\" \"lib\" ]; inherit dep;",
        ),
        ("output-of-two", "echo $d > $out", "d = two.dev; o = two;"),
        ("fixed-input", "cat $fixed > $out; echo $fixed >> $out", "inherit fixed;"),
        ("allowed", "echo $dep > $out", "inherit dep; allowedReferences = [ dep ];"),
        ("allowed-out", "echo $out > $out", "allowedReferences = [ \"out\" ]; disallowedReferences = [ dep ];"),
        ("graph", "cat graph > $out; cat two >> $out", "exportReferencesGraph = [ \"graph\" refers \"two\" two ];"),
    ]);
}

#[test]
fn fixed_outputs_are_the_same() {
    const HI: &str = "echo hi > $out";
    alike(&[
        ("flat-sri", HI, "outputHash = \"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\";"),
        (
            "flat-base16",
            HI,
            "outputHash = \"98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4\"; outputHashAlgo = \"sha256\"; outputHashMode = \"flat\";",
        ),
        (
            "flat-nix32",
            HI,
            "outputHash = \"1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq\"; outputHashAlgo = \"sha256\";",
        ),
        (
            "flat-base64",
            HI,
            "outputHash = \"mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\"; outputHashAlgo = \"sha256\";",
        ),
        ("flat-prefixed", HI, "outputHash = \"sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq\";"),
        ("flat-md5", HI, "outputHash = \"764efa883dda1e11db47671c4a3bbd9e\"; outputHashAlgo = \"md5\";"),
        ("flat-sha1", HI, "outputHash = \"55ca6286e3e4f4fba5d0448333fa99fc5a404a73\"; outputHashAlgo = \"sha1\";"),
        (
            "nar-file",
            HI,
            "outputHashMode = \"recursive\"; outputHash = \"sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY=\";",
        ),
        (
            "environment",
            "cat /proc/1/environ > /dev/null; echo $told $TMPDIR ${absent-unset} $NIX_OUTPUT_CHECKED; echo hi > $out",
            "outputHash = \"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\"; impureEnvVars = [ \"told\" \"absent\" ];",
        ),
        (
            "places",
            "cd /; ls -A /; ls -A /etc | grep -v ssl; cat /etc/nsswitch.conf; cat /etc/resolv.conf | wc -l; tail -n +3 /proc/net/dev | cut -d: -f1 | sort; hostname; echo hi > $out",
            "outputHash = \"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\";",
        ),
        (
            "self-env",
            "echo $out $outputHash $outputHashMode; echo hi > $out",
            "outputHash = \"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\"; p = placeholder \"out\";",
        ),
    ]);
}

/// Name, script, attributes, exit code of Nix, of fodder, words that both say.
type Refusal = (&'static str, &'static str, &'static str, i32, i32, &'static [&'static str]);

#[test]
fn what_both_refuse_ends_alike() {
    let cases: &[Refusal] = &[
        ("exit", "echo one; echo two; exit 3", "", 100, 100, &["exit code 3"]),
        ("killed", "exec >&- 2>&-; sleep 9", "", 100, 100, &["signal 9 (Killed)"]),
        (
            "no-builder",
            "",
            "builder = \"/bin/nope\";",
            100,
            100,
            &["exit code 1", "executing '/bin/nope': No such file or directory"],
        ),
        ("nothing", "true", "", 1, 1, &["failed to produce output path for output 'out'"]),
        ("fifo", "mkdir $out; mkfifo $out/f", "", 1, 1, &["has an unsupported type"]),
        (
            "socket",
            "mkdir $out; nc -l -p 1 local:$out/s & sleep 0.2; mknod $out/p p",
            "",
            1,
            1,
            &["has an unsupported type"],
        ),
        ("writable-file", "echo > $out; chmod 666 $out", "", 1, 1, &["suspicious ownership or permission"]),
        ("writable-directory", "mkdir -m 775 $out", "", 1, 1, &["suspicious ownership or permission"]),
        ("cycle", "echo $dev > $out; echo $out > $dev", "outputs = [ \"out\" \"dev\" ];", 1, 1, &["cycle detected"]),
        ("foreign", "true", "system = \"foo-bar\";", 1, 100, &["foo-bar"]),
        ("features", "true", "requiredSystemFeatures = [ \"zebra\" ];", 1, 100, &["zebra"]),
        (
            "mismatch",
            "echo hi > $out",
            "outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\";",
            102,
            102,
            &[
                "hash mismatch in fixed-output derivation",
                "specified: sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
                "got:    sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\n",
            ],
        ),
        (
            "flat-directory",
            "mkdir $out",
            "outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\";",
            1,
            1,
            &["should be a non-executable regular file"],
        ),
        (
            "flat-executable",
            "echo hi > $out; chmod +x $out",
            "outputHash = \"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\";",
            1,
            1,
            &["should be a non-executable regular file"],
        ),
        (
            "flat-link",
            "ln -s x $out",
            "outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\";",
            1,
            1,
            &["should be a non-executable regular file"],
        ),
        (
            "disallowed",
            "echo $dep > $out",
            "inherit dep; disallowedReferences = [ dep ];",
            1,
            112,
            &["is not allowed to refer to the following paths", "-dep"],
        ),
        (
            "not-allowed",
            "echo $dep > $out",
            "inherit dep; allowedReferences = [ ];",
            1,
            112,
            &["is not allowed to refer to the following paths", "-dep"],
        ),
        (
            "disallowed-requisite",
            "echo $refers > $out",
            "inherit refers src; disallowedRequisites = [ src ];",
            1,
            112,
            &["is not allowed to refer to the following paths", "-src.txt"],
        ),
        (
            "fixed-fails",
            "exit 3",
            "outputHash = \"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\";",
            1,
            100,
            &["exit code 3"],
        ),
        (
            "fixed-refers",
            "echo $dep > $out",
            "inherit dep; outputHashMode = \"recursive\"; outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\";",
            102,
            112,
            &[],
        ),
        ("no-chroot", "echo > $out", "__noChroot = true;", 1, 100, &["__noChroot"]),
    ];
    let nix = Nix::new();
    let mut failures = Vec::new();
    for (name, script, attributes, by_nix, by_fodder, words) in cases {
        let endings = nix.both(name, &expression(name, script, attributes));
        if (endings.nix.code, endings.fodder.code) != (*by_nix, *by_fodder) {
            failures.push(format!(
                "{name}: {} and {}\n{}\n{}",
                endings.nix.code, endings.fodder.code, endings.nix.stderr, endings.fodder.stderr
            ));
        }
        for word in *words {
            for (who, run) in [("Nix", &endings.nix), ("fodder", &endings.fodder)] {
                if !run.stderr.contains(word) {
                    failures.push(format!("{name}: {who} does not say {word:?}: {}", run.stderr));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn limits_end_alike() {
    let nix = Nix::new();
    for (name, script, flags, code) in [
        ("slow", "echo; sleep 60", ["--timeout", "1"], 101),
        ("silent", "echo; sleep 60", ["--max-silent-time", "1"], 101),
    ] {
        let endings = nix.both_with(name, &expression(name, script, ""), &flags, &flags);
        assert_eq!(
            (endings.nix.code, endings.fodder.code),
            (code, code),
            "{name}: {} {}",
            endings.nix.stderr,
            endings.fodder.stderr
        );
        for run in [&endings.nix, &endings.fodder] {
            assert!(run.stderr.contains("timed out after 1 seconds"), "{name}: {}", run.stderr);
        }
    }
}
