//! Who may be called, compared with an implementation that shares no line with ours.
#![no_main]

use fodder_fuzz::cidr;
use fodder_model::network_policy::{Call, Destination, NetworkPolicy};
use std::{collections::BTreeSet, net::IpAddr};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // An address, a network and a port; decided by the policy, and by somebody who counts bits one by one.
    let Some((address, rest)) = fodder_fuzz::address(data) else { return };
    let Some((network, rest)) = fodder_fuzz::address(rest) else { return };
    let [bits, kind, ..] = rest else { return };
    let bits = bits % if network.is_ipv4() { 33 } else { 129 };
    let destination = Destination::parse(&format!("{network}/{bits}"));
    // A network of IPv4 addresses in disguise is refused.
    assert_eq!(destination.is_err(), cidr::unmapped(network) != network, "{network}/{bits}");
    let Ok(destination) = destination else { return };
    let (names, own) = (BTreeSet::new(), BTreeSet::<IpAddr>::new());
    let call = Call { address, port: 443, names: &names };
    let meant = cidr::unmapped(address);
    let is_inside = cidr::contains(network, bits, meant);
    let mut policy = NetworkPolicy::default();
    let protected = cidr::is_protected(meant);
    assert_eq!(policy.decide(&call, &own).is_err(), protected, "{address}");
    if kind % 2 == 0 {
        policy.deny.push(destination);
        assert_eq!(policy.decide(&call, &own).is_err(), is_inside || protected, "{address} deny {network}/{bits}");
    } else {
        policy.only.push(destination);
        assert_eq!(policy.decide(&call, &own).is_err(), !is_inside || protected, "{address} only {network}/{bits}");
    }
});
