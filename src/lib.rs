//! fantail: an edge fan-out server. This file is the map of the house.
//!
//! Every room is a machine with typed input and typed output. Rooms do not call each other: the worker carries the
//! outputs of one into the inputs of the next. Codecs, conversations, channels and connections know no sockets and no
//! clock, so they are tested at full speed, split at every byte, and simulated.
//!
//! ```text
//!               bytes               requests           allowed          messages
//!    ┌────────┐ ──────▶ ┌────────────┐ ──────▶ ┌──────┐ ──────▶ ┌─────┐ ──────▶ ┌────────────────┐
//!    │ driver │         │ connection │         │ auth │         │ hub │         │ hub of another │
//!    └────────┘ ◀────── └────────────┘ ◀─────────────────────── └─────┘ ◀────── │     worker     │
//!               bytes                   replies, deliveries            messages └────────────────┘
//!    ╰────────────────────────── worker: one thread, one core, carries ─────────────────────────╯
//!      a connection speaks one transport: HTTP │ WebSocket │ event stream │ commands over TCP │ echo
//! ```
//!
//! # The floors: who may import whom
//! `tests/tidy/floors.rs` holds the same table, and a permission that nothing uses fails there.
//!
//! | room | what it is | may import |
//! |---|---|---|
//! | [`message`] | the words every room speaks | nothing |
//! | [`config`] | settings and limits: plain data | nothing |
//! | [`telemetry`] | what is counted: one table | nothing |
//! | [`buffer`] | bytes that wait to be sent | nothing |
//! | [`protocol`] | codecs: bytes ⇄ frames | message |
//! | [`auth`] | rights: pure decisions | message, config |
//! | [`transport`] | conversations: frames ⇄ requests, replies, deliveries | protocol, message, buffer, config |
//! | [`hub`] | channels, subscriptions, fan-outs | message, config |
//! | [`driver`] | sockets and the kernel | buffer, config |
//! | [`connection`] | one client's socket | transport, message, buffer, config |
//! | [`worker`] | the turn; the mesh between workers; the sweep | all above |
//! | [`server`] | threads, listeners, signals, the log | all above but buffer, protocol, auth, transport |
//!
//! # Where to change what
//! | change | place |
//! |---|---|
//! | a setting | a row in `config/settings.rs`, a field and its default in `config/configuration.rs` |
//! | what a reload does to a running worker | `WorkerSettings::reconfigure` in `worker/settings.rs` |
//! | a limit that nobody may choose | `config/limits.rs` |
//! | a metric | a row in `telemetry/metrics.rs` |
//! | the ways to talk that connections are counted by | a row in `message/transport_kind.rs` |
//! | a reason to close | a row in `message/disconnect.rs` |
//! | what a wire format looks like | its one file in `protocol/` |
//! | the page at `/` | `transport/http_api/page.html` |
//! | an HTTP route | a row in `transport/http_api/routes.rs`; what it does, a file in `transport/http_api/` |
//! | how a refusal is reported to clients | a row in `transport/refusal.rs` |
//! | a cause of failed handshakes | a row in `transport/handshake_failure.rs` |
//! | a transport | `protocol/`, a file that implements `transport/contract.rs`, a row in `transport/conversation.rs` |
//! | a right | `auth/decide.rs` |
//! | a socket option | `driver/socket.rs` |
//! | what a host should have, how many connections it holds | `sysctl/90-fantail.conf`, `server/host/` |
//! | what happens when memory is used up | `worker/evict.rs` |
//! | a command or a snippet in a document | the document; its fence says how `tests/documents` runs it |
//! | how much is done in one turn | `config/limits.rs` (`..._per_turn_max`) |

pub mod auth;
pub mod buffer;
pub mod config;
pub mod connection;
pub mod driver;
pub mod hub;
pub mod message;
pub mod protocol;
pub mod server;
pub mod telemetry;
pub mod transport;
pub mod worker;
