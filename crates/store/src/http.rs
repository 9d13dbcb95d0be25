//! Downloads over HTTP and HTTPS: verified, retried where that can help, continued when a line is cut.
//!
//! No content encoding is asked for. One that a server applies all the same is undone, as in Nix: hashes are over what is meant.

use crate::error::chain;
use reqwest::{NoProxy, Proxy, StatusCode, header, redirect::Policy};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    fs::File,
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

mod body;
pub use body::{HttpBody, OnRetry};

/// Longest wait between two tries, in seconds, whatever a server asks for.
const RETRY_WAIT_LIMIT: u64 = 60;

/// Bytes of an error page that are shown.
const ERROR_BODY_LIMIT: usize = 1000;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Certificates of the authorities to trust, in PEM; nothing else is trusted.
    pub certificates: Vec<u8>,
    /// How often to try, at least once.
    pub attempts: u32,
    /// `http_proxy` and kin.
    pub proxies: Proxies,
}

/// Proxies as environment variables give them; empty means none.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http://`.
    pub http: String,
    /// For `https://`.
    pub https: String,
    /// For both.
    pub all: String,
    /// Hosts to reach without, separated by commas.
    pub except: String,
}

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Only `http://` and `https://` are fetched: a local file would leak into the output.
    #[error("unable to download '{url}': only http:// and https:// are fetched")]
    Scheme {
        /// What was given.
        url: String,
    },
    /// The certificates cannot be read.
    #[error("cannot read the certificate bundle: {reason}")]
    Certificates {
        /// Why.
        reason: String,
    },
    /// The client could not be made.
    #[error("cannot prepare downloads: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
    /// The server said no.
    #[error("unable to download '{url}': HTTP error {status}\n\nresponse body:\n\n{body}")]
    Status {
        /// Of the last redirect.
        url: String,
        /// The code.
        status: u16,
        /// The beginning of what it sent.
        body: String,
    },
    /// No answer, or not all of it.
    #[error("unable to download '{url}': {reason}")]
    Transfer {
        /// What was given.
        url: String,
        /// All causes on one line.
        reason: String,
    },
    /// More bytes than a file of its kind has.
    #[error("'{url}' is larger than {limit} bytes")]
    TooLarge {
        /// What was given.
        url: String,
        /// What is allowed.
        limit: usize,
    },
    /// The file could not be written.
    #[error("cannot write what was downloaded")]
    Write(#[source] std::io::Error),
}

/// One try.
#[derive(Debug)]
enum Attempt {
    /// May go better next time, after so many seconds if the server said so.
    Transient(HttpError, Option<u64>),
    Final(HttpError),
}

/// A client with a runtime of its own.
#[derive(Debug)]
pub struct Http {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    attempts: u32,
}

impl Http {
    /// Makes a client that trusts only the given authorities.
    pub fn new(settings: &HttpSettings) -> Result<Self, HttpError> {
        let client_error = |error: &dyn std::fmt::Display| HttpError::Client { reason: error.to_string() };
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_slice_iter(&settings.certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| HttpError::Certificates { reason: error.to_string() })?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(HttpError::Certificates { reason: "there is no certificate in it".to_owned() });
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| client_error(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("fodder/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::limited(10))
            .connect_timeout(Duration::from_secs(30))
            // Never one for the whole: large files take long.
            .read_timeout(Duration::from_secs(300))
            .no_proxy();
        let Proxies { http, https, all, except } = &settings.proxies;
        let except = NoProxy::from_string(except);
        let proxies = [(http, Proxy::http(http)), (https, Proxy::https(https)), (all, Proxy::all(all))];
        for (address, proxy) in proxies.into_iter().filter(|(address, _)| !address.is_empty()) {
            let proxy = proxy.map_err(|error| client_error(&format!("proxy '{address}': {error}")))?;
            builder = builder.proxy(proxy.no_proxy(except.clone()));
        }
        let client = builder.build().map_err(|error| client_error(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| client_error(&error))?;
        Ok(Http { client, runtime, attempts: settings.attempts.max(1) })
    }

    /// Downloads into an empty file and returns the number of bytes. `on_retry` is told of every try that failed and is
    /// followed by another.
    pub fn download(&self, url: &str, file: &mut File, on_retry: OnRetry<'_>) -> Result<u64, HttpError> {
        let mut contents = self.open(url, None, on_retry)?.decoded()?;
        let mut size = 0;
        let mut piece = vec![0; 64 * 1024];
        loop {
            match contents.read(&mut piece).map_err(|error| body::failure(url, error))? {
                0 => return Ok(size),
                count => {
                    file.write_all(&piece[..count]).map_err(HttpError::Write)?;
                    size += count as u64;
                }
            }
        }
    }

    /// Asks once; `resume` continues where a body was cut. Success is an answer with a body.
    async fn respond(&self, url: &str, resume: Option<&Resume>) -> Result<reqwest::Response, Attempt> {
        let mut request = self.client.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(Resume { offset, validator }) = resume {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            if let Some(validator) = validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            // A certificate that is wrong now is wrong in a second; so is a loop of redirects.
            Err(error) if error.is_redirect() || error.is_builder() || is_certificate(&error) => {
                return Err(Attempt::Final(transfer(url, &error)));
            }
            Err(error) => return Err(Attempt::Transient(transfer(url, &error), None)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let url = response.url().to_string();
        let body = response.chunk().await.ok().flatten().unwrap_or_default();
        let body = String::from_utf8_lossy(&body[..body.len().min(ERROR_BODY_LIMIT)]).into_owned();
        let error = HttpError::Status { url, status: status.as_u16(), body };
        let is_transient =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        Err(if is_transient { Attempt::Transient(error, asked) } else { Attempt::Final(error) })
    }
}

/// Where a body was cut, and what the server said about the version of the file that it was from.
#[derive(Debug)]
struct Resume {
    offset: u64,
    validator: Option<header::HeaderValue>,
}

fn transfer(url: &str, error: &reqwest::Error) -> HttpError {
    HttpError::Transfer { url: url.to_owned(), reason: chain(error) }
}

/// A quarter of a second, doubled with each try and spread out, so that many builds do not come back at the same instant; or what
/// the server asks for.
fn wait_before(number: u32, asked: Option<u64>) -> Duration {
    match asked {
        Some(seconds) => Duration::from_secs(seconds.min(RETRY_WAIT_LIMIT)),
        None => {
            let base = 250u64 << number.min(7);
            let spread = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| u64::from(time.subsec_micros()) % base);
            Duration::from_millis(base / 2 + spread / 2)
        }
    }
}

fn is_certificate(error: &reqwest::Error) -> bool {
    let text = chain(error);
    text.contains("certificate") || text.contains("UnknownIssuer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: RES-6 (a server that asks for a wait without end). Layer: no wait is longer than a minute.
    #[test]
    fn no_server_makes_us_wait_for_long() {
        assert_eq!(wait_before(1, Some(3)), Duration::from_secs(3));
        assert_eq!(wait_before(1, Some(u64::MAX)), Duration::from_secs(RETRY_WAIT_LIMIT));
        assert!((0..40).all(|number| wait_before(number, None) <= Duration::from_secs(RETRY_WAIT_LIMIT)));
    }
}
