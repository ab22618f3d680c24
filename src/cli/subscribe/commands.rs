//! The command protocol, over WebSocket or raw TCP: publications have offsets, so none is missed or repeated after a
//! reconnect.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::printer::{Done, Printer, note_missed};
use crate::cli::access::Tokens;
use crate::cli::client::{Arrival, Frame, SILENCE_MAX, Scheme, Server, Trouble, WebSocket, Wire};
use crate::cli::output::note;

/// Subscriptions to channels, with the position in each.
pub struct Listener<'a> {
    server: &'a Server,
    tokens: &'a Tokens,
    channels: Vec<Channel<'a>>,
}

struct Channel<'a> {
    name: &'a str,
    /// The epoch and the offset of the last publication received; `None` in a channel without recovery.
    position: Option<(String, u64)>,
}

/// The members of a reply or push that are used here. Payloads keep their bytes.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(default)]
    id: usize,
    error: Option<Failure>,
    #[serde(borrow)]
    push: Option<Push<'a>>,
    #[serde(borrow)]
    subscribe: Option<Subscribed<'a>>,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(default)]
    channel: String,
    #[serde(borrow, rename = "pub")]
    publication: Option<Publication<'a>>,
    disconnect: Option<Disconnect>,
    unsubscribe: Option<Unsubscribed>,
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Unsubscribed {
    code: u16,
}

#[derive(Deserialize)]
struct Subscribed<'a> {
    recovered: Option<bool>,
    #[serde(default)]
    recoverable: bool,
    epoch: Option<String>,
    #[serde(default)]
    offset: u64,
    #[serde(borrow, default)]
    publications: Vec<Publication<'a>>,
}

