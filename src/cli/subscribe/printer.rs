//! The output of `fantail subscribe`: publications on the standard output, messages on the standard error stream.

use std::borrow::Cow;
use std::io::{self, Write};
use std::mem;

use serde_json::value::RawValue;

use crate::cli::output::note;

/// Prints publications to the standard output.
pub struct Printer {
    /// Publications left to print; `None` without `--count`.
    left: Option<u64>,
    /// Whether the server has accepted the subscriptions since the last [`Printer::take_welcome`].
    is_fresh: bool,
}

/// All requested publications were printed, or the standard output is closed.
pub struct Done;

impl Printer {
    /// A printer of `count` publications; of any number without one.
    pub fn new(count: Option<u64>) -> Self {
        Self { left: count, is_fresh: false }
    }

    /// Notes that the server has accepted the subscriptions.
    pub fn welcome(&mut self) {
        self.is_fresh = true;
    }

    /// Whether the server has accepted the subscriptions since this was last asked.
    pub fn take_welcome(&mut self) -> bool {
        mem::take(&mut self.is_fresh)
    }

    /// Prints a payload as it was sent.
    pub fn print_payload(&mut self, payload: &str) -> Option<Done> {
        self.print_line(&line_of_payload(payload))
    }

    /// Prints a payload that was received inside JSON: a payload that is JSON itself, or a string with any other text.
    pub fn print_data(&mut self, data: &RawValue) -> Option<Done> {
        self.print_line(&line_of_data(data.get()))
    }

    /// Prints a line; returns [`Done`] if it is the last one.
    pub fn print_line(&mut self, line: &str) -> Option<Done> {
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

/// Reports that publications of a channel were lost; their number is not known.
pub fn note_missed(what: &str) {
    note(&format!("some publications of {what} were missed: they are no longer kept"));
}

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
