//! The command protocol in Protobuf over `/connection/websocket`, beside clients that speak JSON.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};

use fantail::config::limits::COMMANDS_PER_MESSAGE_MAX;
use fantail::config::{CallbackKind, CallbackOption};
use fantail::message::{CloseReason, TagsFilter};
use fantail::protocol::fossil;
use fantail::protocol::protobuf::{next_message, schema};
use fantail::protocol::websocket::OpCode;

use crate::support::{
    Backend, BackendAnswer, Client, Received, TestServer, WebSocket, masked, on_both_drivers,
    wait_until,
};

/// A client that speaks Protobuf.
struct Binary {
    socket: WebSocket,
    /// Replies and pushes that were received and not read.
    received: VecDeque<schema::Reply>,
}

const COMMAND: fn() -> schema::Command = schema::Command::default;

const TARGET: &str = "/connection/websocket?cf_protocol=protobuf";

impl Binary {
    #[track_caller]
    fn open(server: &TestServer, target: &str) -> Self {
        let socket = WebSocket::connect(server.edge(), target);
        Self { socket, received: VecDeque::new() }
    }

    #[track_caller]
    fn connected(server: &TestServer) -> Self {
        let mut client = Self::open(server, TARGET);
        let reply = client.ask(connect());
        assert!(reply.connect.is_some_and(|connect| connect.pong));
        client
    }

    #[track_caller]
    fn subscribed(server: &TestServer, channel: &str) -> Self {
        let mut client = Self::connected(server);
        let reply = client.ask(subscribe(channel, None));
        assert!(reply.subscribe.is_some_and(|it| it.positioned && it.epoch.len() == 8));
        client
    }

    #[track_caller]
    fn send(&mut self, commands: &[schema::Command]) {
        let frame: Vec<u8> =
            commands.iter().flat_map(|command| command.encode_length_delimited_to_vec()).collect();
        self.socket.send_binary(&frame);
    }

    #[track_caller]
    fn read(&mut self) -> schema::Reply {
        while self.received.is_empty() {
            let Received::Binary(bytes) = self.socket.read() else { panic!("not binary") };
            let mut rest = &*bytes;
            while let Some(message) = next_message(&mut rest).unwrap() {
                self.received.push_back(schema::Reply::decode(message).unwrap());
            }
        }
        self.received.pop_front().unwrap()
    }

    #[track_caller]
    fn ask(&mut self, command: schema::Command) -> schema::Reply {
        let id = command.id;
        self.send(&[command]);
        let reply = self.read();
        assert_eq!(reply.id, id, "{reply:?}");
        reply
    }

    #[track_caller]
    fn push(&mut self) -> schema::Push {
        let reply = self.read();
        assert_eq!(reply.id, 0, "{reply:?}");
        reply.push.expect("a push")
    }

    /// The data and the offset of the next publication.
    #[track_caller]
    fn publication(&mut self, channel: &str) -> (Vec<u8>, u64) {
        let push = self.push();
        assert_eq!(push.channel, channel);
        let publication = push.publication.expect("a publication");
        (publication.data.to_vec(), publication.offset)
    }
}

fn connect() -> schema::Command {
    schema::Command { id: 1, connect: Some(schema::ConnectRequest::default()), ..COMMAND() }
}

fn subscribe(channel: &str, since: Option<(u64, &str)>) -> schema::Command {
    let (offset, epoch) = since.unwrap_or_default();
    let subscribe = schema::SubscribeRequest {
        channel: channel.into(),
        recover: since.is_some(),
        offset,
        epoch: epoch.into(),
        flag: 1,
        ..schema::SubscribeRequest::default()
    };
    schema::Command { id: 2, subscribe: Some(subscribe), ..COMMAND() }
}

fn publish(channel: &str, data: &[u8]) -> schema::Command {
    let data = Bytes::copy_from_slice(data);
    let publish = Some(schema::PublishRequest { channel: channel.into(), data });
    schema::Command { id: 3, publish, ..COMMAND() }
}

fn of_channel(channel: &str) -> Option<schema::OfChannel> {
    Some(schema::OfChannel { channel: channel.into() })
}

