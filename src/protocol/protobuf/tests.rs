use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;

use super::*;
use crate::message::{
    BackendError, ChannelName, ClientId, ClientInfo, CloseReason, Epoch, Item, NodeId, Payload,
    PayloadKind, Position, Publication, Publications, Recovery, ServerSubscription, SessionId,
    Tags, Welcome, WorkerId,
};
use crate::protocol::command::{
    Answer, CommandError, Connected, Data, InvalidCommand, Method, Push, SERVER_VERSION, Sent,
    Subscribed, UnsubscribeReason,
};
use crate::protocol::{fossil, json};

/// What github.com/centrifugal/protocol 0.23.1 encodes, by tools/conformance/go/vectors.
const VECTORS: &str = include_str!("vectors.txt");

const CLIENT: ClientId = ClientId {
    node: NodeId::new(3),
    worker: WorkerId(0),
    session: SessionId { index: 1, generation: 2 },
};

fn vectors(kind: &str) -> impl Iterator<Item = (Vec<u8>, &'static str)> {
    let lines = VECTORS.lines().filter_map(move |line| line.strip_prefix(kind)?.strip_prefix(' '));
    lines.map(|line| {
        let (digits, rest) = line.split_once(' ').unwrap_or((line, ""));
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        ((0..digits.len()).step_by(2).map(byte).collect(), rest)
    })
}

/// A method without its data, and the data.
fn parts(method: Method<'_>) -> (Method<'_>, Option<Vec<u8>>) {
    let bytes = |data: Data<'_>| match data {
        Data::Json(json) => json.to_vec(),
        Data::Bytes(bytes) => bytes.to_vec(),
    };
    let none = Data::Json(b"");
    match method {
        Method::Publish(channel, data) => (Method::Publish(channel, none), Some(bytes(data))),
        Method::Send(data) => (Method::Send(None), data.map(bytes)),
        Method::Rpc(procedure, data) => (Method::Rpc(procedure, None), data.map(bytes)),
        Method::Connect(mut connect) => {
            let data = connect.data.take();
            (Method::Connect(connect), data.map(bytes))
        }
        Method::Subscribe(mut subscribe) => {
            let data = subscribe.data.take();
            (Method::Subscribe(subscribe), data.map(bytes))
        }
        method => (method, None),
    }
}

#[test]
fn commands_of_the_go_library_are_the_same_in_both_encodings() {
    assert_eq!(vectors("command").count(), 27);
    for (bytes, text) in vectors("command") {
        let command = decode_command(&bytes).expect(text);
        let expected = json::decode_command(text.as_bytes()).expect(text);
        assert_eq!(command.id, expected.id, "{text}");
        assert_eq!(parts(command.method), parts(expected.method), "{text}");
    }
}

/// All fields of the schema have the numbers and the types that they have there.
#[test]
fn replies_of_the_go_library_lose_nothing() {
    assert_eq!(vectors("reply").count(), 19);
    for (bytes, _) in vectors("reply") {
        let reply = schema::Reply::decode(&*bytes).unwrap();
        assert_eq!(reply.encode_to_vec(), bytes, "{reply:?}");
    }
}

#[test]
fn a_command_that_is_cut_anywhere_or_has_wrong_wire_types_is_invalid() {
    for (bytes, text) in vectors("command") {
        for end in 0..bytes.len() {
            // What ends between two fields is whole.
            if let Ok(command) = decode_command(&bytes[..end]) {
                assert!(
                    end == 0 || command.id != 0 || text.starts_with("{\"id"),
                    "{text} to {end}"
                );
            }
            let mut framed = vec![u8::try_from(bytes.len()).unwrap_or(0x7f)];
            framed.extend_from_slice(&bytes[..end]);
            assert_eq!(next_message(&mut &*framed), Err(InvalidFrame), "{text} to {end}");
        }
    }
    for bytes in [
        // A field that should be a message: a number, 64 bits, 32 bits.
        &b"\x08\x01\x20\x01"[..],
        b"\x08\x01\x21\0\0\0\0\0\0\0\0",
        b"\x08\x01\x25\0\0\0\0",
        // The id as a string; a name that is not UTF-8; field 0; wire types 6 and 7; a group that does not end.
        b"\x0a\x01a",
        b"\x08\x01\x2a\x03\x0a\x01\xff",
        b"\x00\x01",
        b"\x0e",
        b"\x0f",
        b"\xa3\x06",
        // A varint without an end, and one of more than 64 bits.
        b"\x08\xff",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        // A message that is longer than what it is in.
        b"\x08\x01\x2a\x7f\x0a\x01a",
    ] {
        assert_eq!(decode_command(bytes).unwrap_err(), InvalidCommand, "{bytes:x?}");
    }
    // Groups within groups.
    assert!(decode_command(&b"\xa3\x06".repeat(100_000)).is_err());
}

