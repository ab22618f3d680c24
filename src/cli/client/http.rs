//! HTTP requests and their responses.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::{Arrival, Server, Trouble, Wire};

/// An HTTP request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// The status of a response and the size of its body, which is still to be read.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub status: u16,
    /// The size of the body; `None` if it ends with the connection.
    pub body_bytes: Option<usize>,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub fn get(target: &'a str) -> Self {
        Self { method: "GET", target, headers: &[], body: b"" }
    }

    /// Connects, sends the request, and reads the whole response.
    pub fn exchange(&self, server: &Server, timeout: Duration) -> Result<Answer, Trouble> {
        let mut wire = Wire::connect(server, timeout)?;
        self.send(&mut wire, "close")?;
        let head = Head::read(&mut wire)?;
        Ok(Answer { status: head.status, body: head.read_body(&mut wire)? })
    }

    /// Sends the request; `connection` is the value of its `Connection` header.
    pub fn send(&self, wire: &mut Wire, connection: &str) -> Result<(), Trouble> {
        let Request { method, target, headers, body } = self;
        let mut bytes = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n",
            wire.server()
        );
        for (name, value) in *headers {
            // Values come from the command line or a server; characters that would end the line are left out.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            // Writing to a String cannot fail.
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        if *method == "POST" {
            let _ = write!(bytes, "Content-Length: {}\r\n", body.len());
        }
        bytes.push_str("\r\n");
        wire.send(&[bytes.as_bytes(), body].concat())
    }
}

impl Head {
    /// Reads the head of a response.
    pub fn read(wire: &mut Wire) -> Result<Self, Trouble> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&wire.received);
            let (Some(status), Ok(httparse::Status::Complete(head_bytes))) =
                (response.code, &parsed)
            else {
                if parsed.is_err() || wire.received.len() > HEAD_BYTES_MAX {
                    return Err(no_http(wire));
                }
                wire.receive_more()?;
                continue;
            };
            let named = |name: &str| {
                let header = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
                header.and_then(|header| std::str::from_utf8(header.value).ok())
            };
            if named("transfer-encoding").is_some() {
                return Err(no_http(wire));
            }
            let body_bytes = named("content-length").map(str::parse::<usize>).transpose();
            let Ok(body_bytes) = body_bytes else { return Err(no_http(wire)) };
            let head = Self { status, body_bytes };
            wire.received.drain(..*head_bytes);
            return Ok(head);
        }
    }

    /// Reads the body that follows the head.
    pub fn read_body(self, wire: &mut Wire) -> Result<Vec<u8>, Trouble> {
        match self.body_bytes {
            Some(count) => {
                while wire.received.len() < count {
                    wire.receive_more()?;
                }
                Ok(wire.received.drain(..count).collect())
            }
            None => {
                while wire.receive()? == Arrival::Bytes {}
                Ok(std::mem::take(&mut wire.received))
            }
        }
    }
}

fn no_http(wire: &Wire) -> Trouble {
    Trouble::Refused(format!("{} does not respond as a fantail server does", wire.server()))
}

/// The error of a response that is not a success: its message if it has one, and its status.
pub fn error_of(server: &Server, status: u16, body: &[u8]) -> Trouble {
    let error = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let message = match error["error"]["message"].as_str() {
        Some(message) => format!("{server} answered {status}: {message}"),
        None => format!("{server} answered {status}"),
    };
    let message = match status {
        401 => format!("{message}: see --api-key, --token and --config"),
        _ => message,
    };
    // An error of the server may go away; an error of the client stays.
    if status >= 500 { Trouble::Lost(message) } else { Trouble::Refused(message) }
}

const HEADERS_MAX: usize = 64;

const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The query parameters that name the channels.
pub fn channels_query(channels: &[String]) -> String {
    let pairs: Vec<_> = channels.iter().map(|name| format!("channel={}", encoded(name))).collect();
    pairs.join("&")
}

/// Percent-encodes a text for a query.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_encoded_for_a_query() {
        assert_eq!(encoded("a:b-1.2_~"), "a:b-1.2_~");
        assert_eq!(encoded("a b&é/%"), "a%20b%26%C3%A9%2F%25");
    }
}
