//! Has requests wait for the backend, and does what it answers.
//!
//! A session has one call at a time. What it asks meanwhile is deferred, as with Centrifugo: nothing of a client
//! overtakes its own request. What is delivered to it goes on.

use crate::callback::{Answer, Answered, Ask, CallbackResult, Failure};
use crate::config::CallbackKind;
use crate::connection::Pause;
use crate::hub::HubOutput;
use crate::message::{
    Actor, Payload, Refusal, Reply, Request, RequestId, SessionId, SessionRequest,
    SubscriptionOptions,
};

use super::author;
use super::calls;
use super::connections::Connections;
use super::deferred::AnswerKind;
use super::expirations;
use super::held::HeldRequest;
use super::login::LoginStep;
use super::renewals;
use super::table::socket_of;

/// Asks the backend about a request, which waits for the answer.
pub(super) fn ask(
    connections: &mut Connections,
    session: SessionId,
    id: Option<RequestId>,
    request: Request,
) {
    // What a client asked last, and did not wait for.
    if !connections.table.is_open(socket_of(session)) {
        return;
    }
    let Some(ask) = ask_of(&request) else { return };
    let kind = ask.kind();
    let is_full = connections.budget.is_critical() || connections.held.has(session);
    let serial = connections.held.push(session, id, request);
    let is_made = !is_full && calls::make(connections, session, serial, ask);
    let Connections { table, deferred, counters, .. } = connections;
    if is_made {
        // While it waits for the backend, its answer is not under way.
        if let Some(id) = id {
            deferred.settle(session, id);
        }
        deferred.set_held(session, true);
        table.pause(session.index, Pause::Answers);
        return;
    }
    counters.callbacks.at(kind as usize, Failure::Rejected.outcome()).add(1);
    if let Some(held) = connections.held.take(session, serial) {
        fail(connections, session, held.id);
    }
}

/// What the backend is asked about a request.
fn ask_of(request: &Request) -> Option<Ask> {
    match request {
        Request::Connect(login) => Some(Ask::Connect(login.clone())),
        Request::Subscribe { channel, token, form, .. } => {
            let (channel, token) = (channel.clone(), token.clone());
            let data = form.data.as_deref().cloned();
            Some(Ask::Subscribe { channel, token, data })
        }
        Request::Publish { channel: Some(channel), payload, .. } => {
            Some(Ask::Publish { channel: channel.clone(), payload: payload.clone() })
        }
        Request::Call { procedure, data } => {
            Some(Ask::Rpc { method: procedure.clone(), data: data.clone() })
        }
        _ => None,
    }
}

/// Takes an answer, or that there is none.
pub(super) fn take_answer(connections: &mut Connections, answered: Answered) {
    calls::count(connections, &answered);
    let session = answered.session;
    if matches!(answered.kind, CallbackKind::Refresh | CallbackKind::SubRefresh) {
        expirations::take_answer(connections, answered);
        return connections.drain_hub_outputs();
    }
    let Some(held) = connections.held.take(session, answered.serial) else { return };
    connections.deferred.set_held(session, false);
    match answered.result {
        Err(_) => fail(connections, session, held.id),
        Ok(Answer::Error(error)) => reply(connections, session, held.id, Reply::Rejected(error)),
        Ok(Answer::Disconnect(disconnect)) => connections.close(session.index, disconnect),
        Ok(Answer::Result(result)) => take_result(connections, session, held, result),
    }
    let Connections { table, deferred, turn, .. } = connections;
    if table.is_open(socket_of(session)) && !deferred.has_waiting(session) {
        table.unpause(session.index, Pause::Answers, turn.tick);
    }
    connections.drain_hub_outputs();
}

/// Does what a client has asked, as the backend says.
fn take_result(
    connections: &mut Connections,
    session: SessionId,
    held: HeldRequest,
    result: CallbackResult,
) {
    let HeldRequest { id, request, .. } = held;
    let request = match (result, request) {
        (CallbackResult::Connect(result), Request::Connect(login)) => {
            let Some(id) = id else { return };
            let mut step = LoginStep { connections, session };
            let done = step.take_result(id, *login, result.map(|result| *result));
            let refused = |refusal| reply(connections, session, Some(id), Reply::Refused(refusal));
            return done.map_or_else(refused, |()| ());
        }
        (CallbackResult::Rpc { data }, _) => {
            return reply(connections, session, id, Reply::Returned(data));
        }
        (
            CallbackResult::Publish { payload, tags, options },
            Request::Publish { channel, payload: given, options: own },
        ) => {
            // A type of event is a tag of what the client gave.
            let tags = tags.or_else(|| given.tags.clone());
            let payload = Payload { tags, ..payload.unwrap_or(given) };
            Request::Publish { channel, payload, options: options.or(own) }
        }
        (
            CallbackResult::Subscribe { mut options },
            Request::Subscribe { channel, since, needs_all, mut form, .. },
        ) => {
            let Connections { settings, hub, .. } = &*connections;
            renewals::mark(&mut options, &channel, hub.namespaces(), &settings.callbacks);
            let options = (*options != SubscriptionOptions::default()).then_some(options);
            form.data = None;
            Request::Subscribe { channel, since, needs_all, token: None, form, options }
        }
        // An answer is of the kind of its call.
        _ => return,
    };
    if AnswerKind::to(&request) == AnswerKind::Short {
        return author::hand_over(connections, session, id, Actor::Client, request);
    }
    // Its answer is long, so it waits for its turn once more, in front of what was asked behind it. It is decided.
    let request = SessionRequest { origin: id.map(|id| id.origin), by: Actor::Server, request };
    connections.deferred.push_front(session, request);
}

/// The backend did not answer.
fn fail(connections: &mut Connections, session: SessionId, id: Option<RequestId>) {
    reply(connections, session, id, Reply::Refused(Refusal::BackendUnavailable));
}

fn reply(connections: &mut Connections, session: SessionId, id: Option<RequestId>, reply: Reply) {
    if let Some(id) = id {
        connections.hub_outputs.push_back(HubOutput::Reply { session, id, reply });
    }
}
