//! A connection that is recorded: what it speaks is found out, TLS ends here and begins again, requests go through.

use super::{
    first_bytes::{self, Speech},
    forward::{Pending, Upload, download},
    http::{self, Error, HTTP_1, HTTP_2, Outgoing},
    recorder::Recorder,
    stream::Counted,
};
use crate::{
    ledger::{Traffic, Verdict},
    relay, upstream,
    witness::Witness,
};
use fodder_model::{
    proxy::Proxies,
    recording::{Body, HostKind},
};
use hyper::{StatusCode, body::Incoming, client::conn, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

/// Why a connection did not end well.
pub(crate) type Trouble = (Verdict, String);

/// Whom a connection is for.
pub(crate) struct Target<'a> {
    pub(crate) address: SocketAddr,
    /// The names that led there.
    pub(crate) names: &'a BTreeSet<String>,
    /// The name that led there last, or the address.
    pub(crate) host: &'a str,
    pub(crate) proxies: &'a Proxies,
}

/// Passes a connection on, and keeps what it says if that is HTTP.
pub(crate) async fn intercept(
    recorder: &Arc<Recorder>,
    inside: TcpStream,
    outside: TcpStream,
    Target { address: target, names, host: known_as, proxies }: Target<'_>,
    traffic: &Arc<Traffic>,
) -> Result<(), Trouble> {
    let all_names = if names.is_empty() { [known_as.to_owned()].into() } else { names.clone() };
    let mut first = [0; 1];
    // Where the server speaks first, as for ssh, nothing is HTTP.
    let speech = tokio::select! {
        speech = first_bytes::listen(&inside) => speech.unwrap_or(Speech::Nothing),
        _ = outside.peek(&mut first) => Speech::Other,
    };
    let host = |kind| all_names.iter().for_each(|name| recorder.host(name, target.port(), kind, false));
    let far = Far {
        recorder: Arc::clone(recorder),
        target,
        host: known_as.to_owned(),
        proxies: proxies.clone(),
        tls: None,
        is_http2: false,
        authority: format!("{known_as}:{}", target.port()),
        sender: tokio::sync::Mutex::new(None),
        failure: Mutex::default(),
        is_old: AtomicBool::new(false),
    };
    match speech {
        Speech::Nothing | Speech::Other => {
            if speech == Speech::Other {
                host(HostKind::Opaque);
                recorder.cannot_record(format!("{}, which is not HTTP", far.authority));
            }
            relay::pass_on(inside, outside, traffic).await
        }
        Speech::Http => {
            host(HostKind::Http);
            far.connect(outside).await.map_err(|error| (Verdict::Cut, error))?;
            let lingering = relay::Lingering::new(&inside);
            finish(far, Counted::new(inside, Arc::clone(traffic)), lingering).await
        }
        Speech::Tls => end_tls(far, inside, outside, known_as, traffic).await,
    }
}

/// TLS with the real server first; only then is the build answered, in the protocol that the server chose.
async fn end_tls(
    mut far: Far,
    inside: TcpStream,
    outside: TcpStream,
    known_as: &str,
    traffic: &Arc<Traffic>,
) -> Result<(), Trouble> {
    let cut = |error: String| (Verdict::Cut, error);
    let recorder = Arc::clone(&far.recorder);
    let lingering = relay::Lingering::new(&inside);
    let counted = Counted::new(inside, Arc::clone(traffic));
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), counted).await;
    let start = start.map_err(|error| cut(format!("the build's TLS: {error}")))?;
    let hello = start.client_hello();
    let name = hello.server_name().map(str::to_owned).unwrap_or_else(|| far.target.ip().to_string());
    let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    let protocols = http::common_protocols(&offered, &[HTTP_2, HTTP_1]);
    if protocols.is_empty() && !offered.is_empty() {
        recorder.host(&name, far.target.port(), HostKind::Opaque, false);
        recorder.cannot_record(format!("{known_as}:{}, which is not HTTP", far.target.port()));
        lingering.reset();
        return Err(cut("what is spoken inside of TLS is not HTTP, which cannot be recorded".to_owned()));
    }
    let server_name = ServerName::try_from(name.clone()).map_err(|error| cut(error.to_string()))?;
    let witness = Arc::new(Witness::new(recorder.verifier.clone()));
    let mut configuration = witness.configuration().map_err(|error| cut(error.to_string()))?;
    configuration.alpn_protocols = protocols;
    far.tls = Some((Arc::new(configuration), server_name));
    let is_http2 = match far.connect(outside).await {
        Ok(is_http2) => is_http2,
        Err(error) => {
            recorder.host(&name, far.target.port(), HostKind::Unreachable, false);
            lingering.reset();
            return Err(cut(error));
        }
    };
    far.is_http2 = is_http2;
    far.authority = format!("{name}:{}", far.target.port());
    let is_trusted = witness.is_trusted();
    let kind = if is_trusted { HostKind::Https } else { HostKind::UntrustedHttps };
    recorder.host(&name, far.target.port(), kind, is_http2);
    let chosen = match (offered.is_empty(), is_http2) {
        (true, _) => Vec::new(),
        (false, true) => vec![HTTP_2.to_vec()],
        (false, false) => http::common_protocols(&offered, &[HTTP_1]),
    };
    let server = recorder.authority.server(&name, is_trusted, &chosen).map_err(|error| cut(error.to_string()))?;
    let stream = start.into_stream(server).await.map_err(|error| {
        let hint = if is_trusted { "the build" } else { "the real server's certificate is not trusted, and the build" };
        cut(format!("{hint} ended TLS: {error}"))
    })?;
    finish(far, stream, lingering).await
}

