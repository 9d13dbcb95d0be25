//! Who may be called from a fixed-output build, decided purely: from the address that would be connected to, the names that led
//! to it, and what the person said.

use serde::Serialize;
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What a person said about the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// `--allow`: as soon as one names a host, only those that are named may be called. One that is an address of this machine or
    /// its neighbourhood only lifts the protection of that address.
    pub allow: Vec<Destination>,
    /// `--deny`: never, whatever is allowed.
    pub deny: Vec<Destination>,
    /// `--allow-loopback`: ports of this machine's loopback.
    pub loopback_ports: BTreeSet<u16>,
    /// What the file itself says: of those that may be called, only these. It can take away, and gives nothing.
    pub only: Vec<Destination>,
}

/// A host or several, and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Who.
    pub host: Host,
    /// Any, when absent.
    pub port: Option<u16>,
}

/// Who.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Host {
    /// Everybody: `*`.
    Any,
    /// Exactly this name, in lower case.
    Name(String),
    /// Every name below this one: `*.example.org`.
    Below(String),
    /// Addresses that agree in so many leading bits.
    Network {
        /// The address.
        address: IpAddr,
        /// How many bits count.
        bits: u8,
    },
}

/// Why a text names no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not HOST or HOST:PORT; a host is a name, *.NAME, an address, or ADDRESS/BITS, and IPv6 with a port is [ADDRESS]:PORT"
)]
pub struct DestinationError {
    /// What was given.
    pub text: String,
}

impl Destination {
    /// Reads `HOST[:PORT]`.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let error = || DestinationError { text: text.to_owned() };
        if let Ok(host) = Host::parse(text) {
            return Ok(Destination { host, port: None });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?;
        Ok(Destination { host: Host::parse(host).map_err(|()| error())?, port: Some(port) })
    }

    /// Whether it is addresses that it names, which lifts their protection.
    pub fn is_address(&self) -> bool {
        matches!(self.host, Host::Network { .. })
    }

    fn covers(&self, call: &Call<'_>) -> bool {
        self.port.is_none_or(|port| port == call.port) && self.host.covers(call)
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, ()> {
        if text == "*" {
            return Ok(Host::Any);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = unmapped(address);
            return Ok(Host::Network { address, bits: if address.is_ipv4() { 32 } else { 128 } });
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(drop)?;
            let limit = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= limit).ok_or(())?;
            // Calls are judged by the IPv4 address within, so a network of such addresses has to be said that way.
            return if unmapped(address) == address { Ok(Host::Network { address, bits }) } else { Err(()) };
        }
        let name = text.to_ascii_lowercase();
        let (name, is_below) = match name.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (name.as_str(), false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
        };
        // An address with a dot behind it is none, and no name either.
        let is_address = !is_below && name.parse::<IpAddr>().is_ok();
        if name.len() > 253 || is_address || !name.split('.').all(is_label) {
            return Err(());
        }
        Ok(if is_below { Host::Below(name.to_owned()) } else { Host::Name(name.to_owned()) })
    }

    fn covers(&self, call: &Call<'_>) -> bool {
        match self {
            Host::Any => true,
            Host::Name(_) | Host::Below(_) => call.names.iter().any(|name| self.covers_name(name)),
            Host::Network { address, bits } => is_within(unmapped(call.address), *address, *bits),
        }
    }

    /// Whether an address is meant.
    pub fn covers_address(&self, address: IpAddr) -> bool {
        self.covers(&Call { address, port: 0, names: &BTreeSet::new() })
    }

    /// Whether this lifts a protection instead of naming whom alone to call: its first address is protected. A wide network that happens to
    /// hold this machine or a cloud's metadata lifts nothing, `0.0.0.0/0` least of all.
    fn lifts(&self, own: &BTreeSet<IpAddr>) -> bool {
        match self {
            Host::Any | Host::Name(_) | Host::Below(_) => false,
            Host::Network { address, bits } => protection(first_of(*address, *bits), own).is_some(),
        }
    }

    /// Whether a name is meant, in any case, with or without the dot at its end.
    pub fn covers_name(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match self {
            Host::Any => true,
            Host::Name(own) => *own == name,
            Host::Below(own) => name.strip_suffix(own.as_str()).is_some_and(|rest| rest.ends_with('.')),
            Host::Network { .. } => false,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.host {
            Host::Any => "*".to_owned(),
            Host::Name(name) => name.clone(),
            Host::Below(name) => format!("*.{name}"),
            Host::Network { address, bits } if *bits == if address.is_ipv4() { 32 } else { 128 } => address.to_string(),
            Host::Network { address, bits } => format!("{address}/{bits}"),
        };
        match (self.port, host.contains(':')) {
            (None, _) => formatter.write_str(&host),
            (Some(port), true) => write!(formatter, "[{host}]:{port}"),
            (Some(port), false) => write!(formatter, "{host}:{port}"),
        }
    }
}

/// A connection that a build wants.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What would really be connected to.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The names that were asked for and answered with this address.
    pub names: &'a BTreeSet<String>,
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// In words.
    pub reason: String,
    /// The flag that would allow it; `None` when nothing would.
    pub flag: Option<String>,
}

