//! The ledger in words: a line, a short table, and what was refused.

use crate::words::{harmless, print_note};
use fodder_build::{NetworkProblem, outcome::NetworkReport};
use fodder_gateway::{HostEntry, NameOutcome, Verdict};

/// Rows of the table; the rest is counted.
const ROWS: usize = 10;

/// Says who was called. Nothing, when nobody was.
pub(crate) fn tell_network(network: &NetworkReport) {
    let NetworkReport { mode: _, why: _, hosts, names, problem, all_ports, recording } = network;
    if !hosts.is_empty() {
        let sum = |value: fn(&HostEntry) -> u64| hosts.iter().map(value).sum::<u64>();
        let mut callees: Vec<String> = hosts.iter().map(HostEntry::shown).collect();
        callees.sort();
        callees.dedup();
        let is_replay = recording.as_ref().is_some_and(|recording| recording.is_replay);
        let verb = if is_replay { "a recording spoke for" } else { "talked to" };
        print_note(&format!(
            "network: {verb} {}, {}, {} in, {} out",
            count(callees.len() as u64, "host"),
            count(sum(|host| host.connections), "connection"),
            bytes(sum(|host| host.bytes_in)),
            bytes(sum(|host| host.bytes_out))
        ));
        let width =
            hosts.iter().take(ROWS).map(|host| harmless(host.shown()).chars().count()).max().unwrap_or_default();
        for host in hosts.iter().take(ROWS) {
            print_note(&row(host, width));
        }
        if hosts.len() > ROWS {
            print_note(&format!("  … and {} more, with --json", hosts.len() - ROWS));
        }
    }
    for name in names.iter().filter(|name| name.outcome == NameOutcome::RefusedByPolicy).take(ROWS) {
        let name = harmless(name.name.as_bytes());
        print_note(&format!(
            "  {name}  refused: only the hosts that you allowed may be called; --allow {name} would allow it"
        ));
    }
    if *all_ports == Some(false) && problem.is_some() {
        print_note(
            "note: this kernel has no nf_tables: connections to other ports than the usual ones of fetchers were refused",
        );
    }
    if let Some(NetworkProblem { kind, host, evidence, remedy, issuer }) = problem {
        let host = host.as_ref().map(|host| format!(": {}", harmless(host.as_bytes()))).unwrap_or_default();
        print_note(&format!("note: {}{host}: {}", kind.words(), harmless(evidence.as_bytes())));
        if let Some(issuer) = issuer {
            print_note(&format!("note: its certificate comes from '{}'", harmless(issuer.as_bytes())));
        }
        if let Some(remedy) = remedy {
            print_note(&format!("hint: {}", harmless(remedy.as_bytes())));
        }
    }
}

fn row(host: &HostEntry, width: usize) -> String {
    let shown = host.shown();
    let shown = harmless(shown.as_bytes());
    let reason = harmless(host.reason.as_deref().unwrap_or_default().as_bytes());
    let flag = host.flag.as_ref().map(|flag| format!("; {} would allow it", harmless(flag))).unwrap_or_default();
    let what = match host.verdict {
        Verdict::Connected => traffic(host),
        Verdict::Cut => format!("{}, cut: {reason}", traffic(host)),
        Verdict::RefusedByPolicy => format!("refused: {reason}{flag}"),
        Verdict::Refused => format!("refused the connection: {reason}"),
        Verdict::Unreachable => format!("not reached: {reason}"),
    };
    format!("  {shown:width$}  {what}")
}

fn traffic(host: &HostEntry) -> String {
    let connections = count(host.connections, "connection");
    format!("{connections}, {} in, {} out", bytes(host.bytes_in), bytes(host.bytes_out))
}

fn count(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.2} GB", number as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1_000), bytes(12_345_678), bytes(2_500_000_000)],
            ["0 B", "999 B", "1.0 kB", "12.3 MB", "2.50 GB"]
        );
        assert_eq!([count(1, "host"), count(3, "host")], ["1 host", "3 hosts"]);
    }
}