fn json_client(server: &TestServer, channel: &str) -> WebSocket {
    let mut socket = WebSocket::connect(server.edge(), "/connection/websocket");
    let subscribe = json!({"id": 2, "subscribe": {"channel": channel}});
    socket.send_text(&format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}"));
    read_json(&mut socket);
    read_json(&mut socket);
    socket
}

fn read_json(socket: &mut WebSocket) -> Value {
    serde_json::from_str(&socket.read_text()).unwrap()
}

on_both_drivers! {
    fn a_session_in_protobuf(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Binary::open(&server, TARGET);
        // In one frame, before the reply to connect.
        let ping = || schema::Command { id: 9, ping: Some(schema::Empty {}), ..COMMAND() };
        client.send(&[connect(), subscribe("é", None), COMMAND(), ping()]);
        let hello = client.read().connect.unwrap();
        assert!(!hello.client.is_empty() && hello.version.starts_with("fantail"));
        assert_eq!((hello.ping, hello.pong, hello.expires), (25, true, false));
        let mut replies = [client.read(), client.read()];
        replies.sort_by_key(|reply| reply.id);
        assert!(replies[0].subscribe.as_ref().is_some_and(|it| it.recoverable && !it.was_recovering));
        assert_eq!(replies[1].ping, Some(schema::Empty {}));
        assert_eq!(client.ask(publish("é", b"\xff\0")).publish, Some(schema::Empty {}));
        assert_eq!(client.publication("é"), (b"\xff\0".to_vec(), 1));
        let presence = client.ask(schema::Command { id: 4, presence: of_channel("é"), ..COMMAND() });
        let present = presence.presence.unwrap().presence;
        assert_eq!(present.len(), 1);
        assert_eq!(present[0].client, hello.client);
        assert_eq!(present[0].info.as_ref().unwrap().client, hello.client);
        let stats = client.ask(schema::Command { id: 5, presence_stats: of_channel("é"), ..COMMAND() });
        assert_eq!(stats.presence_stats, Some(schema::PresenceStatsResult { num_clients: 1, num_users: 1 }));
        let leave = schema::Command { id: 6, unsubscribe: of_channel("é"), ..COMMAND() };
        assert_eq!(client.ask(leave).unsubscribe, Some(schema::Empty {}));
        // Fragmented, and byte by byte.
        let bytes = ping().encode_length_delimited_to_vec();
        client.socket.send_frame(false, OpCode::Binary, &bytes[..2]);
        client.socket.send_frame(true, OpCode::Continuation, &bytes[2..]);
        assert_eq!(client.read().id, 9);
        client.socket.client.send_bytewise(masked(true, OpCode::Binary, &bytes));
        assert_eq!(client.read().id, 9);
        client.socket.send_close(1000);
        assert_eq!(client.socket.read(), Received::Close(Some(1000), String::new()));
        wait_until("the server has counted the close", || server.closed(CloseReason::ClientClosed) == 1);
    }

    fn protobuf_is_chosen_by_subprotocol_or_query(driver) {
        let server = TestServer::start(driver, 1);
        let is_binary = |mut socket: WebSocket, encoded: &[u8]| {
            socket.send_binary(encoded);
            matches!(socket.read(), Received::Binary(_))
        };
        let protobuf = connect().encode_length_delimited_to_vec();
        for target in ["/connection/websocket?cf_protocol=protobuf", "/connection/websocket?x=1&format=protobuf"] {
            assert!(is_binary(WebSocket::connect(server.edge(), target), &protobuf), "{target}");
        }
        for offered in ["centrifuge-protobuf", "x, centrifuge-protobuf, centrifuge-json"] {
            let mut socket = WebSocket::over(Client::connect(server.edge()));
            let header = format!("Sec-WebSocket-Protocol: {offered}\r\nHost:");
            socket.client.send(WebSocket::request("/connection/websocket").replacen("Host:", &header, 1));
            let response = socket.read_upgrade();
            assert_eq!(response.header("sec-websocket-protocol"), Some("centrifuge-protobuf"));
            assert!(is_binary(socket, &protobuf), "{offered}");
        }
        // What the answer names is what is spoken, whatever the query says.
        let (json, json_name) = (&b"{\"id\":1,\"connect\":{}}"[..], "centrifuge-json");
        let both = "centrifuge-json, centrifuge-protobuf";
        for (query, offered, chosen) in [
            ("?cf_protocol=protobuf", json_name, json_name),
            ("?format=protobuf", "x, centrifuge-json", json_name),
            ("?cf_protocol=protobuf", both, "centrifuge-protobuf"),
            ("?cf_protocol=json", both, json_name),
            ("?cf_protocol=json", "centrifuge-protobuf", "centrifuge-protobuf"),
            ("", both, json_name),
        ] {
            let mut socket = WebSocket::over(Client::connect(server.edge()));
            let header = format!("Sec-WebSocket-Protocol: {offered}\r\nHost:");
            let target = format!("/connection/websocket{query}");
            socket.client.send(WebSocket::request(&target).replacen("Host:", &header, 1));
            let response = socket.read_upgrade();
            assert_eq!(response.header("sec-websocket-protocol"), Some(chosen), "{query} {offered}");
            let is_protobuf = chosen == "centrifuge-protobuf";
            let first = if is_protobuf { &protobuf } else { json };
            assert_eq!(is_binary(socket, first), is_protobuf, "{query} {offered}");
        }
        // A subprotocol that is not spoken here is not chosen: pushes are JSON.
        let mut socket = WebSocket::over(Client::connect(server.edge()));
        let header = format!("Sec-WebSocket-Protocol: {both}\r\nHost:");
        let target = "/connection/uni_websocket";
        socket.client.send(WebSocket::request(target).replacen("Host:", &header, 1));
        assert_eq!(socket.read_upgrade().header("sec-websocket-protocol"), Some(json_name));
        // The form that was agreed on counts, and not the opcode.
        for target in ["/connection/websocket", "/connection/websocket?cf_protocol=json&format=json"] {
            assert!(!is_binary(WebSocket::connect(server.edge(), target), b"{\"id\":1,\"connect\":{}}"), "{target}");
        }
        let mut socket = WebSocket::connect(server.edge(), TARGET);
        socket.send_frame(true, OpCode::Text, &protobuf);
        assert!(matches!(socket.read(), Received::Binary(_)));
    }

    fn clients_of_both_encodings_share_a_channel(driver) {
        let server = TestServer::start(driver, 2);
        let mut binary = Binary::subscribed(&server, "a");
        let mut json = json_client(&server, "a");
        let mut plain = WebSocket::connect(server.edge(), "/ws?channel=a");
        let data_of = |push: Value| push["push"]["pub"]["data"].clone();
        // JSON reaches the others as the bytes that were published.
        json.send_text(r#"{"publish":{"channel":"a","data":{"x": [1]}}}"#);
        assert_eq!(binary.publication("a"), (br#"{"x": [1]}"#.to_vec(), 1));
        assert_eq!(data_of(read_json(&mut json)), json!({"x": [1]}));
        plain.expect_text(r#"{"x": [1]}"#);
        // Bytes that are JSON are JSON to all, others are base64 to readers of JSON.
        let deep = format!("{}{}", "[".repeat(51), "]".repeat(51));
        for (offset, (bytes, expected)) in (2..).zip([
            (&b"{\"y\":\n 2}"[..], json!({"y": 2})),
            (b"text", json!("dGV4dA==")),
            (b"\xff\0", json!("/wA=")),
            (deep.as_bytes(), json!("W1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1d")),
        ]) {
            binary.send(&[publish("a", bytes)]);
            let mut got = [binary.read(), binary.read()];
            got.sort_by_key(|reply| reply.id);
            assert_eq!(got[1].publish, Some(schema::Empty {}));
            let publication = got[0].push.as_ref().unwrap().publication.as_ref().unwrap();
            assert_eq!((&*publication.data, publication.offset), (bytes, offset));
            assert_eq!(data_of(read_json(&mut json)), expected);
            match plain.read() {
                Received::Text(text) => assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected),
                Received::Binary(got) => assert_eq!(got, bytes),
                other => panic!("{other:?}"),
            }
        }
        // From the server API, with tags: text of a body, and bytes in base64.
        let mut api = Client::connect(server.edge());
        api.call("publish", &json!({"channel": "a", "b64data": "eyJ6IjozfQ==", "tags": {"event": "tick", "k": "v"}}));
        let push = binary.push().publication.unwrap();
        assert_eq!((&*push.data, push.offset), (&b"{\"z\":3}"[..], 6));
        let mut tags: Vec<_> = push.tags.iter().map(|tag| (&*tag.name, &*tag.text)).collect();
        tags.sort_unstable();
        assert_eq!(tags, [("event", "tick"), ("k", "v")]);
        assert_eq!(data_of(read_json(&mut json)), json!({"z": 3}));
        api.publish("a", "plain");
        assert_eq!(binary.publication("a"), (b"plain".to_vec(), 7));
        assert_eq!(data_of(read_json(&mut json)), json!("plain"));
        // The history has the same bytes.
        let history = schema::HistoryRequest { channel: "a".into(), limit: 3, reverse: true, ..Default::default() };
        let history = binary.ask(schema::Command { id: 7, history: Some(history), ..COMMAND() }).history.unwrap();
        let kept: Vec<_> = history.publications.iter().map(|it| (it.offset, &*it.data)).collect();
        assert_eq!(kept, [(7, &b"plain"[..]), (6, b"{\"z\":3}"), (5, deep.as_bytes())]);
        assert_eq!(history.offset, 7);
    }

    fn missed_publications_are_recovered_in_both_encodings(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Binary::subscribed(&server, "a");
        let mut publisher = Client::connect(server.edge());
        // More than is encoded anew for each client, and less.
        for count in [3_u64, 200] {
            let mut first = None;
            for n in 0..count {
                let body = publisher.publish("a", format!("{{\"n\":{n},\"filler\":\"{}\"}}", "x".repeat(100)));
                first.get_or_insert(body["offset"].as_u64().unwrap() - 1);
                client.publication("a");
            }
            let since = first.unwrap();
            let epoch = publisher.publish("other", "1")["epoch"].as_str().unwrap().to_owned();
            let position = client.ask(schema::Command {
                id: 4,
                history: Some(schema::HistoryRequest { channel: "a".into(), ..Default::default() }),
                ..COMMAND()
            });
            let position = position.history.unwrap();
            assert_eq!(position.offset, since + count);
            assert!(position.publications.is_empty() && !epoch.is_empty());
            for _ in 0..3 {
                let mut other = Binary::connected(&server);
                let reply = other.ask(subscribe("a", Some((since, &position.epoch)))).subscribe.unwrap();
                assert!(reply.recovered && reply.was_recovering);
                let offsets: Vec<u64> = reply.publications.iter().map(|it| it.offset).collect();
                assert_eq!(offsets, (since + 1..=since + count).collect::<Vec<_>>());
                assert_eq!(reply.offset, since);
                assert!(reply.publications[0].data.starts_with(b"{\"n\":0,"));
                let mut json = WebSocket::connect(server.edge(), "/connection/websocket");
                let again = json!({"id": 2, "subscribe": {"channel": "a", "recover": true, "offset": since, "epoch": position.epoch}});
                json.send_text(&format!("{{\"id\":1,\"connect\":{{}}}}\n{again}"));
                read_json(&mut json);
                let reply = read_json(&mut json);
                assert_eq!(reply["subscribe"]["publications"].as_array().unwrap().len() as u64, count);
                let all = schema::HistoryRequest { channel: "a".into(), limit: -1, ..Default::default() };
                let history = other.ask(schema::Command { id: 5, history: Some(all), ..COMMAND() }).history.unwrap();
                assert_eq!(history.publications.len() as u64, since + count);
            }
        }
        let mut other = Binary::connected(&server);
        let reply = other.ask(subscribe("a", Some((1, "00000000")))).subscribe.unwrap();
        assert!(reply.was_recovering && !reply.recovered && reply.publications.is_empty());
    }

    fn errors_in_protobuf_have_the_codes_of_json(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Binary::open(&server, TARGET);
        let mut code = |command: schema::Command| {
            let error = client.ask(command).error.expect("an error");
            assert!(!error.message.is_empty());
            error.code
        };
        assert_eq!(code(subscribe("a", None)), 107, "connect first");
        client.ask(connect());
        let mut code = |command: schema::Command| {
            let error = client.ask(command).error.expect("an error");
            assert!(!error.temporary);
            error.code
        };
        assert_eq!(code(connect()), 107);
        assert_eq!(code(subscribe("", None)), 107);
        assert_eq!(code(subscribe("a\n", None)), 107);
        assert_eq!(code(publish("a", b"")), 107, "data is needed");
        assert_eq!(code(schema::Command { id: 4, ..COMMAND() }), 104);
        let rpc = schema::RpcRequest { method: "m".into(), ..Default::default() };
        assert_eq!(code(schema::Command { id: 4, rpc: Some(rpc), ..COMMAND() }), 108);
        let of = |change: fn(&mut schema::SubscribeRequest)| {
            let mut command = subscribe("a", Some((7, "00000000")));
            change(command.subscribe.as_mut().unwrap());
            command
        };
        assert_eq!(code(of(|it| it.kind = 1)), 108);
        assert_eq!(code(of(|it| it.tf = Some(Bytes::from_static(b"\x12\x01k")))), 107);
        assert_eq!(code(of(|it| it.flag = 2)), 112);
        // Without an id, a publication without data and a question are refused all the same.
        client.send(&[schema::Command { id: 0, ..publish("a", b"") }, schema::Command { id: 0, presence: of_channel("a"), ..COMMAND() }]);
        for _ in 0..2 {
            assert_eq!(client.read().error.map(|error| error.code), Some(107));
        }
        assert_eq!(client.ask(schema::Command { id: 9, ping: Some(schema::Empty {}), ..COMMAND() }).id, 9);
    }

    fn what_is_not_protobuf_closes_the_connection(driver) {
        let server = TestServer::start(driver, 1);
        let hello = connect().encode_length_delimited_to_vec();
        let long = subscribe("channel", None).encode_length_delimited_to_vec();
        let mut frames: Vec<Vec<u8>> = (1..long.len()).map(|end| long[..end].to_vec()).collect();
        frames.extend([
            b"{\"id\":1,\"connect\":{}}".to_vec(),
            // Lengths beyond the frame and beyond any limit, and one without an end.
            b"\x02\x08".to_vec(),
            b"\xff\xff\xff\xff\x0f".to_vec(),
            vec![0xff; 11],
            // A message as a number, an id as a string, a channel that is not UTF-8.
            b"\x04\x08\x01\x20\x01".to_vec(),
            b"\x03\x0a\x01a".to_vec(),
            b"\x07\x08\x01\x2a\x03\x0a\x01\xff".to_vec(),
            // A group within a group within …
            [b"\xc0\x9a\x0c".to_vec(), b"\xa3\x06".repeat(100_000)].concat(),
            // More commands than a message may have.
            vec![0; COMMANDS_PER_MESSAGE_MAX + 1],
            vec![0; 1_000_000],
        ]);
        let mut bystander = Binary::subscribed(&server, "a");
        for frame in frames {
            let mut client = Binary::open(&server, TARGET);
            client.socket.send_binary(&hello);
            client.read();
            client.socket.send_binary(&frame);
            client.socket.expect_close(3501);
        }
        // As many empty messages as there may be, and unknown fields, are passed over.
        bystander.socket.send_binary(&vec![0; COMMANDS_PER_MESSAGE_MAX]);
        let mut ping = schema::Command { id: 9, ping: Some(schema::Empty {}), ..COMMAND() }.encode_to_vec();
        ping.extend_from_slice(b"\x82\x06\x01x\xa3\x06\x08\x01\xa4\x06");
        let mut frame = vec![u8::try_from(ping.len()).unwrap()];
        frame.append(&mut ping);
        bystander.socket.send_binary(&frame);
        assert_eq!(bystander.read().id, 9);
    }

    fn what_is_not_protobuf_ends_an_answer(driver) {
        let server = TestServer::start(driver, 2);
        let hello = connect().encode_length_delimited_to_vec();
        let long = subscribe("channel", None).encode_length_delimited_to_vec();
        let mut bodies: Vec<Vec<u8>> = (1..hello.len()).map(|end| hello[..end].to_vec()).collect();
        bodies.extend((1..long.len()).map(|end| [&hello, &long[..end]].concat()));
        bodies.extend([
            Vec::new(),
            b"{\"id\":1,\"connect\":{}}".to_vec(),
            [&hello[..], b"\xff\xff\xff\xff\x0f"].concat(),
            [&hello[..], &[0xff; 11]].concat(),
            [&hello[..], b"\x04\x08\x01\x20\x01"].concat(),
            [&hello[..], &vec![0; COMMANDS_PER_MESSAGE_MAX + 1]].concat(),
            vec![0; 100_000],
            long,
        ]);
        let mut bystander = Binary::subscribed(&server, "a");
        for body in bodies {
            let mut client = Client::connect(server.edge());
            let head = format!(
                "POST /connection/http_stream HTTP/1.0\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            client.send([head.as_bytes(), &body].concat());
            assert_eq!(client.read_response_head().status, 200);
            let answer = client.read_to_end();
            let (mut rest, mut last) = (&answer[..], None);
            while let Some(message) = next_message(&mut rest).unwrap() {
                last = schema::Reply::decode(message).unwrap().push;
            }
            let code = last.and_then(|push| push.disconnect).map(|disconnect| disconnect.code);
            assert_eq!(code, Some(3501), "{}", body[..body.len().min(40)].escape_ascii());
        }
        bystander.send(&[schema::Command { id: 9, ping: Some(schema::Empty {}), ..COMMAND() }]);
        assert_eq!(bystander.read().id, 9);
    }

    fn a_ping_is_one_byte_and_so_is_a_pong(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.keepalive_interval = std::time::Duration::from_secs(1);
            config.keepalive_timeout = std::time::Duration::from_millis(300);
        });
        let mut client = Binary::connected(&server);
        for _ in 0..2 {
            assert_eq!(client.socket.read(), Received::Binary(vec![0]));
            client.socket.send_binary(&[0]);
        }
        assert_eq!(client.socket.read(), Received::Binary(vec![0]));
        client.socket.expect_close(3012);
    }

    fn what_the_server_api_does_is_pushed_in_protobuf(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Binary::open(&server, TARGET);
        let id = client.ask(connect()).connect.unwrap().client;
        let mut api = Client::connect(server.edge());
        api.call("subscribe", &json!({"user": "", "client": id, "channel": "b"}));
        let push = client.push();
        assert_eq!(push.channel, "b");
        assert!(push.subscribe.is_some_and(|it| it.positioned && it.recoverable));
        api.publish("b", "1");
        assert_eq!(client.publication("b"), (b"1".to_vec(), 1));
        let listed = api.call("connections", &json!({"channel": "b"}))["result"]["connections"].clone();
        let expected = json!({"user": "", "transport": "commands_websocket", "protocol": "protobuf"});
        assert_eq!(listed, json!({&id: expected}));
        api.call("unsubscribe", &json!({"user": "", "client": id, "channel": "b"}));
        let reason = "server unsubscribe".to_owned();
        assert_eq!(client.push().unsubscribe, Some(schema::Unsubscribe { code: 2000, reason }));
        api.call("disconnect", &json!({"user": "", "client": id}));
        client.socket.expect_close(3503);
    }

    fn a_backend_gets_and_returns_bytes(driver) {
        let backend = Backend::start(|request| {
            let body = &request.body;
            let data = ["data", "b64data"].map(|name| (name, body.get(name).cloned()));
            let result = data.into_iter().filter_map(|(name, data)| Some((name.to_owned(), data?))).collect();
            BackendAnswer::Json(json!({"result": Value::Object(result)}))
        });
        let server = TestServer::start_with(driver, 1, |config| {
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&[backend.url("/")], config.callbacks.of_mut(CallbackKind::Rpc)).unwrap();
        });
        let mut client = Binary::connected(&server);
        for bytes in [&b"{\"a\":1}"[..], b"\xff\0", b"text", b""] {
            let rpc = schema::RpcRequest { data: Bytes::copy_from_slice(bytes), method: "m".into() };
            let reply = client.ask(schema::Command { id: 4, rpc: Some(rpc), ..COMMAND() });
            assert_eq!(reply.rpc.map(|returned| returned.data.to_vec()), Some(bytes.to_vec()));
        }
        let bodies: Vec<Value> = backend.requests().into_iter().map(|request| request.body).collect();
        assert!(bodies.iter().all(|body| body["protocol"] == "protobuf" && body["encoding"] == "json"));
        let given = |body: &Value| [body["data"].clone(), body["b64data"].clone()];
        let expected = [[json!({"a": 1}), Value::Null], [Value::Null, json!("/wA=")], [Value::Null, json!("dGV4dA==")], [Value::Null, Value::Null]];
        assert_eq!(bodies.iter().map(given).collect::<Vec<_>>(), expected);
    }

    fn deltas_and_filters_are_bytes_of_the_schema(driver) {
        let server = TestServer::start(driver, 2);
        let mut http = Client::connect(server.edge());
        let with = |delta: &str, tf: Option<&schema::FilterNode>| schema::Command {
            id: 2,
            subscribe: Some(schema::SubscribeRequest {
                channel: "a".into(),
                delta: delta.into(),
                tf: tf.map(|filter| filter.encode_to_vec().into()),
                ..schema::SubscribeRequest::default()
            }),
            ..COMMAND()
        };
        let mut reader = Binary::connected(&server);
        assert!(reader.ask(with("fossil", None)).subscribe.unwrap().delta);
        let is = |val: &str, cmp: &str| schema::FilterNode {
            key: "k".into(),
            cmp: cmp.into(),
            val: val.into(),
            ..schema::FilterNode::default()
        };
        let mut filtered = Binary::connected(&server);
        let of = |op: &str, nodes| schema::FilterNode { op: op.into(), nodes, ..schema::FilterNode::default() };
        let wide = of("or", vec![is("x", "eq"); TagsFilter::NODES_MAX]);
        let deep = (0..TagsFilter::DEPTH_MAX).fold(is("x", "eq"), |inner, _| of("not", vec![inner]));
        let nested = (0..1000).fold(is("x", "eq").encode_to_vec(), |inner, _| {
            let mut outer = b"\x0a\x03not\x32".to_vec();
            prost::encode_length_delimiter(inner.len(), &mut outer).unwrap();
            outer.extend(inner);
            outer
        });
        for filter in [is("x", "like"), of("xor", vec![is("x", "eq")]), wide, deep, is(&"x".repeat(TagsFilter::BYTES_MAX), "eq")] {
            assert_eq!(filtered.ask(with("", Some(&filter))).error.unwrap().code, 107);
        }
        let mut command = with("", None);
        command.subscribe.as_mut().unwrap().tf = Some(nested.into());
        assert_eq!(filtered.ask(command).error.unwrap().code, 107);
        assert!(!filtered.ask(with("fossil", Some(&is("x", "eq")))).subscribe.unwrap().delta);
        let bodies = [1, 2].map(|n| format!("{{\"n\":{n},\"rest\":\"{}\"}}", "x".repeat(100)));
        for (body, tag) in bodies.iter().zip(["x", "y"]) {
            let data: Value = serde_json::from_str(body).unwrap();
            let data = json!({"channel": "a", "data": data, "tags": {"k": tag}});
            assert!(http.call("publish", &data).get("result").is_some());
        }
        let seen = [0, 1].map(|_| reader.push().publication.unwrap());
        let mut delta = Vec::new();
        assert!(fossil::write_delta(&mut delta, bodies[0].as_bytes(), bodies[1].as_bytes()));
        assert_eq!((&seen[0].data[..], seen[0].delta), (bodies[0].as_bytes(), false));
        assert_eq!((&seen[1].data[..], seen[1].delta), (&delta[..], true));
        assert_eq!(filtered.publication("a"), (bodies[0].clone().into_bytes(), 1));
        http.call("publish", &json!({"channel": "a", "data": 3, "tags": {"k": "x"}}));
        assert_eq!(filtered.publication("a"), (b"3".to_vec(), 3));
    }
}
