//! `fantail subscribe`: prints the publications of channels of a running server.

use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::access::{Identity, Place, Tokens};
use super::client::Trouble;
use super::output::note;

mod commands;
mod event_stream;
mod long_poll;
mod plain;
mod printer;

use printer::{Done, Printer};

/// Arguments of `fantail subscribe`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Channels to subscribe to
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// How to talk to the server
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    transport: Transport,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    identity: Identity,
    /// Exit after N publications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// Plain messages; publications are missed while disconnected
    Websocket,
    /// The command protocol over raw TCP; recovers after a reconnect
    Tcp,
    /// The command protocol over WebSocket; recovers after a reconnect
    Commands,
    /// An event stream; recovers after a reconnect
    Sse,
    /// Long polls; each continues where the last one ended
    Poll,
}

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Prints one line per publication, the same for every transport: JSON as it was sent, text and JSON
strings as text, text of several lines as a JSON string, binary as base64. Lost connections and gaps
are reported on the standard error stream. After a lost connection it reconnects for up to a minute.

Examples:
  fantail subscribe chat
  fantail subscribe prices orders --transport sse
  fantail subscribe chat --token TOKEN
  fantail subscribe chat --user 42 --config fantail.toml       with a token that it makes itself
  fantail subscribe chat --transport tcp --server tcp://127.0.0.1:8001 --count 1";

/// Receives publications until it fails, and when called again continues where it stopped.
type Step<'a> = Box<dyn FnMut(&mut Printer) -> Result<Done, Trouble> + 'a>;

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { channels, transport, place, identity, count } = arguments;
    let target = place.load()?;
    let tokens = target.tokens(identity)?;
    let server = match transport {
        Transport::Tcp => target.tcp()?,
        _ => target.http()?,
    };
    let mut step: Step<'_> = match transport {
        Transport::Websocket => {
            Box::new(|printer| plain::listen(&server, &channels, &tokens, printer))
        }
        Transport::Tcp | Transport::Commands => {
            let mut listener = commands::Listener::new(&server, &channels, &tokens);
            Box::new(move |printer| listener.listen(printer))
        }
        Transport::Sse => {
            let mut listener = event_stream::Listener::new(&server, &channels, &tokens);
            Box::new(move |printer| listener.listen(printer))
        }
        Transport::Poll => {
            let mut listener = long_poll::Listener::new(&server, &channels, &tokens);
            Box::new(move |printer| listener.listen(printer))
        }
    };
    let mut printer = Printer::new(count);
    let mut attempts = None;
    loop {
        let trouble = match step(&mut printer) {
            Ok(Done) => return Ok(()),
            Err(trouble) => trouble,
        };
        if printer.take_welcome() {
            attempts = Some(0);
        }
        // Without a first successful connection, it does not reconnect.
        let (Trouble::Lost(message), Some(attempt)) = (&trouble, &mut attempts) else {
            let may_need_token = attempts.is_none() && matches!(tokens, Tokens::None);
            let hint = match (&trouble, transport) {
                (Trouble::Refused(_), Transport::Tcp | Transport::Commands) if may_need_token => {
                    "; if it needs a token, see --token and --config"
                }
                _ => "",
            };
            return Err(trouble.into_message() + hint);
        };
        if *attempt == ATTEMPTS_MAX {
            return Err(format!("{message}; gave up after {ATTEMPTS_MAX} attempts"));
        }
        note(&format!("{message}; reconnecting"));
        thread::sleep(ATTEMPT_INTERVAL_MIN.saturating_mul(1 << *attempt).min(ATTEMPT_INTERVAL_MAX));
        *attempt += 1;
    }
}

/// Reconnection attempts; together they take about a minute.
const ATTEMPTS_MAX: u32 = 16;

const ATTEMPT_INTERVAL_MIN: Duration = Duration::from_millis(50);

const ATTEMPT_INTERVAL_MAX: Duration = Duration::from_secs(5);
