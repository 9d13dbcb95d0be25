//! The build's own network: `lo`, up.

use crate::{
    sys,
    wire::{Doing, Failure},
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings `lo` up. The kernel itself then gives it 127.0.0.1/8 (inetdev_event) and ::1/128 (addrconf), which is all that
/// Nix has there.
pub(super) fn raise_loopback() -> Result<(), Failure> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .doing("opening a socket to configure lo")?;
    sys::raise_loopback(&socket).doing("bringing lo up")
}
