//! Questions that conversations ask of the worker, answered once a turn.

use crate::message::{NodeInfo, TransportKind};
use crate::telemetry::{Counter, Counters, render};
use crate::transport::{Answer, Question};

use super::connections::Connections;
use super::sweep::Sweep;

impl Connections {
    /// Answers the questions that were asked since the last turn. What several connections ask for is made once.
    pub fn answer_questions(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        self.count();
        let (mut metrics, mut info) = (None, None);
        for (id, question) in std::mem::take(&mut self.questions) {
            if !self.is_open(id) {
                continue;
            }
            let answer = match question {
                Question::Metrics => {
                    Answer::Metrics(metrics.get_or_insert_with(|| self.metrics_text()))
                }
                Question::NodeInfo => {
                    Answer::NodeInfo(info.get_or_insert_with(|| self.node_info()))
                }
                Question::Readiness => {
                    let accepts = |counters: &Counters| counters.accepting.value() == 1;
                    Answer::Readiness(self.all_counters.iter().all(|counters| accepts(counters)))
                }
            };
            self.converse(id.index, |connection, context| connection.answer(&answer, context));
        }
        self.carry();
    }

    fn metrics_text(&self) -> String {
        let mut text = String::new();
        render(&self.all_counters, &mut text);
        text
    }

    fn node_info(&self) -> NodeInfo {
        let sum = |gauge: fn(&Counters) -> &Counter| {
            self.all_counters.iter().map(|counters| gauge(counters).value()).sum()
        };
        NodeInfo {
            node: self.settings.hub.node,
            // Requests, such as the one that asks, are not clients.
            clients: (0..TransportKind::LABELS.len())
                .filter(|kind| *kind != TransportKind::Http as usize)
                .flat_map(|kind| self.all_counters.iter().map(move |all| &all.connections[kind]))
                .map(Counter::value)
                .sum(),
            channels: sum(|counters| &counters.channels),
            subscriptions: sum(|counters| &counters.subscriptions),
            uptime: Sweep::duration(self.tick),
        }
    }
}
