//! The command protocol over `/connection/websocket`: text messages with one command per line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fantail::config::limits::COMMANDS_PER_MESSAGE_MAX;
use fantail::config::{ChannelOptions, Namespaces, SlowConsumer};
use fantail::message::CloseReason;

use crate::support::{Client, Received, TestServer, WebSocket, on_both_drivers, wait_until};

/// A client of the command protocol over a WebSocket.
struct Commander {
    socket: WebSocket,
    /// Pushes received before a reply.
    pushes: VecDeque<Value>,
}

impl Commander {
    #[track_caller]
    fn open(server: &TestServer) -> Self {
        let socket = WebSocket::connect(server.edge(), "/connection/websocket");
        Self { socket, pushes: VecDeque::new() }
    }

    #[track_caller]
    fn connected(server: &TestServer) -> Self {
        let mut client = Self::open(server);
        let reply = client.ask(&json!({"id": 1, "connect": {}}));
        assert_eq!(reply["connect"]["pong"], true, "{reply}");
        client
    }

    #[track_caller]
    fn subscribed(server: &TestServer, channel: &str) -> Self {
        let mut client = Self::connected(server);
        let reply = client.ask(&json!({"id": 2, "subscribe": {"channel": channel}}));
        assert_eq!(reply["subscribe"]["positioned"], true, "{reply}");
        client
    }

    #[track_caller]
    fn send(&mut self, command: &Value) {
        self.socket.send_text(&command.to_string());
    }

