//! Checks of an idle world: the views of clients and the counters of workers.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fantail::config::limits::HALF_CLOSED_LINGER;
use fantail::driver::Faults;
use fantail::message::{CloseReason, Position, TransportKind};
use serde_json::json;

use crate::client::Kind;
use crate::stream::{CHANNELS, Counts, Payload};
use crate::world::{CONNECTIONS_MAX, Call, World};

/// The expected counters of one worker.
#[derive(Default)]
struct Recount {
    transports: [u64; TransportKind::LABELS.len()],
    subscriptions: u64,
    channels: HashSet<usize>,
}

/// Close reasons that no client of these worlds causes.
const NEVER: &[CloseReason] = &[CloseReason::InvalidUtf8, CloseReason::MessageTooBig];

/// Rounds without a byte after which a world is idle: longer than every delay.
const QUIET_ROUNDS: usize = 15;

/// Half seconds until the server drops silent connections, plus one for every worker to detect them.
const PATIENCE_ROUNDS: usize = 20;

/// Rounds in which half-closed connections are probed and time out.
const LINGER_ROUNDS: usize = 12;

/// What the position of a channel that is gone costs.
const POSITION_BYTES: u64 = 56;

impl World {
    /// Removes all faults and runs until the world is idle.
    pub fn settle(&mut self) {
        self.set_faults(Faults::default());
        for peer in self.silent.drain(..) {
            self.network.reset(peer);
        }
        for client in &mut self.clients {
            client.is_stalled = false;
            if let Some(link) = &client.link {
                self.network.set_window(link.peer, 1 << 30);
            }
        }
        let mut quiet = 0;
        for _ in 0..10_000 {
            for worker in &mut self.workers {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(10));
            quiet = if self.read_all() { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                return;
            }
        }
        panic!("the world does not become idle");
    }

    /// Publishes a last time to each channel, and compares the view of each client with that position.
    pub fn judge(&mut self) -> Counts {
        assert!(self.operator.call.is_none(), "the last call is answered");
        let payloads: Vec<_> =
            (0..CHANNELS.len()).map(|channel| self.operator.next_payload(channel)).collect();
        let command = |payload: &Payload| json!({"publish": {"channel": CHANNELS[payload.channel].name, "data": payload.write(20)}});
        let commands: Vec<_> = payloads.iter().map(command).collect();
        self.call("batch", &json!({"commands": commands}), Call::Publish(payloads.clone()));
        self.settle();
        let position = |payload: &Payload| {
            self.streams.position_of(*payload).expect("the publication is acknowledged")
        };
        let last: Vec<_> = payloads.iter().map(position).collect();
        self.streams.judge_order();
        let slow = self.closed(CloseReason::SlowConsumer);
        self.streams.counts.slow = slow;
        for (index, client) in self.clients.iter().enumerate() {
            let is_lost = client.is_observer && client.link.is_none();
            assert!(!is_lost || slow > 0, "an observer was disconnected");
            for (channel, view) in client.views.iter().enumerate() {
                // Between two polls no client is subscribed: the next poll continues.
                if client.kind == Kind::Polls {
                    let at = view.position.filter(|_| client.link.is_some());
                    assert!(at.is_none_or(|at| at == last[channel]), "{index}: {view:?}");
                } else {
                    view.judge(channel, last[channel]);
                }
            }
            if let [channel] = client.named[..]
                && client.kind == Kind::Plain
            {
                let is_there = client.link.is_some();
                self.judge_plain(&client.seen, is_there.then_some(last[channel]));
            }
        }
        self.streams.counts
    }

    /// Checks that a plain WebSocket received a contiguous part of the stream, up to its end if it is still connected.
    fn judge_plain(&self, seen: &[Payload], last: Option<Position>) {
        let position = |payload: &Payload| self.streams.position_of(*payload);
        let positions: Vec<_> = seen.iter().map_while(position).collect();
        if positions.len() < seen.len() {
            // No other client was subscribed.
            let observer = self.clients.iter().find(|client| client.is_observer);
            return assert!(
                observer.is_some_and(|it| it.link.is_none()),
                "an observer missed a publication"
            );
        }
        for pair in positions.windows(2) {
            let next = Position { offset: pair[0].offset + 1, ..pair[0] };
            assert_eq!(
                pair[1], next,
                "a plain WebSocket received a gap, a duplicate or a wrong order"
            );
        }
        assert!(last.is_none() || positions.last().copied() == last, "{last:?} is not the end");
    }

    /// Runs until half-closed connections have timed out.
    fn expire_half_closed(&mut self) {
        for _ in 0..LINGER_ROUNDS {
            self.turn_all();
            self.network.advance(HALF_CLOSED_LINGER / 5);
            self.read_all();
        }
    }

