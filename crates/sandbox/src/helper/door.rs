//! The door: in the builder's network namespace every address is our own ("AnyIP"), so whoever connects anywhere reaches a socket
//! of ours, which the runner gets. Nothing of the namespace leads anywhere else.

use super::{
    netlink::{Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Netlink},
    redirect,
};
use crate::{
    sys,
    wire::{Doing, DoorSocket, Failure},
};
use fodder_model::sandbox::Door;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, listen,
    setsockopt, socket, sockopt,
};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

// Of linux/rtnetlink.h, linux/if_addr.h.
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;

/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;

/// The port that everything is redirected to; a builder that wants it for itself has bad luck.
const REDIRECT_PORT: u16 = 47_115;

/// Connections that wait to be accepted: a package manager opens hundreds at once.
const BACKLOG: i32 = 4096;

/// Brings `lo` up. The kernel itself then gives it 127.0.0.1/8 (inetdev_event) and ::1/128 (addrconf), which is all that
/// Nix has there.
pub(crate) fn raise_loopback() -> Result<(), Failure> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .doing("opening a socket to configure lo")?;
    sys::raise_loopback(&socket).doing("bringing lo up")
}

/// Opens the door in the current network namespace, which must be new.
pub(super) fn open(door: &Door) -> Result<Vec<(DoorSocket, OwnedFd)>, Failure> {
    let Door { address, address6, name_server, loopback_ports, ports, redirect } = door;
    raise_loopback()?;
    let netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
    own_address(&netlink, libc::AF_INET, &address.octets(), 32)?;
    everything_is_local(&netlink, libc::AF_INET, &address.octets())?;
    if let Some(address6) = address6 {
        own_address(&netlink, libc::AF_INET6, &address6.octets(), 128)?;
        everything_is_local(&netlink, libc::AF_INET6, &address6.octets())?;
    }
    let mut sockets = vec![(DoorSocket::Names, names(*name_server)?)];
    // Refused by a kernel without nf_tables.
    let is_redirected = *redirect && redirect::everything(REDIRECT_PORT, loopback_ports, *address, *address6).is_ok();
    if is_redirected {
        let ipv6 = address6.is_some() || !loopback_ports.is_empty();
        sockets.extend(listeners(REDIRECT_PORT, ipv6)?.map(|fd| (DoorSocket::Redirected, fd)));
    } else {
        for port in ports.iter().chain(loopback_ports.iter().filter(|port| !ports.contains(port))) {
            let ipv6 = address6.is_some() || loopback_ports.contains(port);
            sockets.extend(listeners(*port, ipv6)?.map(|fd| (DoorSocket::Port, fd)));
        }
    }
    Ok(sockets)
}

fn own_address(netlink: &Netlink, family: i32, address: &[u8], bits: u8) -> Result<(), Failure> {
    let mut message = Message::default();
    let index = LOOPBACK.to_ne_bytes();
    let fixed = [&[family as u8, bits, IFA_F_NODAD, RT_SCOPE_UNIVERSE][..], &index].concat();
    let start = message.begin(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, &fixed);
    message.attribute(IFA_LOCAL, address);
    message.attribute(IFA_ADDRESS, address);
    message.end(start);
    netlink.ask(&message, 1).doing("giving lo an address")
}

fn everything_is_local(netlink: &Netlink, family: i32, source: &[u8]) -> Result<(), Failure> {
    let mut message = Message::default();
    let scope = if family == libc::AF_INET { RT_SCOPE_HOST } else { RT_SCOPE_UNIVERSE };
    let fixed = [family as u8, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, scope, RTN_LOCAL, 0, 0, 0, 0];
    let start = message.begin(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, &fixed);
    message.attribute(RTA_OIF, &LOOPBACK.to_ne_bytes());
    message.attribute(RTA_PREFSRC, source);
    message.end(start);
    netlink.ask(&message, 1).doing("making every address local")
}

/// Bound to the address itself: an answer from another one would be dropped by whoever asked.
fn names(address: Ipv4Addr) -> Result<OwnedFd, Failure> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket =
        socket(AddressFamily::Inet, SockType::Datagram, flags, None).doing("making the name server's socket")?;
    let address = SockaddrIn::from(SocketAddrV4::new(address, 53));
    bind(socket.as_raw_fd(), &address).doing("binding the name server's socket")?;
    Ok(socket)
}

/// One for each family: what a connection's destination was is asked by family.
fn listeners(port: u16, ipv6: bool) -> Result<impl Iterator<Item = OwnedFd>, Failure> {
    let any = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    let four = listener(AddressFamily::Inet, &any)?;
    let six = match ipv6 {
        true => {
            let any = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
            Some(listener(AddressFamily::Inet6, &any)?)
        }
        false => None,
    };
    Ok(std::iter::once(four).chain(six))
}

fn listener(family: AddressFamily, address: &dyn SockaddrLike) -> Result<OwnedFd, Failure> {
    let doing = "making a socket that catches connections";
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None).doing(doing)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true).doing(doing)?;
    }
    bind(socket.as_raw_fd(), address).doing(doing)?;
    listen(&socket, Backlog::new(BACKLOG).doing(doing)?).doing(doing)?;
    Ok(socket)
}
