//! What clients see of a running server, over real sockets, on both drivers.
//!
//! | module | about |
//! |---|---|
//! | `http` | requests, responses, errors; pages |
//! | `clients` | the client commands publish, subscribe and top |
//! | `api` | the server API: methods, errors, API keys |
//! | `api_keys` | keys of the server API and their rights |
//! | `api_users` | calls of the server API that concern the clients of a user |
//! | `rights_matrix` | rights of clients, by route and identity |
//! | `expiry` | connections and subscriptions that expire |
//! | `centrifugo` | what clients and backends of Centrifugo depend on |
//! | `rights` | rights of clients, by route |
//! | `callbacks` | callbacks to a backend: its answers, its failures, limits |
//! | `renewals` | clients and subscriptions that expire, and go on as long as a backend says |
//! | `connecting` | clients that connect through a backend: half-closed ones, what the backend keeps with them |
//! | `identity` | tokens of clients: what each route answers, expiry, server-side subscriptions |
//! | `skip_history` | publications that are delivered, and not kept |
//! | `subscription_tokens` | tokens for subscriptions: names, what a backend says about a subscription |
//! | `jwks` | keys of tokens that are published at a URL: rotation, failures |
//! | `websocket` | plain WebSockets: chat, frames, protocol errors |
//! | `tcp` | the command protocol over raw TCP, one JSON object per line |
//! | `commands` | the command protocol over WebSocket, with history, presence and recovery |
//! | `protobuf` | the command protocol in Protobuf, beside clients that speak JSON |
//! | `command_stream` | the command protocol over HTTP: streams, emulation |
//! | `unidirectional` | clients that connect and send nothing else |
//! | `sse` | event streams: resuming, several channels, slow readers, ends of a stream |
//! | `poll` | long polls: missed publications, aborted polls, cookies, many at once |
//! | `echo` | the echo services, with many concurrent clients |
//! | `limits` | deadlines, slow consumers, maximum counts |
//! | `prefixes` | limits of the connections of one network prefix |
//! | `rates` | rates of one client: commands, publications, subscriptions, bytes |
//! | `users` | the limit of the connections of one user |
//! | `flood` | floods from one network prefix, and the delay of clients of others |
//! | `memory` | the memory budget: disconnects, refusals, backpressure |
//! | `forms` | deltas, filters by tags, recovery of the latest publication |
//! | `metrics` | counters, the metrics page, readiness, the dashboard |
//! | `operator` | the commands channels, connections and disconnect, keys and tokens from the settings, the start message |
//! | `operator_tls` | the same commands with a server that speaks TLS |
//! | `page` | the page at `/` and the statistics that it shows |
//! | `listeners` | addresses for administration, Unix sockets, the PROXY protocol |
//! | `tls` | every door over TLS: handshakes, records that are not sound, key changes, ends, reloads |
//! | `hostile` | misbehaving clients in random order |
//! | `fan_out` | no publication lost, duplicated or reordered |
//! | `pressure` | latency of a bystander while other clients cause load, and the cost of that load |
//! | `host` | the doctor's report, thread limits, service manager notifications |
//! | `settings` | file, environment and flags; `fantail check`; reloads; the log |
//! | `shutdown` | signals, shutdown closes, exit codes, errors at start |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod api_keys;
mod api_users;
mod backends;
mod callbacks;
mod centrifugo;
mod clients;
mod command_stream;
mod commands;
mod connecting;
mod deflate;
mod echo;
mod expiry;
mod fan_out;
mod flood;
mod forms;
mod host;
mod hostile;
mod http;
mod identity;
mod jwks;
mod limits;
mod listeners;
mod memory;
mod metrics;
mod operator;
mod operator_tls;
mod page;
mod poll;
mod prefixes;
mod pressure;
mod protobuf;
mod random;
mod rates;
mod renewals;
mod rights;
mod rights_matrix;
mod settings;
mod shutdown;
mod skip_history;
mod sse;
mod subscription_tokens;
mod tcp;
mod tls;
mod unidirectional;
mod users;
mod websocket;

#[path = "../support/mod.rs"]
mod support;
