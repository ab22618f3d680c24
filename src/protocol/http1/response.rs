//! Responses with a length, so that the connection can be kept open, and chunks.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use super::is_token;

/// A response whose body is complete.
#[derive(Clone, Copy, Debug)]
pub struct Response<'r> {
    /// The status code.
    pub status: u16,
    /// The value of `Date`, as [`date_text`] writes it; omitted if empty.
    pub date: &'r str,
    /// Headers in addition to those that the other fields determine.
    pub headers: &'r [(&'r str, &'r str)],
    /// The value of `Content-Type`; omitted if empty.
    pub content_type: &'r str,
    /// The bytes of the body.
    pub body: &'r [u8],
    /// Whether the connection stays open afterwards.
    pub keep_alive: bool,
    /// Whether the request was HEAD: the length of the body is sent, but not the body (RFC 9110 9.3.2).
    pub head_only: bool,
}

impl Response<'_> {
    /// Appends the response to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let body_is_sent = !self.head_only && may_have_body(self.status);
        out.reserve(HEAD_BYTES_ESTIMATE + if body_is_sent { self.body.len() } else { 0 });
        out.extend_from_slice(b"HTTP/1.1 ");
        write_number(out, self.status.into());
        out.push(b' ');
        out.extend_from_slice(reason_phrase(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if !self.date.is_empty() {
            write_header(out, "Date", self.date);
        }
        if !self.content_type.is_empty() {
            write_header(out, "Content-Type", self.content_type);
        }
        // RFC 9110 8.6: no length if there cannot be a body.
        if may_have_body(self.status) {
            out.extend_from_slice(b"Content-Length: ");
            write_number(out, self.body.len());
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in self.headers {
            write_header(out, name, value);
        }
        // Answers change quickly, errors above all; those that a cache may store have the header already.
        if !self.headers.iter().any(|(name, _)| *name == "Cache-Control") {
            write_header(out, "Cache-Control", "no-store");
        }
        // It is sent even if it is the default, because an HTTP/1.0 client needs it.
        write_header(out, "Connection", if self.keep_alive { "keep-alive" } else { "close" });
        out.extend_from_slice(b"\r\n");
        if body_is_sent {
            out.extend_from_slice(self.body);
        }
    }
}

/// A time in the format of `Date` (RFC 9110 5.6.7, 6.6.1).
pub fn date_text(since_epoch: Duration) -> String {
    HttpDate::from(UNIX_EPOCH + since_epoch.min(LAST_DATE)).to_string()
}

/// The last chunk, which ends a body in chunks (RFC 9112 7.1).
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the bytes that `write` appends as a chunk. If there are none it appends nothing, because an empty chunk ends
/// the body.
pub fn write_chunk(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    if out.len() > start {
        begin_chunk(out, start, 0);
        out.extend_from_slice(b"\r\n");
    }
}

/// Turns the bytes from `start` on into the beginning of a chunk, whose last `rest_bytes` bytes and line end follow.
pub fn begin_chunk(out: &mut Vec<u8>, start: usize, rest_bytes: usize) {
    let data_bytes = out.len() - start;
    write!(out, "{:x}\r\n", data_bytes + rest_bytes)
        .expect("a vector takes all that is written to it");
    out[start..].rotate_left(data_bytes);
}

/// Appends the interim answer to `Expect: 100-continue` (RFC 9110 15.2.1).
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends an error: `{"error":{"status":404,"code":"not_found","message":"..."}}`. `response` has everything but the
/// body and its type.
pub fn write_error(out: &mut Vec<u8>, response: &Response<'_>, code: &str, message: &str) {
    let mut body = Vec::with_capacity(ERROR_BYTES_ESTIMATE + code.len() + message.len());
    body.extend_from_slice(b"{\"error\":{\"status\":");
    write_number(&mut body, response.status.into());
    body.extend_from_slice(b",\"code\":\"");
    write_json_text(&mut body, code);
    body.extend_from_slice(b"\",\"message\":\"");
    write_json_text(&mut body, message);
    // The line feed makes a shell's prompt start on a new line.
    body.extend_from_slice(b"\"}}\n");
    Response { content_type: "application/json", body: &body, ..*response }.write_to(out);
}

/// The reason phrase of a status (RFC 9110 15, RFC 6585); empty for statuses that this server does not use.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Whether a response with this status may have a body (RFC 9110 6.4.1).
const fn may_have_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(is_token(name.as_bytes()));
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    // A value that came from a peer must not end its line, so control characters become spaces.
    let is_control = |byte: u8| byte < b' ' || byte == 0x7F;
    out.extend(value.bytes().map(|byte| if is_control(byte) { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut Vec<u8>, number: usize) {
    write!(out, "{number}").expect("a vector takes all that is written to it");
}

/// Appends the content of a JSON string (RFC 8259 7).
fn write_json_text(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x00..0x20 => {
                write!(out, "\\u{byte:04x}").expect("a vector takes all that is written to it");
            }
            _ => out.push(byte),
        }
    }
}

/// The last second whose year has four digits, as the format requires.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// Size of a usual head; with more headers, the vector grows once more.
const HEAD_BYTES_ESTIMATE: usize = 256;

/// Size of the JSON around code and message.
const ERROR_BYTES_ESTIMATE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Response<'_> = Response {
        status: 200,
        date: "Sun, 06 Nov 1994 08:49:37 GMT",
        headers: &[("ETag", "\"1\"")],
        content_type: "text/plain",
        body: b"hello",
        keep_alive: true,
        head_only: false,
    };

    fn text(response: &Response<'_>) -> String {
        let mut out = Vec::new();
        response.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_response_has_its_length_and_its_headers() {
        assert_eq!(
            text(&OK),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n\
             Content-Length: 5\r\nETag: \"1\"\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n\r\nhello"
        );
    }

    /// The example of RFC 9110 5.6.7, and what a clock that is wrong may say.
    #[test]
    fn a_date_has_the_fixed_format_at_any_time() {
        let text = |seconds| date_text(Duration::from_secs(seconds));
        assert_eq!(text(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        for last in [LAST_DATE.as_secs(), LAST_DATE.as_secs() + 1, u64::MAX] {
            assert_eq!(text(last), "Fri, 31 Dec 9999 23:59:59 GMT");
        }
    }

    #[test]
    fn a_head_request_gets_the_length_and_no_body() {
        let head = text(&Response { head_only: true, ..OK });
        assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn statuses_without_a_body_have_no_length() {
        for status in [101, 204, 304] {
            let text = text(&Response { status, ..OK });
            assert!(!text.contains("Content-Length") && text.ends_with("\r\n\r\n"), "{status}");
        }
    }

    #[test]
    fn a_header_value_cannot_end_its_line() {
        let headers = &[("X", "a\r\nSet-Cookie: b\0")];
        assert!(text(&Response { headers, ..OK }).contains("X: a  Set-Cookie: b \r\n"));
    }

    #[test]
    fn an_error_is_json_whatever_its_message() {
        let mut out = Vec::new();
        let response = Response { status: 404, keep_alive: false, ..OK };
        write_error(&mut out, &response, "not_found", "no \"route\"\n\\é");
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["status"], 404);
        assert_eq!(body["error"]["code"], "not_found");
        assert_eq!(body["error"]["message"], "no \"route\"\n\\é");
        assert!(head.contains("Connection: close"));
    }

    #[test]
    fn written_chunks_can_be_read() {
        use crate::protocol::http1::{BodyDecoder, BodyLength, BodyPart};
        let mut out = Vec::new();
        for bytes in [1, 15, 16, 0, 4096] {
            write_chunk(&mut out, |out| out.resize(out.len() + bytes, b'x'));
        }
        let start = out.len();
        out.extend_from_slice(b"yy");
        begin_chunk(&mut out, start, 3);
        out.extend_from_slice(b"zzz\r\n");
        assert!(out.starts_with(b"1\r\nx\r\nf\r\nxxxxxxxxxxxxxxx\r\n10\r\n"));
        out.extend_from_slice(LAST_CHUNK);
        let mut decoder = BodyDecoder::new(BodyLength::Chunked, 10_000).unwrap();
        let (mut input, mut body) = (&out[..], Vec::new());
        while let BodyPart::Data(data) = decoder.next(&mut input).unwrap() {
            body.extend_from_slice(data);
        }
        assert!(decoder.is_at_end() && input.is_empty());
        assert_eq!(body, [&[b'x'; 1 + 15 + 16 + 4096][..], b"yyzzz"].concat());
    }

    #[test]
    fn every_status_of_a_fault_has_a_phrase() {
        use crate::protocol::http1::HttpFault;
        for fault in [HttpFault::BodyTooLarge, HttpFault::UriTooLong, HttpFault::HeadTooLarge] {
            assert!(!reason_phrase(fault.status()).is_empty());
        }
    }
}
