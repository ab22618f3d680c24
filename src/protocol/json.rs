//! The [command protocol](super::command) in JSON: a command is one object, and so is a message to a client. Payloads
//! that are JSON are embedded as they are.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::iter;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::message::{ClientInfo, Payload, PayloadKind, Publication};

mod commands;
mod connect;
mod delta;
mod emulation;
mod replies;
mod subscription;
mod tags_filter;

pub use commands::decode_command;
pub use connect::decode_connect;
pub use delta::write_delta_items;
pub use emulation::decode_emulation;
pub use replies::{write_bare_push, write_push, write_sent, write_sent_bare};
pub use subscription::{
    InvalidValue, OverrideDocument, SubscriptionDocument, SubscriptionDocuments, line_of_value,
};

/// The kind of a text payload. It is determined once, so that no encoder has to check again. JSON nested deeper than
/// `depth_max` is text.
pub fn kind_of_text(text: &str, depth_max: usize) -> PayloadKind {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) if !exceeds_depth(text.as_bytes(), depth_max) => PayloadKind::Json,
        Ok(_) | Err(_) => PayloadKind::Text,
    }
}

/// The kind of a payload of bytes.
pub fn kind_of_bytes(bytes: &[u8], depth_max: usize) -> PayloadKind {
    let text = simdutf8::basic::from_utf8(bytes);
    text.map_or(PayloadKind::Binary, |text| kind_of_text(text, depth_max))
}

/// The kind of bytes that a client or a backend hands over as bytes: JSON or binary. Readers of JSON get what is binary
/// in base64, and could not tell it from text.
pub fn kind_of_data(bytes: &[u8], depth_max: usize) -> PayloadKind {
    match kind_of_bytes(bytes, depth_max) {
        PayloadKind::Json => PayloadKind::Json,
        PayloadKind::Text | PayloadKind::Binary => PayloadKind::Binary,
    }
}

/// Whether arrays and objects in valid JSON are nested more than `depth_max` deep.
pub fn exceeds_depth(json: &[u8], depth_max: usize) -> bool {
    let is_opening = |byte: &&u8| matches!(byte, b'[' | b'{');
    // Few payloads have that many brackets at all, and counting them is fast.
    if json.iter().filter(is_opening).count() <= depth_max {
        return false;
    }
    let (mut depth, mut in_string) = (0_usize, false);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => _ = bytes.next(),
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A struct that is decoded from an object only: serde would accept an array of its members in order as well.
#[derive(Debug, PartialEq)]
pub struct Object<T>(
    /// The decoded struct.
    pub T,
);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// A text, borrowed where it has no escapes.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Appends publications as an array of objects.
pub fn write_items(out: &mut Vec<u8>, publications: &[Arc<Publication>]) {
    out.push(b'[');
    for (index, publication) in publications.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_item(out, publication);
    }
    out.push(b']');
}

/// Appends a publication as an object: its data, the client that published it, its offset if it has one of its own, and
/// its tags.
pub fn write_item(out: &mut Vec<u8>, publication: &Publication) {
    write_item_of(out, publication, |out| write_data(out, &publication.payload));
}

/// Appends a publication as an object. `data` appends the value of `data`, and may append other members.
fn write_item_of(out: &mut Vec<u8>, publication: &Publication, data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"data\":");
    data(out);
    if let Some(info) = &publication.info {
        out.extend_from_slice(b",\"info\":");
        write_client_info(out, info);
    }
    if publication.in_stream {
        put(out, format_args!(",\"offset\":{}", publication.position.offset));
    }
    if let Some(tags) = &publication.payload.tags {
        let opening = [&b",\"tags\":{"[..]].into_iter().chain(iter::repeat(&b","[..]));
        for ((name, text), before) in tags.iter().zip(opening) {
            out.extend_from_slice(before);
            write_json(out, name);
            out.push(b':');
            write_json(out, text);
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends a client as an object.
pub fn write_client_info(out: &mut Vec<u8>, info: &ClientInfo) {
    put(out, format_args!("{{\"client\":\"{}\",\"user\":", info.client));
    write_json(out, info.user.as_deref().unwrap_or_default());
    for (member, value) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
        if let Some(value) = value {
            put(out, format_args!(",\"{member}\":"));
            write_line(out, value);
        }
    }
    out.push(b'}');
}

/// Appends a payload as a JSON value on one line.
pub fn write_data(out: &mut Vec<u8>, payload: &Payload) {
    let bytes = &payload.bytes;
    match (payload.kind, std::str::from_utf8(bytes)) {
        (PayloadKind::Json, _) => write_line(out, bytes),
        (PayloadKind::Text, Ok(text)) => write_json(out, text),
        _ => write_json(out, &STANDARD.encode(bytes)),
    }
}

/// Appends JSON on one line: its line ends, which can only be white space, become spaces, so that they cannot end a
/// line of the transport.
pub fn write_line(out: &mut Vec<u8>, json: &[u8]) {
    out.extend(json.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    }));
}

