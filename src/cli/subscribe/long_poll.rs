//! Long polls: each continues from the position of the last response.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::printer::{Done, Printer, note_missed};
use crate::cli::access::Tokens;
use crate::cli::client::{Head, Request, Server, Trouble, Wire, channels_query, encoded, error_of};

/// A sequence of polls, with the position.
pub struct Listener<'a> {
    server: &'a Server,
    tokens: &'a Tokens,
    query: String,
    position: Option<String>,
}

/// The members of a poll's response that are used here.
#[derive(Deserialize)]
struct Answer<'a> {
    position: String,
    recovered: Option<bool>,
    #[serde(borrow, default)]
    publications: Vec<Publication<'a>>,
}

#[derive(Deserialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

const POLL_SECONDS: u64 = 25;

impl<'a> Listener<'a> {
    pub fn new(server: &'a Server, channels: &[String], tokens: &'a Tokens) -> Self {
        Self { server, tokens, query: channels_query(channels), position: None }
    }

    pub fn listen(&mut self, printer: &mut Printer) -> Result<Done, Trouble> {
        let timeout = Duration::from_secs(2 * POLL_SECONDS);
        let mut wire = Wire::connect(self.server, timeout)?;
        loop {
            // The first poll is short: it gets the position, so that a connection lost later costs no publication.
            let seconds = if self.position.is_none() { 1 } else { POLL_SECONDS };
            let mut target = format!("/poll?{}&timeout={seconds}", self.query);
            if let Some(position) = &self.position {
                target.push_str("&since=");
                target.push_str(&encoded(position));
            }
            let authorization = self.tokens.authorization()?;
            let headers: Vec<_> =
                authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
            let request = Request { headers: &headers, ..Request::get(&target) };
            request.send(&mut wire, "keep-alive")?;
            let head = Head::read(&mut wire)?;
            let body = head.read_body(&mut wire)?;
            if head.status != 200 {
                return Err(error_of(self.server, head.status, &body));
            }
            printer.welcome();
            if let Some(done) = self.take(&body, printer)? {
                return Ok(done);
            }
        }
    }

    fn take(&mut self, body: &[u8], printer: &mut Printer) -> Result<Option<Done>, Trouble> {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) else {
            return Err(Trouble::Refused(format!(
                "{} does not answer polls as fantail does",
                self.server
            )));
        };
        if answer.recovered == Some(false) {
            note_missed("the channels");
        }
        self.position = Some(answer.position);
        Ok(answer.publications.iter().find_map(|publication| printer.print_data(publication.data)))
    }
}
