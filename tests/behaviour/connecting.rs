//! Clients that connect through a backend: half-closed ones, and what the backend keeps with them.

use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fantail::config::{CallbackKind, CallbackOption, ChannelOptions, DriverChoice};

use crate::support::{
    Backend, BackendAnswer, BackendRequest, Client, Gate, PATIENCE, SECRET, TestServer, WebSocket,
    in_seconds, on_both_drivers, token, wait_until,
};

/// A server that asks a backend for these kinds of callback, each with `meta`, by path.
fn server(
    driver: DriverChoice,
    kinds: &[CallbackKind],
    secret: Option<&str>,
    answer: impl Fn(&str, &Value) -> BackendAnswer + Send + Sync + 'static,
) -> (Backend, TestServer) {
    let backend = Backend::start(move |request| answer(kind_of(request), &request.body));
    let server = TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = secret.map(|secret| secret.to_owned().into());
        for kind in kinds.iter().copied() {
            let callback = config.callbacks.of_mut(kind);
            let mut set = |name, value: &str| {
                let option = CallbackOption::named(name).unwrap();
                option.parse(&[value.to_owned()], callback).unwrap();
            };
            set("endpoint", &backend.url(&format!("/{}", kind.word())));
            set("include_connection_meta", "true");
            set("timeout", "10 s");
        }
        let asks = ChannelOptions {
            callback_subscribe: kinds.contains(&CallbackKind::Subscribe),
            callback_publish: kinds.contains(&CallbackKind::Publish),
            ..ChannelOptions::development()
        };
        config.namespaces.add("asks", asks).unwrap();
    });
    (backend, server)
}

fn result(result: Value) -> BackendAnswer {
    BackendAnswer::Json(json!({"result": result}))
}

/// The kind of callback that a request is.
fn kind_of(request: &BackendRequest) -> &str {
    request.head[0].split(['/', ' ']).nth(2).unwrap()
}

fn slow(driver: DriverChoice) -> (Backend, TestServer) {
    server(driver, &[CallbackKind::Connect], None, |_, _| {
        let body = json!({"result": {"user": "ann"}}).to_string();
        BackendAnswer::Raw(200, body, Duration::from_millis(2500))
    })
}

on_both_drivers! {
    fn a_client_that_has_closed_its_end_is_connected_when_the_backend_answers(driver) {
        let (_, server) = slow(driver);
        let mut client = Client::connect(server.commands());
        // As `printf | nc -N` does: the last command has no line feed.
        client.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"publish\":{\"channel\":\"a\",\"data\":1}}");
        client.end();
        let reply = client.read_json();
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        assert_eq!(client.read_json(), json!({"id": 2, "publish": {}}));
        // Nothing more can come from it.
        let began = Instant::now();
        client.expect_end();
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    fn a_client_that_is_gone_while_it_connects_is_not_missed(driver) {
        let (backend, server) = slow(driver);
        let mut client = Client::connect(server.commands());
        client.send("{\"id\":1,\"connect\":{}}\n");
        wait_until("the backend is asked", || !backend.requests().is_empty());
        client.stream().shutdown(Shutdown::Both).unwrap();
        drop(client);
        wait_until("the backend has answered", || {
            server.sum(|counters| counters.callbacks.at(CallbackKind::Connect as usize, 0)) == 1
        });
        let mut api = Client::connect(server.edge());
        wait_until("it is noticed", || {
            let listed = api.call("connections", &json!({"user": "ann"}));
            listed["result"]["connections"] == json!({})
        });
    }
}

on_both_drivers! {
    fn the_reply_to_connect_is_not_what_the_server_api_does_meanwhile(driver) {
        let (backend, server) = server(driver, &[CallbackKind::Connect], None, |_, _| {
            let body = json!({"result": {"user": "ann"}}).to_string();
            BackendAnswer::Raw(200, body, Duration::from_millis(500))
        });
        let mut client = Client::connect(server.commands());
        client.send("{\"id\":1,\"connect\":{}}\n");
        wait_until("the backend is asked", || !backend.requests().is_empty());
        let id = backend.requests()[0].body["client"].clone();
        let mut api = Client::connect(server.edge());
        for method in ["subscribe", "unsubscribe"] {
            api.call(method, &json!({"user": "", "client": id, "channel": "asks:1"}));
        }
        let reply = client.read_json();
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        let reply = client.command(&json!({"id": 2, "publish": {"channel": "a", "data": 1}}));
        assert_eq!(reply, json!({"id": 2, "publish": {}}), "it is connected");
    }
}

