//! Tokens for subscriptions, and what a backend says about subscriptions: names, overridden options.

use fantail::config::{CallbackKind, CallbackOption, ChannelOptions, ChannelRegex, DriverChoice};
use serde_json::{Value, json};

use crate::support::{
    Backend, BackendAnswer, Client, Received, SECRET, TestServer, WebSocket, on_both_drivers, token,
};

/// A server on which clients have no rights but those of tokens.
fn server(driver: DriverChoice, change: impl FnOnce(&mut fantail::config::Config)) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        change(config);
    })
}

/// A client of the command protocol, over TCP or WebSocket.
enum Commander {
    Tcp(Client),
    WebSocket(WebSocket),
}

impl Commander {
    /// Connects over each transport. Returns the clients and the answers.
    fn connect(server: &TestServer, parameters: &Value) -> [(Self, Value); 2] {
        let clients = [
            Self::Tcp(Client::connect(server.commands())),
            Self::WebSocket(WebSocket::connect(server.edge(), "/connection/websocket")),
        ];
        clients.map(|mut client| {
            let reply = client.command(&json!({"id": 1, "connect": parameters}));
            (client, reply)
        })
    }

    fn read(&mut self) -> Value {
        match self {
            Self::Tcp(client) => client.read_json(),
            Self::WebSocket(socket) => match socket.read() {
                Received::Text(text) => serde_json::from_str(&text).unwrap(),
                other => panic!("{other:?}"),
            },
        }
    }

    /// Sends a command. Returns its reply, and skips pushes before that.
    fn command(&mut self, command: &Value) -> Value {
        match self {
            Self::Tcp(client) => client.send(format!("{command}\n")),
            Self::WebSocket(socket) => socket.send_text(&command.to_string()),
        }
        loop {
            let reply = self.read();
            if reply["id"] == command["id"] {
                return reply;
            }
        }
    }
}

/// Names, and whether clients may use them where `channel_regex` is `^[a-z]+$` and names have at most 10 bytes.
const NAMES: [(&str, bool); 7] = [
    ("words:abcd", true),
    ("words:abcde", false),
    ("words:1", false),
    ("$words:abc", true),
    ("$words:1", false),
    ("words:a#b", false),
    ("0123456789a", false),
];

fn with_rules_for_names(config: &mut fantail::config::Config) {
    let channel_regex = Some(ChannelRegex::new("^[a-z]+$").unwrap());
    let options = ChannelOptions { channel_regex, ..ChannelOptions::closed() };
    config.namespaces.add("words", options).unwrap();
    config.channel_bytes_max = 10;
}

on_both_drivers! {
    fn a_token_is_not_the_right_to_a_name_that_clients_may_not_use(driver) {
        let server = server(driver, with_rules_for_names);
        let connect = json!({"token": token(&json!({"sub": "ann"}))});
        for (mut client, reply) in Commander::connect(&server, &connect) {
            assert!(reply["connect"]["client"].is_string(), "{reply}");
            for (channel, is_valid) in NAMES {
                let claims = json!({"sub": "ann", "channel": channel});
                let subscribe = json!({"channel": channel, "token": token(&claims)});
                let reply = client.command(&json!({"id": 2, "subscribe": subscribe}));
                let expected = if is_valid { Value::Null } else { json!(107) };
                assert_eq!(reply["error"]["code"], expected, "{channel}: {reply}");
                // The name is looked at before the token.
                let subscribe = json!({"channel": channel, "token": "x"});
                let reply = client.command(&json!({"id": 3, "subscribe": subscribe}));
                assert_eq!(reply["error"]["code"], if is_valid { 103 } else { 107 }, "{channel}");
            }
            let reply = client.command(&json!({"id": 4, "subscribe": {"channel": "no:1", "token": "x"}}));
            assert_eq!(reply["error"]["code"], 102, "{reply}");
        }
    }

    fn a_backend_subscribes_its_clients_to_channels_of_any_name(driver) {
        let backend = Backend::start(|request| {
            BackendAnswer::Json(json!({"result": {"user": "bob", "channels": [request.body["data"]]}}))
        });
        let server = server(driver, |config| {
            with_rules_for_names(config);
            let connect = config.callbacks.of_mut(CallbackKind::Connect);
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&[backend.url("/")], connect).unwrap();
        });
        for (channel, _) in NAMES {
            for shown in [
                json!({"token": token(&json!({"sub": "ann", "channels": [channel]}))}),
                json!({"token": token(&json!({"sub": "ann", "subs": {channel: {}}}))}),
                json!({"data": channel}),
            ] {
                for (mut client, reply) in Commander::connect(&server, &shown) {
                    assert!(reply["connect"]["subs"][channel].is_object(), "{channel}: {reply}");
                    // It is the backend's choice alone.
                    let reply = client.command(&json!({"id": 2, "subscribe": {"channel": "words:2"}}));
                    assert_eq!(reply["error"]["code"], 107, "{reply}");
                }
            }
        }
    }
}
