//! What workers and the thread of the callbacks hand to each other.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::answer::Answer;
use crate::config::CallbackKind;
use crate::message::{
    ChannelName, ClientId, ForwardedHeaders, Login, Payload, SessionId, Token, TransportKind,
};

/// A question of a client to the backend.
#[derive(Clone, Debug)]
pub struct Call {
    /// The client; its worker gets the answer.
    pub client: ClientId,
    /// Distinguishes the call from others of its worker.
    pub serial: u32,
    /// The transport of the client.
    pub transport: TransportKind,
    /// Whether it speaks Protobuf.
    pub is_protobuf: bool,
    /// Its user; `None` if it is anonymous.
    pub user: Option<Arc<str>>,
    /// What the backend keeps with the connection, if it wants that: a JSON value on one line.
    pub meta: Option<Bytes>,
    /// The address of the client, if it is known and any callback sends it on.
    pub address: Option<IpAddr>,
    /// The headers of its HTTP request that may be sent on.
    pub headers: Option<Arc<ForwardedHeaders>>,
    /// What the backend is asked.
    pub ask: Ask,
}

/// What the backend is asked.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum Ask {
    /// The identity of a client that connects without a token.
    Connect(Box<Login>),
    /// Whether the client, whose identity has expired, may go on.
    Refresh,
    /// Whether the client may subscribe to a channel.
    Subscribe { channel: ChannelName, token: Option<Token>, data: Option<Payload> },
    /// Whether the client may publish to a channel.
    Publish { channel: ChannelName, payload: Payload },
    /// Whether its subscription to a channel, which has expired, may go on.
    SubRefresh { channel: ChannelName },
    /// To call a procedure. The name may be empty, and the data absent.
    Rpc { method: Arc<str>, data: Option<Payload> },
}

/// What became of a call.
#[derive(Debug)]
pub struct Answered {
    /// The session that asked, which may have ended.
    pub session: SessionId,
    /// The serial of the call.
    pub serial: u32,
    /// What the backend was asked.
    pub kind: CallbackKind,
    /// What it said.
    pub result: Result<Answer, Failure>,
    /// The time from the call to its answer.
    pub took: Duration,
}

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident => $label:literal;)*) => {
        /// Why a call has no answer of the backend.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failure { $($(#[$doc])* $name,)* }

        /// The outcomes of calls as metrics label them: three for answers, then one for each [`Failure`].
        pub const OUTCOMES: &[&str] = &["result", "error", "disconnect", $($label),*];
    };
}

failures! {
    /// The backend could not be reached, or ended the connection.
    Unreachable => "unreachable";
    /// There was no answer in time.
    Timeout => "timeout";
    /// The status of the answer is not 200, and below 500.
    Status => "status";
    /// The status of the answer is 500 or above.
    ServerError => "server_error";
    /// The answer is larger than allowed.
    TooLarge => "too_large";
    /// The answer is not valid.
    Invalid => "invalid";
    /// Too many calls wait, or their bytes are too many.
    Rejected => "rejected";
    /// The backend failed too often in a row: it is not asked for a while.
    CircuitOpen => "circuit_open";
}

impl Ask {
    /// The kind of the callback.
    pub fn kind(&self) -> CallbackKind {
        match self {
            Ask::Connect(_) => CallbackKind::Connect,
            Ask::Refresh => CallbackKind::Refresh,
            Ask::Subscribe { .. } => CallbackKind::Subscribe,
            Ask::Publish { .. } => CallbackKind::Publish,
            Ask::SubRefresh { .. } => CallbackKind::SubRefresh,
            Ask::Rpc { .. } => CallbackKind::Rpc,
        }
    }
}

impl Answered {
    /// The index of the outcome in [`OUTCOMES`].
    pub fn outcome(&self) -> usize {
        match &self.result {
            Ok(Answer::Result(_)) => 0,
            Ok(Answer::Error(_)) => 1,
            Ok(Answer::Disconnect(_)) => 2,
            Err(failure) => failure.outcome(),
        }
    }

    /// About how many bytes it keeps in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.result.as_ref().map_or(0, Answer::bytes)
    }
}

impl Failure {
    /// The outcomes of answers in front of the failures.
    const ANSWERS: usize = 3;

    /// Its index in [`OUTCOMES`].
    pub fn outcome(self) -> usize {
        Self::ANSWERS + self as usize
    }

    /// The word for it in the log and in metrics.
    pub fn label(self) -> &'static str {
        OUTCOMES[self.outcome()]
    }

    /// Whether the backend is slow or away, rather than wrong or full of requests.
    pub(super) fn is_outage(self) -> bool {
        matches!(self, Failure::Unreachable | Failure::Timeout | Failure::ServerError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_label_of_its_outcome() {
        assert_eq!(Failure::Unreachable.label(), "unreachable");
        assert_eq!(Failure::CircuitOpen.label(), "circuit_open");
        assert_eq!(Failure::CircuitOpen.outcome() + 1, OUTCOMES.len());
    }
}
