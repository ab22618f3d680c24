//! Identities of clients: tokens by every route, what is answered to those that are not accepted, and expiry.

use std::time::{Duration, Instant};

use fantail::auth::TokenError;
use fantail::config::limits::INVALID_TOKENS_MAX;
use fantail::config::{ChannelOptions, ClientRight, DriverChoice};
use fantail::message::CloseReason;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    Child, Client, EventStream, Response, SECRET, TempFile, TestServer, WebSocket, in_seconds,
    on_both_drivers, token, token_by, wait_until,
};

/// A server that verifies tokens. Users may do everything in the namespace `users`, all clients in `all`, and only who
/// has a token for the channel subscribes in `none`.
fn server_with(
    driver: DriverChoice,
    change: impl FnOnce(&mut fantail::config::Config),
) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.expired_close_delay = Duration::ZERO;
        let users = ClientRight { client: true, subscriber: false, anonymous: false };
        for (name, right) in
            [("users", users), ("all", ClientRight::ALL), ("none", ClientRight::NONE)]
        {
            let options = ChannelOptions {
                history_size: 10,
                presence: true,
                join_leave: true,
                allow_subscribe: right,
                allow_publish: right,
                allow_history: right,
                allow_presence: right,
                ..ChannelOptions::closed()
            };
            config.namespaces.add(name, options).unwrap();
        }
        change(config);
    })
}

fn server(driver: DriverChoice) -> TestServer {
    server_with(driver, |_| {})
}

/// Connects over TCP. Returns the client and the answer.
#[track_caller]
fn connect(server: &TestServer, parameters: &Value) -> (Client, Value) {
    let mut client = Client::connect(server.commands());
    let reply = client.command(&json!({"id": 1, "connect": parameters}));
    (client, reply)
}

/// Connects as a user. Returns the client, once it is connected.
#[track_caller]
fn connect_as(server: &TestServer, user: &str) -> Client {
    let (client, reply) = connect(server, &json!({"token": token(&json!({"sub": user}))}));
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    client
}

/// The push that ends a connection, and its end.
#[track_caller]
fn expect_disconnect(client: &mut Client, code: u64) {
    let push = client.read_json();
    assert_eq!(push["push"]["disconnect"]["code"], code, "{push}");
    client.expect_end();
}

/// Tokens that are not accepted: the code by which the client is disconnected, or the error 109, and the cause.
fn bad_tokens() -> Vec<(String, u64, TokenError)> {
    let claims = json!({"sub": "ann", "aud": "here"});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        token(&claims)
    };
    let good = token(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (_, payload) = signed.split_once('.').unwrap();
    vec![
        ("not-a-token".to_owned(), 3500, TokenError::Malformed),
        ("a.b.c".to_owned(), 3500, TokenError::Malformed),
        (format!("{signed}."), 3500, TokenError::Signature),
        (format!("{signed}.{}", signature.to_lowercase()), 3500, TokenError::Signature),
        // {"alg":"none"}
        (format!("eyJhbGciOiJub25lIn0.{payload}."), 3500, TokenError::Algorithm),
        (token_by("another-secret", Algorithm::HS256, &claims), 3500, TokenError::Signature),
        (with("aud", json!("there")), 3500, TokenError::Audience),
        (token(&json!({"sub": "ann"})), 3500, TokenError::Audience),
        (with("sub", json!(7)), 3500, TokenError::Claims),
        (with("channel", json!("a")), 3500, TokenError::Claims),
        (with("exp", json!(in_seconds(-10))), 109, TokenError::Expired),
        (with("exp", json!(1)), 109, TokenError::Expired),
        (with("nbf", json!(in_seconds(1000))), 109, TokenError::NotYetValid),
        (with("info", json!("x".repeat(20_000))), 3500, TokenError::TooLarge),
    ]
}

fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: t\r\n{headers}\r\n")
}

