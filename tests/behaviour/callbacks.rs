//! Callbacks: what a backend is asked, and what its answers and failures lead to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fantail::callback::OUTCOMES;
use fantail::config::{CallbackKind, CallbackOption, ChannelOptions, Config, DriverChoice};
use fantail::message::CloseReason;

use crate::support::{
    Backend, BackendAnswer, BackendRequest, Client, EventStream, Gate, PATIENCE, TestServer,
    WebSocket, on_both_drivers, wait_until,
};

/// Sets an option of a callback, as the settings file does.
fn set(config: &mut Config, kind: CallbackKind, name: &str, value: &str) {
    let option = CallbackOption::named(name).unwrap();
    option.parse(&[value.to_owned()], config.callbacks.of_mut(kind)).unwrap();
}

/// A server that asks a backend for one kind of callback, with further options.
fn server(
    driver: DriverChoice,
    kind: CallbackKind,
    backend: &Backend,
    options: &[(&str, &str)],
) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        set(config, kind, "endpoint", &backend.url("/x?y=1"));
        options.iter().for_each(|(name, value)| set(config, kind, name, value));
    })
}

fn rpc(
    driver: DriverChoice,
    options: &[(&str, &str)],
    answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
) -> (Backend, TestServer) {
    let backend = Backend::start(answer);
    let server = server(driver, CallbackKind::Rpc, &backend, options);
    (backend, server)
}

#[track_caller]
fn connected(server: &TestServer) -> Client {
    let mut client = Client::connect(server.commands());
    client.command(&json!({"id": 1, "connect": {}}));
    client
}

fn outcomes(server: &TestServer, kind: CallbackKind, outcome: &str) -> u64 {
    let index = OUTCOMES.iter().position(|known| *known == outcome).unwrap();
    server.sum(|counters| counters.callbacks.at(kind as usize, index))
}

fn raw(status: u16, body: &str) -> BackendAnswer {
    BackendAnswer::Raw(status, body.to_owned(), Duration::ZERO)
}

fn late(by: Duration) -> BackendAnswer {
    BackendAnswer::Raw(200, "{}".to_owned(), by)
}

on_both_drivers! {
    fn a_procedure_is_called_and_its_result_returned(driver) {
        let (backend, server) = rpc(driver, &[("static_headers", "X-Key: k")], |request| {
            BackendAnswer::Json(json!({"result": {"data": {"got": request.body["data"]}}, "more": 1}))
        });
        let mut client = connected(&server);
        let reply = client.command(&json!({"id": 2, "rpc": {"method": "add", "data": [1, 2]}}));
        assert_eq!(reply, json!({"id": 2, "rpc": {"data": {"got": [1, 2]}}}));
        let reply = client.command(&json!({"id": 3, "rpc": {}}));
        assert_eq!(reply, json!({"id": 3, "rpc": {"data": {"got": null}}}));
        let requests = backend.requests();
        let [first, second] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(first.head[0], "POST /x?y=1 HTTP/1.1");
        assert_eq!(first.header("content-type"), Some("application/json"));
        assert_eq!(first.header("x-key"), Some("k"));
        let id = first.body["client"].as_str().unwrap().to_owned();
        let same = json!({"client": id, "transport": "tcp", "protocol": "json", "encoding": "json"});
        let mut expected = same.clone();
        expected["method"] = json!("add");
        expected["data"] = json!([1, 2]);
        assert_eq!(first.body, expected);
        assert_eq!(second.body, same);
        assert_eq!(backend.connections(), 1, "it is kept");
        assert_eq!(outcomes(&server, CallbackKind::Rpc, "result"), 2);
    }
}

on_both_drivers! {
    fn a_client_gets_the_errors_and_the_disconnect_of_the_backend(driver) {
        let (_, server) = rpc(driver, &[], |request| {
            let error = json!({"code": 1000, "message": "no"});
            let disconnect = json!({"code": 4100, "reason": "out"});
            BackendAnswer::Json(match request.body["method"].as_str().unwrap() {
                "error" => json!({"error": error, "result": {"data": 1}}),
                "temporary" => json!({"error": {"code": 50, "message": "m", "temporary": true}}),
                _ => json!({"disconnect": disconnect, "error": error}),
            })
        });
        let mut client = connected(&server);
        let mut ask = |method: &str| client.command(&json!({"id": 2, "rpc": {"method": method}}));
        let error = json!({"code": 1000, "message": "no"});
        assert_eq!(ask("error"), json!({"id": 2, "error": error}));
        let error = json!({"code": 50, "message": "m", "temporary": true});
        assert_eq!(ask("temporary"), json!({"id": 2, "error": error}));
        let push = ask("disconnect");
        assert_eq!(push, json!({"push": {"disconnect": {"code": 4100, "reason": "out"}}}));
        client.expect_end();
        wait_until("the close is counted", || server.closed(CloseReason::Backend) == 1);
    }
}

