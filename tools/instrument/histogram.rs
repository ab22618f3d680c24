//! Histograms of latencies with an error of at most 1%.

use hdrhistogram::Histogram as Buckets;

/// A histogram of latencies in nanoseconds.
pub struct Histogram(Buckets<u64>);

impl Histogram {
    /// Creates an empty histogram, which grows as needed.
    pub fn new() -> Self {
        Self(Buckets::new(SIGNIFICANT_DIGITS).expect("two digits are allowed"))
    }

    /// Adds one latency, in nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0
            .record(nanoseconds.min(NANOSECONDS_MAX))
            .expect("a histogram grows to what it may be given");
    }

    /// Adds the values of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("a histogram that grows takes any other");
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Number of recorded values.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantile in nanoseconds; 0 without values.
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile).min(self.0.max())
    }

    /// Quantiles in microseconds, as reports print them.
    pub fn to_json(&self) -> serde_json::Value {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        serde_json::json!({
            "count": self.count(),
            "p50_us": us(self.quantile(0.5)),
            "p99_us": us(self.quantile(0.99)),
            "p999_us": us(self.quantile(0.999)),
            "max_us": us(self.0.max()),
        })
    }
}

const SIGNIFICANT_DIGITS: u8 = 2;

/// Largest latency, thirteen days; longer ones are recorded as this.
const NANOSECONDS_MAX: u64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::{Histogram, NANOSECONDS_MAX};

    #[test]
    fn quantiles_are_within_one_percent_and_sums_are_exact() {
        let (mut odd, mut even) = (Histogram::new(), Histogram::new());
        assert_eq!((odd.count(), odd.quantile(0.99)), (0, 0));
        (1..=10_000).for_each(|value| {
            if value % 2 == 0 { even.record(value * 100) } else { odd.record(value * 100) }
        });
        odd.add(&even);
        assert_eq!(odd.count(), 10_000);
        for (quantile, exact) in [(0.5, 500_000.0), (0.99, 990_000.0), (1.0, 1_000_000.0)] {
            let error = odd.quantile(quantile) as f64 / exact - 1.0;
            assert!((0.0..0.01).contains(&error), "{quantile}: {error}");
        }
        odd.clear();
        assert_eq!(odd.count(), 0);
    }

    #[test]
    fn any_latency_is_accepted() {
        let mut histogram = Histogram::new();
        [0, 1, NANOSECONDS_MAX, u64::MAX].into_iter().for_each(|value| histogram.record(value));
        assert_eq!(histogram.count(), 4);
        assert!(histogram.quantile(1.0) >= NANOSECONDS_MAX);
    }
}
