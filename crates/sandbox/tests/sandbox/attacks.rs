//! Attacks from inside under the policy that is shipped, each with a control run in which it succeeds or would be noticed.

use crate::{
    lab::{Lab, bind, insert, is_root},
    probe,
};
use fodder_model::{
    profile,
    sandbox::{Access, BindKind, SandboxPlan, SeccompAction, SeccompPolicy, SeccompRule, Weakening},
};
use fodder_sandbox::BuilderExit;
use std::{collections::BTreeMap, fs, process::Command};

fn shipped() -> SeccompPolicy {
    profile::parse("nix", profile::built_in("nix").unwrap()).unwrap().seccomp
}

/// A probe's answers, under the shipped policy or under none.
fn answers(probe: &str, with_policy: bool) -> Vec<String> {
    let lab = Lab::new();
    let mut plan = probe::plan(&lab, probe);
    plan.process.fixed_addresses = false;
    if with_policy {
        plan.seccomp = shipped();
    }
    probe::answers(&lab, &plan)
}

fn numbers(probe: &str, with_policy: bool) -> BTreeMap<u32, String> {
    let lines = answers(probe, with_policy);
    let split = |line: &String| line.split_once(' ').map(|(number, errno)| (number.parse().unwrap(), errno.to_owned()));
    lines.iter().filter_map(split).collect()
}

/// What the policy says about a call all of whose arguments are -1; `None` for "execute it".
fn verdict(policy: &SeccompPolicy, name: Option<&String>) -> Option<u16> {
    use fodder_model::sandbox::ArgumentCondition;
    let says = |rule: &&SeccompRule| {
        rule.calls.iter().any(|call| Some(call) == name)
            && rule.when.iter().all(|test| match &test.is {
                ArgumentCondition::AnyBitOf(_) => true,
                ArgumentCondition::OneOf(values) => values.contains(&u32::MAX),
                ArgumentCondition::NoneOf(values) => !values.contains(&u32::MAX),
            })
    };
    match policy.rules.iter().find(says).map_or(policy.default, |rule| rule.action) {
        SeccompAction::Allow => None,
        SeccompAction::Errno(errno) => Some(errno),
        SeccompAction::Kill => panic!("nothing is killed"),
    }
}

/// The kernel's own answers, number by number, with the filter and without it.
fn compare_with_the_kernel(probe: &str, column: usize) {
    let policy = shipped();
    let table = include_str!("../../src/seccomp/calls.tsv");
    let names: BTreeMap<u32, String> = table
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            Some((cells.get(column)?.parse().ok()?, cells[0].to_owned()))
        })
        .collect();
    let (filtered, plain) = (numbers(probe, true), numbers(probe, false));
    assert!(filtered.len() == plain.len() && plain.len() > 600, "{} {}", filtered.len(), plain.len());
    let mut executed = 0;
    for (number, answer) in filtered {
        let name = names.get(&number);
        match verdict(&policy, name) {
            Some(errno) => assert_eq!(answer, errno.to_string(), "{number} {name:?}"),
            None => {
                let absent = |answer: &str| answer == libc::ENOSYS.to_string();
                assert_eq!(absent(&answer), absent(&plain[&number]), "{number} {name:?}: {answer} {plain:?}");
                executed += 1;
            }
        }
    }
    assert!(executed > 250, "{executed}");
    // The control: without a filter the kernel has calls that the policy refuses.
    let refused = |name: &str| names.iter().find(|(_, found)| *found == name).map(|(number, _)| plain[number].clone());
    assert!(refused("add_key").is_some_and(|answer| answer != libc::ENOSYS.to_string()), "{:?}", refused("add_key"));
}

/// Attack: KRN-2, CVE-2021-41133. Layer: seccomp.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_kernel_answers_every_number_as_the_policy_reads() {
    compare_with_the_kernel("every call", 1);
}

/// Attack: KRN-2. Layer: seccomp, 32-bit calls.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_kernel_answers_every_32_bit_number_as_the_policy_reads() {
    let lab = Lab::new();
    if lab.run(&probe::plan(&lab, "i386")).report.exit == BuilderExit::Signaled(libc::SIGSEGV) {
        return; // This kernel has no 32-bit interface, as this run has just shown.
    }
    compare_with_the_kernel("every i386 call", 2);
}

/// Attack: RES-7 (leases on inputs, for which everybody else waits). Layer: seccomp (F_SETLEASE).
#[test]
fn no_file_can_be_leased() {
    assert_eq!(answers("lease", true), ["F_SETLEASE: EACCES", "with high bits: EACCES"]);
    assert_eq!(answers("lease", false), ["F_SETLEASE: done", "with high bits: done"]);
}

#[test]
fn a_builder_has_message_queues() {
    assert_eq!(answers("queue", true), ["queue: done"]);
}

