//! Why connections are closed, one row per reason, and what is sent to their clients.
//!
//! Plain WebSockets are closed with codes that every client accepts: 1000 to 1011, and 3000 to 4999. The codes that
//! IANA has registered since RFC 6455 (1012 to 1014) are a protocol error to clients that know the RFC's list only:
//! faye in Node and Ruby, Qt 5, libsoup 3, libwebsockets 4.1, ws4py. Where no code of RFC 6455 fits, the code of the
//! command protocol is used.

use std::sync::Arc;

macro_rules! close_reasons {
    ($($(#[$doc:meta])* $name:ident => $websocket:literal, $command:literal, $label:literal;)*) => {
        /// Why a connection is closed. Each transport expresses it in its own protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseReason { $($(#[$doc])* $name,)* }

        impl CloseReason {
            /// All reasons, in the order of the table.
            pub const ALL: &'static [CloseReason] = &[$(CloseReason::$name),*];

            /// The labels of all reasons, in the order of the table.
            pub const LABELS: &'static [&'static str] = &[$($label),*];

            /// The close code of a plain WebSocket (RFC 6455 7.4).
            pub fn websocket_code(self) -> u16 {
                match self { $(CloseReason::$name => $websocket,)* }
            }

            /// The disconnect code of the command protocol. Clients reconnect after 3000..=3499, and do not after
            /// 3500..=3999.
            pub fn disconnect_code(self) -> u16 {
                match self { $(CloseReason::$name => $command,)* }
            }

            /// The text of the reason, the same on the wire and as a metric's label.
            pub fn label(self) -> &'static str {
                match self { $(CloseReason::$name => $label,)* }
            }
        }
    };
}

close_reasons! {
    /// The client closed the connection as its protocol prescribes.
    ClientClosed => 1000, 3000, "connection closed";
    /// The client's socket ended without a close in its protocol.
    ClientGone => 1006, 3000, "connection lost";
    /// The server is shutting down.
    Shutdown => 1001, 3001, "shutdown";
    /// The client read too slowly, and its send queue reached its maximum.
    SlowConsumer => 3008, 3008, "slow consumer";
    /// The token of the client has expired; the client comes back with a new one.
    Expired => 3005, 3005, "connection expired";
    /// The token of the client is not one of this server, or is for another user or channel.
    TokenInvalid => 3500, 3500, "invalid token";
    /// The client violated its protocol.
    ProtocolError => 1002, 3501, "bad request";
    /// The client sent text that is not UTF-8.
    InvalidUtf8 => 1007, 3501, "invalid utf-8";
    /// The client sent a message beyond the limit.
    MessageTooBig => 1009, 3501, "message too big";
    /// Something was lost that the client has subscribed to; it comes back and recovers.
    InsufficientState => 3010, 3010, "insufficient state";
    /// The client did not respond to a keepalive ping.
    KeepaliveTimeout => 1011, 3012, "no pong";
    /// The handshake was not completed in time.
    HandshakeTimeout => 1008, 3502, "stale";
    /// An incomplete message was not completed in time.
    MessageTimeout => 1008, 3501, "message timeout";
    /// The client requested more subscriptions than allowed.
    SubscriptionsExhausted => 1008, 3505, "channel limit";
    /// The client asked for more than its rates allow, and went on.
    TooManyRequests => 1008, 3013, "too many requests";
    /// The user or the network prefix of the client has as many connections as it may.
    ConnectionLimit => 1008, 3504, "connection limit";
    /// The server API disconnected the client, which may reconnect.
    ForcedToReconnect => 3011, 3011, "force reconnect";
    /// The server API disconnected the client, which must not reconnect.
    Forced => 1008, 3503, "force disconnect";
    /// The backend disconnected the client, which must not reconnect unless the backend gives a code that says so.
    Backend => 1008, 3503, "backend disconnect";
    /// The server API has blocked the user of the client.
    UserBlocked => 1008, 3507, "user blocked";
    /// Memory is low and this client's buffers were among the largest, or it connected last; or the connection limit
    /// was reached when it connected; or its `connect` was not answered in time.
    Overloaded => 3003, 3003, "overloaded";
    /// An event stream reached its maximum lifetime; the client reconnects.
    StreamLifetime => 1000, 3000, "stream lifetime";
    /// An HTTP exchange is complete and its connection is not kept alive.
    HttpDone => 1000, 3000, "http done";
}

/// What is sent to a client when its connection is closed. The server API may choose the code and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// The reason, which metrics count.
    pub reason: CloseReason,
    /// The code, 3000..=4999, the same on all transports that have close codes. `None` for that of the reason.
    pub code: Option<u16>,
    /// The text, see [`Disconnect::is_text`]. `None` for that of the reason.
    pub text: Option<Arc<str>>,
}

/// Maximum length of the text: a close frame has room for 125 bytes, of which the code takes two (RFC 6455 5.5).
pub const DISCONNECT_TEXT_BYTES_MAX: usize = 123;

impl Disconnect {
    /// Whether a text fits all transports: a close frame, and one line of an event stream.
    pub fn is_text(text: &str) -> bool {
        text.len() <= DISCONNECT_TEXT_BYTES_MAX && !text.chars().any(char::is_control)
    }

    /// The close code of a plain WebSocket.
    pub fn websocket_code(&self) -> u16 {
        self.code.unwrap_or_else(|| self.reason.websocket_code())
    }

    /// The disconnect code of the command protocol.
    pub fn disconnect_code(&self) -> u16 {
        self.code.unwrap_or_else(|| self.reason.disconnect_code())
    }

    /// Whether clients of the command protocol come back after its code.
    pub fn may_return(&self) -> bool {
        matches!(self.disconnect_code(), 3000..=3499 | 4000..=4499)
    }

    /// The text that is sent.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_else(|| self.reason.label())
    }
}

impl From<CloseReason> for Disconnect {
    fn from(reason: CloseReason) -> Self {
        Self { reason, code: None, text: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fits_a_close_frame_and_one_line() {
        assert!(Disconnect::is_text("") && Disconnect::is_text(&"x".repeat(123)));
        for text in [&*"x".repeat(124), "two\nlines", "two\rlines", "nul\0"] {
            assert!(!Disconnect::is_text(text), "{text:?}");
        }
    }

    #[test]
    fn labels_are_distinct_and_fit_a_close_frame() {
        for (index, reason) in CloseReason::ALL.iter().enumerate() {
            assert!(Disconnect::is_text(reason.label()));
            let same = CloseReason::ALL.iter().position(|other| other.label() == reason.label());
            assert_eq!(same, Some(index));
        }
    }

    #[test]
    fn the_codes_of_plain_websockets_are_accepted_by_all_clients() {
        for reason in CloseReason::ALL {
            // RFC 6455 7.4.1: 1004 to 1006 are reserved and never sent; a client reports 1006 on its own.
            let is_sent = *reason != CloseReason::ClientGone;
            let code = reason.websocket_code();
            assert_eq!(matches!(code, 1000..=1003 | 1007..=1011 | 3000..=4999), is_sent, "{code}");
        }
    }
}
