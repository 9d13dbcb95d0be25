//! Servers that answer as they should not: what is taken of it, how often they are asked again, and what is said.

use fodder_store::{Http, HttpError, HttpSettings, OnRetry, Proxies};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

/// Of an authority that vouches for nobody.
pub(crate) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUHsgD/3De/HXsa/xSyp0+OnmT2REwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyMjA4MjIxMVoYDzIxMjYxMDI5MDgy
MjExWjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASjEsrqM+gJuWt0OMyDykHPv/pwgeFvueW/TVHZV99pxpc/UMsWr23UBKToeog1
EMLPW3yqXFnDwFHyoDpydxDGo1MwUTAdBgNVHQ4EFgQU5a/oAmnfBiN6qm7xyuX+
eMXbFt8wHwYDVR0jBBgwFoAU5a/oAmnfBiN6qm7xyuX+eMXbFt8wDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiB3bXELqtbr0YQwCXkPQWIlUxUMpSz8
Z4weW4uuU1/qKgIhANTARfNzAFrYPUhmRLN5e0g77qvK979t2cxVVTr8Xk9p
-----END CERTIFICATE-----
";

pub(crate) fn settings(attempts: u32) -> HttpSettings {
    HttpSettings { certificates: CERTIFICATE.into(), attempts, proxies: Proxies::default() }
}

fn http(attempts: u32) -> Http {
    Http::new(&settings(attempts)).unwrap()
}

pub(crate) fn silent() -> OnRetry<'static> {
    Box::new(|_, _| {})
}

/// Answers one connection after the other with these, then no more. The thread gives the requests.
pub(crate) fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte).unwrap() {
                    // The test has seen enough, and calls once to end this.
                    0 => return requests,
                    _ => request.push(byte[0]),
                }
            }
            requests.push(String::from_utf8(request).unwrap().to_ascii_lowercase());
            // Who has read enough goes away.
            let _ = stream.write_all(answer.as_bytes());
        }
        requests
    });
    (url, thread)
}

/// What the server was asked, where it would have answered more.
fn asked(url: &str, thread: JoinHandle<Vec<String>>) -> Vec<String> {
    let address = url.trim_start_matches("http://").trim_end_matches("/file");
    drop(std::net::TcpStream::connect(address));
    thread.join().unwrap()
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}")
}

/// The whole file, or why not.
fn fetched(answers: &[String], expected: Option<u64>) -> (Result<String, String>, Vec<String>) {
    let (url, thread) = server(answers.to_vec());
    let http = http(2);
    let mut contents = String::new();
    let read = http.open(&url, expected, silent()).map_err(|error| error.to_string());
    let read = read.and_then(|mut body| body.read_to_string(&mut contents).map_err(|error| error.to_string()));
    let result = read.map(|_| contents);
    (result, asked(&url, thread))
}

/// Attack: DRV-1 (files of the host as downloads). Layer: only http and https are fetched.
#[test]
fn nothing_but_http_is_fetched() {
    let http = http(1);
    for url in ["file:///etc/passwd", "ftp://localhost/x", "data:,x", "HTTP//x", ""] {
        assert!(matches!(http.open(url, None, silent()), Err(HttpError::Scheme { .. })), "{url}");
    }
}

#[test]
fn a_bundle_without_certificates_is_none() {
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let settings = HttpSettings { certificates: text.into(), ..settings(1) };
        assert!(matches!(Http::new(&settings), Err(HttpError::Certificates { .. })), "{text}");
    }
}

#[test]
fn a_circle_of_redirects_has_an_end() {
    let mut answers = vec![answer("302 Found\r\nLocation: /file\r\nContent-Length: 0", ""); 20];
    answers.push(answer("200 OK\r\nContent-Length: 1", "x"));
    let (result, requests) = fetched(&answers, None);
    assert!(result.unwrap_err().contains("redirect"));
    assert_eq!(requests.len(), 11);
}

/// Attack: RES-5 (a page of an error without end). Layer: the beginning of it is shown.
#[test]
fn of_the_page_of_an_error_the_beginning_is_shown() {
    let (url, thread) = server(vec![answer("418 No", &"x".repeat(5000))]);
    let error = http(1).open(&url, None, silent()).unwrap_err();
    let HttpError::Status { body, status: 418, .. } = error else { panic!("{error}") };
    assert!(body.starts_with('x') && body.len() <= 1000, "{}", body.len());
    thread.join().unwrap();
}