/// Attack: NET-5. Layer: seccomp (socket families).
#[test]
fn sockets_that_no_network_namespace_holds_cannot_be_made() {
    let refused = ["vsock", "vsock with high bits", "packet", "alg", "audit", "netfilter", "raw", "raw with flags"];
    let answers = answers("sockets", true);
    for name in refused {
        let errno = if name.starts_with("raw") { "EPERM" } else { "EAFNOSUPPORT" };
        assert!(answers.contains(&format!("{name}: {errno}")), "{name}: {answers:?}");
    }
    for name in ["route", "unix", "tcp", "udp"] {
        assert!(answers.contains(&format!("{name}: done")), "{name}: {answers:?}");
    }
    let control = self::answers("sockets", false);
    assert!(control.contains(&"audit: done".to_owned()), "nothing was there to be refused: {control:?}");
}

/// Attack: KRN-4, CVE-2022-0185, CVE-2022-0492. Layer: seccomp, user.max_*_namespaces.
#[test]
fn no_namespace_can_be_made_by_any_call() {
    let found = answers("namespaces", true);
    let expected = |line: &String| match line.split_once(": ").unwrap() {
        ("clone3" | "fsopen", errno) => errno == "ENOSYS",
        (_, errno) => errno == "EPERM",
    };
    assert!(found.len() == 12 && found.iter().all(expected), "{found:?}");
    let lab = Lab::new();
    let mut plan = probe::plan(&lab, "namespaces");
    plan.allowed.insert(Weakening::NestedNamespaces);
    plan.seccomp = shipped().lifted(&plan.allowed);
    let control = probe::answers(&lab, &plan);
    for made in ["clone3: done", "mount: EPERM", "fsopen: EPERM"] {
        assert!(control.contains(&made.to_owned()), "{made}: {control:?}");
    }
    let enforced = lab.run(&plan).report.enforced;
    assert!(!enforced.no_new_namespaces && !enforced.landlock.writes_judged);
}

/// Attack: PROC-3, CVE-2017-5226, CVE-2019-10063. Layer: seccomp (TIOCSTI, low 32 bits).
#[test]
fn nothing_is_typed_into_a_terminal() {
    let expected = ["controlling: done", "TIOCSTI: EPERM", "TIOCSTI with high bits: EPERM"];
    assert_eq!(answers("tiocsti", true), expected);
    // A kernel whose administrator switched it off altogether has nothing to refuse.
    if fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").is_ok_and(|on| on.trim() == "1") {
        assert_eq!(answers("tiocsti", false)[1], "TIOCSTI: done");
    }
}

fn with_shipped_policy(lab: &Lab, script: &str) -> SandboxPlan {
    let mut plan = lab.plan(script);
    plan.seccomp = shipped();
    plan
}

/// Attack: PROC-5, CVE-2026-97029. Layer: pid namespace, session of its own.
#[test]
fn signals_reach_nobody_outside() {
    let lab = Lab::new();
    let script = "sleep 60 & kill -9 0; kill -9 -1; kill -9 $PPID; wait; echo alive";
    assert_eq!(lab.run(&with_shipped_policy(&lab, script)).log.lines().last(), Some("alive"));
    // The control: outside, the same command ends its whole group, and with it the shell.
    let mut outside = Command::new("/bin/busybox");
    std::os::unix::process::CommandExt::process_group(&mut outside, 0);
    let output = outside.args(["sh", "-c", "kill -9 0; echo alive"]).output().unwrap();
    assert!(output.stdout.is_empty() && !output.status.success(), "{output:?}");
}

/// Attack: PROC-6, PROC-7, CVE-2019-5736, CVE-2016-9962. Layer: the builder is process 1.
#[test]
fn no_process_of_ours_is_there_to_be_read_or_overwritten() {
    let lab = Lab::new();
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep f[o]dder
                  (echo x > /proc/1/exe) 2>&1; tr '\\0' '\\n' < /proc/1/environ; ls -l /proc/1/exe; ls -1 /proc/1/root/";
    let log = lab.run(&with_shipped_policy(&lab, &script.replace("tr '\\0' '\\n' <", "cat"))).log;
    assert!(!log.contains("fodder") && !log.contains("FODDER"), "{log}");
    assert!(log.contains("/proc/1/exe -> /bin/sh") && log.contains("PATH=/bin"), "{log}");
    // "Text file busy" or the read-only mount, whichever the kernel looks at first.
    assert!(log.contains("can't create /proc/1/exe"), "{log}");
    assert!(log.ends_with("bin\nbuild\ndev\netc\nproc\ntmp\n"), "{log}");
}

/// Attack: PROC-8, CVE-2024-21626. Layer: chdir after the root is exchanged, closed descriptors.
#[test]
fn neither_working_directory_nor_descriptors_lead_outside() {
    let lab = Lab::new();
    let secret = lab.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let leaked = fs::File::open(lab.path()).unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let script =
        "pwd; ls -l /proc/1/cwd; for n in 0 1 2 3 4 5 6 7 8 9 10 20; do cat /proc/self/fd/$n/secret; done 2>/dev/null
                  cat ../../../../../../secret /proc/1/cwd/../../../secret; true";
    let log = lab.run(&with_shipped_policy(&lab, script)).log;
    assert!(log.starts_with("/build\n") && log.contains("/proc/1/cwd -> /build"), "{log}");
    assert!(!log.lines().any(|line| line == "secret"), "{log}");
}

