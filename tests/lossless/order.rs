//! What comes before what, so that a power cut leaves nothing registered that is not there; and clocks that lie.

use super::{nothing_is_left, verified};
use crate::{
    lab::{Lab, need},
    recipe::Recipe,
};
use fodder_store::Store;
use std::process::Command;

/// The place of the first line that has all these words.
#[track_caller]
fn find(lines: &[&str], words: &[&str]) -> usize {
    let found = lines.iter().position(|line| words.iter().all(|word| line.contains(word)));
    found.unwrap_or_else(|| panic!("no {words:?} in:\n{}", lines.join("\n")))
}

#[test]
fn an_output_is_flushed_before_it_is_registered() {
    let lab = Lab::new();
    let (store, trace) = (lab.store().display().to_string(), lab.path().join("trace"));
    lab.text("first", "x");
    for (name, script) in [("file", "echo > $out"), ("directory", "mkdir $out; echo > $out/f")] {
        let recipe = Recipe::new(name, script);
        let file = recipe.write(&lab);
        let mut command = Command::new(need("strace", "strace"));
        command.args(["-f", "-qq", "-y", "-s", "20000", "-e", "trace=fsync,fdatasync,pwrite64,renameat2", "-o"]);
        command.arg(&trace).arg(env!("CARGO_BIN_EXE_fodder"));
        command.args(["build", "--no-link", "--store", &store]).arg(file).env("FODDER_HOST_STORE", "none");
        let run = lab.run(command);
        assert_eq!(run.code, 0, "{run:?}");
        let text = std::fs::read_to_string(&trace).expect("the trace");
        let lines: Vec<&str> = text.lines().collect();
        let out = recipe.out();
        let hash = Store::open_existing_read_only(&lab.store())
            .expect("open")
            .query(&out)
            .expect("query")
            .expect("valid")
            .nar_hash;
        let moved = find(&lines, &["renameat2(", out.base_name(), "RENAME_NOREPLACE"]);
        let object = find(&lines, &["fsync(", &format!("/nix/store/{}>", out.base_name())]);
        let after = &lines[moved..];
        let directory = moved + find(after, &["fsync(", "/nix/store>)"]);
        // The row of the output is the only one that has its hash.
        let row = find(&lines, &["pwrite64(", "db.sqlite-wal>", &hash.to_base16()]);
        assert!(moved < object && object < row && directory < row, "{moved} {object} {directory} {row}\n{text}");
    }
}

#[test]
fn the_database_is_used_as_nix_uses_it() {
    let lab = Lab::new();
    lab.made(&Recipe::new("any", "echo > $out"), &[]);
    let mut command = Command::new(need("sqlite3", "sqlite3"));
    command
        .arg(lab.store().join("nix/var/nix/db/db.sqlite"))
        .arg("pragma journal_mode; pragma integrity_check; pragma foreign_key_check;");
    assert_eq!(lab.run(command).stdout, "wal\nok\n");
}

/// Every call is answered with another day, from 1970 to 2100.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long lie(void) { static unsigned n; n = n * 1103515245u + 12345u + getpid(); return 1 + (n >> 4) % 4102444800u; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec = lie();
    return r;
}
int gettimeofday(struct timeval *t, void *z) { (void)z; t->tv_sec = lie(); t->tv_usec = 0; return 0; }
time_t time(time_t *t) { time_t now = lie(); if (t) *t = now; return now; }
"#;

#[test]
fn a_clock_that_jumps_ends_no_build_and_loses_nothing() {
    let lab = Lab::new();
    let source = lab.write("clock.c", CLOCK);
    let library = lab.path().join("clock.so");
    let mut compiler = Command::new(need("cc", "build-essential"));
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
    let run = lab.run(compiler);
    assert_eq!(run.code, 0, "{run:?}");
    for number in 0..5 {
        let recipe = Recipe::new(&format!("clock-{number}"), "echo began; sleep 0.1; echo > $out");
        let (file, store) = (recipe.write(&lab), lab.store());
        let link = lab.path().join("result");
        let mut command = lab.command(&[
            "build",
            "--store",
            store.to_str().expect("UTF-8"),
            "--timeout",
            "60",
            "--max-silent-time",
            "60",
            "-o",
        ]);
        command.arg(link).arg(file).env("LD_PRELOAD", &library);
        let run = lab.run(command);
        assert_eq!(run.code, 0, "{run:?}");
        let info = Store::open_existing_read_only(&lab.store()).expect("open").query(&recipe.out()).expect("query");
        assert!(info.expect("valid").registration_time > 0);
        let mut command = lab.command(&["store", "--store", store.to_str().expect("UTF-8"), "gc"]);
        let run = lab.run({
            command.env("LD_PRELOAD", &library);
            command
        });
        assert_eq!(run.code, 0, "{run:?}");
        assert!(lab.real(&recipe.out()).exists(), "what the link names is there");
    }
    nothing_is_left(&lab);
    verified(&lab);
}

/// Another version of the program, which knows another layout, says so in the schema. It is neither used nor changed.
#[test]
fn a_store_of_another_version_is_refused_and_not_touched() {
    let lab = Lab::new();
    let recipe = Recipe::new("any", "echo > $out");
    lab.made(&recipe, &[]);
    let schema = lab.store().join("nix/var/nix/db/schema");
    let store = lab.store().display().to_string();
    for found in ["9", "11", "10\n", ""] {
        std::fs::write(&schema, found).expect("write");
        let before = super::names(&lab, "nix/store");
        for arguments in [vec!["gc"], vec!["verify"], vec!["optimise"], vec!["query", "--referrers", "x"]] {
            let run = lab.fodder(&[&["store", "--store", &store][..], &arguments].concat());
            assert_eq!(run.code, 1, "{run:?}");
            assert!(run.stderr.contains("db/schema") || run.stderr.contains("schema"), "{run:?}");
        }
        let run = lab.make(&Recipe::new("other", "echo > $out"), &[]);
        assert_eq!(run.code, 1, "{run:?}");
        assert_eq!(super::names(&lab, "nix/store"), before);
        assert_eq!(std::fs::read_to_string(&schema).expect("read"), found);
    }
    std::fs::write(&schema, "10").expect("write");
    verified(&lab);
}
