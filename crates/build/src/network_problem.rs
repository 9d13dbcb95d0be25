//! Why a build that has a network could not get what it wanted: from the ledger, which knows, and from the end of the log, which
//! knows what servers answered.

use fodder_gateway::{HostEntry, Ledger, NameOutcome, Verdict};
use fodder_model::proxy::Proxies;
use serde::Serialize;

/// The longest issuer that is shown, in characters: a server may call its issuer anything.
const ISSUER_LIMIT: usize = 200;

/// What went wrong between a build and the hosts that it called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkProblem {
    /// Its kind.
    pub kind: ProblemKind,
    /// `HOST` or `HOST:PORT`, where it is known.
    pub host: Option<String>,
    /// What it was seen by.
    pub evidence: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Whose certificate would have to be known to trust the server, as it is called in certificates (`CN=…, O=…`).
    pub issuer: Option<String>,
}

impl NetworkProblem {
    /// Asks the server whose certificate was not trusted who issued it; only one that the build was allowed to call.
    pub(crate) fn find_issuer(&mut self, ledger: &Ledger, proxies: &Proxies) {
        if self.kind == ProblemKind::Certificate {
            self.issuer = last_called(ledger)
                .filter(|host| host.verdict == Verdict::Connected)
                .and_then(|host| fodder_gateway::missing_issuer(host, proxies))
                .map(|issuer| issuer.chars().take(ISSUER_LIMIT).collect());
        }
    }
}

/// Kinds of problems, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The policy forbids the host.
    RefusedByPolicy,
    /// The server's certificate is not trusted.
    Certificate,
    /// The server will not serve it: 401, 403, 429 and kin.
    RefusedByServer,
    /// There is no such name.
    NameNotFound,
    /// Nobody answers.
    Unreachable,
}

impl ProblemKind {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            ProblemKind::RefusedByPolicy => "refused by policy",
            ProblemKind::Certificate => "certificate",
            ProblemKind::RefusedByServer => "refused by server",
            ProblemKind::NameNotFound => "name not found",
            ProblemKind::Unreachable => "unreachable",
        }
    }
}

/// What OpenSSL, GnuTLS, rustls, Go and node say of an authority that they do not know.
pub(crate) const BAD_CERTIFICATE: [&str; 9] = [
    "certificate problem",
    "certificate verify failed",
    "certificate verification failed",
    "cannot verify",
    "is not trusted",
    "UnknownIssuer",
    "invalid peer certificate",
    "x509: certificate",
    "UNABLE_TO_",
];

/// Answers by which a server refuses, with the words that tools put around them.
const REFUSALS: [&str; 5] = ["401", "403", "407", "429", "451"];

/// Words beside which such a number is an answer and no line number.
const ANSWERS: [&str; 9] =
    ["http", "error", "status", "returned", "response", "forbidden", "unauthorized", "denied", "too many"];

/// Words of a name that was not found.
const NO_NAME: [&str; 9] = [
    "could not resolve",
    "unable to resolve",
    "name or service not known",
    "no address associated",
    "name resolution",
    "enotfound",
    "eai_again",
    "no such host",
    "dns error",
];

/// The problem that explains a failure best. `tail` is the end of the log.
pub(crate) fn find(ledger: &Ledger, tail: &[String]) -> Option<NetworkProblem> {
    let certificate = tail.iter().find(|line| BAD_CERTIFICATE.iter().any(|words| line.contains(words)));
    policy(ledger)
        .or_else(|| {
            certificate.map(|line| {
                by_log(
                    ProblemKind::Certificate,
                    line,
                    ledger,
                    Some("name the bundle that knows the issuer with --ca-file"),
                )
            })
        })
        .or_else(|| {
            let line = tail.iter().find(|line| is_refusal(line))?;
            Some(by_log(ProblemKind::RefusedByServer, line, ledger, None))
        })
        .or_else(|| name(ledger, tail))
        .or_else(|| unreachable(ledger))
}

fn policy(ledger: &Ledger) -> Option<NetworkProblem> {
    if let Some(host) = ledger.hosts.iter().find(|host| host.verdict == Verdict::RefusedByPolicy) {
        return Some(NetworkProblem {
            kind: ProblemKind::RefusedByPolicy,
            host: Some(host.shown()),
            evidence: host.reason.clone().unwrap_or_default(),
            remedy: host.flag.clone(),
            issuer: None,
        });
    }
    let name = ledger.names.iter().find(|name| name.outcome == NameOutcome::RefusedByPolicy)?;
    Some(NetworkProblem {
        kind: ProblemKind::RefusedByPolicy,
        host: Some(name.name.clone()),
        evidence: "only the hosts that you allowed may be called".to_owned(),
        remedy: Some(format!("--allow {}", name.name)),
        issuer: None,
    })
}

fn last_called(ledger: &Ledger) -> Option<&HostEntry> {
    ledger.hosts.iter().max_by_key(|host| host.last_time)
}

/// A problem that only the log tells; the host is the last one that was called.
fn by_log(kind: ProblemKind, line: &str, ledger: &Ledger, remedy: Option<&str>) -> NetworkProblem {
    NetworkProblem {
        kind,
        host: last_called(ledger).map(HostEntry::shown),
        evidence: line.trim().to_owned(),
        remedy: remedy.map(str::to_owned),
        issuer: None,
    }
}