async fn finish<S>(far: Far, stream: S, lingering: relay::Lingering) -> Result<(), Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let far = Arc::new(far);
    let answering = Arc::clone(&far);
    let is_http2 = far.is_http2;
    let served = http::serve(stream, is_http2, move |request| {
        let far = Arc::clone(&answering);
        async move { far.exchange(request).await }
    });
    // How the build ends its side is its own affair; a body that did not come to its end is ours.
    if let Err(error) = served.await
        && error.is_user()
    {
        far.fail(&http::failed(error));
    }
    match far.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => Ok(()),
        Some(failure) => {
            // Where the build knows how much must come, a plain end tells it as much, and it keeps what came before.
            if far.is_old.load(Ordering::Relaxed) {
                lingering.reset();
            }
            Err((Verdict::Cut, failure))
        }
    }
}

/// The real server of one connection.
struct Far {
    recorder: Arc<Recorder>,
    target: SocketAddr,
    /// What it is called, for a proxy.
    host: String,
    proxies: Proxies,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    is_http2: bool,
    /// For requests that do not say whom they are for.
    authority: String,
    sender: tokio::sync::Mutex<Option<Sender>>,
    failure: Mutex<Option<String>>,
    /// Whether answers may end where the connection ends.
    is_old: AtomicBool,
}

/// The answer, or the request if it was not sent.
type Sent = Result<hyper::Response<Incoming>, conn::TrySendError<hyper::Request<Upload>>>;

enum Sender {
    One(conn::http1::SendRequest<Upload>),
    Two(conn::http2::SendRequest<Upload>),
}

impl Far {
    /// Begins to speak over a new connection, and says whether that is HTTP/2.
    async fn connect(&self, outside: TcpStream) -> Result<bool, String> {
        let _ = outside.set_nodelay(true);
        let (sender, is_http2) = match &self.tls {
            None => (speak(outside, false).await, false),
            Some((configuration, name)) => {
                let connector = TlsConnector::from(Arc::clone(configuration));
                let stream = connector.connect(name.clone(), outside).await.map_err(|error| format!("TLS: {error}"))?;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
                (speak(stream, is_http2).await, is_http2)
            }
        };
        *self.sender.lock().await = Some(sender.map_err(|error| http::failed(error).0)?);
        Ok(is_http2)
    }

    /// One request and its answer. An error ends the connection, or the stream, without an answer, as the server did.
    async fn exchange(&self, request: hyper::Request<Incoming>) -> Result<hyper::Response<Outgoing>, Error> {
        let (mut parts, body) = request.into_parts();
        let nothing = Body { sha256: String::new(), size: 0 };
        let is_tls = self.tls.is_some();
        let description = http::describe(&parts, is_tls, &self.authority, &self.recorder.redactor, nothing);
        if let Some(why) = http::unsupported(&parts) {
            let what = format!("{} {}", description.method, description.url);
            self.recorder.cannot_record(format!("{what}: {why}"));
            let text = format!("fodder: {what} is refused while a build is recorded: {why}\n");
            return http::words(StatusCode::NOT_IMPLEMENTED, text);
        }
        self.is_old.fetch_or(http::ends_with_connection(parts.version), Ordering::Relaxed);
        let pending = Arc::new(Pending::new(Arc::clone(&self.recorder), description));
        http::remove_hop_by_hop(&mut parts.headers);
        // The answer to that came from here.
        parts.headers.remove(header::EXPECT);
        if !self.is_http2 && !parts.headers.contains_key(header::HOST) {
            let authority = header::HeaderValue::from_str(&self.authority).map_err(http::failed)?;
            parts.headers.insert(header::HOST, authority);
        }
        parts.version = http::version(self.is_http2);
        let request = hyper::Request::from_parts(parts, Upload::new(body, Arc::clone(&pending)));
        match self.send(request).await {
            Ok(response) => Ok(download(response, pending)),
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// Servers end connections between requests whenever they like, so what was not sent is sent over another one.
    async fn send(&self, mut request: hyper::Request<Upload>) -> Result<hyper::Response<Incoming>, Error> {
        loop {
            let mut refused = match self.try_send(request).await? {
                Ok(response) => return Ok(response),
                Err(refused) => refused,
            };
            *self.sender.lock().await = None;
            match refused.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(http::failed(refused.into_error())),
            }
        }
    }

    async fn try_send(&self, request: hyper::Request<Upload>) -> Result<Sent, Error> {
        let mut guard = self.sender.lock().await;
        let is_over = match guard.as_mut() {
            Some(Sender::One(sender)) => sender.ready().await.is_err(),
            Some(Sender::Two(sender)) => sender.ready().await.is_err(),
            None => true,
        };
        if is_over {
            drop(guard);
            let outside = upstream::connect(self.target, &self.host, &self.proxies)
                .await
                .map_err(|failure| Error(failure.reason))?;
            self.connect(outside).await.map_err(Error)?;
            guard = self.sender.lock().await;
        }
        match guard.as_mut() {
            Some(Sender::One(sender)) => Ok(sender.try_send_request(request).await),
            Some(Sender::Two(sender)) => {
                let mut sender = sender.clone();
                drop(guard);
                Ok(sender.try_send_request(request).await)
            }
            None => Err(http::failure("the server ended the connection")),
        }
    }

    fn fail(&self, error: &Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.to_string());
    }
}

async fn speak<S>(stream: S, is_http2: bool) -> Result<Sender, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    if is_http2 {
        let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(Sender::Two(sender))
    } else {
        let (sender, connection) = conn::http1::Builder::new().title_case_headers(true).handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Sender::One(sender))
    }
}
