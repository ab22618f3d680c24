use super::super::frame::{OpCode, write_frame};
use super::*;

fn agreement(offer: &str) -> Option<Agreement> {
    Agreement::of_offer(offer.as_bytes())
}

/// A compressed message's payload, made by other code: a stream that is not ended by a block of its own.
fn deflated(text: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(9), false);
    let mut out = Vec::with_capacity(text.len() + 64);
    compress.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&FLUSH_TAIL));
    out.truncate(out.len() - FLUSH_TAIL.len());
    out
}

fn inflated(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    Inflater::default().inflate(payload, bytes_max, &mut out).map(|()| out)
}

#[test]
fn offers_are_accepted_or_declined_as_the_rfc_says() {
    let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate; client_max_window_bits=\"15\"",
        "permessage-deflate;server_no_context_takeover;client_no_context_takeover",
    ] {
        let agreement = agreement(offer).expect(offer);
        assert_eq!(agreement.answer(), answer, "{offer}");
        assert_eq!(agreement.deflate(), Deflate::BothWays);
    }
    for (bits, deflate) in [
        (8, Deflate::FromClient),
        (9, Deflate::FromClient),
        (14, Deflate::FromClient),
        (15, Deflate::BothWays),
    ] {
        let agreement =
            agreement(&format!("permessage-deflate; server_max_window_bits={bits}")).unwrap();
        assert_eq!(agreement.answer(), format!("{answer}; server_max_window_bits={bits}"));
        assert_eq!(agreement.deflate(), deflate);
    }
    for offer in [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=08",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; server_max_window_bits=\"9",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; client_max_window_bits=99",
        "permessage-deflate;",
    ] {
        assert_eq!(agreement(offer), None, "{offer}");
    }
}

/// RFC 7692 7.2.3 has these messages.
#[test]
fn the_examples_of_the_rfc_are_inflated() {
    for payload in [
        &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ] {
        assert_eq!(inflated(payload, 5), Ok(b"Hello".to_vec()), "{payload:02x?}");
        assert_eq!(inflated(payload, 4), Err(Fault::MessageTooLarge));
    }
    // 7.2.3.6 and 7.2.1: an empty message; one of no bytes is taken for it as well.
    assert_eq!(inflated(b"\x00", 0), Ok(Vec::new()));
    assert_eq!(inflated(b"", 0), Ok(Vec::new()));
}

#[test]
fn a_message_that_is_cut_or_goes_on_is_a_fault() {
    let payload = deflated(&b"a subscriber, a publisher, a subscriber, a publisher".repeat(20));
    let whole = inflated(&payload, 10_000).unwrap();
    assert_eq!(whole.len(), 52 * 20);
    for end in 1..payload.len() {
        let cut = inflated(&payload[..end], 10_000);
        assert_eq!(cut, Err(Fault::DeflateInvalid), "{end} of {}", payload.len());
    }
    // A last block ends the message.
    let ended = b"\xf3\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(inflated(ended, 100), Ok(b"Hello".to_vec()));
    for behind in [&b"\x01"[..], b"\x00\x00", b"\xf3\x48\xcd\xc9\xc9\x07\x00"] {
        let payload = [&ended[..], behind].concat();
        assert_eq!(inflated(&payload, 100), Err(Fault::DeflateInvalid), "{behind:02x?}");
    }
    assert_eq!(inflated(b"\x07", 100), Err(Fault::DeflateInvalid), "a block of a reserved kind");
}

#[test]
fn a_message_grows_to_its_limit_and_no_further() {
    for len in [0, 1, 255, 256, 257, 5000, 1 << 20] {
        let payload = deflated(&vec![b'a'; len]);
        let mut out = Vec::new();
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&payload, len, &mut out), Ok(()), "{len}");
        assert_eq!((out.len(), out.iter().all(|byte| *byte == b'a')), (len, true));
        if len > 0 {
            let mut out = Vec::new();
            let fault = inflater.inflate(&payload, len - 1, &mut out);
            assert_eq!(
                (fault, out.capacity() <= len),
                (Err(Fault::MessageTooLarge), true),
                "{len}"
            );
        }
    }
}

#[test]
fn a_frame_is_compressed_if_that_makes_it_smaller() {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..1000)
        .map(|_| {
            // Xorshift: nothing repeats.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect();
    let text = b"{\"channel\":\"prices\",\"bid\":1.2345,\"ask\":1.2346}".repeat(30);
    let mut deflater = Deflater::new(200, 6);
    for (payload, is_smaller) in [
        (&text[..], true),
        (&text[..200], true),
        (&text[..199], false),
        (&noise, false),
        (b"", false),
    ] {
        let mut plain = b"before".to_vec();
        write_frame(&mut plain, OpCode::Text, payload);
        let mut out = plain.clone();
        deflater.deflate_frame(&mut out, 6);
        assert_eq!(out != plain, is_smaller, "{} bytes", payload.len());
        if !is_smaller {
            continue;
        }
        assert!(out.len() < plain.len());
        let (header, header_bytes) = decode_header(&out[6..], true).unwrap().unwrap();
        assert!(header.is_compressed && header.fin && header.opcode == OpCode::Text);
        let compressed = &out[6 + header_bytes..];
        assert_eq!(compressed.len() as u64, header.payload_len);
        assert_eq!(inflated(compressed, payload.len()).as_deref(), Ok(payload));
    }
    let mut none = Vec::new();
    deflater.deflate_frame(&mut none, 0);
    assert!(none.is_empty());
    // Without settings nothing is compressed.
    let mut out = Vec::new();
    write_frame(&mut out, OpCode::Text, &text);
    let plain = out.clone();
    Deflater::default().deflate_frame(&mut out, 0);
    assert_eq!(out, plain);
}
