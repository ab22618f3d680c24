//! Calls of the server API with a body that is whole and split: requests and answers must be the same, and the body of
//! an answer must be JSON.
#![no_main]

use fantail::transport::{HttpConversation, HttpService};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

mod conversation;

const METHODS: &[&str] = &[
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "history",
    "history_remove",
    "presence",
    "presence_stats",
    "channels",
    "info",
    "batch",
];

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (method, piece_bytes, body) = input;
    let method = METHODS[usize::from(method) % METHODS.len()];
    let mut request = format!(
        "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    let pieces = request.chunks(usize::from(piece_bytes).max(1));
    let drive = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        conversation::drive(HttpConversation::new(HttpService::Edge), pieces)
    };
    let whole = drive(&mut [&*request].into_iter());
    assert_eq!(whole, drive(&mut { pieces }));
    let answer = std::str::from_utf8(&whole.0).expect("an answer is text");
    if let Some((_, body)) = answer.split_once("\r\n\r\n") {
        serde_json::from_str::<&RawValue>(body).expect("the body is JSON");
    }
});
