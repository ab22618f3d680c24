//! One memory budget for all workers, without a lock and without a step per message.
//!
//! Each worker counts what it holds and writes the sum into a line of its own once or twice a turn. It reads the lines
//! of the others every [`LOOK_MS`] milliseconds; with its own sum, which it knows, that makes what the process holds,
//! and that a [`Level`]. Workers may differ in it for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::config::limits::{
    FAIR_SHARE_BYTES_MIN, FAIR_SHARE_DIVISOR, FAN_OUT_SHARE_DIVISOR, HEAP_KEPT_BYTES,
    HISTORY_SHARE_DIVISOR, MEMORY_CRITICAL_PERCENT, MEMORY_FULL_PERCENT, MEMORY_HYSTERESIS_PERCENT,
    MEMORY_TIGHT_PERCENT, TIGHT_QUEUE_DIVISOR,
};
use crate::hub::HubLimits;

/// How much of the budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing has to change.
    Calm,
    /// Less is kept.
    Tight,
    /// Connections that hold most are evicted, and no new client is served.
    Critical,
    /// Nothing more is taken from publishers.
    Full,
}

/// One worker's account in the budget of all of them.
#[derive(Debug)]
pub struct Budget {
    shared: Arc<Shared>,
    own: usize,
    bytes_max: u64,
    /// Bytes that the other workers held at the last look.
    others: u64,
    look_at_ms: u64,
    level: Level,
    /// The most that the process held since the heap was trimmed for the last time, and then.
    high_bytes: u64,
    /// When that was, as far as this worker knows.
    trimmed_ms: u64,
    /// It would be trimmed now if that were not so short a time ago, or this worker had nothing else to do.
    owes_trim: bool,
}

#[derive(Debug)]
struct Shared {
    accounts: Box<[Account]>,
    /// The level that was announced last.
    announced: AtomicU8,
    /// When a worker trimmed the heap for the last time.
    trimmed_ms: AtomicU64,
    /// What the process held then. It is written first.
    trimmed_bytes: AtomicU64,
    /// Whether large blocks of the heap are mapped one by one.
    maps_blocks: AtomicBool,
}

/// A counter aligned to two cache lines, because processors prefetch the adjacent one: workers do not contend.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Account(AtomicU64);

/// Between two looks at what other workers hold.
const LOOK_MS: u64 = 8;

/// Between two times that the heap is trimmed.
const TRIM_MS: u64 = 1000;

/// Large blocks are mapped one by one while more than this fraction of the budget is used, or was, and half of that is.
const MAPPING_SHARE_DIVISOR: u64 = 4;

/// The heap is trimmed at once when what the process held was more than this fraction of the budget, and is half of
/// that now.
const TRIM_SHARE_DIVISOR: u64 = 4;

/// Freed bytes that stay with the heap of an idle worker are at most this fraction of the budget, if that is small.
const KEPT_SHARE_DIVISOR: u64 = 8;

impl Level {
    /// In their order.
    const ALL: [Level; 4] = [Level::Calm, Level::Tight, Level::Critical, Level::Full];

    /// A word for the log.
    pub fn name(self) -> &'static str {
        ["calm", "tight", "critical", "full"][self as usize]
    }

    /// Percent of the budget at which it begins.
    fn begins_at(self) -> u64 {
        match self {
            Level::Calm => 0,
            Level::Tight => MEMORY_TIGHT_PERCENT,
            Level::Critical => MEMORY_CRITICAL_PERCENT,
            Level::Full => MEMORY_FULL_PERCENT,
        }
    }

    /// The level that follows, with so much used: it is left only some way below where it begins.
    fn after(self, percent: u64) -> Level {
        let holds = |level: &Level| {
            let slack = if *level <= self { MEMORY_HYSTERESIS_PERCENT } else { 0 };
            percent >= level.begins_at().saturating_sub(slack)
        };
        Self::ALL.into_iter().rev().find(holds).unwrap_or(Level::Calm)
    }
}

impl Budget {
    /// The accounts of all workers, in their order. The process may hold `bytes_max`.
    pub fn of_workers(workers: usize, bytes_max: u64) -> Vec<Budget> {
        let accounts = (0..workers).map(|_| Account::default()).collect();
        let shared = Arc::new(Shared {
            accounts,
            announced: AtomicU8::new(0),
            trimmed_ms: AtomicU64::new(0),
            trimmed_bytes: AtomicU64::new(0),
            maps_blocks: AtomicBool::new(false),
        });
        (0..workers)
            .map(|own| Budget {
                shared: shared.clone(),
                own,
                bytes_max,
                others: 0,
                look_at_ms: 0,
                level: Level::Calm,
                high_bytes: 0,
                trimmed_ms: 0,
                owes_trim: false,
            })
            .collect()
    }

