//! The command protocol in JSON: Centrifuge v2 (github.com/centrifugal/protocol, `client.proto`).
//!
//! One object a command, one a reply. A reply carries its command's `id`; a push carries none. An empty object is a
//! ping from the server and a pong from the client.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::message::{CloseReason, Payload, PayloadKind, Position, Publication};

/// What a client says.
#[derive(Debug)]
pub struct Command<'a> {
    /// Comes back in the reply; 0 when absent.
    pub id: u32,
    /// What it wants.
    pub method: Method<'a>,
}

/// What a client wants. Channel names are as sent: not checked yet.
#[derive(Debug, PartialEq)]
pub enum Method<'a> {
    /// Nothing: the answer to a ping.
    Pong,
    /// Opens the session.
    Connect,
    /// Receive a channel.
    Subscribe(Cow<'a, str>),
    /// Receive it no more.
    Unsubscribe(Cow<'a, str>),
    /// Hand data, any JSON value, to a channel's subscribers.
    Publish(Cow<'a, str>, &'a [u8]),
    /// Asks for nothing but a reply.
    Ping,
    /// A method of the protocol that is not offered.
    NotAvailable,
    /// No method of the protocol.
    Unknown,
    /// The method's parameters are not what it takes.
    Malformed,
}

/// The error codes of the protocol that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// A fault of this server.
    Internal,
    /// The channel's namespace does not exist.
    UnknownChannel,
    /// Not allowed.
    PermissionDenied,
    /// No such method.
    MethodNotFound,
    /// The session has the channel already.
    AlreadySubscribed,
    /// As many as allowed.
    LimitExceeded,
    /// Not a command, or not now.
    BadRequest,
    /// Not offered.
    NotAvailable,
    /// Later, perhaps.
    TooManyRequests,
    /// The position is of another life of the channel, or too old.
    UnrecoverablePosition,
}

impl CommandError {
    /// The code on the wire.
    pub fn code(self) -> u32 {
        match self {
            CommandError::Internal => 100,
            CommandError::UnknownChannel => 102,
            CommandError::PermissionDenied => 103,
            CommandError::MethodNotFound => 104,
            CommandError::AlreadySubscribed => 105,
            CommandError::LimitExceeded => 106,
            CommandError::BadRequest => 107,
            CommandError::NotAvailable => 108,
            CommandError::TooManyRequests => 111,
            CommandError::UnrecoverablePosition => 112,
        }
    }

    /// The message that goes with the code.
    pub fn message(self) -> &'static str {
        match self {
            CommandError::Internal => "internal server error",
            CommandError::UnknownChannel => "unknown channel",
            CommandError::PermissionDenied => "permission denied",
            CommandError::MethodNotFound => "method not found",
            CommandError::AlreadySubscribed => "already subscribed",
            CommandError::LimitExceeded => "limit exceeded",
            CommandError::BadRequest => "bad request",
            CommandError::NotAvailable => "not available",
            CommandError::TooManyRequests => "too many requests",
            CommandError::UnrecoverablePosition => "unrecoverable position",
        }
    }
}

/// Decodes one command. `Err`: not a JSON object, or an `id` that is no number of 32 bits.
pub fn decode_command(bytes: &[u8]) -> Result<Command<'_>, CommandError> {
    let Envelope { id, method } =
        serde_json::from_slice(bytes).map_err(|_| CommandError::BadRequest)?;
    let method = match method {
        None => Method::Pong,
        Some((name, parameters)) => decode_method(&name, parameters.get()),
    };
    Ok(Command { id, method })
}

fn decode_method<'a>(name: &str, parameters: &'a str) -> Method<'a> {
    let channel = |wrap: fn(Cow<'a, str>) -> Method<'a>| match serde_json::from_str(parameters) {
        Ok(OfChannel { channel }) => wrap(channel),
        Err(_) => Method::Malformed,
    };
    let nothing = |method| match serde_json::from_str(parameters) {
        Ok(Nothing {}) => method,
        Err(_) => Method::Malformed,
    };
    match name {
        "connect" => nothing(Method::Connect),
        "subscribe" => channel(Method::Subscribe),
        "unsubscribe" => channel(Method::Unsubscribe),
        "ping" => nothing(Method::Ping),
        "publish" => match serde_json::from_str(parameters) {
            Ok(Publish { channel, data }) => Method::Publish(channel, data.get().as_bytes()),
            Err(_) => Method::Malformed,
        },
        "presence" | "presence_stats" | "history" | "rpc" | "refresh" | "sub_refresh" | "send" => {
            Method::NotAvailable
        }
        _ => Method::Unknown,
    }
}

/// The id and the one member that is not the id.
struct Envelope<'a> {
    id: u32,
    method: Option<(Cow<'a, str>, &'a RawValue)>,
}

