//! Clients that connect and send nothing else: `/connection/uni_websocket`, `/connection/uni_sse` and
//! `/connection/uni_http_stream`.

use std::net::SocketAddr;
use std::time::Duration;

use fantail::config::{ChannelOptions, ClientRight, Config, DriverChoice};
use fantail::message::{CloseReason, TransportKind};
use serde_json::{Value, json};

use crate::support::{
    Client, CommandStream, Received, SECRET, TestServer, WebSocket, in_seconds, on_both_drivers,
    token, wait_until,
};

/// How such a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    HttpStream,
    SseGet,
    SsePost,
    Message,
    WebSocketQuery,
}

const WAYS: [Way; 5] =
    [Way::HttpStream, Way::SseGet, Way::SsePost, Way::Message, Way::WebSocketQuery];

/// A connected client, or one whose request was answered.
enum Uni {
    Stream(CommandStream),
    Socket(WebSocket),
}

impl Way {
    fn open(self, address: SocketAddr, connect: &str) -> Uni {
        let escaped: String = connect.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let post = |path: &str| {
            let len = connect.len();
            format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n{connect}")
        };
        let stream =
            |text: String| Uni::Stream(CommandStream::over(Client::connect(address), text));
        match self {
            Way::HttpStream => stream(post("/connection/uni_http_stream")),
            Way::SsePost => stream(post("/connection/uni_sse")),
            Way::SseGet => stream(format!(
                "GET /connection/uni_sse?cf_connect={escaped} HTTP/1.1\r\nHost: t\r\n\r\n"
            )),
            Way::Message => {
                let mut socket = WebSocket::connect(address, "/connection/uni_websocket");
                socket.send_text(connect);
                Uni::Socket(socket)
            }
            Way::WebSocketQuery => Uni::Socket(WebSocket::connect(
                address,
                &format!("/connection/uni_websocket?cf_connect={escaped}"),
            )),
        }
    }

    fn connect(self, server: &TestServer, connect: &Value) -> Uni {
        self.open(server.edge(), &connect.to_string())
    }
}

impl Uni {
    #[track_caller]
    fn read(&mut self) -> Value {
        match self {
            Uni::Stream(stream) => stream.read(),
            Uni::Socket(socket) => match socket.read() {
                Received::Text(text) => serde_json::from_str(&text).unwrap(),
                other => panic!("{other:?}"),
            },
        }
    }

    #[track_caller]
    fn expect_disconnect(&mut self, code: u16) {
        match self {
            Uni::Stream(stream) => {
                let push = stream.read();
                assert_eq!(push["disconnect"]["code"], code, "{push}");
                stream.expect_end();
            }
            Uni::Socket(socket) => socket.expect_close(code),
        }
    }
}

fn server_with(driver: DriverChoice, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.anonymous = Some(true);
        config.expired_close_delay = Duration::ZERO;
        for (name, right) in [("open", ClientRight::ALL), ("shut", ClientRight::NONE)] {
            let options = ChannelOptions {
                history_size: 10,
                allow_subscribe: right,
                allow_publish: ClientRight::ALL,
                ..ChannelOptions::closed()
            };
            config.namespaces.add(name, options).unwrap();
        }
        change(config);
    })
}

