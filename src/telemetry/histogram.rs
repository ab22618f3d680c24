//! Durations, counted in buckets of doubling width.

use std::fmt::Write;

use super::Counter;

/// Counts of durations: twenty buckets from 16 µs to 8 s, each twice as wide as the one before, and one for longer
/// durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS + 1],
    sum_us: Counter,
}

/// Bits of the first bucket's bound, which is 2^4 µs.
const SMALLEST_BITS: u32 = 4;

const BUCKETS: usize = 20;

impl Histogram {
    /// Adds a duration `count` times. Only the owning worker may call this.
    pub fn observe(&self, microseconds: u64, count: u64) {
        // A bucket includes its bound, so the bits of the duration less one select it.
        let bits = u64::BITS - microseconds.saturating_sub(1).leading_zeros();
        let bucket = bits.saturating_sub(SMALLEST_BITS) as usize;
        self.buckets[bucket.min(BUCKETS)].add(count);
        self.sum_us.add(microseconds * count);
    }

    /// The number of durations observed.
    pub fn count(&self) -> u64 {
        self.counts().sum()
    }

    /// Upper bounds of the buckets, in microseconds; the last bucket has none.
    pub(super) fn bounds_us() -> impl Iterator<Item = u64> {
        (0..BUCKETS).map(|bucket| 1 << (SMALLEST_BITS as usize + bucket))
    }

    /// The number of durations in each bucket.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Counter::value)
    }

    /// The sum of all durations, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.value()
    }

    pub(super) fn render(&self, name: &str, worker: usize, out: &mut String) {
        let mut count = 0;
        let bounds = Self::bounds_us().map(seconds).chain(["+Inf".to_owned()]);
        for (bound, more) in bounds.zip(self.counts()) {
            count += more;
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name}_bucket{{worker=\"{worker}\",le=\"{bound}\"}} {count}");
        }
        let sum = seconds(self.sum_us.value());
        let _ = writeln!(out, "{name}_sum{{worker=\"{worker}\"}} {sum}");
        let _ = writeln!(out, "{name}_count{{worker=\"{worker}\"}} {count}");
    }
}

/// Seconds with all six decimals, of which a float would lose the last ones of a large sum.
fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (microseconds, bound) in [
            (0, "0.000016"),
            (16, "0.000016"),
            (17, "0.000032"),
            (32, "0.000032"),
            (1 << 23, "8.388608"),
            ((1 << 23) + 1, "+Inf"),
        ] {
            let histogram = Histogram::default();
            histogram.observe(microseconds, 3);
            let mut text = String::new();
            histogram.render("x_seconds", 0, &mut text);
            let first = text.lines().find(|line| line.ends_with("} 3")).unwrap();
            assert!(first.contains(&format!("le=\"{bound}\"")), "{microseconds}: {first}");
            assert!(text.ends_with("x_seconds_count{worker=\"0\"} 3\n"));
            assert_eq!(histogram.count(), 3);
        }
    }

    #[test]
    fn buckets_are_cumulative_and_the_sum_keeps_its_microseconds() {
        let histogram = Histogram::default();
        histogram.observe(10, 2);
        histogram.observe(1_000_000, 1);
        histogram.observe(10_000_000, 1);
        let mut text = String::new();
        histogram.render("x_seconds", 1, &mut text);
        for line in [
            "x_seconds_bucket{worker=\"1\",le=\"0.000016\"} 2\n",
            "x_seconds_bucket{worker=\"1\",le=\"0.524288\"} 2\n",
            "x_seconds_bucket{worker=\"1\",le=\"1.048576\"} 3\n",
            "x_seconds_bucket{worker=\"1\",le=\"+Inf\"} 4\n",
            "x_seconds_sum{worker=\"1\"} 11.000020\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
