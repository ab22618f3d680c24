//! All connections of a worker, and the hub they speak with: everything but the kernel.
//!
//! Events go in; what leaves is the turn's [`SendBatch`], messages in the mesh, and [`Action`]s for the driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::buffer::QueueArena;
use crate::config::Config;
use crate::config::limits::{
    DELIVERY_COST_BYTES, DELIVERY_COST_PER_TURN_MAX, FAN_OUT_WAITS_MAX, REQUESTS_PER_TURN_MAX,
    SPARE_CONNECTION_TIME, SPARE_CONNECTIONS, WRITTEN_BYTES_PER_TURN_MAX,
};
use crate::connection::{Connection, Stage};
use crate::driver::{Close, End, SendBatch, SocketId};
use crate::hub::{self, Drops, FanOutStep, Hub, Visit};
use crate::message::{CloseReason, SessionId};
use crate::protocol::http1::date_text;
use crate::telemetry::Counters;
use crate::transport::{Answers, Delivered, Flow, Output, Prepared, Question};

use super::backpressure::Held;
use super::budget::Budget;
use super::deferred::Deferred;
use super::evict::Eviction;
use super::lags::Lags;
use super::mesh::Mesh;
use super::requests::enqueue;
use super::settings::{WorkerParts, WorkerSettings};
use super::sweep::Sweep;
use super::table::{NEVER, Table};

/// What the driver is to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive nothing.
    Pause(SocketId),
    /// Receive again.
    Resume(SocketId),
    /// Close our end.
    ShutdownWrite(SocketId),
    /// Close it.
    Close(SocketId, Close),
}

/// All connections of a worker.
#[derive(Debug)]
pub struct Connections {
    pub(super) settings: WorkerSettings,
    pub(super) configs: Receiver<Arc<Config>>,
    pub(super) table: Table,
    /// Connections in it that are beyond the maximum.
    pub(super) spares: usize,
    pub(super) hub: Hub,
    pub(super) queues: QueueArena,
    pub(super) sweep: Sweep,
    pub(super) tick: u32,
    /// When the turn began, in microseconds.
    pub(super) began_us: u64,
    /// When the next second of the calendar begins, on the same scale.
    pub(super) date_until_us: u64,
    /// Deliveries of this turn whose bytes the kernel has not had yet.
    pub(super) lags: Lags,
    pub(super) budget: Budget,
    pub(super) eviction: Eviction,
    /// Heap of all conversations: what is unfinished.
    pub(super) unfinished_bytes: usize,
    /// The turn's sends.
    pub(super) batch: SendBatch,
    /// The way to the other workers.
    pub(super) mesh: Mesh,
    /// For the driver; whoever calls in here carries them out.
    pub(super) actions: Vec<Action>,
    /// Connections with something to send, each once.
    pub(super) dirty: VecDeque<u32>,
    /// Connections in the batch that need a look once it is settled.
    pub(super) unsettled: Vec<u32>,
    /// Publishers that are held back until fan-outs have caught up, the longest held first.
    pub(super) held: VecDeque<Held>,
    /// Of what they sent.
    pub(super) held_bytes: usize,
    /// Requests with long answers, and what was asked behind them.
    pub(super) deferred: Deferred,
    /// Requests taken in this turn.
    pub(super) requests: usize,
    /// Bytes that conversations wrote in this turn.
    pub(super) written: usize,
    /// They are held back for good: the server shuts down.
    pub(super) holds_all_publishers: bool,
    /// Questions of conversations that have not been answered yet.
    pub(super) questions: Vec<(SocketId, Question)>,
    /// When the statistics are published next, if someone wants them, in microseconds.
    pub(super) statistics_due_us: u64,
    /// An operator has been told of a proxy that is not set up for this server, and is not told again before.
    pub(super) proxy_warned_until: u32,
    pub(super) slow: Vec<u32>,
    /// Connections whose polls were answered by the fan-out.
    pub(super) answered: Vec<u32>,
    pub(super) due: Vec<u32>,
    pub(super) outputs: Vec<Output>,
    pub(super) hub_outputs: VecDeque<hub::Output>,
    pub(super) prepared: Vec<Prepared>,
    pub(super) answers: Answers,
    pub(super) scratch: Vec<u8>,
    pub(super) counters: Arc<Counters>,
    pub(super) all_counters: Arc<[Arc<Counters>]>,
    /// Connections of all workers, without spare ones, and as many as there may be: touched once as a connection comes
    /// and goes.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) open_max: usize,
}

