//! `POST /api/METHOD` and `POST /api`: calls of the server API.

use std::sync::Arc;

use super::error::HttpError;
use super::guards::{check_encoding, check_key};
use crate::auth::ApiGrant;
use crate::config::ErrorMode;
use crate::protocol::api_json::{self, ApiMethod};
use crate::protocol::command::CommandError;
use crate::protocol::http1::Head;
use crate::transport::api_call::{ApiCall, ApiFault, ApiRoute};
use crate::transport::context::Context;

/// A call of which the head has come.
#[derive(Debug)]
pub(super) struct ApiHead {
    route: ApiRoute,
    /// What its key allows.
    grant: Arc<ApiGrant>,
    errors: ErrorMode,
}

impl ApiHead {
    /// Reads the head of a call. `name` is what its path has behind `/api/`.
    pub fn of(head: &Head<'_>, name: &str, context: &mut Context<'_>) -> Result<Self, HttpError> {
        let grant = check_key(head, context)?;
        let route = match head.path {
            "/api" => ApiRoute::Commands,
            _ => route_of(name)?,
        };
        check_encoding(head)?;
        let is_in_status = head.header("x-centrifugo-error-mode").any(|mode| mode == b"transport");
        let errors = match is_in_status {
            true => ErrorMode::Transport,
            false => context.settings.api_errors,
        };
        Ok(Self { route, grant, errors })
    }

    /// Makes the requests of a call whose body is complete.
    pub fn begin(self, body: &[u8], context: &mut Context<'_>) -> Result<ApiCall, HttpError> {
        let Self { route, grant, errors } = self;
        if context.congested && route.may_publish() {
            return Err(HttpError::congested());
        }
        let call = ApiCall::begin(route, grant, body, context).map_err(|fault| {
            let (code, why) = match fault {
                ApiFault::NotJson(why) => ("json_invalid", why),
                ApiFault::BatchInvalid(why) => ("batch_invalid", why),
            };
            HttpError::new(400, code, format!("invalid API call: {why}"))
        })?;
        Ok(call.with_errors(errors))
    }
}

/// The call that a path names behind `/api/`.
fn route_of(name: &str) -> Result<ApiRoute, HttpError> {
    match ApiMethod::from_name(name) {
        Some(method) => Ok(ApiRoute::Single(method)),
        None if name == "batch" => Ok(ApiRoute::Batch),
        None => {
            let mut body = b"{\"error\":".to_vec();
            api_json::write_error(&mut body, CommandError::MethodNotFound, None);
            body.extend_from_slice(b"}\n");
            Err(HttpError { body: Some(body), ..HttpError::new(404, "method_not_found", "") })
        }
    }
}
