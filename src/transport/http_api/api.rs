//! `POST /api/METHOD`: calls of the server API.

use std::sync::Arc;

use super::error::HttpError;
use crate::auth::ApiGrant;
use crate::protocol::api_json::{self, ApiMethod};
use crate::protocol::command::CommandError;
use crate::transport::api_call::{ApiCall, ApiFault, ApiRoute};
use crate::transport::context::Context;

/// The call that a path names behind `/api/`.
pub(super) fn route_of(name: &str) -> Result<ApiRoute, HttpError> {
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

/// Makes the requests of a call whose body is complete.
pub(super) fn begin(
    route: ApiRoute,
    grant: Arc<ApiGrant>,
    body: &[u8],
    context: &mut Context<'_>,
) -> Result<ApiCall, HttpError> {
    if context.congested && route.may_publish() {
        return Err(HttpError::congested());
    }
    ApiCall::begin(route, grant, body, context).map_err(|fault| {
        let (code, why) = match fault {
            ApiFault::NotJson(why) => ("json_invalid", why),
            ApiFault::BatchInvalid(why) => ("batch_invalid", why),
        };
        HttpError::new(400, code, format!("invalid API call: {why}"))
    })
}
