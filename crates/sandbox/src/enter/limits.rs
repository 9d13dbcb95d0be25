//! What setrlimit(2) limits. The limits on time and log are kept by the helper and the runner.

use crate::wire::{Doing, Failure};
use fodder_model::sandbox::{Limits, Resource, ResourceLimit};
use nix::sys::resource::{self, getrlimit, setrlimit};

/// Gives the runner's limit of open files back, then sets those of the plan.
pub(super) fn apply(limits: &Limits, (soft, hard): (u64, u64)) -> Result<(), Failure> {
    setrlimit(resource::Resource::RLIMIT_NOFILE, soft, hard).doing("restoring the limit of open files")?;
    let Limits { deadline_seconds: _, silence_seconds: _, log_bytes: _, resources } = limits;
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
    }
}
