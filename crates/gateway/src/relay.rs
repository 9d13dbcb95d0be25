//! Connections out of the build: accepted, judged, called for real, and copied both ways.

use crate::{
    Door, Socket,
    ledger::{Traffic, Verdict},
    names,
    record::{self, Tap},
    upstream::{self, Failure},
};
use fodder_model::network_policy::Call;
use nix::sys::socket::{getsockopt, sockopt};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UdpSocket,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, SemaphorePermit},
};

/// Size of a connection's first copies: most connections are small, and there may be thousands.
const FIRST_COPY_BYTES: usize = 16 * 1024;

/// Size that the copies of a busy connection grow to.
const LARGEST_COPY_BYTES: usize = 512 * 1024;

/// Copies of that size at one time, in all builds of this process: others stay small, so that a build with thousands of busy
/// connections does not take the runner's memory.
static LARGE_COPIES: Semaphore = Semaphore::const_new(64);

/// Connections at one time; further ones wait until they are accepted. The most that any fetcher was seen to have are some hundreds.
pub(crate) const CONNECTION_LIMIT: usize = 2048;

/// How long to wait when no connection can be accepted, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How destinations are found out.
#[derive(Clone, Copy)]
enum Destination {
    Original,
    Local,
}

/// Serves one socket until the door is closed.
pub(crate) fn serve(door: Arc<Door>, socket: Socket) {
    match socket {
        Socket::Redirected(socket) => listen(door, socket, Destination::Original),
        Socket::Port(socket) => listen(door, socket, Destination::Local),
        Socket::Names(socket) => {
            let socket = std::net::UdpSocket::from(socket);
            if let Ok(socket) = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket)) {
                tokio::spawn(names::answer_datagrams(door, socket));
            }
        }
    }
}

