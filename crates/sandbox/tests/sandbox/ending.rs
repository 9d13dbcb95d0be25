//! How runs end, and what is left of the log.

use crate::lab::{Lab, sandbox};
use fodder_sandbox::{BuilderExit, SandboxError};
use std::time::{Duration, Instant};

#[test]
fn exit_statuses_are_the_builders() {
    let lab = Lab::new();
    for code in [0, 1, 3, 255] {
        assert_eq!(lab.run(&lab.plan(&format!("exit {code}"))).report.exit, BuilderExit::Exited(code));
    }
}

#[test]
fn a_builder_that_faults_is_reported_with_its_signal() {
    let lab = Lab::new();
    let plan = crate::probe::plan(&lab, "segfault");
    assert_eq!(lab.run(&plan).report.exit, BuilderExit::Signaled(libc::SIGSEGV));
}

#[test]
fn the_builder_is_pid_1_and_cannot_be_killed_from_inside() {
    let lab = Lab::new();
    let log = lab.log_of("echo pid $$ parent $PPID; kill -9 $$; kill -TERM $$; kill -SEGV $$; echo alive");
    assert_eq!(log, "pid 1 parent 0\nalive\n");
}

/// Attack: PROC-10. Layer: the builder's exit ends the build, and nothing else does.
#[test]
fn a_builder_that_closes_its_log_works_on_to_its_end() {
    let lab = Lab::new();
    for close in ["exec 1>&- 2>&-", "exec > /dev/null 2>&1"] {
        let ran = lab.run(&lab.plan(&format!("echo last words; {close}; sleep 1; echo end > marker; exit 5")));
        assert_eq!(ran.report.exit, BuilderExit::Exited(5));
        assert_eq!(ran.log, "last words\n");
        assert_eq!(std::fs::read_to_string(lab.build().join("marker")).unwrap(), "end\n");
    }
    // It is not out of reach: silence and deadline count on.
    let mut plan = lab.plan("exec 1>&- 2>&-; sleep 30");
    plan.limits.silence_seconds = Some(1);
    assert_eq!(lab.run(&plan).report.exit, BuilderExit::Silent { seconds: 1 });
}

#[test]
fn a_builder_that_closes_its_log_and_exits_keeps_its_status() {
    // It is a race that Nix has too; what must hold is that a status is never replaced once there is one.
    let lab = Lab::new();
    for _ in 0..20 {
        let exit = lab.run(&lab.plan("exit 7")).report.exit;
        assert_eq!(exit, BuilderExit::Exited(7));
    }
}

/// Attack: PROC-9, PROC-10. Layer: the builder is PID 1, with which its namespace ends.
#[test]
fn a_daemon_that_keeps_the_log_open_and_ignores_signals_ends_with_the_builder() {
    let lab = Lab::new();
    let daemon = "trap '' TERM HUP INT QUIT; while :; do echo again >> stray; sleep 0.02; done";
    let before = Instant::now();
    let log =
        lab.log_of(&format!("(setsid sh -c \"{daemon}\" &) & until [ -s stray ]; do sleep 0.02; done; echo done"));
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    assert_eq!(log, "done\n");
    let written = std::fs::read(lab.build().join("stray")).unwrap();
    assert!(!written.is_empty(), "the daemon ran");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(std::fs::read(lab.build().join("stray")).unwrap(), written, "nobody writes any more");
}

#[test]
fn stray_children_die_with_the_builder_and_do_not_delay_the_end() {
    let lab = Lab::new();
    let before = Instant::now();
    let log = lab.log_of("(sleep 40; echo late) & (trap '' TERM HUP; sleep 40) & echo done");
    assert_eq!(log, "done\n");
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
}

#[test]
fn the_log_is_complete_and_not_a_byte_is_changed() {
    let lab = Lab::new();
    let log =
        lab.log_of("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; printf 'no newline\\ttab\\r'");
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).chain(["no newline\ttab\r".to_owned()]).collect();
    assert_eq!(log.len(), expected.len());
    assert!(log == expected);
}

#[test]
fn the_end_of_the_log_is_not_lost_on_a_slow_reader() {
    let lab = Lab::new();
    let plan =
        lab.plan("echo first; i=0; while [ $i -lt 180 ]; do echo a line of the log that is long enough to fill what the kernel keeps, number $i; i=$((i+1)); done");
    let mut log = Vec::new();
    let report = sandbox().run(&plan, &mut |bytes| {
        if log.is_empty() {
            // Long enough for the builder to exit, leaving almost all that a terminal can hold (16 KiB).
            std::thread::sleep(Duration::from_millis(500));
        }
        log.extend_from_slice(bytes);
    });
    assert_eq!(report.unwrap().exit, BuilderExit::Exited(0));
    assert!(log.ends_with(b"number 179\n"), "only {} bytes came", log.len());
}

