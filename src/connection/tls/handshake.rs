//! Handshakes, which rustls does: the one file that drives it.
//!
//! A handshake gets one record at a time, so that what the client sends behind it stays as it came. At its end the keys
//! and the traffic secrets are taken out of rustls, which is then freed.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::server::{
    NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection, WebPkiClientVerifier,
};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ConnectionTrafficSecrets, KeyLog, ProtocolVersion, ServerConfig, SupportedProtocolVersion,
};

use super::certificates::{Certificate, Certificates, read_authorities, user_of};
use super::keys::{Cipher, Direction, Version};
use super::provider::provider;
use super::records::{HEADER_BYTES, SEALED_RECORD_BYTES_MAX, Session};
use super::tickets::{TicketSecrets, TimeOfStep, set_now};

/// The certificates of a server, with their keys, and what else its handshakes have.
#[derive(Clone)]
pub struct Identity {
    with_tickets: Configs,
    without_tickets: Configs,
}

/// What rustls is configured to do on the connections of some listeners.
#[derive(Clone)]
struct Configs {
    http: Arc<ServerConfig>,
    /// Without a protocol to be agreed on.
    raw: Arc<ServerConfig>,
}

/// What an identity is made of.
#[derive(Debug)]
pub struct IdentityParts {
    /// The certificates: the first one is for clients that ask for no name.
    pub certificates: Vec<Certificate>,
    /// Whether TLS 1.2 is spoken too.
    pub allows_tls12: bool,
    /// The secrets of session tickets.
    pub tickets: TicketSecrets,
    /// Which certificates clients have.
    pub clients: Clients,
}

/// Which certificates clients have.
#[derive(Debug, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked for one.
    Unasked,
    /// One of these authorities issued it.
    Asked {
        /// The certificates of the authorities, in PEM.
        authorities: Vec<u8>,
        /// Whether a client needs one.
        is_required: bool,
    },
}

/// What the handshakes of a listener have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// HTTP is agreed on, if the client asks.
    pub is_http: bool,
    /// Clients get tickets to come back with.
    pub has_tickets: bool,
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
    /// It is complete.
    Done(Completed),
}

/// What is left of a handshake.
#[derive(Debug)]
pub struct Completed {
    /// The keys of both directions.
    pub session: Session,
    /// The user that the client is by its certificate.
    pub user: Option<Arc<str>>,
    /// What came behind it.
    pub rest: Vec<u8>,
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

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

impl Identity {
    /// An identity of these parts. The error says what is wrong with them.
    pub fn new(parts: IdentityParts) -> Result<Self, String> {
        let IdentityParts { certificates, allows_tls12, tickets, clients } = parts;
        let provider = Arc::new(provider());
        let versions = if allows_tls12 { BOTH } else { &BOTH[..1] };
        let shows_certificates = clients != Clients::Unasked;
        let clients = match clients {
            Clients::Unasked => WebPkiClientVerifier::no_client_auth(),
            Clients::Asked { authorities, is_required } => {
                let roots = Arc::new(read_authorities(&authorities)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let verifier =
                    if is_required { verifier } else { verifier.allow_unauthenticated() };
                verifier.build().map_err(|error| format!("the certificates: {error}"))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(Certificates::new(&certificates)));
        config.ignore_client_order = true;
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretsOfStep);
        config.time_provider = Arc::new(TimeOfStep);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let without_tickets = Configs::new(config.clone());
        // A certificate is verified each time.
        if tickets.enabled() && !shows_certificates {
            // A client comes back on one connection, and gets another ticket each time.
            config.send_tls13_tickets = 1;
            config.ticketer = Arc::new(tickets);
        }
        Ok(Self { with_tickets: Configs::new(config), without_tickets })
    }

    fn config(&self, terms: Terms) -> Arc<ServerConfig> {
        let of = if terms.has_tickets { &self.with_tickets } else { &self.without_tickets };
        if terms.is_http { of.http.clone() } else { of.raw.clone() }
    }
}

impl Configs {
    fn new(raw: ServerConfig) -> Self {
        let mut http = raw.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { http: Arc::new(http), raw: Arc::new(raw) }
    }
}

impl Handshake {
    /// A handshake on a connection of a listener with these terms.
    pub fn new(identity: &Identity, terms: Terms) -> Result<Box<Self>, HandshakeFault> {
        let config = identity.config(terms);
        let rustls = UnbufferedServerConnection::new(config).map_err(fault)?;
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

    /// Goes on with what has come, and appends what is to be sent. `now` is in seconds since 1970.
    pub fn step(
        mut self: Box<Self>,
        now: u64,
        out: &mut Vec<u8>,
    ) -> Result<Progress, HandshakeFault> {
        set_now(now);
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
                    let certificate = rustls.peer_certificates().and_then(<[_]>::first);
                    let user = certificate.and_then(user_of);
                    let session = session(rustls, &secrets)?;
                    return Ok(Progress::Done(Completed { session, user, rest: input }));
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
