//! Tokens for subscriptions, and what a backend says about subscriptions: names, overridden options.

use fantail::config::{CallbackKind, CallbackOption, ChannelOptions, ChannelRegex, DriverChoice};
use serde_json::{Value, json};

use crate::support::{
    Backend, BackendAnswer, Client, EventStream, Received, SECRET, TestServer, WebSocket,
    in_seconds, on_both_drivers, token, wait_until,
};

/// A server on which clients have no rights but those of tokens.
fn server(driver: DriverChoice, change: impl FnOnce(&mut fantail::config::Config)) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        change(config);
    })
}

/// A client of the command protocol, over TCP or WebSocket.
enum Commander {
    Tcp(Client),
    WebSocket(WebSocket),
}

impl Commander {
    /// Connects over each transport. Returns the clients and the answers.
    fn connect(server: &TestServer, parameters: &Value) -> [(Self, Value); 2] {
        let clients = [
            Self::Tcp(Client::connect(server.commands())),
            Self::WebSocket(WebSocket::connect(server.edge(), "/connection/websocket")),
        ];
        clients.map(|mut client| {
            let reply = client.command(&json!({"id": 1, "connect": parameters}));
            (client, reply)
        })
    }

    fn read(&mut self) -> Value {
        match self {
            Self::Tcp(client) => client.read_json(),
            Self::WebSocket(socket) => match socket.read() {
                Received::Text(text) => serde_json::from_str(&text).unwrap(),
                other => panic!("{other:?}"),
            },
        }
    }

    /// Sends a command. Returns its reply, and skips pushes before that.
    fn command(&mut self, command: &Value) -> Value {
        match self {
            Self::Tcp(client) => client.send(format!("{command}\n")),
            Self::WebSocket(socket) => socket.send_text(&command.to_string()),
        }
        loop {
            let reply = self.read();
            if reply["id"] == command["id"] {
                return reply;
            }
        }
    }
}

/// Names, and whether clients may use them where `channel_regex` is `^[a-z]+$` and names have at most 10 bytes.
const NAMES: [(&str, bool); 7] = [
    ("words:abcd", true),
    ("words:abcde", false),
    ("words:1", false),
    ("$words:abc", true),
    ("$words:1", false),
    ("words:a#b", false),
    ("0123456789a", false),
];

fn with_rules_for_names(config: &mut fantail::config::Config) {
    let channel_regex = Some(ChannelRegex::new("^[a-z]+$").unwrap());
    let options = ChannelOptions { channel_regex, ..ChannelOptions::closed() };
    config.namespaces.add("words", options).unwrap();
    config.channel_bytes_max = 10;
}

