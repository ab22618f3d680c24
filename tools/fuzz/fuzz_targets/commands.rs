//! Decodes commands, alone and in a conversation that is whole and split: replies and requests must be the same, and
//! every reply must be JSON.
#![no_main]

use fantail::config::Framing;
use fantail::message::PayloadKind;
use fantail::protocol::json::{decode_command, kind_of_bytes};
use fantail::transport::CommandConversation;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

mod conversation;

const CONNECT: &[u8] = b"{\"id\":1,\"connect\":{}}\n";

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_bytes, stream) = input;
    let padded = [b" \t", stream, b"\r\n"].concat();
    assert_eq!(
        format!("{:?}", decode_command(stream)),
        format!("{:?}", decode_command(&padded)),
        "white space around a command"
    );
    check_depth(stream);

    // The connect is a piece of its own, because it waits for its reply.
    let pieces = stream.chunks(usize::from(piece_bytes).max(1));
    let drive = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        conversation::drive(CommandConversation::new(Framing::Line), pieces)
    };
    let whole = drive(&mut [CONNECT, stream].into_iter());
    assert_eq!(whole, drive(&mut [CONNECT].into_iter().chain(pieces)));
    for line in whole.0.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<&RawValue>(line).expect("a reply is JSON");
    }
});

/// A payload is JSON if it is nested no deeper than the maximum.
fn check_depth(bytes: &[u8]) {
    const DEPTH_MAX: usize = 4;
    let is_json = kind_of_bytes(bytes, DEPTH_MAX) == PayloadKind::Json;
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        // An object keeps one of several members of the same name, so its depth may be less.
        let depth = depth(&value);
        assert!(!is_json || depth <= DEPTH_MAX, "{depth}");
    } else if is_json {
        // Numbers may be out of the range of `Value`.
        serde_json::from_slice::<&RawValue>(bytes).expect("JSON");
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
