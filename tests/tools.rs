//! Tools of the machine that lie outside the system directories are found, mounted and put on the search path.

use crate::lab::{Lab, Run};
use serde_json::json;
use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

fn program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("create a directory");
    std::fs::write(path, text).expect("write a program");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
}

/// Builds with `inputs` as `nativeBuildInputs` and the lab's `bin` first on the search path.
fn build(lab: &Lab, inputs: &[&str], script: &str) -> Run {
    build_at_home(lab, lab.path(), inputs, script)
}

fn build_at_home(lab: &Lab, home: &Path, inputs: &[&str], script: &str) -> Run {
    let form = json!({ "name": "tools", "nativeBuildInputs": inputs, "dontUnpack": true, "buildPhase": [script, "touch $out"] });
    lab.write("derivation.json", form.to_string());
    let path = std::env::var("PATH").expect("a search path");
    let mut command = lab.command(&["build", "--no-link", "--store"]);
    command.arg(lab.store()).arg("derivation.json");
    command.env("PATH", format!("{}:{path}", lab.path().join("bin").display())).env("HOME", home);
    lab.run(command)
}

fn must_print(run: &Run, words: &str) {
    assert!(run.code == 0 && run.stderr.contains(words), "'{words}' is not in\n{}", run.stderr);
}

#[test]
fn a_single_program_is_shown_alone() {
    let lab = Lab::new();
    program(&lab.path().join("bin/greet"), "#!/bin/sh\necho greeted\n");
    program(&lab.path().join("bin/other"), "#!/bin/sh\necho other\n");
    must_print(&build(&lab, &["greet"], "greet; if type other; then false; fi"), "tools> greeted");
}

#[test]
fn a_link_to_a_program_of_the_system_keeps_its_name() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path().join("bin")).expect("create a directory");
    symlink("/usr/bin/env", lab.path().join("bin/surroundings")).expect("link");
    must_print(&build(&lab, &["surroundings"], "surroundings echo linked"), "tools> linked");
}

#[test]
fn a_toolchain_behind_a_proxy_is_shown_whole() {
    for manager in ["rustup", "pyenv"] {
        let lab = Lab::new();
        let toolchain = lab.path().join(format!(".{manager}/toolchains/one"));
        program(
            &toolchain.join("bin/compile"),
            "#!/bin/sh\nexec assemble \"$(dirname \"$(readlink -f \"$0\")\")/../lib/data\"\n",
        );
        program(&toolchain.join("bin/assemble"), "#!/bin/sh\ncat \"$1\"\n");
        program(&toolchain.join("lib/data"), "from the toolchain\n");
        let answer = format!("#!/bin/sh\n[ \"$1\" = which ] && echo {}/bin/\"$2\"\n", toolchain.display());
        program(&lab.path().join("bin").join(manager), &answer);
        symlink(manager, lab.path().join("bin/compile")).expect("link");
        must_print(&build(&lab, &["compile"], "compile"), "tools> from the toolchain");
    }
}

#[test]
fn a_path_names_a_tool_and_a_missing_one_is_said_to_be_missing() {
    let lab = Lab::new();
    let tool = lab.path().join("deep/down/greet");
    program(&tool, "#!/bin/sh\necho greeted\n");
    must_print(&build(&lab, &[tool.to_str().expect("UTF-8")], "greet"), "tools> greeted");
    let run = build(&lab, &["no-such-tool-anywhere"], "true");
    assert!(run.code == 100 && run.stderr.contains("no command for: no-such-tool-anywhere"), "{}", run.stderr);
    let note = "'no-such-tool-anywhere' of nativeBuildInputs was not found on this machine's PATH";
    assert!(run.stderr.contains(note), "{}", run.stderr);
    let run = build(&lab, &[], "no-such-tool-anywhere");
    assert!(run.stderr.contains("note: 'no-such-tool-anywhere' was not found inside;"), "{}", run.stderr);
}

/// Libraries and what the setup script makes itself are not missed.
#[test]
fn a_package_that_is_no_command_is_not_said_to_be_missing() {
    let lab = Lab::new();
    let run = build(&lab, &["cacert", "stdenv", "moreutils", "removeReferencesTo", "zlib.dev"], "true");
    assert!(run.code == 0 && !run.stderr.contains("was not found on"), "{}", run.stderr);
}

