//! Calls of the server API that concern the clients of a user. All anonymous clients are those of a user too.

use std::time::Duration;

use fantail::config::{CallbackKind, ChannelOptions, DriverChoice, Namespaces};
use fantail::message::CloseReason;
use serde_json::{Value, json};

use crate::support::{
    Backend, BackendAnswer, Client, EventStream, Gate, Received, SECRET, StreamEnd, TestServer,
    WebSocket, in_seconds, on_both_drivers, token, wait_until,
};

/// A connected client of the command protocol and its id.
fn connect(server: &TestServer) -> (Client, String) {
    let mut client = Client::connect(server.commands());
    let reply = client.command(&json!({"id": 1, "connect": {}}));
    let id = reply["connect"]["client"].as_str().unwrap().to_owned();
    (client, id)
}

/// Two workers that verify tokens.
fn server_with_tokens(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.anonymous = Some(true);
        config.expired_close_delay = Duration::ZERO;
    })
}

/// Some clients of a user, which come to both workers, with their ids.
fn connect_user(server: &TestServer, user: &str, count: usize) -> Vec<(Client, String)> {
    let connect = |index| {
        let mut client = Client::connect(server.commands());
        let token = token(&json!({"sub": user, "info": {"n": index}}));
        let reply = client.command(&json!({"id": 1, "connect": {"token": token}}));
        (client, reply["connect"]["client"].as_str().unwrap().to_owned())
    };
    (0..count).map(connect).collect()
}

/// Whether a client is served.
fn is_served(client: &mut Client) -> bool {
    client.command(&json!({"id": 9, "ping": {}})) == json!({"id": 9, "ping": {}})
}

/// Reads until a client is disconnected with this code.
#[track_caller]
fn expect_disconnect(client: &mut Client, code: u16) {
    let rest = String::from_utf8(client.read_to_end()).unwrap();
    assert!(rest.contains(&format!("\"disconnect\":{{\"code\":{code},")), "{rest}");
}

/// Lists connections, each by its id.
fn connections(api: &mut Client, parameters: &Value) -> Vec<(String, Value)> {
    let answer = api.call("connections", parameters);
    assert_eq!(answer["result"]["truncated"], false, "{answer}");
    let listed = answer["result"]["connections"].as_object().unwrap();
    listed.iter().map(|(id, value)| (id.clone(), value.clone())).collect()
}

fn count(api: &mut Client, channel: &str) -> Value {
    api.call("presence_stats", &json!({"channel": channel}))["result"].clone()
}

const DONE: fn() -> Value = || json!({"result": {}});

