//! The steps of fan-outs: a publication is encoded once for each wire form, and queued for one subscriber after
//! another.

use crate::config::limits::{DELIVERY_COST_BYTES, FAN_OUT_WAITS_MAX};
use crate::hub::{FanOutBatch, FanOutStep, Visit};
use crate::transport::{Delivered, Encoder, Prepared, TransportSettings};

use super::lags::Lags;
use super::outbox::Outbox;
use super::table::Table;

/// What fan-outs have encoded and delivered.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// The encodings of each fan-out in progress, by its key.
    prepared: Vec<Prepared>,
    /// Makes the encodings of what many subscribers receive.
    encoder: Encoder,
    /// Makes those of what one subscriber alone receives, which is not compressed.
    own_encoder: Encoder,
    /// Deliveries of this turn whose bytes the kernel has not taken yet.
    pub lags: Lags,
    /// Connections whose queues are past the maximum.
    pub slow: Vec<u32>,
    /// Connections whose polls were answered.
    pub answered: Vec<u32>,
    /// Publications that were delivered, each once for each subscriber, since this was read.
    pub count: u64,
}

/// How much may wait for one subscriber, and how deliveries look.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// Bytes in its queue from which on it is given no more in this turn.
    pub bytes_high: u32,
    /// Bytes in its queue past which it is a slow consumer.
    pub bytes_max: u32,
    /// The settings of all conversations.
    pub transport: &'a TransportSettings,
}

impl Deliveries {
    /// No fan-outs yet; `encoder` is for what many subscribers receive.
    pub fn new(encoder: Encoder) -> Self {
        Self { encoder, ..Self::default() }
    }

    /// Takes one step of a fan-out.
    #[inline]
    pub fn take(
        &mut self,
        step: FanOutStep<'_>,
        table: &mut Table,
        outbox: &mut Outbox,
        bounds: Bounds<'_>,
    ) -> Visit {
        let FanOutStep::Deliver { batch, session, may_fall_behind, turns_waited } = step else {
            if let FanOutStep::Done { key } = step
                && let Some(encodings) = self.prepared.get_mut(key as usize)
            {
                *encodings = Prepared::default();
            }
            return Visit::Cost(0);
        };
        let Bounds { bytes_high, bytes_max, transport } = bounds;
        let connection = table.at(session);
        let (queued, is_blocked) = (connection.queue.bytes(), connection.flags.is_blocked());
        // A socket that takes everything is not a slow consumer, unless that is too much in each of many turns: what
        // this turn queued leaves with it. Once other subscribers have waited for it, it is given more.
        let is_past = queued > 0 && queued as usize + batch.bytes > bytes_max as usize;
        let is_full = !is_blocked && (is_past || (turns_waited == 0 && queued > bytes_high));
        if may_fall_behind && (is_blocked || (is_full && turns_waited > 0)) {
            connection.flags.set_behind(true);
            return Visit::Behind;
        }
        if is_full && turns_waited < FAN_OUT_WAITS_MAX {
            return Visit::Full;
        }
        let mut own = None;
        let encoder = if batch.is_shared { &mut self.encoder } else { &mut self.own_encoder };
        let prepared = encodings_of(&batch, &mut self.prepared, &mut own);
        let mut of_client = prepared
            .of_client(batch.channel, batch.items, batch.start, encoder)
            .rendered(batch.rendition, batch.predecessor);
        let turn = &mut outbox.batch.turn;
        let start = turn.len();
        let Delivered { count, frame, completes_answer } =
            connection.deliver(&mut of_client, turn, transport);
        let bytes = turn.len() - start + frame.as_ref().map_or(0, |frame| frame.len() as usize);
        // One frame fits every queue that was empty, whatever its size.
        let is_past = is_blocked && queued > 0 && queued as usize + bytes > bytes_max as usize;
        if is_full || is_past {
            turn.truncate(start);
            self.slow.push(session);
            return Visit::Cost(1);
        }
        self.count += count as u64;
        if bytes > 0 {
            if !connection.flags.is_blocked() && batch.is_shared {
                self.lags.add(&batch);
            }
            outbox.enqueue(connection, start);
            if let Some(frame) = frame {
                outbox.push(connection, frame);
            }
            outbox.mark(connection, session);
        }
        if completes_answer {
            self.answered.push(session);
        }
        Visit::Cost(1 + bytes / DELIVERY_COST_BYTES)
    }
}

/// The encodings of a fan-out. Items that one subscriber alone receives are encoded for it.
#[inline]
fn encodings_of<'p>(
    batch: &FanOutBatch<'_>,
    shared: &'p mut Vec<Prepared>,
    own: &'p mut Option<Prepared>,
) -> &'p mut Prepared {
    let prepared = if batch.is_shared {
        let key = batch.key as usize;
        if key >= shared.len() {
            shared.resize_with(key + 1, Prepared::default);
        }
        &mut shared[key]
    } else {
        own.insert(Prepared::default())
    };
    prepared.begin(batch.life);
    prepared
}
