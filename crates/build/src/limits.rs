//! What a build might use and what it used, for the result; and the words for what was too much.

use crate::{outcome::Status, run::Ran};
use fodder_model::{
    limits::{ControlGroup, Decided, DecidedLimits, Enforcement, Limit, Origin, value},
    plan::BuildPlan,
};
use fodder_sandbox::{BuilderExit, BuilderReport};
use serde::Serialize;
use std::collections::BTreeMap;

/// The limits of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReport {
    /// Each by its name.
    pub limits: BTreeMap<Limit, LimitReport>,
    /// The control group's controllers; `None` when there was no control group.
    pub control_group: Option<Vec<String>>,
    /// Why there was none.
    pub no_control_group_because: Option<String>,
    /// The limit that ended the build.
    pub exceeded: Option<ExceededLimit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitReport {
    /// `null` is without limit.
    pub value: Option<u64>,
    /// Who said so.
    pub origin: Origin,
    /// Who kept it.
    pub enforcement: Enforcement,
    /// The most that was seen; `null` where nobody looked, or not in time.
    pub used: Option<u64>,
}

/// A limit that ended a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExceededLimit {
    /// Which.
    pub limit: Limit,
    /// What it allows.
    pub value: u64,
    /// What was used when it was noticed, where it is known.
    pub used: Option<u64>,
    /// How to raise it.
    pub flag: String,
}

/// For the result.
pub(crate) fn report(plan: &BuildPlan, report: &BuilderReport) -> LimitsReport {
    let used = |limit: Limit| match limit {
        Limit::Memory => report.used.memory_bytes,
        Limit::Processes => report.used.processes,
        Limit::ScratchSize => report.used.scratch_bytes,
        Limit::ScratchFiles => report.used.scratch_files,
        Limit::LogSize => Some(report.log_bytes),
        Limit::Time
        | Limit::Silence
        | Limit::LogFile
        | Limit::LogLine
        | Limit::FileSize
        | Limit::OutputSize
        | Limit::OutputFiles
        | Limit::SharedMemory
        | Limit::Data
        | Limit::OpenFiles
        | Limit::LockedMemory
        | Limit::MessageQueues
        | Limit::InotifyInstances
        | Limit::InotifyWatches => None,
    };
    let one = |(limit, decided): (&Limit, &Decided)| {
        let Decided { value, origin, enforcement } = *decided;
        let enforcement = in_force(*limit, enforcement, report);
        (*limit, LimitReport { value, origin, enforcement, used: used(*limit) })
    };
    let planned = match &plan.control_group {
        ControlGroup::Absent { why } => Some(why.clone()),
        ControlGroup::Delegated { directory: _ } => None,
    };
    LimitsReport {
        limits: plan.limits.iter().map(one).collect(),
        control_group: report.control_group.as_ref().map(|group| group.controllers.iter().cloned().collect()),
        no_control_group_because: report.control_group_refused.clone().or(planned),
        exceeded: exceeded(report.exit),
    }
}

/// Who kept it in the end: what was planned may not have been to be had.
fn in_force(limit: Limit, planned: Enforcement, report: &BuilderReport) -> Enforcement {
    let is_refused = |setting: &str| report.used.refused_settings.iter().any(|refused| refused == setting);
    if (limit == Limit::InotifyInstances && is_refused("user/max_inotify_instances"))
        || (limit == Limit::InotifyWatches && is_refused("user/max_inotify_watches"))
    {
        return Enforcement::Nothing;
    }
    if planned != Enforcement::ControlGroup || report.control_group.is_some() {
        return planned;
    }
    if limit == Limit::Processes { Enforcement::Rlimit } else { Enforcement::Watchdog }
}

