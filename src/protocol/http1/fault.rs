//! Faults in requests.

use crate::protocol::proxy_protocol;

/// Why a request is refused; each reason has its status. The connection closes after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// The request line is not `method SP target SP version`.
    RequestLineInvalid,
    /// A PROXY protocol header, which a proxy sends first if it is configured to.
    ProxyProtocol,
    /// A method that no RFC registers, or CONNECT, which is for proxies.
    MethodUnknown,
    /// The target has a byte or a form that RFC 9112 3.2 does not allow.
    TargetInvalid,
    /// `OPTIONS *`, which concerns the server as a whole and is not supported.
    TargetUnsupported,
    /// The target exceeds its limit.
    UriTooLong,
    /// A version other than 1.0 and 1.1.
    VersionUnsupported,
    /// A line that does not end in CR LF.
    LineEndInvalid,
    /// A header name that is not a token, a space before its colon, or a folded line.
    HeaderNameInvalid,
    /// A control character in a header value.
    HeaderValueInvalid,
    /// The head exceeds its limit.
    HeadTooLarge,
    /// More headers than the limit.
    TooManyHeaders,
    /// An HTTP/1.1 request without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostDuplicate,
    /// A `Host` that is not a host with an optional port.
    HostInvalid,
    /// A `Content-Length` that is not a number.
    ContentLengthInvalid,
    /// More than one `Content-Length`, even if they agree.
    ContentLengthDuplicate,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAmbiguous,
    /// `Transfer-Encoding` in an HTTP/1.0 request.
    TransferEncodingUnexpected,
    /// A `Transfer-Encoding` of which `chunked` is not the last: the body has no end.
    TransferEncodingInvalid,
    /// A `Transfer-Encoding` other than `chunked` alone.
    TransferEncodingUnsupported,
    /// The body exceeds its limit.
    BodyTooLarge,
    /// A chunk size that is not a hexadecimal number of at most 64 bits.
    ChunkSizeInvalid,
    /// A chunk, or the line of its size, that does not end in CR LF.
    ChunkEndInvalid,
    /// Chunk extensions that exceed their limit or have a control character.
    ChunkExtensionInvalid,
    /// A trailer section that exceeds its limit or has a line that is not a header.
    TrailerInvalid,
    /// A percent sequence that is not two hexadecimal digits, or does not decode to UTF-8.
    QueryInvalid,
}

impl HttpFault {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// One word, for programs.
    pub const fn code(self) -> &'static str {
        self.row().1
    }

    /// A sentence, for people.
    pub const fn reason(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            HttpFault::RequestLineInvalid => {
                (400, "request_line_invalid", "the request line is malformed")
            }
            HttpFault::ProxyProtocol => (400, proxy_protocol::CODE, proxy_protocol::REASON),
            HttpFault::MethodUnknown => (501, "method_unknown", "the method is not known here"),
            HttpFault::TargetInvalid => (400, "target_invalid", "the request target is malformed"),
            HttpFault::TargetUnsupported => {
                (501, "target_unsupported", "the asterisk form is not supported")
            }
            HttpFault::UriTooLong => (414, "uri_too_long", "the request target is too long"),
            HttpFault::VersionUnsupported => {
                (505, "version_unsupported", "only HTTP/1.1 and HTTP/1.0 are spoken here")
            }
            HttpFault::LineEndInvalid => {
                (400, "line_end_invalid", "each line of the head must end in CR LF")
            }
            HttpFault::HeaderNameInvalid => {
                (400, "header_name_invalid", "a header name is malformed")
            }
            HttpFault::HeaderValueInvalid => {
                (400, "header_value_invalid", "a header value has a control character")
            }
            HttpFault::HeadTooLarge => (431, "head_too_large", "the request head is too large"),
            HttpFault::TooManyHeaders => (431, "too_many_headers", "there are too many headers"),
            HttpFault::HostMissing => (400, "host_missing", "the Host header is missing"),
            HttpFault::HostDuplicate => (400, "host_duplicate", "there are several Host headers"),
            HttpFault::HostInvalid => (400, "host_invalid", "the Host header is malformed"),
            HttpFault::ContentLengthInvalid => {
                (400, "content_length_invalid", "Content-Length is not a number")
            }
            HttpFault::ContentLengthDuplicate => {
                (400, "content_length_duplicate", "there are several Content-Length headers")
            }
            HttpFault::LengthAmbiguous => {
                (400, "length_ambiguous", "Content-Length and Transfer-Encoding exclude each other")
            }
            HttpFault::TransferEncodingUnexpected => {
                (400, "transfer_encoding_unexpected", "HTTP/1.0 has no Transfer-Encoding")
            }
            HttpFault::TransferEncodingInvalid => {
                (400, "transfer_encoding_invalid", "chunked must be the last transfer coding")
            }
            HttpFault::TransferEncodingUnsupported => {
                (501, "transfer_encoding_unsupported", "the only Transfer-Encoding is chunked")
            }
            HttpFault::BodyTooLarge => (413, "body_too_large", "the request body is too large"),
            HttpFault::ChunkSizeInvalid => (400, "chunk_size_invalid", "a chunk size is malformed"),
            HttpFault::ChunkEndInvalid => {
                (400, "chunk_end_invalid", "a chunk does not end in CR LF")
            }
            HttpFault::ChunkExtensionInvalid => {
                (400, "chunk_extension_invalid", "chunk extensions are malformed or too long")
            }
            HttpFault::TrailerInvalid => {
                (400, "trailer_invalid", "the trailer section is malformed or too long")
            }
            HttpFault::QueryInvalid => {
                (400, "query_invalid", "the query has an invalid percent sequence")
            }
        }
    }
}
