//! Figures of `docs/performance.md`: this program beside public peers, in turns, in one run.
//!
//! `cargo bench --bench peers` prints them all; names after `--` choose: `trivial`, `inspect`, `tree`. Peers: bubblewrap and the
//! distribution's Nix, which must be installed (`apt-get install bubblewrap nix-bin busybox-static`). Each measurement is a whole
//! process or a whole call; the rows are minimum, median and maximum, and the ratio of medians is what to quote: machines differ.
#![allow(missing_docs, clippy::print_stdout, reason = "a program for people, not a library")]

use fodder_build::inspect::{Instructions, Links, inspect};
use fodder_model::{
    hash::{HashAlgorithm, Hasher},
    scan::Candidates,
    store_path::StorePath,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const FODDER: &str = env!("CARGO_BIN_EXE_fodder");

fn main() {
    fodder_sandbox::dispatch_helper();
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| chosen.is_empty() || chosen.iter().any(|choice| choice == name);
    let directory = tempfile::tempdir().expect("a temporary directory");
    if runs("trivial") {
        trivial(directory.path());
    }
    if runs("inspect") {
        large_output(directory.path());
    }
    if runs("tree") {
        many_files(directory.path());
    }
}

/// Runs the measurements in turns, so that a machine that gets slower gets slower for all.
fn in_turns(rounds: usize, names: &[&str], measure: &mut dyn FnMut(usize, usize) -> Duration) -> Vec<Duration> {
    let mut times = vec![Vec::new(); names.len()];
    for round in 0..=rounds {
        for (index, times) in times.iter_mut().enumerate() {
            let time = measure(index, round);
            // The first round warms caches and is not counted.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    times
        .into_iter()
        .zip(names)
        .map(|(mut times, name)| {
            times.sort_unstable();
            let (first, median, last) = (times[0], times[times.len() / 2], times[times.len() - 1]);
            println!(
                "  {name:<44} {:>9.2} {:>9.2} {:>9.2} ms",
                milliseconds(first),
                milliseconds(median),
                milliseconds(last)
            );
            median
        })
        .collect()
}

fn ratio(what: &str, ours: Duration, theirs: Duration) {
    println!("  => {what}: {:.2}", ours.as_secs_f64() / theirs.as_secs_f64());
}

fn timed(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let time = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    time
}

fn nix(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", directory).env("NIX_CONF_DIR", directory).env("NIX_REMOTE", "");
    command
}

/// A derivation that writes one small file, from the JSON to the registered path, in a store that exists.
fn trivial(directory: &Path) {
    println!("trivial build, end to end (minimum, median, maximum)");
    let ours = directory.join("ours");
    let theirs = directory.join("theirs");
    let expression = directory.join("trivial.nix");
    std::fs::write(
        &expression,
        "{ n }: derivation { name = \"trivial-${n}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo ${n} > $out\" ]; }",
    )
    .expect("write the expression");
    // Without substituters: asking a cache that does not answer would take seconds.
    let options = [
        ["--option", "sandbox-paths", "/bin/sh=/bin/busybox"],
        ["--option", "build-users-group", ""],
        ["--option", "substituters", ""],
        ["--option", "sandbox", "true"],
    ]
    .concat();
    let mut prepared: Vec<PathBuf> = Vec::new();
    let medians = in_turns(
        30,
        &["fodder build", "bwrap --unshare-all … true", "nix-store --realise"],
        &mut |which, round| match which {
            0 => {
                let file = directory.join(format!("{round}.json"));
                let text = format!(
                    "{{\"name\":\"trivial-{round}\",\"builder\":\"/bin/sh\",\"args\":[\"-c\",\"echo {round} > $out\"],\"fodder\":{{\"profile\":\"nix\"}}}}"
                );
                std::fs::write(&file, text).expect("write the derivation");
                timed(Command::new(FODDER).args(["build", "--no-link", "--store"]).arg(&ours).arg(&file))
            }
            1 => timed(Command::new("bwrap").args([
                "--unshare-all",
                "--ro-bind",
                "/",
                "/",
                "--dev",
                "/dev",
                "--proc",
                "/proc",
                "/bin/true",
            ])),
            _ => {
                let output = nix("nix-instantiate", directory)
                    .args(["--store"])
                    .arg(&theirs)
                    .args(["--argstr", "n", &round.to_string()])
                    .arg(&expression)
                    .output()
                    .expect("nix-instantiate: apt-get install nix-bin");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                prepared.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
                let derivation = prepared.last().expect("just pushed");
                timed(
                    nix("nix-store", directory)
                        .arg("--store")
                        .arg(&theirs)
                        .arg("--realise")
                        .arg(derivation)
                        .args(&options),
                )
            }
        },
    );
    ratio("fodder / bubblewrap alone", medians[0], medians[1]);
    ratio("fodder / Nix", medians[0], medians[2]);
}

fn candidates() -> Candidates {
    let paths: Vec<StorePath> = (0..100)
        .map(|number| {
            let digest = fodder_model::hash::Hash::of(HashAlgorithm::Sha256, format!("{number}").as_bytes());
            let part = fodder_model::nix32::encode(&digest.digest()[..20]);
            StorePath::from_base_name(&format!("{part}-input")).expect("a valid path")
        })
        .collect();
    Candidates::new(&paths)
}

/// The walk that follows a build: canonical form, NAR hash, references of 100 inputs.
fn walk(directory: &Path, name: &str) -> Duration {
    let parent = File::open(directory).expect("open");
    let candidates = candidates();
    let instructions = Instructions { candidates: &candidates, content: None, canonicalise: true, builder: None };
    let start = Instant::now();
    inspect(parent.as_fd(), OsStr::new(name), Path::new(name), &instructions, &mut Links::default()).expect("inspect");
    start.elapsed()
}

fn large_output(directory: &Path) {
    println!("one output of 1 GiB in one file (minimum, median, maximum)");
    let file = directory.join("large");
    let mut random = File::open("/dev/urandom").expect("open").take(1 << 30);
    std::io::copy(&mut random, &mut File::create(&file).expect("create")).expect("write 1 GiB");
    let medians =
        in_turns(7, &["fodder: inspect", "one SHA-256 pass (sha2)", "nix-hash --type sha256"], &mut |which, _| {
            match which {
                0 => walk(directory, "large"),
                1 => {
                    let start = Instant::now();
                    let mut hasher = Hasher::new(HashAlgorithm::Sha256);
                    let mut file = File::open(&file).expect("open");
                    let mut chunk = vec![0; 128 * 1024];
                    loop {
                        match file.read(&mut chunk).expect("read") {
                            0 => break,
                            count => hasher.write_all(&chunk[..count]).expect("hash"),
                        }
                    }
                    std::hint::black_box(hasher.finish());
                    start.elapsed()
                }
                _ => timed(nix("nix-hash", directory).args(["--type", "sha256"]).arg(&file)),
            }
        });
    ratio("inspect / one SHA-256 pass", medians[0], medians[1]);
    // Not getrusage(2): its figure survives execve(2), and is cargo's.
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM").trim();
    println!("  peak resident memory of the inspecting process: {peak}");
    std::fs::remove_file(&file).expect("remove");
}

fn many_files(directory: &Path) {
    println!("a tree of 100,000 small files (minimum, median, maximum)");
    let tree = directory.join("tree");
    for number in 0..100 {
        let sub = tree.join(format!("d{number:03}"));
        std::fs::create_dir_all(&sub).expect("create");
        for file in 0..1000 {
            std::fs::write(sub.join(format!("f{file:04}")), format!("contents {number} {file}\n")).expect("write");
        }
    }
    let medians = in_turns(7, &["fodder: inspect", "nix-hash --type sha256"], &mut |which, _| match which {
        0 => walk(directory, "tree"),
        _ => timed(nix("nix-hash", directory).args(["--type", "sha256"]).arg(&tree)),
    });
    ratio("inspect / nix-hash", medians[0], medians[1]);
}
