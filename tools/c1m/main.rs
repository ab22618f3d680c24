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

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Mode};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.mode {
        Mode::Idle(arguments) => modes::idle::run(arguments),
        Mode::Echo(arguments) => modes::echo::run(arguments),
        Mode::Fanout(arguments) => modes::fanout::run(arguments),
        Mode::Slow(arguments) => modes::slow::run(arguments),
        Mode::Storm(arguments) => modes::storm::run(arguments),
    };
    let common = arguments.mode.common();
    let (report, samples) = match result {
        Ok(outcome) => outcome,
        Err(cause) => {
            eprintln!("c1m: {cause}");
            return ExitCode::FAILURE;
        }
    };
    if common.json {
        report.print_json()
    } else {
        report.print_table()
    }
    if let Some(directory) = &common.plot
        && let Err(error) = plot::draw(directory, &samples)
    {
        eprintln!("c1m: cannot draw into {}: {error}", directory.display());
        return ExitCode::FAILURE;
    }
    if let Some(cause) = &report.cause {
        eprintln!("c1m: {cause}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
