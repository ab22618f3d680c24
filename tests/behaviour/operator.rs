//! What an operator types: the commands channels, connections and disconnect, keys and tokens from the settings, and
//! the commands that the start message suggests.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use fantail::config::DriverChoice;
use serde_json::{Value, json};

use crate::support::{
    Child, Client, SECRET, TempFile, WebSocket, in_seconds, on_both_drivers, run, token, wait_until,
};

const KEY: &str = "key-of-the-server-api";

/// Settings with which clients need tokens and backends a key, and users may do everything in `chat`.
fn settings(name: &str, driver: DriverChoice) -> TempFile {
    let text = format!(
        r#"
        [auth]
        hmac_secret = "{SECRET}"
        [api]
        key = "{KEY}"
        [channels]
        [namespaces.chat]
        history_size = 10
        allow_subscribe_for_client = true
        allow_publish_for_client = true
        "#
    );
    TempFile::new(&format!("{name}-{driver:?}"), &text)
}

fn start(driver: DriverChoice, file: &TempFile) -> Child {
    Child::start(driver, &["--workers", "2", "--config", file.path()])
}

/// What a subscriber prints until it has enough. `publish` is called once it is subscribed.
#[track_caller]
pub fn subscribe(child: &Child, arguments: &[&str], publish: impl FnOnce()) -> String {
    wait_until("the last one is gone", || subscriptions(child.addresses[0]) == 0);
    let mut subscriber = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it is subscribed, or has failed", || {
        subscriptions(child.addresses[0]) > 0 || subscriber.try_wait().unwrap().is_some()
    });
    if subscriber.try_wait().unwrap().is_none() {
        publish();
    }
    let ended = subscriber.wait_with_output().unwrap();
    assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// The number of subscriptions, as the metrics say.
