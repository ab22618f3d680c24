//! `c1m`: a load generator for a million connections that accounts for every message.
//!
//! ```text
//!   arguments → modes/{idle,echo,fanout,slow,storm}      the steps of each mode
//!                 └ run         the coordinator: starts steps, takes samples, detects the end
//!                     ├ plan    connections and source addresses per thread; checks limits first
//!                     ├ engine  one per thread: descriptor table, epoll, connections
//!                     │           └ endpoint (protocols), stream (expected messages), payload (stamp)
//!                     └ publisher   publishes at a steady rate
//!               → report (a table, JSON) and plot (SVG)
//! ```
//! Each thread writes counters and histograms of its own (`shared`), which the coordinator reads; nothing is estimated.

mod arguments;
mod connection;
mod endpoint;
mod engine;
#[expect(dead_code, reason = "bench uses the rest of it")]
#[path = "../instrument/mod.rs"]
mod instrument;
mod modes;
mod payload;
mod plan;
mod plot;
mod progress;
mod publisher;
mod report;
mod run;
mod shared;
mod stream;
mod usage;

use std::error::Error;
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use arguments::Common;
use modes::{echo, fanout, idle, slow, storm};

/// The command line of c1m.
#[derive(Debug, Parser)]
#[command(
    name = "c1m",
    version,
    about = "Load generator: opens up to a million connections, uses them, and counts every lost message",
    after_help = EXAMPLES
)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

/// What the connections do.
#[derive(Debug, Subcommand)]
enum Mode {
    /// Open connections at a given rate and hold them; report lost connections, memory and CPU
    Idle(idle::Arguments),
    /// Send messages to an echo service, beside any number of idle connections
    Echo(echo::Arguments),
    /// Publish to many subscribers and check every delivery; --once publishes a single message
    Fanout(fanout::Arguments),
    /// Fan-out while some subscribers stop reading; report the effect on the others
    Slow(slow::Arguments),
    /// Drop all connections at once and reconnect; report the time until all are open, and ping latency meanwhile
    Storm(storm::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("c1m: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a mode, prints its report, and draws its plots. The error is the cause of failure, which the report names too.
fn run(mode: &Mode) -> Result<(), String> {
    let common = mode.common();
    let cannot_draw = |directory: &Path, error: &dyn Error| {
        format!("cannot draw into {}: {error}", directory.display())
    };
    if let Some(directory) = &common.plot {
        // Checked before the run, which may take ten minutes.
        fs::create_dir_all(directory).map_err(|error| cannot_draw(directory, &error))?;
    }
    let (report, samples) = match mode {
        Mode::Idle(arguments) => idle::run(arguments),
        Mode::Echo(arguments) => echo::run(arguments),
        Mode::Fanout(arguments) => fanout::run(arguments),
        Mode::Slow(arguments) => slow::run(arguments),
        Mode::Storm(arguments) => storm::run(arguments),
    }?;
    let text = if common.json { report.to_json() } else { report.to_table() };
    let mut out = stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let drawn = common.plot.as_deref().map_or(Ok(()), |directory| {
        plot::draw(directory, &samples).map_err(|error| cannot_draw(directory, &*error))
    });
    report.cause.map_or(Ok(()), Err)?;
    printed.map_err(|error| format!("cannot print the report: {error}"))?;
    drawn
}

impl Mode {
    /// The options that it shares with the other modes.
    fn common(&self) -> &Common {
        match self {
            Mode::Idle(arguments) => &arguments.common,
            Mode::Echo(arguments) => &arguments.common,
            Mode::Fanout(arguments) => &arguments.common,
            Mode::Slow(arguments) => &arguments.fanout.common,
            Mode::Storm(arguments) => &arguments.common,
        }
    }
}

const EXAMPLES: &str = "\
Start a server (for a million connections, with the workers that `fantail doctor` suggests), then:
  c1m idle -n 1_000_000 --duration '10 min' --server-pid $(pidof fantail)
                                      a million subscribed WebSockets, held for ten minutes
  c1m fanout -n 1_000_000 --once      one broadcast to a million, and the time to the last delivery
  c1m fanout -n 10_000 --rate 100 --via http --duration '30 s'
  c1m echo -n 100 --target 127.0.0.1:9001 --idle 900_000 --idle-target 127.0.0.1:8000
  c1m slow -n 10_000 --slow-fraction 0.1 --size 16384 --rate 50
  c1m storm -n 200_000 --canaries 100  drop and reconnect, while 100 canaries ping

Exit code 0: every connection opened, none was lost, and every message arrived once and in order.
Exit code 1 otherwise; the cause and all counts are printed.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lines_below_the_help_fit_a_terminal() {
        let all = Arguments::command();
        for command in all.get_subcommands().chain([&all]) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
        }
    }
}
