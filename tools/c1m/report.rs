//! The report of a run: a tree of numbers, printed as a table or as JSON.
//!
//! The name of a number ends in its unit, which the table uses.

use std::time::{Duration, Instant};

use fantail::server::host::Grouped;
use serde_json::{Map, Value, json};

use crate::instrument::Histogram;
use crate::shared::Recorder;
use crate::stream::Faults;
use crate::usage::Memory;

/// The report of one run.
pub struct Report {
    tree: Map<String, Value>,
    bottlenecks: Vec<String>,
    faults: Faults,
    /// Cause of failure; `None` for a success.
    pub cause: Option<String>,
}

/// State of the run at one instant.
pub struct Sample {
    /// Time since the start of the run.
    pub seconds: f64,
    pub open: u64,
    pub memory: Memory,
    /// Latencies of the messages since the last sample.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub count: u64,
}

/// Samples at regular intervals. In a long run the intervals grow, so that the number of samples is bounded.
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

    /// Adds members to an object of the report.
    pub fn add(&mut self, name: &str, members: Value) {
        merge(self.tree.entry(name).or_insert_with(|| json!({})), members);
    }

    /// Records that c1m itself was the bottleneck.
    pub fn bottleneck(&mut self, how: String) {
        self.bottlenecks.push(how);
    }

    /// Reports the delay of publications against their schedule; a bottleneck if it is too long.
    pub fn set_lag(&mut self, lag: &Histogram) {
        self.add("c1m", json!({ "publisher_lag": lag.to_json() }));
        let p99 = lag.quantile(0.99);
        if p99 > LAG_NS_MAX {
            self.bottleneck(format!(
                "publications were sent up to {} ms (p99) late",
                p99 / 1_000_000
            ));
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.add("messages", faults_json(faults));
    }

    /// Decides whether the run is a success, and if not, names the cause.
    pub fn conclude(&mut self, cause: Option<String>, lost_connections: u64) {
        let faults = self.faults;
        self.cause = cause.or_else(|| {
            match lost_connections {
                0 => {}
                1 => return Some("1 connection was lost".to_owned()),
                _ => return Some(format!("{lost_connections} connections were lost")),
            }
            faults.any().then(|| {
                format!(
                    "messages were lost ({}), duplicated ({}), reordered ({}), unclassified ({}) or unexpected ({})",
                    faults.lost, faults.duplicated, faults.reordered, faults.unclassified, faults.unexpected
                )
            })
        });
        let bottlenecks = std::mem::take(&mut self.bottlenecks);
        self.add("c1m", json!({ "bottleneck": bottlenecks }));
        self.set("ok", json!(self.cause.is_none()));
        self.set("ended", json!(self.cause.as_deref().unwrap_or("as planned")));
    }

    /// Makes the run a failure.
    pub fn fail(&mut self, cause: &str) {
        self.cause = Some(cause.to_owned());
        self.set("ok", json!(false));
        self.set("ended", json!(cause));
    }

    pub fn to_json(&self) -> String {
        format!("{}\n", Value::Object(self.tree.clone()))
    }

    pub fn to_table(&self) -> String {
        let mut table = String::new();
        let position = |list: &[&str], name: &str| list.iter().position(|other| *other == name);
        let in_order = |tree: &Map<String, Value>, list: &[&str]| {
            let mut names: Vec<String> = tree.keys().cloned().collect();
            names.sort_by_key(|name| position(list, name).unwrap_or(list.len()));
            names
        };
        for name in in_order(&self.tree, &SECTIONS) {
            let Value::Object(members) = &self.tree[&name] else {
                table += &format!("{name:<38}{}\n", value_text(&name, &self.tree[&name]));
                continue;
            };
            // Sections that do not apply to a mode are all zero.
            if members.values().all(|value| value.as_u64() == Some(0)) {
                continue;
            }
            table += &format!("{}\n", name.replace('_', " "));
            for name in in_order(members, &MEMBERS) {
                table += &format!("  {:<36}{}\n", label(&name), value_text(&name, &members[&name]));
            }
        }
        table
    }
}

impl Samples {
    pub fn every(every: Duration) -> Self {
        Self { list: Vec::new(), every, due: Instant::now() }
    }

    pub fn are_due(&self) -> bool {
        Instant::now() >= self.due
    }

    pub fn add(&mut self, sample: Sample) {
        if self.list.len() >= SAMPLES_MAX {
            let mut index = 0;
            self.list.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every *= 2;
        }
        self.list.push(sample);
        self.due = Instant::now() + self.every;
    }
}

/// Merges the members of one object into another.
pub fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// Message faults as the report shows them.
pub fn faults_json(faults: Faults) -> Value {
    json!({
        "lost": faults.lost,
        "duplicated": faults.duplicated,
        "reordered": faults.reordered,
        "unclassified": faults.unclassified,
        "unexpected": faults.unexpected,
    })
}

/// The latencies of messages, if there were any.
pub fn latencies_json(latencies: &Recorder) -> Value {
    let all = [("latency", &latencies.latency), ("last_subscriber", &latencies.last)];
    let some = all.into_iter().filter(|(_, histogram)| histogram.count() > 0);
    some.map(|(name, histogram)| (name.to_owned(), histogram.to_json())).collect()
}

