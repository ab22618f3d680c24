//! Requests that wait until it is known who their client is.

use super::credentials::log_in;
use super::error::HttpError;
use super::state::{AfterLogin, Await};
use crate::message::Token;
use crate::transport::context::Context;

/// Asks who the client of a request is, or makes the request at once where that is not asked. Returns what it waits
/// for.
pub(super) fn begin(
    request: AfterLogin,
    token: Option<Token>,
    context: &mut Context<'_>,
) -> Result<Await, HttpError> {
    if !context.settings.credentials.are_taken {
        return ask(request, context);
    }
    log_in(token, context);
    Ok(Await::Login(Box::new(request)))
}

/// Makes a request whose client is known. Returns what it waits for.
pub(super) fn ask(request: AfterLogin, context: &mut Context<'_>) -> Result<Await, HttpError> {
    Ok(match request {
        AfterLogin::Upgrade(upgrading) => {
            upgrading.ask(context);
            Await::Upgrade(Box::new(upgrading))
        }
        AfterLogin::Subscriptions(opening) => {
            opening.ask(context);
            Await::Subscriptions(Box::new(opening))
        }
        AfterLogin::Publish(to, bytes) => {
            to.publish(bytes.into(), context)?;
            Await::Publish
        }
    })
}
