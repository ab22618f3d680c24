//! What a run found: one tree of numbers, printed as a table for people or as JSON for programs.
//!
//! A name ends in its unit, and the table reads it from there.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::instrument::Histogram;
use crate::run::merge;
use crate::stream::Faults;
use crate::usage::Memory;

/// The report of one run.
pub struct Report {
    tree: Map<String, Value>,
    bottlenecks: Vec<String>,
    faults: Faults,
    /// Why the run is a failure; `None` if it is not.
    pub cause: Option<String>,
}

/// The run at one instant.
pub struct Sample {
    /// Since the start.
    pub seconds: f64,
    pub open: u64,
    pub memory: Memory,
    /// Of the messages since the last sample.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub count: u64,
}

/// Samples at an even pace. A long run has fewer to the minute, never more than the bound.
pub struct Samples {
    pub list: Vec<Sample>,
    every: Duration,
    due: Instant,
}

impl Report {
    pub fn new(mode: &str) -> Self {
        let mut tree = Map::new();
        tree.insert("mode".to_owned(), json!(mode));
        Self { tree, bottlenecks: Vec::new(), faults: Faults::default(), cause: None }
    }

    pub fn set(&mut self, name: &str, value: Value) {
        self.tree.insert(name.to_owned(), value);
    }

    /// Adds members to an object.
    pub fn add(&mut self, name: &str, members: Value) {
        merge(self.tree.entry(name).or_insert_with(|| json!({})), members);
    }

    /// Notes that c1m itself was the limit.
    pub fn bottleneck(&mut self, how: String) {
        self.bottlenecks.push(how);
    }

    /// Reports how late publications left, and whether that was too late.
    pub fn set_lag(&mut self, lag: &Histogram) {
        self.add("c1m", json!({ "publisher_lag": lag.to_json() }));
        let p99 = lag.quantile(0.99);
        if p99 > LAG_NS_MAX {
            self.bottleneck(format!("publications left up to {} ms (p99) late", p99 / 1_000_000));
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.add("messages", faults_json(faults));
    }

    /// Whether the run is a success, and if not, why.
    pub fn conclude(&mut self, cause: Option<String>, lost_connections: u64) {
        let faults = self.faults;
        self.cause = cause.or_else(|| {
            if lost_connections > 0 {
                return Some(format!("{lost_connections} connections were lost"));
            }
            faults.any().then(|| {
                format!(
                    "messages were lost ({}), duplicated ({}), reordered ({}), unplaced ({}) or strange ({})",
                    faults.lost, faults.duplicated, faults.reordered, faults.unplaced, faults.strange
                )
            })
        });
        let bottlenecks = std::mem::take(&mut self.bottlenecks);
        self.add("c1m", json!({ "bottleneck": bottlenecks }));
        self.set("ok", json!(self.cause.is_none()));
        self.set("ended", json!(self.cause.as_deref().unwrap_or("as planned")));
    }

    /// Makes it a failure after all.
    pub fn fail(&mut self, cause: &str) {
        self.cause = Some(cause.to_owned());
        self.set("ok", json!(false));
        self.set("ended", json!(cause));
    }

    #[expect(clippy::print_stdout, reason = "the report is what the program is for")]
    pub fn print_json(&self) {
        println!("{}", Value::Object(self.tree.clone()));
    }

    #[expect(clippy::print_stdout, reason = "the report is what the program is for")]
    pub fn print_table(&self) {
        let rest = self.tree.keys().map(String::as_str).filter(|name| !SECTIONS.contains(name));
        for name in SECTIONS.into_iter().chain(rest) {
            match self.tree.get(name) {
                None => {}
                Some(Value::Object(members)) => {
                    println!("{}", name.replace('_', " "));
                    for (name, value) in members {
                        println!("  {:<36}{}", name.replace('_', " "), in_words(name, value));
                    }
                }
                Some(value) => println!("{name:<38}{}", in_words(name, value)),
            }
        }
    }
}

impl Samples {
    pub fn new() -> Self {
        Self { list: Vec::new(), every: Duration::from_secs(1), due: Instant::now() }
    }

    pub fn are_due(&self) -> bool {
        Instant::now() >= self.due
    }

