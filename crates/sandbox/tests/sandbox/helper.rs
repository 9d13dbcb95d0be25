//! What the helper is while a builder runs, and what it makes of odd runners: each line of its own protects the caller or the build.

use crate::{
    lab::{Lab, is_root, sandbox},
    lifetime::{RUNNER, SOON, beats, gone_within, in_a_container, processes, runner_command, start_plan},
};
use fodder_sandbox::BuilderExit;
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, process::Command};

/// Fields of `/proc/PID/stat` after the name, the state first.
fn stat(process: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    text.rsplit(") ").next().unwrap().split(' ').map(str::to_owned).collect()
}

/// Attack: PROC-2, PROC-6, PROC-8. Layer: both parts of the helper close, leave and hide what they need no more.
#[test]
fn the_helper_holds_nothing_of_the_caller_and_nobody_may_look() {
    let lab = Lab::new();
    let (mut runner, _output) = start_plan(&lab.plan("echo started; sleep 300"));
    let [outer, inner, _builder] = processes(&runner);
    let own_session = stat(std::process::id())[3].clone();
    for helper in [outer, inner] {
        assert_ne!(stat(helper)[3], own_session, "signals of the caller's terminal reach it");
        let descriptors = format!("/proc/{helper}/fd");
        if !is_root() {
            // Its files are root's, as those of every process that is not dumpable.
            assert!(fs::read_dir(&descriptors).is_err(), "everybody of the same user can look into it");
            continue;
        }
        for number in 0..3 {
            let target = fs::read_link(format!("{descriptors}/{number}")).unwrap();
            assert_eq!(target, *"/dev/null", "{number} of the helper");
        }
    }
    if is_root() {
        let open: BTreeSet<String> = fs::read_dir(format!("/proc/{outer}/fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(open, ["0", "1", "2"].map(str::to_owned).into());
        assert_eq!(fs::read_link(format!("/proc/{outer}/cwd")).unwrap(), *"/");
        assert_eq!(fs::metadata(format!("/proc/{inner}/stat")).unwrap().uid(), 0, "it is dumpable");
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
}

/// Attack: RES-5. Layer: the score is the builder's; who is to tell how it ended is killed no earlier than the runner.
#[test]
fn the_helper_is_no_likelier_to_be_killed_than_the_runner() {
    let lab = Lab::new();
    let mut plan = lab.plan("echo started; sleep 300");
    plan.limits.oom_score = 700;
    let (mut runner, _output) = start_plan(&plan);
    let score = |process| fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap();
    let [outer, inner, builder] = processes(&runner);
    assert_eq!([outer, inner].map(score), [runner.id(), runner.id()].map(score));
    assert_eq!(score(builder), "700\n");
    runner.kill().unwrap();
    runner.wait().unwrap();
}

/// Attack: PROC-1. Layer: the helper watches the runner's end of its socket, whoever its parent is.
#[test]
fn the_build_ends_when_nobody_listens_any_more() {
    let lab = Lab::new();
    let plan = lab.plan("while :; do echo >> beats; sleep 0.02; done");
    let path = lab.path().join("plan");
    fs::write(&path, serde_json::to_vec(&plan).unwrap()).unwrap();
    let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
    let (runner, helper_end) = nix::sys::socket::socketpair(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::SeqPacket,
        None,
        flags,
    )
    .unwrap();
    let program =
        std::env::var_os("FODDER_TEST_HELPER").unwrap_or_else(|| env!("CARGO_BIN_EXE_fodder-sandbox-helper").into());
    let mut helper = Command::new(program);
    helper.arg("__fodder-sandbox-helper").env_clear().stdin(fs::File::open(path).unwrap());
    let log = fs::File::create_new(lab.path().join("log")).unwrap();
    let mut helper = helper.stdout(helper_end).stderr(log).spawn().unwrap();
    while beats(&lab) == 0 {
        assert!(helper.try_wait().unwrap().is_none(), "the helper ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(runner);
    // Its parent, this test, lives on.
    assert!(gone_within(SOON, helper.id()), "it goes on for nobody");
    helper.wait().unwrap();
    let then = beats(&lab);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(beats(&lab), then);
}

/// Attack: FS-11. Layer: private mounts.
#[test]
fn mounts_are_private_where_those_of_the_host_are_shared() {
    let lab = Lab::new();
    let output = in_a_container(&lab, 0, "mount --make-rshared /", "cat /proc/self/mountinfo");
    assert!(output.contains("report: Exited(0)"), "{output}");
    assert!(!output.contains("master:") && !output.contains("shared:"), "{output}");
}

#[test]
fn an_id_that_cannot_be_had_is_named() {
    let lab = Lab::new();
    let output = in_a_container(&lab, 61_235, "true", "touch /build/executed");
    assert!(output.contains("error: ") && output.contains("gid_map"), "{output}");
    assert!(!lab.build().join("executed").exists());
}

/// Attack: PROC-11. Layer: scheduling is reset. Real time and a score below 0 are root's to give.
#[test]
fn neither_real_time_nor_protection_from_the_end_of_memory_is_inherited() {
    if !is_root() {
        return; // Nobody else has either.
    }
    let lab = Lab::new();
    let mut command = Command::new("sh");
    // Not all of root's machines let it have the score.
    let script = "(echo -500 > /proc/self/oom_score_adj) 2>/dev/null; exec chrt --rr 1 \"$@\"";
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap()).args(RUNNER);
    runner_command(&mut command, &lab.plan("cat /proc/1/oom_score_adj /proc/1/stat"));
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("report: Exited(0)"), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    let place = lines.iter().position(|line| line.starts_with("1 (")).unwrap_or_else(|| panic!("{output}"));
    // proc_pid_stat(5): field 40 is the priority in real time, field 41 the policy.
    let fields: Vec<&str> = lines[place].rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!((fields[37], fields[38]), ("0", "0"), "{output}");
    assert!(!lines[place - 1].contains('-'), "{output}");
}

/// A runner with many builds needs many descriptors; its builders are to find what its caller had.
#[test]
fn the_limit_of_open_files_is_that_of_the_beginning() {
    let mut command = Command::new("setsid");
    command.args(["--wait", "sh", "-c", "ulimit -Sn 512 && exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "helper::raiser", "--ignored", "--nocapture", "--quiet"]);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("soft limit: 512\n"), "{output}");
    // Nor did the terminal of the log become that of a runner without one.
    assert!(output.contains("terminal: 0\n"), "{output}");
}

#[test]
#[ignore = "is executed by another test, alone in its process"]
fn raiser() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let sandbox = sandbox();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 1500, hard).unwrap();
    let lab = Lab::new();
    let mut log = Vec::new();
    let report = sandbox.run(&lab.plan("ulimit -Sn"), &mut |bytes| log.extend_from_slice(bytes));
    assert_eq!(report.unwrap().exit, BuilderExit::Exited(0));
    print!("soft limit: {}", String::from_utf8_lossy(&log));
    println!("terminal: {}", stat(std::process::id())[4]);
}
