//! The process that becomes the builder: PID 1 of its namespace, from the fork to execve(2), in order.

mod check;
mod inside;
mod landlock;
mod limits;
mod mounts;
mod namespace_limits;
mod privileges;
mod root;

use crate::{
    InternalProgram,
    helper::{NamespaceIds, Sources, new_cgroup_namespace, raise_loopback},
    report::{Enforced, Landlock, SessionKeyring},
    steps::{LeftOut, SetupStep},
    sys,
    wire::{BuilderWord, Doing, Failure, send},
};
use fodder_model::{
    bytes::ByteString,
    sandbox::{HostName, Namespace, Process, Program, SandboxPlan, Weakening},
};
use namespace_limits::NamespaceLimits;
use nix::{
    errno::Errno,
    libc::sock_filter,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{chdir, execve, sethostname, setsid, write},
};
use std::{
    collections::BTreeSet,
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
};

/// What the helper prepared.
pub(crate) struct Entry<'plan> {
    /// What to build.
    pub(crate) plan: &'plan SandboxPlan,
    /// Functions that a plan may name as its program.
    pub(crate) internal_programs: &'plan [InternalProgram],
    /// The compiled seccomp policy, if there is one.
    pub(crate) filter: Option<&'plan [sock_filter]>,
    /// Opened before the ids changed.
    pub(crate) sources: Sources,
    /// A pidfd of the helper, opened before the fork.
    pub(crate) helper: OwnedFd,
    /// Where to say what went wrong; execve closes it.
    pub(crate) channel: OwnedFd,
    /// Where the runner lives.
    pub(crate) outer_namespaces: NamespaceIds,
    /// Soft and hard limit of the runner.
    pub(crate) open_files: (u64, u64),
    /// As left by the helper.
    pub(crate) session_keyring: SessionKeyring,
    /// The runner's, where keyrings can be asked for.
    pub(crate) outer_keyring: Option<i64>,
    /// Whether setgroups(2) was allowed.
    pub(crate) supplementary_groups_dropped: bool,
    /// `cgroup.procs` of the build's own control group, if there is one.
    pub(crate) control_group: Option<OwnedFd>,
    /// By tests.
    pub(crate) left_out: LeftOut<'plan>,
}

/// Sets everything up and executes the builder, or tells the helper why not.
pub(crate) fn become_the_builder(entry: Entry<'_>) -> ! {
    let channel = match entry.channel.try_clone() {
        Ok(channel) => channel,
        Err(_) => crate::leave(1),
    };
    let failure = match set_up(entry) {
        Ok(Start::Internal(run, environment)) => {
            // What execve would have closed.
            drop(channel);
            crate::leave(run(environment))
        }
        Ok(Start::Execute(execute)) => {
            let errno = execute.run();
            // What Nix writes, on the log as Nix does, and then it "fails with exit code 1".
            let _ = write(std::io::stderr(), &cannot_execute(execute.program.as_bytes(), errno.desc()));
            crate::leave(1)
        }
        Err(failure) => failure,
    };
    let _ = send(&channel, &BuilderWord::Failed(failure), None);
    crate::leave(1)
}

/// Nix's words to the byte: in colours whatever reads them, further lines indented, and no newline at the end.
fn cannot_execute(program: &[u8], reason: &str) -> Vec<u8> {
    let mut line = b"\x1b[31;1merror:\x1b[0m executing '\x1b[35;1m".to_vec();
    for byte in program {
        line.push(*byte);
        if *byte == b'\n' {
            line.extend([b' '; 7]);
        }
    }
    line.extend_from_slice(format!("\x1b[0m': \x1b[35;1m{reason}\x1b[0m").as_bytes());
    line
}

/// The last step.
enum Start<'plan> {
    Execute(Execute),
    Internal(fn(&[(ByteString, ByteString)]) -> i32, &'plan [(ByteString, ByteString)]),
}

impl<'plan> Start<'plan> {
    fn prepare(process: &'plan Process, internal_programs: &[InternalProgram]) -> Result<Self, Failure> {
        match &process.program {
            Program::Execute(program) => Execute::prepare(program, process).map(Start::Execute),
            Program::Internal(name) => internal_programs
                .iter()
                .find(|program| program.name == name)
                .map(|program| Start::Internal(program.run, &process.environment))
                .ok_or_else(|| Failure::Plan { reason: format!("the helper has no internal program '{name}'") }),
        }
    }
}

