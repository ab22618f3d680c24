//! The head of a request: the request line, then headers up to an empty line.

use super::request_line::{RequestLine, is_host, parse_request_line};
use super::{BodyLength, HttpFault, Method, Version};
use crate::protocol::proxy_protocol;

/// The largest head that any configuration allows, because offsets into it are 16 bits.
pub const HEAD_BYTES_CEILING: usize = u16::MAX as usize;

/// The most headers that any configuration allows, because they are kept in an array.
pub const HEADERS_CEILING: usize = 64;

/// Limits on a head. The ceilings apply even if a limit exceeds them.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Most bytes of a head, including the empty line; at most [`HEAD_BYTES_CEILING`].
    pub head_bytes_max: u32,
    /// Most bytes of the request target.
    pub uri_bytes_max: u32,
    /// Most headers; at most [`HEADERS_CEILING`].
    pub headers_max: u32,
}

impl Default for HeadLimits {
    /// 16 KiB for browsers with many cookies; RFC 9110 4.1 recommends at least 8000 bytes of
    /// target.
    fn default() -> Self {
        Self { head_bytes_max: 16 * 1024, uri_bytes_max: 8000, headers_max: 64 }
    }
}

/// The head of a request, which borrows from the parsed bytes.
#[derive(Clone, Debug)]
pub struct Head<'b> {
    /// The method of the request.
    pub method: Method,
    /// The path, percent-encoded; it starts with `/`.
    pub path: &'b str,
    /// The query after the first `?`, percent-encoded.
    pub query: Option<&'b str>,
    /// The HTTP version of the request.
    pub version: Version,
    /// Whether the client wants to keep the connection open (RFC 9112 9.3).
    pub keep_alive: bool,
    /// How the body is delimited.
    pub body: BodyLength,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Whether a header shows that the request came through a proxy.
    pub is_forwarded: bool,
    /// Length of the head in bytes; the body starts there.
    pub head_bytes: usize,
    headers: Headers<'b>,
}

impl<'b> Head<'b> {
    /// The values of all headers with this name, in order, without surrounding spaces. Names are case-insensitive.
    pub fn header<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'b [u8]> + use<'b, 's> {
        let named = self.headers().filter(move |(header, _)| is_named(header, name));
        named.map(|(_, value)| value)
    }

    /// The members of a list header, over all its lines (RFC 9110 5.6.1); empty ones are skipped.
    pub fn header_list<'s>(
        &'s self,
        name: &'s str,
    ) -> impl Iterator<Item = &'b [u8]> + use<'b, 's> {
        let members = self.header(name).flat_map(|value| value.split(|&byte| byte == b','));
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    /// Whether a list header has the member `token`, which is case-insensitive.
    pub fn header_has(&self, name: &str, token: &str) -> bool {
        self.header_list(name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// All headers in order, as name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b, '_> {
        let bytes = self.headers.bytes;
        let spans = &self.headers.spans[..self.headers.count];
        spans.iter().map(move |span| (span.name.of(bytes), span.value.of(bytes)))
    }
}

/// Parses a head at the front of `bytes`; `None` if its end has not arrived.
///
/// Call it again with the same bytes followed by more. No state is kept between calls, so a head that arrives in pieces
/// is scanned once for each piece; the limit on heads bounds that cost.
pub fn parse_head<'b>(bytes: &'b [u8], limits: &HeadLimits) -> Result<Option<Head<'b>>, HttpFault> {
    let head_bytes_max = (limits.head_bytes_max as usize).min(HEAD_BYTES_CEILING);
    // Bytes beyond the limit are ignored, so that they cannot change the result.
    let within = &bytes[..bytes.len().min(head_bytes_max)];
    match parse_within(within, limits)? {
        Some(head) => Ok(Some(head)),
        None if bytes.len() >= head_bytes_max => Err(HttpFault::HeadTooLarge),
        None => Ok(None),
    }
}

fn parse_within<'b>(bytes: &'b [u8], limits: &HeadLimits) -> Result<Option<Head<'b>>, HttpFault> {
    // Version 2 begins with bytes that would be skipped as empty lines.
    if proxy_protocol::begins(bytes) {
        return Err(HttpFault::ProxyProtocol);
    }
    let empty_bytes = empty_lines_bytes(bytes);
    let bytes = &bytes[empty_bytes..];
    if matches!(bytes, [] | [b'\r']) && empty_bytes < EMPTY_LINES_BYTES_MAX {
        return Ok(None);
    }
    let Some(line) = parse_request_line(bytes, limits.uri_bytes_max as usize)? else {
        return Ok(None);
    };
    let headers_max = (limits.headers_max as usize).min(HEADERS_CEILING);
    let Some((headers, parsed_bytes)) = parse_headers(bytes, line.line_bytes, headers_max)? else {
        return Ok(None);
    };
    check_line_ends(&bytes[..parsed_bytes])?;
    let facts = Facts::of_headers(&headers)?;
    facts.into_head(line, headers, empty_bytes + parsed_bytes).map(Some)
}

