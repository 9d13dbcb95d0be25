//! The sandbox without one of its steps: for each step, the last look before execve(2) notices, or an attack succeeds that fails
//! otherwise. This program is its own helper, without the test harness, and leaves out what the variable `LEFT_OUT` names; only a
//! test program can be made to.
#![expect(clippy::print_stdout, reason = "this is a program")]

#[path = "sandbox/lab.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod lab;
#[path = "sandbox/probe.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod probe;

use fodder_model::{
    profile,
    sandbox::{Access, BindKind, Namespace, Resource, ResourceLimit, SandboxPlan},
};
use fodder_sandbox::{BuilderExit, Helper, Sandbox, SandboxError, SetupStep};
use lab::{Lab, bind, chain, insert, is_root};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal},
    },
};
use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{PermissionsExt, chown},
            net::UnixListener,
            process::CommandExt,
        },
    },
};

fn main() {
    if let Ok(names) = std::env::var("LEFT_OUT") {
        let steps: Vec<_> = names.split(',').map(|name| SetupStep::named(name).expect("a step")).collect();
        fodder_sandbox::dispatch_helper_without(&steps);
        unreachable!("not started as a helper");
    }
    if let Ok(probe) = std::env::var("PROBE") {
        return probe::act(&probe);
    }
    become_a_bad_ancestor();
    for step in SetupStep::ALL {
        let noticed = noticed_without(*step);
        println!("test without_{step:?} ... ok: {noticed}");
    }
    let lab = Lab::new();
    let (exit, log) = run(&lab, &plan(&lab, "echo whole"), &[]).expect("a sandbox with all steps");
    assert_eq!((exit, &*log), (BuilderExit::Exited(0), "whole\n"));
    println!("test with_every_step_the_builder_runs ... ok");
    keys_are_behind_two_locks();
    println!("test keys_are_behind_two_locks ... ok");
    what_is_bound_read_only_is_behind_two_locks();
    println!("test what_is_bound_read_only_is_behind_two_locks ... ok");
    user_namespaces_are_behind_two_locks();
    println!("test user_namespaces_are_behind_two_locks ... ok");
    if is_root() {
        again_as_an_ordinary_user();
    }
}

/// Everything that is to be forgotten is worth forgetting.
fn become_a_bad_ancestor() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed that could be unsafe to run.
    #[expect(unsafe_code, reason = "the one way to ignore a signal")]
    unsafe { nix::sys::signal::sigaction(Signal::SIGUSR2, &ignore) }.unwrap();
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGURG);
    blocked.thread_block().unwrap();
    prctl::set_timerslack(1_000_000).unwrap();
    if is_root() {
        nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(5)]).unwrap();
    }
}

fn plan(lab: &Lab, script: &str) -> SandboxPlan {
    let mut plan = lab.plan(script);
    plan.seccomp = profile::parse("nix", profile::built_in("nix").unwrap()).unwrap().seccomp;
    plan.limits.resources = vec![ResourceLimit { resource: Resource::Core, soft: Some(1), hard: Some(1) }];
    plan.process.linux32 = true;
    plan.process.umask = 0o027;
    plan
}

/// A helper that leaves out steps: a script, as the sandbox takes all variables from its helper.
fn helper(lab: &Lab, left_out: &[SetupStep]) -> Helper {
    if left_out.is_empty() {
        let copy = std::env::var_os("FODDER_TEST_HELPER");
        return Helper::at(copy.unwrap_or_else(|| env!("CARGO_BIN_EXE_fodder-sandbox-helper").into()));
    }
    let names: Vec<String> = left_out.iter().map(|step| format!("{step:?}")).collect();
    let script = lab.path().join("helper");
    let own = std::env::current_exe().unwrap();
    fs::write(&script, format!("#!/bin/sh\nLEFT_OUT={} exec {} \"$@\"\n", names.join(","), own.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Helper::at(script)
}

fn run(lab: &Lab, plan: &SandboxPlan, left_out: &[SetupStep]) -> Result<(BuilderExit, String), SandboxError> {
    let mut log = Vec::new();
    let sandbox = Sandbox::new(helper(lab, left_out)).unwrap();
    let report = sandbox.run(plan, &mut |bytes| log.extend_from_slice(bytes))?;
    Ok((report.exit, String::from_utf8_lossy(&log).into_owned()))
}

/// The run is refused in these words, and the builder does not run.
fn refusal(left_out: &[SetupStep], words: &str) -> String {
    let lab = Lab::new();
    let input = lab.input();
    let mut plan = plan(&lab, "echo ran > /build/ran");
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadOnly)]);
    let Err(error) = run(&lab, &plan, left_out) else { panic!("without {left_out:?} the builder runs") };
    let text = chain(&error);
    assert!(text.contains(words), "{left_out:?}: '{words}' is not in: {text}");
    assert!(!lab.build().join("ran").exists(), "{left_out:?}: the builder ran");
    text
}

