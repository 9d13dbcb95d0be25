//! Every folder of `examples/` does what it is there to show.

use crate::{
    lab::{Lab, need},
    server::Server,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// What a folder is expected to come to.
struct Example {
    folder: &'static str,
    code: i32,
    status: &'static str,
    /// In the log, or among what is said about the outcome.
    says: &'static [&'static str],
    /// Some files of the output.
    files: &'static [&'static str],
}

const EXAMPLES: [Example; 11] = [
    Example {
        folder: "normal",
        code: 100,
        status: "PermanentFailure",
        says: &[
            "Network is unreachable",
            "unable to resolve host address",
            "buildPhase failed with exit status 4",
            "note: this derivation declares no output hash, so it has no network",
        ],
        files: &[],
    },
    // Its address is replaced by that of a server of the test's own.
    Example { folder: "fixed-output", code: 0, status: "Built", says: &["index.html"], files: &["index.html"] },
    Example {
        folder: "random",
        code: 102,
        status: "HashMismatch",
        says: &["  specified: sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "     got:    sha256-"],
        files: &[],
    },
    Example {
        folder: "refers-to-its-tool",
        code: 112,
        status: "OutputRejected",
        says: &[
            "fixed-output derivations must not reference store paths: '/nix/store/",
            " references 1 distinct paths, e.g. '/nix/store/",
            "hello-path.txt:11  /nix/store/",
        ],
        files: &[],
    },
    Example {
        folder: "cargo-vendor",
        code: 0,
        status: "Built",
        says: &[],
        files: &["itoa/src/lib.rs", "lock_api/Cargo.toml", "scopeguard/.cargo-checksum.json"],
    },
    // These two are served by the tests themselves, and so are other files than the committed ones.
    Example { folder: "git-clone", code: 0, status: "Built", says: &[], files: &["README", "deep/down"] },
    Example { folder: "go-mod", code: 0, status: "Built", says: &[], files: &["modules.txt"] },
    Example {
        folder: "npm",
        code: 0,
        status: "Built",
        says: &["added 2 packages"],
        files: &["is-odd/index.js", "is-number/package.json"],
    },
    Example { folder: "pnpm-deps", code: 0, status: "Built", says: &["Done in "], files: &[] },
    Example {
        folder: "uv",
        code: 0,
        status: "Built",
        says: &["Found 0 unique store path references to strip"],
        files: &["pyvenv.cfg", "lib/python3/site-packages/six.py", "lib/python3/site-packages/idna/core.py"],
    },
    Example {
        folder: "uv-restored",
        code: 0,
        status: "Built",
        says: &["imported from /nix/store/", "Library runpath: [/"],
        files: &["pyvenv.cfg", "bin/python"],
    },
];

/// What `examples/pnpm-deps` says it needs. Another version lays its store out in another way.
const PNPM: &str = "pnpm@10.34.8";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn derivation(folder: &str) -> PathBuf {
    root().join(folder).join("derivation.json")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Builds a file into an empty store, and compares with what is expected.
fn check(lab: &Lab, folder: &str, file: &Path, change: impl Fn(&mut Command)) -> Value {
    let example = EXAMPLES.iter().find(|example| example.folder == folder).expect("an example of this name");
    let Example { folder: _, code, status, says, files } = example;
    let store = lab.store();
    let mut command = lab.command(&["build", "--no-link", "--json", "--store"]);
    command.arg(&store).arg(file);
    change(&mut command);
    let run = lab.run(command);
    assert_eq!(run.code, *code, "{}", run.stderr);
    let outcome: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    assert_eq!(outcome["status"], *status, "{}", run.stderr);
    for words in *says {
        assert!(run.stderr.contains(words), "'{words}' is not in\n{}", run.stderr);
    }
    for name in *files {
        let path = Path::new(outcome["outputs"]["out"]["realPath"].as_str().expect("a path")).join(name);
        assert!(path.is_file(), "{}", path.display());
    }
    if outcome["hash"].is_object() && *code == 0 {
        assert_eq!(outcome["hash"]["specified"], outcome["hash"]["got"]);
        assert_eq!(outcome["outputs"]["out"]["references"], serde_json::json!([]));
    }
    outcome
}

#[test]
fn no_folder_is_forgotten() {
    let folders: BTreeSet<String> = std::fs::read_dir(root())
        .expect("list the examples")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(folders, EXAMPLES.iter().map(|example| example.folder.to_owned()).collect());
}

#[test]
fn every_example_fits_the_schema_and_says_where_it_is() {
    let schema = fodder_model::short_form::schema::schema();
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    for Example { folder, .. } in &EXAMPLES {
        let value = read(&derivation(folder));
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path)).collect();
        assert!(errors.is_empty(), "{folder}: {errors:?}");
        let schema = root().join(folder).join(value["$schema"].as_str().expect("a path"));
        assert!(schema.is_file(), "{}", schema.display());
        assert!(value["meta"]["description"].is_string(), "{folder} does not say what it shows");
    }
}

