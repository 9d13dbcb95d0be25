//! Who was called, how often, with how much, and how it went.

use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Everything that went through a door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Who was called.
    pub hosts: Vec<HostEntry>,
    /// Whose addresses were asked for.
    pub names: Vec<NameEntry>,
}

/// One host, address and port that was called with one result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEntry {
    /// The names that led to it, the first 32; none when the build knew the address itself.
    pub names: BTreeSet<String>,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, when it was refused or failed.
    pub reason: Option<String>,
    /// The flag that would allow it, when the policy refused it.
    pub flag: Option<String>,
    /// How many connections.
    pub connections: u64,
    /// Bytes that the build received.
    pub bytes_in: u64,
    /// Bytes that the build sent.
    pub bytes_out: u64,
    /// When the first one began, in milliseconds since 1970.
    pub first_time: u64,
    /// When the last one ended, likewise.
    pub last_time: u64,
}

impl HostEntry {
    /// `HOST:PORT`, by name where it has one.
    pub fn shown(&self) -> String {
        match (self.names.first(), self.address) {
            (Some(name), _) => format!("{name}:{}", self.port),
            (None, IpAddr::V4(address)) => format!("{address}:{}", self.port),
            (None, IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
        }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was connected and ended in order.
    Connected,
    /// It was connected, and the line was cut.
    Cut,
    /// The policy forbids it.
    RefusedByPolicy,
    /// Nobody listens there.
    Refused,
    /// Nobody answers there.
    Unreachable,
}

/// One name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NameEntry {
    /// The name.
    pub name: String,
    /// How that went, the last time.
    pub outcome: NameOutcome,
    /// What it stands for.
    pub addresses: BTreeSet<IpAddr>,
    /// How often.
    pub queries: u64,
}

/// How a query for a name ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameOutcome {
    /// There is such a name.
    Found,
    /// There is none.
    NotFound,
    /// The policy forbids to ask.
    RefusedByPolicy,
    /// No name server answered.
    NoAnswer,
}

/// Bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

/// Hosts and names beyond so many are not listed one by one: a build could fill the runner's memory with them. Addresses of names beyond
/// it are known by no name, so where names are needed they are refused.
const LIST_LIMIT: usize = 10_000;

/// Likewise for addresses of names: each of each name counts.
const ADDRESS_LIMIT: usize = 100_000;

/// Names that are listed with one host: whoever has a domain has names without end for one address, and one entry for every port.
const NAMES_OF_A_HOST: usize = 32;

/// What names beyond it are counted under.
const FURTHER_NAMES: &str = "*";

/// What connections beyond it are counted under.
const FURTHER_HOSTS: &str = "further hosts, which are not listed one by one";

type Key = (IpAddr, u16, Verdict, Option<String>);

#[derive(Debug, Default)]
struct Page {
    hosts: BTreeMap<Key, HostEntry>,
    names: BTreeMap<String, NameEntry>,
    /// The names of each address, and how many they are together.
    named: BTreeMap<IpAddr, BTreeSet<String>>,
    addresses: usize,
    /// The last of them that was asked for: where many share an address, it is the one that is called next.
    latest: BTreeMap<IpAddr, String>,
    /// Connections that have not ended.
    open: BTreeMap<u64, (IpAddr, u16, u64, Arc<Traffic>)>,
    next: u64,
}

/// A ledger that is being written.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Page>);

/// A connection in the book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(u64);

