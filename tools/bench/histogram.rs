//! Latencies in logarithmic buckets: 32 to each power of two, so a quantile is off by at most about 3 %.

/// How often each latency was seen.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; 64 << SUB_BITS], total: 0, max: 0 }
    }

    pub fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max = 0;
    }

    /// The smallest bucket bound that `quantile` of all values do not exceed; 0 when nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let rank = (self.total as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }

    /// Microseconds, as the reports print them.
    pub fn to_json(&self) -> serde_json::Value {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        serde_json::json!({
            "count": self.total,
            "p50_us": us(self.quantile(0.5)),
            "p99_us": us(self.quantile(0.99)),
            "p999_us": us(self.quantile(0.999)),
            "max_us": us(self.max),
        })
    }
}

const SUB_BITS: u32 = 5;

fn bucket(value: u64) -> usize {
    let power = 63 - (value | 1).leading_zeros();
    if power < SUB_BITS {
        return value as usize;
    }
    let shift = power - SUB_BITS;
    (((shift + 1) << SUB_BITS) as u64 + (value >> shift) - (1 << SUB_BITS)) as usize
}

fn upper_bound(bucket: usize) -> u64 {
    let group = bucket as u64 >> SUB_BITS;
    if group == 0 {
        return bucket as u64;
    }
    let shift = group - 1;
    let within = (bucket as u64 & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS);
    ((within + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..100_000).chain([1 << 40, (1 << 40) + 12_345, u64::MAX >> 1]) {
            let index = bucket(value);
            assert!(value <= upper_bound(index), "{value}");
            assert!(index == 0 || value > upper_bound(index - 1), "{value}");
        }
    }

    #[test]
    fn quantiles_are_within_three_percent() {
        let mut histogram = Histogram::new();
        (1..=10_000).for_each(|value| histogram.record(value * 100));
        for (quantile, exact) in [(0.5, 500_000.0), (0.99, 990_000.0), (0.999, 999_000.0)] {
            let error = histogram.quantile(quantile) as f64 / exact - 1.0;
            assert!((0.0..0.032).contains(&error), "{quantile}: {error}");
        }
    }
}
