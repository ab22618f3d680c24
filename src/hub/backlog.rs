//! The backlog of a channel on one worker: items that wait for their release, and publications that slow subscribers
//! have not received.
//!
//! Only channels whose options require it have a [`Backlog`]. A slow subscriber is one whose socket accepts no more
//! bytes. It costs a number, not a queue, because the publications that it has not received are kept once for all slow
//! subscribers of the channel.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::limits::{
    FAN_OUT_BLOCK_BYTES_MAX, JOIN_LEAVE_PER_CHANNEL_MAX, PUBLICATIONS_PER_FAN_OUT_MAX,
};
use crate::config::{ChannelOptions, SlowConsumer};
use crate::message::{Item, Publication};

/// The backlog of one channel on one worker.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Items that wait for their release, joins and leaves included.
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    /// The number of joins and leaves in `waiting`, which do not count towards the limit of publications.
    waiting_join_leave: usize,
    /// Publications dropped from `waiting` since the last gap was delivered.
    dropped: u64,
    /// Publications dropped from `waiting` that metrics do not include yet.
    uncounted: u64,
    /// The time of the last release.
    released_ms: Option<u64>,
    /// The time of the next release, if one is scheduled.
    due_ms: Option<u64>,
    /// Publications that slow subscribers may not have received.
    recent: VecDeque<Arc<Publication>>,
    recent_bytes: usize,
}

/// Publications that were dropped since the server started, as the options of their channels say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Dropped for all subscribers of a channel on this worker, to keep its delivery rate.
    pub rate: u64,
    /// Dropped for one slow subscriber.
    pub slow_subscriber: u64,
    /// Dropped for all subscribers of a channel on this worker, because memory was low.
    pub memory: u64,
}

impl Drops {
    /// The labels in metrics, in the order of the fields.
    pub const LABELS: &[&str] = &["rate", "slow_subscriber", "memory"];
}

/// What happens to an item that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It waits; a release is scheduled already.
    Wait,
    /// It waits; the caller has to schedule a release at this time, in milliseconds.
    WaitUntil(u64),
    /// The caller has to release the backlog now.
    Release,
}

impl Backlog {
    /// Whether a channel with these options has a backlog.
    pub(super) fn is_wanted(options: &ChannelOptions) -> bool {
        options.slow_consumer != SlowConsumer::Disconnect || interval_ms(options) > 0
    }

    /// Adds an item.
    pub(super) fn add(&mut self, options: &ChannelOptions, item: Item, now_ms: u64) -> Pace {
        let interval = interval_ms(options);
        self.waiting_bytes += item.bytes();
        self.waiting_join_leave += usize::from(item.publication().is_none());
        self.waiting.push_back(item);
        if interval == 0 {
            return Pace::Release;
        }
        match options.slow_consumer {
            // Nothing may be dropped, so a full block is released early.
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
            // A batch waits for more items; a rate releases the first one at once.
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

    /// Removes the items that are delivered now, in order, and schedules a release of the rest.
    pub(super) fn release(&mut self, options: &ChannelOptions, now_ms: u64) -> Vec<Item> {
        // A rate counts publications only; joins and leaves are released with the publications around them.
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
        self.due_ms = self.has_waiting().then(|| now_ms + interval_ms(options));
        released
    }

    /// Keeps a publication for slow subscribers, which do not receive the joins and leaves that they missed.
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
        self.recent_bytes += publication.heap_bytes();
        self.recent.push_back(publication.clone());
        while self.recent.len() > count_max
            || (self.recent_bytes > bytes_max && self.recent.len() > 1)
        {
            let Some(first) = self.recent.pop_front() else { break };
            self.recent_bytes -= first.heap_bytes();
        }
    }

    /// The next items for a slow subscriber that has received everything before offset `from`, of about `bytes_max`
    /// bytes, and the offset at which the rest begins. `None` if there is nothing left.
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
            // A gap is at the start, where this queue dropped publications, or between, where a rate did.
            let dropped = publication.position.offset - next;
            if dropped > 0 && options.slow_consumer == SlowConsumer::DropOldest {
                items.push(Item::Gap(dropped));
            }
            next = publication.position.offset + 1;
            bytes += publication.heap_bytes();
            items.push(Item::Publication(publication.clone()));
        }
        (items, None)
    }

    /// The time of the scheduled release, in milliseconds.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether items wait for their release.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether publications are kept for slow subscribers.
    pub(super) fn has_recent(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Bytes of all items, see [`Item::bytes`].
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.recent_bytes
    }

    /// Drops as much as the options allow: waiting publications but the newest, and those kept for slow subscribers but
    /// the newest if there are slow subscribers.
    pub(super) fn shed(&mut self, options: &ChannelOptions, has_slow_subscribers: bool) {
        if options.slow_consumer != SlowConsumer::Disconnect {
            self.shrink_waiting(1);
        }
        while self.recent.len() > usize::from(has_slow_subscribers) {
            let Some(first) = self.recent.pop_front() else { break };
            self.recent_bytes -= first.heap_bytes();
        }
    }

    /// The number of publications dropped from `waiting` since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// Drops the oldest publications beyond `count_max`, and the oldest joins and leaves beyond their limit.
    fn shrink_waiting(&mut self, count_max: usize) {
        while self.waiting.len() - self.waiting_join_leave > count_max {
            // A gap has the publications that are missing in the stream.
            self.dropped += u64::from(self.drop_first(true));
            self.uncounted += 1;
        }
        while self.waiting_join_leave > JOIN_LEAVE_PER_CHANNEL_MAX {
            self.drop_first(false);
            self.waiting_join_leave -= 1;
        }
    }

    /// Drops the first publication, or the first of the other items. Returns whether that was a part of the stream.
    fn drop_first(&mut self, publication: bool) -> bool {
        let mut waiting = self.waiting.iter();
        let at = waiting.position(|item| item.publication().is_some() == publication);
        if let Some(first) = at.and_then(|at| self.waiting.remove(at)) {
            self.waiting_bytes -= first.bytes();
            return first.publication().is_some_and(|publication| publication.in_stream);
        }
        false
    }
}

