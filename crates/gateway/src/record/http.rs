//! Heads of requests and answers: as they come, as they go on, and as they are written down.

use bytes::Bytes;
use fodder_model::recording::{Body, Redactor, Request};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, StatusCode, Uri, Version,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    http::request,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Sleep,
};

/// Why an exchange came to nothing. A type of its own, since the compiler does not see through boxes of errors in spawned tasks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Error(pub(super) String);

/// With its causes: hyper's own words name none.
pub(super) fn failed(error: impl std::error::Error) -> Error {
    let mut source = error.source();
    let mut words = match source {
        // hyper's words for an error of ours, which follows.
        Some(cause) if error.to_string().starts_with("error from user's") => {
            source = cause.source();
            cause.to_string()
        }
        Some(_) | None => error.to_string(),
    };
    while let Some(cause) = source {
        words.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Error(words)
}

/// How long the end of a body waits for what came before it.
const FLUSH: Duration = Duration::from_millis(100);

/// An error in a body, after everything before it has gone out: hyper forgets what it has not written yet when a body fails.
pub(super) struct Late {
    error: Option<Error>,
    sleep: Pin<Box<Sleep>>,
}

impl Late {
    pub(super) fn new(error: Error) -> Self {
        Late { error: Some(error), sleep: Box::pin(tokio::time::sleep(FLUSH)) }
    }

    pub(super) fn poll<T>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        ready!(self.sleep.as_mut().poll(context));
        Poll::Ready(self.error.take().map(Err))
    }
}

pub(super) fn failure(words: &str) -> Error {
    Error(words.to_owned())
}

/// A body on its way to the build.
pub(super) type Outgoing = UnsyncBoxBody<Bytes, Error>;

/// Headers about one connection; the connection on the other side is another one.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];

pub(super) const HTTP_1: &[u8] = b"http/1.1";
pub(super) const HTTP_2: &[u8] = b"h2";

/// The protocols that both sides of a TLS connection know, in the client's order.
pub(super) fn common_protocols(offered: &[Vec<u8>], known: &[&[u8]]) -> Vec<Vec<u8>> {
    offered.iter().filter(|protocol| known.contains(&protocol.as_slice())).cloned().collect()
}

/// Answers the build's requests on a connection until it ends.
pub(super) async fn serve<S, F, R>(stream: S, is_http2: bool, answer: F) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(hyper::Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Result<hyper::Response<Outgoing>, Error>> + Send + 'static,
{
    let service = hyper::service::service_fn(answer);
    let stream = TokioIo::new(stream);
    // What the server did not say is not said; names of headers are written the same way when they are replayed.
    if is_http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .auto_date_header(false)
            .serve_connection(stream, service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .auto_date_header(false)
            .title_case_headers(true)
            .half_close(true)
            .serve_connection(stream, service)
            .await
    }
}

/// What stands for a request in a recording, its body apart.
pub(super) fn describe(
    parts: &request::Parts,
    is_tls: bool,
    fallback: &str,
    redactor: &Redactor,
    body: Body,
) -> Request {
    let headers = parts.headers.iter().filter(|(name, _)| !is_hop_by_hop(name)).map(|(name, value)| {
        let value = text(value);
        (name.as_str().to_owned(), redactor.request_header(name.as_str(), &value))
    });
    Request {
        method: parts.method.to_string(),
        url: redactor.url(&url(&parts.uri, &parts.headers, is_tls, fallback)),
        protocol: format!("{:?}", parts.version),
        headers: headers.collect(),
        body,
    }
}

/// The whole address. Its authority is what the build asked for, which need not be what it connected to.
fn url(uri: &Uri, headers: &HeaderMap, is_tls: bool, fallback: &str) -> String {
    let scheme = uri.scheme_str().unwrap_or(if is_tls { "https" } else { "http" });
    let host = headers.get(header::HOST).map(text);
    let authority = match uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => host.filter(|host| !host.is_empty()).unwrap_or_else(|| fallback.to_owned()),
    };
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(usual).unwrap_or(&authority);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{scheme}://{authority}{path}")
}

/// Removes what belongs to one connection only: the names above, and those that the connection names itself.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// A value as text: bytes that are not ASCII are Latin-1, so that nothing is lost.
pub(super) fn text(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// And back.
pub(super) fn value(text: &str) -> Option<HeaderValue> {
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<_>>()?;
    HeaderValue::from_bytes(&bytes).ok()
}

/// Whether a request is one that this side of a connection cannot pass on.
pub(super) fn unsupported(parts: &request::Parts) -> Option<&'static str> {
    let upgrade = parts.headers.get(header::UPGRADE).map(text);
    if parts.method == hyper::Method::CONNECT {
        Some("CONNECT is for proxies, behind which nothing can be recorded")
    } else if upgrade.is_some_and(|wanted| !wanted.eq_ignore_ascii_case("h2c")) {
        Some("what a connection is upgraded to is not HTTP and cannot be recorded")
    } else {
        None
    }
}

/// Whether an answer to this request may end where the connection ends, so that a cut must not look like an end.
pub(super) fn ends_with_connection(version: Version) -> bool {
    matches!(version, Version::HTTP_09 | Version::HTTP_10)
}

/// The version that a connection speaks.
pub(super) fn version(is_http2: bool) -> Version {
    if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 }
}

/// An answer of our own.
pub(super) fn words(status: StatusCode, text: String) -> Result<hyper::Response<Outgoing>, Error> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    hyper::Response::builder().status(status).header(header::CONTENT_TYPE, "text/plain").body(body).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = hyper::Request::builder().method(method).uri("http://a.example/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_cannot_be_recorded_is_refused() {
        assert!(unsupported(&parts("CONNECT", &[])).is_some());
        assert!(unsupported(&parts("GET", &[("upgrade", "websocket")])).is_some());
        assert!(unsupported(&parts("GET", &[("upgrade", "h2c")])).is_none());
        assert!(unsupported(&parts("POST", &[])).is_none());
    }

    /// Attack: NET-8 (what one connection says to the next). Layer: headers of one connection stay there.
    #[test]
    fn headers_of_one_connection_do_not_go_on() {
        let headers =
            [("connection", "close, X-Mine"), ("x-mine", "1"), ("transfer-encoding", "chunked"), ("etag", "e")];
        let mut parts = parts("GET", &headers);
        remove_hop_by_hop(&mut parts.headers);
        let left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["etag"]);
    }
}
