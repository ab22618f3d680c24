//! Handshakes and records in memory, against a client of rustls with its own records.

use std::io::{Read, Write};
use std::sync::Arc;

use fantail::connection::tls::{
    Certificate, Clients, Handshake, Identity, IdentityParts, Progress, Session, Terms,
    TicketSecrets,
};
use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::client::Offer;
use crate::random::Random;

const TERMS: Terms = Terms { is_http: true, has_tickets: true };

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let certificate = Certificate::read(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    let parts = IdentityParts {
        certificates: vec![certificate],
        allows_tls12: true,
        tickets: TicketSecrets::random(),
        clients: Clients::Unasked,
    };
    Identity::new(parts).unwrap()
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(config.clone(), name).unwrap();
    client.set_buffer_limit(None);
    client
}

/// What a client sends next.
fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut out = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut out).unwrap();
    }
    out
}

/// Has a client take bytes, and returns the data in them.
fn received(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = client.reader().read(&mut chunk) {
            data.extend_from_slice(&chunk[..count]);
        }
    }
    data
}

/// A step of a handshake that gets bytes in two pieces. What is left of it at its end, or the handshake.
fn step(
    mut handshake: Box<Handshake>,
    bytes: &[u8],
    at: usize,
    out: &mut Vec<u8>,
) -> Result<Box<Handshake>, Box<Session>> {
    for piece in [&bytes[..at], &bytes[at..]] {
        if handshake.receive(piece).unwrap() {
            match handshake.step(0, out).unwrap() {
                Progress::More(more) => handshake = more,
                Progress::Done(done) => {
                    assert!(done.rest.is_empty() && done.user.is_none());
                    return Err(Box::new(done.session));
                }
            }
        }
    }
    Ok(handshake)
}

/// A client and a server whose handshake is complete. `cut` is where each flight of the client is split.
fn connected(
    identity: &Identity,
    config: &Arc<ClientConfig>,
    cut: usize,
) -> (ClientConnection, Session) {
    let mut client = client(config);
    let mut handshake = Handshake::new(identity, TERMS).unwrap();
    loop {
        let (bytes, mut out) = (sent(&mut client), Vec::new());
        let next = step(handshake, &bytes, cut.min(bytes.len()), &mut out);
        assert!(received(&mut client, &out).is_empty());
        match next {
            Ok(more) => handshake = more,
            Err(session) => return (client, *session),
        }
    }
}

#[test]
fn a_handshake_may_be_split_at_every_byte() {
    let identity = identity();
    for version in [TLSv1_3, TLSv1_2] {
        let config = Offer { version, ..Offer::default() }.config();
        // A full one, then those of a client that comes back.
        let longest = sent(&mut client(&config)).len() + 300;
        for cut in 0..=longest {
            let (mut client, mut session) = connected(&identity, &config, cut);
            client.writer().write_all(b"hello").unwrap();
            let mut bytes = sent(&mut client);
            let opened = session.open(&mut bytes);
            assert_eq!((&bytes[opened.data], opened.fault), (&b"hello"[..], None));
        }
    }
}

/// A text of random length.
fn random_text(random: &mut Random) -> Vec<u8> {
    let length = match random.below(30) {
        0 => 10_000 + random.below(40_000),
        1..=5 => random.below(3000),
        _ => random.below(150),
    };
    let seed = random.below(251);
    (0..=length).map(|at| (at + seed) as u8).collect()
}

/// Records of each suite and direction; a run with more is made with `FANTAIL_TLS_RECORDS` in a release build.
fn records() -> usize {
    let given = std::env::var("FANTAIL_TLS_RECORDS").ok();
    given.map_or(1500, |text| text.parse().expect("a number of records"))
}

#[test]
fn a_client_with_the_records_of_rustls_understands_ours_and_is_understood() {
    let identity = identity();
    for suite in ALL_CIPHER_SUITES {
        if format!("{:?}", suite.suite()).contains("RSA") {
            continue;
        }
        let is_tls13 = suite.tls13().is_some();
        let version = if is_tls13 { TLSv1_3 } else { TLSv1_2 };
        let config = Offer { version, suite: Some(*suite), ..Offer::default() }.config();
        let (mut client, mut session) = connected(&identity, &config, 0);
        let mut random = Random(0x1234_5678 + u64::from(u16::from(suite.suite())));
        let mut part = Vec::new();
        for _ in 0..records() {
            let text = random_text(&mut random);
            if is_tls13 && random.below(20) == 0 {
                client.refresh_traffic_keys().unwrap();
            }
            client.writer().write_all(&text).unwrap();
            let (bytes, mut data) = (sent(&mut client), Vec::new());
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at((1 + random.below(9000)).min(rest.len()));
                rest = more;
                part.extend_from_slice(piece);
                let opened = session.open(&mut part);
                assert_eq!(opened.fault, None);
                data.extend_from_slice(&part[opened.data]);
                part.drain(..opened.taken);
            }
            assert!(data == text, "{suite:?}");
            let (text, mut out) = (random_text(&mut random), Vec::new());
            for chunk in text.chunks(16 * 1024) {
                let start = session.begin(&mut out);
                out.extend_from_slice(chunk);
                session.finish(&mut out, start);
            }
            let mut data = Vec::new();
            let mut rest = &out[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at((1 + random.below(9000)).min(rest.len()));
                data.extend(received(&mut client, piece));
                rest = more;
            }
            assert!(data == text, "{suite:?}");
        }
    }
}
