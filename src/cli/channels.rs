//! `fantail channels`: lists the channels of a running server.

use clap::Args;
use fantail::config::ApiRight;
use serde_json::json;

use super::access::{Backend, Place};
use super::api::{call, shown};
use super::output::{note, say};

/// Arguments of `fantail channels`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only channels with such names; each `*` is any text
    pattern: Option<String>,
    /// Print the answer of the server API: JSON on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    backend: Backend,
}

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Prints the channels that have subscribers, each with their number.

Examples:
  fantail channels
  fantail channels 'chat:*' --config fantail.toml
  fantail channels --json --server http://10.0.0.5:8000 --api-key SECRET";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { pattern, json, place, backend } = arguments;
    let parameters = json!({"pattern": pattern.unwrap_or_default()});
    let result = call(place, &backend, ApiRight::Channels, &parameters)?;
    if json {
        say(&format!("{result}\n"));
        return Ok(());
    }
    let channels = result["channels"].as_object().into_iter().flatten();
    let rows: Vec<_> = channels
        .map(|(name, channel)| {
            let clients = channel["num_clients"].as_u64().unwrap_or(0);
            format!("{clients:>8}  {}\n", shown(name))
        })
        .collect();
    match rows.is_empty() {
        true => note("no channel has subscribers"),
        false => say(&format!(" CLIENTS  CHANNEL\n{}", rows.concat())),
    }
    Ok(())
}
