//! From limits as people say them to what the sandbox is told.

use super::ScratchPaths;
use crate::{
    limits::{ControlGroup, DecidedLimits, Enforcement, Limit, MachineResources, Origin, value},
    sandbox::{Limits, Resource, ResourceLimit, RootStep},
};

/// A build is killed before the programs of the person who runs it: the scale is -1000 to 1000, and a program that uses half of
/// the machine has 500 by itself.
const OOM_SCORE: u16 = 500;

/// Core dumps that are piped to a program of the host's are made whatever the limit is, but for this one (fs/coredump.c).
const NO_CORE_DUMPS: u64 = 1;

/// What the sandbox keeps of them.
pub(super) fn sandbox_limits(limits: &DecidedLimits, machine: &MachineResources, scratch: &ScratchPaths) -> Limits {
    let both = |resource: Resource, limit: Limit| {
        value(limits, limit).map(|value| ResourceLimit { resource, soft: Some(value), hard: Some(value) })
    };
    // A process may raise its soft limit of open files, as programs with many do, where nobody has said otherwise.
    let open_files = limits.get(&Limit::OpenFiles).and_then(|decided| {
        let soft = decided.value?;
        let hard = if decided.origin == Origin::Default { MOST_OPEN_FILES.max(soft) } else { soft };
        Some(ResourceLimit { resource: Resource::OpenFiles, soft: Some(soft), hard: Some(hard) })
    });
    let no_core = ResourceLimit { resource: Resource::Core, soft: Some(NO_CORE_DUMPS), hard: Some(NO_CORE_DUMPS) };
    let none = |resource| ResourceLimit { resource, soft: Some(0), hard: Some(0) };
    let resources = [
        Some(no_core),
        both(Resource::Processes, Limit::Processes),
        both(Resource::FileSize, Limit::FileSize),
        both(Resource::Data, Limit::Data),
        open_files,
        both(Resource::LockedMemory, Limit::LockedMemory),
        both(Resource::MessageQueues, Limit::MessageQueues),
        // Who may run in real time (as musicians may) gives that to no builder: it would have the machine for itself.
        Some(none(Resource::RealTimePriority)),
        Some(none(Resource::NicePriority)),
    ];
    let setting = |name: &str, limit| value(limits, limit).map(|value| (name.to_owned(), value));
    let settings = [
        setting("user/max_inotify_instances", Limit::InotifyInstances),
        setting("user/max_inotify_watches", Limit::InotifyWatches),
    ];
    let uses_group = limits.values().any(|decided| decided.enforcement == Enforcement::ControlGroup);
    Limits {
        deadline_seconds: value(limits, Limit::Time),
        silence_seconds: value(limits, Limit::Silence),
        log_bytes: value(limits, Limit::LogSize),
        memory_bytes: value(limits, Limit::Memory),
        processes: value(limits, Limit::Processes),
        scratch: vec![scratch.build.clone(), scratch.temporary.clone(), scratch.store.clone()],
        scratch_bytes: value(limits, Limit::ScratchSize),
        scratch_files: value(limits, Limit::ScratchFiles),
        control_group: match &machine.control_group {
            ControlGroup::Delegated { directory } if uses_group => Some(directory.clone()),
            ControlGroup::Delegated { directory: _ } | ControlGroup::Absent { why: _ } => None,
        },
        settings: settings.into_iter().flatten().collect(),
        oom_score: OOM_SCORE,
        resources: resources.into_iter().flatten().collect(),
    }
}

/// Kernel memory for descriptors is nobody's; this is what systemd gives everybody as hard limit.
const MOST_OPEN_FILES: u64 = 524_288;

/// Every tmpfs of a profile is made no larger than the limit says; a size in percent is of the machine's memory.
pub(super) fn limit_tmpfs(steps: &mut [RootStep], limits: &DecidedLimits, machine: &MachineResources) {
    let Some(decided) = limits.get(&Limit::SharedMemory) else { return };
    let Some(most) = decided.value else { return };
    for step in steps {
        if let RootStep::Tmpfs { path: _, mode: _, size } = step {
            let bytes = size_bytes(size, machine.memory_bytes);
            if bytes.is_none_or(|bytes| bytes > most) {
                *size = most.to_string();
            }
        }
    }
}

/// A size as tmpfs(5) takes it; `None` when it is something else.
fn size_bytes(size: &str, memory_bytes: u64) -> Option<u64> {
    if let Some(percent) = size.strip_suffix('%') {
        return Some(memory_bytes / 100 * percent.parse::<u64>().ok()?);
    }
    let digits = size.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let factor = match &size[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LimitSettings, decide, parse_setting};

    /// Attack: PROC-11, RES-7 (a person who may run in real time). Layer: RLIMIT_RTPRIO and RLIMIT_NICE of 0.
    #[test]
    fn no_builder_runs_in_real_time_or_before_others() {
        let nothing = LimitSettings::new();
        let machine = MachineResources::default();
        let limits = decide(&nothing, &nothing, &nothing, &machine);
        let path = || "/x".into();
        let scratch = ScratchPaths { root: path(), build: path(), temporary: path(), store: path() };
        let resources = sandbox_limits(&limits, &machine, &scratch).resources;
        for resource in [Resource::RealTimePriority, Resource::NicePriority] {
            let limit = resources.iter().find(|limit| limit.resource == resource).unwrap();
            assert_eq!((limit.soft, limit.hard), (Some(0), Some(0)), "{resource:?}");
        }
    }

    #[test]
    fn a_tmpfs_is_no_larger_than_it_may_be() {
        let machine = MachineResources { memory_bytes: 10_000, ..MachineResources::default() };
        let nothing = LimitSettings::new();
        let sizes = |yours: &[&str]| {
            let yours = yours.iter().map(|text| parse_setting(text).unwrap()).collect();
            let limits = decide(&yours, &nothing, &nothing, &machine);
            ["50%", "4k", "1m", "bad", "60%"].map(|size| {
                let mut steps = [RootStep::Tmpfs { path: "/x".into(), mode: 0o755, size: size.to_owned() }];
                limit_tmpfs(&mut steps, &limits, &machine);
                let [RootStep::Tmpfs { size, .. }] = &steps else { panic!("a tmpfs") };
                size.clone()
            })
        };
        assert_eq!(sizes(&[]), ["50%", "4k", "5000", "5000", "5000"]);
        assert_eq!(sizes(&["memory=4000"]), ["2000", "2000", "2000", "2000", "2000"]);
        assert_eq!(sizes(&["shared-memory=none"]), ["50%", "4k", "1m", "bad", "60%"]);
    }
}
