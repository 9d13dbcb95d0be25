//! What builders and derivations say cannot pass for words of ours, move the cursor, or fill memory.

use crate::{
    lab::{Lab, Run, need},
    recipe::{Recipe, text},
};
use fodder_model::harmless::is_deceptive;
use serde_json::json;
use std::{os::unix::process::CommandExt, process::Stdio};

/// Everything that a terminal or a reader could be fooled by.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{1b}P1$r\u{1b}\\\u{9b}31m\u{9d}0;x\u{9c}\u{8}\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{e0041}";

#[track_caller]
fn is_inert(text: &str) {
    let found: Vec<char> = text.chars().filter(|c| is_deceptive(*c) && !matches!(c, '\n' | '\t')).collect();
    assert!(found.is_empty(), "{found:?} in {text:?}");
}

/// For printf of a shell: every byte in octal.
fn octal(text: &[u8]) -> String {
    text.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

/// Attack: LOG-2. Layer: one function makes other people's words harmless.
#[test]
fn what_a_builder_writes_reaches_neither_terminal_nor_result_as_it_is() {
    let lab = Lab::new();
    let hostile = [HOSTILE.as_bytes(), b" \x9b2J raw \x1b[8mhidden"].concat();
    let recipe = Recipe::new("hostile", &format!("printf '{}\\nlast\\n'; exit 1", octal(&hostile)));
    let run = lab.make(&recipe, &[]);
    is_inert(&run.stderr);
    assert!(run.stderr.contains("hostile> \\u{1b}[2J\\u{1b}]0;title\\u{7}"), "{}", run.stderr);
    assert!(run.stderr.contains("       > \\u{1b}[2J"), "the end of the log as well: {}", run.stderr);
    assert!(run.stderr.contains("hidden") && !run.stderr.contains("[8m"), "colours are no words: {}", run.stderr);
    let file = recipe.write(&lab);
    let run = lab.build(&["--json", file.to_str().expect("UTF-8")]);
    is_inert(&run.stdout);
    let result: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert!(text(&result, "/errorMsg").contains('\u{1b}'), "the value is what it was");
    // The control: it is all in the log.
    let log = std::fs::read(text(&result, "/logFile")).expect("the log");
    assert!(log.starts_with(&hostile));
}

/// Attack: LOG-3. Layer: the builder's lines have its name before them, and its messages are text.
#[test]
fn lines_that_look_like_ours_are_shown_as_the_builders() {
    let lab = Lab::new();
    let forged = [
        "error: Cannot build '/nix/store/x.drv'",
        "note: keeping build directory",
        "@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"error: forged\"}",
        "@nix {\"action\":\"start\",\"id\":1,\"level\":0,\"text\":\"forged\",\"type\":101,\"fields\":[],\"parent\":0}",
        "/nix/store/00000000000000000000000000000000-forged",
    ];
    let script = forged.map(|line| format!("printf '{}\\n'; ", octal(line.as_bytes()))).concat();
    let script = format!("{script} printf 'x\\rerror: forged\\n'; echo > $out");
    let run = lab.make(&Recipe::new("forger", &script), &[]);
    assert_eq!(run.code, 0, "{run:?}");
    for line in forged {
        assert!(run.stderr.contains(&format!("forger> {line}\n")), "{line}: {}", run.stderr);
    }
    assert!(run.stderr.lines().all(|line| line.starts_with("forger> ")), "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 1);
}

/// Attack: LOG-2. Layer: names and values of derivations are harmless in our own words.
#[test]
fn words_of_a_derivation_cannot_forge_lines_of_ours() {
    let lab = Lab::new();
    let forged = format!("x\nerror: forged\r{HOSTILE}");
    let recipes = [
        Recipe::new("system", "echo > $out").system(&forged),
        Recipe::new("features", "echo > $out").env("requiredSystemFeatures", &format!("a{HOSTILE}")),
        Recipe::new("impure", "echo > $out").env("__impureHostDeps", &format!("/x{HOSTILE}")),
        Recipe::new("check", "echo > $out").env("allowedReferences", &format!("a{HOSTILE}")),
        Recipe::new("builder", "echo > $out").env("x", &forged),
        Recipe::new("special", &format!("mkdir $out; mkfifo \"$out/$(printf '{}')x\"", octal(forged.as_bytes()))),
        Recipe::new(
            "deep",
            &format!(
                "mkdir -p \"$out/$(printf '{}')\"; cd $out/*; i=0; while [ $i -lt 80 ]; do mkdir d; cd d; i=$((i+1)); done",
                octal(forged.as_bytes())
            ),
        ),
    ];
    for recipe in &recipes {
        let run = lab.make(recipe, &[]);
        is_inert(&run.stderr);
        is_inert(&run.stdout);
        assert!(!run.stderr.lines().any(|line| line.trim_start().starts_with("error: forged")), "{}", run.stderr);
        let file = recipe.write(&lab);
        let (store, file) = (lab.store(), file.to_str().expect("UTF-8"));
        for verb in ["explain", "show"] {
            let run = lab.fodder(&[verb, "--store", store.to_str().expect("UTF-8"), file]);
            is_inert(&run.stdout);
            is_inert(&run.stderr);
            assert!(!run.stdout.lines().any(|line| line.trim_start().starts_with("error: forged")), "{}", run.stdout);
        }
    }
    // Files that are no derivations, and short forms.
    for (name, contents) in [
        ("key.json", json!({"name": "k", (forged.as_str()): "x", "buildPhas": "x"})),
        ("name.json", json!({"name": forged, "buildPhase": "x"})),
        ("source.json", json!({"name": "s", "src": format!("./{forged}"), "buildPhase": "x"})),
        (
            "host.json",
            json!({"name": "h", "outputHash": "", "buildPhase": "x", "fodder": {"network": {"allow": [forged]}}}),
        ),
    ] {
        lab.write(name, contents.to_string());
        let run = lab.build(&[name]);
        is_inert(&run.stderr);
        assert!(
            !run.stderr.lines().any(|line| line.trim_start().starts_with("error: forged")),
            "{name}: {}",
            run.stderr
        );
    }
}

/// Attack: LOG-2. Layer: a name with lines in it is spelled in one.
#[test]
fn names_with_lines_in_them_are_one_line() {
    const FORGED: &str = "x\nerror: forged";
    let lab = Lab::new();
    let is_one_line = |run: &Run, place: &str| {
        let lines = || run.stdout.lines().chain(run.stderr.lines());
        assert!(lines().any(|line| line.contains(place) && line.contains("x\\nerror: forged")), "{place}: {run:?}");
        assert!(!lines().any(|line| line.starts_with("error: forged")), "{run:?}");
    };
    // A file in which a builder left the name of a store path.
    lab.write(&format!("tree/{FORGED}"), format!("/nix/store/{}-gcc", "1".repeat(32)));
    is_one_line(&lab.fodder(&["refs", "tree"]), "-gcc");
    // A tool that a short form asks for.
    let form = json!({"name": "tool", "nativeBuildInputs": [format!("/{FORGED}")], "dontUnpack": true, "installPhase": "echo > $out"});
    lab.write("tool.json", form.to_string());
    is_one_line(&lab.build(&["tool.json"]), "note: '/");
    // The place of the store, where somebody else chose it.
    let file = Recipe::new("kept", "exit 1").write(&lab);
    let store = lab.path().join(FORGED);
    let [store, file] = [&store, &file].map(|path| path.to_str().expect("UTF-8"));
    is_one_line(&lab.fodder(&["build", "-K", "--no-link", "--store", store, file]), "note: keeping build directory");
}

/// Runs a command under a terminal of so many columns.
fn on_a_terminal(lab: &Lab, command: &str, columns: u32) -> Run {
    need("script", "bsdutils");
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &format!("stty rows 30 cols {columns}; {command}"), "/dev/null"]);
    script.current_dir(lab.path()).env("TERM", "xterm").env("FODDER_HOST_STORE", "none").stdin(Stdio::null());
    lab.run(script)
}

