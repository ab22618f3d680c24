//! The last encoded recovery or history, reused for other clients with the same answer.

use std::sync::{Arc, Weak};

use crate::config::limits::ANSWER_BYTES_KEPT_MAX;
use crate::message::{Publication, Publications};
use crate::protocol::json;

/// The publications of the last answer as a JSON array: clients that reconnect by the thousand missed the same ones.
#[derive(Debug, Default)]
pub struct Answers {
    /// The publications that are kept encoded. The weak reference keeps their address from being reused, but does not
    /// keep them in memory.
    of: Option<Weak<[Arc<Publication>]>>,
    json: Vec<u8>,
}

impl Answers {
    /// Appends publications as a JSON array.
    pub fn write(&mut self, out: &mut Vec<u8>, publications: &Publications) {
        let kept = self.of.as_ref().map(Weak::as_ptr);
        if kept.is_some_and(|kept| std::ptr::eq(kept, Arc::as_ptr(publications))) {
            out.extend_from_slice(&self.json);
            return;
        }
        let start = out.len();
        json::write_items(out, publications);
        let written = &out[start..];
        // A short list is encoded as fast as copied, and would displace a long one.
        if (ANSWER_BYTES_WORTH_KEEPING..=ANSWER_BYTES_KEPT_MAX).contains(&written.len()) {
            self.of = Some(Arc::downgrade(publications));
            self.json.clear();
            self.json.extend_from_slice(written);
        }
    }
}

/// Answers smaller than this are not kept.
const ANSWER_BYTES_WORTH_KEEPING: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ChannelName, Epoch, Payload, PayloadKind, Position};

    #[test]
    fn an_answer_is_the_same_whether_it_was_kept_or_not() {
        let many = |count: u64, text: &str| -> Publications {
            let one = |offset| {
                Arc::new(Publication {
                    channel: ChannelName::new("a").unwrap(),
                    position: Position { epoch: Epoch(1), offset },
                    payload: Payload::new(PayloadKind::Text, text.to_owned()),
                    accepted_us: 0,
                    excludes: None,
                })
            };
            (1..=count).map(one).collect()
        };
        let mut answers = Answers::default();
        let (small, first) = (many(3, "small"), many(1000, "first"));
        let huge = many(3, &"x".repeat(ANSWER_BYTES_KEPT_MAX / 2));
        let again = first.clone();
        for publications in [&first, &small, &again, &huge, &first] {
            let mut expected = Vec::new();
            json::write_items(&mut expected, publications);
            let mut out = b"before".to_vec();
            answers.write(&mut out, publications);
            assert!(out[6..] == expected);
            assert!(answers.json.len() <= ANSWER_BYTES_KEPT_MAX);
            let kept = answers.of.as_ref().map(Weak::as_ptr);
            assert!(
                std::ptr::eq(kept.unwrap(), Arc::as_ptr(&first)),
                "others did not take its place"
            );
        }
        // Another list is not taken for the first one, even once the first one is dropped.
        drop((first, again));
        let second = many(1000, "other");
        let mut out = Vec::new();
        answers.write(&mut out, &second);
        assert!(out.starts_with(b"[{\"data\":\"other\""));
    }
}