/// A derivation may come from anybody: what a path in it leads to must not run outside the sandbox, nor while it is explained.
#[test]
fn a_path_to_a_proxy_is_not_run_outside() {
    let lab = Lab::new();
    let marker = lab.path().join("marker");
    program(&lab.path().join("evil/rustup"), &format!("#!/bin/sh\n: >{}\necho /bin/sh\n", marker.display()));
    symlink("rustup", lab.path().join("evil/x")).expect("link");
    build(&lab, &[lab.path().join("evil/x").to_str().expect("UTF-8")], "true");
    let run = lab.run(lab.command(&["explain", "derivation.json"]));
    assert!(run.code == 0 && !marker.exists(), "{}", run.stderr);
}

#[test]
fn a_home_behind_a_link_is_not_shown() {
    let lab = Lab::new();
    let local = lab.path().join("home/.local");
    program(&local.join("bin/greet"), "#!/bin/sh\necho greeted\n");
    std::fs::create_dir(local.join("lib")).expect("create a directory");
    let secret = local.join("secret");
    std::fs::write(&secret, "secret").expect("write");
    symlink(local.join("bin"), lab.path().join("bin")).expect("link");
    symlink("home", lab.path().join("link")).expect("link");
    for home in ["home", "link"] {
        // Another derivation each time.
        let script = format!("greet; [ ! -e {} ]; : {home}", secret.display());
        must_print(&build_at_home(&lab, &lab.path().join(home), &["greet"], &script), "tools> greeted");
    }
}

/// The article's names of packages find what the machine has under another name.
#[test]
fn a_package_of_nixpkgs_finds_the_command_of_the_machine() {
    let lab = Lab::new();
    let toolchain = lab.path().join(".nvm/versions/node/v99");
    program(&toolchain.join("bin/node"), "#!/bin/sh\necho node is found\n");
    std::fs::create_dir(toolchain.join("lib")).expect("create a directory");
    std::fs::create_dir(lab.path().join("bin")).expect("create a directory");
    symlink(toolchain.join("bin/node"), lab.path().join("bin/node")).expect("link");
    must_print(&build(&lab, &["nodejs_22"], "node"), "tools> node is found");
}

/// One table twice: what is looked up outside is what the setup script asks for inside.
#[test]
fn the_program_and_the_setup_script_agree_on_packages() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/src/short_form/setup.sh");
    let text = std::fs::read_to_string(script).expect("read the setup script");
    let (_, table) = text.split_once("\ncommandsOf() {").expect("the table");
    let (table, _) = table.split_once("\n}\n").expect("its end");
    let mut packages: Vec<String> = table
        .lines()
        .filter_map(|line| line.trim_start().split_once(") "))
        .flat_map(|(names, _)| names.split('|').map(|name| name.trim().replace("[0-9]", "7").replace('*', "x")))
        .filter(|name| !name.contains(['$', ' ', '#']))
        .collect();
    assert!(packages.len() > 40, "the table was not found: {packages:?}");
    let more = [
        "git",
        "nodejs_22",
        "go_1_22",
        "pkgs.curl",
        "python3",
        "python314",
        "jdk21",
        "postgresql.pg_config",
        "a_b",
        "xz.bin",
    ];
    packages.extend(more.map(str::to_owned));
    let mut bash = std::process::Command::new("bash");
    bash.args([
        "-c",
        &format!("commandsOf() {{{table}\n}}\nfor package; do echo $(commandsOf \"$package\"); done"),
        "bash",
    ]);
    bash.args(&packages);
    let run = Lab::new().run(bash);
    let of_script: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(of_script.len(), packages.len(), "{}", run.stderr);
    for (package, expected) in packages.iter().zip(of_script) {
        assert_eq!(fodder_model::short_form::commands_of(package).join(" "), expected, "{package}");
    }
}

#[test]
fn what_lies_beside_the_file_becomes_a_store_path() {
    let lab = Lab::new();
    program(&lab.path().join("greeter/bin/greet"), "#!/bin/sh\necho greeted by $0\n");
    let run = build(&lab, &["./greeter"], "greet");
    must_print(&run, "tools> greeted by /nix/store/");
    assert!(run.stderr.contains("-greeter/bin/greet\n"), "{}", run.stderr);
}

#[test]
fn the_home_is_empty_and_writable_and_nothing_of_the_callers_is_in_it() {
    let lab = Lab::new();
    lab.write(".npmrc", "registry=https://nobody.invalid/\n");
    must_print(
        &build(&lab, &[], "[[ $HOME != /homeless-shelter && -z $(ls -A $HOME) ]]; touch $HOME/x; echo written"),
        "tools> written",
    );
}