/// Attack: RES-6. Layer: the helper's deadline.
#[test]
fn the_deadline_is_kept() {
    let lab = Lab::new();
    let mut plan = lab.plan("trap '' TERM INT HUP; while :; do sleep 1; done");
    plan.limits.deadline_seconds = Some(1);
    let before = Instant::now();
    assert_eq!(lab.run(&plan).report.exit, BuilderExit::TimedOut { seconds: 1 });
    let taken = before.elapsed();
    assert!(taken >= Duration::from_secs(1) && taken < Duration::from_secs(30), "{taken:?}");
    // The same with more time comes to its end.
    let mut plan = lab.plan("trap '' TERM INT HUP; sleep 2; exit 9");
    plan.limits.deadline_seconds = Some(60);
    assert_eq!(lab.run(&plan).report.exit, BuilderExit::Exited(9));
}

#[test]
fn silence_is_ended_and_output_prolongs_it() {
    let lab = Lab::new();
    let mut plan = lab.plan("for i in 1 2 3 4; do sleep 1; echo $i; done; sleep 50");
    plan.limits.silence_seconds = Some(3);
    let ran = lab.run(&plan);
    assert_eq!(ran.report.exit, BuilderExit::Silent { seconds: 3 });
    assert_eq!(ran.log, "1\n2\n3\n4\n");
}

#[test]
fn the_log_limit_is_exact_and_overrides_the_status() {
    let lab = Lab::new();
    let mut plan = lab.plan("while :; do echo 0123456789; done");
    plan.limits.log_bytes = Some(1000);
    let ran = lab.run(&plan);
    assert_eq!(ran.report.exit, BuilderExit::LogLimitExceeded { bytes: 1000 });
    assert_eq!(ran.log.len(), 1000);

    let mut plan = lab.plan("echo 0123456789; exit 0");
    plan.limits.log_bytes = Some(5);
    assert_eq!(lab.run(&plan).report.exit, BuilderExit::LogLimitExceeded { bytes: 5 });
    plan.limits.log_bytes = Some(11);
    assert_eq!(lab.run(&plan).report.exit, BuilderExit::Exited(0));
}

#[test]
fn a_run_can_be_cancelled_from_another_thread() {
    let lab = Lab::new();
    let sandbox = sandbox();
    let canceller = sandbox.canceller();
    let mut started = false;
    let before = Instant::now();
    let plan = lab.plan("echo started; sleep 30");
    let report = sandbox.run(&plan, &mut |_| {
        if !std::mem::replace(&mut started, true) {
            let canceller = canceller.clone();
            std::thread::spawn(move || canceller.cancel());
        }
    });
    assert_eq!(report.unwrap().exit, BuilderExit::Cancelled);
    assert!(before.elapsed() < Duration::from_secs(10));
    match sandbox.run(&plan, &mut |_| ()) {
        Err(SandboxError::Cancelled) => {}
        // Set-up can be faster than the look at the canceller.
        Ok(report) => assert_eq!(report.exit, BuilderExit::Cancelled),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_builder_that_cannot_be_executed_fails_with_nixs_words() {
    let lab = Lab::new();
    for (program, words) in [
        ("/bin/nope", "No such file or directory"),
        ("/etc/passwd", "Permission denied"),
        ("bin/relative", "No such file or directory"),
        ("/bin/two\nlines", "No such file or directory"),
    ] {
        let mut plan = lab.plan("");
        plan.process.program = fodder_model::sandbox::Program::Execute(program.into());
        let ran = lab.run(&plan);
        assert_eq!(ran.report.exit, BuilderExit::Exited(1));
        let (bold, magenta, end) = ("\x1b[31;1m", "\x1b[35;1m", "\x1b[0m");
        let (shown, words) = (program.replace('\n', "\n       "), format!("{magenta}{words}{end}"));
        assert_eq!(ran.log, format!("{bold}error:{end} executing '{magenta}{shown}{end}': {words}"));
    }
    let mut plan = lab.plan("");
    plan.process.environment.push(("big".into(), "x".repeat(144_000).into()));
    assert!(lab.run(&plan).log.ends_with("Argument list too long\x1b[0m"));
}

#[test]
fn a_relative_program_is_looked_up_in_the_working_directory() {
    let lab = Lab::new();
    let mut plan = lab.plan("echo found");
    plan.process.program = fodder_model::sandbox::Program::Execute("bin/sh".into());
    plan.process.working_directory = "/".into();
    assert_eq!(lab.run(&plan).log, "found\n");
}

#[test]
fn processor_time_is_accounted() {
    let lab = Lab::new();
    let ran = lab.run(&lab.plan("(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); exit 0"));
    assert!(ran.report.cpu_user + ran.report.cpu_system > Duration::from_millis(20), "{:?}", ran.report);
}

#[test]
fn a_trivial_sandbox_is_quick() {
    let lab = Lab::new();
    let plan = lab.plan("exit 0");
    let fastest = (0..20).map(|_| {
        let before = Instant::now();
        lab.run(&plan);
        before.elapsed()
    });
    // 3 to 5 ms in a release build on an idle machine; this is a debug build on a busy one that may be slow besides.
    let fastest = fastest.min().unwrap();
    println!("fastest of 20: {fastest:?}");
    assert!(fastest < Duration::from_millis(400), "{fastest:?}");
}
