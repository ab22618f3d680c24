//! Rights by route and by identity: every route, with every kind of token, against every kind of right. What a table
//! does not allow is refused.

use std::net::SocketAddr;

use fantail::config::{ChannelOptions, ClientRight, DriverChoice};
use serde_json::{Value, json};

use crate::support::{
    Client, Received, SECRET, TestServer, WebSocket, in_seconds, on_both_drivers, token, token_by,
};
use jsonwebtoken::Algorithm::HS256;

/// What a client shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Nothing,
    TokenWithoutUser,
    TokenOfUser,
    ExpiredToken,
    ForgedToken,
    TokenForOthers,
}

/// What that makes of the client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Anonymous,
    User,
    /// It is refused: with this error or close code of commands, and this code of HTTP.
    Refused(u64, &'static str),
}

/// What is shown, and what the client is where tokens are needed, and where `auth.anonymous` is set.
const IDENTITIES: [(Shown, Is, Is); 6] = [
    (Shown::Nothing, Is::Refused(3501, "token_missing"), Is::Anonymous),
    (Shown::TokenWithoutUser, Is::Anonymous, Is::Anonymous),
    (Shown::TokenOfUser, Is::User, Is::User),
    (Shown::ExpiredToken, Is::Refused(109, "token_expired"), Is::Refused(109, "token_expired")),
    (Shown::ForgedToken, Is::Refused(3500, "token_invalid"), Is::Refused(3500, "token_invalid")),
    (Shown::TokenForOthers, Is::Refused(3500, "token_invalid"), Is::Refused(3500, "token_invalid")),
];

const USERS: ClientRight = ClientRight { client: true, subscriber: false, anonymous: false };
const CLIENTS: ClientRight = ClientRight { client: true, subscriber: false, anonymous: true };
const SUBSCRIBERS: ClientRight = ClientRight { client: false, subscriber: true, anonymous: true };
const USERS_AMONG_SUBSCRIBERS: ClientRight =
    ClientRight { client: false, subscriber: true, anonymous: false };

/// A namespace: the right to subscribe, and the one to publish and to read the history and the presence. Then what
/// an anonymous client and a user may: subscribe, the others before they have subscribed, and after.
type Namespace = (&'static str, ClientRight, ClientRight, [bool; 3], [bool; 3]);

const NAMESPACES: [Namespace; 7] = [
    ("none", ClientRight::NONE, ClientRight::NONE, [false, false, false], [false, false, false]),
    ("users", USERS, USERS, [false, false, false], [true, true, true]),
    ("clients", CLIENTS, CLIENTS, [true, true, true], [true, true, true]),
    ("read", CLIENTS, ClientRight::NONE, [true, false, false], [true, false, false]),
    ("write", ClientRight::NONE, USERS, [false, false, false], [false, true, true]),
    ("members", CLIENTS, SUBSCRIBERS, [true, false, true], [true, false, true]),
    ("staff", CLIENTS, USERS_AMONG_SUBSCRIBERS, [true, false, false], [true, false, true]),
];

/// Channels by whose names alone it is decided whether an anonymous client and the user `ann` subscribe to them.
const NAMES: [(&str, bool, bool); 7] = [
    ("limited:1#ann", false, true),
    ("limited:1#bob,ann", false, true),
    ("limited:1#bob", false, false),
    ("limited:1#", false, false),
    ("limited:1", false, false),
    ("clients:1#bob", true, true),
    ("$clients:1", false, false),
];

/// A route for clients, with the rights that it has a use for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Route {
    CommandsOverTcp,
    CommandsOverWebSocket,
    WebSocket,
    EventStream,
    Poll,
    Publish,
}

const ROUTES: [Route; 6] = [
    Route::CommandsOverTcp,
    Route::CommandsOverWebSocket,
    Route::WebSocket,
    Route::EventStream,
    Route::Poll,
    Route::Publish,
];

impl Shown {
    fn token(self) -> Option<String> {
        let claims = |claims: Value| {
            let mut claims = claims;
            claims["aud"] = json!("here");
            claims
        };
        match self {
            Self::Nothing => None,
            Self::TokenWithoutUser => Some(token(&claims(json!({})))),
            Self::TokenOfUser => {
                Some(token(&claims(json!({"sub": "ann", "exp": in_seconds(1000)}))))
            }
            Self::ExpiredToken => {
                Some(token(&claims(json!({"sub": "ann", "exp": in_seconds(-1)}))))
            }
            Self::ForgedToken => {
                Some(token_by("not-the-secret", HS256, &claims(json!({"sub": "ann"}))))
            }
            Self::TokenForOthers => Some(token(&json!({"sub": "ann", "aud": "elsewhere"}))),
        }
    }

