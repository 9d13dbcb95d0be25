//! Calling the real host, from this machine's own network, through its proxy if it has one.

use crate::ledger::Verdict;
use data_encoding::BASE64;
use fodder_model::proxy::{Proxies, Proxy};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long a host may take to answer. The build's own patience is usually shorter.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer of a proxy that is read.
const ANSWER_LIMIT: usize = 16 * 1024;

/// Why nobody was reached.
pub(crate) struct Failure {
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
}

fn unreachable(reason: impl Into<String>) -> Failure {
    Failure { verdict: Verdict::Unreachable, reason: reason.into() }
}

/// Connects to an address, or has a proxy do it, which is told `host`: the name that led to the address, or the address.
pub(crate) async fn connect(target: SocketAddr, host: &str, proxies: &Proxies) -> Result<TcpStream, Failure> {
    let connecting = async {
        match proxies.of(host, target.port()) {
            // Nobody asks a proxy for the machine that it is asked from.
            Some(proxy) if !target.ip().is_loopback() => through(proxy, host, target.port()).await,
            Some(_) | None => TcpStream::connect(target).await.map_err(|error| failure(&error)),
        }
    };
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(result) => result,
        Err(_) => Err(unreachable(format!("no answer in {} s", PATIENCE.as_secs()))),
    }
}

fn failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        Failure { verdict: Verdict::Refused, reason: "nobody listens there".to_owned() }
    } else {
        unreachable(error.to_string())
    }
}

/// Has a proxy connect to a host (RFC 9110, section 9.3.6).
async fn through(proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, Failure> {
    let shown = format!("the proxy {}:{}", proxy.host, proxy.port);
    let failed = |error: io::Error| unreachable(format!("{shown}: {error}"));
    let mut stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await.map_err(failed)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(credentials) = &proxy.credentials {
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(credentials.as_bytes())));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    // A byte at a time: what follows the head belongs to the build.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == ANSWER_LIMIT {
            return Err(unreachable(format!("{shown} answers without an end")));
        }
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    let line = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    match line.split_ascii_whitespace().nth(1) {
        Some(code) if code.starts_with('2') => Ok(stream),
        Some("502" | "503" | "504") => Err(unreachable(format!("{shown} says: {line}"))),
        Some(_) | None => Err(Failure { verdict: Verdict::Refused, reason: format!("{shown} says: {line}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    /// What comes of asking a proxy that answers so.
    fn asked(answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = [0; 1000];
            let length = stream.read(&mut request).unwrap();
            // It may hang up before it has all.
            let _ = stream.write_all(answer);
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let proxy = Proxy { host: "127.0.0.1".to_owned(), port, credentials: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(through(&proxy, "public.example", 443));
        let request = answering.join().unwrap();
        assert!(request.starts_with("CONNECT public.example:443 HTTP/1.1\r\n"), "{request}");
        result.map(drop).map_err(|failure| failure.reason)
    }

    /// Attack: RES-5 (a proxy that answers without an end). Layer: limit on the answer of a proxy.
    #[test]
    fn a_proxy_is_heard_only_so_long_and_believed_only_when_it_agrees() {
        assert_eq!(asked(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n"), Ok(()));
        for refusal in [&b"HTTP/1.1 403 No\r\n\r\n"[..], b"HTTP/1.1 503 Later\r\n\r\n", b"nonsense\r\n\r\n"] {
            assert!(asked(refusal).unwrap_err().contains("says: "));
        }
        static ENDLESS: [u8; 2 * ANSWER_LIMIT] = [b'x'; 2 * ANSWER_LIMIT];
        assert!(asked(&ENDLESS).unwrap_err().ends_with("answers without an end"));
    }

    #[test]
    fn nobody_asks_a_proxy_for_the_machine_that_it_is_asked_from() {
        let (host, proxy) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        proxy.set_nonblocking(true).unwrap();
        let address = format!("http://{}", proxy.local_addr().unwrap());
        let proxies = Proxies::read(|name| (name == "https_proxy").then(|| address.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(connect(host.local_addr().unwrap(), "a.example", &proxies));
        assert!(connected.is_ok() && proxy.accept().is_err());
    }
}
