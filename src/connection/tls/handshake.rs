//! Handshakes, which rustls does: the one file that drives it.
//!
//! A handshake gets one record at a time, so that what the client sends behind it stays as it came. At its end the keys
//! and the traffic secrets are taken out of rustls, which is then freed.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ConnectionTrafficSecrets, KeyLog, ProtocolVersion, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use super::keys::{Cipher, Direction, Version};
use super::records::{HEADER_BYTES, SEALED_RECORD_BYTES_MAX, Session};

/// The certificate of a server, with its key, and the versions of TLS that it speaks.
#[derive(Clone)]
pub struct Identity {
    http: Arc<ServerConfig>,
    /// Without a protocol to be agreed on.
    raw: Arc<ServerConfig>,
}

/// A handshake that is under way. It is made when the first bytes come.
pub struct Handshake {
    rustls: UnbufferedServerConnection,
    input: Vec<u8>,
    /// The bytes of `input` that rustls was given.
    given: usize,
    secrets: Secrets,
}

/// Where a handshake is after a step.
#[derive(Debug)]
pub enum Progress {
    /// More is to come from the client.
    More(Box<Handshake>),
    /// It is complete, and these bytes came behind it.
    Done(Session, Vec<u8>),
}

/// Why a handshake failed. The alert that says so, if there is one, is among what is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeFault(pub String);

/// The traffic secrets of TLS 1.3, which rustls names in passing.
#[derive(Default)]
struct Secrets {
    client: Vec<u8>,
    server: Vec<u8>,
}

thread_local! {
    /// What rustls named during the step that is under way on this thread.
    static NAMED: RefCell<Secrets> = RefCell::default();
}

/// Receives the secrets: they come on the thread of the step.
#[derive(Debug)]
struct SecretsOfStep;

/// The heap of a handshake that waits for the client's last message, beside the bytes that came.
const HANDSHAKE_BYTES: usize = 4096;

/// More bytes than a client sends before its handshake is complete: rustls takes messages of up to 64 KiB.
const INPUT_BYTES_MAX: usize = 128 * 1024;

/// Suites in the order in which they are chosen: every client of TLS 1.3 has the first (RFC 8446 9.1).
const SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

/// Groups of the key exchange. Clients that would have to begin again for P-384 have one of these too.
const GROUPS: &[&dyn SupportedKxGroup] =
    &[kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

impl Identity {
    /// Reads a chain of certificates and the key of the first one, both in PEM. The error says what is wrong with them.
    pub fn new(chain: &[u8], key: &[u8], allows_tls12: bool) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("the certificates: {error}"))?;
        if chain.is_empty() {
            return Err(
                "there is no certificate: it begins with -----BEGIN CERTIFICATE-----".into()
            );
        }
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| format!("the key: {error}"))?;
        let provider = CryptoProvider {
            cipher_suites: SUITES.to_vec(),
            kx_groups: GROUPS.to_vec(),
            ..default_provider()
        };
        let versions = if allows_tls12 { BOTH } else { &BOTH[..1] };
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let mut raw = builder
            .with_protocol_versions(versions)
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| format!("the certificate and the key: {error}"))?;
        raw.ignore_client_order = true;
        raw.enable_secret_extraction = true;
        raw.key_log = Arc::new(SecretsOfStep);
        raw.session_storage = Arc::new(NoServerSessionStorage {});
        raw.send_tls13_tickets = 0;
        let mut http = raw.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { http: Arc::new(http), raw: Arc::new(raw) })
    }
}

impl Handshake {
    /// A handshake on a connection for HTTP, or for another protocol.
    pub fn new(identity: &Identity, is_http: bool) -> Result<Box<Self>, HandshakeFault> {
        let config = if is_http { &identity.http } else { &identity.raw };
        let rustls = UnbufferedServerConnection::new(config.clone()).map_err(fault)?;
        Ok(Box::new(Self { rustls, input: Vec::new(), given: 0, secrets: Secrets::default() }))
    }

