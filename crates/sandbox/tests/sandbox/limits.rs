//! What a builder may use up, each limit attacked; and the same attack without the limit, which gets further.

use crate::{
    lab::{Lab, Ran},
    probe,
};
use fodder_model::{
    limits::Limit,
    sandbox::{Limits, Resource, ResourceLimit, SandboxPlan},
};
use fodder_sandbox::BuilderExit;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Seconds that a builder keeps what it has taken, where the limit ends it before.
const LONG: u32 = 50;

/// The same where nothing ends it, and somebody is to have looked meanwhile.
const SHORT: u32 = 4;

/// The plan whose builder keeps for so many seconds what it has taken, once it has all of it.
fn held(plan: &SandboxPlan, seconds: u32) -> SandboxPlan {
    let mut plan = plan.clone();
    plan.process.environment.push(("HOLD".into(), seconds.to_string().into()));
    plan
}

/// Runs a plan with other limits.
fn with(lab: &Lab, plan: &SandboxPlan, change: impl FnOnce(&mut Limits)) -> Ran {
    let mut plan = plan.clone();
    change(&mut plan.limits);
    lab.run(&plan)
}

#[track_caller]
fn is_over(ran: &Ran, expected: Limit) {
    match ran.report.exit {
        BuilderExit::OverLimit { limit, allowed, used } => {
            assert_eq!(limit, expected);
            assert!(used > allowed, "{used} is not over {allowed}");
        }
        other @ (BuilderExit::Exited(_)
        | BuilderExit::Signaled(_)
        | BuilderExit::TimedOut { .. }
        | BuilderExit::Silent { .. }
        | BuilderExit::LogLimitExceeded { .. }
        | BuilderExit::Cancelled) => panic!("{expected} did not end it: {other:?}\n{}", ran.log),
    }
}

#[track_caller]
fn count(ran: &Ran) -> usize {
    let line = ran.log.lines().find_map(|line| line.strip_prefix("probe: ")).unwrap_or_else(|| panic!("{}", ran.log));
    line.parse().unwrap_or_else(|_| panic!("{line}"))
}

fn resource(resource: Resource, value: u64) -> Vec<ResourceLimit> {
    vec![ResourceLimit { resource, soft: Some(value), hard: Some(value) }]
}

/// Attack: RES-3. Layer: RLIMIT_NPROC in the build's own user namespace.
#[test]
fn a_fork_bomb_stops_at_the_limit_whatever_else_the_user_runs() {
    let lab = Lab::new();
    let plan = probe::plan(&lab, "forks");
    // Of the same user as the builder, when that is not root: they do not count.
    let mut others: Vec<_> =
        (0..60).map(|_| Command::new("/bin/busybox").args(["sleep", "60"]).spawn().unwrap()).collect();
    let limited = with(&lab, &plan, |limits| limits.resources = resource(Resource::Processes, 50));
    let free = with(&lab, &plan, |_| ());
    for other in &mut others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    assert!((30..50).contains(&count(&limited)), "{}", limited.log);
    assert_eq!(count(&free), 120, "without the limit it goes on");
}

/// Attack: RES-3. Layer: watchdog over the number of processes.
#[test]
fn processes_beyond_the_limit_end_the_build_where_the_kernel_lets_them_be_made() {
    let lab = Lab::new();
    let plan = lab.plan("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep $HOLD & done; wait; exit 7");
    is_over(&with(&lab, &held(&plan, LONG), |limits| limits.processes = Some(8)), Limit::Processes);
    let free = with(&lab, &held(&plan, SHORT), |_| ());
    assert_eq!(free.report.exit, BuilderExit::Exited(7));
    assert!(free.report.used.processes.unwrap() >= 13, "{:?}", free.report.used);
}

/// Attack: RES-5. Layer: watchdog over the memory of all processes together.
#[test]
fn memory_that_many_processes_have_together_ends_the_build() {
    let lab = Lab::new();
    let plan = probe::plan(&lab, "memory");
    is_over(&with(&lab, &held(&plan, LONG), |limits| limits.memory_bytes = Some(250 << 20)), Limit::Memory);
    let free = with(&lab, &held(&plan, SHORT), |_| ());
    assert_eq!(free.report.exit, BuilderExit::Exited(0), "{}", free.log);
    assert!(free.report.used.memory_bytes.unwrap() > 350 << 20, "{:?}", free.report.used);
}

