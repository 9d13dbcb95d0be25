//! The door of a network namespace that leads nowhere: which sockets are handed out, and what reaches them.

use crate::lab::{Lab, sandbox};
use fodder_model::sandbox::{Door, SandboxPlan};
use fodder_sandbox::{BuilderExit, DoorSocket};
use nix::sys::socket::{getsockopt, sockopt};
use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

pub(crate) fn door() -> Door {
    Door {
        address: Ipv4Addr::new(10, 0, 2, 100),
        address6: None,
        name_server: Ipv4Addr::new(10, 0, 2, 3),
        loopback_ports: Vec::new(),
        ports: vec![80, 443],
        redirect: true,
    }
}

/// Runs a script behind this door. Whoever connects is told where they wanted to go; the log, and what was handed out.
fn run(door: Option<Door>, script: &str) -> (String, Vec<String>) {
    let lab = Lab::new();
    let plan = SandboxPlan { door, ..lab.plan(script) };
    let (mut log, mut sockets) = (Vec::new(), Vec::new());
    let report = sandbox().run_with_door(&plan, &mut |bytes| log.extend_from_slice(bytes), &mut |purpose, socket| {
        sockets.push(match purpose {
            DoorSocket::Names => format!("names {}", UdpSocket::from(socket).local_addr().unwrap()),
            DoorSocket::Redirected => format!("redirected {}", greet(socket, true)),
            DoorSocket::Port => format!("port {}", greet(socket, false)),
        });
    });
    let log = String::from_utf8_lossy(&log).into_owned();
    assert_eq!(report.unwrap().exit, BuilderExit::Exited(0), "{log}");
    (log, sockets)
}

/// Tells everybody their destination; the address that is listened on.
fn greet(socket: OwnedFd, is_redirected: bool) -> SocketAddr {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let local = stream.local_addr().unwrap();
            let target = if is_redirected && local.is_ipv4() {
                match getsockopt(&stream, sockopt::OriginalDst) {
                    Ok(found) => format!(
                        "{}:{}",
                        Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr)),
                        u16::from_be(found.sin_port)
                    ),
                    Err(error) => error.to_string(),
                }
            } else {
                local.to_string()
            };
            let _ = writeln!(stream, "to {target}");
        }
    });
    address
}

/// `nc`'s words about each of these.
fn calls(targets: &[&str]) -> String {
    let call = |target: &&str| format!("nc -w 5 {target} </dev/null 2>&1\n");
    format!("{}true", targets.iter().map(call).collect::<String>())
}

#[test]
fn whoever_connects_anywhere_is_redirected_and_it_is_known_where_they_wanted_to_go() {
    let (log, sockets) = run(Some(door()), &calls(&["198.51.100.7 80", "8.8.8.8 4444", "169.254.169.254 22"]));
    assert_eq!(log, "to 198.51.100.7:80\nto 8.8.8.8:4444\nto 169.254.169.254:22\n");
    assert_eq!(sockets, ["names 10.0.2.3:53", "redirected 0.0.0.0:47115"]);
}

#[test]
fn its_own_loopback_and_address_stay_its_own() {
    let script = "
        for address in 127.0.0.1 127.1.2.3 10.0.2.100; do nc -w 5 $address 80 </dev/null 2>&1; done
        (echo mine | nc -l -p 8080) & until nc -w 5 10.0.2.100 8080 </dev/null 2>/dev/null; do sleep 0.1; done";
    let (log, _) = run(Some(door()), script);
    assert_eq!(log.matches("Connection refused").count(), 3, "{log}");
    assert!(log.ends_with("mine\n"), "{log}");
}

#[test]
fn ports_of_loopback_are_redirected_when_they_are_named() {
    let door = Door { loopback_ports: vec![8321], ..door() };
    let (log, sockets) = run(Some(door), &calls(&["127.0.0.1 8321", "127.0.0.1 8322"]));
    assert!(log.starts_with("to 127.0.0.1:8321\n"), "{log}");
    assert_eq!(log.matches("Connection refused").count(), 1, "{log}");
    assert_eq!(sockets[1..], ["redirected 0.0.0.0:47115", "redirected [::]:47115"]);
}

/// As on a kernel without nf_tables.
#[test]
fn where_nothing_can_be_redirected_some_ports_of_every_address_are_caught() {
    let without = Door { redirect: false, loopback_ports: vec![8321, 443], ..door() };
    let targets =
        ["198.51.100.7 80", "8.8.8.8 443", "10.0.2.3 443", "127.0.0.1 8321", "198.51.100.7 81", "127.0.0.1 82"];
    let (log, sockets) = run(Some(without), &calls(&targets));
    let (reached, refused) = log.split_at(log.find("nc: ").unwrap_or(log.len()));
    assert_eq!(reached, "to 198.51.100.7:80\nto 8.8.8.8:443\nto 10.0.2.3:443\nto 127.0.0.1:8321\n");
    assert_eq!(refused.matches("Connection refused").count(), 2, "{log}");
    let expected = [
        "names 10.0.2.3:53",
        "port 0.0.0.0:80",
        "port 0.0.0.0:443",
        "port [::]:443",
        "port 0.0.0.0:8321",
        "port [::]:8321",
    ];
    assert_eq!(sockets, expected);
}

#[test]
fn both_families_lead_to_it_where_the_host_has_both() {
    let six = Door { address6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100)), ..door() };
    let script = "
        (for i in 1 2; do echo mine | nc -l -p 8080 >/dev/null; done) &
        ip -6 address show; nc -w 5 2001:db8::7 80 </dev/null 2>&1; nc -w 5 fd00::100 80 </dev/null 2>&1
        for address in ::1 fd00::100; do until nc -w 5 $address 8080 </dev/null 2>/dev/null; do sleep 0.1; done; done";
    for redirect in [true, false] {
        let (log, sockets) = run(Some(Door { redirect, ..six.clone() }), script);
        assert!(log.contains("fd00::100/128") && !log.contains("tentative"), "{log}");
        assert_eq!(log.contains("to [::"), redirect, "{log}");
        assert_eq!(log.matches("mine").count(), 2, "what is the builder's own stays so: {log}");
        assert_eq!(log.contains("to [2001:db8::7]:80"), !redirect, "{log}");
        assert_eq!(sockets.iter().filter(|socket| socket.contains("[::]")).count(), if redirect { 1 } else { 2 });
    }
}

#[test]
fn lo_has_the_address_that_others_see_and_no_other_device_is_there() {
    let (log, _) = run(Some(door()), "ip address show; ip route show table local");
    assert!(log.contains("inet 10.0.2.100/32") && log.contains("inet 127.0.0.1/8"), "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).count(), 1, "{log}");
    assert!(log.contains("local default dev lo"), "{log}");
    assert!(log.contains("src 10.0.2.100"), "{log}");
}

#[test]
fn the_sockets_stay_outside() {
    let (log, _) = run(Some(door()), "echo /proc/self/fd/*; cat /proc/net/tcp /proc/net/udp");
    assert!(log.starts_with("/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 "), "{log}");
    // 47115 is listened on, by somebody who is not the builder.
    assert!(log.contains(":B80B 00000000:0000 0A"), "{log}");
}

#[test]
fn without_a_door_nothing_is_handed_out_and_nowhere_is_reached() {
    let (log, sockets) = run(None, &calls(&["198.51.100.7 80", "10.0.2.3 53", "10.0.2.100 80"]));
    assert_eq!(log.matches("Network is unreachable").count(), 3, "{log}");
    assert!(sockets.is_empty(), "{sockets:?}");
}
