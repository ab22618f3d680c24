//! What Centrifugo 6.9 answers in situations in which clients and backends depend on it.

use std::time::Duration;

use fantail::config::{ChannelOptions, ClientRight, DriverChoice, ErrorMode, Namespaces};
use serde_json::{Value, json};

use crate::support::{
    Client, SECRET, TestServer, WebSocket, in_seconds, on_both_drivers, token, wait_until,
};

/// Two workers that verify tokens; everything is allowed, and channels keep publications.
fn server(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.anonymous = Some(true);
        config.namespaces = Namespaces::new(ChannelOptions::development());
    })
}

/// A connected client of the command protocol, and its id.
fn connect(server: &TestServer, parameters: &Value) -> (Client, String) {
    let mut client = Client::connect(server.commands());
    let reply = client.command(&json!({"id": 1, "connect": parameters}));
    let id = reply["connect"]["client"].as_str().unwrap().to_owned();
    (client, id)
}

/// What a client sends in one write, and what comes back, by the ids of commands; pushes are left out.
fn in_one_go(client: &mut Client, commands: &[Value]) -> Vec<Value> {
    let lines: String = commands.iter().map(|command| format!("{command}\n")).collect();
    client.send(lines);
    let mut replies = Vec::new();
    while replies.len() < commands.len() {
        let line = client.read_json();
        if line.get("push").is_none() {
            replies.push(line);
        }
    }
    replies
}

fn next_publication(client: &mut Client) -> Value {
    loop {
        let publication = client.read_json()["push"]["pub"].take();
        if !publication.is_null() {
            return publication;
        }
    }
}

/// The status, and the body as JSON.
fn call(client: &mut Client, path: &str, headers: &str, body: &str) -> (u16, Vec<Value>) {
    let len = body.len();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {len}\r\n\r\n{body}"
    ));
    let response = client.read_response();
    let lines = response.text().lines().map(|line| serde_json::from_str(line).unwrap());
    (response.status, lines.collect())
}

const IN_STATUS: &str = "X-Centrifugo-Error-Mode: transport\r\n";

