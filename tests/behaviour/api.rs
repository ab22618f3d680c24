//! The server API: methods, errors and API keys.

use fantail::config::{ChannelOptions, ClientRight, DriverChoice, Namespaces};
use fantail::message::{ClientId, NodeId, SessionId, WorkerId};
use serde_json::{Value, json};

use crate::support::{
    Client, EventStream, Received, StreamEnd, TestServer, WebSocket, on_both_drivers, wait_until,
};

/// Two workers. Namespace `closed` grants clients no permission and keeps no history; other channels use the defaults.
fn server_with_closed_namespace(driver: DriverChoice) -> TestServer {
    // Presence is there for the server API.
    let closed = ChannelOptions { presence: true, ..ChannelOptions::closed() };
    TestServer::start_with(driver, 2, |config| config.namespaces.add("closed", closed).unwrap())
}

/// Reads the next publication push of the command protocol.
#[track_caller]
fn read_publication(client: &mut Client) -> Value {
    loop {
        let line = client.read_json();
        if !line["push"]["pub"].is_null() {
            return line["push"].clone();
        }
    }
}

fn offsets(history: &Value) -> Vec<u64> {
    let publications = history["result"]["publications"].as_array().unwrap();
    publications.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect()
}

/// A connected client of the command protocol and its id.
fn connect(server: &TestServer) -> (Client, String) {
    let mut client = Client::connect(server.commands());
    let reply = client.command(&json!({"id": 1, "connect": {}}));
    let name = reply["connect"]["client"].as_str().unwrap().to_owned();
    (client, name)
}

/// Ids that match no client of the server of `client`: each differs in its worker, index, generation or node.
fn ids_of_no_client(client: &str) -> [String; 5] {
    let client: ClientId = client.parse().unwrap();
    let session = client.session;
    [
        ClientId { worker: WorkerId(0xfff), ..client },
        ClientId { worker: WorkerId(2), ..client },
        ClientId { session: SessionId { index: 0x3fff_ffff, ..session }, ..client },
        ClientId { session: SessionId { generation: u32::MAX, ..session }, ..client },
        ClientId { node: NodeId::new(0), ..client },
    ]
    .map(|id| id.to_string())
}

