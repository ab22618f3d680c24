//! The ways in which a client talks: one row each.

macro_rules! transports {
    ($($(#[$doc:meta])* $name:ident => $label:literal;)*) => {
        /// The way in which a client talks, as it is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TransportKind { $($(#[$doc])* $name,)* }

        impl TransportKind {
            /// What they are called in metrics, in the order of the table.
            pub const LABELS: &'static [&'static str] = &[$($label),*];
        }
    };
}

transports! {
    /// HTTP requests, and what has yet to become something else.
    Http => "http";
    /// Plain WebSocket messages.
    WebSocket => "websocket";
    /// An event stream.
    Sse => "sse";
    /// A poll that waits.
    LongPoll => "long_poll";
    /// The command protocol over raw TCP.
    CommandsTcp => "commands_tcp";
    /// The command protocol over WebSocket.
    CommandsWebSocket => "commands_websocket";
    /// WebSocket messages that come back.
    EchoWebSocket => "echo_websocket";
    /// Bytes that come back.
    EchoTcp => "echo_tcp";
}
