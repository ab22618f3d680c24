//! Several certificates of the server, and certificates of clients.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
    date_time_ymd,
};
use rustls::ClientConfig;
use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::LIVE;
use super::client::{Offer, TlsClient};
use crate::support::{Child, TempFile, WebSocket, on_both_drivers, run, wait_until};

/// A certificate in files.
struct Files {
    cert: TempFile,
    key: TempFile,
    der: Vec<u8>,
}

impl Files {
    fn new(name: &str, of: CertificateParams, key: &KeyPair) -> Self {
        let made = of.self_signed(key).unwrap();
        Self {
            cert: TempFile::new(&format!("{name}-cert"), &made.pem()),
            key: TempFile::new(&format!("{name}-key"), &key.serialize_pem()),
            der: made.der().to_vec(),
        }
    }

    fn made(name: &str, hosts: &[&str], algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        Self::new(name, params(hosts), &key)
    }

    fn arguments(all: &[&Self]) -> Vec<String> {
        let of = |it: &&Self| {
            ["--tls-cert", it.cert.path(), "--tls-key", it.key.path()].map(str::to_owned)
        };
        all.iter().flat_map(of).collect()
    }
}

fn params(hosts: &[&str]) -> CertificateParams {
    CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn start(driver: fantail::config::DriverChoice, arguments: &[String]) -> Child {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Child::start(driver, &[&["--echo", "127.0.0.1:0 tls"], &arguments[..]].concat())
}

/// The certificate that a client gets that asks for a name.
fn shown(address: SocketAddr, offer: Offer, name: &'static str) -> Result<Vec<u8>, String> {
    let mut client = TlsClient::named(address, &offer.config(), name);
    client.handshake()?;
    Ok(client.tls.peer_certificates().unwrap()[0].to_vec())
}

on_both_drivers! {
    fn a_client_gets_the_certificate_of_the_name_that_it_asks_for(driver) {
        let made = |at: &str, hosts: &[&str], algorithm| {
            Files::made(&format!("sni-{driver:?}-{at}"), hosts, algorithm)
        };
        let first = made("first", &["first.test"], &PKCS_ED25519);
        let second = made("second", &["second.test", "*.wild.test"], &PKCS_ECDSA_P256_SHA256);
        let old = made("old", &["second.test"], &PKCS_RSA_SHA256);
        let all = [&first, &second, &old];
        let child = start(driver, &Files::arguments(&all));
        let echo = child.addresses[2];
        for version in [TLSv1_3, TLSv1_2] {
            let offer = Offer { version, ..Offer::default() };
            for (name, expected) in [
                ("first.test", &first),
                ("second.test", &second),
                ("a.wild.test", &second),
                ("a.b.wild.test", &first),
                ("unknown.test", &first),
                ("127.0.0.1", &first),
            ] {
                assert_eq!(shown(echo, offer, name).as_ref(), Ok(&expected.der), "{version:?} {name}");
            }
            let rsa = Offer { signatures: "RSA", ..offer };
            assert_eq!(shown(echo, rsa, "second.test").as_ref(), Ok(&old.der), "{version:?}");
            assert_eq!(shown(echo, rsa, "unknown.test").as_ref(), Ok(&old.der), "{version:?}");
            let fault = shown(echo, rsa, "first.test").unwrap_err();
            assert!(fault.contains("received fatal alert"), "{fault}");
        }
        // With an RSA key, in both directions.
        let rsa = Offer { signatures: "RSA", ..Offer::default() };
        let mut client = TlsClient::named(echo, &rsa.config(), "second.test");
        assert!(client.request(LIVE).0.starts_with("HTTP/1.1 4"), "an echo has no paths");
    }

    fn a_pair_that_does_not_match_is_refused_at_the_start_and_by_a_reload(driver) {
        let made = |at: &str| {
            Files::made(&format!("pair-{driver:?}-{at}"), &["one.test"], &PKCS_ECDSA_P256_SHA256)
        };
        let (first, second, third) = (made("first"), made("second"), made("third"));
        let mixed = [
            "--tls-cert", first.cert.path(), "--tls-key", first.key.path(),
            "--tls-cert", second.cert.path(), "--tls-key", third.key.path(),
        ];
        let ended = run(&[&["--listen", "127.0.0.1:0 tls"], &mixed[..]].concat());
        assert!(!ended.status.success() && ended.stderr.contains(second.cert.path()), "{ended:?}");
        let fewer = run(&[&["--listen", "127.0.0.1:0 tls"], &mixed[..6]].concat());
        assert!(fewer.stderr.contains("tls.cert has 2 files and tls.key 1"), "{fewer:?}");
        let mut child = start(driver, &Files::arguments(&[&first, &second]));
        let echo = child.addresses[2];
        let of = |name| shown(echo, Offer::default(), name);
        assert_eq!(of("one.test").as_ref(), Ok(&first.der));
        let key = std::fs::read_to_string(second.key.path()).unwrap();
        second.key.write(&std::fs::read_to_string(third.key.path()).unwrap());
        first.cert.write(&std::fs::read_to_string(second.cert.path()).unwrap());
        first.key.write(&key);
        child.signal(libc::SIGHUP);
        child.log_line(&["not reloaded", second.cert.path()]);
        assert_eq!(of("one.test").as_ref(), Ok(&first.der), "the old ones stay");
        second.key.write(&key);
        child.signal(libc::SIGHUP);
        wait_until("the new one is shown", || of("one.test").as_ref() == Ok(&second.der));
    }

    fn the_certificate_of_a_client_says_which_user_it_is(driver) {
        let clients = ClientAuthority::new(driver);
        let server = Files::made(&format!("mtls-{driver:?}"), &["localhost"], &PKCS_ECDSA_P256_SHA256);
        let required = [&["--tls-client-ca".to_owned(), clients.file.path().to_owned()], &Files::arguments(&[&server])[..]].concat();
        let known = clients.issue("device-7", ExtendedKeyUsagePurpose::ClientAuth);
        let child = start_commands(driver, &required);
        for version in [TLSv1_3, TLSv1_2] {
            let offer = Offer { version, ..Offer::default() };
            assert_eq!(user_of(&child, &offer.with_certificate(Some(known.clone_key()))).as_deref(), Ok("device-7"));
            // Without one, with one of another authority, with one for another purpose.
            let unknown = ClientAuthority::new(driver).issue("device-7", ExtendedKeyUsagePurpose::ClientAuth);
            let of_server = clients.issue("device-7", ExtendedKeyUsagePurpose::ServerAuth);
            for own in [None, Some(unknown.clone_key()), Some(of_server.clone_key())] {
                let fault = user_of(&child, &offer.with_certificate(own)).unwrap_err();
                assert!(fault.contains("received fatal alert"), "{fault}");
            }
        }
        // No tickets: the certificate is verified each time.
        let config = Offer::default().with_certificate(Some(known.clone_key()));
        for _ in 0..2 {
            assert_eq!(user_of(&child, &config).as_deref(), Ok("device-7"));
        }
        drop(child);
        let optional = [&["--tls-client-auth".to_owned(), "optional".to_owned()], &required[..]].concat();
        let child = start_commands(driver, &optional);
        let config = Offer::default().with_certificate(Some(known.clone_key()));
        assert_eq!(user_of(&child, &config).as_deref(), Ok("device-7"));
        assert_eq!(user_of(&child, &Offer::default().config()).as_deref(), Ok(""));
    }
}

/// The authority that issues the certificates of clients.
struct ClientAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: TempFile,
}

