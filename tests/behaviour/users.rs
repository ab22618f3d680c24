//! The clients of one user: the limit of their connections, on all workers together, and the channel that they share.

use fantail::config::{ChannelOptions, ClientRight, DriverChoice};
use fantail::message::CloseReason;
use serde_json::{Value, json};

use crate::support::{
    Client, EventStream, SECRET, TestServer, WebSocket, on_both_drivers, token, wait_until,
};

/// The number of connections that a user may have.
const MAX: usize = 4;

fn serve(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.anonymous = Some(true);
        config.user_connections_max = Some(MAX);
    })
}

/// A client of the command protocol, if it is connected.
fn connect(server: &TestServer, user: &str) -> Option<Client> {
    let mut client = Client::connect(server.commands());
    let token = token(&json!({"sub": user}));
    let reply = client.command(&json!({"id": 1, "connect": {"token": token}}));
    if reply["connect"].is_object() {
        return Some(client);
    }
    assert_eq!(reply["push"]["disconnect"]["code"], 3504, "{reply}");
    assert_eq!(reply["push"]["disconnect"]["reason"], "connection limit");
    client.expect_end();
    None
}

/// The header by which a request shows that it is a user's.
fn bearer(user: &str) -> String {
    format!("Authorization: Bearer {}\r\n", token(&json!({"sub": user})))
}

