//! Looking several times a second at what the kernel does not limit without a control group: the memory of all processes
//! together, their number, and what lies in the scratch directories.
//!
//! What is seen is at most a quarter of a second old, and looking takes at most a small part of one processor. This is not a wall:
//! memory that belongs to no process (of pipes, sockets, unmapped shared segments) is not seen.

use super::scratch::{Pressure, Scratch};
use crate::{report::Used, wire::Ending};
use fodder_model::{
    limits::Limit,
    sandbox::{RootStep, SandboxPlan},
};
use nix::unistd::{SysconfVar, sysconf};
use rustix::fs::{Dir, Mode, OFlags, fstatvfs, open, openat};
use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// How often somebody looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// How often when more than half of something is used: a processor fills gigabytes in a second.
const SHORT_INTERVAL: Duration = Duration::from_millis(25);

/// A look may take at most one part in so many of the time,
const SHARE: u32 = 20;

/// but the next one is never further away: a build can make looks slow.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// How long shared pages may be told apart in one look. A process with very many mappings takes a tenth of a second.
const SHARING_BUDGET: Duration = Duration::from_secs(1);

/// What a file of a tmpfs takes beside its contents: an inode and a name.
const TMPFS_FILE_BYTES: u64 = 1024;

pub(super) struct Watchdog {
    memory_bytes: Option<u64>,
    processes: Option<u64>,
    /// Paths inside, which are those of this process too once the root has been exchanged.
    proc_path: Option<Vec<u8>>,
    tmpfs_paths: Vec<Vec<u8>>,
    proc: Option<OwnedFd>,
    tmpfs: Vec<OwnedFd>,
    scratch: Option<Scratch>,
    page_bytes: u64,
    next: Option<Instant>,
    used: Used,
}

impl Watchdog {
    pub(super) fn new(plan: &SandboxPlan, scratch: Option<Scratch>, refused_settings: Vec<String>) -> Self {
        let mut proc_path = None;
        let mut tmpfs_paths = Vec::new();
        for step in &plan.root {
            match step {
                RootStep::Proc { path } => proc_path = Some(path.to_vec()),
                RootStep::Tmpfs { path, mode: _, size: _ } => tmpfs_paths.push(path.to_vec()),
                RootStep::Directory { .. }
                | RootStep::File { .. }
                | RootStep::Symlink { .. }
                | RootStep::Bind { .. }
                | RootStep::Pts { .. }
                | RootStep::Mode { .. }
                | RootStep::ReadOnly { .. } => {}
            }
        }
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok());
        Watchdog {
            memory_bytes: plan.limits.memory_bytes,
            processes: plan.limits.processes,
            proc_path,
            tmpfs_paths,
            proc: None,
            tmpfs: Vec::new(),
            scratch,
            page_bytes: page_bytes.unwrap_or(4096),
            next: None,
            used: Used { refused_settings, ..Used::default() },
        }
    }

    /// The builder's root stands, and this process is in it as well (pivot_root(2) moves everybody): its procfs shows the
    /// processes of the build and no others.
    pub(super) fn start(&mut self) {
        let directory = |path: &[u8]| {
            open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()
        };
        self.proc = self.proc_path.as_deref().and_then(directory);
        self.tmpfs = self.tmpfs_paths.iter().filter_map(|path| directory(path)).collect();
        if self.proc.is_some() || self.scratch.is_some() {
            self.next = Instant::now().checked_add(INTERVAL);
        }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn into_used(self) -> Used {
        self.used
    }

    /// Looks if it is time to; returns how the build is to end if it must.
    pub(super) fn look(&mut self) -> Option<Ending> {
        let started = Instant::now();
        if self.next.is_none_or(|next| started < next) {
            return None;
        }
        let (over, is_near) = match self.look_at_processes() {
            (None, near) => {
                let (over, scratch_near) = self.look_at_scratch();
                (over, near || scratch_near)
            }
            found => found,
        };
        let interval = if is_near { SHORT_INTERVAL } else { INTERVAL };
        self.next = Instant::now().checked_add(interval.max(started.elapsed() * SHARE).min(LONGEST_INTERVAL));
        over.map(|(limit, allowed, used)| Ending::OverLimit { limit, allowed, used })
    }

    /// What is exceeded, and whether something soon could be.
    fn look_at_processes(&mut self) -> (Option<(Limit, u64, u64)>, bool) {
        let Some(proc) = &self.proc else { return (None, false) };
        let processes = processes(proc.as_fd());
        let count: u64 = processes.iter().map(|process| process.threads).sum();
        let tmpfs: u64 = self.tmpfs.iter().map(tmpfs_bytes).sum();
        let resident: u64 = processes.iter().map(|process| process.resident_pages * self.page_bytes).sum();
        self.used.processes = self.used.processes.max(Some(count));
        if let Some(allowed) = self.processes.filter(|allowed| count > *allowed) {
            return (Some((Limit::Processes, allowed, count)), false);
        }
        // Pages that processes share count for each here; only where that is too much they are told apart, which takes longer.
        let mut memory = resident + tmpfs;
        if let Some(allowed) = self.memory_bytes
            && memory > allowed / 2
        {
            let until = Instant::now() + SHARING_BUDGET;
            let own = |process| own_bytes(proc.as_fd(), process, self.page_bytes, until);
            let own: u64 = processes.iter().map(own).sum();
            memory = own + tmpfs;
            self.used.memory_bytes = self.used.memory_bytes.max(Some(memory));
            if memory > allowed {
                return (Some((Limit::Memory, allowed, memory)), false);
            }
            return (None, memory > allowed / 2);
        }
        self.used.memory_bytes = self.used.memory_bytes.max(Some(memory));
        (None, false)
    }

    fn look_at_scratch(&mut self) -> (Option<(Limit, u64, u64)>, bool) {
        let Some(scratch) = &mut self.scratch else { return (None, false) };
        let Pressure { bytes, files, over, is_near } = scratch.look(self.proc.as_ref());
        self.used.scratch_bytes = self.used.scratch_bytes.max(bytes);
        self.used.scratch_files = self.used.scratch_files.max(files);
        (over, is_near)
    }
}

