//! Statistics of the workers as JSON: a part of the metrics, small enough to be published every second.
//!
//! Counters are published as totals, as on the metrics page: a client that misses a message computes the same rates
//! from the next one.

use std::fmt::Write;
use std::sync::Arc;

use super::{Counter, Counters, Histogram};

type Number = fn(&Counters) -> &Counter;

/// The numbers of each worker that are published.
const NUMBERS: &[(&str, Number)] = &[
    ("connections_accepted", |counters| &counters.connections_accepted),
    ("publications", |counters| &counters.publications),
    ("deliveries", |counters| &counters.deliveries),
    ("received_bytes", |counters| &counters.received_bytes),
    ("sent_bytes", |counters| &counters.sent_bytes),
    ("turns", |counters| &counters.turns),
    ("channels", |counters| &counters.channels),
    ("subscriptions", |counters| &counters.subscriptions),
    ("send_queue_bytes", |counters| &counters.send_queue_bytes),
    ("history_bytes", |counters| &counters.history_bytes),
    ("memory_used_bytes", |counters| &counters.memory_used_bytes),
    ("memory_max_bytes", |counters| &counters.memory_max_bytes),
];

/// Appends an object: `uptime_ms`; `delivery_lag_bounds_us`, the upper bounds of all buckets but the last, which is
/// unbounded; and `workers`, each with its numbers, its `connections` by transport, and in `delivery_lag` the number of
/// deliveries in each bucket.
pub fn write_statistics(workers: &[Arc<Counters>], uptime_ms: u64, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{{\"uptime_ms\":{uptime_ms},\"delivery_lag_bounds_us\":[");
    write_list(out, Histogram::bounds_us());
    out.push_str("],\"workers\":[");
    for (index, counters) in workers.iter().enumerate() {
        out.push_str(if index == 0 { "{" } else { ",{" });
        for (name, number) in NUMBERS {
            let _ = write!(out, "\"{name}\":{},", number(counters).value());
        }
        out.push_str("\"connections\":{");
        for (index, (label, counter)) in counters.connections.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(out, "{comma}\"{label}\":{}", counter.value());
        }
        out.push_str("},\"delivery_lag\":[");
        write_list(out, counters.delivery_lag.counts());
        out.push_str("]}");
    }
    out.push_str("]}");
}

fn write_list(out: &mut String, numbers: impl Iterator<Item = u64>) {
    for (index, number) in numbers.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}{number}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Labels;

    #[test]
    fn statistics_hold_the_numbers_of_each_worker() {
        let labels = Labels {
            connections: &["http", "sse"],
            connections_rejected: &["limit"],
            connections_closed: &["gone"],
            handshakes_failed: &["timeout"],
            api_refused: &["key_missing"],
            rates_exceeded: &["bytes"],
            tokens_rejected: &["expired"],
            publications_dropped: &["rate"],
            proxy_headers_rejected: &["missing"],
            tls_failed: &["record"],
            callbacks: (&["rpc"], &["result"]),
        };
        let workers: Vec<_> = (0..2).map(|_| Arc::new(Counters::new(labels))).collect();
        workers[1].deliveries.add(3);
        workers[1].connections[1].add(2);
        workers[1].delivery_lag.observe(17, 5);
        workers[1].delivery_lag.observe(u64::MAX / 2, 1);
        let mut text = String::new();
        write_statistics(&workers, 1500, &mut text);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["uptime_ms"], 1500);
        let bounds = json["delivery_lag_bounds_us"].as_array().unwrap();
        assert_eq!((&bounds[0], &bounds[1]), (&16.into(), &32.into()));
        assert_eq!(json["workers"][0]["deliveries"], 0);
        let worker = &json["workers"][1];
        assert_eq!(worker["deliveries"], 3);
        assert_eq!(worker["connections"], serde_json::json!({"http": 0, "sse": 2}));
        let lags = worker["delivery_lag"].as_array().unwrap();
        assert_eq!(lags.len(), bounds.len() + 1);
        assert_eq!((&lags[0], &lags[1], lags.last().unwrap()), (&0.into(), &5.into(), &1.into()));
    }
}