impl Connections {
    /// No connections yet.
    pub fn new(mut settings: WorkerSettings, parts: WorkerParts, now: Instant) -> Self {
        settings.transport.now.is_behind_proxy = parts.is_behind_proxy;
        let started = *parts.clock.get_or_init(|| now);
        let counters = parts.counters[usize::from(parts.mesh.worker().0)].clone();
        let sweep = Sweep::new(started);
        let places = settings.connections_max + SPARE_CONNECTIONS;
        let mut connections = Self {
            table: Table::new(places),
            spares: 0,
            hub: Hub::new(settings.hub.clone()),
            // Every connection may have a few segments before the arena has to move.
            queues: QueueArena::with_capacity(4 * places),
            began_us: sweep.microseconds(now),
            date_until_us: 0,
            sweep,
            tick: 0,
            lags: Lags::default(),
            budget: parts.budget,
            eviction: Eviction::default(),
            unfinished_bytes: 0,
            batch: SendBatch::default(),
            mesh: parts.mesh,
            actions: Vec::new(),
            dirty: VecDeque::new(),
            unsettled: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            deferred: Deferred::default(),
            requests: 0,
            written: 0,
            holds_all_publishers: false,
            questions: Vec::new(),
            statistics_due_us: 0,
            proxy_warned_until: 0,
            slow: Vec::new(),
            answered: Vec::new(),
            due: Vec::new(),
            outputs: Vec::new(),
            hub_outputs: VecDeque::new(),
            prepared: Vec::new(),
            answers: Answers::default(),
            scratch: Vec::new(),
            counters,
            all_counters: parts.counters,
            open: parts.open,
            open_max: parts.open_max,
            configs: parts.configs,
            settings,
        };
        connections.set_hub_limits();
        connections.mesh.set_load_high(connections.fan_out_bytes_max());
        connections
    }

    /// Takes what may change from the configuration that came last, if one came. Deadlines that are set already stay.
    pub fn reconfigure(&mut self) {
        if let Some(config) = self.configs.try_iter().last() {
            self.settings.reconfigure(&config);
            self.set_hub_limits();
        }
    }

    /// Time before that in which it is not ready but accepts.
    pub fn drain_time(&self) -> Duration {
        self.settings.drain_time
    }

    /// Slots of the table that were ever in use.
    pub fn slots(&self) -> usize {
        self.table.slots()
    }

    /// Time that shutting down may take.
    pub fn shutdown_timeout(&self) -> Duration {
        self.settings.shutdown_timeout
    }

    /// Open and closing connections.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The time of this turn.
    pub fn begin_turn(
        &mut self,
        now: Instant,
        is_stopping: bool,
        wall_clock: impl FnOnce() -> Duration,
    ) {
        self.tick = self.sweep.tick(now);
        self.began_us = self.sweep.microseconds(now);
        if self.began_us >= self.date_until_us {
            let since_epoch = wall_clock();
            self.settings.transport.now.date = date_text(since_epoch);
            let rest_us = 1_000_000 - since_epoch.subsec_micros();
            self.date_until_us = self.began_us + u64::from(rest_us);
        }
        self.settings.transport.now.is_stopping = is_stopping;
        self.withdraw_statistics();
        self.account();
        self.hub.tick(self.began_us, &mut self.hub_outputs);
        self.counters.turns.add(1);
        (self.requests, self.written) = (0, 0);
        self.deferred.begin_turn();
    }

    /// Whether as much was done in this turn as may be before others have theirs.
    pub fn is_turn_full(&self) -> bool {
        self.requests >= REQUESTS_PER_TURN_MAX || self.written >= WRITTEN_BYTES_PER_TURN_MAX
    }

    /// The turn is over: the kernel has what it sends, unless more waits than one batch takes.
    pub fn end_turn(&mut self, now: Instant) {
        self.counters.turns_budget_exhausted.add(self.is_turn_full().into());
        let now_us = self.sweep.microseconds(now);
        self.counters.turn_duration.observe(now_us.saturating_sub(self.began_us), 1);
        self.lags.observe(now_us, self.dirty.is_empty(), &self.counters.delivery_lag);
    }

    /// Whether the batch has so many deliveries that what it takes to send them is worth knowing: the wait must not
    /// sleep.
    pub fn is_batch_timed(&self) -> bool {
        !self.lags.is_empty() && self.batch.items().len() >= TIMED_SENDS_MIN
    }