/// Appends text as a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    write_json(out, text);
}

/// Appends a value as JSON.
pub(super) fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("plain data, written to memory");
}

/// Appends formatted text.
pub(super) fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        ChannelName, ClientId, Epoch, Item, NodeId, Position, SessionId, Tags, WorkerId,
    };
    use crate::protocol::command::Push;

    fn publication(kind: PayloadKind, bytes: &[u8]) -> Publication {
        Publication {
            channel: ChannelName::new("a\"b").unwrap(),
            position: Position { epoch: Epoch(1), offset: 5 },
            payload: Payload::new(kind, bytes.to_vec()),
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        }
    }

    fn pushed(kind: PayloadKind, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        let publication = publication(kind, bytes);
        write_push(&mut out, &publication.channel, Push::Publication(&publication));
        let text = String::from_utf8(out).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).expect("a push is JSON");
        assert_eq!(value["push"]["channel"], "a\"b");
        assert_eq!(value["push"]["pub"]["offset"], 5);
        assert!(!text.contains('\n'), "a push is one line");
        value["push"]["pub"]["data"].to_string()
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let wide = format!("[{}1]", "[{}],".repeat(100));
        let text = format!("[\"\\\"{}\\\\\"]", "[{".repeat(100));
        for (json, depth) in [
            ("7", 0),
            ("[]", 1),
            (r#"{"a":[{}]}"#, 3),
            (&*wide, 3),
            (&*text, 1),
            (&*nested(50), 50),
            (&*nested(100_000), 100_000),
        ] {
            assert!(serde_json::from_str::<IgnoredAny>(json).is_ok(), "{json}");
            assert!(!exceeds_depth(json.as_bytes(), depth), "{json}");
            assert!(depth == 0 || exceeds_depth(json.as_bytes(), depth - 1), "{json}");
        }
        assert_eq!(kind_of_bytes(nested(50).as_bytes(), 50), PayloadKind::Json);
        assert_eq!(kind_of_bytes(nested(51).as_bytes(), 50), PayloadKind::Text);
    }

    #[test]
    fn payloads_are_embedded_by_kind() {
        assert_eq!(pushed(PayloadKind::Json, b"{\"x\":\n [1,\r\n2]}"), r#"{"x":[1,2]}"#);
        assert_eq!(pushed(PayloadKind::Text, b"hello\nworld"), r#""hello\nworld""#);
        assert_eq!(pushed(PayloadKind::Text, b""), r#""""#);
        assert_eq!(pushed(PayloadKind::Binary, b"\xff\x00"), r#""/wA=""#);
    }

    #[test]
    fn joins_leaves_and_gaps_have_their_own_form() {
        let push = |item: Item| {
            let mut out = Vec::new();
            write_push(&mut out, &ChannelName::new("a\"b").unwrap(), Push::Item(&item));
            String::from_utf8(out).unwrap()
        };
        let session = SessionId { index: 1, generation: 2 };
        let client = ClientId { node: NodeId::new(3), worker: WorkerId(0), session };
        let joined = Arc::new(ClientInfo::anonymous(client));
        let info = format!(r#"{{"info":{{"client":"{client}","user":""}}}}"#);
        let expected = format!(r#"{{"push":{{"channel":"a\"b","join":{info}}}}}"#);
        assert_eq!(push(Item::Joined(joined.clone())), expected);
        assert_eq!(push(Item::Left(joined)), expected.replace("join", "leave"));
        let gap = r#"{"push":{"channel":"a\"b","gap":{"dropped":12}}}"#;
        assert_eq!(push(Item::Gap(12)), gap);
    }

    #[test]
    fn publications_are_an_array() {
        let items = |publications: &[Arc<Publication>]| {
            let mut out = Vec::new();
            write_items(&mut out, publications);
            serde_json::from_slice::<serde_json::Value>(&out).expect("an array is JSON")
        };
        assert_eq!(items(&[]), serde_json::json!([]));
        let mut tagged = publication(PayloadKind::Text, b"x");
        tagged.payload.tags = Tags::new([("event", "tick"), ("k\"", "v")]).unwrap();
        let two = [Arc::new(publication(PayloadKind::Json, b"[1]")), Arc::new(tagged)];
        let expected = serde_json::json!([
            {"data": [1], "offset": 5},
            {"data": "x", "offset": 5, "tags": {"event": "tick", "k\"": "v"}},
        ]);
        assert_eq!(items(&two), expected);
    }
}
