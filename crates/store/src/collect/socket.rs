//! The socket of a running collector: processes that begin to use a path while it runs say so here, and go on when they
//! have been heard. A line is a full path, an answer is `1` (`gc.cc`, `addTempRoot`).

use crate::{
    directory::{Directory, random_name},
    error::{At, StoreError},
};
use fodder_model::store_path::StorePath;
use rustix::fs::{AtFlags, Mode};
use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// Longest line that is a path: `/nix/store/`, a hash part, a dash, the longest name, a newline. The rest is garbage.
const LINE_LIMIT: u64 = 4096;

/// What was heard so far.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Hash parts: they stand for a path with its lock file and its directories alike.
    pub(crate) hash_parts: HashSet<String>,
    /// Paths that nobody has looked at yet.
    pub(crate) new: Vec<StorePath>,
}

/// Listens until it is dropped.
pub(crate) struct Ear {
    heard: Arc<Mutex<Heard>>,
    is_over: Arc<AtomicBool>,
    address: PathBuf,
    /// Holds the directory that `address` goes through.
    _directory: Directory,
    server: Option<JoinHandle<()>>,
}

/// Makes sure that something is there to connect to, be it deaf: Nix 2.8 gives up when there is no socket at all, and
/// tries again when nobody answers. A collector that is running already has one, which stays.
pub(crate) fn prepare(state: &Directory) -> Result<(), StoreError> {
    let directory = state.ensure("gc-socket", 0o755)?;
    // In use: there is one.
    let _ = UnixListener::bind(address(&directory, "socket"));
    Ok(())
}

/// A socket's name has 107 bytes at most; the detour through the descriptor is always short enough.
fn address(directory: &Directory, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd()))
}

impl Ear {
    /// To be called by the holder of the collector's lock.
    pub(crate) fn open(state: &Directory) -> Result<Ear, StoreError> {
        let directory = state.ensure("gc-socket", 0o755)?;
        let shown = directory.child("socket");
        // Renamed into place, so that it is missing at no time.
        let temporary = format!(".{}", &random_name()?[..8]);
        let listener = UnixListener::bind(address(&directory, &temporary)).at("create the socket", &shown)?;
        rustix::fs::chmodat(&directory, &temporary, Mode::from_raw_mode(0o666), AtFlags::empty())
            .and_then(|()| rustix::fs::renameat(&directory, &temporary, &directory, "socket"))
            .at("create the socket", &shown)?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let address = address(&directory, "socket");
        let server = std::thread::spawn({
            let (heard, is_over) = (heard.clone(), is_over.clone());
            move || serve(&listener, &heard, &is_over)
        });
        Ok(Ear { heard, is_over, address, _directory: directory, server: Some(server) })
    }

    /// While this is held nobody gets an answer.
    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the server up. The socket's file stays, deaf, as Nix leaves its own.
        let _ = UnixStream::connect(&self.address);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn serve(listener: &UnixListener, heard: &Arc<Mutex<Heard>>, is_over: &AtomicBool) {
    let mut clients: Vec<(UnixStream, JoinHandle<()>)> = Vec::new();
    loop {
        let accepted = listener.accept();
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        clients.retain(|(_, thread)| !thread.is_finished());
        match accepted.and_then(|(stream, _)| Ok((stream.try_clone()?, stream))) {
            Ok((ours, stream)) => {
                let heard = heard.clone();
                clients.push((ours, std::thread::spawn(move || listen(&stream, &heard))));
            }
            // Out of descriptors or a client that went away: whoever was not heard tries again.
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
    for (stream, thread) in clients {
        let _ = stream.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

fn listen(stream: &UnixStream, heard: &Mutex<Heard>) {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match (&mut lines).take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) | Err(_) => return,
        }
        let path = std::str::from_utf8(&line).ok().and_then(|line| StorePath::from_full_path(line.trim_end()).ok());
        // Garbage is answered as well, as by Nix: an unanswered client would wait for ever.
        if let Some(path) = path {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.hash_parts.insert(path.hash_part().to_owned());
            heard.new.push(path);
        }
        if (&mut &*stream).write_all(b"1").is_err() {
            return;
        }
    }
}
