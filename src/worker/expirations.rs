//! What has expired ends, or goes on as long as the backend says.

use crate::callback::{Answer, Answered, CallbackResult, Failure};
use crate::config::limits::CALLBACK_PROLONGATION;
use crate::hub::SubscriptionChange;
use crate::message::{CloseReason, Renewal, SessionId};

use super::calls;
use super::connections::Connections;
use super::renewals::Due;

/// Something of an open session has expired: the backend is asked about it, if it is asked at all.
pub(super) fn expire(connections: &mut Connections, session: SessionId, due: Due) {
    let ask = due.ask();
    let kind = ask.kind();
    if !connections.settings.callbacks.asks(kind) {
        return renew(connections, session, &due, Renewal::Expired);
    }
    let serial = connections.renewals.push(session, due.clone());
    if !calls::make(connections, session, serial, ask) {
        connections.renewals.forget(session, &due);
        connections.counters.callbacks.at(kind as usize, Failure::Rejected.outcome()).add(1);
        prolong(connections, session, &due);
    }
}

/// Takes the answer to a question.
pub(super) fn take_answer(connections: &mut Connections, answered: Answered) {
    let session = answered.session;
    let Some(due) = connections.renewals.take(session, answered.serial) else { return };
    match answered.result {
        Ok(Answer::Result(CallbackResult::Renewal { renewal, meta })) => {
            let includes_meta = connections.settings.callbacks.include_meta();
            if let Some(meta) = meta.filter(|_| includes_meta) {
                connections.held.set_meta(session, meta);
            }
            renew(connections, session, &due, renewal);
        }
        _ => prolong(connections, session, &due),
    }
}

/// The backend did not say. While it is away, no client is cut off.
fn prolong(connections: &mut Connections, session: SessionId, due: &Due) {
    let now = connections.settings.transport.now.unix_seconds;
    let expires_at = Some(now + CALLBACK_PROLONGATION.as_secs());
    renew(connections, session, due, Renewal::Prolonged { expires_at, info: None });
}

fn renew(connections: &mut Connections, session: SessionId, due: &Due, renewal: Renewal) {
    let now = connections.settings.transport.now.unix_seconds;
    let renewal = match renewal {
        Renewal::Prolonged { expires_at: Some(at), .. } if at <= now => Renewal::Expired,
        renewal => renewal,
    };
    if !connections.table.at(session.index).flags.has_session() {
        return;
    }
    let Connections { hub, hub_outputs, .. } = &mut *connections;
    match (due, renewal) {
        (Due::Subscription(channel), renewal) => {
            let change = SubscriptionChange::Renewal(renewal);
            hub.change_subscription(session, channel, change, hub_outputs);
        }
        (Due::Client, Renewal::Prolonged { expires_at, info }) => {
            // The client of a user that is blocked meanwhile is closed by that.
            let _ = hub.refresh(session, expires_at, info);
        }
        (Due::Client, Renewal::Expired) => connections.close(session.index, CloseReason::Expired),
    }
}
