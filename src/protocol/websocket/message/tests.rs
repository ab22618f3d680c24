use super::super::{write_frame, write_header, write_masked_frame};
use super::*;

const SERVER: Limits = Limits {
    role: Role::Server,
    message_bytes_max: 1000,
    fragments_max: 1000,
    has_compression: false,
};
const CLIENT: Limits = Limits {
    role: Role::Client,
    message_bytes_max: 1000,
    fragments_max: 1000,
    has_compression: false,
};
const MASK: [u8; 4] = [0xA1, 0xB2, 0xC3, 0xD4];

fn fragment(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(&mut out, opcode, fin, payload.len());
    out[1] |= 0x80;
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn fault_of(bytes: &[u8], limits: &Limits) -> Option<Fault> {
    let mut bytes = bytes.to_vec();
    let mut input = bytes.as_mut_slice();
    let mut decoder = MessageDecoder::new();
    loop {
        match decoder.next(&mut input, limits) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(fault) => return Some(fault),
        }
    }
}

#[test]
fn a_whole_frame_is_decoded_where_it_lies() {
    let mut bytes = fragment(OpCode::Text, true, b"hello");
    bytes.extend(fragment(OpCode::Binary, true, &[0xFF, 0]));
    let range = bytes.as_ptr_range();
    let mut input = bytes.as_mut_slice();
    let mut decoder = MessageDecoder::new();
    let Ok(Some(Message::Text(text))) = decoder.next(&mut input, &SERVER) else { panic!() };
    assert_eq!(text, b"hello");
    assert!(range.contains(&text.as_ptr()));
    assert_eq!(decoder.buffered_bytes(), 0);
    let message = decoder.next(&mut input, &SERVER);
    assert_eq!(message, Ok(Some(Message::Binary(&mut [0xFF, 0]))));
    assert_eq!(decoder.next(&mut input, &SERVER), Ok(None));
    assert!(input.is_empty());
}

