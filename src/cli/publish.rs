//! `fantail publish`: publishes one payload to a channel of a running server.

use std::io::{self, Read};
use std::time::Duration;

use clap::Args;

use fantail::config::ApiRight;
use fantail::config::limits::MESSAGE_BYTES_CEILING;

use super::access::{Backend, Identity, Place, Target};
use super::client::{Request, Trouble, encoded, error_of};
use super::output::say;

/// Arguments of `fantail publish`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The channel to publish to
    channel: String,
    /// The payload; `-` or no payload reads the standard input
    data: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Event type of the publication
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    #[command(flatten)]
    backend: Backend,
    #[command(flatten)]
    identity: Identity,
}

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Prints the offset and epoch of the publication once the server has accepted it.

Examples:
  fantail publish chat hello
  fantail publish prices '{\"EUR\":1.08}' --event price
  fantail publish chat hello --config fantail.toml      with an API key of the settings
  fantail publish chat hello --token TOKEN              as a client
  fantail publish chat hello --server https://a.example:8443
  tar c . | fantail publish backups -              data that is not UTF-8 is binary";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { channel, data, place, event, backend, identity } = arguments;
    let target = place.load()?;
    let server = target.http()?;
    let authorization = authorization(&target, &backend, identity)?;
    let payload = match data {
        Some(text) if text != "-" => text.into_bytes(),
        _ => read_input()?,
    };
    let mut path = format!("/publish?channel={}", encoded(&channel));
    if let Some(event) = event {
        path.push_str("&event=");
        path.push_str(&encoded(&event));
    }
    let kind = match std::str::from_utf8(&payload) {
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    };
    let mut headers = vec![("Content-Type", kind)];
    headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
    let request = Request { method: "POST", target: &path, headers: &headers, body: &payload };
    let answer = request.exchange(&server, RESPONSE_TIMEOUT).map_err(Trouble::into_message)?;
    if answer.status != 200 {
        return Err(error_of(&server, answer.status, &answer.body).into_message());
    }
    say(&format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()));
    Ok(())
}

/// What is shown: a key, unless a token or a user is given; else a token if the server needs one.
fn authorization(
    target: &Target,
    backend: &Backend,
    identity: Identity,
) -> Result<Option<String>, String> {
    let key = (!identity.is_given()).then(|| target.api_key(backend, ApiRight::Publish)).flatten();
    if let Some(key) = key {
        return Ok(Some(format!("apikey {}", key.expose())));
    }
    target.tokens(identity)?.authorization().map_err(Trouble::into_message)
}

fn read_input() -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    let read = io::stdin().take(MESSAGE_BYTES_CEILING + 1).read_to_end(&mut payload);
    read.map_err(|error| format!("the standard input cannot be read: {error}"))?;
    if payload.len() as u64 > MESSAGE_BYTES_CEILING {
        return Err(format!("a payload has at most {MESSAGE_BYTES_CEILING} bytes"));
    }
    Ok(payload)
}

/// How long to wait for the server's response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
