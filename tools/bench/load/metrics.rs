//! What a server says about itself at `/metrics`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// The metrics of a server at one moment.
pub struct Metrics(String);

impl Metrics {
    /// `None` if the server does not answer, or has no metrics.
    pub fn of(address: SocketAddr) -> Option<Self> {
        // The queue of new connections may be full, and the kernel tries again less and less often.
        let mut stream = (0..CONNECTS_MAX)
            .find_map(|_| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok())?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        answer
            .starts_with(b"HTTP/1.1 200")
            .then(|| Self(String::from_utf8_lossy(&answer).into_owned()))
    }

    /// The sum of a metric over all workers and labels; `None` if there is no such metric.
    pub fn sum(&self, name: &str) -> Option<u64> {
        let samples = self.0.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        samples
            .map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .reduce(|sum, more| Some(sum? + more?))?
    }

    /// How many turns of all workers took longer than each bound, in microseconds.
    fn turns_over(&self) -> BTreeMap<u64, u64> {
        let bounds = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix("fantail_turn_duration_seconds_bucket{")?;
            let (bound, count) = rest.split_once("le=\"")?.1.split_once("\"} ")?;
            Some((bound.parse::<f64>().ok()?, count.parse::<u64>().ok()?))
        });
        let all = self.sum("fantail_turn_duration_seconds_count").unwrap_or(0);
        let mut within = BTreeMap::new();
        for (seconds, count) in bounds {
            *within.entry((seconds * 1e6).round() as u64).or_insert(0) += count;
        }
        within.into_iter().map(|(bound, count)| (bound, all.saturating_sub(count))).collect()
    }

    /// The turns since an earlier moment: their number, how many took longer than four milliseconds, and a bound that
    /// the longest did not exceed, which is at most twice as long.
    pub fn turns_since(&self, earlier: &Self) -> Value {
        let (before, after) = (earlier.turns_over(), self.turns_over());
        let over = |bound: u64| {
            let count = |turns: &BTreeMap<u64, u64>| turns.get(&bound).copied().unwrap_or(0);
            count(&after).saturating_sub(count(&before))
        };
        let count = |metrics: &Self| metrics.sum("fantail_turns_total").unwrap_or(0);
        json!({
            "count": count(self).saturating_sub(count(earlier)),
            "over_4_ms": over(FOUR_MS),
            "longest_at_most_us": after.keys().copied().find(|bound| over(*bound) == 0),
        })
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
const CONNECTS_MAX: usize = 50;

/// A bound of the histogram of turns, in microseconds.
const FOUR_MS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_all_workers_are_counted_by_their_length() {
        let metrics = |slow: u64| {
            Metrics(format!(
                "fantail_turn_duration_seconds_bucket{{worker=\"0\",le=\"0.004096\"}} 5\n\
                 fantail_turn_duration_seconds_bucket{{worker=\"0\",le=\"0.008192\"}} 5\n\
                 fantail_turn_duration_seconds_bucket{{worker=\"0\",le=\"+Inf\"}} 5\n\
                 fantail_turn_duration_seconds_count{{worker=\"0\"}} 5\n\
                 fantail_turn_duration_seconds_bucket{{worker=\"1\",le=\"0.004096\"}} 7\n\
                 fantail_turn_duration_seconds_bucket{{worker=\"1\",le=\"0.008192\"}} {0}\n\
                 fantail_turn_duration_seconds_count{{worker=\"1\"}} {0}\n\
                 fantail_turns_total{{worker=\"0\"}} 5\nfantail_turns_total{{worker=\"1\"}} {0}\n",
                7 + slow
            ))
        };
        let turns = metrics(2).turns_since(&metrics(0));
        let expected = json!({"count": 2, "over_4_ms": 2, "longest_at_most_us": 8192});
        assert_eq!(turns, expected);
        assert_eq!(metrics(0).turns_since(&metrics(0))["longest_at_most_us"], 4096);
        assert_eq!(metrics(0).sum("fantail_turns"), None);
    }
}
