use super::*;

mod differential;

/// The secrets and records of RFC 8448 section 3.
const CLIENT_SECRET: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER_SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
const OF_CLIENT: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a2044\
    1e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const OF_SERVER: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a\
    59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLOSE_OF_CLIENT: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const CLOSE_OF_SERVER: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

const CIPHERS: [Cipher; 3] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// A server and its client, whose records differ in nothing but their keys.
fn pair(cipher: Cipher, version: Version) -> (Session, Session) {
    let direction = |seed: u8| match version {
        Version::Tls13 => {
            let secret = vec![seed; if cipher == Cipher::Aes256Gcm { 48 } else { 32 }];
            Direction::of_secret(cipher, &secret, 0).unwrap()
        }
        Version::Tls12 => {
            let key = vec![seed; if cipher == Cipher::Aes128Gcm { 16 } else { 32 }];
            Direction::of_key(cipher, &key, &[seed; 12], 1).unwrap()
        }
    };
    let of = |read, write| Session::new(cipher, version, direction(read), direction(write));
    (of(1, 2), of(2, 1))
}

fn pairs() -> impl Iterator<Item = (Session, Session)> {
    let versions = [Version::Tls12, Version::Tls13];
    CIPHERS.into_iter().flat_map(move |cipher| versions.map(|version| pair(cipher, version)))
}

fn tls13() -> (Session, Session) {
    pair(Cipher::Aes128Gcm, Version::Tls13)
}

fn sealed(session: &mut Session, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = session.begin(&mut out);
    out.extend_from_slice(data);
    session.finish(&mut out, start);
    out
}

/// A record of any type, padded with zeros.
fn record(session: &mut Session, kind: u8, text: &[u8], padding: usize) -> Vec<u8> {
    assert_eq!(session.version, Version::Tls13);
    let aead = session.write.aead(session.cipher, session.version);
    let mut body = [text, &[kind], &vec![0; padding]].concat();
    let header = header(APPLICATION_DATA, body.len() + TAG_BYTES);
    let nonce = aead.nonce(session.write.take().unwrap());
    let tag = aead.seal(nonce, &header, &mut body);
    [&header[..], &body, &tag].concat()
}

/// The data of records that came without a fault.
fn data(session: &mut Session, mut bytes: Vec<u8>) -> Vec<u8> {
    let opened = session.open(&mut bytes);
    assert_eq!((opened.fault, opened.taken), (None, bytes.len()));
    bytes[opened.data].to_vec()
}

#[track_caller]
fn fault(session: &mut Session, mut bytes: Vec<u8>) -> Fault {
    let opened = session.open(&mut bytes);
    assert!(opened.data.is_empty());
    opened.fault.expect("the connection ends")
}

fn update(is_requested: u8) -> [u8; 5] {
    [24, 0, 0, 1, is_requested]
}

#[test]
fn the_trace_of_rfc_8448_is_opened_and_sealed_alike() {
    let direction = |secret, next| Direction::of_secret(Cipher::Aes128Gcm, &bytes(secret), next);
    // The server sent a ticket before.
    let (read, write) =
        (direction(CLIENT_SECRET, 0).unwrap(), direction(SERVER_SECRET, 1).unwrap());
    assert!(read.has(
        Cipher::Aes128Gcm,
        &bytes("17422dda596ed5d9acd890e3c63f5051"),
        &bytes("5b78923dee08579033e523d9")
    ));
    let mut server = Session::new(Cipher::Aes128Gcm, Version::Tls13, read, write);
    let text: Vec<u8> = (0..50).collect();
    assert_eq!(data(&mut server, bytes(OF_CLIENT)), text);
    assert_eq!(sealed(&mut server, &text), bytes(OF_SERVER));
    assert_eq!(data(&mut server, bytes(CLOSE_OF_CLIENT)), b"");
    assert!(server.has_peer_closed() && !server.has_closed());
    let mut close = Vec::new();
    server.close(Alert::CloseNotify, &mut close);
    server.close(Alert::CloseNotify, &mut close);
    assert_eq!(close, bytes(CLOSE_OF_SERVER), "once");
}

