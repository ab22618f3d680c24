//! The event stream of `EventSource` (WHATWG HTML, 9.2.5 and 9.2.6), as a server writes it.
//!
//! A block of lines ends in an empty line, and a client processes it only then. A line ends in LF, CR or both, so no
//! value may contain one: in fields they are replaced, and data is written as one `data` line for each of its lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Display;
use std::io::Write;

use super::json;
use crate::message::{ClientInfo, Item, Payload, PayloadKind};

/// Writes the id that a client keeps as its position and sends as `Last-Event-ID` when it reconnects. It belongs into
/// the block of the event that leads to the position. It also works in a block of its own, but some client libraries
/// then report an event without data.
pub fn write_id(out: &mut Vec<u8>, id: &impl Display) {
    write_field(out, "id: ", id);
}

/// Writes the delay before a client reconnects, in milliseconds.
pub fn write_retry(out: &mut Vec<u8>, after_ms: u32) {
    write_field(out, "retry: ", &after_ms);
}

/// Ends a block with an empty line.
fn end_block(out: &mut Vec<u8>) {
    out.push(b'\n');
}

/// Writes an event of the server itself with one line of data, and ends the block.
pub fn write_event(out: &mut Vec<u8>, event: &str, data: &impl Display) {
    write_field(out, "event: ", &event);
    write_field(out, "data: ", data);
    end_block(out);
}

/// Writes an item of a channel as an event, and ends the block.
pub fn write_item(out: &mut Vec<u8>, item: &Item) {
    match item {
        Item::Publication(publication) => write_payload(out, &publication.payload),
        Item::Joined(info) => write_client_event(out, "join", info),
        Item::Left(info) => write_client_event(out, "leave", info),
        Item::Gap(dropped) => {
            write_event(out, "gap", &format_args!("{{\"dropped\":{dropped}}}"));
        }
    }
}

/// Writes a payload as an event and ends the block: JSON on one line, text line by line, binary as base64.
pub fn write_payload(out: &mut Vec<u8>, payload: &Payload) {
    if let Some(event) = payload.event() {
        write_field(out, "event: ", &event);
    }
    let bytes = &payload.bytes;
    match payload.kind {
        PayloadKind::Text => write_lines(out, bytes),
        PayloadKind::Binary => write_field(out, "data: ", &STANDARD.encode(bytes)),
        PayloadKind::Json => {
            out.extend_from_slice(b"data: ");
            json::write_line(out, bytes);
            out.push(b'\n');
        }
    }
    end_block(out);
}

fn write_client_event(out: &mut Vec<u8>, event: &str, info: &ClientInfo) {
    write_field(out, "event: ", &event);
    out.extend_from_slice(b"data: ");
    json::write_client_info(out, info);
    out.push(b'\n');
    end_block(out);
}

/// Writes each line of a text as data. The client joins them with LF, whatever their line ends were.
fn write_lines(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&text[..end.unwrap_or(text.len())]);
        out.push(b'\n');
        let Some(end) = end else { return };
        let is_pair = text[end..].starts_with(b"\r\n");
        text = &text[end + 1 + usize::from(is_pair)..];
    }
}

/// Writes one line. Line ends become spaces, and so does NUL, because a client ignores an id that contains it.
fn write_field(out: &mut Vec<u8>, name: &str, value: &impl Display) {
    let start = out.len();
    write!(out, "{name}{value}").expect("writing to memory cannot fail");
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r' | 0) {
            *byte = b' ';
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{ClientId, NodeId, SessionId, Tags, WorkerId};

    fn event(kind: PayloadKind, event: Option<&str>, bytes: &[u8]) -> String {
        let payload = Payload {
            tags: Tags::new(event.map(|event| ("event", event))).unwrap(),
            ..Payload::new(kind, bytes.to_vec())
        };
        let mut out = Vec::new();
        write_payload(&mut out, &payload);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn payloads_become_events_by_kind() {
        let plain = |kind, bytes| event(kind, None, bytes);
        assert_eq!(plain(PayloadKind::Text, b"hello"), "data: hello\n\n");
        assert_eq!(plain(PayloadKind::Text, b""), "data: \n\n");
        assert_eq!(plain(PayloadKind::Json, b"{\"x\":\r\n1}"), "data: {\"x\":  1}\n\n");
        assert_eq!(plain(PayloadKind::Binary, b"\xff\x00"), "data: /wA=\n\n");
        assert_eq!(
            event(PayloadKind::Text, Some("notification"), b"a"),
            "event: notification\ndata: a\n\n"
        );
    }

    #[test]
    fn joins_leaves_and_gaps_have_their_own_types() {
        let event = |item| {
            let mut out = Vec::new();
            write_item(&mut out, &item);
            String::from_utf8(out).unwrap()
        };
        let session = SessionId { index: 1, generation: 2 };
        let client = ClientId { node: NodeId::new(3), worker: WorkerId(0), session };
        let info = Arc::new(ClientInfo::anonymous(client));
        let joined = format!("event: join\ndata: {{\"client\":\"{client}\",\"user\":\"\"}}\n\n");
        assert_eq!(event(Item::Joined(info.clone())), joined);
        assert_eq!(event(Item::Left(info)), joined.replace("join", "leave"));
        assert_eq!(event(Item::Gap(17)), "event: gap\ndata: {\"dropped\":17}\n\n");
    }

    #[test]
    fn each_line_of_a_text_is_a_line_of_data() {
        let text = |bytes| event(PayloadKind::Text, None, bytes);
        assert_eq!(text(b"a\nb"), "data: a\ndata: b\n\n");
        assert_eq!(text(b"a\r\nb\rc"), "data: a\ndata: b\ndata: c\n\n");
        assert_eq!(text(b"\n\n"), "data: \ndata: \ndata: \n\n");
        assert_eq!(text(b"a\n\rb\r"), "data: a\ndata: \ndata: b\ndata: \n\n");
        assert_eq!(text(b"id: 7\n\nretry: 1"), "data: id: 7\ndata: \ndata: retry: 1\n\n");
    }

    #[test]
    fn a_field_cannot_end_its_line() {
        let mut out = Vec::new();
        write_id(&mut out, &"1\r\n\n2\0");
        write_retry(&mut out, 2000);
        write_event(&mut out, "ga\np", &"x\ry");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "id: 1   2 \nretry: 2000\nevent: ga p\ndata: x y\n\n");
    }
}