/// Attack: KRN-1, CVE-2025-53819. Layer: self-check before execve.
/// Leaves the step out, and says how that came to light.
fn noticed_without(step: SetupStep) -> String {
    let check = |words: &str| refusal(&[step], &format!("the sandbox does not hold: {words}"));
    let refused = |words: &str| refusal(&[step], words);
    match step {
        SetupStep::CloseInherited => the_helper_holds_what_the_caller_left_open(),
        SetupStep::ResetSignals => check("SigIgn"),
        SetupStep::UnblockSignals => check("SigBlk"),
        SetupStep::ResetScheduling => check("the timer slack"),
        SetupStep::SessionKeyring => check("a session keyring"),
        SetupStep::DropGroups if is_root() => check("Groups"),
        SetupStep::DropGroups => "an ordinary user cannot drop groups, and the report says so".to_owned(),
        // What follows is refused to somebody without privileges over the host's.
        SetupStep::MountNamespace => refused("making mounts private: Operation not permitted"),
        SetupStep::PidNamespace => check("the process number"),
        SetupStep::UtsNamespace => refused("setting the host name"),
        SetupStep::NetworkNamespace => refused("Operation not permitted"),
        SetupStep::IpcNamespace | SetupStep::CgroupNamespace => check("new namespaces"),
        // Somebody without an id in the new namespace cannot own a file there.
        SetupStep::InsideIds if is_root() => refused("Value too large"),
        SetupStep::InsideIds => "the ids of an ordinary user are the plan's as soon as they are mapped".to_owned(),
        SetupStep::NonDumpable => check("being dumpable"),
        SetupStep::DieWithRunner => check("the helper would outlive the runner"),
        SetupStep::DieWithHelper => check("the parent-death signal"),
        SetupStep::NewSession => check("the session"),
        SetupStep::ReadOnlyMounts => check("ro at /"),
        SetupStep::MountAttributes => check("nosuid at /"),
        SetupStep::DetachOldRoot => check(""),
        SetupStep::NamespaceLimits => check("making a user namespace"),
        SetupStep::ResourceLimits => check("ResourceLimit"),
        SetupStep::Personality => check("the personality"),
        SetupStep::WorkingDirectory => check("the working directory"),
        SetupStep::Umask => check("Umask"),
        SetupStep::CloseOnExec => a_descriptor_that_survives_everything_is_noticed(),
        SetupStep::BoundingSet => check("CapBnd"),
        SetupStep::Capabilities => check("CapPrm"),
        SetupStep::NoNewPrivileges => check("NoNewPrivs"),
        SetupStep::SelfCheck => what_it_alone_would_have_noticed_happens(),
        SetupStep::Landlock => an_abstract_socket_of_the_host_is_reached(),
        SetupStep::Seccomp => check("Seccomp"),
    }
}

/// The writing end of a pipe that every child inherits.
fn leaky_pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = nix::unistd::pipe().unwrap();
    fcntl(&read, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    (read, write)
}

/// Attack: PROC-2. Layer: the helper closes what it inherits.
fn the_helper_holds_what_the_caller_left_open() -> String {
    let ends_at_once = |left_out: &[SetupStep]| {
        let lab = Lab::new();
        let (read, write) = leaky_pipe();
        let mut write = Some(write);
        let mut ended = false;
        let mut said = Vec::new();
        let sandbox = Sandbox::new(helper(&lab, left_out)).unwrap();
        let report = sandbox.run(&plan(&lab, "ls -1 /proc/1/fd; sleep 2"), &mut |log| {
            if write.take().is_some() {
                let mut watched = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
                poll(&mut watched, PollTimeout::from(200_u8)).unwrap();
                ended = watched[0].any() == Some(true);
            }
            said.extend_from_slice(log);
        });
        report.unwrap();
        // The builder has none of it in any case.
        assert_eq!(String::from_utf8_lossy(&said), "0\n1\n2\n");
        ended
    };
    assert!(ends_at_once(&[]), "somebody holds the pipe although all descriptors were closed");
    assert!(!ends_at_once(&[SetupStep::CloseInherited]), "nobody holds the pipe");
    "the helper holds the caller's pipe open".to_owned()
}

/// Attack: PROC-2. Layer: close-on-exec for everything above 2, and the self-check.
fn a_descriptor_that_survives_everything_is_noticed() -> String {
    let (_read, _write) = leaky_pipe();
    refusal(&[SetupStep::CloseInherited, SetupStep::CloseOnExec], "descriptors should be {0, 1, 2}")
}

