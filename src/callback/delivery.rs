//! Hands events to the backend: one batch after the other, each until the backend has taken it.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderValue;
use tokio::sync::mpsc::Receiver;
use tokio::time::sleep;

use super::call::Failure;
use super::endpoint::Outgoing;
use super::event::{Event, EventBatch, signature, write_batch};
use super::setup::Current;
use crate::config::CallbackKind;
use crate::config::EventSettings;
use crate::config::limits::EVENT_RETRY_TIMES;
use crate::message::NodeId;

/// Events on their way to the backend.
#[derive(Debug)]
pub(super) struct Delivery {
    node: NodeId,
    events: Receiver<Event>,
    /// Batches that were begun.
    batches: u64,
}

impl Delivery {
    pub(super) fn new(node: NodeId, events: Receiver<Event>) -> Self {
        Self { node, events, batches: 0 }
    }

    /// Gathers the next batch: what comes within the delay, up to the maximum. `None` if no more can come.
    pub(super) async fn gather(
        &mut self,
        settings: impl Fn() -> EventSettings,
    ) -> Option<Vec<Event>> {
        let max = settings().batch_max;
        let mut events = Vec::new();
        if self.events.recv_many(&mut events, max).await == 0 {
            return None;
        }
        if events.len() < max {
            sleep(settings().batch_delay).await;
            while events.len() < max
                && let Ok(event) = self.events.try_recv()
            {
                events.push(event);
            }
        }
        Some(events)
    }

    /// Sends a batch until the backend has taken it, or is not notified of events any more; `report` takes the result
    /// of each attempt.
    pub(super) async fn send(
        &mut self,
        current: impl Fn() -> Rc<Current>,
        events: &[Event],
        dropped: u64,
        report: impl Fn(&Current, Result<(), Failure>, Duration),
    ) {
        self.batches += 1;
        let batch = EventBatch { node: self.node, number: self.batches, dropped, events };
        let mut body = Vec::new();
        write_batch(&mut body, &batch);
        let [first, longest] = EVENT_RETRY_TIMES;
        let mut pause = first;
        loop {
            // A reload may have moved the backend.
            let current = current();
            let shared = &current.shared;
            let Some(endpoint) = &current.endpoints[CallbackKind::Events as usize] else { return };
            let signed = current.events.secret.as_ref().map(|secret| {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                signature(secret, since_epoch.as_secs(), &body)
            });
            let signature = signed.and_then(|text| HeaderValue::try_from(text).ok());
            let began = shared.began.elapsed();
            let outgoing = Outgoing { body: body.clone(), call: None, signature };
            let result = endpoint.deliver(shared, outgoing).await;
            report(&current, result, shared.began.elapsed() - began);
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