on_both_drivers! {
    fn a_client_gets_pushes_of_the_channels_that_it_asks_for(driver) {
        let server = server_with(driver, |_| {});
        let mut api = Client::connect(server.edge());
        for way in WAYS {
            let channel = format!("open:{way:?}");
            let asked = json!({"subs": {&channel: {}, "shut:a": {}, "$open:b": {}}});
            let mut client = way.connect(&server, &asked);
            let connected = client.read();
            let connect = &connected["connect"];
            assert!(connected.get("id").is_none() && connect["pong"].is_null(), "{connected}");
            assert_eq!((connect["ping"].as_u64(), connect["node"].is_null()), (Some(25), true));
            // What it may not subscribe to is passed over.
            let names: Vec<_> = connect["subs"].as_object().unwrap().keys().collect();
            assert_eq!(names, [&channel]);
            api.call("publish", &json!({"channel": channel, "data": {"n": 1}}));
            let push = client.read();
            assert_eq!((&push["channel"], &push["pub"]["data"], &push["pub"]["offset"]), (&json!(channel), &json!({"n": 1}), &json!(1)));
            let id = &connect["client"];
            api.call("subscribe", &json!({"user": "", "client": id, "channel": "shut:s"}));
            let push = client.read();
            assert_eq!((&push["channel"], push["subscribe"].is_object()), (&json!("shut:s"), true));
            api.call("unsubscribe", &json!({"user": "", "client": id, "channel": "shut:s"}));
            assert_eq!(client.read()["unsubscribe"]["code"], 2000);
            api.call("disconnect", &json!({"user": "", "client": id}));
            client.expect_disconnect(3503);
        }
        let kinds = [TransportKind::UniWebSocket, TransportKind::UniHttpStream, TransportKind::UniSse];
        let open = |kind: TransportKind| server.sum(|counters| &counters.connections[kind as usize]);
        wait_until("all are gone", || kinds.into_iter().all(|kind| open(kind) == 0));
    }

    fn a_token_subscribes_the_client_and_it_recovers(driver) {
        let server = server_with(driver, |_| {});
        let mut api = Client::connect(server.edge());
        let epoch = api.call("publish", &json!({"channel": "shut:t", "data": 1}))["result"]["epoch"].clone();
        for n in 2..=4 {
            api.call("publish", &json!({"channel": "shut:t", "data": n}));
        }
        let token = token(&json!({"sub": "ann", "subs": {"shut:t": {}}}));
        for way in WAYS {
            let since = json!({"recover": true, "offset": 2, "epoch": epoch});
            let mut client = way.connect(&server, &json!({"token": token, "data": {"x": 1}, "subs": {"shut:t": since}}));
            let connected = client.read();
            let sub = &connected["connect"]["subs"]["shut:t"];
            assert_eq!(sub["recovered"], true, "{connected}");
            let data: Vec<_> = sub["publications"].as_array().unwrap().iter().map(|it| it["data"].clone()).collect();
            assert_eq!(data, [3, 4]);
        }
    }

    fn a_client_takes_deltas_that_it_asks_for(driver) {
        let options = ChannelOptions { allow_publish: ClientRight::ALL, ..ChannelOptions::development() };
        let server = server_with(driver, |config| config.namespaces.add("delta", options).unwrap());
        let mut api = Client::connect(server.edge());
        let padding = "x".repeat(200);
        let mut publish = |channel: &str, n: u32| {
            api.call("publish", &json!({"channel": channel, "data": {"n": n, "padding": padding}}));
        };
        for way in WAYS {
            let channels = ["delta:a", "open:a"];
            let subs = channels.map(|channel| (channel.to_owned(), json!({"delta": "fossil"})));
            let subs: serde_json::Map<_, _> = subs.into_iter().collect();
            let mut client = way.connect(&server, &json!({"subs": subs}));
            let connected = client.read();
            let has_deltas = |channel: &str| connected["connect"]["subs"][channel]["delta"] == true;
            assert_eq!(channels.map(has_deltas), [true, false], "{connected}");
            for (channel, forms) in [("delta:a", [(true, false), (true, true)]), ("open:a", [(false, false); 2])] {
                for (n, form) in (1..).zip(forms) {
                    publish(channel, n);
                    let push = client.read();
                    assert_eq!(push["channel"], channel);
                    assert_eq!((push["pub"]["data"].is_string(), push["pub"]["delta"] == true), form, "{push}");
                }
            }
        }
    }

    fn a_client_that_is_not_let_in_is_disconnected(driver) {
        let server = server_with(driver, |config| config.subscriptions_max = 3);
        let expired = token(&json!({"sub": "ann", "exp": in_seconds(-60)}));
        let many: Value = (0..4).map(|n| (format!("open:{n}"), json!({}))).collect::<serde_json::Map<_, _>>().into();
        for (connect, code) in [
            (json!({"token": "no token"}), 3500),
            (json!({"token": expired}), 3005),
            (json!({"subs": {"nowhere:a": {}}}), 3501),
            (json!({"subs": many}), 3501),
            (json!({"data": serde_json::from_str::<Value>(&format!("{}{}", "[".repeat(60), "]".repeat(60))).unwrap()}), 3501),
        ] {
            for way in WAYS {
                way.connect(&server, &connect).expect_disconnect(code);
            }
        }
        // Nothing is left of them, and others are let in.
        for way in WAYS {
            assert!(way.connect(&server, &json!({})).read()["connect"].is_object());
        }
    }

    fn what_is_not_a_connect_is_refused(driver) {
        let server = server_with(driver, |_| {});
        for bad in ["no JSON", "[]", "7", "{\"token\":1}", "{\"subs\":{\"a\":1}}"] {
            let escaped: String = bad.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let mut client = Client::connect(server.edge());
            assert_eq!(client.get(&format!("/connection/uni_sse?cf_connect={escaped}")).status, 400, "{bad}");
            let len = bad.len();
            for path in ["/connection/uni_sse", "/connection/uni_http_stream"] {
                client.send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n{bad}"));
                assert_eq!(client.read_response().status, 400, "{bad}");
            }
            client.send(WebSocket::request(&format!("/connection/uni_websocket?cf_connect={escaped}")));
            assert_eq!(client.read_response().status, 400, "{bad}");
            Way::Message.open(server.edge(), bad).expect_disconnect(3501);
        }
        assert_eq!(server.closed(CloseReason::ProtocolError), 5);
        let mut client = Client::connect(server.edge());
        assert_eq!(client.get("/connection/uni_http_stream").status, 405);
        // What means nothing is asked for; later messages are passed over.
        for way in WAYS {
            assert!(way.open(server.edge(), "null").read()["connect"].is_object());
        }
        client.send("GET /connection/uni_sse HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.read_response_head().status, 200);
        let mut socket = WebSocket::connect(server.edge(), "/connection/uni_websocket");
        for message in ["{}", "{\"id\":2,\"publish\":{\"channel\":\"open:a\",\"data\":1}}", "no JSON"] {
            socket.send_text(message);
        }
        let mut client = Uni::Socket(socket);
        assert!(client.read()["connect"].is_object());
        let Uni::Socket(mut socket) = client else { panic!() };
        socket.send_text("more");
        server.stop();
        socket.expect_close(3001);
    }

    fn a_client_is_pinged_and_need_not_answer(driver) {
        let server = server_with(driver, |config| {
            config.keepalive_interval = Duration::from_millis(200);
            config.keepalive_timeout = Duration::from_millis(100);
        });
        for way in WAYS {
            let mut client = way.connect(&server, &json!({}));
            client.read();
            for _ in 0..3 {
                assert_eq!(client.read(), json!({}), "{way:?}");
            }
        }
    }

    fn a_shutdown_is_a_push(driver) {
        let server = server_with(driver, |_| {});
        let mut clients = WAYS.map(|way| way.connect(&server, &json!({})));
        clients.iter_mut().for_each(|client| drop(client.read()));
        server.stop();
        clients.iter_mut().for_each(|client| client.expect_disconnect(3001));
    }
}
