//! Answers of a backend are decoded or refused, whatever they are.

#![no_main]

use fantail::callback::{Answer, decode_answer};
use fantail::config::CallbackKind;
use fantail::message::Disconnect;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for kind in CallbackKind::ALL {
        match decode_answer(*kind, body) {
            Ok(Answer::Disconnect(disconnect)) => {
                assert!((3000..=4999).contains(&disconnect.disconnect_code()));
                assert!(Disconnect::is_text(disconnect.text()));
            }
            // Each channel that is named takes an entry.
            Ok(answer) => assert!(answer.bytes() <= 1024 + 128 * body.len()),
            Err(_) => {}
        }
    }
});
