//! How connections go through the door: halves, cuts, many, large, idle. Real servers on this machine's loopback.

use super::world::{World, client, entry, lines};
use crate::lab::{Lab, need};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// Serves each connection on a thread of its own, and says on which port.
fn serve(address: &str, answer: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.expect("a connection"), Arc::clone(&answer));
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

/// Sends back what comes.
fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Cuts the line instead of ending it.
fn reset(stream: TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).expect("set an option");
}

/// What a client says who may call this port.
#[track_caller]
fn says(port: u16, script: &str) -> (Vec<String>, Value) {
    need("python3", "python3");
    let lab = Lab::new();
    let port = port.to_string();
    let file = client(&format!("port = {port}\n{script}")).write(&lab);
    let store = lab.store();
    let mut command = lab.command(&["build", "--json", "--no-link", "--profile", "host-tools"]);
    command.arg("--store").arg(store).args(["--allow-loopback", &port]).arg(file);
    let run = lab.run(command);
    assert_eq!(run.code, 0, "{run:?}");
    (lines(&run.stderr), serde_json::from_str(&run.stdout).expect("a result"))
}

#[test]
fn half_a_connection_goes_on() {
    let port = serve("127.0.0.1", |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("a request");
        std::thread::sleep(Duration::from_millis(1500));
        write!(stream, "{} bytes", request.len()).expect("an answer");
    });
    let (said, result) = says(port, "say(call('127.0.0.1', port, b'x' * 300000)); say(call('localhost', port, b''))");
    assert_eq!(said, ["300000 bytes", "0 bytes"]);
    let entry = entry(&result, "127.0.0.1", port);
    assert_eq!((&entry["verdict"], &entry["connections"]), (&"connected".into(), &2.into()), "{entry:#}");
    assert_eq!(result["network"]["allPorts"], true, "this kernel has nf_tables: {result:#}");
}

/// The server ends first, and hears what is still said.
#[test]
fn the_other_half_goes_on_too() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let port = serve("127.0.0.1", move |mut stream| {
        stream.write_all(b"enough").expect("an answer");
        stream.shutdown(Shutdown::Write).expect("an end");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the rest");
        log.lock().expect("a log").push(rest.len());
    });
    let (said, _) = says(
        port,
        "
stream = socket.create_connection(('127.0.0.1', port))
say(stream.recv(100), stream.recv(100))
time.sleep(0.5)
stream.sendall(b'x' * 200000); stream.close(); time.sleep(0.5)",
    );
    assert_eq!(said, ["b'enough' b''"]);
    assert_eq!(*heard.lock().expect("a log"), [200_000]);
}

#[test]
fn what_is_closed_or_out_of_reach_fails_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").expect("listen").local_addr().expect("an address").port();
    let (said, result) = says(port, "say(call('127.0.0.1', port)); say(call('::1', port))");
    assert_eq!(said, ["ECONNRESET", "ECONNRESET"]);
    assert_eq!(entry(&result, "127.0.0.1", port)["verdict"], "refused");
    let mut world = World::new();
    world.setup = "busybox ip route add unreachable 203.0.113.9/32 table local
        busybox ip route add prohibit 203.0.113.10/32 table local"
        .to_owned();
    let (said, result) = world.says("for last in 8, 9, 10: say(call('203.0.113.' + str(last), 80))", &[]);
    assert_eq!(said, ["ECONNRESET"; 3]);
    assert_eq!(entry(&result, "203.0.113.8", 80)["verdict"], "refused");
    assert_eq!(entry(&result, "203.0.113.9", 80)["verdict"], "unreachable");
    assert_eq!(entry(&result, "203.0.113.10", 80)["verdict"], "unreachable");
}

#[test]
fn five_hundred_connections_at_once_lose_nothing() {
    let port = serve("127.0.0.1", echo);
    let (said, result) = says(
        port,
        "
import concurrent.futures, threading
barrier = threading.Barrier(500)
def one(number):
    text = str(number) * 1000
    with socket.create_connection(('127.0.0.1', port), timeout=60) as stream:
        barrier.wait(60)
        stream.sendall(text.encode()); stream.shutdown(socket.SHUT_WR)
        got = b''
        while piece := stream.recv(65536): got += piece
    return got.decode() == text
with concurrent.futures.ThreadPoolExecutor(500) as pool:
    say(sum(pool.map(one, range(500))))",
    );
    assert_eq!(said, ["500"]);
    let entry = entry(&result, "127.0.0.1", port);
    assert_eq!((&entry["verdict"], &entry["connections"]), (&"connected".into(), &500.into()), "{entry:#}");
    let bytes: usize = (0..500).map(|number: usize| number.to_string().len() * 1000).sum();
    assert_eq!((&entry["bytesIn"], &entry["bytesOut"]), (&bytes.into(), &bytes.into()), "{entry:#}");
}