/// Attack: RES-5 (a process whose first thread has ended). Layer: watchdog over the memory of all processes together.
#[test]
fn memory_of_a_process_without_its_first_thread_ends_the_build() {
    let lab = Lab::new();
    let plan = probe::plan(&lab, "memory without a first thread");
    is_over(&with(&lab, &held(&plan, LONG), |limits| limits.memory_bytes = Some(200 << 20)), Limit::Memory);
    let free = with(&lab, &held(&plan, 0), |_| ());
    assert_eq!(free.report.exit, BuilderExit::Exited(0), "{}", free.log);
}

/// Attack: RES-5 (processes that take long to look at). Layer: a watchdog whose looks are short and never far apart.
#[test]
fn a_build_cannot_make_the_watchdog_look_away() {
    let lab = Lab::new();
    let plan = probe::plan(&lab, "slow looks");
    // Shorter than what lies between two looks where only their length counts.
    is_over(&with(&lab, &held(&plan, 12), |limits| limits.memory_bytes = Some(300 << 20)), Limit::Memory);
    let free = with(&lab, &held(&plan, 0), |_| ());
    assert_eq!(free.report.exit, BuilderExit::Exited(0), "{}", free.log);
}

#[test]
fn memory_that_processes_share_counts_once() {
    let lab = Lab::new();
    let plan = probe::plan(&lab, "shared memory");
    // Five processes of 150 MiB each, all the same ones.
    let ran = with(&lab, &held(&plan, SHORT), |limits| limits.memory_bytes = Some(300 << 20));
    assert_eq!(ran.report.exit, BuilderExit::Exited(0), "{}", ran.log);
    is_over(&with(&lab, &held(&plan, LONG), |limits| limits.memory_bytes = Some(100 << 20)), Limit::Memory);
}

/// Attack: RES-5. Layer: the tmpfs of a build count as its memory.
#[test]
fn memory_in_files_of_a_tmpfs_counts() {
    let lab = Lab::new();
    let plan = lab.plan("dd if=/dev/zero of=/dev/shm/x bs=1M count=120 2>/dev/null; sleep $HOLD; exit 3");
    is_over(&with(&lab, &held(&plan, LONG), |limits| limits.memory_bytes = Some(60 << 20)), Limit::Memory);
    assert_eq!(with(&lab, &held(&plan, 0), |_| ()).report.exit, BuilderExit::Exited(3));
}

/// Attack: RES-4. Layer: watchdog over the scratch directories.
#[test]
fn disk_that_is_filled_ends_the_build_however_it_is_hidden() {
    let lab = Lab::new();
    let fill = "dd if=/dev/zero bs=1M count=150 2>/dev/null";
    for script in [
        format!("{fill} > big; sleep $HOLD; exit 3"),
        format!("mkdir -p closed/a; {fill} > closed/a/big; chmod 000 closed/a closed; sleep $HOLD; exit 3"),
        format!("exec 3> gone; rm gone; {fill} >&3; sleep $HOLD; exit 3"),
        format!("mkdir -p $(printf 'd/%.0s' 1 2 3 4 5 6 7 8 9) && cd d/d/d/d/d && {fill} > big; sleep $HOLD; exit 3"),
    ] {
        let plan = lab.plan(&script);
        let build = lab.build();
        let limit = |bytes: Option<u64>| {
            let build = &build;
            move |limits: &mut Limits| {
                limits.scratch = vec![build.as_path().into()];
                limits.scratch_bytes = bytes;
            }
        };
        let ran = with(&lab, &held(&plan, LONG), limit(Some(60 << 20)));
        assert!(matches!(ran.report.exit, BuilderExit::OverLimit { .. }), "{script}: {:?}", ran.report.exit);
        is_over(&ran, Limit::ScratchSize);
        empty(&lab);
        assert_eq!(with(&lab, &held(&plan, 0), limit(None)).report.exit, BuilderExit::Exited(3), "{script}");
        empty(&lab);
    }
}