fn is_refusal(line: &str) -> bool {
    let lower = line.to_lowercase();
    let mut words = lower.split(|character: char| !character.is_ascii_alphanumeric());
    words.any(|word| REFUSALS.contains(&word) || word.strip_prefix('e').is_some_and(|code| REFUSALS.contains(&code)))
        && ANSWERS.iter().any(|answer| lower.contains(answer))
}

fn name(ledger: &Ledger, tail: &[String]) -> Option<NetworkProblem> {
    let says = tail.iter().any(|line| NO_NAME.iter().any(|words| line.to_lowercase().contains(words)));
    let lost = |wanted: NameOutcome| ledger.names.iter().find(move |name| name.outcome == wanted);
    let found = lost(NameOutcome::NotFound).filter(|name| says || tail.iter().any(|line| line.contains(&name.name)));
    let (kind, name, evidence) = match (found, lost(NameOutcome::NoAnswer)) {
        (Some(name), _) => (ProblemKind::NameNotFound, name, "the name servers say that there is no such name"),
        (None, Some(name)) => (ProblemKind::Unreachable, name, "no name server answered"),
        (None, None) => return None,
    };
    Some(NetworkProblem {
        kind,
        host: Some(name.name.clone()),
        evidence: evidence.to_owned(),
        remedy: None,
        issuer: None,
    })
}

fn unreachable(ledger: &Ledger) -> Option<NetworkProblem> {
    let is_lost = |verdict: Verdict| match verdict {
        Verdict::Refused | Verdict::Unreachable | Verdict::Cut => true,
        Verdict::Connected | Verdict::RefusedByPolicy => false,
    };
    let host = ledger.hosts.iter().rev().find(|host| is_lost(host.verdict))?;
    Some(NetworkProblem {
        kind: ProblemKind::Unreachable,
        host: Some(host.shown()),
        evidence: host.reason.clone().unwrap_or_default(),
        remedy: None,
        issuer: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(verdict: Verdict, names: &[(&str, NameOutcome)]) -> Ledger {
        let host = fodder_gateway::HostEntry {
            names: ["example.org".to_owned()].into(),
            address: "192.0.2.1".parse().expect("an address"),
            port: 443,
            verdict,
            reason: Some("because".to_owned()),
            flag: (verdict == Verdict::RefusedByPolicy).then(|| "--allow example.org:443".to_owned()),
            connections: 1,
            bytes_in: 0,
            bytes_out: 0,
            first_time: 0,
            last_time: 0,
        };
        let name = |(name, outcome): &(&str, NameOutcome)| fodder_gateway::NameEntry {
            name: (*name).to_owned(),
            outcome: *outcome,
            addresses: [].into(),
            queries: 1,
        };
        Ledger { hosts: vec![host], names: names.iter().map(name).collect() }
    }

    fn kind(ledger: &Ledger, line: &str) -> Option<ProblemKind> {
        find(ledger, &[line.to_owned()]).map(|problem| problem.kind)
    }

    #[test]
    fn the_kind_is_found_in_what_tools_say() {
        let connected = ledger(Verdict::Connected, &[]);
        for (line, expected) in [
            ("curl: (22) The requested URL returned error: 403", Some(ProblemKind::RefusedByServer)),
            ("2026-01-01 10:00:00 ERROR 403: Forbidden.", Some(ProblemKind::RefusedByServer)),
            ("npm error code E429", Some(ProblemKind::RefusedByServer)),
            ("HTTP status client error (401 Unauthorized) for url", Some(ProblemKind::RefusedByServer)),
            (
                "curl: (60) SSL certificate problem: unable to get local issuer certificate",
                Some(ProblemKind::Certificate),
            ),
            ("invalid peer certificate: UnknownIssuer", Some(ProblemKind::Certificate)),
            ("main.c:403: warning", None),
            ("curl: (22) The requested URL returned error: 404", None),
            ("make: *** [all] Error 2", None),
        ] {
            assert_eq!(kind(&connected, line), expected, "{line}");
        }
        let lost = ledger(Verdict::Connected, &[("gone.example", NameOutcome::NotFound)]);
        assert_eq!(kind(&lost, "curl: (6) Could not resolve host: gone.example"), Some(ProblemKind::NameNotFound));
        // Some tools ask for names that need not exist.
        assert_eq!(kind(&lost, "make: *** [all] Error 2"), None);
        let silent = ledger(Verdict::Connected, &[("x.example", NameOutcome::NoAnswer)]);
        assert_eq!(kind(&silent, "x"), Some(ProblemKind::Unreachable));
        assert_eq!(kind(&ledger(Verdict::Refused, &[]), "x"), Some(ProblemKind::Unreachable));
        let refused = find(&ledger(Verdict::RefusedByPolicy, &[]), &["returned error: 403".to_owned()]);
        let refused = refused.expect("a problem");
        assert_eq!(refused.kind, ProblemKind::RefusedByPolicy);
        assert_eq!(
            (refused.host.as_deref(), refused.remedy.as_deref()),
            (Some("example.org:443"), Some("--allow example.org:443"))
        );
    }
}