#[derive(Deserialize)]
struct OfChannel<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Publish<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Nothing {}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a command: an object with an id and one method")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope { id: 0, method: None };
        while let Some(Key(key)) = map.next_key()? {
            if key == "id" {
                envelope.id = map.next_value()?;
            } else if envelope.method.is_none() {
                envelope.method = Some((key, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom("a command has one method"));
            }
        }
        Ok(envelope)
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Answers with an error; `detail` says more than the code's own message.
pub fn write_error(out: &mut Vec<u8>, id: u32, error: CommandError, detail: Option<&str>) {
    #[derive(Serialize)]
    struct Reply<'a> {
        #[serde(skip_serializing_if = "is_zero")]
        id: u32,
        error: Body<'a>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        code: u32,
        message: Cow<'a, str>,
    }
    let message = match detail {
        None => Cow::Borrowed(error.message()),
        Some(detail) => Cow::Owned(format!("{}: {detail}", error.message())),
    };
    write_json(out, &Reply { id, error: Body { code: error.code(), message } });
}

/// Answers `connect`: the client's name, and how often the server pings.
pub fn write_connected(out: &mut Vec<u8>, id: u32, client: &str, ping_seconds: u64) {
    put(
        out,
        format_args!(
            "{{\"id\":{id},\"connect\":{{\"client\":\"{client}\",\"version\":\"{VERSION}\",\
             \"ping\":{ping_seconds}}}}}"
        ),
    );
}

/// Answers `subscribe` with where the stream stood.
pub fn write_subscribed(out: &mut Vec<u8>, id: u32, position: Position) {
    let Position { epoch, offset } = position;
    put(
        out,
        format_args!("{{\"id\":{id},\"subscribe\":{{\"epoch\":\"{epoch}\",\"offset\":{offset}}}}}"),
    );
}

/// Answers a method whose result is empty.
pub fn write_done(out: &mut Vec<u8>, id: u32, method: &str) {
    put(out, format_args!("{{\"id\":{id},\"{method}\":{{}}}}"));
}

/// A ping.
pub fn write_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{}");
}

/// Tells why the connection is about to end.
pub fn write_disconnect(out: &mut Vec<u8>, reason: CloseReason) {
    put(
        out,
        format_args!(
            "{{\"push\":{{\"disconnect\":{{\"code\":{},\"reason\":\"{}\"}}}}}}",
            reason.disconnect_code(),
            reason.label()
        ),
    );
}

/// What text that was published is: settled once, so that no encoding has to look again.
pub fn kind_of_text(text: &str) -> PayloadKind {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => PayloadKind::Json,
        Err(_) => PayloadKind::Text,
    }
}

/// What bytes that were published are.
pub fn kind_of_bytes(bytes: &[u8]) -> PayloadKind {
    simdutf8::basic::from_utf8(bytes).map_or(PayloadKind::Binary, kind_of_text)
}

/// A publication of a channel: JSON is embedded as it is, other text as a string, binary as base64. News has its own
/// form.
pub fn write_publication(out: &mut Vec<u8>, publication: &Publication) {
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    write_json(out, publication.channel.as_str());
    let end: &[u8] = match publication.payload.kind {
        PayloadKind::Json | PayloadKind::Text | PayloadKind::Binary => {
            out.extend_from_slice(b",\"pub\":");
            write_item(out, publication);
            b"}}"
        }
        PayloadKind::Join => {
            out.extend_from_slice(b",\"join\":{\"info\":");
            out.extend_from_slice(&publication.payload.bytes);
            b"}}}"
        }
        PayloadKind::Leave => {
            out.extend_from_slice(b",\"leave\":{\"info\":");
            out.extend_from_slice(&publication.payload.bytes);
            b"}}}"
        }
        PayloadKind::Gap => {
            out.extend_from_slice(b",\"gap\":{\"dropped\":");
            out.extend_from_slice(&publication.payload.bytes);
            b"}}}"
        }
    };
    out.extend_from_slice(end);
}

/// A publication as an object: data, offset, and the type of event as a tag.
pub fn write_item(out: &mut Vec<u8>, publication: &Publication) {
    out.extend_from_slice(b"{\"data\":");
    write_data(out, &publication.payload);
    put(out, format_args!(",\"offset\":{}", publication.position.offset));
    if let Some(event) = &publication.payload.event {
        out.extend_from_slice(b",\"tags\":{\"event\":");
        write_json(out, &**event);
        out.push(b'}');
    }
    out.push(b'}');
}

/// A payload as a JSON value on one line.
pub fn write_data(out: &mut Vec<u8>, payload: &Payload) {
    let bytes = &payload.bytes;
    match (payload.kind, std::str::from_utf8(bytes)) {
        // Line ends are only ever white space in JSON; as blanks, they cannot end a line of the transport.
        (PayloadKind::Json, _) => out.extend(bytes.iter().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            other => *other,
        })),
        (PayloadKind::Text, Ok(text)) => write_json(out, text),
        _ => write_json(out, &STANDARD.encode(bytes)),
    }
}

const VERSION: &str = concat!("fantail ", env!("CARGO_PKG_VERSION"));

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(id: &u32) -> bool {
    *id == 0
}

fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("plain data, written to memory");
}

fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ChannelName, Epoch};

    fn method(text: &str) -> Method<'_> {
        decode_command(text.as_bytes()).unwrap().method
    }

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(method("{}"), Method::Pong);
        assert_eq!(method(r#"{"id":1}"#), Method::Pong);
        assert_eq!(method(r#"{"id":1,"connect":{"token":"x","name":"js"}}"#), Method::Connect);
        assert_eq!(
            method(r#"{"subscribe":{"channel":"a"},"id":7}"#),
            Method::Subscribe("a".into())
        );
        assert_eq!(
            method(r#"{"id":1,"unsubscribe":{"channel":"\u00e9"}}"#),
            Method::Unsubscribe("é".into())
        );
        assert_eq!(
            method(r#"{"id":1,"publish":{"channel":"a","data":{"x": [1]}}}"#),
            Method::Publish("a".into(), br#"{"x": [1]}"#)
        );
        assert_eq!(method(r#"{"id":1,"ping":{}}"#), Method::Ping);
        assert_eq!(method(r#"{"id":1,"rpc":{"method":"x"}}"#), Method::NotAvailable);
        assert_eq!(method(r#"{"id":1,"dance":{}}"#), Method::Unknown);
        assert_eq!(decode_command(br#"{"id":4294967295}"#).unwrap().id, u32::MAX);
    }

    #[test]
    fn what_is_wrong_with_a_command_is_told_apart() {
        for text in [
            "",
            "[]",
            "null",
            "{",
            r#"{"id":-1}"#,
            r#"{"id":4294967296}"#,
            r#"{"id":"1"}"#,
            r#"{"id":1,"ping":{},"connect":{}}"#,
            "{}x",
            "\"\\ud800\"",
        ] {
            let fault = decode_command(text.as_bytes()).unwrap_err();
            assert_eq!(fault, CommandError::BadRequest, "{text}");
        }
        for text in [
            r#"{"id":1,"subscribe":{}}"#,
            r#"{"id":1,"subscribe":{"channel":1}}"#,
            r#"{"id":1,"publish":{"channel":"a"}}"#,
            r#"{"id":1,"connect":3}"#,
        ] {
            assert_eq!(method(text), Method::Malformed, "{text}");
        }
        assert!(decode_command(&[b'{', 0xff, b'}']).is_err());
    }

    fn pushed(kind: PayloadKind, bytes: &[u8]) -> String {
        let publication = Publication {
            channel: ChannelName::new("a\"b").unwrap(),
            position: Position { epoch: Epoch(1), offset: 5 },
            payload: Payload::new(kind, bytes.to_vec()),
        };
        let mut out = Vec::new();
        write_publication(&mut out, &publication);
        let text = String::from_utf8(out).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).expect("a push is JSON");
        assert_eq!(value["push"]["channel"], "a\"b");
        assert_eq!(value["push"]["pub"]["offset"], 5);
        assert!(!text.contains('\n'), "a push is one line");
        value["push"]["pub"]["data"].to_string()
    }

    #[test]
    fn payloads_are_embedded_by_kind() {
        assert_eq!(pushed(PayloadKind::Json, b"{\"x\":\n [1,\r\n2]}"), r#"{"x":[1,2]}"#);
        assert_eq!(pushed(PayloadKind::Text, b"hello\nworld"), r#""hello\nworld""#);
        assert_eq!(pushed(PayloadKind::Text, b""), r#""""#);
        assert_eq!(pushed(PayloadKind::Binary, b"\xff\x00"), r#""/wA=""#);
    }

    #[test]
    fn replies_are_json_with_their_id() {
        let mut out = Vec::new();
        write_connected(&mut out, 1, "0-1-2", 25);
        out.push(b' ');
        write_subscribed(&mut out, 2, Position { epoch: Epoch(255), offset: 9 });
        out.push(b' ');
        write_done(&mut out, 3, "unsubscribe");
        write_error(&mut out, 0, CommandError::BadRequest, Some("connect first"));
        write_error(&mut out, 4, CommandError::LimitExceeded, None);
        write_disconnect(&mut out, CloseReason::Shutdown);
        write_ping(&mut out);
        let replies: Vec<serde_json::Value> =
            serde_json::Deserializer::from_slice(&out).into_iter().map(Result::unwrap).collect();
        assert_eq!(replies[0]["connect"]["ping"], 25);
        assert_eq!(replies[1]["subscribe"]["epoch"], "000000ff");
        assert_eq!(replies[2]["id"], 3);
        assert_eq!(replies[3]["error"]["code"], 107);
        assert_eq!(replies[3]["error"]["message"], "bad request: connect first");
        assert_eq!(replies[3].get("id"), None);
        assert_eq!(replies[4]["error"]["message"], "limit exceeded");
        assert_eq!(replies[5]["push"]["disconnect"]["code"], 3001);
        assert_eq!(replies[6], serde_json::json!({}));
    }
}
