//! Who dies with whom. The runner is a process of its own here, so that it can be killed: this test program, executing
//! the one ignored test below.

use crate::lab::{Lab, chain, sandbox};
use fodder_model::sandbox::{Resource, ResourceLimit, SandboxPlan};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[test]
#[ignore = "is executed by other tests as a runner to be killed"]
fn runner() {
    let plan = serde_json::from_str(&std::env::var("PLAN").unwrap()).unwrap();
    let mut log = |bytes: &[u8]| print!("{}", String::from_utf8_lossy(bytes));
    match sandbox().run(&plan, &mut log) {
        Ok(report) => println!("report: {:?}", report.exit),
        Err(error) => println!("error: {}\nremedy: {}", chain(&error), error.remedy().unwrap_or("none")),
    }
}

/// The arguments that make this program the runner above.
pub(crate) const RUNNER: [&str; 5] = ["--exact", "lifetime::runner", "--ignored", "--nocapture", "--quiet"];

pub(crate) fn runner_command(command: &mut Command, plan: &SandboxPlan) {
    command.env("PLAN", serde_json::to_string(plan).unwrap()).stdin(Stdio::null()).stdout(Stdio::piped());
}

/// Starts a runner whose builder says "started" and then keeps writing the time into a file.
fn start(lab: &Lab) -> (Child, BufReader<std::process::ChildStdout>) {
    // Many processes, so that their end takes a moment in which somebody might not wait for it.
    start_plan(&lab.plan(
        "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done
         echo started; while :; do echo >> beats; sleep 0.02; done",
    ))
}

pub(crate) fn start_plan(plan: &SandboxPlan) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    runner_command(command.args(RUNNER), plan);
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the runner ended");
    }
    (child, output)
}

pub(crate) fn beats(lab: &Lab) -> u64 {
    fs::metadata(lab.build().join("beats")).map_or(0, |metadata| metadata.len())
}

fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let read = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("children")).unwrap();
    tasks.flat_map(|task| read(task).split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
}

fn kill(process: u32) {
    let process = nix::unistd::Pid::from_raw(i32::try_from(process).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// For what happens at once, on a machine that has other things to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn gone_within(limit: Duration, process: u32) -> bool {
    let until = Instant::now() + limit;
    // A zombie that its new parent has not reaped yet is gone as far as we are concerned.
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with(['Z', 'X']))
    };
    while Instant::now() < until {
        if gone() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    gone()
}

/// The processes of a run: the outer part of the helper, the inner one, and the builder.
pub(crate) fn processes(runner: &Child) -> [u32; 3] {
    let mut parent = runner.id();
    [(); 3].map(|()| {
        let found = children(parent);
        assert_eq!(found.len(), 1, "the writer of the id maps must not stay");
        parent = found[0];
        parent
    })
}

fn helper_and_builder(runner: &Child) -> (u32, u32) {
    let [helper, _, builder] = processes(runner);
    (helper, builder)
}

/// Attack: PROC-1. Layer: parent-death signals, set after the last change of credentials.
#[test]
fn the_builder_dies_with_the_runner() {
    let lab = Lab::new();
    let (mut runner, _output) = start(&lab);
    let (helper, builder) = helper_and_builder(&runner);
    while beats(&lab) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(gone_within(SOON, builder), "the builder outlives its runner");
    assert!(gone_within(SOON, helper), "the helper outlives its runner");
    let then = beats(&lab);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(beats(&lab), then);
}

#[test]
fn the_builder_dies_with_the_runner_even_when_the_helper_is_stopped() {
    let lab = Lab::new();
    let (mut runner, _output) = start(&lab);
    let (helper, builder) = helper_and_builder(&runner);
    let process = nix::unistd::Pid::from_raw(i32::try_from(helper).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGSTOP).unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(gone_within(SOON, builder), "a stopped helper keeps the builder alive");
    assert!(gone_within(SOON, helper));
}

#[test]
fn the_builder_dies_with_the_helper_and_the_runner_says_so() {
    let lab = Lab::new();
    let (mut runner, mut output) = start(&lab);
    let (helper, builder) = helper_and_builder(&runner);
    kill(helper);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    // The runner had to wait for the builder before it spoke.
    assert!(gone_within(Duration::ZERO, builder), "the builder outlives its helper");
    assert!(rest.contains("error: the sandbox helper ended without a report (signal: 9 (SIGKILL))"), "{rest}");
    assert!(rest.contains("remedy: look for the out-of-memory killer"), "{rest}");
    runner.wait().unwrap();
}

#[test]
fn the_deadline_is_kept_even_when_the_runner_is_stopped() {
    let lab = Lab::new();
    let mut plan = lab.plan("echo started; sleep 300");
    plan.limits.deadline_seconds = Some(1);
    let mut command = Command::new(std::env::current_exe().unwrap());
    runner_command(command.args(RUNNER), &plan);
    let mut runner = command.spawn().unwrap();
    let mut output = BufReader::new(runner.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0);
    }
    let (_helper, builder) = helper_and_builder(&runner);
    let process = nix::unistd::Pid::from_raw(i32::try_from(runner.id()).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGSTOP).unwrap();
    assert!(gone_within(SOON, builder), "a stopped runner prolongs the build");
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGCONT).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("report: TimedOut { seconds: 1 }"), "{rest}");
    runner.wait().unwrap();
}

