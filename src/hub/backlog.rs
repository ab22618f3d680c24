//! What a channel holds back: publications that wait for their moment, and those that laggards have yet to get.
//!
//! Only channels whose options ask for it have a [`Backlog`]. A laggard is a subscriber whose socket took no more; it
//! costs a number, not a queue, because what it has yet to get is kept once for all laggards of the channel.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::limits::{
    FAN_OUT_BLOCK_BYTES_MAX, JOIN_LEAVE_PER_CHANNEL_MAX, PUBLICATIONS_PER_FAN_OUT_MAX,
};
use crate::config::{ChannelOptions, SlowConsumer};
use crate::message::{Item, Publication};

/// What one channel holds back on one worker.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Not given to anyone yet, with their bytes; joins and leaves are among them.
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    /// Joins and leaves in `waiting`: they take no publication's place.
    waiting_join_leave: usize,
    /// Dropped from `waiting`, and not told yet.
    dropped: u64,
    /// Dropped from `waiting`, and not counted yet.
    uncounted: u64,
    /// When publications were let go last.
    released_ms: Option<u64>,
    /// The moment that is set for `waiting`.
    due_ms: Option<u64>,
    /// Publications that laggards may have yet to get.
    recent: VecDeque<Arc<Publication>>,
    recent_bytes: usize,
}

/// Publications that channels' options had dropped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Before any subscriber here was given them: a rate has room for so many only.
    pub rate: u64,
    /// For one subscriber each: its socket took no more.
    pub slow_subscriber: u64,
    /// Before any subscriber here was given them: memory was nearly used up.
    pub memory: u64,
}

impl Drops {
    /// What they are called in metrics.
    pub const LABELS: &[&str] = &["rate", "slow_subscriber", "memory"];
}

/// What becomes of a publication that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It waits; a moment for it is set already.
    Wait,
    /// It waits until then: a moment has to be set.
    WaitUntil(u64),
    /// What waits leaves now.
    Release,
}

impl Backlog {
    /// Whether a channel with these options has one.
    pub(super) fn is_wanted(options: &ChannelOptions) -> bool {
        options.slow_consumer != SlowConsumer::Disconnect || interval_ms(options) > 0
    }

    /// Takes an item that came, in order.
    pub(super) fn hold(&mut self, options: &ChannelOptions, item: Item, now_ms: u64) -> Pace {
        let interval = interval_ms(options);
        self.waiting_bytes += item.bytes();
        self.waiting_join_leave += usize::from(item.publication().is_none());
        self.waiting.push_back(item);
        if interval == 0 {
            return Pace::Release;
        }
        match options.slow_consumer {
            // Nothing may be dropped, so a full block leaves before its time.
            SlowConsumer::Disconnect => {
                if self.waiting.len() >= PUBLICATIONS_PER_FAN_OUT_MAX
                    || self.waiting_bytes >= FAN_OUT_BLOCK_BYTES_MAX
                {
                    return Pace::Release;
                }
            }
            SlowConsumer::Latest => self.shrink_waiting(1),
            SlowConsumer::DropOldest => self.shrink_waiting(options.backlog_size as usize),
        }
        if self.due_ms.is_some() {
            return Pace::Wait;
        }
        let due = match self.released_ms {
            // A batch is worth waiting for; a rate lets the first one go at once.
            _ if !options.batch_delay.is_zero() => now_ms + interval,
            Some(released) => released + interval,
            None => now_ms,
        };
        if due <= now_ms {
            return Pace::Release;
        }
        self.due_ms = Some(due);
        Pace::WaitUntil(due)
    }

    /// What leaves now, in order; a new moment is set for whatever is left.
    pub(super) fn release(&mut self, options: &ChannelOptions, now_ms: u64) -> Vec<Item> {
        // Joins and leaves go with the publications around them: a rate counts publications.
        let is_publication = |(_, item): &(usize, &Item)| item.publication().is_some();
        let mut places = self.waiting.iter().enumerate().filter(is_publication);
        let has_publication = places.clone().next().is_some();
        let count = places.nth(release_max(options)).map_or(self.waiting.len(), |(at, _)| at);
        let mut released = Vec::with_capacity(count + 1);
        if self.dropped > 0 && options.slow_consumer == SlowConsumer::DropOldest && has_publication
        {
            released.push(Item::Gap(std::mem::take(&mut self.dropped)));
        }
        released.extend(self.waiting.drain(..count));
        self.waiting_bytes = self.waiting.iter().map(Item::bytes).sum();
        let join_leave = self.waiting.iter().filter(|item| item.publication().is_none());
        self.waiting_join_leave = join_leave.count();
        self.released_ms = Some(now_ms);
        self.due_ms = self.waits().then(|| now_ms + interval_ms(options));
        released
    }