on_both_drivers! {
    fn a_publication_shows_the_client_that_published_it(driver) {
        let server = server(driver);
        let (mut subscriber, own) = connect(&server, &json!({}));
        subscriber.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let claims = json!({"sub": "ann", "info": {"n": "A"}});
        let (mut ann, ann_id) = connect(&server, &json!({"token": token(&claims)}));
        // A subscription with an info of its own, one without, and none at all.
        let ann_info = |more: Value| {
            let mut info = json!({"client": ann_id, "user": "ann", "conn_info": {"n": "A"}});
            info.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            info
        };
        ann.command(&json!({"id": 2, "publish": {"channel": "a", "data": 1}}));
        assert_eq!(next_publication(&mut subscriber), json!({"data": 1, "info": ann_info(json!({})), "offset": 1}));
        let of_channel = token(&json!({"sub": "ann", "channel": "a", "info": ["b"], "exp": in_seconds(600)}));
        ann.command(&json!({"id": 3, "subscribe": {"channel": "a", "token": of_channel}}));
        ann.command(&json!({"id": 4, "subscribe": {"channel": "b"}}));
        ann.send("{\"publish\":{\"channel\":\"a\",\"data\":2}}\n");
        let info = ann_info(json!({"chan_info": ["b"]}));
        assert_eq!(next_publication(&mut subscriber), json!({"data": 2, "info": info, "offset": 2}));
        // The subscriber itself, and its own publication.
        subscriber.send("{\"id\":5,\"publish\":{\"channel\":\"a\",\"data\":3}}\n");
        let own = json!({"client": own, "user": ""});
        assert_eq!(next_publication(&mut subscriber), json!({"data": 3, "info": own, "offset": 3}));
        // A plain WebSocket has an id too.
        let mut plain = WebSocket::connect(server.edge(), "/ws?channel=a");
        plain.send_text("4");
        let of_plain = next_publication(&mut subscriber);
        assert_eq!((&of_plain["data"], &of_plain["info"]["user"]), (&json!(4), &json!("")));
        assert!(of_plain["info"]["client"].as_str().unwrap().len() == 36, "{of_plain}");
        // A user that publishes over HTTP.
        let mut http = Client::connect(server.edge());
        let bearer = format!("Authorization: Bearer {}\r\n", token(&json!({"sub": "bob"})));
        assert_eq!(call(&mut http, "/publish?channel=a", &bearer, "5").0, 200);
        assert_eq!(next_publication(&mut subscriber)["info"]["user"], "bob");
        // Backends, and single requests that say nothing, have none.
        http.publish("a", "6");
        http.call("publish", &json!({"channel": "a", "data": 7}));
        http.call("broadcast", &json!({"channels": ["a"], "data": 8}));
        for (data, offset) in [(6, 6), (7, 7), (8, 8)] {
            assert_eq!(next_publication(&mut subscriber), json!({"data": data, "offset": offset}));
        }
        // Histories and recoveries have it as well; the epoch is not known here, so any.
        let infos = |publications: &Value| -> Vec<Value> {
            publications.as_array().unwrap().iter().map(|it| it["info"]["user"].clone()).collect()
        };
        let anonymous = json!("");
        let expected = [json!("ann"), json!("ann"), anonymous.clone(), anonymous, json!("bob"), Value::Null, Value::Null, Value::Null];
        let history = http.call("history", &json!({"channel": "a", "limit": -1}));
        assert_eq!(infos(&history["result"]["publications"]), expected);
        assert_eq!(history["result"]["publications"][1]["info"], info);
        let (mut other, _) = connect(&server, &json!({}));
        let history = other.command(&json!({"id": 2, "history": {"channel": "a", "limit": -1}}));
        assert_eq!(infos(&history["history"]["publications"]), expected);
        let recovered = other.command(&json!({"id": 3, "subscribe": {"channel": "a", "recover": true}}));
        assert_eq!(infos(&recovered["subscribe"]["publications"]), expected);
    }

    fn a_zero_position_is_the_start_of_the_channel_whatever_its_epoch(driver) {
        let server = server(driver);
        let mut http = Client::connect(server.edge());
        for n in 1..=3 {
            http.publish("a", n.to_string());
        }
        for (channel, parameters, offsets) in [
            ("a", json!({}), vec![1, 2, 3]),
            ("a", json!({"offset": 0, "epoch": ""}), vec![1, 2, 3]),
            ("a", json!({"offset": 1}), vec![2, 3]),
            ("a", json!({"offset": 3, "epoch": ""}), vec![]),
            ("none", json!({}), vec![]),
            ("never", json!({"offset": 0, "epoch": "", "flag": 2}), vec![]),
        ] {
            let (mut client, _) = connect(&server, &json!({}));
            let mut subscribe = json!({"channel": channel, "recover": true});
            subscribe.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
            let reply = client.command(&json!({"id": 2, "subscribe": subscribe}))["subscribe"].take();
            assert_eq!(reply["recovered"], true, "{parameters}: {reply}");
            let publications = reply["publications"].as_array().unwrap();
            let got: Vec<_> = publications.iter().map(|it| it["offset"].as_u64().unwrap()).collect();
            assert_eq!(got, offsets, "{parameters}");
        }
        // A later offset is not the start, and is refused where the client says so.
        let (mut client, _) = connect(&server, &json!({}));
        let late = json!({"id": 2, "subscribe": {"channel": "a", "recover": true, "offset": 4, "flag": 2}});
        assert_eq!(client.command(&late)["error"]["code"], 112);
        let history = client.command(&json!({"id": 3, "history": {"channel": "a", "limit": 2, "since": {"offset": 2}}}));
        assert_eq!(history["history"]["publications"][0]["offset"], 3, "{history}");
        let history = http.call("history", &json!({"channel": "a", "limit": 2, "since": {"offset": 1}}));
        assert_eq!(history["result"]["publications"][0]["offset"], 2, "{history}");
    }

    fn a_subscription_may_end_before_its_reply(driver) {
        let server = server(driver);
        let (mut client, _) = connect(&server, &json!({}));
        // The homes of some channels are this worker, of others the other one.
        for n in 0..16 {
            let channel = format!("c{n}");
            let of = |id: u32, method: &str| json!({"id": id, method: {"channel": channel}});
            let replies = in_one_go(&mut client, &[of(2, "subscribe"), of(3, "unsubscribe")]);
            assert_eq!((&replies[0]["id"], &replies[0]["subscribe"]["positioned"]), (&json!(2), &json!(true)), "{replies:?}");
            assert_eq!(replies[1], json!({"id": 3, "unsubscribe": {}}));
            let recover = json!({"id": 2, "subscribe": {"channel": channel, "recover": true}});
            let commands = [recover, of(3, "unsubscribe"), of(4, "subscribe"), of(5, "unsubscribe"), of(6, "subscribe")];
            let replies = in_one_go(&mut client, &commands);
            let ids: Vec<_> = replies.iter().map(|reply| reply["id"].as_u64().unwrap()).collect();
            assert_eq!(ids, [2, 3, 4, 5, 6], "{replies:?}");
            assert!(replies.iter().all(|reply| reply.get("error").is_none()), "{replies:?}");
            assert_eq!(client.command(&of(7, "subscribe"))["error"]["code"], 105);
            assert_eq!(client.command(&of(8, "presence_stats"))["presence_stats"]["num_clients"], 1);
        }
        // A client that leaves while it waits disturbs no other.
        let (mut other, _) = connect(&server, &json!({}));
        other.send("{\"id\":2,\"subscribe\":{\"channel\":\"c1\"}}\n{\"id\":3,\"unsubscribe\":{\"channel\":\"c1\"}}\n");
        drop(other);
        let mut http = Client::connect(server.edge());
        wait_until("it has left", || {
            http.call("presence_stats", &json!({"channel": "c1"}))["result"]["num_clients"] == 1
        });
    }

    fn unknown_members_are_ignored(driver) {
        let server = server(driver);
        let mut client = Client::connect(server.commands());
        let mut ask = |text: &str| {
            client.send(format!("{text}\n"));
            client.read_json()
        };
        assert!(ask(r#"{"id":1,"x":{"a":[]},"connect":{"x":1,"headers":{}}}"#)["connect"].is_object());
        assert!(ask(r#"{"id":2,"x":{},"subscribe":{"channel":"a","x":null}}"#)["subscribe"].is_object());
        assert_eq!(ask(r#"{"id":3,"unsubscribe":{"channel":"a"},"x":7}"#), json!({"id": 3, "unsubscribe": {}}));
        assert_eq!(ask(r#"{"id":4,"ping":{},"unsubscribe":{"channel":"a"}}"#), json!({"id": 4, "unsubscribe": {}}));
        assert_eq!(ask(r#"{"id":5,"x":{}}"#)["error"]["code"], 104);
        assert_eq!(ask(r#"{"id":6,"method":1,"params":{"channel":"a"}}"#)["error"]["code"], 107);
    }

    fn a_channel_says_that_it_has_no_feature_before_that_there_is_no_right(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            let none = ChannelOptions { allow_subscribe: ClientRight::ALL, ..ChannelOptions::closed() };
            config.namespaces.add("off", none.clone()).unwrap();
            let on = ChannelOptions { history_size: 1, presence: true, ..none };
            config.namespaces.add("on", on).unwrap();
        });
        let (mut client, _) = connect(&server, &json!({}));
        for (channel, code) in [("off:a", 108), ("on:a", 103), ("unknown:a", 102)] {
            for method in ["presence", "presence_stats", "history"] {
                let reply = client.command(&json!({"id": 2, method: {"channel": channel}}));
                assert_eq!(reply["error"]["code"], code, "{method} {channel}");
            }
        }
    }

    fn the_status_of_a_call_tells_its_error_where_it_is_asked_for(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.namespaces = Namespaces::new(ChannelOptions::development());
            config.namespaces.add("bare", ChannelOptions::closed()).unwrap();
        });
        let mut http = Client::connect(server.edge());
        let cases = [
            ("publish", json!({"channel": "nowhere:a", "data": 1}), 404, 102),
            ("publish", json!({"channel": "a"}), 400, 107),
            ("publish", json!({"channel": "", "data": 1}), 400, 107),
            ("history", json!({"channel": "bare:a"}), 400, 108),
            ("presence", json!({"channel": "bare:a"}), 400, 108),
            ("rpc", json!({"method": "x"}), 400, 108),
            ("map_publish", json!({"channel": "a", "key": "k", "data": 1}), 400, 108),
            ("shared_poll_publish", json!({"channel": "a"}), 400, 108),
            ("history", json!({"channel": "a", "since": {"offset": 1, "epoch": "zzzz"}}), 416, 112),
            ("broadcast", json!({"channels": [], "data": 1}), 400, 107),
        ];
        for (method, parameters, status, code) in cases {
            let path = format!("/api/{method}");
            let body = parameters.to_string();
            let (in_body, answer) = call(&mut http, &path, "", &body);
            assert_eq!((in_body, &answer[0]["error"]["code"]), (200, &json!(code)), "{method} {answer:?}");
            let (in_status, answer) = call(&mut http, &path, IN_STATUS, &body);
            assert_eq!((in_status, &answer[0]["code"]), (status, &json!(code)), "{method} {answer:?}");
            assert!(answer[0]["message"].is_string() && answer[0].get("error").is_none(), "{answer:?}");
            let other = "x-centrifugo-error-mode: Transport\r\n";
            assert_eq!(call(&mut http, &path, other, &body).0, 200, "another mode");
        }
        // What is done is answered as ever, and so is each part of a broadcast and of a batch.
        let (status, answer) = call(&mut http, "/api/publish", IN_STATUS, r#"{"channel":"a","data":1}"#);
        assert_eq!((status, &answer[0]["result"]["offset"]), (200, &json!(1)));
        let (status, answer) = call(&mut http, "/api/broadcast", IN_STATUS, r#"{"channels":["b","nowhere:a"],"data":1}"#);
        assert_eq!((status, &answer[0]["result"]["responses"][1]["error"]["code"]), (200, &json!(102)));
        let (status, answer) = call(&mut http, "/api/batch", IN_STATUS, r#"{"commands":[{"publish":{}}]}"#);
        assert_eq!((status, &answer[0]["replies"][0]["error"]["code"]), (200, &json!(107)));
        // The setting is for calls that do not say it.
        let server = TestServer::start_with(driver, 1, |config| config.api_error_mode = ErrorMode::Transport);
        let mut http = Client::connect(server.edge());
        let (status, answer) = call(&mut http, "/api/publish", "", r#"{"channel":"nowhere:a","data":1}"#);
        assert_eq!((status, &answer[0]["code"]), (404, &json!(102)));
    }

    fn older_server_libraries_call_api_itself(driver) {
        let server = server(driver);
        let mut http = Client::connect(server.edge());
        let mut api = |body: &str| call(&mut http, "/api", "", body);
        let one = |answer: (u16, Vec<Value>)| {
            assert_eq!((answer.0, answer.1.len()), (200, 1), "{answer:?}");
            answer.1[0].clone()
        };
        let published = one(api(r#"{"method":"publish","params":{"channel":"a","data":1}}"#));
        assert_eq!(published["result"]["offset"], 1, "{published}");
        let published = one(api(r#"{"id":7,"params":{"channel":"a","data":2}}"#));
        assert_eq!((&published["id"], &published["result"]["offset"]), (&json!(7), &json!(2)));
        assert_eq!(one(api(r#"{"method":"PRESENCE_STATS","params":{"channel":"a"}}"#))["result"]["num_clients"], 0);
        assert_eq!(one(api(r#"{"method":9}"#))["result"]["nodes"][0]["name"], "fantail");
        assert_eq!(one(api(r#"{"id":1,"method":"dance"}"#)), json!({"id": 1, "error": {"code": 104, "message": "method not found"}}));
        assert_eq!(one(api(r#"{"method":"publish"}"#))["error"]["code"], 107);
        assert_eq!(one(api(r#"{"method":"broadcast","params":{"channels":["a","b"],"data":3}}"#))["result"]["responses"][0]["result"]["offset"], 3);
        let (status, answers) = api("{\"id\":1,\"method\":\"info\"}\n{\"id\":2,\"method\":\"presence\",\"params\":{\"channel\":\"nowhere:a\"}}{\"id\":3,\"method\":8,\"params\":{}}\n");
        assert_eq!((status, answers.len()), (200, 3));
        assert_eq!((&answers[0]["id"], &answers[1]["error"]["code"], &answers[2]["result"]["channels"]), (&json!(1), &json!(102), &json!({})));
        for bad in ["", " ", "{", "[]", "7", "{}x", "{\"method\":[]}"] {
            let answer = api(bad);
            assert_eq!(answer.0, 400, "{bad}: {answer:?}");
        }
        let many = |count: usize| "{\"method\":\"history_remove\",\"params\":{\"channel\":\"a\"}}".repeat(count);
        assert_eq!(api(&many(1000)).1.len(), 1000);
        assert_eq!(api(&many(1001)).0, 400);
        // Each line is a reply, the last one too: cent.js takes what is behind a line feed for one.
        let body = "{\"method\":\"channels\"}\n{\"method\":\"channels\"}\n";
        let len = body.len();
        http.send(format!("POST /api HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n{body}"));
        let response = http.read_response();
        let lines: Vec<_> = response.text().split('\n').map(str::to_owned).collect();
        assert_eq!(lines, [r#"{"result":{"channels":{}}}"#; 2]);
        assert_eq!(http.get("/api").status, 405);
        assert_eq!(http.get("/health").status, 200);
    }

    fn channels_are_listed_by_a_pattern(driver) {
        let server = server(driver);
        let (mut client, _) = connect(&server, &json!({}));
        for channel in ["room", "roof", "rooms", "a/b", "a,b", "x{y}"] {
            client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
        }
        let mut http = Client::connect(server.edge());
        let mut list = |pattern: &str| -> Vec<String> {
            let answer = http.call("channels", &json!({"pattern": pattern}));
            answer["result"]["channels"].as_object().unwrap_or_else(|| panic!("{answer}")).keys().cloned().collect()
        };
        assert_eq!(list("").len(), 6);
        assert_eq!(list("roo?"), ["roof", "room"]);
        assert_eq!(list("{roo[mf],a?b}"), ["a,b", "a/b", "roof", "room"]);
        assert_eq!(list("roo[!a-l]*"), ["room", "rooms"]);
        assert_eq!(list("a*"), ["a,b", "a/b"]);
        assert_eq!(list("x\\{y}"), ["x{y}"]);
        assert_eq!(list("?"), [""; 0]);
        for bad in ["[", "{a", "[z-a]", "\\", &"?".repeat(513)] {
            let pattern = if bad == "\\" { "?\\" } else { bad };
            let answer = http.call("channels", &json!({"pattern": pattern}));
            assert_eq!(answer["error"]["code"], 107, "{pattern}: {answer}");
        }
    }

    fn a_position_outlives_the_history(driver) {
        for (ttl, is_kept) in [(Duration::from_secs(60), true), (Duration::ZERO, false)] {
            let server = TestServer::start_with(driver, 2, |config| {
                config.position_ttl = ttl;
                config.namespaces = Namespaces::new(ChannelOptions {
                    history_ttl: Duration::from_secs(1),
                    ..ChannelOptions::development()
                });
            });
            let mut http = Client::connect(server.edge());
            let channels: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
            let positions: Vec<Value> = channels.iter().map(|channel| http.publish(channel, "1")).collect();
            wait_until("the histories are gone", || server.sum(|counters| &counters.history_bytes) == 0);
            for (channel, position) in channels.iter().zip(&positions) {
                let (mut client, _) = connect(&server, &json!({}));
                let recover = |offset: u64| json!({"id": 2, "subscribe": {
                    "channel": channel, "recover": true, "epoch": position["epoch"], "offset": offset,
                }});
                let reply = client.command(&recover(1))["subscribe"].take();
                assert_eq!(reply["recovered"], is_kept, "{reply}");
                assert_eq!(reply["epoch"] == position["epoch"], is_kept, "{reply}");
                // One that missed something does not recover, and numbering goes on.
                let (mut client, _) = connect(&server, &json!({}));
                assert_eq!(client.command(&recover(0))["subscribe"]["recovered"], false);
                let next = http.publish(channel, "2");
                assert_eq!(next["offset"], if is_kept { 2 } else { 1 });
            }
        }
    }

    fn bytes_in_base64_are_json_to_readers_of_json_if_they_are_json(driver) {
        let server = server(driver);
        let (mut client, _) = connect(&server, &json!({}));
        client.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let mut http = Client::connect(server.edge());
        for (b64data, data) in [("eyJhIjoxfQ==", json!({"a": 1})), ("aGk=", json!("aGk=")), ("/w==", json!("/w=="))] {
            http.call("publish", &json!({"channel": "a", "b64data": b64data}));
            assert_eq!(next_publication(&mut client)["data"], data);
        }
    }
}
