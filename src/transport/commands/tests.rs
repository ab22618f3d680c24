use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::{Config, Framing};
use crate::message::{
    ClientId, Epoch, Item, NodeId, Publication, SessionId, SessionRequest, SubscriptionWish,
    WorkerId,
};
use crate::protocol::length_prefix::write_length_prefixed;
use crate::protocol::line::write_line;
use crate::protocol::websocket::{Inflater, OpCode, write_masked_frame};
use crate::transport::answers::Answers;
use crate::transport::command_form::{CommandEncoding, CommandFraming};
use crate::transport::commands_tcp::CommandConversation;
use crate::transport::context::Flow;
use crate::transport::contract::Transport;
use crate::transport::prepared::{Encoder, Prepared};
use crate::transport::settings::TransportSettings;
use crate::transport::websocket::{WebSocketConversation, WebSocketService};

const LINES: CommandForm = CommandForm::json(CommandFraming::Line);

const WEB_SOCKET: CommandForm = CommandForm::json(CommandFraming::WebSocket);

mod pipelined;

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// JSON data of a client.
fn json_data(text: &'static str) -> Option<Payload> {
    Some(Payload::new(PayloadKind::Json, text))
}

/// A client over lines, whatever its framing would be.
struct Client {
    commands: Commands,
    settings: TransportSettings,
    answers: Answers,
    inflater: Inflater,
}

impl Client {
    fn new() -> Self {
        let settings = TransportSettings::new(&Config::default());
        Self {
            commands: Commands::default(),
            settings,
            answers: Answers::default(),
            inflater: Inflater::default(),
        }
    }