    /// Keeps a publication for laggards. They get no joins and leaves that happened meanwhile.
    pub(super) fn keep(
        &mut self,
        options: &ChannelOptions,
        publication: &Arc<Publication>,
        bytes_max: usize,
    ) {
        let count_max = match options.slow_consumer {
            SlowConsumer::Disconnect => return,
            SlowConsumer::Latest => 1,
            SlowConsumer::DropOldest => options.backlog_size as usize,
        };
        self.recent_bytes += publication.payload.bytes.len();
        self.recent.push_back(publication.clone());
        while self.recent.len() > count_max
            || (self.recent_bytes > bytes_max && self.recent.len() > 1)
        {
            let Some(first) = self.recent.pop_front() else { break };
            self.recent_bytes -= first.payload.bytes.len();
        }
    }

    /// What a laggard gets that has everything before offset `from`: publications of about `bytes_max` bytes, and the
    /// offset with which the next ones begin, if there are more.
    pub(super) fn catch_up(
        &self,
        options: &ChannelOptions,
        from: u64,
        bytes_max: usize,
    ) -> (Vec<Item>, Option<u64>) {
        let mut items = Vec::new();
        let mut bytes = 0;
        let start = self.recent.partition_point(|item| item.position.offset < from);
        let mut next = from;
        for publication in self.recent.range(start..) {
            if bytes >= bytes_max {
                return (items, Some(next));
            }
            // There are gaps in front, where this ring dropped something, and between, where a rate did.
            let dropped = publication.position.offset - next;
            if dropped > 0 && options.slow_consumer == SlowConsumer::DropOldest {
                items.push(Item::Gap(dropped));
            }
            next = publication.position.offset + 1;
            bytes += publication.payload.bytes.len();
            items.push(Item::Publication(publication.clone()));
        }
        (items, None)
    }

    /// The moment for [`Backlog::release`], if one is set.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether something waits for its moment.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether something is kept for laggards.
    pub(super) fn keeps(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Bytes of payloads held.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.recent_bytes
    }

    /// Gives back what may be: all that waits but the newest, where publications may be dropped, and what is kept for
    /// laggards, but the newest if there are any.
    pub(super) fn shed(&mut self, options: &ChannelOptions, has_slow_subscribers: bool) {
        if options.slow_consumer != SlowConsumer::Disconnect {
            self.shrink_waiting(1);
        }
        while self.recent.len() > usize::from(has_slow_subscribers) {
            let Some(first) = self.recent.pop_front() else { break };
            self.recent_bytes -= first.payload.bytes.len();
        }
    }

    /// Publications dropped before anyone was given them, since this was asked last.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// Drops the oldest publications past so many, and the oldest joins and leaves past their limit.
    fn shrink_waiting(&mut self, count_max: usize) {
        while self.waiting.len() - self.waiting_join_leave > count_max {
            self.drop_first(true);
            self.dropped += 1;
            self.uncounted += 1;
        }
        while self.waiting_join_leave > JOIN_LEAVE_PER_CHANNEL_MAX {
            self.drop_first(false);
            self.waiting_join_leave -= 1;
        }
    }

    fn drop_first(&mut self, publication: bool) {
        let mut waiting = self.waiting.iter();
        let at = waiting.position(|item| item.publication().is_some() == publication);
        if let Some(first) = at.and_then(|at| self.waiting.remove(at)) {
            self.waiting_bytes -= first.bytes();
        }
    }
}

/// The offset of the first publication that a subscriber misses to whom these items could not be given. `next` is the
/// offset of the one that will arrive behind them.
pub(super) fn first_missed(items: &[Item], next: u64) -> u64 {
    let mut dropped = 0;
    for item in items {
        match item {
            Item::Publication(publication) => return publication.position.offset - dropped,
            Item::Gap(count) => dropped += count,
            Item::Joined(_) | Item::Left(_) => {}
        }
    }
    next - dropped
}

/// Publications that a subscriber misses who is given these items and had everything before offset `from`.
pub(super) fn missed_before(from: u64, given: &[Item]) -> u64 {
    let (mut next, mut missed) = (from, 0);
    for publication in given.iter().filter_map(Item::publication) {
        missed += publication.position.offset.saturating_sub(next);
        next = publication.position.offset + 1;
    }
    missed
}

/// Between two releases; 0 releases everything at once. With a rate, long enough that what leaves in whole milliseconds
/// and whole publications is not past it, and not far below it.
fn interval_ms(options: &ChannelOptions) -> u64 {
    let every = u64::try_from(options.batch_delay.as_millis()).expect("at most a minute");
    match u64::from(options.delivery_rate_max) {
        0 => every,
        rate => {
            let count = (rate * RATE_INTERVAL_MS).div_ceil(1000);
            every.max((1000 * count).div_ceil(rate))
        }
    }
}

