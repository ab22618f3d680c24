//! The answer to a long poll: an HTTP response without the lines that are specific to one client.
//!
//! Those lines come first, so that the rest can be shared: see [`write_answer`].

use std::fmt::{self, Display};
use std::sync::Arc;

use super::json;
use crate::message::{PayloadKind, Publication};

/// The content of an answer to a poll.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a, P> {
    /// The publications, in order.
    pub publications: &'a [Arc<Publication>],
    /// The position from which the next poll continues.
    pub position: P,
    /// Whether the poll timed out without a publication.
    pub is_timeout: bool,
    /// Whether the request carried the entity tag of a timed-out answer.
    pub repeats_timeout: bool,
    /// Whether publications between the requested position and this one are lost.
    pub has_gap: bool,
    /// The cookie that keeps the position, for a client that reads `data` and does not keep it itself.
    pub cookie: Option<CookieName>,
}

/// The name of the cookie for a list of channels, so that pages that poll different channels do not interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieName(u64);

impl CookieName {
    /// Length of every cookie name.
    pub const BYTES: usize = "fantail_poll_0123456789abcdef".len();

    /// The name for a list of channels; the same list in the same order has the same name.
    pub fn of<'a>(channels: impl IntoIterator<Item = &'a str>) -> Self {
        // FNV-1a, because the name must be the same on every server. A channel name chosen to collide harms only the
        // page that chose it.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = channels
            .into_iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, channel| step(channel.bytes().fold(hash, step), 0));
        Self(hash)
    }

    /// The value of this cookie in a `Cookie` header (RFC 6265 4.2.1).
    pub fn find(self, header: &[u8]) -> Option<&str> {
        let name = self.to_string();
        header.split(|byte| *byte == b';').find_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value).ok()
        })
    }
}

impl Display for CookieName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "fantail_poll_{:016x}", self.0)
    }
}

/// Appends the answer without its status line and the headers specific to one client, which the caller has written.
pub fn write_answer<P: Display>(out: &mut Vec<u8>, answer: &Answer<'_, P>, has_body: bool) {
    let mut body = Vec::new();
    write_body(&mut body, answer);
    let Answer { position, cookie, .. } = answer;
    // If the position is the same as in the request, the entity tag must differ: a cache that evaluates conditions
    // itself would turn the answer into a 304 without a body.
    let has_stayed = answer.is_timeout
        || !answer.publications.is_empty() && answer.publications.iter().all(|it| !it.in_stream);
    let suffix = if has_stayed && !answer.repeats_timeout { TIMEOUT_SUFFIX } else { "" };
    // No cache may store an answer, because the next answer to the same request differs.
    json::put(
        out,
        format_args!(
            "Content-Type: application/json\r\nCache-Control: no-store, no-transform\r\nContent-Length: {}\r\n\
             ETag: \"{position}{suffix}\"\r\n",
            body.len()
        ),
    );
    if let Some(cookie) = cookie {
        // RFC 6265 5.1.4: without a path attribute the cookie applies to the directory of the request, which works even
        // if a proxy removes a path prefix.
        json::put(
            out,
            format_args!(
                "Set-Cookie: {cookie}={position}; Max-Age={COOKIE_SECONDS}; SameSite=Lax; HttpOnly\r\n"
            ),
        );
    }
    out.extend_from_slice(b"\r\n");
    if has_body {
        out.extend_from_slice(&body);
    }
}

/// Whether an entity tag is that of a timed-out answer.
pub fn is_of_timeout(tag: &[u8]) -> bool {
    tag.windows(TIMEOUT_SUFFIX.len()).any(|part| part == TIMEOUT_SUFFIX.as_bytes())
}

