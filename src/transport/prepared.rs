//! One encoding per wire form: a batch of items is encoded once per worker and form, and shared from there.

use std::sync::Arc;

use super::command_form::{COMMAND_FORMS, CommandForm, CommandFraming};
use super::poll_form::PollForm;
use crate::buffer::SharedFrame;
use crate::config::limits::DELTA_BYTES_MAX;
use crate::message::{ChannelName, Item, PayloadKind, Publication, Rendition};
use crate::protocol::command::Push;
use crate::protocol::http1::write_chunk;
use crate::protocol::long_poll::{Answer, write_answer};
use crate::protocol::sse;
use crate::protocol::websocket::{Deflater, OpCode, write_frame};

/// The encodings of what is in flight in one fan-out, made when the first subscriber of a form is met. Each publication
/// is encoded once for each form; subscribers that are given different parts share one block.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Which fan-out the encodings belong to.
    life: Option<u64>,
    websocket: Option<Encoded>,
    deflated_websocket: Option<Encoded>,
    commands: [Option<Encoded>; COMMAND_FORMS],
    event_stream: Option<Encoded>,
    event_stream_chunk: Option<Encoded>,
    event_stream_rest: Option<Encoded>,
    event_stream_chunk_rest: Option<Encoded>,
    /// What is written for subscribers that take deltas, by form.
    for_deltas: Vec<(CommandForm, Rendition, Option<Encoded>)>,
    /// Answers to polls, by form. Each is whole, so it is made for the publications that it names: the number of the
    /// first one, and how many there are.
    answers: [Option<((u64, usize), SharedFrame)>; 2],
}

/// How an item looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireForm {
    /// Its payload, one WebSocket message.
    WebSocket {
        /// Whether it is compressed, if that makes it smaller.
        is_deflated: bool,
    },
    /// A push of the command protocol.
    Command(CommandForm),
    /// An event of an event stream.
    EventStream,
    /// The same as a chunk.
    EventStreamChunk,
    /// An event without its id, which stands in front of it.
    EventStreamRest,
    /// The same as the end of a chunk.
    EventStreamChunkRest,
}

/// What encodings are made with: one for all of a worker.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Room to encode in.
    buffer: Vec<u8>,
    deflater: Deflater,
}

/// A batch on its way to one client.
#[derive(Debug)]
pub struct Batch<'a> {
    prepared: &'a mut Prepared,
    channel: &'a ChannelName,
    items: &'a [Item],
    /// Number of the first of them.
    start: u64,
    rendition: Rendition,
    /// The publication before them, if it is known.
    predecessor: Option<&'a Arc<Publication>>,
    encoder: &'a mut Encoder,
}

/// What a client takes of a batch.
#[derive(Debug)]
pub struct Delivered {
    /// How many items the client takes.
    pub count: usize,
    /// What is shared, behind the bytes of the client's own.
    pub frame: Option<SharedFrame>,
    /// Whether this completes an answer: [`Transport::drained`](super::contract::Transport::drained) is to be called
    /// once it is queued.
    pub completes_answer: bool,
}

impl Delivered {
    /// None of them.
    pub const NOTHING: Self = Self { count: 0, frame: None, completes_answer: false };

    /// All publications of a batch, in a frame that others of this form share.
    pub(super) fn shared(batch: &mut Batch<'_>, form: WireForm) -> Self {
        let count = batch.items().len();
        Self { count, frame: Some(batch.frame(form)), ..Self::NOTHING }
    }
}

/// Items of a channel, one behind the other.
#[derive(Debug)]
struct Encoded {
    /// Number of the first one.
    start: u64,
    block: SharedFrame,
    /// Where each ends.
    ends: Vec<u32>,
}

/// How items are encoded.
#[derive(Clone, Copy, Debug)]
struct Encoding<'a> {
    form: WireForm,
    channel: &'a ChannelName,
    rendition: Rendition,
    /// The publication before the items, if it is known.
    predecessor: Option<&'a Arc<Publication>>,
}

impl Prepared {
    fn slot_for_deltas(&mut self, form: CommandForm, rendition: Rendition) -> &mut Option<Encoded> {
        let all = &mut self.for_deltas;
        let found = all.iter().position(|(of, other, _)| (*of, *other) == (form, rendition));
        let at = found.unwrap_or_else(|| {
            all.push((form, rendition, None));
            all.len() - 1
        });
        &mut all[at].2
    }

    /// Makes this the encodings of this fan-out, forgetting those of another.
    pub fn begin(&mut self, life: u64) {
        if self.life != Some(life) {
            *self = Self { life: Some(life), ..Self::default() };
        }
    }

    /// Items of a channel for one client; the first one has the number `start` in its channel.
    pub fn of_client<'a>(
        &'a mut self,
        channel: &'a ChannelName,
        items: &'a [Item],
        start: u64,
        encoder: &'a mut Encoder,
    ) -> Batch<'a> {
        let (rendition, predecessor) = (Rendition::Plain, None);
        Batch { prepared: self, channel, items, start, rendition, predecessor, encoder }
    }
}

