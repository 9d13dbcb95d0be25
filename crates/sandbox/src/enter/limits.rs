//! What setrlimit(2) limits, and whom the kernel kills first. Other limits are kept by the helper and the runner.

use crate::wire::{Doing, Failure};
use fodder_model::sandbox::{Limits, Resource, ResourceLimit};
use nix::sys::resource::{self, getrlimit, setrlimit};
use std::{fs::File, io::Write, os::fd::OwnedFd};

/// Gives the runner's limit of open files back, then sets those of the plan.
pub(super) fn apply(limits: &Limits, (soft, hard): (u64, u64)) -> Result<(), Failure> {
    setrlimit(resource::Resource::RLIMIT_NOFILE, soft, hard).doing("restoring the limit of open files")?;
    let Limits {
        deadline_seconds: _,
        silence_seconds: _,
        log_bytes: _,
        memory_bytes: _,
        processes: _,
        scratch: _,
        scratch_bytes: _,
        scratch_files: _,
        control_group: _,
        settings: _,
        oom_score: _,
        resources,
    } = limits;
    for ResourceLimit { resource, soft, hard } in resources {
        let doing = format!("limiting {resource:?}");
        let (soft_now, hard_now) = getrlimit(kernel_name(*resource)).doing(&doing)?;
        // Raising a hard limit needs a privilege that nobody has in a user namespace.
        let hard = hard.unwrap_or(hard_now).min(hard_now);
        let soft = soft.unwrap_or(soft_now).min(hard);
        setrlimit(kernel_name(*resource), soft, hard).doing(&doing)?;
    }
    Ok(())
}

/// Enters the control group that the runner made; from here on everything is counted there.
pub(super) fn enter_control_group(processes: OwnedFd) -> Result<(), Failure> {
    File::from(processes).write_all(b"0").doing("entering the control group")
}

/// Whether a limit is as the plan wants it, or lower.
pub(super) fn holds(wanted: &ResourceLimit) -> Result<bool, Failure> {
    let ResourceLimit { resource, soft, hard } = wanted;
    let (soft_now, hard_now) = getrlimit(kernel_name(*resource)).doing(format!("reading the limit of {resource:?}"))?;
    Ok(soft.is_none_or(|soft| soft_now <= soft) && hard.is_none_or(|hard| hard_now <= hard))
}

fn kernel_name(resource: Resource) -> resource::Resource {
    match resource {
        Resource::Core => resource::Resource::RLIMIT_CORE,
        Resource::Stack => resource::Resource::RLIMIT_STACK,
        Resource::OpenFiles => resource::Resource::RLIMIT_NOFILE,
        Resource::Processes => resource::Resource::RLIMIT_NPROC,
        Resource::FileSize => resource::Resource::RLIMIT_FSIZE,
        Resource::Data => resource::Resource::RLIMIT_DATA,
        Resource::LockedMemory => resource::Resource::RLIMIT_MEMLOCK,
        Resource::MessageQueues => resource::Resource::RLIMIT_MSGQUEUE,
        Resource::RealTimePriority => resource::Resource::RLIMIT_RTPRIO,
        Resource::NicePriority => resource::Resource::RLIMIT_NICE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_higher_than_wanted_does_not_hold() {
        let (soft, hard) = getrlimit(resource::Resource::RLIMIT_NOFILE).unwrap();
        let holds = |soft, hard| holds(&ResourceLimit { resource: Resource::OpenFiles, soft, hard }).unwrap();
        assert!(
            holds(Some(soft), Some(hard)) && holds(None, Some(hard)) && holds(Some(soft), None) && holds(None, None)
        );
        assert!(!holds(Some(soft - 1), Some(hard)) && !holds(Some(soft), Some(hard - 1)));
    }
}
