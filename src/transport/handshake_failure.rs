//! The causes for which handshakes fail: one row each.

use crate::protocol::websocket::handshake::HandshakeFault;

macro_rules! handshake_failures {
    ($($(#[$doc:meta])* $name:ident => $label:literal;)*) => {
        /// Why a handshake failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum HandshakeFailure { $($(#[$doc])* $name,)* }

        impl HandshakeFailure {
            /// Every cause, in the order of the table.
            pub const ALL: &'static [HandshakeFailure] = &[$(HandshakeFailure::$name),*];

            /// The labels that metrics have for the causes, in the same order.
            pub const LABELS: &'static [&'static str] = &[$($label),*];

            /// The label of this cause, which is also the code of an HTTP error.
            pub fn label(self) -> &'static str {
                match self { $(HandshakeFailure::$name => $label,)* }
            }
        }
    };
}

handshake_failures! {
    /// The handshake was not finished in time.
    Timeout => "timeout";
    /// The first bytes of a connection are not an HTTP request.
    BadRequest => "bad_request";
    /// Invalid channel name, or too many channels.
    ChannelInvalid => "channel_invalid";
    /// The hub refused one of the subscriptions.
    SubscriptionRefused => "subscription_refused";
    /// The client subscribes more often than its rate allows.
    RateExceeded => "rate_exceeded";
    /// A token is missing, invalid or expired.
    TokenRefused => "token_refused";
    /// The server is low on memory.
    Overloaded => "overloaded";
    /// The method is not GET.
    MethodNotGet => "method_not_get";
    /// The version is not HTTP/1.1.
    HttpVersionTooOld => "http_version_too_old";
    /// The request has a body.
    BodyUnexpected => "body_unexpected";
    /// The request does not ask for a WebSocket.
    UpgradeMissing => "upgrade_missing";
    /// A proxy removed the headers that ask for a WebSocket.
    UpgradeRemoved => "upgrade_removed";
    /// The page that asks belongs to an origin that is not listed.
    OriginRefused => "origin_refused";
    /// The client offers only subprotocols that the server does not speak.
    SubprotocolUnsupported => "subprotocol_unsupported";
    /// The version of the WebSocket protocol is not 13.
    WebSocketVersionUnsupported => "websocket_version_unsupported";
    /// `Sec-WebSocket-Key` is missing.
    WebSocketKeyMissing => "websocket_key_missing";
    /// There are several `Sec-WebSocket-Key` headers.
    WebSocketKeyDuplicate => "websocket_key_duplicate";
    /// `Sec-WebSocket-Key` is not 16 bytes in base64.
    WebSocketKeyInvalid => "websocket_key_invalid";
    /// Any other cause.
    Other => "other";
}

impl From<HandshakeFault> for HandshakeFailure {
    fn from(fault: HandshakeFault) -> Self {
        match fault {
            HandshakeFault::MethodNotGet => Self::MethodNotGet,
            HandshakeFault::HttpVersionTooOld => Self::HttpVersionTooOld,
            HandshakeFault::BodyUnexpected => Self::BodyUnexpected,
            HandshakeFault::UpgradeMissing => Self::UpgradeMissing,
            HandshakeFault::UpgradeRemoved => Self::UpgradeRemoved,
            HandshakeFault::VersionUnsupported => Self::WebSocketVersionUnsupported,
            HandshakeFault::KeyMissing => Self::WebSocketKeyMissing,
            HandshakeFault::KeyDuplicate => Self::WebSocketKeyDuplicate,
            HandshakeFault::KeyInvalid => Self::WebSocketKeyInvalid,
            // Faults of a server's answer, which only a client meets.
            HandshakeFault::ResponseInvalid | HandshakeFault::ResponseRefused => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_request_is_counted_under_its_own_code() {
        for fault in [
            HandshakeFault::MethodNotGet,
            HandshakeFault::HttpVersionTooOld,
            HandshakeFault::BodyUnexpected,
            HandshakeFault::UpgradeMissing,
            HandshakeFault::UpgradeRemoved,
            HandshakeFault::VersionUnsupported,
            HandshakeFault::KeyMissing,
            HandshakeFault::KeyDuplicate,
            HandshakeFault::KeyInvalid,
        ] {
            assert_eq!(HandshakeFailure::from(fault).label(), fault.code());
        }
    }

    #[test]
    fn labels_are_distinct_and_in_the_order_of_the_causes() {
        for (index, cause) in HandshakeFailure::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
            let label = cause.label();
            let first = HandshakeFailure::LABELS.iter().position(|other| *other == label);
            assert_eq!(first, Some(index), "{label}");
        }
    }
}
