//! Hands events to the backend: one batch after the other, each until the backend has taken it.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderValue;
use tokio::sync::mpsc::Receiver;
use tokio::time::sleep;

use super::call::Failure;
use super::endpoint::{Endpoint, Outgoing, Shared};
use super::event::{Event, EventBatch, signature, write_batch};
use crate::config::EventSettings;
use crate::config::limits::EVENT_RETRY_TIMES;
use crate::message::NodeId;

/// Events on their way to the backend.
#[derive(Debug)]
pub(super) struct Delivery {
    node: NodeId,
    settings: EventSettings,
    events: Receiver<Event>,
    /// Batches that were begun.
    batches: u64,
}

impl Delivery {
    pub(super) fn new(node: NodeId, settings: EventSettings, events: Receiver<Event>) -> Self {
        Self { node, settings, events, batches: 0 }
    }

    /// Gathers the next batch: what comes within the delay, up to the maximum. `None` if no more can come.
    pub(super) async fn gather(&mut self) -> Option<Vec<Event>> {
        let max = self.settings.batch_max;
        let mut events = Vec::new();
        if self.events.recv_many(&mut events, max).await == 0 {
            return None;
        }
        if events.len() < max {
            sleep(self.settings.batch_delay).await;
            while events.len() < max
                && let Ok(event) = self.events.try_recv()
            {
                events.push(event);
            }
        }
        Some(events)
    }

    /// Sends a batch until the backend has taken it; `report` takes the result of each attempt.
    pub(super) async fn send(
        &mut self,
        endpoint: &Endpoint,
        shared: &Shared,
        events: &[Event],
        dropped: u64,
        report: impl Fn(Result<(), Failure>, Duration),
    ) {
        self.batches += 1;
        let batch = EventBatch { node: self.node, number: self.batches, dropped, events };
        let mut body = Vec::new();
        write_batch(&mut body, &batch);
        let [first, longest] = EVENT_RETRY_TIMES;
        let mut pause = first;
        loop {
            let signed = self.settings.secret.as_ref().map(|secret| {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                signature(secret, since_epoch.as_secs(), &body)
            });
            let signature = signed.and_then(|text| HeaderValue::try_from(text).ok());
            let began = shared.began.elapsed();
            let outgoing = Outgoing { body: body.clone(), call: None, signature };
            let result = endpoint.deliver(shared, outgoing).await;
            report(result, shared.began.elapsed() - began);
            if result.is_ok() {
                return;
            }
            // From half of the pause up to the whole: servers that failed together do not come back together.
            let share = RandomState::new().hash_one(self.batches) as u32;
            sleep(pause / 2 + (pause / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))).await;
            pause = (pause * 2).min(longest);
        }
    }
}
