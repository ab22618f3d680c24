//! Reads queries and positions, alone and in requests that subscribe, whole and split: what is decoded survives its
//! encoding, and requests and answers are the same.
#![no_main]

use fantail::message::Position;
use fantail::protocol::http1::query_pairs;
use fantail::transport::{HttpConversation, HttpService};
use libfuzzer_sys::fuzz_target;

mod conversation;

fuzz_target!(|input: (bool, u8, &str, &str)| {
    let (is_poll, piece_bytes, query, since) = input;
    check_query(query);
    if let Ok(position) = since.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    let path = if is_poll { "/poll" } else { "/events" };
    let request = format!(
        "GET {path}?channel=a&{query} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {since}\r\n\
         If-None-Match: \"{since}\"\r\n\r\n"
    );
    let pieces = request.as_bytes().chunks(usize::from(piece_bytes).max(1));
    let drive = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        conversation::drive(HttpConversation::new(HttpService::Edge), pieces)
    };
    let whole = drive(&mut [request.as_bytes()].into_iter());
    // More requests may follow in the header fields: each piece of them is judged only until the first answer.
    if !since.contains('\n') && !query.contains('\n') {
        assert_eq!(whole, drive(&mut { pieces }));
    }
});

fn check_query(query: &str) {
    for pair in query_pairs(Some(query)) {
        let Ok(value) = pair.value() else { continue };
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let again = format!("name={encoded}");
        let decoded: Vec<_> = query_pairs(Some(&again)).map(|pair| pair.value()).collect();
        assert_eq!(decoded, [Ok(value)]);
    }
}
