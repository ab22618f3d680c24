//! Conversations: the ways a client talks.
//!
//! **What it is.** One machine per transport, all of one shape ([`Transport`]), in one list ([`Conversation`]): the
//! HTTP requests that most of them begin with, and that long polls are ([`HttpConversation`]), WebSocket with plain
//! messages or commands ([`WebSocketConversation`]), SSE ([`EventStream`]), the command protocol over HTTP
//! ([`CommandStream`]) and over raw TCP ([`CommandConversation`]), and the raw echo. [`Prepared`] holds the encodings
//! of what a fan-out delivers, one per wire form; [`Answers`] keeps an encoded recovery or history for other clients.
//!
//! **In and out.** In: bytes, to be decoded in place; replies; answers of the worker; deadlines. Out: bytes appended to
//! [`Context::out`], [`Output`]s for the hub and the worker.
//!
//! **Always true.** An idle conversation owns no heap memory, whole messages are decoded where they were received, and
//! whatever a peer sends ends in a message, in the protocol's own error, or in a wait for more that is bounded.
//!
//! **Must not know.** Sockets, the hub, the clock, other connections.

mod answers;
mod api_call;
mod command_form;
mod command_stream;
mod commands;
mod commands_tcp;
mod context;
mod contract;
mod conversation;
mod echo;
mod handshake_failure;
mod http_api;
mod pipelined;
mod places;
mod poll_form;
mod prepared;
mod refusal;
mod retry;
mod settings;
mod sse;
mod stream_form;
mod websocket;

pub use crate::protocol::proxy_protocol::{HeaderFault, ProxyHeader, parse_header};
pub use crate::protocol::websocket::Inflater;
pub use answers::Answers;
pub use command_form::CommandEncoding;
pub use command_stream::CommandStream;
pub use commands_tcp::CommandConversation;
pub use context::{Answer, Context, Flow, MessageCount, Output, Question};
pub use contract::{Traits, Transport};
pub use conversation::{Conversation, Service};
pub use handshake_failure::HandshakeFailure;
pub use http_api::{HttpConversation, HttpNext, HttpService};
pub use prepared::{Batch, Delivered, Encoder, Prepared};
pub use settings::{Now, Origins, TransportSettings};
pub use sse::EventStream;
pub use stream_form::{StreamForm, StreamFraming, StreamKind};
pub use websocket::{WebSocketConversation, WebSocketService};
