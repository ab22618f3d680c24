//! fantail: an edge fan-out server. This file is the map of the house.
//!
//! Each room, which is a module, is a machine with typed input and typed output. Rooms do not call each other: the
//! worker passes the output of one room to the next. Codecs, conversations, channels and connections have no sockets
//! and no clock, so tests run them at full speed, split their input at every byte, fuzz and simulate them.
//!
//! ```text
//!            bytes                requests           allowed         messages
//! ┌────────┐ ─────▶ ┌────────────┐ ────────▶ ┌──────┐ ───────▶ ┌─────┐ ─────────▶ ┌────────────────┐
//! │        │        │ connection │           │ auth │          │     │            │                │
//! │ driver │        │  with its  │           └──┬───┘          │ hub │            │ hub of another │
//! │        │        │ transport  │ ◀────────────┘              │     │            │     worker     │
//! │        │        │            │   refusals                  │     │            │                │
//! └────────┘ ◀───── └────────────┘ ◀────────────────────────── └─────┘ ◀───────── └────────────────┘
//!            bytes                   replies, items                    messages
//! ╰───────────────── worker: one thread on one core, which passes it all on ─────────────────╯
//!   transports: HTTP │ WebSocket │ event stream │ commands over HTTP or TCP │ echo
//! ```
//!
//! # Threads
//! ```text
//! data plane     fantail-0 ◀─ mesh ─▶ fantail-1 ◀─ mesh ─▶ …   one worker per core, with its own driver, descriptor
//!                    ▲                    ▲                    table, connections and share of the hub
//! ───────────────────┼────────────────────┼──────────────────────────────────────────────────────────────────
//! control plane  main, fantail-signals: start, stop, reload    fantail-lines: writes the log
//!                fantail-probe: tries io_uring at start        fantail-log: limits its rate
//!                fantail-callbacks: asks a backend, if one is configured
//! ```
//! The bytes of a client stay on the thread of its worker; only messages between hubs cross the mesh. The control plane
//! reaches workers through atomic flags and channels, and wakes them; workers never wait for it.
//!
//! # The floors: which room may import which
//! `tests/tidy/floors.rs` has the same table, and a permission that is not used is an error there.
//!
//! | room | what it is | may import |
//! |---|---|---|
//! | [`message`] | the vocabulary of all rooms | nothing |
//! | [`config`] | settings and limits: plain data | nothing |
//! | [`telemetry`] | the metrics: one table | nothing |
//! | [`buffer`] | bytes to be sent | nothing |
//! | [`protocol`] | codecs: bytes ⇄ frames | message |
//! | [`auth`] | rights, tokens: pure decisions | message, config, protocol |
//! | [`transport`] | conversations: frames ⇄ requests, replies, items | protocol, message, buffer, config, auth |
//! | [`hub`] | channels, subscriptions, fan-outs | message, config |
//! | [`driver`] | sockets and the kernel | buffer, config |
//! | [`connection`] | the socket of one client | transport, message, buffer, config |
//! | [`callback`] | HTTP requests to a backend | message, config, protocol, auth |
//! | [`worker`] | the turn; the mesh between workers; the sweep | all above but protocol |
//! | [`server`] | threads, listeners, signals, the log | all above but buffer, protocol, auth, transport |
//!
//! `src/main.rs` and `src/cli/`, the program, use the public items of this library, as do `tools/` and `tests/`.
//!
//! # Where to change what
//! Paths are below `src/`, or start at the top of the repository. `tests/tidy/map.rs` checks that they exist.
//!
//! | change | place |
//! |---|---|
//! | a transport | its codec in `protocol/`; a file in `transport/`; a row in `transport/conversation.rs` |
//! | the transports that connections are counted by | a row in `message/transport_kind.rs` |
//! | a wire format | its one codec in `protocol/` |
//! | an HTTP route | a row in `transport/http_api/routes.rs`; a file in `transport/http_api/` |
//! | an HTTP error | `transport/http_api/error.rs` |
//! | a command of the command protocol | `protocol/command.rs`, and in each encoding; `transport/commands.rs` |
//! | compression of WebSockets | `protocol/websocket/deflate.rs`; who gets which form, `transport/prepared.rs` |
//! | deltas of publications | `protocol/fossil.rs`, `protocol/json/delta.rs`, `hub/forms.rs` |
//! | filters by tags | `message/tags_filter.rs`, `protocol/json/tags_filter.rs`, `hub/filters.rs` |
//! | a reply or push of the command protocol | `protocol/command/sent.rs`, and in each encoding |
//! | the command protocol in JSON, in Protobuf | `protocol/json/`, `protocol/protobuf/` |
//! | an encoding or a framing of the command protocol | `transport/command_form.rs` |
//! | a method of the server API | `protocol/api_json.rs`, `transport/api_call/commands.rs` |
//! | the command protocol over HTTP | `transport/command_stream.rs`, `worker/relay.rs` |
//! | the web page | `transport/http_api/page.html` |
//! | a right of clients | `auth/decide.rs` |
//! | how clients prove who they are | `auth/authentication.rs`; over HTTP, `transport/http_api/credentials.rs` |
//! | what happens when a client connects | `worker/login.rs`, `worker/logins.rs` |
//! | a claim of tokens | `auth/token/claims.rs` |
//! | a reason to reject a token | a row in `auth/token/error.rs` |
//! | published keys of tokens | `auth/token/jwks.rs`, `callback/keys.rs` |
//! | an algorithm of tokens | `config/token_keys.rs` |
//! | a right of API keys | a row in `config/api_keys.rs`; `auth/api_keys.rs` |
//! | when refused clients come back | `transport/retry.rs` |
//! | the sentence, HTTP status or command code of a refusal | a row in `transport/refusal.rs` |
//! | a close code or disconnect reason | a row in `message/disconnect.rs` |
//! | a cause of failed handshakes | a row in `transport/handshake_failure.rs` |
//! | a callback to a backend | `config/callbacks.rs`, `callback/call.rs`, `callback/body.rs`, `callback/answer.rs` |
//! | events for a backend | `config/events.rs`, `callback/event.rs`, `worker/events.rs` |
//! | the headers that callbacks send on | `transport/http_api/forwarded.rs`, `worker/held.rs` |
//! | what follows from the answer to a callback | `worker/callbacks.rs` |
//! | TLS handshakes | `connection/tls/handshake.rs`; their turn and their limits, `worker/tls.rs` |
//! | session tickets of TLS | `connection/tls/tickets.rs` |
//! | TLS records, keys, alerts | `connection/tls/records.rs`, `connection/tls/keys.rs`; sealing, `worker/sealing.rs` |
//! | the certificates of the server, and of clients | `server/tls.rs`; `connection/tls/certificates.rs` |
//! | a setting | a row in `config/settings.rs`; a field and its default in `config/configuration.rs` |
//! | a channel option | a row in `config/channel_options.rs`; a field in `config/namespaces.rs` |
//! | a limit fixed at compile time, such as the work of one turn | `config/limits.rs` |
//! | the settings that a reload may change | `.reloadable()` in the row of `config/settings.rs`; `worker/settings.rs` |
//! | a metric | a row in `telemetry/metrics.rs`; a panel in `tools/grafana/fantail.json` |
//! | the published statistics | `telemetry/statistics.rs`, `worker/statistics.rs` |
//! | a log level, the format or rate limit of the log | `config/log_levels.rs`, `server/log.rs` |
//! | the publications that a channel keeps, and recovery | `hub/history.rs` |
//! | the numbering of publications | `hub/streams.rs` |
//! | the order of fan-outs and their slices | `hub/fan_out.rs` |
//! | the step of a fan-out at one connection | `worker/deliveries.rs` |
//! | the policy for slow subscribers | `SlowConsumer` in `config/namespaces.rs`; `hub/backlog.rs` |
//! | backpressure on publishers | `worker/backpressure.rs`, `worker/paused_publishers.rs` |
//! | the users of connections, what is known about clients | `hub/identities.rs`, `hub/clients.rs` |
//! | when connections and subscriptions expire | `hub/expiry.rs`, `hub/renewal.rs` |
//! | what happens when they expire | `worker/expirations.rs`, `worker/renewals.rs` |
//! | presence, join and leave events | `hub/gather.rs`, `hub/subscribers.rs`, `hub/join_leave.rs` |
//! | a broker | a room of its own, as a member of `worker/mesh.rs`; until then `hub/streams.rs` alone gives numbers |
//! | messages between workers | `hub/message.rs`, `worker/mesh.rs` |
//! | keepalive | `transport/websocket.rs`, `transport/commands.rs`, `transport/sse.rs`; of TCP, `driver/socket.rs` |
//! | timeouts | deadlines of a conversation in its file in `transport/`; `worker/sweep.rs` notices them |
//! | admission of connections | `worker/admission.rs`, `worker/accept.rs` |
//! | the client that a proxy names | `protocol/http1/forwarded.rs`, `transport/http_api/client.rs` |
//! | connections of one user | `auth/users.rs`, `worker/users.rs` |
//! | rates of one client | `auth/rates.rs`, `worker/rates.rs` |
//! | the address of a client in the log and in callbacks | `worker/arrivals.rs` |
//! | limits of network prefixes | `auth/prefixes.rs`, `worker/prefixes.rs` |
//! | how a connection ends | `connection/mod.rs`, `worker/closing.rs` |
//! | memory pressure | levels in `worker/budget.rs`; what is freed in `worker/evict.rs` |
//! | which connections are evicted first | `worker/eviction.rs` |
//! | a socket option, a system call on a socket | `driver/socket.rs` |
//! | a driver | a file in `driver/`; the choice in `driver/probe.rs`; the contract in `tests/drivers.rs` |
//! | recommended values of a host | `sysctl/90-fantail.conf`; their verdicts in `server/host/facts.rs` |
//! | how many connections a host holds | `server/host/capacity.rs` |
//! | a command of the program | a row in `cli/command_line.rs`; a file in `cli/` |
//! | a load of the benchmarks | a file in `tools/bench/load/`; a row in `tools/bench/run/cases.rs` |
//! | a command or a snippet in a document | the document; its fence says how `tests/documents/` runs it |
//! | a fuzz target | `tools/fuzz/fuzz_targets/` |

pub mod auth;
pub mod buffer;
pub mod callback;
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
