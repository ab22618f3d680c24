//! Clients of every kind, from one thread that a server cannot easily outrun.
//!
//! Each kind of load prints one JSON object. Given the server's pid, it reads the server's CPU clock at the edges of
//! its own window, so that operations and cost belong to the same interval.

mod accept;
mod api;
mod bystander;
pub mod client;
mod cycle;
mod echo;
pub mod fanout;
mod flood;
mod idle;
mod lines;
mod poll;
mod probe;
mod recover;
mod slow_reader;
mod sockets;
pub mod streams;
mod target;
mod window;

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use fantail::driver::raise_limit;

use crate::system::pin_to_core;

/// Put load on a server and print one JSON object.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Frames that come back
    Echo(echo::Arguments),
    /// One publisher, many subscribers, every stream checked
    Fanout(fanout::Arguments),
    /// Handshakes at full speed
    Accept(accept::Arguments),
    /// Connections that are opened and closed again
    Cycle(cycle::Arguments),
    /// Publications through the server API
    Api(api::Arguments),
    /// A few sockets that send as much as they can, beside newcomers and idle connections
    Flood(flood::Arguments),
    /// Connections that stay and say nothing
    Idle(idle::Arguments),
    /// Long polls: all answered by one publication, again and again
    Poll(poll::Arguments),
    /// Clients that come back at once and want what they missed
    Recover(recover::Arguments),
    /// One subscriber that stops reading for a while
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
        Kind::Poll(poll) => &poll.target,
        Kind::Recover(recover) => &recover.target,
        Kind::SlowReader(slow_reader) => &slow_reader.target,
    };
    if let Some(core) = target.core {
        pin_to_core(core)?;
    }
    let report = match &arguments.kind {
        Kind::Echo(arguments) => echo::run(arguments)?,
        Kind::Fanout(arguments) => fanout::run(arguments)?,
        Kind::Accept(arguments) => accept::run(arguments)?,
        Kind::Cycle(arguments) => cycle::run(arguments)?,
        Kind::Api(arguments) => api::run(arguments)?,
        Kind::Flood(arguments) => flood::run(arguments)?,
        Kind::Idle(arguments) => idle::run(arguments)?,
        Kind::Poll(arguments) => poll::run(arguments)?,
        Kind::Recover(arguments) => recover::run(arguments)?,
        Kind::SlowReader(arguments) => slow_reader::run(arguments)?,
    };
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}