#[test]
fn unknown_fields_are_passed_over() {
    // Numbers of one, two and five bytes; a string, 64 and 32 bits, a number, a group with a field.
    let unknown = b"\x82\x01\x01x\x81\x06\0\0\0\0\0\0\0\0\x85\x06\0\0\0\0\x80\x06\x07\xa3\x06\x08\x01\xa4\x06";
    for (bytes, text) in vectors("command").filter(|(bytes, _)| !bytes.is_empty()) {
        let command = decode_command(&bytes).unwrap();
        for with in [[&bytes, &unknown[..]].concat(), [&unknown[..], &bytes].concat()] {
            let same = decode_command(&with).unwrap();
            assert_eq!((same.id, &same.method), (command.id, &command.method), "{text}");
        }
    }
    assert_eq!(decode_command(unknown).unwrap().method, Method::Pong);
    // Of two methods, the first one of the schema is done.
    let two = schema::Command {
        id: 1,
        ping: Some(schema::Empty {}),
        presence: Some(schema::OfChannel { channel: "a".into() }),
        ..schema::Command::default()
    };
    let method = decode_command(&two.encode_to_vec()).unwrap().method;
    assert_eq!(method, Method::Presence("a".into()));
}

#[test]
fn messages_follow_their_lengths() {
    let mut bytes = &b"\0\0\x01a\x82\0bc\x01"[..];
    for expected in [&b""[..], b"", b"a", b"bc"] {
        assert_eq!(next_message(&mut bytes), Ok(Some(expected)));
    }
    assert_eq!(next_message(&mut bytes), Err(InvalidFrame));
    assert_eq!(next_message(&mut &b""[..]), Ok(None));
    for bad in [&b"\x80"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &[0x80; 11], b"\x02a"] {
        assert_eq!(next_message(&mut &*bad), Err(InvalidFrame), "{bad:x?}");
    }
}

fn publication(offset: u64, bytes: &'static [u8]) -> Arc<Publication> {
    let tags = Tags::new([("event", "tick")]).unwrap();
    Arc::new(Publication {
        channel: ChannelName::new("a").unwrap(),
        position: Position { epoch: Epoch(255), offset },
        payload: Payload { tags, ..Payload::new(PayloadKind::Binary, bytes) },
        info: Some(Arc::new(info())),
        accepted_us: 0,
        excludes: None,
        in_stream: true,
    })
}

fn sent(sent: &Sent<'_>) -> schema::Reply {
    let mut out = b"before".to_vec();
    write_sent(&mut out, sent, |out, list, publications| write_list(out, list, publications));
    let mut rest = &out[6..];
    let message = next_message(&mut rest).unwrap().expect("one message");
    assert!(rest.is_empty(), "and no more");
    schema::Reply::decode(message).unwrap()
}

fn reply(answer: Answer<'_>) -> schema::Reply {
    let reply = sent(&Sent::Reply(300, answer));
    assert_eq!(reply.id, 300);
    reply
}

fn sent_publication(offset: u64, bytes: &'static [u8]) -> schema::Publication {
    let tags = vec![schema::Tag { name: "event".into(), text: "tick".into() }];
    schema::Publication { data: bytes.into(), info: Some(sent_info()), offset, tags, delta: false }
}

fn subscribed(recovered: Option<bool>) -> Subscribed<'static> {
    let position = Position { epoch: Epoch(255), offset: 9 };
    let data = Some(&b"3"[..]);
    Subscribed {
        position,
        is_recoverable: true,
        recovered,
        ttl_seconds: Some(9),
        data,
        delta: false,
    }
}

fn subscribe_result() -> schema::SubscribeResult {
    schema::SubscribeResult {
        expires: true,
        ttl: 9,
        recoverable: true,
        epoch: "000000ff".into(),
        offset: 9,
        positioned: true,
        data: Bytes::from_static(b"3"),
        ..schema::SubscribeResult::default()
    }
}