/// Length of the empty lines before a request, which are skipped: old clients send one after a body (RFC 9112 2.2).
fn empty_lines_bytes(bytes: &[u8]) -> usize {
    let mut skipped = 0;
    while skipped < EMPTY_LINES_BYTES_MAX && bytes[skipped..].starts_with(b"\r\n") {
        skipped += 2;
    }
    skipped
}

fn parse_headers(
    bytes: &[u8],
    line_bytes: usize,
    headers_max: usize,
) -> Result<Option<(Headers<'_>, usize)>, HttpFault> {
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_CEILING];
    let parsed = httparse::parse_headers(&bytes[line_bytes..], &mut storage[..headers_max]);
    let (parsed_bytes, parsed) = match parsed {
        Ok(httparse::Status::Complete((parsed_bytes, parsed))) => (parsed_bytes, parsed),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::HeaderName) => return Err(HttpFault::HeaderNameInvalid),
        Err(httparse::Error::HeaderValue) => return Err(HttpFault::HeaderValueInvalid),
        Err(httparse::Error::NewLine) => return Err(HttpFault::LineEndInvalid),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpFault::TooManyHeaders),
        Err(httparse::Error::Status | httparse::Error::Token | httparse::Error::Version) => {
            return Err(HttpFault::RequestLineInvalid);
        }
    };
    let mut headers = Headers { bytes, spans: [Span::EMPTY; HEADERS_CEILING], count: 0 };
    for (span, header) in headers.spans.iter_mut().zip(parsed) {
        *span = Span {
            name: Range::within(bytes, header.name.as_bytes()),
            value: Range::within(bytes, header.value.trim_ascii()),
        };
        headers.count += 1;
    }
    Ok(Some((headers, line_bytes + parsed_bytes)))
}

/// Refuses bare LFs. RFC 9112 2.2 lets a recipient accept them as line ends, as the parser does; a proxy that does not
/// would see different headers.
fn check_line_ends(head: &[u8]) -> Result<(), HttpFault> {
    let after = head.iter().skip(1);
    let unpaired = head
        .iter()
        .zip(after)
        .fold(false, |unpaired, (&byte, &next)| unpaired | ((byte == b'\r') != (next == b'\n')));
    if unpaired { Err(HttpFault::LineEndInvalid) } else { Ok(()) }
}

/// Information from the headers about the connection and the body.
#[derive(Default)]
struct Facts<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<u64>,
    transfer_encoding: Option<&'b [u8]>,
    connection_close: bool,
    connection_keep_alive: bool,
    expect_continue: bool,
    is_forwarded: bool,
}

