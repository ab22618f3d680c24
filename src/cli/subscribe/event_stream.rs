//! An event stream, as `EventSource` reads it (WHATWG HTML 9.2.6).

use super::printer::{Done, Printer, note_missed};
use fantail::transport::EventStream;

use crate::cli::access::Tokens;
use crate::cli::client::{
    Arrival, Head, Request, SILENCE_MAX, Server, Trouble, Wire, channels_query, error_of,
};
use crate::cli::output::note;

/// An event stream, with the position in it.
pub struct Listener<'a> {
    server: &'a Server,
    tokens: &'a Tokens,
    target: String,
    last_event_id: String,
}

/// The event that is being read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    kind: String,
    data: Option<String>,
    id: Option<String>,
}

impl<'a> Listener<'a> {
    pub fn new(server: &'a Server, channels: &[String], tokens: &'a Tokens) -> Self {
        let target = format!("/events?{}", channels_query(channels));
        Self { server, tokens, target, last_event_id: String::new() }
    }

    pub fn listen(&mut self, printer: &mut Printer) -> Result<Done, Trouble> {
        let mut wire = Wire::connect(self.server, 2 * SILENCE_MAX)?;
        let mut headers = vec![("Accept", "text/event-stream")];
        if !self.last_event_id.is_empty() {
            headers.push(("Last-Event-ID", self.last_event_id.as_str()));
        }
        let authorization = self.tokens.authorization()?;
        headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
        let request = Request { headers: &headers, ..Request::get(&self.target) };
        // `Connection: close` avoids chunks: the end of the connection delimits the response.
        request.send(&mut wire, "close")?;
        let head = Head::read(&mut wire)?;
        if head.status != 200 {
            let body = head.read_body(&mut wire)?;
            return Err(error_of(self.server, head.status, &body));
        }
        let mut event = Event::default();
        let mut searched = 0;
        loop {
            let end = wire.received[searched..].iter().position(|byte| *byte == b'\n');
            let Some(at) = end else {
                searched = wire.received.len();
                match wire.receive()? {
                    Arrival::Bytes => continue,
                    Arrival::End => return Err(wire.ended()),
                    Arrival::Silence => {
                        return Err(Trouble::Lost(format!("{} does not respond", self.server)));
                    }
                }
            };
            let line: Vec<u8> = wire.received.drain(..=searched + at).collect();
            searched = 0;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if !line.is_empty() {
                event.take_line(line);
            } else if let Some(done) = self.dispatch(std::mem::take(&mut event), printer)? {
                return Ok(done);
            }
        }
    }

    fn dispatch(&mut self, event: Event, printer: &mut Printer) -> Result<Option<Done>, Trouble> {
        if event.id.as_deref() == Some(EventStream::ENDED) {
            let data = event.data.unwrap_or_default();
            return Err(Trouble::Refused(format!("{} ended the stream: {data}", self.server)));
        }
        // Events of the server repeat the last id or have none (see `fantail::protocol::sse`), which tells them from
        // publications with the same event type.
        let is_of_server = event.id.as_ref().is_none_or(|id| *id == self.last_event_id);
        if let Some(id) = event.id {
            self.last_event_id = id;
        }
        let Some(data) = event.data else { return Ok(None) };
        let is_loss = data == "{\"recovered\":false}";
        if event.kind != "disconnect" {
            printer.welcome();
        }
        Ok(match event.kind.as_str() {
            "gap" if is_loss => {
                note_missed("the channels");
                None
            }
            "gap" if is_of_server => {
                let gap: serde_json::Value = serde_json::from_str(&data).unwrap_or_default();
                note(&format!("{} publications were dropped", gap["dropped"]));
                None
            }
            "position" if data == "{}" => None,
            "join" | "leave" | "subscribe" | "unsubscribe" | "disconnect" if is_of_server => None,
            _ => printer.print_payload(&data),
        })
    }
}

impl Event {
    fn take_line(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.kind = value.to_owned(),
            "id" => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment, `retry`, which is the heartbeat too, or an unknown field.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lines_are_joined_and_comments_ignored() {
        let mut event = Event::default();
        for line in [": heart", "event: e", "id:1:ab", "data: a", "data:b", "data", "retry: 5"] {
            event.take_line(line);
        }
        let (kind, id) = ("e".to_owned(), Some("1:ab".to_owned()));
        assert_eq!(event, Event { kind, id, data: Some("a\nb\n".to_owned()) });
    }
}
