//! An HTTPS server on loopback that does what a bad line or a bad cache does.

use crate::server::certificates;
use rustls::{ServerConnection, StreamOwned};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What is done to an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status instead.
    Status(u16),
    /// The line is cut after so many bytes of the body.
    Cut(usize),
    /// One byte of the body is another.
    Garbled,
    /// So many bytes at a time, and a pause of so many milliseconds.
    Slow(usize, u64),
}

/// A directory, served.
pub struct FaultyServer {
    ca: tempfile::TempDir,
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    /// By the end of the file's name: what happens, and how often.
    faults: Mutex<Vec<(String, Fault, usize)>>,
    requests: Mutex<Vec<String>>,
    knows_ranges: AtomicBool,
    stops: AtomicBool,
}

impl FaultyServer {
    pub fn start(root: &Path) -> Self {
        let (authority, configuration) = certificates();
        let ca = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(ca.path().join("ca.pem"), authority).expect("write the certificate");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            knows_ranges: AtomicBool::new(true),
            stops: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.stops.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), configuration, server) = (stream, Arc::clone(&configuration), Arc::clone(&server))
                else {
                    continue;
                };
                std::thread::spawn(move || {
                    let connection = ServerConnection::new(configuration).expect("a connection");
                    // Whoever hangs up is part of a test.
                    let _ = serve(StreamOwned::new(connection, stream), &server);
                });
            }
        });
        FaultyServer { ca, port, shared }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub fn ca_file(&self) -> String {
        self.ca.path().join("ca.pem").to_str().expect("UTF-8").to_owned()
    }

    /// Does this to files whose names end so, so many times.
    pub fn fault(&self, suffix: &str, fault: Fault, times: usize) {
        self.shared.faults.lock().expect("no panic").push((suffix.to_owned(), fault, times));
    }

    pub fn heal(&self) {
        self.shared.faults.lock().expect("no panic").clear();
    }

    pub fn forget_ranges(&self) {
        self.shared.knows_ranges.store(false, Ordering::Relaxed);
    }

    /// `/path` of every request, with ` RANGE` behind it if it had one.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("no panic").clone()
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: StreamOwned<ServerConnection, TcpStream>, server: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        if !answer(stream.get_mut(), &path, &headers, server)? {
            // Without the closing word of TLS: this is a line that is cut.
            return stream.get_mut().sock.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Returns whether the line still stands.
fn answer(
    output: &mut impl Write,
    path: &str,
    headers: &HashMap<String, String>,
    server: &Shared,
) -> std::io::Result<bool> {
    let range = headers.get("range").filter(|_| server.knows_ranges.load(Ordering::Relaxed));
    let asked = headers.get("range").map(|range| format!(" {range}")).unwrap_or_default();
    server.requests.lock().expect("no panic").push(format!("{path}{asked}"));
    let fault = {
        let mut faults = server.faults.lock().expect("no panic");
        let found = faults.iter_mut().find(|(suffix, _, times)| path.ends_with(suffix.as_str()) && *times > 0);
        found.map(|(_, fault, times)| {
            *times -= 1;
            fault.clone()
        })
    };
    let mut body = Vec::new();
    let found = std::fs::File::open(server.root.join(path.trim_start_matches('/')))
        .and_then(|mut file| file.read_to_end(&mut body))
        .is_ok();
    let status = match fault {
        Some(Fault::Status(status)) => status,
        _ if !found => 404,
        _ => 200,
    };
    if status != 200 {
        write!(output, "HTTP/1.1 {status} Fault\r\nContent-Length: 5\r\n\r\nfault")?;
        output.flush()?;
        return Ok(true);
    }
    if matches!(fault, Some(Fault::Garbled)) {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }
    let total = body.len();
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let start = start.filter(|start| *start < total);
    match start {
        Some(start) => write!(
            output,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n",
            total - 1,
            total - start
        )?,
        None => write!(output, "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: {total}\r\n\r\n")?,
    }
    let body = &body[start.unwrap_or(0)..];
    match fault {
        Some(Fault::Cut(length)) => {
            output.write_all(&body[..length.min(body.len())])?;
            output.flush()?;
            return Ok(false);
        }
        Some(Fault::Slow(length, pause)) => {
            for piece in body.chunks(length) {
                output.write_all(piece)?;
                output.flush()?;
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
        Some(Fault::Status(_) | Fault::Garbled) | None => output.write_all(body)?,
    }
    output.flush()?;
    Ok(true)
}
