//! Why a connection ends: one row per reason.
//!
//! The codes of plain WebSockets are those that arrive everywhere: 1000 to 1011, and 3000 to 4999. What IANA has
//! registered since RFC 6455 (1012 to 1014) is a protocol error to clients that know the RFC's list only: faye in Node
//! and Ruby, Qt 5, libsoup 3, libwebsockets 4.1, ws4py. Where none of the first fits, the code is the one of the
//! command protocol.

use std::sync::Arc;

macro_rules! close_reasons {
    ($($(#[$doc:meta])* $name:ident => $websocket:literal, $command:literal, $label:literal;)*) => {
        /// Why a connection ends. Each transport says it in its protocol's own terms.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseReason { $($(#[$doc])* $name,)* }

        impl CloseReason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [CloseReason] = &[$(CloseReason::$name),*];

            /// The labels, in the same order.
            pub const LABELS: &'static [&'static str] = &[$($label),*];

            /// The close code of a plain WebSocket (RFC 6455 7.4).
            pub fn websocket_code(self) -> u16 {
                match self { $(CloseReason::$name => $websocket,)* }
            }

            /// The disconnect code of the command protocol: 3000..=3499 come back, 3500..=3999 do not.
            pub fn disconnect_code(self) -> u16 {
                match self { $(CloseReason::$name => $command,)* }
            }

            /// A few words, the same on the wire and as a metric's label.
            pub fn label(self) -> &'static str {
                match self { $(CloseReason::$name => $label,)* }
            }
        }
    };
}

close_reasons! {
    /// The client closed in its protocol's way.
    ClientClosed => 1000, 3000, "connection closed";
    /// The client's bytes ended without a close in its protocol's way.
    ClientGone => 1006, 3000, "connection lost";
    /// The server shuts down.
    Shutdown => 1001, 3001, "shutdown";
    /// The client read too slowly and its queue passed its maximum.
    SlowConsumer => 3008, 3008, "slow consumer";
    /// The client's bytes broke its protocol.
    ProtocolError => 1002, 3501, "bad request";
    /// Text that is not UTF-8.
    InvalidUtf8 => 1007, 3501, "invalid utf-8";
    /// A message past the limit.
    MessageTooBig => 1009, 3501, "message too big";
    /// No answer to keepalives.
    KeepaliveTimeout => 1011, 3012, "no pong";
    /// The handshake was not finished in time.
    HandshakeTimeout => 1008, 3502, "stale";
    /// A message that was begun was not finished in time.
    MessageTimeout => 1008, 3501, "message timeout";
    /// More subscriptions than allowed.
    SubscriptionsExhausted => 1008, 3505, "channel limit";
    /// The server API ended it; the client may come back.
    ForcedToReconnect => 3011, 3011, "force reconnect";
    /// The server API ended it for good.
    Forced => 1008, 3503, "force disconnect";
    /// Memory is nearly used up, and this client's queue was among the largest, or it came last; or it came when there
    /// were as many connections as may be.
    Overloaded => 3003, 3003, "overloaded";
    /// An event stream has lived for as long as one may; the client comes back.
    StreamLifetime => 1000, 3000, "stream lifetime";
    /// An HTTP exchange that ends its connection.
    HttpDone => 1000, 3000, "http done";
}

/// What a client is told as its connection ends. The server API may choose the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Why, as it is counted.
    pub reason: CloseReason,
    /// The code, the same on every transport that has some: 3000..=4999. Without, the reason's.
    pub code: Option<u16>,
    /// A few words: see [`Disconnect::is_text`]. Without, the reason's.
    pub text: Option<Arc<str>>,
}

/// Bytes of a few words: RFC 6455 5.5 leaves as many to a close frame, behind its code.
pub const DISCONNECT_TEXT_BYTES_MAX: usize = 123;

impl Disconnect {
    /// Whether words fit all transports: a close frame, and a line of an event stream.
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

    /// The words.
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
    fn words_fit_a_close_frame_and_a_line() {
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
    fn the_codes_of_plain_websockets_arrive_everywhere() {
        for reason in CloseReason::ALL {
            // RFC 6455 7.4.1: 1004 to 1006 are reserved; 1006 is what a client reports by itself.
            let is_sent = *reason != CloseReason::ClientGone;
            let code = reason.websocket_code();
            assert_eq!(matches!(code, 1000..=1003 | 1007..=1011 | 3000..=4999), is_sent, "{code}");
        }
    }
}