on_both_drivers! {
    fn a_user_has_connections_up_to_the_maximum_of_all_workers(driver) {
        let server = serve(driver);
        let mut clients: Vec<_> = (0..MAX).map(|_| connect(&server, "ann").unwrap()).collect();
        for past in 1..=3 {
            assert!(connect(&server, "ann").is_none());
            assert_eq!(server.rejected("user_connections"), past);
            assert_eq!(server.closed(CloseReason::ConnectionLimit), past);
        }
        assert!(connect(&server, "bob").is_some(), "another user has connections of its own");
        // A client that shows a newer token of the same user is not another connection.
        let refresh = json!({"id": 2, "refresh": {"token": token(&json!({"sub": "ann"}))}});
        assert!(clients[0].command(&refresh)["refresh"].is_object());
        assert!(connect(&server, "ann").is_none());
        clients.truncate(MAX - 1);
        wait_until("a place is free", || connect(&server, "ann").is_some());
        let anonymous: Vec<_> = (0..2 * MAX)
            .map(|_| {
                let mut client = Client::connect(server.commands());
                assert!(client.command(&json!({"id": 1, "connect": {}}))["connect"].is_object());
                client
            })
            .collect();
        assert_eq!(anonymous.len(), 2 * MAX);
    }

    fn every_transport_counts_as_long_as_it_lasts(driver) {
        let server = serve(driver);
        let ann = bearer("ann");
        let stream = EventStream::connect_with(server.edge(), "/events?channel=a", &ann);
        let upgrade = WebSocket::request("/ws?channel=a").replace("\r\n\r\n", &format!("\r\n{ann}\r\n"));
        let mut plain = Client::connect(server.edge());
        plain.send(&upgrade);
        assert_eq!(plain.read_response_head().status, 101);
        let mut poll = Client::connect(server.edge());
        poll.send(format!("GET /poll?channel=a HTTP/1.1\r\nHost: t\r\n{ann}\r\n"));
        wait_until("the poll waits", || server.sum(|it| it.connections.labelled("long_poll")) == 1);
        let commands = connect(&server, "ann").unwrap();
        assert!(connect(&server, "ann").is_none());
        // Over HTTP it is an answer, and a request that is answered counts no longer.
        let mut http = Client::connect(server.edge());
        let mut get = |path: &str| {
            http.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n{ann}\r\n"));
            http.read_response()
        };
        let refused = get("/poll?channel=a&timeout=0");
        assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true));
        assert_eq!(refused.json()["error"]["code"], "user_connections_exhausted");
        drop((stream, plain));
        let mut http = Client::connect(server.edge());
        let mut get = |path: &str| {
            http.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n{ann}\r\n"));
            http.read_response()
        };
        wait_until("two places are free", || connect(&server, "ann").is_some());
        wait_until("the request is served", || get("/poll?channel=a&timeout=0").status == 200);
        for _ in 0..2 * MAX {
            assert_eq!(get("/poll?channel=a&timeout=0").status, 200);
        }
        drop((commands, poll));
    }

    fn a_user_has_a_personal_channel(driver) {
        for namespace in [None, Some("own")] {
            let server = TestServer::start_with(driver, 2, |config| {
                config.hmac_secret = Some(SECRET.into());
                config.anonymous = Some(true);
                config.personal.are_on = true;
                config.personal.namespace = namespace.map(str::to_owned);
                let options = ChannelOptions {
                    history_size: 10,
                    allow_user_limited_channels: true,
                    allow_subscribe: ClientRight::ALL,
                    ..ChannelOptions::closed()
                };
                config.namespaces.set_default(options.clone()).unwrap();
                config.namespaces.add("own", options).unwrap();
            });
            let prefix = namespace.map_or(String::new(), |name| format!("{name}:"));
            let anns = format!("{prefix}#ann");
            let login = |claims: Value, since: Value| {
                let mut client = Client::connect(server.commands());
                let connect = json!({"token": token(&claims), "subs": since});
                let reply = client.command(&json!({"id": 1, "connect": connect}));
                (client, reply)
            };
            let channels = |reply: &Value| -> Vec<String> {
                let subs = reply["connect"]["subs"].as_object();
                subs.map_or(Vec::new(), |subs| subs.keys().cloned().collect())
            };
            let (mut ann, reply) = login(json!({"sub": "ann"}), json!({}));
            assert_eq!(channels(&reply), std::slice::from_ref(&anns), "{reply}");
            assert_eq!(reply["connect"]["subs"][&anns]["recoverable"], true, "{reply}");
            let (_, reply) = login(json!({"sub": "bob"}), json!({}));
            assert_eq!(channels(&reply), [format!("{prefix}#bob")], "{reply}");
            // A publication reaches the user's clients alone, and is recovered by the next one.
            let mut http = Client::connect(server.edge());
            let sent = http.call("publish", &json!({"channel": anns, "data": 1}))["result"].clone();
            let push = ann.read_json();
            assert_eq!((&push["push"]["channel"], &push["push"]["pub"]["data"]), (&json!(anns), &json!(1)));
            http.call("publish", &json!({"channel": anns, "data": 2}));
            let since = json!({&anns: {"recover": true, "offset": sent["offset"], "epoch": sent["epoch"]}});
            let (_, reply) = login(json!({"sub": "ann"}), since);
            let recovered = &reply["connect"]["subs"][&anns];
            assert_eq!(recovered["recovered"], true, "{reply}");
            assert_eq!(recovered["publications"][0]["data"], 2, "{reply}");
            // What the token says about it stays, and its other channels are there too.
            let subs = json!({&anns: {"data": "x"}, "own:1": {}});
            let (_, reply) = login(json!({"sub": "ann", "subs": subs}), json!({}));
            assert_eq!(reply["connect"]["subs"][&anns]["data"], "x", "{reply}");
            assert_eq!(channels(&reply).len(), 2, "{reply}");
            // Anonymous clients have none, nor may they, or other users, subscribe to it.
            let (mut anonymous, reply) = login(json!({}), json!({}));
            assert_eq!(channels(&reply), [""; 0], "{reply}");
            let subscribe = json!({"id": 2, "subscribe": {"channel": anns}});
            assert_eq!(anonymous.command(&subscribe)["error"]["code"], 103);
            // A channel cannot have such a name.
            for user in ["x".repeat(255), "a\nb".to_owned()] {
                let (_, reply) = login(json!({"sub": user}), json!({}));
                assert_eq!(reply["error"]["code"], 107, "{reply}");
            }
            // Who names its channels itself has these alone.
            let mut poll = Client::connect(server.edge());
            let long = bearer(&"x".repeat(255));
            poll.send(format!("GET /poll?channel={prefix}a&timeout=0 HTTP/1.1\r\nHost: t\r\n{long}\r\n"));
            assert!(poll.read_response().status < 300);
        }
    }
}
