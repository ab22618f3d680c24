//! `fantail doctor`: how many connections this host holds, the bottleneck, and how to raise it.

use clap::Args;

use fantail::config::limits::WORKERS_MAX;
use fantail::config::parse_count;
use fantail::server::host::{Fact, Grouped, Host, Judgement, Plan, Verdict, judge};

use super::output::{Failure, say};

/// Arguments of `fantail doctor`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Number of connections to hold: the exit code is 0 if the host can, 1 if not
    #[arg(long, value_name = "N", value_parser = connections)]
    connections: Option<u64>,
    /// Number of workers of the server [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers)]
    workers: Option<usize>,
    /// The clients run on this host too, as with c1m: both ends of each connection count
    #[arg(long)]
    both_ends: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "fix_script")]
    json: bool,
    /// Print a shell script that raises the limits that are too low, without running it
    #[arg(long)]
    fix_script: bool,
}

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Run it as the user, and in the control group, of the server: limits differ between them. It changes
nothing.

Examples:
  fantail doctor                                      with a worker on each core
  fantail doctor --connections 1000000 --workers 56   whether 56 workers hold a million
  fantail doctor --fix-script >fix.sh                 raises what is low; read it,
  . ./fix.sh                                          then, as root, run it in the shell
                                                      that starts the server

Exit codes: 0 no limit is too low; 1 the host cannot hold --connections or, without it, a value is
below that of sysctl/90-fantail.conf; 2 the limits of the host cannot be read.";

/// Judges the host, prints the result, and returns whether it is enough.
pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let unreadable = |message| Failure { message, code: CODE_UNREADABLE };
    let mut host = Host::read().map_err(unreadable)?;
    host.try_io_uring();
    let plan = Plan {
        workers: arguments.workers.unwrap_or(host.cores.min(WORKERS_MAX)),
        goal: arguments.connections,
        both_ends: arguments.both_ends,
        connections_max: None,
    };
    let judgement = judge(&host, &plan);
    if arguments.json {
        let json = serde_json::to_string_pretty(&judgement);
        say(&format!("{}\n", json.expect("names are strings and numbers are finite")));
    } else if arguments.fix_script {
        say(&fix_script(&judgement));
    } else {
        say(&table(&judgement));
    }
    Ok(judgement.ok)
}

fn connections(text: &str) -> Result<u64, String> {
    parse_count(text)
        .ok()
        .filter(|connections| *connections > 0)
        .ok_or_else(|| "not a number of at least 1, such as 1000000, 1_000_000 or 1e6".to_owned())
}

fn workers(text: &str) -> Result<usize, String> {
    let workers = parse_count(text).ok().and_then(|workers| usize::try_from(workers).ok());
    let workers = workers.filter(|workers| (1..=WORKERS_MAX).contains(workers));
    workers.ok_or_else(|| format!("not a number from 1 to {WORKERS_MAX}"))
}

fn table(judgement: &Judgement) -> String {
    let mut rows = vec![["fact", "value", "verdict", "connections", "note"].map(str::to_owned)];
    rows.extend(judgement.facts.iter().map(row));
    let mut text = String::new();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    for row in &rows {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text += "\n";
    }
    text + &format!("\n{judgement}.\nRemedy: {}.\n{}", judgement.remedy, goal(judgement))
}

fn row(fact: &Fact) -> [String; COLUMNS] {
    let verdict = match fact.verdict {
        Verdict::Ok => "ok",
        Verdict::Low => "low",
        Verdict::Blocks => "blocks",
        Verdict::Unknown => "unknown",
    };
    let connections_max =
        fact.connections_max.map_or_else(String::new, |limit| Grouped(limit).to_string());
    [
        fact.name.to_owned(),
        fact.value.clone(),
        verdict.to_owned(),
        connections_max,
        fact.note.clone(),
    ]
}

fn goal(judgement: &Judgement) -> String {
    let held = if judgement.ok { "held" } else { "not held" };
    judgement
        .goal
        .map_or_else(String::new, |goal| format!("The goal of {} is {held}.\n", Grouped(goal)))
}

/// A script that raises each value that is too low: a comment and a command for each, in effect until the next boot.
fn fix_script(judgement: &Judgement) -> String {
    let mut script = String::from("#!/usr/bin/env bash\n");
    script += &format!("# {judgement}.\n");
    script += "# For this shell and until the next boot; permanently: 90-fantail.conf and fantail.service in sysctl/\n";
    let short = judgement.facts.iter().filter(|fact| fact.is_short());
    for fact in short {
        let Some(fix) = &fact.fix else { continue };
        script += &format!("\n# {} = {}: {}\n", fact.name, fact.value, fix.why);
        if !fix.command.is_empty() {
            script += &format!("{}\n", fix.command);
        }
    }
    if let Some(better) = judgement.better_workers {
        let (workers, connections) = (better.workers, Grouped(better.connections));
        script += &format!(
            "\n# Without changes: fantail serve --workers {workers} holds {connections}\n"
        );
    }
    script
}

const COLUMNS: usize = 5;
const CODE_UNREADABLE: u8 = 2;
