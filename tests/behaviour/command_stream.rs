//! The command protocol over HTTP: `/connection/http_stream`, `/connection/sse` and `/emulation`.

use std::time::Duration;

use fantail::config::{ChannelOptions, ClientRight};
use fantail::message::{CloseReason, TransportKind};
use fantail::protocol::protobuf::{next_message, schema};
use prost::Message;
use serde_json::{Value, json};

use crate::support::{
    Client, CommandStream, SECRET, STREAM_REQUESTS, StreamRequest, TestServer, emulate, in_seconds,
    on_both_drivers, token, wait_until,
};

const CONNECT: &str = "{\"id\":1,\"connect\":{}}";

/// Connections of a transport.
fn open_as(server: &TestServer, kind: TransportKind) -> u64 {
    server.sum(|counters| &counters.connections[kind as usize])
}

#[track_caller]
fn post(client: &mut Client, path: &str, headers: &str, body: &str) -> u16 {
    let len = body.len();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {len}\r\n\r\n{body}"
    ));
    client.read_response().status
}

/// Sends one command in a request of its own, and receives its reply.
#[track_caller]
fn ask(
    client: &mut Client,
    stream: &mut CommandStream,
    connected: &Value,
    command: &Value,
) -> Value {
    assert_eq!(emulate(client, connected, &command.to_string()).status, 204);
    stream.read()
}

