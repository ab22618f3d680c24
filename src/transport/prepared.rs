//! One encoding per wire form: a batch of publications is encoded once per worker and form, and shared from there.

use std::sync::Arc;

use super::framing::{CommandFraming, write_framed};
use super::poll_form::PollForm;
use crate::buffer::SharedFrame;
use crate::message::{PayloadKind, Publication};
use crate::protocol::http1::write_chunk;
use crate::protocol::long_poll::{Answer, write_answer};
use crate::protocol::websocket::{OpCode, write_frame};
use crate::protocol::{json, sse};

/// The encodings of what is in flight in one fan-out, made when the first subscriber of a form is met. Each publication
/// is encoded once for each form; subscribers that are given different parts share one block.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Which fan-out.
    life: Option<u64>,
    websocket: Option<Encoded>,
    command_line: Option<Encoded>,
    command_length_prefixed: Option<Encoded>,
    command_message: Option<Encoded>,
    event_stream: Option<Encoded>,
    event_stream_chunk: Option<Encoded>,
    event_stream_rest: Option<Encoded>,
    event_stream_chunk_rest: Option<Encoded>,
    /// Answers to polls, by form. Each is whole, so it is made for the publications that it names: the number of the
    /// first one, and how many there are.
    answers: [Option<((u64, usize), SharedFrame)>; 2],
}

/// How a publication looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireForm {
    /// Its payload, one WebSocket message.
    WebSocket,
    /// A push of the command protocol, one line.
    CommandLine,
    /// The same behind its length.
    CommandLengthPrefixed,
    /// The same, one WebSocket message.
    CommandMessage,
    /// An event of an event stream.
    EventStream,
    /// The same as a chunk.
    EventStreamChunk,
    /// An event without its id, which stands in front of it.
    EventStreamRest,
    /// The same as the end of a chunk.
    EventStreamChunkRest,
}

/// A batch on its way to one client.
#[derive(Debug)]
pub struct Batch<'a> {
    prepared: &'a mut Prepared,
    publications: &'a [Arc<Publication>],
    /// Number of the first of them.
    start: u64,
    scratch: &'a mut Vec<u8>,
}

/// What a client takes of a batch.
#[derive(Debug)]
pub struct Delivered {
    /// Publications.
    pub count: usize,
    /// What is shared, behind the bytes of the client's own.
    pub frame: Option<SharedFrame>,
}

/// Publications of a channel, one behind the other.
#[derive(Debug)]
struct Encoded {
    /// Number of the first one.
    start: u64,
    block: SharedFrame,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Prepared {
    /// Makes this the encodings of this fan-out, forgetting those of another.
    pub fn begin(&mut self, life: u64) {
        if self.life != Some(life) {
            *self = Self { life: Some(life), ..Self::default() };
        }
    }

    /// Publications, the first of which has the number `start` in its channel. `scratch` is room to encode in.
    pub fn of_client<'a>(
        &'a mut self,
        publications: &'a [Arc<Publication>],
        start: u64,
        scratch: &'a mut Vec<u8>,
    ) -> Batch<'a> {
        Batch { prepared: self, publications, start, scratch }
    }
}

impl<'a> Batch<'a> {
    /// The publications; at least one.
    pub fn publications(&self) -> &'a [Arc<Publication>] {
        self.publications
    }

    /// As they look on the wire.
    pub fn frame(&mut self, form: WireForm) -> SharedFrame {
        let Self { prepared, publications, start, scratch } = self;
        let slot = match form {
            WireForm::WebSocket => &mut prepared.websocket,
            WireForm::CommandLine => &mut prepared.command_line,
            WireForm::CommandLengthPrefixed => &mut prepared.command_length_prefixed,
            WireForm::CommandMessage => &mut prepared.command_message,
            WireForm::EventStream => &mut prepared.event_stream,
            WireForm::EventStreamChunk => &mut prepared.event_stream_chunk,
            WireForm::EventStreamRest => &mut prepared.event_stream_rest,
            WireForm::EventStreamChunkRest => &mut prepared.event_stream_chunk_rest,
        };
        let covering = slot.as_ref().and_then(|kept| kept.part(*start, publications.len()));
        covering.unwrap_or_else(|| {
            let encoded = Encoded::new(form, *start, publications, slot.as_ref(), scratch);
            slot.insert(encoded).block.clone()
        })
    }

    /// As the answer to a poll of their channel, behind the lines of the client's own; empty if all are news.
    pub fn answer(&mut self, form: PollForm) -> SharedFrame {
        let publications = self.publications;
        let slot = &mut self.prepared.answers[form as usize];
        let key = (self.start, publications.len());
        match slot {
            Some((of, frame)) if *of == key => frame.clone(),
            _ => {
                self.scratch.clear();
                write_shared_answer(form, publications, self.scratch);
                let frame = SharedFrame::copy_of(self.scratch);
                self.scratch.shrink_to(SCRATCH_BYTES_KEPT_MAX);
                *slot = Some((key, frame.clone()));
                frame
            }
        }
    }
}

