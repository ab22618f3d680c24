//! Numbers with one writer each: single ones, and families whose members differ in a label.

use std::fmt::Write;
use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number. Only the owning worker may call this.
    pub fn add(&self, count: u64) {
        // There is one writer, so no other thread can store between the load and the store.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Subtracts from a gauge. Only the owning worker may call this.
    pub fn subtract(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) - count, Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value as of a recent moment.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn render(&self, name: &str, worker: usize, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}{{worker=\"{worker}\"}} {}", self.value());
    }
}

/// Numbers of one name, in the order of their labels' values.
#[derive(Debug)]
pub struct Family {
    key: &'static str,
    labels: &'static [&'static str],
    counters: Box<[Counter]>,
}

impl Family {
    pub(super) fn new(key: &'static str, labels: &'static [&'static str]) -> Self {
        Self { key, labels, counters: labels.iter().map(|_| Counter::default()).collect() }
    }

    /// The number with this label, or the last one of the family if no label matches. It searches, so it is for rare
    /// events.
    pub fn labelled(&self, label: &str) -> &Counter {
        let index = self.labels.iter().position(|known| *known == label);
        &self.counters[index.unwrap_or(self.labels.len() - 1)]
    }

    /// The numbers of the family, each with its label.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        self.labels.iter().copied().zip(&self.counters)
    }

    /// The sum of all numbers of the family.
    pub fn sum(&self) -> u64 {
        self.counters.iter().map(Counter::value).sum()
    }

    pub(super) fn render(&self, name: &str, worker: usize, out: &mut String) {
        for (label, counter) in self.iter() {
            let (key, value) = (self.key, counter.value());
            let _ = writeln!(out, "{name}{{worker=\"{worker}\",{key}=\"{label}\"}} {value}");
        }
    }
}

/// Numbers of one name with two labels, in the order of the values of the first, then of the second.
#[derive(Debug)]
pub struct Grid {
    keys: [&'static str; 2],
    labels: (&'static [&'static str], &'static [&'static str]),
    counters: Box<[Counter]>,
}

impl Grid {
    pub(super) fn new(
        keys: [&'static str; 2],
        labels: (&'static [&'static str], &'static [&'static str]),
    ) -> Self {
        let count = labels.0.len() * labels.1.len();
        Self { keys, labels, counters: (0..count).map(|_| Counter::default()).collect() }
    }

    /// The number whose labels have these indexes.
    pub fn at(&self, first: usize, second: usize) -> &Counter {
        &self.counters[first * self.labels.1.len() + second]
    }

    pub(super) fn render(&self, name: &str, worker: usize, out: &mut String) {
        let ([first_key, second_key], (firsts, seconds)) = (self.keys, self.labels);
        for (row, first) in firsts.iter().enumerate() {
            for (column, second) in seconds.iter().enumerate() {
                let value = self.at(row, column).value();
                let _ = writeln!(
                    out,
                    "{name}{{worker=\"{worker}\",{first_key}=\"{first}\",{second_key}=\"{second}\"}} {value}"
                );
            }
        }
    }
}

/// The index of a number is that of its label in the list.
impl Index<usize> for Family {
    type Output = Counter;

    fn index(&self, index: usize) -> &Counter {
        &self.counters[index]
    }
}
