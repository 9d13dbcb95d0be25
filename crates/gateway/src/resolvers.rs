//! Whom this machine asks for names: resolv.conf(5) and hosts(5), as texts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// More than three are ignored by everybody else, too.
const SERVER_LIMIT: usize = 3;

/// The name servers, in order, and the names that need none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolvers {
    /// Asked one after the other until one answers.
    pub servers: Vec<SocketAddr>,
    /// Names of the machine's own, in lower case.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

impl Resolvers {
    /// From the two files' contents; without a name server, the machine's own is asked, as by every C library.
    pub fn read(resolv_conf: &str, hosts: &str) -> Self {
        let mut servers: Vec<SocketAddr> = resolv_conf
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|rest| rest.split_ascii_whitespace().next())
            .filter_map(|address| address.split('%').next()?.parse::<IpAddr>().ok())
            .map(|address| SocketAddr::new(address, 53))
            .take(SERVER_LIMIT)
            .collect();
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for line in hosts.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for name in words {
                names.entry(name.to_ascii_lowercase()).or_default().push(address);
            }
        }
        Resolvers { servers, hosts: names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_names_are_read_in_order() {
        let resolvers = Resolvers::read(
            "# a comment\nsearch example.org\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n nameserver 2001:db8::1\nnameserver 1.1.1.1\noptions edns0\n",
            "127.0.0.1 localhost\n::1 localhost ip6-localhost # both\n192.168.1.5\tNAS nas.local\nnonsense x\n",
        );
        let servers: Vec<String> = resolvers.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[fe80::1]:53", "[2001:db8::1]:53"]);
        assert_eq!(resolvers.hosts["localhost"].len(), 2);
        assert_eq!(resolvers.hosts["nas"], ["192.168.1.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(Resolvers::read("", "").servers[0].to_string(), "127.0.0.1:53");
    }
}