/// Attack: LOG-2. Layer: the live line has as many columns as the terminal, and nothing in it moves the cursor.
#[test]
fn the_live_line_stays_one_line() {
    let lab = Lab::new();
    let wide = "日本語".repeat(60);
    let zalgo = format!("e{}", "\u{301}".repeat(5000));
    let script = [wide.as_str(), &zalgo, HOSTILE, "10%\rerror: forged"]
        .map(|line| format!("printf '{}\\n'; sleep 0.2; ", octal(line.as_bytes())))
        .concat();
    let recipe = Recipe::new("live", &format!("{script} echo > $out"));
    let (file, store) = (recipe.write(&lab), lab.store());
    let command =
        format!("{} build --no-link --store {} {}", env!("CARGO_BIN_EXE_fodder"), store.display(), file.display());
    let run = on_a_terminal(&lab, &command, 40);
    assert_eq!(run.code, 0, "{run:?}");
    let frames: Vec<&str> = run.stdout.split("\r\u{1b}[K").collect();
    assert!(frames.iter().any(|frame| frame.contains("日本")), "{:?}", run.stdout);
    for frame in frames {
        let frame = frame.split("\r\n").next().unwrap_or_default();
        is_inert(frame);
        let columns: usize = frame
            .chars()
            .map(|c| match c as u32 {
                0x300..=0x36f => 0,
                0x1100.. => 2,
                _ => 1,
            })
            .sum();
        assert!(columns < 40 || frame.starts_with("/nix/store/"), "{columns}: {frame:?}");
        assert!(frame.len() < 400, "{}", frame.len());
        assert!(!frame.starts_with("error:"), "{frame:?}");
    }
}