/// One process, as `/proc/PID/stat` tells.
struct OneProcess {
    /// Its directory in `/proc`: that of a thread which has not ended.
    place: String,
    threads: u64,
    resident_pages: u64,
}

fn processes(proc: BorrowedFd<'_>) -> Vec<OneProcess> {
    process_ids(proc)
        .into_iter()
        .filter_map(|id| {
            let text = read(proc, &format!("{id}/stat"))?;
            let Stat { has_ended, threads, resident_pages } = parse_stat(&text)?;
            if has_ended && let Some((place, resident_pages)) = living_thread(proc, &id) {
                return Some(OneProcess { place, threads, resident_pages });
            }
            Some(OneProcess { place: id, threads, resident_pages })
        })
        .collect()
}

/// A thread of a process whose first one has ended: its directory, and the resident pages, which only it still tells of.
pub(super) fn living_thread(proc: BorrowedFd<'_>, id: &str) -> Option<(String, u64)> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let threads = openat(proc, format!("{id}/task"), directory, Mode::empty()).ok()?;
    process_ids(threads.as_fd()).into_iter().find_map(|thread| {
        let place = format!("{id}/task/{thread}");
        let stat = parse_stat(&read(proc, &format!("{place}/stat"))?)?;
        (!stat.has_ended).then_some((place, stat.resident_pages))
    })
}

/// Names of the processes' directories.
pub(super) fn process_ids(proc: BorrowedFd<'_>) -> Vec<String> {
    let Ok(entries) = Dir::read_from(proc) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

fn read(proc: BorrowedFd<'_>, path: &str) -> Option<String> {
    let file = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(16 * 1024).read_to_end(&mut bytes).ok()?;
    // A process names itself, in any bytes that it likes.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What proc_pid_stat(5) says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Of a process, its first thread; others may go on.
    has_ended: bool,
    threads: u64,
    resident_pages: u64,
}

/// Fields 3, 20 and 24. The second field is the process's own choice and ends with the last parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let threads = fields.nth(16)?.parse().ok()?;
    // Negative for a moment while pages are accounted.
    let resident = fields.nth(3)?.parse::<i64>().ok()?;
    Some(Stat { has_ended, threads, resident_pages: u64::try_from(resident).unwrap_or(0) })
}

/// What a process has for itself, and its part of what it shares. Where that is not told, or there is no time to ask, all of what it has.
/// Files are left out: their pages can be dropped at any time.
fn own_bytes(proc: BorrowedFd<'_>, process: &OneProcess, page_bytes: u64, until: Instant) -> u64 {
    let sum = |file: &str, names: [&str; 3]| {
        read(proc, &format!("{}/{file}", process.place)).and_then(|text| sum_of_kibibytes(&text, names))
    };
    let parts =
        if Instant::now() < until { sum("smaps_rollup", ["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]) } else { None };
    let whole = || sum("status", ["RssAnon:", "RssShmem:", "VmSwap:"]);
    parts.or_else(whole).unwrap_or(process.resident_pages * page_bytes)
}

/// The last one may be missing.
fn sum_of_kibibytes(text: &str, [anonymous, shared, swapped]: [&str; 3]) -> Option<u64> {
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kibibytes(anonymous)? + kibibytes(shared)? + kibibytes(swapped).unwrap_or(0)) * 1024)
}

fn tmpfs_bytes(descriptor: &OwnedFd) -> u64 {
    fstatvfs(descriptor).map_or(0, |status| {
        let blocks = status.f_blocks.saturating_sub(status.f_bfree);
        let files = status.f_files.saturating_sub(status.f_ffree);
        blocks.saturating_mul(status.f_frsize).saturating_add(files.saturating_mul(TMPFS_FILE_BYTES))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_cannot_forge_its_numbers_by_its_name() {
        let fields = "R 1 1 1 0 -1 4194560 96 0 0 0 0 0 0 0 20 0 7 0 1000 2646016 300 184467";
        for name in ["sh", "a) R 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 0 0 9999", ")))", "", "\u{fffd}"] {
            let wanted = Stat { has_ended: false, threads: 7, resident_pages: 300 };
            assert_eq!(parse_stat(&format!("12 ({name}) {fields}")), Some(wanted), "{name}");
        }
        assert_eq!(parse_stat("12 (x) R 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn shared_pages_count_once_and_files_not_at_all() {
        let text =
            "Rss: 9000 kB\nPss: 5000 kB\nPss_Anon:   1000 kB\nPss_File: 3000 kB\nPss_Shmem:  24 kB\nSwapPss: 6 kB\n";
        let names = ["Pss_Anon:", "Pss_Shmem:", "SwapPss:"];
        assert_eq!(sum_of_kibibytes(text, names), Some(1030 * 1024));
        assert_eq!(sum_of_kibibytes("Pss: 1 kB", names), None);
    }
}
