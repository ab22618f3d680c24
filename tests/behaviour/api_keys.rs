//! The keys of the server API: what each of them allows by each route, and what is said about refusals.

use fantail::auth::ApiRefusal;
use fantail::config::{ApiKey, ApiMethods, ApiRights, ChannelOptions, DriverChoice};
use fantail::message::{ClientId, NodeId, SessionId, WorkerId};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{
    Child, Client, TempFile, TestServer, WebSocket, on_both_drivers, run, wait_until,
};

/// A key and what it allows.
struct Row {
    key: &'static str,
    methods: &'static [&'static str],
    namespaces: Option<&'static [&'static str]>,
}

const ROWS: [Row; 6] = [
    Row { key: "secret-root", methods: &["all"], namespaces: None },
    Row { key: "secret-publisher", methods: &["publish"], namespaces: None },
    Row { key: "secret-chat-publisher", methods: &["publish"], namespaces: Some(&["chat"]) },
    Row { key: "secret-of-chat", methods: &["all"], namespaces: Some(&["chat"]) },
    Row { key: "secret-without-namespace", methods: &["all"], namespaces: Some(&[""]) },
    Row {
        key: "secret-reader",
        methods: &["history", "presence", "presence_stats", "channels", "info"],
        namespaces: None,
    },
];

/// Methods with parameters, for a channel where they have one; whether the right to the method is of channels.
const METHODS: [(&str, bool); 15] = [
    ("publish", true),
    ("broadcast", true),
    ("subscribe", true),
    ("unsubscribe", true),
    ("disconnect", false),
    ("refresh", false),
    ("connections", false),
    ("block_user", false),
    ("unblock_user", false),
    ("history", true),
    ("history_remove", true),
    ("presence", true),
    ("presence_stats", true),
    ("channels", true),
    ("info", false),
];

const CHANNELS: [(&str, &str); 3] = [("a", ""), ("chat:a", "chat"), ("other:a", "other")];

impl Row {
    fn allows(&self, method: &str, namespace: Option<&str>) -> bool {
        let right = match method {
            "broadcast" => "publish",
            "unblock_user" => "block_user",
            method => method,
        };
        let has_method = self.methods.iter().any(|&word| word == "all" || word == right);
        let is_of_channels = METHODS.contains(&(method, true));
        let Some(namespaces) = self.namespaces else { return has_method };
        has_method && is_of_channels && namespace.is_none_or(|name| namespaces.contains(&name))
    }
}

fn server(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        for name in ["chat", "other"] {
            let options =
                ChannelOptions { history_size: 10, presence: true, ..ChannelOptions::open() };
            config.namespaces.add(name, options).unwrap();
        }
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let keys = ROWS[1..].iter().map(|row| ApiKey {
            secret: row.key.into(),
            rights: ApiRights {
                methods: ApiMethods::parse(&words(row.methods)).unwrap(),
                namespaces: row.namespaces.map(words),
            },
            ..ApiKey::new(row.key)
        });
        config.api_keys = keys.collect();
        config.api_key = Some(ROWS[0].key.into());
    })
}

/// A client that does not exist: what would be done with it is not available or nothing, but not forbidden.
fn parameters(method: &str, channel: &str) -> Value {
    let session = SessionId { index: 0, generation: 1 };
    let client = ClientId { node: NodeId::new(0), worker: WorkerId(0), session }.to_string();
    match method {
        "publish" => json!({"channel": channel, "data": 1}),
        "broadcast" => json!({"channels": [channel], "data": 1}),
        "subscribe" | "unsubscribe" => json!({"client": client, "channel": channel}),
        "disconnect" | "refresh" => json!({"client": client}),
        "block_user" | "unblock_user" => json!({"user": "nobody"}),
        "channels" | "connections" | "info" => json!({}),
        _ => json!({"channel": channel}),
    }
}

/// Whether one response says that the key does not allow it; a broadcast has one for its one channel.
fn is_denied(response: &Value) -> bool {
    let inner =
        response["result"]["responses"].get(0).or(response["broadcast"]["responses"].get(0));
    inner.unwrap_or(response)["error"]["code"] == 103
}

