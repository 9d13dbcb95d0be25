//! A real HTTPS server on loopback, with a certificate authority of its own that nobody else knows.

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Bytes,
    header,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::sync::oneshot;

/// What a client that speaks it says during the handshake (RFC 9113, section 3.3).
const HTTP_2: &[u8] = b"h2";

/// Serves the files of a directory until it is dropped. `/redirect/NAME` leads to `/NAME`; what is below `/private/`
/// takes a password.
pub struct Server {
    directory: tempfile::TempDir,
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts one that has no files yet.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (authority, configuration) = certificates();
        let mut configuration = Arc::unwrap_or_clone(configuration);
        configuration.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        std::fs::write(directory.path().join("ca.pem"), authority).expect("write the certificate");
        let root = directory.path().join("files");
        std::fs::create_dir(&root).expect("create a directory");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        listener.set_nonblocking(true).expect("make the socket asynchronous");
        let port = listener.local_addr().expect("an address").port();
        let (stop, stopped) = oneshot::channel();
        let log = Arc::clone(&requests);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(configuration));
                tokio::select! {
                    () = serve(listener, acceptor, root, log) => {}
                    _ = stopped => {}
                }
            });
        });
        Server { directory, port, requests, stop: Some(stop), thread: Some(thread) }
    }

    /// Puts a file there and returns its address.
    pub fn add(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create a directory");
        std::fs::write(path, contents).expect("write a file");
        self.url(name)
    }

    /// Where the files are.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// The address of a file.
    pub fn url(&self, name: &str) -> String {
        format!("https://localhost:{}/{name}", self.port)
    }

    /// The port on this machine's loopback, for `--allow-loopback`.
    pub fn port(&self) -> String {
        self.port.to_string()
    }

    /// The authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// `METHOD /path` of everything that was asked for.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no thread panicked").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The authority in PEM, and what a server that it vouches for needs.
pub fn certificates() -> (String, Arc<rustls::ServerConfig>) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, "fodder test authority");
    // Python 3.13 and later verify strictly, and insist on both of these.
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = parameters.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = Issuer::new(parameters, authority_key);

    let key = KeyPair::generate().expect("a key");
    let mut parameters =
        CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("parameters");
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let configuration = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key in DER"),
        )
        .expect("a certificate and its key");
    (authority, Arc::new(configuration))
}

async fn serve(
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    root: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, root, log) = (acceptor.clone(), root.clone(), Arc::clone(&log));
        tokio::spawn(async move {
            // A client that does not trust us hangs up here; that is a test, not a problem.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(move |request| {
                let answer = answer(&request, &root, &log);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let is_two = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
            let stream = TokioIo::new(stream);
            if is_two {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, answer).await;
            } else {
                let _ = http1::Builder::new().serve_connection(stream, answer).await;
            }
        });
    }
}

fn answer<B>(request: &Request<B>, root: &Path, log: &Mutex<Vec<String>>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    log.lock().expect("no thread panicked").push(format!("{} {path}", request.method()));
    let response = Response::builder();
    // `me` and `s3cret`.
    let is_known = request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == "Basic bWU6czNjcmV0");
    let response = if path.starts_with("/private/") && !is_known {
        response.status(StatusCode::UNAUTHORIZED).body(Full::default())
    } else if let Some(name) = path.strip_prefix("/redirect/") {
        response.status(StatusCode::FOUND).header(header::LOCATION, format!("/{name}")).body(Full::default())
    } else {
        let coding = path.strip_prefix("/encoded/").and_then(|rest| rest.split('/').next());
        let response = match coding {
            Some(coding) => response.header(header::CONTENT_ENCODING, coding),
            None => response,
        };
        match std::fs::read(root.join(path.trim_start_matches('/'))) {
            Ok(contents) => response.body(Full::from(contents)),
            Err(_) => response.status(StatusCode::NOT_FOUND).body(Full::default()),
        }
    };
    response.expect("a response")
}
