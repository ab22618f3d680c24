//! The server API: each method, each error, the key.

use serde_json::{Value, json};

use crate::support::{Client, Received, TestServer, WebSocket, on_both_drivers};

/// A client of the command protocol, and its name.
fn connect(server: &TestServer) -> (Client, String) {
    let mut client = Client::connect(server.commands());
    let reply = client.command(&json!({"id": 1, "connect": {}}));
    let name = reply["connect"]["client"].as_str().unwrap().to_owned();
    (client, name)
}

/// The code of a call's error.
#[track_caller]
fn code(client: &mut Client, method: &str, parameters: &Value) -> u64 {
    let answer = client.call(method, parameters);
    assert!(answer["result"].is_null(), "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    answer["error"]["code"].as_u64().unwrap()
}

/// Calls what is refused as HTTP; the connection stays unless the answer says otherwise.
#[track_caller]
fn refused(client: &mut Client, method: &str, body: impl AsRef<[u8]>) -> (u16, Value) {
    let response = client.call_with(method, "", body);
    assert_eq!(response.header("content-type"), Some("application/json"));
    (response.status, response.json()["error"]["code"].clone())
}

on_both_drivers! {
    fn a_publication_reaches_subscribers_as_it_was_written(driver) {
        let server = TestServer::start(driver, 2);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = Client::connect(server.edge());
        let answer = client.call("publish", &json!({"channel": "a", "data": {"x": [1, null]}}));
        assert_eq!(answer["result"]["offset"], 1);
        assert_eq!(answer["result"]["epoch"].as_str().map(str::len), Some(8));
        subscriber.expect_text("{\"x\":[1,null]}");
        client.call("publish", &json!({"channel": "a", "data": null}));
        subscriber.expect_text("null");
        let answer = client.call("publish", &json!({"channel": "a", "b64data": "AAFoaQ=="}));
        assert_eq!(answer["result"]["offset"], 3);
        assert_eq!(subscriber.read(), Received::Binary(b"\x00\x01hi".to_vec()));
        // What is handed over as binary stays that, also where it could be text.
        client.call("publish", &json!({"channel": "a", "b64data": "aGk="}));
        assert_eq!(subscriber.read(), Received::Binary(b"hi".to_vec()));
    }

    fn a_type_of_event_is_delivered_with_the_publication(driver) {
        let server = TestServer::start(driver, 2);
        let (mut subscriber, _) = connect(&server);
        subscriber.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let mut client = Client::connect(server.edge());
        let tags = json!({"event": "news"});
        client.call("publish", &json!({"channel": "a", "data": 1, "tags": tags}));
        assert_eq!(subscriber.read_json()["push"]["pub"]["tags"], tags);
        client.publish("a&event=n%20%C3%A9", "2");
        assert_eq!(subscriber.read_json()["push"]["pub"]["tags"], json!({"event": "n é"}));
        client.publish("a", "3");
        assert!(subscriber.read_json()["push"]["pub"]["tags"].is_null());
        for event in ["", "a%0Ab", "a%0D", "%00", "a&event=b", &"x".repeat(256)] {
            let mut client = Client::connect(server.edge());
            client.send(format!(
                "POST /publish?channel=a&event={event} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx"
            ));
            let response = client.read_response();
            assert_eq!(response.status, 400, "{event}");
            assert_eq!(response.json()["error"]["code"], "event_invalid");
            client.expect_end();
        }
        client.publish(&format!("a&event={}", "x".repeat(255)), "4");
    }

    fn a_broadcast_reaches_each_channel_and_answers_for_each(driver) {
        let server = TestServer::start(driver, 2);
        let channels = ["a", "b", "c", "d", "e"];
        let mut subscribers: Vec<_> = channels
            .iter()
            .map(|channel| WebSocket::connect(server.edge(), &format!("/ws?channel={channel}")))
            .collect();
        let mut client = Client::connect(server.edge());
        for offset in 1..=3 {
            let answer = client.call("broadcast", &json!({"channels": channels, "data": offset}));
            let responses = answer["result"]["responses"].as_array().unwrap();
            assert_eq!(responses.len(), channels.len());
            for (response, subscriber) in responses.iter().zip(&mut subscribers) {
                assert_eq!(response["result"]["offset"], offset);
                subscriber.expect_text(&offset.to_string());
            }
        }
        let long = "x".repeat(256);
        let answer = client.call("broadcast", &json!({"channels": ["a", long], "data": 4}));
        assert_eq!(answer["result"]["responses"][0]["result"]["offset"], 4);
        assert_eq!(answer["result"]["responses"][1]["error"]["code"], 107);
        subscribers[0].expect_text("4");
    }

    fn a_batch_answers_for_each_command_in_order(driver) {
        let server = TestServer::start(driver, 2);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = Client::connect(server.edge());
        for parallel in [false, true] {
            let commands = json!([
                {"publish": {"channel": "a", "data": 1}},
                {"publish": {"channel": "a"}},
                {"dance": {}},
                {"broadcast": {"channels": ["b", "c"], "data": 2}},
                {"info": {}},
                {"publish": {"channel": "a", "data": 3}},
            ]);
            let answer = client.call("batch", &json!({"commands": commands, "parallel": parallel}));
            let replies = answer["replies"].as_array().unwrap();
            assert_eq!(replies.len(), 6, "{answer}");
            let first = replies[0]["publish"]["offset"].as_u64().unwrap();
            assert_eq!(replies[1]["error"]["code"], 107);
            assert_eq!(replies[2]["error"]["code"], 104);
            assert_eq!(replies[3]["broadcast"]["responses"].as_array().unwrap().len(), 2);
            assert_eq!(replies[4]["info"]["nodes"].as_array().unwrap().len(), 1);
            assert_eq!(replies[5]["publish"]["offset"], first + 1);
            subscriber.expect_text("1");
            subscriber.expect_text("3");
        }
        assert_eq!(client.call("batch", &json!({"commands": []})), json!({"replies": []}));
    }

    fn calls_in_one_write_and_byte_by_byte_are_answered_in_order(driver) {
        let server = TestServer::start(driver, 2);
        // Channels with subscribers keep counting whatever else they keep.
        let _subscriber = WebSocket::connect(server.edge(), "/ws?channel=c0&channel=c1&channel=c2&channel=c3");
        let mut client = Client::connect(server.edge());
        let mut requests = String::new();
        for index in 0..200 {
            let body = format!("{{\"channel\":\"c{}\",\"data\":{index}}}", index % 4);
            requests += &format!(
                "POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}\
                 POST /api/info HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{{}}\
                 POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n!",
                body.len()
            );
        }
        client.send(requests);
        for index in 0..200_u64 {
            assert_eq!(client.read_response().json()["result"]["offset"], index / 4 + 1);
            assert_eq!(client.read_response().json()["result"]["nodes"][0]["name"], "fantail");
            assert_eq!(client.read_response().status, 400);
        }
        client.send_bytewise(
            "POST /api/broadcast HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\
             12\r\n{\"channels\":[\"c0\",\r\n14\r\n\"c1\"],\"data\":[1, 2]}\r\n0\r\n\r\n",
        );
        let answer = client.read_response().json();
        assert_eq!(answer["result"]["responses"][1]["result"]["offset"], 51, "{answer}");
    }

    fn info_tells_what_runs(driver) {
        let server = TestServer::start(driver, 2);
        let _subscribers =
            [0, 1, 2].map(|_| WebSocket::connect(server.edge(), "/ws?channel=a&channel=b"));
        let mut client = Client::connect(server.edge());
        crate::support::wait_until("all subscriptions are counted", || {
            client.call("info", &json!({}))["result"]["nodes"][0]["num_subs"] == 6
        });
        let node = client.call("info", &json!({}))["result"]["nodes"][0].clone();
        assert_eq!(node["num_clients"], 4);
        assert!((2..=4).contains(&node["num_channels"].as_u64().unwrap()), "{node}");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(node["uid"].as_str().map(str::len), Some(16));
        assert!(node["uptime"].is_u64());
        let uid = || Client::connect(server.edge()).call("info", &json!({}))["result"]["nodes"][0]["uid"].clone();
        assert_eq!(uid(), node["uid"], "all workers are one node");
    }

    fn what_cannot_be_done_is_told_by_its_code_and_the_connection_stays(driver) {
        let server = TestServer::start(driver, 2);
        let _subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = Client::connect(server.edge());
        for (method, parameters) in [
            ("publish", json!({})),
            ("publish", json!({"channel": "a"})),
            ("publish", json!({"channel": "", "data": 1})),
            ("publish", json!({"channel": "x".repeat(256), "data": 1})),
            ("publish", json!({"channel": 1, "data": 1})),
            ("publish", json!(["a", 1])),
            ("publish", json!({"channel": "a", "b64data": "%"})),
            ("publish", json!({"channel": "a", "data": 1, "tags": {"event": "a\nb"}})),
            ("broadcast", json!({"channels": [], "data": 1})),
            ("broadcast", json!({"channels": "a", "data": 1})),
            ("subscribe", json!({"user": "u", "channel": "a"})),
            ("subscribe", json!({"client": "nobody", "channel": "a"})),
            ("subscribe", json!({"client": "0-0-0"})),
            ("unsubscribe", json!({"client": "0-0-0"})),
            ("disconnect", json!({"user": "u"})),
            ("history", json!({"limit": 1})),
            ("history_remove", json!({})),
            ("presence", json!({"channel": null})),
            ("presence_stats", json!({"channel": []})),
            ("channels", json!({"pattern": 1})),
            ("info", json!(7)),
        ] {
            assert_eq!(code(&mut client, method, &parameters), 107, "{method} {parameters}");
        }
        for (method, parameters) in [
            ("publish", json!({"channel": "a", "data": 1, "skip_history": true})),
            ("publish", json!({"channel": "a", "data": 1, "tags": {"colour": "red"}})),
            ("rpc", json!({"method": "x"})),
            ("refresh", json!({"user": "u"})),
        ] {
            assert_eq!(code(&mut client, method, &parameters), 108, "{method} {parameters}");
        }
        for channels in [1001, 5000] {
            let parameters = json!({"channels": vec!["a"; channels], "data": 1});
            assert_eq!(code(&mut client, "broadcast", &parameters), 106);
        }
        let most = client.call("broadcast", &json!({"channels": vec!["a"; 1000], "data": 1}));
        assert_eq!(most["result"]["responses"][999]["result"]["offset"], 1000);
    }

    fn what_is_no_call_is_refused_as_http(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.message_bytes_max = 100_000);
        let mut client = Client::connect(server.edge());
        for body in ["{\"channel\":}", "{}{}", "{\"channel\":\"\\ud800\"}"] {
            assert_eq!(refused(&mut client, "publish", body), (400, "json_invalid".into()), "{body}");
        }
        for body in ["", "{", "hello", "\"", "{\"commands\":[{\"info\":}]}"] {
            assert_eq!(refused(&mut client, "publish", body), (400, "json_invalid".into()), "{body}");
            assert_eq!(refused(&mut client, "batch", body), (400, "json_invalid".into()), "{body}");
        }
        assert_eq!(refused(&mut client, "publish", [b'"', 0xff, b'"']).0, 400);
        let deep = format!("{{\"channel\":\"a\",\"data\":{}", "[".repeat(90_000));
        assert_eq!(refused(&mut client, "publish", deep), (400, "json_invalid".into()));
        for body in ["{}", "[]", "{\"commands\":1}", "{\"commands\":null}"] {
            assert_eq!(refused(&mut client, "batch", body), (400, "batch_invalid".into()), "{body}");
        }
        let huge = |count| format!("{{\"commands\":[{}]}}", vec!["{\"info\":{}}"; count].join(","));
        assert_eq!(refused(&mut client, "batch", huge(1001)), (400, "batch_invalid".into()));
        let most = client.call_with("batch", "", huge(1000)).json();
        assert_eq!(most["replies"].as_array().unwrap().len(), 1000);
        // These close: what follows is not received.
        let unknown = |name: &str| {
            let mut client = Client::connect(server.edge());
            let refused = refused(&mut client, name, "{}");
            client.expect_end();
            refused
        };
        for name in ["dance", "", "publish/", "Publish", "publish/a"] {
            assert_eq!(unknown(name), (404, 104.into()), "{name}");
        }
        for (request, status) in [
            ("GET /api/info HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 405),
            ("POST /api/info HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 411),
            ("POST /api/info HTTP/1.1\r\nHost: t\r\nContent-Length: 100001\r\n\r\n".to_owned(), 413),
            ("POST /api HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".to_owned(), 404),
        ] {
            let mut client = Client::connect(server.edge());
            client.send(&request);
            let response = client.read_response();
            assert_eq!(response.status, status, "{request}");
            assert_eq!(response.json()["error"]["status"], status);
            client.expect_end();
        }
    }

    fn with_a_key_nothing_is_done_without_it(driver) {
        let key = "Key-1";
        let server =
            TestServer::start_with(driver, 2, |config| config.api_key = Some(key.to_owned()));
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let body = r#"{"channel":"a","data":1}"#;
        for headers in [
            "",
            "X-API-Key: \r\n",
            "X-API-Key: Key-\r\n",
            "X-API-Key: key-1\r\n",
            "X-API-Key: Key-2\r\n",
            "X-API-Key: Key-11\r\n",
            "X-API-Key: apikey Key-1\r\n",
            "Authorization: Key-1\r\n",
            "Authorization: apikey\r\n",
            "Authorization: apikey \r\n",
            "Authorization: apikey Key-2\r\n",
            "Authorization: Bearer Key-1\r\n",
        ] {
            for method in ["publish", "batch", "info", "dance"] {
                let mut client = Client::connect(server.edge());
                let response = client.call_with(method, headers, body);
                assert_eq!(response.status, 401, "{headers}");
                assert_eq!(response.json()["error"]["code"], "unauthorized");
                assert_eq!(response.header("www-authenticate"), Some("apikey"));
                client.expect_end();
            }
            let mut client = Client::connect(server.edge());
            client.send(format!(
                "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: 1\r\n\r\nx"
            ));
            assert_eq!(client.read_response().status, 401, "{headers}");
            client.expect_end();
        }
        let mut client = Client::connect(server.edge());
        for headers in [
            "X-API-Key: Key-1\r\n",
            "x-api-key:Key-1\r\n",
            "Authorization: apikey Key-1\r\n",
            "authorization: APIKey  Key-1\r\n",
            "X-API-Key: Key-2\r\nAuthorization: apikey Key-1\r\n",
        ] {
            let response = client.call_with("publish", headers, body);
            assert_eq!(response.status, 200, "{headers}");
            subscriber.expect_text("1");
            client.send(format!(
                "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: 1\r\n\r\nx"
            ));
            assert_eq!(client.read_response().status, 200, "{headers}");
            subscriber.expect_text("x");
        }
        // Pages and clients need none.
        assert_eq!(client.get("/health/live").status, 200);
        subscriber.round_trip();
    }
}
