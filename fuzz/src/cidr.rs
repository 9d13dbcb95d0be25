//! Networks and addresses once more, bit by bit and from the tables of the RFCs: a second opinion on the network policy.

use std::net::IpAddr;

fn bits_of(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}

/// Whether the first bits agree.
pub fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let (network, address) = (bits_of(network), bits_of(address));
    network.len() == address.len() && network.iter().zip(&address).take(bits.into()).all(|(one, other)| one == other)
}

fn is_in(text: &str, address: IpAddr) -> bool {
    let (network, bits) = text.split_once('/').expect("a network");
    contains(network.parse().expect("an address"), bits.parse().expect("a number"), address)
}

/// The IPv4 address that an IPv6 address stands for, where there is one.
pub fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let octets = six.octets();
    let at = |start: usize| IpAddr::from([octets[start], octets[start + 1], octets[start + 2], octets[start + 3]]);
    if is_in("2002::/16", address) {
        return at(2);
    }
    let mapped = ["::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"];
    let is_compatible = is_in("::/96", address) && !is_in("::/112", address);
    if is_compatible || mapped.iter().any(|network| is_in(network, address)) { at(12) } else { address }
}

/// What no build may call unless somebody allows it, and what is no host.
pub fn is_protected(address: IpAddr) -> bool {
    [
        // Loopback; this network; link-local; multicast; broadcast.
        "127.0.0.0/8",
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::1/128",
        "::/128",
        "fe80::/10",
        "ff00::/8",
        // Metadata of clouds.
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "fd20:ce::254/128",
        "fd00:42::42/128",
        "fd00:ec2::/32",
    ]
    .iter()
    .any(|network| is_in(network, address))
}
