//! The transports over which clients connect, one row each.

macro_rules! transports {
    ($($(#[$doc:meta])* $name:ident => $label:literal;)*) => {
        /// The transport of a connection, as metrics count it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TransportKind { $($(#[$doc])* $name,)* }

        impl TransportKind {
            /// The labels in metrics, in the order of the table.
            pub const LABELS: &'static [&'static str] = &[$($label),*];

            /// The label of this one.
            pub fn label(self) -> &'static str {
                Self::LABELS[self as usize]
            }
        }
    };
}

impl TransportKind {
    /// Whether its connections are those of clients that stay: neither single requests and polls, nor echoes.
    pub fn is_lasting(self) -> bool {
        match self {
            Self::WebSocket
            | Self::Sse
            | Self::CommandsTcp
            | Self::CommandsWebSocket
            | Self::CommandsHttpStream
            | Self::CommandsSse
            | Self::UniWebSocket
            | Self::UniHttpStream
            | Self::UniSse => true,
            Self::Http | Self::LongPoll | Self::EchoWebSocket | Self::EchoTcp => false,
        }
    }
}

transports! {
    /// HTTP requests, and connections whose transport is not negotiated yet.
    Http => "http";
    /// Plain WebSocket messages, without the command protocol.
    WebSocket => "websocket";
    /// An event stream (server-sent events).
    Sse => "sse";
    /// A long poll that waits for publications.
    LongPoll => "long_poll";
    /// The command protocol over raw TCP.
    CommandsTcp => "commands_tcp";
    /// The command protocol over WebSocket.
    CommandsWebSocket => "commands_websocket";
    /// The command protocol as an HTTP answer of lines.
    CommandsHttpStream => "commands_http_stream";
    /// The command protocol as an event stream.
    CommandsSse => "commands_sse";
    /// Pushes of the command protocol, and nothing else, over WebSocket.
    UniWebSocket => "uni_websocket";
    /// The same as an HTTP answer of lines.
    UniHttpStream => "uni_http_stream";
    /// The same as an event stream.
    UniSse => "uni_sse";
    /// WebSocket messages that are echoed.
    EchoWebSocket => "echo_websocket";
    /// Bytes on raw TCP that are echoed.
    EchoTcp => "echo_tcp";
}
