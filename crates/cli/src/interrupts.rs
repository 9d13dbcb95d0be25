//! Interruptions: `SIGINT`, `SIGTERM` and `SIGHUP` end a run as they end Nix's, with its words and its exit code, and without
//! leaving anything behind.
//!
//! They are blocked in every thread and waited for in one, so that no system call of ours is ever interrupted in the middle. While
//! a builder runs it is killed and everything is put away; at any other time there is nothing that the next run would not put away
//! just as well, so the process ends at once. So does a second signal.

use crate::words::print_note;
use fodder_build::Event;
use fodder_sandbox::Canceller;
use nix::sys::signal::{SigSet, Signal};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Nix's words.
pub(crate) const WORDS: &str = "error: interrupted by the user";

/// Nix's exit code.
pub(crate) const CODE: u8 = 1;

/// How long killing a builder and removing its files may take before the next run has to do it.
const PATIENCE: Duration = Duration::from_secs(20);

static BUILD: Mutex<Option<Canceller>> = Mutex::new(None);

/// Whether a builder runs, or something is put away after one.
static IS_BUILDING: AtomicBool = AtomicBool::new(false);

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Listens from now on. Call it before there are other threads.
pub(crate) fn listen() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // nohup(1) ignores it, and means it. That background jobs of scripts ignore SIGINT is not the wish of a person.
    if !is_ignored(Signal::SIGHUP) {
        signals.add(Signal::SIGHUP);
    }
    if signals.thread_block().is_err() {
        return;
    }
    let wait = move || {
        while signals.wait().is_ok() {
            if IS_INTERRUPTED.swap(true, Ordering::SeqCst) {
                end();
            }
            let build = BUILD.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match build {
                Some(canceller) if IS_BUILDING.load(Ordering::SeqCst) => canceller.cancel(),
                Some(_) | None => end(),
            }
            std::thread::spawn(|| {
                std::thread::sleep(PATIENCE);
                end();
            });
        }
    };
    if std::thread::Builder::new().name("interrupts".to_owned()).spawn(wait).is_err() {
        // Better to die without cleaning up than not to die.
        let _ = signals.thread_unblock();
    }
}

/// From now on an interruption ends this build.
pub(crate) fn watch_over(canceller: Canceller) {
    *BUILD.lock().unwrap_or_else(PoisonError::into_inner) = Some(canceller);
}

/// Follows what a build is doing.
pub(crate) fn observe(event: &Event) {
    match event {
        Event::Started | Event::Log(_) | Event::Inspecting => IS_BUILDING.store(true, Ordering::SeqCst),
        Event::WaitingFor(_) | Event::Fetch(_) => IS_BUILDING.store(false, Ordering::SeqCst),
    }
}

/// Whether somebody has asked for the end.
pub(crate) fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::SeqCst)
}

#[expect(clippy::exit, reason = "the other threads are in system calls that nothing else ends")]
fn end() -> ! {
    print_note(WORDS);
    std::process::exit(i32::from(CODE))
}

/// Whether the caller has us ignore a signal; proc_pid_status(5).
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal as u32 - 1)) != 0
}
