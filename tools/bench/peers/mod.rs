//! Comparison with other servers: the same load on each in turn, the server on one core, the load on another.
//!
//! A round is one turn of fantail, then one of each peer; ratios are taken within a round. A peer is a folder with a
//! program `start` that serves: `start echo|fanout|commands PORT`. `tools/bench/peers/install` installs them; peers that are
//! not installed are skipped and reported.

mod cases;
mod plot;
mod report;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use self::cases::{Case, CaseName, Mode};
use self::report::{FANTAIL, Outcome, Report};
use crate::process::{Server, free_address, sibling};
use crate::run::turn::Setup;
use fantail::driver::raise_limit;

/// Options of `bench peers`.
#[derive(Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    cases: Vec<CaseName>,
    /// Peers to compare with; by default all that are installed
    #[arg(long = "peer", value_parser = PEERS.map(|peer| peer.name))]
    peers: Vec<String>,
    /// Number of rounds; each gives every server one turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of the measurement in each turn, in seconds
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Driver of fantail
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Program of fantail; by default `fantail` in the directory of this one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Folder of the peers; by default `peers` in the target folder of the build
    #[arg(long)]
    installed: Option<PathBuf>,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Read results of earlier runs written with `--json` instead of measuring; may be repeated
    #[arg(long)]
    from: Vec<PathBuf>,
    /// File for the tables, which are printed too
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// File for a plot of the ratios, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// File for the figures of every turn, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A server to compare with.
#[derive(Clone, Copy)]
struct Peer {
    /// Name of its folder, and in tables.
    name: &'static str,
    echoes: bool,
    /// Whether it speaks the command protocol, and nothing else.
    takes_commands: bool,
    /// Whether the started process only supervises a worker process.
    serves_in_child: bool,
}

const PEERS: [Peer; 7] = [
    Peer::new("tungstenite"),
    Peer::new("fastwebsockets"),
    Peer::new("bun"),
    Peer::new("node-ws"),
    Peer { echoes: false, serves_in_child: true, ..Peer::new("nchan") },
    Peer::new("python-websockets"),
    Peer { takes_commands: true, ..Peer::new("centrifugo") },
];

impl Peer {
    const fn new(name: &'static str) -> Self {
        Self { name, echoes: true, takes_commands: false, serves_in_child: false }
    }
}

pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let report =
        if arguments.from.is_empty() { measure(arguments)? } else { gather(&arguments.from)? };
    let markdown = report.to_markdown();
    print!("{markdown}");
    if let Some(path) = &arguments.json {
        fs::write(path, report.to_json().to_string())?;
    }
    if let Some(path) = &arguments.markdown {
        fs::write(path, markdown)?;
    }
    if let Some(path) = &arguments.plot {
        fs::write(path, plot::draw(&report)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gather(files: &[PathBuf]) -> io::Result<Report> {
    let mut report = Report::default();
    for path in files {
        let named = |error: &dyn Display| io::Error::other(format!("{}: {error}", path.display()));
        let bytes = fs::read(path).map_err(|error| named(&error))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| named(&error))?;
        report
            .add_json(&value)
            .ok_or_else(|| named(&"not a file written by `bench peers --json`"))?;
    }
    Ok(report)
}

fn measure(arguments: &Arguments) -> io::Result<Report> {
    raise_limit()?;
    let setup = Setup {
        fantail: arguments.server.clone().map_or_else(|| sibling("fantail"), Ok)?,
        before: None,
        bench: std::env::current_exe()?,
        control: false,
        server_core: arguments.server_core,
        load_core: arguments.load_core,
        spin: false,
    };
    let folder = match &arguments.installed {
        Some(folder) => folder.clone(),
        // target/release/bench → target/peers
        None => sibling("..")?.join("peers"),
    };
    let mut report = Report::of_this_host();
    let peers = installed(arguments, &folder, &mut report);
    let wanted = |group| arguments.cases.iter().any(|&case| case == group || case == CaseName::All);
    for case in cases::all(arguments.seconds).into_iter().filter(|case| wanted(case.group)) {
        for round in 0..usize::from(arguments.rounds) {
            let fantail = turn_of_fantail(&setup, &case, &arguments.driver)?;
            report.add(&case, FANTAIL, round, Outcome::Measured(fantail));
            let speaks = |peer: &&Peer| peer.takes_commands == (case.mode == Mode::Commands);
            for peer in peers.iter().filter(speaks) {
                report.add(&case, peer.name, round, turn_of_peer(&setup, &case, peer, &folder));
            }
        }
    }
    Ok(report)
}

/// The requested peers that are installed; the report names them and those that are missing.
fn installed(arguments: &Arguments, folder: &Path, report: &mut Report) -> Vec<Peer> {
    report.note_server(FANTAIL, env!("CARGO_PKG_VERSION"));
    let wanted =
        |name| arguments.peers.is_empty() || arguments.peers.iter().any(|peer| peer == name);
    let mut peers = Vec::new();
    for peer in PEERS.into_iter().filter(|peer| wanted(peer.name)) {
        let home = folder.join(peer.name);
        if home.join("start").is_file() {
            let version = fs::read_to_string(home.join("version")).unwrap_or_default();
            report.note_server(peer.name, version.trim());
            peers.push(peer);
        } else {
            eprintln!(
                "skipped {}: not installed (tools/bench/peers/install {})",
                peer.name, peer.name
            );
            report.note_skipped(peer.name);
        }
    }
    peers
}

fn turn_of_fantail(setup: &Setup, case: &Case, driver: &str) -> io::Result<Value> {
    let server = setup.start_fantail(&setup.fantail, driver)?;
    let address = match case.mode {
        Mode::Echo => server.echo,
        Mode::Fanout | Mode::Commands => server.listen,
    };
    setup.load(&case.load, address, server.server.pid())
}

/// A failure of a peer is a result too.
fn turn_of_peer(setup: &Setup, case: &Case, peer: &Peer, folder: &Path) -> Outcome {
    let mode = match case.mode {
        Mode::Echo if !peer.echoes => return Outcome::Failed("does not echo".to_owned()),
        Mode::Echo => "echo",
        Mode::Fanout => "fanout",
        Mode::Commands => "commands",
    };
    let turn = || {
        let address = free_address()?;
        let start = folder.join(peer.name).join("start");
        let words = [mode.to_owned(), address.port().to_string()];
        let core = setup.server_core.to_string();
        let server = Server::start(&start, &words, Some(&core), address)?;
        let pid = if peer.serves_in_child { server.worker_pid()? } else { server.pid() };
        setup.load(&case.load, address, pid)
    };
    turn().map_or_else(|error| Outcome::Failed(error.to_string()), Outcome::Measured)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fits = seconds > 0.0 && seconds <= SECONDS_MAX;
    if fits {
        Ok(seconds)
    } else {
        Err(format!("it must be more than 0 and at most {SECONDS_MAX}"))
    }
}

const SECONDS_MAX: f64 = 3600.0;
