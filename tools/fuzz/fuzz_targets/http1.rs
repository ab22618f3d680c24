//! Decodes a request with body, query and upgrade, whole and split: the result or fault must be the
//! same.
#![no_main]

use fantail::protocol::http1::{
    BodyDecoder, BodyPart, Head, HeadLimits, HttpFault, parse_head, query_pairs,
};
use fantail::protocol::websocket::handshake::{check_server_response, check_upgrade};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 500, uri_bytes_max: 100, headers_max: 10 };

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_bytes, stream) = input;
    let piece_bytes = usize::from(piece_bytes).max(1);
    let whole = parse_head(stream, &LIMITS);
    let ends = (piece_bytes..stream.len()).step_by(piece_bytes).chain([stream.len()]);
    let first_answer = ends
        .map(|end| parse_head(&stream[..end], &LIMITS))
        .find(|parsed| !matches!(parsed, Ok(None)));
    assert_eq!(describe(first_answer.unwrap_or(Ok(None))), describe(whole.clone()));
    if let Ok(Some(head)) = whole {
        read(&head, &stream[head.head_bytes..], piece_bytes);
    }
    let _ = check_server_response(stream, &[0; 16]);
});

fn describe(parsed: Result<Option<Head<'_>>, HttpFault>) -> String {
    match parsed {
        Ok(Some(head)) => {
            format!("{:?} {:?}", head.head_bytes, head.headers().collect::<Vec<_>>())
        }
        Ok(None) => "more".to_owned(),
        Err(fault) => format!("{fault:?}"),
    }
}

fn read(head: &Head<'_>, after: &[u8], piece_bytes: usize) {
    let _ = check_upgrade(head);
    query_pairs(head.query).for_each(|pair| drop(pair.value()));
    let whole = body(head, [after].into_iter());
    assert_eq!(whole, body(head, after.chunks(piece_bytes)));
}

fn body<'s>(
    head: &Head<'_>,
    pieces: impl Iterator<Item = &'s [u8]>,
) -> (Vec<u8>, Option<HttpFault>, bool) {
    let mut body = Vec::new();
    let mut decoder = match BodyDecoder::new(head.body, 300) {
        Ok(decoder) => decoder,
        Err(fault) => return (body, Some(fault), false),
    };
    for mut input in pieces {
        loop {
            match decoder.next(&mut input) {
                Ok(BodyPart::Data(data)) => body.extend_from_slice(data),
                Ok(BodyPart::NeedMore) => break,
                Ok(BodyPart::End) => return (body, None, true),
                Err(fault) => return (body, Some(fault), false),
            }
        }
    }
    (body, None, decoder.is_at_end())
}
