//! All connections of a worker, and the hub they speak with: everything but the kernel.
//!
//! Events go in; what leaves is the turn's [`SendBatch`], messages in the mesh, and [`Action`]s for the driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::buffer::{QueueArena, Segment, SharedFrame};
use crate::config::limits::{
    DELIVERIES_PER_TURN_MAX, FAN_OUT_BACKLOG_BYTES_HIGH, FAN_OUT_BACKLOG_HIGH,
    FAN_OUT_BACKLOG_LOW_DIVISOR,
};
use crate::connection::{Connection, Service, Stage};
use crate::driver::{Close, End, SendBatch, SocketId};
use crate::hub::{self, Hub, HubMessage};
use crate::message::{CloseReason, Refusal, Reply, Request, SessionId, Ticket};
use crate::telemetry::{Counters, render};
use crate::transport::{ClientName, Context, Flow, Output, Prepared};

mod closing;
mod sends;

use super::mesh::Mesh;
use super::sweep::Sweep;
use super::table::{NEVER, Table};
use super::{WorkerParts, WorkerSettings};

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
    settings: WorkerSettings,
    table: Table,
    hub: Hub,
    queues: QueueArena,
    sweep: Sweep,
    tick: u32,
    /// The turn's sends.
    pub batch: SendBatch,
    /// The way to the other workers.
    pub mesh: Mesh,
    /// For the driver; whoever calls in here carries them out.
    pub actions: Vec<Action>,
    /// Connections with something to send, each once.
    dirty: VecDeque<u32>,
    /// Connections in the batch that need a look once it is settled.
    unsettled: Vec<u32>,
    /// Publishers that are held back until fan-outs have caught up.
    held: Vec<SocketId>,
    /// They are held back for good: the server shuts down.
    holds_all_publishers: bool,
    /// Connections that asked for the metrics page.
    metrics_wanted: Vec<SocketId>,
    slow: Vec<u32>,
    due: Vec<u32>,
    outputs: Vec<Output>,
    hub_outputs: VecDeque<hub::Output>,
    prepared: Vec<Prepared>,
    scratch: Vec<u8>,
    counters: Arc<Counters>,
    all_counters: Arc<[Arc<Counters>]>,
    /// Connections of all workers, and as many as there may be: touched once as a connection comes and goes.
    open: Arc<AtomicUsize>,
    open_max: usize,
}

impl Connections {
    /// No connections yet.
    pub fn new(settings: WorkerSettings, parts: WorkerParts, now: Instant) -> Self {
        let counters = parts.counters[usize::from(parts.mesh.worker().0)].clone();
        Self {
            table: Table::new(settings.connections_max),
            hub: Hub::new(settings.hub.clone()),
            // Every connection may have a few segments before the arena has to move.
            queues: QueueArena::with_capacity(4 * settings.connections_max),
            sweep: Sweep::new(now),
            tick: 0,
            batch: SendBatch::default(),
            mesh: parts.mesh,
            actions: Vec::new(),
            dirty: VecDeque::new(),
            unsettled: Vec::new(),
            held: Vec::new(),
            holds_all_publishers: false,
            metrics_wanted: Vec::new(),
            slow: Vec::new(),
            due: Vec::new(),
            outputs: Vec::new(),
            hub_outputs: VecDeque::new(),
            prepared: Vec::new(),
            scratch: Vec::new(),
            counters,
            all_counters: parts.counters,
            open: parts.open,
            open_max: parts.open_max,
            settings,
        }
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
    pub fn begin_turn(&mut self, now: Instant) {
        self.tick = self.sweep.tick(now);
        self.counters.turns.add(1);
    }

    /// A place for a new connection, or `None` if there is none left.
    pub fn admit(&mut self, service: Service) -> Option<SocketId> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let place = (open < self.open_max).then(|| self.table.insert(service, self.tick)).flatten();
        let Some(id) = place else {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.counters.refused.add(1);
            return None;
        };
        self.counters.accepted.add(1);
        if service != Service::EchoTcp {
            self.set_deadline(id.index, self.settings.transport.handshake_timeout);
        }
        Some(id)
    }

