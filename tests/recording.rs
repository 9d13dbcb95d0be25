//! Builds are recorded, the servers go away, and the same builds end in the same way; and what must not be in a recording is not.

use crate::{
    https::{fetch, text},
    lab::{Lab, Run, need},
    server::Server,
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    path::PathBuf,
};

const FILE: &str = "build.fod-recording";

/// A server, and a place to record what it says.
struct Studio {
    lab: Lab,
    ca_file: PathBuf,
    port: u16,
    server: Option<Server>,
}

impl Studio {
    fn new() -> Self {
        let server = Server::start();
        let lab = Lab::new();
        // It outlives the server.
        let ca_file = lab.write("ca.pem", std::fs::read(server.ca_file()).expect("read"));
        Studio { lab, ca_file, port: server.port().parse().expect("a port"), server: Some(server) }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the server still runs")
    }

    /// Nobody listens any more.
    fn pull_the_plug(&mut self) {
        self.server = None;
    }

    fn build(&self, store: &str, form: &Value, arguments: &[&str]) -> Run {
        self.lab.write("derivation.json", form.to_string());
        let mut command = self.lab.command(&["build", "--no-link", "--store", store]);
        command.arg("--ca-file").arg(&self.ca_file).args(arguments).arg("derivation.json");
        for name in ["http_proxy", "https_proxy", "all_proxy", "NIX_SSL_CERT_FILE", "SSL_CERT_FILE"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        self.lab.run(command)
    }

    fn record(&self, form: &Value) -> Run {
        let port = self.port.to_string();
        self.build("recorded", form, &["--allow-loopback", &port, "--record", FILE])
    }

    fn must_record(&self, form: &Value) {
        let run = self.record(form);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("note: recorded "), "{}", run.stderr);
    }

    /// In another store, so that nothing is there.
    fn replay(&self, form: &Value) -> Run {
        self.build("replayed", form, &["--replay", FILE])
    }