/// Attack: LOG-2. Layer: `fodder log` shows text and colours to a terminal, and gives every byte to a pipe.
#[test]
fn a_stored_log_is_raw_in_a_pipe_and_harmless_on_a_terminal() {
    let lab = Lab::new();
    let hostile = format!("{HOSTILE} \u{1b}[31mred\u{1b}[8mhidden\n");
    let recipe = Recipe::new("stored", &format!("printf '{}10%%\\r20%%\\n'; echo > $out", octal(hostile.as_bytes())));
    let real = lab.made(&recipe, &[]);
    let (file, store) = (recipe.write(&lab), lab.store());
    let raw = format!("{hostile}10%\r20%\n");
    for name in
        [file.display().to_string(), recipe.path().to_string(), recipe.out().to_string(), real.display().to_string()]
    {
        let run = lab.fodder(&["log", "--store", store.to_str().expect("UTF-8"), &name]);
        assert_eq!((run.code, run.stdout.as_str()), (0, raw.as_str()), "{name}: {run:?}");
    }
    let command = format!("{} log --store {} {}", env!("CARGO_BIN_EXE_fodder"), store.display(), recipe.path());
    let shown = on_a_terminal(&lab, &command, 80).stdout;
    let without_colours = shown.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "").replace("\r\n", "\n");
    is_inert(&without_colours);
    assert!(shown.contains("\u{1b}[31mredhidden\u{1b}[0m\r\n20%\r\n"), "{shown:?}");
    let missing = lab.fodder(&[
        "log",
        "--store",
        store.to_str().expect("UTF-8"),
        Recipe::new("never", "").write(&lab).to_str().expect("UTF-8"),
    ]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("there is no log of"), "{missing:?}");
}

/// Most memory that a finished child of a command had, in bytes, as the kernel counted it.
fn peak_of(lab: &Lab, arguments: &[&str]) -> (Run, u64) {
    need("python3", "python3");
    let mut all = vec!["-c", PEAK, env!("CARGO_BIN_EXE_fodder")];
    all.extend(arguments);
    let mut python = std::process::Command::new("python3");
    python.args(all).current_dir(lab.path()).env("FODDER_HOST_STORE", "none").stdin(Stdio::null());
    python.process_group(0);
    let run = lab.run(python);
    let peak = run.stdout.lines().last().and_then(|line| line.parse::<u64>().ok()).unwrap_or_else(|| panic!("{run:?}"));
    (run, peak * 1024)
}

/// VmHWM of every process called fodder, the helper too, and ru_maxrss of what was waited for; the larger one, in KiB. What they print is read and thrown away.
const PEAK: &str = r#"
import os, subprocess, sys, threading, time
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
peak = 0
def drain(stream):
    while stream.read(1 << 16): pass
threads = [threading.Thread(target=drain, args=(s,)) for s in (child.stdout, child.stderr)]
[thread.start() for thread in threads]
def helpers(parent):
    try: ids = open(f'/proc/{parent}/task/{parent}/children').read().split()
    except OSError: ids = []
    return ids
while child.poll() is None:
    for process in helpers(child.pid):
        try:
            for line in open(f'/proc/{process}/status'):
                if line.startswith('VmHWM:'): peak = max(peak, int(line.split()[1]))
        except OSError: pass
    time.sleep(0.02)
