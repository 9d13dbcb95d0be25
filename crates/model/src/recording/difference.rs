//! How two recordings differ, for people who want to know why a download is another one today.

use super::{Body, Recording, Response, redact::without_digits};
use serde::Serialize;
use std::collections::BTreeMap;

/// Headers whose change is worth a word; the others are different every time, or follow from these.
const COMPARED: [&str; 4] = ["content-encoding", "content-range", "content-type", "location"];

/// One address that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `GET`, …
    pub method: String,
    /// The address.
    pub url: String,
    /// Which part of it was asked for.
    pub range: Option<String>,
    /// What happened to it.
    pub change: Change,
    /// What is different, in words.
    pub details: Vec<String>,
}

/// What happened to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was asked for in both, and answered differently.
    Changed,
    /// It was asked for in the second only.
    Appeared,
    /// It was asked for in the first only.
    Vanished,
}

type Asked = (String, String, Option<String>);

/// Everything that is different, by address. That something was asked for more often is no difference.
pub fn differences(first: &Recording, second: &Recording) -> Vec<Difference> {
    let (first, second) = (by_address(first), by_address(second));
    let mut result: Vec<Difference> = Vec::new();
    for (asked, before) in &first {
        match second.get(asked) {
            None => result.push(difference(asked, Change::Vanished, describe(before))),
            Some(after) if before != after => result.push(difference(asked, Change::Changed, compare(before, after))),
            Some(_) => {}
        }
    }
    for (asked, after) in second.iter().filter(|(asked, _)| !first.contains_key(*asked)) {
        result.push(difference(asked, Change::Appeared, describe(after)));
    }
    result.sort_by(|a, b| (&a.url, &a.method, &a.range).cmp(&(&b.url, &b.method, &b.range)));
    result
}

fn difference((url, method, range): &Asked, change: Change, details: Vec<String>) -> Difference {
    Difference { method: method.clone(), url: url.clone(), range: range.clone(), change, details }
}

/// What counts of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    None,
    Some { status: u16, headers: BTreeMap<String, String>, body: Body, complete: bool },
}

impl Answer {
    fn new(response: Option<&Response>) -> Self {
        let Some(Response { status, reason: _, headers, body, complete, trailers: _ }) = response else {
            return Answer::None;
        };
        let compared = headers.iter().filter(|(name, _)| COMPARED.contains(&name.as_str()));
        Answer::Some {
            status: *status,
            headers: compared.map(|(name, value)| (name.clone(), without_digits(value))).collect(),
            body: body.clone(),
            complete: *complete,
        }
    }

    fn words(&self) -> String {
        match self {
            Answer::None => "no answer".to_owned(),
            Answer::Some { status, headers: _, body, complete } => {
                let cut = if *complete { "" } else { ", cut" };
                format!("{status}, {} bytes{cut}, sha256 {}", body.size, body.sha256)
            }
        }
    }
}

fn by_address(recording: &Recording) -> BTreeMap<Asked, Vec<Answer>> {
    let mut result: BTreeMap<Asked, Vec<Answer>> = BTreeMap::new();
    for exchange in &recording.exchanges {
        let request = &exchange.request;
        let range = request.headers.iter().find(|(name, _)| name == "range").map(|(_, value)| value.clone());
        let answers = result.entry((without_digits(&request.url), request.method.clone(), range)).or_default();
        let answer = Answer::new(exchange.response.as_ref());
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    result
}

fn describe(answers: &[Answer]) -> Vec<String> {
    answers.iter().map(Answer::words).collect()
}

fn compare(before: &[Answer], after: &[Answer]) -> Vec<String> {
    let (
        [Answer::Some { status, headers, body, complete }],
        [Answer::Some { status: status_after, headers: headers_after, body: body_after, complete: complete_after }],
    ) = (before, after)
    else {
        return vec![format!("{} → {}", describe(before).join("; "), describe(after).join("; "))];
    };
    let mut details = Vec::new();
    if status != status_after {
        details.push(format!("status: {status} → {status_after}"));
    }
    if body != body_after {
        details.push(format!("body: {} bytes → {} bytes", body.size, body_after.size));
        details.push(format!("sha256: {} → {}", body.sha256, body_after.sha256));
    }
    if complete != complete_after {
        let word = |complete: bool| if complete { "complete" } else { "cut" };
        details.push(format!("end: {} → {}", word(*complete), word(*complete_after)));
    }
    for name in COMPARED {
        let (old, new) = (headers.get(name), headers_after.get(name));
        if old != new {
            let word = |value: Option<&String>| value.map_or("(none)".to_owned(), |value| format!("'{value}'"));
            details.push(format!("{name}: {} → {}", word(old), word(new)));
        }
    }
    details
}