on_both_drivers! {
    fn the_server_takes_a_channel_back_while_calls_of_its_client_wait(driver) {
        let gate = Gate::default();
        let opened = gate.clone();
        let (backend, server) = rpc(driver, &[("timeout", "20 s")], move |_| {
            opened.wait();
            BackendAnswer::Json(json!({"result": {"data": 1}}))
        });
        let mut client = connected(&server);
        client.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let calls: String = (3..13).map(|id| format!("{}\n", json!({"id": id, "rpc": {}}))).collect();
        client.send(calls);
        wait_until("the backend is asked", || backend.requests().len() == 1);
        let mut api = Client::connect(server.edge());
        api.call("unsubscribe", &json!({"user": "", "channel": "a"}));
        let unsubscribe = json!({"code": 2000, "reason": "server unsubscribe"});
        assert_eq!(client.read_json()["push"], json!({"channel": "a", "unsubscribe": unsubscribe}));
        assert_eq!(api.call("presence_stats", &json!({"channel": "a"}))["result"]["num_clients"], 0);
        gate.open();
        for id in 3..13 {
            assert_eq!(client.read_json(), json!({"id": id, "rpc": {"data": 1}}));
        }
    }
}

/// An answer of so many bytes.
fn answer_of(bytes: usize) -> String {
    format!("{{\"x\":\"{}\"}}", "x".repeat(bytes - 8))
}

