//! One encoding per wire form: a batch of publications is encoded once per worker and form, and shared from there.

use std::sync::Arc;

use super::WireForm;
use super::tcp::write_framed;
use crate::buffer::SharedFrame;
use crate::config::Framing;
use crate::message::{PayloadKind, Publication};
use crate::protocol::json;
use crate::protocol::websocket::{OpCode, write_frame};

/// The encodings of one batch, made when the first subscriber of a form is met.
#[derive(Debug, Default)]
pub struct Prepared {
    batch: Option<u32>,
    websocket: Option<Encoded>,
    command_line: Option<Encoded>,
    command_length_prefixed: Option<Encoded>,
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
        WireForm::CommandLine => {
            write_framed(Framing::Line, out, |out| json::write_publication(out, publication));
        }
        WireForm::CommandLengthPrefixed => {
            let framing = Framing::LengthPrefix;
            write_framed(framing, out, |out| json::write_publication(out, publication));
        }
    }
}

/// Room to encode in that survives a large publication.
const SCRATCH_BYTES_KEPT_MAX: usize = 256 * 1024;

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
    }
}