#[test]
fn records_are_opened_wherever_they_are_split() {
    for (mut server, mut client) in pairs() {
        let records = [
            sealed(&mut client, b"one"),
            sealed(&mut client, b""),
            sealed(&mut client, &[7; RECORD_BYTES_MAX]),
            sealed(&mut client, b"three"),
        ];
        assert!(records[1].is_empty(), "without data there is no record");
        let all = records.concat();
        let expected = [b"one", &[7; RECORD_BYTES_MAX][..], b"three"].concat();
        for at in (0..200).chain([all.len() - 1]) {
            let mut session = pair(server.cipher, server.version).0;
            let mut first = all[..at].to_vec();
            let opened = session.open(&mut first);
            assert_eq!(opened.fault, None);
            let mut came = first[opened.data].to_vec();
            let rest = [&all[opened.taken..at], &all[at..]].concat();
            came.extend(data(&mut session, rest));
            assert!(came == expected, "split at {at}");
        }
        let mut came = Vec::new();
        let mut waiting = Vec::new();
        for byte in all {
            waiting.push(byte);
            let opened = server.open(&mut waiting);
            came.extend_from_slice(&waiting[opened.data]);
            waiting.drain(..opened.taken);
        }
        assert!(came == expected && waiting.is_empty());
    }
}

#[test]
fn no_number_is_used_twice_with_the_same_keys() {
    for (mut server, mut client) in pairs() {
        let is_explicit = server.cipher.has_explicit_nonce(server.version);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let out = sealed(&mut server, b"the same");
            assert!(seen.insert(out.clone()), "{server:?}");
            if is_explicit {
                assert_ne!(out[HEADER_BYTES..HEADER_BYTES + 8], [0; 8]);
            }
            assert_eq!(data(&mut client, out), b"the same");
        }
    }
}

#[test]
fn a_record_that_was_changed_replayed_or_left_out_ends_the_connection() {
    for (mut server, mut client) in pairs() {
        let first = sealed(&mut client, b"first");
        let second = sealed(&mut client, b"second");
        let third = sealed(&mut client, b"third");
        let bad = Fault::Ours(Alert::BadRecordMac);
        let fresh = || pair(server.cipher, server.version).0;
        let explicit = if server.version == Version::Tls12 { HEADER_BYTES } else { 0 };
        for at in (explicit..first.len()).filter(|at| *at >= HEADER_BYTES) {
            let mut changed = first.clone();
            changed[at] ^= 1;
            assert_eq!(fault(&mut fresh(), changed), bad, "byte {at}");
        }
        if server.version == Version::Tls13 {
            assert_eq!(fault(&mut fresh(), second.clone()), bad, "the first is left out");
        }
        assert_eq!(data(&mut server, first.clone()), b"first");
        assert_eq!(fault(&mut server, first), bad, "the first came already");
        let (mut server, _) = pair(client.cipher, client.version);
        let opened = server.open(
            &mut [sealed(&mut pair(client.cipher, client.version).1, b"first"), third].concat(),
        );
        assert_eq!(opened.fault, Some(bad), "the second is left out");
        assert!(!opened.data.is_empty(), "what came before is taken");
    }
}

#[test]
fn lengths_are_checked_before_a_record_has_come() {
    for (version, most) in [(Version::Tls13, 16_384 + 256), (Version::Tls12, 16_384 + 2048)] {
        let (mut server, _) = pair(Cipher::Aes128Gcm, version);
        let mut opened = server.open(&mut header(APPLICATION_DATA, most));
        assert_eq!((opened.fault, opened.taken), (None, 0));
        opened = server.open(&mut header(APPLICATION_DATA, most + 1));
        assert_eq!(opened.fault, Some(Fault::Ours(Alert::RecordOverflow)));
        let short = [&header(APPLICATION_DATA, 3)[..], &[0; 3]].concat();
        assert_eq!(fault(&mut server, short), Fault::Ours(Alert::BadRecordMac));
    }
    let (mut server, mut client) = tls13();
    let padded = record(&mut client, APPLICATION_DATA, b"x", RECORD_BYTES_MAX - 1);
    assert_eq!(data(&mut server, padded), b"x");
    let longer = record(&mut client, APPLICATION_DATA, b"x", RECORD_BYTES_MAX);
    assert_eq!(fault(&mut server, longer), Fault::Ours(Alert::RecordOverflow));
}

