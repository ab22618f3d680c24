//! How long publications take from their acceptance to the kernel.
//!
//! No delivery reads the clock: those of one turn leave together, so they are counted by batch of publications as they
//! are queued, and observed all at once when the time after the sends is known.

use crate::hub::FanOutBatch;
use crate::message::Item;
use crate::telemetry::Histogram;

/// Deliveries that wait for the time at which the kernel had their bytes.
#[derive(Debug, Default)]
pub(super) struct Lags {
    runs: Vec<Run>,
    /// When the publications of all runs were accepted.
    accepted_us: Vec<u32>,
}

/// Deliveries of the same publications.
#[derive(Debug)]
struct Run {
    /// Which fan-out, the number of the first item, and how many there are.
    of: (u64, u64, usize),
    publications: u32,
    deliveries: u32,
}

/// What a few turns may queue. Past it, what has waited longest to leave is not waited for any more.
const TIMES_MAX: usize = 64 * 1024;

/// Fewer sends are soon done, and a turn more would cost more than it tells.
const TIMED_SENDS_MIN: usize = 64;

impl Lags {
    /// Whether so many sends carry deliveries that their duration is worth measuring: the wait must not sleep.
    pub(super) fn times(&self, sends: usize) -> bool {
        !self.runs.is_empty() && sends >= TIMED_SENDS_MIN
    }

    /// A batch was queued for a subscriber.
    pub(super) fn add(&mut self, batch: &FanOutBatch<'_>) {
        let of = (batch.life, batch.start, batch.items.len());
        match self.runs.last_mut() {
            Some(run) if run.of == of => run.deliveries += 1,
            _ => {
                let before = self.accepted_us.len();
                let publications = batch.items.iter().filter_map(Item::publication);
                self.accepted_us.extend(publications.map(|publication| publication.accepted_us));
                let publications = self.accepted_us.len() - before;
                let publications = u32::try_from(publications).expect("a batch is bounded");
                self.runs.push(Run { of, publications, deliveries: 1 });
            }
        }
    }

    /// The turn's sends are done at `now_us`; `is_all` if nothing that was queued is left to send.
    pub(super) fn observe(&mut self, now_us: u64, is_all: bool, histogram: &Histogram) {
        if self.runs.is_empty() || !(is_all || self.accepted_us.len() > TIMES_MAX) {
            return;
        }
        let mut times = self.accepted_us.drain(..);
        for run in self.runs.drain(..) {
            for accepted_us in times.by_ref().take(run.publications as usize) {
                // Its home's turn may have begun after this one; and 32 bits come round.
                let lag = (now_us as u32).wrapping_sub(accepted_us) as i32;
                histogram.observe(u64::from(lag.max(0).unsigned_abs()), u64::from(run.deliveries));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{
        ChannelName, Epoch, Payload, PayloadKind, Position, Publication, Rendition,
    };

    fn channel() -> ChannelName {
        ChannelName::new("a").unwrap()
    }

    fn items(times: &[u32]) -> Vec<Item> {
        let one = |accepted_us: &u32| {
            Item::Publication(Arc::new(Publication {
                channel: channel(),
                position: Position { epoch: Epoch(1), offset: 1 },
                payload: Payload::new(PayloadKind::Text, "x"),
                info: None,
                accepted_us: *accepted_us,
                excludes: None,
                in_stream: true,
            }))
        };
        times.iter().map(one).collect()
    }

    #[test]
    fn every_delivery_is_observed_once_also_where_the_clock_comes_round() {
        let (channel, mut items) = (channel(), items(&[u32::MAX - 9, 20, 5000]));
        items.insert(2, Item::Gap(1));
        let of = |first: usize| {
            let (channel, items) = (&channel, &items[first..]);
            FanOutBatch {
                key: 0,
                life: 1,
                start: first as u64,
                channel,
                items,
                bytes: 1,
                is_shared: true,
                rendition: Rendition::Plain,
                predecessor: None,
            }
        };
        let (mut lags, histogram) = (Lags::default(), Histogram::default());
        lags.add(&of(0));
        lags.add(&of(0));
        lags.add(&of(2));
        lags.observe((1 << 32) + 30, false, &histogram);
        assert_eq!(histogram.count(), 0, "the rest of the queues has not left yet");
        lags.observe((1 << 32) + 30, true, &histogram);
        lags.observe((1 << 32) + 60, true, &histogram);
        assert_eq!(histogram.count(), 7);
        // Twice 40 and 10, and three times what is from a turn that began later.
        assert_eq!(histogram.sum_us(), 100);
    }
}