/// What `show` prints is read again, and is the same derivation.
#[test]
fn every_example_can_be_shown_and_read_again() {
    let lab = Lab::new();
    for Example { folder, .. } in &EXAMPLES {
        let file = derivation(folder);
        let file = file.to_str().expect("UTF-8");
        let show = |file: &str, format: &str| {
            let run = lab.fodder(&["show", "--format", format, file]);
            assert_eq!(run.code, 0, "{file}: {}", run.stderr);
            run.stdout
        };
        let path = show(file, "path");
        for format in ["json", "aterm"] {
            let name = path.trim_end().rsplit('/').next().expect("a name");
            let name = if format == "aterm" { name.to_owned() } else { format!("{name}.json") };
            let written = lab.write(&name, show(file, format));
            assert_eq!(show(written.to_str().expect("UTF-8"), "path"), path, "{folder} as {format}");
        }
    }
}

#[test]
fn without_a_hash_there_is_no_network() {
    need("wget", "wget");
    check(&Lab::new(), "normal", &derivation("normal"), |_| {});
}

/// The committed address is the article's; the test puts that of its own server in its place, and the hash of its own page.
#[test]
fn a_declared_hash_grants_the_network() {
    need("wget", "wget");
    let lab = Lab::new();
    let server = Server::start();
    let page = lab.write("page/index.html", "<!doctype html><title>A page</title>\n");
    let hash = lab.fodder(&["hash", page.parent().expect("a parent").to_str().expect("UTF-8")]);
    let mut value = read(&derivation("fixed-output"));
    assert_eq!(value["url"], "https://example.com");
    value["url"] = server.add("index.html", std::fs::read(&page).expect("read")).into();
    value["outputHash"] = hash.stdout.trim_end().into();
    let file = lab.write("derivation.json", value.to_string());
    check(&lab, "fixed-output", &file, |command| {
        command.arg("--ca-file").arg(server.ca_file()).args(["--allow-loopback", &server.port()]);
    });
}

/// The article's own store path: the hash alone decides it.
#[test]
fn the_fixed_output_has_the_path_that_nix_gives_it() {
    let file = derivation("fixed-output");
    let run = Lab::new().fodder(&["show", "--format", "outputs", file.to_str().expect("UTF-8")]);
    assert_eq!(run.stdout, "/nix/store/fhxk6vsa7h1l10fa99c2d7iwbin4h3ay-fixed-output-derivation\n");
}

#[test]
fn a_random_output_is_never_what_was_declared() {
    check(&Lab::new(), "random", &derivation("random"), |_| {});
}

#[test]
fn an_output_that_refers_to_its_tool_is_refused() {
    need("which", "debianutils");
    check(&Lab::new(), "refers-to-its-tool", &derivation("refers-to-its-tool"), |_| {});
}

#[test]
fn cargo_vendors_what_the_manifest_pins() {
    check(&Lab::new(), "cargo-vendor", &derivation("cargo-vendor"), |_| {});
}

#[test]
fn npm_installs_what_the_manifest_pins() {
    need("npm", "npm");
    check(&Lab::new(), "npm", &derivation("npm"), |_| {});
}