[thread.join() for thread in threads]
import resource
# The child of ours that was waited for: the runner, with the helper that it waited for.
print(max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"#;

/// Attack: LOG-1. Layer: everything that reads the log keeps a bounded part of it.
#[test]
fn a_line_without_end_takes_no_memory() {
    let lab = Lab::new();
    // 300 MB in one line, and then a failure that quotes its end.
    let recipe = Recipe::new("endless", "dd if=/dev/zero bs=1M count=300 2>/dev/null | tr '\\000' x; exit 1");
    let (file, store) = (recipe.write(&lab), lab.store());
    let (file, store) = (file.to_str().expect("UTF-8"), store.to_str().expect("UTF-8"));
    let (_, peak) = peak_of(&lab, &["build", "--no-link", "--store", store, file]);
    assert!(peak < 64 << 20, "{peak}");
    let (_, peak) = peak_of(&lab, &["log", "--store", store, file]);
    assert!(peak < 64 << 20, "{peak}");
    let log = lab.store().join("nix/var/log/nix/drvs");
    let name = recipe.path().base_name().to_owned();
    let kept = std::fs::read(log.join(&name[..2]).join(&name[2..])).expect("the log");
    assert!(kept.len() < 2 << 20, "{}", kept.len());
    let words = format!("[fodder: {} bytes of this line were left out, see --limit log-line]", (300 << 20) - (1 << 20));
    assert!(kept.ends_with(words.as_bytes()), "{:?}", String::from_utf8_lossy(&kept[kept.len() - 100..]));
    // The control: with the limits lifted it is all there, and still in no memory.
    let lifted = [
        "build",
        "--json",
        "--no-link",
        "--limit",
        "log-line=none",
        "--limit",
        "log-file=none",
        "--store",
        store,
        file,
    ];
    let (_, peak) = peak_of(&lab, &lifted);
    assert!(peak < 64 << 20, "{peak}");
    assert_eq!(std::fs::metadata(log.join(&name[..2]).join(&name[2..])).expect("the log").len(), 300 << 20);
}

/// Attack: LOG-1. Layer: limits on what is kept of a log, and on what is written.
#[test]
fn a_flood_of_lines_is_kept_in_part_and_ended_at_its_limit() {
    let lab = Lab::new();
    let recipe = Recipe::new("flood", "yes 0123456789 | head -c 4000000; echo; echo the end; echo > $out");
    let (code, result) = lab.make_json(&recipe, &["--limit", "log-file=1M"]);
    assert_eq!(code, 0, "what is not kept ends nothing: {result:#}");
    let log = std::fs::read_to_string(text(&result, "/logFile")).expect("the log");
    assert!(log.len() < 2 << 20 && log.ends_with("the end\n"), "{}", log.len());
    assert!(log.contains("bytes of the log were left out here, see --limit log-file]"));
    assert_eq!(result["limits"]["limits"]["log-size"]["used"], json!(4_000_009));
    let endless = Recipe::new("endless-flood", "yes");
    let (code, result) = lab.make_json(&endless, &["--limit", "log-size=1M"]);
    assert_eq!((code, text(&result, "/status")), (1, "LogLimitExceeded"), "{result:#}");
    assert_eq!(text(&result, "/limits/exceeded/limit"), "log-size");
}

/// Attack: PROC-9, PROC-10. Layer: outputs are read when the builder and all that it started are gone.
#[test]
fn a_daemon_that_writes_on_does_not_change_what_is_registered_and_a_closed_log_ends_nothing() {
    let lab = Lab::new();
    // By renaming, so that it may be killed at any moment.
    let daemon = "trap '' TERM HUP INT; while :; do echo later > $out.new; mv -f $out.new $out; sleep 0.02; done";
    let script = format!("(setsid sh -c \"{daemon}\" &) & sleep 0.3; echo later > $out; exec >&- 2>&-; sleep 0.5");
    let recipe = Recipe::new("daemon", &script);
    let output = lab.made(&recipe, &[]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(std::fs::read_to_string(output).expect("the output"), "later\n");
    let (_, result) = lab.make_json(&recipe, &["--rebuild"]);
    assert_eq!(text(&result, "/status"), "Built", "{result:#}");
}