#[test]
fn nothing_is_left_when_the_log_reader_panics() {
    let lab = Lab::new();
    let plan = lab.plan("echo started; while :; do echo >> beats; sleep 0.02; done");
    let panicked = std::panic::catch_unwind(|| sandbox().run(&plan, &mut |_| panic!("of the reader")));
    assert!(panicked.is_err());
    let then = beats(&lab);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(beats(&lab), then);
}

/// What a runner prints that is root of a user namespace with one id, as in a container, after a script has prepared it; its builder
/// is to have `group` there.
pub(crate) fn in_a_container(lab: &Lab, group: u32, preparation: &str, script: &str) -> String {
    let mut plan = lab.plan(script);
    plan.identity.outside_uid = 0;
    plan.identity.outside_gid = group;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("{preparation} && exec \"$@\"")).arg("sh");
    command.arg(std::env::current_exe().unwrap()).args(RUNNER);
    runner_command(&mut command, &plan);
    // Whoever runs the tests is the container's root.
    std::os::unix::fs::chown(lab.build(), Some(nix::unistd::geteuid().as_raw()), None).unwrap();
    String::from_utf8(command.output().expect("unshare of util-linux").stdout).unwrap()
}

#[test]
fn a_container_that_has_one_id_is_enough() {
    let lab = Lab::new();
    let output = in_a_container(&lab, 0, "true", "id -u; id -g; touch /build/x && echo written");
    assert!(output.contains("1000\n100\nwritten\n") && output.contains("report: Exited(0)"), "{output}");
}

#[test]
fn without_user_namespaces_nothing_runs_and_the_setting_is_named() {
    let lab = Lab::new();
    let output = in_a_container(&lab, 0, "echo 0 > /proc/sys/user/max_user_namespaces", "touch /build/executed");
    assert!(output.contains("error: cannot create a new user namespace: No space left on device"), "{output}");
    assert!(output.contains("remedy: raise the sysctl user.max_user_namespaces"), "{output}");
    assert!(!lab.build().join("executed").exists());
}

/// Attack: DRV-2. Layer: fail closed without a procfs.
#[test]
fn with_a_masked_proc_nothing_runs_and_the_mask_is_named() {
    let lab = Lab::new();
    let output = in_a_container(&lab, 0, "mount --bind /dev/null /proc/cmdline", "touch /build/executed");
    assert!(output.contains("procfs /proc: making the file system: Operation not permitted"), "{output}");
    assert!(output.contains("/proc/cmdline") && output.contains("systempaths=unconfined"), "{output}");
    assert!(!lab.build().join("executed").exists());
}

#[test]
fn runs_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let lab = Lab::new();
                for _ in 0..5 {
                    assert_eq!(
                        lab.log_of(&format!("echo {number}; ls -1 /proc/1/fd; true")),
                        format!("{number}\n0\n1\n2\n")
                    );
                }
            });
        }
    });
}

#[test]
fn no_descriptor_and_no_child_is_left_behind() {
    let lab = Lab::new();
    let mut plan = lab.plan("exit 0");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "lifetime::counter", "--ignored", "--nocapture", "--quiet"]);
    plan.limits.log_bytes = Some(100);
    runner_command(&mut command, &plan);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("nothing is left"), "{output}");
}

#[test]
fn a_hard_limit_of_the_runner_is_not_raised() {
    let lab = Lab::new();
    let mut plan = lab.plan("ulimit -c; ulimit -Hc");
    let limit = ResourceLimit { resource: Resource::Core, soft: Some(u64::MAX), hard: Some(u64::MAX) };
    plan.limits.resources = vec![limit];
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c 8 && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap()).args(RUNNER);
    runner_command(&mut command, &plan);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("8\n8\nreport: Exited(0)"), "{output}");
}

fn endless(plan: &SandboxPlan) -> SandboxPlan {
    let mut plan = plan.clone();
    plan.process.arguments = ["sh", "-c", "echo started; sleep 60"].map(Into::into).to_vec();
    plan
}

#[test]
#[ignore = "is executed by another test, alone in its process"]
fn counter() {
    let plan = serde_json::from_str(&std::env::var("PLAN").unwrap()).unwrap();
    let sandbox = sandbox();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..5 {
        sandbox.run(&plan, &mut |_| ()).unwrap();
    }
    let panicked = std::panic::catch_unwind(|| sandbox.run(&endless(&plan), &mut |_| panic!("of the reader")));
    assert!(panicked.is_err());
    assert_eq!(open(), before);
    assert_eq!(children(std::process::id()), Vec::<u32>::new());
    println!("nothing is left");
}