    /// The header of HTTP that shows it.
    fn header(self) -> String {
        self.token().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"))
    }
}

fn server(driver: DriverChoice, anonymous: Option<bool>) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.audience = Some("here".to_owned());
        config.anonymous = anonymous;
        for (name, subscribe, others, ..) in NAMESPACES {
            let options = ChannelOptions {
                history_size: 10,
                presence: true,
                allow_subscribe: subscribe,
                allow_publish: others,
                allow_history: others,
                allow_presence: others,
                ..ChannelOptions::closed()
            };
            config.namespaces.add(name, options).unwrap();
        }
        let options =
            ChannelOptions { allow_user_limited_channels: true, ..ChannelOptions::closed() };
        config.namespaces.add("limited", options).unwrap();
    })
}

/// A client of the command protocol, over either transport.
enum Commander {
    Tcp(Client),
    WebSocket(WebSocket),
}

impl Commander {
    fn open(route: Route, server: &TestServer) -> Self {
        match route {
            Route::CommandsOverTcp => Self::Tcp(Client::connect(server.commands())),
            _ => Self::WebSocket(WebSocket::connect(server.edge(), "/connection/websocket")),
        }
    }

    /// Sends a command, and skips pushes. Returns the code of its error or of the close, if there is one.
    #[track_caller]
    fn code(&mut self, method: &str, parameters: &Value) -> Option<u64> {
        let command = json!({"id": 2, method: parameters}).to_string();
        match self {
            Self::Tcp(client) => client.send(command + "\n"),
            Self::WebSocket(socket) => socket.send_text(&command),
        }
        loop {
            let reply: Value = match self {
                Self::Tcp(client) => client.read_json(),
                Self::WebSocket(socket) => match socket.read() {
                    Received::Text(text) => serde_json::from_str(&text).unwrap(),
                    Received::Close(code, _) => return code.map(u64::from),
                    other => panic!("{other:?}"),
                },
            };
            if let Some(code) = reply["push"]["disconnect"]["code"].as_u64() {
                return Some(code);
            }
            if reply["id"] == 2 {
                return reply["error"]["code"].as_u64();
            }
        }
    }

    /// Whether a command is done; else it is denied.
    #[track_caller]
    fn may(&mut self, method: &str, channel: &str) -> bool {
        let mut parameters = json!({"channel": channel});
        if method == "publish" {
            parameters["data"] = json!(1);
        }
        let code = self.code(method, &parameters);
        assert!(matches!(code, None | Some(103)), "{method} {channel}: {code:?}");
        code.is_none()
    }
}

