//! Events: what the backend is notified of, in batches that are signed and repeated until it has taken them.

use std::fmt::Write;
use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

use super::body::transport;
use crate::config::EventKind;
use crate::message::{ChannelName, ClientId, CloseReason, NodeId, TransportKind};
use crate::protocol::json::write_text;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What it was.
    pub what: Happening,
}

/// What an event tells of.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum Happening {
    /// A client connected.
    Connected { client: ClientId, transport: TransportKind, user: Option<Arc<str>> },
    /// A client that was connected is not any more.
    Disconnected { client: ClientId, user: Option<Arc<str>>, reason: CloseReason },
    /// A channel got its first subscriber.
    Occupied { channel: ChannelName },
    /// A channel lost its last subscriber.
    Vacated { channel: ChannelName },
}

/// Events that are sent together.
#[derive(Debug)]
pub(super) struct EventBatch<'a> {
    /// The run of the server that they are of.
    pub node: NodeId,
    /// Its number, from 1 on.
    pub number: u64,
    /// Events that were dropped since the server started.
    pub dropped: u64,
    pub events: &'a [Event],
}

impl Happening {
    /// The kind of the event.
    pub fn kind(&self) -> EventKind {
        match self {
            Happening::Connected { .. } => EventKind::Connected,
            Happening::Disconnected { .. } => EventKind::Disconnected,
            Happening::Occupied { .. } => EventKind::Occupied,
            Happening::Vacated { .. } => EventKind::Vacated,
        }
    }
}

/// Appends the body of a batch.
pub(super) fn write_batch(out: &mut Vec<u8>, batch: &EventBatch<'_>) {
    let EventBatch { node, number, dropped, events } = batch;
    let head =
        format!("{{\"node\":\"{node}\",\"batch\":{number},\"dropped\":{dropped},\"events\":[");
    out.extend_from_slice(head.as_bytes());
    for (index, Event { at, what }) in events.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let head = format!("{comma}{{\"type\":\"{}\",\"time\":{at}", what.kind().word());
        out.extend_from_slice(head.as_bytes());
        let mut text = |name: &str, text: &str| {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            write_text(out, text);
        };
        match what {
            Happening::Connected { client, transport: kind, user } => {
                text("client", &client.to_string());
                text("transport", transport(*kind));
                user.iter().for_each(|user| text("user", user));
            }
            Happening::Disconnected { client, user, reason } => {
                text("client", &client.to_string());
                user.iter().for_each(|user| text("user", user));
                text("reason", reason.label());
            }
            Happening::Occupied { channel } | Happening::Vacated { channel } => {
                text("channel", channel.as_str());
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

/// The value of the header `X-Fantail-Signature`: the time, in seconds since 1970, and the HMAC-SHA256 of that time, a
/// dot and the body.
pub(super) fn signature(secret: &str, at: u64, body: &[u8]) -> String {
    let mut signed = format!("{at}.").into_bytes();
    signed.extend_from_slice(body);
    let tag = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), &signed);
    let mut text = format!("t={at},sha256=");
    for byte in tag.as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{SessionId, WorkerId};

    #[test]
    fn a_batch_has_its_events_in_order() {
        let session = SessionId { index: 1, generation: 2 };
        let client = ClientId { node: NodeId::new(3), worker: WorkerId(0), session };
        let channel = ChannelName::new("a\"b").unwrap();
        let happenings = [
            Happening::Connected {
                client,
                transport: TransportKind::Sse,
                user: Some("u\"".into()),
            },
            Happening::Occupied { channel: channel.clone() },
            Happening::Vacated { channel },
            Happening::Disconnected { client, user: None, reason: CloseReason::ClientGone },
        ];
        let events = happenings.map(|what| Event { at: 7, what });
        let batch = EventBatch { node: NodeId::new(3), number: 5, dropped: 2, events: &events };
        let mut out = Vec::new();
        write_batch(&mut out, &batch);
        let id = "00000000-0003-8000-8000-000100000002";
        let expected = format!(
            "{{\"node\":\"00000000-0003\",\"batch\":5,\"dropped\":2,\"events\":[\
             {{\"type\":\"connected\",\"time\":7,\"client\":\"{id}\",\"transport\":\"uni_sse\",\
             \"user\":\"u\\\"\"}},\
             {{\"type\":\"occupied\",\"time\":7,\"channel\":\"a\\\"b\"}},\
             {{\"type\":\"vacated\",\"time\":7,\"channel\":\"a\\\"b\"}},\
             {{\"type\":\"disconnected\",\"time\":7,\"client\":\"{id}\",\
             \"reason\":\"connection lost\"}}]}}"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_signature_is_of_the_time_and_the_body() {
        // printf '7.{}' | openssl dgst -sha256 -hmac key
        let expected = "77bc83bd1f40422311e47918b203449aecf84b02c1568bb1b570ac2a474cc2d8";
        assert_eq!(signature("key", 7, b"{}"), format!("t=7,sha256={expected}"));
    }
}