/// Attack: FS-6. Layer: read-only mounts that are locked.
#[test]
fn no_other_name_of_an_input_is_writable() {
    let lab = Lab::new();
    let input = lab.input();
    let script = "exec 3</input/file; cd /input
                  for name in /proc/self/root/input/file /proc/1/root/input/file /proc/self/fd/3 /proc/1/cwd/file file; do
                    (echo changed > $name) 2>&1; chmod 777 $name; touch $name; rm -f $name
                  done; ln /input/file /build/link; cat /input/file";
    let mut plan = with_shipped_policy(&lab, script);
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadOnly)]);
    let log = lab.run(&plan).log;
    assert!(log.ends_with("original\n"), "{log}");
    assert_eq!(fs::read_to_string(input.join("file")).unwrap(), "original\n");
    assert!(!lab.build().join("link").exists());
    // The control: where the plan lets it write, the same script changes the file.
    let mut plan = with_shipped_policy(&lab, script);
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadWrite)]);
    assert!(!lab.run(&plan).log.ends_with("original\n"));
}

/// Attack: PROC-11. Layer: scheduling is reset.
#[test]
fn scheduling_is_as_after_boot() {
    // Of this thread alone, and hence of the helper that it starts.
    let mut one = nix::sched::CpuSet::new();
    let all = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    one.set((0..nix::sched::CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap()).unwrap()).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).unwrap();
    nix::sys::prctl::set_timerslack(7_000_000).unwrap();
    rustix::process::setpriority_process(None, 7).unwrap();
    probe::set_own_io_priority(7);
    let script = "grep Cpus_allowed_list /proc/1/status; cat /proc/1/oom_score_adj /proc/1/stat; ionice -p $$";
    let read = |log: &str| {
        let lines: Vec<&str> = log.lines().collect();
        let [processors, score, stat, io] = lines[..] else { panic!("{log}") };
        let nice = stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().to_owned();
        (processors.contains(['-', ',']), score.to_owned(), nice, io.to_owned())
    };
    let lab = Lab::new();
    let (several, score, nice, io) = read(&lab.run(&with_shipped_policy(&lab, script)).log);
    let processors = (0..nix::sched::CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap()).count();
    assert_eq!(several, processors > 1);
    assert!(!score.starts_with('-'));
    assert!(!io.starts_with("best-effort: prio 7"), "{io}");
    // Nobody but root can take back that a build is to be nice.
    assert_eq!(nice, if is_root() { "0" } else { "7" });
    let own = Command::new("/bin/busybox").args(["sh", "-c", &script.replace("/1/", "/self/")]).output().unwrap();
    let (several, _, nice, io) = read(&String::from_utf8_lossy(&own.stdout));
    assert_eq!((several, &*nice, &*io), (false, "7", "best-effort: prio 7"), "the control");
}

/// Attack: KRN-4. Layer: user.max_*_namespaces, which stay as they are without capabilities. (Those of inotify: see `limits`.)
#[test]
fn the_limits_of_the_namespace_are_nought_and_stay_so() {
    let lab = Lab::new();
    let script = "cd /proc/sys/user; cat max_*_namespaces max_fanotify_* | sort -u; echo 9 > max_user_namespaces; true";
    let log = lab.log_of(script);
    assert!(log.starts_with("0\nsh:") && log.contains("Permission denied"), "{log}");
}

/// What Landlock does is reported, whether there is any or not.
#[test]
fn the_report_says_how_far_landlock_goes() {
    let lab = Lab::new();
    let landlock = lab.run(&lab.plan("true")).report.enforced.landlock;
    assert_eq!(landlock.abi, fodder_sandbox::landlock_abi());
    assert_eq!(landlock.writes_judged, landlock.abi >= 2);
    assert_eq!(landlock.scopes.len(), if landlock.abi >= 6 { 2 } else { 0 });
}

/// Builds rename between directories, make every kind of file, write to streams by name and to /proc, under both locks.
#[test]
fn what_builds_do_is_granted() {
    let lab = Lab::new();
    let script = "set -e; mkdir a b; echo x > a/f; mv a/f b/f; ln b/f a/g; ln -s f a/l; mkdir a/d; mv a/d b; rm -r b
                  echo out > /dev/stdout; echo error > /proc/self/fd/2; echo null > /dev/null; echo zero > /dev/zero; (echo > /dev/full) 2>&1 | grep -q space; echo none > /proc/self/fd/0
                  echo 500 > /proc/self/oom_score_adj; echo x > /dev/shm/x; mv /dev/shm/x /tmp/x; exec 3<>/dev/ptmx
                  exec 4>>a/h; rm a/h; echo gone >&4; echo again > /proc/self/fd/4; echo fine";
    let mut plan = with_shipped_policy(&lab, script);
    // As in the profiles.
    for step in &mut plan.root {
        if let fodder_model::sandbox::RootStep::Bind { kind: BindKind::Device, access, .. } = step {
            *access = Access::ReadOnly;
        }
    }
    let ran = lab.run(&plan);
    assert_eq!((ran.report.exit, &*ran.log), (BuilderExit::Exited(0), "out\nerror\nfine\n"));
}
