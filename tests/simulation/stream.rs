//! The judge: what homes numbered, and what a client may see of it.

use std::collections::HashMap;
use std::time::Duration;

use fantail::config::{ChannelOptions, Namespaces, SlowConsumer};
use fantail::message::{Epoch, Position};

use crate::world::Dice;

/// A channel of the world, and what is known of its options.
pub struct Channel {
    pub name: &'static str,
    /// It has a subscriber that is never disturbed.
    pub is_observed: bool,
    /// What a position is good for, and for how long.
    pub keeps: Keeps,
    pub slow_consumer: SlowConsumer,
    /// Publications are dropped whoever is slow.
    pub is_rated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    Nothing,
    /// Less than a client may miss, or for a shorter time.
    Some,
    /// Whatever a client misses, as long as it fits one answer.
    All,
}

const PLAIN: Channel = Channel {
    name: "plain",
    is_observed: false,
    keeps: Keeps::Nothing,
    slow_consumer: SlowConsumer::Disconnect,
    is_rated: false,
};
const KEPT: Channel = Channel { name: "kept:1", keeps: Keeps::All, ..PLAIN };

pub const CHANNELS: [Channel; 9] = [
    Channel { name: "lobby", is_observed: true, ..PLAIN },
    PLAIN,
    Channel { is_observed: true, ..KEPT },
    Channel { name: "few:1", keeps: Keeps::Some, ..KEPT },
    Channel { name: "short:1", keeps: Keeps::Some, ..KEPT },
    Channel { name: "paced:1", ..KEPT },
    Channel { name: "latest:1", slow_consumer: SlowConsumer::Latest, ..KEPT },
    Channel { name: "drop:1", slow_consumer: SlowConsumer::DropOldest, ..KEPT },
    Channel { name: "rated:1", slow_consumer: SlowConsumer::DropOldest, is_rated: true, ..KEPT },
];

/// The options that these channels have, as far as [`CHANNELS`] leaves it to chance.
pub fn namespaces(dice: &mut Dice) -> Namespaces {
    let open = || ChannelOptions { publish: true, ..ChannelOptions::closed() };
    let kept = || ChannelOptions { history_size: 1000, ..open() };
    let mut namespaces = Namespaces::new(open());
    let mut add = |name, options| namespaces.add(name, options).expect("sound options");
    add("kept", kept());
    add("few", ChannelOptions { history_size: dice.pick(&[1, 3, 8]), ..kept() });
    let history_ttl = Duration::from_millis(dice.pick(&[1000, 1000, 2300]));
    add("short", ChannelOptions { history_ttl, ..kept() });
    let batch_delay = Duration::from_millis(dice.pick(&[1, 20, 20, 50]));
    add("paced", ChannelOptions { batch_delay, ..kept() });
    add("latest", ChannelOptions { slow_consumer: SlowConsumer::Latest, ..kept() });
    let slow_consumer = SlowConsumer::DropOldest;
    add("drop", ChannelOptions { slow_consumer, backlog_size: dice.pick(&[1, 3, 16]), ..kept() });
    let (backlog_size, delivery_rate_max) = (dice.pick(&[1, 4]), dice.pick(&[20, 50, 50, 200]));
    add("rated", ChannelOptions { slow_consumer, backlog_size, delivery_rate_max, ..kept() });
    namespaces
}

/// Payloads say where they were published, by whom, and as its how many.
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

    /// With so many bytes more.
    pub fn write(self, padding: usize) -> String {
        let Self { channel, publisher, number } = self;
        format!("{channel}.{publisher}.{number}.{}", "x".repeat(padding))
    }
}

/// What homes numbered, as far as anyone saw it.
#[derive(Default)]
pub struct Streams {
    numbered: HashMap<(usize, Epoch, u64), Payload>,
    places: HashMap<Payload, Position>,
    /// Of channels that keep all, which have one life here.
    epochs: HashMap<usize, Epoch>,
    /// Histories that were removed.
    pub is_removed: [bool; CHANNELS.len()],
    pub counts: Counts,
    /// What was acknowledged, while that is looked at.
    pub acknowledged: Option<Vec<Payload>>,
}

