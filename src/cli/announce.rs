//! The start message: the addresses of a server, each with commands to try. It has those commands only that are not
//! refused with these settings.

use std::net::SocketAddr;
use std::path::Path;

use fantail::auth::{Client, Verdict, decide};
use fantail::config::{ApiRight, Config, Framing, Loaded, Namespaces, Origin, SETTINGS};
use fantail::connection::Service;
use fantail::message::{Actor, ChannelName, Payload, PayloadKind, Request};

use super::access::reached_here;
use super::token::can_sign;

/// The commands that are allowed.
#[derive(Debug)]
pub struct Examples {
    /// What a client has to show.
    client: Shows,
    /// The channel to which a client may subscribe.
    subscribe: Option<String>,
    /// The channel to which a caller may publish.
    publish: Option<(Publisher, String)>,
}

/// What a client has to show.
#[derive(Debug, PartialEq, Eq)]
enum Shows {
    Nothing,
    /// A token that this command makes.
    TokenBy(String),
    /// A token, which a backend makes.
    Token,
    /// What the backend wants that is asked about it.
    Unknown,
}

/// The caller that may publish.
#[derive(Debug, PartialEq, Eq)]
enum Publisher {
    Client,
    /// A backend with an API key, which these flags show.
    Backend(String),
}

impl Examples {
    pub fn of(loaded: &Loaded) -> Self {
        let config = &loaded.config;
        let is_flag = |names: [&str; 2]| {
            let mut rows = SETTINGS.iter().zip(&loaded.origins);
            rows.any(|(row, origin)| names.contains(&row.name) && matches!(origin, Origin::Flag(_)))
        };
        let file = loaded.file.as_ref().map(|path| format!(" --config {}", quoted(path)));
        let flags = file.unwrap_or_default();
        let client = if config.allows_anonymous() {
            Shows::Nothing
        } else if can_sign(config) {
            let is_given = is_flag(["auth.hmac_secret", "auth.hmac_secret_file"]);
            let secret = if is_given { " --token-hmac-secret SECRET" } else { "" };
            Shows::TokenBy(format!("fantail token --user 42{flags}{secret}"))
        } else if config.verifies_tokens() {
            Shows::Token
        } else {
            Shows::Unknown
        };
        let user = (client != Shows::Nothing).then_some("42");
        let subscription = |channel| Request::subscribe(channel, None);
        let subscribe = first_allowed(config, Actor::Client, user, subscription);
        let publication = |channel| Request::Publish {
            channel: Some(channel),
            payload: Payload::new(PayloadKind::Text, "hello"),
            options: None,
        };
        let publish = if config.has_api_key() {
            let is_given = is_flag(["api.key", "api.key_file"]);
            let flag = if is_given { " --api-key SECRET" } else { "" };
            let channel = first_allowed(config, Actor::Server, None, publication)
                .filter(|channel| has_key_for(config, channel));
            channel.map(|channel| (Publisher::Backend(format!("{flags}{flag}")), channel))
        } else {
            let channel = first_allowed(config, Actor::Client, user, publication);
            channel.map(|channel| (Publisher::Client, channel))
        };
        let known = client != Shows::Unknown;
        Self { client, subscribe: subscribe.filter(|_| known), publish }
    }

    /// The lines about an address.
    pub fn at_address(&self, service: Service, address: SocketAddr) -> String {
        let example = reached_here(address);
        let everywhere = match example == address {
            true => String::new(),
            false => format!(", on every address ({address})"),
        };
        match service {
            Service::Edge | Service::Public => {
                let commands = self.of_http(&example.to_string());
                format!("\n  http://{example}  HTTP and WebSocket{everywhere}{commands}")
            }
            Service::Admin => format!(
                "\n  http://{example}  the server API, metrics, health checks and the page{everywhere}\n\
                 \x20   fantail top --server http://{example}"
            ),
            Service::Commands(Framing::LengthPrefix) => format!(
                "\n  tcp://{example}  raw TCP, JSON objects with a 32-bit big-endian length prefix{everywhere}"
            ),
            Service::Commands(Framing::Line) => {
                let commands = self.of_tcp(example);
                format!(
                    "\n  tcp://{example}  raw TCP, one JSON object per line{everywhere}{commands}"
                )
            }
            Service::EchoWebSocket => format!(
                "\n  ws://{example}  echoes WebSocket messages{everywhere}\n\
                 \x20   new WebSocket('ws://{example}').onopen = e => e.target.send('hello')"
            ),
            Service::EchoTcp => format!(
                "\n  tcp://{example}  echoes bytes{everywhere}\n\
                 \x20   echo hello | nc {} {}",
                example.ip(),
                example.port()
            ),
        }
    }

