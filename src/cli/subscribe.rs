//! `fantail subscribe`: prints what is published to channels of a running server.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::client::{Scheme, Server, Trouble};

mod commands;
mod event_stream;
mod long_poll;
mod plain;

/// What to listen to, and how.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The channels
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// How to talk to the server
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    transport: Transport,
    /// The server [default: http://127.0.0.1:8000, tcp://127.0.0.1:8001 for tcp]
    #[arg(long, value_name = "URL")]
    server: Option<Server>,
    /// End after so many publications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// Plain messages; what is published while it is away is missed
    Websocket,
    /// The command protocol over raw TCP; comes back where it was
    Tcp,
    /// The command protocol over WebSocket; comes back where it was
    Commands,
    /// An event stream; comes back where it was
    Sse,
    /// Long polls; each goes on where the last one ended
    Poll,
}

/// What stands below the help of the command.
pub const EXAMPLES: &str = "\
Each publication is a line on the standard output: JSON and text as they are, text of several lines
as a JSON string, binary as base64. What else there is to say, a lost connection or a gap, goes to
the standard error stream. A client that was cut off comes back, for a minute if it must.

Examples:
  fantail subscribe chat
  fantail subscribe prices orders --transport sse
  fantail subscribe chat --transport tcp --server tcp://127.0.0.1:8001 --count 1";

/// Publications on their way to the terminal.
struct Printer {
    left: Option<u64>,
    /// Something came since the last trouble.
    is_fresh: bool,
}

/// The publications asked for have come, or nobody reads them any more.
struct Done;

/// A way to get publications: runs until it is cut off, and goes on from there when it runs again.
type Step<'a> = Box<dyn FnMut(&mut Printer) -> Result<Done, Trouble> + 'a>;

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { channels, transport, server, count } = arguments;
    let (scheme, default) = match transport {
        Transport::Tcp => (Scheme::Tcp, "tcp://127.0.0.1:8001"),
        _ => (Scheme::Http, "http://127.0.0.1:8000"),
    };
    let server = server.unwrap_or_else(|| default.parse().expect("an address"));
    if server.scheme != scheme {
        return Err(format!("this transport needs an address like {default}"));
    }
    let mut step: Step<'_> = match transport {
        Transport::Websocket => Box::new(|printer| plain::listen(&server, &channels, printer)),
        Transport::Tcp | Transport::Commands => {
            let mut listener = commands::Listener::new(&server, &channels);
            Box::new(move |printer| listener.listen(printer))
        }
        Transport::Sse => {
            let mut listener = event_stream::Listener::new(&server, &channels);
            Box::new(move |printer| listener.listen(printer))
        }
        Transport::Poll => {
            let mut listener = long_poll::Listener::new(&server, &channels);
            Box::new(move |printer| listener.listen(printer))
        }
    };
    let mut printer = Printer { left: count, is_fresh: false };
    let mut attempts = None;
    loop {
        let trouble = match step(&mut printer) {
            Ok(Done) => return Ok(()),
            Err(trouble) => trouble,
        };
        if std::mem::take(&mut printer.is_fresh) {
            attempts = Some(0);
        }
        // Whoever never got in is told at once.
        let (Trouble::Lost(message), Some(attempt)) = (&trouble, &mut attempts) else {
            return Err(trouble.into_message());
        };
        if *attempt == ATTEMPTS_MAX {
            return Err(format!("{message}; given up after {ATTEMPTS_MAX} attempts"));
        }
        note(&format!("{message}; connecting again"));
        thread::sleep(ATTEMPT_INTERVAL_MIN.saturating_mul(1 << *attempt).min(ATTEMPT_INTERVAL_MAX));
        *attempt += 1;
    }
}

impl Printer {
    /// The server has let us in.
    fn welcome(&mut self) {
        self.is_fresh = true;
    }

    /// Prints a payload that is JSON, or a JSON string of what is none.
    fn print_json(&mut self, data: &Value) -> Option<Done> {
        match data.as_str() {
            Some(text) => self.print_text(text),
            None => self.print_line(&data.to_string()),
        }
    }

    /// Prints a payload of text.
    fn print_text(&mut self, text: &str) -> Option<Done> {
        if text.contains(['\n', '\r']) {
            self.print_line(&Value::from(text).to_string())
        } else {
            self.print_line(text)
        }
    }

    fn print_line(&mut self, line: &str) -> Option<Done> {
        let mut out = io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return Some(Done);
        }
        let left = self.left.as_mut()?;
        *left -= 1;
        (*left == 0).then_some(Done)
    }
}

/// What concerns the person and not the program behind the pipe.
#[expect(clippy::print_stderr, reason = "what is no publication must not look like one")]
fn note(message: &str) {
    eprintln!("fantail: {message}");
}

/// Where something of a channel is lost, as far as is known.
fn note_missed(what: &str) {
    note(&format!("some publications of {what} are missed: they are not kept any more"));
}

/// The query that names channels.
fn query(channels: &[String]) -> String {
    let pairs: Vec<_> =
        channels.iter().map(|name| format!("channel={}", super::client::encoded(name))).collect();
    pairs.join("&")
}

/// About a minute, together.
const ATTEMPTS_MAX: u32 = 16;

const ATTEMPT_INTERVAL_MIN: Duration = Duration::from_millis(50);

const ATTEMPT_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// A server that says nothing for so long is asked whether it is there, or counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