#[test]
fn replies_with_publications() {
    // The lengths around the list take more than one byte.
    let long: &'static [u8] = &[7; 300];
    let publications: Publications = Arc::new([publication(8, b"\xff\0"), publication(9, long)]);
    let expected = vec![sent_publication(8, b"\xff\0"), sent_publication(9, long)];
    for recovered in [true, false] {
        let answer = Answer::Subscribed(&subscribed(Some(recovered)), &publications);
        let result = schema::SubscribeResult {
            publications: expected.clone(),
            was_recovering: true,
            recovered,
            ..subscribe_result()
        };
        assert_eq!(reply(answer).subscribe, Some(result));
    }
    let answer = reply(Answer::Subscribed(&subscribed(None), &Publications::default()));
    assert_eq!(answer.subscribe, Some(subscribe_result()));
    let position = Position { epoch: Epoch(255), offset: 9 };
    let answer = reply(Answer::History(position, &publications));
    let result =
        schema::HistoryResult { publications: expected, epoch: "000000ff".into(), offset: 9 };
    assert_eq!(answer.history, Some(result));
}

#[test]
fn the_reply_to_connect() {
    let missed = Recovery { publications: [publication(9, b"x")].into(), ..Recovery::of_nothing() };
    let of = |name, recovery| ServerSubscription {
        channel: ChannelName::new(name).unwrap(),
        position: Position { epoch: Epoch(255), offset: 9 },
        recoverable: true,
        recovery,
        delta: false,
        data: None,
    };
    let welcome = Welcome {
        ttl_seconds: Some(u64::MAX),
        data: Some(Bytes::from_static(b"1")),
        subscriptions: vec![of("a", None), of("b", Some(missed))],
    };
    let mut connected = Connected {
        client: CLIENT,
        session: None,
        ping_seconds: 25,
        wants_pong: true,
        welcome: &welcome,
        delta_bytes_max: 100,
    };
    let result = |offset| schema::SubscribeResult {
        recoverable: true,
        epoch: "000000ff".into(),
        offset,
        positioned: true,
        ..schema::SubscribeResult::default()
    };
    let recovered = schema::SubscribeResult {
        publications: vec![sent_publication(9, b"x")],
        was_recovering: true,
        recovered: true,
        ..result(8)
    };
    let sub = |channel: &str, result| schema::ConnectResultSub {
        channel: channel.into(),
        result: Some(result),
    };
    let expected = schema::ConnectResult {
        client: CLIENT.to_string(),
        version: SERVER_VERSION.into(),
        expires: true,
        ttl: u32::MAX,
        data: Bytes::from_static(b"1"),
        subs: vec![sub("a", result(9)), sub("b", recovered)],
        ping: 25,
        pong: true,
        session: CLIENT.to_string(),
        node: String::new(),
    };
    assert_eq!(reply(Answer::Connected(&connected)).connect, Some(expected));
    connected.session = Some("s");
    let result = reply(Answer::Connected(&connected)).connect.unwrap();
    assert_eq!((result.session, result.node), ("s".to_owned(), CLIENT.node.to_string()));
}

#[test]
fn other_replies() {
    let error = |code, message: &str, temporary| {
        Some(schema::Error { code, message: message.into(), temporary })
    };
    let refused = |error, detail| reply(Answer::Refused(error, detail)).error;
    assert_eq!(
        refused(CommandError::BadRequest, Some("why")),
        error(107, "bad request: why", false)
    );
    assert_eq!(refused(CommandError::TooManyRequests, None), error(111, "too many requests", true));
    let rejected = BackendError { code: 1000, message: "m".into(), is_temporary: true };
    assert_eq!(reply(Answer::Rejected(&rejected)).error, error(1000, "m", true));
    let empty = Some(schema::Empty {});
    assert_eq!(reply(Answer::Unsubscribed).unsubscribe, empty);
    assert_eq!(reply(Answer::Published).publish, empty);
    assert_eq!(reply(Answer::Pinged).ping, empty);
    let stats = reply(Answer::PresenceStats { client_count: u64::MAX, user_count: 3 });
    let expected = schema::PresenceStatsResult { num_clients: u32::MAX, num_users: 3 };
    assert_eq!(stats.presence_stats, Some(expected));
    let info = info();
    let client = schema::PresentClient { client: CLIENT.to_string(), info: Some(sent_info()) };
    let expected = schema::PresenceResult { presence: vec![client] };
    assert_eq!(reply(Answer::Presence(&[info])).presence, Some(expected));
    let data = Payload::new(PayloadKind::Text, &b"text"[..]);
    let returned = |data| reply(Answer::Returned(data)).rpc;
    assert_eq!(returned(Some(&data)), Some(schema::Data { data: Bytes::from_static(b"text") }));
    assert_eq!(returned(None), Some(schema::Data::default()));
    let refreshed = reply(Answer::Refreshed { client: CLIENT, ttl_seconds: Some(60) });
    let (client, version) = (CLIENT.to_string(), SERVER_VERSION.into());
    let expected = schema::RefreshResult { client, version, expires: true, ttl: 60 };
    assert_eq!(refreshed.refresh, Some(expected));
    let refreshed = reply(Answer::SubscriptionRefreshed { ttl_seconds: None });
    assert_eq!(refreshed.sub_refresh, Some(schema::SubRefreshResult::default()));
    assert_eq!(sent(&Sent::Ping), schema::Reply::default());
}

