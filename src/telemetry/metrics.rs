//! The table of metrics: one row each.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owning worker may call this.
    pub fn add(&self, count: u64) {
        // One writer: no other thread can store between the load and the store.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value as of some recent moment.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($field:ident, $kind:literal, $name:literal, $help:literal;)*) => {
        /// What one worker counts.
        #[derive(Debug)]
        pub struct Counters {
            $(#[doc = $help] pub $field: Counter,)*
            /// Connections ended, by reason: the order is that of the labels given to `new`.
            pub closed: Box<[Counter]>,
            closed_labels: &'static [&'static str],
        }

        impl Counters {
            /// All zero; `closed_labels` name the reasons in [`Counters::closed`].
            pub fn new(closed_labels: &'static [&'static str]) -> Self {
                let closed = closed_labels.iter().map(|_| Counter::default()).collect();
                Self { $($field: Counter::default(),)* closed, closed_labels }
            }
        }

        /// All sets as Prometheus text, version 0.0.4; one sample per worker.
        pub fn render(workers: &[Arc<Counters>], out: &mut String) {
            $(
                head(out, $name, $kind, $help);
                for (worker, counters) in workers.iter().enumerate() {
                    let value = counters.$field.value();
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "{}{{worker=\"{worker}\"}} {value}", $name);
                }
            )*
            render_closed(workers, out);
        }
    };
}

metrics! {
    accepted, "counter", "fantail_connections_accepted_total", "Connections accepted.";
    refused, "counter", "fantail_connections_refused_total", "Connections refused: there were as many as may be.";
    refused_overloaded, "counter", "fantail_refused_overloaded_total", "Clients refused for want of memory.";
    evicted_queues, "counter", "fantail_evicted_queues_total", "Clients closed for their send queues.";
    evicted_messages, "counter", "fantail_evicted_messages_total", "Clients closed for unfinished messages.";
    evicted_publishers, "counter", "fantail_evicted_publishers_total", "Publishers closed while held back.";
    evicted_laggards, "counter", "fantail_evicted_laggards_total", "Laggards closed for want of memory.";
    memory_bytes, "gauge", "fantail_memory_bytes", "Bytes that wait or are kept.";
    memory_level, "gauge", "fantail_memory_level", "Of memory use: 0 calm, 1 tight, 2 critical, 3 full.";
    memory_bytes_max, "gauge", "fantail_memory_bytes_max", "This worker's share of the memory budget.";
    open, "gauge", "fantail_connections_open", "Connections open.";
    accept_pauses, "counter", "fantail_accept_pauses_total", "Pauses of accepting for want of descriptors.";
    received_bytes, "counter", "fantail_received_bytes_total", "Bytes received.";
    sent_bytes, "counter", "fantail_sent_bytes_total", "Bytes handed to the kernel.";
    sends, "counter", "fantail_sends_total", "Sends.";
    sends_late, "counter", "fantail_sends_late_total", "Sends that the kernel did not take whole.";
    publications, "counter", "fantail_publications_total", "Publications numbered by this worker.";
    deliveries, "counter", "fantail_deliveries_total", "Publications queued for a subscriber.";
    publishers_held, "counter", "fantail_publishers_held_total", "Times a publisher waited for fan-outs.";
    fan_out_backlog, "gauge", "fantail_fan_out_backlog", "Publications that wait for their fan-out.";
    queued_bytes, "gauge", "fantail_send_queue_bytes", "Bytes that wait in send queues.";
    channels, "gauge", "fantail_channels", "Channels with subscribers on this worker.";
    subscriptions, "gauge", "fantail_subscriptions", "Subscriptions of this worker's sessions.";
    http_errors, "counter", "fantail_http_errors_total", "HTTP requests answered with an error.";
    turns, "counter", "fantail_turns_total", "Turns of the worker's loop.";
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn render_closed(workers: &[Arc<Counters>], out: &mut String) {
    let name = "fantail_connections_closed_total";
    head(out, name, "counter", "Connections ended, by reason.");
    for (worker, counters) in workers.iter().enumerate() {
        for (label, counter) in counters.closed_labels.iter().zip(&counters.closed) {
            let value = counter.value();
            let _ = writeln!(out, "{name}{{worker=\"{worker}\",reason=\"{label}\"}} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_rendered_once_per_worker() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(Counters::new(&["gone", "slow"]))).collect();
        workers[1].accepted.add(3);
        workers[1].closed[1].add(2);
        let mut text = String::new();
        render(&workers, &mut text);
        assert!(text.contains("fantail_connections_accepted_total{worker=\"0\"} 0\n"));
        assert!(text.contains("fantail_connections_accepted_total{worker=\"1\"} 3\n"));
        assert!(text.contains("{worker=\"1\",reason=\"slow\"} 2\n"));
        let names: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let mut distinct = names.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(names.len(), distinct.len());
    }
}