/// Attack: CVE-2024-27297, CVE-2025-46416. Layer: Landlock (abstract sockets), where the network is the host's.
fn an_abstract_socket_of_the_host_is_reached() -> String {
    if fodder_sandbox::landlock_abi() < 6 {
        return "this kernel's Landlock does not close it".to_owned();
    }
    let own = std::process::id().to_string();
    // SAFETY: this program has one thread.
    #[expect(unsafe_code, reason = "the address is made from a variable on both sides")]
    unsafe {
        std::env::set_var("ADDRESS", &own);
    }
    let _listener = UnixListener::bind_addr(&probe::address()).unwrap();
    let answer = |left_out: &[SetupStep]| {
        let lab = Lab::new();
        let mut plan = probe::plan(&lab, "connect");
        plan.seccomp = self::plan(&lab, "").seccomp;
        plan.process.environment.push(("ADDRESS".into(), own.as_str().into()));
        plan.process.linux32 = false;
        plan.namespaces.remove(&Namespace::Network);
        run(&lab, &plan, left_out).unwrap().1
    };
    assert_eq!(answer(&[]), "probe: connect: EPERM\n");
    assert_eq!(answer(&[SetupStep::Landlock]), "probe: connect: done\n");
    "a listener of the host's is reached".to_owned()
}

/// What a probe answers when steps are left out.
fn answers(probe: &str, left_out: &[SetupStep]) -> String {
    let lab = Lab::new();
    let input = lab.input();
    let mut plan = probe::plan(&lab, probe);
    plan.seccomp = self::plan(&lab, "").seccomp;
    plan.process.linux32 = false;
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadOnly)]);
    run(&lab, &plan, left_out).unwrap().1
}

fn what_it_alone_would_have_noticed_happens() -> String {
    let lab = Lab::new();
    let ran = run(&lab, &plan(&lab, "umask"), &[SetupStep::SelfCheck, SetupStep::Umask]).unwrap();
    assert_eq!(ran.1, "0000\n");
    "a builder runs with another umask".to_owned()
}

/// Attack: ENV-2. Layer: new session keyring, seccomp.
fn keys_are_behind_two_locks() {
    use SetupStep::{Seccomp, SelfCheck, SessionKeyring};
    probe::own_a_key().expect("a session keyring for this test");
    for (left_out, answer) in [
        (&[SelfCheck, Seccomp, SessionKeyring][..], "done"),
        (&[SelfCheck, SessionKeyring], "ENOSYS"),
        (&[SelfCheck, Seccomp], "ENOKEY"),
        (&[], "ENOSYS"),
    ] {
        assert_eq!(answers("keys", left_out), format!("probe: search: {answer}\n"), "{left_out:?}");
    }
}

/// Attack: FS-6. Layer: read-only mounts, Landlock.
fn what_is_bound_read_only_is_behind_two_locks() {
    use SetupStep::{Landlock, ReadOnlyMounts, SelfCheck};
    let all = |answer: &str| {
        ["write", "truncate", "create", "remove"].map(|what| format!("probe: {what}: {answer}\n")).concat()
    };
    assert_eq!(answers("write", &[SelfCheck, ReadOnlyMounts, Landlock]), all("done"));
    assert_eq!(answers("write", &[SelfCheck, Landlock]), all("EROFS"));
    assert_eq!(answers("write", &[]), all("EROFS"));
    if fodder_sandbox::landlock_abi() >= 3 {
        assert_eq!(answers("write", &[SelfCheck, ReadOnlyMounts]), all("EACCES"));
    }
}

/// Attack: KRN-4. Layer: user.max_user_namespaces, seccomp.
fn user_namespaces_are_behind_two_locks() {
    use SetupStep::{NamespaceLimits, Seccomp, SelfCheck};
    for (left_out, answer) in [
        (&[SelfCheck, Seccomp, NamespaceLimits][..], "done"),
        (&[SelfCheck, Seccomp], "ENOSPC"),
        (&[SelfCheck, NamespaceLimits], "EPERM"),
        (&[], "EPERM"),
    ] {
        let log = answers("namespaces", left_out);
        assert!(log.contains(&format!("unshare 110000000: {answer}\n")), "{left_out:?}: {log}");
    }
}

/// All of it as a user without any privilege, with copies of what the build directory of cargo may keep to root.
fn again_as_an_ordinary_user() {
    const ORDINARY: u32 = 23_456;
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &std::path::Path, name| {
        let to = place.path().join(name);
        std::io::copy(&mut fs::File::open(from).unwrap(), &mut fs::File::create_new(&to).unwrap()).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let own = copy(&std::env::current_exe().unwrap(), "left_out");
    let helper = copy(env!("CARGO_BIN_EXE_fodder-sandbox-helper").as_ref(), "helper");
    let scratch = place.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    chown(&scratch, Some(ORDINARY), Some(ORDINARY)).unwrap();
    let mut command = std::process::Command::new(own);
    command.env("FODDER_TEST_HELPER", helper).env("TMPDIR", &scratch).uid(ORDINARY).gid(ORDINARY).current_dir("/");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace("test ", "test as_an_ordinary_user_");
    print!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
