//! When and where the builder runs is not inherited: a runner in real time must not make builders that freeze the machine, nor
//! one on a single processor builds that believe the machine to have one.

use crate::{
    sys,
    wire::{Doing, Failure},
};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    sys::prctl,
    unistd::Pid,
};
use rustix::process::{getpriority_process, setpriority_process};
use std::fs;

/// What the kernel gives the first process, in nanoseconds.
pub(crate) const TIMER_SLACK: i32 = 50_000;

pub(super) fn reset() -> Result<(), Failure> {
    sys::schedule_normally().doing("leaving the scheduling policy")?;
    // Lowering the nice value takes a privilege, so that what `nice fodder build` asked for stays for those without it.
    if getpriority_process(None).doing("reading the nice value")? != 0 {
        match setpriority_process(None, 0) {
            Ok(()) | Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {}
            Err(errno) => return Err(errno).doing("resetting the nice value"),
        }
    }
    sys::forget_io_priority().doing("resetting the I/O priority")?;
    let mut all = CpuSet::new();
    for processor in 0..CpuSet::count() {
        all.set(processor).doing("listing processors")?;
    }
    match sched_setaffinity(Pid::this(), &all) {
        // A mask of fewer processors than this machine has is refused by very large machines only.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(errno).doing("resetting the processors"),
    }
    prctl::set_timerslack(TIMER_SLACK as u64).doing("resetting the timer slack")?;
    let score = fs::read_to_string("/proc/self/oom_score_adj").doing("reading the out-of-memory score")?;
    // Raising it is everybody's right. One that is raised already is left: the runner wants to survive its builds.
    if score.trim().starts_with('-') {
        fs::write("/proc/self/oom_score_adj", "0").doing("resetting the out-of-memory score")?;
    }
    Ok(())
}