/// The committed hash is that of `PNPM`'s store; a run that is cold again, under another directory, comes to the same.
#[test]
fn pnpm_fetches_what_the_lock_file_pins() {
    need("npm", "npm");
    need("jq", "jq");
    let lab = Lab::new();
    let mut command = Command::new("npm");
    command.args(["install", "--global", "--no-audit", "--no-fund", "--prefix", "tool", PNPM]);
    // Nothing of npm's own is written outside the lab.
    command.args(["--cache", "npm-cache"]).current_dir(lab.path());
    // Node has authorities of its own, and adds the machine's only if told so by this name.
    if let (None, Some(bundle)) = (std::env::var_os("NODE_EXTRA_CA_CERTS"), std::env::var_os("SSL_CERT_FILE")) {
        command.env("NODE_EXTRA_CA_CERTS", bundle);
    }
    let run = lab.run(command);
    assert_eq!(run.code, 0, "this test could not install {PNPM}: {}", run.stderr);
    let path = std::env::var("PATH").expect("a search path");
    let path = format!("{}:{path}", lab.path().join("tool/bin").display());
    let outcome = check(&lab, "pnpm-deps", &derivation("pnpm-deps"), |command| {
        command.env("PATH", &path);
    });
    let store = PathBuf::from(outcome["outputs"]["out"]["realPath"].as_str().expect("a path")).join("v10");
    assert!(!store.join("tmp").exists() && !store.join("projects").exists());
    let indices: Vec<PathBuf> = walk(&store.join("index"));
    assert_eq!(indices.len(), 2, "{indices:?}");
    for index in indices {
        let text = std::fs::read_to_string(&index).expect("read");
        assert!(text.contains("integrity") && !text.contains("checkedAt"), "{}: {text}", index.display());
    }
    let mut command = lab.command(&["build", "--no-link", "--rebuild", "--store"]);
    command.arg(lab.store()).arg(derivation("pnpm-deps")).env("PATH", &path);
    let again = lab.run(command);
    assert_eq!(again.code, 0, "{}", again.stderr);
}

/// All files of a directory.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// The module and its proxy are the test's own; what `go` makes of them outside says which hash is right.
#[test]
fn go_downloads_what_the_manifest_pins() {
    need("go", "golang-go");
    need("zip", "zip");
    let lab = Lab::new();
    let server = Server::start();
    let script = r#"
        module=example.invalid/greeting version=v1.2.3
        mkdir -p "made/$module@$version" "$root/$module/@v" project
        printf 'module %s\n\ngo 1.19\n' $module >"made/$module@$version/go.mod"
        printf '// Package greeting greets.\npackage greeting\n\n// Word says how.\nconst Word = "hello"\n' \
            >"made/$module@$version/greeting.go"
        (cd made && zip -qrD "$root/$module/@v/$version.zip" .)
        cp "made/$module@$version/go.mod" "$root/$module/@v/$version.mod"
        printf '{"Version":"%s","Time":"2024-01-02T03:04:05Z"}' $version >"$root/$module/@v/$version.info"
        echo $version >"$root/$module/@v/list"
        cd project
        printf 'module example.invalid/project\n\ngo 1.19\n\nrequire %s %s\n' $module $version >go.mod
        printf 'package main\n\nimport "%s"\n\nfunc main() {\n\tprintln(greeting.Word)\n}\n' $module >main.go
        go mod tidy
        go mod vendor
        mv vendor ../expected"#;
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(lab.path()).env("root", server.root());
    command.env("HOME", lab.path()).env("GOPATH", lab.path().join("go")).env("GOFLAGS", "-modcacherw");
    command.env("GOPROXY", format!("file://{}", server.root().display())).env("GONOSUMDB", "*");
    command.env("GOTOOLCHAIN", "local").env_remove("GOCACHE");
    let made = lab.run(command);
    assert_eq!(made.code, 0, "{}", made.stderr);

    let mut value = read(&derivation("go-mod"));
    let proxy = server.url("");
    value["env"]["GOPROXY"] = proxy.trim_end_matches('/').into();
    value["outputHash"] = lab.fodder(&["hash", "expected"]).stdout.trim_end().into();
    let file = lab.write("project/derivation.json", value.to_string());
    check(&lab, "go-mod", &file, |command| {
        command.arg("--ca-file").arg(server.ca_file()).args(["--allow-loopback", &server.port()]);
    });
    let archive = "GET /example.invalid/greeting/@v/v1.2.3.zip".to_owned();
    assert!(server.requests().contains(&archive), "{:?}", server.requests());
}