/// What the dice reached.
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
    /// Someone saw a publication here: everyone else must see the same there, and it only there.
    pub fn note(&mut self, channel: usize, position: Position, payload: Payload) {
        assert_eq!(payload.channel, channel, "{payload:?} came in another channel");
        self.live(channel, position.epoch);
        let Position { epoch, offset } = position;
        let first = *self.numbered.entry((channel, epoch, offset)).or_insert(payload);
        assert_eq!(first, payload, "two publications at {channel}, {position:?}");
        let place = *self.places.entry(payload).or_insert(position);
        assert_eq!(place, position, "{payload:?} has two numbers");
    }

    /// Where a publication is, if anyone who sees positions saw it.
    pub fn place(&self, payload: Payload) -> Option<Position> {
        self.places.get(&payload).copied()
    }

    /// A publisher's publications have the order in which it made them.
    pub fn judge_order(&self) {
        let mut all: Vec<_> = self.numbered.iter().collect();
        all.sort_by_key(|((channel, epoch, offset), _)| (*channel, *epoch, *offset));
        let mut last = HashMap::new();
        for ((channel, epoch, offset), payload) in all {
            let key = (*channel, *epoch, payload.publisher);
            if let Some(before) = last.insert(key, payload.number) {
                assert!(before < payload.number, "{payload:?} at {offset} comes after {before}");
            }
        }
    }

    /// The server says that it has a publication.
    pub fn acknowledge(&mut self, payload: Payload) {
        if let Some(acknowledged) = &mut self.acknowledged {
            acknowledged.push(payload);
        }
    }

    fn live(&mut self, channel: usize, epoch: Epoch) {
        if CHANNELS[channel].keeps == Keeps::All {
            let first = *self.epochs.entry(channel).or_insert(epoch);
            assert_eq!(first, epoch, "channel {channel} forgot itself");
        }
    }
}

/// What one client has of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    pub state: State,
    /// It has everything up to here.
    pub position: Option<Position>,
    /// Told, and not yet followed by a publication.
    pub gap: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Away,
    /// Its request is not answered.
    Asked,
    Live,
    /// It asked to leave, and is not answered.
    Leaving,
}

/// Publications that were missed, fewer than what does not fit an answer.
const FITTING: u64 = 4;

impl View {
    /// The server says where the client stands. `since` is where it said that it stood; `is_told` whether something
    /// is lost.
    pub fn begin(
        &mut self,
        channel: usize,
        since: Option<Position>,
        at: Position,
        is_told: bool,
        streams: &mut Streams,
    ) {
        streams.live(channel, at.epoch);
        self.gap = 0;
        self.position = Some(at);
        let Some(since) = since else { return assert!(!is_told, "nothing was asked for") };
        if !is_told {
            streams.counts.complete += 1;
            return assert_eq!(since, at, "channel {channel}: goes on where it was");
        }
        streams.counts.impossible += 1;
        let missed = at.offset.checked_sub(since.offset);
        let is_kept = CHANNELS[channel].keeps == Keeps::All && !streams.is_removed[channel];
        let is_needless =
            is_kept && since.epoch == at.epoch && missed.is_some_and(|missed| missed <= FITTING);
        assert!(!is_needless, "channel {channel}: {since:?} to {at:?} is kept");
    }

    /// The client is told that publications were dropped.
    pub fn hear_gap(
        &mut self,
        channel: usize,
        dropped: u64,
        may_skip: bool,
        streams: &mut Streams,
    ) {
        assert!(self.is_subscribed(), "channel {channel}: a gap for who is not subscribed");
        let channel = &CHANNELS[channel];
        assert_eq!(channel.slow_consumer, SlowConsumer::DropOldest, "{}", channel.name);
        assert!(dropped > 0 && (may_skip || channel.is_rated), "{}: needless", channel.name);
        self.gap += dropped;
        streams.counts.gaps += 1;
    }

    /// A publication comes.
    pub fn hear(
        &mut self,
        channel: usize,
        at: Position,
        payload: Payload,
        may_skip: bool,
        streams: &mut Streams,
    ) {
        assert!(self.is_subscribed(), "channel {channel}: {payload:?} for who is not subscribed");
        let before = self.position.expect("who is subscribed stands somewhere");
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

    /// Its connection ended.
    pub fn cut(&mut self) {
        (self.state, self.gap) = (State::Away, 0);
    }

    /// Nothing more will come: this is the last position of the channel.
    pub fn judge(&self, channel: usize, last: Position) {
        assert!(
            matches!(self.state, State::Away | State::Live),
            "channel {channel}: not answered: {self:?}"
        );
        if self.state == State::Live {
            assert_eq!(self.gap, 0, "channel {channel}: {self:?}");
            assert_eq!(self.position, Some(last), "channel {channel} ends elsewhere");
        }
    }

    fn is_subscribed(&self) -> bool {
        matches!(self.state, State::Live | State::Leaving)
    }
}
