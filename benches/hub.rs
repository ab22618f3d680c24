//! Cost of the hub by number of channels: a publication to a channel with one subscriber, and a subscribe followed by an
//! unsubscribe. One worker, which is the home worker of all channels.
//!
//! Budgets, on a 2020s server core: a publication under 0.5 µs among a thousand channels, and under 4 µs among a million
//! in an order that caches cannot predict, because each takes a dozen reads of uncached memory; a subscribe and
//! unsubscribe under 1 µs, independent of the number of channels.

#![expect(clippy::unwrap_used, reason = "a bench is a program of its own")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fantail::config::{ChannelOptions, Namespaces};
use fantail::hub::{
    Author, ChannelHash, FanOutStep, Hub, HubLimits, HubOutput, HubSettings, Visit,
};
use fantail::message::{
    ChannelName, NodeId, Origin, Payload, PayloadKind, Request, RequestId, SessionId, WorkerId,
};

/// A hub with a subscriber in each of its channels.
struct Channels {
    hub: Hub,
    names: Vec<ChannelName>,
    out: VecDeque<HubOutput>,
    next: usize,
}

/// Replies are ignored.
const REQUEST: RequestId = RequestId { serial: 1, origin: Origin::Server };

impl Channels {
    fn new(count: usize) -> Self {
        let options = ChannelOptions::open();
        let hub = Hub::new(HubSettings {
            node: NodeId::new(1),
            worker: WorkerId(0),
            workers: 1,
            sessions_max: count + 1,
            limits: HubLimits {
                subscriptions_max: 8,
                history_bytes_max: 0,
                answer_bytes_max: 1 << 20,
                backlog_bytes_max: 1 << 20,
                position_ttl: Duration::ZERO,
                expired_close_delay: Duration::from_secs(25),
            },
            hash: ChannelHash::with_key(1),
            namespaces: Arc::new(Namespaces::new(options)),
        });
        let names = (0..=count).map(|index| ChannelName::new(&format!("bench-{index}")).unwrap());
        let mut channels = Self { hub, names: names.collect(), out: VecDeque::new(), next: 0 };
        for index in 0..count {
            channels.hub.open(session(index));
            channels.subscribe(index, index);
        }
        channels.hub.open(session(count));
        channels
    }

    /// Publishes to the next channel, in an order that caches cannot predict.
    fn publish(&mut self) {
        let count = self.names.len() - 1;
        self.next = (self.next + 7919 * 7919) % count;
        let request = Request::Publish {
            channel: Some(self.names[self.next].clone()),
            payload: Payload::new(PayloadKind::Text, "x"),
            options: None,
        };
        self.hub.handle(session(self.next), None, Author::Client, request, &mut self.out);
        self.route();
        let mut delivered = 0;
        self.hub.fan_out(usize::MAX, |step| {
            delivered += usize::from(matches!(step, FanOutStep::Deliver { .. }));
            Visit::Cost(1)
        });
        assert_eq!(delivered, 1);
    }

    /// The last session subscribes to a channel of its own and unsubscribes.
    fn subscribe_and_unsubscribe(&mut self) {
        let count = self.names.len() - 1;
        self.subscribe(count, count);
        let request = Request::Unsubscribe { channel: self.names[count].clone() };
        self.hub.handle(session(count), Some(REQUEST), Author::Client, request, &mut self.out);
        self.route();
    }

    fn subscribe(&mut self, index: usize, name: usize) {
        let channel = self.names[name].clone();
        let request = Request::subscribe(channel, None);
        self.hub.handle(session(index), Some(REQUEST), Author::Client, request, &mut self.out);
        self.route();
    }

    fn route(&mut self) {
        while let Some(output) = self.out.pop_front() {
            if let HubOutput::Send { message, .. } = output {
                self.hub.handle_message(message, &mut self.out);
            }
        }
    }
}

fn session(index: usize) -> SessionId {
    SessionId { index: u32::try_from(index).unwrap(), generation: 1 }
}

fn hub(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hub");
    group.sample_size(20).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    for count in [1_000, 1_000_000] {
        let mut channels = Channels::new(count);
        group.bench_function(format!("publish/{count}_channels"), |bencher| {
            bencher.iter(|| channels.publish());
        });
        group.bench_function(format!("subscribe_and_unsubscribe/{count}_channels"), |bencher| {
            bencher.iter(|| channels.subscribe_and_unsubscribe());
        });
    }
    group.finish();
}

criterion_group!(benches, hub);
criterion_main!(benches);