impl<'a> Batch<'a> {
    /// The same for a subscriber that takes deltas: the first one is made from `predecessor`, if that is known.
    pub fn rendered(self, rendition: Rendition, predecessor: Option<&'a Arc<Publication>>) -> Self {
        Self { rendition, predecessor, ..self }
    }

    /// The items; at least one.
    pub fn items(&self) -> &'a [Item] {
        self.items
    }

    /// The channel that the items belong to.
    pub fn channel(&self) -> &'a ChannelName {
        self.channel
    }

    /// The items encoded in a wire form.
    pub fn frame(&mut self, form: WireForm) -> SharedFrame {
        let Self { prepared, channel, items, start, rendition, predecessor, encoder } = self;
        let slot = match form {
            WireForm::WebSocket { is_deflated: false } => &mut prepared.websocket,
            WireForm::WebSocket { is_deflated: true } => &mut prepared.deflated_websocket,
            WireForm::Command(form) if *rendition != Rendition::Plain => {
                prepared.slot_for_deltas(form, *rendition)
            }
            WireForm::Command(form) => &mut prepared.commands[form.index()],
            WireForm::EventStream => &mut prepared.event_stream,
            WireForm::EventStreamChunk => &mut prepared.event_stream_chunk,
            WireForm::EventStreamRest => &mut prepared.event_stream_rest,
            WireForm::EventStreamChunkRest => &mut prepared.event_stream_chunk_rest,
        };
        let covering = slot.as_ref().and_then(|kept| kept.part(*start, items.len()));
        covering.unwrap_or_else(|| {
            let how = Encoding { form, channel, rendition: *rendition, predecessor: *predecessor };
            let encoded = Encoded::new(how, *start, items, slot.as_ref(), encoder);
            slot.insert(encoded).block.clone()
        })
    }

    /// As the answer to a poll of their channel, behind the lines of the client's own; empty without a publication.
    pub fn answer(&mut self, form: PollForm) -> SharedFrame {
        let items = self.items;
        let slot = &mut self.prepared.answers[form as usize];
        let key = (self.start, items.len());
        match slot {
            Some((of, frame)) if *of == key => frame.clone(),
            _ => {
                let buffer = &mut self.encoder.buffer;
                buffer.clear();
                write_shared_answer(form, items, buffer);
                let frame = SharedFrame::copy_of(buffer);
                buffer.shrink_to(BUFFER_BYTES_KEPT_MAX);
                *slot = Some((key, frame.clone()));
                frame
            }
        }
    }
}

impl Encoded {
    /// Encodes items; what `kept` has of them is copied from there.
    fn new(
        how: Encoding<'_>,
        start: u64,
        items: &[Item],
        kept: Option<&Encoded>,
        encoder: &mut Encoder,
    ) -> Self {
        let Encoder { buffer, deflater } = encoder;
        buffer.clear();
        let mut ends = Vec::with_capacity(items.len());
        if let Some(kept) = kept
            && let Some(skipped) = start.checked_sub(kept.start)
            && let Some(skipped) = usize::try_from(skipped).ok().filter(|at| *at < kept.ends.len())
        {
            let from = kept.offset(skipped);
            buffer.extend_from_slice(&kept.block.as_bytes()[from as usize..]);
            ends.extend(kept.ends[skipped..].iter().map(|end| end - from));
        }
        for at in ends.len()..items.len() {
            let start = buffer.len();
            how.encode(items, at, buffer);
            if how.form.is_deflated() {
                deflater.deflate_frame(buffer, start);
            }
            ends.push(u32::try_from(buffer.len()).expect("limits keep a batch under 4 GiB"));
        }
        let block = SharedFrame::copy_of(buffer);
        buffer.shrink_to(BUFFER_BYTES_KEPT_MAX);
        Self { start, block, ends }
    }

    /// Where item `at` of these begins.
    fn offset(&self, at: usize) -> u32 {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The frame of `count` items from number `start` on, if all of them are in it.
    fn part(&self, start: u64, count: usize) -> Option<SharedFrame> {
        let first = usize::try_from(start.checked_sub(self.start)?).ok()?;
        let end = *self.ends.get(first + count - 1)?;
        Some(self.block.clone().take(end).skip(self.offset(first)))
    }
}

impl WireForm {
    /// Whether its messages are compressed, where that makes them smaller.
    fn is_deflated(self) -> bool {
        match self {
            Self::WebSocket { is_deflated } => is_deflated,
            Self::Command(form) => form.framing == CommandFraming::DeflatedWebSocket,
            _ => false,
        }
    }
}

impl Encoder {
    /// Compresses messages of at least `bytes_min` bytes; the default one compresses nothing.
    pub fn new(bytes_min: usize, level: u32) -> Self {
        Self { buffer: Vec::new(), deflater: Deflater::new(bytes_min, level) }
    }
}

impl Encoding<'_> {
    /// Appends an item, which may be a delta from the publication before it.
    fn encode(&self, items: &[Item], at: usize, out: &mut Vec<u8>) {
        let (WireForm::Command(form), Item::Publication(publication), true) =
            (self.form, &items[at], self.rendition != Rendition::Plain)
        else {
            return encode(self.form, self.channel, &items[at], out);
        };
        let is_short = |of: &Publication| of.payload.bytes.len() <= DELTA_BYTES_MAX;
        let before = items[..at].iter().rev().find_map(Item::publication).or(self.predecessor);
        let before = before
            .filter(|_| self.rendition == Rendition::Delta)
            .filter(|before| is_short(before) && is_short(publication))
            .map(|before| &before.payload);
        form.write_push(out, self.channel, Push::Delta(publication, before));
    }
}

