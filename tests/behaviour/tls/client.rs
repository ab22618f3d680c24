//! A client that speaks TLS: rustls with its own records, which those of the server are tested against.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use fantail::config::Config;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
    SupportedCipherSuite,
};

use crate::support::PATIENCE;

/// A connection over TLS.
pub struct TlsClient {
    pub tls: ClientConnection,
    pub stream: TcpStream,
    received: Vec<u8>,
}

/// What a client offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub version: ProtocolVersion,
    /// The suite, which is the only one.
    pub suite: Option<SupportedCipherSuite>,
    pub alpn: Option<&'static str>,
    /// The groups of signatures that it verifies: all of them, or those whose name begins like this.
    pub signatures: &'static str,
}

impl Default for Offer {
    fn default() -> Self {
        Self { version: ProtocolVersion::TLSv1_3, suite: None, alpn: None, signatures: "" }
    }
}

impl Offer {
    pub fn config(self) -> Arc<ClientConfig> {
        self.with_certificate(None)
    }

    /// With a certificate of the client, and its key.
    pub fn with_certificate(
        self,
        own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Arc<ClientConfig> {
        let mut provider = default_provider();
        provider.cipher_suites.retain(|suite| self.suite.is_none_or(|only| *suite == only));
        let versions = match self.version {
            ProtocolVersion::TLSv1_2 => &[&rustls::version::TLS12],
            _ => &[&rustls::version::TLS13],
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("suites of the version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(self.signatures)));
        let mut config = match own {
            Some((chain, key)) => {
                config.with_client_auth_cert(vec![chain], key).expect("they belong together")
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Has every address of a server speak TLS.
pub fn over_tls(config: &mut Config) {
    config.self_signed = true;
    for addresses in [
        &mut config.listen,
        &mut config.admin,
        &mut config.tcp,
        &mut config.echo,
        &mut config.echo_tcp,
    ] {
        addresses.iter_mut().for_each(|address| address.is_encrypted = true);
    }
}

impl TlsClient {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::with(address, Offer::default())
    }

    /// A client whose handshake is to come.
    #[track_caller]
    pub fn with(address: SocketAddr, offer: Offer) -> Self {
        Self::of(address, &offer.config())
    }

    /// Like `with`; clients of the same configuration come back with the tickets of those before.
    #[track_caller]
    pub fn of(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::named(address, config, "localhost")
    }

    /// Like `of`, for a server of this name.
    #[track_caller]
    pub fn named(address: SocketAddr, config: &Arc<ClientConfig>, name: &'static str) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let name = ServerName::try_from(name).expect("a name");
        let tls = ClientConnection::new(config.clone(), name).expect("a client");
        Self { tls, stream, received: Vec::new() }
    }

    /// Does the handshake; the error is that of rustls.
    pub fn handshake(&mut self) -> Result<(), String> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.stream).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // rustls keeps at most 64 KiB.
        for chunk in bytes.as_ref().chunks(32 * 1024) {
            self.tls.writer().write_all(chunk).expect("it is kept");
            self.flush();
        }
    }

    /// Sends what rustls has to send.
    #[track_caller]
    pub fn flush(&mut self) {
        while self.tls.wants_write() || self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.stream).expect("the server takes it");
        }
    }

    /// The ciphertext of some bytes, which is not sent.
    pub fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        self.tls.writer().write_all(bytes).expect("it is kept");
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).expect("a Vec takes everything");
        }
        sealed
    }

    /// Says that nothing more is sent.
    pub fn end(&mut self) {
        self.tls.send_close_notify();
        self.flush();
    }

    /// Receives more; false at the end that the server announced.
    #[track_caller]
    pub fn receive(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.tls.reader().read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("reading: {error}"),
            }
            self.tls.read_tls(&mut self.stream).expect("the server sends");
            self.tls.process_new_packets().expect("its records are sound");
            self.flush();
        }
    }

    /// The next bytes, so many of them.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.receive(), "{} of {count} bytes came", self.received.len());
        }
        self.received.drain(..count).collect()
    }

    /// The bytes up to the next line feed, which is among them.
    #[track_caller]
    pub fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == b'\n') {
                return String::from_utf8(self.take(at + 1)).expect("UTF-8");
            }
            assert!(self.receive(), "the line ends");
        }
    }

    /// Sends a request, and reads the response: its head and its body.
    #[track_caller]
    pub fn request(&mut self, request: &str) -> (String, String) {
        self.send(request);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push_str(&self.line());
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let body = self.take(length.map_or(0, |length| length.parse().expect("a number")));
        (head, String::from_utf8(body).expect("UTF-8"))
    }

    /// Everything up to the end, which the server announces.
    #[track_caller]
    pub fn rest(mut self) -> Vec<u8> {
        while self.receive() {}
        self.received
    }
}

#[derive(Debug)]
struct AnyCertificate(&'static str);

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
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut all = default_provider().signature_verification_algorithms.supported_schemes();
        all.retain(|scheme| format!("{scheme:?}").starts_with(self.0));
        all
    }
}
