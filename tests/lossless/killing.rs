//! `kill -9` at random instants of everything that changes a store, of everybody who has a part in it. The gateway is threads of the
//! runner, and is killed with it.

use super::{
    Random, count_calls, family, is_gone, kill, names, nothing_is_left, processes_of, rounds, tell, valid, verified,
    within,
};
use crate::{
    lab::{Lab, need},
    recipe::Recipe,
};
use fodder_model::{content_address::ContentMethod, derivation::Output, environment::placeholder, hash::HashAlgorithm};
use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What is going on when somebody is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Activity {
    Build,
    Floating,
    Fixed,
    OutLink,
    Record,
    Substitute,
    Import,
    Add,
    Optimise,
    Collect,
    WriteCache,
}

const ACTIVITIES: [Activity; 11] = [
    Activity::Build,
    Activity::Floating,
    Activity::Fixed,
    Activity::OutLink,
    Activity::Record,
    Activity::Substitute,
    Activity::Import,
    Activity::Add,
    Activity::Optimise,
    Activity::Collect,
    Activity::WriteCache,
];

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Runner,
    OuterHelper,
    InnerHelper,
    Builder,
    All,
}

const VICTIMS: [Victim; 5] = [Victim::Runner, Victim::OuterHelper, Victim::InnerHelper, Victim::Builder, Victim::All];

/// A store to be damaged, and another that things come from.
struct Arena {
    lab: Lab,
    other: Lab,
    /// What everything takes when nobody is killed.
    durations: BTreeMap<Activity, Duration>,
    count: u64,
    recording: Option<Vec<u8>>,
    /// What the program runs under.
    prefix: Vec<String>,
}

/// Long enough to be killed in every part of it: a log, a large file, many small ones, two outputs.
const SCRIPT: &str = "echo began; yes text | head -c 1000000 > $dev; mkdir $out; i=0; while [ $i -lt 100 ]; do echo $dev $i > $out/$i; i=$((i+1)); done; sleep 0.05; echo done";

impl Arena {
    fn new() -> Self {
        let (lab, other) = (Lab::new(), Lab::new());
        lab.text("first", "x");
        Arena { lab, other, durations: BTreeMap::new(), count: 0, recording: None, prefix: Vec::new() }
    }

    fn recording(&self) -> PathBuf {
        self.lab.path().join("a.fod-recording")
    }

    fn link(&self) -> PathBuf {
        self.lab.path().join("result")
    }

    fn recipe(&self, kind: Activity) -> Recipe {
        let name = format!("{kind:?}-{}", self.count).to_lowercase();
        match kind {
            Activity::Floating => {
                let mut recipe = Recipe::new(
                    &name,
                    "echo began; mkdir $out; echo $out > $out/self; yes $out | head -n 20000 > $out/many; sleep 0.05",
                );
                let output = Output::Floating { method: ContentMethod::Nar, algorithm: HashAlgorithm::Sha256 };
                recipe.parts.outputs = [("out".to_owned(), output)].into();
                recipe.env("out", &placeholder("out"))
            }
            Activity::Fixed | Activity::Record => {
                Recipe::new(&name, &format!("echo began; sleep 0.05; printf {name} > $out")).fixed_to(&name)
            }
            Activity::Build
            | Activity::OutLink
            | Activity::Substitute
            | Activity::Import
            | Activity::Add
            | Activity::Optimise
            | Activity::Collect
            | Activity::WriteCache => Recipe::new(&name, SCRIPT).output("dev"),
        }
    }

    fn fodder(&self, arguments: &[&str]) -> Command {
        let Some((first, rest)) = self.prefix.split_first() else { return self.lab.command(arguments) };
        let mut command = Command::new(first);
        command.args(rest).arg(env!("CARGO_BIN_EXE_fodder")).args(arguments);
        command.current_dir(self.lab.path()).env("FODDER_HOST_STORE", "none");
        command
    }