    fn must_replay(&self, form: &Value) {
        let run = self.replay(form);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("nobody was called"), "{}", run.stderr);
    }

    fn recording(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.lab.path().join(FILE)).expect("a recording")).expect("JSON")
    }

    fn bodies(&self) -> Vec<PathBuf> {
        let directory = self.lab.path().join(format!("{FILE}.bodies"));
        let entries = std::fs::read_dir(directory).expect("a directory of bodies");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// Records with the server, replays without it.
fn there_and_back(studio: &mut Studio, form: &Value) {
    studio.must_record(form);
    studio.pull_the_plug();
    studio.must_replay(form);
}

#[test]
fn tools_get_the_same_bytes_without_the_server() {
    for (program, package) in [("curl", "curl"), ("wget", "wget"), ("python3", "python3"), ("node", "nodejs")] {
        need(program, package);
    }
    let mut studio = Studio::new();
    let url = studio.server().add("page", "hello\n");
    let lines = [
        "curl -fsSL ${url/page/redirect/redirect/page} >> $out",
        "wget -nv $url -O - >> $out",
        "python3 -c \"$python\" >> $out",
        "node -e \"$node\" >> $out",
    ];
    let mut form = fetch(b"hello\nhello\nhello\nhello\n", &lines, &url);
    form["nativeBuildInputs"] = json!(["python3", "node"]);
    form["python"] =
        "import os, sys, urllib.request; sys.stdout.write(urllib.request.urlopen(os.environ['url']).read().decode())"
            .into();
    form["node"] =
        "fetch(process.env.url).then(answer => answer.text()).then(text => process.stdout.write(text))".into();
    there_and_back(&mut studio, &form);
}

#[test]
fn both_versions_of_http_and_every_kind_of_body_are_replayed() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let large: Vec<u8> = (0..20_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    studio.server().add("large", &large);
    let base = studio.server().url("");
    let lines = [
        "curl -fsS --http1.1 ${url}version >> head",
        "curl -fsS --http2 ${url}version >> head",
        "curl -fsS ${url}count ${url}count >> head",
        "[[ $(tail -n 1 head) != $(tail -n 2 head | head -n 1) ]]",
        "head -n 2 head > $out",
        "curl -fsS --http1.1 -r 10-19 ${url}large >> $out",
        "curl -fsS --http2 ${url}streamed/large >> $out",
        "curl -fsS --http1.1 ${url}streamed/large | cmp - <(curl -fsS ${url}large)",
        "curl -fsS --compressed ${url}gzip/large | cmp - <(curl -fsS ${url}gzip/large | gzip -d)",
        "curl -fsSI ${url}large | grep -i 'content-length: 20000000'",
    ];
    let expected = [b"HTTP/1.1\nHTTP/2.0\n", &large[10..20], &large].concat();
    let form = fetch(&expected, &lines, &base);
    there_and_back(&mut studio, &form);
    let recording = studio.recording();
    let exchanges = recording["exchanges"].as_array().expect("exchanges");
    let of = |path: &str| exchanges.iter().find(|exchange| exchange["request"]["url"] == format!("{base}{path}"));
    let streamed = &of("streamed/large").expect("recorded")["response"];
    assert_eq!((&streamed["body"]["size"], &streamed["complete"]), (&json!(20_000_000), &json!(true)));
    let gzip = &of("gzip/large").expect("recorded")["response"];
    assert!(gzip["body"]["size"].as_u64() < Some(20_000_000), "left as it was sent: {gzip}");
}

#[test]
fn git_clones_from_a_recording() {
    need("git", "git");
    let mut studio = Studio::new();
    let script = "
        git init -q source && cd source
        git config user.name tester && git config user.email tester@example.invalid
        echo hello >file && git add file && git commit -qm one
        git clone -q --bare . \"$root/repository.git\" && git -C \"$root/repository.git\" update-server-info";
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", script]).current_dir(studio.lab.path());
    command.env("root", studio.server().root()).env("HOME", studio.lab.path());
    let made = studio.lab.run(command);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let lines = ["git clone -q $url checkout", "cp checkout/file $out"];
    let mut form = fetch(b"hello\n", &lines, &studio.server().url("repository.git"));
    form["nativeBuildInputs"] = json!(["git"]);
    there_and_back(&mut studio, &form);
}

#[test]
fn a_request_that_was_not_recorded_is_named_and_fails_the_build() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let url = studio.server().add("page", "hello\n");
    studio.server().add("other", "other\n");
    studio.must_record(&fetch(b"hello\n", &["curl -fsS $url -o $out"], &url));
    studio.pull_the_plug();
    let other = url.replace("page", "other");
    let missing = format!("Not in the recording: GET {other}");
    let run = studio.replay(&fetch(b"other\n", &["curl -fsS $url -o $out"], &other));
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert!(run.stderr.contains(&missing), "{}", run.stderr);
    // Also when the builder does not mind, and when it is another name, another port, or only another part.
    for (line, missing) in [
        ("curl -sS ${url/page/other} -o /dev/null", missing.as_str()),
        ("curl -sS https://unheard.test/x -o /dev/null", "Not in the recording: GET https://unheard.test/x"),
        ("curl -sS http://unheard.test:8080/x -o /dev/null", "Not in the recording: GET http://unheard.test:8080/x"),
        ("curl -sS -r 1-2 $url -o /dev/null", "(bytes=1-2)"),
        ("curl -sS -d x=y $url -o /dev/null", "Not in the recording: POST "),
    ] {
        let run = studio.replay(&fetch(b"hello\n", &[line, "curl -fsS $url -o $out"], &url));
        assert_eq!(run.code, 100, "{line}: {}", run.stderr);
        assert!(run.stderr.contains(missing), "{line}: {}", run.stderr);
    }
}

#[test]
fn secrets_are_not_in_the_recording_and_not_needed_for_the_replay() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let url = studio.server().add("private/page", "hello\n");
    let lines = |password: &str, token: &str| {
        let request = format!(
            "curl -fsS -u me:{password} -H 'X-Api-Key: {token}' -b session={token} \"$url?access_token={token}\""
        );
        [format!("{request} -o $out"), "curl -sS $url".to_owned()]
    };
    let form = |lines: [String; 2]| fetch(b"hello\n", &lines.each_ref().map(String::as_str), &url);
    studio.must_record(&form(lines("s3cret", "hunter2hunter2")));
    let mut files = studio.bodies();
    files.push(studio.lab.path().join(FILE));
    for file in files {
        let contents = std::fs::read(&file).expect("read");
        for secret in ["s3cret", "hunter2", "bWU6czNjcmV0"] {
            let found = contents.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", file.display());
        }
    }
    studio.pull_the_plug();
    studio.must_replay(&form(lines("s3cret", "hunter2hunter2")));
    studio.must_replay(&form(lines("another", "token")));
}

