//! The first line of a request, RFC 9112 3.
//!
//! It is read byte by byte, so that each fault is found on the byte that proves it, and a head that arrives in pieces
//! gets the same answer as one that arrives whole.

use super::HttpFault;

/// The methods that a route can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET, RFC 9110 9.3.1.
    Get,
    /// HEAD, RFC 9110 9.3.2: the answer has no body.
    Head,
    /// POST, RFC 9110 9.3.3.
    Post,
    /// PUT, RFC 9110 9.3.4.
    Put,
    /// DELETE, RFC 9110 9.3.5.
    Delete,
    /// OPTIONS, RFC 9110 9.3.7.
    Options,
    /// TRACE, RFC 9110 9.3.8.
    Trace,
    /// PATCH, RFC 5789.
    Patch,
}

impl Method {
    fn of_token(token: &[u8]) -> Option<Self> {
        // RFC 9110 9.1: methods are case-sensitive.
        match token {
            b"GET" => Some(Method::Get),
            b"HEAD" => Some(Method::Head),
            b"POST" => Some(Method::Post),
            b"PUT" => Some(Method::Put),
            b"DELETE" => Some(Method::Delete),
            b"OPTIONS" => Some(Method::Options),
            b"TRACE" => Some(Method::Trace),
            b"PATCH" => Some(Method::Patch),
            _ => None,
        }
    }
}

/// The HTTP versions that are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The version HTTP/1.0.
    Http10,
    /// The version HTTP/1.1, or a compatible later one.
    Http11,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'b> {
    pub method: Method,
    pub path: &'b str,
    pub query: Option<&'b str>,
    pub version: Version,
    /// Length of the line in bytes, including its end.
    pub line_bytes: usize,
}

/// Parses the request line; `None` if its end has not arrived.
pub(super) fn parse_request_line(
    all: &[u8],
    uri_bytes_max: usize,
) -> Result<Option<RequestLine<'_>>, HttpFault> {
    let bytes = all;
    let Some((token, bytes)) = split_method(bytes)? else { return Ok(None) };
    let method = Method::of_token(token).ok_or(HttpFault::MethodUnknown)?;
    let Some((target, bytes)) = split_target(bytes, uri_bytes_max)? else { return Ok(None) };
    let (path, query) = split_path(target, method)?;
    let Some((version, bytes)) = bytes.split_first_chunk::<8>() else {
        let fits = bytes.iter().zip(b"HTTP/1.1").all(|(byte, expected)| match expected {
            b'1' => byte.is_ascii_digit(),
            _ => byte == expected,
        });
        return if fits { Ok(None) } else { Err(HttpFault::RequestLineInvalid) };
    };
    let version = match version {
        b"HTTP/1.0" => Version::Http10,
        // RFC 9110 2.5: a higher minor version is processed as the highest that is known.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(HttpFault::VersionUnsupported);
        }
        _ => return Err(HttpFault::RequestLineInvalid),
    };
    match bytes {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', rest @ ..] => {
            let line_bytes = all.len() - rest.len();
            Ok(Some(RequestLine { method, path, query, version, line_bytes }))
        }
        [b'\n', ..] | [b'\r', ..] => Err(HttpFault::LineEndInvalid),
        _ => Err(HttpFault::RequestLineInvalid),
    }
}

/// The text before a space and the bytes after it; `None` while the space has not arrived.
type Split<'b, T> = Option<(T, &'b [u8])>;

fn split_method(bytes: &[u8]) -> Result<Split<'_, &[u8]>, HttpFault> {
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            b' ' if index > 0 => return Ok(Some((&bytes[..index], &bytes[index + 1..]))),
            _ if index == METHOD_BYTES_MAX => return Err(HttpFault::MethodUnknown),
            _ if is_token_byte(byte) => {}
            _ => return Err(HttpFault::RequestLineInvalid),
        }
    }
    Ok(None)
}