/// The status of a request, and the code of its error.
#[track_caller]
fn status(address: SocketAddr, line: &str, headers: &str, body: &str) -> (u16, Option<String>) {
    let mut client = Client::connect(address);
    client.send(format!("{line} HTTP/1.1\r\nHost: t\r\n{headers}\r\n{body}"));
    let response = client.read_response_head();
    if response.status < 400 {
        return (response.status, None);
    }
    let length = response.header("content-length").unwrap().parse().unwrap();
    let error: Value = serde_json::from_slice(&client.read_exactly(length)).unwrap();
    (response.status, error["error"]["code"].as_str().map(str::to_owned))
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Checks what a client may by the command protocol.
#[track_caller]
fn check_commands(route: Route, server: &TestServer, shown: Shown, is: Is, place: &str) {
    let token = shown.token().unwrap_or_default();
    let connect = |commander: &mut Commander| commander.code("connect", &json!({"token": token}));
    let mut commander = Commander::open(route, server);
    let code = connect(&mut commander);
    if let Is::Refused(expected, _) = is {
        assert_eq!(code, Some(expected), "{place}");
        // A client that is not disconnected can do nothing else.
        if expected == 109 {
            for method in ["subscribe", "publish", "history", "presence", "presence_stats"] {
                let parameters = json!({"channel": "clients:1", "data": 1});
                assert_eq!(commander.code(method, &parameters), Some(107), "{method} {place}");
            }
        }
        return;
    }
    assert_eq!(code, None, "{place}");
    for (name, _, _, anonymous, user) in NAMESPACES {
        let [subscribe, before, after] = if is == Is::User { user } else { anonymous };
        let channel = format!("{name}:1");
        let others = ["publish", "history", "presence", "presence_stats"];
        for method in others {
            assert_eq!(commander.may(method, &channel), before, "{method} {name} {place}");
        }
        assert_eq!(commander.may("subscribe", &channel), subscribe, "subscribe {name} {place}");
        for method in others {
            let expected = if subscribe { after } else { before };
            assert_eq!(commander.may(method, &channel), expected, "{method} {name} {place}");
        }
    }
    for (channel, anonymous, user) in NAMES {
        let expected = if is == Is::User { user } else { anonymous };
        assert_eq!(commander.may("subscribe", channel), expected, "{channel} {place}");
    }
    // A token for a channel is for its user alone.
    let own = if is == Is::User { json!({"sub": "ann"}) } else { json!({}) };
    for (holder, expected) in [
        (own, None),
        (json!({"sub": "bob"}), Some(3500)),
        (if is == Is::User { json!({}) } else { json!({"sub": "ann"}) }, Some(3500)),
    ] {
        let mut claims = holder;
        (claims["aud"], claims["channel"]) = (json!("here"), json!("none:2"));
        let parameters = json!({"channel": "none:2", "token": crate::support::token(&claims)});
        let mut commander = Commander::open(route, server);
        assert_eq!(connect(&mut commander), None);
        assert_eq!(commander.code("subscribe", &parameters), expected, "{claims} {place}");
    }
}

/// Checks what a client may by a route of HTTP.
#[track_caller]
fn check_http(route: Route, server: &TestServer, shown: Shown, is: Is, place: &str) {
    let (edge, header) = (server.edge(), shown.header());
    for (name, _, _, anonymous, user) in NAMESPACES {
        let [subscribe, before, after] = if is == Is::User { user } else { anonymous };
        let channel = format!("{name}:1");
        let (line, more, body, allowed, done) = match route {
            Route::WebSocket => (format!("GET /ws?channel={channel}"), UPGRADE, "", subscribe, 101),
            Route::EventStream => {
                (format!("GET /events?channel={channel}"), "", "", subscribe, 200)
            }
            Route::Poll => {
                (format!("GET /poll?channel={channel}&timeout=0"), "", "", subscribe, 200)
            }
            _ => (
                format!("POST /publish?channel={channel}"),
                "Content-Length: 1\r\n",
                "1",
                before,
                200,
            ),
        };
        let (status, code) = status(edge, &line, &(header.clone() + more), body);
        let expected = match is {
            Is::Refused(_, code) => (401, Some(code)),
            _ if allowed => (done, None),
            _ => (403, Some("permission_denied")),
        };
        assert_eq!((status, code.as_deref()), expected, "{line} {place}");
        // What a WebSocket sends is published to its first channel, if that is allowed.
        if route == Route::WebSocket && status == 101 {
            let request = WebSocket::request(&format!("/ws?channel={channel}"));
            let mut client = Client::connect(edge);
            client.send(request.replacen("\r\n", &format!("\r\n{header}"), 1));
            let mut socket = WebSocket::over(client);
            socket.read_upgrade();
            socket.send_text("by a WebSocket");
            if after {
                socket.expect_text("by a WebSocket");
            }
            // The answer to a ping comes behind everything else.
            socket.round_trip();
        }
    }
}

/// Checks which channels a client may name by a route of HTTP.
#[track_caller]
fn check_names(route: Route, server: &TestServer, shown: Shown, is: Is, place: &str) {
    for (channel, anonymous, user) in NAMES {
        let channel = channel.replace('#', "%23").replace(',', "%2C");
        let (line, more, done) = match route {
            Route::WebSocket => (format!("GET /ws?channel={channel}"), UPGRADE, 101),
            Route::EventStream => (format!("GET /events?channel={channel}"), "", 200),
            Route::Poll => (format!("GET /poll?channel={channel}&timeout=0"), "", 200),
            _ => return,
        };
        let (status, _) = status(server.edge(), &line, &(shown.header() + more), "");
        let expected = match is {
            Is::Refused(..) => 401,
            Is::User if user => done,
            Is::Anonymous if anonymous => done,
            _ => 403,
        };
        assert_eq!(if status == 204 { 200 } else { status }, expected, "{line} {place}");
    }
}

on_both_drivers! {
    fn every_route_gives_every_identity_the_rights_of_the_channel_and_no_others(driver) {
        for anonymous in [None, Some(true)] {
            let server = server(driver, anonymous);
            for route in ROUTES {
                for (shown, without, with) in IDENTITIES {
                    let is = if anonymous.is_some() { with } else { without };
                    let place = format!("{route:?} {shown:?} {is:?}");
                    match route {
                        Route::CommandsOverTcp | Route::CommandsOverWebSocket => {
                            check_commands(route, &server, shown, is, &place);
                        }
                        _ => {
                            check_http(route, &server, shown, is, &place);
                            check_names(route, &server, shown, is, &place);
                        }
                    }
                }
            }
        }
    }
}