/// A commit that is no branch's last one, from a server that speaks git's own protocol.
#[test]
fn git_fetches_one_commit() {
    need("git", "git");
    let lab = Lab::new();
    let script = "
        git init -q served/repository && cd served/repository
        git config user.name tester && git config user.email tester@example.invalid
        mkdir deep && echo first >README && echo down >deep/down
        git add . && git commit -qm one && git rev-parse HEAD
        cp -r . ../../expected && rm -rf ../../expected/.git
        echo second >README && git commit -qam two";
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(lab.path()).env("HOME", lab.path());
    let made = lab.run(command);
    assert_eq!(made.code, 0, "{}", made.stderr);

    let port = serve_git(&lab.path().join("served"));
    let mut value = read(&derivation("git-clone"));
    value["url"] = format!("git://localhost:{port}/repository").into();
    value["rev"] = made.stdout.trim_end().into();
    value["outputHash"] = lab.fodder(&["hash", "expected"]).stdout.trim_end().into();
    let file = lab.write("derivation.json", value.to_string());
    let outcome = check(&lab, "git-clone", &file, |command| {
        command.args(["--allow-loopback", &port.to_string()]);
    });
    let output = Path::new(outcome["outputs"]["out"]["realPath"].as_str().expect("a path"));
    assert!(!output.join(".git").exists());
}

/// Serves repositories below a directory on a port of loopback, one `git daemon` for each connection, until the test ends.
fn serve_git(directory: &Path) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let port = listener.local_addr().expect("an address").port();
    let directory = directory.to_owned();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("a connection");
            let input = std::os::fd::OwnedFd::from(connection.try_clone().expect("a second descriptor"));
            let mut daemon = Command::new("git");
            daemon.args(["daemon", "--inetd", "--export-all"]).arg(format!("--base-path={}", directory.display()));
            daemon.env("HOME", &directory).stdin(input).stdout(std::os::fd::OwnedFd::from(connection));
            daemon.spawn().and_then(|mut daemon| daemon.wait()).expect("run git daemon");
        }
    });
    port
}

/// Two steps: what is fetched has no trace of the machine, and what is made of it, without the network, has them again.
#[test]
fn uv_installs_what_the_manifest_pins_and_a_second_derivation_restores_the_rest() {
    need("patchelf", "patchelf");
    let lab = Lab::new();
    let tool = uv(&lab);
    let path = std::env::var("PATH").expect("a search path");
    let first = check(&lab, "uv", &derivation("uv"), |command| {
        command.env("PATH", format!("{}:{path}", tool.display()));
    });
    let second = check(&lab, "uv-restored", &derivation("uv-restored"), |_| {});
    assert_eq!(second["network"]["mode"], "none");
    assert!(second["hash"].is_null(), "{second:#}");
    let references = second["outputs"]["out"]["references"].as_array().expect("references");
    assert!(!references.contains(&first["outputs"]["out"]["path"]), "the packages are a copy: {references:?}");
}

/// The directory that `uv` is in. No distribution has it, so where it is missing it is installed for this one test.
fn uv(lab: &Lab) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(directory) = std::env::split_paths(&path).find(|directory| directory.join("uv").is_file()) {
        return directory;
    }
    let script = "python3 -m venv tool && tool/bin/pip install --quiet uv";
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(lab.path());
    let run = lab.run(command);
    assert_eq!(
        run.code, 0,
        "this test needs 'uv' and could not install it (apt-get install python3-venv): {}",
        run.stderr
    );
    lab.path().join("tool/bin")
}
