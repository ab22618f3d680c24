//! The instruments beside fantail: bare loops, a load generator, and a runner that sets one against the other.
//!
//! ```text
//!   bench run   starts   fantail | bench bare      on one core, in turns
//!       └─────  starts   bench load                on another core; it reads the server's CPU clock
//!                        at the edges of its own window, so both speak of the same operations
//! ```
//! `bare/` is the yardstick: the same system calls as the server with no house around them. `load/` is every kind of
//! client. `run/` holds the cases and what they must show; `peers/` sets other servers in the bare loop's place.
//! `soak` counts what got lost.

mod bare;
#[cfg_attr(not(test), expect(dead_code, reason = "some of it is for c1m only"))]
#[path = "../instrument/mod.rs"]
mod instrument;
mod load;
mod peers;
mod process;
mod run;
mod server_cpu;
mod soak;
mod system;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures fantail against bare loops and other servers.
#[derive(Parser)]
#[command(name = "bench", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as a bare loop: the yardstick
    Bare(bare::Arguments),
    /// Put load on a server and print one JSON object
    Load(load::Arguments),
    /// Compare fantail with the bare loop, in alternating turns
    Run(run::Arguments),
    /// Compare fantail with other servers, in alternating turns
    Peers(peers::Arguments),
    /// Count what is lost, duplicated and reordered while clients come and go
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Bare(arguments) => bare::serve(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Peers(arguments) => peers::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
