//! What clients see of a running server, over real sockets, on both drivers.
//!
//! | module | about |
//! |---|---|
//! | `http` | requests, answers, each refusal; the pages |
//! | `clients` | the commands publish, subscribe and top |
//! | `api` | the server API: each method, each error, the key |
//! | `websocket` | plain WebSockets: chat, frames in every shape, each fault |
//! | `tcp` | the command protocol, one JSON object a line |
//! | `commands` | the command protocol over WebSocket; history, presence and recovery with it |
//! | `sse` | event streams: resuming, several channels, slow readers, every way to end |
//! | `poll` | long polls: what is missed, what is left behind, cookies, many at once |
//! | `echo` | the echo services, and many clients at once |
//! | `limits` | deadlines, slow consumers, too many of something |
//! | `memory` | the memory budget: closing, refusing, holding back |
//! | `metrics` | what is counted, the pages that tell it, readiness; the dashboard |
//! | `page` | the page at `/`, and the statistics that it shows |
//! | `hostile` | clients that do what they must not, in random orders |
//! | `fan_out` | nothing lost, nothing twice, nothing out of order |
//! | `pressure` | what a bystander notices when others do much at once, and what that costs |
//! | `host` | what the doctor says of the host; what a service manager is told |
//! | `settings` | the file, the environment and the flags; `fantail check`; reloads; the log |
//! | `shutdown` | signals, goodbyes, exit codes, what start says |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod clients;
mod commands;
mod echo;
mod fan_out;
mod host;
mod hostile;
mod http;
mod limits;
mod memory;
mod metrics;
mod page;
mod poll;
mod pressure;
mod settings;
mod shutdown;
mod sse;
mod tcp;
mod websocket;

#[path = "../support/mod.rs"]
mod support;
