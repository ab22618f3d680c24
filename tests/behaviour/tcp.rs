//! The command protocol over raw TCP: one JSON object per line.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Child, Client, TestServer, WebSocket, on_both_drivers, wait_until};

/// A client that has sent `connect`.
#[track_caller]
fn connected(server: &TestServer) -> Client {
    let mut client = Client::connect(server.commands());
    let reply = client.command(&json!({"id": 1, "connect": {}}));
    assert_eq!(reply["id"], 1, "{reply}");
    client
}

/// A client that has subscribed to a channel.
#[track_caller]
fn subscribed(server: &TestServer, channel: &str) -> Client {
    let mut client = connected(server);
    let reply = client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
    assert_eq!((&reply["id"], &reply["subscribe"]["offset"]), (&json!(2), &json!(0)), "{reply}");
    client
}

#[track_caller]
fn expect_push(client: &mut Client, channel: &str, data: Value, offset: u64) {
    let mut push = client.read_json();
    if let Some(publication) = push["push"]["pub"].as_object_mut() {
        publication.remove("info");
    }
    assert_eq!(
        push,
        json!({"push": {"channel": channel, "pub": {"data": data, "offset": offset}}})
    );
}

/// Expects an error reply with this code and a message.
#[track_caller]
fn expect_error(reply: &Value, id: Option<u32>, code: u32) {
    assert_eq!(reply.get("id").cloned(), id.map(Value::from), "{reply}");
    assert_eq!(reply["error"]["code"], code, "{reply}");
    assert!(reply["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{reply}");
}

/// The header that HAProxy, hitch and stunnel send before the data of their client (proxy-protocol.txt 2.1, 2.2).
const PROXY_V1: &[u8] = b"PROXY TCP4 127.0.0.1 127.0.0.1 5000 8001\r\n";
const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x13\x88\x1f\x41";

on_both_drivers! {
    fn errors_name_the_proxy_protocol(driver) {
        let server = TestServer::start(driver, 1);
        let connect = b"{\"id\":1,\"connect\":{}}\n";
        for bytewise in [false, true] {
            let talk = |header: &[u8]| {
                let mut client = Client::connect(server.commands());
                match bytewise {
                    true => client.send_bytewise([header, connect].concat()),
                    false => client.send([header, connect].concat()),
                }
                let refused = client.read_json();
                expect_error(&refused, None, 107);
                let message = refused["error"]["message"].as_str().unwrap();
                assert!(message.contains("proxy_protocol_unexpected: a proxy in front"), "{message}");
                client
            };
            // The header is a line, so the lines after it are processed.
            let mut client = talk(PROXY_V1);
            assert_eq!(client.read_json()["id"], 1);
            assert_eq!(client.command(&json!({"id": 2, "ping": {}}))["id"], 2);
            // After `connect` these are ordinary invalid lines.
            for line in [&b"\0\n"[..], PROXY_V1] {
                client.send(line);
                let refused = client.read_json();
                expect_error(&refused, None, 107);
                assert!(!refused.to_string().contains("proxy_protocol"), "{refused}");
            }
            assert_eq!(client.command(&json!({"id": 3, "ping": {}}))["id"], 3);
            // No line feed ends the header, so the start of the first command is unknown.
            let mut client = talk(&PROXY_V2[..10]);
            assert_eq!(client.read_json()["push"]["disconnect"]["code"], 3501);
            client.expect_end();
        }
        let mut child = Child::start(driver, &["--tcp-framing", "length", "--workers", "1"]);
        for header in [PROXY_V1, PROXY_V2] {
            let mut client = Client::connect(child.commands());
            client.send(header);
            let said = String::from_utf8_lossy(&client.read_to_end()).into_owned();
            assert!(said.contains("proxy_protocol_unexpected"), "{said}");
        }
        child.log_line(&["WARN", "sends the PROXY protocol"]);
        child.signal(libc::SIGTERM);
        let logged = child.whole_log().iter().filter(|line| line.contains("PROXY protocol")).count();
        assert_eq!(logged, 1, "at most once a minute");
    }

    fn a_session_from_connect_to_unsubscribe(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.commands());
        let hello = client.command(&json!({"id": 1, "connect": {}}));
        assert!(hello["connect"]["client"].as_str().is_some_and(|name| !name.is_empty()), "{hello}");
        assert!(hello["connect"]["version"].as_str().is_some_and(|v| v.starts_with("fantail")));
        assert_eq!(hello["connect"]["ping"], 25);
        for (index, channel) in ["a", "b", "c", "é"].into_iter().enumerate() {
            let id = 10 + index;
            let reply = client.command(&json!({"id": id, "subscribe": {"channel": channel}}));
            assert_eq!((&reply["id"], &reply["subscribe"]["offset"]), (&json!(id), &json!(0)));
            client.send(format!("{}\n", json!({"id": 20, "publish": {"channel": channel, "data": {"n": [1, "x"]}}})));
            let (mut replies, mut pushes) = (0, 0);
            for _ in 0..2 {
                let line = client.read_json();
                if line == json!({"id": 20, "publish": {}}) { replies += 1 }
                let info = json!({"client": hello["connect"]["client"], "user": ""});
                if line == json!({"push": {"channel": channel, "pub": {"data": {"n": [1, "x"]}, "info": info, "offset": 1}}}) { pushes += 1 }
            }
            assert_eq!((replies, pushes), (1, 1));
            assert_eq!(client.command(&json!({"id": 30, "unsubscribe": {"channel": channel}})), json!({"id": 30, "unsubscribe": {}}));
            assert_eq!(client.command(&json!({"id": 31, "publish": {"channel": channel, "data": 1}})), json!({"id": 31, "publish": {}}));
        }
        assert_eq!(client.command(&json!({"id": 40, "ping": {}})), json!({"id": 40, "ping": {}}));
        // A pong has no reply, nor does an empty line.
        client.send("{}\n\n\r\n");
        assert_eq!(client.command(&json!({"id": 41, "ping": {}})), json!({"id": 41, "ping": {}}));
    }

    fn commands_may_be_pipelined_or_arrive_byte_by_byte(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.commands());
        let session = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\r\n\
                       {\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":\"x\"}}\n{\"id\":4,\"ping\":{}}\n";
        for _ in 0..2 {
            client.send(session);
            let mut lines: Vec<Value> = (0..5).map(|_| client.read_json()).collect();
            lines.sort_by_key(|line| line["id"].as_u64());
            assert_eq!(lines[0]["push"]["pub"]["data"], "x");
            let ids: Vec<_> = lines[1..].iter().map(|line| line["id"].as_u64()).collect();
            assert_eq!(ids, [Some(1), Some(2), Some(3), Some(4)]);
            client = Client::connect(server.commands());
        }
        client.send_bytewise(session);
        for _ in 0..5 {
            client.read_json();
        }
    }

    fn pushes_arrive_in_order_for_every_payload(driver) {
        let server = TestServer::start(driver, 2);
        let mut clients = [subscribed(&server, "a"), subscribed(&server, "a"), subscribed(&server, "a")];
        let mut http = Client::connect(server.edge());
        http.publish("a", "{\"x\":\n 1}");
        http.publish("a", "two\nlines");
        http.publish("a", [0xff, 0x00]);
        http.publish("a", "");
        for client in &mut clients {
            expect_push(client, "a", json!({"x": 1}), 1);
            expect_push(client, "a", json!("two\nlines"), 2);
            expect_push(client, "a", json!("/wA="), 3);
            expect_push(client, "a", json!(""), 4);
        }
        let mut sender = WebSocket::connect(server.edge(), "/ws?channel=a");
        for n in 5..500 {
            sender.send_text(&n.to_string());
        }
        for client in &mut clients {
            for n in 5..500 {
                expect_push(client, "a", json!(n), n);
            }
        }
    }

    fn invalid_commands_get_an_error_and_the_session_continues(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = connected(&server);
        for line in ["hello", "[]", "{", "{\"id\":-1}", "{\"id\":1}{\"id\":2}", "\"", "null", "{}}"] {
            client.send(format!("{line}\n"));
            expect_error(&client.read_json(), None, 107);
        }
        client.send([b'{', 0xff, b'}', b'\n']);
        expect_error(&client.read_json(), None, 107);
        client.send("[".repeat(100_000) + "\n");
        expect_error(&client.read_json(), None, 107);
        client.send("{\"id\":7,\"publish\":{\"channel\":\"a\",\"data\":".to_owned() + &"[".repeat(100_000) + "}}\n");
        expect_error(&client.read_json(), None, 107);
        for (command, code) in [
            (json!({"id": 5, "dance": {}}), 104),
            (json!({"id": 5, "rpc": {"method": "x"}}), 108),
            (json!({"id": 5, "connect": {}}), 107),
            (json!({"id": 5, "subscribe": {}}), 107),
            (json!({"id": 5, "subscribe": {"channel": 1}}), 107),
            (json!({"id": 5, "subscribe": {"channel": ""}}), 107),
            (json!({"id": 5, "subscribe": {"channel": "x".repeat(256)}}), 107),
            (json!({"id": 5, "publish": {"channel": "a"}}), 107),
            (json!({"id": 5, "publish": {"channel": "", "data": 1}}), 107),
        ] {
            expect_error(&client.command(&command), Some(5), code);
        }
        assert_eq!(client.command(&json!({"id": 6, "ping": {}}))["id"], 6);
    }

    fn json_that_exceeds_the_nesting_limit_is_not_delivered_as_json(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = subscribed(&server, "a");
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let publish = |data: &str| format!("{{\"id\":3,\"publish\":{{\"channel\":\"a\",\"data\":{data}}}}}\n");
        for deep in [51, 100_000] {
            client.send(publish(&nested(deep)));
            expect_error(&client.read_json(), Some(3), 107);
        }
        // Bodies and plain messages may have any content, so they are delivered as text.
        let mut http = Client::connect(server.edge());
        http.publish("a", nested(51));
        expect_push(&mut client, "a", json!(nested(51)), 1);
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a");
        socket.send_text(&nested(51));
        expect_push(&mut client, "a", json!(nested(51)), 2);
        socket.send_text(&nested(50));
        expect_push(&mut client, "a", serde_json::from_str(&nested(50)).unwrap(), 3);
    }

    fn commands_before_connect_fail(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.commands());
        for command in [
            json!({"id": 3, "subscribe": {"channel": "a"}}),
            json!({"id": 3, "publish": {"channel": "a", "data": 1}}),
            json!({"id": 3, "unsubscribe": {"channel": "a"}}),
        ] {
            let reply = client.command(&command);
            expect_error(&reply, Some(3), 107);
            assert!(reply["error"]["message"].as_str().unwrap().contains("connect"), "{reply}");
        }
        assert_eq!(client.command(&json!({"id": 4, "connect": {}}))["id"], 4);
    }

    fn a_line_over_the_limit_gets_an_error_and_the_next_is_processed(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.message_bytes_max = 100_000);
        let mut client = connected(&server);
        for _ in 0..3 {
            client.send("x".repeat(150_000));
            expect_error(&client.read_json(), None, 106);
            client.send("x".repeat(150_000) + "\n");
            assert_eq!(client.command(&json!({"id": 6, "ping": {}}))["id"], 6);
        }
        let padding = 100_000 - "{\"id\":7,\"ping\":{}}".len();
        client.send(format!("{{\"id\":7,{}\"ping\":{{}}}}\n", " ".repeat(padding)));
        assert_eq!(client.read_json()["id"], 7);
        client.send(format!("{{\"id\":7,{}\"ping\":{{}}}}\n", " ".repeat(padding + 1)));
        expect_error(&client.read_json(), None, 106);
    }

    fn subscriptions_are_limited_and_unique(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.subscriptions_max = 3);
        let mut client = connected(&server);
        let subscribe = |channel: &str| json!({"id": 5, "subscribe": {"channel": channel}});
        for channel in ["a", "b", "c"] {
            assert!(client.command(&subscribe(channel)).get("subscribe").is_some());
        }
        expect_error(&client.command(&subscribe("a")), Some(5), 105);
        expect_error(&client.command(&subscribe("d")), Some(5), 106);
        client.command(&json!({"id": 6, "unsubscribe": {"channel": "b"}}));
        assert!(client.command(&subscribe("d")).get("subscribe").is_some());
    }

    // `printf '{"id":1,"connect":{}}' | nc -N`: the end of the stream completes a line too.
    fn the_last_line_needs_no_line_feed(driver) {
        let server = TestServer::start(driver, 2);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = Client::connect(server.commands());
        client.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"publish\":{\"channel\":\"a\",\"data\":7}}");
        client.end();
        assert_eq!(client.read_json()["id"], 1);
        assert_eq!(client.read_json(), json!({"id": 2, "publish": {}}));
        subscriber.expect_text("7");
        client.expect_end();
        // A truncated line is an invalid command and gets an error.
        let mut client = Client::connect(server.commands());
        client.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"publish\":{\"channel\":\"a\",\"da");
        client.end();
        assert_eq!(client.read_json()["id"], 1);
        assert_eq!(client.read_json()["error"]["code"], 107);
        client.expect_end();
        subscriber.round_trip();
    }

    fn a_half_closed_client_gets_its_replies(driver) {
        let server = TestServer::start(driver, 2);
        for channel in ["a", "b", "c", "d"] {
            let mut client = Client::connect(server.commands());
            client.send(format!(
                "{}\n{}\n",
                json!({"id": 1, "connect": {}}),
                json!({"id": 2, "publish": {"channel": channel, "data": "x"}})
            ));
            client.end();
            let text = String::from_utf8(client.read_to_end()).unwrap();
            for part in ["\"id\":1", "\"id\":2,\"publish\""] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
    }

    fn a_subscribe_followed_by_unsubscribe_in_the_same_write_is_answered(driver) {
        for workers in [1, 2] {
            let server = TestServer::start(driver, workers);
            let mut client = connected(&server);
            // With two workers, about half of the channels have their home on the other one.
            const CHANNELS: usize = 32;
            let mut commands = String::new();
            for n in 0..CHANNELS {
                let (id, channel) = (10 + 3 * n, format!("c{n}"));
                for (id, method) in [(id, "subscribe"), (id + 1, "unsubscribe"), (id + 2, "subscribe")] {
                    commands += &format!("{}\n", json!({"id": id, method: {"channel": channel}}));
                }
            }
            client.send(commands);
            let replies: Vec<Value> = (0..3 * CHANNELS).map(|_| client.read_json()).collect();
            // A duplicate reply would arrive before these.
            for n in 0..CHANNELS {
                client.send(format!("{}\n", json!({"id": 1000, "publish": {"channel": format!("c{n}"), "data": n}})));
                let mut lines = [client.read_json(), client.read_json()];
                lines.sort_by_key(|line| line["id"].as_u64());
                assert_eq!(lines[0]["push"]["pub"]["data"], n, "{lines:?}");
                assert_eq!(lines[1], json!({"id": 1000, "publish": {}}));
            }
            assert_eq!(client.command(&json!({"id": 1001, "ping": {}}))["id"], 1001);
            for n in 0..CHANNELS as u64 {
                let at = |id: u64| {
                    let is_it = |reply: &Value| reply["id"] == id;
                    let at = replies.iter().position(is_it).unwrap_or_else(|| panic!("{id} is not answered"));
                    assert_eq!(replies.iter().filter(|reply| is_it(reply)).count(), 1, "{id} is answered twice");
                    (at, &replies[at])
                };
                let [first, second, third] = [at(10 + 3 * n), at(11 + 3 * n), at(12 + 3 * n)];
                assert!(first.0 < second.0 && second.0 < third.0, "{first:?}, {second:?}, {third:?}");
                assert_eq!(first.1["subscribe"]["offset"], 0, "{first:?}");
                assert_eq!(second.1["unsubscribe"], json!({}), "{second:?}");
                assert_eq!(third.1["subscribe"]["offset"], 0, "{third:?}");
            }
        }
    }

    fn a_half_closed_subscriber_still_receives_publications(driver) {
        let server = TestServer::start(driver, 1);
        let mut subscriber = subscribed(&server, "a");
        let began = Instant::now();
        subscriber.end();
        // It stays open longer than half-closed clients without subscriptions.
        while began.elapsed() < Duration::from_millis(2500) {
            let mut other = connected(&server);
            let began = Instant::now();
            other.end();
            other.expect_end();
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        }
        Client::connect(server.edge()).publish("a", "late");
        // An empty object is a ping.
        let push = loop {
            let line = subscriber.read_json();
            if line != json!({}) {
                break line;
            }
        };
        assert_eq!(push, json!({"push": {"channel": "a", "pub": {"data": "late", "offset": 1}}}));
    }

    fn a_subscriber_that_closed_both_halves_is_removed_soon(driver) {
        let server = TestServer::start(driver, 1);
        let clients = [subscribed(&server, "a"), subscribed(&server, "b")];
        let silent = connected(&server);
        assert_eq!(server.sum(|counters| &counters.connections_open), 3);
        let began = Instant::now();
        drop((clients, silent));
        wait_until("the connections are closed", || server.sum(|counters| &counters.connections_open) == 0);
        // One keepalive to a closed peer, its reset, and one pass of the sweep.
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        wait_until("their channels are removed", || server.sum(|counters| &counters.channels) == 0);
    }
}
