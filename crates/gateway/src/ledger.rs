//! Who was called, how often, with how much, and how it went.

use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
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
    /// The names that led to it; none when the build knew the address itself.
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

type Key = (IpAddr, u16, Verdict, Option<String>);

#[derive(Debug, Default)]
struct Page {
    hosts: BTreeMap<Key, HostEntry>,
    names: BTreeMap<String, NameEntry>,
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
        let mut page = self.page();
        let entry = page.names.entry(name.to_owned()).or_insert_with(|| NameEntry {
            name: name.to_owned(),
            outcome,
            addresses: BTreeSet::new(),
            queries: 0,
        });
        entry.queries += 1;
        entry.addresses.extend(addresses);
        // A name with addresses of one family is not found in the other.
        entry.outcome = if entry.addresses.is_empty() { outcome } else { NameOutcome::Found };
    }

    /// The names that were answered with this address.
    pub(crate) fn names_of(&self, address: IpAddr) -> BTreeSet<String> {
        let page = self.page();
        let names = page.names.values().filter(|entry| entry.addresses.contains(&address));
        names.map(|entry| entry.name.clone()).collect()
    }

    /// No more is written. What was still open ended with the build.
    pub(crate) fn close(&self) -> Ledger {
        let mut page = self.page();
        for number in page.open.keys().copied().collect::<Vec<_>>() {
            page.end(number, Verdict::Connected, None, None);
        }
        let names = std::mem::take(&mut page.names);
        let mut hosts: Vec<HostEntry> = std::mem::take(&mut page.hosts).into_values().collect();
        for host in &mut hosts {
            let known = names.values().filter(|entry| entry.addresses.contains(&host.address));
            host.names = known.map(|entry| entry.name.clone()).collect();
        }
        hosts.sort_by_key(|host| (host.first_time, host.address, host.port));
        Ledger { hosts, names: names.into_values().collect() }
    }
}

impl Page {
    fn end(&mut self, number: u64, verdict: Verdict, reason: Option<String>, flag: Option<String>) {
        let Some((address, port, began, traffic)) = self.open.remove(&number) else { return };
        let entry = self.hosts.entry((address, port, verdict, reason.clone())).or_insert_with(|| HostEntry {
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