fn subscriptions(edge: SocketAddr) -> u64 {
    let mut client = Client::connect(edge);
    client.send("GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n");
    let metrics = String::from_utf8(client.read_response().body).unwrap();
    let samples = metrics.lines().filter(|line| line.starts_with("fantail_subscriptions{"));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// A server, and the commands in its start message.
fn suggestions(driver: DriverChoice, file: &TempFile) -> (Child, Vec<String>) {
    let child = start(driver, file);
    let commands = child.output.iter().filter_map(|line| line.strip_prefix("    "));
    let commands: Vec<_> = commands.map(str::to_owned).collect();
    (child, commands)
}

/// The texts between quotation marks.
fn quoted(line: &str) -> Vec<&str> {
    line.split('\'').skip(1).step_by(2).collect()
}

/// Does what a suggestion says. Returns the token that it makes.
#[track_caller]
fn try_suggestion(child: &Child, line: &str, shown: &str) -> Option<String> {
    let line = &line.replace("TOKEN", shown);
    let words: Vec<_> = line.split_whitespace().collect();
    let url = |scheme: &str| {
        let rest = quoted(line)[0].strip_prefix(scheme).unwrap();
        let (address, path) = rest.split_once('/').unwrap();
        (Client::connect(address.parse().unwrap()), format!("/{path}"))
    };
    match &words[..] {
        ["curl", "-d", "hello", ..] => {
            let (mut client, path) = url("http://");
            client
                .send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello"));
            assert_eq!(client.read_response().status, 200, "{line}");
        }
        ["new", ..] => {
            let (mut client, path) = url("ws://");
            let items = quoted(line)[1..].join(", ");
            let items = if items.is_empty() {
                items
            } else {
                format!("\r\nSec-WebSocket-Protocol: {items}")
            };
            client.send(WebSocket::request(&path).replacen("\r\n", &format!("{items}\r\n"), 1));
            assert_eq!(client.read_response_head().status, 101, "{line}");
        }
        ["printf", .., host, port] => {
            let mut client = Client::connect(format!("{host}:{port}").parse().unwrap());
            for command in &quoted(line)[1..] {
                let command: Value = serde_json::from_str(command).unwrap();
                let reply = client.command(&command);
                assert!(reply["error"].is_null(), "{line}: {reply}");
            }
        }
        ["fantail", "token", ..] => {
            let arguments: Vec<_> =
                words[1..].iter().copied().take_while(|it| *it != "prints").collect();
            return Some(succeed(&arguments).trim().to_owned());
        }
        ["fantail", "publish", ..] => drop(succeed(&words[1..])),
        ["fantail", "subscribe", channel, ..] => {
            let arguments = [&words[1..], &["--count", "1"]].concat();
            let server = format!("http://{}", child.addresses[0]);
            subscribe(child, &arguments, || {
                let publish = ["publish", channel, "x", "--server", &server, "--token", shown];
                succeed(&publish);
            });
        }
        _ => panic!("{line}"),
    }
    None
}

#[track_caller]
pub fn succeed(arguments: &[&str]) -> String {
    let ended = run(arguments);
    assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    ended.stdout
}

#[track_caller]
pub fn fail(arguments: &[&str], words: &[&str]) {
    let ended = run(arguments);
    assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{arguments:?}: {ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{arguments:?} {word}: {ended:?}");
    }
}

/// A client of the user, subscribed to a channel. Returns its id, too.
fn subscriber(child: &Child, user: &str, channel: &str) -> (Client, String) {
    let mut client = Client::connect(child.addresses[1]);
    let connect = json!({"token": token(&json!({"sub": user, "exp": in_seconds(60)}))});
    let reply = client.command(&json!({"id": 1, "connect": connect}));
    let id = reply["connect"]["client"].as_str().unwrap().to_owned();
    client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
    (client, id)
}

#[track_caller]
fn expect_code(client: &mut Client, code: u64, reason: &str) {
    let push = client.read_json();
    let expected = json!({"code": code, "reason": reason});
    assert_eq!(push["push"]["disconnect"], expected, "{push}");
    client.expect_end();
}

on_both_drivers! {
    fn an_operator_lists_channels_and_connections_and_ends_them(driver) {
        let file = settings("operator", driver);
        let child = start(driver, &file);
        let server = format!("http://{}", child.addresses[0]);
        let all = |words: &[&'static str]| -> Vec<String> {
            let more = ["--server", &server, "--config", file.path()];
            words.iter().copied().chain(more).map(str::to_owned).collect()
        };
        let command = |words: &[&'static str]| {
            let words = all(words);
            succeed(&words.iter().map(String::as_str).collect::<Vec<_>>())
        };
        assert_eq!(command(&["channels"]), "", "there are none");
        let (mut ann, ann_id) = subscriber(&child, "ann", "chat:1");
        let (mut bob, bob_id) = subscriber(&child, "bob", "chat:1");
        let (mut eve, eve_id) = subscriber(&child, "eve", "chat:2");
        assert_eq!(command(&["channels"]), " CLIENTS  CHANNEL\n       2  chat:1\n       1  chat:2\n");
        assert_eq!(command(&["channels", "*:2"]), " CLIENTS  CHANNEL\n       1  chat:2\n");
        let listed: Value = serde_json::from_str(&command(&["channels", "--json"])).unwrap();
        assert_eq!(listed["channels"]["chat:1"]["num_clients"], 2, "{listed}");
        let printed = command(&["connections", "--user", "ann", "--channels"]);
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines.len(), 2, "{printed}");
        let words: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(words, [&ann_id, "commands_tcp", "ann", "chat:1"], "{printed}");
        let printed = command(&["connections", "--channel", "chat:1"]);
        assert!(printed.contains(&bob_id) && !printed.contains(&eve_id), "{printed}");
        let listed: Value = serde_json::from_str(&command(&["connections", "--json"])).unwrap();
        assert_eq!(listed["connections"][&eve_id]["user"], "eve", "{listed}");
        assert_eq!(command(&["disconnect", "--user", "ann"]), "disconnected the clients of user ann\n");
        expect_code(&mut ann, 3503, "force disconnect");
        let printed = command(&["disconnect", "--user", "bob", "--code", "4500", "--reason", "out"]);
        assert_eq!(printed, "disconnected the clients of user bob\n");
        expect_code(&mut bob, 4500, "out");
        // One that is named, with the key from a flag; a client that is excepted stays.
        let key = ["--server", &server, "--api-key", KEY];
        succeed(&[&["disconnect", "--user", "eve", "--except", &eve_id][..], &key].concat());
        let printed = succeed(&[&["disconnect", "--json", "--client", &eve_id][..], &key].concat());
        assert_eq!(printed, "{}\n");
        expect_code(&mut eve, 3503, "force disconnect");
        // Without the key, with another one, and against the rules of the method.
        for command in [&["channels"][..], &["connections"], &["disconnect", "--user", "ann"]] {
            let at = ["--server", &server];
            fail(&[command, &at].concat(), &["401", "--api-key"]);
            fail(&[command, &at, &["--api-key", "wrong"]].concat(), &["401"]);
        }
        fail(&[&["disconnect", "--client", "x"][..], &key].concat(), &["107"]);
        assert_eq!(run(&["disconnect"]).status.code(), Some(2));
        assert_eq!(run(&["disconnect", "--user", "a", "--code", "100"]).status.code(), Some(2));
    }

    fn clients_take_their_keys_and_tokens_from_flags_or_the_settings(driver) {
        let file = settings("clients", driver);
        let child = start(driver, &file);
        let [edge, tcp] = [0, 1].map(|at| child.addresses[at]);
        let (server, config) = (format!("http://{edge}"), ["--config", file.path()]);
        let ann = token(&json!({"sub": "ann"}));
        let at = ["--server", &server];
        for (transport, address) in [
            ("websocket", server.clone()),
            ("commands", server.clone()),
            ("sse", server.clone()),
            ("poll", server.clone()),
            ("tcp", format!("tcp://{tcp}")),
        ] {
            let at = ["subscribe", "chat:1", "--count", "1", "--transport", transport, "--server", &address];
            for shown in [&["--token", &ann][..], &["--user", "ann", "--config", file.path()]] {
                let printed = subscribe(&child, &[&at[..], shown].concat(), || {
                    succeed(&["publish", "chat:1", "hello", "--server", &server, "--config", file.path()]);
                });
                assert_eq!(printed, "hello\n", "{transport}");
            }
            fail(&at, &["token"]);
        }
        // With the key, as a client, and with neither.
        for shown in [&["--api-key", KEY][..], &["--token", &ann], &config, &["--user", "ann", config[0], config[1]]] {
            succeed(&[&["publish", "chat:1", "x"][..], &at, shown].concat());
        }
        fail(&[&["publish", "chat:1", "x"][..], &at].concat(), &["401", "--token", "--api-key"]);
        fail(&[&["publish", "chat:1", "x", "--token", "x"][..], &at].concat(), &["401"]);
        fail(&[&["publish", "none", "x", "--token", &ann][..], &at].concat(), &["403"]);
        // A channel that clients need a token for of its own.
        let private = ["subscribe", "$chat:1", "--count", "1", "--transport", "commands", "--server", &server];
        let printed = subscribe(&child, &[&private[..], &config, &["--user", "ann"]].concat(), || {
            succeed(&[&["publish", "$chat:1", "hello"][..], &at, &config].concat());
        });
        assert_eq!(printed, "hello\n");
        assert!(succeed(&[&["top", "--once"][..], &at, &config].concat()).contains("workers 2"));
        let missing = TempFile::new(&format!("no-secret-{driver:?}"), "");
        fail(&[&["subscribe", "a", "--user", "ann", "--config", missing.path()][..], &at].concat(), &["no key"]);
    }

    fn the_log_has_the_client_whose_token_is_rejected(driver) {
        let file = settings("log", driver);
        let mut child = start(driver, &file);
        let mut client = Client::connect(child.commands());
        client.command(&json!({"id": 1, "connect": {"token": "x"}}));
        let line = child.log_line(&["a token was rejected"]);
        assert!(line.contains("client=127.0.0.1") && line.contains("reason=\"malformed\""), "{line}");
        drop(child);
        // Of the client that a trusted proxy names, and not of the proxy.
        let arguments = ["--workers", "1", "--config", file.path(), "--trusted-proxy", "127.0.0.1"];
        let mut child = Child::start(driver, &arguments);
        for (headers, shown) in [
            ("X-Forwarded-For: 203.0.113.7, 127.0.0.1\r\n", Some("client=203.0.113.7")),
            ("", None),
            ("X-Forwarded-For: 2001:db8::1\r\n", Some("client=2001:db8::1")),
        ] {
            // At most one line a second.
            std::thread::sleep(Duration::from_millis(1200));
            let mut client = Client::connect(child.edge());
            client.send(format!("GET /poll?channel=a HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer x\r\n{headers}\r\n"));
            assert_eq!(client.read_response().status, 401);
            let line = child.log_line(&["a token was rejected"]);
            match shown {
                Some(shown) => assert!(line.contains(shown), "{line}"),
                None => assert!(!line.contains("client="), "{line}"),
            }
        }
    }

    fn the_start_message_suggests_only_what_is_allowed(driver) {
        let chat = "[channels]\n[namespaces.chat]\nallow_subscribe_for_client = true\n\
                    allow_publish_for_client = true\n";
        let [secret, key] = [format!("[auth]\nhmac_secret = \"{SECRET}\"\n"), format!("[api]\nkey = \"{KEY}\"\n")];
        let (anonymous, members) = (
            ["curl -d", "new WebSocket", "printf '%s\\n'"],
            ["fantail token", "fantail publish", "new WebSocket", "fantail subscribe"],
        );
        for (settings, commands) in [
            (String::new(), &anonymous[..]),
            (chat.to_owned(), &[]),
            (format!("{chat}allow_subscribe_for_anonymous = true\n"), &anonymous[1..]),
            (secret.clone(), &members),
            (format!("{secret}{chat}"), &members),
            (format!("{secret}{key}{chat}"), &members),
            (format!("{key}{chat}"), &members[1..2]),
            ("[api.keys.a]\nkey = \"a\"\nmethods = \"info\"\n".to_owned(), &anonymous[1..]),
            (format!("{secret}[channels]\n"), &members[..1]),
        ] {
            let file = TempFile::new(&format!("suggestions-{driver:?}"), &settings);
            let (child, suggested) = suggestions(driver, &file);
            let mut token = String::new();
            for line in &suggested {
                if let Some(made) = try_suggestion(&child, line, &token) {
                    token = made;
                }
            }
            let names: Vec<_> = suggested.iter().map(|line| line.split('(').next().unwrap()).collect();
            let names: Vec<_> = names.iter().map(|line| {
                let words: Vec<_> = line.split_whitespace().take(2).collect();
                words.join(" ")
            }).collect();
            assert_eq!(names, commands, "{settings}");
        }
    }
}
