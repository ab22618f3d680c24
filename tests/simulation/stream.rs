//! The expected streams: offsets assigned by home workers, and the views that clients may have of them.

use std::collections::HashMap;
use std::time::Duration;

use fantail::config::{ChannelOptions, Namespaces, SlowConsumer};
use fantail::message::{Epoch, Position};

use crate::world::Random;

/// A channel of the world, with the properties that follow from its options.
pub struct Channel {
    pub name: &'static str,
    /// Whether the observer subscribes to it.
    pub is_observed: bool,
    /// Which publications its history keeps.
    pub history: History,
    pub slow_consumer: SlowConsumer,
    /// Whether its delivery rate is limited, so that publications are dropped even if no client is slow.
    pub is_rated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    None,
    /// Fewer than a client may miss, or for a shorter time.
    Partial,
    /// All that a client may miss, if they fit into one reply.
    Complete,
}

const PLAIN: Channel = Channel {
    name: "plain",
    is_observed: false,
    history: History::None,
    slow_consumer: SlowConsumer::Disconnect,
    is_rated: false,
};
const KEPT: Channel = Channel { name: "kept:1", history: History::Complete, ..PLAIN };

pub const CHANNELS: [Channel; 9] = [
    Channel { name: "lobby", is_observed: true, ..PLAIN },
    PLAIN,
    Channel { is_observed: true, ..KEPT },
    Channel { name: "few:1", history: History::Partial, ..KEPT },
    Channel { name: "short:1", history: History::Partial, ..KEPT },
    Channel { name: "paced:1", ..KEPT },
    Channel { name: "latest:1", slow_consumer: SlowConsumer::Latest, ..KEPT },
    Channel { name: "drop:1", slow_consumer: SlowConsumer::DropOldest, ..KEPT },
    Channel { name: "rated:1", slow_consumer: SlowConsumer::DropOldest, is_rated: true, ..KEPT },
];

/// The options of these channels. Values that [`CHANNELS`] does not fix are random.
pub fn namespaces(random: &mut Random) -> Namespaces {
    let kept = || ChannelOptions { history_size: 1000, ..ChannelOptions::open() };
    let mut namespaces = Namespaces::new(ChannelOptions::open());
    let mut add = |name, options| namespaces.add(name, options).expect("valid options");
    add("kept", kept());
    add("few", ChannelOptions { history_size: random.pick(&[1, 3, 8]), ..kept() });
    let history_ttl = Duration::from_millis(random.pick(&[1000, 1000, 2300]));
    add("short", ChannelOptions { history_ttl, ..kept() });
    let batch_delay = Duration::from_millis(random.pick(&[1, 20, 20, 50]));
    add("paced", ChannelOptions { batch_delay, ..kept() });
    add("latest", ChannelOptions { slow_consumer: SlowConsumer::Latest, ..kept() });
    let slow_consumer = SlowConsumer::DropOldest;
    add("drop", ChannelOptions { slow_consumer, backlog_size: random.pick(&[1, 3, 16]), ..kept() });
    let (backlog_size, delivery_rate_max) = (random.pick(&[1, 4]), random.pick(&[20, 50, 50, 200]));
    add("rated", ChannelOptions { slow_consumer, backlog_size, delivery_rate_max, ..kept() });
    namespaces
}

/// A payload contains its channel, its publisher, and its number among the publisher's publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Payload {
    pub channel: usize,
    pub publisher: u32,
    pub number: u32,
}

impl Payload {
    pub fn read(text: &str) -> Self {
        let mut parts = text.trim_matches('"').split('.').map(|part| part.parse::<u32>());
        let mut part = || parts.next().expect("three parts").expect("each is a number");
        Self { channel: part() as usize, publisher: part(), number: part() }
    }

    /// Encodes the payload, followed by `padding` bytes.
    pub fn write(self, padding: usize) -> String {
        let Self { channel, publisher, number } = self;
        format!("{channel}.{publisher}.{number}.{}", "x".repeat(padding))
    }
}

/// Publications and their positions, as observed by any client.
#[derive(Default)]
pub struct Streams {
    numbered: HashMap<(usize, Epoch, u64), Payload>,
    positions: HashMap<Payload, Position>,
    /// The epochs of channels with a complete history, which must not change.
    epochs: HashMap<usize, Epoch>,
    /// Whether the history of a channel was removed.
    pub is_removed: [bool; CHANNELS.len()],
    pub counts: Counts,
    /// Acknowledged publications, while they are recorded.
    pub acknowledged: Option<Vec<Payload>>,
}

/// How often the random steps reached each case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub complete: u64,
    pub recovered: u64,
    pub impossible: u64,
    pub gaps: u64,
    pub skipped: u64,
    pub slow: u64,
    pub disconnects: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        let Self { complete, recovered, impossible, gaps, skipped, slow, disconnects } = other;
        self.complete += complete;
        self.recovered += recovered;
        self.impossible += impossible;
        self.gaps += gaps;
        self.skipped += skipped;
        self.slow += slow;
        self.disconnects += disconnects;
    }
}

