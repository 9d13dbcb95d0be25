//! A control group (version 2) for one build, made below one that was delegated to us, see cgroups(7) and systemd's
//! `CGROUP_DELEGATION.md`. The runner makes it, the builder-to-be enters it, the runner reads what was used, kills whatever could
//! still be in it, and removes it. Its directory is locked for as long as the runner lives; the next run removes what is not.

use crate::report::GroupReport;
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Groups of builds.
const BUILD_PREFIX: &str = "fodder-build-";

/// Where the runner goes that is alone in the group it divides: a group with processes in it can give nothing to others.
pub(crate) const RUNNER_PREFIX: &str = "fodder-runner-";

/// What we want to limit.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// How long killed processes may take to leave their group.
const PATIENCE: Duration = Duration::from_secs(5);

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How many groups this process has; locked while one is made or removed.
static LIVE: Mutex<u32> = Mutex::new(0);

/// The group of one build; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    path: PathBuf,
    /// Locked.
    _directory: OwnedFd,
}

impl ControlGroup {
    /// Makes a group below `parent` with these limits.
    pub(crate) fn create(parent: &Path, memory: Option<u64>, processes: Option<u64>) -> io::Result<Self> {
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        remove_stale(parent)?;
        share_controllers(parent)?;
        let group = loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{BUILD_PREFIX}{}-{number}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // Somebody who removes stale groups may have seen it before it was locked.
            match lock(&path) {
                Ok(Some(directory)) if path.exists() => {
                    *live += 1;
                    break ControlGroup { path, _directory: directory };
                }
                Ok(_) | Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
        };
        limit(&group.path, memory, processes)?;
        Ok(group)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was used, when everybody is gone.
    pub(crate) fn report(&self) -> GroupReport {
        let text = |file: &str| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let number = |file: &str| text(file).trim().parse().ok();
        let micros = |name: &str| field(&text("cpu.stat"), name).map(Duration::from_micros);
        GroupReport {
            controllers: words(&self.path.join("cgroup.controllers")).unwrap_or_default(),
            memory_peak_bytes: number("memory.peak"),
            processes_peak: number("pids.peak"),
            out_of_memory_kills: field(&text("memory.events"), "oom_kill").unwrap_or(0),
            refused_processes: field(&text("pids.events"), "max").unwrap_or(0),
            cpu_user: micros("user_usec"),
            cpu_system: micros("system_usec"),
        }
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be removed now is found by a later run.
        let _ = kill_and_remove(&self.path);
        *live -= 1;
        if let (0, Some(parent)) = (*live, self.path.parent()) {
            let _ = move_back(parent);
        }
    }
}

/// Sets the limits of a group, as far as it has controllers.
fn limit(group: &Path, memory: Option<u64>, processes: Option<u64>) -> io::Result<()> {
    let controllers = words(&group.join("cgroup.controllers"))?;
    if let Some(bytes) = memory.filter(|_| controllers.contains("memory")) {
        write(&group.join("memory.max"), &bytes.to_string())?;
        for (file, value) in [("memory.swap.max", "0"), ("memory.oom.group", "1")] {
            match write(&group.join(file), value) {
                // Both are missing in some kernels: without swap accounting, and before Linux 4.19.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                written => written?,
            }
        }
    }
    if let Some(count) = processes.filter(|_| controllers.contains("pids")) {
        write(&group.join("pids.max"), &count.to_string())?;
    }
    Ok(())
}

/// Makes the controllers available below `parent`, leaving it first if this process is the only one in it.
fn share_controllers(parent: &Path) -> io::Result<()> {
    let wanted: Vec<&str> = missing_controllers(parent)?;
    if wanted.is_empty() {
        return Ok(());
    }
    let line: String = wanted.iter().map(|name| format!("+{name} ")).collect();
    let control = parent.join("cgroup.subtree_control");
    match write(&control, line.trim_end()) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && is_alone(parent)? => {
            let own = parent.join(format!("{RUNNER_PREFIX}{}", process::id()));
            match fs::create_dir(&own) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            write(&own.join("cgroup.procs"), &process::id().to_string())?;
            // A thread of ours that is ending stays where it was until it has ended, and keeps the group busy.
            let until = Instant::now() + PATIENCE;
            loop {
                match write(&control, line.trim_end()) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    written => return written,
                }
            }
        }
        written => written,
    }
}

