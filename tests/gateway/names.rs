//! Names: whom the gateway asks, and what becomes of questions that have no answer.

use super::world::{PUBLIC, World};
use serde_json::json;

/// Asks the name server inside directly: the number of answers and the code, by datagram and by stream.
const ASK: &str = r#"
import struct
def question(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    return b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + struct.pack(">HH", kind, 1)
def ask(name, kind=1, stream=False):
    if stream:
        with socket.create_connection(("10.0.2.3", 53), timeout=10) as channel:
            query = question(name, kind)
            channel.sendall(struct.pack(">H", len(query)) + query)
            length = channel.recv(2, socket.MSG_WAITALL)
            answer = channel.recv(struct.unpack(">H", length)[0], socket.MSG_WAITALL)
    else:
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        channel.settimeout(30)
        channel.sendto(question(name, kind), ("10.0.2.3", 53))
        answer, _ = channel.recvfrom(65535)
    assert answer[:2] == b"\x12\x34"
    return struct.unpack(">H", answer[6:8])[0], answer[3] & 15
def addresses(name, family=0, flags=0):
    began = time.monotonic()
    try:
        found = sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, family, socket.SOCK_STREAM, 0, flags)})
    except socket.gaierror as error:
        found = "EAI" + str(error.errno)
    return found if time.monotonic() - began < 9 else "slow"
"#;

#[track_caller]
fn says(world: &World, script: &str, arguments: &[&str]) -> (Vec<String>, serde_json::Value) {
    world.says(&format!("{ASK}\n{script}"), arguments)
}

#[test]
fn names_are_found_also_by_those_who_ask_for_configured_families_only() {
    let world = World::new();
    let (said, result) = says(
        &world,
        "
say(addresses('public.example'))
say(addresses('public.example', 0, socket.AI_ADDRCONFIG))
say(addresses('public.example', socket.AF_INET, socket.AI_ADDRCONFIG))
say(addresses('PUBLIC.example.'))
say(ask('public.example'), ask('public.example', 1, True))
say(open('/etc/resolv.conf').read().strip())",
        &[],
    );
    let found = format!("['{PUBLIC}']");
    assert_eq!(said[..4], [found.clone(), found.clone(), found.clone(), found]);
    assert_eq!(said[4], "(1, 0) (1, 0)");
    assert_eq!(said[5], "nameserver 10.0.2.3");
    let name = &result["network"]["names"][0];
    assert_eq!((&name["name"], &name["outcome"]), (&json!("public.example"), &json!("found")), "{result:#}");
    // There is no way anywhere over IPv6 here, so nobody is asked for such addresses.
    assert!(world.asked().iter().all(|line| !line.ends_with(" 28")), "{:?}", world.asked());
}

/// Another machine completes them in another way.
#[test]
fn names_are_not_completed() {
    let mut world = World::new();
    world.setup = "echo search example >>resolv.conf".to_owned();
    let (control, _) = says(&world, "say(addresses('public'))", &["--unsafe-host-network"]);
    assert_eq!(control, [format!("['{PUBLIC}']")]);
    let (said, _) = says(&world, "say(addresses('public'))", &[]);
    assert_eq!(said, ["EAI-2"]);
}

#[test]
fn a_name_that_is_none_is_none_at_once() {
    let world = World::new();
    let (said, result) = says(&world, "say(addresses('nothing.example')); say(call('nothing.example', 80))", &[]);
    assert_eq!(said, ["EAI-2", "EAI-2"], "EAI_NONAME");
    assert_eq!(result["network"]["names"][0]["outcome"], "not-found", "{result:#}");
}

#[test]
fn the_next_name_server_is_asked_when_one_does_not_answer_or_cannot() {
    for (dead, resolvers, name_servers) in [
        // Nobody there; somebody who never answers; a stub as systemd-resolved's.
        (vec![], vec!["192.0.2.53"], vec!["192.0.2.99", "192.0.2.53"]),
        (vec!["192.0.2.98"], vec!["192.0.2.53"], vec!["192.0.2.98", "192.0.2.53"]),
        (vec![], vec!["127.0.0.53"], vec!["127.0.0.53"]),
    ] {
        let mut world = World::new();
        (world.dead, world.resolvers, world.name_servers) = (dead, resolvers, name_servers);
        let (said, _) = says(&world, "say(addresses('public.example')); say(ask('public.example', 1, True))", &[]);
        assert_eq!(said, [format!("['{PUBLIC}']"), "(1, 0)".to_owned()], "{:?}", world.name_servers);
    }
}