/// A certificate of a client, with its key.
struct Own(CertificateDer<'static>, Vec<u8>);

impl Own {
    fn clone_key(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        (self.0.clone(), PrivateKeyDer::Pkcs8(self.1.clone().into()))
    }
}

impl ClientAuthority {
    fn new(driver: fantail::config::DriverChoice) -> Self {
        let mut of = params(&[]);
        of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(of, KeyPair::generate().unwrap()).unwrap();
        let name = format!("client-ca-{driver:?}-{:x}", issuer.der()[issuer.der().len() - 8]);
        Self { file: TempFile::new(&name, &issuer.pem()), issuer }
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Own {
        let mut of = params(&[]);
        of.distinguished_name.push(DnType::CommonName, name);
        of.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        Own(of.signed_by(&key, &self.issuer).unwrap().der().clone(), key.serialize_der())
    }
}

/// With the server API, which lists the clients of a channel.
fn start_commands(driver: fantail::config::DriverChoice, arguments: &[String]) -> Child {
    let file = TempFile::new(
        &format!("mtls-settings-{driver:?}-{}", arguments.len()),
        "[channels]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\npresence = true\n",
    );
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let more = ["--config", file.path(), "--listen", "127.0.0.1:0 tls", "--tcp", "127.0.0.1:0 tls"];
    Child::start(driver, &[&more[..], &arguments].concat())
}

/// The user that a client is, as the server API says; the error is that of the handshake.
fn user_of(child: &Child, config: &Arc<ClientConfig>) -> Result<String, String> {
    let mut client = TlsClient::of(child.addresses[1], config);
    client.handshake()?;
    client.tls.writer().write_all(WebSocket::request("/ws?channel=a").as_bytes()).unwrap();
    let mut head = [0; 12];
    while client.tls.reader().read_exact(&mut head).is_err() {
        if client.tls.wants_write() {
            client.tls.write_tls(&mut client.stream).map_err(|error| error.to_string())?;
        } else {
            client.tls.read_tls(&mut client.stream).map_err(|error| error.to_string())?;
            // In TLS 1.3, a client learns behind its handshake that it is refused.
            client.tls.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
    assert_eq!(&head, b"HTTP/1.1 101");
    let mut api = crate::support::Client::connect(child.edge());
    let body = r#"{"channel":"a"}"#;
    let request = format!(
        "POST /api/presence HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut user = None;
    wait_until("it is present", || {
        let response = api.try_request(&request).unwrap();
        let text = String::from_utf8_lossy(&response.body).into_owned();
        user = text
            .split("\"user\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .map(str::to_owned);
        user.is_some() || text.contains("\"client\"")
    });
    drop(client);
    wait_until("it is gone", || {
        let response = api.try_request(&request).unwrap();
        !String::from_utf8_lossy(&response.body).contains("\"client\"")
    });
    Ok(user.unwrap_or_default())
}

#[test]
fn a_check_warns_of_certificates() {
    let mut of = params(&["old.test"]);
    (of.not_before, of.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    let old = Files::new("check-old", of, &KeyPair::generate().unwrap());
    let mut of = params(&["new.test"]);
    of.not_before = date_time_ymd(3000, 1, 1);
    let new = Files::new("check-new", of, &KeyPair::generate().unwrap());
    let rsa = Files::made("check-rsa", &["rsa.test"], &PKCS_RSA_SHA256);
    let good = Files::made("check-good", &["good.test"], &PKCS_ECDSA_P256_SHA256);
    let arguments = Files::arguments(&[&old, &new, &rsa, &good]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let checked = run(&[&["check", "--listen", "127.0.0.1:0 tls"], &arguments[..]].concat());
    let warnings: Vec<_> =
        checked.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
    let expected = [(&old, "has expired"), (&new, "is not valid yet"), (&rsa, "has an RSA key")];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for ((files, words), warning) in expected.iter().zip(warnings) {
        assert!(warning.contains(files.cert.path()) && warning.contains(words), "{warning}");
    }
}
