//! Answers from a recording. Nobody is called.

use super::{
    bodies::Counter,
    first_bytes::{self, Speech},
    http::{self, Error, HTTP_1, HTTP_2, Late, Outgoing},
    player::Player,
    stream::Counted,
};
use crate::{
    ledger::{Traffic, Verdict},
    record::intercept::Trouble,
    relay::{self, Lingering},
};
use bytes::Bytes;
use fodder_model::recording::{HostKind, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, StatusCode,
    body::{Frame, Incoming},
    header::HeaderName,
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

/// How long a build may be connected and say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is read from a body at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Answers everything that comes over one connection.
pub(crate) async fn answer(
    player: &Arc<Player>,
    inside: TcpStream,
    target: SocketAddr,
    names: &BTreeSet<String>,
    traffic: &Arc<Traffic>,
) -> Result<(), Trouble> {
    let cut = |error: String| (Verdict::Cut, error);
    let name = names.first().cloned().unwrap_or_else(|| target.ip().to_string());
    let kind = player.host(&name, target.port()).map(|host| host.kind);
    if kind == Some(HostKind::Unreachable) {
        relay::reset(inside);
        return Err((Verdict::Refused, "it was not reached either when this was recorded".to_owned()));
    }
    let speech = match kind {
        Some(HostKind::Opaque) => Speech::Other,
        Some(HostKind::Unreachable | HostKind::Http | HostKind::UntrustedHttps | HostKind::Https) | None => {
            match tokio::time::timeout(PATIENCE, first_bytes::listen(&inside)).await {
                Ok(speech) => speech.unwrap_or(Speech::Nothing),
                // The build waits for a server that speaks first, and would wait for ever.
                Err(_) => Speech::Other,
            }
        }
    };
    let lingering = Lingering::new(&inside);
    let authority = format!("{name}:{}", target.port());
    match speech {
        Speech::Nothing => Ok(()),
        Speech::Other => {
            player.miss(format!("a connection to {authority} that is not HTTP; nothing else can be recorded"));
            lingering.reset();
            Err(cut("this is not HTTP, and nothing else can be recorded".to_owned()))
        }
        Speech::Http => {
            let stream = Counted::new(inside, Arc::clone(traffic));
            serve(player, stream, false, false, authority, lingering).await
        }
        Speech::Tls => {
            let stream = Counted::new(inside, Arc::clone(traffic));
            let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await;
            let start = start.map_err(|error| cut(format!("the build's TLS: {error}")))?;
            let hello = start.client_hello();
            let server_name = hello.server_name().map(str::to_owned).unwrap_or_else(|| target.ip().to_string());
            let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
            let host = player.host(&server_name, target.port());
            let known: &[&[u8]] = match host {
                Some(host) if !host.http2 => &[HTTP_1],
                Some(_) | None => &[HTTP_2, HTTP_1],
            };
            let protocols = http::common_protocols(&offered, known);
            let is_trusted = host.is_none_or(|host| host.kind != HostKind::UntrustedHttps);
            let server = player.authority.server(&server_name, is_trusted, &protocols);
            let server = server.map_err(|error| cut(error.to_string()))?;
            let stream = start.into_stream(server).await;
            let stream = stream.map_err(|error| cut(format!("the build ended TLS: {error}")))?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
            let authority = format!("{server_name}:{}", target.port());
            serve(player, stream, is_http2, true, authority, lingering).await
        }
    }
}

async fn serve<S>(
    player: &Arc<Player>,
    stream: S,
    is_http2: bool,
    is_tls: bool,
    authority: String,
    lingering: Lingering,
) -> Result<(), Trouble>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let player = Arc::clone(player);
    let is_old = Arc::new(AtomicBool::new(false));
    let seen_old = Arc::clone(&is_old);
    let served = http::serve(stream, is_http2, move |request| {
        let (player, authority) = (Arc::clone(&player), authority.clone());
        seen_old.fetch_or(http::ends_with_connection(request.version()), Ordering::Relaxed);
        async move { exchange(&player, request, is_tls, &authority).await }
    });
    // How the build ends its side is its own affair.
    if let Err(error) = served.await
        && error.is_user()
    {
        // Where the recorded connection was cut, this one is, and in the same way.
        if is_old.load(Ordering::Relaxed) {
            lingering.reset();
        }
        return Err((Verdict::Cut, http::failed(error).0));
    }
    Ok(())
}