fn encode(form: WireForm, channel: &ChannelName, item: &Item, out: &mut Vec<u8>) {
    match form {
        WireForm::WebSocket { .. } => {
            // Plain messages carry publications only.
            let Item::Publication(publication) = item else { return };
            let opcode = match publication.payload.kind {
                PayloadKind::Json | PayloadKind::Text => OpCode::Text,
                PayloadKind::Binary => OpCode::Binary,
            };
            write_frame(out, opcode, &publication.payload.bytes);
        }
        WireForm::Command(form) => form.write_push(out, channel, Push::Item(item)),
        WireForm::EventStream => encode_event(item, out),
        WireForm::EventStreamChunk => write_chunk(out, |out| encode_event(item, out)),
        WireForm::EventStreamRest => sse::write_item(out, item),
        WireForm::EventStreamChunkRest => {
            sse::write_item(out, item);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn encode_event(item: &Item, out: &mut Vec<u8>) {
    // Only publications have a position.
    if let Item::Publication(publication) = item {
        sse::write_id(out, &publication.position);
    }
    sse::write_item(out, item);
}

fn write_shared_answer(form: PollForm, items: &[Item], out: &mut Vec<u8>) {
    let has_gap = form.has_gap(items);
    let publications = form.of(items);
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

/// Room to encode in that survives a large publication.
const BUFFER_BYTES_KEPT_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Epoch, Payload, Position};

    fn channel() -> ChannelName {
        ChannelName::new("a").unwrap()
    }

    fn items() -> Vec<Item> {
        ["one", "two", "three"]
            .into_iter()
            .zip(1..)
            .map(|(text, offset)| {
                Item::Publication(Arc::new(Publication {
                    channel: channel(),
                    position: Position { epoch: Epoch(1), offset },
                    payload: Payload::new(PayloadKind::Text, text),
                    info: None,
                    accepted_us: 0,
                    excludes: None,
                    in_stream: true,
                }))
            })
            .collect()
    }

    #[test]
    fn publications_in_flight_are_one_block_and_parts_of_it_are_views() {
        let (channel, items) = (channel(), items());
        let mut prepared = Prepared::default();
        let mut encoder = Encoder::default();
        prepared.begin(1);
        let mut frame = |range: std::ops::Range<usize>| {
            let start = 100 + range.start as u64;
            prepared
                .of_client(&channel, &items[range], start, &mut encoder)
                .frame(WireForm::WebSocket { is_deflated: false })
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
        let (channel, items) = (channel(), items());
        let mut prepared = Prepared::default();
        let mut encoder = Encoder::default();
        prepared.begin(1);
        prepared
            .of_client(&channel, &items[..1], 0, &mut encoder)
            .frame(WireForm::WebSocket { is_deflated: false });
        prepared.begin(2);
        let mut batch = prepared.of_client(&channel, &items[1..2], 0, &mut encoder);
        let frame = batch.frame(WireForm::WebSocket { is_deflated: false });
        assert_eq!(frame.as_bytes(), b"\x81\x03two");
        let line = batch.frame(WireForm::Command(CommandForm::json(CommandFraming::Line)));
        assert!(line.as_bytes().ends_with(b"\"data\":\"two\",\"offset\":2}}}\n"));
        let push = &line.as_bytes()[..line.len() as usize - 1];
        let mut message = Vec::new();
        write_frame(&mut message, OpCode::Text, push);
        let framed = batch.frame(WireForm::Command(CommandForm::json(CommandFraming::WebSocket)));
        assert_eq!(framed.as_bytes(), message);
    }

    #[test]
    fn an_event_has_an_id_if_it_is_a_publication() {
        let (channel, mut items) = (channel(), items());
        items.insert(1, Item::Gap(4));
        let mut prepared = Prepared::default();
        let mut encoder = Encoder::default();
        let mut batch = prepared.of_client(&channel, &items[..3], 0, &mut encoder);
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
        let (channel, items) = (channel(), items());
        let mut prepared = Prepared::default();
        let mut encoder = Encoder::default();
        let mut batch = prepared.of_client(&channel, &items[..2], 0, &mut encoder);
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
        let (channel, items) = (channel(), items());
        let mut prepared = Prepared::default();
        let mut encoder = Encoder::default();
        let mut answer = |form, first| {
            let given = &items[first..];
            let frame =
                prepared.of_client(&channel, given, first as u64, &mut encoder).answer(form);
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