on_both_drivers! {
    fn later_callbacks_have_what_the_backend_keeps_with_the_connection(driver) {
        let kinds = [
            CallbackKind::Connect,
            CallbackKind::Refresh,
            CallbackKind::Subscribe,
            CallbackKind::Publish,
            CallbackKind::Rpc,
        ];
        let gate = Gate::default();
        let gated = gate.clone();
        let (backend, server) = server(driver, &kinds, None, move |kind, body| match kind {
            "connect" if body["data"] == "none" => result(json!({"user": "ben"})),
            "connect" => result(json!({
                "user": "ann", "expire_at": in_seconds(2), "meta": {"plan": [1, 2]},
            })),
            "refresh" => {
                gated.wait();
                result(json!({"meta": "new"}))
            }
            _ => result(json!({})),
        });
        let mut client = Client::connect(server.commands());
        let reply = client.command(&json!({"id": 1, "connect": {}}));
        assert!(!reply.to_string().contains("plan"), "no client sees it: {reply}");
        let mut other = Client::connect(server.commands());
        other.command(&json!({"id": 1, "connect": {"data": "none"}}));
        let commands = [
            json!({"id": 2, "publish": {"channel": "asks:1", "data": 1}}),
            json!({"id": 3, "subscribe": {"channel": "asks:1", "token": "as it is", "data": {"row": 7}}}),
            json!({"id": 4, "rpc": {"method": "m"}}),
        ];
        for command in &commands {
            let reply = client.command(command);
            assert!(reply.get("error").is_none(), "{reply}");
        }
        other.command(&commands[2]);
        let of = |kind: &str| -> Vec<Value> {
            let requests = backend.requests().into_iter();
            requests.filter(|request| kind_of(request) == kind).map(|request| request.body).collect()
        };
        let kept = json!({"plan": [1, 2]});
        for kind in ["subscribe", "publish", "rpc"] {
            assert_eq!(of(kind)[0]["meta"], kept, "{kind}");
        }
        assert_eq!(of("rpc")[1].get("meta"), None, "each connection has its own");
        assert_eq!(of("connect")[0].get("meta"), None);
        // Without a key for tokens, the backend is what judges them.
        assert_eq!(of("subscribe")[0]["token"], "as it is");
        assert_eq!(of("subscribe")[0]["data"], json!({"row": 7}));
        wait_until("it is asked whether the client may go on", || of("refresh").len() == 1);
        assert_eq!(of("refresh")[0]["meta"], kept);
        gate.open();
        wait_until("the answer to it replaces what is kept", || {
            client.command(&commands[2]);
            of("rpc").pop().unwrap()["meta"] == "new"
        });
    }

    fn a_token_says_what_callbacks_have_and_the_next_one_replaces_it(driver) {
        let (backend, server) =
            server(driver, &[CallbackKind::Rpc], Some(SECRET), |_, _| result(json!({})));
        let mut client = Client::connect(server.commands());
        let of = |meta: Value| token(&json!({"sub": "ann", "exp": in_seconds(100), "meta": meta}));
        client.command(&json!({"id": 1, "connect": {"token": of(json!([1]))}}));
        client.command(&json!({"id": 2, "rpc": {}}));
        client.command(&json!({"id": 3, "refresh": {"token": of(json!([2]))}}));
        client.command(&json!({"id": 4, "rpc": {}}));
        let metas: Vec<_> =
            backend.requests().iter().map(|request| request.body["meta"].clone()).collect();
        assert_eq!(metas, [json!([1]), json!([2])]);
    }
}