fn info() -> ClientInfo {
    let (conn_info, chan_info) = (Some(Bytes::from_static(b"1")), Some(Bytes::from_static(b"2")));
    ClientInfo { client: CLIENT, user: Some("u".into()), conn_info, chan_info }
}

fn sent_info() -> schema::ClientInfo {
    schema::ClientInfo {
        user: "u".into(),
        client: CLIENT.to_string(),
        conn_info: Bytes::from_static(b"1"),
        chan_info: Bytes::from_static(b"2"),
    }
}

#[test]
fn pushes() {
    let channel = ChannelName::new("a").unwrap();
    let push = |push: Push<'_>| {
        let reply = sent(&Sent::Push(&channel, push));
        assert_eq!(reply.id, 0);
        let push = reply.push.expect("a push");
        assert_eq!(push.channel, "a");
        push
    };
    let of_client = Some(schema::OfClient { info: Some(sent_info()) });
    let info = Arc::new(info());
    assert_eq!(push(Push::Item(&Item::Joined(info.clone()))).join, of_client);
    assert_eq!(push(Push::Item(&Item::Left(info))).leave, of_client);
    let expected = Some(sent_publication(8, b"\xff\0"));
    assert_eq!(push(Push::Publication(&publication(8, b"\xff\0"))).publication, expected);
    assert_eq!(
        push(Push::Item(&Item::Publication(publication(8, b"\xff\0")))).publication,
        expected
    );
    assert_eq!(push(Push::Item(&Item::Gap(12))).gap, Some(schema::Gap { dropped: 12 }));
    let ended = push(Push::Unsubscribed(UnsubscribeReason::InsufficientState)).unsubscribe;
    let reason = "insufficient state".into();
    assert_eq!(ended, Some(schema::Unsubscribe { code: 2500, reason }));
    let subscribe = schema::Subscribe {
        recoverable: true,
        epoch: "000000ff".into(),
        offset: 9,
        positioned: true,
        data: Bytes::from_static(b"3"),
    };
    assert_eq!(push(Push::Subscribed(&subscribed(None))).subscribe, Some(subscribe));
    let push = sent(&Sent::Disconnect(&CloseReason::Shutdown.into())).push.expect("a push");
    let disconnect = schema::Disconnect { code: 3001, reason: "shutdown".into() };
    assert_eq!(push.disconnect, Some(disconnect));
}

#[test]
fn in_deltas_data_is_the_payload_or_what_makes_it_of_the_one_before() {
    let of = |bytes: &[u8]| {
        let payload = Payload::new(PayloadKind::Binary, bytes.to_vec());
        Arc::new(Publication {
            channel: ChannelName::new("a").unwrap(),
            position: Position { epoch: Epoch(1), offset: 1 },
            payload: Payload { is_delta_allowed: true, ..payload },
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        })
    };
    let mut changed = [0xff; 100];
    changed[50] = 0;
    let (one, two, three) = (of(&[0xff; 100]), of(&changed), of(b"other"));
    let written = |bytes_max| {
        let mut out = Vec::new();
        let all = [one.clone(), two.clone(), three.clone()];
        write_delta_list(&mut out, List::History, &all, bytes_max);
        let result: schema::HistoryResult = Message::decode(&*out).unwrap();
        result.publications
    };
    let deltas = written(100);
    assert_eq!(deltas.iter().map(|it| it.delta).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!((&deltas[0].data[..], &deltas[2].data[..]), (&[0xff; 100][..], &b"other"[..]));
    let mut expected = Vec::new();
    assert!(fossil::write_delta(&mut expected, &[0xff; 100], &changed));
    assert_eq!(deltas[1].data, expected);
    assert!(written(99).iter().all(|it| !it.delta));
}
