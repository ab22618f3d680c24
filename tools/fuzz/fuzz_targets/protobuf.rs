//! Decodes commands in Protobuf, alone and in a conversation over a WebSocket that is whole and split: replies and
//! requests must be the same, and every reply must be a message of the schema behind its length.
#![no_main]

use fantail::protocol::protobuf::{decode_command, next_message, schema};
use fantail::protocol::websocket::{
    Limits, Message, MessageDecoder, OpCode, Role, write_masked_frame,
};
use fantail::transport::{CommandEncoding, WebSocketConversation, WebSocketService};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

mod conversation;

/// `{"id":1,"connect":{}}`, behind its length.
const CONNECT: &[u8] = b"\x04\x08\x01\x22\0";

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_bytes, commands) = input;
    check_decoder(commands);
    let [connect, stream] = [CONNECT, commands].map(|payload| {
        let mut frame = Vec::new();
        write_masked_frame(&mut frame, OpCode::Binary, payload, [1, 2, 3, 4]);
        frame
    });
    // The connect is a piece of its own, because it waits for its reply.
    let pieces = stream.chunks(usize::from(piece_bytes).max(1));
    let drive = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let service = WebSocketService::Commands(CommandEncoding::Protobuf);
        conversation::drive(WebSocketConversation::new(service), pieces)
    };
    let whole = drive(&mut [&*connect, &*stream].into_iter());
    assert_eq!(whole, drive(&mut [&*connect].into_iter().chain(pieces)));
    check_replies(whole.0);
});

/// What is decoded is the same once it is encoded again: nothing of the schema is lost.
fn check_decoder(mut frame: &[u8]) {
    while let Ok(Some(message)) = next_message(&mut frame) {
        let decoded = decode_command(message);
        let command = schema::Command::decode(message);
        assert_eq!(decoded.is_ok(), command.is_ok());
        let (Ok(decoded), Ok(command)) = (decoded, command) else { continue };
        let again = decode_command(&command.encode_to_vec()).expect("it is of the schema");
        assert_eq!((decoded.id, decoded.method), (again.id, again.method));
    }
}

fn check_replies(mut out: Vec<u8>) {
    let limits = Limits { role: Role::Client, message_bytes_max: 1 << 26, fragments_max: 1, has_compression: false };
    let (mut decoder, mut bytes) = (MessageDecoder::new(), out.as_mut_slice());
    while let Some(message) = decoder.next(&mut bytes, &limits).expect("frames of a server") {
        let Message::Binary(payload) = message else { continue };
        let mut rest = &*payload;
        while let Some(reply) = next_message(&mut rest).expect("replies behind their lengths") {
            schema::Reply::decode(reply).expect("a reply of the schema");
        }
    }
}