#[test]
fn padding_is_stripped_and_what_has_no_type_is_refused() {
    let (mut server, mut client) = tls13();
    for padding in [0, 1, 16, 300] {
        let padded = record(&mut client, APPLICATION_DATA, b"text\0", padding);
        assert_eq!(data(&mut server, padded), b"text\0");
    }
    let unexpected = Fault::Ours(Alert::UnexpectedMessage);
    for (kind, text) in
        [(0, &b""[..]), (CHANGE_CIPHER_SPEC, b"\x01"), (24, b"x"), (ALERT, b""), (HANDSHAKE, b"")]
    {
        let (mut server, mut client) = tls13();
        let record = record(&mut client, kind, text, 3);
        assert_eq!(fault(&mut server, record), unexpected, "type {kind}");
    }
    for kind in [CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, b'G'] {
        let plain = [&header(kind, 1)[..], &[1]].concat();
        assert_eq!(fault(&mut tls13().0, plain), unexpected, "not encrypted: {kind}");
    }
}

#[test]
fn empty_records_are_limited_and_data_begins_the_count_again() {
    let (mut server, mut client) = tls13();
    for _ in 0..2 {
        for _ in 0..EMPTY_RECORDS_MAX {
            let empty = record(&mut client, APPLICATION_DATA, b"", 0);
            assert_eq!(data(&mut server, empty), b"");
        }
        let some = sealed(&mut client, b"x");
        assert_eq!(data(&mut server, some), b"x");
    }
    for at in 0..=EMPTY_RECORDS_MAX {
        let empty = record(&mut client, APPLICATION_DATA, b"", 9);
        let opened = server.open(&mut empty.clone());
        assert_eq!(opened.fault.is_some(), at == EMPTY_RECORDS_MAX);
    }
}

#[test]
fn a_key_update_is_obeyed_and_answered_once() {
    for cipher in CIPHERS {
        let (mut server, mut client) = pair(cipher, Version::Tls13);
        for is_requested in [0, 1, 1] {
            let message = record(&mut client, HANDSHAKE, &update(is_requested), 0);
            client.write.update(cipher);
            assert_eq!(data(&mut server, message), b"");
            let next = sealed(&mut client, b"with the new key");
            assert_eq!(data(&mut server, next), b"with the new key");
            assert_eq!(server.is_urgent(), is_requested == 1);
        }
        let answer = sealed(&mut server, b"answer");
        assert!(!server.is_urgent());
        assert_eq!(answer.len(), 2 * (HEADER_BYTES + 1 + TAG_BYTES) + 5 + 6);
        assert_eq!(data(&mut client, answer), b"answer");
        assert!(!client.is_urgent(), "an answer asks for none");
    }
}

