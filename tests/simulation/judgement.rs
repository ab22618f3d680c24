//! What must be true once everything has come to rest: of what clients saw, and of what the workers count.

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

/// What one worker should count.
#[derive(Default)]
struct Recount {
    transports: [u64; TransportKind::LABELS.len()],
    subscriptions: u64,
    channels: HashSet<usize>,
}

/// Reasons that no client of these worlds gives.
const NEVER: &[CloseReason] = &[CloseReason::InvalidUtf8, CloseReason::MessageTooBig];

/// Rounds without a byte after which nothing is on its way: longer than anything waits for its moment.
const QUIET_ROUNDS: usize = 15;

/// Half seconds of that patience, and one more for every worker to notice.
const PATIENCE_ROUNDS: usize = 20;

/// Rounds for those who closed their half to be asked whether they are there, and to have their time.
const LINGER_ROUNDS: usize = 12;

impl World {
    /// Lets everything come to rest.
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
        panic!("no rest");
    }

    /// Publishes a last word to each channel, and compares what everyone has with where that is.
    pub fn judge(&mut self) -> Counts {
        assert!(self.operator.call.is_none(), "everything is answered");
        let words: Vec<_> =
            (0..CHANNELS.len()).map(|channel| self.operator.word(channel)).collect();
        let command = |word: &Payload| json!({"publish": {"channel": CHANNELS[word.channel].name, "data": word.write(20)}});
        let commands: Vec<_> = words.iter().map(command).collect();
        self.call("batch", &json!({"commands": commands}), Call::Publish(words.clone()));
        self.settle();
        let place = |word: &Payload| self.streams.place(*word).expect("it is answered");
        let last: Vec<_> = words.iter().map(place).collect();
        self.streams.judge_order();
        let slow = self.closed(CloseReason::SlowConsumer);
        self.streams.counts.slow = slow;
        for (index, client) in self.clients.iter().enumerate() {
            let is_lost = client.is_observer && client.link.is_none();
            assert!(!is_lost || slow > 0, "an observer was cut off");
            for (channel, view) in client.views.iter().enumerate() {
                // Between two polls, nobody is subscribed: the next one goes on.
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

    /// What a plain WebSocket saw is a piece of the stream, up to its end if it is still there.
    fn judge_plain(&self, seen: &[Payload], last: Option<Position>) {
        let place = |payload: &Payload| self.streams.place(*payload);
        let places: Vec<_> = seen.iter().map_while(place).collect();
        if places.len() < seen.len() {
            // Nobody else was there.
            let observer = self.clients.iter().find(|client| client.is_observer);
            return assert!(observer.is_some_and(|it| it.link.is_none()), "an observer missed it");
        }
        for pair in places.windows(2) {
            let next = Position { offset: pair[0].offset + 1, ..pair[0] };
            assert_eq!(pair[1], next, "a plain WebSocket sees a gap, a swap or a duplicate");
        }
        assert!(last.is_none() || places.last().copied() == last, "{last:?} is not the end");
    }

    /// Lets the server's patience with those who closed their half end.
    fn outlast(&mut self) {
        for _ in 0..LINGER_ROUNDS {
            self.turn_all();
            self.network.advance(HALF_CLOSED_LINGER / 5);
            self.read_all();
        }
    }

    /// Compares what the workers count with who is there, and what they have.
    pub fn recount(&mut self) {
        self.outlast();
        self.settle();
        // What ends by its time at the last moment has yet to be told so.
        for _ in 0..QUIET_ROUNDS {
            self.turn_all();
            self.read_all();
        }
        let mut counts: Vec<_> = self.workers.iter().map(|_| Recount::default()).collect();
        let mut add = |peer, transport: TransportKind, channels: &[usize]| {
            let worker = self.network.worker_of(peer).expect("it is connected");
            let count = &mut counts[worker];
            count.transports[transport as usize] += 1;
            count.subscriptions += channels.len() as u64;
            count.channels.extend(channels);
        };
        add(self.operator.link.peer, TransportKind::Http, &[]);
        for client in &self.clients {
            let Some(link) = &client.link else { continue };
            assert!(client.is_answered(), "everything that was asked is answered");
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
        self.expect_rest();
        self.expect_balance();
        let most = self.config.history_bytes_max / self.counters.len() as u64;
        for counters in self.counters.iter() {
            assert!(counters.history_bytes.value() <= most, "histories have their room");
        }
        if self.open_max == CONNECTIONS_MAX {
            assert_eq!(self.closed(CloseReason::Overloaded), 0, "there is memory");
            // Without a place, they have little.
            assert_eq!(self.closed(CloseReason::HandshakeTimeout), 0, "requests have their time");
        }
        let numbered = self.sum(|counters| &counters.publications);
        let (published, acknowledged) = self.published();
        assert!(numbered <= published, "{numbered} of {published} publications");
        assert!(numbered >= acknowledged, "{numbered} publications, {acknowledged} acknowledged");
    }

    /// Nothing waits for anything.
    pub fn expect_rest(&self) {
        for counters in self.counters.iter() {
            for (counter, what) in [
                (&counters.send_queue_bytes, "queued bytes"),
                (&counters.unfinished_message_bytes, "unfinished messages"),
                (&counters.paused_publisher_bytes, "held publishers"),
                (&counters.deferred_request_bytes, "deferred requests"),
                (&counters.mesh_inbox_bytes, "messages between workers"),
                (&counters.fan_outs_in_progress, "fan-outs"),
                (&counters.fan_out_backlog_publications, "publications that wait"),
                (&counters.fan_out_backlog_bytes, "bytes that wait"),
            ] {
                assert_eq!(counter.value(), 0, "{what}");
            }
            let kept = counters.history_bytes.value() + counters.channel_backlog_bytes.value();
            assert_eq!(counters.memory_used_bytes.value(), kept, "only what channels keep");
        }
    }

    /// Whoever came was accepted or refused, and whoever was accepted is there or was closed for a reason.
    fn expect_balance(&self) {
        let accepted = self.sum(|counters| &counters.connections_accepted);
        let refused = self.sum(|counters| &counters.connections_rejected);
        let came = self.network.connections() as u64;
        if self.open_max == CONNECTIONS_MAX {
            assert_eq!((accepted, refused), (came, 0), "connections that came");
        } else {
            // Some of those that are refused are accepted, to be told so.
            assert!(accepted <= came && came <= accepted + refused, "{accepted} {refused} {came}");
        }
        let open = self.sum(|counters| &counters.connections_open);
        assert_eq!(open, self.open.load(Ordering::Relaxed) as u64, "connections of all workers");
        let closed: u64 =
            self.counters.iter().map(|counters| counters.connections_closed.sum()).sum();
        assert_eq!(accepted, open + closed, "connections that were accepted");
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

    /// Lets the server's patience with those who are gone end.
    pub fn forget(&mut self) {
        for _ in 0..PATIENCE_ROUNDS {
            for worker in &mut self.workers {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(500));
        }
    }

    /// Every connection has ended, and nothing is left of any.
    pub fn expect_empty(&self) {
        for counters in self.counters.iter() {
            assert_eq!(counters.connections_open.value(), 0, "connections");
            assert_eq!(counters.channels.value(), 0, "channels");
            assert_eq!(counters.subscriptions.value(), 0, "subscriptions");
            assert_eq!(counters.channel_backlog_bytes.value(), 0, "held back");
        }
        self.expect_balance();
    }
}