    /// Bytes came.
    pub fn receive(&mut self, id: SocketId, bytes: &mut [u8]) {
        self.counters.received_bytes.add(bytes.len() as u64);
        let tick = self.tick;
        let connection = self.table.at(id.index);
        connection.received_at = tick;
        // What a closing peer still says is not listened to; it is read so that its end is found.
        if connection.stage == Stage::Open {
            self.converse(id.index, |connection, context| connection.receive(bytes, context));
            self.carry();
        }
    }

    /// The peer's bytes ended.
    pub fn end(&mut self, id: SocketId, end: End) {
        let connection = self.table.at(id.index);
        match (end, connection.stage) {
            (_, Stage::Dead) => {}
            (End::Reset, _) => self.kill(id.index, CloseReason::ClientGone, Close::Orderly),
            (End::Eof, Stage::Open) => {
                self.converse(id.index, |connection, context| {
                    connection.end(context);
                    Flow::Receive
                });
            }
            (End::Eof, Stage::Closing) => {
                connection.has_ended = true;
                self.mark_dirty(id.index);
            }
        }
        self.carry();
    }

    /// The kernel has room again.
    pub fn unblock(&mut self, id: SocketId) {
        self.table.at(id.index).is_blocked = false;
        self.mark_dirty(id.index);
    }

