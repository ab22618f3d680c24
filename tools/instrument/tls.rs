//! The client's side of TLS: rustls does the handshake, and then two keys are all that is kept, so that a load of very
//! many connections fits one host beside its server.
//!
//! It speaks TLS 1.3 with AES-128-GCM alone, which every server of TLS 1.3 has (RFC 8446 9.1), and believes every
//! certificate: a load proves nothing about the server, and sends it nothing that is secret.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, DigitallySignedStruct, Error,
    SignatureScheme,
};

/// What the handshakes of a load have in common.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

/// A handshake that is under way.
#[derive(Debug)]
pub struct TlsHandshake {
    rustls: ClientConnection,
    input: Vec<u8>,
}

/// Where a handshake is.
#[derive(Debug)]
pub enum TlsProgress {
    /// More is to come from the server.
    More(Box<TlsHandshake>),
    /// It is complete, and these bytes came behind it.
    Done(TlsSession, Vec<u8>),
}

/// What is left of TLS behind a handshake.
#[derive(Debug)]
pub struct TlsSession {
    read: Direction,
    write: Direction,
}

/// What came in whole records.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the data of all records is now.
    pub data: Range<usize>,
    /// Bytes of whole records; those behind them begin one whose end has not come.
    pub taken: usize,
    /// Whether the server sends no more, as it said.
    pub is_end: bool,
}

#[derive(Debug)]
struct Direction {
    key: [u8; KEY_BYTES],
    iv: [u8; IV_BYTES],
    /// The number of the next record.
    next: u32,
}

const KEY_BYTES: usize = 16;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 5;

/// Most data in one record: RFC 8446 5.1.
const RECORD_BYTES_MAX: usize = 1 << 14;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Handshake messages that a server may send at any time: RFC 8446 4.6.
const NEW_SESSION_TICKET: u8 = 4;

const _: () = assert!(size_of::<TlsSession>() == 64, "as many bytes as the connection itself");

impl Tls {
    /// The handshakes of a load.
    pub fn new() -> Self {
        const GROUPS: &[&dyn SupportedKxGroup] = &[kx_group::X25519];
        let provider = CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: GROUPS.to_vec(),
            ..default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the suite belongs to the version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        Self(Arc::new(config))
    }

    /// Begins a handshake, and appends what is to be sent.
    pub fn begin(&self, out: &mut Vec<u8>) -> io::Result<Box<TlsHandshake>> {
        let name = ServerName::try_from("localhost").expect("a name");
        let rustls = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        let mut handshake = TlsHandshake { rustls, input: Vec::new() };
        handshake.write(out)?;
        Ok(Box::new(handshake))
    }
}

impl TlsHandshake {
    /// Takes bytes of the server, and appends what is to be sent.
    pub fn receive(
        mut self: Box<Self>,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> io::Result<TlsProgress> {
        self.input.extend_from_slice(bytes);
        // A record at a time, so that rustls keeps none of those behind the handshake.
        while let Some(end) = end_of_record(&self.input) {
            let mut record = &self.input[..end];
            while !record.is_empty() {
                self.rustls.read_tls(&mut record)?;
            }
            self.input.drain(..end);
            let processed = self.rustls.process_new_packets().map(drop);
            self.write(out)?;
            processed.map_err(io::Error::other)?;
            if !self.rustls.is_handshaking() {
                let Self { rustls, input } = *self;
                return Ok(TlsProgress::Done(TlsSession::of(rustls)?, input));
            }
        }
        Ok(TlsProgress::More(self))
    }

    fn write(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.rustls.wants_write() {
            self.rustls.write_tls(out)?;
        }
        Ok(())
    }
}

impl TlsSession {
    fn of(rustls: ClientConnection) -> io::Result<Self> {
        let secrets = rustls.dangerous_extract_secrets().map_err(io::Error::other)?;
        let direction = |(next, keys): (u64, ConnectionTrafficSecrets)| match keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Some(Direction {
                key: key.as_ref().try_into().ok()?,
                iv: iv.as_ref().try_into().ok()?,
                next: u32::try_from(next).ok()?,
            }),
            _ => None,
        };
        let both = direction(secrets.rx).zip(direction(secrets.tx));
        let (read, write) =
            both.ok_or_else(|| io::Error::other("the keys are of another suite"))?;
        Ok(Self { read, write })
    }

