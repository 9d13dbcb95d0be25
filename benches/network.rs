//! Figures of `docs/performance.md` for the gateway: one server on loopback, called through the host's own namespace, through the
//! gateway, and through pasta and slirp4netns where they are installed (`apt-get install passt slirp4netns`), in turns.
//!
//! `cargo bench --bench network`; names after `--` choose: `large`, `small`, `many`, `set-up`, `memory`. Rows are minimum, median and maximum; quote the ratios.
#![allow(missing_docs, clippy::print_stdout, reason = "a program for people, not a library")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const FODDER: &str = env!("CARGO_BIN_EXE_fodder");

const ROUNDS: usize = 5;

const LARGE: usize = 1 << 30;

/// What is run inside: a large download, many small requests, many connections at once. Arguments: address, port, what.
const CLIENT: &str = r#"
import http.client, socket, sys, threading, time
host, port, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def get(size):
    connection = http.client.HTTPConnection(host, port)
    connection.request("GET", "/%d" % size)
    return len(connection.getresponse().read())
start = time.monotonic()
if what == "large":
    line = socket.create_connection((host, port))
    line.sendall(b"GET /%d HTTP/1.0\r\n\r\n" % (1 << 30))
    buffer, total = bytearray(1 << 20), 0
    while True:
        length = line.recv_into(buffer)
        if length == 0: break
        total += length
    assert total > 1 << 30, total
    print("RESULT", time.monotonic() - start)
elif what == "small":
    times = []
    for _ in range(400):
        begin = time.monotonic()
        assert get(1000) == 1000
        times.append(time.monotonic() - begin)
    print("RESULT", sorted(times)[len(times) // 2])
else:
    lost, lock = [], threading.Lock()
    def one():
        try: assert get(65536) == 65536
        except Exception as error:
            with lock: lost.append(error)
    threads = [threading.Thread(target=one) for _ in range(500)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not lost, (len(lost), lost[0])
    print("RESULT", time.monotonic() - start)
"#;

fn main() {
    fodder_sandbox::dispatch_helper();
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| chosen.is_empty() || chosen.iter().any(|choice| choice == name);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let client = directory.path().join("client.py");
    std::fs::write(&client, CLIENT).expect("write the client");
    let port = serve();
    let ways: Vec<Way> =
        [Way::Host, Way::Gateway, Way::Pasta, Way::Slirp].into_iter().filter(|way| way.is_there()).collect();
    for (what, title) in [
        ("large", "1 GiB over one connection"),
        ("small", "one request of 1 kB, a connection each (median of 400)"),
        ("many", "500 connections at once, 64 KiB each"),
    ] {
        if !runs(what) {
            continue;
        }
        println!("{title} (minimum, median, maximum)");
        let mut medians = Vec::new();
        let mut times = vec![Vec::new(); ways.len()];
        for _ in 0..ROUNDS {
            for (way, times) in ways.iter().zip(&mut times) {
                times.push(way.run(directory.path(), &client, port, what));
            }
        }
        for (way, times) in ways.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let shown = |seconds: f64| match what {
                "large" => format!("{:>9.0} MiB/s", LARGE as f64 / seconds / 1_048_576.0),
                _ => format!("{:>9.3} ms", seconds * 1000.0),
            };
            let median = times[times.len() / 2];
            println!("  {:<24} {} {} {}", way.name(), shown(times[0]), shown(median), shown(times[times.len() - 1]));
            medians.push(median);
        }
        for (way, median) in ways.iter().zip(&medians).skip(1) {
            match what {
                "large" => println!("  => {} / host: {:.2}", way.name(), medians[0] / median),
                _ => println!("  => {} - host: {:.3} ms", way.name(), (median - medians[0]) * 1000.0),
            }
        }
    }
    if runs("set-up") {
        set_up(directory.path());
    }
    if runs("memory") {
        memory(directory.path(), &client, port);
    }
}

/// How the server is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Host,
    Gateway,
    Pasta,
    Slirp,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Host => "the host's namespace",
            Way::Gateway => "gateway",
            Way::Pasta => "pasta",
            Way::Slirp => "slirp4netns",
        }
    }

    fn is_there(self) -> bool {
        let is_installed = |program: &str| Command::new(program).arg("--version").output().is_ok();
        match self {
            Way::Host | Way::Gateway => true,
            Way::Pasta => is_installed("pasta"),
            Way::Slirp => is_installed("slirp4netns"),
        }
    }

    /// Seconds that the client measured.
    fn run(self, directory: &Path, client: &Path, port: u16, what: &str) -> f64 {
        let output = match self {
            Way::Host => build(directory, client, port, what, &["--network", "host"]).output(),
            Way::Gateway => build(directory, client, port, what, &[]).output(),
            // Without an address the host's loopback is behind that of the gateway.
            Way::Pasta => {
                let script = format!(
                    "python3 {} $(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p') {port} {what}",
                    client.display()
                );
                // As root it would become nobody, who may not open the device.
                let as_root: &[&str] = if nix::unistd::geteuid().is_root() { &["--runas", "0"] } else { &[] };
                patient("pasta").args(as_root).args(["--config-net", "--", "sh", "-c", &script]).output()
            }
            Way::Slirp => {
                // It serves a namespace from outside of it.
                let script = format!(
                    "unshare -Urn sleep 90 & sleeper=$!; sleep 0.5
                     slirp4netns --configure --mtu=65520 $sleeper tap0 >/dev/null 2>&1 & slirp=$!; sleep 1
                     nsenter -t $sleeper -U -n --preserve-credentials python3 {} 10.0.2.2 {port} {what}
                     kill $slirp $sleeper",
                    client.display()
                );
                patient("sh").args(["-c", &script]).output()
            }
        };
        let output = output.expect("run it");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let result =
            text.lines().find_map(|line| line.split_once("RESULT ")).map(|(_, seconds)| seconds.trim().parse());
        match result {
            Some(Ok(seconds)) => seconds,
            _ => panic!("{}: {text}", self.name()),
        }
    }
}