fn write_body<P: Display>(out: &mut Vec<u8>, answer: &Answer<'_, P>) {
    out.extend_from_slice(b"{\"publications\":[");
    for (index, publication) in answer.publications.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_publication(out, publication);
    }
    out.push(b']');
    if answer.is_timeout {
        out.extend_from_slice(b",\"timeout\":true");
    }
    if answer.has_gap {
        out.extend_from_slice(b",\"recovered\":false");
    }
    json::put(out, format_args!(",\"position\":\"{}\"", answer.position));
    if answer.cookie.is_some() {
        out.extend_from_slice(b",\"data\":");
        match answer.publications.first() {
            Some(publication) => json::write_data(out, &publication.payload),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

fn write_publication(out: &mut Vec<u8>, publication: &Publication) {
    out.extend_from_slice(b"{\"channel\":");
    json::write_text(out, publication.channel.as_str());
    if publication.in_stream {
        json::put(out, format_args!(",\"offset\":{}", publication.position.offset));
    }
    out.extend_from_slice(b",\"data\":");
    json::write_data(out, &publication.payload);
    if let Some(event) = publication.payload.event() {
        out.extend_from_slice(b",\"event\":");
        json::write_text(out, event);
    }
    if publication.payload.kind == PayloadKind::Binary {
        out.extend_from_slice(b",\"encoding\":\"base64\"");
    }
    out.push(b'}');
}

/// Follows the position in the entity tag of a timed-out answer.
const TIMEOUT_SUFFIX: &str = "-timeout";

/// Lifetime of the cookie: a poll and its retries. A page that returns later starts without a position.
const COOKIE_SECONDS: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ChannelName, Epoch, Payload, Position, Tags};

    fn publication(kind: PayloadKind, event: Option<&str>, bytes: &[u8]) -> Arc<Publication> {
        Arc::new(Publication {
            channel: ChannelName::new("a\"b").unwrap(),
            position: Position { epoch: Epoch(1), offset: 5 },
            payload: Payload {
                tags: Tags::new(event.map(|event| ("event", event))).unwrap(),
                ..Payload::new(kind, bytes.to_vec())
            },
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        })
    }

    const NOTHING: Answer<'_, &str> = Answer {
        publications: &[],
        position: "7:00000001",
        is_timeout: false,
        repeats_timeout: false,
        has_gap: false,
        cookie: None,
    };

    fn written(answer: &Answer<'_, &str>) -> (String, serde_json::Value) {
        let mut out = Vec::new();
        write_answer(&mut out, answer, true);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("ETag: \"7:00000001") && head.contains("no-store"), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn an_answer_has_its_publications_and_its_position() {
        let publications = [
            publication(PayloadKind::Json, Some("x\"y"), b"[1,\n2]"),
            publication(PayloadKind::Binary, None, b"\xff"),
        ];
        let (head, body) = written(&Answer { publications: &publications, ..NOTHING });
        assert!(!head.contains("Cookie"), "{head}");
        let expected = serde_json::json!({
            "publications": [
                {"channel": "a\"b", "offset": 5, "data": [1, 2], "event": "x\"y"},
                {"channel": "a\"b", "offset": 5, "data": "/w==", "encoding": "base64"},
            ],
            "position": "7:00000001",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn an_answer_reports_a_timeout_and_a_gap() {
        let (_, body) = written(&Answer { is_timeout: true, ..NOTHING });
        let timeout =
            serde_json::json!({"publications": [], "timeout": true, "position": "7:00000001"});
        assert_eq!(body, timeout);
        let (_, body) = written(&Answer { has_gap: true, ..NOTHING });
        assert_eq!(body["recovered"], false);
    }

    #[test]
    fn a_timed_out_answer_has_a_different_tag_than_its_request() {
        let tag = |answer: &Answer<'_, &str>| {
            let (head, _) = written(answer);
            head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned()
        };
        let plain = tag(&NOTHING);
        let first = tag(&Answer { is_timeout: true, ..NOTHING });
        assert!(!is_of_timeout(plain.as_bytes()) && is_of_timeout(first.as_bytes()), "{first}");
        let second = tag(&Answer { is_timeout: true, repeats_timeout: true, ..NOTHING });
        assert!(plain == second && first != second, "{second}");
    }

    #[test]
    fn a_client_that_keeps_no_position_gets_data_and_a_cookie() {
        let name = CookieName::of(["a", "b"]);
        let one = [publication(PayloadKind::Text, None, b"hi")];
        let (head, body) = written(&Answer { publications: &one, cookie: Some(name), ..NOTHING });
        assert_eq!(body["data"], "hi");
        assert_eq!(name.to_string().len(), CookieName::BYTES);
        let cookie = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).unwrap();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Max-Age=300; SameSite=Lax; HttpOnly");
        let sent = format!("other=1; {pair};x");
        assert_eq!(name.find(sent.as_bytes()), Some("7:00000001"));
        assert_eq!(CookieName::of(["b", "a"]).find(sent.as_bytes()), None);
        assert_eq!(CookieName::of(["ab"]).find(sent.as_bytes()), None);
        let (_, body) = written(&Answer { is_timeout: true, cookie: Some(name), ..NOTHING });
        assert_eq!(body["data"], serde_json::Value::Null);
    }
}
