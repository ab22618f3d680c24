//! Loads of every kind, each from one thread that is faster than a server.
//!
//! Each load prints one JSON object. Given the process id of the server, it reads the server's CPU clock at the edges of
//! its own window, so that operations and cost belong to the same interval.

mod accept;
mod api;
mod backend;
mod bystander;
pub mod client;
mod command_client;
mod crowd;
mod cycle;
mod door;
mod echo;
pub mod fanout;
mod flood;
mod idle;
mod lines;
mod logins;
mod metrics;
mod poll;
mod prefix_flood;
mod probe;
mod recover;
mod slow_reader;
mod sockets;
pub mod streams;
mod target;
mod versions;
mod window;

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use fantail::driver::raise_limit;

use crate::system::pin_to_core;

/// Options of `bench load`.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Send frames to an echo service
    Echo(echo::Arguments),
    /// One publisher, many subscribers, with every stream checked
    Fanout(fanout::Arguments),
    /// Open connections as fast as possible
    Accept(accept::Arguments),
    /// Open and close connections in a loop
    Cycle(cycle::Arguments),
    /// Publish through the server API
    Api(api::Arguments),
    /// A few sockets publish at full speed, beside new and idle connections
    Flood(flood::Arguments),
    /// Idle connections and their memory
    Idle(idle::Arguments),
    /// Clients that connect at once, through a callback or with tokens
    Logins(logins::Arguments),
    /// Long polls, all answered by each publication
    Poll(poll::Arguments),
    /// A flood from one network prefix, beside clients of others
    PrefixFlood(prefix_flood::Arguments),
    /// Clients that reconnect at once and recover missed publications
    Recover(recover::Arguments),
    /// A subscriber that stops reading for a while
    SlowReader(slow_reader::Arguments),
}

pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    raise_limit()?;
    let target = match &arguments.kind {
        Kind::Echo(echo) => &echo.target,
        Kind::Fanout(fanout) => &fanout.target,
        Kind::Accept(accept) => &accept.target,
        Kind::Cycle(cycle) => &cycle.target,
        Kind::Api(api) => &api.target,
        Kind::Flood(flood) => &flood.target,
        Kind::Idle(idle) => &idle.target,
        Kind::Logins(logins) => &logins.target,
        Kind::Poll(poll) => &poll.target,
        Kind::PrefixFlood(flood) => &flood.target,
        Kind::Recover(recover) => &recover.target,
        Kind::SlowReader(slow_reader) => &slow_reader.target,
    };
    if let Some(core) = target.core {
        pin_to_core(core)?;
    }
    let speaks_tls = matches!(
        arguments.kind,
        Kind::Echo(_) | Kind::Fanout(_) | Kind::Accept(_) | Kind::Cycle(_) | Kind::Idle(_)
    );
    if target.tls && !speaks_tls {
        return Err(io::Error::other("this load does not speak TLS"));
    }
    let report = match &arguments.kind {
        Kind::Echo(arguments) => echo::run(arguments)?,
        Kind::Fanout(arguments) => fanout::run(arguments)?,
        Kind::Accept(arguments) => accept::run(arguments)?,
        Kind::Cycle(arguments) => cycle::run(arguments)?,
        Kind::Api(arguments) => api::run(arguments)?,
        Kind::Flood(arguments) => flood::run(arguments)?,
        Kind::Idle(arguments) => idle::run(arguments)?,
        Kind::Logins(arguments) => logins::run(arguments)?,
        Kind::Poll(arguments) => poll::run(arguments)?,
        Kind::PrefixFlood(arguments) => prefix_flood::run(arguments)?,
        Kind::Recover(arguments) => recover::run(arguments)?,
        Kind::SlowReader(arguments) => slow_reader::run(arguments)?,
    };
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}