    /// Reads the next JSON object, a reply or a push.
    #[track_caller]
    fn read(&mut self) -> Value {
        let text = self.socket.read_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Sends a command and reads its reply; pushes received before it are kept.
    #[track_caller]
    fn ask(&mut self, command: &Value) -> Value {
        self.send(command);
        loop {
            let object = self.read();
            if object.get("push").is_none() {
                assert_eq!(object["id"], command["id"], "{object}");
                return object;
            }
            self.pushes.push_back(object);
        }
    }

    #[track_caller]
    fn push(&mut self) -> Value {
        self.pushes.pop_front().unwrap_or_else(|| self.read())
    }

    #[track_caller]
    fn expect_error(&mut self, command: &Value, code: u32) {
        let reply = self.ask(command);
        assert_eq!(reply["error"]["code"], code, "{command} got {reply}");
        assert!(reply["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

fn subscribe(channel: &str) -> Value {
    json!({"id": 5, "subscribe": {"channel": channel}})
}

on_both_drivers! {
    fn a_session_over_a_websocket(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Commander::open(&server);
        let hello = client.ask(&json!({"id": 1, "connect": {"token": "", "data": {"a": 1}, "name": "js"}}));
        let hello = hello["connect"].clone();
        assert!(hello["client"].as_str().is_some_and(|name| !name.is_empty()), "{hello}");
        assert!(hello["version"].as_str().is_some_and(|version| version.starts_with("fantail")));
        assert_eq!((&hello["ping"], &hello["pong"]), (&json!(25), &json!(true)));
        assert!(hello["session"].is_string(), "{hello}");
        for channel in ["a", "b", "c", "é"] {
            let reply = client.ask(&json!({"id": 7, "subscribe": {"channel": channel, "flag": 1, "join_leave": false}}));
            assert_eq!(reply["subscribe"]["offset"], 0, "{reply}");
            assert!(reply["subscribe"]["epoch"].as_str().is_some_and(|epoch| epoch.len() == 8));
            assert_eq!(reply["subscribe"].get("was_recovering"), None);
            assert_eq!(client.ask(&json!({"id": 8, "publish": {"channel": channel, "data": [1, "x"]}})), json!({"id": 8, "publish": {}}));
            let info = json!({"client": hello["client"], "user": ""});
            assert_eq!(client.push(), json!({"push": {"channel": channel, "pub": {"data": [1, "x"], "info": info, "offset": 1}}}));
            assert_eq!(client.ask(&json!({"id": 9, "unsubscribe": {"channel": channel}})), json!({"id": 9, "unsubscribe": {}}));
        }
        assert_eq!(client.ask(&json!({"id": 10, "refresh": {"token": "t"}}))["refresh"]["expires"], false);
        let sub_refresh = json!({"id": 11, "sub_refresh": {"channel": "d", "token": "t"}});
        assert_eq!(client.ask(&sub_refresh)["error"]["code"], 103, "it is not subscribed");
        client.ask(&json!({"id": 7, "subscribe": {"channel": "d"}}));
        assert_eq!(client.ask(&sub_refresh), json!({"id": 11, "sub_refresh": {"expires": false}}));
        assert_eq!(client.ask(&json!({"id": 12, "ping": {}})), json!({"id": 12, "ping": {}}));
        client.socket.send_close(1000);
        assert_eq!(client.socket.read(), Received::Close(Some(1000), String::new()));
        wait_until("the server has counted the close", || server.closed(CloseReason::ClientClosed) == 1);
    }

    fn a_message_carries_several_commands_and_may_be_fragmented(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Commander::open(&server);
        // Before the reply to connect, in one frame; empty lines and blanks are ignored.
        let mut commands = vec![json!({"id": 1, "connect": {}}).to_string(), String::new(), " \r".to_owned()];
        for id in 2..1000 {
            commands.push(json!({"id": id, "subscribe": {"channel": format!("c{}", id % 64)}}).to_string());
        }
        client.socket.send_text(&commands.join("\n"));
        let mut answered: Vec<u64> = (1..1000).map(|_| client.read()["id"].as_u64().unwrap()).collect();
        answered.sort_unstable();
        assert_eq!(answered, (1..1000).collect::<Vec<_>>());
        // Fragmented, and byte by byte.
        use fantail::protocol::websocket::OpCode;
        client.socket.send_frame(false, OpCode::Text, b"{\"id\":1000,\"pi");
        client.socket.send_frame(false, OpCode::Continuation, b"ng\":{}}\n{\"id\":");
        client.socket.send_frame(true, OpCode::Continuation, b"1001,\"ping\":{}}\n");
        assert_eq!(client.read()["id"], 1000);
        assert_eq!(client.read()["id"], 1001);
        let frame = crate::support::masked(true, OpCode::Text, b"{\"id\":1002,\"ping\":{}}");
        client.socket.client.send_bytewise(&frame);
        assert_eq!(client.read()["id"], 1002);
    }

    fn commands_sent_with_the_handshake_are_processed(driver) {
        let server = TestServer::start(driver, 1);
        let mut socket = WebSocket::over(Client::connect(server.edge()));
        let mut bytes = WebSocket::request("/connection/websocket").into_bytes();
        let commands = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}";
        bytes.extend(crate::support::masked(true, fantail::protocol::websocket::OpCode::Text, commands));
        socket.client.send(bytes);
        socket.read_upgrade();
        assert!(socket.read_text().contains("\"connect\""));
        assert!(socket.read_text().contains("\"subscribe\""));
    }

    fn clients_of_all_transports_receive_publications_of_each_other(driver) {
        let server = TestServer::start(driver, 2);
        let mut commander = Commander::subscribed(&server, "a");
        let mut plain = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut line = Client::connect(server.commands());
        line.command(&json!({"id": 1, "connect": {}}));
        line.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let mut http = Client::connect(server.edge());
        let large = "x".repeat(100_000);
        let middle = "y".repeat(1000);
        for (offset, payload) in (1..).zip(["\"one\"", "two", &middle, &large]) {
            http.publish("a", payload);
            let data = serde_json::from_str(payload).unwrap_or_else(|_| json!(payload));
            let push = json!({"push": {"channel": "a", "pub": {"data": data, "offset": offset}}});
            assert_eq!(commander.push(), push);
            assert_eq!(line.read_json(), push);
            plain.expect_text(payload);
        }
        commander.send(&json!({"id": 3, "publish": {"channel": "a", "data": {"from": "commander"}}}));
        plain.expect_text("{\"from\":\"commander\"}");
        assert_eq!(line.read_json()["push"]["pub"]["offset"], 5);
    }

    fn a_failed_command_gets_an_error_and_the_session_continues(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.subscriptions_max = 2);
        let mut client = Commander::open(&server);
        client.expect_error(&subscribe("early"), 107);
        client.ask(&json!({"id": 1, "connect": {}}));
        for (command, code) in [
            (json!({"id": 5, "connect": {}}), 107),
            (json!({"id": 5, "dance": {}}), 104),
            (json!({"id": 5, "rpc": {"method": "x"}}), 108),
            (json!({"id": 5, "send": {"data": 1}}), 108),
            (json!({"id": 5}), 104),
            (json!({"id": 5, "ping": {}, "connect": {}}), 107),
            (json!({"id": 5, "subscribe": {}}), 107),
            (json!({"id": 5, "subscribe": ["a"]}), 107),
            (json!({"subscribe": {"channel": "a"}}), 107),
            (json!({"presence": {"channel": "a"}}), 107),
            (json!({"id": 5, "subscribe": {"channel": 1}}), 107),
            (json!({"id": 5, "subscribe": {"channel": "a", "recover": "yes"}}), 107),
            (json!({"id": 5, "subscribe": {"channel": "a", "recover": true, "offset": -1}}), 107),
            (json!({"id": 5, "subscribe": {"channel": ""}}), 107),
            (json!({"id": 5, "subscribe": {"channel": "x".repeat(256)}}), 107),
            (json!({"id": 5, "publish": {"channel": "a"}}), 107),
            (json!({"id": 5, "history": {"channel": "a", "limit": "all"}}), 107),
            (json!({"id": 5, "history": {"channel": ""}}), 107),
            (json!({"id": 5, "presence": 7}), 107),
            (json!({"id": 5, "presence_stats": {"channel": "x".repeat(256)}}), 107),
        ] {
            client.expect_error(&command, code);
        }
        for channel in ["a", "b"] {
            assert!(client.ask(&subscribe(channel)).get("subscribe").is_some());
        }
        client.expect_error(&subscribe("a"), 105);
        client.expect_error(&subscribe("c"), 106);
        // Unsubscribing without a subscription succeeds: the server API may have ended it before the client learned of
        // that.
        for _ in 0..2 {
            assert_eq!(client.ask(&json!({"id": 7, "unsubscribe": {"channel": "a"}})), json!({"id": 7, "unsubscribe": {}}));
        }
        assert_eq!(client.ask(&json!({"id": 6, "ping": {}}))["id"], 6);
    }

    fn invalid_commands_get_an_error_and_the_valid_ones_around_them_are_executed(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Commander::connected(&server);
        for text in ["hello", "[]", "null", "{", "{\"id\":-1}", "{}\nx", "{\"id\":1}{\"id\":2}"] {
            client.socket.send_text(text);
            let error = client.read();
            assert_eq!((&error["error"]["code"], error.get("id")), (&json!(107), None), "{text} got {error}");
        }
        client.socket.send_text("{\"id\":7,\"ping\":{}}\nno\n{\"id\":8,\"ping\":{}}");
        assert_eq!(client.read(), json!({"id": 7, "ping": {}}));
        assert_eq!(client.read()["error"]["code"], 107);
        assert_eq!(client.read(), json!({"id": 8, "ping": {}}));
    }

    fn messages_that_cannot_contain_commands_disconnect_with_3501(driver) {
        let server = TestServer::start(driver, 1);
        let too_many = "{}\n".repeat(COMMANDS_PER_MESSAGE_MAX + 1);
        let mut client = Commander::connected(&server);
        client.socket.send_text(&too_many);
        client.socket.expect_close(3501);
        assert_eq!(server.closed(CloseReason::ProtocolError), 1);
        // The maximum number of commands is accepted.
        let mut client = Commander::connected(&server);
        client.socket.send_text(&too_many[3..]);
        assert_eq!(client.ask(&json!({"id": 6, "ping": {}}))["id"], 6);
    }

    fn commands_may_come_in_binary_messages(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Commander::connected(&server);
        client.socket.send_binary(b"{\"id\":1,\"ping\":{}}\n{\"id\":2,\"ping\":{}}");
        assert_eq!(client.read(), json!({"id": 1, "ping": {}}));
        assert_eq!(client.read(), json!({"id": 2, "ping": {}}));
        // Text is UTF-8, and a command is text.
        for bytes in [&b"\xff"[..], b"{\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":\"\xff\"}}", b"\x02\x08\x01"] {
            client.socket.send_binary(bytes);
            assert_eq!(client.read()["error"]["code"], 107, "{bytes:?}");
        }
        client.expect_error(&subscribe(""), 107);
    }

    fn commands_without_an_id_get_no_reply(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Commander::subscribed(&server, "a");
        client.send(&json!({"send": {"data": 1}}));
        client.send(&json!({"publish": {"channel": "nowhere:a", "data": 0}}));
        client.send(&json!({"publish": {"channel": "a", "data": 1}}));
        let push = client.read()["push"].clone();
        assert_eq!((&push["channel"], &push["pub"]["data"], &push["pub"]["offset"]), (&json!("a"), &json!(1), &json!(1)));
        assert_eq!(client.ask(&json!({"id": 6, "ping": {}})), json!({"id": 6, "ping": {}}));
    }

    fn a_client_that_never_connects_is_stale(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.handshake_timeout = Duration::from_millis(300);
        });
        let began = Instant::now();
        let mut silent = Commander::open(&server);
        let mut busy = Commander::open(&server);
        busy.expect_error(&subscribe("a"), 107);
        silent.socket.expect_close(3502);
        busy.socket.expect_close(3502);
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!(server.closed(CloseReason::HandshakeTimeout), 2);
    }

    fn pings_are_sent_regardless_of_traffic_and_require_a_pong(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.keepalive_interval = Duration::from_millis(400);
            config.keepalive_timeout = Duration::from_millis(200);
        });
        let began = Instant::now();
        let mut client = Commander::connected(&server);
        for ping in 1..=3 {
            // Commands do not postpone a ping: clients rely on its interval.
            let mut objects = 0;
            loop {
                client.send(&json!({"id": 3, "ping": {}}));
                let object = client.read();
                if object == json!({}) {
                    break;
                }
                objects += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(objects > 0 && began.elapsed() >= Duration::from_millis(350) * ping);
            client.socket.send_text("{}");
        }
        // From here on, the client sends nothing.
        loop {
            match client.socket.read() {
                Received::Text(_) => {}
                Received::Close(code, reason) => {
                    assert_eq!((code, reason.as_str()), (Some(3012), "no pong"));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        wait_until("the close is counted", || server.closed(CloseReason::KeepaliveTimeout) == 1);
    }

    fn a_server_that_shuts_down_disconnects_with_3001(driver) {
        let server = TestServer::start(driver, 2);
        let mut clients: Vec<_> = (0..4).map(|_| Commander::subscribed(&server, "a")).collect();
        server.stop();
        for client in &mut clients {
            client.socket.expect_close(3001);
        }
    }

    fn a_client_that_does_not_read_is_disconnected_as_a_slow_consumer(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.send_queue_bytes_max = 64 * 1024);
        let mut slow = Commander::subscribed(&server, "a");
        let mut http = Client::connect(server.edge());
        let payload = "x".repeat(200_000);
        let until = Instant::now() + Duration::from_secs(20);
        while server.closed(CloseReason::SlowConsumer) == 0 {
            assert!(Instant::now() < until, "the connection is still open");
            http.publish("a", &payload);
        }
        loop {
            match slow.socket.read() {
                Received::Text(_) => {}
                other => break assert_eq!(other, Received::Close(Some(3008), "slow consumer".to_owned())),
            }
        }
    }

    fn the_endpoint_requires_an_upgrade(driver) {
        let server = TestServer::start(driver, 1);
        let response = Client::connect(server.edge()).get("/connection/websocket");
        assert_eq!(response.status, 426, "{response:?}");
        let mut http = Client::connect(server.edge());
        http.send("POST /connection/websocket HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(http.read_response().status, 405);
        // A query is accepted: clients may add their own parameters.
        let mut socket = WebSocket::connect(server.edge(), "/connection/websocket?format=json&channel=");
        socket.send_text("{\"id\":1,\"connect\":{}}");
        assert!(socket.read_text().contains("\"client\""));
    }

    fn a_history_is_read_with_every_option(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Commander::connected(&server);
        let mut http = Client::connect(server.edge());
        for channel in ["a", "b", "c", "d"] {
            for n in 1..=5 {
                http.publish(channel, n.to_string());
            }
            let read = |client: &mut Commander, rest: Value| {
                let mut parameters = json!({"channel": channel});
                parameters.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
                let reply = client.ask(&json!({"id": 9, "history": parameters}));
                let history = reply["history"].clone();
                assert_eq!(history["offset"], 5, "{reply}");
                let offsets: Vec<u64> = history["publications"].as_array().unwrap().iter()
                    .map(|publication| { assert_eq!(publication["data"], publication["offset"]); publication["offset"].as_u64().unwrap() })
                    .collect();
                (offsets, history["epoch"].as_str().unwrap().to_owned())
            };
            let (none, epoch) = read(&mut client, json!({}));
            assert!(none.is_empty());
            assert_eq!(read(&mut client, json!({"limit": -1})).0, [1, 2, 3, 4, 5]);
            assert_eq!(read(&mut client, json!({"limit": 2})).0, [1, 2]);
            assert_eq!(read(&mut client, json!({"limit": 2, "reverse": true})).0, [5, 4]);
            let since = json!({"offset": 3, "epoch": epoch});
            assert_eq!(read(&mut client, json!({"limit": -1, "since": since})).0, [4, 5]);
            assert_eq!(read(&mut client, json!({"limit": -1, "since": since, "reverse": true})).0, [2, 1]);
            for since in [json!({"offset": 3, "epoch": "no"}), json!({"offset": 3, "epoch": "00000000"})] {
                client.expect_error(&json!({"id": 9, "history": {"channel": channel, "limit": 1, "since": since}}), 112);
            }
        }
    }

    fn presence_lists_and_counts_the_subscribed_clients(driver) {
        let server = TestServer::start(driver, 2);
        let stats = |client: &mut Commander, channel: &str| {
            client.ask(&json!({"id": 9, "presence_stats": {"channel": channel}}))["presence_stats"].clone()
        };
        let mut observer = Commander::connected(&server);
        assert_eq!(stats(&mut observer, "a"), json!({"num_clients": 0, "num_users": 0}));
        assert_eq!(observer.ask(&json!({"id": 9, "presence": {"channel": "a"}})), json!({"id": 9, "presence": {"presence": {}}}));
        let mut clients: Vec<_> = (0..8).map(|_| Commander::subscribed(&server, "a")).collect();
        assert_eq!(stats(&mut observer, "a"), json!({"num_clients": 8, "num_users": 1}));
        let reply = clients[0].ask(&json!({"id": 9, "presence": {"channel": "a"}}));
        let present = reply["presence"]["presence"].as_object().unwrap();
        assert_eq!(present.len(), 8, "{reply}");
        assert!(present.iter().all(|(name, info)| *info == json!({"client": name, "user": ""})), "{reply}");
        drop(clients);
        wait_until("all subscriptions are gone", || server.sum(|counters| &counters.subscriptions) == 0);
        assert_eq!(stats(&mut observer, "a"), json!({"num_clients": 0, "num_users": 0}));
    }

    fn join_and_leave_events_reach_the_subscribers_of_namespaces_that_allow_them(driver) {
        let options = ChannelOptions { join_leave: true, ..ChannelOptions::development() };
        // In `slow`, deliveries are batched, and the newest publication replaces one that is still waiting.
        let slow = ChannelOptions { delivery_rate_max: 1, slow_consumer: SlowConsumer::Latest, ..options.clone() };
        let server = TestServer::start_with(driver, 2, |config| {
            config.namespaces = Namespaces::new(options.clone());
            config.namespaces.add("slow", slow.clone()).unwrap();
        });
        for channel in ["a", "b", "slow:a"] {
            let mut first = Commander::connected(&server);
            let name = |client: &mut Commander| {
                let reply = client.ask(&json!({"id": 9, "presence": {"channel": channel}}));
                let present = reply["presence"]["presence"].as_object().unwrap();
                present.keys().cloned().collect::<Vec<_>>()
            };
            let join_leave = |kind: &str, name: &str| {
                json!({"push": {"channel": channel, kind: {"info": {"client": name, "user": ""}}}})
            };
            first.ask(&subscribe(channel));
            let first_name = name(&mut first)[0].clone();
            assert_eq!(first.push(), join_leave("join", &first_name), "its own join");
            // A client that a presence reply listed before its join event was sent, and that then leaves, produces a
            // leave event.
            let mut second = Commander::connected(&server);
            second.ask(&subscribe(channel));
            let names = name(&mut first);
            let second_name = names.iter().find(|name| **name != first_name).unwrap().clone();
            drop(second);
            assert_eq!(first.push(), join_leave("join", &second_name));
            assert_eq!(first.push(), join_leave("leave", &second_name));
            assert_eq!(name(&mut first), [first_name]);
            // Join and leave events do not replace a waiting publication.
            let mut third = Commander::connected(&server);
            third.ask(&subscribe(channel));
            for data in 1..=3 {
                assert!(first.ask(&json!({"id": 8, "publish": {"channel": channel, "data": data}})).get("publish").is_some());
            }
            let (mut joined, mut newest) = (false, 0);
            while !joined || newest < 3 {
                let push = first.push()["push"].clone();
                joined |= push.get("join").is_some();
                newest = push["pub"]["data"].as_u64().unwrap_or(newest);
            }
        }
    }

    fn a_client_that_recovers_receives_all_missed_publications(driver) {
        let server = TestServer::start(driver, 2);
        let mut http = Client::connect(server.edge());
        for channel in ["a", "b", "c", "d"] {
            let recover = |offset: u64, epoch: &str| json!({"id": 5, "subscribe": {"channel": channel, "recover": true, "offset": offset, "epoch": epoch}});
            let mut first = Commander::connected(&server);
            let reply = first.ask(&subscribe(channel))["subscribe"].clone();
            assert_eq!((&reply["recoverable"], &reply["offset"]), (&json!(true), &json!(0)), "{reply}");
            let epoch = reply["epoch"].as_str().unwrap().to_owned();
            drop(first);
            for n in 1..=300 {
                http.publish(channel, n.to_string());
            }
            // Twice, because a cached reply must equal one that was built anew.
            for _ in 0..2 {
                let mut client = Commander::connected(&server);
                let reply = client.ask(&recover(100, &epoch))["subscribe"].clone();
                assert_eq!((&reply["recovered"], &reply["was_recovering"]), (&json!(true), &json!(true)));
                assert_eq!(reply["offset"], 100, "the position it recovered from");
                let expected: Vec<Value> = (101..=300).map(|n| json!({"data": n, "offset": n})).collect();
                assert_eq!(reply["publications"], json!(expected));
            }
            let mut client = Commander::connected(&server);
            let reply = client.ask(&recover(300, &epoch))["subscribe"].clone();
            assert_eq!((&reply["recovered"], &reply["offset"], &reply["publications"]), (&json!(true), &json!(300), &json!([])));
            http.publish(channel, "301");
            assert_eq!(client.push()["push"]["pub"], json!({"data": 301, "offset": 301}));
            // Another epoch, an offset in the future, and no position at all: the client starts from the position in
            // the reply. Before them, a recovery whose reply is cached.
            assert_eq!(Commander::connected(&server).ask(&recover(300, &epoch))["subscribe"]["recovered"], true);
            for (offset, epoch) in [(100, "00000000"), (100, "_"), (302, epoch.as_str()), (u64::MAX, epoch.as_str()), (302, "")] {
                let mut client = Commander::connected(&server);
                let reply = client.ask(&recover(offset, epoch))["subscribe"].clone();
                assert_eq!((&reply["recovered"], &reply["was_recovering"]), (&json!(false), &json!(true)), "{offset} {epoch}");
                assert_eq!((&reply["offset"], &reply["publications"]), (&json!(301), &json!([])));
            }
        }
    }

    // A guarantee of the README: publications that were acknowledged to a client arrive before the reply to its
    // unsubscribe, and none after it. The many subscribers and large publications keep fan-outs busy for several turns.
    fn an_unsubscribe_reply_follows_all_publications_acknowledged_before_it(driver) {
        for workers in [1, 2] {
            let server = TestServer::start(driver, workers);
            let mut others: Vec<Commander> = (0..100).map(|_| Commander::connected(&server)).collect();
            for other in &mut others {
                other.ask(&subscribe("a"));
            }
            let mut client = Commander::connected(&server);
            let data = "x".repeat(20_000);
            for round in 0..10 {
                let first = client.ask(&subscribe("a"))["subscribe"]["offset"].as_u64().unwrap();
                let publish = json!({"id": 6, "publish": {"channel": "a", "data": data}});
                client.socket.send_text(&format!("{publish}\n{publish}\n{publish}"));
                let mut offsets = Vec::new();
                let mut answers = 0;
                while answers < 3 {
                    let said = client.read();
                    match said.get("push") {
                        Some(push) => offsets.push(push["pub"]["offset"].as_u64().unwrap()),
                        None => answers += 1,
                    }
                }
                client.ask(&json!({"id": 7, "unsubscribe": {"channel": "a"}}));
                let rest = client.pushes.drain(..);
                offsets.extend(rest.map(|push| push["push"]["pub"]["offset"].as_u64().unwrap()));
                assert_eq!(offsets, [first + 1, first + 2, first + 3], "round {round}");
                client.ask(&json!({"id": 8, "ping": {}}));
                assert!(client.pushes.is_empty(), "{:?}", client.pushes);
            }
        }
    }

    // centrifuge 0.38, client.go, isStreamRecovered: an empty epoch matches every epoch. It is sent by clients that
    // keep only offsets, and by clients that request all publications.
    fn an_empty_epoch_matches_every_epoch(driver) {
        let server = TestServer::start(driver, 2);
        let mut http = Client::connect(server.edge());
        for channel in ["a", "b", "c"] {
            let ask = |rest: Value| {
                let mut parameters = json!({"channel": channel, "recover": true});
                parameters.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
                let mut client = Commander::connected(&server);
                let reply = client.ask(&json!({"id": 5, "subscribe": parameters}))["subscribe"].clone();
                let count = reply["publications"].as_array().unwrap().len();
                (reply["recovered"].as_bool().unwrap(), reply["offset"].as_u64().unwrap(), count)
            };
            assert_eq!(ask(json!({})), (true, 0, 0), "nothing was ever published");
            (0..3).for_each(|n| drop(http.publish(channel, n.to_string())));
            assert_eq!(ask(json!({})), (true, 0, 3));
            assert_eq!(ask(json!({"offset": 0, "epoch": "", "flag": 2})), (true, 0, 3));
            assert_eq!(ask(json!({"offset": 2, "epoch": ""})), (true, 2, 1));
            assert_eq!(ask(json!({"offset": 3})), (true, 3, 0));
            assert_eq!(ask(json!({"offset": 4})), (false, 3, 0));
            let mut client = Commander::connected(&server);
            for (since, count) in [(json!({"offset": 1}), 2), (json!({}), 3), (json!({"offset": 9, "epoch": ""}), 0)] {
                let history = client.ask(&json!({"id": 6, "history": {"channel": channel, "limit": -1, "since": since}}))["history"].clone();
                assert_eq!((&history["offset"], history["publications"].as_array().unwrap().len()), (&json!(3), count), "{since}");
            }
        }
    }

    // centrifuge 0.38, client.go, subscriptionFlagRejectUnrecovered: the client reloads its state, and is not
    // subscribed after it has lost publications.
    fn a_subscribe_that_requires_full_recovery_fails_if_publications_are_lost(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            let small = ChannelOptions { history_size: 2, ..ChannelOptions::development() };
            let without = ChannelOptions { recovery: false, ..ChannelOptions::development() };
            config.namespaces.add("small", small).unwrap();
            config.namespaces.add("without", without).unwrap();
        });
        let mut http = Client::connect(server.edge());
        for channel in ["small:a", "small:b", "small:c"] {
            let mut client = Commander::subscribed(&server, channel);
            (0..5).for_each(|n| drop(http.publish(channel, n.to_string())));
            let epoch = client.ask(&json!({"id": 4, "history": {"channel": channel}}))["history"]["epoch"].clone();
            let recover = |offset: u64, epoch: &Value| json!({"id": 6, "subscribe": {"channel": channel, "recover": true, "offset": offset, "epoch": epoch, "flag": 3}});
            let mut back = Commander::connected(&server);
            for (offset, epoch) in [(1, &epoch), (6, &epoch), (5, &json!("abcd")), (3, &json!("00000001"))] {
                back.expect_error(&recover(offset, epoch), 112);
            }
            // It is not subscribed, so it may subscribe again from the position of the state that it has loaded.
            assert_eq!(back.ask(&json!({"id": 7, "unsubscribe": {"channel": channel}})), json!({"id": 7, "unsubscribe": {}}));
            let reply = back.ask(&recover(3, &epoch))["subscribe"].clone();
            assert_eq!((&reply["recovered"], reply["publications"].as_array().unwrap().len()), (&json!(true), 2), "{reply}");
            http.publish(channel, "6");
            assert_eq!(back.push()["push"]["pub"]["offset"], 6);
        }
        // Without recovery the flag has no effect (same function: inside `EnableRecovery`).
        let mut client = Commander::connected(&server);
        let reply = client.ask(&json!({"id": 6, "subscribe": {"channel": "without:a", "recover": true, "offset": 1, "epoch": "abcd", "flag": 2}}));
        assert_eq!((&reply["subscribe"]["recoverable"], &reply["subscribe"]["recovered"]), (&json!(false), &json!(false)), "{reply}");
    }

    fn unsupported_options_are_rejected(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Commander::connected(&server);
        for (rest, code) in [
            (json!({"type": 1}), 108),
            (json!({"type": 4}), 108),
        ] {
            let mut parameters = json!({"channel": "a"});
            parameters.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            client.expect_error(&json!({"id": 5, "subscribe": parameters}), code);
        }
        client.send(&json!({"id": 6, "subscribe": {"channel": "b", "delta": "xor"}}));
        client.socket.expect_close(3501);
        let mut line = Client::connect(server.commands());
        line.command(&json!({"id": 1, "connect": {}}));
        let push = line.command(&json!({"id": 2, "subscribe": {"channel": "b", "delta": "xor"}}));
        assert_eq!(push["push"]["disconnect"]["code"], 3501, "{push}");
        line.expect_end();
    }

    // centrifuge-js 2 and its contemporaries: `method` is a number, absent for connect.
    fn a_client_of_protocol_version_1_gets_an_error_that_names_version_2(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Commander::open(&server);
        for command in [
            json!({"id": 1, "params": {"token": "t"}}),
            json!({"id": 2, "method": 1, "params": {"channel": "a"}}),
            json!({"method": 9, "params": {"data": 1}}),
        ] {
            client.send(&command);
            let reply = client.read();
            assert_eq!((&reply["error"]["code"], &reply["id"]), (&json!(107), &command["id"]), "{reply}");
            assert!(reply["error"]["message"].as_str().unwrap().contains("version 2"), "{reply}");
        }
    }

    fn trimmed_publications_cannot_be_recovered(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Commander::connected(&server);
        let reply = client.ask(&subscribe("a"))["subscribe"].clone();
        client.ask(&json!({"id": 6, "unsubscribe": {"channel": "a"}}));
        let mut http = Client::connect(server.edge());
        for n in 1..=1002 {
            http.publish("a", n.to_string());
        }
        for (offset, recovered, count) in [(1, false, 0), (2, true, 1000)] {
            let reply = client.ask(&json!({"id": 5, "subscribe": {"channel": "a", "recover": true, "offset": offset, "epoch": reply["epoch"]}}));
            let reply = &reply["subscribe"];
            assert_eq!((&reply["recovered"], reply["publications"].as_array().unwrap().len()), (&json!(recovered), count), "{offset}");
            client.ask(&json!({"id": 6, "unsubscribe": {"channel": "a"}}));
        }
    }

    fn an_unknown_namespace_is_refused(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Commander::connected(&server);
        for method in ["subscribe", "publish", "history", "presence", "presence_stats"] {
            client.expect_error(&json!({"id": 9, method: {"channel": "nowhere:a", "data": 1}}), 102);
        }
        assert_eq!(client.ask(&json!({"id": 6, "ping": {}}))["id"], 6);
    }
}
