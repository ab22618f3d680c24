//! The last encoded recovery or history, reused for other clients with the same answer.

use std::sync::{Arc, Weak};

use crate::config::limits::{ANSWER_BYTES_KEPT_MAX, DELTA_BYTES_MAX};
use crate::message::{Publication, Publications};
use crate::protocol::protobuf::List;
use crate::protocol::{json, protobuf};

/// The publications of the last answer in each form: clients that reconnect by the thousand missed the same ones.
#[derive(Debug, Default)]
pub struct Answers {
    kept: [Kept; LIST_FORMS],
}

/// How the publications of an answer are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListForm {
    /// A JSON array.
    Json,
    /// The fields of a reply in Protobuf.
    Protobuf(List),
    /// A JSON array for a subscriber that takes deltas.
    JsonDeltas,
    /// The fields of the reply to a subscriber that takes deltas, in Protobuf.
    ProtobufDeltas,
}

#[derive(Debug, Default)]
struct Kept {
    /// The publications that are kept encoded. The weak reference keeps their address from being reused, but does not
    /// keep them in memory.
    of: Option<Weak<[Arc<Publication>]>>,
    encoded: Vec<u8>,
}

impl Answers {
    /// Appends publications in a form.
    pub fn write(&mut self, out: &mut Vec<u8>, form: ListForm, publications: &Publications) {
        let kept = &mut self.kept[form.index()];
        let of = kept.of.as_ref().map(Weak::as_ptr);
        if of.is_some_and(|of| std::ptr::eq(of, Arc::as_ptr(publications))) {
            out.extend_from_slice(&kept.encoded);
            return;
        }
        let start = out.len();
        match form {
            ListForm::Json => json::write_items(out, publications),
            ListForm::Protobuf(list) => protobuf::write_list(out, list, publications),
            ListForm::JsonDeltas => json::write_delta_items(out, publications, DELTA_BYTES_MAX),
            ListForm::ProtobufDeltas => {
                let list = List::Subscription;
                protobuf::write_delta_list(out, list, publications, DELTA_BYTES_MAX);
            }
        }
        let written = &out[start..];
        // A short list is encoded as fast as copied, and would displace a long one.
        if (ANSWER_BYTES_WORTH_KEEPING..=ANSWER_BYTES_KEPT_MAX).contains(&written.len()) {
            kept.of = Some(Arc::downgrade(publications));
            kept.encoded.clear();
            kept.encoded.extend_from_slice(written);
        }
    }
}

impl ListForm {
    const fn index(self) -> usize {
        match self {
            ListForm::Json => 0,
            ListForm::Protobuf(List::Subscription) => 1,
            ListForm::Protobuf(List::History) => 2,
            ListForm::JsonDeltas => 3,
            ListForm::ProtobufDeltas => 4,
        }
    }
}

const LIST_FORMS: usize = 5;

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
                    info: None,
                    accepted_us: 0,
                    excludes: None,
                    in_stream: true,
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
            answers.write(&mut out, ListForm::Json, publications);
            assert!(out[6..] == expected);
            assert!(answers.kept[0].encoded.len() <= ANSWER_BYTES_KEPT_MAX);
            let kept = answers.kept[0].of.as_ref().map(Weak::as_ptr);
            assert!(
                std::ptr::eq(kept.unwrap(), Arc::as_ptr(&first)),
                "others did not take its place"
            );
        }
        // Another list is not taken for the first one, even once the first one is dropped.
        drop((first, again));
        let second = many(1000, "other");
        let mut out = Vec::new();
        answers.write(&mut out, ListForm::Json, &second);
        assert!(out.starts_with(b"[{\"data\":\"other\""));
    }
}
