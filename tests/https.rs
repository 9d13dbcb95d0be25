//! Fixed-output builds talk to a real HTTPS server whose authority only `--ca-file` and its like know; other builds do not.

use crate::{
    lab::{Lab, Run, need},
    server::Server,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The variables through which a bundle is found; none of the machine's may decide a test.
const CERTIFICATE_VARIABLES: [&str; 2] = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"];

/// A flat fixed output that holds `contents`, made by these lines.
pub(crate) fn fetch(contents: &[u8], lines: &[&str], url: &str) -> Value {
    let hash: String = Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "name": "fetched", "url": url, "dontUnpack": true, "buildPhase": lines,
        "outputHashAlgo": "sha256", "outputHashMode": "flat", "outputHash": hash
    })
}

pub(crate) fn build(lab: &Lab, form: &Value, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    lab.write("derivation.json", form.to_string());
    let store = lab.store();
    let mut command = lab.command(&["build", "--no-link", "--store"]);
    command.arg(store).args(arguments).arg("derivation.json");
    // The test's own server is on this machine's loopback, which is closed to builds that are not told otherwise.
    if let Some(port) = own_server(form) {
        command.args(["--allow-loopback", port]);
    }
    for name in CERTIFICATE_VARIABLES {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    lab.run(command)
}

/// The port of this machine's that a form's address names.
fn own_server(form: &Value) -> Option<&str> {
    let rest = form["url"].as_str()?.strip_prefix("https://localhost:")?;
    Some(rest.split('/').next().unwrap_or(rest))
}

/// Builds with `--ca-file`, and insists on success.
pub(crate) fn must_build(server: &Server, form: &Value) -> Run {
    let lab = Lab::new();
    let ca_file = server.ca_file();
    let run = build(&lab, form, &["--ca-file", text(&ca_file)], &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have simple names")
}

#[test]
fn curl_and_wget_verify_against_the_bundle_however_it_is_named() {
    need("curl", "curl");
    need("wget", "wget");
    let server = Server::start();
    let url = server.add("page", "hello\n");
    let ca_file = server.ca_file();
    for line in ["curl -fsS $url -o $out", "wget -nv $url -O $out"] {
        let form = fetch(b"hello\n", &[line], &url);
        for (arguments, environment) in [
            (vec!["--ca-file", text(&ca_file)], vec![]),
            (vec![], vec![("NIX_SSL_CERT_FILE", text(&ca_file))]),
            (vec![], vec![("SSL_CERT_FILE", text(&ca_file))]),
            // What was named on the command line counts.
            (vec!["--ca-file", text(&ca_file)], vec![("NIX_SSL_CERT_FILE", "/etc/hostname")]),
        ] {
            let run = build(&Lab::new(), &form, &arguments, &environment);
            assert_eq!(run.code, 0, "{line} {arguments:?} {environment:?}\n{}", run.stderr);
        }
    }
    assert_eq!(server.requests(), ["GET /page"; 8]);
}

#[test]
fn an_authority_that_nobody_named_is_not_trusted() {
    let server = Server::start();
    let url = server.add("page", "hello\n");
    let other = Server::start();
    for line in ["curl -fsS $url -o $out", "wget -nv $url -O $out"] {
        let form = fetch(b"hello\n", &[line], &url);
        let other = other.ca_file();
        for arguments in [vec![], vec!["--ca-file", text(&other)]] {
            let run = build(&Lab::new(), &form, &arguments, &[]);
            assert_eq!(run.code, 100, "{line}: {}", run.stderr);
            assert!(run.stderr.contains("certificate"), "{line}: {}", run.stderr);
            assert!(run.stderr.contains("name other ones with --ca-file"), "{line}: {}", run.stderr);
            assert!(run.stderr.contains("comes from 'CN=fodder test authority'"), "{line}: {}", run.stderr);
        }
    }
    assert_eq!(server.requests(), [""; 0], "nothing is asked of a server that is not trusted");
}

#[test]
fn a_server_that_is_not_trusted_is_not_asked_twice() {
    let [server, other] = [Server::start(), Server::start()];
    let certificates = std::fs::read(other.ca_file()).expect("a bundle");
    let settings = fodder_store::HttpSettings { certificates, attempts: 3, proxies: Default::default() };
    let (tries, counter) = std::sync::mpsc::channel();
    let http = fodder_store::Http::new(&settings).expect("a client");
    let opened = http.open(&server.add("page", "x"), None, Box::new(move |_, _| tries.send(()).expect("a count")));
    let error = opened.expect_err("nobody vouches for it").to_string();
    assert!(error.contains("certificate") || error.contains("UnknownIssuer"), "{error}");
    assert_eq!(counter.try_iter().count(), 0);
}

#[test]
fn the_bundle_inside_is_the_file_to_the_byte_and_every_variable_names_it() {
    let server = Server::start();
    let ca_file = server.ca_file();
    let contents = std::fs::read(&ca_file).expect("read");
    let variables = fodder_model::short_form::CERTIFICATE_VARIABLES.join(" ");
    let bundle = fodder_model::short_form::CERTIFICATE_BUNDLE;
    let lines = [
        format!("for name in {variables}; do"),
        format!("    [[ ${{!name}} == {bundle} ]] || {{ echo \"$name is '${{!name}}'\"; exit 1; }}"),
        "done".to_owned(),
        format!("cmp {bundle} /etc/ssl/cert.pem"),
        format!("cmp {bundle} /etc/pki/tls/certs/ca-bundle.crt"),
        format!("cp {bundle} $out"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    must_build(&server, &fetch(&contents, &lines, ""));
}

#[test]
fn redirects_are_followed() {
    let server = Server::start();
    server.add("page", "hello\n");
    must_build(&server, &fetch(b"hello\n", &["curl -fsSL $url -o $out"], &server.url("redirect/redirect/page")));
    assert_eq!(server.requests(), ["GET /redirect/redirect/page", "GET /redirect/page", "GET /page"]);
}

#[test]
fn python_and_node_verify_against_the_bundle() {
    need("node", "nodejs");
    need("python3", "python3");
    let server = Server::start();
    let url = server.add("page", "hello\n");
    for (tool, program) in [
        (
            "python3",
            "import os, urllib.request; open(os.environ['out'], 'wb').write(urllib.request.urlopen(os.environ['url']).read())",
        ),
        (
            "node",
            "fetch(process.env.url).then(answer => answer.text()).then(text => fs.writeFileSync(process.env.out, text))",
        ),
    ] {
        let flag = if tool == "node" { "-e" } else { "-c" };
        let mut form = fetch(b"hello\n", &[&format!("{tool} {flag} \"$program\"")], &url);
        form["nativeBuildInputs"] = json!([tool]);
        form["program"] = program.into();
        must_build(&server, &form);
    }
}

#[test]
fn git_clones_over_https() {
    let git = need("git", "git");
    let lab = Lab::new();
    let server = Server::start();
    let script = "
        git init -q source && cd source
        git config user.name tester && git config user.email tester@example.invalid
        echo hello >file && git add file && git commit -qm one
        git clone -q --bare . \"$root/repository.git\" && git -C \"$root/repository.git\" update-server-info";
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", script]).current_dir(lab.path()).env("root", server.root()).env("HOME", lab.path());
    let made = lab.run(command);
    assert_eq!(made.code, 0, "{} {}", git.display(), made.stderr);
    let lines = ["git clone -q $url checkout", "cp checkout/file $out"];
    let mut form = fetch(b"hello\n", &lines, &server.url("repository.git"));
    form["nativeBuildInputs"] = json!(["git"]);
    must_build(&server, &form);
}

#[test]
fn a_build_without_a_declared_hash_reaches_nobody() {
    let server = Server::start();
    let url = server.add("page", "hello\n");
    let ca_file = server.ca_file();
    let mut form = fetch(b"hello\n", &["curl -fsS $url -o $out"], &url);
    for attribute in ["outputHash", "outputHashAlgo", "outputHashMode"] {
        form.as_object_mut().expect("an object").remove(attribute);
    }
    let run = build(&Lab::new(), &form, &["--ca-file", text(&ca_file)], &[]);
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert_eq!(server.requests(), [""; 0]);
    // Nor does a fixed output when it is told not to.
    let form = fetch(b"hello\n", &["curl -fsS $url -o $out"], &url);
    let run = build(&Lab::new(), &form, &["--offline", "--ca-file", text(&ca_file)], &[]);
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn impure_variables_reach_fixed_outputs_only() {
    let lines = ["echo \"$http_proxy\" > $out"];
    let mut form = fetch(b"http://proxy.invalid:3128\n", &lines, "");
    form["impureEnvVars"] = json!(["http_proxy", "https_proxy"]);
    let environment = [("http_proxy", "http://proxy.invalid:3128"), ("no_proxy", "not asked for")];
    let run = build(&Lab::new(), &form, &[], &environment);
    assert_eq!(run.code, 0, "{}", run.stderr);

    for attribute in ["outputHash", "outputHashAlgo", "outputHashMode"] {
        form.as_object_mut().expect("an object").remove(attribute);
    }
    form["buildPhase"] = json!(["[[ -z ${http_proxy+set} ]]", "touch $out"]);
    let run = build(&Lab::new(), &form, &[], &environment);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn what_arrives_is_judged_by_its_hash() {
    let server = Server::start();
    let url = server.add("page", "something else\n");
    let ca_file = server.ca_file();
    let form = fetch(b"hello\n", &["curl -fsS $url -o $out"], &url);
    let run = build(&Lab::new(), &form, &["--ca-file", text(&ca_file)], &[]);
    assert_eq!(run.code, 102, "{}", run.stderr);
    assert!(run.stderr.contains("\n         specified: sha256-"), "{}", run.stderr);
    assert!(run.stderr.contains("\n            got:    sha256-"), "{}", run.stderr);
}
