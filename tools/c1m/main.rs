//! `c1m`: a load that a server cannot outrun, and an instrument that counts what arrived.
//!
//! ```text
//!   arguments → modes/{idle,echo,fanout,slow,storm}      what is done, step by step
//!                 └ run         the coordinator: orders steps, samples, notices the end
//!                     ├ plan    who opens what, from which address; is there enough of everything
//!                     ├ engine  one thread each: own descriptors, own epoll, its connections
//!                     │           └ door (what a protocol says), stream (what should have come), payload (the stamp)
//!                     └ publisher   publications at a steady rate
//!               → report (a table, JSON) and plot (SVG)
//! ```
//! Threads write tallies and histograms of their own (`shared`), which the coordinator reads; nothing is estimated.

mod arguments;
mod connection;
mod door;
mod engine;
#[expect(dead_code, reason = "some of it is for bench only")]
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

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "c1m",
    version,
    about = "Holds a server to a million connections: opens them, works them, and counts what got lost",
    after_help = EXAMPLES
)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

/// What is done with the connections.
#[derive(Debug, Subcommand)]
enum Mode {
    /// Open connections at a rate, hold them, watch: who is lost, what it costs
    Idle(idle::Arguments),
    /// Messages that come back, beside any number of idle connections
    Echo(echo::Arguments),
    /// Publications to many subscribers, every delivery checked; --once is one broadcast to all
    Fanout(fanout::Arguments),
    /// The same while some subscribers do not read: what the others notice
    Slow(slow::Arguments),
    /// All connections drop at once and come back: how long until all are served, what those that stayed felt
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

/// Works, prints, draws. The error is the cause, which is in what is printed too if it came to that.
fn run(mode: &Mode) -> Result<(), String> {
    let common = mode.common();
    let cannot_draw = |directory: &Path, error: &dyn Error| {
        format!("cannot draw into {}: {error}", directory.display())
    };
    if let Some(directory) = &common.plot {
        // Ten minutes from now would be late to find that out.
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
    /// What it shares with the other modes.
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
Start a server, for a million connections with as many workers as descriptors demand, then:
  c1m idle -n 1_000_000 --duration '10 min' --server-pid $(pidof fantail)
                                      a million WebSockets, subscribed, held for ten minutes
  c1m fanout -n 1_000_000 --once      one broadcast to a million, and the time to the last of them
  c1m fanout -n 10_000 --rate 100 --via http --duration '30 s'
  c1m echo -n 100 --target 127.0.0.1:9001 --idle 900_000 --idle-target 127.0.0.1:8000
  c1m slow -n 10_000 --slow-fraction 0.1 --size 16384 --rate 50
  c1m storm -n 200_000 --stayers 100  all drop and return; what those that stayed felt

It exits with 0 if everyone was served, nobody was lost, and everything arrived once and in order;
with 1 otherwise, after saying why and what was counted until then.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_stands_below_the_help_is_not_wrapped() {
        let all = Arguments::command();
        for command in all.get_subcommands().chain([&all]) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
        }
    }
}
