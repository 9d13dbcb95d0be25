//! Which recorded answer a request gets.

use super::{Recording, Request, redact::without_digits};
use std::collections::BTreeMap;

/// Request headers that an answer depends on.
const RELEVANT: [&str; 12] = [
    "accept",
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-type",
    "git-protocol",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
];

/// Recorded answers, and which of them were given.
#[derive(Debug)]
pub struct Answers {
    /// By the request, with the marks of its secrets.
    exact: BTreeMap<String, Queue>,
    /// By the request, whatever its secrets: a replay need not know them.
    alike: BTreeMap<String, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    exchanges: Vec<usize>,
    given: usize,
}

impl Queue {
    /// In order, and the last one again and again.
    fn next(&mut self) -> Option<usize> {
        let index = *self.exchanges.get(self.given).or(self.exchanges.last())?;
        self.given += 1;
        Some(index)
    }
}

impl Answers {
    /// All of a recording's.
    pub fn new(recording: &Recording) -> Self {
        let mut answers = Answers { exact: BTreeMap::new(), alike: BTreeMap::new() };
        for (index, exchange) in recording.exchanges.iter().enumerate() {
            let key = key(&exchange.request);
            answers.alike.entry(without_digits(&key)).or_default().exchanges.push(index);
            answers.exact.entry(key).or_default().exchanges.push(index);
        }
        answers
    }

    /// The exchange whose answer this request gets.
    pub fn next(&mut self, request: &Request) -> Option<usize> {
        let key = key(request);
        match self.exact.get_mut(&key) {
            Some(queue) => queue.next(),
            None => self.alike.get_mut(&without_digits(&key))?.next(),
        }
    }
}

/// What must agree. No part of it has a newline.
fn key(request: &Request) -> String {
    let Request { method, url, protocol: _, headers, body } = request;
    let mut key = format!("{method} {url}\n{} {}\n", body.sha256, body.size);
    for relevant in RELEVANT {
        for (name, value) in headers.iter().filter(|(name, _)| name == relevant) {
            key.push_str(&format!("{name}: {value}\n"));
        }
    }
    key
}