    /// What this worker holds now. Returns the level that was left if it is another one by now.
    pub fn settle(&mut self, own_bytes: u64, now_ms: u64) -> Option<Level> {
        let accounts = &self.shared.accounts;
        // Nothing else is published by it: a sum is only a sum.
        accounts[self.own].0.store(own_bytes, Ordering::Relaxed);
        if now_ms >= self.look_at_ms {
            self.look_at_ms = now_ms + LOOK_MS;
            let all = accounts.iter().enumerate().filter(|(worker, _)| *worker != self.own);
            self.others = all.map(|(_, account)| account.0.load(Ordering::Relaxed)).sum();
        }
        let before = self.level;
        let percent = (own_bytes + self.others).saturating_mul(100) / self.bytes_max;
        self.level = before.after(percent);
        (self.level != before).then_some(before)
    }

    /// How much of the budget is used.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether to look again soon, even if nothing happens here: other workers may have freed memory, and freed memory
    /// may have to be given back to the system.
    pub fn is_unsettled(&self) -> bool {
        self.level != Level::Calm || self.owes_trim
    }

    /// Whether no new client is served, and connections are evicted.
    pub fn is_critical(&self) -> bool {
        self.level >= Level::Critical
    }

    /// Whether nothing more is taken from publishers.
    pub fn is_full(&self) -> bool {
        self.level == Level::Full
    }

    /// Bytes in a send queue past which its client is a slow consumer; `set` is the maximum by the settings.
    pub fn queue_bytes_max(&self, set: u32) -> u32 {
        if self.level == Level::Calm { set } else { set / TIGHT_QUEUE_DIVISOR }
    }

    /// Payload bytes waiting for their fan-out at which publishers are paused, if the budget is small.
    pub fn fan_out_bytes_max(&self) -> usize {
        usize::try_from(self.share_bytes() / FAN_OUT_SHARE_DIVISOR).unwrap_or(usize::MAX)
    }

    /// What each of so many connections may hold without being evicted.
    pub fn fair_share(&self, connections: usize) -> u64 {
        let connections = connections.max(1) as u64;
        (self.bytes_max / FAIR_SHARE_DIVISOR / connections).max(FAIR_SHARE_BYTES_MIN)
    }

    /// What the hub may keep by the level; `set` are its limits by the settings.
    pub fn hub_limits(&self, set: HubLimits) -> HubLimits {
        let history = set.history_bytes_max.min(self.share_bytes() / HISTORY_SHARE_DIVISOR);
        HubLimits {
            history_bytes_max: if self.level == Level::Calm { history } else { history / 2 },
            backlog_bytes_max: match self.level {
                Level::Calm => set.backlog_bytes_max,
                Level::Tight => set.backlog_bytes_max / u64::from(TIGHT_QUEUE_DIVISOR),
                Level::Critical | Level::Full => 0,
            },
            ..set
        }
    }

    /// What the process held by the last account.
    pub fn used_bytes(&self) -> u64 {
        let own = self.shared.accounts[self.own].0.load(Ordering::Relaxed);
        own + self.others
    }

    /// What the process may hold.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// What this worker may hold if all hold the same.
    pub fn share_bytes(&self) -> u64 {
        self.bytes_max / self.shared.accounts.len() as u64
    }