/// A program that is ended when it hangs: the benchmark is about figures, and says which peer did not come to an end.
fn patient(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "90", program]);
    command
}

/// A fixed output whose builder is the client; that its hash is another does not matter here.
fn build(directory: &Path, client: &Path, port: u16, what: &str, arguments: &[&str]) -> Command {
    let file: PathBuf = directory.join("derivation.json");
    let form = serde_json::json!({
        "name": "client", "nativeBuildInputs": ["python3"], "src": client.file_name().and_then(|name| name.to_str()).map(|name| format!("./{name}")),
        "dontUnpack": true, "outputHash": "", "outputHashMode": "recursive",
        "buildPhase": format!("python3 $src 127.0.0.1 {port} {what}; mkdir $out"),
    });
    std::fs::write(&file, form.to_string()).expect("write the derivation");
    let mut command = Command::new(FODDER);
    command.args(["build", "--no-link", "--allow-loopback", &port.to_string(), "--store"]);
    command.arg(directory.join("store")).args(arguments).arg(file).stdin(Stdio::null());
    command
}

/// What the door adds to a build that does nothing.
fn set_up(directory: &Path) {
    println!("a build that does nothing, end to end (minimum, median, maximum)");
    let file = directory.join("nothing.json");
    let form = r#"{"name":"nothing","builder":"/bin/sh","args":["-c","echo > $out"],"outputHash":"","fodder":{"profile":"nix"}}"#;
    std::fs::write(&file, form).expect("write the derivation");
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let modes = ["none", "host", "gateway"];
    for round in 0..=30 {
        for (mode, times) in modes.iter().zip(&mut times) {
            let mut command = Command::new(FODDER);
            command.args(["build", "--no-link", "--network", mode, "--store"]).arg(directory.join("store")).arg(&file);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            let status = command.status().expect("run fodder");
            assert_eq!(status.code(), Some(102), "the hash is not known");
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    let medians = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[0], times[times.len() / 2], times[times.len() - 1])
    });
    for (mode, (least, median, most)) in modes.iter().zip(medians) {
        println!("  --network {mode:<14} {least:>9.2} {median:>9.2} {most:>9.2} ms");
    }
    println!("  => gateway - host: {:.2} ms", medians[2].1 - medians[1].1);
}

/// The most that the runner had in memory while 500 connections were open.
fn memory(directory: &Path, client: &Path, port: u16) {
    for (what, title) in [("large", "1 GiB"), ("many", "500 connections at once")] {
        let mut command = build(directory, client, port, what, &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run fodder");
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().expect("wait").is_none() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let found = text
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.split_ascii_whitespace().next()?.parse().ok());
            peak = peak.max(found.unwrap_or(0u64));
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("peak resident memory of the runner, {title}: {peak} kB");
    }
}

/// Answers `GET /SIZE` with that many bytes, on a thread for each connection.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => request.extend(&piece[..length]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let size = text.split_ascii_whitespace().nth(1).and_then(|path| path.trim_start_matches('/').parse::<usize>().ok());
    let mut left = size.unwrap_or(0);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\nConnection: close\r\n\r\n");
    let zeros = vec![0; 1 << 20];
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    while left > 0 {
        let length = left.min(zeros.len());
        if stream.write_all(&zeros[..length]).is_err() {
            return;
        }
        left -= length;
    }
}