#[test]
fn a_hundred_megabytes_go_up_and_down_unharmed_and_are_counted() {
    let port = serve("127.0.0.1", echo);
    let (said, result) = says(
        port,
        "
import hashlib, threading
block = os.urandom(1 << 20)
stream = socket.create_connection(('127.0.0.1', port))
sent, got, count = hashlib.sha256(), hashlib.sha256(), 0
def send():
    for number in range(100):
        piece = number.to_bytes(8, 'big') + block
        sent.update(piece); stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send); sender.start()
while piece := stream.recv(1 << 20):
    got.update(piece); count += len(piece)
sender.join()
say(count, sent.digest() == got.digest())",
    );
    let bytes = 100 * ((1 << 20) + 8);
    assert_eq!(said, [format!("{bytes} True")]);
    let entry = entry(&result, "127.0.0.1", port);
    assert_eq!((&entry["bytesIn"], &entry["bytesOut"]), (&bytes.into(), &bytes.into()), "{entry:#}");
}

#[test]
fn silence_of_ten_seconds_is_no_end() {
    let port = serve("127.0.0.1", echo);
    let (said, _) = says(
        port,
        "
stream = socket.create_connection(('127.0.0.1', port))
for _ in range(2):
    stream.sendall(b'still here'); say(stream.recv(100)); time.sleep(10)",
    );
    assert_eq!(said, ["b'still here'"; 2]);
}

/// A body without a length ends with the connection: half of it must not pass for all.
#[test]
fn a_cut_is_a_cut_on_the_other_side() {
    need("curl", "curl");
    let port = serve("127.0.0.1", |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf of it").expect("half an answer");
        std::thread::sleep(Duration::from_millis(200));
        reset(stream);
    });
    let (said, result) = says(
        port,
        "
import subprocess
say(subprocess.run(['/usr/bin/curl', '-sS', '-o', '/dev/null', f'http://localhost:{port}/']).returncode)
say(call('127.0.0.1', port, b'x'))",
    );
    assert_eq!(said, ["56", "ECONNRESET"], "56: failure in receiving network data");
    let cut = entry(&result, "127.0.0.1", port);
    assert_eq!((&cut["verdict"], &cut["connections"]), (&"cut".into(), &2.into()), "{cut:#}");
}

#[test]
fn a_cut_inside_is_a_cut_outside() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ends);
    let port = serve("127.0.0.1", move |mut stream| {
        let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        log.lock().expect("a log").push(end);
    });
    says(
        port,
        "
stream = socket.create_connection(('127.0.0.1', port))
stream.sendall(b'half')
time.sleep(0.3)
stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')
stream.close()
time.sleep(0.3)",
    );
    assert_eq!(*ends.lock().expect("a log"), [Err(std::io::ErrorKind::ConnectionReset)]);
}

/// A build that ends in the middle of a request leaves nobody waiting.
#[test]
fn connections_end_with_the_build() {
    let ends = Arc::new(Mutex::new(0));
    let log = Arc::clone(&ends);
    let port = serve("127.0.0.1", move |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
        *log.lock().expect("a log") += 1;
    });
    let (_, result) = says(
        port,
        "
streams = [socket.create_connection(('127.0.0.1', port)) for _ in range(3)]
streams[0].sendall(b'12345')
time.sleep(0.3)",
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(*ends.lock().expect("a log"), 3);
    assert_eq!(entry(&result, "127.0.0.1", port)["bytesOut"], 5);
}

#[test]
fn loopback_of_both_families_is_reached_where_it_is_allowed() {
    let four = serve("127.0.0.1", echo);
    let (said, _) = says(four, "for host in '127.0.0.1', 'localhost': say(call(host, port, b'hello'))");
    assert_eq!(said, ["hello"; 2]);
    let six = serve("::1", echo);
    let (said, result) = says(six, "say(call('::1', port, b'hello'))");
    assert_eq!(said, ["hello"]);
    assert_eq!(entry(&result, "::1", six)["bytesIn"], 5);
}

/// Nor does a build that asks and connects without end take the runner with it.
#[test]
fn floods_are_survived() {
    let world = World::new();
    let (said, result) = world.says(
        "
import resource, struct
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
def question(name):
    return b'\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + bytes([len(name)]) + name.encode() + b'\\7example\\0\\0\\1\\0\\1'
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(5000): channel.sendto(question(f'flood{number}'), ('10.0.2.3', 53))
held = []
for number in range(3000):
    stream = socket.socket(); stream.setblocking(False)
    stream.connect_ex(('198.51.100.7', 8321)); held.append(stream)
time.sleep(1)
for stream in held: stream.close()
for _ in range(50):
    answer = call('public.example', 80)
    if answer.startswith('hello'): break
    time.sleep(0.2)
say(answer)",
        &[],
    );
    assert_eq!(said, ["hello from 198.51.100.7 80"], "{result:#}");
}