/// Attack: RES-4. Layer: watchdog over the scratch directories.
#[test]
fn very_many_files_end_the_build() {
    let lab = Lab::new();
    let plan = lab.plan("i=0; while [ $i -lt 3000 ]; do : > file-$i; i=$((i+1)); done; sleep $HOLD; exit 3");
    let build = lab.build();
    let limit = |files: Option<u64>| {
        let build = &build;
        move |limits: &mut Limits| {
            limits.scratch = vec![build.as_path().into()];
            limits.scratch_files = files;
        }
    };
    is_over(&with(&lab, &held(&plan, LONG), limit(Some(1000))), Limit::ScratchFiles);
    let free = with(&lab, &held(&plan, 2 * SHORT), limit(None));
    assert_eq!(free.report.exit, BuilderExit::Exited(3));
    assert!(free.report.used.scratch_files.unwrap() >= 3000, "{:?}", free.report.used);
}

/// Removes what a builder closed, too.
fn empty(lab: &Lab) {
    for entry in fs::read_dir(lab.build()).unwrap() {
        let path = entry.unwrap().path();
        for (program, flags) in [("chmod", ["-R", "u+rwx"]), ("rm", ["-r", "-f"])] {
            assert!(Command::new(program).args(flags).arg(&path).status().unwrap().success(), "{program}");
        }
    }
}

/// Attack: RES-4. Layer: RLIMIT_FSIZE.
#[test]
fn a_file_of_a_tebibyte_without_contents_is_refused() {
    let lab = Lab::new();
    let plan = lab.plan("truncate -s 1099511627776 sparse; echo $?; stat -c %s sparse");
    let limited = with(&lab, &plan, |limits| limits.resources = resource(Resource::FileSize, 100 << 20));
    assert!(limited.log.ends_with("\n0\n") && !limited.log.contains("1099511627776"), "{}", limited.log);
    assert_eq!(with(&lab, &plan, |_| ()).log, "0\n1099511627776\n");
}

/// Attack: RES-7. Layer: user.max_inotify_instances of the build's own user namespace.
#[test]
fn inotify_instances_are_limited_for_the_build_and_not_used_up_for_its_user() {
    let lab = Lab::new();
    let plan = probe::plan(&lab, "inotify");
    let ran = with(&lab, &plan, |limits| limits.settings = vec![("user/max_inotify_instances".into(), 5)]);
    assert_eq!(ran.report.used.refused_settings, [""; 0], "this kernel takes it");
    assert_eq!(count(&ran), 5);
    assert!(count(&with(&lab, &plan, |_| ())) > 20, "without the limit there are more");
}

/// Attack: RES-7 (pseudo-terminals). Layer: the build's own devpts has room for 256.
#[test]
fn a_build_does_not_take_the_machine_s_terminals() {
    let lab = Lab::new();
    // It tries 400.
    assert_eq!(count(&lab.run(&probe::plan(&lab, "terminals"))), 256);
}

/// Attack: RES-5. Layer: oom_score_adj.
#[test]
fn the_build_is_killed_before_its_user_s_programs_when_the_machine_has_no_memory_left() {
    let lab = Lab::new();
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let plan = lab.plan("cat /proc/self/oom_score_adj");
    assert_eq!(with(&lab, &plan, |limits| limits.oom_score = 700).log, "700\n");
    assert_eq!(lab.run(&plan).log, own);
}