on_both_drivers! {
    fn a_session_works_by_each_request_and_through_any_worker(driver) {
        let server = TestServer::start(driver, 3);
        for request in STREAM_REQUESTS {
            let channel = format!("{request:?}");
            let (mut stream, connected) = CommandStream::connect(server.edge(), request, &json!({}));
            assert_eq!((&connected["ping"], &connected["pong"]), (&json!(25), &json!(true)));
            let node = connected["node"].as_str().unwrap();
            let client = connected["client"].as_str().unwrap();
            assert!(client.starts_with(node) && node.len() == 13, "{connected}");
            // The kernel spreads connections over the workers.
            for round in 0..12 {
                let mut other = Client::connect(server.edge());
                let mut ask = |command: Value| ask(&mut other, &mut stream, &connected, &command);
                let reply = ask(json!({"id": 2, "subscribe": {"channel": channel}}));
                assert_eq!(reply["subscribe"]["offset"], round, "{reply}");
                let reply = ask(json!({"id": 3, "publish": {"channel": channel, "data": {"n": round}}}));
                // The reply and the push come in either order.
                let push = stream.read();
                let (reply, push) = if reply["push"].is_null() { (reply, push) } else { (push, reply) };
                assert_eq!(reply, json!({"id": 3, "publish": {}}));
                assert_eq!(push["push"]["channel"], channel.as_str());
                assert_eq!(push["push"]["pub"]["data"], json!({"n": round}));
                let mut ask = |command: Value| self::ask(&mut other, &mut stream, &connected, &command);
                let reply = ask(json!({"id": 4, "history": {"channel": channel, "limit": -1}}));
                assert_eq!(reply["history"]["offset"], round + 1);
                assert_eq!(ask(json!({"id": 5, "unsubscribe": {"channel": channel}})), json!({"id": 5, "unsubscribe": {}}));
            }
        }
        let counted = [TransportKind::CommandsHttpStream, TransportKind::CommandsSse];
        wait_until("the streams are gone", || counted.iter().all(|kind| open_as(&server, *kind) == 0));
    }

    fn the_answer_is_what_sdks_expect(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        client.send(StreamRequest::HttpStream.text("", CONNECT));
        let head = client.read_response_head();
        for (name, value) in [
            ("content-type", "text/plain; charset=utf-8"),
            ("transfer-encoding", "chunked"),
            ("connection", "keep-alive"),
            ("cache-control", "private, no-cache, no-store, must-revalidate, max-age=0"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(head.header(name), Some(value));
        }
        let size = String::from_utf8(client.read_until(b"\r\n")).unwrap();
        let chunk = client.read_exactly(usize::from_str_radix(size.trim_end(), 16).unwrap() + 2);
        assert!(chunk.starts_with(b"{\"id\":1,\"connect\":{") && chunk.ends_with(b"}}\n\r\n"));
        let mut client = Client::connect(server.edge());
        client.send(StreamRequest::SseGet.text("", CONNECT));
        let head = client.read_response_head();
        assert_eq!(head.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let begin = client.read_until(b"data: {");
        assert!(begin.starts_with(b"2\r\n\r\n\r\n"), "{}", String::from_utf8_lossy(&begin));
        let rest = client.read_until(b"\n\n\r\n");
        assert!(rest.starts_with(b"\"id\":1,\"connect\":{"), "{}", String::from_utf8_lossy(&rest));
    }

    fn commands_may_follow_connect_in_the_request(driver) {
        let server = TestServer::start(driver, 2);
        let commands = [
            CONNECT.to_owned(),
            String::new(),
            json!({"id": 2, "subscribe": {"channel": "a"}}).to_string(),
            "no command".to_owned(),
            json!({"id": 3, "ping": {}}).to_string(),
        ];
        for request in STREAM_REQUESTS {
            let mut stream = CommandStream::open(server.edge(), request, &commands.join("\n"));
            let mut replies: Vec<Value> = (0..4).map(|_| stream.read()).collect();
            replies.sort_by_key(|reply| reply["id"].as_u64());
            assert_eq!(replies[0]["error"]["code"], 107);
            let ids: Vec<_> = replies[1..].iter().map(|reply| reply["id"].clone()).collect();
            assert_eq!(ids, [1, 2, 3]);
        }
    }

    fn a_client_that_does_not_connect_is_disconnected(driver) {
        let server = TestServer::start(driver, 1);
        for commands in [
            "",
            "\n",
            "no JSON",
            "[]",
            "{}",
            "{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}",
            "{\"connect\":{}}",
            "{\"id\":1,\"connect\":7}",
            "{\"id\":1,\"unknown\":{}}",
        ] {
            for request in STREAM_REQUESTS {
                if commands.is_empty() && request == StreamRequest::SseGet {
                    continue;
                }
                let mut stream = CommandStream::open(server.edge(), request, commands);
                let mut last = stream.read();
                while let Some(next) = stream.try_read() {
                    assert!(last["error"]["code"].is_number(), "{last}");
                    last = next;
                }
                assert_eq!(last["push"]["disconnect"], json!({"code": 3501, "reason": "bad request"}), "{commands}");
                stream.client.expect_end();
            }
        }
        assert_eq!(server.closed(CloseReason::ProtocolError), 26);
        let mut client = Client::connect(server.edge());
        for target in ["/connection/sse", "/connection/sse?cf_connect=", "/connection/sse?connect=1"] {
            assert_eq!(client.get(target).status, 400, "{target}");
        }
        assert_eq!(client.get("/connection/sse?cf_connect=%7").status, 400);
    }

    fn other_methods_are_refused(driver) {
        let server = TestServer::start(driver, 1);
        for (path, allow) in [
            ("/connection/http_stream", "POST, OPTIONS"),
            ("/connection/sse?cf_connect={}", "GET, POST, OPTIONS"),
            ("/emulation", "POST, OPTIONS"),
        ] {
            let mut client = Client::connect(server.edge());
            if !path.contains("sse") {
                let refused = client.get(path);
                assert_eq!((refused.status, refused.header("allow")), (405, Some(allow)));
            }
            client.send(format!("PUT {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
            assert_eq!(client.read_response().status, 405);
            let mut client = Client::connect(server.edge());
            client.send(format!("OPTIONS {path} HTTP/1.1\r\nHost: t\r\nOrigin: http://a.example\r\n\r\n"));
            let preflight = client.read_response_head();
            assert_eq!(preflight.status, 204);
            assert_eq!(preflight.header("access-control-allow-methods"), Some(allow));
        }
    }

    fn origins_are_judged_and_may_have_cookies(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.origins = vec!["https://a.example".to_owned()];
        });
        for request in STREAM_REQUESTS {
            let mut client = Client::connect(server.edge());
            client.send(request.text("Origin: https://b.example\r\n", CONNECT));
            assert_eq!(client.read_response().status, 403, "{request:?}");
            let text = request.text("Origin: https://a.example\r\n", CONNECT);
            let mut stream = CommandStream::over(Client::connect(server.edge()), text);
            assert_eq!(stream.read()["id"], 1);
            let allowed = stream.head.header("access-control-allow-origin");
            assert_eq!(allowed, Some("https://a.example"));
            assert_eq!(stream.head.header("access-control-allow-credentials"), Some("true"));
        }
        let mut client = Client::connect(server.edge());
        assert_eq!(post(&mut client, "/emulation", "Origin: https://b.example\r\n", "{}"), 403);
        assert_eq!(post(&mut client, "/emulation", "Origin: https://a.example\r\n", "{}"), 404);
    }

    fn commands_for_other_sessions_do_nothing(driver) {
        let server = TestServer::start(driver, 2);
        let open = || CommandStream::connect(server.edge(), StreamRequest::HttpStream, &json!({}));
        let (mut stream, connected) = open();
        let (gone, gone_connected) = open();
        drop(gone);
        wait_until("it is gone", || open_as(&server, TransportKind::CommandsHttpStream) == 1);
        let mut client = Client::connect(server.edge());
        let (session, node) = (connected["session"].as_str().unwrap(), &connected["node"]);
        let (id, code) = session.split_once('.').unwrap();
        let other_id = gone_connected["client"].as_str().unwrap();
        let ping = "{\"id\":9,\"ping\":{}}";
        let mut websocket = Client::connect(server.commands());
        let of_tcp = websocket.command(&json!({"id": 1, "connect": {}}));
        for (session, node, status) in [
            (json!(id), node, 204),
            (json!(format!("{id}.")), node, 204),
            (json!(format!("{other_id}.{code}")), node, 204),
            (json!(format!("{session}x")), node, 204),
            (json!(""), node, 204),
            (Value::Null, node, 204),
            (of_tcp["connect"]["session"].clone(), node, 204),
            (gone_connected["session"].clone(), node, 204),
            (json!(session), &json!("00000000-0000"), 404),
            (json!(session), &json!(""), 404),
            (json!(session), &Value::Null, 404),
        ] {
            let body = json!({"session": session, "node": node, "data": ping}).to_string();
            assert_eq!(post(&mut client, "/emulation", "", &body), status, "{body}");
        }
        for (body, status) in [
            ("", 400),
            ("no JSON", 400),
            ("[]", 400),
            ("{\"session\":1}", 400),
            ("{}", 404),
        ] {
            assert_eq!(post(&mut client, "/emulation", "", body), status, "{body}");
        }
        for data in [Value::Null, json!({"id": 9, "ping": {}}), json!([ping]), json!(9)] {
            let body = json!({"session": session, "node": node, "data": data}).to_string();
            assert_eq!(post(&mut client, "/emulation", "", &body), 204, "{body}");
        }
        // None of these was done, and the session is as it was. What is not a command is answered on it.
        assert_eq!(ask(&mut client, &mut stream, &connected, &json!({"id": 2, "ping": {}}))["id"], 2);
        assert_eq!(ask(&mut client, &mut stream, &connected, &json!("no command"))["error"]["code"], 107);
        assert_eq!(ask(&mut client, &mut stream, &connected, &json!({"id": 3, "connect": {}}))["error"]["code"], 107);
        assert_eq!(ask(&mut client, &mut stream, &connected, &json!({"id": 4, "ping": {}}))["id"], 4);
        assert_eq!(websocket.command(&json!({"id": 5, "ping": {}}))["id"], 5);
        // What ends the connection of any other transport ends this one.
        assert_eq!(emulate(&mut client, &connected, "{\"id\":5,\"refresh\":{}}").status, 204);
        stream.expect_disconnect(3501);
    }

    fn commands_are_taken_in_their_order(driver) {
        const REQUESTS: usize = 500;
        let server = TestServer::start(driver, 3);
        let (mut stream, connected) =
            CommandStream::connect(server.edge(), StreamRequest::HttpStream, &json!({}));
        for _ in 0..3 {
            let mut client = Client::connect(server.edge());
            let (session, node) = (&connected["session"], &connected["node"]);
            let requests: String = (0..REQUESTS)
                .map(|at| {
                    let data = [2 * at + 1, 2 * at + 2].map(|id| json!({"id": id, "ping": {}}).to_string()).join("\n");
                    let body = json!({"session": session, "node": node, "data": data}).to_string();
                    format!("POST /emulation HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                })
                .collect();
            client.send(requests);
            for id in 1..=2 * REQUESTS {
                assert_eq!(stream.read(), json!({"id": id, "ping": {}}));
            }
            for _ in 0..REQUESTS {
                assert_eq!(client.read_response().status, 204);
            }
        }
    }

    fn a_client_that_answers_pings_stays(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.keepalive_interval = Duration::from_millis(1000);
            config.keepalive_timeout = Duration::from_millis(700);
        });
        for request in [StreamRequest::HttpStream, StreamRequest::SseGet] {
            let (mut stream, connected) = CommandStream::connect(server.edge(), request, &json!({}));
            let mut client = Client::connect(server.edge());
            for _ in 0..2 {
                assert_eq!(stream.read(), json!({}));
                assert_eq!(emulate(&mut client, &connected, "{}").status, 204);
            }
            assert_eq!(stream.read(), json!({}));
            stream.expect_disconnect(3012);
        }
    }

    fn a_client_that_reads_nothing_is_a_slow_consumer(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.send_queue_bytes_max = 64 * 1024;
        });
        let (mut reader, connected) =
            CommandStream::connect(server.edge(), StreamRequest::SsePost, &json!({}));
        let mut client = Client::connect(server.edge());
        let subscribe = json!({"id": 2, "subscribe": {"channel": "a"}});
        ask(&mut client, &mut reader, &connected, &subscribe);
        let text = StreamRequest::HttpStream.text("", &format!("{CONNECT}\n{subscribe}"));
        let mut slow = CommandStream::over(Client::connect_narrow(server.edge()), text);
        assert_eq!([slow.read()["id"].clone(), slow.read()["id"].clone()], [1, 2]);
        let payload = json!("x".repeat(20_000)).to_string();
        for _ in 0..1000 {
            client.publish("a", &payload);
            assert_eq!(reader.read()["push"]["pub"]["data"].as_str().unwrap().len(), 20_000);
            if server.closed(CloseReason::SlowConsumer) == 1 {
                break;
            }
        }
        assert_eq!(server.closed(CloseReason::SlowConsumer), 1);
        // Whole publications, then the reason, then the end.
        loop {
            let push = slow.read();
            if push["push"]["pub"].is_null() {
                assert_eq!(push["push"]["disconnect"]["code"], 3008);
                break;
            }
        }
        slow.expect_end();
    }

    fn commands_wait_for_a_client_that_does_not_read(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let payload = json!("x".repeat(50_000)).to_string();
        for _ in 0..20 {
            client.publish("a", &payload);
        }
        let text = StreamRequest::HttpStream.text("", CONNECT);
        let mut stream = CommandStream::over(Client::connect_narrow(server.edge()), text);
        let connected = stream.read()["connect"].take();
        let history = |id: u64| json!({"id": id, "history": {"channel": "a", "limit": -1}}).to_string();
        // Each answer is a megabyte, which the client does not read: it is paused, and what comes for it waits.
        let mut taken = 0;
        let refused = loop {
            let response = emulate(&mut client, &connected, &history(taken + 2));
            if response.status != 204 {
                break response;
            }
            taken += 1;
            assert!(taken < 100, "nothing waits");
        };
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("session_busy")));
        assert!(refused.retry_after().is_some());
        // Once it reads, all that was taken is answered, in its order.
        for id in 2..taken + 2 {
            let reply = stream.read();
            assert_eq!((&reply["id"], reply["history"]["publications"].as_array().map(Vec::len)), (&json!(id), Some(20)));
        }
        assert_eq!(ask(&mut client, &mut stream, &connected, &json!({"id": 1, "ping": {}}))["id"], 1);
    }

    fn requests_may_come_byte_by_byte_but_in_time(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.handshake_timeout = Duration::from_millis(1500);
        });
        for request in STREAM_REQUESTS {
            let mut client = Client::connect(server.edge());
            client.send_bytewise(request.text("", CONNECT));
            let mut stream = CommandStream::answered(client);
            let connected = stream.read()["connect"].take();
            let mut client = Client::connect(server.edge());
            let data = "{\"id\":2,\"ping\":{}}";
            let body = json!({"session": connected["session"], "node": connected["node"], "data": data}).to_string();
            let head = "POST /emulation HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.send_bytewise(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
            assert_eq!(client.read_response().status, 204);
            assert_eq!(stream.read(), json!({"id": 2, "ping": {}}));
        }
        for path in ["/connection/http_stream", "/connection/sse", "/emulation"] {
            let mut client = Client::connect(server.edge());
            client.send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{{"));
            assert_eq!(client.read_response().status, 408, "{path}");
            client.expect_end();
        }
    }

    fn a_body_has_the_maximum_of_a_command(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.message_bytes_max = 2000);
        for path in ["/connection/http_stream", "/connection/sse", "/emulation"] {
            let mut client = Client::connect(server.edge());
            let body = " ".repeat(2001);
            assert_eq!(post(&mut client, path, "", &body), 413, "{path}");
        }
        let padded = format!("{CONNECT}{}", " ".repeat(2000 - CONNECT.len()));
        let mut stream = CommandStream::open(server.edge(), StreamRequest::HttpStream, &padded);
        assert_eq!(stream.read()["id"], 1);
    }

    fn a_shutdown_ends_the_answer_with_its_reason(driver) {
        let server = TestServer::start(driver, 2);
        let open = |request| CommandStream::connect(server.edge(), request, &json!({})).0;
        let mut streams = STREAM_REQUESTS.map(open);
        server.stop();
        for stream in &mut streams {
            stream.expect_disconnect(3001);
        }
    }

    fn a_client_of_http_1_0_gets_no_chunks(driver) {
        let server = TestServer::start(driver, 1);
        let text = StreamRequest::HttpStream.text("", CONNECT).replace("HTTP/1.1", "HTTP/1.0");
        let stream = CommandStream::over(Client::connect(server.edge()), text);
        assert_eq!(stream.head.header("transfer-encoding"), None);
        let mut client = stream.client;
        let line = client.read_until(b"\n");
        assert!(line.starts_with(b"{\"id\":1,\"connect\""), "{}", String::from_utf8_lossy(&line));
        server.stop();
        let line = client.read_until(b"\n");
        assert!(line.starts_with(b"{\"push\":{\"disconnect\""), "{}", String::from_utf8_lossy(&line));
        client.expect_end();
    }

    fn a_client_recovers_what_it_missed(driver) {
        let server = TestServer::start(driver, 2);
        let mut publisher = Client::connect(server.edge());
        let position = publisher.publish("a", "0");
        for n in 1..=3 {
            publisher.publish("a", n.to_string());
        }
        let since = json!({"channel": "a", "recover": true, "epoch": position["epoch"], "offset": 1});
        let commands = format!("{CONNECT}\n{}", json!({"id": 2, "subscribe": since}));
        for request in STREAM_REQUESTS {
            let mut stream = CommandStream::open(server.edge(), request, &commands);
            stream.read();
            let reply = stream.read();
            assert_eq!(reply["subscribe"]["recovered"], true);
            let publications = reply["subscribe"]["publications"].as_array().unwrap();
            let data: Vec<_> = publications.iter().map(|it| it["data"].clone()).collect();
            assert_eq!(data, [1, 2, 3]);
        }
    }

    fn tokens_say_who_the_client_is(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.hmac_secret = Some(SECRET.into());
            config.namespaces.add("x", ChannelOptions {
                history_size: 10,
                presence: true,
                allow_subscribe: ClientRight::ALL,
                allow_presence: ClientRight::ALL,
                ..ChannelOptions::closed()
            }).unwrap();
        });
        let good = token(&json!({"sub": "ann", "subs": {"x:a": {}}}));
        for request in STREAM_REQUESTS {
            for by_header in [false, true] {
                let parameters = if by_header { json!({}) } else { json!({"token": good}) };
                let headers = if by_header { format!("Authorization: Bearer {good}\r\n") } else { String::new() };
                let presence = json!({"id": 2, "presence": {"channel": "x:a"}});
                let commands = format!("{}\n{presence}", json!({"id": 1, "connect": parameters}));
                let text = request.text(&headers, &commands);
                let mut stream = CommandStream::over(Client::connect(server.edge()), text);
                assert_eq!(stream.read()["connect"]["subs"]["x:a"]["recoverable"], true);
                let presence = stream.read();
                let clients = presence["presence"]["presence"].as_object().unwrap();
                assert!(clients.values().all(|it| it["user"] == "ann"), "{presence}");
            }
            let connect = |token: String| json!({"id": 1, "connect": {"token": token}}).to_string();
            let mut stream = CommandStream::open(server.edge(), request, &connect("no token".to_owned()));
            stream.expect_disconnect(3500);
            let expired = token(&json!({"sub": "ann", "exp": in_seconds(-60)}));
            let mut stream = CommandStream::open(server.edge(), request, &connect(expired));
            assert_eq!(stream.read()["error"]["code"], 109);
            stream.expect_end();
        }
    }

    fn the_server_api_reaches_these_clients(driver) {
        let server = TestServer::start(driver, 2);
        let mut api = Client::connect(server.edge());
        for request in STREAM_REQUESTS {
            let (mut stream, connected) = CommandStream::connect(server.edge(), request, &json!({}));
            let client = &connected["client"];
            api.call("subscribe", &json!({"user": "", "client": client, "channel": "s"}));
            assert_eq!(stream.read()["push"]["channel"], "s");
            api.call("publish", &json!({"channel": "s", "data": 7}));
            assert_eq!(stream.read()["push"]["pub"]["data"], 7);
            api.call("unsubscribe", &json!({"user": "", "client": client, "channel": "s"}));
            assert_eq!(stream.read()["push"]["unsubscribe"]["code"], 2000);
            api.call("disconnect", &json!({"user": "", "client": client}));
            stream.expect_disconnect(3503);
        }
    }

    fn an_idle_client_owns_nothing(driver) {
        let server = TestServer::start(driver, 1);
        let subscribe = json!({"id": 2, "subscribe": {"channel": "a"}});
        let mut streams: Vec<_> = (0..100)
            .map(|_| CommandStream::open(server.edge(), StreamRequest::HttpStream, &format!("{CONNECT}\n{subscribe}")))
            .collect();
        for stream in &mut streams {
            assert_eq!([stream.read()["id"].clone(), stream.read()["id"].clone()], [1, 2]);
        }
        assert_eq!(open_as(&server, TransportKind::CommandsHttpStream), 100);
        wait_until("nothing is unfinished", || server.sum(|counters| &counters.unfinished_message_bytes) == 0);
    }

    fn one_client_may_ask_for_so_much(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.client_command_rate_max = Some(5));
        let (mut stream, connected) =
            CommandStream::connect(server.edge(), StreamRequest::HttpStream, &json!({}));
        let pings: Vec<_> = (1..=100).map(|id| json!({"id": id, "ping": {}}).to_string()).collect();
        let mut client = Client::connect(server.edge());
        assert_eq!(emulate(&mut client, &connected, &pings.join("\n")).status, 204);
        let refused = (0..100).map(|_| stream.read()).find(|reply| reply["error"]["code"] == 111);
        assert!(refused.is_some());
    }
}