    /// Bytes came.
    pub fn receive(&mut self, id: SocketId, bytes: &mut [u8]) {
        self.counters.receives.add(1);
        self.counters.received_bytes.add(bytes.len() as u64);
        let tick = self.tick;
        let connection = self.table.at(id.index);
        match connection.flags.stage() {
            Stage::Open => {
                connection.received = tick;
                if self.holds_all_publishers && connection.traits().publishes {
                    self.hold(id, bytes);
                } else {
                    self.listen(id, bytes);
                }
            }
            // RFC 6455 1.4, RFC 9112 9.6: it is read on, so that a reset does not overtake what was sent to it. What it
            // says is not listened to, and has an end.
            Stage::Closing => {
                connection.received = connection.received.saturating_add(bytes.len() as u32);
                if connection.received > self.settings.closing_bytes_max {
                    self.kill(id.index, CloseReason::ClientGone, Close::Abort);
                }
            }
            Stage::Dead => {}
        }
    }

    /// Has an open connection take bytes.
    pub(super) fn listen(&mut self, id: SocketId, bytes: &mut [u8]) {
        let flow =
            self.converse(id.index, |connection, context| connection.receive(&mut *bytes, context));
        if let Flow::Hold(count) = flow {
            self.hold(id, &bytes[bytes.len() - count..]);
        }
        self.carry();
    }

    /// The peer's bytes ended.
    pub fn end(&mut self, id: SocketId, end: End) {
        let connection = self.table.at(id.index);
        match (end, connection.flags.stage()) {
            (_, Stage::Dead) => {}
            (End::Reset, _) => self.kill(id.index, CloseReason::ClientGone, Close::Orderly),
            (End::Eof, Stage::Open) => {
                self.converse(id.index, |connection, context| connection.end(context));
            }
            (End::Eof, Stage::Closing) => {
                connection.flags.set_ended();
                self.mark_dirty(id.index);
            }
        }
        self.carry();
    }

    /// The kernel has room again.
    pub fn unblock(&mut self, id: SocketId) {
        self.table.at(id.index).flags.set_blocked(false);
        self.mark_dirty(id.index);
    }

    /// The next slice of the fan-outs in progress.
    pub fn fan_out(&mut self) {
        if !self.hub.wants_fan_out() {
            return;
        }
        let bytes_max = self.queue_bytes_max();
        let Self { hub, table, queues, dirty, prepared, scratch, slow, answered, lags, .. } = self;
        let (turn, settings) = (&mut self.batch.turn, &self.settings.transport);
        let bytes_high = self.settings.send_queue_bytes_high;
        let mut deliveries = 0;
        hub.fan_out(DELIVERY_COST_PER_TURN_MAX, |step| {
            let FanOutStep::Deliver { batch, session, may_lag, turns_waited } = step else {
                if let FanOutStep::Done { key } = step
                    && let Some(encodings) = prepared.get_mut(key as usize)
                {
                    *encodings = Prepared::default();
                }
                return Visit::Cost(0);
            };
            let connection = table.at(session);
            let (queued, is_blocked) = (connection.queue.bytes(), connection.flags.is_blocked());
            // A socket that takes all is no slow consumer, unless that is too much in each of many turns: what this
            // turn queued leaves with it. Once others have waited for it, it is given more.
            let is_past = queued > 0 && queued as usize + batch.bytes > bytes_max as usize;
            let is_full = !is_blocked && (is_past || (turns_waited == 0 && queued > bytes_high));
            if may_lag && (is_blocked || (is_full && turns_waited > 0)) {
                connection.flags.set_behind(true);
                return Visit::Lags;
            }
            if is_full && turns_waited < FAN_OUT_WAITS_MAX {
                return Visit::Full;
            }
            let key = batch.key as usize;
            if key >= prepared.len() {
                prepared.resize_with(key + 1, Prepared::default);
            }
            prepared[key].begin(batch.life);
            let mut of_client =
                prepared[key].of_client(batch.channel, batch.items, batch.start, scratch);
            let start = turn.len();
            let Delivered { count, frame, completes_answer } =
                connection.deliver(&mut of_client, turn, settings);
            let bytes = turn.len() - start + frame.as_ref().map_or(0, |frame| frame.len() as usize);
            // One frame fits every queue that was empty, whatever its size.
            let is_past = is_blocked && queued > 0 && queued as usize + bytes > bytes_max as usize;
            if is_full || is_past {
                turn.truncate(start);
                slow.push(session);
                return Visit::Cost(1);
            }
            deliveries += count as u64;
            if bytes > 0 {
                if !connection.flags.is_blocked() {
                    lags.add(&batch);
                }
                enqueue(connection, queues, turn, start);
                if let Some(frame) = frame {
                    queues.push(&mut connection.queue, frame);
                }
                mark(connection, session, dirty);
            }
            if completes_answer {
                answered.push(session);
            }
            Visit::Cost(1 + bytes / DELIVERY_COST_BYTES)
        });
        self.counters.deliveries.add(deliveries);
        self.counters.sent_messages.add(deliveries);
        self.close_slow();
        self.finish_answers();
    }

