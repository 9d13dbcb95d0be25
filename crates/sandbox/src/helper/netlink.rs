//! Messages to the kernel's network configuration, see netlink(7): only as much as the door needs.

use crate::wire::{Doing, Failure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};

// Of linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;

/// Messages and attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

/// One message, or several that are sent together.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Begins a message with its fixed part; what is added afterwards are its attributes.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, sequence: u32, fixed: &[u8]) -> usize {
        let start = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(sequence.to_ne_bytes());
        self.0.extend(0_u32.to_ne_bytes());
        self.0.extend(fixed);
        self.align();
        start
    }

    /// Ends the message that began at `start`.
    pub(super) fn end(&mut self, start: usize) {
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.align();
    }

    /// A text, with the zero that the kernel wants.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// Attributes inside of an attribute.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// A conversation with one part of the kernel.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open(protocol: SockProtocol) -> Result<Self, Failure> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .doing("opening a netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).doing("binding a netlink socket")?;
        Ok(Netlink(socket))
    }

    /// Sends, and waits until each of `acknowledged` messages is done; the first refusal is the answer.
    pub(super) fn ask(&self, message: &Message, acknowledged: usize) -> nix::Result<()> {
        send(self.0.as_raw_fd(), &message.0, MsgFlags::empty())?;
        let mut buffer = [0; 8192];
        let mut answers = 0;
        while answers < acknowledged {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some(header) = rest.get(..20) {
                let number = |range: std::ops::Range<usize>| {
                    header[range].iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
                };
                let (length, kind, error) = if cfg!(target_endian = "little") {
                    (number(0..4), number(4..6), number(16..20).cast_signed())
                } else {
                    return Err(nix::errno::Errno::ENOSYS);
                };
                if kind == u32::from(NLMSG_ERROR) {
                    if error != 0 {
                        return Err(nix::errno::Errno::from_raw(-error));
                    }
                    answers += 1;
                }
                let length = usize::try_from(length).unwrap_or(usize::MAX).max(16).next_multiple_of(ALIGNMENT);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        Ok(())
    }
}