    /// The socket is closed: its slot is free.
    pub fn remove(&mut self, id: SocketId) {
        self.table.remove(id.index);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Messages from another worker, or this one.
    pub fn handle_messages(&mut self, messages: Vec<HubMessage>) {
        for message in messages {
            self.handle_message(message);
        }
        self.carry();
    }

    /// The next slice of the fan-outs in progress.
    pub fn fan_out(&mut self) {
        if !self.hub.wants_fan_out() {
            return;
        }
        let Self { hub, table, queues, dirty, prepared, scratch, slow, counters, .. } = self;
        let bytes_max = self.settings.send_queue_bytes_max;
        let mut deliveries = 0;
        hub.fan_out(DELIVERIES_PER_TURN_MAX, |batch, session, first| {
            let connection = table.at(session);
            let Some(form) = connection.wire_form() else { return };
            let key = batch.key as usize;
            if key >= prepared.len() {
                prepared.resize_with(key + 1, Prepared::default);
            }
            prepared[key].begin(batch.serial);
            let frame = prepared[key].frame(form, batch.publications, first, scratch);
            // One frame fits every queue that was empty, whatever its size.
            let queued = connection.queue.bytes();
            if queued > 0 && queued.saturating_add(frame.len()) > bytes_max {
                slow.push(session);
                return;
            }
            deliveries += (batch.publications.len() - first) as u64;
            queues.push(&mut connection.queue, Segment::Shared(frame));
            mark(connection, session, dirty);
        });
        counters.deliveries.add(deliveries);
        if !hub.wants_fan_out() {
            prepared.clear();
        }
        self.close_slow();
    }

    /// The next slice of the sweep.
    pub fn sweep(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.sweep.collect(now, &mut self.table, &mut due);
        for index in due.drain(..) {
            self.table.set_deadline(index, NEVER);
            self.expire(index);
        }
        self.due = due;
        self.carry();
    }

    /// Whether a slice of the sweep is worth waking up for.
    pub fn wants_sweep(&self) -> bool {
        !self.table.is_empty()
    }

    /// Answers those who asked for the metrics page.
    pub fn answer_metrics(&mut self) {
        if self.metrics_wanted.is_empty() {
            return;
        }
        self.count();
        let mut text = String::new();
        render(&self.all_counters, &mut text);
        for id in std::mem::take(&mut self.metrics_wanted) {
            if self.is_open(id) {
                self.converse(id.index, |connection, context| {
                    connection.answer_metrics(&text, context)
                });
            }
        }
        self.carry();
    }

    /// Whether the next wait must return at once.
    pub fn is_urgent(&self) -> bool {
        !self.dirty.is_empty()
            || !self.unsettled.is_empty()
            || !self.metrics_wanted.is_empty()
            || self.hub.wants_fan_out()
    }

    /// Counts this worker as behind or not, and lets publishers go on once none is.
    pub fn regulate(&mut self) {
        let (count, bytes) = self.hub.backlog();
        let divisor = if self.mesh.is_congested() { FAN_OUT_BACKLOG_LOW_DIVISOR } else { 1 };
        let behind =
            count > FAN_OUT_BACKLOG_HIGH / divisor || bytes > FAN_OUT_BACKLOG_BYTES_HIGH / divisor;
        self.mesh.set_congested(behind || self.holds_all_publishers);
        if !self.held.is_empty() && !self.mesh.is_congested() {
            for id in std::mem::take(&mut self.held) {
                if self.is_open(id) {
                    self.unpause(id.index, Connection::PAUSED_BY_CONGESTION);
                }
            }
        }
    }

    /// Takes no more publications: fan-outs come to an end.
    pub fn hold_publishers(&mut self) {
        self.holds_all_publishers = true;
    }

    /// Whether a fan-out is in progress.
    pub fn wants_fan_out(&self) -> bool {
        self.hub.wants_fan_out()
    }

    /// Whether someone waits for fan-outs, perhaps those of another worker, to catch up.
    pub fn holds_publishers(&self) -> bool {
        !self.held.is_empty()
    }

    /// Brings the gauges up to date.
    pub fn count(&self) {
        let counters = &self.counters;
        counters.open.set(self.table.len() as u64);
        counters.queued_bytes.set(self.queues.bytes());
        counters.fan_out_backlog.set(self.hub.backlog().0 as u64);
        counters.channels.set(self.hub.channel_count() as u64);
        counters.subscriptions.set(self.hub.subscription_count() as u64);
    }

    /// Counts a pause of accepting.
    pub fn count_accept_pause(&self) {
        self.counters.accept_pauses.add(1);
    }

    /// One step of a conversation, and what follows from it.
    fn converse(
        &mut self,
        index: u32,
        step: impl FnOnce(&mut Connection, &mut Context<'_>) -> Flow,
    ) {
        let start = self.batch.turn.len();
        let connection = self.table.at(index);
        let session = SessionId { index, generation: connection.generation };
        let mut context = Context {
            out: &mut self.batch.turn,
            outputs: &mut self.outputs,
            settings: &self.settings.transport,
            client: ClientName { worker: self.settings.hub.worker, session },
            congested: self.mesh.is_congested(),
        };
        let flow = step(connection, &mut context);
        let written = self.batch.turn.len() - start;
        if written > 0 {
            let segment = if connection.is_blocked {
                // It leaves in a later turn.
                let frame = SharedFrame::copy_of(&self.batch.turn[start..]);
                self.batch.turn.truncate(start);
                Segment::Shared(frame)
            } else {
                let range = |at: usize| u32::try_from(at).expect("a turn writes less than 4 GiB");
                Segment::Turn { start: range(start), len: range(written) }
            };
            self.queues.push(&mut connection.queue, segment);
            mark(connection, index, &mut self.dirty);
            if connection.queue.bytes() > self.settings.send_queue_bytes_high {
                self.pause(index, Connection::PAUSED_BY_QUEUE);
            }
        }
        match flow {
            Flow::AwaitReply => self.pause(index, Connection::PAUSED_BY_REPLY),
            Flow::Receive => self.unpause(index, Connection::PAUSED_BY_REPLY),
            Flow::Closed => {}
        }
        if !self.outputs.is_empty() {
            self.take_outputs(session);
        }
    }

    fn take_outputs(&mut self, session: SessionId) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Request(request) => self.request(session, request),
                Output::Close(reason) => self.end_conversation(session.index, reason),
                Output::Deadline(after) => self.set_deadline(session.index, after),
                Output::HttpError => self.counters.http_errors.add(1),
                Output::Metrics => self.metrics_wanted.push(socket_id(session)),
            }
        }
        self.outputs = outputs;
    }

    fn request(&mut self, session: SessionId, request: Request) {
        let congested = self.mesh.is_congested();
        let connection = self.table.at(session.index);
        match &request {
            Request::Publish { .. } if congested => {
                // What came with this is taken; nothing more is read until the backlog has shrunk.
                if connection.pauses & Connection::PAUSED_BY_CONGESTION == 0 {
                    self.held.push(socket_id(session));
                    self.counters.publishers_held.add(1);
                    self.pause(session.index, Connection::PAUSED_BY_CONGESTION);
                }
            }
            Request::Subscribe { .. } if !connection.has_session => {
                connection.has_session = true;
                self.hub.open(session);
            }
            Request::Unsubscribe { ticket, .. } if !connection.has_session => {
                let reply = Reply::Refused(Refusal::NotSubscribed);
                self.hub_outputs.push_back(hub::Output::Reply { session, ticket: *ticket, reply });
                return;
            }
            Request::Publish { .. } | Request::Subscribe { .. } | Request::Unsubscribe { .. } => {}
        }
        self.hub.handle(session, request, &mut self.hub_outputs);
    }

    /// Carries what the hub said to whom it is for, and what follows from that, until nothing is left.
    fn carry(&mut self) {
        while let Some(output) = self.hub_outputs.pop_front() {
            match output {
                hub::Output::Send { to, message } if to == self.settings.hub.worker => {
                    self.handle_message(message);
                }
                hub::Output::Send { to, message } => self.mesh.send(to, message),
                hub::Output::Reply { session, ticket, reply } => {
                    self.reply(session, ticket, &reply);
                }
            }
        }
    }

    fn handle_message(&mut self, message: HubMessage) {
        if matches!(message, HubMessage::Publish { .. }) {
            self.counters.publications.add(1);
        }
        self.hub.handle_message(message, &mut self.hub_outputs);
    }

    fn reply(&mut self, session: SessionId, ticket: Ticket, reply: &Reply) {
        if self.is_open(socket_id(session)) {
            self.converse(session.index, |connection, context| {
                connection.reply(ticket, reply, context)
            });
        }
    }

    fn pause(&mut self, index: u32, why: u8) {
        let id = self.table.id(index);
        let connection = self.table.at(index);
        if connection.pauses == 0 && connection.stage == Stage::Open {
            self.actions.push(Action::Pause(id));
        }
        connection.pauses |= why;
    }

    fn unpause(&mut self, index: u32, why: u8) {
        let connection = self.table.at(index);
        if connection.pauses & why == 0 {
            return;
        }
        connection.pauses &= !why;
        if connection.pauses == 0 && connection.stage != Stage::Dead {
            let id = self.table.id(index);
            self.actions.push(Action::Resume(id));
        }
    }

    fn set_deadline(&mut self, index: u32, after: Duration) {
        self.table.set_deadline(index, self.tick.saturating_add(Sweep::ticks(after)));
    }

    fn mark_dirty(&mut self, index: u32) {
        mark(self.table.at(index), index, &mut self.dirty);
    }

    /// Whether this is an open connection, and still the one it was.
    fn is_open(&mut self, id: SocketId) -> bool {
        self.table.get(id.index).is_some_and(|connection| {
            connection.generation == id.generation && connection.stage == Stage::Open
        })
    }
}

fn mark(connection: &mut Connection, index: u32, dirty: &mut VecDeque<u32>) {
    if !connection.is_dirty {
        connection.is_dirty = true;
        dirty.push_back(index);
    }
}

/// A session is named like the socket that opened it.
fn socket_id(session: SessionId) -> SocketId {
    SocketId { index: session.index, generation: session.generation }
}