    /// The next slice of the sweep.
    pub fn sweep(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.sweep.collect(now, &mut self.table, &mut due);
        for index in due.drain(..) {
            if self.table.is_watched(index as usize) {
                self.check_message(index);
            }
            if self.table.deadline(index as usize) <= self.tick {
                self.table.set_deadline(index, NEVER);
                self.expire(index);
            }
        }
        self.due = due;
        self.carry();
    }

    /// When there is something to do that no event announces.
    pub fn next_tick(&self) -> Option<Duration> {
        let of_hub = self.hub.next_tick().map(Duration::from_millis);
        [of_hub, self.next_statistics()].into_iter().flatten().min()
    }

    /// Whether a slice of the sweep is worth waking up for.
    pub fn wants_sweep(&self) -> bool {
        !self.table.is_empty()
    }

    /// Whether the next wait must return at once.
    pub fn is_urgent(&self) -> bool {
        !self.dirty.is_empty()
            || !self.unsettled.is_empty()
            || !self.questions.is_empty()
            || self.hub.wants_fan_out()
            || self.hub.has_overdue()
            || self.deferred.is_urgent()
    }

    /// Whether as much was answered in this turn as may be.
    pub fn has_answered_enough(&self) -> bool {
        self.deferred.is_turn_full()
    }

    /// Brings the gauges up to date.
    pub fn count(&self) {
        let counters = &self.counters;
        counters.connections_open.set(self.table.len() as u64);
        counters.send_queue_bytes.set(self.queues.bytes());
        counters.memory_used_bytes.set(self.memory_bytes());
        counters.memory_pressure_level.set(self.budget.level() as u64);
        counters.memory_max_bytes.set(self.budget.share_bytes());
        let (waiting, waiting_bytes) = self.hub.backlog();
        counters.fan_out_backlog_publications.set(waiting as u64);
        counters.fan_out_backlog_bytes.set(waiting_bytes as u64);
        counters.fan_outs_in_progress.set(self.hub.fan_out_count() as u64);
        counters.channel_backlog_bytes.set(self.hub.held_back_bytes() as u64);
        counters.history_bytes.set(self.hub.history_bytes());
        counters.history_publications.set(self.hub.history_publications() as u64);
        let Drops { rate, lag, memory } = self.hub.drops();
        for (index, count) in [rate, lag, memory].into_iter().enumerate() {
            counters.publications_dropped[index].set(count);
        }
        counters.unfinished_message_bytes.set(self.unfinished_bytes as u64);
        counters.paused_publisher_bytes.set(self.held_bytes as u64);
        counters.deferred_request_bytes.set(self.deferred.bytes() as u64);
        counters.mesh_inbox_bytes.set(self.mesh.waiting_bytes() as u64);
        counters.channels.set(self.hub.channel_count() as u64);
        counters.subscriptions.set(self.hub.subscription_count() as u64);
    }

    /// What this worker counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn set_deadline(&mut self, index: u32, after: Duration) {
        let is_spare = self.table.at(index).flags.is_spare();
        let after = if is_spare { after.min(SPARE_CONNECTION_TIME) } else { after };
        self.table.set_deadline(index, self.tick.saturating_add(Sweep::ticks(after)));
    }

    pub(super) fn mark_dirty(&mut self, index: u32) {
        mark(self.table.at(index), index, &mut self.dirty);
    }

    /// Whether this is an open connection, and still the one it was.
    pub(super) fn is_open(&mut self, id: SocketId) -> bool {
        self.table.get(id.index).is_some_and(|connection| {
            connection.generation == id.generation && connection.flags.is_open()
        })
    }
}

pub(super) fn mark(connection: &mut Connection, index: u32, dirty: &mut VecDeque<u32>) {
    if !connection.flags.is_dirty() {
        connection.flags.set_dirty(true);
        dirty.push_back(index);
    }
}

/// Fewer sends are soon done, and a turn more would cost more than it tells.
const TIMED_SENDS_MIN: usize = 64;

/// A session is named like the socket that opened it.
pub(super) fn socket_id(session: SessionId) -> SocketId {
    SocketId { index: session.index, generation: session.generation }
}
