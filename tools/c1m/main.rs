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

use clap::Parser;

use arguments::{Arguments, Mode};

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
        Mode::Idle(arguments) => modes::idle::run(arguments),
        Mode::Echo(arguments) => modes::echo::run(arguments),
        Mode::Fanout(arguments) => modes::fanout::run(arguments),
        Mode::Slow(arguments) => modes::slow::run(arguments),
        Mode::Storm(arguments) => modes::storm::run(arguments),
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
