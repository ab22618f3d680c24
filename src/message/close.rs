//! Why a connection ends: one row per reason.

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

            /// The close code of a plain WebSocket (RFC 6455 7.4.1 and the IANA registry).
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
    /// The client's bytes ended without a goodbye.
    ClientGone => 1006, 3000, "connection lost";
    /// The server shuts down.
    Shutdown => 1001, 3001, "shutdown";
    /// The client read too slowly and its queue passed its maximum.
    SlowConsumer => 1013, 3008, "slow consumer";
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
    ForcedToReconnect => 1012, 3011, "force reconnect";
    /// The server API ended it for good.
    Forced => 1008, 3503, "force disconnect";
    /// Memory is nearly used up, and this client's queue was among the largest, or it came last.
    Overloaded => 1013, 3003, "overloaded";
    /// An HTTP exchange that ends its connection.
    HttpDone => 1000, 3000, "http done";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_fit_a_close_frame() {
        for (index, reason) in CloseReason::ALL.iter().enumerate() {
            assert!(reason.label().len() <= 123, "RFC 6455 5.5: a control frame has 125 bytes");
            let same = CloseReason::ALL.iter().position(|other| other.label() == reason.label());
            assert_eq!(same, Some(index));
        }
    }
}
