//! Benchmarks of fantail: a load generator, bare loops as a baseline, and a runner that compares servers.
//!
//! ```text
//!   bench run   starts   fantail | bench bare      alternating, on one core
//!       └─────  starts   bench load                on another core; it reads the server's CPU clock
//!                        at the edges of its own window, so cost and operations belong together
//! ```
//! `bare/` is the baseline: the system calls of the server and nothing else. `load/` has every kind of client, `run/`
//! the cases and their bounds. `peers/` compares fantail with other servers, and `soak` checks long runs for lost
//! messages.

mod bare;
#[cfg_attr(not(test), expect(dead_code, reason = "c1m uses the rest of it"))]
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
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as a bare loop, the baseline of comparisons
    Bare(bare::Arguments),
    /// Load a server and print one JSON object
    Load(load::Arguments),
    /// Compare fantail with the bare loop in alternating turns
    Run(run::Arguments),
    /// Compare fantail with other servers in alternating turns
    Peers(peers::Arguments),
    /// Count lost, duplicated and reordered messages while clients connect and disconnect
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
