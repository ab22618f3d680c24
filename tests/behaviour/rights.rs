//! The rights of clients without a user, by each route that a client can take.

use fantail::config::{ChannelOptions, ChannelRegex, ClientRight, DriverChoice};
use serde_json::{Value, json};

use crate::support::{Client, TestServer, WebSocket, on_both_drivers};

/// Namespaces, the right that each gives to publish and to read the history and the presence, and whether a client
/// without a user has it before and after it subscribes.
const ROWS: [(&str, ClientRight, bool, bool); 6] = [
    ("none", ClientRight::NONE, false, false),
    ("users", ClientRight { client: true, subscriber: true, anonymous: false }, false, false),
    ("alone", ClientRight { client: false, subscriber: false, anonymous: true }, false, false),
    ("subscribers", ClientRight { client: false, subscriber: true, anonymous: true }, false, true),
    ("clients", ClientRight { client: true, subscriber: false, anonymous: true }, true, true),
    ("all", ClientRight::ALL, true, true),
];

/// Namespaces `NAME`, to which every client may subscribe, and `NAME-s`, where the right is that to subscribe.
fn server(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        for (name, right, ..) in ROWS {
            let options = ChannelOptions {
                history_size: 10,
                presence: true,
                allow_subscribe: ClientRight::ALL,
                allow_publish: right,
                allow_history: right,
                allow_presence: right,
                ..ChannelOptions::closed()
            };
            config.namespaces.add(name, options).unwrap();
            let options = ChannelOptions { allow_subscribe: right, ..ChannelOptions::closed() };
            config.namespaces.add(&format!("{name}-s"), options).unwrap();
        }
    })
}

/// Sends a command to a client that is connected, and skips pushes. Returns the error's code, if it is refused.
#[track_caller]
fn code_of(client: &mut Client, method: &str, parameters: &Value) -> Option<u64> {
    client.send(format!("{}\n", json!({"id": 2, method: parameters})));
    loop {
        let reply = client.read_json();
        if reply["id"] == 2 {
            return reply["error"]["code"].as_u64();
        }
    }
}

/// Whether a command is done; else it is denied.
#[track_caller]
fn is_done(client: &mut Client, method: &str, parameters: &Value) -> bool {
    let code = code_of(client, method, parameters);
    assert!(matches!(code, None | Some(103)), "{method}: {code:?}");
    code.is_none()
}

fn post(client: &mut Client, channel: &str) -> u16 {
    let length = "Content-Length: 1";
    client
        .send(format!("POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\n{length}\r\n\r\nx"));
    client.read_response().status
}

on_both_drivers! {
    fn a_client_without_a_user_has_the_rights_that_include_it(driver) {
        let server = server(driver);
        let mut http = Client::connect(server.edge());
        for (name, _, before, after) in ROWS {
            let channel = format!("{name}:1");
            let mut client = Client::connect(server.commands());
            client.command(&json!({"id": 1, "connect": {}}));
            let publication = json!({"channel": channel, "data": 1});
            let of_channel = json!({"channel": channel});
            for is_subscribed in [false, true] {
                let expected = if is_subscribed { after } else { before };
                if is_subscribed {
                    assert!(is_done(&mut client, "subscribe", &of_channel));
                }
                assert_eq!(is_done(&mut client, "publish", &publication), expected, "{name}");
                for method in ["history", "presence", "presence_stats"] {
                    assert_eq!(is_done(&mut client, method, &of_channel), expected, "{method} {name}");
                }
            }
            // A request has no subscription, and a WebSocket publishes to a channel that it is subscribed to.
            assert_eq!(post(&mut http, &channel), if before { 200 } else { 403 }, "{name}");
            // In a channel of their own, where no earlier publication is on its way.
            let channel = format!("{name}:2");
            let mut subscriber = WebSocket::connect(server.edge(), &format!("/ws?channel={channel}"));
            let mut publisher = WebSocket::connect(server.edge(), &format!("/ws?channel={channel}"));
            publisher.send_text("by WebSocket");
            for socket in [&mut publisher, &mut subscriber] {
                if after {
                    socket.expect_text("by WebSocket");
                }
                socket.round_trip();
            }
            let kept = http.call("history", &json!({"channel": channel, "limit": -1}));
            assert_eq!(kept.to_string().contains("by WebSocket"), after, "{name}");
        }
    }

    fn a_client_without_a_user_subscribes_where_the_right_includes_it(driver) {
        let server = server(driver);
        for (name, right, ..) in ROWS {
            let is_allowed = right.client && right.anonymous;
            let channel = format!("{name}-s:1");
            let mut client = Client::connect(server.commands());
            client.command(&json!({"id": 1, "connect": {}}));
            assert_eq!(is_done(&mut client, "subscribe", &json!({"channel": channel})), is_allowed, "{name}");
            for (route, allowed) in [("poll", 200), ("events", 200)] {
                let mut client = Client::connect(server.edge());
                client.send(format!("GET /{route}?channel={channel}&timeout=0 HTTP/1.1\r\nHost: t\r\n\r\n"));
                let status = client.read_response_head().status;
                assert_eq!(status, if is_allowed { allowed } else { 403 }, "{route} {name}");
            }
            let mut client = Client::connect(server.edge());
            client.send(format!(
                "GET /ws?channel={channel} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ));
            let status = client.read_response_head().status;
            assert_eq!(status, if is_allowed { 101 } else { 403 }, "WebSocket {name}");
        }
    }

    fn names_that_clients_may_not_use_are_refused_as_bad_requests(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            let channel_regex = Some(ChannelRegex::new("^[a-z]+$").unwrap());
            let options = ChannelOptions { channel_regex, ..ChannelOptions::open() };
            config.namespaces.add("words", options).unwrap();
            config.channel_bytes_max = 10;
        });
        let mut http = Client::connect(server.edge());
        let mut client = Client::connect(server.commands());
        client.command(&json!({"id": 1, "connect": {}}));
        for (channel, is_valid) in
            [("words:abcd", true), ("words:abcde", false), ("words:1", false), ("0123456789", true), ("0123456789a", false)]
        {
            let code = code_of(&mut client, "subscribe", &json!({"channel": channel}));
            assert_eq!(code, (!is_valid).then_some(107), "{channel}");
            assert_eq!(post(&mut http, channel), if is_valid { 200 } else { 400 }, "{channel}");
            // The server API may use every name.
            let published = http.call("publish", &json!({"channel": channel, "data": 1}));
            assert!(published["error"].is_null(), "{published}");
        }
    }
}