    /// What a step says, and what it asks of the worker.
    fn step(
        &mut self,
        step: impl FnOnce(&mut Commands, &mut Context<'_>),
    ) -> (Vec<u8>, Vec<Output>) {
        let (mut out, mut outputs) = (Vec::new(), Vec::new());
        let session = SessionId { index: 1, generation: 2 };
        let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
        let kept = (&mut self.answers, &mut self.inflater);
        let mut context = Context::new(client, &self.settings, kept, &mut out, &mut outputs);
        step(&mut self.commands, &mut context);
        (out, outputs)
    }

    fn replied(&mut self, id: u32, reply: &Reply) -> Vec<Value> {
        let (out, outputs) = self.step(|commands, context| {
            let origin = Ticket::new(id).map_or(Origin::Server, Origin::Client);
            commands.reply(origin, reply, LINES, context).unwrap();
        });
        assert!(outputs.is_empty());
        let lines = out.strip_suffix(b"\n").unwrap_or_default().split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn connect(&mut self) {
        let asked = self.asks(&json!({"id": 1, "connect": {}}));
        assert!(matches!(only_request(asked, 1), Request::Connect(_)));
        let (_, outputs) = self.step(|commands, context| {
            let origin = Origin::Client(Ticket::FIRST);
            commands.reply(origin, &connected(), LINES, context).unwrap();
        });
        assert!(matches!(outputs[..], [Output::Deadline(_)]));
    }

    fn asks(&mut self, command: &Value) -> Vec<Output> {
        let bytes = command.to_string().into_bytes();
        self.step(|commands, context| {
            commands.take(&bytes, None, LINES, context).unwrap();
        })
        .1
    }
}

fn connected() -> Reply {
    Reply::Connected(Box::default())
}

fn publications(offsets: std::ops::RangeInclusive<u64>) -> Publications {
    let one = |offset| Publication {
        channel: ChannelName::new("a").unwrap(),
        position: Position { epoch: Epoch(1), offset },
        payload: Payload::new(PayloadKind::Json, offset.to_string()),
        info: None,
        accepted_us: 0,
        excludes: None,
        in_stream: true,
    };
    offsets.map(one).map(Arc::new).collect()
}

fn subscribed(recovery: Option<Recovery>) -> Reply {
    Reply::Subscribed {
        channel: ChannelName::new("a").unwrap(),
        position: Position { epoch: Epoch(1), offset: 9 },
        recoverable: true,
        recovery,
        delta: false,
        options: None,
    }
}

fn items(offsets: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    offsets.map(|offset| json!({"data": offset, "offset": offset})).collect()
}

#[test]
fn a_recovery_begins_where_the_client_was() {
    let mut client = Client::new();
    let replies = client.replied(7, &subscribed(None));
    let body = json!({"recoverable": true, "positioned": true, "epoch": "00000001", "offset": 9});
    assert_eq!(replies, [json!({"id": 7, "subscribe": body})]);
    let recover = |is_complete, publications| {
        subscribed(Some(Recovery { is_complete, publications, has_more: false }))
    };
    let replies = client.replied(7, &recover(true, publications(5..=9)));
    let mut body = json!({
        "recoverable": true, "positioned": true, "epoch": "00000001", "offset": 4,
        "was_recovering": true, "recovered": true, "publications": items(5..=9),
    });
    assert_eq!(replies, [json!({"id": 7, "subscribe": body})]);
    // No publications were missed; or the missed publications are gone.
    body["offset"] = json!(9);
    body["publications"] = json!([]);
    assert_eq!(
        client.replied(7, &recover(true, Publications::default())),
        [json!({"id": 7, "subscribe": body})]
    );
    body["recovered"] = json!(false);
    for kept in [Publications::default(), publications(8..=9)] {
        let replies = client.replied(7, &recover(false, kept));
        assert_eq!(replies, [json!({"id": 7, "subscribe": body})], "it starts anew");
    }
}

/// Centrifuge's clients subscribe again by themselves, from the last publication that they were given.
#[test]
fn a_long_recovery_comes_in_parts() {
    let mut client = Client::new();
    let publications = publications(5..=7);
    let part = Recovery { is_complete: true, publications, has_more: true };
    let replies = client.replied(7, &subscribed(Some(part)));
    assert_eq!(replies[0]["subscribe"]["publications"], json!(items(5..=7)));
    assert_eq!(replies[0]["subscribe"]["recovered"], true);
    let push =
        json!({"channel": "a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}});
    assert_eq!(replies[1..], [json!({"push": push})]);
}

#[test]
fn actions_of_the_server_api_are_pushed() {
    let mut client = Client::new();
    let recovery =
        Recovery { is_complete: true, publications: publications(8..=9), has_more: false };
    let replies = client.replied(0, &subscribed(Some(recovery)));
    let body = json!({"recoverable": true, "positioned": true, "epoch": "00000001", "offset": 7});
    assert_eq!(replies[0], json!({"push": {"channel": "a", "subscribe": body}}));
    for (push, item) in replies[1..].iter().zip(items(8..=9)) {
        assert_eq!(*push, json!({"push": {"channel": "a", "pub": item}}));
    }
    assert_eq!(replies.len(), 3);
    let replies =
        client.replied(0, &Reply::Unsubscribed { channel: ChannelName::new("a").unwrap() });
    let body = json!({"code": 2000, "reason": "server unsubscribe"});
    assert_eq!(replies, [json!({"push": {"channel": "a", "unsubscribe": body}})]);
    let replies =
        client.replied(0, &Reply::SubscriptionExpired { channel: ChannelName::new("a").unwrap() });
    let body = json!({"code": 2501, "reason": "subscription expired"});
    assert_eq!(replies, [json!({"push": {"channel": "a", "unsubscribe": body}})]);
}

#[test]
fn every_reply_of_the_hub_is_written() {
    let mut client = Client::new();
    let position = Position { epoch: Epoch(1), offset: 9 };
    let history = Reply::History { position, publications: publications(2..=4) };
    let body = json!({"publications": items(2..=4), "epoch": "00000001", "offset": 9});
    assert_eq!(client.replied(5, &history), [json!({"id": 5, "history": body})]);
    let presence = Reply::Presence { clients: Vec::new(), client_count: 0 };
    assert_eq!(client.replied(5, &presence), [json!({"id": 5, "presence": {"presence": {}}})]);
    let stats = Reply::PresenceStats { client_count: 3, user_count: 2 };
    let body = json!({"num_clients": 3, "num_users": 2});
    assert_eq!(client.replied(5, &stats), [json!({"id": 5, "presence_stats": body})]);
    assert_eq!(
        client.replied(5, &Reply::Published { position }),
        [json!({"id": 5, "publish": {}})]
    );
    assert_eq!(
        client.replied(5, &Reply::Refused(Refusal::NotSubscribed)),
        [json!({"id": 5, "unsubscribe": {}})]
    );
    for (refusal, code) in [
        (Refusal::AlreadySubscribed, 105),
        (Refusal::SubscriptionsExhausted, 106),
        (Refusal::Withdrawn, 107),
        (Refusal::NamespaceUnknown, 102),
        (Refusal::ChannelInvalid, 107),
        (Refusal::PermissionDenied, 103),
        (Refusal::NotAvailable, 108),
        (Refusal::PositionUnrecoverable, 112),
        (Refusal::Overloaded, 111),
    ] {
        let replies = client.replied(5, &Reply::Refused(refusal));
        assert_eq!((&replies[0]["id"], &replies[0]["error"]["code"]), (&json!(5), &json!(code)));
        // The server API wanted it: the client did not.
        assert_eq!(client.replied(0, &Reply::Refused(refusal)), [] as [Value; 0]);
    }
}

/// The one request of a client, which has its number and its rights.
#[track_caller]
fn only_request(mut asked: Vec<Output>, id: u32) -> Request {
    let (Some(Output::Request(SessionRequest { origin, by, request })), []) =
        (asked.pop(), &asked[..])
    else {
        panic!("{asked:?}")
    };
    assert_eq!((origin, by), (Ticket::new(id).map(Origin::Client), Actor::Client));
    request
}

#[test]
fn commands_become_requests_of_the_client() {
    let mut client = Client::new();
    assert!(client.asks(&json!({"id": 1, "history": {"channel": "a"}})).is_empty());
    client.connect();
    let asked = client.asks(&json!({"id": 3, "presence": {"channel": "a"}}));
    let Request::Presence { list_max, .. } = only_request(asked, 3) else { panic!() };
    assert_eq!(list_max, PRESENCE_LIST_MAX);
    let asked = client.asks(&json!({"id": 4, "presence_stats": {"channel": "a"}}));
    assert!(matches!(only_request(asked, 4), Request::Presence { list_max: 0, .. }));
    let asked = client.asks(&json!({"id": 5, "history": {"channel": "a", "limit": 2}}));
    let Request::History { query, .. } = only_request(asked, 5) else { panic!() };
    assert_eq!(query.limit, Some(2));
    let recover = json!({"channel": "a", "recover": true, "offset": 3, "epoch": "00000001"});
    let asked = client.asks(&json!({"id": 6, "subscribe": recover}));
    let Request::Subscribe { since: Some(since), .. } = only_request(asked, 6) else { panic!() };
    assert_eq!(since, Position { epoch: Epoch(1), offset: 3 });
    let asked = client.asks(&json!({"id": 7, "rpc": {"method": "x", "data": {"a": 1}}}));
    let Request::Call { procedure, data } = only_request(asked, 7) else { panic!() };
    assert_eq!((&*procedure, data), ("x", json_data("{\"a\":1}")));
    let asked = client.asks(&json!({"send": {"data": 1}}));
    let Request::Call { procedure, data } = only_request(asked, 0) else { panic!() };
    assert_eq!((&*procedure, data), ("", json_data("1")));
    let asked = client.asks(&json!({"id": 7, "refresh": {"token": "t"}}));
    let Request::Refresh { token } = only_request(asked, 7) else { panic!() };
    assert_eq!(token.reveal(), "t");
    let asked = client.asks(&json!({"id": 8, "sub_refresh": {"channel": "a", "token": "t"}}));
    let Request::RefreshSubscription { channel, token } = only_request(asked, 8) else { panic!() };
    assert_eq!((channel.as_str(), token.reveal()), ("a", "t"));
    let asked = client.asks(&json!({"id": 9, "subscribe": {"channel": "a", "token": "t"}}));
    let Request::Subscribe { token, .. } = only_request(asked, 9) else { panic!() };
    assert_eq!(token, Token::new("t"));
    assert!(client.asks(&json!({"id": 8, "send": {}})).is_empty());
    assert!(client.asks(&json!({"id": 7, "sub_refresh": {"channel": "a"}})).is_empty());
    // Centrifugo 6.9.1 disconnects a client that refreshes without a token with code 3501.
    for command in
        [json!({"id": 7, "refresh": {}}), json!({"id": 7, "sub_refresh": {"token": "t"}})]
    {
        client.step(|commands, context| {
            let bytes = command.to_string().into_bytes();
            let taken = commands.take(&bytes, None, LINES, context);
            assert_eq!(taken, Err(CommandFault::Fatal), "{command}");
        });
    }
}

#[test]
fn a_client_shows_a_token_with_connect_or_with_its_handshake() {
    for (own, of_handshake, expected) in [
        ("", None, None),
        ("own", None, Some("own")),
        ("", Some("handshake"), Some("handshake")),
        ("own", Some("handshake"), Some("own")),
    ] {
        let service = WebSocketService::Commands(CommandEncoding::Json);
        let token = of_handshake.and_then(Token::new);
        let mut conversation = WebSocketConversation::new(service).with_token(token);
        let connect = json!({
            "id": 1,
            "connect": {"token": own, "data": {"x": 1}, "name": "js", "version": "5", "subs": {
                "a": {"recover": true, "offset": 3, "epoch": "00000001", "delta": "fossil"},
                "\n": {"recover": true}, "b": {},
            }},
        });
        let mut bytes = Vec::new();
        write_masked_frame(&mut bytes, OpCode::Text, connect.to_string().as_bytes(), [1, 2, 3, 4]);
        let (_, asked) = Client::new().step(|_, context| {
            assert_eq!(conversation.receive(&mut bytes, context), Flow::AwaitReply);
        });
        let Request::Connect(login) = only_request(asked, 1) else { panic!() };
        let Login { token, data, name, version, has_commands, channels: _, subs } = *login;
        assert_eq!(token.as_ref().map(Token::reveal), expected);
        assert_eq!((data, &*name, &*version), (json_data("{\"x\":1}"), "js", "5"));
        let position = Position { epoch: Epoch(1), offset: 3 };
        let wish = SubscriptionWish { since: Some(position), takes_deltas: true };
        assert_eq!((has_commands, subs), (true, vec![(ChannelName::new("a").unwrap(), wish)]));
    }
}

#[test]
fn a_connect_is_bounded() {
    let mut client = Client::new();
    let max = client.settings.subscriptions_max;
    let connect = |channels: usize, depth: usize| {
        let subs: serde_json::Map<_, _> =
            (0..channels).map(|at| (at.to_string(), json!({"recover": true}))).collect();
        let data: Value =
            serde_json::from_str(&format!("{}{}", "[".repeat(depth), "]".repeat(depth))).unwrap();
        json!({"id": 1, "connect": {"subs": subs, "data": data}})
    };
    assert!(client.asks(&connect(max + 1, 1)).is_empty());
    assert!(client.asks(&connect(1, PAYLOAD_DEPTH_MAX + 1)).is_empty());
    let asked = client.asks(&connect(max, PAYLOAD_DEPTH_MAX));
    assert!(matches!(only_request(asked, 1), Request::Connect(login) if login.subs.len() == max));
}

#[test]
fn a_client_with_a_token_of_others_is_disconnected() {
    for (refusal, expected) in [
        (Refusal::TokenMissing, Err(CloseReason::ProtocolError)),
        (Refusal::TokenInvalid, Err(CloseReason::TokenInvalid)),
        (Refusal::ConnectionExpired, Err(CloseReason::Expired)),
        (Refusal::TokenExpired, Ok(())),
    ] {
        let (out, _) = Client::new().step(|commands, context| {
            let (origin, reply) = (Origin::Client(Ticket::FIRST), Reply::Refused(refusal));
            assert_eq!(commands.reply(origin, &reply, LINES, context), expected);
        });
        let expected = expected
            .map_or("", |()| "{\"id\":1,\"error\":{\"code\":109,\"message\":\"token expired\"}}\n");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}

/// What is delivered before the reply to `connect` follows it; a client that would lose some of it comes back.
#[test]
fn a_client_is_sent_nothing_before_the_reply_to_connect() {
    for (count, batches) in [(2, 1), (20_000, 2)] {
        let mut conversation = CommandConversation::new(Framing::Line);
        let mut client = Client::new();
        client.step(|_, context| {
            conversation.receive(&mut format!("{CONNECT}\n").into_bytes(), context);
        });
        let channel = ChannelName::new("a").unwrap();
        let items: Vec<_> =
            publications(1..=count).iter().cloned().map(Item::Publication).collect();
        let (mut prepared, mut encoder, mut out) =
            (Prepared::default(), Encoder::default(), Vec::new());
        for start in (0..batches).map(|batch| batch * count) {
            let mut batch = prepared.of_client(&channel, &items, start, &mut encoder);
            let delivered = conversation.deliver(&mut batch, &mut out, &client.settings);
            assert!(out.is_empty() && delivered.frame.is_none() && delivered.count == items.len());
        }
        let (said, _) = client.step(|_, context| {
            let flow = conversation.reply(Origin::Client(Ticket::FIRST), &connected(), context);
            assert_eq!(flow == Flow::Closed, count > 2);
        });
        let said = String::from_utf8(said).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].contains("\"connect\":{"), "{said}");
        match count {
            2 => assert!(lines.len() == 3 && lines[1].contains("\"offset\":1"), "{said}"),
            _ => assert!(lines.len() == 2 && lines[1].contains("\"code\":3010"), "{}", lines[1]),
        }
    }
}

/// After the code of a client that is late itself, clients do not come back.
#[test]
fn a_client_whose_connect_is_not_answered_in_time_comes_back() {
    for form in [WEB_SOCKET, LINES] {
        let mut client = Client::new();
        let expire = |client: &mut Client| {
            let mut reason = None;
            client.step(|commands, context| reason = commands.expire(form, context).err());
            reason
        };
        assert_eq!(expire(&mut client), Some(CloseReason::HandshakeTimeout));
        client.asks(&json!({"id": 1, "connect": {}}));
        assert_eq!(expire(&mut client), Some(CloseReason::Overloaded));
    }
}

#[test]
fn a_pong_is_due_before_the_next_ping() {
    let (seconds, message) = (Duration::from_secs, WEB_SOCKET);
    for (timeout, deadlines) in [(10, &[10, 15, 10, 15][..]), (25, &[25; 4]), (60, &[25; 4])] {
        let mut client = Client::new();
        client.settings.keepalive_interval = seconds(25);
        client.settings.keepalive_timeout = seconds(timeout);
        client.step(|commands, context| {
            assert_eq!(commands.expire(message, context), Err(CloseReason::HandshakeTimeout));
        });
        client.connect();
        let mut pings = 0;
        for deadline in deadlines {
            let (out, outputs) = client.step(|commands, context| {
                assert_eq!(commands.expire(message, context), Ok(()));
                commands.note_bytes();
            });
            pings += usize::from(out == b"\x81\x02{}");
            let [Output::Deadline(after)] = outputs[..] else { panic!("{outputs:?}") };
            assert_eq!(after, seconds(*deadline));
        }
        assert_eq!(pings, if timeout == 10 { 2 } else { 4 });
        client.step(|commands, context| {
            assert_eq!(commands.expire(message, context), Ok(()));
            assert_eq!(commands.expire(message, context), Err(CloseReason::KeepaliveTimeout));
        });
    }
}

#[test]
fn over_tcp_a_ping_need_not_be_answered() {
    let mut client = Client::new();
    client.connect();
    for _ in 0..3 {
        let (out, _) = client.step(|commands, context| {
            assert_eq!(commands.expire(LINES, context), Ok(()));
        });
        assert_eq!(out, b"{}\n");
    }
}

/// Sends commands in pieces to a conversation whose client is held back.
fn expect_nothing_owned(
    write: impl Fn(&mut Vec<u8>, &[u8]),
    mut receive: impl FnMut(&mut [u8], &mut Context<'_>) -> (Flow, usize),
) {
    let (mut connect, mut publish) = (Vec::new(), Vec::new());
    write(&mut connect, br#"{"id": 1, "connect": {}}"#);
    write(&mut publish, br#"{"id": 2, "publish": {"channel": "a", "data": 1}}"#);
    let (start, end) = publish.split_at(publish.len() - 1);
    let mut flows = Vec::new();
    for piece in [&connect, start, end, start, &[end, start].concat()] {
        Client::new().step(|_, context| {
            context.congested = true;
            let (flow, held_bytes) = receive(&mut piece.to_vec(), context);
            flows.push((flow, held_bytes > 0));
        });
    }
    let unfinished = || (Flow::Receive, true);
    let held = |rest| (Flow::Hold(rest), false);
    let expected = [(Flow::Receive, false), unfinished(), held(0), unfinished(), held(start.len())];
    assert_eq!(flows, expected);
}

/// What a client sent in pieces is gone once it was taken, also if the client is held back then, perhaps for long.
#[test]
fn a_paused_publisher_owns_no_heap_for_what_was_taken() {
    for framing in [Framing::Line, Framing::LengthPrefix] {
        let mut conversation = CommandConversation::new(framing);
        expect_nothing_owned(
            |out, text| match framing {
                Framing::Line => write_line(out, |out| out.extend(text)),
                Framing::LengthPrefix => write_length_prefixed(out, |out| out.extend(text)),
            },
            |bytes, context| {
                (receive(&mut conversation, bytes, context), conversation.heap_bytes())
            },
        );
    }
    let mut conversation =
        WebSocketConversation::new(WebSocketService::Commands(CommandEncoding::Json));
    expect_nothing_owned(
        |out, text| write_masked_frame(out, OpCode::Text, text, [1, 2, 3, 4]),
        |bytes, context| (receive(&mut conversation, bytes, context), conversation.heap_bytes()),
    );
}

/// A step of a conversation whose `connect` is replied to at once.
fn receive(
    conversation: &mut impl Transport<Next = Infallible>,
    bytes: &mut [u8],
    context: &mut Context<'_>,
) -> Flow {
    let flow = conversation.receive(bytes, context);
    match context.outputs.last() {
        Some(Output::Request(SessionRequest {
            origin: Some(origin),
            request: Request::Connect(_),
            ..
        })) => conversation.reply(*origin, &connected(), context),
        _ => flow,
    }
}
