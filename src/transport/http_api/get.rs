//! Requests for what only GET and HEAD are for.

use super::answer::{Exchange, write_ok};
use super::{HttpConversation, Next, cors};
use crate::protocol::http1::{BodyLength, Head, HttpFault, Method};
use crate::protocol::websocket::handshake;
use crate::transport::context::{Context, Question};

impl HttpConversation {
    /// A request for something that only GET and HEAD are for.
    pub(super) fn get(
        &mut self,
        head: &Head<'_>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        if !matches!(head.method, Method::Get | Method::Head) {
            let allow = cors::methods_of(head.path).unwrap_or("GET, HEAD");
            return Ok(self.refuse_method(exchange, allow, context));
        }
        // RFC 9110 7.8: an upgrade may be passed over, as one to h2c is, which Java's HttpClient asks for with
        // each request. One to a WebSocket would wait for a stream or a poll that its client cannot read.
        if handshake::wants_upgrade(head) {
            let message = "not a WebSocket endpoint: use /ws or /connection/websocket";
            let code = "not_a_websocket_endpoint";
            return Ok(self.refuse(400, code, message, &[], exchange, context));
        }
        // The answer would come before the end of a body that was not asked for.
        if head.body != BodyLength::None {
            return Ok(self.refuse_body(exchange, context));
        }
        match head.path {
            "/events" => return self.stream_events(head, exchange, context),
            "/poll" => return self.poll(head, exchange, context),
            "/" => {
                if context.settings.serves_page() {
                    return Ok(self.show_page(head, exchange, context));
                }
                write_ok(exchange, "text/plain; charset=utf-8", WELCOME, context);
            }
            "/metrics" => return Ok(self.ask(Question::Metrics, exchange, context)),
            "/health/ready" => return Ok(self.ask(Question::Readiness, exchange, context)),
            _ => write_ok(exchange, "application/json", b"{\"status\":\"live\"}\n", context),
        }
        Ok(self.finish(exchange, context))
    }
}

const WELCOME: &[u8] = b"This is fantail.

GET  /ws?channel=a        a WebSocket: what is published to a channel, each publication one message;
                          what you send is published to the first channel named, or to the lobby
GET  /events?channel=a    the same as an event stream, for EventSource
GET  /poll?channel=a      the same, one answer at a time: as soon as something is published, or after 25 seconds
POST /publish?channel=a   publishes the body; event=NAME is its type of event
POST /api/METHOD          the server API, as Centrifugo has it
GET  /health/live         whether the server runs
GET  /health/ready        whether it accepts connections: 503 when it does not
GET  /metrics             what it counts, as Prometheus text
";