/// Every way in which a backend can fail, and its outcome.
fn failures() -> Vec<(&'static str, BackendAnswer)> {
    let head = "HTTP/1.1 200 OK\r\n";
    let bytes = |text: &str| BackendAnswer::Bytes(format!("{head}{text}").into_bytes());
    let deep = format!("{{\"result\":{{\"data\":{}{}}}}}", "[".repeat(60), "]".repeat(60));
    vec![
        ("invalid", raw(200, "")),
        ("invalid", raw(200, "not json")),
        ("invalid", raw(200, "[]")),
        ("invalid", raw(200, &deep)),
        ("invalid", raw(200, r#"{"result":{"b64data":7}}"#)),
        ("status", raw(204, "")),
        ("status", raw(201, "{}")),
        ("status", raw(302, "{}")),
        ("status", raw(403, r#"{"error":{"code":1000,"message":"no"}}"#)),
        ("server_error", raw(500, "{}")),
        ("server_error", raw(503, "{}")),
        ("too_large", raw(200, &answer_of(1025))),
        ("too_large", bytes(&format!("\r\n{}", "x".repeat(100_000)))),
        ("unreachable", bytes("Content-Length: 100\r\n\r\n{}")),
        ("unreachable", bytes("Transfer-Encoding: chunked\r\n\r\nzz\r\n")),
        ("unreachable", BackendAnswer::Bytes(Vec::new())),
        ("unreachable", BackendAnswer::Bytes(b"not HTTP\r\n\r\n".to_vec())),
        ("unreachable", bytes(&format!("X: {}\r\n\r\n", "x".repeat(1 << 20)))),
        ("timeout", late(Duration::from_secs(6))),
    ]
}

on_both_drivers! {
    fn every_failure_of_a_backend_is_an_error_that_may_pass(driver) {
        let options = [("timeout", "2 s"), ("answer_bytes_max", "1 KiB")];
        let (_, server) = rpc(driver, &options, |request| {
            let failure = failures().into_iter().nth(request.body["data"].as_u64().unwrap() as usize);
            failure.map_or_else(|| raw(200, &answer_of(1024)), |(_, answer)| answer)
        });
        let mut client = connected(&server);
        for (index, (outcome, answer)) in failures().into_iter().enumerate() {
            let before = outcomes(&server, CallbackKind::Rpc, outcome);
            let reply = client.command(&json!({"id": 2, "rpc": {"data": index}}));
            let error = json!({"code": 100, "message": "internal server error", "temporary": true});
            assert_eq!(reply, json!({"id": 2, "error": error}), "{answer:?}");
            let after = outcomes(&server, CallbackKind::Rpc, outcome);
            assert_eq!(after, before + 1, "{outcome}: {answer:?}");
        }
        let reply = client.command(&json!({"id": 2, "rpc": {"data": failures().len()}}));
        assert_eq!(reply, json!({"id": 2, "rpc": {}}), "an answer may have so many bytes");
    }
}

on_both_drivers! {
    fn answers_under_way_take_a_part_of_the_memory_budget_at_most(driver) {
        let backend = Backend::start(|request| {
            raw(200, &answer_of(request.body["data"].as_u64().unwrap() as usize))
        });
        let server = TestServer::start_with(driver, 1, |config| {
            set(config, CallbackKind::Rpc, "endpoint", &backend.url("/"));
            set(config, CallbackKind::Rpc, "answer_bytes_max", "16 MiB");
            set(config, CallbackKind::Rpc, "timeout", "20 s");
            config.memory_bytes_max = Some(64 << 20);
        });
        let mut client = connected(&server);
        let mut ask = |bytes: usize| client.command(&json!({"id": 2, "rpc": {"data": bytes}}));
        // A sixteenth, of which the request takes a part.
        assert_eq!(ask((4 << 20) - 1000), json!({"id": 2, "rpc": {}}));
        assert_eq!(ask((4 << 20) + 1)["error"]["code"], 100);
        assert_eq!(outcomes(&server, CallbackKind::Rpc, "rejected"), 1);
        assert_eq!(ask((4 << 20) - 1000), json!({"id": 2, "rpc": {}}), "it is given back");
    }
}

on_both_drivers! {
    fn nothing_of_a_client_overtakes_its_call(driver) {
        let (backend, server) = rpc(driver, &[("timeout", "10 s")], |request| {
            BackendAnswer::Raw(
                200,
                json!({"result": {"data": request.body["data"]}}).to_string(),
                Duration::from_millis(if request.body["data"] == 1 { 1000 } else { 0 }),
            )
        });
        let mut client = connected(&server);
        let mut publisher = connected(&server);
        client.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let commands: Vec<Value> = vec![
            json!({"id": 3, "rpc": {"data": 1}}),
            json!({"id": 4, "rpc": {"data": 2}}),
            json!({"id": 5, "publish": {"channel": "b", "data": 3}}),
            json!({"send": {"data": 4}}),
            json!({"id": 6, "rpc": {"data": 5}}),
            json!({"id": 7, "unsubscribe": {"channel": "a"}}),
        ];
        client.send(commands.iter().map(|command| format!("{command}\n")).collect::<String>());
        wait_until("the backend was asked", || !backend.requests().is_empty());
        publisher.command(&json!({"id": 2, "publish": {"channel": "a", "data": "meanwhile"}}));
        let push = client.read_json();
        assert_eq!(push["push"]["pub"]["data"], "meanwhile", "deliveries go on: {push}");
        let replies: Vec<_> = (3..=7).map(|_| client.read_json()["id"].as_u64().unwrap()).collect();
        // The reply to the publication may come from another worker.
        let others: Vec<_> = replies.iter().filter(|id| **id != 5).collect();
        assert_eq!(others, [&3, &4, &6, &7], "{replies:?}");
        let asked: Vec<_> =
            backend.requests().iter().map(|request| request.body["data"].clone()).collect();
        assert_eq!(asked, [1, 2, 4, 5]);
    }
}

on_both_drivers! {
    fn a_call_is_forgotten_with_its_client(driver) {
        let (backend, server) = rpc(driver, &[("timeout", "10 s")], |_| late(Duration::from_millis(300)));
        let mut client = connected(&server);
        client.send(format!("{}\n", json!({"id": 2, "rpc": {}})));
        wait_until("the backend was asked", || !backend.requests().is_empty());
        client.reset();
        wait_until("the answer is counted", || {
            outcomes(&server, CallbackKind::Rpc, "result") == 1
        });
        let mut next = connected(&server);
        let reply = next.command(&json!({"id": 2, "rpc": {}}));
        assert_eq!(reply, json!({"id": 2, "rpc": {}}));
    }
}

on_both_drivers! {
    fn calls_beyond_the_maximum_fail_at_once(driver) {
        let options = [("pending_max", "2"), ("connections_max", "1"), ("timeout", "2 s")];
        let (backend, server) = rpc(driver, &options, |_| late(Duration::from_millis(400)));
        let mut clients: Vec<_> = (0..3).map(|_| connected(&server)).collect();
        let began = Instant::now();
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(format!("{}\n", json!({"id": 2, "rpc": {}})));
            if index == 0 {
                wait_until("the backend was asked", || !backend.requests().is_empty());
            }
            if index == 1 {
                // It waits for the connection of the first one: nothing tells that it does.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let reply = clients[2].read_json();
        assert_eq!(reply["error"]["temporary"], true, "{reply}");
        assert!(began.elapsed() < Duration::from_millis(390), "{:?}", began.elapsed());
        assert_eq!(outcomes(&server, CallbackKind::Rpc, "rejected"), 1);
        for client in &mut clients[..2] {
            assert_eq!(client.read_json(), json!({"id": 2, "rpc": {}}));
        }
        assert_eq!(backend.connections(), 1);
    }
}

on_both_drivers! {
    fn a_backend_that_is_away_is_spared_until_it_answers(driver) {
        let is_back = Arc::new(AtomicBool::new(false));
        let is_back_now = is_back.clone();
        let (backend, server) = rpc(driver, &[("failures_max", "3"), ("timeout", "10 s")], move |_| {
            raw(if is_back_now.load(Ordering::Relaxed) { 200 } else { 500 }, "{}")
        });
        let mut client = connected(&server);
        let mut ask = || client.command(&json!({"id": 2, "rpc": {}}));
        for _ in 0..10 {
            assert_eq!(ask()["error"]["code"], 100);
        }
        // It is tried again after a while, which may be over on a slow host.
        let (asked, spared) = (backend.requests().len(), outcomes(&server, CallbackKind::Rpc, "circuit_open"));
        assert!((3..7).contains(&asked) && asked as u64 + spared == 10, "{asked} {spared}");
        is_back.store(true, Ordering::Relaxed);
        wait_until("the backend is asked again", || ask().get("rpc").is_some());
        assert_eq!(ask(), json!({"id": 2, "rpc": {}}));
    }
}

on_both_drivers! {
    fn without_a_backend_there_are_no_procedures(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = connected(&server);
        client.send(format!("{}\n", json!({"send": {"data": 1}})));
        let reply = client.command(&json!({"id": 2, "rpc": {"method": "x"}}));
        assert_eq!(reply["error"]["code"], 108, "{reply}");
        // The server API has its own answer: procedures are for clients.
        let reply = Client::connect(server.edge()).call("rpc", &json!({"method": "x"}));
        assert_eq!(reply["error"]["code"], 108, "{reply}");
    }
}

on_both_drivers! {
    fn a_procedure_has_a_name_and_data_of_a_bounded_size(driver) {
        let (_, server) = rpc(driver, &[], |_| raw(200, "{}"));
        let mut client = connected(&server);
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (name, depth, is_fine) in [(255, 50, true), (256, 50, false), (255, 51, false)] {
            let command = format!(
                "{{\"id\":2,\"rpc\":{{\"method\":\"{}\",\"data\":{}}}}}\n",
                "x".repeat(name),
                nested(depth)
            );
            client.send(command);
            let reply = client.read_json();
            assert_eq!(reply["error"]["code"].as_u64(), (!is_fine).then_some(107), "{reply}");
        }
    }
}

/// A server whose namespace `asks` has the backend decide about subscriptions and publications, and gives clients no
/// right; clients of `free` have every right.
fn deciding(
    driver: DriverChoice,
    answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
) -> (Backend, TestServer) {
    let backend = Backend::start(answer);
    let server = TestServer::start_with(driver, 2, |config| {
        for kind in [CallbackKind::Subscribe, CallbackKind::Publish] {
            set(config, kind, "endpoint", &backend.url(&format!("/{}", kind.word())));
            set(config, kind, "timeout", "10 s");
        }
        let asks = ChannelOptions {
            callback_subscribe: true,
            callback_publish: true,
            history_size: 100,
            presence: true,
            allow_presence: fantail::config::ClientRight::ALL,
            ..ChannelOptions::closed()
        };
        config.namespaces.add("asks", asks).unwrap();
        config.namespaces.add("free", ChannelOptions::development()).unwrap();
    });
    (backend, server)
}

/// Answers by the name of the channel.
fn by_channel(request: &BackendRequest) -> BackendAnswer {
    match request.body["channel"].as_str().unwrap().strip_prefix("asks:").unwrap() {
        "no" => BackendAnswer::Json(json!({"error": {"code": 403, "message": "not yours"}})),
        "later" => BackendAnswer::Json(
            json!({"error": {"code": 50, "message": "not now", "temporary": true}}),
        ),
        "out" => BackendAnswer::Json(json!({"disconnect": {"code": 4500, "reason": "out"}})),
        "back" => BackendAnswer::Json(json!({"disconnect": {"code": 4400, "reason": "later"}})),
        "down" => raw(500, ""),
        _ => BackendAnswer::Json(json!({})),
    }
}

on_both_drivers! {
    fn the_backend_decides_about_subscriptions(driver) {
        let (backend, server) = deciding(driver, by_channel);
        let mut client = connected(&server);
        let mut ask = |channel: &str| {
            client.command(&json!({"id": 2, "subscribe": {"channel": channel}}))
        };
        assert_eq!(ask("asks:yes")["subscribe"]["offset"], 0);
        let error = json!({"code": 403, "message": "not yours"});
        assert_eq!(ask("asks:no"), json!({"id": 2, "error": error}));
        let error = json!({"code": 100, "message": "internal server error", "temporary": true});
        assert_eq!(ask("asks:down"), json!({"id": 2, "error": error}));
        // Refused ones are asked about again; what is subscribed already is asked about too, and then refused.
        assert_eq!(ask("asks:no")["error"]["code"], 403);
        assert_eq!(ask("asks:yes")["error"]["code"], 105);
        assert_eq!(ask("free:1")["subscribe"]["offset"], 0);
        assert_eq!(ask("nowhere:1")["error"]["code"], 102);
        let asked: Vec<_> =
            backend.requests().iter().map(|request| request.body["channel"].clone()).collect();
        assert_eq!(asked, ["asks:yes", "asks:no", "asks:down", "asks:no", "asks:yes"]);
        assert!(backend.requests().iter().all(|request| request.head[0].contains(" /subscribe ")));
        let reply = client.command(&json!({"id": 3, "presence_stats": {"channel": "asks:no"}}));
        assert_eq!(reply["presence_stats"]["num_clients"], 0, "no subscription is left: {reply}");
        client.send("{\"id\":4,\"subscribe\":{\"channel\":\"asks:out\"}}\n");
        let push = client.read_json();
        assert_eq!(push["push"]["disconnect"], json!({"code": 4500, "reason": "out"}));
    }
}

on_both_drivers! {
    fn subscriptions_over_http_wait_for_the_backend(driver) {
        let (backend, server) = deciding(driver, by_channel);
        for (channel, status, retry) in [
            ("asks:no", 403, false),
            ("asks:later", 503, true),
            ("asks:down", 503, true),
            ("asks:out", 403, false),
            ("asks:back", 503, true),
        ] {
            let response = Client::connect(server.edge()).get(&format!("/poll?channel={channel}"));
            assert_eq!((response.status, response.retry_after().is_some()), (status, retry));
            let mut client = Client::connect(server.edge());
            client.send(WebSocket::request(&format!("/ws?channel={channel}")));
            let response = client.read_response();
            assert_eq!((response.status, response.retry_after().is_some()), (status, retry));
        }
        // A browser does not come back after an error, but after a connection that failed.
        let out = Client::connect(server.edge()).get("/events?channel=asks:out");
        assert_eq!((out.status, out.text().contains("out (4500)")), (403, true), "{out:?}");
        let mut back = Client::connect(server.edge());
        back.send("GET /events?channel=asks:back HTTP/1.1\r\nHost: t\r\n\r\n");
        back.expect_end();
        let mut stream = EventStream::connect(server.edge(), "/events?channel=asks:a&channel=asks:b");
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=asks:a");
        Client::connect(server.edge()).call("publish", &json!({"channel": "asks:a", "data": 1}));
        socket.expect_text("1");
        while stream.read().data != "1" {}
        let names: Vec<_> = backend
            .requests()
            .iter()
            .filter(|request| request.body["channel"] == "asks:a")
            .map(|request| request.body["transport"].clone())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

on_both_drivers! {
    fn the_backend_decides_about_publications_and_may_change_them(driver) {
        let (backend, server) = deciding(driver, |request| {
            if request.head[0].contains("/subscribe") {
                return BackendAnswer::Json(json!({}));
            }
            match request.body["data"].as_str() {
                Some("change") => BackendAnswer::Json(
                    json!({"result": {"data": {"changed": true}, "tags": {"by": "backend"}}}),
                ),
                Some("no") => BackendAnswer::Json(json!({"error": {"code": 1000, "message": "no"}})),
                Some("down") => raw(500, ""),
                Some("out") => BackendAnswer::Json(json!({"disconnect": {"code": 4500}})),
                _ => BackendAnswer::Json(json!({"result": {}})),
            }
        });
        let mut subscriber = connected(&server);
        subscriber.command(&json!({"id": 2, "subscribe": {"channel": "asks:a"}}));
        let mut client = connected(&server);
        let mut publish = |data: &str| {
            client.command(&json!({"id": 2, "publish": {"channel": "asks:a", "data": data}}))
        };
        assert_eq!(publish("as it is"), json!({"id": 2, "publish": {}}));
        assert_eq!(publish("no"), json!({"id": 2, "error": {"code": 1000, "message": "no"}}));
        assert_eq!(publish("down")["error"]["temporary"], true);
        assert_eq!(publish("change"), json!({"id": 2, "publish": {}}));
        let mut next = || subscriber.read_json()["push"]["pub"].take();
        let own = next();
        assert_eq!((&own["data"], own["info"]["client"].is_string()), (&json!("as it is"), true));
        let changed = next();
        assert_eq!(changed["data"], json!({"changed": true}));
        assert_eq!(changed["tags"], json!({"by": "backend"}));
        let mut http = Client::connect(server.edge());
        let mut post = |body: &str| {
            let length = body.len();
            http.send(format!(
                "POST /publish?channel=asks:a HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            http.read_response()
        };
        assert_eq!(post("plain text").status, 200);
        let response = post("\"no\"");
        assert_eq!((response.status, response.text().contains("no (1000)")), (403, true));
        assert_eq!(post("\"down\"").status, 503);
        // No subscriber could know the client of this request.
        let posted = next();
        assert_eq!((&posted["data"], &posted["info"]), (&json!("plain text"), &Value::Null));
        let asked = backend.requests();
        let last = &asked[asked.len() - 3].body;
        assert_eq!((&last["data"], &last["transport"]), (&json!("plain text"), &json!("http")));
        let mut other = Client::connect(server.edge());
        other.send("POST /publish?channel=asks:a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n\"out\"");
        let response = other.read_response();
        assert_eq!((response.status, response.header("connection")), (403, Some("close")));
        other.expect_end();
        // The type of event that a client gives stays, whatever the data becomes.
        http.send(
            "POST /publish?channel=asks:a&event=e HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n1234",
        );
        assert_eq!(http.read_response().status, 200);
        assert_eq!(next()["tags"], json!({"event": "e"}));
        // A plain WebSocket publishes to the channel of its address, and gets no reply.
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=asks:a");
        socket.send_text("\"no\"");
        socket.send_text("\"change\"");
        socket.expect_text("{\"changed\":true}");
        // The server API is not asked about.
        let before = backend.requests().len();
        Client::connect(server.edge()).call("publish", &json!({"channel": "asks:a", "data": "no"}));
        socket.expect_text("\"no\"");
        assert_eq!(backend.requests().len(), before);
    }
}

on_both_drivers! {
    fn recoveries_that_the_backend_allows_wait_for_their_turn(driver) {
        let (_, server) = deciding(driver, by_channel);
        let mut api = Client::connect(server.edge());
        for data in 1..=3 {
            api.call("publish", &json!({"channel": "asks:a", "data": data}));
        }
        // More of them than may be under way at once.
        let mut clients: Vec<_> = (0..40).map(|_| connected(&server)).collect();
        for client in &mut clients {
            let subscribe = json!({"channel": "asks:a", "recover": true, "offset": 1, "epoch": ""});
            client.send(format!(
                "{}\n{}\n",
                json!({"id": 2, "subscribe": subscribe}),
                json!({"id": 3, "publish": {"channel": "free:a", "data": 1}})
            ));
        }
        for client in &mut clients {
            let mut replies = [client.read_json(), client.read_json()];
            replies.sort_by_key(|reply| reply["id"].as_u64());
            let [subscribed, published] = replies;
            let missed = subscribed["subscribe"]["publications"].as_array();
            assert_eq!(missed.map(Vec::len), Some(2), "{subscribed}");
            assert_eq!(published, json!({"id": 3, "publish": {}}));
        }
    }
}

/// A server that asks a backend who its clients are, and verifies tokens too.
fn connecting(
    driver: DriverChoice,
    options: &[(&str, &str)],
    answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
) -> (Backend, TestServer) {
    let backend = Backend::start(answer);
    let server = TestServer::start_with(driver, 2, |config| {
        set(config, CallbackKind::Connect, "endpoint", &backend.url("/connect"));
        options.iter().for_each(|(name, value)| set(config, CallbackKind::Connect, name, value));
        config.hmac_secret = Some("0123456789abcdef0123456789abcdef".to_owned().into());
        config.namespaces.add("a", ChannelOptions::development()).unwrap();
    });
    (backend, server)
}

/// Answers by the data of the client.
fn who(request: &BackendRequest) -> BackendAnswer {
    let result = |result: Value| BackendAnswer::Json(json!({ "result": result }));
    match request.body["data"].as_str().unwrap_or("nothing") {
        "anna" => result(json!({
            "user": "anna",
            "info": {"name": "Anna"},
            "data": {"hello": 1},
            "channels": ["a:1", "a:1"],
            "subs": {"a:2": {"info": {"role": 1}, "data": "welcome"}},
        })),
        "anonymous" => result(json!({})),
        "nothing" => BackendAnswer::Json(json!({})),
        "unknown" => result(json!({"user": "u", "channels": ["nowhere:1"]})),
        "expired" => result(json!({"user": "u", "expire_at": 5})),
        "no" => BackendAnswer::Json(json!({"error": {"code": 1000, "message": "no"}})),
        "out" => BackendAnswer::Json(json!({"disconnect": {"code": 4500, "reason": "out"}})),
        _ => raw(500, ""),
    }
}

on_both_drivers! {
    fn the_backend_says_who_a_client_is(driver) {
        let (backend, server) = connecting(driver, &[], who);
        let connect = |parameters: Value| {
            let mut client = Client::connect(server.commands());
            client.send(format!("{}\n", json!({"id": 1, "connect": parameters})));
            let reply = client.read_json();
            (client, reply)
        };
        let since = json!({"a:9": {"recover": true, "offset": 1, "epoch": "x"}});
        let (mut anna, reply) =
            connect(json!({"data": "anna", "name": "js", "version": "1", "subs": since}));
        let connected = &reply["connect"];
        assert_eq!(connected["data"], json!({"hello": 1}), "{reply}");
        assert_eq!(connected["subs"]["a:2"]["data"], "welcome", "{reply}");
        assert!(connected["subs"].get("a:1").is_some() && connected.get("expires").is_none());
        let asked = &backend.requests()[0].body;
        let expected = json!({
            "client": connected["client"], "transport": "tcp", "protocol": "json",
            "encoding": "json", "data": "anna", "name": "js", "version": "1", "channels": ["a:9"],
        });
        assert_eq!(*asked, expected);
        anna.send("{\"id\":2,\"presence\":{\"channel\":\"a:2\"}}\n");
        let reply = std::iter::repeat_with(|| anna.read_json()).find(|it| it["id"] == 2).unwrap();
        let info = &reply["presence"]["presence"][connected["client"].as_str().unwrap()];
        assert_eq!(info["user"], "anna", "{reply}");
        assert_eq!(info["conn_info"], json!({"name": "Anna"}), "{reply}");
        assert_eq!(info["chan_info"], json!({"role": 1}), "{reply}");
        assert!(connect(json!({"data": "anonymous"})).1.get("connect").is_some());
        for (data, code) in [("no", 1000), ("unknown", 102), ("expired", 109), ("down", 100)] {
            let (_, reply) = connect(json!({ "data": data }));
            assert_eq!(reply["error"]["code"], code, "{reply}");
        }
        for (data, code) in [("nothing", 3501), ("out", 4500)] {
            let (_, push) = connect(json!({ "data": data }));
            assert_eq!(push["push"]["disconnect"]["code"], code, "{push}");
        }
        // A client with a token is not asked about.
        let before = backend.requests().len();
        let (_, push) = connect(json!({"token": "x", "data": "anna"}));
        assert_eq!(push["push"]["disconnect"]["code"], 3500, "{push}");
        assert_eq!(backend.requests().len(), before);
    }
}

on_both_drivers! {
    fn requests_over_http_wait_until_the_backend_says_who_the_client_is(driver) {
        let answer = AtomicUsize::new(0);
        let (backend, server) = connecting(driver, &[], move |_| {
            match answer.fetch_add(1, Ordering::Relaxed) {
                0 => BackendAnswer::Json(json!({})),
                1 => BackendAnswer::Json(json!({"error": {"code": 403, "message": "no"}})),
                2 => raw(500, ""),
                _ => BackendAnswer::Json(json!({"result": {"user": "anna"}})),
            }
        });
        for status in [401, 403, 503, 200] {
            let target = "/poll?channel=a:1&timeout=0";
            assert_eq!(Client::connect(server.edge()).get(target).status, status);
        }
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a:1");
        let mut stream = EventStream::connect(server.edge(), "/events?channel=a:1");
        let mut api = Client::connect(server.edge());
        let stats = api.call("presence_stats", &json!({"channel": "a:1"}));
        assert_eq!(stats["result"], json!({"num_clients": 2, "num_users": 1}), "{stats}");
        api.call("publish", &json!({"channel": "a:1", "data": 1}));
        socket.expect_text("1");
        while stream.read().data != "1" {}
        let transports: Vec<_> =
            backend.requests().iter().map(|request| request.body["transport"].clone()).collect();
        assert_eq!(transports.len(), 6, "{transports:?}");
    }
}

/// Connects so many clients at once, each again after a while until it is in. Returns how often one was refused.
fn storm(server: &TestServer, clients: usize) -> usize {
    let mut waiting: Vec<_> = (0..clients).map(|_| Client::connect(server.commands())).collect();
    let mut refused = 0;
    let until = Instant::now() + PATIENCE;
    while !waiting.is_empty() {
        assert!(Instant::now() < until, "{} clients are not in", waiting.len());
        for client in &mut waiting {
            client.send("{\"id\":1,\"connect\":{\"data\":\"anna\"}}\n");
        }
        waiting.retain_mut(|client| {
            let reply = client.read_json();
            if reply.get("connect").is_some() {
                return false;
            }
            assert_eq!(reply["error"]["temporary"], true, "it may come back: {reply}");
            refused += 1;
            true
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    refused
}

on_both_drivers! {
    fn a_storm_of_clients_gets_in_as_fast_as_the_backend_answers(driver) {
        let turn = std::sync::Mutex::new(());
        let options = [("pending_max", "50"), ("connections_max", "8")];
        let (backend, server) = connecting(driver, &options, move |_| {
            // 500 answers a second, whatever the number of connections.
            let _turn = turn.lock().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            BackendAnswer::Json(json!({"result": {"user": "anna"}}))
        });
        let refused = storm(&server, 400);
        assert!(refused > 0, "more clients than may wait");
        assert_eq!(outcomes(&server, CallbackKind::Connect, "result"), 400);
        assert_eq!(outcomes(&server, CallbackKind::Connect, "rejected"), refused as u64);
        assert!(backend.connections() <= 8, "{}", backend.connections());
    }
}

on_both_drivers! {
    fn clients_get_in_after_a_backend_that_hung_has_recovered(driver) {
        let began = Instant::now();
        let options = [("timeout", "200 ms"), ("failures_max", "5")];
        let (_, server) = connecting(driver, &options, move |_| {
            let hangs = began.elapsed() < Duration::from_millis(800);
            let delay = Duration::from_millis(if hangs { 600 } else { 0 });
            BackendAnswer::Raw(200, "{\"result\":{}}".to_owned(), delay)
        });
        let refused = storm(&server, 200);
        let of = |outcome| outcomes(&server, CallbackKind::Connect, outcome);
        assert!(refused > 0 && of("timeout") >= 5 && of("circuit_open") > 0);
        assert_eq!(of("result"), 200);
    }
}

on_both_drivers! {
    fn only_listed_headers_of_the_http_request_are_sent_on(driver) {
        let backend = Backend::start(|_| BackendAnswer::Json(json!({"result": {"user": "anna"}})));
        let server = TestServer::start_with(driver, 2, |config| {
            for kind in [CallbackKind::Connect, CallbackKind::Rpc] {
                set(config, kind, "endpoint", &backend.url("/"));
                set(config, kind, "static_headers", "X-Static: set");
            }
            set(config, CallbackKind::Connect, "http_headers", "Cookie");
            set(config, CallbackKind::Rpc, "http_headers", "X-Static");
        });
        let mut client = Client::connect(server.edge());
        let request = WebSocket::request("/connection/websocket");
        let headers = "cookie: session=1\r\nX-Static: mine\r\nX-Other: 2\r\nHost";
        client.send(request.replacen("Host", headers, 1));
        assert_eq!(client.read_response().status, 101);
        let mut socket = WebSocket::over(client);
        let forged = json!({"cookie": "forged", "X-Other": "forged"});
        let connect = json!({"id": 1, "connect": {"headers": forged, "data": {"headers": forged}}});
        socket.send_text(&connect.to_string());
        assert!(socket.read_text().contains("connect"));
        socket.send_text("{\"id\":2,\"rpc\":{}}");
        socket.read_text();
        let mut tcp = connected(&server);
        tcp.command(&json!({"id": 2, "rpc": {}}));
        let requests = backend.requests();
        let of = |at: usize| {
            let names = ["cookie", "x-static", "x-other"];
            names.map(|name| requests[at].header(name).map(str::to_owned))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(0), [some("session=1"), some("set"), None], "of the upgrade");
        assert_eq!(of(1), [None, some("mine"), None], "the client's comes first");
        assert_eq!(of(2), [None, some("set"), None], "raw TCP has no headers");
        assert_eq!(of(3), [None, some("set"), None]);
    }
}

/// Events that the backend has taken, in their order, each once.
fn events_of(backend: &Backend) -> Vec<Value> {
    let mut batches: Vec<_> = backend.requests().into_iter().map(|request| request.body).collect();
    batches.dedup_by_key(|body| body["batch"].clone());
    batches.iter().flat_map(|body| body["events"].as_array().unwrap().clone()).collect()
}

fn notifying(
    driver: DriverChoice,
    options: &[(&str, &str)],
    change: impl FnOnce(&mut Config),
    answer: impl Fn(&BackendRequest) -> BackendAnswer + Send + Sync + 'static,
) -> (Backend, TestServer) {
    let backend = Backend::start(answer);
    let server = TestServer::start_with(driver, 2, |config| {
        set(config, CallbackKind::Events, "endpoint", &backend.url("/events"));
        options.iter().for_each(|(name, value)| set(config, CallbackKind::Events, name, value));
        change(config);
    });
    (backend, server)
}

on_both_drivers! {
    fn the_backend_is_notified_of_clients_and_channels_once_and_in_order(driver) {
        let attempts = AtomicUsize::new(0);
        let secret = |config: &mut Config| {
            config.callbacks.events.parse("secret", &["key".to_owned()]).unwrap().unwrap();
        };
        // Every second attempt fails, so each batch comes twice.
        let (backend, server) = notifying(driver, &[], secret, move |_| {
            raw(if attempts.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { 500 } else { 200 }, "taken")
        });
        let mut client = connected(&server);
        client.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=b");
        socket.round_trip();
        Client::connect(server.edge()).get("/poll?channel=c&timeout=0");
        client.command(&json!({"id": 3, "unsubscribe": {"channel": "a"}}));
        client.end();
        client.expect_end();
        socket.send_close(1000);
        wait_until("all events", || events_of(&backend).len() >= 10);
        let events = events_of(&backend);
        let types = |name: &str, value: &str| -> Vec<_> {
            let of = events.iter().filter(|event| event[name] == value);
            of.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
        };
        for channel in ["a", "b", "c"] {
            assert_eq!(types("channel", channel), ["occupied", "vacated"], "{events:?}");
        }
        let mut clients: Vec<_> =
            events.iter().filter_map(|event| event["client"].as_str()).collect();
        clients.sort_unstable();
        clients.dedup();
        assert_eq!(clients.len(), 2, "a poll is not a connection: {events:?}");
        for client in clients {
            assert_eq!(types("client", client), ["connected", "disconnected"], "{events:?}");
        }
        let requests = backend.requests();
        let signature = requests[0].header("x-fantail-signature").unwrap();
        let (time, tag) = signature.split_once(",sha256=").unwrap();
        assert!(time.starts_with("t=") && tag.len() == 64, "{signature}");
        assert_eq!(server.sum(|counters| &counters.events_dropped), 0);
        assert!(outcomes(&server, CallbackKind::Events, "server_error") >= 1);
    }
}

on_both_drivers! {
    fn events_beyond_the_maximum_are_dropped_and_counted(driver) {
        let is_first = AtomicUsize::new(0);
        let options = [("pending_max", "2"), ("timeout", "10 s")];
        let (backend, server) = notifying(driver, &options, |_| {}, move |_| {
            let delay = if is_first.fetch_add(1, Ordering::Relaxed) == 0 { 1500 } else { 0 };
            BackendAnswer::Raw(200, String::new(), Duration::from_millis(delay))
        });
        let mut client = connected(&server);
        wait_until("the backend is notified", || !backend.requests().is_empty());
        for id in 2..12 {
            client.command(&json!({"id": id, "subscribe": {"channel": format!("c{id}")}}));
        }
        wait_until("what is dropped is counted", || {
            server.sum(|counters| &counters.events_dropped) == 8
        });
        wait_until("the rest comes", || events_of(&backend).len() == 3);
        client.command(&json!({"id": 12, "subscribe": {"channel": "last"}}));
        wait_until("the backend is notified that events are missing", || {
            backend.requests().last().unwrap().body["dropped"] == 8
        });
    }
}

on_both_drivers! {
    fn events_that_are_left_are_sent_when_the_server_stops(driver) {
        let (backend, server) = notifying(driver, &[], |_| {}, |_| raw(200, ""));
        let _client = connected(&server);
        server.stop();
        drop(server);
        let events = events_of(&backend);
        let types: Vec<_> = events.iter().map(|event| event["type"].clone()).collect();
        assert_eq!(types, ["connected", "disconnected"]);
        assert_eq!(events[1]["reason"], "shutdown");
    }
}
