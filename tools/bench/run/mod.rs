//! The runner: fantail and the bare loop in alternating turns on one core, the load on another.
//!
//! A turn starts a server, runs one load, and ends the server. Turns alternate, so that drift affects both, and ratios
//! are taken within a pair of turns. `--before` adds a turn of an earlier build to each pair. `--control` compares the
//! bare loop with itself: how far its ratios differ from 1 is the noise of the method.

mod before;
mod cases;
mod crowds;
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

/// Options of `bench run`.
#[derive(Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    cases: Vec<CaseName>,
    /// Drivers to measure
    #[arg(long, value_enum, default_value = "both")]
    driver: DriverChoice,
    /// Number of pairs of turns
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Number of turns of loads without a comparison
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Number of clients of `callbacks` and `tokens` that connect at once
    #[arg(long, default_value_t = 50_000)]
    clients: usize,
    /// Length of the measurement in each turn, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Program of the server; by default `fantail` in the directory of this one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Earlier build of the server to compare with in the same rounds
    #[arg(long, conflicts_with = "control")]
    before: Option<PathBuf>,
    /// Compare the bare loop with itself, to measure the noise
    #[arg(long)]
    control: bool,
    /// Core of the server
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Let echo and fan-out loads poll for events without sleeping
    #[arg(long)]
    spin: bool,
    /// File for the figures of every turn, as JSON
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
    let setup = turn::Setup {
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
                let pairs = setup.compare(&comparison, driver, arguments.pairs)?;
                before.add(comparison.name, driver, &pairs);
                report.add_comparison(&comparison, driver, pairs);
            }
        }
        // These have no counterpart in the bare loop, so a control run leaves them out.
        let crowds = crowds::solos(arguments.clients)?;
        for solo in cases::solos(arguments.seconds).into_iter().chain(crowds) {
            if wanted(solo.case) && !arguments.control {
                let turns = setup.repeat(&solo, driver, arguments.turns)?;
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