on_both_drivers! {
    fn all_anonymous_clients_are_disconnected_but_those_of_the_whitelist(driver) {
        let server = TestServer::start(driver, 2);
        let mut api = Client::connect(server.edge());
        let mut clients: Vec<_> = (0..6).map(|_| connect(&server)).collect();
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut stream = EventStream::connect(server.edge(), "/events?channel=a");
        let kept = [clients[1].1.clone(), clients[4].1.clone()];
        let orders = json!({"user": "", "whitelist": kept, "disconnect": {"code": 4500, "reason": "all"}});
        assert_eq!(api.call("disconnect", &orders), DONE());
        // It is done when the call is answered, on whichever worker they are.
        for (index, (client, _)) in clients.iter_mut().enumerate() {
            if index == 1 || index == 4 {
                assert_eq!(client.command(&json!({"id": 2, "ping": {}})), json!({"id": 2, "ping": {}}));
            } else {
                let rest = String::from_utf8(client.read_to_end()).unwrap();
                assert!(rest.contains("\"disconnect\":{\"code\":4500,\"reason\":\"all\"}"), "{rest}");
            }
        }
        assert_eq!(socket.read(), Received::Close(Some(4500), "all".to_owned()));
        let (rest, end) = stream.read_to_end();
        assert!(rest.contains("\"code\":4500"), "{rest}");
        assert_eq!(end, StreamEnd::LastChunk);
        // The caller is a request, and no client.
        assert_eq!(connections(&mut api, &json!({})).len(), 2);
    }

    fn anonymous_clients_are_subscribed_and_unsubscribed_together(driver) {
        let server = TestServer::start(driver, 2);
        let mut api = Client::connect(server.edge());
        let mut clients: Vec<_> = (0..5).map(|_| connect(&server)).collect();
        // Its protocol has no message for it: it is passed over.
        let _socket = WebSocket::connect(server.edge(), "/ws?channel=b");
        let orders = json!({"user": "", "channel": "a", "info": {"n": 1}, "data": [2]});
        assert_eq!(api.call("subscribe", &orders), DONE());
        for (client, _) in &mut clients {
            let push = client.read_json();
            assert_eq!((&push["push"]["channel"], &push["push"]["subscribe"]["data"]), (&json!("a"), &json!([2])));
        }
        assert_eq!(count(&mut api, "a"), json!({"num_clients": 5, "num_users": 1}));
        let present = api.call("presence", &json!({"channel": "a"}))["result"]["presence"].clone();
        for (_, id) in &clients {
            assert_eq!(present[id], json!({"client": id, "user": "", "chan_info": {"n": 1}}));
        }
        // Of another user there is none; a client that is named may have to be one of that user.
        for orders in [json!({"user": "ann", "channel": "a"}), json!({"user": "ann", "client": clients[0].1, "channel": "a"})] {
            assert_eq!(api.call("unsubscribe", &orders), DONE());
        }
        assert_eq!(count(&mut api, "a")["num_clients"], 5);
        assert_eq!(api.call("unsubscribe", &json!({"user": "", "session": clients[0].1, "channel": "a"})), DONE());
        assert_eq!(count(&mut api, "a")["num_clients"], 4);
        assert_eq!(api.call("unsubscribe", &json!({"user": "", "channel": "a"})), DONE());
        for (client, _) in &mut clients {
            assert_eq!(client.read_json()["push"]["unsubscribe"]["code"], 2000);
        }
        assert_eq!(count(&mut api, "a"), json!({"num_clients": 0, "num_users": 0}));
    }

    fn connections_are_listed_by_user_and_by_channel(driver) {
        let server = TestServer::start(driver, 2);
        let mut api = Client::connect(server.edge());
        let (mut client, id) = connect(&server);
        for channel in ["a", "b"] {
            client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
        }
        let _socket = WebSocket::connect(server.edge(), "/ws?channel=a");
        let _stream = EventStream::connect(server.edge(), "/events?channel=c");
        let mut poll = Client::connect(server.edge());
        poll.send("GET /poll?channel=c&timeout=60 HTTP/1.1\r\nHost: t\r\n\r\n");
        wait_until("the poll waits", || count(&mut api, "c")["num_clients"] == 2);
        // Before they connect, and where bytes are echoed, they are not clients.
        let mut silent = Client::connect(server.commands());
        assert_eq!(silent.command(&json!({"id": 1, "ping": {}})), json!({"id": 1, "ping": {}}));
        let _echo = WebSocket::connect(server.echo(), "/");
        for parameters in [json!({}), json!({"user": ""}), json!({"user": "", "channels": false})] {
            let mut transports: Vec<_> =
                connections(&mut api, &parameters).into_iter().map(|(_, one)| one["transport"].clone()).collect();
            transports.sort_by_key(Value::to_string);
            assert_eq!(transports, ["commands_tcp", "long_poll", "sse", "websocket"]);
        }
        assert_eq!(connections(&mut api, &json!({"user": "ann"})), []);
        let expected = json!({"user": "", "transport": "commands_tcp", "protocol": "json", "channels": ["a", "b"]});
        let in_b = connections(&mut api, &json!({"channel": "b", "channels": true}));
        assert_eq!(in_b, [(id, expected)]);
        assert_eq!(connections(&mut api, &json!({"channel": "a"})).len(), 2);
        assert_eq!(connections(&mut api, &json!({"channel": "nobody"})), []);
    }

    fn a_list_of_connections_is_truncated(driver) {
        let server = TestServer::start(driver, 2);
        let mut api = Client::connect(server.edge());
        let most = fantail::config::limits::CONNECTIONS_LIST_MAX;
        let mut clients: Vec<_> = (0..most).map(|_| Client::connect(server.commands())).collect();
        for client in &mut clients {
            client.command(&json!({"id": 1, "connect": {}}));
            client.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        }
        for parameters in [json!({}), json!({"channel": "a"})] {
            assert_eq!(connections(&mut api, &parameters).len(), most);
        }
        let _one_more = WebSocket::connect(server.edge(), "/ws?channel=a");
        for parameters in [json!({}), json!({"channel": "a"})] {
            let answer = api.call("connections", &parameters)["result"].clone();
            assert_eq!(answer["truncated"], true);
            assert_eq!(answer["connections"].as_object().unwrap().len(), most);
        }
        // All of them are disconnected, a few in each turn.
        assert_eq!(api.call("disconnect", &json!({"user": ""})), DONE());
        wait_until("all are closed", || server.closed(CloseReason::Forced) == most as u64 + 1);
    }

    fn a_subscription_made_by_a_call_expires(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.expired_close_delay = Duration::ZERO);
        let mut api = Client::connect(server.edge());
        let (mut client, id) = connect(&server);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let orders = json!({"client": id, "channel": "a", "expire_at": now + 2});
        assert_eq!(api.call("subscribe", &orders), DONE());
        let push = client.read_json()["push"]["subscribe"].clone();
        assert_eq!(push["expires"], true);
        assert!((1..=2).contains(&push["ttl"].as_u64().unwrap()), "{push}");
        let push = client.read_json();
        let expected = json!({"code": 2501, "reason": "subscription expired"});
        assert_eq!(push, json!({"push": {"channel": "a", "unsubscribe": expected}}));
        assert_eq!(count(&mut api, "a")["num_clients"], 0);
        assert_eq!(client.command(&json!({"id": 2, "ping": {}})), json!({"id": 2, "ping": {}}));
    }

    fn a_refresh_that_says_expired_closes_connections(driver) {
        let server = TestServer::start(driver, 2);
        let mut api = Client::connect(server.edge());
        let (mut client, id) = connect(&server);
        assert_eq!(api.call("refresh", &json!({"client": id, "expire_at": in_seconds(100)})), DONE());
        assert_eq!(client.command(&json!({"id": 2, "ping": {}})), json!({"id": 2, "ping": {}}));
        // A time that is past says the same as `expired`.
        let (mut late, id) = connect(&server);
        assert_eq!(api.call("refresh", &json!({"client": id, "expire_at": 1})), DONE());
        let rest = String::from_utf8(late.read_to_end()).unwrap();
        assert!(rest.contains("\"disconnect\":{\"code\":3005"), "{rest}");
        assert_eq!(api.call("refresh", &json!({"user": "", "expired": true})), DONE());
        let rest = String::from_utf8(client.read_to_end()).unwrap();
        assert!(rest.contains("\"disconnect\":{\"code\":3005,\"reason\":\"connection expired\"}"), "{rest}");
        assert_eq!(server.closed(CloseReason::Expired), 2);
    }

    fn the_clients_of_a_user_are_reached_on_all_workers_and_no_others(driver) {
        let server = server_with_tokens(driver);
        let mut api = Client::connect(server.edge());
        let mut anns = connect_user(&server, "ann", 8);
        let mut bobs = connect_user(&server, "bob", 3);
        let (mut anonymous, _) = connect(&server);
        assert_eq!(connections(&mut api, &json!({"user": "ann"})).len(), 8);
        assert_eq!(connections(&mut api, &json!({"user": ""})).len(), 1);
        let info = api.call("info", &json!({}))["result"]["nodes"][0].clone();
        assert_eq!(info["num_clients"], 12);
        for user in ["ann", "bob", ""] {
            assert_eq!(api.call("subscribe", &json!({"user": user, "channel": "a"})), DONE());
        }
        assert_eq!(count(&mut api, "a"), json!({"num_clients": 12, "num_users": 3}));
        let present = api.call("presence", &json!({"channel": "a"}))["result"]["presence"].clone();
        let (id, expected) = (&anns[5].1, json!({"client": anns[5].1, "user": "ann", "conn_info": {"n": 5}}));
        assert_eq!(present[id], expected);
        let listed = connections(&mut api, &json!({"user": "bob", "channels": true}));
        assert_eq!(listed.len(), 3);
        for (id, one) in listed {
            let index = bobs.iter().position(|(_, bob)| *bob == id).unwrap();
            let expected =
                json!({"user": "bob", "transport": "commands_tcp", "protocol": "json", "info": {"n": index}, "channels": ["a"]});
            assert_eq!(one, expected);
        }
        // A client of another user is not meant, though it is named.
        assert_eq!(api.call("disconnect", &json!({"user": "bob", "client": anns[0].1})), DONE());
        assert_eq!(api.call("unsubscribe", &json!({"user": "ann", "channel": "a"})), DONE());
        assert_eq!(count(&mut api, "a"), json!({"num_clients": 4, "num_users": 2}));
        let (kept, orders) = (3, json!({"user": "ann", "whitelist": [anns[3].1]}));
        assert_eq!(api.call("disconnect", &orders), DONE());
        for (index, (client, _)) in anns.iter_mut().enumerate() {
            if index == kept {
                assert_eq!(client.read_json()["push"]["channel"], "a");
                assert_eq!(client.read_json()["push"]["unsubscribe"]["code"], 2000);
                assert!(is_served(client));
            } else {
                expect_disconnect(client, 3503);
            }
        }
        for client in bobs.iter_mut().map(|(client, _)| client).chain([&mut anonymous]) {
            assert_eq!(client.read_json()["push"]["channel"], "a");
            assert!(is_served(client));
        }
    }

    fn a_blocked_user_is_refused_until_it_is_unblocked(driver) {
        let server = server_with_tokens(driver);
        let mut api = Client::connect(server.edge());
        let mut anns = connect_user(&server, "ann", 4);
        let mut bobs = connect_user(&server, "bob", 2);
        assert_eq!(api.call("block_user", &json!({"user": "ann", "expire_at": in_seconds(100)})), DONE());
        for (client, _) in &mut anns {
            expect_disconnect(client, 3507);
        }
        for (client, _) in &mut bobs {
            assert!(is_served(client));
        }
        let token = token(&json!({"sub": "ann"}));
        for _ in 0..4 {
            let mut client = Client::connect(server.commands());
            let connect = json!({"id": 1, "connect": {"token": token}});
            client.send(format!("{connect}\n"));
            expect_disconnect(&mut client, 3507);
            let mut client = Client::connect(server.edge());
            client.send(format!("GET /events?channel=a HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n\r\n"));
            let response = client.read_response();
            assert_eq!((response.status, &response.json()["error"]["code"]), (403, &json!("user_blocked")));
        }
        assert_eq!(api.call("unblock_user", &json!({"user": "ann"})), DONE());
        for (client, _) in &mut connect_user(&server, "ann", 4) {
            assert!(is_served(client));
        }
        // A time that has come blocks no user.
        assert_eq!(api.call("block_user", &json!({"user": "bob", "expire_at": 1})), DONE());
        let mut again = connect_user(&server, "bob", 2);
        assert!(again.iter_mut().all(|(client, _)| is_served(client)));
    }

    /// What the backend answers later must not let a user in that was blocked meanwhile.
    fn a_user_is_blocked_whose_requests_wait_for_the_backend(driver) {
        let gate = Gate::default();
        let opened = gate.clone();
        let backend = Backend::start(move |_| {
            opened.wait();
            BackendAnswer::Json(json!({"result": {}}))
        });
        let server = TestServer::start_with(driver, 2, |config| {
            config.hmac_secret = Some(SECRET.into());
            let callback = config.callbacks.of_mut(CallbackKind::Subscribe);
            callback.endpoint = Some(backend.url("/").parse().unwrap());
            callback.timeout = Duration::from_secs(20);
            let asks = ChannelOptions { callback_subscribe: true, ..ChannelOptions::development() };
            config.namespaces = Namespaces::new(asks);
        });
        let mut api = Client::connect(server.edge());
        let token = token(&json!({"sub": "ann"}));
        let shown = format!("Authorization: Bearer {token}\r\n\r\n");
        let requests = [
            "GET /events?channel=a HTTP/1.1\r\nHost: t\r\n".to_owned(),
            "GET /poll?channel=a HTTP/1.1\r\nHost: t\r\n".to_owned(),
            WebSocket::request("/ws?channel=a").trim_end().to_owned() + "\r\n",
        ];
        let mut clients = requests.map(|request| {
            let mut client = Client::connect(server.edge());
            client.send(request + &shown);
            client
        });
        let mut commands = connect_user(&server, "ann", 1);
        commands[0].0.send("{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n");
        wait_until("the backend is asked", || backend.requests().len() == 4);
        assert_eq!(api.call("block_user", &json!({"user": "ann"})), DONE());
        gate.open();
        for client in &mut clients {
            let refused = client.read_response();
            assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("user_blocked")));
            client.expect_end();
        }
        expect_disconnect(&mut commands[0].0, 3507);
        assert_eq!(connections(&mut api, &json!({})), []);
        assert_eq!(count(&mut api, "a")["num_clients"], 0);
    }

    /// A history may exceed the send queue of a client, which then gets it in parts.
    fn a_stream_that_recovers_in_parts_is_listed_and_disconnected(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.hmac_secret = Some(SECRET.into());
            let options = ChannelOptions { history_size: 1000, ..ChannelOptions::development() };
            config.namespaces = Namespaces::new(options);
        });
        let mut api = Client::connect(server.edge());
        for _ in 0..300 {
            api.call("publish", &json!({"channel": "a", "data": "x".repeat(30_000)}));
        }
        let top = api.call("history", &json!({"channel": "a", "limit": 0}))["result"].clone();
        let from = format!("0:{}", top["epoch"].as_str().unwrap());
        let token = token(&json!({"sub": "ann"}));
        let headers = format!("Last-Event-ID: {from}\r\nAuthorization: Bearer {token}\r\n");
        let open = || {
            let narrow = Client::connect_narrow(server.edge());
            EventStream::over(narrow, "/events?channel=a", &headers)
        };
        let mut streams = [open(), open()];
        wait_until("the streams have begun", || connections(&mut api, &json!({"user": "ann"})).len() == 2);
        assert_eq!(connections(&mut api, &json!({}))[0].1["transport"], "sse");
        assert_eq!(api.call("disconnect", &json!({"user": "ann"})), DONE());
        assert_eq!(connections(&mut api, &json!({})), []);
        for stream in &mut streams {
            let (rest, end) = stream.read_to_end();
            assert!(rest.len() < 300 * 30_000, "it was cut off");
            assert!(rest.contains("event: disconnect\ndata: {\"code\":3503"), "{}", &rest[rest.len() - 200..]);
            assert_eq!(end, StreamEnd::LastChunk);
        }
    }

    fn a_refresh_concerns_anonymous_clients_of_which_nothing_is_known(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.expired_close_delay = Duration::ZERO);
        let mut api = Client::connect(server.edge());
        let [(mut one, id), (mut other, _)] = [connect(&server), connect(&server)];
        let orders = json!({"client": id, "info": {"n": 1}, "expire_at": in_seconds(2)});
        assert_eq!(api.call("refresh", &orders), DONE());
        let listed = connections(&mut api, &json!({}));
        let infos: Vec<_> = listed.iter().map(|(_, one)| &one["info"]).filter(|info| info.is_object()).collect();
        assert_eq!(infos, [&json!({"n": 1})]);
        expect_disconnect(&mut one, 3005);
        assert!(is_served(&mut other));
    }

    fn a_refresh_changes_when_the_clients_of_a_user_expire(driver) {
        let server = server_with_tokens(driver);
        let mut api = Client::connect(server.edge());
        let mut anns = connect_user(&server, "ann", 4);
        let named = json!({"client": anns[0].1, "expire_at": in_seconds(1), "info": {"new": true}});
        assert_eq!(api.call("refresh", &json!({"user": "ann", "expire_at": in_seconds(100)})), DONE());
        assert_eq!(api.call("refresh", &named), DONE());
        let listed = connections(&mut api, &json!({"user": "ann"}));
        let infos: Vec<_> = listed.iter().filter(|(_, one)| one["info"] == json!({"new": true})).collect();
        assert_eq!(infos.len(), 1);
        expect_disconnect(&mut anns[0].0, 3005);
        for (client, _) in &mut anns[1..] {
            assert!(is_served(client));
        }
    }
}
