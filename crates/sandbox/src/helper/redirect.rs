//! Rules of nftables in a network namespace of our own: TCP to anywhere but loopback goes to one port. Spoken to the kernel
//! directly, since few machines have `nft`. The numbers are those of linux/netfilter/nf_tables.h.

use super::netlink::{Message, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, Netlink};
use crate::wire::{Doing, Failure};
use nix::sys::socket::SockProtocol;
use std::net::{Ipv4Addr, Ipv6Addr};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_NEWCHAIN: u16 = (NFNL_SUBSYS_NFTABLES << 8) | 3;
const NFT_MSG_NEWRULE: u16 = (NFNL_SUBSYS_NFTABLES << 8) | 6;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// `NF_INET_LOCAL_OUT`
const HOOK_OUTPUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`
const PRIORITY: i32 = -100;

/// The register that expressions pass values in.
const REGISTER: u32 = 1;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
/// `NFT_META_L4PROTO`
const META_PROTOCOL: u32 = 16;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const TCP: u8 = 6;

const NAME: &str = "door";

/// Redirects every TCP connection for anywhere but the builder itself, and those for some ports of loopback.
pub(super) fn everything(
    port: u16,
    loopback_ports: &[u16],
    own: Ipv4Addr,
    own6: Option<Ipv6Addr>,
) -> Result<(), Failure> {
    let netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    let mut batch = Batch::begin();
    batch.family(NFPROTO_IPV4, port, loopback_ports, Some(&own.octets()));
    if own6.is_some() || !loopback_ports.is_empty() {
        let own6 = own6.map(|own6| own6.octets());
        batch.family(NFPROTO_IPV6, port, loopback_ports, own6.as_ref().map(|own6| &own6[..]));
    }
    let (message, acknowledged) = batch.finish();
    netlink.ask(&message, acknowledged).doing("redirecting connections")
}

/// Messages that take effect together.
struct Batch {
    message: Message,
    count: usize,
}

impl Batch {
    fn begin() -> Self {
        let mut batch = Batch { message: Message::default(), count: 0 };
        batch.limit(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// The first and last message, for the subsystem as a whole.
    fn limit(&mut self, kind: u16) {
        let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
        let start = self.message.begin(kind, NLM_F_REQUEST, 0, &[0, 0, high, low]);
        self.message.end(start);
    }

    fn finish(mut self) -> (Message, usize) {
        self.limit(NFNL_MSG_BATCH_END);
        (self.message, self.count)
    }

    fn add(&mut self, kind: u16, family: u8, flags: u16, fill: impl FnOnce(&mut Message)) {
        self.count += 1;
        let sequence = u32::try_from(self.count).unwrap_or(u32::MAX);
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | flags;
        let start = self.message.begin(kind, flags, sequence, &[family, 0, 0, 0]);
        fill(&mut self.message);
        self.message.end(start);
    }

    /// A table, a chain in it at the output hook, and the rules.
    fn family(&mut self, family: u8, port: u16, loopback_ports: &[u16], own: Option<&[u8]>) {
        self.add(NFT_MSG_NEWTABLE, family, 0, |message| message.text(1, NAME));
        self.add(NFT_MSG_NEWCHAIN, family, 0, |message| {
            message.text(1, NAME);
            message.text(3, NAME);
            message.nested(4, |hook| {
                hook.attribute(1, &HOOK_OUTPUT.to_be_bytes());
                hook.attribute(2, &PRIORITY.to_be_bytes());
            });
            message.text(7, "nat");
        });
        for only in std::iter::once(None).chain(loopback_ports.iter().map(|port| Some(*port))) {
            self.add(NFT_MSG_NEWRULE, family, NLM_F_APPEND, |message| {
                message.text(1, NAME);
                message.text(2, NAME);
                message.nested(4, |expressions| rule(expressions, family, only, own, port));
            });
        }
    }
}

/// With `only`, connections to that port of loopback; else all that go neither to loopback nor to the builder's `own` address.
fn rule(expressions: &mut Message, family: u8, only: Option<u16>, own: Option<&[u8]>, port: u16) {
    expression(expressions, "meta", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(2, &META_PROTOCOL.to_be_bytes());
    });
    compare(expressions, NFT_CMP_EQ, &[TCP]);
    let operation = if only.is_some() { NFT_CMP_EQ } else { NFT_CMP_NEQ };
    let (offset, length) = if family == NFPROTO_IPV4 { (16, 4) } else { (24, 16) };
    if family == NFPROTO_IPV4 {
        payload(expressions, PAYLOAD_NETWORK_HEADER, offset, 1);
        compare(expressions, operation, &[127]);
    } else {
        payload(expressions, PAYLOAD_NETWORK_HEADER, offset, length);
        compare(expressions, operation, &Ipv6Addr::LOCALHOST.octets());
    }
    if let (None, Some(own)) = (only, own) {
        payload(expressions, PAYLOAD_NETWORK_HEADER, offset, length);
        compare(expressions, NFT_CMP_NEQ, own);
    }
    if let Some(only) = only {
        payload(expressions, PAYLOAD_TRANSPORT_HEADER, 2, 2);
        compare(expressions, NFT_CMP_EQ, &only.to_be_bytes());
    }
    expression(expressions, "immediate", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.nested(2, |value| value.attribute(1, &port.to_be_bytes()));
    });
    expression(expressions, "redir", |data| data.attribute(1, &REGISTER.to_be_bytes()));
}

/// Loads bytes at an offset of a header: of the destination's address or port.
fn payload(expressions: &mut Message, base: u32, offset: u32, length: u32) {
    expression(expressions, "payload", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(2, &base.to_be_bytes());
        data.attribute(3, &offset.to_be_bytes());
        data.attribute(4, &length.to_be_bytes());
    });
}

fn compare(expressions: &mut Message, operation: u32, value: &[u8]) {
    expression(expressions, "cmp", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(2, &operation.to_be_bytes());
        data.nested(3, |wrapped| wrapped.attribute(1, value));
    });
}

fn expression(expressions: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    expressions.nested(1, |element| {
        element.text(1, name);
        element.nested(2, fill);
    });
}