#[test]
fn without_a_name_server_there_is_an_error_and_no_hang() {
    let mut world = World::new();
    world.name_servers = vec!["192.0.2.99"];
    let (said, result) = says(&world, "say(addresses('public.example')); say(ask('public.example')[1])", &[]);
    assert_eq!(said, ["EAI-3", "2"], "EAI_AGAIN, SERVFAIL");
    assert_eq!(result["network"]["names"][0]["outcome"], "no-answer", "{result:#}");
    // One that never answers.
    world.dead = vec!["192.0.2.98"];
    world.name_servers = vec!["192.0.2.98"];
    let (said, _) = says(&world, "say(ask('public.example')[1])", &[]);
    assert_eq!(said, ["2"]);
}

#[test]
fn a_server_that_fails_is_passed_on_as_a_failure() {
    let mut world = World::new();
    world.names["broken.example"] = json!("broken");
    let (said, result) = says(&world, "say(addresses('broken.example'))", &[]);
    assert_eq!(said, ["EAI-3"]);
    assert_eq!(result["network"]["names"][0]["outcome"], "no-answer", "{result:#}");
}

#[test]
fn long_answers_come_over_a_stream() {
    let mut world = World::new();
    let many: Vec<String> = (1..=30).map(|last| format!("198.51.100.{last}")).collect();
    world.names["many.example"] = json!(many);
    let (said, _) = says(&world, "say(len(addresses('many.example')))", &[]);
    assert_eq!(said, ["30"]);
    assert!(world.asked().contains(&"tcp many.example 1".to_owned()), "{:?}", world.asked());
}

/// Programs that read no `/etc/hosts`, as musl's and Go's sometimes do not, are told its names too.
#[test]
fn the_machines_own_names_need_no_name_server() {
    let world = World::new();
    let (said, _) =
        says(&world, "say(ask('files.example'), ask('FILES.example', 28)); say(addresses('files.example'))", &[]);
    assert_eq!(said, ["(1, 0) (0, 0)".to_owned(), format!("['{PUBLIC}']")]);
    assert!(world.asked().is_empty(), "{:?}", world.asked());
}

#[test]
fn nonsense_is_answered_or_dropped_and_the_next_question_is_answered() {
    let world = World::new();
    let (said, _) = says(
        &world,
        r#"
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
query = question("public.example")
for junk in b"", b"x", bytes(12), bytes(65000), query[:-3], query[:2] + b"\x85\x80" + query[4:], query[:4] + b"\0\2" + query[6:], query[:2] + b"\x28\0" + query[4:], os.urandom(500), query[:12] + b"\xc0\x0c" * 200:
    try:
        channel.sendto(junk, ("10.0.2.3", 53))
    except OSError as error:
        say(named(error))
for junk in b"", b"\0", b"\0\0", b"\xff\xff" + bytes(65535), b"\0\x0c" + bytes(12), b"\0\x20" + os.urandom(5):
    with socket.create_connection(("10.0.2.3", 53)) as stream:
        stream.sendall(junk)
say(ask("public.example"), ask("public.example", 1, True))
with socket.create_connection(("10.0.2.3", 53)) as stream:
    for _ in range(3):
        stream.sendall(struct.pack(">H", len(query)) + query)
        length = struct.unpack(">H", stream.recv(2, socket.MSG_WAITALL))[0]
        say(len(stream.recv(length, socket.MSG_WAITALL)) == length)"#,
        &[],
    );
    assert_eq!(said, ["(1, 0) (1, 0)", "True", "True", "True"]);
}

/// Nobody outside learns of a name that may not be called.
#[test]
fn names_that_may_not_be_called_may_not_be_asked_for() {
    let mut world = World::new();
    world.names["other.example"] = json!([PUBLIC]);
    let script = "say(addresses('other.example')); say(addresses('secret.data.other.example')); say(addresses('public.example'))";
    let (said, result) = says(&world, script, &["--allow", "public.example"]);
    assert_eq!(said[2], format!("['{PUBLIC}']"));
    assert!(said[..2].iter().all(|line| line.starts_with("EAI")), "{said:?}");
    assert!(world.asked().iter().all(|line| line.contains("public.example")), "{:?}", world.asked());
    let refused = result["network"]["names"]
        .as_array()
        .expect("names")
        .iter()
        .filter(|name| name["outcome"] == "refused-by-policy");
    assert_eq!(refused.count(), 2, "{result:#}");
}
