//! The one door out of a fixed-output build. The build's network namespace leads nowhere; whoever connects out of it reaches sockets
//! that are served here, in the host's namespace: the policy is asked, the real host is called, bytes are copied both ways, and
//! the ledger knows it afterwards.
//!
//! Prints nothing. Runs on a thread of its own, for one build.
#![forbid(unsafe_code)]

mod ledger;
mod names;
mod open_files;
pub mod record;
mod relay;
mod resolvers;
mod upstream;
mod witness;

pub use ledger::{HostEntry, Ledger, NameEntry, NameOutcome, Verdict};
pub use names::is_query;
pub use resolvers::Resolvers;
pub use witness::missing_issuer;

use fodder_model::{network_policy::NetworkPolicy, proxy::Proxies};
use record::Tap;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    sync::Arc,
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, mpsc, watch};

/// How the door is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may be called.
    pub policy: NetworkPolicy,
    /// Addresses of this machine's interfaces.
    pub own_addresses: BTreeSet<IpAddr>,
    /// Whom to ask for names.
    pub resolvers: Resolvers,
    /// Through whom this machine calls.
    pub proxies: Proxies,
    /// Whether this machine reaches anybody over IPv6; if not, names have no such addresses.
    pub has_ipv6: bool,
    /// Where the build asks for names.
    pub name_server: Ipv4Addr,
    /// What is done with what the build says.
    pub tap: Tap,
}

/// A socket of the build's namespace.
#[derive(Debug)]
pub enum Socket {
    /// Everything is redirected to it.
    Redirected(OwnedFd),
    /// It has one port of every address.
    Port(OwnedFd),
    /// Name queries over UDP.
    Names(OwnedFd),
}

/// What the tasks of one door share.
struct Door {
    settings: Settings,
    ledger: ledger::Book,
    /// Addresses that stand for names which only the proxy can find.
    stand_ins: names::StandIns,
    /// A build that connects without end waits instead of taking the runner's memory.
    places: Arc<Semaphore>,
    /// Likewise for names.
    questions: Arc<Semaphore>,
}

impl Door {
    fn new(settings: Settings) -> Self {
        Door {
            settings,
            ledger: ledger::Book::default(),
            stand_ins: Default::default(),
            places: Arc::new(Semaphore::new(relay::CONNECTION_LIMIT)),
            questions: Arc::new(Semaphore::new(names::QUESTION_LIMIT)),
        }
    }
}

/// An open door.
#[derive(Debug)]
pub struct Gateway {
    sockets: mpsc::UnboundedSender<Socket>,
    closing: watch::Sender<bool>,
    thread: JoinHandle<Ledger>,
    _open_files: open_files::Raised,
}

impl Gateway {
    /// Opens the door; nobody can come before it has sockets.
    pub fn open(settings: Settings) -> io::Result<Self> {
        let (sockets, mut arriving) = mpsc::unbounded_channel();
        let (closing, mut closed) = watch::channel(false);
        let open_files = open_files::Raised::raise();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            let door = Arc::new(Door::new(settings));
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        socket = arriving.recv() => match socket {
                            Some(socket) => relay::serve(Arc::clone(&door), socket),
                            None => break,
                        },
                        _ = closed.changed() => break,
                    }
                }
            });
            // Drops every task, and with them every connection.
            runtime.shutdown_background();
            door.ledger.close()
        };
        let thread = std::thread::Builder::new().name("gateway".to_owned()).spawn(serve)?;
        Ok(Gateway { sockets, closing, thread, _open_files: open_files })
    }

    /// Serves a socket of the build's.
    pub fn serve(&self, socket: Socket) {
        // Fails only when the thread is gone; then whoever connects is refused.
        let _ = self.sockets.send(socket);
    }

    /// Closes the door and says who went through it.
    pub fn close(self) -> Ledger {
        let _ = self.closing.send(true);
        match self.thread.join() {
            Ok(ledger) => ledger,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
