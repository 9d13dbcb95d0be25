//! What the gateway must know of this machine's network.

use fodder_gateway::Resolvers;
use nix::ifaddrs::getifaddrs;
use std::{collections::BTreeSet, net::IpAddr};

/// Whether this machine has a way to anywhere over IPv6: an address that is not of one link only, and a default route.
pub(super) fn has_ipv6() -> bool {
    let is_global = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(six) => !six.is_loopback() && !six.is_unicast_link_local(),
    };
    if !own_addresses().iter().any(is_global) {
        return false;
    }
    // Destination, prefix length, source, prefix length, next hop, metric, references, use, flags, device (proc(5)).
    let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    routes.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields.get(1) == Some(&"00") && fields.get(9).is_some_and(|device| *device != "lo")
    })
}

/// Addresses of this machine's interfaces.
pub(crate) fn own_addresses() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return BTreeSet::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
        })
        .collect()
}

/// Whom it asks for names.
pub(crate) fn resolvers() -> Resolvers {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    Resolvers::read(&read("/etc/resolv.conf"), &read("/etc/hosts"))
}
