//! The table of metrics: one row each.

use std::fmt::Write;
use std::sync::Arc;

use super::{Counter, Family, Grid, Histogram};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name, which ends in the unit.
    pub name: &'static str,
    /// The type in Prometheus: counter, gauge or histogram.
    pub kind: &'static str,
    /// The help text: one sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    (
        numbers { $($field:ident, $kind:literal, $name:literal, $help:literal;)* }
        families { $($family:ident, $of:literal, $key:literal, $family_name:literal, $family_help:literal;)* }
        grids { $($grid:ident, $keys:expr, $grid_name:literal, $grid_help:literal;)* }
        times { $($time:ident, $time_name:literal, $time_help:literal;)* }
    ) => {
        /// The metrics of one worker.
        #[derive(Debug)]
        pub struct Counters {
            $(#[doc = $help] pub $field: Counter,)*
            $(#[doc = $family_help] pub $family: Family,)*
            $(#[doc = $grid_help] pub $grid: Grid,)*
            $(#[doc = $time_help] pub $time: Histogram,)*
        }

        /// The label values of each family, given by the rooms that count them.
        #[derive(Clone, Copy, Debug)]
        pub struct Labels {
            $(#[doc = $family_help] pub $family: &'static [&'static str],)*
            $(#[doc = $grid_help] pub $grid: (&'static [&'static str], &'static [&'static str]),)*
        }

        impl Counters {
            /// A set in which all numbers are 0.
            pub fn new(labels: Labels) -> Self {
                Self {
                    $($field: Counter::default(),)*
                    $($family: Family::new($key, labels.$family),)*
                    $($grid: Grid::new($keys, labels.$grid),)*
                    $($time: Histogram::default(),)*
                }
            }
        }

        /// Every metric, in the order of the metrics page.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: $kind, help: $help },)*
            $(Metric { name: $family_name, kind: $of, help: $family_help },)*
            $(Metric { name: $grid_name, kind: "counter", help: $grid_help },)*
            $(Metric { name: $time_name, kind: "histogram", help: $time_help },)*
        ];

        /// Writes all sets as Prometheus text, version 0.0.4. Each sample carries its worker as a label.
        pub fn render(workers: &[Arc<Counters>], out: &mut String) {
            let mut metrics = METRICS.iter();
            $(render_one(&mut metrics, workers, |counters| &counters.$field, Counter::render, out);)*
            $(render_one(&mut metrics, workers, |counters| &counters.$family, Family::render, out);)*
            $(render_one(&mut metrics, workers, |counters| &counters.$grid, Grid::render, out);)*
            $(render_one(&mut metrics, workers, |counters| &counters.$time, Histogram::render, out);)*
        }
    };
}

metrics! {
    numbers {
        connections_accepted, "counter", "fantail_connections_accepted_total", "Connections accepted.";
        connections_open, "gauge", "fantail_connections_open", "Open connections, including those that are closing.";
        accepting, "gauge", "fantail_accepting", "Whether the worker's listeners accept connections: 1 or 0.";
        accept_pauses, "counter", "fantail_accept_pauses_total",
            "Times that accepting was paused because file descriptors ran out.";
        received_bytes, "counter", "fantail_received_bytes_total", "Bytes received.";
        sent_bytes, "counter", "fantail_sent_bytes_total", "Bytes handed to the kernel.";
        received_messages, "counter", "fantail_received_messages_total",
            "Messages received: WebSocket messages, commands, HTTP requests.";
        sent_messages, "counter", "fantail_sent_messages_total",
            "Messages queued for clients: deliveries, replies, echoes, HTTP responses.";
        tls_handshakes, "counter", "fantail_tls_handshakes_total", "TLS handshakes that were completed.";
        receives, "counter", "fantail_receives_total", "Receive operations that returned bytes.";
        sends, "counter", "fantail_sends_total", "Send operations.";
        sends_partial, "counter", "fantail_sends_partial_total",
            "Send operations of which the kernel took only a part, because the socket's send buffer was full.";
        turns_budget_exhausted, "counter", "fantail_turns_budget_exhausted_total",
            "Turns that reached their limit of requests or bytes, so that some sockets waited for the next turn.";
        turns, "counter", "fantail_turns_total", "Turns of the worker's event loop, each with one wait of the driver.";
        sleeps, "counter", "fantail_sleeps_total", "Waits of the driver that could block, as no work was pending.";
        publications, "counter", "fantail_publications_total",
            "Publications accepted for channels that have their home on this worker.";
        deliveries, "counter", "fantail_deliveries_total", "Publications queued for a subscriber.";
        publishers_paused, "counter", "fantail_publishers_paused_total",
            "Times that a publisher was paused (backpressure) until fan-outs caught up.";
        key_fetches_failed, "counter", "fantail_key_fetches_failed_total",
            "Fetches of published keys of tokens (`jwks_url`) that failed; worker 0 counts them.";
        fan_outs_in_progress, "gauge", "fantail_fan_outs_in_progress", "Channels with a fan-out in progress.";
        fan_out_backlog_publications, "gauge", "fantail_fan_out_backlog_publications",
            "Publications waiting for their fan-out to complete.";
        fan_out_backlog_bytes, "gauge", "fantail_fan_out_backlog_bytes",
            "Payload bytes of publications waiting for their fan-out to complete.";
        send_queue_bytes, "gauge", "fantail_send_queue_bytes",
            "Bytes in send queues. A frame that connections share counts once for each queue.";
        channel_backlog_bytes, "gauge", "fantail_channel_backlog_bytes",
            "Payload bytes in channel backlogs: for slow subscribers, batch_delay, delivery_rate_max and deltas.";
        history_bytes, "gauge", "fantail_history_bytes", "Bytes of the channel histories on this worker.";
        history_publications, "gauge", "fantail_history_publications",
            "Publications in the channel histories on this worker.";
        unfinished_message_bytes, "gauge", "fantail_unfinished_message_bytes",
            "Bytes of incoming messages that are not complete yet.";
        paused_publisher_bytes, "gauge", "fantail_paused_publisher_bytes",
            "Bytes received from publishers while they are paused.";
        deferred_request_bytes, "gauge", "fantail_deferred_request_bytes",
            "Bytes of requests deferred while other clients receive long replies.";
        mesh_inbox_bytes, "gauge", "fantail_mesh_inbox_bytes",
            "Bytes of messages between workers: in this worker's inbox, or not yet handed over by it.";
        rejected_low_memory, "counter", "fantail_rejected_low_memory_total",
            "Connections and handshakes rejected because the server was low on memory.";
        evicted_send_queues, "counter", "fantail_evicted_send_queues_total",
            "Clients disconnected under memory pressure because of the size of their send queue.";
        evicted_unfinished_messages, "counter", "fantail_evicted_unfinished_messages_total",
            "Clients disconnected under memory pressure because of the size of an unfinished message.";
        evicted_paused_publishers, "counter", "fantail_evicted_paused_publishers_total",
            "Paused publishers disconnected under memory pressure.";
        evicted_slow_subscribers, "counter", "fantail_evicted_slow_subscribers_total",
            "Slow subscribers disconnected under memory pressure.";
        memory_used_bytes, "gauge", "fantail_memory_used_bytes",
            "Bytes counted against the memory budget: queues, backlogs, histories, identities, unfinished messages.";
        memory_pressure_level, "gauge", "fantail_memory_pressure_level",
            "Memory pressure: 0 calm, 1 tight, 2 critical, 3 full.";
        memory_max_bytes, "gauge", "fantail_memory_max_bytes", "This worker's share of the memory budget.";
        channels, "gauge", "fantail_channels", "Channels with subscribers on this worker.";
        subscriptions, "gauge", "fantail_subscriptions", "Subscriptions of the clients of this worker.";
        users, "gauge", "fantail_users", "Users with connections to this worker.";
        user_connections, "gauge", "fantail_user_connections",
            "Connections of users; the others are anonymous.";
        identity_bytes, "gauge", "fantail_identity_bytes",
            "Bytes of what is known about the clients of this worker: users, info, options of subscriptions.";
        events_dropped, "counter", "fantail_events_dropped_total",
            "Events that the backend is not notified of, because as many waited as may.";
        http_errors, "counter", "fantail_http_errors_total", "HTTP requests answered with an error.";
    }
    families {
        connections, "gauge", "transport", "fantail_connections", "Connections, by transport.";
        connections_rejected, "counter", "reason", "fantail_connections_rejected_total",
            "Connections rejected as they came, because of the connection limit or a limit of their network prefix, \
             by reason.";
        connections_closed, "counter", "reason", "fantail_connections_closed_total", "Connections closed, by reason.";
        handshakes_failed, "counter", "reason", "fantail_handshakes_failed_total", "Failed handshakes, by reason.";
        api_refused, "counter", "reason", "fantail_api_refused_total",
            "Requests to the server API refused for lack of a key or a right, by reason; each command of a batch \
             counts.";
        rates_exceeded, "counter", "rate", "fantail_rates_exceeded_total",
            "Requests of clients refused because they came too fast, and times that a client was not read for a while \
             because its bytes did, by rate.";
        tokens_rejected, "counter", "reason", "fantail_tokens_rejected_total", "Tokens of clients rejected, by reason.";
        publications_dropped, "counter", "reason", "fantail_publications_dropped_total",
            "Publications dropped: for all subscribers of a channel on this worker, or for one slow subscriber.";
        tls_failed, "counter", "reason", "fantail_tls_failed_total",
            "Encrypted connections that ended because TLS failed, by reason.";
        proxy_headers_rejected, "counter", "reason", "fantail_proxy_headers_rejected_total",
            "Connections closed because a listener expects the PROXY protocol and got no valid header, by reason.";
    }
    grids {
        callbacks, ["callback", "outcome"], "fantail_callbacks_total",
            "Callbacks to a backend, by kind and by outcome.";
    }
    times {
        turn_duration, "fantail_turn_duration_seconds",
            "Duration of a turn of the event loop, including its sends unless the worker slept after them.";
        delivery_lag, "fantail_delivery_lag_seconds",
            "Time from accepting a publication to handing its bytes to the kernel, per subscriber that was not behind.";
        callback_duration, "fantail_callback_duration_seconds",
            "Time from a callback to its answer or failure, with the wait for a connection.";
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
            connections: &["http"],
            connections_rejected: &["limit"],
            connections_closed: &["gone", "slow"],
            handshakes_failed: &["timeout"],
            api_refused: &["key_missing"],
            rates_exceeded: &["bytes"],
            tokens_rejected: &["expired"],
            publications_dropped: &["rate"],
            proxy_headers_rejected: &["missing"],
            tls_failed: &["record"],
            callbacks: (&["rpc", "publish"], &["result", "error"]),
        };
        let workers: Vec<_> = (0..2).map(|_| Arc::new(Counters::new(labels))).collect();
        workers[1].connections_accepted.add(3);
        workers[1].connections_closed[1].add(2);
        workers[0].handshakes_failed.labelled("timeout").add(5);
        workers[0].callbacks.at(1, 0).add(4);
        workers[0].delivery_lag.observe(100, 7);
        let mut text = String::new();
        render(&workers, &mut text);
        for line in [
            "fantail_connections_accepted_total{worker=\"0\"} 0",
            "fantail_connections_accepted_total{worker=\"1\"} 3",
            "fantail_connections_closed_total{worker=\"1\",reason=\"slow\"} 2",
            "fantail_handshakes_failed_total{worker=\"0\",reason=\"timeout\"} 5",
            "fantail_callbacks_total{worker=\"0\",callback=\"publish\",outcome=\"result\"} 4",
            "fantail_callbacks_total{worker=\"1\",callback=\"rpc\",outcome=\"error\"} 0",
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