#[test]
fn a_server_that_fails_is_asked_as_often_as_was_said() {
    let answers = [answer("503 No", ""), answer("503 No", ""), answer("200 OK\r\nContent-Length: 1", "x")];
    let (result, requests) = fetched(&answers, None);
    assert!(result.unwrap_err().contains("503"));
    assert_eq!(requests.len(), 2);
}

/// Attack: RES-5 (a small file without end). Layer: no more is read than it may have.
#[test]
fn a_small_file_is_small() {
    let get = |body: &str, limit| {
        let (url, thread) = server(vec![answer("200 OK", body)]);
        let result = http(1).get(&url, limit, silent());
        thread.join().unwrap();
        result
    };
    assert_eq!(get("0123456789", 10).unwrap().unwrap(), b"0123456789");
    assert!(matches!(get("0123456789", 9), Err(HttpError::TooLarge { limit: 9, .. })));
    // And not read to its end before somebody looks.
    const LARGE: usize = 64 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).unwrap();
        stream.write_all(answer("200 OK", "").as_bytes()).unwrap();
        while counter.load(Ordering::Relaxed) < LARGE {
            let Ok(count) = stream.write(&[b'x'; 64 * 1024]) else { break };
            counter.fetch_add(count, Ordering::Relaxed);
        }
    });
    let client = http(1);
    assert!(matches!(client.get(&url, 1 << 20, silent()), Err(HttpError::TooLarge { .. })));
    drop(client);
    thread.join().unwrap();
    // What the kernel holds between the two is megabytes.
    assert!(sent.load(Ordering::Relaxed) < LARGE, "all of it was taken");
}

/// Attack: PARSE-8 (a file that changes while it is fetched). Layer: what continues a file is of the same file, at the same place.
#[test]
fn what_continues_a_file_is_the_rest_of_it() {
    let first = |headers: &str| answer(&format!("200 OK\r\nContent-Length: 10{headers}"), "01234");
    let rest = |headers: &str| answer(&format!("206 Partial Content\r\nContent-Length: 5{headers}"), "56789");
    let range = "\r\nContent-Range: bytes 5-9/10";
    let (result, requests) = fetched(&[first("\r\nETag: \"a\""), rest(&format!("{range}\r\nETag: \"a\""))], None);
    assert_eq!(result.unwrap(), "0123456789");
    assert!(requests[1].contains("range: bytes=5-\r\n") && requests[1].contains("if-range: \"a\"\r\n"), "{requests:?}");
    let (result, _) = fetched(&[first("\r\nETag: \"a\""), rest(&format!("{range}\r\nETag: \"b\""))], None);
    assert!(result.unwrap_err().contains("the file on the server changed"));
    for range in ["", "\r\nContent-Range: bytes 4-8/10", "\r\nContent-Range: nonsense"] {
        let (result, _) = fetched(&[first(""), rest(range)], None);
        assert!(result.unwrap_err().contains("went on at another place"), "{range}");
    }
    // A weak name is the same for files that differ in a byte, so it is no name.
    let (result, requests) = fetched(&[first("\r\nETag: W/\"a\""), rest(&format!("{range}\r\nETag: W/\"b\""))], None);
    assert_eq!(result.unwrap(), "0123456789");
    assert!(!requests[1].contains("if-range"), "{requests:?}");
    // Who cannot continue sends all of it again, of which the beginning is known.
    let again = answer("200 OK\r\nContent-Length: 10", "0123456789");
    assert_eq!(fetched(&[first(""), again], None).0.unwrap(), "0123456789");
}

/// Attack: PARSE-8 (a file that ends early). Layer: its size, where anybody said it.
#[test]
fn a_body_without_a_length_that_ends_early_is_a_line_that_was_cut() {
    let rest = answer("206 Partial Content\r\nContent-Range: bytes 5-9/10", "56789");
    assert_eq!(fetched(&[answer("200 OK", "01234"), rest], Some(10)).0.unwrap(), "0123456789");
    let (result, _) = fetched(&[answer("200 OK", "01234"), answer("404 Not Found", "")], Some(10));
    assert!(result.unwrap_err().contains("404"));
    assert_eq!(fetched(&[answer("200 OK", "01234")], None).0.unwrap(), "01234");
}

#[test]
fn an_encoding_that_nobody_knows_is_named() {
    let (url, thread) = server(vec![answer("200 OK\r\nContent-Encoding: rot13\r\nContent-Length: 1", "x"); 1]);
    let error = http(1).get(&url, 10, silent()).unwrap_err().to_string();
    assert!(error.contains("encoded it as 'rot13'"), "{error}");
    drop(asked(&url, thread));
}
