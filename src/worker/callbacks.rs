//! Has requests wait for the backend, and does what it answers.
//!
//! A session has one call at a time. What it asks meanwhile is deferred, as with Centrifugo: nothing of a client
//! overtakes its own request. What is delivered to it goes on.

use crate::callback::{Answer, Answered, Ask, Call, CallbackResult, Failure};
use crate::connection::Pause;
use crate::hub::HubOutput;
use crate::message::{Refusal, Reply, Request, RequestId, SessionId};

use super::connections::Connections;
use super::held::HeldRequest;
use super::table::socket_of;

/// Asks the backend about a request, which waits for the answer.
pub(super) fn ask(
    connections: &mut Connections,
    session: SessionId,
    id: Option<RequestId>,
    request: Request,
) {
    let Connections { table, held, deferred, counters, .. } = connections;
    // What a client asked last, and did not wait for.
    if !table.is_open(socket_of(session)) {
        return;
    }
    let Some(ask) = ask_of(&request) else { return };
    let kind = ask.kind();
    let is_full = connections.budget.is_critical() || held.has(session);
    let serial = held.push(session, id, request);
    let client = connections.settings.hub.client_id(session);
    let transport = table.at(session.index).traits().kind;
    let call = Box::new(Call { client, serial, transport, ask });
    let is_made =
        !is_full && connections.caller.as_ref().is_some_and(|caller| caller.call(call).is_ok());
    if is_made {
        deferred.set_held(session, true);
        table.pause(session.index, Pause::Answers);
        return;
    }
    counters.callbacks.at(kind as usize, Failure::Rejected.outcome()).add(1);
    if let Some(held) = held.take(session, serial) {
        fail(connections, session, &held);
    }
}

/// What the backend is asked about a request.
fn ask_of(request: &Request) -> Option<Ask> {
    match request {
        Request::Call { procedure, data } => {
            Some(Ask::Rpc { method: procedure.clone(), data: data.clone() })
        }
        _ => None,
    }
}

/// Takes an answer, or that there is none.
pub(super) fn take_answer(connections: &mut Connections, answered: Answered) {
    let outcome = answered.outcome();
    let Connections { counters, held, .. } = connections;
    counters.callbacks.at(answered.kind as usize, outcome).add(1);
    let took_us = u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX);
    counters.callback_duration.observe(took_us, 1);
    let session = answered.session;
    let Some(held) = held.take(session, answered.serial) else { return };
    if connections.deferred.set_held(session, false) {
        connections.table.unpause(session.index, Pause::Answers, connections.turn.tick);
    }
    match answered.result {
        Err(_) => fail(connections, session, &held),
        Ok(Answer::Error(error)) => reply(connections, session, &held, Reply::Rejected(error)),
        Ok(Answer::Disconnect(disconnect)) => connections.close(session.index, disconnect),
        Ok(Answer::Result(CallbackResult::Rpc { data })) => {
            reply(connections, session, &held, Reply::Returned(data));
        }
    }
    connections.drain_hub_outputs();
}

/// The backend did not answer.
fn fail(connections: &mut Connections, session: SessionId, held: &HeldRequest) {
    reply(connections, session, held, Reply::Refused(Refusal::BackendUnavailable));
}

fn reply(connections: &mut Connections, session: SessionId, held: &HeldRequest, reply: Reply) {
    if let Some(id) = held.id {
        connections.hub_outputs.push_back(HubOutput::Reply { session, id, reply });
    }
}
