//! Publications for subscribers that take deltas. `data` is a string: the JSON text of the payload, or with
//! `"delta":true` a Fossil delta that makes it of the text of the publication before.

use std::borrow::Cow;
use std::sync::Arc;

use super::{write_data, write_item_of, write_json};
use crate::message::{Payload, PayloadKind, Publication};
use crate::protocol::fossil;

/// Appends publications as an array of objects, the first one whole, and the others as deltas from the one before. No
/// delta is made of a payload of more than `bytes_max` bytes.
pub fn write_delta_items(out: &mut Vec<u8>, publications: &[Arc<Publication>], bytes_max: usize) {
    out.push(b'[');
    let mut before: Option<&Payload> = None;
    for publication in publications {
        if before.is_some() {
            out.push(b',');
        }
        let payload = &publication.payload;
        let is_short = |of: &Payload| of.bytes.len() <= bytes_max;
        let source = before.filter(|before| is_short(before) && is_short(payload));
        write_delta_item(out, publication, source);
        before = Some(payload);
    }
    out.push(b']');
}

/// Appends a publication as an object, with a delta from the payload before it if that is known and the delta is
/// shorter.
pub(super) fn write_delta_item(
    out: &mut Vec<u8>,
    publication: &Publication,
    before: Option<&Payload>,
) {
    let target = json_of(&publication.payload);
    let mut delta = Vec::new();
    let is_delta = publication.payload.is_delta_allowed
        && before.is_some_and(|before| fossil::write_delta(&mut delta, &json_of(before), &target));
    write_item_of(out, publication, |out| {
        let text = if is_delta { &delta } else { &*target };
        write_json(out, &String::from_utf8_lossy(text));
        if is_delta {
            out.extend_from_slice(b",\"delta\":true");
        }
    });
}

/// The JSON text of a payload.
fn json_of(payload: &Payload) -> Cow<'_, [u8]> {
    match payload.kind {
        PayloadKind::Json => Cow::Borrowed(&payload.bytes),
        PayloadKind::Text | PayloadKind::Binary => {
            let mut json = Vec::with_capacity(payload.bytes.len() + 2);
            write_data(&mut json, payload);
            Cow::Owned(json)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::message::{ChannelName, Epoch, Position, Tags};

    fn publication(kind: PayloadKind, text: &str, offset: u64) -> Arc<Publication> {
        let tags = Tags::new([("k", "v")]).unwrap();
        let payload = Payload::new(kind, text.to_owned());
        Arc::new(Publication {
            channel: ChannelName::new("a").unwrap(),
            position: Position { epoch: Epoch(1), offset },
            payload: Payload { tags, is_delta_allowed: true, ..payload },
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        })
    }

    fn document(value: u32) -> String {
        let rest = "x".repeat(60);
        format!("{{\"rest\":\"é{rest}\",\n\"value\":{value},\"more\":\"{rest}\"}}")
    }

    fn pushed(publication: &Publication, before: Option<&Payload>) -> Value {
        let mut out = Vec::new();
        write_delta_item(&mut out, publication, before);
        assert!(!out.contains(&b'\n'), "it is one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn data_is_a_string_and_a_delta_where_that_is_shorter() {
        let [one, two] = [1, 2].map(|value| publication(PayloadKind::Json, &document(value), 5));
        let whole = json!({"data": document(1), "offset": 5, "tags": {"k": "v"}});
        assert_eq!(pushed(&one, None), whole);
        let delta = pushed(&two, Some(&one.payload));
        assert_eq!(delta["delta"], true);
        let text = delta["data"].as_str().unwrap();
        assert!(text.len() < 40 && text.contains(":2"), "{text}");
        // The publisher does not want one; one that is not shorter.
        let plain = Payload { is_delta_allowed: false, ..two.payload.clone() };
        let plain = Publication { payload: plain, ..(*two).clone() };
        assert_eq!(pushed(&plain, Some(&one.payload))["data"], document(2));
        let other = publication(PayloadKind::Json, "[1,2,3]", 6);
        assert_eq!(pushed(&other, Some(&one.payload)).get("delta"), None);
    }

    #[test]
    fn what_is_not_json_is_a_json_string_inside_of_the_string() {
        for (kind, data) in [(PayloadKind::Text, "\"a\\\"b\""), (PayloadKind::Binary, "\"YSJi\"")] {
            assert_eq!(pushed(&publication(kind, "a\"b", 1), None)["data"], data);
        }
        let text = "some text that is long enough to be found again";
        let one = publication(PayloadKind::Text, text, 1);
        let two = publication(PayloadKind::Text, &format!("{text}!"), 2);
        assert_eq!(pushed(&two, Some(&one.payload))["delta"], true);
    }

    #[test]
    fn the_first_of_a_list_is_whole() {
        let list = [1, 2, 3].map(|value| publication(PayloadKind::Json, &document(value), 1));
        let written = |bytes_max| {
            let mut out = Vec::new();
            write_delta_items(&mut out, &list, bytes_max);
            let items: Vec<Value> = serde_json::from_slice(&out).unwrap();
            items.iter().map(|item| item["delta"] == true).collect::<Vec<_>>()
        };
        let len = document(1).len();
        assert_eq!(written(len), [false, true, true]);
        assert_eq!(written(len - 1), [false; 3]);
        let mut out = Vec::new();
        write_delta_items(&mut out, &[], 0);
        assert_eq!(out, b"[]");
    }
}
