//! Nothing is lost: whoever is killed, whatever runs out, however many there are, the store is one that real Nix takes for its own,
//! everything that was valid is, and the next run leaves nothing of the killed ones.
//!
//! `FODDER_ROUNDS` says how often the tests that choose at random do so, `FODDER_SEED` what they choose; a failure prints the latter.

mod ending;
mod full_disk;
mod killing;
mod order;
mod races;

use crate::{
    judge::{self, names},
    lab::Lab,
};
use fodder_store::Store;
use std::{
    collections::BTreeMap,
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

/// How often, when nobody says otherwise.
fn rounds(usual: u64) -> u64 {
    std::env::var("FODDER_ROUNDS").ok().map_or(usual, |text| text.parse().expect("FODDER_ROUNDS is a number"))
}

/// Numbers that nobody chose; the same ones for the same seed, which is told when the test fails.
struct Random {
    seed: u64,
    numbers: fastrand::Rng,
}

impl Random {
    fn new() -> Self {
        let seed = std::env::var("FODDER_SEED").ok().map(|text| text.parse().expect("FODDER_SEED is a number"));
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        Random { seed, numbers: fastrand::Rng::with_seed(seed) }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.numbers.u64(..limit)
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(&format!("to choose the same again: FODDER_SEED={}", self.seed));
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "shown when the test fails, or with --nocapture: what was chosen, and how much of it there was"
)]
fn tell(words: &str) {
    eprintln!("{words}");
}

/// How often each call is in a trace of strace's.
fn count_calls(trace: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (call, _) in trace.lines().filter_map(|line| line.split_once('(')) {
        *counts.entry(call.to_owned()).or_default() += 1;
    }
    counts
}

/// Real Nix and we read every path of the store and compare it with the database.
#[track_caller]
fn verified(lab: &Lab) {
    judge::verified(lab);
    let store = lab.store();
    let run = lab.fodder(&["store", "--store", store.to_str().expect("UTF-8"), "verify", "--check-contents"]);
    assert_eq!(run.code, 0, "{run:?}");
}

/// What is valid, and with which hash.
fn valid(lab: &Lab) -> BTreeMap<String, String> {
    let store = Store::open_existing_read_only(&lab.store()).expect("open the store");
    let paths = store.all_paths().expect("all paths");
    let hash = |path| store.query(path).expect("query").map(|info| info.nar_hash.to_string()).unwrap_or_default();
    paths.iter().map(|path| (path.to_string(), hash(path))).collect()
}

/// Nothing is there that belongs to a run: no scratch, no lock, no temporary root, no half-made link, no process.
#[track_caller]
fn nothing_is_left(lab: &Lab) {
    assert_eq!(names(lab, "nix/var/nix/builds"), [""; 0]);
    assert_eq!(names(lab, "nix/var/nix/temproots"), [""; 0]);
    let mut others = names(lab, "nix/store");
    others.retain(|name| {
        name.ends_with(".lock")
            && std::fs::metadata(lab.store().join("nix/store").join(name)).is_ok_and(|file| file.len() == 0)
    });
    assert_eq!(others, [""; 0]);
    for directory in ["nix/var/nix/gcroots/auto", "nix/var/nix/gcroots/fodder", ".."] {
        assert!(names(lab, directory).iter().all(|name| !name.starts_with('.')), "{:?}", names(lab, directory));
    }
    assert_eq!(processes_of(lab), [""; 0]);
}

/// Processes that name the laboratory, or have something of it mounted.
fn processes_of(lab: &Lab) -> Vec<String> {
    let place = lab.path().to_str().expect("UTF-8");
    let own = std::process::id().to_string();
    let contains = |file: &Path| {
        std::fs::read(file).is_ok_and(|text| text.windows(place.len()).any(|part| part == place.as_bytes()))
    };
    let list = std::fs::read_dir("/proc").expect("list").flatten();
    list.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(id, _)| id.parse::<u32>().is_ok() && *id != own)
        .filter(|(_, process)| contains(&process.join("cmdline")) || contains(&process.join("mountinfo")))
        .map(|(id, process)| format!("{id} {:?}", std::fs::read_to_string(process.join("cmdline")).unwrap_or_default()))
        .collect()
}

/// All processes below one, those above first.
fn family(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else {
            at += 1;
            continue;
        };
        let children: Vec<u32> = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
            .collect();
        found.extend(children);
        at += 1;
    }
    found
}

fn signal(process: u32, signal: rustix::process::Signal) {
    if let Some(id) = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, signal);
    }
}

fn kill(process: u32) {
    signal(process, rustix::process::Signal::KILL);
}

/// Whether a process has ended, though its parent may not have asked yet.
fn is_gone(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with(['Z', 'X']))
}

/// Waits until something is so.
fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a build has its builder: the runner, both parts of the helper, and what it runs.
#[track_caller]
fn builder_of(runner: &Child) -> Vec<u32> {
    let mut found = Vec::new();
    let started = within(Duration::from_secs(20), || {
        found = family(runner.id());
        found.len() >= 4
            && std::fs::read_to_string(format!("/proc/{}/comm", found[3]))
                .is_ok_and(|name| !name.starts_with("fodder") && name != "exe\n")
    });
    assert!(started, "no builder: {found:?}");
    found
}
