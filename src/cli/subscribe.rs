//! `fantail subscribe`: prints the publications of channels of a running server.

use std::borrow::Cow;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;

use super::client::{Scheme, Server, Trouble};

mod commands;
mod event_stream;
mod long_poll;
mod plain;

/// Arguments of `fantail subscribe`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Channels to subscribe to
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// How to talk to the server
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    transport: Transport,
    /// Address of the server [default: http://127.0.0.1:8000, tcp://127.0.0.1:8001 for tcp]
    #[arg(long, value_name = "URL")]
    server: Option<Server>,
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
  fantail subscribe chat --transport tcp --server tcp://127.0.0.1:8001 --count 1";

/// Prints publications to the standard output.
struct Printer {
    /// Publications left to print; `None` without `--count`.
    left: Option<u64>,
    /// Whether the server has accepted the subscriptions since the last error.
    is_fresh: bool,
}

/// All requested publications were printed, or the standard output is closed.
struct Done;

/// Receives publications until it fails, and when called again continues where it stopped.
type Step<'a> = Box<dyn FnMut(&mut Printer) -> Result<Done, Trouble> + 'a>;

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { channels, transport, server, count } = arguments;
    let (scheme, default) = match transport {
        Transport::Tcp => (Scheme::Tcp, "tcp://127.0.0.1:8001"),
        _ => (Scheme::Http, "http://127.0.0.1:8000"),
    };
    let server = server.unwrap_or_else(|| default.parse().expect("an address"));
    let server = server
        .speaking(scheme)
        .ok_or_else(|| format!("this transport needs an address like {default}"))?;
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
        // Without a first successful connection, it does not reconnect.
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
    /// Notes that the server has accepted the subscriptions.
    fn welcome(&mut self) {
        self.is_fresh = true;
    }

    /// Prints a payload as it was sent.
    fn print_payload(&mut self, payload: &str) -> Option<Done> {
        self.print_line(&line_of_payload(payload))
    }

    /// Prints a payload that was received inside JSON: a payload that is JSON itself, or a string with any other text.
    fn print_data(&mut self, data: &RawValue) -> Option<Done> {
        self.print_line(&line_of_data(data.get()))
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

/// A payload as one line.
fn line_of_payload(payload: &str) -> Cow<'_, str> {
    match serde_json::from_str::<&RawValue>(payload) {
        Ok(json) => line_of_data(json.get()),
        Err(_) => line_of_text(payload.into()),
    }
}

/// JSON as one line. Numbers and members are not parsed, because a payload is printed byte for byte. A string is
/// printed as its text, because text inside JSON looks the same. A string with half of a surrogate pair has no text and
/// is printed as it is (RFC 8259 8.2).
fn line_of_data(json: &str) -> Cow<'_, str> {
    match serde_json::from_str::<String>(json) {
        Ok(text) => line_of_text(text.into()),
        // In JSON, line breaks are between tokens only. The server too replaces them where a payload must be one line.
        Err(_) if json.contains(LINE_BREAKS) => json.replace(LINE_BREAKS, " ").into(),
        Err(_) => json.into(),
    }
}

fn line_of_text(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains(LINE_BREAKS) { serde_json::Value::from(text).to_string().into() } else { text }
}

const LINE_BREAKS: [char; 2] = ['\n', '\r'];

/// Prints a message for the user, not for a program that reads the publications.
#[expect(clippy::print_stderr, reason = "a message must not look like a publication")]
fn note(message: &str) {
    eprintln!("fantail: {message}");
}

/// Reports that publications of a channel were lost; their number is not known.
fn note_missed(what: &str) {
    note(&format!("some publications of {what} are missed: they are not kept any more"));
}

/// The query parameters that name the channels.
fn query(channels: &[String]) -> String {
    let pairs: Vec<_> =
        channels.iter().map(|name| format!("channel={}", super::client::encoded(name))).collect();
    pairs.join("&")
}

/// Reconnection attempts; together they take about a minute.
const ATTEMPTS_MAX: u32 = 16;

const ATTEMPT_INTERVAL_MIN: Duration = Duration::from_millis(50);

const ATTEMPT_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// A server that sends nothing for this long is pinged, or is considered lost.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_printed_alike_alone_and_inside_json() {
        for (payload, line) in [
            ("plain", "plain"),
            ("1e400", "1e400"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1.0", "1.0"),
            (r#"{"b":1,"a":2,"b":3}"#, r#"{"b":1,"a":2,"b":3}"#),
            ("{\"x\":\r\n 1}", "{\"x\":   1}"),
            (r#""\ud800""#, r#""\ud800""#),
            (r#"["\ud800"]"#, r#"["\ud800"]"#),
            (r#""\u00e9""#, "é"),
            (r#""two\nlines""#, r#""two\nlines""#),
            ("two\nlines", r#""two\nlines""#),
            ("", ""),
            ("null", "null"),
        ] {
            assert_eq!(line_of_payload(payload), line);
            let is_json = serde_json::from_str::<&RawValue>(payload).is_ok();
            let data =
                if is_json { payload.into() } else { serde_json::to_string(payload).unwrap() };
            assert_eq!(line_of_data(&data), line, "{data}");
        }
    }
}