fn listen(door: Arc<Door>, socket: OwnedFd, destination: Destination) {
    let listener = std::net::TcpListener::from(socket);
    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    // Without a listener connections are reset, which is what should happen then.
    let Ok(listener) = listener else { return };
    tokio::spawn(async move {
        while let Ok(place) = Arc::clone(&door.places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let door = Arc::clone(&door);
                    tokio::spawn(async move {
                        match original(&stream, destination) {
                            Ok(target) => connect(&door, stream, target).await,
                            Err(_) => reset(stream),
                        }
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    });
}

/// Where a connection was meant to go.
fn original(stream: &TcpStream, destination: Destination) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    match (destination, local) {
        (Destination::Local, _) => Ok(local),
        (Destination::Original, SocketAddr::V4(_)) => {
            let address = getsockopt(stream, sockopt::OriginalDst)?;
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            Ok(SocketAddr::new(ip.into(), u16::from_be(address.sin_port)))
        }
        (Destination::Original, SocketAddr::V6(_)) => {
            let address = getsockopt(stream, sockopt::Ip6tOriginalDst)?;
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Ok(SocketAddr::new(ip.into(), u16::from_be(address.sin6_port)))
        }
    }
}

async fn connect(door: &Arc<Door>, inside: TcpStream, target: SocketAddr) {
    if target == SocketAddr::new(door.settings.name_server.into(), 53) {
        names::answer_stream(door, inside).await;
        return;
    }
    let (entry, traffic) = door.ledger.begin(target.ip(), target.port());
    let names = door.ledger.names_of(target.ip());
    // Small requests and answers are not to wait for more.
    let _ = inside.set_nodelay(true);
    if let Tap::Replay(player) = &door.settings.tap {
        match record::answer(player, inside, target, &names, &traffic).await {
            Ok(()) => door.ledger.end(entry, Verdict::Connected, None, None),
            Err((verdict, reason)) => door.ledger.end(entry, verdict, Some(reason), None),
        }
        return;
    }
    if let Tap::Record(recorder) = &door.settings.tap {
        recorder.calls(target);
    }
    let call = Call { address: target.ip(), port: target.port(), names: &names };
    let decision = door.settings.policy.decide(&call, &door.settings.own_addresses);
    // There may be thousands of names and of connections: only a recording keeps them for as long as the connection lasts.
    let names = if let Tap::Record(_) = &door.settings.tap { names } else { BTreeSet::new() };
    let unreachable = || match &door.settings.tap {
        Tap::Record(recorder) => recorder.unreachable(target, &names),
        Tap::None | Tap::Replay(_) => {}
    };
    if let Err(refusal) = decision {
        door.ledger.end(entry, Verdict::RefusedByPolicy, Some(refusal.reason), refusal.flag);
        unreachable();
        reset(inside);
        return;
    }
    let host = door.ledger.latest_name(target.ip());
    let outside = match upstream::connect(target, &host, &door.settings.proxies).await {
        Ok(outside) => outside,
        Err(Failure { verdict, reason }) => {
            door.ledger.end(entry, verdict, Some(reason), None);
            unreachable();
            reset(inside);
            return;
        }
    };
    let _ = outside.set_nodelay(true);
    let result = match &door.settings.tap {
        Tap::Record(recorder) => {
            let far = record::Target { address: target, names: &names, host: &host, proxies: &door.settings.proxies };
            record::intercept(recorder, inside, outside, far, &traffic).await
        }
        Tap::None | Tap::Replay(_) => pass_on(inside, outside, &traffic).await,
    };
    match result {
        Ok(()) => door.ledger.end(entry, Verdict::Connected, None, None),
        Err((verdict, reason)) => door.ledger.end(entry, verdict, Some(reason), None),
    }
}

/// Copies until both sides have ended, whatever it is.
pub(crate) async fn pass_on(inside: TcpStream, outside: TcpStream, traffic: &Traffic) -> Result<(), (Verdict, String)> {
    match copy_both(inside, outside, traffic).await {
        // A build that hangs up had what it wanted.
        Ok(()) | Err(Cut { side: Side::Inside, .. }) => Ok(()),
        Err(Cut { side: Side::Outside, error }) => Err((Verdict::Cut, error.to_string())),
    }
}

/// Who cut a line.
enum Side {
    Inside,
    Outside,
}

struct Cut {
    side: Side,
    error: io::Error,
}

/// Copies until both sides have ended. An end of one side is passed on and the other side goes on; a cut is passed on as a cut, so
/// that half of a file is not taken for all of it.
async fn copy_both(mut inside: TcpStream, mut outside: TcpStream, traffic: &Traffic) -> Result<(), Cut> {
    let (read_inside, write_inside) = inside.split();
    let (read_outside, write_outside) = outside.split();
    let result = tokio::try_join!(
        copy(read_inside, write_outside, &traffic.sent, (Side::Inside, Side::Outside)),
        copy(read_outside, write_inside, &traffic.received, (Side::Outside, Side::Inside))
    );
    if result.is_err() {
        reset(inside);
        reset(outside);
    }
    result.map(drop)
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    count: &AtomicU64,
    (source, destination): (Side, Side),
) -> Result<(), Cut> {
    let mut copy = Copy::new();
    loop {
        let buffer = &mut copy.buffer;
        let length = match from.read(buffer).await {
            Ok(length) => length,
            Err(error) => return Err(Cut { side: source, error }),
        };
        if length == 0 {
            // The other side may have gone already.
            return match to.shutdown().await {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Cut { side: destination, error }),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        if let Err(error) = to.write_all(&buffer[..length]).await {
            return Err(Cut { side: destination, error });
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
        if length == buffer.len() {
            copy.grow();
        }
    }
}

/// What is read before it is written.
struct Copy {
    buffer: Vec<u8>,
    place: Option<SemaphorePermit<'static>>,
}

impl Copy {
    fn new() -> Self {
        Copy { buffer: vec![0; FIRST_COPY_BYTES], place: None }
    }

    /// After it was full, if there is a place for a large one.
    fn grow(&mut self) {
        if self.place.is_none() {
            self.place = LARGE_COPIES.try_acquire().ok();
        }
        if self.place.is_some() {
            self.buffer.resize((self.buffer.len() * 4).min(LARGEST_COPY_BYTES), 0);
        }
    }
}

/// Ends a connection so that the other side sees an error at once.
pub(crate) fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// A connection that somebody else owns, and that may have to end in a way that nobody takes for its end.
pub(crate) struct Lingering(Option<OwnedFd>);

impl Lingering {
    pub(crate) fn new(stream: &TcpStream) -> Self {
        Lingering(stream.as_fd().try_clone_to_owned().ok())
    }

    /// From now on, closing it cuts it.
    pub(crate) fn reset(self) {
        if let Some(socket) = self.0 {
            let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        }
    }
}

/// Whether an address is of the newer kind.
pub(crate) fn is_six(address: &IpAddr) -> bool {
    address.is_ipv6()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: RES-5 (connections and questions without end). Layer: each has a place, and waits until there is one.
    #[test]
    fn who_has_no_place_waits() {
        let mut door = Door::new(crate::Settings {
            policy: Default::default(),
            own_addresses: Default::default(),
            resolvers: crate::Resolvers { servers: Vec::new(), hosts: Default::default() },
            proxies: Default::default(),
            has_ipv6: false,
            name_server: Ipv4Addr::LOCALHOST,
            tap: Tap::None,
        });
        (door.places, door.questions) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let door = Arc::new(door);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let taken = Arc::clone(&door.places).acquire_owned().await.unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            serve(Arc::clone(&door), Socket::Port(listener.into()));
            let mut inside = TcpStream::connect(address).await.unwrap();
            // Nobody may call there, so that whoever is heard is cut off at once.
            let mut byte = [0];
            let heard = tokio::time::timeout(Duration::from_millis(200), inside.read(&mut byte)).await;
            assert!(heard.is_err(), "it was served without a place: {heard:?}");
            drop(taken);
            assert_eq!(inside.read(&mut byte).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            // Whoever listens for questions has a place for the first one.
            let names = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            serve(Arc::clone(&door), Socket::Names(names.into()));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!((door.places.available_permits(), door.questions.available_permits()), (0, 0));
        });
    }

    /// Attack: RES-5 (thousands of busy connections). Layer: few copies are large.
    #[test]
    fn copies_of_many_connections_stay_small() {
        let mut copies: Vec<Copy> = (0..2 * CONNECTION_LIMIT).map(|_| Copy::new()).collect();
        for _ in 0..10 {
            copies.iter_mut().for_each(Copy::grow);
        }
        let bytes: usize = copies.iter().map(|copy| copy.buffer.len()).sum();
        assert!(bytes < 128 << 20, "{bytes}");
        drop(copies);
        let mut one = Copy::new();
        for _ in 0..10 {
            one.grow();
        }
        assert_eq!(one.buffer.len(), LARGEST_COPY_BYTES, "places are given back");
    }
}
