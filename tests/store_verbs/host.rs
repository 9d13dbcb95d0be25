//! A store below ours, of somebody else: written by real Nix, read by us.

use super::we_say;
use crate::judge::{nix_command, nix_says, verified};
use crate::{
    lab::{Lab, Run, need},
    recipe::{Recipe, text},
};
use fodder_model::store_path::StorePath;
use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

const DEP: &str = "derivation { name = \"dep\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo dep > $out\" ]; }";

/// A store in which Nix built something that refers to something.
struct Host {
    lab: Lab,
    dep: StorePath,
    top: StorePath,
}

impl Host {
    fn new() -> Self {
        need("busybox", "busybox-static");
        let lab = Lab::new();
        let top = format!(
            "let dep = {DEP}; in derivation {{ name = \"top\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
             args = [ \"-c\" \"echo ${{dep}} > $out\" ]; }}"
        );
        lab.write("top.nix", top);
        let sandbox = ["--option", "sandbox", "true", "--option", "sandbox-paths", "/bin/sh=/bin/busybox"];
        let arguments = [&["--no-out-link", "top.nix", "--option", "substitute", "false"], &sandbox[..]].concat();
        let top: StorePath = nix_says(&lab, "nix-build", &arguments).trim().parse().expect("a store path");
        let dep = nix_says(&lab, "nix-store", &["--query", "--references", &top.to_string()]);
        Host { dep: dep.trim().parse().expect("a store path"), top, lab }
    }

    /// Everything about every file, but for the log of the database, which SQLite makes for readers as well.
    fn state(&self) -> String {
        let mut command = Command::new("find");
        command.arg(self.lab.store()).args([
            "-not",
            "-name",
            "db.sqlite-*",
            "-not",
            "-name",
            "db",
            "-printf",
            "%p %m %s %T@ %U %n\\n",
        ]);
        let mut lines: Vec<String> = self.lab.run(command).stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    }

    /// `fodder`, with this store below the lab's.
    fn fodder(&self, lab: &Lab, arguments: &[&str]) -> Run {
        let mut command = lab.command(arguments);
        command.arg("--store").arg(lab.store()).env("FODDER_HOST_STORE", self.lab.store());
        lab.run(command)
    }
}

fn real_input(lab: &Lab, path: &StorePath) -> bool {
    lab.real(path).symlink_metadata().is_ok()
}

#[test]
fn paths_of_the_host_are_inputs_without_being_copied() {
    let (host, lab) = (Host::new(), Lab::new());
    let before = host.state();
    let recipe = Recipe::new("reads", "read line < $top; read word < $line; echo $word > $out")
        .env("top", &host.top.to_string())
        .source(&host.top);
    let file = recipe.write(&lab);
    let file = file.to_str().expect("UTF-8");
    let refused = lab.make(&recipe, &[]);
    assert!(refused.code == 100 && refused.stderr.contains("is not valid"), "{refused:?}");
    let explained = host.fodder(&lab, &["explain", file]);
    let real = host.lab.real(&host.dep);
    assert!(explained.stdout.contains(real.to_str().expect("UTF-8")), "{explained:?}");
    let run = host.fodder(&lab, &["build", "--no-link", file]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(std::fs::read_to_string(lab.real(&recipe.out())).expect("the output"), "dep\n");
    assert!(!real_input(&lab, &host.top) && !real_input(&lab, &host.dep));
    assert_eq!(we_say(&lab, &["path-info", "--all"]).trim(), recipe.out().to_string());
    verified(&lab);
    assert_eq!(host.state(), before);
}

#[test]
fn what_an_output_refers_to_is_copied_so_that_our_store_is_whole() {
    let (host, lab) = (Host::new(), Lab::new());
    let before = host.state();
    let recipe = Recipe::new("refers", "echo $top > $out").env("top", &host.top.to_string()).source(&host.top);
    let file = recipe.write(&lab);
    let run = host.fodder(&lab, &["build", "--out-link", "result", file.to_str().expect("UTF-8")]);
    assert_eq!(run.code, 0, "{run:?}");
    let expected = format!("{}\n{}\n{}\n", host.dep, host.top, recipe.out());
    assert_eq!(we_say(&lab, &["query", "--requisites", "result"]), expected);
    verified(&lab);
    for path in [&host.top, &host.dep] {
        for question in ["--hash", "--references", "--deriver", "--size"] {
            let path = path.to_string();
            let ours = nix_says(&lab, "nix-store", &["--query", question, &path]);
            assert_eq!(ours, nix_says(&host.lab, "nix-store", &["--query", question, &path]));
        }
    }
    nix_says(&lab, "nix-store", &["--gc"]);
    assert!(real_input(&lab, &host.dep));
    verified(&lab);
    assert_eq!(host.state(), before);
}

#[test]
fn what_is_to_be_built_is_built_here_also_where_the_host_has_it() {
    let (host, lab) = (Host::new(), Lab::new());
    let mut command = nix_command(&host.lab, "nix", &["show-derivation", "--recursive", &host.top.to_string()]);
    command.args(["--extra-experimental-features", "nix-command"]);
    let json = lab.write("host.json", host.lab.run(command).stdout);
    let file = json.to_str().expect("UTF-8");
    let run = host.fodder(&lab, &["build", "--json", "-o", "result", file, "top"]);
    let result: serde_json::Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    assert_eq!(text(&result, "/status"), "Built");
    assert_eq!(Path::new(text(&result, "/outputs/out/realPath")), lab.real(&host.top));
    // Its input is the host's; it would have been built otherwise.
    assert!(result["dependencies"].as_array().is_none_or(Vec::is_empty), "{result:#}");
    assert!(!run.stderr.contains("dep>"), "{}", run.stderr);
    assert_eq!(std::fs::read_link(lab.path().join("result")).expect("a link"), lab.real(&host.top));
    let run = host.fodder(&lab, &["build", "--json", "-o", "result", file, "top"]);
    assert!(run.stdout.contains("AlreadyValid"), "{run:?}");
    we_say(&lab, &["gc"]);
    assert!(real_input(&lab, &host.top) && real_input(&lab, &host.dep));
    verified(&lab);
}

#[test]
fn a_host_store_that_may_only_be_read_will_do() {
    let (host, lab) = (Host::new(), Lab::new());
    let database = host.lab.store().join("nix/var/nix/db");
    let restrict = |mode| {
        for entry in std::fs::read_dir(&database).expect("list") {
            std::fs::set_permissions(entry.expect("an entry").path(), PermissionsExt::from_mode(mode & 0o666))
                .expect("chmod");
        }
        for directory in [&database, &host.lab.store().join("nix/store")] {
            std::fs::set_permissions(directory, PermissionsExt::from_mode(mode)).expect("chmod");
        }
    };
    let recipe = Recipe::new("reads", "read line < $top; echo $line > $out; echo $top >> $out")
        .env("top", &host.top.to_string())
        .source(&host.top);
    restrict(0o555);
    let run = host.fodder(&lab, &["build", "--no-link", recipe.write(&lab).to_str().expect("UTF-8")]);
    restrict(0o755);
    assert_eq!(run.code, 0, "{run:?}");
    verified(&lab);
}

#[test]
fn damage_in_the_host_store_is_not_copied() {
    let (host, lab) = (Host::new(), Lab::new());
    let real = host.lab.real(&host.dep);
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o644)).expect("chmod");
    std::fs::write(&real, "damaged").expect("write");
    let recipe = Recipe::new("refers", "echo $top > $out").env("top", &host.top.to_string()).source(&host.top);
    let run = host.fodder(&lab, &["build", "--no-link", recipe.write(&lab).to_str().expect("UTF-8")]);
    assert!(run.code == 1 && run.stderr.contains("hash mismatch importing path"), "{run:?}");
    verified(&lab);
    // Valid for it, but gone: not valid for us.
    std::fs::remove_file(host.lab.real(&host.top)).expect("remove");
    let run = host.fodder(&lab, &["build", "--no-link", recipe.write(&lab).to_str().expect("UTF-8")]);
    assert!(run.code == 100 && run.stderr.contains("is not valid"), "{run:?}");
}

#[test]
fn a_host_store_that_is_named_must_be_one() {
    let lab = Lab::new();
    let recipe = Recipe::new("any", "echo > $out");
    let run = lab.make(&recipe, &["--host-store", "absent"]);
    assert!(run.code == 1 && run.stderr.contains("there is no store in 'absent'"), "{run:?}");
    // Our own store is not below itself.
    lab.made(&recipe, &[]);
    let store = lab.store();
    let run = lab.make(&recipe, &["--host-store", store.to_str().expect("UTF-8")]);
    assert_eq!(run.code, 0, "{run:?}");
    verified(&lab);
}