    /// The command, with everything there that it works on.
    fn command(&mut self, activity: Activity) -> Command {
        self.count += 1;
        let store = self.lab.store().display().to_string();
        let build = |recipe: &Recipe, more: &[&str]| {
            let file = recipe.write(&self.lab).display().to_string();
            self.fodder(&[&["build", "--store", &store], more, &[&file]].concat())
        };
        let verb = |arguments: &[&str]| self.fodder(&[&["store", "--store", &store], arguments].concat());
        match activity {
            Activity::Build | Activity::Floating | Activity::Fixed => build(&self.recipe(activity), &["--no-link"]),
            Activity::OutLink => build(&self.recipe(activity), &["-o", &self.link().display().to_string()]),
            Activity::Record => {
                build(&self.recipe(activity), &["--no-link", "--record", &self.recording().display().to_string()])
            }
            Activity::Substitute => {
                let path = self.other.directory(&format!("substituted-{}", self.count), &"text\n".repeat(100_000));
                let cache = format!("file://{}", self.other.path().join("cache").display());
                let from = self.other.store().display().to_string();
                let run = self.lab.fodder(&[
                    "store",
                    "--store",
                    &from,
                    "copy",
                    "--to",
                    &format!("{cache}?compression=zstd"),
                    &path.to_string(),
                ]);
                assert_eq!(run.code, 0, "{run:?}");
                verb(&["copy", "--from", &cache, "--no-check-sigs", &path.to_string()])
            }
            Activity::Import => {
                let path = self.other.directory(&format!("imported-{}", self.count), &"text\n".repeat(300_000));
                let from = self.other.store().display().to_string();
                let mut export = self.lab.command(&["store", "--store", &from, "export", &path.to_string()]);
                let file = self.lab.path().join("export");
                assert!(export.stdout(File::create(&file).expect("create")).status().expect("run").success());
                let mut command = verb(&["import"]);
                command.stdin(File::open(file).expect("open"));
                command
            }
            Activity::Add => {
                let name = format!("added-{}", self.count);
                for number in 0..200 {
                    self.lab.write(&format!("{name}/{}/{number}", number % 7), format!("{name} {number}"));
                }
                verb(&["add", &self.lab.path().join(name).display().to_string()])
            }
            Activity::Optimise => {
                for number in 0..3 {
                    self.lab.directory(&format!("alike-{}-{number}", self.count), "the same in all of them");
                }
                verb(&["optimise"])
            }
            Activity::Collect => {
                for number in 0..5 {
                    self.lab.directory(&format!("garbage-{}-{number}", self.count), "nobody wants this");
                }
                verb(&["gc"])
            }
            Activity::WriteCache => {
                let path = self.lab.directory(&format!("offered-{}", self.count), &"text\n".repeat(100_000));
                let to = format!("file://{}?compression=zstd", self.lab.path().join("written").display());
                verb(&["copy", "--to", &to, &path.to_string()])
            }
        }
    }

    fn start(&mut self, activity: Activity) -> Child {
        let mut command = self.command(activity);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start")
    }

    fn duration(&mut self, activity: Activity) -> Duration {
        if let Some(known) = self.durations.get(&activity) {
            return *known;
        }
        let mut command = self.command(activity);
        let started = Instant::now();
        let run = self.lab.run(std::mem::replace(&mut command, Command::new("true")));
        assert_eq!(run.code, 0, "{activity:?}: {run:?}");
        self.durations.insert(activity, started.elapsed());
        started.elapsed()
    }

    /// One round: somebody dies, and nothing else happens.
    fn round(&mut self, random: &mut Random) -> bool {
        let activity = ACTIVITIES[random.below(ACTIVITIES.len() as u64) as usize];
        let victim = VICTIMS[random.below(VICTIMS.len() as u64) as usize];
        let duration = self.duration(activity);
        let mut child = self.start(activity);
        let before = valid(&self.lab);
        std::thread::sleep(Duration::from_micros(random.below(duration.as_micros() as u64 * 11 / 10)));
        let is_running = child.try_wait().expect("look").is_none();
        let everybody = family(child.id());
        let place = match victim {
            Victim::Runner | Victim::All => 0,
            Victim::OuterHelper => 1,
            Victim::InnerHelper => 2,
            Victim::Builder => 3,
        };
        match everybody.get(place) {
            Some(process) if victim != Victim::All => kill(*process),
            Some(_) | None => everybody.iter().for_each(|process| kill(*process)),
        }
        let what = format!("{activity:?}, {victim:?} killed");
        assert!(within(Duration::from_secs(20), || child.try_wait().expect("look").is_some()), "{what}: it hangs");
        assert!(
            within(Duration::from_secs(1), || everybody.iter().all(|process| is_gone(*process))),
            "{what}: somebody is left"
        );
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("a pipe"), &mut said).expect("text");
        assert!(!said.contains("mistake in fodder"), "{what}: {said}");
        self.check(activity, &before, &what);
        // The first one may have been slower than all the others: from a cold disk, on a busy machine.
        if !is_running {
            self.durations.insert(activity, duration * 9 / 10);
        }
        is_running
    }

    /// What has to hold whoever was killed: what was valid is, a link names something valid, a recording is whole.
    fn check(&mut self, activity: Activity, before: &BTreeMap<String, String>, what: &str) {
        // All as it was; but for garbage.
        let after = valid(&self.lab);
        let lost: Vec<_> = before.iter().filter(|(path, hash)| after.get(*path) != Some(*hash)).collect();
        assert!(lost.is_empty() || activity == Activity::Collect, "{what}: {lost:?}");
        if let Ok(target) = std::fs::read_link(self.link()) {
            assert!(target.exists(), "{what}: the link names {}, which is not there", target.display());
        }
        if let Ok(recording) = std::fs::read(self.recording())
            && self.recording.as_ref() != Some(&recording)
        {
            let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&recording);
            assert!(parsed.is_ok(), "{what}: half a recording: {}", String::from_utf8_lossy(&recording));
            self.recording = Some(recording);
        }
    }

    /// The next run leaves nothing of those before, and the cache is one that everything can be had from.
    fn end(&self) {
        let store = self.lab.store().display().to_string();
        let last = Recipe::new(&format!("next-{}", self.count), "echo > $out");
        self.lab.made(&last, &[]);
        nothing_is_left(&self.lab);
        verified(&self.lab);
        let written = self.lab.path().join("written");
        if written.is_dir() {
            let path = self.lab.text(&format!("last-{}", self.count), "x").to_string();
            let to = format!("file://{}", written.display());
            let run = self.lab.fodder(&["store", "--store", &store, "copy", "--to", &to, &path]);
            assert_eq!(run.code, 0, "{run:?}");
            let fresh = Lab::new();
            let fresh_store = fresh.store().display().to_string();
            let mut files = 0;
            for directory in [written.clone(), written.join("nar")] {
                for entry in std::fs::read_dir(directory).expect("list").flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    assert!(!name.starts_with('.'), "{name} is left in the cache");
                    let Some(hash_part) = name.strip_suffix(".narinfo") else { continue };
                    let offered = names(&self.lab, "nix/store").into_iter().find(|path| path.starts_with(hash_part));
                    let Some(offered) = offered else { continue };
                    let path = format!("/nix/store/{offered}");
                    let run = fresh.fodder(&[
                        "store",
                        "--store",
                        &fresh_store,
                        "copy",
                        "--from",
                        &to,
                        "--no-check-sigs",
                        &path,
                    ]);
                    assert_eq!(run.code, 0, "{run:?}");
                    files += 1;
                }
            }
            assert!(files > 0);
        }
        // What the link names outlives a collection.
        let run = self.lab.fodder(&["store", "--store", &store, "gc"]);
        assert_eq!(run.code, 0, "{run:?}");
        if let Ok(target) = std::fs::read_link(self.link()) {
            assert!(target.exists(), "{} was collected although a link names it", target.display());
        }
        nothing_is_left(&self.lab);
        verified(&self.lab);
    }
}

