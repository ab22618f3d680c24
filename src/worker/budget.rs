//! One memory budget for all workers, without a lock and without a step per message.
//!
//! Each worker counts what it holds and writes the sum into a line of its own once or twice a turn. It reads the lines
//! of the others every [`LOOK_MS`] milliseconds; with its own sum, which it knows, that makes what the process holds,
//! and that a [`Level`]. Workers may differ in it for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::config::limits::{
    MEMORY_CRITICAL_PERCENT, MEMORY_FULL_PERCENT, MEMORY_HYSTERESIS_PERCENT, MEMORY_TIGHT_PERCENT,
};

/// How much of the budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing has to change.
    Calm,
    /// Less is kept.
    Tight,
    /// The worst consumers are closed, and nobody new is served.
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
    /// Of the other workers, as of the last look.
    others: u64,
    look_at_ms: u64,
    level: Level,
}

#[derive(Debug)]
struct Shared {
    accounts: Box<[Account]>,
    /// The level that was announced last.
    announced: AtomicU8,
}

/// A line of its own, and its neighbour that processors fetch with it, so that workers do not contend.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Account(AtomicU64);

/// Between two looks at what other workers hold.
const LOOK_MS: u64 = 8;

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
        let shared = Arc::new(Shared { accounts, announced: AtomicU8::new(0) });
        (0..workers)
            .map(|own| Budget {
                shared: shared.clone(),
                own,
                bytes_max,
                others: 0,
                look_at_ms: 0,
                level: Level::Calm,
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

    /// Whether the level is news: the first worker that finds it tells of it.
    pub fn announces(&self) -> bool {
        self.shared.announced.swap(self.level as u8, Ordering::Relaxed) != self.level as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!budgets[0].announces(), "it has been told");
        assert_eq!(budgets[0].used_bytes(), 700);
        assert_eq!(budgets[1].settle(0, LOOK_MS), Some(Level::Tight));
        assert!(budgets[1].announces());
        assert_eq!(budgets[0].share_bytes(), 333);
    }
}