    /// Takes bytes of the client. Returns whether a step is to follow: a whole record has come.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<bool, HandshakeFault> {
        self.input.extend_from_slice(bytes);
        if self.input.len() > INPUT_BYTES_MAX {
            return Err(HandshakeFault("too much came before the handshake was complete".into()));
        }
        Ok(self.end_of_next().is_some())
    }

    /// Heap that it owns.
    pub fn heap_bytes(&self) -> usize {
        HANDSHAKE_BYTES + self.input.capacity()
    }

    /// Goes on with what has come, and appends what is to be sent.
    pub fn step(mut self: Box<Self>, out: &mut Vec<u8>) -> Result<Progress, HandshakeFault> {
        loop {
            NAMED.set(Secrets::default());
            let given = &mut self.input[..self.given];
            let UnbufferedStatus { discard, state } = self.rustls.process_tls_records(given);
            let next = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, out).map(|()| Next::Again)
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(Next::Again)
                }
                Ok(ConnectionState::BlockedHandshake) => Ok(Next::Record),
                Ok(ConnectionState::WriteTraffic(_)) => Ok(Next::Done),
                Ok(_) => Err(HandshakeFault("the client ended it".into())),
                Err(error) => Err(fault(error)),
            };
            self.input.drain(..discard);
            self.given -= discard;
            let mut named = NAMED.take();
            if !named.client.is_empty() {
                self.secrets.client = std::mem::take(&mut named.client);
            }
            if !named.server.is_empty() {
                self.secrets.server = std::mem::take(&mut named.server);
            }
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Record) => match self.end_of_next() {
                    Some(end) => self.given = end,
                    None => return Ok(Progress::More(self)),
                },
                Ok(Next::Done) => {
                    let Self { rustls, input, secrets, .. } = *self;
                    return Ok(Progress::Done(session(rustls, &secrets)?, input));
                }
                Err(fault) => {
                    self.encode_alert(out);
                    return Err(fault);
                }
            }
        }
    }

    /// The end of the record behind those that rustls was given, if it has come; or of what can be none, for rustls to
    /// refuse it.
    fn end_of_next(&self) -> Option<usize> {
        let rest = &self.input[self.given..];
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        let end = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
        let is_record = (20..=23).contains(&header[0]) && end <= SEALED_RECORD_BYTES_MAX;
        if is_record {
            (rest.len() >= end).then_some(self.given + end)
        } else {
            Some(self.input.len())
        }
    }

    /// Appends the alert with which rustls ends the handshake, if there is one, and what comes before it. Asked again
    /// with bytes that it has refused, rustls would refuse them again: then the alert is all there is.
    fn encode_alert(&mut self, out: &mut Vec<u8>) {
        loop {
            let given = &mut self.input[..self.given];
            let UnbufferedStatus { state, .. } = self.rustls.process_tls_records(given);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            if encode(&mut data, out).is_err() || self.given > 0 {
                return;
            }
        }
    }
}

/// What comes next in a step.
enum Next {
    Again,
    Record,
    Done,
}

fn fault(error: rustls::Error) -> HandshakeFault {
    HandshakeFault(error.to_string())
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), HandshakeFault> {
    let start = out.len();
    let required = match data.encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            required_size
        }
        Err(error) => return Err(HandshakeFault(error.to_string())),
    };
    out.resize(start + required, 0);
    let encoded =
        data.encode(&mut out[start..]).map_err(|error| HandshakeFault(error.to_string()))?;
    out.truncate(start + encoded);
    Ok(())
}

/// Takes the keys out of rustls, which has done its part. Secrets from which other keys follow are refused.
fn session(
    rustls: UnbufferedServerConnection,
    secrets: &Secrets,
) -> Result<Session, HandshakeFault> {
    let version = match rustls.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
        _ => Version::Tls12,
    };
    let (extracted, _) = rustls.dangerous_into_kernel_connection().map_err(fault)?;
    let no_keys = || HandshakeFault("the keys of the handshake are not as expected".into());
    let direction = |(next, keys): (u64, ConnectionTrafficSecrets), secret: &[u8]| {
        let (cipher, key, iv) = match keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Cipher::ChaCha20Poly1305, key, iv)
            }
            _ => return None,
        };
        let next = u32::try_from(next).ok()?;
        let direction = match version {
            Version::Tls12 => Direction::of_key(cipher, key.as_ref(), iv.as_ref(), next)?,
            Version::Tls13 => Direction::of_secret(cipher, secret, next)
                .filter(|direction| direction.has(cipher, key.as_ref(), iv.as_ref()))?,
        };
        Some((cipher, direction))
    };
    let (cipher, read) = direction(extracted.rx, &secrets.client).ok_or_else(no_keys)?;
    let (_, write) = direction(extracted.tx, &secrets.server).ok_or_else(no_keys)?;
    Ok(Session::new(cipher, version, read, write))
}

impl KeyLog for SecretsOfStep {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        NAMED.with_borrow_mut(|named| match label {
            CLIENT_SECRET => named.client = secret.to_vec(),
            SERVER_SECRET => named.server = secret.to_vec(),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        [CLIENT_SECRET, SERVER_SECRET].contains(&label)
    }
}

const CLIENT_SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_SECRET: &str = "SERVER_TRAFFIC_SECRET_0";

impl Drop for Secrets {
    fn drop(&mut self) {
        self.client.fill(0);
        self.server.fill(0);
        std::hint::black_box((&self.client, &self.server));
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Identity")
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Handshake({} bytes wait)", self.input.len())
    }
}