on_both_drivers! {
    fn every_route_allows_what_the_key_allows_and_nothing_else(driver) {
        let server = server(driver);
        let mut client = Client::connect(server.edge());
        let mut refused = 0;
        for row in &ROWS {
            let header = format!("X-API-Key: {}\r\n", row.key);
            for (channel, namespace) in CHANNELS {
                let mut expected = Vec::new();
                let mut commands = Vec::new();
                for (method, is_of_channel) in METHODS {
                    let has_channel = is_of_channel && method != "channels";
                    let allowed = row.allows(method, has_channel.then_some(namespace));
                    let parameters = parameters(method, channel);
                    let response = client.call_with(method, &header, parameters.to_string());
                    assert_eq!(response.status, 200);
                    let body = response.json();
                    assert_eq!(!is_denied(&body), allowed, "{} {method} {channel}: {body}", row.key);
                    refused += u64::from(!allowed) * 2;
                    expected.push(allowed);
                    commands.push(json!({ method: parameters }));
                }
                let body = json!({ "commands": commands }).to_string();
                let replies = client.call_with("batch", &header, body).json();
                let replies = replies["replies"].as_array().unwrap();
                let allowed: Vec<_> = replies.iter().map(|reply| !is_denied(reply)).collect();
                assert_eq!(allowed, expected, "{} {channel}", row.key);

                let allowed = row.allows("publish", Some(namespace));
                client.send(format!(
                    "POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\n{header}Content-Length: 1\r\n\r\nx"
                ));
                let response = client.read_response();
                assert_eq!(response.status, if allowed { 200 } else { 403 }, "{} {channel}", row.key);
                if !allowed {
                    refused += 1;
                    assert_eq!(response.json()["error"]["code"], "permission_denied");
                }
            }
        }
        let counted = |refusal: ApiRefusal| server.sum(|counters| &counters.api_refused[refusal as usize]);
        assert_eq!(counted(ApiRefusal::RightMissing), refused);
        for header in ["", "X-API-Key: secret-roo\r\n"] {
            for route in ["api/info", "api/batch", "publish?channel=a"] {
                client.send(format!("POST /{route} HTTP/1.1\r\nHost: t\r\n{header}Content-Length: 2\r\n\r\n{{}}"));
                assert_eq!(client.read_response().status, 401, "{header}{route}");
            }
        }
        assert_eq!((counted(ApiRefusal::KeyMissing), counted(ApiRefusal::KeyUnknown)), (3, 3));
        let page = client.get("/metrics");
        let page = page.text();
        assert!(ROWS.iter().all(|row| !page.contains(row.key)), "a key is never shown");
    }

    fn a_broadcast_reaches_the_channels_that_its_key_allows(driver) {
        let server = server(driver);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=chat:a&channel=other:a");
        let mut client = Client::connect(server.edge());
        let mut call = |method: &str, parameters: Value| {
            let header = "Authorization: apikey secret-of-chat\r\n";
            client.call_with(method, header, parameters.to_string()).json()
        };
        let channels = ["other:a", "chat:a", "a"];
        let answer = call("broadcast", json!({"channels": channels, "data": "x"}));
        let responses = answer["result"]["responses"].as_array().unwrap();
        let codes: Vec<_> = responses.iter().map(|it| it["error"]["code"].as_u64()).collect();
        assert_eq!(codes, [Some(103), None, Some(103)]);
        subscriber.expect_text("\"x\"");
        subscriber.round_trip();
        // Other channels are not listed.
        let listed = call("channels", json!({}));
        assert_eq!(listed["result"]["channels"], json!({"chat:a": {"num_clients": 1}}));
    }

    fn refusals_are_logged_once_a_second_and_keys_never(driver) {
        let text = "api.keys.a.key = 'first-secret'\napi.keys.a.methods = 'info'\n";
        let file = TempFile::new("keys", text);
        let shown = run(&["check", "--config", file.path()]).stdout;
        assert!(shown.contains("[api.keys.a]") && !shown.contains("first-secret"), "{shown}");
        let child = Child::start(driver, &["--config", file.path(), "--workers", "2", "--log-level", "debug"]);
        let begin = Instant::now();
        let mut clients = [0; 4].map(|_| Client::connect(child.edge()));
        for _ in 0..50 {
            for client in &mut clients {
                assert_eq!(client.call_with("info", "X-API-Key: wrong-secret\r\n", "{}").status, 401);
                let denied = client.call_with("channels", "X-API-Key: first-secret\r\n", "{}");
                assert_eq!(denied.json()["error"]["code"], 103);
            }
        }
        // A reload applies another key.
        file.write(&text.replace("first", "second"));
        child.signal(libc::SIGHUP);
        wait_until("the key is another one", || {
            let response = clients[0].call_with("info", "X-API-Key: second-secret\r\n", "{}");
            response.status == 200
        });
        assert_eq!(clients[1].call_with("info", "X-API-Key: first-secret\r\n", "{}").status, 401);
        let seconds = begin.elapsed().as_secs() as usize;
        child.signal(libc::SIGTERM);
        let log = child.whole_log();
        let warnings = log.iter().filter(|line| line.contains("server API was refused")).count();
        assert!((1..=seconds + 1).contains(&warnings), "{warnings} in {seconds} s: {log:#?}");
        assert!(log.iter().any(|line| line.contains("api.keys")), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("-secret")), "{log:#?}");
    }
}
