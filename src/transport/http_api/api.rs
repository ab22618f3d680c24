//! `POST /api/METHOD`: calls of the server API.

use super::answer::{Exchange, fail, refuse_congested, write_json};
use super::body::{Target, is_encoded};
use super::{HttpConversation, HttpFlow, Next};
use crate::protocol::api_json::{self, ApiMethod};
use crate::protocol::http1::{Head, HttpFault, Method};
use crate::protocol::json::CommandError;
use crate::transport::api_call::{ApiCall, ApiFault, ApiRoute};
use crate::transport::context::{Context, Output};
use crate::transport::settings::TransportSettings;

impl HttpConversation {
    /// A request below `/api/`; `name` is what follows.
    pub(super) fn api(
        &mut self,
        name: &str,
        head: &Head<'_>,
        rest: &mut &[u8],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        if head.method != Method::Post {
            return Ok(self.refuse_method(exchange, "POST, OPTIONS", context));
        }
        if !context.settings.admits_to_api(head) {
            return Ok(self.refuse_key(exchange, context));
        }
        let route = match ApiMethod::from_name(name) {
            Some(method) => ApiRoute::Single(method),
            None if name == "batch" => ApiRoute::Batch,
            None => {
                let mut body = b"{\"error\":".to_vec();
                api_json::write_error(&mut body, CommandError::MethodNotFound, None);
                body.extend_from_slice(b"}\n");
                return Ok(self.refuse_with(exchange, context, |exchange, context| {
                    write_json(exchange, 404, &body, context);
                    context.outputs.push(Output::HttpError);
                }));
            }
        };
        if is_encoded(head) {
            return Ok(self.refuse_encoding(exchange, context));
        }
        self.begin_body(head, rest, Target::Api(route), exchange, context)
    }

    /// The body is whole: asks what it asks, and waits for the answers.
    pub(super) fn take_call(
        &mut self,
        route: ApiRoute,
        body: &[u8],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Next {
        if context.congested && route.may_publish() {
            refuse_congested(exchange, context);
            return self.finish(exchange, context);
        }
        match ApiCall::begin(route, body, context) {
            Ok(call) if call.is_answered() => {
                write_json(exchange, 200, &call.answer(), context);
                self.finish(exchange, context)
            }
            Ok(call) => {
                let pending = self.pending.get_or_insert_default();
                pending.awaits = Some(exchange);
                pending.call = Some(call);
                Next::Flow(HttpFlow::AwaitReply)
            }
            Err(fault) => {
                // What follows is understood: the body was received to its end.
                let (code, why) = match fault {
                    ApiFault::NotJson(why) => ("json_invalid", why),
                    ApiFault::BatchInvalid(why) => ("batch_invalid", why),
                };
                fail(exchange, 400, code, &format!("invalid API call: {why}"), &[], context);
                self.finish(exchange, context)
            }
        }
    }

    /// A part of the answer to a call came: answers it after the last one.
    pub(super) fn advance_call(
        &mut self,
        step: impl FnOnce(&mut ApiCall),
        context: &mut Context<'_>,
    ) -> HttpFlow {
        let Some(call) = self.pending.as_mut().and_then(|pending| pending.call.as_mut()) else {
            return self.wait_on();
        };
        step(call);
        if !call.is_answered() {
            return HttpFlow::AwaitReply;
        }
        let body = call.answer();
        if let Some(pending) = &mut self.pending {
            pending.call = None;
        }
        self.respond("application/json", &body, context)
    }

    pub(super) fn refuse_key(&mut self, exchange: Exchange, context: &mut Context<'_>) -> Next {
        let message = "an API key is required: X-API-Key: KEY, or Authorization: apikey KEY";
        let headers = [("WWW-Authenticate", "apikey")];
        self.refuse(401, "unauthorized", message, &headers, exchange, context)
    }
}

impl TransportSettings {
    /// Whether a request shows the key that the server API wants.
    pub(super) fn admits_to_api(&self, head: &Head<'_>) -> bool {
        let Some(key) = &self.api_key else { return true };
        let mut shown =
            head.header("x-api-key").chain(head.header("authorization").filter_map(|value| {
                let (scheme, key) = value.split_at_checked(API_KEY_SCHEME.len())?;
                scheme.eq_ignore_ascii_case(API_KEY_SCHEME).then(|| key.trim_ascii_start())
            }));
        shown.any(|shown| is_same(shown, key.as_bytes()))
    }
}

/// Compares in a time that tells nothing but the length.
fn is_same(shown: &[u8], key: &[u8]) -> bool {
    let differences = shown.iter().zip(key).fold(0, |all, (a, b)| all | (a ^ b));
    shown.len() == key.len() && std::hint::black_box(differences) == 0
}

const API_KEY_SCHEME: &[u8] = b"apikey ";