impl Encoded {
    /// Publications as they look on the wire; what `kept` has of them is copied from there.
    fn new(
        form: WireForm,
        start: u64,
        publications: &[Arc<Publication>],
        kept: Option<&Encoded>,
        scratch: &mut Vec<u8>,
    ) -> Self {
        scratch.clear();
        let mut ends = Vec::with_capacity(publications.len());
        if let Some(kept) = kept
            && let Some(skipped) = start.checked_sub(kept.start)
            && let Some(skipped) = usize::try_from(skipped).ok().filter(|at| *at < kept.ends.len())
        {
            let from = kept.offset(skipped);
            scratch.extend_from_slice(&kept.block.as_bytes()[from as usize..]);
            ends.extend(kept.ends[skipped..].iter().map(|end| end - from));
        }
        for publication in &publications[ends.len()..] {
            encode(form, publication, scratch);
            ends.push(u32::try_from(scratch.len()).expect("limits keep a batch under 4 GiB"));
        }
        let block = SharedFrame::copy_of(scratch);
        scratch.shrink_to(SCRATCH_BYTES_KEPT_MAX);
        Self { start, block, ends }
    }

    /// Where publication `at` of these begins.
    fn offset(&self, at: usize) -> u32 {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The frame of `count` publications from number `start` on, if all of them are in it.
    fn part(&self, start: u64, count: usize) -> Option<SharedFrame> {
        let first = usize::try_from(start.checked_sub(self.start)?).ok()?;
        let end = *self.ends.get(first + count - 1)?;
        Some(self.block.clone().take(end).skip(self.offset(first)))
    }
}

fn encode(form: WireForm, publication: &Publication, out: &mut Vec<u8>) {
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
        WireForm::EventStream => encode_event(publication, out),
        WireForm::EventStreamChunk => write_chunk(out, |out| encode_event(publication, out)),
        WireForm::EventStreamRest => sse::write_payload(out, &publication.payload),
        WireForm::EventStreamChunkRest => {
            sse::write_payload(out, &publication.payload);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn encode_event(publication: &Publication, out: &mut Vec<u8>) {
    // News has no number: it leads nowhere.
    if !publication.payload.kind.is_news() {
        sse::write_id(out, &publication.position);
    }
    sse::write_payload(out, &publication.payload);
}

fn write_shared_answer(form: PollForm, publications: &[Arc<Publication>], out: &mut Vec<u8>) {
    let has_gap = form.has_gap(publications);
    let publications = form.of(publications.iter());
    let Some(last) = publications.last() else { return };
    let answer = Answer {
        publications: &publications,
        position: last.position,
        is_timeout: false,
        repeats_timeout: false,
        has_gap,
        cookie: form.cookie([last.channel.as_str()]),
    };
    write_answer(out, &answer, true);
}

fn encode_push(framing: CommandFraming, publication: &Publication, out: &mut Vec<u8>) {
    write_framed(framing, out, |out| json::write_publication(out, publication));
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
                    accepted_us: 0,
                })
            })
            .collect()
    }

    #[test]
    fn what_is_in_flight_is_one_block_and_parts_of_it_are_views() {
        let publications = publications();
        let mut prepared = Prepared::default();
        let mut scratch = Vec::new();
        prepared.begin(1);
        let mut frame = |range: std::ops::Range<usize>| {
            let start = 100 + range.start as u64;
            prepared.of_client(&publications[range], start, &mut scratch).frame(WireForm::WebSocket)
        };
        assert_eq!(frame(0..2).as_bytes(), b"\x81\x03one\x81\x03two");
        assert_eq!(frame(1..2).as_bytes(), b"\x81\x03two");
        // Another one arrived: it goes behind what is encoded already.
        assert_eq!(frame(1..3).as_bytes(), b"\x81\x03two\x81\x05three");
        assert_eq!(frame(2..3).as_bytes(), b"\x81\x05three");
        assert_eq!(frame(1..2).as_bytes(), b"\x81\x03two");
        // What the block no longer begins with is encoded again.
        assert_eq!(frame(0..3).as_bytes(), b"\x81\x03one\x81\x03two\x81\x05three");
    }

    #[test]
    fn the_encodings_of_another_fan_out_are_forgotten() {
        let publications = publications();
        let mut prepared = Prepared::default();
        let mut scratch = Vec::new();
        prepared.begin(1);
        prepared.of_client(&publications[..1], 0, &mut scratch).frame(WireForm::WebSocket);
        prepared.begin(2);
        let mut batch = prepared.of_client(&publications[1..2], 0, &mut scratch);
        let frame = batch.frame(WireForm::WebSocket);
        assert_eq!(frame.as_bytes(), b"\x81\x03two");
        let line = batch.frame(WireForm::CommandLine);
        assert!(line.as_bytes().ends_with(b"\"data\":\"two\",\"offset\":2}}}\n"));
        let push = &line.as_bytes()[..line.len() as usize - 1];
        let mut message = Vec::new();
        write_frame(&mut message, OpCode::Text, push);
        let framed = batch.frame(WireForm::CommandMessage);
        assert_eq!(framed.as_bytes(), message);
    }

    #[test]
    fn an_event_stream_has_ids_and_news_has_none() {
        let mut publications = publications();
        let news = Publication {
            payload: Payload::new(PayloadKind::Gap, "4"),
            ..Publication::clone(&publications[0])
        };
        publications.insert(1, Arc::new(news));
        let mut prepared = Prepared::default();
        let mut scratch = Vec::new();
        let mut batch = prepared.of_client(&publications[..3], 0, &mut scratch);
        assert_eq!(
            batch.frame(WireForm::EventStream).as_bytes(),
            b"id: 1:00000001\ndata: one\n\nevent: gap\ndata: {\"dropped\":4}\n\n\
              id: 2:00000001\ndata: two\n\n"
        );
        assert_eq!(
            batch.frame(WireForm::EventStreamRest).as_bytes(),
            b"data: one\n\nevent: gap\ndata: {\"dropped\":4}\n\ndata: two\n\n"
        );
    }

    #[test]
    fn an_event_is_a_chunk() {
        let publications = publications();
        let mut prepared = Prepared::default();
        let mut scratch = Vec::new();
        let mut batch = prepared.of_client(&publications[..2], 0, &mut scratch);
        // RFC 9112 7.1: the size in hexadecimal digits, without the line ends around the data.
        assert_eq!(
            batch.frame(WireForm::EventStreamChunk).as_bytes(),
            b"1a\r\nid: 1:00000001\ndata: one\n\n\r\n1a\r\nid: 2:00000001\ndata: two\n\n\r\n"
        );
        assert_eq!(
            batch.frame(WireForm::EventStreamChunkRest).as_bytes(),
            b"data: one\n\n\r\ndata: two\n\n\r\n"
        );
    }

    #[test]
    fn an_answer_is_shared_by_those_who_get_the_same_publications() {
        let publications = publications();
        let mut prepared = Prepared::default();
        let mut scratch = Vec::new();
        let mut answer = |form, first| {
            let given = &publications[first..];
            let frame = prepared.of_client(given, first as u64, &mut scratch).answer(form);
            String::from_utf8(frame.as_bytes().to_vec()).unwrap()
        };
        let all = answer(PollForm::Batch, 0);
        assert!(
            all.contains("\"offset\":1") && all.contains("\"position\":\"3:00000001\""),
            "{all}"
        );
        assert!(!answer(PollForm::Batch, 2).contains("\"offset\":2"));
        assert_eq!(answer(PollForm::Batch, 0), all);
        let one = answer(PollForm::One, 1);
        assert!(
            one.contains("\"data\":\"two\"}") && one.contains("\"position\":\"2:00000001\""),
            "{one}"
        );
        assert!(one.contains("Set-Cookie") && !one.contains("\"offset\":3"), "{one}");
    }
}