impl Book {
    fn page(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins.
    pub(crate) fn begin(&self, address: IpAddr, port: u16) -> (Entry, Arc<Traffic>) {
        let traffic = Arc::new(Traffic::default());
        let mut page = self.page();
        let number = page.next;
        page.next += 1;
        page.open.insert(number, (address, port, now(), Arc::clone(&traffic)));
        (Entry(number), traffic)
    }

    /// It has ended.
    pub(crate) fn end(&self, entry: Entry, verdict: Verdict, reason: Option<String>, flag: Option<String>) {
        self.page().end(entry.0, verdict, reason, flag);
    }

    /// A name was asked for.
    pub(crate) fn name(&self, name: &str, outcome: NameOutcome, addresses: impl IntoIterator<Item = IpAddr>) {
        let page = &mut *self.page();
        if page.names.len() >= LIST_LIMIT && !page.names.contains_key(name) {
            let entry = page.names.entry(FURTHER_NAMES.to_owned()).or_insert_with(|| NameEntry {
                name: FURTHER_NAMES.to_owned(),
                outcome,
                addresses: BTreeSet::new(),
                queries: 0,
            });
            entry.queries += 1;
            return;
        }
        let entry = page.names.entry(name.to_owned()).or_insert_with(|| NameEntry {
            name: name.to_owned(),
            outcome,
            addresses: BTreeSet::new(),
            queries: 0,
        });
        entry.queries += 1;
        for address in addresses {
            let is_known = entry.addresses.contains(&address);
            if is_known || page.addresses < ADDRESS_LIMIT {
                if !is_known {
                    page.addresses += 1;
                    page.named.entry(address).or_default().insert(name.to_owned());
                    entry.addresses.insert(address);
                }
                page.latest.insert(address, name.to_owned());
            }
        }
        // A name with addresses of one family is not found in the other.
        entry.outcome = if entry.addresses.is_empty() { outcome } else { NameOutcome::Found };
    }

    /// The names that were answered with this address.
    pub(crate) fn names_of(&self, address: IpAddr) -> BTreeSet<String> {
        self.page().named.get(&address).cloned().unwrap_or_default()
    }

    /// What a host is called: the name that was answered with its address last, or the address.
    pub(crate) fn latest_name(&self, address: IpAddr) -> String {
        self.page().latest.get(&address).cloned().unwrap_or_else(|| address.to_string())
    }

    /// No more is written. What was still open ended with the build.
    pub(crate) fn close(&self) -> Ledger {
        let mut page = self.page();
        for number in page.open.keys().copied().collect::<Vec<_>>() {
            page.end(number, Verdict::Connected, None, None);
        }
        let (names, named) = (std::mem::take(&mut page.names), std::mem::take(&mut page.named));
        let mut hosts: Vec<HostEntry> = std::mem::take(&mut page.hosts).into_values().collect();
        for host in &mut hosts {
            let names = named.get(&host.address).into_iter().flatten();
            host.names = names.take(NAMES_OF_A_HOST).cloned().collect();
        }
        hosts.sort_by_key(|host| (host.first_time, host.address, host.port));
        Ledger { hosts, names: names.into_values().collect() }
    }
}

impl Page {
    fn end(&mut self, number: u64, verdict: Verdict, reason: Option<String>, flag: Option<String>) {
        let Some((address, port, began, traffic)) = self.open.remove(&number) else { return };
        let mut key = (address, port, verdict, reason);
        let mut flag = flag;
        if self.hosts.len() >= LIST_LIMIT && !self.hosts.contains_key(&key) {
            key = (Ipv4Addr::UNSPECIFIED.into(), 0, verdict, Some(FURTHER_HOSTS.to_owned()));
            flag = None;
        }
        let (address, port, verdict, reason) = key.clone();
        let entry = self.hosts.entry(key).or_insert_with(|| HostEntry {
            names: BTreeSet::new(),
            address,
            port,
            verdict,
            reason,
            flag,
            connections: 0,
            bytes_in: 0,
            bytes_out: 0,
            first_time: began,
            last_time: began,
        });
        entry.connections += 1;
        entry.bytes_in += traffic.received.load(Ordering::Relaxed);
        entry.bytes_out += traffic.sent.load(Ordering::Relaxed);
        entry.first_time = entry.first_time.min(began);
        entry.last_time = entry.last_time.max(now());
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: RES-5 (names without end for one address). Layer: limits of the ledger.
    #[test]
    fn names_of_hosts_do_not_multiply() {
        let book = Book::default();
        let address = |number: u32| IpAddr::from(Ipv4Addr::from(number + 1));
        for number in 0..9_000_u32 {
            book.name(&format!("n{number}.example"), NameOutcome::Found, (0..50).map(address));
        }
        let known: usize = (0..50).map(|number| book.names_of(address(number)).len()).sum();
        assert_eq!(known, ADDRESS_LIMIT);
        for port in 1..=5_000 {
            let (entry, _) = book.begin(address(0), port);
            book.end(entry, Verdict::Refused, None, None);
        }
        let ledger = book.close();
        assert_eq!(ledger.hosts.len(), 5_000);
        assert!(ledger.hosts.iter().all(|host| host.names.len() == NAMES_OF_A_HOST));
    }

    #[test]
    fn what_a_build_can_make_the_runner_remember_is_bounded() {
        let book = Book::default();
        for number in 0..30_000_u32 {
            let address = IpAddr::from(Ipv4Addr::from(number + 1));
            book.name(&format!("n{number}.example"), NameOutcome::Found, [address]);
            let (entry, traffic) = book.begin(address, 80);
            traffic.received.fetch_add(1, Ordering::Relaxed);
            book.end(entry, Verdict::Connected, None, None);
        }
        // Who is listed goes on being counted.
        let (entry, _) = book.begin(Ipv4Addr::from(1).into(), 80);
        book.end(entry, Verdict::Connected, None, None);
        assert!(book.names_of(Ipv4Addr::from(29_000).into()).is_empty());
        let ledger = book.close();
        assert_eq!((ledger.hosts.len(), ledger.names.len()), (LIST_LIMIT + 1, LIST_LIMIT + 1));
        assert_eq!(ledger.hosts.iter().map(|host| host.connections).sum::<u64>(), 30_001);
        assert_eq!(ledger.hosts.iter().map(|host| host.bytes_in).sum::<u64>(), 30_000);
        assert_eq!(ledger.names.iter().map(|name| name.queries).sum::<u64>(), 30_000);
    }
}