#[test]
fn recordings_are_compared() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let url = studio.server().add("page", "hello\n");
    studio.server().add("gone", "x");
    let lines = ["curl -sS ${url/page/gone} $url -o /dev/null", "echo hello > $out"];
    studio.must_record(&fetch(b"hello\n", &lines, &url));
    let move_to = |to: &str| {
        for end in ["", ".bodies"] {
            let path = |name: &str| studio.lab.path().join(format!("{name}{end}"));
            std::fs::rename(path(FILE), path(to)).expect("rename");
        }
    };
    move_to("before");
    studio.server().add("page", "good bye\n");
    studio.server().add("new", "x");
    let lines = ["curl -sS ${url/page/new} $url -o /dev/null", "echo hello > $out"];
    studio.must_record(&fetch(b"hello\n", &lines, &url));
    move_to("after");
    studio.pull_the_plug();
    let same = studio.lab.fodder(&["recording", "diff", "before", "before"]);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{}", same.stderr);
    let different = studio.lab.fodder(&["recording", "diff", "before", "after"]);
    assert_eq!(different.code, 1, "{}", different.stderr);
    for line in ["changed   GET ", "vanished  GET ", "appeared  GET ", "body: 6 bytes → 9 bytes"] {
        assert!(different.stdout.contains(line), "{line}: {}", different.stdout);
    }
    let as_json = studio.lab.fodder(&["recording", "diff", "--json", "before", "after"]);
    let found: Value = serde_json::from_str(&as_json.stdout).expect("JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(3), "{found}");
    let shown = studio.lab.fodder(&["recording", "show", "after"]);
    assert!(shown.stdout.contains(&format!("GET {url}\n      200, 9 bytes")), "{}", shown.stdout);
    let json = studio.lab.fodder(&["recording", "show", "--json", "after"]);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(studio.lab.fodder(&["recording", "diff", "before", "nowhere"]).code, 2);
}

#[test]
fn a_recording_that_is_not_whole_is_refused() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let url = studio.server().add("page", "hello\n");
    let form = fetch(b"hello\n", &["curl -fsS $url -o $out"], &url);
    studio.must_record(&form);
    studio.pull_the_plug();
    let body = studio.bodies().pop().expect("a body");
    for change in ["hellp\n", "hello", ""] {
        std::fs::write(&body, change).expect("write");
        let run = studio.replay(&form);
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stderr.contains("the recording is damaged"), "{}", run.stderr);
    }
    std::fs::remove_file(&body).expect("remove");
    let run = studio.replay(&form);
    assert!(run.code == 1 && run.stderr.contains("the directory beside it"), "{}", run.stderr);
    studio.lab.write(FILE, "{\"version\": 7}");
    let run = studio.replay(&form);
    assert!(run.code == 1 && run.stderr.contains("version 7"), "{}", run.stderr);
}

#[test]
fn half_a_build_is_no_recording_and_leaves_the_old_one_alone() {
    need("curl", "curl");
    let studio = Studio::new();
    let url = studio.server().add("page", "hello\n");
    let slow = fetch(b"hello\n", &["curl -fsS $url -o $out", "echo fetched; sleep 1000"], &url);
    let start_and_kill = || {
        studio.lab.write("derivation.json", slow.to_string());
        let port = studio.port.to_string();
        let mut command = studio.lab.command(&["build", "--no-link", "-L", "--store", "recorded", "--record", FILE]);
        command.args(["--allow-loopback", &port, "--ca-file", text(&studio.ca_file), "derivation.json"]);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("fodder");
        let mut stderr = child.stderr.take().expect("a pipe");
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&seen).contains("> fetched") {
            let length = stderr.read(&mut buffer).expect("read");
            assert_ne!(length, 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..length]);
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
    };
    start_and_kill();
    assert!(!studio.lab.path().join(FILE).exists());
    let form = fetch(b"hello\n", &["curl -fsS $url -o $out"], &url);
    studio.must_record(&form);
    let before = studio.recording();
    start_and_kill();
    assert_eq!(studio.recording(), before);
    studio.must_replay(&form);
    assert_eq!(studio.bodies().len(), 1, "nothing is left over: {:?}", studio.bodies());
}

