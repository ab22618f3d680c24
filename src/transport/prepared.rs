//! One encoding per wire form: a batch of publications is encoded once per worker and form, and shared from there.
//! What is answered again and again is kept likewise.

use std::sync::{Arc, Weak};

use super::WireForm;
use super::commands::{CommandFraming, write_framed};
use crate::buffer::SharedFrame;
use crate::config::limits::ANSWER_BYTES_KEPT_MAX;
use crate::message::{PayloadKind, Publication, Publications};
use crate::protocol::json;
use crate::protocol::websocket::{OpCode, write_frame};

/// The encodings of one batch, made when the first subscriber of a form is met.
#[derive(Debug, Default)]
pub struct Prepared {
    batch: Option<u32>,
    websocket: Option<Encoded>,
    command_line: Option<Encoded>,
    command_length_prefixed: Option<Encoded>,
    command_message: Option<Encoded>,
}

/// A batch's publications, one behind the other, and where each begins.
#[derive(Debug)]
struct Encoded {
    block: SharedFrame,
    starts: Vec<u32>,
}

impl Prepared {
    /// Makes this the encodings of the batch with this serial, forgetting those of another.
    pub fn begin(&mut self, batch: u32) {
        if self.batch != Some(batch) {
            *self = Self { batch: Some(batch), ..Self::default() };
        }
    }

    /// The batch from its publication `first` on, as it looks on the wire. `scratch` is room to encode in.
    pub fn frame(
        &mut self,
        form: WireForm,
        publications: &[Arc<Publication>],
        first: usize,
        scratch: &mut Vec<u8>,
    ) -> SharedFrame {
        let slot = match form {
            WireForm::WebSocket => &mut self.websocket,
            WireForm::CommandLine => &mut self.command_line,
            WireForm::CommandLengthPrefixed => &mut self.command_length_prefixed,
            WireForm::CommandMessage => &mut self.command_message,
        };
        let encoded = slot.get_or_insert_with(|| Encoded::new(form, publications, scratch));
        encoded.block.clone().skip(encoded.starts[first])
    }
}

impl Encoded {
    fn new(form: WireForm, publications: &[Arc<Publication>], scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        let mut starts = Vec::with_capacity(publications.len());
        for publication in publications {
            starts.push(u32::try_from(scratch.len()).expect("limits keep a batch under 4 GiB"));
            encode(form, publication, scratch);
        }
        let block = SharedFrame::copy_of(scratch);
        scratch.shrink_to(SCRATCH_BYTES_KEPT_MAX);
        Self { block, starts }
    }
}

/// The publications of the last answer as a JSON array: clients that come back by the thousand missed the same.
#[derive(Debug, Default)]
pub struct Answers {
    /// What is kept. It keeps the place in memory from being another's, not the publications.
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
        // A few are encoded as fast as copied, and would take the place of many.
        if (ANSWER_BYTES_WORTH_KEEPING..=ANSWER_BYTES_KEPT_MAX).contains(&written.len()) {
            self.of = Some(Arc::downgrade(publications));
            self.json.clear();
            self.json.extend_from_slice(written);
        }
    }
}

/// Appends a publication as it looks on the wire; nothing where the form has no place for it.
pub fn encode(form: WireForm, publication: &Publication, out: &mut Vec<u8>) {
    match form {
        WireForm::WebSocket => {
            let opcode = match publication.payload.kind {
                PayloadKind::Json | PayloadKind::Text => OpCode::Text,
                PayloadKind::Binary => OpCode::Binary,
                // Plain messages have no place for news.
                PayloadKind::Join | PayloadKind::Leave | PayloadKind::Gap => return,
            };
            write_frame(out, opcode, &publication.payload.bytes);
        }
        WireForm::CommandLine => encode_push(CommandFraming::Line, publication, out),
        WireForm::CommandLengthPrefixed => {
            encode_push(CommandFraming::LengthPrefix, publication, out);
        }
        WireForm::CommandMessage => encode_push(CommandFraming::Message, publication, out),
    }
}

fn encode_push(framing: CommandFraming, publication: &Publication, out: &mut Vec<u8>) {
    write_framed(framing, out, |out| json::write_publication(out, publication));
}

/// Room to encode in that survives a large publication.
const SCRATCH_BYTES_KEPT_MAX: usize = 256 * 1024;

/// Answers smaller than this are not kept.
const ANSWER_BYTES_WORTH_KEEPING: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ChannelName, Epoch, Payload, Position};

    fn publications() -> Vec<Arc<Publication>> {
        ["one", "two", "three"]
            .into_iter()
            .zip(1..)
            .map(|(text, offset)| {
                Arc::new(Publication {
                    channel: ChannelName::new("a").unwrap(),
                    position: Position { epoch: Epoch(1), offset },
                    payload: Payload::new(PayloadKind::Text, text),
                })
            })
            .collect()
    }

    #[test]
    fn a_batch_is_one_block_that_may_be_entered_at_any_publication() {
        let publications = publications();
        let mut prepared = Prepared::default();
        let mut scratch = Vec::new();
        prepared.begin(1);
        let mut frame =
            |first| prepared.frame(WireForm::WebSocket, &publications, first, &mut scratch);
        assert_eq!(frame(0).as_bytes(), b"\x81\x03one\x81\x03two\x81\x05three");
        assert_eq!(frame(1).as_bytes(), b"\x81\x03two\x81\x05three");
        assert_eq!(frame(2).as_bytes(), b"\x81\x05three");
    }

    #[test]
    fn a_new_batch_is_encoded_anew() {
        let publications = publications();
        let mut prepared = Prepared::default();
        let mut scratch = Vec::new();
        prepared.begin(1);
        prepared.frame(WireForm::WebSocket, &publications[..1], 0, &mut scratch);
        prepared.begin(2);
        let frame = prepared.frame(WireForm::WebSocket, &publications[1..2], 0, &mut scratch);
        assert_eq!(frame.as_bytes(), b"\x81\x03two");
        let line = prepared.frame(WireForm::CommandLine, &publications[1..2], 0, &mut scratch);
        assert!(line.as_bytes().ends_with(b"\"data\":\"two\",\"offset\":2}}}\n"));
        let push = &line.as_bytes()[..line.len() as usize - 1];
        let mut message = Vec::new();
        write_frame(&mut message, OpCode::Text, push);
        let framed = prepared.frame(WireForm::CommandMessage, &publications[1..2], 0, &mut scratch);
        assert_eq!(framed.as_bytes(), message);
    }

    #[test]
    fn an_answer_is_the_same_whether_it_was_kept_or_not() {
        let many = |count: u64, text: &str| -> Publications {
            let one = |offset| {
                Arc::new(Publication {
                    channel: ChannelName::new("a").unwrap(),
                    position: Position { epoch: Epoch(1), offset },
                    payload: Payload::new(PayloadKind::Text, text.to_owned()),
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
        // Another list is told apart even where the first one is gone.
        drop((first, again));
        let second = many(1000, "other");
        let mut out = Vec::new();
        answers.write(&mut out, &second);
        assert!(out.starts_with(b"[{\"data\":\"other\""));
    }
}