impl Streams {
    /// Records that a client received a publication at a position: all clients must receive the same one there, and at
    /// no other position.
    pub fn note(&mut self, channel: usize, position: Position, payload: Payload) {
        assert_eq!(payload.channel, channel, "{payload:?} arrived in another channel");
        self.check_epoch(channel, position.epoch);
        let Position { epoch, offset } = position;
        let first = *self.numbered.entry((channel, epoch, offset)).or_insert(payload);
        assert_eq!(first, payload, "two publications at {channel}, {position:?}");
        let first_position = *self.positions.entry(payload).or_insert(position);
        assert_eq!(first_position, position, "{payload:?} has two positions");
    }

    /// The position of a publication, if a client that receives positions has received it.
    pub fn position_of(&self, payload: Payload) -> Option<Position> {
        self.positions.get(&payload).copied()
    }

    /// Checks that the publications of each publisher are in their original order.
    pub fn judge_order(&self) {
        let mut all: Vec<_> = self.numbered.iter().collect();
        all.sort_by_key(|((channel, epoch, offset), _)| (*channel, *epoch, *offset));
        let mut last = HashMap::new();
        for ((channel, epoch, offset), payload) in all {
            let key = (*channel, *epoch, payload.publisher);
            if let Some(before) = last.insert(key, payload.number) {
                assert!(before < payload.number, "{payload:?} at {offset} follows {before}");
            }
        }
    }

    /// Records that the server acknowledged a publication.
    pub fn acknowledge(&mut self, payload: Payload) {
        if let Some(acknowledged) = &mut self.acknowledged {
            acknowledged.push(payload);
        }
    }

    fn check_epoch(&mut self, channel: usize, epoch: Epoch) {
        if CHANNELS[channel].history == History::Complete {
            let first = *self.epochs.entry(channel).or_insert(epoch);
            assert_eq!(first, epoch, "channel {channel} changed its epoch");
        }
    }
}

/// One client's view of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    pub state: State,
    /// The offset up to which it has received everything.
    pub position: Option<Position>,
    /// Reported dropped publications that no publication has followed yet.
    pub gap: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Unsubscribed,
    /// Its subscribe is not yet answered.
    Subscribing,
    Subscribed,
    /// Its unsubscribe is not yet answered.
    Unsubscribing,
}

/// Number of missed publications that always fits into one reply.
const FITTING: u64 = 4;

impl View {
    /// Processes the position in a reply. `since` is the position in the request; `is_reported` is whether the reply
    /// reports a loss.
    pub fn begin(
        &mut self,
        channel: usize,
        since: Option<Position>,
        at: Position,
        is_reported: bool,
        streams: &mut Streams,
    ) {
        streams.check_epoch(channel, at.epoch);
        self.gap = 0;
        self.position = Some(at);
        let Some(since) = since else { return assert!(!is_reported, "no recovery was requested") };
        if !is_reported {
            streams.counts.complete += 1;
            return assert_eq!(since, at, "channel {channel}: continues at its position");
        }
        streams.counts.impossible += 1;
        let missed = at.offset.checked_sub(since.offset);
        let is_kept =
            CHANNELS[channel].history == History::Complete && !streams.is_removed[channel];
        let is_unnecessary =
            is_kept && since.epoch == at.epoch && missed.is_some_and(|missed| missed <= FITTING);
        assert!(!is_unnecessary, "channel {channel}: {since:?} to {at:?} is kept");
    }

    /// Processes a report of dropped publications.
    pub fn on_gap(&mut self, channel: usize, dropped: u64, may_skip: bool, streams: &mut Streams) {
        assert!(self.is_subscribed(), "channel {channel}: a gap without a subscription");
        let channel = &CHANNELS[channel];
        assert_eq!(channel.slow_consumer, SlowConsumer::DropOldest, "{}", channel.name);
        assert!(
            dropped > 0 && (may_skip || channel.is_rated),
            "{}: an unnecessary gap",
            channel.name
        );
        self.gap += dropped;
        streams.counts.gaps += 1;
    }

    /// Processes a publication.
    pub fn on_publication(
        &mut self,
        channel: usize,
        at: Position,
        payload: Payload,
        may_skip: bool,
        streams: &mut Streams,
    ) {
        assert!(self.is_subscribed(), "channel {channel}: {payload:?} without a subscription");
        let before = self.position.expect("a subscription has a position");
        let expected = Position { epoch: before.epoch, offset: before.offset + 1 + self.gap };
        if CHANNELS[channel].slow_consumer == SlowConsumer::Latest && may_skip && at != expected {
            assert!(at.epoch == before.epoch && at.offset > expected.offset, "{at:?}: {self:?}");
            streams.counts.skipped += 1;
        } else {
            assert_eq!(at, expected, "channel {channel}: after {self:?}");
        }
        (self.position, self.gap) = (Some(at), 0);
        streams.note(channel, at, payload);
    }

    /// Processes the end of the connection.
    pub fn cut(&mut self) {
        (self.state, self.gap) = (State::Unsubscribed, 0);
    }

    /// Checks the view of an idle client against the last position of the channel.
    pub fn judge(&self, channel: usize, last: Position) {
        assert!(
            matches!(self.state, State::Unsubscribed | State::Subscribed),
            "channel {channel}: unanswered: {self:?}"
        );
        if self.state == State::Subscribed {
            assert_eq!(self.gap, 0, "channel {channel}: {self:?}");
            assert_eq!(self.position, Some(last), "channel {channel} ends elsewhere");
        }
    }

    fn is_subscribed(&self) -> bool {
        matches!(self.state, State::Subscribed | State::Unsubscribing)
    }
}
