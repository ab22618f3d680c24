//! When the server's statistics are published: at an interval, while a client is subscribed to them. The worker that is
//! the home of their channel publishes for all workers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::limits::STATISTICS_INTERVAL;
use crate::hub::Hub;

use super::paused_publishers::PausedPublishers;
use super::settings::WorkerSettings;

/// When the statistics are published next.
#[derive(Debug, Default)]
pub struct Statistics {
    /// In microseconds since the workers' clock started.
    due_us: u64,
}

impl Statistics {
    /// The time until they are due. `None` while no client is subscribed to them, and while the server shuts down, when
    /// nothing is published any more.
    pub fn wait(&self, hub: &Hub, paused: &PausedPublishers, now_us: u64) -> Option<Duration> {
        let are_wanted = hub.wants_statistics() && !paused.pauses_all();
        are_wanted.then(|| self.time_left(now_us))
    }

    fn time_left(&self, now_us: u64) -> Duration {
        Duration::from_micros(self.due_us.saturating_sub(now_us))
    }

    /// They are published now, and due again an interval later.
    pub fn restart(&mut self, now_us: u64) {
        self.due_us = now_us + STATISTICS_INTERVAL.as_micros() as u64;
    }
}

/// Keeps the statistics for clients of this host once a proxy forwards others, unless they are configured for all.
pub fn withdraw_behind_proxy(settings: &WorkerSettings, hub: &mut Hub) {
    let is_behind_proxy = &settings.transport.now.is_behind_proxy;
    if !settings.statistics_are_configured
        && is_behind_proxy.load(Ordering::Relaxed)
        && hub.namespaces().has_statistics()
    {
        hub.withdraw_statistics();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_due_at_once_and_then_at_an_interval() {
        let mut statistics = Statistics::default();
        assert_eq!(statistics.time_left(7), Duration::ZERO);
        statistics.restart(7);
        assert_eq!(statistics.time_left(7), STATISTICS_INTERVAL);
        let due_us = 7 + STATISTICS_INTERVAL.as_micros() as u64;
        assert_eq!(statistics.time_left(due_us - 1), Duration::from_micros(1));
        assert_eq!(statistics.time_left(due_us), Duration::ZERO);
    }
}