impl NetworkPolicy {
    /// Decides about a call. `own` are the addresses of this machine's interfaces.
    pub fn decide(&self, call: &Call<'_>, own: &BTreeSet<IpAddr>) -> Result<(), Refusal> {
        let address = unmapped(call.address);
        let shown = Destination {
            host: Host::Network { address, bits: if address.is_ipv4() { 32 } else { 128 } },
            port: Some(call.port),
        };
        if let Some(denied) = self.deny.iter().find(|denied| denied.covers(call)) {
            let reason = format!("you denied it with --deny {denied}");
            return Err(Refusal { reason, flag: None });
        }
        if !self.only.is_empty() && !self.only.iter().any(|only| only.covers(call)) {
            let reason = "the file itself allows only others ('fodder.network.allow')".to_owned();
            return Err(Refusal { reason, flag: None });
        }
        if is_nowhere(address) {
            return Err(Refusal { reason: "this is no address of a host".to_owned(), flag: None });
        }
        let protection = protection(address, own);
        // Names do not count here: anybody can give a name to somebody else's address.
        let is_lifted = self.allow.iter().any(|allowed| allowed.host.lifts(own) && allowed.covers(call));
        if let Some(what) = protection {
            if is_lifted || (address.is_loopback() && self.loopback_ports.contains(&call.port)) {
                return Ok(());
            }
            let flag = match address.is_loopback() {
                true => format!("--allow-loopback {}", call.port),
                false => format!("--allow {shown}"),
            };
            return Err(Refusal { reason: format!("this is {what}"), flag: Some(flag) });
        }
        if self.is_exhaustive(own) && !self.allow.iter().any(|allowed| allowed.covers(call)) {
            let host = call.names.first().map(|name| Host::Name(name.clone())).unwrap_or(shown.host);
            let flag = format!("--allow {}", Destination { host, port: Some(call.port) });
            return Err(Refusal {
                reason: "only the hosts that you allowed may be called".to_owned(),
                flag: Some(flag),
            });
        }
        Ok(())
    }

    /// Whether a name may be asked for. Names are asked for at name servers anywhere, so who may not be called may not be asked for
    /// either.
    pub fn may_ask(&self, name: &str) -> bool {
        let names_hosts = |host: &Host| matches!(host, Host::Any | Host::Name(_) | Host::Below(_));
        let permits = |list: &[Destination]| {
            !list.iter().any(|allowed| names_hosts(&allowed.host))
                || list.iter().any(|allowed| allowed.host.covers_name(name))
        };
        let is_denied = self.deny.iter().any(|denied| denied.port.is_none() && denied.host.covers_name(name));
        !is_denied && permits(&self.allow) && permits(&self.only)
    }

    /// Whether only what is allowed may be called.
    fn is_exhaustive(&self, own: &BTreeSet<IpAddr>) -> bool {
        self.allow.iter().any(|allowed| !allowed.host.lifts(own))
    }
}

/// What an address is, if it may not be called by default: this machine's own, or what only its neighbours should reach.
fn protection(address: IpAddr, own: &BTreeSet<IpAddr>) -> Option<&'static str> {
    // Documented by the clouds: EC2, GCE and Azure have the first; Azure's other one; Alibaba; Oracle; GCE and Scaleway over IPv6.
    const METADATA: [IpAddr; 6] = [
        IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
        IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
        IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    ];
    // EC2 over IPv6: metadata, and the credentials of containers and pods.
    let is_ec2 = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => matches!(address.segments(), [0xfd00, 0xec2, ..]),
    };
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_loopback() {
        Some("this machine's loopback")
    } else if METADATA.contains(&address) || is_ec2 {
        Some("where a cloud keeps the secrets of its machines")
    } else if is_link_local {
        Some("an address of the local link")
    } else if own.contains(&address) {
        Some("this machine's own address")
    } else {
        None
    }
}

/// Addresses that no host has: connecting to some of them reaches this machine.
fn is_nowhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.is_broadcast() || address.is_multicast(),
        IpAddr::V6(address) => address.is_unspecified() || address.is_multicast(),
    }
}

/// IPv6 addresses that stand for IPv4 ones are those: mapped, translated (RFC 2765, RFC 6052, RFC 8215), 6to4 (RFC 3056).
fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match six.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => four(high, low),
        // ::1 and :: are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    address.is_ipv4() == network.is_ipv4() && first_of(address, bits) == first_of(network, bits)
}

/// The first address of a network.
fn first_of(network: IpAddr, bits: u8) -> IpAddr {
    match network {
        IpAddr::V4(four) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv4Addr::from_bits(four.to_bits() & mask).into()
        }
        IpAddr::V6(six) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv6Addr::from_bits(six.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests;