on_both_drivers! {
    fn a_token_is_not_the_right_to_a_name_that_clients_may_not_use(driver) {
        let server = server(driver, with_rules_for_names);
        let connect = json!({"token": token(&json!({"sub": "ann"}))});
        for (mut client, reply) in Commander::connect(&server, &connect) {
            assert!(reply["connect"]["client"].is_string(), "{reply}");
            for (channel, is_valid) in NAMES {
                let claims = json!({"sub": "ann", "channel": channel});
                let subscribe = json!({"channel": channel, "token": token(&claims)});
                let reply = client.command(&json!({"id": 2, "subscribe": subscribe}));
                let expected = if is_valid { Value::Null } else { json!(107) };
                assert_eq!(reply["error"]["code"], expected, "{channel}: {reply}");
                // The name is looked at before the token.
                let subscribe = json!({"channel": channel, "token": "x"});
                let reply = client.command(&json!({"id": 3, "subscribe": subscribe}));
                assert_eq!(reply["error"]["code"], if is_valid { 103 } else { 107 }, "{channel}");
            }
            let reply = client.command(&json!({"id": 4, "subscribe": {"channel": "no:1", "token": "x"}}));
            assert_eq!(reply["error"]["code"], 102, "{reply}");
        }
    }

    fn a_time_of_a_subscription_that_the_server_makes_has_no_effect(driver) {
        // As with Centrifugo 6.9.1, which has the member and does not read it.
        let subs = json!({"words:abcd": {"expire_at": 1, "data": [1]}});
        let answer = json!({"result": {"user": "bob", "subs": subs}});
        let backend = Backend::start(move |_| BackendAnswer::Json(answer.clone()));
        let server = server(driver, |config| {
            with_rules_for_names(config);
            config.expired_close_delay = std::time::Duration::ZERO;
            let connect = config.callbacks.of_mut(CallbackKind::Connect);
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&[backend.url("/")], connect).unwrap();
        });
        let shown = json!({"token": token(&json!({"sub": "ann", "subs": subs}))});
        for shown in [shown, json!({})] {
            for (mut client, reply) in Commander::connect(&server, &shown) {
                let subscribed = &reply["connect"]["subs"]["words:abcd"];
                assert_eq!(subscribed["data"], json!([1]), "{reply}");
                assert_eq!((&subscribed["expires"], &subscribed["ttl"]), (&Value::Null, &Value::Null));
                // Past the time at which it would end.
                std::thread::sleep(std::time::Duration::from_millis(1200));
                let call = json!({"channel": "words:abcd", "data": 2});
                Client::connect(server.edge()).call("publish", &call);
                assert_eq!(client.read()["push"]["pub"]["data"], 2);
            }
        }
    }

    fn a_backend_subscribes_its_clients_to_channels_of_any_name(driver) {
        let backend = Backend::start(|request| {
            BackendAnswer::Json(json!({"result": {"user": "bob", "channels": [request.body["data"]]}}))
        });
        let server = server(driver, |config| {
            with_rules_for_names(config);
            let connect = config.callbacks.of_mut(CallbackKind::Connect);
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&[backend.url("/")], connect).unwrap();
        });
        for (channel, _) in NAMES {
            for shown in [
                json!({"token": token(&json!({"sub": "ann", "channels": [channel]}))}),
                json!({"token": token(&json!({"sub": "ann", "subs": {channel: {}}}))}),
                json!({"data": channel}),
            ] {
                for (mut client, reply) in Commander::connect(&server, &shown) {
                    assert!(reply["connect"]["subs"][channel].is_object(), "{channel}: {reply}");
                    // It is the backend's choice alone.
                    let reply = client.command(&json!({"id": 2, "subscribe": {"channel": "words:2"}}));
                    assert_eq!(reply["error"]["code"], 107, "{reply}");
                }
            }
        }
    }

    fn a_backend_hides_a_subscriber_or_shows_that_it_joins(driver) {
        let server = server(driver, |config| {
            for (name, join_leave) in [("loud", true), ("quiet", false)] {
                let options = ChannelOptions { presence: true, join_leave, ..ChannelOptions::closed() };
                config.namespaces.add(name, options).unwrap();
            }
        });
        let mut http = Client::connect(server.edge());
        let connect = |user: &str| {
            let mut client = Client::connect(server.commands());
            client.command(&json!({"id": 1, "connect": {"token": token(&json!({"sub": user}))}}));
            client
        };
        let subscribe = |client: &mut Client, user: &str, channel: &str, overrides: &Value| {
            let claims = json!({"sub": user, "channel": channel, "override": overrides});
            let subscribe = json!({"channel": channel, "token": token(&claims)});
            let reply = client.command(&json!({"id": 2, "subscribe": subscribe}));
            assert!(reply["error"].is_null(), "{reply}");
        };
        let (on, off) = (json!({"value": true}), json!({"value": false}));
        for (channel, overrides, is_listed, is_seen) in [
            ("loud:1", json!({}), true, true),
            ("loud:2", json!({"presence": off}), false, true),
            ("loud:3", json!({"presence": on, "join_leave": off}), true, false),
            ("quiet:1", json!({}), true, false),
            ("quiet:2", json!({"join_leave": on}), true, true),
            ("quiet:3", json!({"presence": off, "force_positioning": off}), false, false),
        ] {
            let mut watcher = connect("watcher");
            subscribe(&mut watcher, "watcher", channel, &json!({}));
            let mut guest = connect("guest");
            subscribe(&mut guest, "guest", channel, &overrides);
            let counts = |http: &mut Client| {
                let of_channel = json!({"channel": channel});
                let stats = http.call("presence_stats", &of_channel)["result"].clone();
                let presence = http.call("presence", &of_channel);
                let listed = presence["result"]["presence"].as_object().unwrap();
                let is_listed = listed.values().any(|client| client["user"] == "guest");
                let clients = stats["num_clients"].as_u64().unwrap();
                assert_eq!((listed.len() as u64, stats["num_users"].as_u64()), (clients, Some(clients)));
                (is_listed, clients)
            };
            let expected = (is_listed, 1 + u64::from(is_listed));
            assert_eq!(counts(&mut http), expected, "{channel}");
            // A new token changes until when it lasts, not these.
            let refresh = json!({"channel": channel, "token": token(&json!({"sub": "guest", "channel": channel}))});
            guest.command(&json!({"id": 3, "sub_refresh": refresh}));
            assert_eq!(counts(&mut http), expected, "{channel}");
            drop(guest);
            wait_until("the guest is gone", || {
                let left = http.call("connections", &json!({"channel": channel}));
                left["result"]["connections"].as_object().unwrap().len() == 1
            });
            assert_eq!(counts(&mut http), (false, 1), "{channel}");
            // What the watcher has seen of the guest, until a publication that follows it.
            std::thread::sleep(std::time::Duration::from_millis(1100));
            http.call("publish", &json!({"channel": channel, "data": "end"}));
            let mut seen = Vec::new();
            loop {
                let push = watcher.read_json()["push"].clone();
                if push["pub"]["data"] == "end" {
                    break;
                }
                for kind in ["join", "leave"] {
                    if push[kind]["info"]["user"] == "guest" {
                        seen.push(kind);
                    }
                }
            }
            let expected: &[&str] = if is_seen { &["join", "leave"] } else { &[] };
            assert_eq!(seen, expected, "{channel}");
        }
    }

    fn a_backend_decides_whether_a_subscriber_recovers(driver) {
        let server = server(driver, |config| {
            for (name, recovery) in [("kept", true), ("lost", false)] {
                let options = ChannelOptions { history_size: 10, recovery, ..ChannelOptions::closed() };
                config.namespaces.add(name, options).unwrap();
            }
            config.namespaces.add("none", ChannelOptions::closed()).unwrap();
        });
        let mut http = Client::connect(server.edge());
        let (on, off) = (json!({"value": true}), json!({"value": false}));
        for (channel, overrides, recovers) in [
            ("kept:1", json!({}), true),
            ("kept:1", json!({"force_recovery": off}), false),
            ("lost:1", json!({}), false),
            ("lost:1", json!({"force_recovery": on}), true),
            ("none:1", json!({"force_recovery": on}), false),
        ] {
            http.call("publish", &json!({"channel": channel, "data": 1}));
            let claims = json!({"sub": "ann", "channel": channel, "override": overrides});
            let subscribe = json!({
                "channel": channel, "recover": true, "offset": 0, "token": token(&claims)
            });
            let connect = json!({"token": token(&json!({"sub": "ann"}))});
            for (mut client, _) in Commander::connect(&server, &connect) {
                let reply = client.command(&json!({"id": 2, "subscribe": subscribe}));
                let reply = &reply["subscribe"];
                assert_eq!(reply["recoverable"], recovers, "{channel} {overrides}: {reply}");
                assert_eq!(reply["recovered"], recovers, "{channel} {overrides}: {reply}");
                let publications = reply["publications"].as_array().unwrap();
                assert_eq!(!publications.is_empty(), recovers, "{channel} {overrides}: {reply}");
            }
            // By the claims of a token for the connection, too.
            let claims = json!({"sub": "ann", "subs": {channel: {"override": overrides}}});
            let since = json!({channel: {"recover": true, "offset": 0, "epoch": ""}});
            let connect = json!({"token": token(&claims), "subs": since});
            for (_, reply) in Commander::connect(&server, &connect) {
                let reply = &reply["connect"]["subs"][channel];
                assert_eq!(reply["recoverable"], recovers, "{channel} {overrides}: {reply}");
                assert_eq!(reply["recovered"], recovers, "{channel} {overrides}: {reply}");
            }
        }
    }

    fn the_server_api_and_the_callbacks_replace_options_too(driver) {
        let backend = Backend::start(|request| {
            let result = json!({"override": {"presence": {"value": request.body["channel"] == "asked:1"}}});
            BackendAnswer::Json(json!({"result": result}))
        });
        let server = server(driver, |config| {
            let subscribe = config.callbacks.of_mut(CallbackKind::Subscribe);
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&[backend.url("/")], subscribe).unwrap();
            let options = ChannelOptions { presence: true, callback_subscribe: true, ..ChannelOptions::closed() };
            config.namespaces.add("asked", options).unwrap();
        });
        let mut http = Client::connect(server.edge());
        let connect = json!({"token": token(&json!({"sub": "ann"}))});
        let mut clients = Commander::connect(&server, &connect).map(|(client, _)| client);
        for (channel, is_listed) in [("asked:1", true), ("asked:2", false)] {
            for client in &mut clients {
                client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
            }
            let stats = http.call("presence_stats", &json!({"channel": channel}));
            assert_eq!(stats["result"]["num_clients"], if is_listed { 2 } else { 0 }, "{stats}");
        }
        for (channel, value) in [("asked:3", true), ("asked:4", false)] {
            let overrides = json!({"presence": {"value": value}});
            let subscribe = json!({"user": "ann", "channel": channel, "override": overrides});
            assert_eq!(http.call("subscribe", &subscribe), json!({"result": {}}));
            let subscribed = http.call("connections", &json!({"channel": channel}));
            assert_eq!(subscribed["result"]["connections"].as_object().unwrap().len(), 2, "{subscribed}");
            let stats = http.call("presence_stats", &json!({"channel": channel}));
            assert_eq!(stats["result"]["num_clients"], if value { 2 } else { 0 }, "{stats}");
        }
    }
}

