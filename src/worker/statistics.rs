//! What is counted, as a publication for those who are subscribed to it. One worker, the home of that channel,
//! publishes for all of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::limits::STATISTICS_INTERVAL;
use crate::telemetry::write_statistics;

use super::connections::Connections;

impl Connections {
    /// Publishes what is counted, if someone wants it and it is time.
    pub fn publish_statistics(&mut self) {
        if self.next_statistics() != Some(Duration::ZERO) {
            return;
        }
        self.statistics_due_us = self.began_us + STATISTICS_INTERVAL.as_micros() as u64;
        self.count();
        let mut json = String::new();
        write_statistics(&self.all_counters, self.began_us / 1000, &mut json);
        self.hub.publish_statistics(json, &mut self.hub_outputs);
        self.counters.publications.add(1);
        self.carry();
    }

    /// Keeps the statistics for this host once a proxy brings others, unless they may have them.
    pub(super) fn withdraw_statistics(&mut self) {
        let is_behind_proxy = &self.settings.transport.now.is_behind_proxy;
        if !self.settings.statistics_for_strangers && is_behind_proxy.load(Ordering::Relaxed) {
            self.settings.statistics_for_strangers = true;
            self.hub.withdraw_statistics();
        }
    }

    /// How long that is from now; not while the server shuts down, when nothing is published any more.
    pub(super) fn next_statistics(&self) -> Option<Duration> {
        let wants = self.hub.wants_statistics() && !self.holds_all_publishers;
        wants.then(|| Duration::from_micros(self.statistics_due_us.saturating_sub(self.began_us)))
    }
}
