//! The client of a request that came through a trusted proxy.

use tracing::debug;

use super::answer::Exchange;
use super::error::{Early, HttpError};
use super::routes::{Action, Route};
use crate::config::ClientHeader;
use crate::message::{ClientId, CloseReason};
use crate::protocol::http1::{Head, forwarded, x_forwarded_for};
use crate::transport::context::{Context, Output};
use crate::transport::stream_form::StreamFraming;

/// Counts the request as a connection of the client that the proxy names, if it is a trusted one. Returns false if the
/// client's network prefix has as many as it may.
pub(super) fn admit(head: &Head<'_>, context: &mut Context<'_>) -> bool {
    let (Some(gate), settings) = (&mut context.gate, context.settings) else { return true };
    let is_trusted = |address| settings.trusts_proxy(address);
    let client = match settings.client_header {
        ClientHeader::XForwardedFor => x_forwarded_for(head, is_trusted),
        ClientHeader::Forwarded => forwarded(head, is_trusted),
    };
    context.outputs.push(Output::ClientNamed(client));
    let Some(client) = client else {
        gate.leave();
        return true;
    };
    let ClientId { worker, session, .. } = context.client;
    debug!(worker = worker.0, connection = session.index, %client, "forwarded request");
    let entered = gate.enter(client);
    if let Err((refusal, prefix)) = entered {
        context.outputs.push(Output::ClientRejected(refusal, prefix));
    }
    entered.is_ok()
}

/// Refuses a request of a client that is not admitted: an event stream ends and comes back later, because an error
/// would end it for good (WHATWG HTML 9.2.3).
pub(super) fn refuse(
    route: Option<&Route>,
    head: &Head<'_>,
    exchange: Exchange,
    context: &mut Context<'_>,
) -> Early {
    if route.is_none_or(|route| route.action != Action::Events) {
        return HttpError::prefix_exhausted().into();
    }
    let exchange = Exchange { keep_alive: false, ..exchange };
    exchange.refuse_stream(CloseReason::TooManyRequests, StreamFraming::of(head), context);
    Early::Closed
}