on_both_drivers! {
    fn requests_of_one_connection_do_not_inherit_what_is_kept(driver) {
        let kinds = [CallbackKind::Connect, CallbackKind::Publish];
        let count = AtomicUsize::new(0);
        let (backend, server) = server(driver, &kinds, None, move |kind, _| match kind {
            "connect" => match count.fetch_add(1, Ordering::Relaxed) {
                0 => result(json!({"user": "ann", "meta": 1})),
                _ => result(json!({"user": "ben"})),
            },
            _ => result(json!({})),
        });
        let mut client = Client::connect(server.edge());
        for _ in 0..2 {
            client.publish("asks:1", "x");
        }
        let metas: Vec<_> = backend
            .requests()
            .iter()
            .filter(|request| kind_of(request) == "publish")
            .map(|request| (request.body["user"].clone(), request.body.get("meta").cloned()))
            .collect();
        assert_eq!(metas, [(json!("ann"), Some(json!(1))), (json!("ben"), None)]);
    }
}

/// A client that connects by one of three ways, and again when it is refused.
struct Comer {
    way: usize,
    client: Client,
}

impl Comer {
    fn come(server: &TestServer, way: usize) -> Self {
        let (address, request) = match way {
            0 => (server.commands(), "{\"id\":1,\"connect\":{}}\n".to_owned()),
            1 => (server.edge(), WebSocket::request("/ws?channel=asks:1")),
            _ => {
                let accept = "Host: t\r\nAccept: text/event-stream";
                (server.edge(), format!("GET /events?channel=asks:1 HTTP/1.1\r\n{accept}\r\n\r\n"))
            }
        };
        let mut client = Client::connect(address);
        client.send(request);
        Self { way, client }
    }

    /// Whether it is in. If not, its refusal says that it may come back, and over HTTP when.
    fn is_in(&mut self) -> bool {
        if self.way == 0 {
            let reply = self.client.read_json();
            let is_late = reply["push"]["disconnect"]["code"] == 3003;
            let is_temporary = reply["error"]["temporary"] == true || is_late;
            assert!(is_temporary || reply["connect"].is_object(), "{reply}");
            return !is_temporary;
        }
        let head = self.client.read_response_head();
        match head.status {
            101 => true,
            200 => {
                // The first block of a stream that is refused has the time to come back after.
                let block = String::from_utf8(self.client.read_until(b"\n\n")).unwrap();
                let is_refused = block.contains("disconnect");
                assert!(!is_refused || block.contains("retry:"), "{block}");
                !is_refused
            }
            503 => {
                assert!(head.retry_after().is_some_and(|seconds| seconds > 0), "{head:?}");
                false
            }
            _ => panic!("{head:?}"),
        }
    }
}

on_both_drivers! {
    fn all_clients_get_in_after_the_backend_was_killed_and_came_back(driver) {
        const CLIENTS: usize = 100;
        const ANSWERED: usize = 20;
        let (asked, gate) = (AtomicUsize::new(0), Gate::default());
        let killed = gate.clone();
        let (backend, server) = server(driver, &[CallbackKind::Connect], None, move |_, _| {
            // The others are asked about when it is killed.
            if asked.fetch_add(1, Ordering::Relaxed) > ANSWERED {
                gate.wait();
            }
            result(json!({"user": "ann"}))
        });
        let mut before = Comer::come(&server, 0);
        assert!(before.is_in());
        let mut waiting: Vec<_> = (0..CLIENTS).map(|index| Comer::come(&server, index % 3)).collect();
        wait_until("some are in", || backend.requests().len() > ANSWERED + 1);
        let address = backend.kill();
        waiting.retain_mut(|comer| !comer.is_in());
        killed.open();
        let refused = waiting.len();
        assert!((CLIENTS - ANSWERED..CLIENTS).contains(&refused), "{refused} were refused");
        // While it is away, those that come are refused as well, and those that are in stay.
        assert!((0..3).all(|way| !Comer::come(&server, way).is_in()));
        assert_eq!(before.client.command(&json!({"id": 2, "ping": {}})), json!({"id": 2, "ping": {}}));
        let _backend = Backend::start_at(address, |_| result(json!({"user": "ann"})));
        let until = Instant::now() + PATIENCE;
        while !waiting.is_empty() {
            assert!(Instant::now() < until, "{} clients are not in", waiting.len());
            std::thread::sleep(Duration::from_millis(20));
            for comer in &mut waiting {
                *comer = Comer::come(&server, comer.way);
            }
            waiting.retain_mut(|comer| !comer.is_in());
        }
    }
}