    /// Compares the counters of the workers with the connected clients and their subscriptions.
    pub fn recount(&mut self) {
        self.expire_half_closed();
        self.settle();
        // Connections that timed out at the last moment still receive their close.
        for _ in 0..QUIET_ROUNDS {
            self.turn_all();
            self.read_all();
        }
        let mut counts: Vec<_> = self.workers.iter().map(|_| Recount::default()).collect();
        let mut add = |peer, transport: TransportKind, channels: &[usize]| {
            let worker = self.network.worker_of(peer).expect("the peer is connected");
            let count = &mut counts[worker];
            count.transports[transport as usize] += 1;
            count.subscriptions += channels.len() as u64;
            count.channels.extend(channels);
        };
        add(self.operator.link.peer, TransportKind::Http, &[]);
        for client in &self.clients {
            let Some(link) = &client.link else { continue };
            assert!(client.is_answered(), "every command is answered");
            add(link.peer, client.kind.transport(), &client.subscribed());
        }
        for (counters, count) in self.counters.iter().zip(counts) {
            let transports = counters.connections.iter().map(|(_, counter)| counter.value());
            assert_eq!(
                transports.collect::<Vec<_>>(),
                count.transports,
                "connections by transport"
            );
            let open: u64 = count.transports.iter().sum();
            assert_eq!(counters.connections_open.value(), open, "connections");
            assert_eq!(counters.subscriptions.value(), count.subscriptions, "subscriptions");
            assert_eq!(counters.channels.value(), count.channels.len() as u64, "channels");
        }
        self.expect_idle();
        self.expect_balance();
        let most = self.config.history_bytes_max / self.counters.len() as u64;
        for counters in self.counters.iter() {
            assert!(counters.history_bytes.value() <= most, "histories exceed their limit");
        }
        if self.open_max == CONNECTIONS_MAX {
            assert_eq!(self.closed(CloseReason::Overloaded), 0, "memory is sufficient");
            // Rejected connections have a shorter timeout.
            assert_eq!(
                self.closed(CloseReason::HandshakeTimeout),
                0,
                "requests finish before their timeout"
            );
        }
        let numbered = self.sum(|counters| &counters.publications);
        let (published, acknowledged) = self.published();
        assert!(numbered <= published, "{numbered} of {published} publications");
        assert!(numbered >= acknowledged, "{numbered} publications, {acknowledged} acknowledged");
    }

    /// Checks that all queues are empty.
    pub fn expect_idle(&self) {
        for counters in self.counters.iter() {
            for (counter, what) in [
                (&counters.send_queue_bytes, "queued bytes"),
                (&counters.unfinished_message_bytes, "unfinished messages"),
                (&counters.paused_publisher_bytes, "paused publishers"),
                (&counters.deferred_request_bytes, "deferred requests"),
                (&counters.mesh_inbox_bytes, "messages between workers"),
                (&counters.fan_outs_in_progress, "fan-outs"),
                (&counters.fan_out_backlog_publications, "publications in the backlog"),
                (&counters.fan_out_backlog_bytes, "bytes in the backlog"),
            ] {
                assert_eq!(counter.value(), 0, "{what}");
            }
            let kept = counters.history_bytes.value() + counters.channel_backlog_bytes.value();
            // Beside them, the positions of channels that are gone.
            let beside = counters.memory_used_bytes.value().checked_sub(kept);
            assert!(
                beside.is_some_and(|bytes| bytes.is_multiple_of(POSITION_BYTES)),
                "only histories and backlogs use memory, but {beside:?}"
            );
        }
    }

    /// Checks that each connection was accepted or rejected, and that each accepted one is open or was closed with a
    /// reason.
    fn expect_balance(&self) {
        let accepted = self.sum(|counters| &counters.connections_accepted);
        let refused =
            self.sum(|counters| counters.connections_rejected.labelled("connection_limit"));
        let came = self.network.connections() as u64;
        if self.open_max == CONNECTIONS_MAX {
            assert_eq!((accepted, refused), (came, 0), "connection attempts");
        } else {
            // Some rejected connections are accepted first, to send them an error.
            assert!(accepted <= came && came <= accepted + refused, "{accepted} {refused} {came}");
        }
        let open = self.sum(|counters| &counters.connections_open);
        assert_eq!(open, self.open.load(Ordering::Relaxed) as u64, "connections of all workers");
        let closed: u64 =
            self.counters.iter().map(|counters| counters.connections_closed.sum()).sum();
        assert_eq!(accepted, open + closed, "accepted connections");
        for reason in NEVER {
            assert_eq!(self.closed(*reason), 0, "{reason:?}");
        }
    }

    pub fn close_all(&mut self) {
        for client in &mut self.clients {
            if let Some(link) = &client.link {
                self.network.close(link.peer);
            }
            client.cut();
        }
        self.network.reset(self.operator.link.peer);
    }

    /// Runs until connections of vanished clients have timed out.
    pub fn forget(&mut self) {
        for _ in 0..PATIENCE_ROUNDS {
            for worker in &mut self.workers {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(500));
        }
    }

    /// Checks that every connection is closed and all state is freed.
    pub fn expect_empty(&self) {
        for counters in self.counters.iter() {
            assert_eq!(counters.connections_open.value(), 0, "connections");
            assert_eq!(counters.channels.value(), 0, "channels");
            assert_eq!(counters.subscriptions.value(), 0, "subscriptions");
            assert_eq!(counters.channel_backlog_bytes.value(), 0, "backlogs");
        }
        self.expect_balance();
    }
}
