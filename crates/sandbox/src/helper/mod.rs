//! The helper: a single-threaded program that forgets the host, makes the namespaces, forks PID 1 and watches it.
//! It is the only parent of the builder, so that its death, of whatever cause, is the builder's.

mod door;
mod forget;
mod identity;
mod namespaces;
mod netlink;
mod outer;
mod redirect;
mod scheduling;
mod scratch;
mod settings;
mod sources;
mod watch;
mod watchdog;

pub(crate) use door::raise_loopback;
pub(crate) use namespaces::{NamespaceIds, new_cgroup_namespace};
pub(crate) use scheduling::TIMER_SLACK;
pub(crate) use sources::Sources;

use crate::{
    InternalProgram,
    enter::{self, Entry},
    report::SessionKeyring,
    seccomp,
    steps::{LeftOut, SetupStep},
    sys::{self, fork_single_threaded},
    wire::{Doing, Failure, HelperWord, RunnerWord, receive, send, socket_pair},
};
use fodder_model::{
    bytes::ByteString,
    sandbox::{Namespace, SandboxPlan},
};
use nix::{
    sys::{prctl, signal::Signal},
    unistd::{ForkResult, Pid},
};
use rustix::process::{Pid as PidNumber, PidfdFlags, pidfd_open};
use std::{fs::File, io::Read, os::fd::OwnedFd};

/// Runs the helper to its end and tells the runner about it. Returns when there is nothing left to say.
pub(crate) fn run(internal_programs: &[InternalProgram], left_out: LeftOut<'_>) {
    // Before anything is opened; what went wrong with it is told once there is somebody to tell.
    let closed = left_out.step(SetupStep::CloseInherited, forget::close_inherited);
    let Ok(runner) = forget::take_report_socket() else {
        // Standard output cannot be duplicated, so somebody started this by hand. There is nobody to tell.
        return;
    };
    let last_word = match closed.and_then(|()| carry_out(&runner, internal_programs, left_out)) {
        Ok(finished) => finished,
        Err(failure) => HelperWord::Failed(failure),
    };
    // When the runner is gone there is nobody to tell, and the builder is dead already.
    let _ = send(&runner, &last_word, None);
}

fn carry_out(
    runner: &OwnedFd,
    internal_programs: &[InternalProgram],
    left_out: LeftOut<'_>,
) -> Result<HelperWord, Failure> {
    forget::forget_the_host(left_out)?;
    let (plan, control_group) = hear(runner)?;
    check_namespaces(&plan)?;
    let filter = seccomp::compile(&plan.seccomp, seccomp::HERE).map_err(|reason| Failure::Plan { reason })?;
    let outer_keyring = sys::session_keyring().ok();
    let session_keyring = match left_out.keeps(SetupStep::SessionKeyring) {
        true => forget::leave_session_keyring()?,
        false => SessionKeyring::New,
    };
    let open_files = forget::raise_open_files()?;
    let control_group = control_group.map(|directory| forget::open_control_group(directory.as_path())).transpose()?;

    let outer_namespaces = NamespaceIds::read()?;
    let supplementary_groups_dropped = identity::enter_user_namespace(&plan.identity, left_out)?;
    let outer = outer::go_on_as_first_process(runner)?;
    // While its files in /proc are still the caller's.
    let mut oom_score = settings::OomScore::open()?;
    namespaces::unshare_the_rest(&plan.namespaces, left_out)?;
    if let Some(door) = &plan.door {
        for (purpose, socket) in door::open(door)? {
            send(runner, &HelperWord::Door(purpose), Some(&socket)).doing("handing out the door")?;
        }
    }
    let sources = Sources::open(&plan)?;
    let scratch = scratch::Scratch::open(&plan.limits)?;
    identity::become_inside_ids(&plan.identity, left_out)?;
    let refused_settings = settings::apply(&plan.limits.settings)?;
    left_out.step(SetupStep::DieWithRunner, || outer::die_with(runner, &outer))?;
    if prctl::get_pdeathsig().doing("asking what ties the helper to the runner")? != Some(Signal::SIGKILL) {
        return Err(Failure::Check { finding: "the helper would outlive the runner".into() });
    }

    let helper = pidfd_open(number_of(Pid::this())?, PidfdFlags::empty()).doing("opening a pidfd of the helper")?;
    let (helper_end, builder_end) = socket_pair().doing("making the private channel")?;
    oom_score.raise(plan.limits.oom_score)?;
    match fork_single_threaded().doing("forking the builder")? {
        ForkResult::Child => {
            drop(helper_end);
            enter::become_the_builder(Entry {
                plan: &plan,
                internal_programs,
                filter: filter.as_deref(),
                sources,
                helper,
                channel: builder_end,
                outer_namespaces,
                open_files,
                session_keyring,
                outer_keyring,
                supplementary_groups_dropped,
                control_group,
                left_out,
            })
        }
        ForkResult::Parent { child } => {
            drop((builder_end, sources, control_group));
            oom_score.restore()?;
            forget::let_go_of_the_log()?;
            let watchdog = watchdog::Watchdog::new(&plan, scratch, refused_settings);
            watch::watch(number_of(child)?, runner, &helper_end, plan.limits.deadline_seconds, watchdog)
        }
    }
}

/// Waits for what the runner has to say. When that is nothing, there is nobody to tell either.
fn hear(runner: &OwnedFd) -> Result<(SandboxPlan, Option<ByteString>), Failure> {
    loop {
        match receive(runner).doing("listening to the runner")? {
            Some((RunnerWord::Log, Some(log))) => forget::take_log(&log)?,
            Some((RunnerWord::Plan { control_group }, Some(plan))) => return Ok((read_plan(plan)?, control_group)),
            Some((RunnerWord::Log | RunnerWord::Plan { .. }, None)) => {
                return Err(Failure::Plan { reason: "it came without its descriptor".to_owned() });
            }
            None => crate::leave(0),
        }
    }
}

fn read_plan(file: OwnedFd) -> Result<SandboxPlan, Failure> {
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).doing("reading the plan")?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Plan { reason: format!("not a sandbox plan: {error}") })
}

/// Without these three a step of the root or a stray process would be the host's.
fn check_namespaces(plan: &SandboxPlan) -> Result<(), Failure> {
    for namespace in [Namespace::User, Namespace::Mount, Namespace::Pid] {
        if !plan.namespaces.contains(&namespace) {
            return Err(Failure::Plan { reason: format!("its namespaces lack {namespace:?}") });
        }
    }
    if plan.door.is_some() && !plan.namespaces.contains(&Namespace::Network) {
        return Err(Failure::Plan { reason: "it has a door, and the host's network".to_owned() });
    }
    Ok(())
}

/// The type that the pidfd calls take.
fn number_of(process: Pid) -> Result<PidNumber, Failure> {
    PidNumber::from_raw(process.as_raw())
        .ok_or_else(|| Failure::Check { finding: format!("{process} is not a process number") })
}