    /// Appends the records of some bytes.
    pub fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let key = self.write.key();
        for part in bytes.chunks(RECORD_BYTES_MAX) {
            let start = out.len();
            let length = u16::try_from(part.len() + 1 + TAG_BYTES).expect("a record is short");
            let [high, low] = length.to_be_bytes();
            let header = [APPLICATION_DATA, 3, 3, high, low];
            out.extend_from_slice(&header);
            out.extend_from_slice(part);
            out.push(APPLICATION_DATA);
            let text = &mut out[start + HEADER_BYTES..];
            let tag = key.seal_in_place_separate_tag(self.write.nonce(), Aad::from(header), text);
            out.extend_from_slice(tag.expect("a record is short").as_ref());
        }
    }

    /// Opens the whole records at the beginning of `bytes`, in place.
    pub fn open(&mut self, bytes: &mut [u8]) -> io::Result<Opened> {
        let mut opened = Opened { data: 0..0, taken: 0, is_end: false };
        let key = self.read.key();
        while !opened.is_end
            && let Some(length) = end_of_record(&bytes[opened.taken..])
        {
            let begin = opened.taken + HEADER_BYTES;
            opened.taken += length;
            let (header, text) =
                bytes[begin - HEADER_BYTES..opened.taken].split_at_mut(HEADER_BYTES);
            let text = key
                .open_in_place(self.read.nonce(), Aad::from(&*header), text)
                .map_err(|_| io::Error::other("a record is not what the server sealed"))?;
            // Behind the type, there may be zeros.
            let at = text.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            match (text[at], &text[..at]) {
                (APPLICATION_DATA, _) => {
                    let text = begin..begin + at;
                    if opened.data.is_empty() {
                        opened.data = text;
                    } else {
                        bytes.copy_within(text, opened.data.end);
                        opened.data.end += at;
                    }
                }
                (HANDSHAKE, [NEW_SESSION_TICKET, ..]) => {}
                (ALERT, alert) if alert == CLOSE_NOTIFY => opened.is_end = true,
                (kind, text) => {
                    let text = format!("the server sent a record of type {kind}: {text:?}");
                    return Err(io::Error::other(text));
                }
            }
        }
        Ok(opened)
    }
}

impl Direction {
    fn key(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_128_GCM, &self.key).expect("the length is the cipher's");
        LessSafeKey::new(key)
    }

    /// Takes the nonce of the next record: RFC 8446 5.3.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[IV_BYTES - 4..].iter_mut().zip(self.next.to_be_bytes()) {
            *byte ^= of_number;
        }
        self.next = self.next.checked_add(1).expect("fewer records than servers allow for one key");
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The end of the record at the beginning of `bytes`, if it has come.
fn end_of_record(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let end = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    (bytes.len() >= end).then_some(end)
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// A server, and the session of the load with it.
    fn sessions() -> (ServerConnection, TlsSession) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        let mut to_server = Vec::new();
        let mut client = Tls::new().begin(&mut to_server).unwrap();
        assert!(received(&mut server, &std::mem::take(&mut to_server)).is_empty());
        let mut to_client = sent(&mut server);
        // A byte at a time: parts of records wait for their end.
        let last = to_client.pop().unwrap();
        for byte in to_client {
            let TlsProgress::More(more) = client.receive(&[byte], &mut to_server).unwrap() else {
                panic!("the handshake ends with its last byte")
            };
            client = more;
        }
        let Ok(TlsProgress::Done(client, rest)) = client.receive(&[last], &mut to_server) else {
            panic!("the handshake is complete")
        };
        assert!(rest.is_empty());
        assert!(received(&mut server, &to_server).is_empty());
        assert!(!server.is_handshaking());
        (server, client)
    }

    /// What a server sends.
    fn sent(server: &mut ServerConnection) -> Vec<u8> {
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// The data of what a server receives.
    fn received(server: &mut ServerConnection, mut bytes: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets().unwrap();
            // Its end is that there is not more yet.
            assert!(server.reader().read_to_end(&mut data).is_err());
        }
        data
    }

    #[test]
    fn the_server_and_the_load_read_each_other() {
        let (mut server, mut client) = sessions();
        let long = vec![7; 40_000];
        for text in [&b"one"[..], b"two", &long] {
            let mut sealed = Vec::new();
            client.seal(text, &mut sealed);
            assert_eq!(received(&mut server, &sealed), text);
        }
        // Tickets, which came with the handshake, and two records.
        let mut sealed = sent(&mut server);
        for text in ["one", "two"] {
            server.writer().write_all(text.as_bytes()).unwrap();
            sealed.append(&mut sent(&mut server));
        }
        let length = sealed.len();
        sealed.extend_from_slice(&[APPLICATION_DATA, 3, 3, 0]);
        let opened = client.open(&mut sealed).unwrap();
        assert_eq!((opened.taken, opened.is_end), (length, false));
        assert_eq!(&sealed[opened.data], b"onetwo");
        server.send_close_notify();
        assert!(client.open(&mut sent(&mut server)).unwrap().is_end);
    }

    #[test]
    fn a_record_that_was_changed_is_an_error() {
        let (mut server, mut client) = sessions();
        server.writer().write_all(b"text").unwrap();
        let mut sealed = sent(&mut server);
        *sealed.last_mut().unwrap() ^= 1;
        assert!(client.open(&mut sealed).is_err());
    }
}
