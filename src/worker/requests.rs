//! What conversations ask for and are answered: between connections and the hub.

use tracing::warn;

use crate::buffer::{QueueArena, SharedFrame};
use crate::config::limits::{PROXY_WARNING_INTERVAL, TURN_SEGMENT_BYTES_MAX};
use crate::connection::{Connection, Pause};
use crate::hub::{self, HubMessage, StreamMessage};
use crate::message::{
    Actor, Control, Origin, Refusal, Reply, Request, RequestId, SessionId, SessionRequest,
};
use crate::transport::{Context, Flow, MessageCount, Output};

use super::budget::Level;
use super::connections::{Connections, mark, socket_id};
use super::sweep::{LATENESS_MAX, Sweep};

impl Connections {
    /// One step of a conversation, and what follows from it.
    pub(super) fn converse(
        &mut self,
        index: u32,
        step: impl FnOnce(&mut Connection, &mut Context<'_>) -> Flow,
    ) -> Flow {
        let start = self.batch.turn.len();
        let connection = self.table.at(index);
        let room = self.settings.send_queue_bytes_high.saturating_sub(connection.queue.bytes());
        let session = SessionId { index, generation: connection.generation };
        let mut context = Context {
            out: &mut self.batch.turn,
            outputs: &mut self.outputs,
            settings: &self.settings.transport,
            answers: &mut self.answers,
            client: self.settings.hub.client_id(session),
            congested: self.mesh.is_congested(),
            overloaded: self.budget.level() >= Level::Critical,
            is_spare: connection.flags.is_spare(),
            has_ended: connection.flags.has_ended(),
            has_session: connection.flags.has_session(),
            messages: MessageCount::default(),
            out_bytes_high: start + room as usize,
        };
        let before = connection.heap_bytes();
        let flow = step(connection, &mut context);
        let MessageCount { received, sent, any_ended } = context.messages;
        let held = connection.heap_bytes();
        self.unfinished_bytes = self.unfinished_bytes + held - before;
        self.counters.received_messages.add(received.into());
        self.counters.sent_messages.add(sent.into());
        let transport = connection.traits().kind;
        if transport as usize != connection.flags.counted() {
            self.counters.connections[connection.flags.counted()].subtract(1);
            connection.flags.set_counted(transport);
            self.counters.connections[transport as usize].add(1);
        }
        let written = self.batch.turn.len() - start;
        if written > 0 {
            self.written += written;
            enqueue(connection, &mut self.queues, &mut self.batch.turn, start);
            mark(connection, index, &mut self.dirty);
            if connection.queue.bytes() > self.settings.send_queue_bytes_high {
                self.pause(index, Pause::Queue);
            }
        }
        match flow {
            Flow::AwaitReply => self.pause(index, Pause::Reply),
            Flow::AwaitDrain => {
                self.pause(index, Pause::Queue);
                self.unpause(index, Pause::Reply);
            }
            Flow::Receive => self.unpause(index, Pause::Reply),
            Flow::Closed | Flow::Hold(_) => {}
        }
        if !self.outputs.is_empty() {
            self.take_outputs(session);
        }
        if held > 0 {
            let connection = self.table.at(index);
            if before == 0 || any_ended {
                connection.restart_message(self.tick);
            }
            if connection.unfinished_since().is_some() && !self.table.is_watched(index as usize) {
                self.table.watch(index, true);
            }
        }
        flow
    }

    fn take_outputs(&mut self, session: SessionId) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Request(request) => self.request(session, request),
                Output::Close(reason) => self.end_conversation(session.index, reason),
                Output::Deadline(after) => self.set_deadline(session.index, after),
                Output::DeadlineWithin(within) => {
                    self.set_deadline(session.index, within.saturating_sub(LATENESS_MAX));
                }
                Output::HttpError => self.counters.http_errors.add(1),
                Output::Refused => self.counters.rejected_low_memory.add(1),
                Output::Leave => self.leave(session),
                Output::Ask(question) => self.questions.push((socket_id(session), question)),
                Output::ProxyFault(message) => self.warn_of_proxy(message),
                Output::BehindProxy => {
                    warn!("{BEHIND_PROXY}");
                    self.withdraw_statistics();
                }
                Output::HandshakeFailed(cause) => {
                    self.counters.handshakes_failed[cause as usize].add(1);
                }
            }
        }
        self.outputs = outputs;
    }

    /// Each request through a proxy that is not set up for this server fails alike: once a minute is enough.
    fn warn_of_proxy(&mut self, message: &str) {
        if self.tick >= self.proxy_warned_until {
            self.proxy_warned_until =
                self.tick.saturating_add(Sweep::ticks(PROXY_WARNING_INTERVAL));
            warn!("{message}");
        }
    }

    /// Ends a connection's session, if it has one.
    pub(super) fn leave(&mut self, session: SessionId) {
        self.forget_deferred(session);
        let flags = &mut self.table.at(session.index).flags;
        if flags.has_session() {
            flags.set_session(false);
            self.hub.close(session, &mut self.hub_outputs);
        }
    }

    /// Polls that the fan-out answered are over: their connections take the next request.
    pub(super) fn finish_answers(&mut self) {
        for index in std::mem::take(&mut self.answered) {
            if self.table.at(index).flags.is_open() {
                self.converse(index, |connection, context| connection.drained(context));
            }
        }
        self.carry();
    }

    /// Carries what the hub said to whom it is for, and what follows from that, until nothing is left.
    pub(super) fn carry(&mut self) {
        while let Some(output) = self.hub_outputs.pop_front() {
            match output {
                hub::Output::Send { to, message } if to == self.settings.hub.worker => {
                    self.handle_message(message);
                }
                hub::Output::Send { to, message } => self.mesh.send(to, message),
                hub::Output::Later(message) => self.mesh.send(self.settings.hub.worker, message),
                hub::Output::Reply { session, id, reply } => {
                    self.reply(session, id, &reply);
                }
                hub::Output::Deliver { session, .. } if !self.is_open(socket_id(session)) => {}
                hub::Output::Deliver { session, channel, items } => {
                    self.counters.deliveries.add(items.len() as u64);
                    self.counters.sent_messages.add(items.len() as u64);
                    self.converse(session.index, |connection, context| {
                        connection.deliver_alone(&channel, &items, context)
                    });
                }
                hub::Output::Control { receipt, session, control } => {
                    let reply = self.control(session, control);
                    hub::reply_to(receipt, reply, &mut self.hub_outputs);
                }
            }
        }
    }

    /// Does what the server API wants done with a client, if it is there still. A plain WebSocket or a poll has its
    /// channels from its address, and no words to be told of others.
    fn control(&mut self, session: SessionId, control: Control) -> Reply {
        if !self.is_open(socket_id(session)) {
            return Reply::Done;
        }
        let accepts = self.table.at(session.index).traits().accepts_server_subscriptions;
        if !accepts && !matches!(control, Control::Disconnect(_)) {
            return Reply::Refused(Refusal::NotAvailable);
        }
        let (origin, by) = (Some(Origin::Server), Actor::Server);
        match control {
            Control::Disconnect(farewell) => self.close(session.index, farewell),
            Control::Subscribe { channel, since } => {
                let request = Request::Subscribe { channel, since, needs_all: false };
                self.request(session, SessionRequest { origin, by, request });
            }
            Control::Unsubscribe { channel } => {
                let request = Request::Unsubscribe { channel };
                self.request(session, SessionRequest { origin, by, request });
            }
        }
        Reply::Done
    }

    /// A message from another worker, or this one, and what follows from it.
    pub fn receive_message(&mut self, message: HubMessage) {
        self.handle_message(message);
        self.carry();
    }

    fn handle_message(&mut self, message: HubMessage) {
        if matches!(message, HubMessage::Stream(StreamMessage::Publish { .. })) {
            self.counters.publications.add(1);
        }
        self.hub.handle_message(message, &mut self.hub_outputs);
    }

    pub(super) fn reply(&mut self, session: SessionId, id: RequestId, reply: &Reply) {
        // Before it is written: a poll's session ends with its answer, and what it awaited is forgotten then.
        let is_long = self.deferred.settle(session, id);
        let before = self.written;
        if self.is_open(socket_id(session)) {
            self.converse(session.index, |connection, context| {
                connection.reply(id.origin, reply, context)
            });
        }
        if is_long {
            self.deferred.count_answer(reply, self.written - before);
        }
    }
}

const BEHIND_PROXY: &str = "a request came through a proxy, and api.key is not set: everyone whom the \
    proxy lets through may publish and call the server API. What was open because only this host was served is closed \
    now: the page, the statistics, and other origins, unless http.page, statistics and http.origins say otherwise";

/// Queues what was written to the turn's bytes from `start` on.
pub(super) fn enqueue(
    connection: &mut Connection,
    queues: &mut QueueArena,
    turn: &mut Vec<u8>,
    start: usize,
) {
    if connection.flags.is_blocked() || turn.len() - start > TURN_SEGMENT_BYTES_MAX {
        // It leaves in a later turn, or is too large to stand among the turn's bytes.
        let frame = SharedFrame::copy_of(&turn[start..]);
        turn.truncate(start);
        queues.push(&mut connection.queue, frame);
    } else {
        queues.push_turn(&mut connection.queue, turn, start);
    }
}