/// A group of version 2 in which this test may make others. Root has one wherever the file system is mounted; for a user without a
/// delegated one it is tested that the report says so.
fn own_group(name: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place =
        mounts.lines().find_map(|line| line.split_once(" - cgroup2 ").and_then(|(fields, _)| fields.split(' ').nth(4)));
    let place = place.expect("this test needs version 2 of control groups: mount -t cgroup2 none /sys/fs/cgroup");
    let path = Path::new(place).join(format!("fodder-test-{name}-{}", std::process::id()));
    match fs::create_dir(&path) {
        Ok(()) => Some(path),
        Err(error) => {
            assert!(!nix::unistd::geteuid().is_root(), "root can make no group at {}: {error}", path.display());
            let lab = Lab::new();
            let parent = path.parent().expect("a parent");
            let ran = with(&lab, &lab.plan("exit 0"), |limits| limits.control_group = Some(parent.into()));
            let words = ran.report.control_group_refused.expect("words");
            assert!(words.contains("no control group could be made in"), "{words}");
            None
        }
    }
}

fn groups(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Attack: RES-1. Layer: a control group of its own for each build, and a namespace in which it is the top.
#[test]
fn a_build_has_a_control_group_of_its_own_that_is_gone_afterwards() {
    let Some(parent) = own_group("own") else { return };
    let lab = Lab::new();
    let work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let plan = lab.plan(&format!("cat /proc/self/cgroup; (setsid sleep 60 &); {work}"));
    let ran = with(&lab, &plan, |limits| limits.control_group = Some(parent.as_path().into()));
    assert!(ran.log.lines().any(|line| line == "0::/"), "{}", ran.log);
    let group = ran.report.control_group.expect("a control group");
    let used = group.cpu_user.unwrap_or_default() + group.cpu_system.unwrap_or_default();
    assert!(used.as_millis() > 5, "the builder was in it: {group:?}");
    assert_eq!(groups(&parent), Vec::<PathBuf>::new());
    // The control: without a group of its own it is in this test's.
    assert!(lab.run(&plan).report.control_group.is_none());
    fs::remove_dir(&parent).unwrap();
}

/// Attack: PROC-1. Layer: groups whose runner is gone are killed and removed by the next run.
#[test]
fn a_group_that_a_killed_run_left_is_emptied_and_removed_and_a_living_one_is_not() {
    let Some(parent) = own_group("stale") else { return };
    let (stale, living) = (parent.join("fodder-build-1-0"), parent.join("fodder-build-2-0"));
    let mut processes: Vec<_> = [&stale, &living]
        .iter()
        .map(|group| {
            fs::create_dir(group).unwrap();
            let process = Command::new("/bin/busybox").args(["sleep", "60"]).spawn().unwrap();
            fs::write(group.join("cgroup.procs"), process.id().to_string()).unwrap();
            process
        })
        .collect();
    let lock = fs::File::open(&living).unwrap();
    lock.lock().unwrap();
    let lab = Lab::new();
    let ran = with(&lab, &lab.plan("exit 0"), |limits| limits.control_group = Some(parent.as_path().into()));
    assert!(ran.report.control_group.is_some(), "{:?}", ran.report.control_group_refused);
    assert_eq!(groups(&parent), std::slice::from_ref(&living));
    assert!(!processes[0].wait().unwrap().success(), "it was killed");
    assert!(processes[1].try_wait().unwrap().is_none(), "it lives");
    drop(lock);
    // A process that another test is just starting may have the lock for a moment yet.
    let until = Instant::now() + Duration::from_secs(60);
    while !groups(&parent).is_empty() && Instant::now() < until {
        with(&lab, &lab.plan("exit 0"), |limits| limits.control_group = Some(parent.as_path().into()));
    }
    assert_eq!(groups(&parent), Vec::<PathBuf>::new());
    processes[1].wait().unwrap();
    fs::remove_dir(&parent).unwrap();
}

#[test]
fn where_a_group_cannot_be_had_after_all_the_report_says_so_and_the_watchdog_keeps_the_limit() {
    let lab = Lab::new();
    let plan = probe::plan(&lab, "memory");
    let ran = with(&lab, &held(&plan, LONG), |limits| {
        limits.control_group = Some(lab.path().join("nowhere").as_path().into());
        limits.memory_bytes = Some(250 << 20);
    });
    is_over(&ran, Limit::Memory);
    let words = ran.report.control_group_refused.expect("words");
    assert!(words.contains("no control group could be made in") && words.contains("nowhere"), "{words}");
}