/// The error code of a call's reply.
#[track_caller]
fn code(client: &mut Client, method: &str, parameters: &Value) -> u64 {
    let answer = client.call(method, parameters);
    assert!(answer["result"].is_null(), "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    answer["error"]["code"].as_u64().unwrap()
}

/// Makes a call that fails with an HTTP error; the connection stays open unless the response says otherwise.
#[track_caller]
fn refused(client: &mut Client, method: &str, body: impl AsRef<[u8]>) -> (u16, Value) {
    let response = client.call_with(method, "", body);
    assert_eq!(response.header("content-type"), Some("application/json"));
    (response.status, response.json()["error"]["code"].clone())
}

on_both_drivers! {
    fn subscribers_receive_a_publication_byte_for_byte(driver) {
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
        // A binary payload stays binary, even if it is valid text.
        client.call("publish", &json!({"channel": "a", "b64data": "aGk="}));
        assert_eq!(subscriber.read(), Received::Binary(b"hi".to_vec()));
    }

    fn tags_are_delivered_and_kept_with_the_publication(driver) {
        let server = TestServer::start(driver, 2);
        let (mut subscriber, _) = connect(&server);
        subscriber.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let mut client = Client::connect(server.edge());
        let tags = json!({"event": "news", "colour": "\"red\""});
        client.call("publish", &json!({"channel": "a", "data": 1, "tags": tags}));
        assert_eq!(subscriber.read_json()["push"]["pub"]["tags"], tags);
        let kept = client.call("history", &json!({"channel": "a", "limit": -1}));
        assert_eq!(kept["result"]["publications"][0]["tags"], tags);
        client.publish("a&event=n%20%C3%A9", "2");
        assert_eq!(subscriber.read_json()["push"]["pub"]["tags"], json!({"event": "n é"}));
        client.publish("a", "3");
        assert!(subscriber.read_json()["push"]["pub"]["tags"].is_null());
        let own = ["gap", "join", "leave", "position", "disconnect"];
        for event in own {
            let publish = json!({"channel": "a", "data": 1, "tags": {"event": event}});
            assert_eq!(code(&mut client, "publish", &publish), 107, "{event} is reserved for the server");
        }
        for event in ["", "gap", "join", "leave", "disconnect", "a%0Ab", "a%0D", "%00", "a&event=b", &"x".repeat(256)] {
            let mut client = Client::connect(server.edge());
            client.send(format!(
                "POST /publish?channel=a&event={event} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx"
            ));
            let response = client.read_response();
            assert_eq!(response.status, 400, "{event}");
            assert_eq!(response.json()["error"]["code"], "event_invalid");
            assert_eq!(client.get("/health/live").status, 200);
        }
        client.publish(&format!("a&event={}", "x".repeat(255)), "4");
    }

    fn a_broadcast_reaches_each_channel_and_reports_each_result(driver) {
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

    fn a_batch_replies_to_each_command_in_order(driver) {
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

    fn pipelined_calls_and_calls_sent_byte_by_byte_are_answered_in_order(driver) {
        let server = TestServer::start(driver, 2);
        // Channels with subscribers keep their offset, with or without a history.
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

    fn info_describes_the_node(driver) {
        let server = TestServer::start(driver, 2);
        let _subscribers =
            [0, 1, 2].map(|_| WebSocket::connect(server.edge(), "/ws?channel=a&channel=b"));
        let mut client = Client::connect(server.edge());
        wait_until("all subscriptions are counted", || {
            client.call("info", &json!({}))["result"]["nodes"][0]["num_subs"] == 6
        });
        let node = client.call("info", &json!({}))["result"]["nodes"][0].clone();
        assert_eq!(node["num_clients"], 3, "the API connection is not counted as a client");
        assert!((2..=4).contains(&node["num_channels"].as_u64().unwrap()), "{node}");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(node["uid"].as_str().map(str::len), Some(13));
        assert!(node["uptime"].is_u64());
        let uid = || Client::connect(server.edge()).call("info", &json!({}))["result"]["nodes"][0]["uid"].clone();
        assert_eq!(uid(), node["uid"], "all workers report the same node");
        let node = node["uid"].as_str().unwrap();
        for _ in 0..4 {
            let (_client, id) = connect(&server);
            assert!(id.starts_with(&format!("{node}-800")), "{id} of {node}");
        }
        let other = TestServer::start(driver, 1);
        let (_client, id) = connect(&other);
        assert!(!id.starts_with(node), "a restart gets a new node id: {id}");
    }

    fn failed_calls_return_an_error_code_and_keep_the_connection_open(driver) {
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
            ("subscribe", json!({"channel": "a"})),
            ("subscribe", json!({"user": 7, "channel": "a"})),
            ("subscribe", json!({"client": "nobody", "channel": "a"})),
            ("subscribe", json!({"client": "00000000-0000-8000-8000-000000000000"})),
            ("unsubscribe", json!({"client": "00000000-0000-8000-8000-000000000000"})),
            ("disconnect", json!({})),
            ("block_user", json!({"user": ""})),
            ("connections", json!({"user": "u", "channel": "a"})),
            ("disconnect", json!({"client": "00000000-0000-8000-8000-000000000000", "disconnect": {"code": 1000}})),
            ("history", json!({"limit": 1})),
            ("history_remove", json!({})),
            ("presence", json!({"channel": null})),
            ("presence_stats", json!({"channel": []})),
            ("channels", json!({"pattern": 1})),
            ("info", json!(7)),
        ] {
            assert_eq!(code(&mut client, method, &parameters), 107, "{method} {parameters}");
        }
        assert_eq!(code(&mut client, "rpc", &json!({"method": "x"})), 108);
        for channels in [1001, 5000] {
            let parameters = json!({"channels": vec!["a"; channels], "data": 1});
            assert_eq!(code(&mut client, "broadcast", &parameters), 106);
        }
        let most = client.call("broadcast", &json!({"channels": vec!["a"; 1000], "data": 1}));
        assert_eq!(most["result"]["responses"][999]["result"]["offset"], 1000);
    }

    fn malformed_calls_fail_with_an_http_status(driver) {
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
        let unknown = |name: &str| {
            let mut client = Client::connect(server.edge());
            let refused = refused(&mut client, name, "{}");
            assert_eq!(client.get("/health/live").status, 200, "{name}");
            refused
        };
        for name in ["dance", "", "publish/", "Publish", "publish/a"] {
            assert_eq!(unknown(name), (404, 104.into()), "{name}");
        }
        for (request, status) in [
            ("GET /api/info HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 405),
            ("POST /api/info HTTP/1.1\r\nHost: t\r\nContent-Length: 100001\r\n\r\n".to_owned(), 413),
            ("POST /apis HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".to_owned(), 404),
        ] {
            let mut client = Client::connect(server.edge());
            client.send(&request);
            let response = client.read_response();
            assert_eq!(response.status, status, "{request}");
            assert_eq!(response.json()["error"]["status"], status);
            if status == 413 {
                client.expect_end();
            } else {
                assert_eq!(client.get("/health/live").status, 200, "{request}");
            }
        }
    }

    fn with_an_api_key_configured_calls_without_it_are_rejected(driver) {
        let key = "Key-1";
        let server =
            TestServer::start_with(driver, 2, |config| config.api_key = Some(key.into()));
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
                assert_eq!(client.get("/health/live").status, 200);
            }
            let mut client = Client::connect(server.edge());
            client.send(format!(
                "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: 1\r\n\r\nx"
            ));
            assert_eq!(client.read_response().status, 401, "{headers}");
            assert_eq!(client.get("/health/live").status, 200);
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
        // Pages and clients need no key.
        assert_eq!(client.get("/health/live").status, 200);
        subscriber.round_trip();
    }

    fn a_history_is_read_with_every_option_and_removed(driver) {
        let server = server_with_closed_namespace(driver);
        let mut client = Client::connect(server.edge());
        for channel in ["a", "b"] {
            let mut epoch = Value::Null;
            for data in 1..=5 {
                let answer = client.call("publish", &json!({"channel": channel, "data": {"n": data}}));
                epoch = answer["result"]["epoch"].clone();
            }
            let mut history = |more: Value| {
                let mut parameters = json!({"channel": channel});
                parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                client.call("history", &parameters)
            };
            let position = history(json!({}));
            assert_eq!(position["result"], json!({"publications": [], "offset": 5, "epoch": epoch}));
            let all = history(json!({"limit": -1}));
            assert_eq!(offsets(&all), [1, 2, 3, 4, 5]);
            assert_eq!(all["result"]["publications"][4], json!({"data": {"n": 5}, "offset": 5}));
            assert_eq!(offsets(&history(json!({"limit": 2}))), [1, 2]);
            assert_eq!(offsets(&history(json!({"limit": 2, "reverse": true}))), [5, 4]);
            let since = |offset: u64| json!({"offset": offset, "epoch": epoch});
            assert_eq!(offsets(&history(json!({"limit": 2, "since": since(3)}))), [4, 5]);
            assert_eq!(offsets(&history(json!({"limit": 9, "since": since(3), "reverse": true}))), [2, 1]);
            let start = json!({"offset": 0, "epoch": ""});
            assert_eq!(offsets(&history(json!({"limit": 9, "since": start}))), [1, 2, 3, 4, 5]);
            for since in [json!({"offset": 3, "epoch": "ffffffff"}), json!({"offset": 3, "epoch": "qFhv"})] {
                let answer = history(json!({"limit": 9, "since": since}));
                assert_eq!(answer["error"]["code"], 112, "{answer}");
            }
            assert_eq!(client.call("history_remove", &json!({"channel": channel})), json!({"result": {}}));
            let rest = client.call("history", &json!({"channel": channel, "limit": -1}));
            assert_eq!(rest["result"], json!({"publications": [], "offset": 5, "epoch": epoch}));
            let next = client.call("publish", &json!({"channel": channel, "data": 6}));
            assert_eq!(next["result"]["offset"], 6, "offsets continue");
        }
        // A history command in a batch sees publications of earlier commands.
        let commands = json!([
            {"publish": {"channel": "c", "data": 1}}, {"history": {"channel": "c", "limit": 9}},
            {"history_remove": {"channel": "c"}}, {"history": {"channel": "c", "limit": 9}},
        ]);
        let replies = client.call("batch", &json!({"commands": commands}))["replies"].clone();
        assert_eq!(replies[1]["history"]["publications"].as_array().unwrap().len(), 1, "{replies}");
        assert_eq!(replies[3]["history"]["publications"], json!([]));
        for method in ["history", "history_remove"] {
            assert_eq!(code(&mut client, method, &json!({"channel": "closed:a"})), 108);
        }
    }

    fn a_repeated_key_publishes_once(driver) {
        let server = TestServer::start(driver, 2);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a&channel=b");
        let mut clients = [0, 1, 2].map(|_| Client::connect(server.edge()));
        for client in &mut clients {
            let once = json!({"channel": "a", "data": 1, "idempotency_key": "k"});
            assert_eq!(client.call("publish", &once)["result"]["offset"], 1);
            let both = json!({"channels": ["a", "b"], "data": 2, "idempotency_key": "l"});
            let answer = client.call("broadcast", &both);
            assert_eq!(answer["result"]["responses"][0]["result"]["offset"], 2);
            assert_eq!(answer["result"]["responses"][1]["result"]["offset"], 1);
        }
        let other = json!({"channel": "a", "data": 3, "idempotency_key": "m"});
        assert_eq!(clients[0].call("publish", &other)["result"]["offset"], 3);
        let mut got = [0; 4].map(|_| subscriber.read_text());
        got.sort_unstable();
        assert_eq!(got, ["1", "2", "2", "3"]);
    }

    fn presence_lists_the_subscribed_clients(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let none = client.call("presence", &json!({"channel": "a"}));
        assert_eq!(none["result"]["presence"], json!({}));
        let none = client.call("presence_stats", &json!({"channel": "a"}));
        assert_eq!(none["result"], json!({"num_clients": 0, "num_users": 0}));
        let mut subscribers: Vec<_> = (0..6).map(|_| connect(&server)).collect();
        for (subscriber, _) in &mut subscribers {
            let reply = subscriber.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
            assert_eq!(reply["id"], 2);
        }
        let presence = client.call("presence", &json!({"channel": "a"}))["result"].clone();
        assert_eq!(presence["presence"].as_object().unwrap().len(), 6);
        assert_eq!(presence["num_clients"], 6);
        for (_, name) in &subscribers {
            assert_eq!(presence["presence"][name], json!({"client": name, "user": ""}));
        }
        let stats = client.call("presence_stats", &json!({"channel": "a"}));
        assert_eq!(stats["result"], json!({"num_clients": 6, "num_users": 1}));
    }

    fn channels_are_listed_by_pattern(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        assert_eq!(client.call("channels", &json!({}))["result"]["channels"], json!({}));
        let _subscribers = [0, 1, 2, 3].map(|_| {
            WebSocket::connect(server.edge(), "/ws?channel=news.a&channel=news.b&channel=%22")
        });
        let four = json!({"num_clients": 4});
        let listed = client.call("channels", &json!({}))["result"]["channels"].clone();
        assert_eq!(listed, json!({"news.a": four, "news.b": four, "\"": four}));
        let listed = client.call("channels", &json!({"pattern": "news.*"}))["result"]["channels"].clone();
        assert_eq!(listed, json!({"news.a": four, "news.b": four}));
        assert_eq!(client.call("channels", &json!({"pattern": "b"}))["result"]["channels"], json!({}));
    }

    fn a_client_is_subscribed_unsubscribed_and_disconnected(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let count = |client: &mut Client| {
            client.call("presence_stats", &json!({"channel": "a"}))["result"]["num_clients"].clone()
        };
        for code in [None, Some(3400), Some(4100), Some(4999)] {
            let (mut subscriber, name) = connect(&server);
            let orders = json!({"client": name, "user": "", "channel": "a"});
            assert_eq!(client.call("subscribe", &orders), json!({"result": {}}));
            wait_until("it is subscribed", || count(&mut client) == 1);
            client.call("publish", &json!({"channel": "a", "data": "hi"}));
            let push = read_publication(&mut subscriber);
            assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!("a"), &json!("hi")));
            assert_eq!(client.call("unsubscribe", &orders), json!({"result": {}}));
            wait_until("it is unsubscribed", || count(&mut client) == 0);
            let mut orders = json!({"client": name});
            if let Some(code) = code {
                orders["disconnect"] = json!({"code": code, "reason": "because"});
            }
            assert_eq!(client.call("disconnect", &orders), json!({"result": {}}));
            let rest = String::from_utf8(subscriber.read_to_end()).unwrap();
            let expected = match code {
                None => json!({"code": 3503, "reason": "force disconnect"}),
                Some(code) => json!({"code": code, "reason": "because"}),
            };
            assert!(rest.contains(&format!("\"disconnect\":{expected}")), "{rest}");
            // Commands for a client that has left succeed without an effect.
            for method in ["subscribe", "unsubscribe"] {
                let orders = json!({"client": name, "channel": "a"});
                assert_eq!(client.call(method, &orders), json!({"result": {}}));
            }
            assert_eq!(client.call("disconnect", &json!({"client": name})), json!({"result": {}}));
        }
        let (mut other, name) = connect(&server);
        for id in ids_of_no_client(&name) {
            for method in ["subscribe", "unsubscribe"] {
                let orders = json!({"client": id, "channel": "a"});
                assert_eq!(client.call(method, &orders), json!({"result": {}}), "{id}");
            }
            assert_eq!(client.call("disconnect", &json!({"client": id})), json!({"result": {}}));
        }
        let reply = other.command(&json!({"id": 2, "ping": {}}));
        assert_eq!(reply, json!({"id": 2, "ping": {}}), "the client is unaffected");
    }

    fn a_disconnect_call_sends_its_code_and_reason_to_the_client(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut stream = EventStream::connect(server.edge(), "/events?channel=b");
        for channel in ["a", "b"] {
            let presence = client.call("presence", &json!({"channel": channel}));
            let name = presence["result"]["presence"].as_object().unwrap().keys().next().unwrap().clone();
            let orders = json!({"client": name, "disconnect": {"code": 4001, "reason": "élan \"vital\""}});
            assert_eq!(client.call("disconnect", &orders), json!({"result": {}}));
        }
        assert_eq!(socket.read(), Received::Close(Some(4001), "élan \"vital\"".to_owned()));
        let (rest, end) = stream.read_to_end();
        assert_eq!(rest, "event: disconnect\ndata: {\"code\":4001,\"reason\":\"élan \\\"vital\\\"\"}\n\n");
        assert_eq!(end, StreamEnd::NoLastChunk, "the client may reconnect");
        assert_eq!(server.closed(fantail::message::CloseReason::ForcedToReconnect), 2);
    }

    fn subscribing_a_client_whose_protocol_has_no_subscribe_push_fails(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut poll = Client::connect(server.edge());
        poll.send("GET /poll?channel=b&timeout=60 HTTP/1.1\r\nHost: t\r\n\r\n");
        for channel in ["a", "b"] {
            let mut name = Value::Null;
            wait_until("the client is connected", || {
                let clients = client.call("presence", &json!({"channel": channel}))["result"]["presence"].clone();
                name = clients.as_object().unwrap().keys().next().map_or(Value::Null, |name| json!(name));
                name.is_string()
            });
            for (method, channel) in [("subscribe", "c"), ("unsubscribe", channel)] {
                assert_eq!(code(&mut client, method, &json!({"client": name, "channel": channel})), 108, "{method}");
            }
        }
        client.publish("a", "1");
        socket.expect_text("1");
        client.publish("b", "2");
        assert!(poll.read_response().text().contains("2"));
    }

    fn a_publication_whose_version_is_not_newer_is_dropped(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.namespaces = Namespaces::new(ChannelOptions::development());
        });
        // Connections are spread over both workers, and so are the homes of channels.
        for channel in ["a", "b", "c", "d"] {
            let mut client = Client::connect(server.edge());
            let mut socket = WebSocket::connect(server.edge(), &format!("/ws?channel={channel}"));
            let mut publish = |data: u64, version: u64, epoch: &str| {
                let call = json!({"channel": channel, "data": data, "version": version, "version_epoch": epoch});
                let result = client.call("publish", &call)["result"].clone();
                (result["offset"].as_u64().unwrap(), result["suppress_reason"].as_str().map(str::to_owned))
            };
            let dropped = Some("version".to_owned());
            assert_eq!(publish(1, 2, "e"), (1, None));
            assert_eq!(publish(2, 2, "e"), (1, dropped.clone()));
            assert_eq!(publish(3, 1, ""), (1, dropped));
            assert_eq!(publish(4, 3, "e"), (2, None));
            for text in ["1", "4"] {
                socket.expect_text(text);
            }
        }
        let mut client = Client::connect(server.edge());
        let call = json!({"channels": ["a", "new"], "data": 5, "version": 3});
        let answer = client.call("broadcast", &call);
        let responses = answer["result"]["responses"].as_array().unwrap();
        assert_eq!((&responses[0]["result"]["suppressed"], &responses[0]["result"]["offset"]), (&json!(true), &json!(2)));
        assert_eq!((&responses[1]["result"]["suppressed"], &responses[1]["result"]["offset"]), (&Value::Null, &json!(1)));
    }

    fn a_publication_excludes_the_client_that_it_names(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.namespaces = Namespaces::new(ChannelOptions::development());
        });
        let mut http = Client::connect(server.edge());
        // Connections are spread over both workers.
        for n in 0..4 {
            let channel = format!("c{n}");
            let mut clients = [connect(&server), connect(&server)];
            for (client, _) in &mut clients {
                let reply = client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
                assert!(reply["subscribe"].is_object(), "{reply}");
            }
            let [(excluded, name), (other, _)] = &mut clients;
            http.call("publish", &json!({"channel": channel, "data": 1, "exclude": name}));
            http.call("broadcast", &json!({"channels": [channel], "data": 2, "exclude": name}));
            http.call("publish", &json!({"channel": channel, "data": 3, "exclude": ""}));
            assert_eq!(read_publication(excluded)["pub"]["data"], 3);
            for data in 1..=3 {
                assert_eq!(read_publication(other)["pub"]["data"], data);
            }
        }
    }

    fn unknown_parameters_are_rejected(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let (_subscriber, name) = connect(&server);
        for (method, parameters, expected) in [
            ("publish", json!({"channel": "a", "data": 1, "chanel": "b"}), 107),
            ("publish", json!({"channel": "a", "data": 1, "channels": ["b"]}), 107),
            ("publish", json!({"channel": "a", "data": 1, "skip_history": 1}), 107),
            ("publish", json!({"channel": "a", "data": 1, "exclude": "a"}), 107),
            ("broadcast", json!({"channels": ["a"], "channel": "b", "data": 1}), 107),
            ("disconnect", json!({"client": name, "code": 4000}), 107),
            ("disconnect", json!({"client": name, "disconnect": {"kode": 4000}}), 107),
            ("disconnect", json!({"client": name, "channel": "a"}), 107),
            ("disconnect", json!({"client": name, "whitelist": ["x"]}), 107),
            ("unsubscribe", json!({"client": name, "channel": "a", "recover_since": {}}), 107),
            ("unsubscribe", json!({"client": name, "channel": "a", "session": "s"}), 107),
            ("unsubscribe", json!({"client": name, "channel": "a", "expire_at": 1}), 107),
            ("disconnect", json!({"client": name, "data": {"x": 1}}), 107),
            ("disconnect", json!({"whitelist": []}), 107),
            ("history", json!({"channel": "a", "size": 1}), 107),
            ("history", json!({"channel": "a", "limit": 1, "since": {"offest": 1}}), 107),
            ("history", json!({"channel": "a", "limit": 1, "since": {}, "reverse": true}), 107),
            ("history_remove", json!({"channel": "a", "limit": 1}), 107),
            ("presence", json!({"channel": "a", "limit": 1}), 107),
            ("channels", json!({"patern": "*"}), 107),
            ("info", json!({"verbose": true}), 107),
        ] {
            assert_eq!(code(&mut client, method, &parameters), expected, "{method} {parameters}");
        }
        // Server libraries send empty values for parameters that are not set.
        let set = json!({"channel": "a", "data": 1, "b64data": "", "tags": {}, "skip_history": false,
            "idempotency_key": "", "delta": true, "version": 0, "version_epoch": ""});
        assert_eq!(client.call("publish", &set)["result"]["offset"], 1);
        let set = json!({"client": name, "channel": "a", "user": "", "session": "", "expire_at": 0, "info": null,
            "b64info": "", "data": null, "b64data": "", "override": null, "label_filter": null, "all_users": false});
        assert_eq!(client.call("subscribe", &set), json!({"result": {}}));
        let commands = json!({"commands": [{"presence": {"channel": "a"}}], "parallel": false});
        assert!(client.call("batch", &commands)["replies"].is_array());
    }

    fn the_server_subscribes_clients_to_channels_that_they_may_not_subscribe_to_themselves(driver) {
        let server = server_with_closed_namespace(driver);
        let mut client = Client::connect(server.edge());
        // Connections are spread over both workers.
        for _ in 0..4 {
            let (mut subscriber, name) = connect(&server);
            let reply = subscriber.command(&json!({"id": 2, "subscribe": {"channel": "closed:a"}}));
            assert_eq!(reply["error"]["code"], 103);
            let orders = json!({"client": name, "channel": "closed:a"});
            assert_eq!(client.call("subscribe", &orders), json!({"result": {}}));
            assert_eq!(subscriber.read_json()["push"]["channel"], "closed:a");
            client.call("publish", &json!({"channel": "closed:a", "data": 1}));
            assert_eq!(read_publication(&mut subscriber)["pub"]["data"], 1);
        }
    }

    fn server_subscriptions_that_change_nothing_send_no_push(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.subscriptions_max = 2);
        let mut client = Client::connect(server.edge());
        let (mut subscriber, name) = connect(&server);
        let mut order = |method: &str, channel: &str| {
            let orders = json!({"client": name, "channel": channel});
            assert_eq!(client.call(method, &orders), json!({"result": {}}));
        };
        order("unsubscribe", "a");
        for channel in ["a", "b"] {
            order("subscribe", channel);
            assert_eq!(subscriber.read_json()["push"]["channel"], channel);
        }
        for (method, channel) in [("subscribe", "a"), ("subscribe", "c"), ("unsubscribe", "c")] {
            order(method, channel);
        }
        order("unsubscribe", "a");
        assert_eq!(subscriber.read_json()["push"]["unsubscribe"]["code"], 2000);
        assert_eq!(subscriber.command(&json!({"id": 9, "ping": {}})), json!({"id": 9, "ping": {}}));
    }

    fn a_connection_of_the_server_api_can_be_disconnected_through_the_api(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        let _ = client.get("/health/live");
        let info = client.call("info", &json!({}));
        let node = info["result"]["nodes"][0]["uid"].as_str().unwrap();
        // Indices begin at 0, so this is the first connection of the only worker. It does not accept server
        // subscriptions.
        for method in ["subscribe", "unsubscribe"] {
            let mut codes = Vec::new();
            for generation in 0..4 {
                let id = format!("{node}-8000-8000-0000{generation:08x}");
                let orders = json!({"client": id, "channel": "a"});
                codes.push(client.call(method, &orders)["error"]["code"].clone());
            }
            assert_eq!(codes.iter().filter(|code| **code == 108).count(), 1, "{codes:?}");
            assert_eq!(codes.iter().filter(|code| code.is_null()).count(), 3, "{codes:?}");
        }
        let answer = client.call("publish", &json!({"channel": "a", "data": 1}));
        assert_eq!(answer["result"]["offset"], 1);
        assert_eq!(client.call("channels", &json!({}))["result"]["channels"], json!({}));
    }

    fn errors_of_the_hub_are_returned_as_error_codes(driver) {
        let server = server_with_closed_namespace(driver);
        let mut client = Client::connect(server.edge());
        for method in ["publish", "history", "history_remove", "presence", "presence_stats"] {
            let mut parameters = json!({"channel": "nowhere:a"});
            if method == "publish" {
                parameters["data"] = json!(1);
            }
            assert_eq!(code(&mut client, method, &parameters), 102, "{method}");
        }
        // The result is the same for clients on any worker and for missing clients, because workers do not report it
        // back.
        let orders = |name: &str, channel: &str| json!({"client": name, "channel": channel});
        let (_here, name) = connect(&server);
        for name in ids_of_no_client(&name).iter().chain([&name]) {
            for method in ["subscribe", "unsubscribe"] {
                assert_eq!(code(&mut client, method, &orders(name, "nowhere:a")), 102, "{method}");
                assert_eq!(client.call(method, &orders(name, "a")), json!({"result": {}}));
            }
        }
        let mixed = json!({"channels": ["a", "nowhere:a", "closed:a"], "data": 1});
        let responses = client.call("broadcast", &mixed)["result"]["responses"].clone();
        assert_eq!(responses[0]["result"]["offset"], 1);
        assert_eq!(responses[1]["error"], json!({"code": 102, "message": "unknown channel"}));
        assert_eq!(responses[2]["result"]["offset"], 1, "the server API has all permissions");

        let mut publish = |channel: &str| {
            client.send(format!(
                "POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx"
            ));
            let response = client.read_response();
            (response.status, response.json()["error"]["code"].clone())
        };
        assert_eq!(publish("nowhere:a"), (404, "namespace_unknown".into()));
        assert_eq!(publish("closed:a"), (403, "permission_denied".into()));
        assert_eq!(publish("a").0, 200, "and the connection stays open");
    }

    fn a_handshake_fails_if_its_subscription_is_refused(driver) {
        let server = server_with_closed_namespace(driver);
        for (target, status, code) in [
            ("/ws?channel=nowhere:a", 404, "namespace_unknown"),
            ("/ws?channel=a&channel=nowhere:a&channel=b", 404, "namespace_unknown"),
            ("/ws?channel=closed:a", 403, "permission_denied"),
            ("/?channel=a&channel=b&channel=closed:a&channel=nowhere:a", 403, "permission_denied"),
        ] {
            let mut client = Client::connect(server.edge());
            client.send(WebSocket::request(target));
            let response = client.read_response();
            assert_eq!((response.status, &response.json()["error"]["code"]), (status, &code.into()));
            assert_eq!(response.header("connection"), Some("close"));
            client.expect_end();
        }
        let mut client = Client::connect(server.edge());
        wait_until("their subscriptions are gone", || {
            client.call("channels", &json!({}))["result"]["channels"] == json!({})
        });
        WebSocket::connect(server.edge(), "/ws?channel=a").round_trip();
    }

    fn publishing_with_the_api_key_has_the_permissions_of_the_server(driver) {
        let allow_subscribe = ClientRight::ALL;
        let closed = ChannelOptions { allow_subscribe, ..ChannelOptions::closed() };
        let server = TestServer::start_with(driver, 2, |config| {
            config.namespaces.add("closed", closed).unwrap();
            config.api_key = Some("k".into());
        });
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=closed:a");
        let mut client = Client::connect(server.edge());
        client.send(
            "POST /publish?channel=closed:a HTTP/1.1\r\nHost: t\r\nX-API-Key: k\r\nContent-Length: 1\r\n\r\nx",
        );
        assert_eq!(client.read_response().status, 200);
        subscriber.expect_text("x");
    }
}