impl<'b> Facts<'b> {
    fn of_headers(headers: &Headers<'b>) -> Result<Self, HttpFault> {
        let mut facts = Self::default();
        for span in &headers.spans[..headers.count] {
            let (name, value) = (span.name.of(headers.bytes), span.value.of(headers.bytes));
            match name.len() {
                4 if is_named(name, "host") => facts.add_host(value)?,
                6 if is_named(name, "expect") => {
                    facts.expect_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if is_named(name, "connection") => facts.add_connection(value),
                14 if is_named(name, "content-length") => facts.add_content_length(value)?,
                17 if is_named(name, "transfer-encoding") => facts.add_transfer_encoding(value),
                _ => facts.is_forwarded |= is_of_proxy(name),
            }
        }
        Ok(facts)
    }

    fn add_host(&mut self, value: &'b [u8]) -> Result<(), HttpFault> {
        if self.host.replace(value).is_some() {
            return Err(HttpFault::HostDuplicate);
        }
        if is_host(value) { Ok(()) } else { Err(HttpFault::HostInvalid) }
    }

    fn add_connection(&mut self, value: &[u8]) {
        for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            self.connection_close |= token.eq_ignore_ascii_case(b"close");
            self.connection_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9110 8.6: digits only. RFC 9112 6.3 permits equal duplicates, but they can be used for request smuggling.
    fn add_content_length(&mut self, value: &[u8]) -> Result<(), HttpFault> {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(HttpFault::ContentLengthInvalid);
        }
        let length = value.iter().try_fold(0_u64, |length, digit| {
            length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        });
        let length = length.ok_or(HttpFault::ContentLengthInvalid)?;
        if self.content_length.replace(length).is_some() {
            return Err(HttpFault::ContentLengthDuplicate);
        }
        Ok(())
    }

    /// A second line extends the list of the first (RFC 9110 5.3), and the only list that is accepted is `chunked`.
    fn add_transfer_encoding(&mut self, value: &'b [u8]) {
        let is_first = self.transfer_encoding.is_none();
        self.transfer_encoding = Some(if is_first { value } else { b"" });
    }

    fn into_head(
        self,
        line: RequestLine<'b>,
        headers: Headers<'b>,
        head_bytes: usize,
    ) -> Result<Head<'b>, HttpFault> {
        let RequestLine { method, path, query, version, .. } = line;
        // RFC 9112 3.2.
        if version == Version::Http11 && self.host.is_none() {
            return Err(HttpFault::HostMissing);
        }
        Ok(Head {
            method,
            path,
            query,
            version,
            keep_alive: match version {
                Version::Http11 => !self.connection_close,
                Version::Http10 => self.connection_keep_alive && !self.connection_close,
            },
            body: self.body_length(version)?,
            // RFC 9110 10.1.1: an HTTP/1.0 client does not know the interim answer.
            expect_continue: self.expect_continue && version == Version::Http11,
            is_forwarded: self.is_forwarded,
            head_bytes,
            headers,
        })
    }

    /// RFC 9112 6.1, 6.3.
    fn body_length(&self, version: Version) -> Result<BodyLength, HttpFault> {
        match (self.transfer_encoding, self.content_length) {
            (Some(_), Some(_)) => Err(HttpFault::LengthAmbiguous),
            (Some(_), None) if version == Version::Http10 => {
                Err(HttpFault::TransferEncodingUnexpected)
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(BodyLength::Chunked)
            }
            // RFC 9112 6.3: if chunked is not the last coding, the end of the body is unknown.
            (Some(coding), None) if !ends_in_chunked(coding) => {
                Err(HttpFault::TransferEncodingInvalid)
            }
            (Some(_), None) => Err(HttpFault::TransferEncodingUnsupported),
            // RFC 9110 8.6: a length of 0 means that there is no content, and so does its absence (RFC 9112 6.3).
            (None, Some(0) | None) => Ok(BodyLength::None),
            (None, Some(length)) => Ok(BodyLength::Length(length)),
        }
    }
}

/// The headers as ranges of `bytes`, which are a quarter of the size of slices, because heads are moved.
#[derive(Clone, Debug)]
struct Headers<'b> {
    bytes: &'b [u8],
    spans: [Span; HEADERS_CEILING],
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    name: Range,
    value: Range,
}

impl Span {
    const EMPTY: Self =
        Self { name: Range { start: 0, len: 0 }, value: Range { start: 0, len: 0 } };
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u16,
    len: u16,
}

impl Range {
    /// The range of `part` in `bytes`. A head has at most `HEAD_BYTES_CEILING` bytes, so each number fits into 16 bits.
    fn within(bytes: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        debug_assert!(part.is_empty() || start + part.len() <= bytes.len());
        Self { start: start as u16, len: part.len() as u16 }
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        // An empty value may point anywhere; all others are slices of these bytes.
        bytes
            .get(self.start as usize..)
            .and_then(|rest| rest.get(..self.len as usize))
            .unwrap_or(b"")
    }
}

fn ends_in_chunked(codings: &[u8]) -> bool {
    let last = codings.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Whether proxies write a header of this name: `Via` (RFC 9110 7.6.3), `Forwarded` (RFC 7239), or one of its
/// unregistered predecessors `X-Real-IP` and `X-Forwarded-For`, `-Host`, `-Proto` and so on.
fn is_of_proxy(name: &[u8]) -> bool {
    const FAMILY: &str = "x-forwarded-";
    ["via", "forwarded", "x-real-ip"].iter().any(|known| is_named(name, known))
        || name.split_at_checked(FAMILY.len()).is_some_and(|(front, _)| is_named(front, FAMILY))
}

fn is_named(name: &[u8], expected: &str) -> bool {
    name.eq_ignore_ascii_case(expected.as_bytes())
}

/// Length of two empty lines, the most that are skipped.
const EMPTY_LINES_BYTES_MAX: usize = 4;

#[cfg(test)]
mod tests;
