//! `fantail connections`: lists the connections of a running server.

use clap::Args;
use fantail::config::ApiRight;
use serde_json::{Value, json};

use super::access::{Backend, Place};
use super::api::{call, shown};
use super::output::{note, say};

/// Arguments of `fantail connections`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only those of this user; with an empty name, those of anonymous clients
    #[arg(long, value_name = "USER", conflicts_with = "channel")]
    user: Option<String>,
    /// Only those that are subscribed to this channel
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Print the channels of each, too
    #[arg(long)]
    channels: bool,
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
Prints the id, the transport and the user of each client, as far as the server lists them.

Examples:
  fantail connections
  fantail connections --user 42 --channels --config fantail.toml
  fantail connections --channel chat --json --api-key SECRET";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { user, channel, channels, json, place, backend } = arguments;
    let mut parameters = json!({"channels": channels});
    for (member, value) in [("user", user), ("channel", channel)] {
        if let Some(value) = value {
            parameters[member] = value.into();
        }
    }
    let result = call(place, &backend, ApiRight::Connections, &parameters)?;
    if json {
        say(&format!("{result}\n"));
        return Ok(());
    }
    let connections = result["connections"].as_object().into_iter().flatten();
    let rows: Vec<_> = connections.map(|(client, connection)| row(client, connection)).collect();
    if rows.is_empty() {
        note("there is no such connection");
    } else {
        let channels = if channels { "  CHANNELS" } else { "" };
        say(&format!("{:<36}  {:<18}  USER{channels}\n{}", "CLIENT", "TRANSPORT", rows.concat()));
    }
    if result["truncated"] == true {
        note("there are more connections than the server lists");
    }
    Ok(())
}

fn row(client: &str, connection: &Value) -> String {
    let transport = connection["transport"].as_str().unwrap_or_default();
    let user = match connection["user"].as_str() {
        None | Some("") => "-".to_owned(),
        Some(user) => shown(user),
    };
    let mut row = format!("{:<36}  {transport:<18}  {user}", shown(client));
    if let Some(channels) = connection["channels"].as_array() {
        let names: Vec<_> = channels.iter().filter_map(Value::as_str).map(shown).collect();
        row.push_str("  ");
        row.push_str(&names.join(" "));
    }
    row.truncate(row.trim_end().len());
    row.push('\n');
    row
}