/// The answer to a request on a connection that is kept.
#[track_caller]
fn answer(client: &mut Client, line: &str, headers: &str) -> Response {
    client.send(request(line, headers));
    client.read_response()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

on_both_drivers! {
    fn a_client_of_the_command_protocol_shows_a_token(driver) {
        let server = server(driver);
        let ttl = |reply: &Value| reply["connect"]["ttl"].as_u64();
        let (mut ann, reply) = connect(&server, &json!({"token": token(&json!({"sub": "ann", "info": {"a": 1}}))}));
        assert_eq!((ttl(&reply), reply["connect"].get("expires")), (None, None), "{reply}");
        let (_, reply) = connect(&server, &json!({"token": token(&json!({"sub": "ann", "exp": in_seconds(100)}))}));
        assert_eq!(reply["connect"]["expires"], true, "{reply}");
        assert!((98..=100).contains(&ttl(&reply).unwrap()), "{reply}");
        // What others see of it.
        let mut bob = connect_as(&server, "bob");
        bob.command(&json!({"id": 2, "subscribe": {"channel": "users:1"}}));
        ann.command(&json!({"id": 2, "subscribe": {"channel": "users:1"}}));
        let join = loop {
            let push = bob.read_json();
            if push["push"]["join"]["info"]["user"] == "ann" {
                break push;
            }
        };
        assert_eq!(join["push"]["join"]["info"]["conn_info"], json!({"a": 1}), "{join}");
    }

    fn a_client_without_a_valid_token_is_not_connected(driver) {
        let server = server_with(driver, |config| config.audience = Some("here".to_owned()));
        let (mut client, push) = connect(&server, &json!({}));
        assert_eq!(push["push"]["disconnect"]["code"], 3501, "{push}");
        client.expect_end();
        for (token, code, cause) in bad_tokens() {
            let before = server.sum(|counters| &counters.tokens_rejected[cause as usize]);
            let (mut client, reply) = connect(&server, &json!({"token": token}));
            if code == 109 {
                assert_eq!(reply["error"]["code"], 109, "{reply}");
                // The client may try again.
                let good = token_by(SECRET, Algorithm::HS512, &json!({"sub": "ann", "aud": ["here"]}));
                let reply = client.command(&json!({"id": 2, "connect": {"token": good}}));
                assert!(reply["connect"]["client"].is_string(), "{reply}");
            } else {
                assert_eq!(reply["push"]["disconnect"]["code"], code, "{cause:?}: {reply}");
                client.expect_end();
            }
            assert_eq!(server.sum(|counters| &counters.tokens_rejected[cause as usize]), before + 1, "{cause:?}");
            // The same by every route that speaks HTTP.
            let http_code = if code == 109 { "token_expired" } else { "token_invalid" };
            // A head has room for less than a command.
            if cause == TokenError::TooLarge {
                continue;
            }
            for (line, more) in [
                ("GET /poll?channel=all:1", ""),
                ("GET /events?channel=all:1", ""),
                ("POST /publish?channel=all:1", "Content-Length: 1\r\n"),
                ("GET /ws?channel=all:1", UPGRADE),
            ] {
                let mut client = Client::connect(server.edge());
                client.send(request(line, &(bearer(&token) + more)));
                if line.starts_with("POST") {
                    client.send("x");
                }
                let response = client.read_response();
                assert_eq!(response.status, 401, "{line} {cause:?}: {response:?}");
                assert_eq!(response.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
                assert_eq!(response.json()["error"]["code"], http_code, "{line} {cause:?}: {response:?}");
            }
        }
        let invalid = server.closed(CloseReason::TokenInvalid);
        assert_eq!(invalid, bad_tokens().iter().filter(|(_, code, _)| *code == 3500).count() as u64);
    }

    fn requests_without_a_token_are_refused_before_their_body(driver) {
        let server = server(driver);
        for (line, more) in [
            ("GET /poll?channel=all:1", ""),
            ("GET /events?channel=all:1", ""),
            ("POST /publish?channel=all:1", "Content-Length: 1000\r\n"),
            ("GET /ws?channel=all:1", UPGRADE),
            ("GET /?channel=all:1", UPGRADE),
        ] {
            let mut client = Client::connect(server.edge());
            let response = answer(&mut client, line, more);
            assert_eq!(response.status, 401, "{line}: {response:?}");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"), "{line}");
            assert_eq!(response.json()["error"]["code"], "token_missing", "{line}: {response:?}");
        }
        // What is for everyone needs none.
        let mut client = Client::connect(server.edge());
        for path in ["/", "/health/live", "/health/ready", "/metrics"] {
            assert_eq!(client.get(path).status, 200, "{path}");
        }
    }

    /// Proxies keep connections, and send the requests of many clients on each.
    fn each_request_of_a_connection_has_an_identity_of_its_own(driver) {
        let server = server_with(driver, |config| config.anonymous = Some(true));
        let mut http = Client::connect(server.edge());
        let (ann, bob) = (token(&json!({"sub": "ann"})), token(&json!({"sub": "bob"})));
        for (shown, status) in [
            (bearer(&ann), 200),
            (String::new(), 403),
            (bearer(&bob), 200),
            (String::new(), 403),
            (bearer(&token(&json!({"sub": "ann", "exp": 1}))), 401),
            (String::new(), 403),
        ] {
            http.send(request("POST /publish?channel=users:1", &(shown.clone() + "Content-Length: 1\r\n")));
            http.send("1");
            assert_eq!(http.read_response().status, status, "{shown}");
            if status == 200 {
                let polled = answer(&mut http, "GET /poll?channel=users:1&timeout=0", &shown);
                assert!(polled.status < 300, "{polled:?}");
            }
        }
        // The poll of a client that has none, behind one of a client that has one.
        let polled = answer(&mut http, "GET /poll?channel=users:1&timeout=0", &bearer(&ann));
        assert!(polled.status < 300, "{polled:?}");
        assert_eq!(answer(&mut http, "GET /poll?channel=users:1&timeout=0", "").status, 403);
    }

    /// Else one connection could have any number of signatures verified.
    fn an_invalid_token_ends_its_http_connection_and_one_that_has_expired_does_not(driver) {
        let server = server_with(driver, |config| config.anonymous = Some(true));
        let rejected = |cause: TokenError| server.sum(|counters| &counters.tokens_rejected[cause as usize]);
        let forged = |claims: &Value| token_by("another-secret", Algorithm::HS256, claims);
        let invalid = bearer(&forged(&json!({"sub": "ann"})));
        // What says itself that its time is over is not verified.
        let expired = bearer(&forged(&json!({"sub": "ann", "exp": 1})));
        let mut before = 0;
        for (line, more, body) in [
            ("GET /poll?channel=all:1&timeout=0", "", ""),
            ("GET /events?channel=all:1", "", ""),
            ("POST /publish?channel=all:1", "Content-Length: 1\r\n", "1"),
            ("GET /ws?channel=all:1", UPGRADE, ""),
        ] {
            let mut client = Client::connect(server.edge());
            client.send((request(line, &(invalid.clone() + more)) + body).repeat(3));
            let response = client.read_response();
            assert_eq!(response.status, 401, "{line}: {response:?}");
            assert_eq!(response.json()["error"]["code"], "token_invalid", "{line}: {response:?}");
            assert_eq!(response.header("connection"), Some("close"), "{line}");
            client.expect_end();
            before += 1;
            assert_eq!(rejected(TokenError::Signature), before, "{line}: one of the three was verified");
            if more == UPGRADE {
                continue;
            }
            let mut client = Client::connect(server.edge());
            client.send((request(line, &(expired.clone() + more)) + body).repeat(20));
            for _ in 0..20 {
                let response = client.read_response();
                assert_eq!(response.json()["error"]["code"], "token_expired", "{line}: {response:?}");
            }
            client.send(request(line, &(bearer(&token(&json!({"sub": "ann"}))) + more)) + body);
            let status = client.read_response_head().status;
            assert!(status < 300, "{line}: {status}");
        }
        assert_eq!(rejected(TokenError::Expired), 60);
    }

    fn many_invalid_tokens_for_channels_end_the_connection(driver) {
        let server = server(driver);
        let subscribe = |token: &str| json!({"id": 2, "subscribe": {"channel": "none:1", "token": token}});
        let mut ann = connect_as(&server, "ann");
        let expired = token_by("another-secret", Algorithm::HS256, &json!({"channel": "none:1", "exp": 1}));
        for _ in 0..2 * INVALID_TOKENS_MAX {
            assert_eq!(ann.command(&subscribe(&expired))["error"]["code"], 109);
        }
        for _ in 1..INVALID_TOKENS_MAX {
            assert_eq!(ann.command(&subscribe("x"))["error"]["code"], 103);
        }
        let valid = token(&json!({"sub": "ann", "channel": "none:1"}));
        let reply = ann.command(&subscribe(&valid));
        assert!(reply["subscribe"].is_object(), "{reply}");
        while ann.command(&json!({"id": 3, "ping": {}}))["id"] != 3 {}
        ann.send(format!("{}\n", subscribe("x")));
        expect_disconnect(&mut ann, 3500);
    }

    fn a_client_goes_on_with_a_new_token(driver) {
        let server = server(driver);
        let exp = |seconds| json!({"sub": "ann", "exp": in_seconds(seconds)});
        let refresh = |token: &str| json!({"id": 2, "refresh": {"token": token}});
        let mut ann = connect_as(&server, "ann");
        let reply = ann.command(&refresh(&token(&exp(60))));
        assert_eq!(reply["refresh"]["expires"], true, "{reply}");
        assert!((58..=60).contains(&reply["refresh"]["ttl"].as_u64().unwrap()), "{reply}");
        let reply = ann.command(&refresh(&token(&json!({"sub": "ann"}))));
        assert_eq!((&reply["refresh"]["expires"], reply["refresh"].get("ttl")), (&json!(false), None));
        // Who refreshes with something else is disconnected.
        for (shown, code) in [
            (token(&exp(-60)), 3005),
            (token(&json!({"sub": "bob"})), 3500),
            (token(&json!({})), 3500),
            ("x".to_owned(), 3500),
            (String::new(), 3501),
        ] {
            let mut ann = connect_as(&server, "ann");
            ann.send(format!("{}\n", refresh(&shown)));
            expect_disconnect(&mut ann, code);
        }
    }

    fn a_client_stays_who_it_is_when_tokens_are_ignored_from_now_on(driver) {
        let with_key = format!("[auth]\nhmac_secret = '{SECRET}'\n");
        let file = TempFile::new(&format!("reload-tokens-{driver:?}"), &with_key);
        let child = Child::start(driver, &["--config", file.path(), "--workers", "1"]);
        let mut ann = Client::connect(child.commands());
        ann.command(&json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}}));
        ann.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        file.write("");
        child.signal(libc::SIGHUP);
        wait_until("tokens are ignored", || {
            let mut client = Client::connect(child.commands());
            client.command(&json!({"id": 1, "connect": {}})).get("connect").is_some()
        });
        let reply = ann.command(&json!({"id": 3, "refresh": {"token": "x"}}));
        assert_eq!(reply["refresh"]["expires"], false, "{reply}");
        let reply = ann.command(&json!({"id": 4, "presence": {"channel": "a"}}));
        let clients = reply["presence"]["presence"].as_object().unwrap();
        assert!(clients.values().all(|client| client["user"] == "ann"), "{reply}");
        assert_eq!(clients.len(), 1, "{reply}");
    }

    fn a_client_that_closed_its_end_stays_only_for_its_subscriptions_and_answers(driver) {
        let server = server(driver);
        let [mut one, mut subscriber] = [(); 2].map(|()| connect_as(&server, "ann"));
        subscriber.command(&json!({"id": 2, "subscribe": {"channel": "all:1"}}));
        let gone = connect_as(&server, "ann");
        let began = Instant::now();
        drop(gone);
        one.end();
        subscriber.end();
        one.expect_end();
        let open = || server.sum(|counters| &counters.connections_open);
        wait_until("clients without subscriptions are gone", || open() == 1);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        Client::connect(server.edge()).call("publish", &json!({"channel": "all:1", "data": "late"}));
        while !subscriber.read_json().to_string().contains("late") {}
    }

    fn clients_connect_to_a_channel_that_is_busy_meanwhile(driver) {
        let server = server_with(driver, |config| config.handshake_timeout = Duration::from_secs(60));
        let mut publisher = connect_as(&server, "bob");
        let publish = |channel: &str, data: &str| {
            json!({"id": 2, "publish": {"channel": channel, "data": data}})
        };
        for channel in ["all:1", "all:2", "all:3"] {
            publisher.command(&publish(channel, &"x".repeat(10_000)));
        }
        let channels = ["all:1", "all:2", "all:3"];
        let shown = token(&json!({"sub": "ann", "channels": channels}));
        let since = json!({"recover": true, "offset": 0, "epoch": ""});
        let subs: Value = channels.iter().map(|name| ((*name).to_owned(), since.clone())).collect();
        let connect = format!("{}\n", json!({"id": 1, "connect": {"token": shown, "subs": subs}}));
        // Each recovers in turn, and gets what is published to the first channel between its subscriptions.
        let mut clients: Vec<_> = (0..100).map(|_| Client::connect(server.commands())).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&connect);
            publisher.send(format!("{}\n", publish("all:1", &index.to_string())));
        }
        for client in &mut clients {
            let reply = client.read_json();
            assert!(reply["connect"]["subs"].is_object(), "{reply}");
        }
        let last = clients.last_mut().unwrap();
        publisher.send(format!("{}\n", publish("all:1", "last")));
        while !last.read_json().to_string().contains("last") {}
    }

    fn what_expires_with_a_token_expires_later_by_the_leeway(driver) {
        let server = server_with(driver, |config| config.leeway = Duration::from_secs(60));
        let claims = |seconds| json!({"sub": "ann", "exp": in_seconds(seconds)});
        let is_left = |ttl: &Value| (28..=30).contains(&ttl.as_u64().unwrap());
        let (mut ann, reply) = connect(&server, &json!({"token": token(&claims(-30))}));
        assert!(is_left(&reply["connect"]["ttl"]), "{reply}");
        let mut of_channel = claims(-30);
        of_channel["channel"] = json!("none:1");
        let subscribe = json!({"channel": "none:1", "token": token(&of_channel)});
        let reply = ann.command(&json!({"id": 2, "subscribe": subscribe}));
        assert!(is_left(&reply["subscribe"]["ttl"]), "{reply}");
        let (_, reply) = connect(&server, &json!({"token": token(&claims(-60))}));
        assert_eq!(reply["error"]["code"], 109, "{reply}");
    }

    fn a_token_for_a_channel_is_the_right_to_subscribe(driver) {
        let server = server(driver);
        let subscribe = |channel: &str, claims: &Value| {
            json!({"id": 2, "subscribe": {"channel": channel, "token": token(claims)}})
        };
        let claims = json!({
            "sub": "ann", "channel": "none:1", "info": {"a": 1}, "data": [7], "exp": in_seconds(60)
        });
        let mut ann = connect_as(&server, "ann");
        let of_channel = json!({"channel": "none:1"});
        let reply = ann.command(&json!({"id": 2, "subscribe": of_channel}));
        assert_eq!(reply["error"]["code"], 103, "{reply}");
        let reply = ann.command(&subscribe("none:1", &claims));
        assert_eq!((&reply["subscribe"]["expires"], &reply["subscribe"]["data"]), (&json!(true), &json!([7])));
        let join = ann.read_json();
        assert_eq!(join["push"]["join"]["info"]["chan_info"], json!({"a": 1}), "{join}");
        // The subscription goes on with a new token, which may come after the old one expired.
        let refresh = |channel: &str, claims: &Value| {
            json!({"id": 3, "sub_refresh": {"channel": channel, "token": token(claims)}})
        };
        let reply = ann.command(&refresh("none:1", &json!({"sub": "ann", "channel": "none:1", "exp": in_seconds(90)})));
        assert!((88..=90).contains(&reply["sub_refresh"]["ttl"].as_u64().unwrap()), "{reply}");
        let reply = ann.command(&refresh("none:1", &json!({"sub": "ann", "channel": "none:1"})));
        assert_eq!(reply["sub_refresh"]["expires"], false, "{reply}");
        let reply = ann.command(&refresh("none:2", &json!({"sub": "ann", "channel": "none:2"})));
        assert_eq!(reply["error"]["code"], 103, "it is not subscribed: {reply}");
        let expired = json!({"sub": "ann", "channel": "none:1", "exp": 1});
        assert_eq!(ann.command(&refresh("none:1", &expired))["error"]["code"], 109);
        // What is refused, and the client stays.
        for (command, code) in [
            (subscribe("none:2", &json!({"sub": "ann", "channel": "none:2", "exp": 1})), 109),
            (subscribe("none:2", &json!({"sub": "ann", "channel": "none:2", "expire_at": 1})), 109),
            (json!({"id": 2, "subscribe": {"channel": "none:2", "token": "x"}}), 103),
            (subscribe("nowhere:2", &json!({"sub": "ann", "channel": "nowhere:2"})), 102),
        ] {
            let reply = ann.command(&command);
            assert_eq!(reply["error"]["code"], code, "{command}: {reply}");
        }
        // A token of another user, or for something else.
        for (channel, claims) in [
            ("none:2", json!({"sub": "bob", "channel": "none:2"})),
            ("none:2", json!({"channel": "none:2"})),
            ("none:2", json!({"sub": "ann", "channel": "none:3"})),
            ("none:2", json!({"sub": "ann", "channel": "none:2", "client": "another"})),
        ] {
            let mut ann = connect_as(&server, "ann");
            ann.send(format!("{}\n", subscribe(channel, &claims)));
            expect_disconnect(&mut ann, 3500);
        }
    }

    fn the_server_subscribes_a_client_to_the_channels_of_its_token(driver) {
        let server = server_with(driver, |config| {
            let options = ChannelOptions { history_size: 10, join_leave: true, ..ChannelOptions::closed() };
            config.namespaces.add("own", options).unwrap();
            config.subscriptions_max = 5;
        });
        let mut http = Client::connect(server.edge());
        let publish = |http: &mut Client, data: u64| {
            http.call("publish", &json!({"channel": "own:1", "data": data}))["result"].clone()
        };
        let first = publish(&mut http, 1);
        publish(&mut http, 2);
        let claims = json!({"sub": "ann", "channels": ["own:1", "own:2", "own:3", "own:4", "own:5"]});
        let (mut ann, reply) = connect(&server, &json!({"token": token(&claims)}));
        let subs = reply["connect"]["subs"].as_object().unwrap();
        assert_eq!(subs.len(), 5, "{reply}");
        assert_eq!(subs["own:1"]["offset"], 2, "{reply}");
        assert_eq!(subs["own:1"]["recoverable"], true, "{reply}");
        // What is published, and that it joined, follows the reply.
        publish(&mut http, 3);
        let mut seen = Vec::new();
        while seen.len() < 6 {
            let push = ann.read_json()["push"].clone();
            seen.push((push["channel"].as_str().unwrap().to_owned(), push.get("join").is_some(), push["pub"]["data"].clone()));
        }
        assert!(seen.contains(&("own:1".to_owned(), false, json!(3))), "{seen:?}");
        assert_eq!(seen.iter().filter(|(_, is_join, _)| *is_join).count(), 5, "{seen:?}");
        // A client that was connected before recovers.
        let since = json!({"own:1": {"recover": true, "offset": first["offset"], "epoch": first["epoch"]}});
        let claims = json!({"sub": "bob", "subs": {"own:1": {"data": {"hello": 1}}, "own:2": {}}});
        let (_, reply) = connect(&server, &json!({"token": token(&claims), "subs": since}));
        let recovered = &reply["connect"]["subs"]["own:1"];
        assert_eq!((&recovered["recovered"], &recovered["data"]), (&json!(true), &json!({"hello": 1})), "{reply}");
        let data: Vec<_> = recovered["publications"].as_array().unwrap().iter().map(|it| &it["data"]).collect();
        assert_eq!(data, [2, 3], "{reply}");
        // All of them or none.
        for (channels, code) in [
            (json!(["own:1", "nowhere:1"]), 102),
            (json!(["own:1", "own:2", "own:3", "own:4", "own:5", "own:6"]), 106),
        ] {
            let (mut client, reply) = connect(&server, &json!({"token": token(&json!({"sub": "eve", "channels": channels}))}));
            assert_eq!(reply["error"]["code"], code, "{reply}");
            let reply = client.command(&json!({"id": 2, "connect": {"token": token(&json!({"sub": "eve"}))}}));
            assert!(reply["connect"]["subs"].is_null() && reply["connect"]["client"].is_string(), "{reply}");
        }
        // Other routes name their channels themselves.
        let mut poll = Client::connect(server.edge());
        let shown = bearer(&token(&json!({"sub": "ann", "channels": ["nowhere:1"]})));
        assert!(answer(&mut poll, "GET /poll?channel=users:1&timeout=0", &shown).status < 300);
    }

    fn browsers_show_a_token_as_a_subprotocol_or_a_cookie(driver) {
        let server = server_with(driver, |config| {
            config.cookie = Some("session".to_owned());
            config.origins = vec!["https://a.example".to_owned()];
        });
        let ann = token(&json!({"sub": "ann"}));
        let upgrade = |line: &str, headers: String| {
            let mut client = Client::connect(server.edge());
            client.send(request(line, &(headers + UPGRADE)));
            (client.read_response_head(), client)
        };
        let (plain, commands) = ("GET /ws?channel=users:1", "GET /connection/websocket");
        for (line, offered, chosen) in [
            (plain, format!("chat, bearer.{ann}"), Some("chat")),
            (plain, format!("bearer.{ann}, chat"), Some("chat")),
            (commands, format!("centrifuge-json, bearer.{ann}"), Some("centrifuge-json")),
        ] {
            let (response, _) = upgrade(line, format!("Sec-WebSocket-Protocol: {offered}\r\n"));
            assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, chosen), "{response:?}");
        }
        // Nothing that could be chosen.
        for line in [plain, commands] {
            let (response, _) = upgrade(line, format!("Sec-WebSocket-Protocol: bearer.{ann}\r\n"));
            assert_eq!(response.status, 400, "{response:?}");
        }
        let cookie = format!("Cookie: session={ann}\r\n");
        let (response, _) = upgrade(plain, format!("Origin: https://a.example\r\n{cookie}"));
        assert_eq!(response.status, 101, "{response:?}");
        let (response, _) = upgrade(plain, cookie.clone());
        assert_eq!(response.status, 401, "a program shows a header: {response:?}");
        let (response, _) = upgrade(plain, format!("Origin: https://b.example\r\n{cookie}"));
        assert_eq!(response.status, 403, "{response:?}");
        // What the handshake showed counts if `connect` shows nothing.
        for (shown, user) in [(json!({}), "ann"), (json!({"token": token(&json!({"sub": "bob"}))}), "bob")] {
            let (response, client) = upgrade(commands, bearer(&ann));
            assert_eq!(response.status, 101);
            let mut socket = WebSocket::over(client);
            socket.send_text(&json!({"id": 1, "connect": shown}).to_string());
            assert!(socket.read_text().contains("\"connect\":{\"client\""));
            socket.send_text(&json!({"id": 2, "subscribe": {"channel": "users:1"}}).to_string());
            let join = format!("\"user\":\"{user}\"");
            while !socket.read_text().contains(&join) {}
        }
    }

    fn a_token_in_the_query_counts_only_if_it_is_allowed(driver) {
        for allowed in [false, true] {
            let server = server_with(driver, |config| config.token_in_query = allowed);
            let mut client = Client::connect(server.edge());
            let line = format!("GET /poll?channel=users:1&timeout=0&token={}", token(&json!({"sub": "ann"})));
            assert_eq!(answer(&mut client, &line, "").status < 300, allowed);
        }
    }

    /// Verifying takes long: other clients are served between the tokens of a storm.
    fn a_storm_of_tokens_is_verified_in_turns(driver) {
        let server = server(driver);
        let mut clients: Vec<_> = (0..200).map(|_| Client::connect(server.commands())).collect();
        let tokens = [token(&json!({"sub": "ann"})), "x".to_owned()];
        for (client, token) in clients.iter_mut().zip(tokens.iter().cycle()) {
            // What is pipelined behind it waits too.
            let ping = json!({"id": 2, "ping": {}});
            client.send(format!("{}\n{ping}\n", json!({"id": 1, "connect": {"token": token}})));
        }
        for (index, client) in clients.iter_mut().enumerate() {
            let reply = client.read_json();
            if index % 2 == 0 {
                assert!(reply["connect"]["client"].is_string(), "{reply}");
                assert_eq!(client.read_json(), json!({"id": 2, "ping": {}}));
            } else {
                assert_eq!(reply["push"]["disconnect"]["code"], 3500, "{reply}");
                client.expect_end();
            }
        }
        assert_eq!(server.sum(|counters| &counters.tokens_rejected[TokenError::Malformed as usize]), 100);
    }

    fn a_client_is_disconnected_when_its_token_has_expired(driver) {
        let server = server(driver);
        let soon = || token(&json!({"sub": "ann", "exp": in_seconds(2)}));
        let (mut tcp, reply) = connect(&server, &json!({"token": soon()}));
        assert_eq!(reply["connect"]["expires"], true, "{reply}");
        let mut refreshed = connect(&server, &json!({"token": soon()})).0;
        let reply = refreshed.command(&json!({"id": 2, "refresh": {"token": token(&json!({"sub": "ann"}))}}));
        assert_eq!(reply["refresh"]["expires"], false, "{reply}");
        let mut commands = WebSocket::connect(server.edge(), "/connection/websocket");
        commands.send_text(&json!({"id": 1, "connect": {"token": soon()}}).to_string());
        assert!(commands.read_text().contains("\"expires\":true"));
        let mut plain = WebSocket::over(Client::connect(server.edge()));
        plain.client.send(request("GET /ws?channel=users:1", &(bearer(&soon()) + UPGRADE)));
        plain.read_upgrade();
        let mut poll = Client::connect(server.edge());
        poll.send(request("GET /poll?channel=users:1&timeout=20", &bearer(&soon())));
        let shown = bearer(&soon());
        let mut stream = EventStream::connect_with(server.edge(), "/events?channel=users:1", &shown);
        expect_disconnect(&mut tcp, 3005);
        commands.expect_close(3005);
        plain.expect_close(3005);
        // As if its time were over, and the connection ends.
        assert!(poll.read_response().status < 300);
        poll.expect_end();
        let (said, _) = stream.read_to_end();
        assert!(said.contains("event: disconnect\n") && said.contains("\"code\":3005"), "{said}");
        for line in ["GET /events?channel=users:1", "GET /poll?channel=users:1"] {
            assert_eq!(answer(&mut Client::connect(server.edge()), line, &shown).status, 401);
        }
        assert_eq!(server.closed(CloseReason::Expired), 5);
        assert_eq!(refreshed.command(&json!({"id": 3, "ping": {}})), json!({"id": 3, "ping": {}}));
    }

    fn a_subscription_ends_when_its_token_has_expired(driver) {
        let server = server(driver);
        let mut ann = connect_as(&server, "ann");
        let token_for = |channel: &str, more: Value| {
            let mut claims = json!({"sub": "ann", "channel": channel});
            if more.is_number() {
                claims["exp"] = more;
            }
            token(&claims)
        };
        for channel in ["none:1", "none:2"] {
            let shown = token_for(channel, json!(in_seconds(2)));
            let reply = ann.command(&json!({"id": 2, "subscribe": {"channel": channel, "token": shown}}));
            assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
        }
        let shown = token_for("none:2", Value::Null);
        ann.send(format!("{}\n", json!({"id": 3, "sub_refresh": {"channel": "none:2", "token": shown}})));
        let push = loop {
            let push = ann.read_json();
            if push["push"]["unsubscribe"].is_object() {
                break push;
            }
        };
        let body = json!({"code": 2501, "reason": "subscription expired"});
        assert_eq!(push, json!({"push": {"channel": "none:1", "unsubscribe": body}}));
        // The other one goes on.
        let mut http = Client::connect(server.edge());
        for channel in ["none:1", "none:2"] {
            http.call("publish", &json!({"channel": channel, "data": channel}));
        }
        loop {
            let push = ann.read_json();
            if push["push"]["pub"].is_object() {
                assert_eq!(push["push"]["channel"], "none:2");
                break;
            }
        }
    }
}