#[test]
fn a_server_that_cuts_the_line_cuts_it_again() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    studio.port = port;
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let lines = ["curl -sS $url > $out && exit 1 || code=$?", "echo \" $code\" >> $out"];
    let form = fetch(b"half 18\n", &lines, &format!("http://127.0.0.1:{port}/"));
    studio.must_record(&form);
    thread.join().expect("the server");
    studio.must_replay(&form);
    assert_eq!(studio.recording()["exchanges"][0]["response"]["complete"], json!(false));
}

#[test]
fn a_server_that_is_not_trusted_is_not_vouched_for() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let url = studio.server().add("page", "hello\n");
    let other = Server::start();
    studio.ca_file = studio.lab.write("other.pem", std::fs::read(other.ca_file()).expect("read"));
    let strict = fetch(b"hello\n", &["curl -fsS $url -o $out"], &url);
    let run = studio.record(&strict);
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert!(run.stderr.contains("certificate"), "{}", run.stderr);
    // Whoever does not care gets what he would get otherwise; in the replay, too.
    let careless = fetch(b"hello\n", &["curl -kfsS $url -o $out"], &url);
    studio.must_record(&careless);
    studio.pull_the_plug();
    studio.must_replay(&careless);
    // Nobody is called, not even to learn who is missing.
    let port = url.split(':').nth(2).and_then(|rest| rest.split('/').next()).expect("a port");
    let nobody = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).expect("the server is gone");
    nobody.set_nonblocking(true).expect("a mode");
    let run = studio.replay(&strict);
    assert!(nobody.accept().is_err(), "somebody called");
    assert!(run.code == 100 && run.stderr.contains("certificate"), "{}", run.stderr);
}

#[test]
fn a_bundle_among_the_inputs_has_the_authority_too() {
    need("curl", "curl");
    let mut studio = Studio::new();
    let url = studio.server().add("page", "hello\n");
    let bundle = std::fs::read(&studio.ca_file).expect("read");
    studio.lab.write("cacert/etc/ssl/certs/ca-bundle.crt", &bundle);
    let mut form = fetch(b"hello\n", &["curl -fsS --cacert $src/etc/ssl/certs/ca-bundle.crt $url -o $out"], &url);
    form["src"] = "./cacert".into();
    let allowed = |run: Run| {
        let result: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        assert_eq!(run.code, 0, "{}", run.stderr);
        result["allowed"].clone()
    };
    // The runner's own bundle, and a port that the recording answers for, are nothing that was taken away.
    let port = studio.port.to_string();
    let recorded = studio.build("recorded", &form, &["--json", "--allow-loopback", &port, "--record", FILE]);
    assert_eq!(allowed(recorded), json!([format!("--allow-loopback {port}")]));
    studio.pull_the_plug();
    assert_eq!(allowed(studio.build("replayed", &form, &["--json", "--replay", FILE])), json!([]));
}

#[test]
fn what_has_no_gateway_cannot_be_recorded() {
    let studio = Studio::new();
    let mut form = fetch(b"", &["touch $out"], "");
    for network in ["--network=none", "--unsafe-host-network"] {
        let arguments = [network, "--record", FILE];
        let run = studio.build("recorded", &form, &arguments);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains("only builds with a gateway"), "{}", run.stderr);
    }
    for attribute in ["outputHash", "outputHashAlgo", "outputHashMode"] {
        form.as_object_mut().expect("an object").remove(attribute);
    }
    let run = studio.build("recorded", &form, &["--record", FILE]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(!studio.lab.path().join(FILE).exists() && !studio.lab.path().join(format!("{FILE}.bodies")).exists());
}
