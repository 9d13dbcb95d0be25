//! Real Nix with a store of its own beside fodder's, and the comparison of the two.

use crate::{
    lab::{Lab, Run, need},
    recipe::text,
};
use fodder_model::store_path::StorePath;
use fodder_store::Store;
use std::{collections::BTreeSet, path::PathBuf, process::Command};

/// Cores that both are told of.
const CORES: &str = "3";

/// Nix, without any configuration of the machine's.
pub struct Nix {
    /// Where it works, and fodder's store.
    pub lab: Lab,
}

/// How both ended.
pub struct Endings {
    /// What Nix did.
    pub nix: Run,
    /// What fodder did.
    pub fodder: Run,
    /// The derivation.
    pub path: StorePath,
}

impl Nix {
    pub fn new() -> Self {
        need("busybox", "busybox-static");
        need("nix-store", "nix-bin");
        let nix = Nix { lab: Lab::new() };
        for directory in ["conf", "home"] {
            std::fs::create_dir(nix.lab.path().join(directory)).expect("create a directory");
        }
        nix
    }

    /// Root of Nix's store.
    pub fn store(&self) -> PathBuf {
        self.lab.path().join("nix-store")
    }

    /// Where a path is on disk in Nix's store.
    pub fn real(&self, path: &StorePath) -> PathBuf {
        self.store().join("nix/store").join(path.base_name())
    }

