//! Clients and subscriptions that expire, and go on as long as a backend says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use fantail::callback::OUTCOMES;
use fantail::config::{CallbackKind, CallbackOption, ChannelOptions, ClientRight, DriverChoice};
use fantail::message::CloseReason;

use crate::support::{
    Backend, BackendAnswer, BackendRequest, Client, EventStream, Gate, SECRET, TestServer,
    in_seconds, on_both_drivers, token, wait_until,
};

const KINDS: [CallbackKind; 4] = [
    CallbackKind::Connect,
    CallbackKind::Subscribe,
    CallbackKind::Refresh,
    CallbackKind::SubRefresh,
];

/// A server that asks a backend who clients are, where they may subscribe, and whether they may go on. The backend lets
/// all in for a second, and is asked by path for the rest.
fn server(
    driver: DriverChoice,
    answer: impl Fn(&str, &Value) -> BackendAnswer + Send + Sync + 'static,
) -> (Backend, TestServer) {
    let backend = Backend::start(move |request| {
        let (kind, body) = (kind_of(request), &request.body);
        let user = body["data"].as_str().unwrap_or("ann");
        match kind {
            "connect" if user == "lasting" => result(json!({"user": user})),
            "connect" => result(json!({"user": user, "expire_at": in_seconds(2), "info": 1})),
            "subscribe" => result(json!({"expire_at": in_seconds(2), "info": 1})),
            kind => answer(kind, body),
        }
    });
    let server = TestServer::start_with(driver, 2, |config| {
        for kind in KINDS {
            let callback = config.callbacks.of_mut(kind);
            let mut set = |name, value: &str| {
                let option = CallbackOption::named(name).unwrap();
                option.parse(&[value.to_owned()], callback).unwrap();
            };
            set("endpoint", &backend.url(&format!("/{}", kind.word())));
            set("timeout", if kind == CallbackKind::Refresh { "4 s" } else { "20 s" });
            set("failures_max", "1000");
        }
        // What clients prolong themselves is of no interest here.
        config.expired_close_delay = Duration::from_secs(1000);
        let asks = ChannelOptions {
            callback_subscribe: true,
            callback_sub_refresh: true,
            presence: true,
            allow_presence: ClientRight::ALL,
            ..ChannelOptions::closed()
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

fn connect(server: &TestServer, user: &str) -> Client {
    let mut client = Client::connect(server.commands());
    let reply = client.command(&json!({"id": 1, "connect": {"data": user}}));
    // The client need not do anything: the server asks the backend.
    assert!(reply["connect"].get("expires").is_none(), "{reply}");
    client
}

fn subscribe(client: &mut Client, channel: &str) {
    let reply = client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
    assert!(reply["subscribe"]["offset"].is_u64(), "{reply}");
    assert!(reply["subscribe"].get("expires").is_none(), "{reply}");
}

fn asked(backend: &Backend, kind: CallbackKind) -> Vec<Value> {
    let requests = backend.requests().into_iter();
    requests.filter(|request| kind_of(request) == kind.word()).map(|request| request.body).collect()
}

fn outcomes(server: &TestServer, kind: CallbackKind, outcome: &str) -> u64 {
    let index = OUTCOMES.iter().position(|known| *known == outcome).unwrap();
    server.sum(|counters| counters.callbacks.at(kind as usize, index))
}

#[track_caller]
fn answers(client: &mut Client) {
    assert_eq!(client.command(&json!({"id": 9, "ping": {}})), json!({"id": 9, "ping": {}}));
}

#[track_caller]
fn expires(client: &mut Client) {
    let rest = String::from_utf8(client.read_to_end()).unwrap();
    let expected = "\"disconnect\":{\"code\":3005,\"reason\":\"connection expired\"}";
    assert!(rest.contains(expected), "{rest}");
}

on_both_drivers! {
    fn a_client_that_expires_goes_on_as_the_backend_says(driver) {
        let rounds = AtomicU64::new(0);
        let (backend, server) = server(driver, move |_, body| match body["user"].as_str() {
            Some("expired") => result(json!({"expired": true})),
            Some("empty") => BackendAnswer::Json(json!({})),
            Some("error") => BackendAnswer::Json(json!({"error": {"code": 1000, "message": "no"}})),
            Some("past") => result(json!({"expire_at": in_seconds(-1)})),
            Some("forever") => result(json!({})),
            _ => match rounds.fetch_add(1, Ordering::Relaxed) {
                0 => result(json!({"expire_at": in_seconds(1), "info": {"round": 1}})),
                _ => result(json!({"expire_at": in_seconds(1000)})),
            },
        });
        let users = ["expired", "empty", "error", "past", "forever", "ann"];
        let mut clients = users.map(|user| connect(&server, user));
        wait_until("the backend was asked twice about one", || {
            asked(&backend, CallbackKind::Refresh).len() == users.len() + 1
        });
        for client in &mut clients[..4] {
            expires(client);
        }
        for client in &mut clients[4..] {
            answers(client);
        }
        let bodies = asked(&backend, CallbackKind::Refresh);
        let of_ann: Vec<_> = bodies.into_iter().filter(|body| body["user"] == "ann").collect();
        let client = of_ann[0]["client"].clone();
        let expected = json!({
            "client": client, "transport": "tcp", "protocol": "json", "encoding": "json", "user": "ann",
        });
        assert_eq!(of_ann, [expected.clone(), expected]);
        let ann = &mut clients[5];
        subscribe(ann, "asks:a");
        let reply = ann.command(&json!({"id": 3, "presence": {"channel": "asks:a"}}));
        let info = &reply["presence"]["presence"][client.as_str().unwrap()]["conn_info"];
        assert_eq!(*info, json!({"round": 1}), "what others see is replaced, and then kept");
        wait_until("the closes are counted", || server.closed(CloseReason::Expired) == 4);
    }
}

on_both_drivers! {
    fn a_subscription_that_expires_goes_on_as_the_backend_says(driver) {
        let (backend, server) = server(driver, |_, body| match body["channel"].as_str().unwrap() {
            "asks:expired" => result(json!({"expired": true})),
            "asks:empty" => BackendAnswer::Json(json!({})),
            "asks:past" => result(json!({"expire_at": in_seconds(-1)})),
            "asks:down" => BackendAnswer::Raw(500, String::new(), Duration::ZERO),
            _ => result(json!({"expire_at": in_seconds(1000), "info": {"round": 1}})),
        });
        let mut client = connect(&server, "lasting");
        let channels = ["asks:expired", "asks:empty", "asks:past", "asks:down", "asks:a"];
        for channel in channels {
            subscribe(&mut client, channel);
        }
        let mut ended: Vec<_> = (0..3).map(|_| {
            let push = client.read_json();
            let expired = json!({"code": 2501, "reason": "subscription expired"});
            assert_eq!(push["push"]["unsubscribe"], expired, "{push}");
            push["push"]["channel"].as_str().unwrap().to_owned()
        }).collect();
        ended.sort();
        assert_eq!(ended, ["asks:empty", "asks:expired", "asks:past"]);
        wait_until("all are answered", || {
            outcomes(&server, CallbackKind::SubRefresh, "result") == 4
                && outcomes(&server, CallbackKind::SubRefresh, "server_error") == 1
        });
        let body = asked(&backend, CallbackKind::SubRefresh).pop().unwrap();
        assert_eq!((&body["user"], body.get("data")), (&json!("lasting"), None));
        for channel in ["asks:down", "asks:a"] {
            let reply = client.command(&json!({"id": 3, "presence": {"channel": channel}}));
            let presence = reply["presence"]["presence"].as_object().unwrap();
            let info = presence.values().next().unwrap()["chan_info"].clone();
            assert_eq!(info, if channel == "asks:a" { json!({"round": 1}) } else { json!(1) });
        }
        // It is subscribed again, and asked about again.
        subscribe(&mut client, "asks:expired");
        assert_eq!(client.read_json()["push"]["unsubscribe"]["code"], 2501);
    }
}

on_both_drivers! {
    fn a_backend_that_fails_cuts_no_client_off(driver) {
        let (_, server) = server(driver, |_, body| match body["user"].as_str() {
            Some("down") => BackendAnswer::Raw(500, String::new(), Duration::ZERO),
            Some("refused") => BackendAnswer::Raw(404, String::new(), Duration::ZERO),
            Some("late") => BackendAnswer::Raw(200, "{}".to_owned(), Duration::from_secs(6)),
            Some("closed") => BackendAnswer::Bytes(Vec::new()),
            _ => BackendAnswer::Raw(200, "not JSON".to_owned(), Duration::ZERO),
        });
        let failures = [
            ("down", "server_error"),
            ("refused", "status"),
            ("late", "timeout"),
            ("closed", "unreachable"),
            ("other", "invalid"),
        ];
        let mut clients = failures.map(|(user, _)| connect(&server, user));
        for (user, outcome) in failures {
            wait_until(&format!("{outcome} is counted"), || {
                outcomes(&server, CallbackKind::Refresh, outcome) >= 1
            });
            assert_eq!(server.closed(CloseReason::Expired), 0, "{user}");
        }
        clients.iter_mut().for_each(answers);
    }
}

on_both_drivers! {
    fn nothing_of_a_client_waits_while_the_backend_is_asked_about_it(driver) {
        let gate = Gate::default();
        let gated = gate.clone();
        let (backend, server) = server(driver, move |_, _| {
            gated.wait();
            BackendAnswer::Json(json!({}))
        });
        let mut client = connect(&server, "ann");
        wait_until("the backend is asked", || !asked(&backend, CallbackKind::Refresh).is_empty());
        // A callback of its own is answered meanwhile.
        subscribe(&mut client, "asks:a");
        assert_eq!(outcomes(&server, CallbackKind::Refresh, "result"), 0);
        gate.open();
        expires(&mut client);
    }
}

on_both_drivers! {
    fn a_late_answer_has_no_effect_on_other_clients(driver) {
        let gate = Gate::default();
        let gated = gate.clone();
        let (backend, server) = server(driver, move |_, _| {
            gated.wait();
            BackendAnswer::Json(json!({}))
        });
        let mut gone = connect(&server, "gone");
        subscribe(&mut gone, "asks:a");
        wait_until("the backend is asked about both", || {
            asked(&backend, CallbackKind::Refresh).len() == 1
                && asked(&backend, CallbackKind::SubRefresh).len() == 1
        });
        gone.reset();
        // These take the slot of the client that is gone.
        let mut next: Vec<_> = (0..8).map(|_| connect(&server, "lasting")).collect();
        gate.open();
        for kind in [CallbackKind::Refresh, CallbackKind::SubRefresh] {
            wait_until("the answer is counted", || outcomes(&server, kind, "result") == 1);
        }
        next.iter_mut().for_each(answers);
        assert_eq!(server.closed(CloseReason::Expired), 0);
    }
}

on_both_drivers! {
    fn what_the_server_api_says_meanwhile_is_newer(driver) {
        let gate = Gate::default();
        let gated = gate.clone();
        let (backend, server) = server(driver, move |_, _| {
            gated.wait();
            BackendAnswer::Json(json!({}))
        });
        let mut client = connect(&server, "ann");
        wait_until("the backend is asked", || !asked(&backend, CallbackKind::Refresh).is_empty());
        let parameters = json!({"user": "ann", "expire_at": in_seconds(1000)});
        let reply = Client::connect(server.edge()).call("refresh", &parameters);
        assert_eq!(reply, json!({"result": {}}));
        gate.open();
        wait_until("the answer comes", || outcomes(&server, CallbackKind::Refresh, "result") == 1);
        answers(&mut client);
        // An earlier time has the backend asked then.
        let parameters = json!({"user": "ann", "expire_at": in_seconds(1)});
        Client::connect(server.edge()).call("refresh", &parameters);
        expires(&mut client);
        assert_eq!(asked(&backend, CallbackKind::Refresh).len(), 2);
    }
}

on_both_drivers! {
    fn event_streams_go_on_too(driver) {
        let rounds = AtomicU64::new(0);
        let (backend, server) = server(driver, move |kind, _| {
            match kind {
                "refresh" if rounds.fetch_add(1, Ordering::Relaxed) == 0 => {
                    result(json!({"expire_at": in_seconds(1)}))
                }
                "refresh" => result(json!({"expired": true})),
                _ => result(json!({"expire_at": in_seconds(1000)})),
            }
        });
        let mut stream = EventStream::connect(server.edge(), "/events?channel=asks:a");
        stream.read_to_end();
        let bodies = asked(&backend, CallbackKind::Refresh);
        let transports: Vec<_> = bodies.iter().map(|body| body["transport"].clone()).collect();
        assert_eq!(transports, ["uni_sse", "uni_sse"]);
        wait_until("the close is counted", || server.closed(CloseReason::Expired) == 1);
    }
}

on_both_drivers! {
    fn many_that_expire_at_once_are_asked_about_one_after_the_other(driver) {
        let backend = Backend::start(|request| match kind_of(request) {
            "connect" => result(json!({"user": "ann", "expire_at": in_seconds(2)})),
            _ => BackendAnswer::Raw(
                200,
                json!({"result": {"expire_at": in_seconds(1000)}}).to_string(),
                Duration::from_millis(20),
            ),
        });
        let server = TestServer::start_with(driver, 2, |config| {
            for kind in [CallbackKind::Connect, CallbackKind::Refresh] {
                let callback = config.callbacks.of_mut(kind);
                callback.endpoint = Some(backend.url(&format!("/{}", kind.word())).parse().unwrap());
                if kind == CallbackKind::Refresh {
                    (callback.connections_max, callback.pending_max) = (2, 2);
                }
            }
        });
        let mut clients: Vec<_> = (0..40).map(|_| connect(&server, "ann")).collect();
        wait_until("each is asked about, and no call is rejected", || {
            outcomes(&server, CallbackKind::Refresh, "result") == 40
        });
        assert_eq!(outcomes(&server, CallbackKind::Refresh, "rejected"), 0);
        clients.iter_mut().for_each(answers);
    }
}

on_both_drivers! {
    fn clients_with_tokens_go_on_as_the_backend_says_too(driver) {
        let backend = Backend::start(|_| result(json!({"expire_at": in_seconds(1000)})));
        let server = TestServer::start_with(driver, 1, |config| {
            config.hmac_secret = Some(SECRET.into());
            config.expired_close_delay = Duration::ZERO;
            let callback = config.callbacks.of_mut(CallbackKind::Refresh);
            callback.endpoint = Some(backend.url("/refresh").parse().unwrap());
        });
        let mut client = Client::connect(server.commands());
        let own = token(&json!({"sub": "ann", "exp": in_seconds(2)}));
        let reply = client.command(&json!({"id": 1, "connect": {"token": own}}));
        assert!(reply["connect"].get("expires").is_none(), "{reply}");
        // The client itself has no part in it.
        let own = token(&json!({"sub": "ann", "exp": in_seconds(100)}));
        let reply = client.command(&json!({"id": 2, "refresh": {"token": own}}));
        assert_eq!(reply["error"]["code"], 108, "{reply}");
        wait_until("it is asked about", || outcomes(&server, CallbackKind::Refresh, "result") == 1);
        answers(&mut client);
        // Without a token there is nothing that expires.
        assert_eq!(asked(&backend, CallbackKind::Refresh).len(), 1);
    }
}
