//! Sessions and subscriptions that expire: what ends, what the backend is asked about, and what it answers.

use std::collections::VecDeque;

use super::expiry::ExpiryRoom;
use super::message::HubOutput;
use super::settings::HubSettings;
use super::subscribers::Subscribers;
use crate::config::limits::EXPIRIES_PER_TURN_MAX;
use crate::message::{
    ChannelName, Origin, Renewal, Reply, RequestId, SessionId, SubscriptionOptions,
};

/// What a token or the backend says about a subscription from now on.
#[derive(Clone, Debug)]
pub enum SubscriptionChange {
    /// These are its options, but for those of its channel that it has replaced.
    Options(Box<SubscriptionOptions>),
    /// The answer of the backend, which was asked about a subscription that had expired. One that was made meanwhile
    /// stays as it is.
    Renewal(Renewal),
}

/// Changes a subscription, if there is one.
pub(super) fn change(
    subscribers: &mut Subscribers,
    session: SessionId,
    channel: &ChannelName,
    change: SubscriptionChange,
    settings: &HubSettings,
    out: &mut VecDeque<HubOutput>,
) {
    let Some(subscription) = subscribers.find(session, channel) else { return };
    match change {
        SubscriptionChange::Options(mut options) => {
            let has_joined = subscribers.has_joined(subscription);
            let clients = subscribers.clients_mut();
            options.overrides = clients.overrides(subscription);
            clients.set_options(subscription, options);
            if has_joined {
                clients.await_expiry(subscription);
            }
        }
        SubscriptionChange::Renewal(renewal) => {
            if subscribers.clients_mut().renew(subscription, renewal) {
                end(subscribers, subscription, settings, out);
            }
        }
    }
}

/// Ends some of the sessions and subscriptions that have expired by now, or has the backend asked about them.
pub(super) fn expire(
    subscribers: &mut Subscribers,
    now: u64,
    room: ExpiryRoom,
    settings: &HubSettings,
    out: &mut VecDeque<HubOutput>,
) {
    subscribers.clients_mut().set_time(now);
    for _ in 0..room.sessions {
        let Some(index) = subscribers.clients_mut().expiries().take_session(now) else { break };
        out.push_back(HubOutput::Expired { session: subscribers.sessions().id(index) });
    }
    let since = now.saturating_sub(settings.limits.expired_close_delay.as_secs());
    for _ in 0..EXPIRIES_PER_TURN_MAX {
        let due = subscribers.clients_mut().expiries().take_subscription(since);
        let Some(subscription) = due else { break };
        end(subscribers, subscription, settings, out);
    }
    for _ in 0..room.renewals {
        let due = subscribers.clients_mut().expiries().take_renewal(now);
        let Some(subscription) = due else { break };
        let (session, channel) = subscribers.place_of(subscription);
        out.push_back(HubOutput::SubscriptionDue { session, channel });
    }
}

fn end(
    subscribers: &mut Subscribers,
    subscription: u32,
    settings: &HubSettings,
    out: &mut VecDeque<HubOutput>,
) {
    let (session, channel) = subscribers.place_of(subscription);
    subscribers.deliver_rest(subscription, settings, out);
    subscribers.remove(subscription, settings, out);
    // No request is numbered 0 before 2^32 others.
    let id = RequestId { serial: 0, origin: Origin::Server };
    let reply = Reply::SubscriptionExpired { channel };
    out.push_back(HubOutput::Reply { session, id, reply });
}