/// Undoes what dividing a group took, when nobody uses it: who comes into the group later finds it as it was.
fn move_back(parent: &Path) -> io::Result<()> {
    let own = parent.join(format!("{RUNNER_PREFIX}{}", process::id()));
    if !own.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with(BUILD_PREFIX) {
            return Ok(());
        }
    }
    let gives = words(&parent.join("cgroup.subtree_control"))?;
    let line: String =
        CONTROLLERS.iter().filter(|name| gives.contains(**name)).map(|name| format!("-{name} ")).collect();
    write(&parent.join("cgroup.subtree_control"), line.trim_end())?;
    write(&parent.join("cgroup.procs"), &process::id().to_string())?;
    fs::remove_dir(own)
}

/// Controllers that are there and not yet given to groups below.
fn missing_controllers(parent: &Path) -> io::Result<Vec<&'static str>> {
    let has = words(&parent.join("cgroup.controllers"))?;
    let gives = words(&parent.join("cgroup.subtree_control"))?;
    Ok(CONTROLLERS.into_iter().filter(|name| has.contains(*name) && !gives.contains(*name)).collect())
}

fn is_alone(group: &Path) -> io::Result<bool> {
    let own = process::id().to_string();
    Ok(words(&group.join("cgroup.procs"))?.iter().all(|id| *id == own))
}

/// Removes groups of runs that were killed, with everything that could still be in them.
pub(crate) fn remove_stale(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(RUNNER_PREFIX) {
            // Refused while somebody is in it.
            let _ = fs::remove_dir(entry.path());
        } else if name.starts_with(BUILD_PREFIX) {
            // Otherwise its runner lives, or somebody else removes it.
            if let Ok(Some(_locked)) = lock(&entry.path()) {
                kill_and_remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// The directory, locked; `None` when somebody else has it.
fn lock(path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(directory)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error),
    }
}

fn kill_and_remove(path: &Path) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                kill_all(path)?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

/// `cgroup.kill` came with Linux 5.14; before, whoever is there is killed one by one.
fn kill_all(path: &Path) -> io::Result<()> {
    match write(&path.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        killed => return killed,
    }
    for id in words(&path.join("cgroup.procs"))? {
        let id = id.parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

fn words(path: &Path) -> io::Result<BTreeSet<String>> {
    Ok(fs::read_to_string(path)?.split_whitespace().map(str::to_owned).collect())
}

/// The number beside a name, in files with one of each on a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(events, "oom"), Some(3));
        assert_eq!(field(events, "oom_kill"), Some(2));
        assert_eq!(field(events, "kill"), None);
        assert_eq!(field("", "max"), None);
    }

    /// Attack: RES-3, RES-5. Layer: memory.max without swap, pids.max. Files with the kernel's names: many machines have the controllers
    /// in version 1, where nothing can be tried.
    #[test]
    fn limits_are_written_where_the_kernel_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files = ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max"];
        let contents = || files.map(|name| fs::read_to_string(path(name)).unwrap_or_else(|_| "absent".to_owned()));
        fs::write(path("cgroup.controllers"), "cpu memory pids\n").unwrap();
        assert!(limit(directory.path(), Some(5), None).is_err(), "a controller without its file");
        files.iter().for_each(|name| fs::write(path(name), "").unwrap());
        limit(directory.path(), None, None).unwrap();
        assert_eq!(contents(), ["", "", "", ""]);
        limit(directory.path(), Some(5 << 30), Some(77)).unwrap();
        assert_eq!(contents(), ["5368709120", "0", "1", "77"]);
        fs::remove_file(path("memory.swap.max")).unwrap();
        limit(directory.path(), Some(5 << 30), Some(77)).unwrap();
        fs::write(path("cgroup.controllers"), "cpu\n").unwrap();
        files.iter().for_each(|name| fs::write(path(name), "").unwrap());
        limit(directory.path(), Some(5 << 30), Some(77)).unwrap();
        assert_eq!(contents(), ["", "", "", ""]);
    }

    #[test]
    fn only_controllers_that_are_there_and_not_yet_given_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        file("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
        file("cgroup.subtree_control", "pids\n");
        assert_eq!(missing_controllers(directory.path()).unwrap(), ["memory"]);
        file("cgroup.controllers", "hugetlb\n");
        assert_eq!(missing_controllers(directory.path()).unwrap(), [""; 0]);
        file("cgroup.procs", &format!("{}\n", process::id()));
        assert!(is_alone(directory.path()).unwrap());
        file("cgroup.procs", &format!("{}\n1\n", process::id()));
        assert!(!is_alone(directory.path()).unwrap());
    }
}