fn set_up(entry: Entry<'_>) -> Result<Start<'_>, Failure> {
    let Entry {
        plan,
        internal_programs,
        filter,
        sources,
        helper,
        channel,
        outer_namespaces,
        open_files,
        session_keyring,
        outer_keyring,
        supplementary_groups_dropped,
        control_group,
        left_out,
    } = entry;
    let SandboxPlan {
        namespaces,
        identity,
        host_name,
        root_mount_point: _,
        root,
        process,
        limits,
        seccomp: _,
        door,
        allowed,
    } = plan;
    let start = Start::prepare(process, internal_programs)?;

    left_out.step(SetupStep::DieWithHelper, || die_with_the_helper(&helper))?;
    if let Some(processes) = control_group {
        limits::enter_control_group(processes)?;
    }
    // After the group was entered, so that it is the top of what the builder sees.
    if namespaces.contains(&Namespace::Cgroup) {
        left_out.step(SetupStep::CgroupNamespace, new_cgroup_namespace)?;
    }
    left_out.step(SetupStep::NewSession, || setsid().map(drop).doing("starting a session"))?;
    // With a door the helper has done it already.
    if namespaces.contains(&Namespace::Network) && door.is_none() {
        raise_loopback()?;
    }
    if namespaces.contains(&Namespace::Uts) {
        set_host_name(host_name)?;
    }
    let examiner = check::Examiner::open()?;
    let namespace_limits = NamespaceLimits::open();
    root::build(root, sources, left_out)?;
    // Where no procfs can be made the root's own step is the one to speak of: it has a remedy.
    let namespace_limits = namespace_limits?;
    let queues = message_queues(namespaces);
    root::pivot(left_out)?;
    left_out.step(SetupStep::NamespaceLimits, || namespace_limits.apply(allowed))?;
    drop(namespace_limits);

    left_out.step(SetupStep::ResourceLimits, || limits::apply(limits, open_files))?;
    left_out.step(SetupStep::Personality, || set_personality(process))?;
    left_out.step(SetupStep::WorkingDirectory, || {
        chdir(process.working_directory.as_path()).doing(format!("entering {}", process.working_directory))
    })?;
    left_out.step(SetupStep::Umask, || {
        umask(Mode::from_bits_truncate(process.umask));
        Ok(())
    })?;
    left_out.step(SetupStep::CloseOnExec, || sys::close_range(3, false).doing("closing descriptors on execve"))?;

    privileges::drop_capabilities(left_out)?;
    left_out.step(SetupStep::NoNewPrivileges, || prctl::set_no_new_privs().doing("setting no_new_privs"))?;
    let new_namespaces =
        examiner.examine(plan, &outer_namespaces, outer_keyring, supplementary_groups_dropped, left_out)?;
    let landlock = match left_out.keeps(SetupStep::Landlock) {
        true => landlock::restrict(root, queues.as_ref(), allowed)?,
        false => Landlock { abi: 0, writes_judged: false, scopes: BTreeSet::new() },
    };
    if let Some(filter) = filter {
        left_out
            .step(SetupStep::Seccomp, || sys::install_seccomp_filter(filter).doing("installing the seccomp filter"))?;
        left_out.step(SetupStep::SelfCheck, || examiner.examine_seccomp())?;
    }
    let enforced = Enforced {
        namespaces: new_namespaces,
        outside_uid: identity.outside_uid,
        outside_gid: identity.outside_gid,
        supplementary_groups_dropped,
        no_capabilities: true,
        no_new_privileges: true,
        seccomp_instructions: filter.map(<[sock_filter]>::len),
        session_keyring,
        no_new_namespaces: !allowed.contains(&Weakening::NestedNamespaces),
        landlock,
    };
    send(&channel, &BuilderWord::Ready(enforced), None).doing("telling the helper")?;
    Ok(start)
}

/// PID 1 has no parent that getppid(2) could name (it is 0), so the race between the fork and this line can only be
/// closed with the pidfd.
fn die_with_the_helper(helper: &OwnedFd) -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing("tying the builder to the helper")?;
    let mut process = [PollFd::new(helper.as_fd(), PollFlags::POLLIN)];
    poll(&mut process, PollTimeout::ZERO).doing("looking for the helper")?;
    match process[0].any() {
        Some(false) => Ok(()),
        Some(true) | None => Err(Failure::Check { finding: "the helper is gone".into() }),
    }
}

/// The file system that POSIX message queues are in. It is mounted nowhere, but Landlock judges what happens in it.
fn message_queues(namespaces: &BTreeSet<Namespace>) -> Option<OwnedFd> {
    let is_own = namespaces.contains(&Namespace::Ipc);
    // Some kernels have none.
    is_own.then(|| mounts::new_file_system("mqueue", &[], mounts::storage_attributes()).ok()).flatten()
}

fn set_host_name(name: &HostName) -> Result<(), Failure> {
    let HostName { host, domain } = name;
    sethostname(host).doing(format!("setting the host name {host}"))?;
    sys::set_domain_name(domain).doing(format!("setting the domain name {domain}"))
}

// Of linux/personality.h; the libc crate has only the flags.
const PER_LINUX: u32 = 0;
const PER_LINUX32: u32 = 8;

fn set_personality(process: &Process) -> Result<(), Failure> {
    sys::set_personality(personality(process)).doing("setting the personality")
}

fn personality(process: &Process) -> u32 {
    let domain = if process.linux32 { PER_LINUX32 } else { PER_LINUX };
    domain | if process.fixed_addresses { libc::ADDR_NO_RANDOMIZE as u32 } else { 0 }
}

/// The arguments of execve(2).
struct Execute {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Execute {
    fn prepare(program: &ByteString, process: &Process) -> Result<Self, Failure> {
        let Process {
            program: _,
            arguments,
            environment,
            working_directory: _,
            umask: _,
            fixed_addresses: _,
            linux32: _,
        } = process;
        let variable = |(name, value): &(ByteString, ByteString)| without_nul(&[&name[..], b"=", &value[..]].concat());
        Ok(Execute {
            program: without_nul(program)?,
            arguments: arguments.iter().map(|argument| without_nul(argument)).collect::<Result<_, _>>()?,
            environment: environment.iter().map(variable).collect::<Result<_, _>>()?,
        })
    }

    fn run(&self) -> Errno {
        let Err(errno) = execve(&self.program, &self.arguments, &self.environment);
        errno
    }
}

fn without_nul(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| {
        let beginning = ByteString::from(&bytes[..bytes.len().min(80)]);
        Failure::Plan { reason: format!("'{beginning}' contains a NUL byte, which execve cannot pass") }
    })
}