    /// The lines about a Unix socket.
    pub fn at_socket(&self, service: Service, path: &Path) -> String {
        let path = path.display();
        match service {
            Service::Edge | Service::Public => {
                let mut text = format!("\n  unix:{path}  HTTP and WebSocket");
                let shown = match (&self.client, &self.publish) {
                    (Shows::Nothing, Some((Publisher::Client, _))) => "",
                    (_, Some((Publisher::Backend(_), _))) => " -H 'X-API-Key: SECRET'",
                    (_, Some((Publisher::Client, _))) => " -H 'Authorization: Bearer TOKEN'",
                    (_, None) => return text,
                };
                if let Some((_, channel)) = &self.publish {
                    text.push_str(&format!(
                        "\n    curl --unix-socket {path}{shown} -d hello 'http://localhost/publish?channel={channel}'"
                    ));
                }
                text
            }
            Service::Admin => format!(
                "\n  unix:{path}  the server API, metrics, health checks and the page\n\
                 \x20   curl --unix-socket {path} http://localhost/health/ready"
            ),
            Service::Commands(_) => format!("\n  unix:{path}  the command protocol"),
            Service::EchoWebSocket => format!("\n  unix:{path}  echoes WebSocket messages"),
            Service::EchoTcp => format!("\n  unix:{path}  echoes bytes"),
        }
    }

    fn of_http(&self, address: &str) -> String {
        let mut lines = vec![self.about_tokens()];
        match &self.publish {
            None => {}
            Some((Publisher::Client, channel)) if self.client == Shows::Nothing => {
                lines.push(format!("curl -d hello 'http://{address}/publish?channel={channel}'"))
            }
            Some((Publisher::Client, channel)) => lines.push(format!(
                "fantail publish {channel} hello --server http://{address} --token TOKEN"
            )),
            Some((Publisher::Backend(flags), channel)) => lines
                .push(format!("fantail publish {channel} hello --server http://{address}{flags}")),
        }
        if let Some(channel) = &self.subscribe {
            let shown = match self.client {
                Shows::Nothing => "",
                _ => ", ['fantail', 'bearer.TOKEN']",
            };
            lines.push(format!(
                "new WebSocket('ws://{address}/ws?channel={channel}'{shown}).onmessage = m => console.log(m.data)"
            ));
        }
        indented(&lines)
    }

    fn of_tcp(&self, address: SocketAddr) -> String {
        let Some(channel) = &self.subscribe else { return String::new() };
        let command = match self.client {
            Shows::Nothing => format!(
                "printf '%s\\n' '{{\"id\":1,\"connect\":{{}}}}' \
                 '{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}' | nc {} {}",
                address.ip(),
                address.port()
            ),
            _ => format!(
                "fantail subscribe {channel} --transport tcp --server tcp://{address} --token TOKEN"
            ),
        };
        indented(&[command])
    }

    fn about_tokens(&self) -> String {
        match &self.client {
            Shows::Nothing => String::new(),
            Shows::TokenBy(command) => format!("{command}     prints a TOKEN"),
            Shows::Token => "clients show a TOKEN that a backend makes".to_owned(),
            Shows::Unknown => "a backend says which clients may connect".to_owned(),
        }
    }
}

/// The lines about an address that speaks TLS, whose certificate may be one to try it out: it is not verified.
pub fn at_encrypted_address(service: Service, address: SocketAddr) -> String {
    let example = reached_here(address);
    let connect = format!("openssl s_client -quiet -connect {example}");
    match service {
        Service::Edge | Service::Public => format!(
            "\n  https://{example}  HTTP and WebSocket over TLS\n\
             \x20   curl --insecure https://{example}/health/live"
        ),
        Service::Admin => format!(
            "\n  https://{example}  the server API, metrics, health checks and the page over TLS\n\
             \x20   curl --insecure https://{example}/health/ready"
        ),
        Service::Commands(_) => {
            format!("\n  tls://{example}  the command protocol over TLS\n    {connect}")
        }
        Service::EchoWebSocket => {
            format!("\n  wss://{example}  echoes WebSocket messages over TLS")
        }
        Service::EchoTcp => format!("\n  tls://{example}  echoes bytes over TLS\n    {connect}"),
    }
}

/// The lines that are not empty, each indented and on a line of its own.
fn indented(lines: &[String]) -> String {
    let lines = lines.iter().filter(|line| !line.is_empty());
    lines.map(|line| format!("\n    {line}")).collect()
}

/// The first channel of a few for which this is allowed.
fn first_allowed(
    config: &Config,
    by: Actor,
    user: Option<&str>,
    request: impl Fn(ChannelName) -> Request,
) -> Option<String> {
    let in_namespaces = config.namespaces.names().map(|name| format!("{name}:a"));
    let mut channels = ["a".to_owned()].into_iter().chain(in_namespaces);
    channels.find(|channel| {
        let Ok(name) = ChannelName::new(channel) else { return false };
        let client = Client { user, is_subscribed: |_: &ChannelName| false };
        let verdict = decide(by, client, &request(name), &config.namespaces, &config.callbacks);
        verdict == Verdict::Allow
    })
}

/// Whether a command finds a key that allows to publish to a channel: the first that allows to publish.
fn has_key_for(config: &Config, channel: &str) -> bool {
    let mut keys = config.api_keys.iter().map(|key| &key.rights);
    let publishes = |methods: &fantail::config::ApiMethods| methods.contains(ApiRight::Publish);
    config.api_key.is_some()
        || keys.find(|rights| publishes(&rights.methods)).is_some_and(|rights| {
            let name = Namespaces::name_of(channel);
            rights.namespaces.as_ref().is_none_or(|all| all.iter().any(|one| one == name))
        })
}

/// A path for a shell.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match path.chars().all(is_plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}
