//! The agent check of HAProxy (its configuration manual, `agent-check`): not HTTP, but a line that it sends by itself,
//! and a line that says what the proxy is to do with this server.

use super::HttpConversation;
use super::answer::Exchange;
use super::requests::{HttpFlow, HttpService};
use super::state::{Await, State};
use crate::message::CloseReason;
use crate::transport::context::{Context, Output, Question};

/// What an agent check sends, with `agent-send "agent-check\n"`.
const AGENT_CHECK: &[u8] = b"agent-check\n";

/// The proxy sends new connections here, also after an answer that said otherwise, or a check that failed.
const READY: &[u8] = b"ready up\n";

/// The proxy sends no new connections here, and leaves those that there are.
const DRAIN: &[u8] = b"drain\n";

impl HttpConversation {
    /// Takes an agent check, if that is all that was received. It is answered where health checks are.
    pub(super) fn take_agent_check(&mut self, bytes: &[u8], context: &mut Context<'_>) -> bool {
        let is_served = matches!(self.service, HttpService::Edge | HttpService::Admin);
        if bytes != AGENT_CHECK || !is_served || self.has_answered {
            return false;
        }
        context.messages.received += 1;
        context.outputs.push(Output::Ask(Question::Readiness));
        self.state = State::awaiting(Exchange::last(), Await::AgentCheck, None);
        true
    }

    /// Answers an agent check.
    pub(super) fn answer_agent_check(
        &mut self,
        is_ready: bool,
        context: &mut Context<'_>,
    ) -> HttpFlow {
        self.state = State::Idle;
        self.has_answered = true;
        context.messages.sent += 1;
        context.out.extend_from_slice(if is_ready { READY } else { DRAIN });
        context.close(CloseReason::HttpDone)
    }
}