#[test]
fn fragments_are_joined_around_a_ping() {
    let mut bytes = fragment(OpCode::Text, false, "a€".as_bytes().split_at(2).0);
    bytes.extend(fragment(OpCode::Ping, true, b"?"));
    bytes.extend(fragment(OpCode::Continuation, false, b""));
    bytes.extend(fragment(OpCode::Continuation, true, "a€".as_bytes().split_at(2).1));
    let mut input = bytes.as_mut_slice();
    let mut decoder = MessageDecoder::new();
    assert_eq!(decoder.next(&mut input, &SERVER), Ok(Some(Message::Ping(b"?"))));
    assert!(!decoder.is_between_messages());
    let mut text = "a€".as_bytes().to_vec();
    assert_eq!(decoder.next(&mut input, &SERVER), Ok(Some(Message::Text(&mut text))));
    assert!(decoder.is_between_messages());
    assert!(decoder.buffered_bytes() > 0, "the message is still in the box");
    assert_eq!(decoder.next(&mut input, &SERVER), Ok(None));
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn memory_grows_with_what_arrived_not_with_what_was_declared() {
    let limits = Limits { message_bytes_max: u32::MAX, ..SERVER };
    let mut bytes = vec![0x82, 0xFF, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4];
    bytes.extend([0; 1000]);
    let mut decoder = MessageDecoder::new();
    let mut input = bytes.as_mut_slice();
    assert_eq!(decoder.next(&mut input, &limits), Ok(None));
    assert!(decoder.buffered_bytes() < 2000 + 200, "{}", decoder.buffered_bytes());
}

#[test]
fn one_byte_fragments_do_not_grow_the_assembly_one_byte_at_a_time() {
    let mut decoder = MessageDecoder::new();
    let mut growths = 0;
    for index in 0..900 {
        let opcode = if index == 0 { OpCode::Binary } else { OpCode::Continuation };
        let mut bytes = fragment(opcode, false, b"x");
        let before = decoder.buffered_bytes();
        assert_eq!(decoder.next(&mut bytes.as_mut_slice(), &SERVER), Ok(None));
        growths += usize::from(decoder.buffered_bytes() > before);
    }
    assert!(growths < 10, "{growths} allocations");
}

#[test]
fn a_message_at_the_limit_passes_and_one_past_is_refused_on_its_header() {
    assert_eq!(fault_of(&fragment(OpCode::Binary, true, &[0; 1000]), &SERVER), None);
    let past = fragment(OpCode::Binary, true, &[0; 1001]);
    assert_eq!(fault_of(&past, &SERVER), Some(Fault::MessageTooLarge));
    assert_eq!(fault_of(&past[..8], &SERVER), Some(Fault::MessageTooLarge));
    let mut sum = fragment(OpCode::Binary, false, &[0; 600]);
    sum.extend(fragment(OpCode::Continuation, true, &[0; 400]));
    assert_eq!(fault_of(&sum, &SERVER), None);
    let mut sum = fragment(OpCode::Binary, false, &[0; 600]);
    sum.extend(fragment(OpCode::Continuation, true, &[0; 401]));
    assert_eq!(fault_of(&sum, &SERVER), Some(Fault::MessageTooLarge));
}

#[test]
fn fragments_at_the_limit_pass_and_one_past_is_refused() {
    let message = |fragments: u32| {
        let mut bytes = fragment(OpCode::Text, false, b"");
        bytes.extend(fragment(OpCode::Continuation, false, b"").repeat(fragments as usize - 2));
        // Frames of their own, which RFC 6455 5.4 allows between fragments.
        bytes.extend(fragment(OpCode::Ping, true, b"").repeat(3));
        bytes.extend(fragment(OpCode::Continuation, true, b""));
        bytes
    };
    // Each message has as many.
    assert_eq!(fault_of(&message(1000).repeat(3), &SERVER), None);
    assert_eq!(fault_of(&message(1001), &SERVER), Some(Fault::FragmentsTooMany));
    assert_eq!(
        fault_of(&[message(1000), message(1001)].concat(), &SERVER),
        Some(Fault::FragmentsTooMany)
    );
    let endless = fragment(OpCode::Continuation, false, b"").repeat(1000);
    let begun = |opcode| [fragment(opcode, false, b"x"), endless.clone()].concat();
    assert_eq!(fault_of(&begun(OpCode::Text), &SERVER), Some(Fault::FragmentsTooMany));
    assert_eq!(fault_of(&begun(OpCode::Binary), &SERVER), Some(Fault::FragmentsTooMany));
    // It is refused before its last frame has come.
    assert_eq!(
        fault_of(&begun(OpCode::Text)[..1000 * 6 + 7], &SERVER),
        Some(Fault::FragmentsTooMany)
    );
    assert_eq!(fault_of(&begun(OpCode::Text)[..999 * 6 + 7], &SERVER), None);
}

#[test]
fn a_limit_under_a_control_payload_does_not_refuse_control_frames() {
    let limits = Limits { message_bytes_max: 0, ..SERVER };
    assert_eq!(fault_of(&fragment(OpCode::Ping, true, &[0; 125]), &limits), None);
    assert_eq!(fault_of(&fragment(OpCode::Text, true, b""), &limits), None);
    let fault = fault_of(&fragment(OpCode::Text, true, b"a"), &limits);
    assert_eq!(fault, Some(Fault::MessageTooLarge));
}

#[test]
fn each_role_refuses_frames_of_its_own_kind() {
    let mut plain = Vec::new();
    write_frame(&mut plain, OpCode::Text, b"a");
    let mut masked = Vec::new();
    write_masked_frame(&mut masked, OpCode::Text, b"a", MASK);
    assert_eq!(fault_of(&plain, &SERVER), Some(Fault::MaskMissing));
    assert_eq!(fault_of(&masked, &SERVER), None);
    assert_eq!(fault_of(&masked, &CLIENT), Some(Fault::MaskUnexpected));
    assert_eq!(fault_of(&plain, &CLIENT), None);
}

#[test]
fn messages_neither_interleave_nor_continue_what_never_began() {
    let continuation = fragment(OpCode::Continuation, true, b"a");
    assert_eq!(fault_of(&continuation, &SERVER), Some(Fault::ContinuationUnexpected));
    let mut twice = fragment(OpCode::Text, false, b"a");
    twice.extend(fragment(OpCode::Text, true, b"b"));
    assert_eq!(fault_of(&twice, &SERVER), Some(Fault::MessageInterrupted));
    let mut after = fragment(OpCode::Text, false, b"a");
    after.extend(fragment(OpCode::Continuation, true, b"b"));
    after.extend(&continuation);
    assert_eq!(fault_of(&after, &SERVER), Some(Fault::ContinuationUnexpected));
}

#[test]
fn invalid_text_is_a_fault_before_its_frame_ends() {
    let text = fragment(OpCode::Text, true, b"ok \xED\xA0 and much that never arrives");
    assert_eq!(fault_of(&text[..10], &SERVER), None, "ED may still begin a character");
    assert_eq!(fault_of(&text[..11], &SERVER), Some(Fault::Utf8Invalid));
    let mut cut = fragment(OpCode::Text, false, b"\xE2\x82");
    cut.extend(fragment(OpCode::Continuation, true, b""));
    assert_eq!(fault_of(&cut, &SERVER), Some(Fault::Utf8Invalid), "the message ends mid-character");
    assert_eq!(fault_of(&fragment(OpCode::Binary, true, b"\xED\xA0"), &SERVER), None);
}

#[test]
fn a_close_frame_gives_code_and_reason_or_is_a_fault() {
    let close = |payload: &[u8]| {
        let mut bytes = fragment(OpCode::Close, true, payload);
        let mut decoder = MessageDecoder::new();
        decoder.next(&mut bytes.as_mut_slice(), &SERVER).map(|message| match message {
            Some(Message::Close { code, reason }) => (code, reason.to_owned()),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(close(b""), Ok((None, String::new())));
    assert_eq!(close(b"\x03"), Err(Fault::CloseTruncated));
    assert_eq!(close(b"\x03\xE8"), Ok((Some(1000), String::new())));
    assert_eq!(close(b"\x03\xE9bye"), Ok((Some(1001), "bye".to_owned())));
    assert_eq!(close(b"\x03\xE8\xFF"), Err(Fault::Utf8Invalid));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        assert_eq!(close(&code.to_be_bytes()), Err(Fault::CloseCodeInvalid), "{code}");
    }
}

#[test]
fn a_control_frame_cut_by_the_input_is_assembled_and_freed() {
    let bytes = fragment(OpCode::Pong, true, b"payload");
    let (mut front, mut back) = (bytes[..9].to_vec(), bytes[9..].to_vec());
    let mut decoder = MessageDecoder::new();
    assert_eq!(decoder.next(&mut front.as_mut_slice(), &SERVER), Ok(None));
    assert!(!decoder.is_between_messages());
    let mut input = back.as_mut_slice();
    assert_eq!(decoder.next(&mut input, &SERVER), Ok(Some(Message::Pong(b"payload"))));
    assert!(decoder.is_between_messages());
    assert_eq!(decoder.next(&mut input, &SERVER), Ok(None));
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn a_header_cut_by_the_input_leaves_no_box_once_its_payload_is_whole() {
    let bytes = fragment(OpCode::Text, true, b"hello");
    for cut in 1..6 {
        let (mut front, mut back) = (bytes[..cut].to_vec(), bytes[cut..].to_vec());
        let mut decoder = MessageDecoder::new();
        assert_eq!(decoder.next(&mut front.as_mut_slice(), &SERVER), Ok(None));
        let message = decoder.next(&mut back.as_mut_slice(), &SERVER);
        assert_eq!(message, Ok(Some(Message::Text(&mut b"hello".to_owned()))));
        assert_eq!(decoder.buffered_bytes(), 0, "cut at {cut}");
    }
}