/// What a route answers to a request with these headers: its status and code.
#[track_caller]
fn answered(server: &TestServer, target: &str, headers: &str) -> (u16, Value) {
    let mut client = Client::connect(server.edge());
    let request = WebSocket::request(target);
    client.send(match target.starts_with("/ws") {
        true => request.replacen("Host:", &format!("{headers}Host:"), 1),
        false => format!("GET {target} HTTP/1.1\r\nHost: t\r\n{headers}\r\n"),
    });
    let response = client.read_response_head();
    let is_refused = response.status >= 400;
    let length = response.header("content-length").unwrap_or("0").parse().unwrap();
    let body = if is_refused { client.read_exactly(length) } else { Vec::new() };
    let error: Value = serde_json::from_slice(&body).unwrap_or_default();
    (response.status, error["error"]["code"].clone())
}

fn authorization(user: &str) -> String {
    format!("Authorization: Bearer {}\r\n", token(&json!({"sub": user})))
}

on_both_drivers! {
    fn every_route_over_http_takes_tokens_for_channels(driver) {
        let server = server(driver, with_rules_for_names);
        let of = |user: &str, channel: &str| token(&json!({"sub": user, "channel": channel}));
        let ann = authorization("ann");
        let expired = token(&json!({"sub": "ann", "channel": "$words:a", "exp": in_seconds(-9)}));
        let of_other_client = token(&json!({"sub": "ann", "channel": "$words:a", "client": "x"}));
        let refused = |status: u16, code: &str| (status, json!(code));
        let rows = [
            (ann.clone(), None, refused(403, "permission_denied")),
            (ann.clone(), Some("x".to_owned()), refused(403, "permission_denied")),
            (ann.clone(), Some(expired), refused(401, "token_expired")),
            (ann.clone(), Some(of("ann", "words:b")), refused(401, "token_invalid")),
            (ann.clone(), Some(of("ben", "$words:a")), refused(401, "token_invalid")),
            (ann.clone(), Some(of_other_client), refused(401, "token_invalid")),
            (String::new(), Some(of("ann", "$words:a")), refused(401, "token_missing")),
            // A token for the connection is not one for a channel.
            (ann.clone(), Some(token(&json!({"sub": "ann"}))), refused(403, "permission_denied")),
        ];
        for (who, shown, expected) in rows {
            let shown = shown.map(|token| format!("Subscription-Token: {token}\r\n"));
            let headers = format!("{who}{}", shown.unwrap_or_default());
            for route in ["/ws", "/events", "/poll"] {
                let target = format!("{route}?channel=$words:a&timeout=0");
                assert_eq!(answered(&server, &target, &headers), expected, "{route} {headers}");
            }
        }
        // Two private channels, and the tokens in another order; one that is needed is missing; one is not needed.
        let [a, b] = ["$words:a", "$words:b"].map(|channel| of("ann", channel));
        let channels = "?channel=$words:a&channel=$words:b&timeout=0";
        let both = format!("{ann}Subscription-Token: {b}, {a}\r\n");
        let one = format!("{ann}Subscription-Token: {b}\r\n");
        let none = format!("{ann}Subscription-Token: {b}, {}\r\n", of("ann", "words:c"));
        for (route, done) in [("/ws", 101), ("/events", 200), ("/poll", 200)] {
            let target = format!("{route}{channels}");
            assert_eq!(answered(&server, &target, &both), (done, Value::Null), "{route}");
            assert_eq!(answered(&server, &target, &one), refused(403, "permission_denied"));
            assert_eq!(answered(&server, &target, &none), refused(400, "subscription_token_invalid"));
        }
        let mut events = EventStream::connect_with(server.edge(), &format!("/events{channels}"), &both);
        let mut socket = WebSocket::over(Client::connect(server.edge()));
        let offered = format!("Sec-WebSocket-Protocol: chat, bearer.{}, subscription.{a}\r\nHost:",
            token(&json!({"sub": "ann"})));
        socket.client.send(WebSocket::request("/ws?channel=$words:a").replacen("Host:", &offered, 1));
        assert_eq!(socket.read_upgrade().header("sec-websocket-protocol"), Some("chat"));
        Client::connect(server.edge()).call("publish", &json!({"channel": "$words:a", "data": 1}));
        events.expect("1");
        socket.expect_text("1");
    }

    fn the_query_has_tokens_for_channels_only_where_that_is_allowed(driver) {
        for is_allowed in [false, true] {
            let server = server(driver, |config| {
                with_rules_for_names(config);
                config.token_in_query = is_allowed;
            });
            let shown = token(&json!({"sub": "ann", "channel": "$words:a"}));
            for (route, done) in [("/ws", 101), ("/events", 200), ("/poll", 200)] {
                let target =
                    format!("{route}?channel=$words:a&timeout=0&subscription_token={shown}");
                let expected = if is_allowed { done } else { 403 };
                assert_eq!(answered(&server, &target, &authorization("ann")).0, expected, "{route}");
            }
        }
    }

    fn a_subscription_over_http_ends_with_its_token(driver) {
        let server = server(driver, |config| {
            with_rules_for_names(config);
            config.expired_close_delay = std::time::Duration::ZERO;
        });
        let claims = json!({"sub": "ann", "channel": "$words:a", "exp": in_seconds(3)});
        let headers = format!("{}Subscription-Token: {}\r\n", authorization("ann"), token(&claims));
        let target = "/events?channel=$words:a";
        let mut events = EventStream::connect_with(server.edge(), target, &headers);
        let mut socket = WebSocket::over(Client::connect(server.edge()));
        let request = WebSocket::request("/ws?channel=$words:a");
        socket.client.send(request.replacen("Host:", &format!("{headers}Host:"), 1));
        socket.read_upgrade();
        let ended = events.read();
        assert_eq!((&*ended.kind, &*ended.data), ("unsubscribe", r#"{"channel":"$words:a"}"#));
        socket.expect_close(3005);
        assert_eq!(answered(&server, target, &headers), (401, json!("token_expired")));
    }

    fn a_backend_gets_the_token_for_a_channel_where_no_key_verifies_it(driver) {
        let backend = Backend::start(|request| {
            let is_shown = request.body["token"] == "secret";
            let refusal = json!({"error": {"code": 1000, "message": "no"}});
            BackendAnswer::Json(if is_shown { json!({"result": {}}) } else { refusal })
        });
        let server = TestServer::start_with(driver, 2, |config| {
            let subscribe = config.callbacks.of_mut(CallbackKind::Subscribe);
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&[backend.url("/")], subscribe).unwrap();
            let options = ChannelOptions { callback_subscribe: true, ..ChannelOptions::closed() };
            config.namespaces.add("asked", options).unwrap();
        });
        for (shown, is_let_in) in [("secret", true), ("guess", false)] {
            for (route, done) in [("/ws", 101), ("/events", 200), ("/poll", 200)] {
                let target = format!("{route}?channel=asked:1&timeout=0");
                let headers = format!("Subscription-Token: {shown}\r\n");
                let expected = if is_let_in { done } else { 403 };
                assert_eq!(answered(&server, &target, &headers).0, expected, "{route} {shown}");
            }
        }
    }
}
