//! The runner: fantail beside the bare loop, in turns, on one core; the load on another.
//!
//! A turn starts a server, puts one load on it, and ends it. Turns alternate, so that what drifts, drifts for both;
//! ratios are taken within a pair of neighbours. `--before` adds a turn of an earlier build to each. `--control` sets the bare loop against itself: what its ratios are
//! off from 1 is the noise of the method.

mod before;
mod cases;
pub mod report;
pub mod turn;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use fantail::driver::raise_limit;

use self::cases::CaseName;
use crate::process::sibling;

/// Compare fantail with the bare loop, in alternating turns.
#[derive(Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    cases: Vec<CaseName>,
    /// On which driver
    #[arg(long, value_enum, default_value = "both")]
    driver: DriverChoice,
    /// Pairs of turns
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Length of the interval that counts in each turn
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The server's program; by default `fantail` beside this one
    #[arg(long)]
    server: Option<PathBuf>,
    /// An earlier build of the server, to set beside it in the same rounds
    #[arg(long, conflicts_with = "control")]
    before: Option<PathBuf>,
    /// Set the bare loop against itself, to see the noise
    #[arg(long)]
    control: bool,
    /// The server's core
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The load's core
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Let echo and fan-out loads look for events without sleeping
    #[arg(long)]
    spin: bool,
    /// Where to write every turn's figures
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum DriverChoice {
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
    Both,
}

impl DriverChoice {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::IoUring => &["io_uring"],
            Self::Epoll => &["epoll"],
            Self::Both => &["io_uring", "epoll"],
        }
    }
}

pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    raise_limit()?;
    let wanted = |name| arguments.cases.iter().any(|&case| case == name || case == CaseName::All);
    let stage = turn::Stage {
        fantail: arguments.server.clone().map_or_else(|| sibling("fantail"), Ok)?,
        before: arguments.before.clone(),
        bench: std::env::current_exe()?,
        control: arguments.control,
        server_core: arguments.server_core,
        load_core: arguments.load_core,
        spin: arguments.spin,
    };
    let mut report = report::Report::new();
    let mut before = before::Table::default();
    for driver in arguments.driver.names() {
        for comparison in cases::comparisons(arguments.seconds) {
            if wanted(comparison.case) {
                let pairs = stage.compare(&comparison, driver, arguments.pairs)?;
                before.add(comparison.name, driver, &pairs);
                report.add_comparison(&comparison, driver, pairs);
            }
        }
        // These have no bare counterpart, so a control has nothing to say about them.
        for solo in cases::solos(arguments.seconds) {
            if wanted(solo.case) && !arguments.control {
                let turns = stage.repeat(&solo, driver, SOLO_TURNS)?;
                report.add_solo(&solo, driver, turns);
            }
        }
    }
    print!("{}{}", report.to_markdown(), before.to_markdown());
    if let Some(path) = &arguments.json {
        fs::write(path, report.to_json().to_string())?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Memory and latency need no pairs, only a look at how far turns differ.
const SOLO_TURNS: usize = 3;