/// Attack: PROC-1. Layer: locks that the kernel lets go, and the next run.
#[test]
fn nothing_is_lost_whoever_is_killed_and_whenever() {
    let mut random = Random::new();
    let mut arena = Arena::new();
    let (count, mut hits) = (rounds(40), 0);
    for round in 0..count {
        hits += u64::from(arena.round(&mut random));
        if round % 20 == 19 {
            arena.end();
        }
    }
    arena.end();
    tell(&format!("{hits} of {count} were killed while they ran"));
    assert!(hits * 3 >= count, "only {hits} of {count} were still running");
}

/// Calls that change what others see.
const CALLS: &str = "pwrite64,write,mkdirat,fsync,fdatasync,renameat2,renameat,rename,unlinkat,unlink,ftruncate,symlinkat,linkat,fchmod,fchmodat,utimensat,flock,openat";

/// Random instants hardly ever hit what takes microseconds; this dies in the middle of each call, wherever it is.
#[test]
fn nothing_is_lost_when_the_runner_dies_in_the_middle_of_any_call() {
    let mut random = Random::new();
    let mut arena = Arena::new();
    let trace = arena.lab.path().join("trace").display().to_string();
    let strace = need("strace", "strace").display().to_string();
    let prefix = |more: &[String]| -> Vec<String> {
        [&[strace.clone(), "-qq".to_owned(), "-o".to_owned(), trace.clone()][..], more].concat()
    };
    let mut counts: BTreeMap<Activity, BTreeMap<String, u64>> = BTreeMap::new();
    let (count, mut hits) = (rounds(30), 0);
    for round in 0..count {
        let activity = ACTIVITIES[(round % ACTIVITIES.len() as u64) as usize];
        let calls = counts.entry(activity).or_insert_with(|| {
            arena.prefix = prefix(&["-e".to_owned(), format!("trace={CALLS}")]);
            let command = arena.command(activity);
            let run = arena.lab.run(command);
            assert_eq!(run.code, 0, "{activity:?}: {run:?}");
            count_calls(&std::fs::read_to_string(&trace).expect("the trace"))
        });
        let call = calls.keys().nth(random.below(calls.len() as u64) as usize).expect("a call").clone();
        let when = 1 + random.below(calls[&call]);
        let injection = format!("inject={call}:signal=SIGKILL:when={when}");
        arena.prefix = prefix(&["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), injection.clone()]);
        let command = arena.command(activity);
        let before = valid(&arena.lab);
        let run = arena.lab.run(command);
        hits += u64::from(run.code == 128 + 9);
        let what = format!("{activity:?} {injection}");
        assert!(run.code == 128 + 9 || run.code == 0, "{what}: {run:?}");
        arena.prefix.clear();
        arena.check(activity, &before, &what);
        assert!(within(Duration::from_secs(1), || processes_of(&arena.lab).is_empty()), "{what}");
        if round % 20 == 19 {
            arena.end();
        }
    }
    arena.end();
    tell(&format!("{hits} of {count} died in the middle of a call"));
    assert!(hits * 2 >= count, "only {hits} of {count} died");
}