fn split_target(bytes: &[u8], uri_bytes_max: usize) -> Result<Split<'_, &str>, HttpFault> {
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            b' ' if index > 0 => {
                // This is visible ASCII, because the arms below refuse all other bytes.
                let target = std::str::from_utf8(&bytes[..index]);
                let target = target.map_err(|_| HttpFault::TargetInvalid)?;
                return Ok(Some((target, &bytes[index + 1..])));
            }
            _ if index >= uri_bytes_max => return Err(HttpFault::UriTooLong),
            // RFC 9112 3.2: a target has no fragment, and nothing outside visible ASCII.
            b'#' => return Err(HttpFault::TargetInvalid),
            b'!'..=b'~' => {}
            _ => return Err(HttpFault::TargetInvalid),
        }
    }
    Ok(None)
}

/// RFC 9112 3.2: origin-form, or absolute-form, which a server must accept as well.
fn split_path(target: &str, method: Method) -> Result<(&str, Option<&str>), HttpFault> {
    if target == "*" && method == Method::Options {
        return Err(HttpFault::TargetUnsupported);
    }
    let target = if target.starts_with('/') { target } else { after_authority(target)? };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Ok((if path.is_empty() { "/" } else { path }, query))
}

fn after_authority(target: &str) -> Result<&str, HttpFault> {
    let after_scheme = ["http://", "https://", "ws://", "wss://"].iter().find_map(|scheme| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let after_scheme = after_scheme.ok_or(HttpFault::TargetInvalid)?;
    let authority_len = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(authority_len);
    // RFC 9110 4.2.1, 4.2.4: the host is not empty, and user information is an error.
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return Err(HttpFault::TargetInvalid);
    }
    Ok(rest)
}

/// Whether `bytes` can be a host and port (RFC 3986 3.2.2, 3.2.3); a host may be empty (RFC 9110 7.2).
pub(super) fn is_host(bytes: &[u8]) -> bool {
    let (host, rest) = match bytes.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
            let (address, rest) = literal.split_at(end);
            if !address.iter().all(|&byte| is_host_byte(byte) || byte == b':') {
                return false;
            }
            (&b""[..], &rest[1..])
        }
        None => bytes.split_at(bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len())),
    };
    let port = rest.strip_prefix(b":");
    let is_port = rest.is_empty() || port.is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    host.iter().all(|&byte| is_host_byte(byte)) && is_port
}

/// Whether a name or an IPv4 address may contain the byte (RFC 3986 3.2.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

