//! A subscriber that takes deltas: makes each version of what it is not sent whole.

use fantail::protocol::protobuf::{next_message, schema};
use prost::Message;
use serde_json::Value;

/// The latest version of what is published in a channel.
#[derive(Default)]
pub struct Latest {
    bytes: Vec<u8>,
}

impl Latest {
    /// Calls `take` with each version that a message in JSON brings.
    pub fn read_json(&mut self, message: &[u8], mut take: impl FnMut(&[u8])) {
        for line in message.split(|byte| *byte == b'\n') {
            let reply: Value = serde_json::from_slice(line).unwrap_or_default();
            let publication = &reply["push"]["pub"];
            if let Some(data) = publication["data"].as_str() {
                self.replace(data.as_bytes(), publication["delta"] == true);
                take(&self.bytes);
            }
        }
    }

    /// Calls `take` with each version that a message in Protobuf brings.
    pub fn read_protobuf(&mut self, mut message: &[u8], mut take: impl FnMut(&[u8])) {
        while let Ok(Some(reply)) = next_message(&mut message) {
            let push = schema::Reply::decode(reply).ok().and_then(|reply| reply.push);
            if let Some(publication) = push.and_then(|push| push.publication) {
                self.replace(&publication.data, publication.delta);
                take(&self.bytes);
            }
        }
    }

    /// A delta that does not fit makes a version that has no number.
    fn replace(&mut self, data: &[u8], is_delta: bool) {
        self.bytes =
            if is_delta { apply(&self.bytes, data).unwrap_or_default() } else { data.to_vec() };
    }
}

/// What a delta of Fossil makes of `source`. Its checksum is not compared, its length is.
fn apply(source: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let (len, mut rest) = number(delta)?;
    rest = rest.strip_prefix(b"\n")?;
    let mut target = Vec::with_capacity(len);
    loop {
        let (count, after) = number(rest)?;
        let (&kind, after) = after.split_first()?;
        rest = match kind {
            b'@' => {
                let (offset, after) = number(after)?;
                target.extend_from_slice(source.get(offset..offset.checked_add(count)?)?);
                after.strip_prefix(b",")?
            }
            b':' => {
                target.extend_from_slice(after.get(..count)?);
                &after[count..]
            }
            b';' => return (target.len() == len && after.is_empty()).then_some(target),
            _ => return None,
        };
    }
}

/// A number in base 64, and what is behind it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte);
    let len = bytes.iter().position(|byte| digit(byte).is_none())?;
    let value = bytes[..len]
        .iter()
        .filter_map(digit)
        .try_fold(0_usize, |value, digit| value.checked_mul(64)?.checked_add(digit));
    Some((value?, &bytes[len..]))
}

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

#[cfg(test)]
mod tests {
    use fantail::protocol::fossil::write_delta;

    use super::*;
    use crate::load::streams::document;

    #[test]
    fn a_version_is_made_of_the_one_before() {
        let (first, second) = (document(9, 2048), document(10, 2048));
        let mut delta = Vec::new();
        assert!(write_delta(&mut delta, &first, &second));
        assert_eq!(apply(&first, &delta), Some(second));
        for len in 0..delta.len() {
            assert_eq!(apply(&first, &delta[..len]), None, "{len}");
        }
        assert_eq!(apply(b"short", &delta), None);
    }

    #[test]
    fn a_push_brings_a_whole_version_or_a_delta() {
        let mut latest = Latest::default();
        let mut taken = Vec::new();
        let message = br#"{"push":{"channel":"a","pub":{"data":"{\"n\":1}"}}}
{"push":{"channel":"a","pub":{"data":"7\n5@0,1:21@6,0;","delta":true}}}
{"push":{"channel":"a","pub":{"data":"7\n5@9,0;","delta":true}}}"#;
        latest.read_json(message, |version| {
            taken.push(String::from_utf8_lossy(version).into_owned());
        });
        assert_eq!(taken, [r#"{"n":1}"#, r#"{"n":2}"#, ""]);
    }
}