    /// Whether this worker is to have the heap give back what is free: so much was freed that later allocations of
    /// other sizes would not fit the holes; or this worker is idle, and other processes may need the memory; or, with
    /// `is_urgent`, memory pressure rises. At most one worker does so in a second.
    pub fn takes_trim(&mut self, now_ms: u64, is_urgent: bool, is_idle: bool) -> bool {
        let used = self.used_bytes();
        let Shared { trimmed_ms: at, trimmed_bytes, .. } = &*self.shared;
        let trimmed_ms = at.load(Ordering::Acquire);
        if trimmed_ms != self.trimmed_ms {
            // What was freed between the trim and this look is still with the heap.
            let then = trimmed_bytes.load(Ordering::Relaxed);
            (self.trimmed_ms, self.high_bytes) = (trimmed_ms, then);
        }
        self.high_bytes = self.high_bytes.max(used);
        let kept = HEAP_KEPT_BYTES.min(self.bytes_max / KEPT_SHARE_DIVISOR);
        let has_fallen = used <= self.high_bytes / 2;
        let is_much = has_fallen && self.high_bytes > self.bytes_max / TRIM_SHARE_DIVISOR;
        let is_worth_it = has_fallen && self.high_bytes > kept;
        self.owes_trim = is_much || is_worth_it;
        let is_early = now_ms < trimmed_ms + TRIM_MS;
        if is_early || !(is_much || is_urgent || (is_worth_it && is_idle)) {
            return false;
        }
        self.owes_trim = false;
        // Of two workers that try at the same time, the view of either will do.
        trimmed_bytes.store(used, Ordering::Relaxed);
        at.compare_exchange(trimmed_ms, now_ms, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether large blocks of the heap are to be mapped one by one from now on, if that is new: so much of the budget
    /// is used that holes in the heap would matter. The first worker that finds it does it for all.
    pub fn changes_mapping(&self) -> Option<bool> {
        let begins = self.bytes_max / MAPPING_SHARE_DIVISOR;
        let was = self.shared.maps_blocks.load(Ordering::Relaxed);
        let is = self.used_bytes() > if was { begins / 2 } else { begins };
        (is != was && self.shared.maps_blocks.swap(is, Ordering::Relaxed) == was).then_some(is)
    }

    /// Whether this worker is the first to find this level, and so the one that logs it.
    pub fn announces(&self) -> bool {
        self.shared.announced.swap(self.level as u8, Ordering::Relaxed) != self.level as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_trims_the_heap_when_much_was_freed_and_once_a_second() {
        let mut budgets = Budget::of_workers(2, 1000);
        let mut trims = |worker: usize, bytes, now_ms| {
            budgets[worker].settle(bytes, now_ms);
            budgets[worker].takes_trim(now_ms, false, false)
        };
        for (bytes, now_ms) in [(200, 5000), (10, 6000), (600, 7000), (301, 8000)] {
            assert!(!trims(0, bytes, now_ms) && !trims(1, 0, now_ms), "{bytes}");
        }
        assert!(trims(0, 300, 9000));
        assert!(!trims(1, 0, 9100) && !trims(0, 300, 9100), "another worker trimmed it");
        assert!(!trims(0, 100, 9900), "not twice in a second");
        assert!(budgets[0].is_unsettled(), "but soon");
        let mut trims = |worker: usize, bytes, now_ms| {
            budgets[worker].settle(bytes, now_ms);
            budgets[worker].takes_trim(now_ms, false, false)
        };
        assert!(trims(0, 100, 10_000));
        assert!(!trims(0, 0, 12_000), "little was held");
        assert!(!budgets[0].is_unsettled());
        let urgent =
            budgets.iter_mut().filter_map(|it| it.takes_trim(13_000, true, false).then_some(()));
        assert_eq!(urgent.count(), 1);
    }

    #[test]
    fn memory_that_is_freed_right_after_a_trim_is_trimmed_a_second_later() {
        for trims_first in [0, 1] {
            let mut budgets = Budget::of_workers(2, 1000);
            let mut trims = |worker: usize, bytes, now_ms| {
                budgets[worker].settle(bytes, now_ms);
                let trims = budgets[worker].takes_trim(now_ms, false, false);
                (trims, budgets[worker].is_unsettled())
            };
            trims(1, 300, 5000);
            trims(0, 300, 5010);
            assert_eq!(trims(1, 300, 5020), (false, false));
            assert_eq!(trims(trims_first, 0, 6000), (true, false));
            // By its next look, each worker has freed the rest.
            trims(1 - trims_first, 0, 6010);
            assert_eq!(
                trims(0, 0, 6020),
                (false, true),
                "worker {trims_first} trimmed it just now"
            );
            assert_eq!(trims(0, 0, 7000), (true, false));
            assert_eq!(trims(1, 0, 7000), (false, false), "nothing is left");
            assert_eq!(trims(1, 0, 9000), (false, false));
        }
    }

    #[test]
    fn an_idle_worker_keeps_less_of_a_small_budget() {
        for (high, is_worth_it) in [(125, false), (126, true)] {
            let mut budget = Budget::of_workers(1, 1000).remove(0);
            budget.settle(high, 5000);
            assert!(!budget.takes_trim(5000, false, true));
            budget.settle(high / 2, 6000);
            assert!(!budget.takes_trim(6000, false, false));
            assert_eq!(budget.is_unsettled(), is_worth_it, "{high}");
            assert_eq!(budget.takes_trim(6000, false, true), is_worth_it, "{high}");
        }
    }

    #[test]
    fn a_worker_that_idles_trims_the_heap_where_it_is_worth_it() {
        let mut budgets = Budget::of_workers(2, 1 << 40);
        let mut trims = |worker: usize, bytes, now_ms, is_idle| {
            budgets[worker].settle(bytes, now_ms);
            (budgets[worker].takes_trim(now_ms, false, is_idle), budgets[worker].is_unsettled())
        };
        assert_eq!(trims(0, HEAP_KEPT_BYTES, 5000, true), (false, false));
        assert_eq!(trims(0, 0, 6000, true), (false, false), "little was held");
        assert_eq!(trims(0, HEAP_KEPT_BYTES + 1, 7000, true), (false, false));
        assert_eq!(trims(0, HEAP_KEPT_BYTES / 2 + 1, 8000, true), (false, false));
        assert_eq!(trims(0, HEAP_KEPT_BYTES / 2, 9000, false), (false, true), "later");
        assert_eq!(trims(0, HEAP_KEPT_BYTES / 2, 9001, true), (true, false));
        assert_eq!(trims(0, 0, 12_000, true), (false, false), "another worker trimmed it");
    }

    #[test]
    fn one_worker_has_blocks_be_mapped_while_much_is_used() {
        let mut budgets = Budget::of_workers(2, 1000);
        let steps =
            [(250, None), (251, Some(true)), (126, None), (125, Some(false)), (251, Some(true))];
        for (bytes, expected) in steps {
            budgets[0].settle(bytes, 0);
            assert_eq!(
                (budgets[0].changes_mapping(), budgets[0].changes_mapping()),
                (expected, None)
            );
        }
        budgets[1].settle(0, LOOK_MS);
        assert_eq!(budgets[1].changes_mapping(), None);
    }

    #[test]
    fn a_level_begins_at_its_mark_and_ends_below_it() {
        let mut budgets = Budget::of_workers(1, 1000);
        let budget = &mut budgets[0];
        let mut level = |bytes| {
            budget.settle(bytes, 0);
            budget.level()
        };
        let steps = [
            (699, Level::Calm),
            (700, Level::Tight),
            (650, Level::Tight),
            (649, Level::Calm),
            (850, Level::Critical),
            (800, Level::Critical),
            (949, Level::Critical),
            (950, Level::Full),
            (900, Level::Full),
            (899, Level::Critical),
            (799, Level::Tight),
            (u64::MAX / 200, Level::Full),
            (0, Level::Calm),
        ];
        for (bytes, expected) in steps {
            assert_eq!(level(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn workers_count_what_all_of_them_hold() {
        let mut budgets = Budget::of_workers(3, 1000);
        assert_eq!(budgets[0].settle(400, 0), None);
        assert_eq!(budgets[1].settle(300, 0), Some(Level::Calm));
        assert_eq!(budgets[1].level(), Level::Tight);
        assert!(budgets[1].announces());
        assert!(!budgets[1].announces());
        // What others hold is looked at only so often.
        assert_eq!(budgets[0].settle(400, LOOK_MS - 1), None);
        assert_eq!(budgets[0].settle(400, LOOK_MS), Some(Level::Calm));
        assert!(!budgets[0].announces(), "another worker logged it");
        assert_eq!(budgets[0].used_bytes(), 700);
        assert_eq!(budgets[1].settle(0, LOOK_MS), Some(Level::Tight));
        assert!(budgets[1].announces());
        assert_eq!(budgets[0].share_bytes(), 333);
    }

    #[test]
    fn the_hub_and_queues_keep_less_at_each_level() {
        let mut budgets = Budget::of_workers(1, 1 << 30);
        let budget = &mut budgets[0];
        let set = HubLimits {
            subscriptions_max: 1,
            answer_bytes_max: 2,
            backlog_bytes_max: 1000,
            history_bytes_max: 4000,
            position_ttl: std::time::Duration::ZERO,
            expired_close_delay: std::time::Duration::from_secs(25),
        };
        let levels = [
            (0, 4000, 1000, 100),
            (75, 2000, 1000 / u64::from(TIGHT_QUEUE_DIVISOR), 100 / TIGHT_QUEUE_DIVISOR),
            (90, 2000, 0, 100 / TIGHT_QUEUE_DIVISOR),
            (99, 2000, 0, 100 / TIGHT_QUEUE_DIVISOR),
        ];
        for (percent, history, backlog, queue) in levels {
            budget.settle((1_u64 << 30) / 100 * percent, 0);
            let limits = budget.hub_limits(set);
            assert_eq!((limits.history_bytes_max, limits.backlog_bytes_max), (history, backlog));
            assert_eq!((limits.subscriptions_max, limits.answer_bytes_max), (1, 2));
            assert_eq!(budget.queue_bytes_max(100), queue);
            assert_eq!((budget.is_critical(), budget.is_full()), (percent >= 90, percent == 99));
        }
    }

    #[test]
    fn the_fair_share_is_a_part_of_the_budget_for_each_connection() {
        let budgets = Budget::of_workers(2, 1 << 40);
        let all = budgets[0].fair_share(0);
        assert_eq!(all, (1 << 40) / FAIR_SHARE_DIVISOR);
        assert_eq!((budgets[0].fair_share(1), budgets[0].fair_share(4)), (all, all / 4));
        assert_eq!(budgets[0].fair_share(usize::MAX), FAIR_SHARE_BYTES_MIN);
    }
}