/// A name without its unit, which is printed with the value.
fn label(name: &str) -> String {
    name.trim_end_matches("_us").replace("_ns_", "_").replace('_', " ")
}

fn value_text(name: &str, value: &Value) -> String {
    match value {
        Value::Object(members) if members.is_empty() => "none".to_owned(),
        Value::Object(members) if members.get("count") == Some(&json!(0)) => "none".to_owned(),
        Value::Object(members) if members.contains_key("p50_us") => {
            let number = |name: &str| members.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
            let words =
                [("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"), ("max", "max_us")]
                    .map(|(label, name)| format!("{label} {}", with_unit(name, number(name))));
            format!("{} ({} of them)", words.join(", "), whole(number("count")))
        }
        Value::Object(members) => {
            let words =
                members.iter().map(|(name, value)| format!("{name}: {}", value_text(name, value)));
            words.collect::<Vec<_>>().join(", ")
        }
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => {
            list.iter().map(|value| value_text(name, value)).collect::<Vec<_>>().join("; ")
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
        return format!("{} B", whole(number));
    }
    if name.ends_with("_bytes") {
        return format!("{:.1} MB", number / 1e6);
    }
    if name.ends_with("_share") {
        return format!("{:.0}%", number * 100.0);
    }
    if name.contains("_ns_") {
        return format!("{} ns", whole(number));
    }
    if name.contains("seconds") {
        return format!("{number:.3} s");
    }
    if number.fract() == 0.0 || number >= 1000.0 {
        return whole(number);
    }
    format!("{number:.2}")
}

/// A rounded number with separators between thousands.
fn whole(number: f64) -> String {
    let sign = if number <= -0.5 { "-" } else { "" };
    format!("{sign}{}", Grouped(number.abs().round() as u64))
}

/// Order of the sections in the table; others come last.
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

/// Order of the lines within a section; others come last.
const MEMBERS: [&str; 45] = [
    "requested",
    "opened",
    "connections",
    "seconds_to_open",
    "opened_per_second",
    "opening",
    "server_cpu_ns_per_opening",
    "c1m_cpu_cores",
    "published",
    "publishing_deferred",
    "sent",
    "expected",
    "received",
    "closed_by_server",
    "failed",
    "failed_by_cause",
    "lost",
    "lost_by_cause",
    "open_at_end",
    "pings_answered",
    "operation",
    "operations",
    "seconds",
    "operations_per_second",
    "latency",
    "last_subscriber",
    "duplicated",
    "reordered",
    "unclassified",
    "unexpected",
    "dropped",
    "returned",
    "retries",
    "drop_seconds",
    "seconds_until_all_open",
    "longest_accept_stall_us",
    "connect_to_open",
    "canaries_baseline",
    "canaries_during_storm",
    "server_bytes_per_connection",
    "c1m_bytes_per_connection",
    "kernel_bytes_per_connection",
    "host_bytes_per_connection",
    "bottleneck",
    "threads",
];

const SAMPLES_MAX: usize = 2048;

/// Above this delay the publisher measures itself instead of the server.
const LAG_NS_MAX: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_with_the_unit_of_their_name() {
        assert_eq!(with_unit("p99_us", 1500.0), "1.50 ms");
        assert_eq!(with_unit("server_bytes", 121e6), "121.0 MB");
        assert_eq!(with_unit("server_bytes_per_connection", 121.4), "121 B");
        assert_eq!(with_unit("server_bytes_per_connection", -19_620.4), "-19,620 B");
        assert_eq!(with_unit("opened", 10_000.0), "10,000");
        assert_eq!(label("longest_accept_stall_us"), "longest accept stall");
        assert_eq!(label("cpu_ns_per_operation"), "cpu per operation");
        let latency =
            json!({"count": 2, "p50_us": 3.0, "p99_us": 4e3, "p999_us": 5e6, "max_us": 6e6});
        let words = "p50 3.00 us, p99 4.00 ms, p99.9 5.00 s, max 6.00 s (2 of them)";
        assert_eq!(value_text("x", &latency), words);
        assert_eq!(value_text("x", &json!({"refused": 3})), "refused: 3");
        assert_eq!(value_text("x", &Histogram::new().to_json()), "none");
    }

    #[test]
    fn the_table_is_sorted_by_importance() {
        let mut report = Report::new("idle");
        report.add("storm_1", json!({ "a_new_name": 1 }));
        report.add("messages", json!({ "lost": 0, "received": 0 }));
        report.add("slow", json!({ "lost": 0, "received": 7 }));
        report.add("connections", json!({ "lost_by_cause": {}, "lost": 0, "requested": 1000 }));
        report.conclude(None, 0);
        let table = report.to_table();
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = [
            &["mode", "idle"][..],
            &["ok", "yes"],
            &["ended", "as", "planned"],
            &["connections"],
            &["requested", "1,000"],
            &["lost", "0"],
            &["lost", "by", "cause", "none"],
            &["slow"],
            &["received", "7"],
            &["lost", "0"],
            &["c1m"],
            &["bottleneck", "none"],
            &["storm", "1"],
            &["a", "new", "name", "1"],
        ];
        assert_eq!(lines, expected, "{table}");
    }

    #[test]
    fn any_lost_connection_and_any_message_fault_is_a_failure() {
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
    fn samples_are_thinned_out_beyond_their_maximum() {
        let mut samples = Samples::every(Duration::from_secs(1));
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