/// The offset of the first publication that a subscriber does not receive if these items are not delivered to it.
/// `next` is the offset of the publication that will arrive after them.
pub(super) fn first_missed(items: &[Item], next: u64) -> u64 {
    let mut dropped = 0;
    for item in items {
        match item {
            Item::Publication(publication) if publication.in_stream => {
                return publication.position.offset - dropped;
            }
            Item::Gap(count) => dropped += count,
            Item::Publication(_) | Item::Joined(_) | Item::Left(_) => {}
        }
    }
    next - dropped
}

/// The number of publications that a subscriber with everything before offset `from` misses if it receives these items.
pub(super) fn missed_before(from: u64, items: &[Item]) -> u64 {
    let (mut next, mut missed) = (from, 0);
    for publication in items.iter().filter_map(Item::publication) {
        missed += publication.position.offset.saturating_sub(next);
        next = publication.position.offset + 1;
    }
    missed
}

/// The time between two releases, in milliseconds; 0 releases everything at once. With a rate, it is long enough that
/// whole publications in whole milliseconds do not exceed the rate, and are not far below it.
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

/// The approximate time between two releases, in milliseconds, at rates that allow more than one publication in it.
const RATE_INTERVAL_MS: u64 = 20;

/// The maximum number of publications in one release.
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
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
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
    fn a_batch_waits_for_its_release_and_is_released_whole() {
        let options = ChannelOptions {
            batch_delay: Duration::from_millis(50),
            ..options(SlowConsumer::Disconnect)
        };
        let mut backlog = Backlog::default();
        assert_eq!(backlog.add(&options, item(1), 100), Pace::WaitUntil(150));
        assert_eq!(backlog.add(&options, item(2), 120), Pace::Wait);
        assert_eq!(offsets(&backlog.release(&options, 150)), ["1", "2"]);
        assert_eq!(backlog.due_ms(), None);
        assert_eq!(backlog.bytes(), 0);
        // A full block is released at once.
        for offset in 3..3 + PUBLICATIONS_PER_FAN_OUT_MAX as u64 - 1 {
            assert_ne!(backlog.add(&options, item(offset), 160), Pace::Release);
        }
        assert_eq!(backlog.add(&options, item(99), 160), Pace::Release);
    }

    #[test]
    fn a_rate_releases_the_first_at_once_and_then_the_newest() {
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::Latest) };
        let mut backlog = Backlog::default();
        assert_eq!(backlog.add(&options, item(1), 1000), Pace::Release);
        assert_eq!(offsets(&backlog.release(&options, 1000)), ["1"]);
        assert_eq!(backlog.add(&options, item(2), 1010), Pace::WaitUntil(1100));
        assert_eq!(backlog.add(&options, item(3), 1020), Pace::Wait);
        assert_eq!(offsets(&backlog.release(&options, 1100)), ["3"]);
        assert_eq!(backlog.due_ms(), None);
        assert_eq!(backlog.add(&options, item(4), 1300), Pace::Release);
    }

    #[test]
    fn a_rate_that_drops_the_oldest_delivers_a_gap() {
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::DropOldest) };
        let mut backlog = Backlog::default();
        assert_eq!(backlog.add(&options, item(1), 1000), Pace::Release);
        backlog.release(&options, 1000);
        for offset in 2..=6 {
            backlog.add(&options, item(offset), 1001);
        }
        assert_eq!(offsets(&backlog.release(&options, 1100)), ["gap 2", "4"]);
        assert_eq!(backlog.due_ms(), Some(1200));
        assert_eq!(offsets(&backlog.release(&options, 1200)), ["5"]);
        assert_eq!(backlog.due_ms(), Some(1300));
    }

    #[test]
    fn joins_and_leaves_do_not_count_as_publications() {
        for (delivery, expected) in [
            (SlowConsumer::Latest, ["join", "7", "join"].as_slice()),
            (SlowConsumer::DropOldest, &["gap 3", "join", "5"]),
        ] {
            let options = ChannelOptions { delivery_rate_max: 10, ..options(delivery) };
            let mut backlog = Backlog::default();
            backlog.add(&options, item(1), 1000);
            backlog.release(&options, 1000);
            for offset in 2..=7 {
                backlog.add(&options, item(offset), 1001);
                if offset == 4 {
                    backlog.add(&options, joined(), 1001);
                }
            }
            backlog.add(&options, joined(), 1001);
            assert_eq!(offsets(&backlog.release(&options, 1100)), expected);
            assert_eq!(
                backlog.take_dropped(),
                if delivery == SlowConsumer::Latest { 5 } else { 3 }
            );
        }
        // Their number is bounded.
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::Latest) };
        let mut backlog = Backlog::default();
        backlog.add(&options, item(1), 1000);
        backlog.release(&options, 1000);
        backlog.add(&options, item(2), 1001);
        for _ in 0..2 * JOIN_LEAVE_PER_CHANNEL_MAX {
            backlog.add(&options, joined(), 1001);
        }
        let released = offsets(&backlog.release(&options, 1100));
        assert_eq!((released.len(), &*released[0]), (JOIN_LEAVE_PER_CHANNEL_MAX + 1, "2"));
        assert_eq!(
            (backlog.bytes(), backlog.waiting_join_leave, backlog.take_dropped()),
            (0, 0, 0)
        );
    }

    #[test]
    fn rates_are_not_exceeded_and_nearly_reached() {
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
    fn a_slow_subscriber_receives_the_newest_or_a_gap_and_the_rest() {
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
    fn a_slow_subscriber_catches_up_in_parts_and_bytes_are_bounded() {
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
    fn shedding_leaves_a_gap_and_the_newest_for_slow_subscribers() {
        let options = ChannelOptions { delivery_rate_max: 10, ..options(SlowConsumer::DropOldest) };
        let mut backlog = Backlog::default();
        backlog.add(&options, item(1), 1000);
        backlog.release(&options, 1000);
        for offset in 2..=4 {
            backlog.add(&options, item(offset), 1001);
            backlog.keep(&options, &publication(offset), 1000);
        }
        backlog.shed(&options, true);
        assert_eq!(backlog.bytes(), 20);
        assert_eq!(offsets(&backlog.release(&options, 1100)), ["gap 2", "4"]);
        assert_eq!(offsets(&backlog.catch_up(&options, 2, 1000).0), ["gap 2", "4"]);
        backlog.shed(&options, false);
        assert_eq!(backlog.bytes(), 0);
        assert!(!backlog.has_recent());
    }

    #[test]
    fn a_subscriber_that_misses_a_gap_misses_the_publications_of_the_gap() {
        assert_eq!(first_missed(&[item(9)], 10), 9);
        assert_eq!(first_missed(&[Item::Gap(4), item(9)], 10), 5);
        assert_eq!(first_missed(&[joined(), Item::Gap(4), joined(), item(9)], 10), 5);
        assert_eq!(first_missed(&[joined(), joined()], 10), 10);
    }
}
