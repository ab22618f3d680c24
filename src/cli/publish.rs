//! `fantail publish`: publishes one payload to a channel of a running server.

use std::env;
use std::io::{self, Read};
use std::time::Duration;

use clap::Args;

use fantail::config::Secret;
use fantail::config::limits::MESSAGE_BYTES_CEILING;

use super::client::{Request, Scheme, Server, encoded, error_of};
use super::output::say;

/// Arguments of `fantail publish`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The channel to publish to
    channel: String,
    /// The payload; `-` or no payload reads the standard input
    data: Option<String>,
    /// Address of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    server: Server,
    /// Event type of the publication
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// API key of the server, if it requires one [default: $FANTAIL_API_KEY]
    #[arg(long, value_name = "SECRET")]
    api_key: Option<Secret>,
}

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Prints the offset and epoch of the publication once the server has accepted it.

Examples:
  fantail publish chat hello
  fantail publish prices '{\"EUR\":1.08}' --event price
  tar c . | fantail publish backups -              data that is not UTF-8 is binary";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { channel, data, server, event, api_key } = arguments;
    let server = server.speaking(Scheme::Http).ok_or("publications go to an http:// address")?;
    let payload = match data {
        Some(text) if text != "-" => text.into_bytes(),
        _ => read_input()?,
    };
    let mut target = format!("/publish?channel={}", encoded(&channel));
    if let Some(event) = event {
        target.push_str("&event=");
        target.push_str(&encoded(&event));
    }
    let api_key = api_key.or_else(|| env::var("FANTAIL_API_KEY").ok().map(Secret::from));
    let kind = match std::str::from_utf8(&payload) {
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    };
    let mut headers = vec![("Content-Type", kind)];
    headers.extend(api_key.as_ref().map(|key| ("X-API-Key", key.expose())));
    let request = Request { method: "POST", target: &target, headers: &headers, body: &payload };
    let answer =
        request.exchange(&server, RESPONSE_TIMEOUT).map_err(|trouble| trouble.into_message())?;
    if answer.status != 200 {
        return Err(error_of(&server, answer.status, &answer.body).into_message());
    }
    say(&format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()));
    Ok(())
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
