//! Clients that come back with a ticket.

use std::net::SocketAddr;
use std::sync::Arc;

use fantail::config::Config;
use rustls::HandshakeKind::{Full, Resumed};
use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
use rustls::{ClientConfig, HandshakeKind};

use super::client::{Offer, TlsClient};
use super::{LIVE, serve, serve_with};
use crate::support::{Child, TempFile, on_both_drivers, wait_until};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

fn offers() -> [Offer; 2] {
    [TLSv1_3, TLSv1_2].map(|version| Offer { version, ..Offer::default() })
}

/// Connects, asks something, so that a ticket has come, and returns what the handshake was.
#[track_caller]
fn visit(address: SocketAddr, config: &Arc<ClientConfig>) -> HandshakeKind {
    let mut client = TlsClient::of(address, config);
    client.handshake().unwrap();
    // Only the address for HTTP has that path.
    assert!(client.request(LIVE).0.starts_with("HTTP/1.1 "));
    client.tls.handshake_kind().unwrap()
}

fn with_secret(secret: &'static str) -> impl Fn(&mut Config) {
    move |config| config.tls.ticket_secret = Some(secret.into())
}

on_both_drivers! {
    fn a_client_comes_back_to_any_worker(driver) {
        let server = serve(driver);
        for offer in offers() {
            let config = offer.config();
            assert_eq!(visit(server.edge(), &config), Full);
            let handshakes = || server.by_worker(|it| &it.tls_handshakes);
            let before = handshakes();
            wait_until("both workers were visited again", || {
                assert_eq!(visit(server.edge(), &config), Resumed);
                handshakes().iter().zip(&before).all(|(after, before)| after > before)
            });
            // Whatever its listener, and with data in both directions.
            let mut client = TlsClient::of(server.echo_tcp(), &config);
            let text = vec![b'x'; 100_000];
            client.send(&text);
            assert_eq!(client.take(text.len()), text);
            assert_eq!(client.tls.handshake_kind(), Some(Resumed));
        }
    }

    fn a_client_comes_back_to_another_server_with_the_same_secret(driver) {
        for offer in offers() {
            let config = offer.config();
            let first = serve_with(driver, with_secret(SECRET));
            assert_eq!(visit(first.edge(), &config), Full);
            drop(first);
            let second = serve_with(driver, with_secret(SECRET));
            assert_eq!(visit(second.edge(), &config), Resumed);
            // The new secret issues, the old one is still accepted.
            let both = serve_with(driver, with_secret("fedcba9876543210fedcba9876543210,0123456789abcdef0123456789abcdef"));
            assert_eq!(visit(both.edge(), &config), Resumed);
            let other = serve_with(driver, with_secret(OTHER));
            assert_eq!(visit(other.edge(), &config), Resumed);
            // A ticket of an unknown secret is ignored.
            assert_eq!(visit(second.edge(), &config), Full);
            let unset = serve(driver);
            assert_eq!(visit(unset.edge(), &config), Full);
            assert_eq!(visit(unset.edge(), &config), Resumed);
        }
    }

    fn a_listener_may_issue_no_tickets(driver) {
        let server = serve_with(driver, |config| config.listen[0].has_tickets = false);
        for offer in offers() {
            let config = offer.config();
            assert_eq!(visit(server.edge(), &config), Full);
            assert_eq!(visit(server.edge(), &config), Full);
            assert_eq!(visit(server.echo(), &config), Full);
            assert_eq!(visit(server.echo(), &config), Resumed);
            assert_eq!(visit(server.edge(), &config), Full, "nor does it accept any");
        }
    }

    fn a_reload_changes_the_secrets_and_keeps_the_one_that_was_drawn(driver) {
        let secret = TempFile::new(&format!("ticket-secret-{driver:?}"), SECRET);
        let arguments = ["--tls-ticket-secret-file", secret.path(), "--tls-self-signed"];
        let child = Child::start(driver, &arguments);
        let config = Offer::default().config();
        assert_eq!(visit(child.edge(), &config), Full);
        assert_eq!(visit(child.edge(), &config), Resumed);
        drop(child);
        let made = rcgen::generate_simple_self_signed(vec!["one.test".to_owned()]).unwrap();
        let cert = TempFile::new(&format!("ticket-cert-{driver:?}"), &made.cert.pem());
        let key = TempFile::new(&format!("ticket-key-{driver:?}"), &made.signing_key.serialize_pem());
        let files = ["--tls-cert", cert.path(), "--tls-key", key.path(), "--echo", "127.0.0.1:0 tls"];
        let mut child = Child::start(driver, &[&files[..], &arguments[..2]].concat());
        assert_eq!(visit(child.addresses[2], &config), Resumed, "by the secret in the file");
        secret.write(OTHER);
        child.signal(libc::SIGHUP);
        child.log_line(&["tls.ticket_secret_file"]);
        wait_until("both workers have it", || visit(child.addresses[2], &config) == Full);
        drop(child);
        let mut child = Child::start(driver, &files);
        assert_eq!(visit(child.addresses[2], &config), Full);
        child.signal(libc::SIGHUP);
        child.log_line(&["nothing changed"]);
        for _ in 0..4 {
            assert_eq!(visit(child.addresses[2], &config), Resumed);
        }
    }
}
