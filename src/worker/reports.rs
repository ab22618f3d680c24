//! What a worker reports: its gauges, the statistics, and the answers to questions of conversations.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::Drops;
use crate::message::{NodeId, NodeInfo, TransportKind};
use crate::telemetry::{Counter, Counters, render, write_statistics};
use crate::transport::{Answer, Question};

use super::connections::Connections;
use super::table::duration_of;

impl Connections {
    /// Answers the questions that were asked since the last turn. What several connections ask for is made once.
    pub fn answer_questions(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        self.count();
        let (mut metrics, mut info) = (None, None);
        for (id, question) in std::mem::take(&mut self.questions) {
            if !self.table.is_open(id) {
                continue;
            }
            let answer = match question {
                Question::Metrics => {
                    Answer::Metrics(metrics.get_or_insert_with(|| metrics_text(&self.all_counters)))
                }
                Question::NodeInfo => {
                    let uptime = duration_of(self.turn.tick);
                    let node = self.settings.hub.node;
                    Answer::NodeInfo(
                        info.get_or_insert_with(|| node_info(node, uptime, &self.all_counters)),
                    )
                }
                Question::Readiness => {
                    let accepts = |counters: &Counters| counters.accepting.value() == 1;
                    Answer::Readiness(self.all_counters.iter().all(|counters| accepts(counters)))
                }
            };
            self.step_connection(id.index, |connection, context| {
                connection.answer(&answer, context)
            });
        }
        self.drain_hub_outputs();
    }

    /// Publishes the statistics of all workers, if a client is subscribed to them and they are due.
    pub fn publish_statistics(&mut self) {
        let now_us = self.turn.began_us;
        if self.statistics.wait(&self.hub, &self.paused, now_us) != Some(Duration::ZERO) {
            return;
        }
        self.statistics.restart(now_us);
        self.count();
        let mut json = String::new();
        write_statistics(&self.all_counters, now_us / 1000, &mut json);
        self.hub.publish_statistics(json, &mut self.hub_outputs);
        self.counters.publications.add(1);
        self.drain_hub_outputs();
    }

    /// Brings the gauges up to date.
    pub fn count(&self) {
        let counters = &self.counters;
        counters.connections_open.set(self.table.len() as u64);
        counters.send_queue_bytes.set(self.outbox.queued_bytes());
        counters.memory_used_bytes.set(self.memory_bytes());
        counters.memory_pressure_level.set(self.budget.level() as u64);
        counters.memory_max_bytes.set(self.budget.share_bytes());
        let measures = self.hub.measures();
        let (waiting, waiting_bytes) = self.hub.fan_out_backlog();
        counters.fan_out_backlog_publications.set(waiting as u64);
        counters.fan_out_backlog_bytes.set(waiting_bytes as u64);
        counters.fan_outs_in_progress.set(measures.fan_outs as u64);
        counters.channel_backlog_bytes.set(measures.channel_backlog_bytes as u64);
        counters.history_bytes.set(measures.history_bytes);
        counters.history_publications.set(measures.history_publications as u64);
        let Drops { rate, slow_subscriber, memory } = measures.drops;
        for (index, count) in [rate, slow_subscriber, memory].into_iter().enumerate() {
            counters.publications_dropped[index].set(count);
        }
        counters.unfinished_message_bytes.set(self.unfinished_bytes as u64);
        counters.paused_publisher_bytes.set(self.paused.bytes() as u64);
        counters.deferred_request_bytes.set(self.deferred.bytes() as u64);
        counters.mesh_inbox_bytes.set(self.mesh.waiting_bytes() as u64);
        counters.channels.set(measures.channels as u64);
        counters.subscriptions.set(measures.subscriptions as u64);
        counters.users.set(measures.users as u64);
        counters.user_connections.set(measures.user_sessions as u64);
        counters.identity_bytes.set(measures.identity_bytes as u64);
    }
}

fn metrics_text(counters: &[Arc<Counters>]) -> String {
    let mut text = String::new();
    render(counters, &mut text);
    text
}

fn node_info(node: NodeId, uptime: Duration, all_counters: &[Arc<Counters>]) -> NodeInfo {
    let sum = |gauge: fn(&Counters) -> &Counter| {
        all_counters.iter().map(|counters| gauge(counters).value()).sum()
    };
    // Requests, such as the one that asks, are not clients.
    let clients = (0..TransportKind::LABELS.len())
        .filter(|kind| *kind != TransportKind::Http as usize)
        .flat_map(|kind| all_counters.iter().map(move |all| &all.connections[kind]))
        .map(Counter::value)
        .sum();
    let has_anonymous = clients > sum(|counters| &counters.user_connections);
    NodeInfo {
        node,
        clients,
        users: sum(|counters| &counters.users) + u64::from(has_anonymous),
        channels: sum(|counters| &counters.channels),
        subscriptions: sum(|counters| &counters.subscriptions),
        uptime,
    }
}