#[derive(Deserialize)]
struct Publication<'a> {
    offset: Option<u64>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Disconnect {
    code: u64,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Gap {
    dropped: u64,
}

/// A connection that carries one JSON object at a time.
enum Link {
    WebSocket(WebSocket),
    Tcp {
        wire: Wire,
        /// Bytes of `received` that were searched for a line feed.
        searched: usize,
        awaits_pong: bool,
    },
}

/// Id of the command that subscribes to the first channel; those of the others follow.
const FIRST_ID: usize = 2;

/// Id of a ping, which shows whether the server still answers.
const PING_ID: u32 = 1_000_000;

impl<'a> Listener<'a> {
    pub fn new(server: &'a Server, channels: &'a [String], tokens: &'a Tokens) -> Self {
        let channels = channels.iter().map(|name| Channel { name, position: None }).collect();
        Self { server, tokens, channels }
    }

    pub fn listen(&mut self, printer: &mut Printer) -> Result<Done, Trouble> {
        let mut link = Link::open(self.server)?;
        let mut connect = json!({"name": "fantail subscribe"});
        if let Some(token) = self.tokens.connection().map_err(Trouble::Refused)? {
            connect["token"] = token.expose().into();
        }
        link.send(&json!({"id": 1, "connect": connect}))?;
        for (index, channel) in self.channels.iter().enumerate() {
            let mut subscribe = json!({"channel": channel.name});
            if let Some((epoch, offset)) = &channel.position {
                subscribe["recover"] = true.into();
                subscribe["epoch"] = epoch.as_str().into();
                subscribe["offset"] = (*offset).into();
            }
            if let Some(token) = self.tokens.subscription(channel.name).map_err(Trouble::Refused)? {
                subscribe["token"] = token.expose().into();
            }
            link.send(&json!({"id": FIRST_ID + index, "subscribe": subscribe}))?;
        }
        let mut waiting = self.channels.len();
        loop {
            let text = link.next()?;
            let object: Object<'_> =
                serde_json::from_slice(&text).map_err(|_| no_commands(self.server))?;
            let mut done = None;
            if let Some(error) = object.error {
                return Err(self.refused(object.id, &error.message));
            } else if text.trim_ascii() == b"{}" {
                // A ping, answered with a pong.
                link.send(&json!({}))?;
            } else if let Some(push) = object.push {
                done = self.take_push(&push, printer)?;
            } else if let Some(result) = object.subscribe {
                done = self.take_subscribed(object.id, &result, printer);
                waiting -= 1;
                if waiting == 0 {
                    printer.welcome();
                }
            }
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    fn refused(&self, id: usize, message: &str) -> Trouble {
        let channel = id.checked_sub(FIRST_ID).and_then(|index| self.channels.get(index));
        let what = channel.map_or("the connection", |channel| channel.name);
        Trouble::Refused(format!("{} refused {what}: {message}", self.server))
    }

    fn take_subscribed(
        &mut self,
        id: usize,
        result: &Subscribed<'_>,
        printer: &mut Printer,
    ) -> Option<Done> {
        let channel = id.checked_sub(FIRST_ID).and_then(|index| self.channels.get_mut(index))?;
        if result.recovered == Some(false) {
            note_missed(channel.name);
        }
        let epoch = result.epoch.as_ref().filter(|_| result.recoverable);
        channel.position = epoch.map(|epoch| (epoch.clone(), result.offset));
        result.publications.iter().find_map(|publication| channel.take(publication, printer))
    }

    fn take_push(
        &mut self,
        push: &Push<'_>,
        printer: &mut Printer,
    ) -> Result<Option<Done>, Trouble> {
        let name = push.channel.as_str();
        if let Some(Disconnect { code, reason }) = &push.disconnect {
            return Err(closed(self.server, *code, reason));
        }
        let Some(channel) = self.channels.iter_mut().find(|channel| channel.name == name) else {
            return Ok(None);
        };
        if push.unsubscribe.as_ref().is_some_and(|it| it.code >= RESUBSCRIBE_CODE_MIN) {
            return Err(Trouble::Lost(format!("{} has more publications of {name}", self.server)));
        }
        if push.unsubscribe.is_some() {
            return Err(Trouble::Refused(format!(
                "{} ended the subscription to {name}",
                self.server
            )));
        }
        if let Some(Gap { dropped }) = push.gap {
            note(&format!("{dropped} publications of {name} were dropped"));
        }
        let publication = push.publication.as_ref();
        Ok(publication.and_then(|publication| channel.take(publication, printer)))
    }
}

impl Channel<'_> {
    fn take(&mut self, publication: &Publication<'_>, printer: &mut Printer) -> Option<Done> {
        if let (Some((_, offset)), Some(new)) = (&mut self.position, publication.offset) {
            *offset = new;
        }
        printer.print_data(publication.data)
    }
}

impl Link {
    fn open(server: &Server) -> Result<Self, Trouble> {
        let wire = Wire::connect(server, SILENCE_MAX)?;
        match server.scheme() {
            Scheme::Http => {
                WebSocket::open(wire, "/connection/websocket", None).map(Link::WebSocket)
            }
            Scheme::Tcp => Ok(Link::Tcp { wire, searched: 0, awaits_pong: false }),
        }
    }

    fn send(&mut self, object: &Value) -> Result<(), Trouble> {
        match self {
            Link::WebSocket(socket) => socket.send_text(&object.to_string()),
            Link::Tcp { wire, .. } => wire.send(format!("{object}\n").as_bytes()),
        }
    }

    /// Waits for the text of the next object.
    fn next(&mut self) -> Result<Vec<u8>, Trouble> {
        match self {
            Link::WebSocket(socket) => match socket.next()? {
                Frame::Text(text) | Frame::Binary(text) => Ok(text),
                Frame::Close { code, reason } => {
                    Err(closed(socket.server(), code.unwrap_or(0).into(), &reason))
                }
            },
            Link::Tcp { wire, searched, awaits_pong } => next_line(wire, searched, awaits_pong),
        }
    }
}

/// Waits for the next line, without its line feed. Pings a server that sends nothing for [`SILENCE_MAX`].
fn next_line(
    wire: &mut Wire,
    searched: &mut usize,
    awaits_pong: &mut bool,
) -> Result<Vec<u8>, Trouble> {
    loop {
        if let Some(at) = wire.received[*searched..].iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = wire.received.drain(..=*searched + at).collect();
            line.pop();
            *searched = 0;
            return Ok(line);
        }
        *searched = wire.received.len();
        match wire.receive()? {
            Arrival::Bytes => *awaits_pong = false,
            Arrival::End => return Err(wire.ended()),
            Arrival::Silence if *awaits_pong => {
                return Err(Trouble::Lost(format!("{} does not respond", wire.server())));
            }
            Arrival::Silence => {
                *awaits_pong = true;
                wire.send(format!("{}\n", json!({"id": PING_ID, "ping": {}})).as_bytes())?;
            }
        }
    }
}

fn no_commands(server: &Server) -> Trouble {
    Trouble::Refused(format!("{server} does not speak the command protocol"))
}

/// Codes of the command protocol: after 3500 to 3999 and 4500 to 4999, a client does not reconnect.
fn closed(server: &Server, code: u64, reason: &str) -> Trouble {
    let message = format!("{server} closed the connection: {reason}");
    match code {
        3500..=3999 | 4500..=4999 => Trouble::Refused(message),
        _ => Trouble::Lost(message),
    }
}

/// After an unsubscribe with this code or a higher one, a client subscribes again from its position.
const RESUBSCRIBE_CODE_MIN: u16 = 2500;
