//! Questions and answers that are none, and those of somebody else.

use super::*;
use hickory_proto::rr::Name;

/// Attack: PARSE-17 (data behind a query). Layer: queries are nothing but queries.
#[test]
fn nothing_may_follow_a_query() {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("a.example.").unwrap(), RecordType::A));
    let bytes = message.to_vec().unwrap();
    assert_eq!(read_query(&bytes).unwrap().queries, message.queries);
    assert!(read_query(&[&bytes[..], b"x"].concat()).is_none());
    for length in 0..bytes.len() {
        assert!(read_query(&bytes[..length]).is_none(), "{length}");
    }
    // A name that goes round in a circle.
    let mut circle = bytes.clone();
    circle.truncate(12);
    circle.extend(b"\xc0\x0c\0\x01\0\x01");
    assert!(read_query(&circle).is_none());
}

/// Attack: NET-6 (answers of others). Layer: only the server that was asked is heard, and only about what it was asked.
#[test]
fn an_answer_of_somebody_else_or_to_another_question_is_not_heard() {
    let bind = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (server, other) = (bind(), bind());
    let address = server.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        other.send_to(b"\x12\x34 of another", from).unwrap();
        server.send_to(b"\x12\x35 to another question", from).unwrap();
        server.send_to(b"\x12\x34 good", from).unwrap();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(by_datagram(address, b"\x12\x34?", 0x1234)).unwrap();
    answering.join().unwrap();
    assert_eq!(answer, b"\x12\x34 good");
}

fn door(servers: Vec<SocketAddr>) -> Door {
    Door::new(crate::Settings {
        policy: Default::default(),
        own_addresses: Default::default(),
        resolvers: crate::Resolvers { servers, hosts: BTreeMap::new() },
        proxies: Default::default(),
        has_ipv6: false,
        name_server: Ipv4Addr::LOCALHOST,
        tap: Tap::None,
    })
}

fn question() -> Message {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.add_query(Query::query(Name::from_ascii("a.example.").unwrap(), RecordType::A));
    message
}

fn code_of(door: &Door, message: &Message, transport: Transport) -> ResponseCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bytes = runtime.block_on(answer(door, &message.to_vec().unwrap(), transport)).unwrap();
    Message::from_vec(&bytes).unwrap().metadata.response_code
}

/// Attack: PARSE-17 (answers and other messages as questions). Layer: nothing but questions goes on.
#[test]
fn only_questions_go_on() {
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let door = door(vec![server.local_addr().unwrap()]);
    let (mut response, mut update, mut two) = (question(), question(), question());
    response.metadata.message_type = MessageType::Response;
    update.metadata.op_code = OpCode::Update;
    two.add_query(Query::query(Name::from_ascii("b.example.").unwrap(), RecordType::A));
    for (message, code) in
        [(response, ResponseCode::NotImp), (update, ResponseCode::NotImp), (two, ResponseCode::FormErr)]
    {
        assert_eq!(code_of(&door, &message, Transport::Datagram), code);
    }
    assert!(server.recv_from(&mut [0; 100]).is_err(), "nobody was asked");
}

/// A server that answers one question over a stream.
fn over_stream(change: fn(&mut Message)) -> SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).unwrap();
            let mut answer = Message::from_vec(&query).unwrap();
            answer.metadata.message_type = MessageType::Response;
            change(&mut answer);
            let bytes = answer.to_vec().unwrap();
            stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
        }
    });
    address
}

/// Attack: NET-6 (an answer to another question over a stream). Layer: the number of the question.
#[test]
fn the_first_server_that_answers_this_question_is_believed() {
    let cannot = || over_stream(|answer| answer.metadata.response_code = ResponseCode::ServFail);
    let other = || over_stream(|answer| answer.metadata.id = 1);
    let good = over_stream(|answer| answer.metadata.response_code = ResponseCode::NXDomain);
    let code = |servers| code_of(&door(servers), &question(), Transport::Stream);
    assert_eq!(code(vec![cannot(), other(), good]), ResponseCode::NXDomain);
    assert_eq!(code(vec![other()]), ResponseCode::ServFail);
}

/// Attack: PARSE-17 (endless names). Layer: one address a name, and no more.
#[test]
fn names_without_end_end_with_the_addresses() {
    let stand_ins = StandIns::default();
    let found: std::collections::BTreeSet<_> = (0..70_000).map(|number| stand_ins.of(&number.to_string())).collect();
    assert_eq!(found.len(), 65_536);
    assert!(found.contains(&None));
    assert_eq!(stand_ins.of("0"), Some(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1))));
}
