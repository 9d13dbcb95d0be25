//! What a build asked for over HTTP(S) and was answered: the format of `.fod-recording` files, what must not get into them, which
//! recorded answer fits a request, and how two recordings differ. Bodies lie elsewhere, by their hash.

mod difference;
mod matching;
mod redact;

pub use difference::{Change, Difference, differences};
pub use matching::Answers;
pub use redact::Redactor;

use crate::json::{self, InputError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The only version there is.
pub const VERSION: u32 = 1;

/// Largest file that is read, in bytes. A large `npm ci`, with two thousand exchanges, makes four megabytes.
pub const SIZE_LIMIT: usize = 256 << 20;

/// Everything that one build exchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recording {
    /// Always [`VERSION`].
    pub version: u32,
    /// What was built.
    pub derivation: String,
    /// What secrets were mixed with before they were hashed.
    pub salt: String,
    /// Names that were asked for, and whether there are such names.
    pub names: BTreeMap<String, bool>,
    /// Who was called, as `host:port`.
    pub hosts: BTreeMap<String, Host>,
    /// Ports of this machine's loopback that were called.
    pub loopback_ports: BTreeSet<u16>,
    /// Requests and answers, in the order of the requests.
    pub exchanges: Vec<Exchange>,
    /// What was exchanged and cannot be recorded.
    pub not_recorded: BTreeSet<String>,
}

/// How a host spoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// The way it was reached.
    pub kind: HostKind,
    /// Whether it speaks HTTP/2, too.
    pub http2: bool,
}

/// The way a host was reached. The greater is the better one, when several were tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKind {
    /// Not at all.
    Unreachable,
    /// In a way that is not HTTP, which is not recorded.
    Opaque,
    /// HTTP without TLS.
    Http,
    /// TLS, with a certificate that nobody vouches for.
    UntrustedHttps,
    /// TLS.
    Https,
}

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// What was answered; `None` when the connection ended without an answer.
    pub response: Option<Response>,
}

/// What was asked. Header names are in lower case; bytes of values that are not ASCII stand as the Latin-1 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// The whole address, without secrets.
    pub url: String,
    /// `HTTP/1.1`, `HTTP/2.0`, …
    pub protocol: String,
    /// In order, without secrets.
    pub headers: Vec<(String, String)>,
    /// Of its body there is only this much.
    pub body: Body,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Response {
    /// `200`, …
    pub status: u16,
    /// The words after it, where they are not the usual ones.
    pub reason: Option<String>,
    /// In order, without secrets.
    pub headers: Vec<(String, String)>,
    /// As it was sent: nothing is decompressed.
    pub body: Body,
    /// Whether that is all of it; if not, the connection was cut there.
    pub complete: bool,
    /// Headers after the body.
    pub trailers: Vec<(String, String)>,
}

/// A body, by its contents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Body {
    /// In hexadecimal.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// Why a text is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is something else, or was changed.
    #[error("this is not a recording")]
    Syntax(#[source] serde_json::Error),
    /// It is no JSON, or JSON that two readers would understand differently.
    #[error("this is not a recording")]
    Text(#[source] InputError),
    /// It is larger than any recording.
    #[error("this is larger than {SIZE_LIMIT} bytes")]
    TooLarge,
    /// It is from another time.
    #[error("this is a recording of version {found}, and only version {VERSION} can be read")]
    Version {
        /// What it says.
        found: u64,
    },
    /// A part of it cannot be.
    #[error("exchange {number} ({url}) has {what}")]
    Exchange {
        /// From 1.
        number: usize,
        /// Which.
        url: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Recording {
    /// Reads one, and refuses what could not have been written.
    pub fn parse(text: &[u8]) -> Result<Self, RecordingError> {
        if text.len() > SIZE_LIMIT {
            return Err(RecordingError::TooLarge);
        }
        let value = json::parse(text).map_err(RecordingError::Text)?.to_serde();
        // The version first: another one's fields are not ours to judge.
        if let Some(found) = value.get("version").and_then(serde_json::Value::as_u64)
            && found != u64::from(VERSION)
        {
            return Err(RecordingError::Version { found });
        }
        let recording: Recording = serde_json::from_value(value).map_err(RecordingError::Syntax)?;
        for (index, exchange) in recording.exchanges.iter().enumerate() {
            if let Err(what) = exchange.check() {
                let url = exchange.request.url.clone();
                return Err(RecordingError::Exchange { number: index + 1, url, what });
            }
        }
        Ok(recording)
    }

    /// The text of the file: JSON that people can read, with a newline at its end.
    pub fn write(&self) -> String {
        // Texts, numbers and maps with texts as keys: nothing that JSON does not have.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Hashes of all bodies that an answer needs.
    pub fn bodies(&self) -> BTreeSet<&Body> {
        self.exchanges.iter().filter_map(|exchange| exchange.response.as_ref()).map(|response| &response.body).collect()
    }
}

impl Exchange {
    /// Hashes become names of files, and headers become lines.
    fn check(&self) -> Result<(), &'static str> {
        let Exchange { request, response } = self;
        let is_hash = |body: &Body| {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            body.sha256.len() == 64 && body.sha256.bytes().all(is_digit)
        };
        let is_line =
            |text: &str| text.chars().all(|c| c == '\t' || (c >= ' ' && c != '\u{7f}' && u32::from(c) <= 0xff));
        let is_token = |text: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !text.is_empty() && text.bytes().all(allowed)
        };
        let are_headers =
            |headers: &[(String, String)]| headers.iter().all(|(name, value)| is_token(name) && is_line(value));
        if !is_token(&request.method) || !is_line(&request.url) || !are_headers(&request.headers) {
            return Err("a request that nobody makes");
        }
        if !is_hash(&request.body) || response.as_ref().is_some_and(|response| !is_hash(&response.body)) {
            return Err("a body whose sha256 is not 64 hexadecimal digits");
        }
        if let Some(Response { status, reason, headers, body: _, complete: _, trailers }) = response {
            if !(200..=999).contains(status) {
                return Err("a status that no answer has");
            }
            if !are_headers(headers) || !are_headers(trailers) || !reason.as_deref().is_none_or(is_line) {
                return Err("a header that no answer has");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
