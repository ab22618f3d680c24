//! The table of metrics: one row each.

use std::fmt::Write;
use std::sync::Arc;

use super::{Counter, Family, Histogram};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What Prometheus calls its type.
    pub kind: &'static str,
    /// What it is.
    pub help: &'static str,
}

macro_rules! metrics {
    (
        numbers { $($field:ident, $kind:literal, $name:literal, $help:literal;)* }
        families { $($family:ident, $of:literal, $key:literal, $family_name:literal, $family_help:literal;)* }
        times { $($time:ident, $time_name:literal, $time_help:literal;)* }
    ) => {
        /// What one worker counts.
        #[derive(Debug)]
        pub struct Counters {
            $(#[doc = $help] pub $field: Counter,)*
            $(#[doc = $family_help] pub $family: Family,)*
            $(#[doc = $time_help] pub $time: Histogram,)*
        }

        /// What tells the numbers of a family apart: known to the rooms that count them.
        #[derive(Clone, Copy, Debug)]
        pub struct Labels {
            $(#[doc = $family_help] pub $family: &'static [&'static str],)*
        }

        impl Counters {
            /// All zero.
            pub fn new(labels: Labels) -> Self {
                Self {
                    $($field: Counter::default(),)*
                    $($family: Family::new($key, labels.$family),)*
                    $($time: Histogram::default(),)*
                }
            }
        }

        /// Every metric, in the order of the page.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: $kind, help: $help },)*
            $(Metric { name: $family_name, kind: $of, help: $family_help },)*
            $(Metric { name: $time_name, kind: "histogram", help: $time_help },)*
        ];

        /// All sets as Prometheus text, version 0.0.4; each sample with its worker.
        pub fn render(workers: &[Arc<Counters>], out: &mut String) {
            let mut metrics = METRICS.iter();
            $(render_one(&mut metrics, workers, |counters| &counters.$field, Counter::render, out);)*
            $(render_one(&mut metrics, workers, |counters| &counters.$family, Family::render, out);)*
            $(render_one(&mut metrics, workers, |counters| &counters.$time, Histogram::render, out);)*
        }
    };
}

metrics! {
    numbers {
        accepted, "counter", "fantail_connections_accepted_total", "Connections accepted.";
        refused, "counter", "fantail_connections_refused_total", "Connections beyond the maximum.";
        open, "gauge", "fantail_connections_open", "Connections open, the closing ones included.";
        accepting, "gauge", "fantail_accepting", "Whether the worker's listeners accept: 1 or 0.";
        accept_pauses, "counter", "fantail_accept_pauses_total", "Pauses of accepting for want of descriptors.";
        received_bytes, "counter", "fantail_received_bytes_total", "Bytes received.";
        sent_bytes, "counter", "fantail_sent_bytes_total", "Bytes handed to the kernel.";
        received_messages, "counter", "fantail_received_messages_total",
            "Messages received: WebSocket messages, commands, HTTP requests.";
        sent_messages, "counter", "fantail_sent_messages_total",
            "Messages queued for clients: deliveries, replies, echoes, HTTP answers.";
        receives, "counter", "fantail_receives_total", "Receives of the driver that brought bytes.";
        sends, "counter", "fantail_sends_total", "Sends of the driver.";
        sends_late, "counter", "fantail_sends_late_total", "Sends that the kernel did not take whole.";
        turns_full, "counter", "fantail_turns_full_total",
            "Turns that took as many requests, or wrote as many bytes, as one may: some sockets waited for the next.";
        turns, "counter", "fantail_turns_total", "Turns of the worker's loop, each with one wait of the driver.";
        sleeps, "counter", "fantail_sleeps_total", "Waits of the driver that had leave to sleep.";
        publications, "counter", "fantail_publications_total", "Publications that came to this worker for a number.";
        deliveries, "counter", "fantail_deliveries_total", "Publications queued for a subscriber.";
        publishers_held, "counter", "fantail_publishers_held_total", "Times a publisher waited for fan-outs.";
        fan_outs, "gauge", "fantail_fan_outs", "Channels whose fan-out is in progress.";
        fan_out_backlog, "gauge", "fantail_fan_out_backlog", "Publications that wait for their fan-out.";
        fan_out_bytes, "gauge", "fantail_fan_out_backlog_bytes", "Payload bytes that wait for their fan-out.";
        queued_bytes, "gauge", "fantail_send_queue_bytes",
            "Bytes that wait in send queues. A shared frame counts once for each queue.";
        held_back_bytes, "gauge", "fantail_held_back_bytes",
            "Payload bytes that channels hold back: for their moment, and for slow subscribers.";
        history_bytes, "gauge", "fantail_history_bytes", "Bytes of the histories kept by this worker.";
        history_publications, "gauge", "fantail_history_publications", "Publications in the histories kept by it.";
        unfinished_bytes, "gauge", "fantail_unfinished_message_bytes", "Bytes of messages whose end has not come.";
        held_bytes, "gauge", "fantail_held_publisher_bytes", "Bytes that held publishers sent meanwhile.";
        deferred_bytes, "gauge", "fantail_deferred_request_bytes",
            "Bytes of requests that wait until others have their long answers.";
        mesh_bytes, "gauge", "fantail_mesh_inbox_bytes",
            "Bytes of messages between workers that wait: in its inbox, and what it could not hand over.";
        refused_overloaded, "counter", "fantail_refused_overloaded_total", "Clients refused for want of memory.";
        evicted_queues, "counter", "fantail_evicted_queues_total", "Clients closed for their send queues.";
        evicted_messages, "counter", "fantail_evicted_messages_total", "Clients closed for unfinished messages.";
        evicted_publishers, "counter", "fantail_evicted_publishers_total", "Publishers closed while held back.";
        evicted_laggards, "counter", "fantail_evicted_laggards_total", "Laggards closed for want of memory.";
        memory_bytes, "gauge", "fantail_memory_bytes", "Bytes that wait or are kept.";
        memory_level, "gauge", "fantail_memory_level", "Of memory use: 0 calm, 1 tight, 2 critical, 3 full.";
        memory_bytes_max, "gauge", "fantail_memory_bytes_max", "This worker's share of the memory budget.";
        channels, "gauge", "fantail_channels", "Channels with subscribers on this worker.";
        subscriptions, "gauge", "fantail_subscriptions", "Subscriptions of this worker's sessions.";
        http_errors, "counter", "fantail_http_errors_total", "HTTP requests answered with an error.";
    }
    families {
        transports, "gauge", "transport", "fantail_connections", "Connections, by the way in which the client talks.";
        closed, "counter", "reason", "fantail_connections_closed_total", "Connections ended, by reason.";
        handshakes_failed, "counter", "cause", "fantail_handshakes_failed_total", "Handshakes failed, by cause.";
        dropped, "counter", "reason", "fantail_publications_dropped_total",
            "Publications dropped by a channel's options: for all its subscribers on a worker, or for a slow one.";
    }
    times {
        turn_time, "fantail_turn_duration_seconds",
            "Duration of turns, sends included unless the worker slept behind them.";
        delivery_lag, "fantail_delivery_lag_seconds",
            "From a publication's acceptance to the kernel having its bytes, for each subscriber that was not behind.";
    }
}

fn render_one<'m, T>(
    metrics: &mut impl Iterator<Item = &'m Metric>,
    workers: &[Arc<Counters>],
    field: impl Fn(&Counters) -> &T,
    render: impl Fn(&T, &str, usize, &mut String),
    out: &mut String,
) {
    let Metric { name, kind, help } = metrics.next().expect("a row for each field");
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (worker, counters) in workers.iter().enumerate() {
        render(field(counters), name, worker, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_rendered_once_per_worker() {
        let labels = Labels {
            transports: &["http"],
            closed: &["gone", "slow"],
            handshakes_failed: &["timeout"],
            dropped: &["rate"],
        };
        let workers: Vec<_> = (0..2).map(|_| Arc::new(Counters::new(labels))).collect();
        workers[1].accepted.add(3);
        workers[1].closed[1].add(2);
        workers[0].handshakes_failed.labelled("timeout").add(5);
        workers[0].delivery_lag.observe(100, 7);
        let mut text = String::new();
        render(&workers, &mut text);
        for line in [
            "fantail_connections_accepted_total{worker=\"0\"} 0",
            "fantail_connections_accepted_total{worker=\"1\"} 3",
            "fantail_connections_closed_total{worker=\"1\",reason=\"slow\"} 2",
            "fantail_handshakes_failed_total{worker=\"0\",cause=\"timeout\"} 5",
            "fantail_delivery_lag_seconds_count{worker=\"0\"} 7",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let rows: Vec<_> =
            METRICS.iter().map(|row| format!("# TYPE {} {}", row.name, row.kind)).collect();
        assert_eq!(types, rows);
    }

    #[test]
    fn names_are_distinct_and_carry_their_unit() {
        for (index, Metric { name, kind, help }) in METRICS.iter().enumerate() {
            assert_eq!(METRICS.iter().position(|other| other.name == *name), Some(index));
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
            assert_eq!(*kind == "histogram", name.ends_with("_seconds"), "{name}");
            assert!(name.starts_with("fantail_") && help.ends_with('.'), "{name}");
        }
    }
}