    pub fn add(&mut self, sample: Sample) {
        if self.list.len() >= SAMPLES_MAX {
            let mut place = 0;
            self.list.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every *= 2;
        }
        self.list.push(sample);
        self.due = Instant::now() + self.every;
    }
}

/// Faults as the report has them.
pub fn faults_json(faults: Faults) -> Value {
    json!({
        "lost": faults.lost,
        "duplicated": faults.duplicated,
        "reordered": faults.reordered,
        "unplaced": faults.unplaced,
        "strange": faults.strange,
    })
}

fn in_words(name: &str, value: &Value) -> String {
    match value {
        Value::Object(members) if members.is_empty() => "none".to_owned(),
        Value::Object(members) if members.contains_key("p50_us") => {
            let number = |name: &str| members.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
            let words =
                [("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"), ("max", "max_us")]
                    .map(|(label, name)| format!("{label} {}", with_unit(name, number(name))));
            format!("{} ({} of them)", words.join(", "), number("count"))
        }
        Value::Object(members) => {
            let words =
                members.iter().map(|(name, value)| format!("{name}: {}", in_words(name, value)));
            words.collect::<Vec<_>>().join(", ")
        }
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => {
            list.iter().map(|value| in_words(name, value)).collect::<Vec<_>>().join("; ")
        }
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "unknown".to_owned(),
        Value::Number(number) => with_unit(name, number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn with_unit(name: &str, number: f64) -> String {
    if name.ends_with("_us") {
        let (number, unit) = match number {
            n if n >= 1e6 => (n / 1e6, "s"),
            n if n >= 1e3 => (n / 1e3, "ms"),
            n => (n, "us"),
        };
        return format!("{number:.2} {unit}");
    }
    if name.ends_with("bytes_per_connection") {
        return format!("{number:.0} B");
    }
    if name.ends_with("_bytes") {
        return format!("{:.1} MB", number / 1e6);
    }
    if name.ends_with("_share") {
        return format!("{:.0}%", number * 100.0);
    }
    if name.contains("_ns_") {
        return format!("{number:.0} ns");
    }
    if name.contains("seconds") {
        return format!("{number:.3} s");
    }
    if number.fract() == 0.0 || number >= 1000.0 {
        return format!("{number:.0}");
    }
    format!("{number:.2}")
}

/// The table's order; what is not named here comes last.
const SECTIONS: [&str; 14] = [
    "mode",
    "protocol",
    "target",
    "ok",
    "ended",
    "connections",
    "hold",
    "work",
    "messages",
    "slow",
    "server",
    "memory",
    "memory_at_end",
    "c1m",
];

const SAMPLES_MAX: usize = 2048;

/// A publisher that leaves later than this measures itself.
const LAG_NS_MAX: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_the_unit_of_their_name() {
        assert_eq!(with_unit("p99_us", 1500.0), "1.50 ms");
        assert_eq!(with_unit("server_bytes", 121e6), "121.0 MB");
        assert_eq!(with_unit("server_bytes_per_connection", 121.4), "121 B");
        assert_eq!(with_unit("opened", 10_000.0), "10000");
        let latency =
            json!({"count": 2, "p50_us": 3.0, "p99_us": 4e3, "p999_us": 5e6, "max_us": 6e6});
        let words = "p50 3.00 us, p99 4.00 ms, p99.9 5.00 s, max 6.00 s (2 of them)";
        assert_eq!(in_words("x", &latency), words);
        assert_eq!(in_words("x", &json!({"refused": 3})), "refused: 3");
    }

    #[test]
    fn any_loss_and_any_fault_is_a_failure() {
        let conclude = |faults, lost| {
            let mut report = Report::new("idle");
            report.set_faults(faults);
            report.conclude(None, lost);
            report.cause
        };
        assert_eq!(conclude(Faults::default(), 0), None);
        assert!(conclude(Faults::default(), 1).is_some());
        assert!(conclude(Faults { duplicated: 1, ..Faults::default() }, 0).is_some());
    }

    #[test]
    fn samples_are_thinned_out_not_piled_up() {
        let mut samples = Samples::new();
        for second in 0..=SAMPLES_MAX {
            let memory = Memory::default();
            let seconds = second as f64;
            samples.add(Sample { seconds, open: 0, memory, p50_ns: 0, p99_ns: 0, count: 0 });
        }
        assert_eq!(samples.list.len(), SAMPLES_MAX / 2 + 1);
        assert_eq!(samples.every, Duration::from_secs(2));
        assert!(samples.list.is_sorted_by(|a, b| a.seconds < b.seconds));
    }
}
