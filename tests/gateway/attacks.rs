//! What must stay out of reach of a fixed output; each attack succeeds in the control.

use super::world::{OWN, PUBLIC, World, entry};
use serde_json::json;

/// Refused with the word of the person that would allow it, and with that word it works.
const PROTECTED: [(&str, &str, &str); 10] = [
    ("127.0.0.1", "127.0.0.1", "--allow-loopback"),
    ("127.8.9.10", "127.8.9.10", "--allow-loopback"),
    (OWN, OWN, "--allow"),
    ("169.254.169.254", "169.254.169.254", "--allow"),
    ("169.254.7.7", "169.254.7.7", "--allow"),
    ("100.100.100.200", "100.100.100.200", "--allow"),
    ("192.0.0.192", "192.0.0.192", "--allow"),
    // Names that stand for such addresses: rebinding.
    ("loopback.example", "127.0.0.1", "--allow-loopback"),
    ("metadata.example", "169.254.169.254", "--allow"),
    ("own.example", OWN, "--allow"),
];

fn world() -> World {
    let mut world = World::new();
    for (called, address, _) in PROTECTED {
        world.names[called] = json!([address]);
        // Each address has one server.
        if !world.hello.contains(&(address, 8321)) {
            world.hello.push((address, 8321));
        }
    }
    world
}

/// Attack: NET-7. Layer: policy on the address that is called.
#[test]
fn this_machine_its_link_and_the_metadata_of_clouds_are_refused_and_the_flag_is_named() {
    let world = world();
    let calls: String =
        PROTECTED.iter().map(|(called, ..)| format!("say('{called}', call('{called}', 8321))\n")).collect();
    let (control, _) = world.says(&calls, &["--unsafe-host-network"]);
    let hello = PROTECTED.map(|(called, address, _)| format!("{called} hello from {address} 8321"));
    assert_eq!(control, hello);

    let (said, result) = world.says(&calls, &[]);
    for ((called, address, flag), line) in PROTECTED.iter().zip(&said) {
        if *called == "127.0.0.1" || *called == "127.8.9.10" || *called == "loopback.example" {
            // Loopback is the build's own: nobody listens there, and nobody needs to be asked.
            assert_eq!(*line, format!("{called} ECONNREFUSED"));
            continue;
        }
        assert_eq!(*line, format!("{called} ECONNRESET"), "{result:#}");
        let entry = entry(&result, address, 8321);
        assert_eq!(entry["verdict"], "refused-by-policy", "{entry:#}");
        assert_eq!(entry["flag"], format!("{flag} {address}:8321"), "{entry:#}");
        assert_eq!(entry["bytesIn"], 0, "{entry:#}");
    }

    let mut flags = vec!["--allow-loopback".to_owned(), "8321".to_owned()];
    for (_, address, flag) in PROTECTED {
        if flag == "--allow" {
            flags.extend([flag.to_owned(), format!("{address}:8321")]);
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (said, _) = world.says(&calls, &flags);
    assert_eq!(said, hello);
}

/// Spellings of addresses that are refused: as IPv6, as numbers, as nowhere.
/// Attack: NET-6. Layer: policy on the address that is called.
#[test]
fn no_spelling_of_an_address_is_a_way_around() {
    let world = world();
    let (control, _) = world.says(
        "for address in '::ffff:127.0.0.1', '::ffff:169.254.169.254', '0.0.0.0', '0', '2130706433', '0x7f.1':
    say(address, call(address, 8321))",
        &["--unsafe-host-network"],
    );
    assert!(control.iter().all(|line| line.contains("hello from")), "{control:?}");
    let (said, result) = world.says(
        "for address in ('::ffff:127.0.0.1', '::ffff:169.254.169.254', '::ffff:a9fe:a9fe', '::169.254.169.254', '64:ff9b::a9fe:a9fe', '2002:a9fe:a9fe::1',
    '0.0.0.0', '0', '0.0.0.7', '::', '2130706433', '0x7f.1', '0251.0376.0251.0376', '2852039166', '255.255.255.255', '224.0.0.1', 'fe80::1%lo', 'fd00:ec2::254'):
    say(address, call(address, 8321))",
        &[],
    );
    assert_eq!(said.len(), 18, "{said:?}");
    assert!(said.iter().all(|line| !line.contains("hello") && !line.contains("a long time")), "{said:?}");
    let hosts = result["network"]["hosts"].as_array().expect("hosts");
    assert!(hosts.iter().all(|host| host["verdict"] == "refused-by-policy"), "{hosts:#?}");
}

/// A name that is answered with a public address first, and with one of this machine's afterwards.
/// Attack: NET-6. Layer: policy on the address that is called.
#[test]
fn a_name_with_a_public_and_a_private_address_is_judged_by_the_one_that_is_called() {
    let mut world = world();
    world.names["both.example"] = json!([OWN, PUBLIC]);
    let script = format!(
        "say(call('{OWN}', 8321)); say(call('{PUBLIC}', 8321)); say(socket.gethostbyname_ex('both.example')[2])"
    );
    let (said, _) = world.says(&script, &["--allow", "both.example"]);
    assert_eq!(said[0], "ECONNRESET");
    let (said, _) =
        world.says(&format!("socket.gethostbyname('both.example')\n{script}"), &["--allow", "both.example"]);
    assert_eq!(said[..2], ["ECONNRESET".to_owned(), format!("hello from {PUBLIC} 8321")]);
}

/// Attack: NET-1, NET-2, CVE-2024-27297. Layer: network namespace.
#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    let world = World::new();
    let script = "
stream = socket.socket(socket.AF_UNIX)
try:
    stream.connect('\\0fodder-test-world'); say(stream.recv(100).decode().strip())
except OSError as error:
    say(named(error))
say('fodder-test-world' in open('/proc/net/unix').read())";
    // In the host's namespace it is there; what keeps it out of reach then is Landlock, which not every kernel has. (That it would
    // answer: `left_out.rs` of the sandbox.)
    let (control, _) = world.says(script, &["--unsafe-host-network"]);
    let expected = if fodder_sandbox::landlock_abi() >= 6 { "EPERM" } else { "hello from abstract 0" };
    assert_eq!(control, [expected, "True"]);
    let (said, _) = world.says(script, &[]);
    assert_eq!(said, ["ECONNREFUSED", "False"]);
}

