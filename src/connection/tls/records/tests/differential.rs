//! Our records against those of rustls: what one seals the other opens, and both refuse the same.

use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundPlainMessage,
};
use rustls::{ContentType, ProtocolVersion, SupportedCipherSuite};

use super::*;

/// Records of each suite; a run with more is made with `FANTAIL_TLS_RECORDS` in a release build.
fn records() -> u64 {
    let given = std::env::var("FANTAIL_TLS_RECORDS").ok();
    given.map_or(3000, |text| text.parse().expect("a number of records"))
}

/// Random numbers from a seed, by xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A length: mostly short, sometimes about the longest.
    fn length(&mut self) -> usize {
        match self.below(40) {
            0 => RECORD_BYTES_MAX - 3 + self.below(6),
            1..=8 => self.below(2000),
            _ => self.below(120),
        }
    }

    fn text(&mut self, length: usize) -> Vec<u8> {
        let seed = self.next();
        (0..length as u64).map(|at| (seed.wrapping_mul(at | 1) >> 33) as u8).collect()
    }
}

/// One direction of a connection as rustls has it.
struct Oracle {
    encrypter: Box<dyn MessageEncrypter>,
    decrypter: Box<dyn MessageDecrypter>,
}

impl Oracle {
    fn new(suite: SupportedCipherSuite, cipher: Cipher, secret: &[u8]) -> Self {
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        super::super::super::keys::expand(cipher, secret, b"key", &mut key);
        super::super::super::keys::expand(cipher, secret, b"iv", &mut iv);
        let algorithm = suite.tls13().expect("a suite of TLS 1.3").aead_alg;
        Self {
            encrypter: algorithm.encrypter(AeadKey::from(key), Iv::new(iv)),
            decrypter: algorithm.decrypter(AeadKey::from(key), Iv::new(iv)),
        }
    }

    fn seal(&mut self, text: &[u8], number: u64) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_2,
            payload: text.into(),
        };
        self.encrypter.encrypt(message, number).expect("it is sealed").encode()
    }

    /// The type and the text of a whole record.
    fn open(&mut self, record: &mut [u8], number: u64) -> Option<(u8, Vec<u8>)> {
        let (kind, version) = (ContentType::from(record[0]), ProtocolVersion::TLSv1_2);
        let message = InboundOpaqueMessage::new(kind, version, &mut record[HEADER_BYTES..]);
        let opened = self.decrypter.decrypt(message, number).ok()?;
        Some((opened.typ.into(), opened.payload.to_vec()))
    }
}

const SUITES: [(SupportedCipherSuite, Cipher, usize); 2] = [
    (TLS13_AES_256_GCM_SHA384, Cipher::Aes256Gcm, 48),
    (TLS13_CHACHA20_POLY1305_SHA256, Cipher::ChaCha20Poly1305, 32),
];

#[test]
fn records_are_sealed_like_those_of_rustls() {
    for (suite, cipher, secret_bytes) in SUITES {
        let mut random = Random(0x5eed);
        let (mut server, _) = pair(cipher, Version::Tls13);
        let mut oracle = Oracle::new(suite, cipher, &vec![2; secret_bytes]);
        for number in 0..records() {
            let length = 1 + random.length().min(RECORD_BYTES_MAX - 1);
            let text = random.text(length);
            assert_eq!(sealed(&mut server, &text), oracle.seal(&text, number), "{number}");
        }
    }
}

#[test]
fn records_are_opened_and_refused_like_those_of_rustls() {
    for (suite, cipher, secret_bytes) in SUITES {
        let mut random = Random(0xface);
        let (mut server, mut client) = pair(cipher, Version::Tls13);
        let mut oracle = Oracle::new(suite, cipher, &vec![1; secret_bytes]);
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..records() {
            let number = u64::from(server.read.number());
            client.write.skip_to(server.read.number());
            let length = random.length();
            let (text, padding) = (random.text(length), random.below(3) * random.length());
            let kind = if random.below(20) == 0 { 0 } else { APPLICATION_DATA };
            if text.len() + 1 + padding + TAG_BYTES > RECORD_BYTES_MAX + 256 {
                continue;
            }
            let mut bytes = record(&mut client, kind, &text, padding);
            if random.below(8) == 0 {
                let at = HEADER_BYTES + random.below(bytes.len() - HEADER_BYTES);
                bytes[at] ^= 1 << random.below(8);
            } else if random.below(16) == 0 {
                let end = HEADER_BYTES + random.below(bytes.len() - HEADER_BYTES);
                bytes.truncate(end);
                let [high, low] = ((end - HEADER_BYTES) as u16).to_be_bytes();
                (bytes[3], bytes[4]) = (high, low);
            }
            let theirs = oracle.open(&mut bytes.clone(), number);
            let opened = server.open(&mut bytes);
            let ours = match opened.fault {
                None => Some((APPLICATION_DATA, bytes[opened.data].to_vec())),
                Some(_) => None,
            };
            // rustls refuses a record without a type, or of an unknown one, behind its decryption.
            let theirs = theirs.filter(|(kind, _)| *kind == APPLICATION_DATA);
            if ours.is_some() {
                accepted += 1;
            } else {
                // It ends the connection: this is another one with the same keys.
                refused += 1;
                server = pair(cipher, Version::Tls13).0;
                server.read.skip_to(number as u32 + 1);
            }
            server.empty_records = 0;
            assert_eq!(ours, theirs, "{number}");
        }
        assert!(accepted > refused && refused > records() / 20, "{accepted} {refused}");
    }
}