/// Whether `bytes` are a token, such as a header's name or a subprotocol (RFC 9110 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Most bytes of a method; the longest registered one, `UPDATEREDIRECTREF`, has 17.
const METHOD_BYTES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Option<RequestLine<'_>>, HttpFault> {
        parse_request_line(text.as_bytes(), 20)
    }

    #[test]
    fn each_method_has_a_case_sensitive_token() {
        let methods = [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("POST", Method::Post),
            ("PUT", Method::Put),
            ("DELETE", Method::Delete),
            ("OPTIONS", Method::Options),
            ("TRACE", Method::Trace),
            ("PATCH", Method::Patch),
        ];
        for (token, method) in methods {
            let text = format!("{token} / HTTP/1.1\r\n");
            assert_eq!(line(&text).unwrap().unwrap().method, method);
        }
        for unknown in ["get", "CONNECT", "PROPFIND", "G", "PRI", "A-TOKEN-OF-20-BYTES!"] {
            let text = format!("{unknown} / HTTP/1.1\r\n");
            assert_eq!(line(&text), Err(HttpFault::MethodUnknown), "{unknown}");
        }
        assert_eq!(line("ABCDEFGHIJKLMNOPQRSTU"), Err(HttpFault::MethodUnknown));
    }

    #[test]
    fn each_first_byte_that_is_not_of_a_token_is_a_fault_at_once() {
        for byte in 0..=u8::MAX {
            let expected =
                if is_token_byte(byte) { Ok(None) } else { Err(HttpFault::RequestLineInvalid) };
            assert_eq!(parse_request_line(&[byte], 20), expected, "{byte:#04x}");
        }
    }

    #[test]
    fn a_target_is_split_into_path_and_query() {
        let cases = [
            ("/", "/", None),
            ("/a/b?c=d?e", "/a/b", Some("c=d?e")),
            ("/a?", "/a", Some("")),
            ("http://host/a?b", "/a", Some("b")),
            ("HTTPS://h:443", "/", None),
            ("http://[::1]:80?b", "/", Some("b")),
        ];
        for (target, path, query) in cases {
            let text = format!("GET {target} HTTP/1.1\r\n");
            let line = line(&text).unwrap().unwrap();
            assert_eq!((line.path, line.query), (path, query), "{target}");
        }
    }

    #[test]
    fn targets_of_other_forms_are_faults() {
        for target in ["a", "*", "host:80", "http://", "http:///a", "http://u@h/", "ftp://h/"] {
            let text = format!("GET {target} HTTP/1.1\r\n");
            assert_eq!(line(&text), Err(HttpFault::TargetInvalid), "{target}");
        }
        assert_eq!(line("OPTIONS * HTTP/1.1\r\n"), Err(HttpFault::TargetUnsupported));
        for target in ["/#", "/\u{7f}", "/é", "/\t", "/\r\n", "/\0", ""] {
            let text = format!("GET {target} HTTP/1.1\r\n");
            assert_eq!(line(&text), Err(HttpFault::TargetInvalid), "{target:?}");
        }
    }

    #[test]
    fn a_target_at_the_limit_passes_and_a_longer_one_is_a_fault_before_it_ends() {
        let target = format!("/{}", "a".repeat(19));
        assert!(line(&format!("GET {target} HTTP/1.1\r\n")).unwrap().is_some());
        assert_eq!(line(&format!("GET {target}")), Ok(None));
        assert_eq!(line(&format!("GET {target}b")), Err(HttpFault::UriTooLong));
    }

    #[test]
    fn versions_are_1_0_and_those_compatible_with_1_1() {
        for version in ["HTTP/1.1", "HTTP/1.2", "HTTP/1.9"] {
            let text = format!("GET / {version}\r\n");
            assert_eq!(line(&text).unwrap().unwrap().version, Version::Http11, "{version}");
        }
        for version in ["HTTP/2.0", "HTTP/3.1", "HTTP/0.9"] {
            let text = format!("GET / {version}\r\n");
            assert_eq!(line(&text), Err(HttpFault::VersionUnsupported), "{version}");
        }
        for version in ["http/1.1", "HTTP/1.x", "HTTP 1.1", "HTTP/11."] {
            let text = format!("GET / {version}\r\n");
            assert_eq!(line(&text), Err(HttpFault::RequestLineInvalid), "{version}");
        }
        // Each prefix that may become a version waits; a line that ends before it does not.
        assert!((0..8).all(|end| line(&format!("GET / {}", &"HTTP/1.1"[..end])) == Ok(None)));
        for early in ["\r\n", "\n", "HTTP\r\n", "HTTP/1\r\n", "HTTP/1.\r", "http", "X"] {
            let text = format!("GET / {early}");
            assert_eq!(line(&text), Err(HttpFault::RequestLineInvalid), "{early:?}");
        }
        assert_eq!(line("GET / HTTP/1.1 \r\n"), Err(HttpFault::RequestLineInvalid));
        assert_eq!(line("GET / HTTP/1.1\n"), Err(HttpFault::LineEndInvalid));
        assert_eq!(line("GET / HTTP/1.1\rX"), Err(HttpFault::LineEndInvalid));
        assert_eq!(line("GET  / HTTP/1.1\r\n"), Err(HttpFault::TargetInvalid));
    }
}
