//! What the builder finds itself to be.

use crate::lab::{Lab, identity, is_root, usual_open_files};
use fodder_model::sandbox::{Namespace, Resource, ResourceLimit};
use fodder_sandbox::SessionKeyring;
use std::collections::BTreeMap;

/// `/proc/1/status` as the builder reads it.
fn status(lab: &Lab) -> BTreeMap<String, String> {
    // Not by way of a shell, which has its own ideas of signals.
    let mut plan = lab.plan("");
    plan.process.program = fodder_model::sandbox::Program::Execute("/bin/cat".into());
    plan.process.arguments = vec!["cat".into(), "/proc/1/status".into()];
    let log = lab.run(&plan).log;
    let fields = log.lines().filter_map(|line| line.split_once(":\t"));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn output_and_error_are_a_raw_terminal_and_input_is_not() {
    let lab = Lab::new();
    let log = lab.log_of(
        "[ -t 0 ] && echo in; [ -t 1 ] && echo out; [ -t 2 ] && echo error
         echo through the name > /dev/stdout; read nothing || echo end of input; printf 'a\\nb\\n'
         echo x > /dev/tty; true",
    );
    let expected = "out\nerror\nthrough the name\nend of input\na\nb\n";
    assert!(log.starts_with(expected), "{log}");
    assert!(log.contains("/dev/tty: No such device or address"), "a controlling terminal: {log}");
}

#[test]
fn the_terminal_is_as_the_kernel_makes_it_but_raw() {
    let lab = Lab::new();
    let expected = ["size 0 0, 38400 baud, post-processing off"];
    assert_eq!(crate::probe::answers(&lab, &crate::probe::plan(&lab, "terminal")), expected);
}

#[test]
fn the_streams_have_the_flags_of_files_that_were_just_opened() {
    let lab = Lab::new();
    let log = lab.log_of("for f in 0 1 2; do grep flags: /proc/1/fdinfo/$f; done");
    let flags: Vec<&str> = log.lines().collect();
    assert!(flags.len() == 3 && flags[0].ends_with("00002"), "{log}");
    assert!(flags.iter().all(|line| *line == flags[0]), "the terminal's are not /dev/null's: {log}");
}

#[test]
fn nobody_in_the_sandbox_can_change_groups() {
    assert_eq!(Lab::new().log_of("cat /proc/self/setgroups"), "deny\n");
}

#[test]
fn standard_input_is_dev_null_and_writable() {
    let lab = Lab::new();
    let log = lab.log_of("echo gone >&0; stat -L -c '%t:%T %F' /proc/self/fd/0");
    assert_eq!(log, "1:3 character special file\n");
}

#[test]
fn environment_and_arguments_are_exactly_the_plans() {
    let lab = Lab::new();
    let mut plan = lab.plan("");
    plan.process.program = fodder_model::sandbox::Program::Execute("/bin/sh".into());
    plan.process.arguments = ["cat", "/proc/self/environ", "/proc/self/cmdline"].map(Into::into).to_vec();
    plan.process.environment = [("Z", "last first"), ("A b", "odd=name"), ("EMPTY", ""), ("1", "\u{e9}")]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec();
    let log = lab.run(&plan).log;
    assert_eq!(log, "Z=last first\0A b=odd=name\0EMPTY=\0\u{31}=\u{e9}\0cat\0/proc/self/environ\0/proc/self/cmdline\0");
}

#[test]
fn working_directory_umask_and_names_are_the_plans() {
    let lab = Lab::new();
    let mut plan = lab.plan("pwd; umask; uname -n; cat /proc/sys/kernel/domainname; touch file; stat -c %a file");
    plan.process.umask = 0o027;
    plan.host_name.domain = "example".into();
    assert_eq!(lab.run(&plan).log, "/build\n0027\nlocalhost\nexample\n640\n");
}

#[test]
fn the_builder_is_its_inside_ids_and_nobody_else() {
    let lab = Lab::new();
    let status = status(&lab);
    assert_eq!(status["Uid"], "1000\t1000\t1000\t1000");
    assert_eq!(status["Gid"], "100\t100\t100\t100");
    if is_root() {
        assert_eq!(status["Groups"], "");
    }
    let ran = lab.run(&lab.plan("touch mine"));
    let metadata = std::fs::metadata(lab.build().join("mine")).unwrap();
    let owner = (std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata));
    assert_eq!(owner, (identity().outside_uid, identity().outside_gid));
    assert_eq!((ran.report.enforced.outside_uid, ran.report.enforced.outside_gid), owner);
}

#[test]
fn the_groups_of_root_are_not_the_builders() {
    if !is_root() {
        return; // Who cannot call setgroups(2) keeps the groups, and `Enforced` says so.
    }
    // Of this thread alone, and hence of the helper that it starts.
    crate::probe::set_own_groups(&[5, 6]);
    assert_eq!(status(&Lab::new())["Groups"], "");
}