#[test]
fn datagrams_go_nowhere_but_to_the_name_server() {
    let world = World::new();
    let script = format!(
        "
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(3)
datagram.connect(('{PUBLIC}', 7))
try:
    datagram.send(b'ping'); datagram.send(b'ping'); say(datagram.recv(100))
except OSError as error:
    say(named(error))"
    );
    let (control, _) = world.says(&script, &["--unsafe-host-network"]);
    assert_eq!(control, ["b'ping'"]);
    let (said, _) = world.says(&script, &[]);
    assert_eq!(said, ["ECONNREFUSED"], "at once, so that clients fall back to TCP");
}

/// What a process with capabilities could do to its network, a builder cannot.
/// Attack: NET-7. Layer: no capabilities over the namespace.
#[test]
fn the_network_inside_cannot_be_changed() {
    let world = World::new();
    let script = r#"
def attempt(name, function):
    try:
        function(); say(name, "done")
    except OSError as error:
        say(name, named(error))
def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
def ping():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
def packet():
    socket.socket(17, socket.SOCK_RAW, 0)
def netlink(protocol, kind, flags, body):
    def ask():
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        channel.bind((0, 0))
        channel.send((16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + flags.to_bytes(2, "little") + bytes(8) + body)
        answer = channel.recv(65536)
        code = int.from_bytes(answer[16:20], "little", signed=True)
        if int.from_bytes(answer[4:6], "little") == 2 and code:
            raise OSError(-code, "refused")
    return ask
def nothing_left():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0):
        raise OSError(ctypes.get_errno(), "setns")
attempt("raw", raw)
attempt("ping", ping)
attempt("packet", packet)
# RTM_NEWADDR 192.0.2.9/32 on lo, RTM_DELROUTE of everything that is local, RTM_SETLINK that takes lo down
attempt("address", netlink(0, 20, 0x605, bytes([2, 32, 0, 0, 1, 0, 0, 0]) + bytes([8, 0, 2, 0, 192, 0, 2, 9])))
attempt("route", netlink(0, 25, 5, bytes([2, 0, 0, 0, 255, 4, 254, 2]) + bytes(4)))
attempt("link", netlink(0, 19, 5, bytes([0, 0, 0, 0]) + (1).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little")))
# NFT_MSG_DELTABLE
attempt("rules", netlink(12, 10 << 8 | 2, 5, bytes([2, 0, 0, 0])))
attempt("namespace", nothing_left)
attempt("sysctl", lambda: open("/proc/sys/net/ipv4/ip_forward", "w").write("1"))
"#;
    let (said, _) = world.says(script, &[]);
    assert_eq!(said.len(), 9, "{said:?}");
    assert!(said.iter().all(|line| !line.ends_with(" done")), "{said:?}");
}

/// A namespace of the builder's own, with all capabilities there, leads nowhere either.
#[test]
fn a_namespace_within_leads_nowhere() {
    let world = World::new();
    let script = format!(
        "
import subprocess
code = \"import socket; socket.create_connection(('{PUBLIC}', 80))\"
print(subprocess.run(['/usr/bin/unshare', '--user', '--map-root-user', '--net', '/usr/bin/python3', '-c', code]).returncode != 0 and say('cut off'))
print(subprocess.run(['/usr/bin/unshare', '--user', '--map-root-user', '/bin/sh', '-c', 'busybox ip route flush table local; busybox ip link set lo down; busybox ip address add 192.0.2.9/32 dev lo']))
say(call('{PUBLIC}', 80))"
    );
    let (said, _) = world.says(&script, &[]);
    assert_eq!(said, ["cut off".to_owned(), format!("hello from {PUBLIC} 80")]);
}

/// Attack: NET-7. Layer: the door redirects whatever is called.
#[test]
fn the_door_itself_and_the_device_are_no_way_around() {
    let world = world();
    let (said, result) = world.says(
        &format!(
            "
for address in '127.0.0.1', '10.0.2.100', '10.0.2.3', '{PUBLIC}':
    say(call(address, 47115))
for address in '169.254.169.254', '127.0.0.1':
    stream = socket.socket()
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
        stream.connect((address, 8321)); say(stream.recv(100).decode())
    except OSError as error:
        say(named(error))
    stream = socket.socket()
    try:
        stream.bind(('127.0.0.1', 0)); stream.connect((address, 8321)); say(stream.recv(100).decode())
    except OSError as error:
        say(named(error))"
        ),
        &[],
    );
    assert_eq!(said.len(), 8, "{said:?}");
    assert!(said.iter().all(|line| !line.contains("hello") && !line.contains("long time")), "{said:?} {result:#}");
}

#[test]
fn a_builder_talks_to_itself() {
    let world = World::new();
    let script = "
import threading
for address in '127.0.0.1', '10.0.2.100', '127.3.4.5':
    for port in 0, 8080, 443:
        try:
            server = socket.create_server((address, port))
        except PermissionError:
            say('hello'); continue
        threading.Thread(target=lambda: server.accept()[0].sendall(b'hello'), daemon=True).start()
        with socket.create_connection(server.getsockname()) as stream:
            say(stream.recv(5).decode())";
    let (said, result) = world.says(script, &[]);
    assert_eq!(said.len(), 9);
    assert!(said.iter().all(|line| line == "hello"), "{said:?}");
    assert_eq!(result["network"]["hosts"], json!([]));
}

/// The gateway needs more descriptors than the usual limit; a builder has the caller's.
#[test]
fn the_limit_of_open_files_is_the_callers() {
    let world = World::new();
    let script = "import resource; say(resource.getrlimit(resource.RLIMIT_NOFILE))";
    let (host, _) = world.says(script, &["--unsafe-host-network"]);
    let (gateway, _) = world.says(script, &[]);
    assert_eq!(host, gateway);
}
