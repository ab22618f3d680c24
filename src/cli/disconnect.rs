//! `fantail disconnect`: ends connections of a running server.

use clap::Args;
use fantail::config::ApiRight;
use serde_json::json;

use super::access::{Backend, Place};
use super::api::{call, shown};
use super::output::say;

/// Arguments of `fantail disconnect`.
#[derive(Args, Debug)]
#[group(id = "whose", args = ["user", "client"], required = true, multiple = false)]
pub struct Arguments {
    /// The user whose clients are disconnected; with an empty name, all anonymous clients
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The id of the only client that is disconnected
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// The id of a client of the user that stays; may be given more than once
    #[arg(long, value_name = "ID", requires = "user")]
    except: Vec<String>,
    /// The code that the clients get, 3000 to 4999 [default: 3503]
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(3000..5000))]
    code: Option<u16>,
    /// The reason that the clients get
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
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
Clients of Centrifuge come back after codes from 3000 to 3499 and from 4000 to 4499, and do not
after others. To keep a user out, take back its right to a token, or block it by the server API.

Examples:
  fantail disconnect --user 42
  fantail disconnect --user 42 --code 4500 --reason 'logged out' --config fantail.toml
  fantail disconnect --client 3f1c… --api-key SECRET";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { user, client, except, code, reason, json, place, backend } = arguments;
    let whose = match (&user, &client) {
        (Some(user), _) if user.is_empty() => "all anonymous clients".to_owned(),
        (Some(user), _) => format!("the clients of user {}", shown(user)),
        (None, client) => format!("client {}", shown(client.as_deref().unwrap_or_default())),
    };
    let mut parameters = json!({"whitelist": except});
    for (member, value) in [("user", user), ("client", client)] {
        if let Some(value) = value {
            parameters[member] = value.into();
        }
    }
    if code.is_some() || reason.is_some() {
        let (code, reason) = (code.unwrap_or(0), reason.unwrap_or_default());
        parameters["disconnect"] = json!({"code": code, "reason": reason});
    }
    let result = call(place, &backend, ApiRight::Disconnect, &parameters)?;
    match json {
        true => say(&format!("{result}\n")),
        false => say(&format!("disconnected {whose}\n")),
    }
    Ok(())
}