#[test]
fn the_builder_leads_a_session_of_its_own() {
    let stat = Lab::new().log_of("cat /proc/1/stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let [_state, parent, group, session, terminal, ..] = fields[..] else { panic!("{stat}") };
    assert_eq!([parent, group, session, terminal], ["0", "1", "1", "0"], "{stat}");
}

#[test]
fn no_capability_is_left_and_none_can_be_gained() {
    let lab = Lab::new();
    let status = status(&lab);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
}

/// Attack: PROC-11. Layer: signals are reset.
#[test]
fn signals_are_as_after_boot() {
    // Ignoring a signal in the whole test program harms no other test: none of them uses this one.
    let ignore = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::SigIgn,
        nix::sys::signal::SaFlags::empty(),
        nix::sys::signal::SigSet::empty(),
    );
    crate::probe::set_action(nix::sys::signal::Signal::SIGUSR2, &ignore);
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(nix::sys::signal::Signal::SIGURG);
    blocked.thread_block().unwrap();
    let status = status(&Lab::new());
    assert_eq!(status["SigIgn"], "0000000000000000");
    assert_eq!(status["SigBlk"], "0000000000000000");
}

#[test]
fn address_randomisation_and_machine_are_the_plans() {
    let lab = Lab::new();
    let mut plan = lab.plan("cat /proc/self/personality; uname -m");
    let machine = std::env::consts::ARCH;
    assert_eq!(lab.run(&plan).log, format!("00040000\n{machine}\n"));
    plan.process.fixed_addresses = false;
    plan.process.linux32 = true;
    let log = lab.run(&plan).log;
    assert!(log.starts_with("00000008\n") && !log.contains(machine), "{log}");
}

#[test]
fn resource_limits_are_set_and_never_raised() {
    let lab = Lab::new();
    let mut plan = lab.plan("ulimit -c; ulimit -Hc; ulimit -n; ulimit -Hn; ulimit -f");
    let (soft, hard) = usual_open_files();
    let (_, hard_core) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap();
    let core = if hard_core == u64::MAX { "unlimited".into() } else { (hard_core / 512).to_string() };
    let limit = |resource, soft, hard| ResourceLimit { resource, soft, hard };
    plan.limits.resources =
        vec![limit(Resource::Core, Some(0), Some(u64::MAX)), limit(Resource::FileSize, Some(5120), None)];
    assert_eq!(
        lab.run(&plan).log,
        format!("0\n{core}\n{soft}\n{hard}\n10\n"),
        "the limit of open files is the caller's"
    );
    plan.limits.resources = vec![limit(Resource::OpenFiles, Some(u64::MAX), None)];
    assert!(lab.run(&plan).log.contains(&format!("\n{hard}\n{hard}\n")), "soft up to hard");
}

/// Attack: PROC-11. Layer: setrlimit(2), for each of the limits that a plan can name and for no other.
#[test]
fn each_limit_is_the_one_of_its_name() {
    let limits = [
        (Resource::Core, "Max core file size", 1),
        (Resource::Stack, "Max stack size", 4 << 20),
        (Resource::OpenFiles, "Max open files", 300),
        (Resource::Processes, "Max processes", 77),
        (Resource::FileSize, "Max file size", 1 << 30),
        (Resource::Data, "Max data size", 1 << 33),
        (Resource::LockedMemory, "Max locked memory", 8192),
        (Resource::MessageQueues, "Max msgqueue size", 4096),
        (Resource::RealTimePriority, "Max realtime priority", 0),
        (Resource::NicePriority, "Max nice priority", 0),
    ];
    let lab = Lab::new();
    let mut plan = lab.plan("cat /proc/1/limits");
    let wanted = |(resource, _, value)| ResourceLimit { resource, soft: Some(value), hard: Some(value) };
    plan.limits.resources = limits.map(wanted).to_vec();
    let log = lab.run(&plan).log;
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    for (line, own) in log.lines().zip(own.lines()).skip(1) {
        let fields = |line: &str| line[26..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
        let expected = match limits.iter().find(|(_, name, _)| line.starts_with(name)) {
            Some((_, _, value)) => vec![value.to_string(); 2],
            None => fields(own),
        };
        assert_eq!(fields(line), expected, "{line}");
    }
}

#[test]
fn the_number_of_processes_is_limited_even_when_root_runs_it() {
    let lab = Lab::new();
    let mut plan = lab.plan("i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all started");
    let limit = ResourceLimit { resource: Resource::Processes, soft: Some(20), hard: Some(20) };
    plan.limits.resources = vec![limit];
    let ran = lab.run(&plan);
    assert!(!ran.log.contains("all started") && ran.log.contains("can't fork"), "{ran:?}");
}

/// Attack: PROC-2. Layer: closed descriptors.
#[test]
fn only_three_descriptors_survive_whatever_the_caller_leaks() {
    let lab = Lab::new();
    let leaked = std::fs::File::open("/").unwrap();
    for _ in 0..3 {
        let copy = leaked.try_clone().unwrap();
        nix::fcntl::fcntl(&copy, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        std::mem::forget(copy);
    }
    assert_eq!(lab.log_of("ls -1 /proc/1/fd; true"), "0\n1\n2\n");
}

#[test]
fn the_report_says_what_is_in_force() {
    let lab = Lab::new();
    let plan = lab.plan("exit 1");
    let enforced = lab.run(&plan).report.enforced;
    assert_eq!(enforced.namespaces, plan.namespaces);
    assert!(enforced.no_capabilities && enforced.no_new_privileges);
    assert_eq!(enforced.supplementary_groups_dropped, is_root());
    assert_eq!(enforced.seccomp_instructions, None);
    assert_eq!(enforced.session_keyring, SessionKeyring::New);
    let mut plan = lab.plan("exit 0");
    plan.namespaces.remove(&Namespace::Network);
    assert!(!lab.run(&plan).report.enforced.namespaces.contains(&Namespace::Network));
}