/// About so long is between two releases of a rate that has room for more than one.
const RATE_INTERVAL_MS: u64 = 20;

/// Publications in one release.
fn release_max(options: &ChannelOptions) -> usize {
    match u64::from(options.delivery_rate_max) {
        0 => usize::MAX,
        rate => (rate * interval_ms(options) / 1000).max(1) as usize,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{
        ChannelName, ClientId, ClientInfo, Epoch, NodeId, Payload, PayloadKind, Position,
        SessionId, WorkerId,
    };

    fn publication(offset: u64) -> Arc<Publication> {
        Arc::new(Publication {
            channel: ChannelName::new("a").unwrap(),
            position: Position { epoch: Epoch(1), offset },
            payload: Payload::new(PayloadKind::Text, "0123456789"),
            accepted_us: 0,
        })
    }

    fn item(offset: u64) -> Item {
        Item::Publication(publication(offset))
    }

    fn joined() -> Item {
        let session = SessionId { index: 1, generation: 2 };
        let client = ClientId { node: NodeId::new(3), worker: WorkerId(0), session };
        Item::Joined(Arc::new(ClientInfo::anonymous(client)))
    }

    fn offsets(items: &[Item]) -> Vec<String> {
        items
            .iter()
            .map(|item| match item {
                Item::Publication(publication) => publication.position.offset.to_string(),
                Item::Joined(_) => "join".to_owned(),
                Item::Left(_) => "leave".to_owned(),
                Item::Gap(dropped) => format!("gap {dropped}"),
            })
            .collect()
    }

    fn options(slow_consumer: SlowConsumer) -> ChannelOptions {
        ChannelOptions { slow_consumer, backlog_size: 3, ..ChannelOptions::closed() }
    }

    #[test]
    fn a_batch_waits_for_its_moment_and_leaves_whole() {
        let options = ChannelOptions {
            batch_delay: Duration::from_millis(50),
            ..options(SlowConsumer::Disconnect)
        };
        let mut backlog = Backlog::default();
        assert_eq!(backlog.hold(&options, item(1), 100), Pace::WaitUntil(150));
        assert_eq!(backlog.hold(&options, item(2), 120), Pace::Wait);
        assert_eq!(offsets(&backlog.release(&options, 150)), ["1", "2"]);
        assert_eq!(backlog.due_ms(), None);
        assert_eq!(backlog.bytes(), 0);
        // A full block does not wait.
        for offset in 3..3 + PUBLICATIONS_PER_FAN_OUT_MAX as u64 - 1 {
            assert_ne!(backlog.hold(&options, item(offset), 160), Pace::Release);
        }
        assert_eq!(backlog.hold(&options, item(99), 160), Pace::Release);
    }

    #[test]
    fn a_rate_lets_the_first_go_and_keeps_the_newest() {
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::Latest) };
        let mut backlog = Backlog::default();
        assert_eq!(backlog.hold(&options, item(1), 1000), Pace::Release);
        assert_eq!(offsets(&backlog.release(&options, 1000)), ["1"]);
        assert_eq!(backlog.hold(&options, item(2), 1010), Pace::WaitUntil(1100));
        assert_eq!(backlog.hold(&options, item(3), 1020), Pace::Wait);
        assert_eq!(offsets(&backlog.release(&options, 1100)), ["3"]);
        assert_eq!(backlog.due_ms(), None);
        assert_eq!(backlog.hold(&options, item(4), 1300), Pace::Release);
    }

    #[test]
    fn a_rate_that_drops_the_oldest_tells_of_the_gap() {
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::DropOldest) };
        let mut backlog = Backlog::default();
        assert_eq!(backlog.hold(&options, item(1), 1000), Pace::Release);
        backlog.release(&options, 1000);
        for offset in 2..=6 {
            backlog.hold(&options, item(offset), 1001);
        }
        assert_eq!(offsets(&backlog.release(&options, 1100)), ["gap 2", "4"]);
        assert_eq!(backlog.due_ms(), Some(1200));
        assert_eq!(offsets(&backlog.release(&options, 1200)), ["5"]);
        assert_eq!(backlog.due_ms(), Some(1300));
    }

    #[test]
    fn joins_and_leaves_take_no_publications_place() {
        for (delivery, expected) in [
            (SlowConsumer::Latest, ["join", "7", "join"].as_slice()),
            (SlowConsumer::DropOldest, &["gap 3", "join", "5"]),
        ] {
            let options = ChannelOptions { delivery_rate_max: 10, ..options(delivery) };
            let mut backlog = Backlog::default();
            backlog.hold(&options, item(1), 1000);
            backlog.release(&options, 1000);
            for offset in 2..=7 {
                backlog.hold(&options, item(offset), 1001);
                if offset == 4 {
                    backlog.hold(&options, joined(), 1001);
                }
            }
            backlog.hold(&options, joined(), 1001);
            assert_eq!(offsets(&backlog.release(&options, 1100)), expected);
            assert_eq!(
                backlog.take_dropped(),
                if delivery == SlowConsumer::Latest { 5 } else { 3 }
            );
        }
        // It is bounded all the same.
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::Latest) };
        let mut backlog = Backlog::default();
        backlog.hold(&options, item(1), 1000);
        backlog.release(&options, 1000);
        backlog.hold(&options, item(2), 1001);
        for _ in 0..2 * JOIN_LEAVE_PER_CHANNEL_MAX {
            backlog.hold(&options, joined(), 1001);
        }
        let released = offsets(&backlog.release(&options, 1100));
        assert_eq!((released.len(), &*released[0]), (JOIN_LEAVE_PER_CHANNEL_MAX + 1, "2"));
        assert_eq!(
            (backlog.bytes(), backlog.waiting_join_leave, backlog.take_dropped()),
            (0, 0, 0)
        );
    }

    #[test]
    fn no_rate_is_passed_and_none_is_missed_by_far() {
        for rate in [1, 3, 7, 30, 49, 50, 51, 99, 150, 300, 600, 999, 1000] {
            for every in [0, 1, 15, 1000] {
                let batch_delay = Duration::from_millis(every);
                let options = ChannelOptions {
                    delivery_rate_max: rate,
                    batch_delay,
                    ..options(SlowConsumer::DropOldest)
                };
                let (count, interval) = (release_max(&options) as u64, interval_ms(&options));
                let (left, allowed) = (1000 * count, u64::from(rate) * interval);
                assert!(left <= allowed, "{rate} {every}: {count} every {interval} ms");
                let least = if every == 0 { allowed * 9 / 10 } else { allowed / 2 };
                assert!(left >= least, "{rate} {every}: {count} every {interval} ms");
            }
        }
    }

    #[test]
    fn a_laggard_gets_the_newest_or_what_is_left_behind_a_gap() {
        for (delivery, expected) in [
            (SlowConsumer::Latest, vec!["7"]),
            (SlowConsumer::DropOldest, vec!["gap 2", "5", "6", "7"]),
        ] {
            let options = options(delivery);
            let mut backlog = Backlog::default();
            for offset in 1..=7 {
                backlog.keep(&options, &publication(offset), 1000);
            }
            let (items, next) = backlog.catch_up(&options, 3, 1000);
            assert_eq!(
                (offsets(&items), next),
                (expected.into_iter().map(String::from).collect(), None)
            );
            assert_eq!(backlog.catch_up(&options, 8, 1000), (vec![], None));
        }
    }

    #[test]
    fn a_laggard_catches_up_in_pieces_and_bytes_are_bounded() {
        let options = options(SlowConsumer::DropOldest);
        let mut backlog = Backlog::default();
        for offset in 1..=3 {
            backlog.keep(&options, &publication(offset), 25);
        }
        assert_eq!(backlog.bytes(), 20);
        let (items, next) = backlog.catch_up(&options, 2, 10);
        assert_eq!((offsets(&items), next), (vec!["2".into()], Some(3)));
        let (items, next) = backlog.catch_up(&options, 3, 10);
        assert_eq!((offsets(&items), next), (vec!["3".into()], None));
    }

    #[test]
    fn what_is_shed_is_a_gap_and_the_newest_stays_for_laggards() {
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::DropOldest) };
        let mut backlog = Backlog::default();
        backlog.hold(&options, item(1), 1000);
        backlog.release(&options, 1000);
        for offset in 2..=4 {
            backlog.hold(&options, item(offset), 1001);
            backlog.keep(&options, &publication(offset), 1000);
        }
        backlog.shed(&options, true);
        assert_eq!(backlog.bytes(), 20);
        assert_eq!(offsets(&backlog.release(&options, 1100)), ["gap 2", "4"]);
        assert_eq!(offsets(&backlog.catch_up(&options, 2, 1000).0), ["gap 2", "4"]);
        backlog.shed(&options, false);
        assert_eq!(backlog.bytes(), 0);
        assert!(!backlog.keeps());
    }

    #[test]
    fn a_subscriber_that_misses_a_gap_misses_what_was_dropped_in_front_of_it() {
        assert_eq!(first_missed(&[item(9)], 10), 9);
        assert_eq!(first_missed(&[Item::Gap(4), item(9)], 10), 5);
        assert_eq!(first_missed(&[joined(), Item::Gap(4), joined(), item(9)], 10), 5);
        assert_eq!(first_missed(&[joined(), joined()], 10), 10);
    }
}