    /// One of Nix's programs.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg("--store").arg(self.store());
        command.args(["--option", "build-users-group", "", "--option", "sandbox", "true"]);
        command.args(["--option", "sandbox-fallback", "false", "--option", "substitute", "false"]);
        command.args(["--option", "compress-build-log", "false", "--option", "cores", CORES]);
        command.args(["--extra-experimental-features", "nix-command ca-derivations"]);
        command.current_dir(self.lab.path()).stdin(std::process::Stdio::null());
        self.environment(&mut command);
        command
    }

    /// The same surroundings for both.
    fn environment(&self, command: &mut Command) {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("FODDER_HOST_STORE", "none");
        command.env("NIX_CONF_DIR", self.lab.path().join("conf")).env("HOME", self.lab.path().join("home"));
        // Ids without an account are users too: Nix insists on a name.
        command.env("USER", "oracle").env("told", "a secret").env("TMPDIR", std::env::temp_dir());
    }

    /// Runs one of Nix's programs, which must succeed.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let run = self.lab.run(self.command(program, arguments));
        assert_eq!(run.code, 0, "{program} {arguments:?}: {}", run.stderr);
        run.stdout
    }

    /// Writes the derivation of an expression into Nix's store.
    #[track_caller]
    pub fn instantiate(&self, name: &str, expression: &str) -> StorePath {
        let file = self.lab.write(&format!("{name}.nix"), expression);
        let path = self.run("nix-instantiate", &[file.to_str().expect("UTF-8")]);
        StorePath::from_full_path(path.trim().split('!').next().expect("a path")).expect("a store path")
    }

    /// Builds with Nix, in its sandbox with a static shell.
    pub fn realise(&self, path: &StorePath, more: &[&str]) -> Run {
        let path = path.to_string();
        let mut arguments = vec!["--realise", &path, "--option", "sandbox-paths", "/bin/sh=/bin/busybox"];
        arguments.extend(more);
        self.lab.run(self.command("nix-store", &arguments))
    }

    /// Answers of the database about a path, a line each.
    pub fn query(&self, question: &str, path: &StorePath) -> Vec<String> {
        let lines = self.run("nix-store", &["--query", question, &path.to_string()]);
        lines.lines().map(str::to_owned).collect()
    }

    /// Builds an expression with both. Inputs are built first, with each of them.
    #[track_caller]
    pub fn both(&self, name: &str, expression: &str) -> Endings {
        self.both_with(name, expression, &[], &[])
    }

    /// The same with flags.
    #[track_caller]
    pub fn both_with(&self, name: &str, expression: &str, for_nix: &[&str], for_fodder: &[&str]) -> Endings {
        let path = self.instantiate(name, expression);
        let json = self.run("nix", &["show-derivation", "--recursive", &path.to_string()]);
        let file = self.lab.write(&format!("{name}.json"), &json);
        let file = file.to_str().expect("UTF-8");
        let closure = self.query("--requisites", &path);
        let store = Store::open(&self.lab.store()).expect("open the store");
        for line in &closure {
            let member = StorePath::from_full_path(line).expect("a store path");
            if !member.is_derivation() {
                self.copy(&store, &member);
            } else if member != path {
                assert_eq!(self.realise(&member, &[]).code, 0, "{member}");
                let run = self.fodder(file, &member, &[]);
                assert_eq!(run.code, 0, "{}", run.stderr);
            }
        }
        let shown = self.lab.fodder(&["show", "--format", "path", "--store", "store", file, &path.to_string()]);
        assert_eq!(shown.stdout.trim(), path.to_string(), "{name}: {}", shown.stderr);
        Endings { nix: self.realise(&path, for_nix), fodder: self.fodder(file, &path, for_fodder), path }
    }

    /// Builds with fodder, in the same surroundings.
    pub fn fodder(&self, file: &str, path: &StorePath, more: &[&str]) -> Run {
        let store = self.lab.store();
        let path = path.to_string();
        let mut arguments =
            vec!["build", "--json", "--no-link", "--cores", CORES, "--store", store.to_str().expect("UTF-8")];
        // What Nix gives to whoever asks.
        arguments.extend(["--allow-env", "told TMPDIR HOME"]);
        arguments.extend([file, &path]);
        arguments.extend(more);
        let mut command = self.lab.command(&arguments);
        self.environment(&mut command);
        self.lab.run(command)
    }

    /// Copies a source from Nix's store to fodder's.
    pub fn copy(&self, store: &Store, path: &StorePath) {
        let real = self.real(path);
        let references: BTreeSet<StorePath> =
            self.query("--references", path).iter().map(|line| line.parse().expect("a store path")).collect();
        let copied = match std::fs::read(&real) {
            Ok(contents) if StorePath::of_text(path.name(), &contents, &references).is_ok_and(|text| text == *path) => {
                store.add_text(path.name(), &contents, &references, 1).expect("add a text")
            }
            _ => store.add_source(path.name(), &real, 1).expect("add a source"),
        };
        assert_eq!(copied.path, *path);
    }

    /// Compares everything about two builds that succeeded.
    #[track_caller]
    pub fn same(&self, name: &str, endings: &Endings) {
        self.same_outputs(name, endings);
        let result: serde_json::Value = serde_json::from_str(&endings.fodder.stdout).expect("JSON");
        let log = std::fs::read(text(&result, "/logFile")).expect("our log");
        assert_eq!(self.log(&endings.path), log, "{name}: the logs");
    }

    /// The same, without the logs.
    #[track_caller]
    pub fn same_outputs(&self, name: &str, endings: &Endings) {
        let Endings { nix, fodder, path } = endings;
        assert_eq!(nix.code, 0, "{name}: Nix says {}", nix.stderr);
        assert_eq!(fodder.code, 0, "{name}: fodder says {}", fodder.stderr);
        let result: serde_json::Value = serde_json::from_str(&fodder.stdout).expect("JSON");
        assert_eq!(text(&result, "/drvPath"), path.to_string(), "{name}");
        let outputs = result["outputs"].as_object().expect("outputs");
        let ours: BTreeSet<String> = outputs.values().map(|output| text(output, "/path").to_owned()).collect();
        assert_eq!(ours, self.query("--outputs", path).into_iter().collect(), "{name}");
        for output in outputs.values() {
            let output_path: StorePath = text(output, "/path").parse().expect("a store path");
            let hash = fodder_model::hash::Hash::parse_sri(text(output, "/narHash")).expect("a hash");
            if self.query("--hash", &output_path) != [format!("sha256:{}", hash.to_nix32())] {
                let mut diff = Command::new("diff");
                diff.args(["-r", "-a", "--no-dereference"])
                    .arg(self.real(&output_path))
                    .arg(self.lab.real(&output_path));
                panic!("{name}: {output_path} differs (Nix's, ours):\n{}", self.lab.run(diff).stdout);
            }
            assert_eq!(self.query("--size", &output_path), [output["narSize"].to_string()], "{name}");
            let mut references = self.query("--references", &output_path);
            references.sort();
            let ours: Vec<&str> =
                output["references"].as_array().expect("references").iter().filter_map(|path| path.as_str()).collect();
            assert_eq!(ours, references, "{name}: references of {output_path}");
        }
    }

    /// The log that Nix kept.
    pub fn log(&self, path: &StorePath) -> Vec<u8> {
        let (first, rest) = path.base_name().split_at(2);
        let file = self.store().join("nix/var/log/nix/drvs").join(first).join(rest);
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }
}

/// A text as Nix writes it.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${"))
}

/// The expression of a derivation that a shell builds: `attributes` are further lines of Nix.
pub fn expression(name: &str, script: &str, attributes: &str) -> String {
    format!(
        "let dep = derivation {{ name = \"dep\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo dep > $out\" ]; }};\n\
         two = derivation {{ name = \"two\"; system = builtins.currentSystem; builder = \"/bin/sh\"; outputs = [ \"out\" \"dev\" ]; args = [ \"-c\" \"echo $dev > $out; echo d > $dev\" ]; }};\n\
         fixed = derivation {{ name = \"fixed\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo hi > $out\" ]; outputHash = \"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=\"; }};\n\
         src = builtins.toFile \"src.txt\" \"hello\";\n\
         refers = builtins.toFile \"refers.txt\" \"see ${{src}}\";\n\
         placeholder = builtins.placeholder;\n\
         in derivation ({{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" {} ]; }} // {{\n{attributes}\n}})\n",
        quoted(script)
    )
}
