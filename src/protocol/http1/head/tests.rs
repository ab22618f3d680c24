use super::*;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1000, uri_bytes_max: 100, headers_max: 4 };

fn parse(text: &str) -> Result<Option<Head<'_>>, HttpFault> {
    parse_head(text.as_bytes(), &LIMITS)
}

fn fault(text: &str) -> Option<HttpFault> {
    parse(text).err()
}

fn fault_of_headers(headers: &str) -> Option<HttpFault> {
    fault(&format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n"))
}

fn head_with(headers: &str, check: impl Fn(&Head<'_>)) {
    let text = format!("POST /a?b=c HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    check(&parse(&text).unwrap().unwrap());
}

#[test]
fn a_head_tells_what_a_route_needs() {
    let text = "GET /ws?channel=a HTTP/1.1\r\nHost: example.com:80\r\n\
                X-A:  one \r\nx-a: two, ,three\r\n\r\nbody";
    let head = parse(text).unwrap().unwrap();
    assert_eq!((head.method, head.version), (Method::Get, Version::Http11));
    assert_eq!((head.path, head.query), ("/ws", Some("channel=a")));
    assert_eq!((head.keep_alive, head.expect_continue), (true, false));
    assert_eq!(head.body, BodyLength::None);
    assert_eq!(&text[head.head_bytes..], "body");
    assert_eq!(head.header("X-a").collect::<Vec<_>>(), [&b"one"[..], b"two, ,three"]);
    assert_eq!(head.header_list("x-A").collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
    assert!(head.header_has("x-a", "THREE") && !head.header_has("x-a", "four"));
    assert_eq!(head.header("absent").count(), 0);
    assert_eq!(head.headers().count(), 3);
    for end in 0..text.len() - 4 {
        assert!(parse(&text[..end]).is_ok_and(|head| head.is_none()), "{end}");
    }
}

#[test]
fn two_empty_lines_before_the_request_are_skipped_and_three_are_a_fault() {
    let request = "GET / HTTP/1.0\r\n\r\n";
    for lines in 0..=2 {
        let text = "\r\n".repeat(lines) + request;
        assert_eq!(parse(&text).unwrap().unwrap().head_bytes, text.len());
    }
    assert_eq!(fault(&("\r\n".repeat(3) + request)), Some(HttpFault::RequestLineInvalid));
    assert_eq!(fault(&format!("\n{request}")), Some(HttpFault::RequestLineInvalid));
    assert!(parse("\r").is_ok_and(|head| head.is_none()));
    assert_eq!(fault("\rG"), Some(HttpFault::RequestLineInvalid));
}

#[test]
fn line_ends_other_than_cr_lf_are_faults() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n",
    ] {
        assert_eq!(fault(text), Some(HttpFault::LineEndInvalid), "{text:?}");
    }
    for header in ["X: a\rb", "X: a\r\r\nY: b", "X:\ra"] {
        assert!(fault_of_headers(header).is_some_and(|fault| fault.status() == 400), "{header:?}");
    }
}

#[test]
fn header_names_are_tokens_right_before_their_colon() {
    let headers =
        ["X : a", "X\t: a", " X: a", "\tX: a", ": a", "X", "X Y: a", "X: a\r\n b", "é: a"];
    for header in headers {
        let found = fault_of_headers(header);
        assert_eq!(found, Some(HttpFault::HeaderNameInvalid), "{header:?}");
    }
    let first = "GET / HTTP/1.1\r\n Host: a\r\n\r\n";
    assert_eq!(fault(first), Some(HttpFault::HeaderNameInvalid));
}

#[test]
fn each_byte_of_a_header_value_is_accepted_or_is_a_fault() {
    for byte in 0..=u8::MAX {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: b".to_vec();
        bytes.push(byte);
        bytes.extend_from_slice(b"c\r\n\r\n");
        let allowed = byte == b'\t' || (byte >= 0x20 && byte != 0x7F);
        let parsed = parse_head(&bytes, &LIMITS);
        assert_eq!(parsed.is_ok(), allowed, "{byte:#04x}: {parsed:?}");
    }
}

#[test]
fn http_1_1_needs_one_host_that_is_a_host() {
    assert_eq!(fault("GET / HTTP/1.1\r\nX: a\r\n\r\n"), Some(HttpFault::HostMissing));
    assert_eq!(fault("GET / HTTP/1.0\r\n\r\n"), None);
    assert_eq!(fault_of_headers("hOST: a"), Some(HttpFault::HostDuplicate));
    for host in [
        "a b", "a/b", "u@a", "a,b?", "a#", "x:abc", "::1", "a:1:2", "[::1", "[::1]x", "[::1]:x",
        "a:-1",
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(fault(&text), Some(HttpFault::HostInvalid), "{host}");
    }
    for host in ["", "a.b-c:1", "a:", "[::1]", "[::1]:80", "[v1.a:b]", "%41"] {
        assert_eq!(fault(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), None, "{host}");
    }
}

#[test]
fn content_length_is_one_number() {
    for none in ["0", "00"] {
        head_with(&format!("Content-Length: {none}"), |head| {
            assert_eq!(head.body, BodyLength::None);
        });
    }
    for (value, length) in [("007", 7), ("18446744073709551615", u64::MAX)] {
        head_with(&format!("Content-Length: {value}"), |head| {
            assert_eq!(head.body, BodyLength::Length(length));
        });
    }
    for value in ["", "+1", "-1", "1 1", "1,1", "0x1", "1.0", "a", "18446744073709551616"] {
        let found = fault_of_headers(&format!("Content-Length: {value}"));
        assert_eq!(found, Some(HttpFault::ContentLengthInvalid), "{value:?}");
    }
    let twice = "Content-Length: 1\r\nContent-Length: 1";
    assert_eq!(fault_of_headers(twice), Some(HttpFault::ContentLengthDuplicate));
}

#[test]
fn transfer_encoding_is_chunked_alone() {
    head_with("Transfer-Encoding: Chunked", |head| assert_eq!(head.body, BodyLength::Chunked));
    for value in ["chunked, chunked", "gzip, chunked", "gzip,Chunked"] {
        let found = fault_of_headers(&format!("Transfer-Encoding: {value}"));
        assert_eq!(found, Some(HttpFault::TransferEncodingUnsupported), "{value:?}");
    }
    // RFC 9112 6.3: if chunked is not the last coding, the end of the body is unknown.
    for value in ["gzip", "chunked, gzip", "xchunked", "", "chunked;a", "\"chunked\"", "chunked,"] {
        let found = fault_of_headers(&format!("Transfer-Encoding: {value}"));
        assert_eq!(found, Some(HttpFault::TransferEncodingInvalid), "{value:?}");
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    assert_eq!(fault_of_headers(twice), Some(HttpFault::TransferEncodingInvalid));
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 1";
    assert_eq!(fault_of_headers(both), Some(HttpFault::LengthAmbiguous));
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(fault(old), Some(HttpFault::TransferEncodingUnexpected));
}

#[test]
fn keep_alive_follows_version_and_connection() {
    let keep_alive = |version: &str, connection: &str| {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        parse(&text).unwrap().unwrap().keep_alive
    };
    assert!(keep_alive("1.1", "") && keep_alive("1.1", "Upgrade"));
    assert!(!keep_alive("1.1", "Close") && !keep_alive("1.1", "keep-alive, close"));
    assert!(!keep_alive("1.0", "") && keep_alive("1.0", "Keep-Alive"));
    assert!(!keep_alive("1.0", "close, keep-alive"));
}

#[test]
fn expectations_count_in_http_1_1_only() {
    head_with("Expect: 100-Continue", |head| assert!(head.expect_continue));
    head_with("Expect: other", |head| assert!(!head.expect_continue));
    let old = parse("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap().unwrap();
    assert!(!old.expect_continue);
}

#[test]
fn a_head_at_the_limit_passes_and_one_past_is_a_fault_even_unfinished() {
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
    let fitting = frame.replace("X: ", &format!("X: {}", "b".repeat(1000 - frame.len())));
    assert_eq!(fitting.len(), 1000);
    assert_eq!(fault(&fitting), None);
    assert_eq!(parse(&(fitting.clone() + "body")).unwrap().unwrap().head_bytes, 1000);
    let past = fitting.replace("X: ", "X: b");
    assert_eq!(fault(&past), Some(HttpFault::HeadTooLarge));
    assert!(parse(&past[..999]).is_ok_and(|head| head.is_none()));
    assert_eq!(fault(&past[..1000]), Some(HttpFault::HeadTooLarge));
}

#[test]
fn as_many_headers_as_the_limit_pass_and_one_more_is_a_fault() {
    assert_eq!(fault_of_headers("A: 1\r\nB: 2\r\nC: 3"), None);
    assert_eq!(fault_of_headers("A: 1\r\nB: 2\r\nC: 3\r\nD: 4"), Some(HttpFault::TooManyHeaders));
    let limits = HeadLimits { head_bytes_max: u32::MAX, uri_bytes_max: 10, headers_max: u32::MAX };
    let head = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(count));
    let at_ceiling = head(HEADERS_CEILING);
    let parsed = parse_head(at_ceiling.as_bytes(), &limits).unwrap().unwrap();
    assert_eq!(parsed.header("a").count(), HEADERS_CEILING);
    let past = parse_head(head(HEADERS_CEILING + 1).as_bytes(), &limits).err();
    assert_eq!(past, Some(HttpFault::TooManyHeaders));
}

#[test]
fn offsets_hold_up_to_the_ceiling_of_a_head() {
    let limits =
        HeadLimits { head_bytes_max: u32::MAX, uri_bytes_max: u32::MAX, headers_max: u32::MAX };
    let frame = "GET / HTTP/1.0\r\nA: \r\nLast: value\r\n\r\n";
    let filler = "a".repeat(HEAD_BYTES_CEILING - frame.len());
    let text = frame.replace("A: ", &format!("A: {filler}"));
    let head = parse_head(text.as_bytes(), &limits).unwrap().unwrap();
    assert_eq!(head.header("last").collect::<Vec<_>>(), [b"value"]);
    assert_eq!(head.header("a").next().map(<[u8]>::len), Some(filler.len()));
    let past = text.replace("A: ", "A: a");
    let past = parse_head(past.as_bytes(), &limits).err();
    assert_eq!(past, Some(HttpFault::HeadTooLarge));
}