/// Reads one Protobuf message behind its length from an answer in chunks; `None` at its end.
fn read_protobuf(client: &mut Client, body: &mut Vec<u8>) -> Option<schema::Reply> {
    loop {
        let mut rest = &body[..];
        if let Ok(Some(message)) = next_message(&mut rest) {
            let reply = schema::Reply::decode(message).unwrap();
            *body = rest.to_vec();
            return Some(reply);
        }
        let size = String::from_utf8(client.read_until(b"\r\n")).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let mut chunk = client.read_exactly(size + 2);
        assert_eq!(chunk.split_off(size), b"\r\n");
        if size == 0 {
            assert!(body.is_empty());
            return None;
        }
        body.extend(chunk);
    }
}

fn post_protobuf(path: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/octet-stream\r\nContent-Length: {len}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

on_both_drivers! {
    fn an_answer_may_be_protobuf(driver) {
        let server = TestServer::start(driver, 3);
        let connect = schema::Command {
            id: 1,
            connect: Some(schema::ConnectRequest::default()),
            ..schema::Command::default()
        };
        let mut client = Client::connect(server.edge());
        client.send(post_protobuf("/connection/http_stream", &connect.encode_length_delimited_to_vec()));
        let head = client.read_response_head();
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/octet-stream")));
        let mut body = Vec::new();
        let connected = read_protobuf(&mut client, &mut body).unwrap().connect.unwrap();
        assert_eq!((connected.ping, connected.pong), (25, true));
        let relay = |session: &str, data: Vec<u8>| {
            let request = schema::EmulationRequest {
                node: connected.node.clone(),
                session: session.to_owned(),
                data: data.into(),
            };
            let mut other = Client::connect(server.edge());
            other.send(post_protobuf("/emulation", &request.encode_to_vec()));
            other.read_response().status
        };
        for round in 0..8 {
            let channel = format!("{round}");
            let subscribe = schema::Command {
                id: 2,
                subscribe: Some(schema::SubscribeRequest { channel: channel.clone(), ..Default::default() }),
                ..schema::Command::default()
            };
            assert_eq!(relay(&connected.session, subscribe.encode_length_delimited_to_vec()), 204);
            let reply = read_protobuf(&mut client, &mut body).unwrap();
            assert_eq!((reply.id, reply.subscribe.is_some()), (2, true));
            Client::connect(server.edge()).publish(&channel, "bytes");
            let push = read_protobuf(&mut client, &mut body).unwrap().push.unwrap();
            assert_eq!((&*push.channel, &*push.publication.unwrap().data), (&*channel, &b"bytes"[..]));
        }
        assert_eq!(relay("another", vec![0]), 204);
        let mut other = Client::connect(server.edge());
        other.send(post_protobuf("/emulation", b"\xff"));
        assert_eq!(other.read_response().status, 400);
        // As with any other transport, what is not Protobuf ends the connection.
        assert_eq!(relay(&connected.session, vec![7, 1]), 204);
        let push = read_protobuf(&mut client, &mut body).unwrap().push.unwrap();
        assert_eq!(push.disconnect.unwrap().code, 3501);
        assert_eq!(read_protobuf(&mut client, &mut body), None);
        client.expect_end();
    }
}
