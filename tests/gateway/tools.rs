//! The programs that people fetch with, through the door, against real servers on this machine's loopback.

use crate::{
    https::{build, fetch, text},
    lab::{Lab, Run, need},
    server::Server,
};
use serde_json::{Value, json};
use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
};

/// Starts a program for each connection, as inetd does.
fn inetd(command: impl Fn() -> Command + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let output: OwnedFd = stream.try_clone().expect("a copy").into();
            let mut command = command();
            command.stdin(OwnedFd::from(stream)).stdout(output).stderr(Stdio::null());
            let mut child = command.spawn().expect("start the server");
            std::thread::spawn(move || child.wait());
        }
    });
    port.to_string()
}

/// A repository of git with one file, `file`, that says hello.
fn repository(lab: &Lab) {
    need("git", "git");
    let script = "
        git init -q source && cd source
        git config user.name tester && git config user.email tester@example.invalid
        echo hello >file && git add file && git commit -qm one
        git clone -q --bare . ../repositories/one.git
        git -C ../repositories/one.git config http.receivepack false";
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(lab.path()).env("HOME", lab.path());
    let made = lab.run(command);
    assert_eq!(made.code, 0, "{}", made.stderr);
}

/// Builds a form with these flags.
fn made(form: &Value, flags: &[&str]) -> Run {
    let run = build(&Lab::new(), form, flags, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

#[test]
fn git_clones_over_its_own_protocol() {
    let lab = Lab::new();
    repository(&lab);
    let base = lab.path().join("repositories");
    let home = lab.path().to_owned();
    let port = inetd(move || {
        let mut command = Command::new("git");
        command.args(["daemon", "--inetd", "--export-all"]).arg(format!("--base-path={}", base.display())).arg(&base);
        // Made by the one who asks, whoever that is.
        command.env("HOME", &home).env("GIT_CONFIG_COUNT", "1");
        command.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        command
    });
    let mut form = fetch(
        b"hello\n",
        &["git clone -q $url checkout", "cp checkout/file $out"],
        &format!("git://localhost:{port}/one.git"),
    );
    form["nativeBuildInputs"] = json!(["git"]);
    made(&form, &["--allow-loopback", &port]);
}

/// The protocol that forges speak: a conversation of requests, some with bodies, with answers that are streams.
#[test]
fn git_clones_over_smart_http() {
    need("python3", "python3");
    let lab = Lab::new();
    repository(&lab);
    let server = "
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition('?')
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        environment = dict(os.environ, GIT_PROJECT_ROOT=sys.argv[1], GIT_HTTP_EXPORT_ALL='1', PATH_INFO=path, QUERY_STRING=query,
            REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get('Content-Type', ''), CONTENT_LENGTH=str(len(body)),
            HTTP_CONTENT_ENCODING=self.headers.get('Content-Encoding', ''), GIT_PROTOCOL=self.headers.get('Git-Protocol', ''))
        answer = subprocess.run(['git', 'http-backend'], input=body, stdout=subprocess.PIPE, env=environment).stdout
        self.wfile.write(b'HTTP/1.0 200 OK\\r\\n' + answer)
    do_POST = do_GET
import socket
Handler(socket.socket(fileno=0), ('inetd', 0), None)";
    let base = lab.path().join("repositories");
    let port = inetd(move || {
        let mut command = Command::new("python3");
        command.args(["-c", server]).arg(&base).env("GIT_CONFIG_COUNT", "1");
        command.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        command
    });
    let lines = ["git clone -q --depth 1 $url checkout", "cp checkout/file $out"];
    let mut form = fetch(b"hello\n", &lines, &format!("http://localhost:{port}/one.git"));
    form["nativeBuildInputs"] = json!(["git"]);
    made(&form, &["--allow-loopback", &port]);
}

#[test]
fn curl_speaks_http_2() {
    need("curl", "curl");
    let server = Server::start();
    let url = server.add("page", "hello\n");
    let ca_file = server.ca_file();
    let lines = ["test $(curl -fsS --http2 -w '%{http_version}' -o $out $url) = 2"];
    made(&fetch(b"hello\n", &lines, &url), &["--ca-file", text(&ca_file)]);
}

#[test]
fn ssh_logs_in() {
    need("ssh", "openssh-client");
    let sshd = Path::new("/usr/sbin/sshd");
    assert!(sshd.is_file(), "this test needs '{}': apt-get install openssh-server", sshd.display());
    let lab = Lab::new();
    let script = "
        ssh-keygen -q -t ed25519 -N '' -f host
        ssh-keygen -q -t ed25519 -N '' -f user
        chmod 755 .";
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(lab.path());
    let keys = lab.run(command);
    assert_eq!(keys.code, 0, "{}", keys.stderr);
    let directory = lab.path().display();
    let configuration = lab.write(
        "sshd_config",
        format!(
            "HostKey {directory}/host\nAuthorizedKeysFile {directory}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nPermitRootLogin yes\nForceCommand echo hello\n"
        ),
    );
    if nix::unistd::geteuid().is_root() {
        // Where the server of a machine that runs one has it, too.
        std::fs::create_dir_all("/run/sshd").expect("create the directory that sshd wants");
    }
    let port = inetd(move || {
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-i", "-e", "-f"]).arg(&configuration);
        command
    });
    let read = |name: &str| std::fs::read_to_string(lab.path().join(name)).expect("a key");
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("look up the user").expect("a user").name;
    let lines = [
        "umask 077; echo \"$key\" > key; echo \"[127.0.0.1]:$port $host\" > known".to_owned(),
        format!(
            "ssh -i key -o UserKnownHostsFile=known -o IdentitiesOnly=yes -o BatchMode=yes -p $port {user}@127.0.0.1 > answer"
        ),
        "cp answer $out".to_owned(),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut form = fetch(b"hello\n", &lines, "");
    form["nativeBuildInputs"] = json!(["ssh"]);
    form["key"] = read("user").trim_end().into();
    form["host"] = read("host.pub").trim_end().into();
    form["port"] = port.as_str().into();
    made(&form, &["--allow-loopback", &port]);
}