async fn exchange(
    player: &Player,
    request: hyper::Request<Incoming>,
    is_tls: bool,
    authority: &str,
) -> Result<hyper::Response<Outgoing>, Error> {
    let (parts, mut body) = request.into_parts();
    let mut sent = Counter::default();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(http::failed)?.data_ref() {
            sent.add(data);
        }
    }
    let request = http::describe(&parts, is_tls, authority, &player.redactor, sent.body());
    match player.answer(&request) {
        Some(Some(response)) => replay(player, response),
        Some(None) => Err(http::failure("the connection ended without an answer when this was recorded")),
        None => {
            let range = request.headers.iter().find(|(name, _)| name == "range");
            let range = range.map(|(_, range)| format!(" ({range})")).unwrap_or_default();
            let what = format!("{} {}{range}", request.method, request.url);
            let text = format!("fodder: not in the recording: {what}\n");
            player.miss(what);
            // Not one of those that clients try again.
            http::words(StatusCode::FORBIDDEN, text)
        }
    }
}

fn replay(player: &Player, response: &Response) -> Result<hyper::Response<Outgoing>, Error> {
    let Response { status, reason, headers, body, complete, trailers } = response;
    let recorded = if body.size == 0 && *complete && trailers.is_empty() {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    } else {
        let file = File::open(player.body(response)).map_err(http::failed)?;
        let trailers = if trailers.is_empty() { None } else { Some(header_map(trailers)?) };
        Recorded { file, left: body.size, complete: *complete, trailers, late: None }.boxed_unsync()
    };
    let mut answer = hyper::Response::new(recorded);
    *answer.status_mut() = StatusCode::from_u16(*status).map_err(http::failed)?;
    *answer.headers_mut() = header_map(headers)?;
    if let Some(reason) = reason {
        let bytes: Vec<u8> = reason.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
        answer.extensions_mut().insert(hyper::ext::ReasonPhrase::try_from(bytes).map_err(http::failed)?);
    }
    Ok(answer)
}

fn header_map(lines: &[(String, String)]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = http::value(value).ok_or_else(|| http::failure("a header that cannot be sent"))?;
        headers.append(HeaderName::try_from(name.as_str()).map_err(http::failed)?, value);
    }
    Ok(headers)
}

/// A recorded body. Its length is not told: if the recorded head says it, it says it again.
struct Recorded {
    file: File,
    left: u64,
    complete: bool,
    trailers: Option<HeaderMap>,
    late: Option<Late>,
}

impl hyper::body::Body for Recorded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.left == 0 {
            if !self.complete {
                let cut = || Late::new(http::failure("the connection was cut here when this was recorded"));
                return self.late.get_or_insert_with(cut).poll(context);
            }
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(self.left).unwrap_or(PIECE_BYTES))];
        // From the page cache: there is nobody else on this thread whom a disk could keep waiting.
        let length = match self.file.read(&mut piece) {
            Ok(0) => return Poll::Ready(Some(Err(http::failure("the recording has become shorter")))),
            Ok(length) => length,
            Err(error) => return Poll::Ready(Some(Err(http::failed(error)))),
        };
        piece.truncate(length);
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fodder_model::recording::{Host, Recording, VERSION};

    /// Attack: a replay that answers otherwise. Layer: who was not reached is not reached, and that is no mistake.
    #[test]
    fn who_was_not_reached_is_not_reached_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("recording");
        let recording = Recording {
            version: VERSION,
            derivation: "x".to_owned(),
            salt: "00".repeat(16),
            names: [].into(),
            hosts: [("127.0.0.1:9".to_owned(), Host { kind: HostKind::Unreachable, http2: false })].into(),
            loopback_ports: [].into(),
            exchanges: Vec::new(),
            not_recorded: [].into(),
        };
        std::fs::write(&file, recording.write()).unwrap();
        let player = Arc::new(Player::open(&file).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let verdict = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut build = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut build, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut build).await.unwrap();
            let (inside, _) = listener.accept().await.unwrap();
            let target = "127.0.0.1:9".parse().unwrap();
            answer(&player, inside, target, &BTreeSet::new(), &Arc::default()).await
        });
        assert!(matches!(verdict, Err((Verdict::Refused, _))), "{verdict:?}");
        assert_eq!(player.missing(), [""; 0]);
    }
}