#[test]
fn a_key_update_may_come_in_pieces_and_nothing_else_with_it() {
    let (mut server, mut client) = tls13();
    for byte in update(0) {
        let piece = record(&mut client, HANDSHAKE, &[byte], 0);
        assert_eq!(data(&mut server, piece), b"");
    }
    client.write.update(Cipher::Aes128Gcm);
    let next = sealed(&mut client, b"x");
    assert_eq!(data(&mut server, next), b"x");
    let two = [update(0), update(0)].concat();
    for (pieces, alert) in [
        (vec![(HANDSHAKE, &two[..])], Alert::UnexpectedMessage),
        (vec![(HANDSHAKE, &[24, 0]), (APPLICATION_DATA, b"x")], Alert::UnexpectedMessage),
        (vec![(HANDSHAKE, &[24, 0]), (ALERT, &[1, 0])], Alert::UnexpectedMessage),
        (vec![(HANDSHAKE, &[24, 0, 0, 1, 2])], Alert::IllegalParameter),
        (vec![(HANDSHAKE, &[24, 0, 0, 2, 0, 0])], Alert::DecodeError),
        (vec![(HANDSHAKE, &[1, 0, 0, 1, 0])], Alert::UnexpectedMessage),
    ] {
        let (mut server, mut client) = tls13();
        let records: Vec<u8> =
            pieces.iter().flat_map(|(kind, text)| record(&mut client, *kind, text, 0)).collect();
        assert_eq!(fault(&mut server, records), Fault::Ours(alert), "{pieces:?}");
    }
}

#[test]
fn keys_are_changed_before_they_were_used_too_often() {
    let (mut server, mut client) = tls13();
    for session in [&mut server.write, &mut client.read] {
        session.skip_to(SEALED_MAX - 1);
    }
    let last = sealed(&mut server, b"last");
    assert_eq!(last.len(), HEADER_BYTES + 4 + 1 + TAG_BYTES);
    let next = sealed(&mut server, b"next");
    assert_eq!(data(&mut client, [last, next].concat()), b"lastnext");
    assert_eq!((server.write.number(), client.read.number()), (1, 1));
    // The peer is asked for a key in time.
    client.write.skip_to(OPENED_MAX - 1);
    server.read.skip_to(OPENED_MAX - 1);
    let text = record(&mut client, APPLICATION_DATA, b"x", 0);
    assert_eq!(data(&mut server, text), b"x");
    let asked = sealed(&mut server, b"");
    assert_eq!(data(&mut client, asked), b"");
    assert!(client.is_urgent(), "it was asked");
    let (mut old, _) = pair(Cipher::Aes128Gcm, Version::Tls12);
    old.write.skip_to(SEALED_MAX - 1);
    assert!(!old.is_used_up());
    sealed(&mut old, b"x");
    assert!(old.is_used_up());
}

#[test]
fn alerts_end_the_connection_but_for_warnings() {
    let alert = |code, level| {
        let (mut server, mut client) = tls13();
        let mut record = record(&mut client, ALERT, &[level, code], 0);
        (server.open(&mut record).fault, server.has_peer_closed())
    };
    assert_eq!(alert(0, 1), (None, true));
    assert_eq!(alert(0, 2), (None, true), "TLS 1.3 ignores the level");
    assert_eq!(alert(USER_CANCELED, 1), (None, false));
    assert_eq!(alert(40, 1), (Some(Fault::Peers(40)), false));
    let (mut server, mut client) = tls13();
    let long = record(&mut client, ALERT, &[1, 0, 0], 0);
    assert_eq!(fault(&mut server, long), Fault::Ours(Alert::DecodeError));
    let (mut server, mut client) = pair(Cipher::Aes128Gcm, Version::Tls12);
    let mut out = Vec::new();
    client.close(Alert::CloseNotify, &mut out);
    let opened = server.open(&mut [&out[..], b"ignored"].concat());
    assert_eq!((opened.fault, opened.taken), (None, out.len() + 7), "nothing follows it");
    assert!(server.has_peer_closed());
    let mut again = Vec::new();
    let start = client.make_room(&mut again);
    again.extend_from_slice(&[1, 0, 0, 0]);
    client.seal(HANDSHAKE, &mut again, start);
    let (mut server, _) = pair(Cipher::Aes128Gcm, Version::Tls12);
    server.read.skip_to(2);
    assert_eq!(fault(&mut server, again), Fault::Ours(Alert::NoRenegotiation));
}

#[test]
fn a_session_is_small_and_shows_no_keys() {
    assert!(size_of::<Session>() <= 136);
    assert_eq!(format!("{:?}", tls13().0), "Session(Tls13, Aes128Gcm)");
}