fn exceeded(exit: BuilderExit) -> Option<ExceededLimit> {
    let (limit, value, used) = match exit {
        BuilderExit::OverLimit { limit, allowed, used } => (limit, allowed, Some(used)),
        BuilderExit::TimedOut { seconds } => (Limit::Time, seconds, Some(seconds)),
        BuilderExit::Silent { seconds } => (Limit::Silence, seconds, Some(seconds)),
        BuilderExit::LogLimitExceeded { bytes } => (Limit::LogSize, bytes, None),
        BuilderExit::Exited(_) | BuilderExit::Signaled(_) | BuilderExit::Cancelled => return None,
    };
    Some(ExceededLimit { limit, value, used, flag: limit.flag() })
}

/// `builder was killed: its memory, 9.1 GiB (…), went over the limit of 8 GiB`
pub(crate) fn exceeded_words(limit: Limit, allowed: u64, used: u64) -> String {
    let known = [
        (Limit::Memory, "its memory"),
        (Limit::Processes, "the number of its processes"),
        (Limit::ScratchSize, "what it wrote to disk"),
        (Limit::ScratchFiles, "the number of its files"),
    ];
    let what = known.iter().find(|(known, _)| *known == limit).map_or(limit.name(), |(_, words)| words);
    format!("builder was killed: {what}, {}, went over the limit of {}", limit.words(used), limit.words(allowed))
}

/// What the reader of a failure should know about limits.
pub(crate) fn notes(plan: &BuildPlan, ran: &Ran, status: Status) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(refused) = &ran.report.control_group_refused {
        notes.push(format!("{refused}; memory and processes are watched instead"));
    }
    if status == Status::Built {
        return notes;
    }
    if let Some(ExceededLimit { limit, flag, value: _, used: _ }) = exceeded(ran.report.exit) {
        let origin = match plan.limits.get(&limit).map(|decided| decided.origin) {
            Some(Origin::File) => "the file sets this limit itself",
            Some(Origin::Profile) => "the profile sets this limit",
            Some(Origin::You) => "you set this limit",
            Some(Origin::Default) | None => "this is the default",
        };
        notes.push(format!("{origin}; {flag} changes it, `none` lifts it"));
        return notes;
    }
    notes.extend(refusals(&plan.limits, ran));
    notes
}

/// Limits that do not end a build but refuse it something: what programs say then, beside what was seen.
fn refusals(limits: &DecidedLimits, ran: &Ran) -> Vec<String> {
    let says = |words: &[&str]| ran.tail.iter().any(|line| words.iter().any(|words| line.contains(words)));
    let mut notes = Vec::new();
    let counted = ran.report.control_group.as_ref().is_some_and(|group| group.refused_processes > 0);
    let near = value(limits, Limit::Processes)
        .is_some_and(|limit| ran.report.used.processes.is_some_and(|used| used >= limit - limit / 10));
    if let Some(limit) = value(limits, Limit::Processes)
        && (counted || near || says(&["fork: Resource temporarily unavailable", "can't fork"]))
    {
        notes.push(format!("a build may have {limit} processes and threads; {} changes that", Limit::Processes.flag()));
    }
    if let Some(limit) = value(limits, Limit::FileSize)
        && says(&["File size limit exceeded", "File too large"])
    {
        let limit = Limit::FileSize.words(limit);
        notes.push(format!("one file may have {limit}; {} changes that", Limit::FileSize.flag()));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_the_limit_its_value_and_what_was_used() {
        assert_eq!(
            exceeded_words(Limit::Memory, 8 << 30, 9 << 30),
            "builder was killed: its memory, 9 GiB, went over the limit of 8 GiB"
        );
        assert_eq!(
            exceeded_words(Limit::ScratchFiles, 10, 11),
            "builder was killed: the number of its files, 11, went over the limit of 10"
        );
        let exceeded = exceeded(BuilderExit::TimedOut { seconds: 3 }).expect("a limit");
        assert_eq!((exceeded.limit, exceeded.flag.as_str()), (Limit::Time, "--limit time=VALUE"));
        assert_eq!(super::exceeded(BuilderExit::Exited(1)), None);
    }
}
