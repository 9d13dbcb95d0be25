//! Names: queries of the build go to this machine's resolvers, and answers are remembered, so that connections are known by name.

use crate::{
    Door,
    ledger::NameOutcome,
    record::{Player, Tap},
    relay::is_six,
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// How long one name server may take before the next is asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the whole list is gone through.
const ROUNDS: usize = 2;

/// Questions at one time; further ones wait in the socket's queue.
pub(crate) const QUESTION_LIMIT: usize = 128;

/// The largest datagram there is.
const DATAGRAM_BYTES: usize = 65_535;

/// For how long a name of this machine's own is good, in seconds.
const OWN_NAME_SECONDS: u32 = 5;

/// How a query came, which is how it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Datagram,
    Stream,
}

/// Answers queries that come as datagrams.
pub(crate) async fn answer_datagrams(door: Arc<Door>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; DATAGRAM_BYTES];
    while let Ok(place) = Arc::clone(&door.questions).acquire_owned().await {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let (door, socket, query) = (Arc::clone(&door), Arc::clone(&socket), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = answer(&door, &query, Transport::Datagram).await {
                let _ = socket.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

/// Answers queries that come over a connection, each with its length before it (RFC 1035, section 4.2.2).
pub(crate) async fn answer_stream(door: &Arc<Door>, mut stream: TcpStream) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(answer) = answer(door, &query, Transport::Stream).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// The answer to a query; `None` for what is no query at all.
async fn answer(door: &Door, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let message = read_query(query)?;
    let [question] = message.queries.as_slice() else { return reply(&message, ResponseCode::FormErr, Vec::new()) };
    if message.metadata.message_type != MessageType::Query || message.metadata.op_code != OpCode::Query {
        return reply(&message, ResponseCode::NotImp, Vec::new());
    }
    let name = question.name().to_ascii();
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let kind = question.query_type();
    if let Tap::Replay(player) = &door.settings.tap {
        return replay(door, player, &message, question, &name);
    }
    if !door.settings.policy.may_ask(&name) {
        door.ledger.name(&name, NameOutcome::RefusedByPolicy, []);
        return reply(&message, ResponseCode::Refused, Vec::new());
    }
    if matches!(kind, RecordType::A | RecordType::AAAA)
        && let Some(addresses) = door.settings.resolvers.hosts.get(&name)
    {
        let records = own_records(door, question, addresses);
        door.ledger.name(&name, NameOutcome::Found, records.iter().filter_map(address_of));
        return reply(&message, ResponseCode::NoError, records);
    }
    if kind == RecordType::AAAA && !door.settings.has_ipv6 {
        return reply(&message, without_ipv6(door, &message, transport).await, Vec::new());
    }
    match ask(door, query, message.metadata.id, transport).await {
        // Behind a proxy, this machine may know no names but its own.
        found if kind == RecordType::A && !is_found(&found) && !door.settings.proxies.is_empty() => {
            let Some(address) = door.stand_ins.of(&name) else {
                door.ledger.name(&name, NameOutcome::NoAnswer, []);
                return reply(&message, ResponseCode::ServFail, Vec::new());
            };
            door.ledger.name(&name, NameOutcome::Found, [address]);
            reply(&message, ResponseCode::NoError, own_records(door, question, &[address]))
        }
        Some((bytes, answer)) => {
            let code = answer.metadata.response_code;
            let outcome = if code == ResponseCode::NoError {
                NameOutcome::Found
            } else if code == ResponseCode::NXDomain {
                NameOutcome::NotFound
            } else {
                NameOutcome::NoAnswer
            };
            door.ledger.name(&name, outcome, answer.answers.iter().filter_map(address_of));
            Some(bytes)
        }
        None => {
            door.ledger.name(&name, NameOutcome::NoAnswer, []);
            reply(&message, ResponseCode::ServFail, Vec::new())
        }
    }
}

/// Whether these bytes are a query that would be answered; for those who attack the reader.
pub fn is_query(bytes: &[u8]) -> bool {
    read_query(bytes).is_some()
}

/// A query, and nothing behind it: it goes on to servers outside as it came, and would take along what nobody has looked at.
fn read_query(bytes: &[u8]) -> Option<Message> {
    let mut decoder = BinDecoder::new(bytes);
    let message = Message::read(&mut decoder).ok()?;
    decoder.is_empty().then_some(message)
}

/// In a replay a name has an address of the replay's own, or it is known that there is no such name.
fn replay(door: &Door, player: &Player, message: &Message, question: &Query, name: &str) -> Option<Vec<u8>> {
    if player.knows_no(name) {
        door.ledger.name(name, NameOutcome::NotFound, []);
        return reply(message, ResponseCode::NXDomain, Vec::new());
    }
    let Some(address) = door.stand_ins.of(name) else {
        door.ledger.name(name, NameOutcome::NoAnswer, []);
        return reply(message, ResponseCode::ServFail, Vec::new());
    };
    door.ledger.name(name, NameOutcome::Found, [address]);
    let is_wanted = question.query_type() == RecordType::A;
    let records = if is_wanted { own_records(door, question, &[address]) } else { Vec::new() };
    reply(message, ResponseCode::NoError, records)
}

fn is_found(answer: &Option<(Vec<u8>, Message)>) -> bool {
    answer.as_ref().is_some_and(|(_, answer)| answer.metadata.response_code == ResponseCode::NoError)
}

/// Addresses of a network that is nobody's (RFC 2544), each for one name.
#[derive(Debug, Default)]
pub(crate) struct StandIns(Mutex<BTreeMap<String, u16>>);

impl StandIns {
    /// `None` when there are no more, which also ends what a build could fill the memory with.
    fn of(&self, name: &str) -> Option<IpAddr> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match names.get(name) {
            Some(number) => *number,
            None => {
                let next = u16::try_from(names.len() + 1).ok()?;
                names.insert(name.to_owned(), next);
                next
            }
        };
        let [high, low] = number.to_be_bytes();
        Some(IpAddr::V4(Ipv4Addr::new(198, 18, high, low)))
    }
}

/// No name has addresses that there is no way to. But a name that is none, or of which nobody knows, is so in both kinds: a C library
/// that heard "no such addresses" for one and "try again" for the other would take it for final.
async fn without_ipv6(door: &Door, message: &Message, transport: Transport) -> ResponseCode {
    if !door.settings.proxies.is_empty() {
        return ResponseCode::NoError;
    }
    let mut four = message.clone();
    for question in &mut four.queries {
        question.set_query_type(RecordType::A);
    }
    let Ok(query) = four.to_vec() else { return ResponseCode::ServFail };
    match ask(door, &query, message.metadata.id, transport).await {
        Some((_, answer)) => answer.metadata.response_code,
        None => ResponseCode::ServFail,
    }
}

fn own_records(door: &Door, question: &Query, addresses: &[IpAddr]) -> Vec<Record> {
    let wants_six = question.query_type() == RecordType::AAAA;
    let fitting = addresses.iter().filter(|address| is_six(address) == wants_six);
    fitting
        .filter(|address| !is_six(address) || door.settings.has_ipv6)
        .map(|address| {
            let data = match address {
                IpAddr::V4(address) => RData::A((*address).into()),
                IpAddr::V6(address) => RData::AAAA((*address).into()),
            };
            Record::from_rdata(question.name().clone(), OWN_NAME_SECONDS, data)
        })
        .collect()
}

fn address_of(record: &Record) -> Option<IpAddr> {
    if let RData::A(address) = &record.data {
        Some(IpAddr::V4(address.0))
    } else if let RData::AAAA(address) = &record.data {
        Some(IpAddr::V6(address.0))
    } else {
        None
    }
}

fn reply(query: &Message, code: ResponseCode, records: Vec<Record>) -> Option<Vec<u8>> {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries = query.queries.clone();
    message.answers = records;
    message.to_vec().ok()
}

/// Asks one server after the other; whoever answers first is believed.
async fn ask(door: &Door, query: &[u8], id: u16, transport: Transport) -> Option<(Vec<u8>, Message)> {
    for _ in 0..ROUNDS {
        for server in &door.settings.resolvers.servers {
            let exchange = async {
                match transport {
                    Transport::Datagram => by_datagram(*server, query, id).await,
                    Transport::Stream => by_stream(*server, query).await,
                }
            };
            let Ok(Ok(bytes)) = tokio::time::timeout(PATIENCE, exchange).await else { continue };
            match Message::from_vec(&bytes) {
                // A server that cannot is no reason not to ask the next.
                Ok(answer) if answer.metadata.response_code == ResponseCode::ServFail => continue,
                Ok(answer) if answer.metadata.id == id => return Some((bytes, answer)),
                Ok(_) | Err(_) => continue,
            }
        }
    }
    None
}

async fn by_datagram(server: SocketAddr, query: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    // From then on only this server is heard.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length].starts_with(&id.to_be_bytes()) {
            return Ok(buffer[..length].to_vec());
        }
    }
}

async fn by_stream(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
