//! The certificates of a server: read from files, or made for one run.

use std::fs;
use std::net::IpAddr;

use crate::config::{ClientAuth, Config, ListenAddress, TlsVersion};
use crate::connection::tls::{Certificate, Clients, Identity, IdentityParts, TicketSecrets};
use crate::driver::since_epoch;

/// The identity for the addresses of a configuration that are encrypted, and what an operator should know of the
/// certificates in its files. If `tls.self_signed` is set, a certificate is made for it.
///
/// `of_run` are the secrets of session tickets if the configuration has none.
pub fn load(
    config: &Config,
    of_run: &TicketSecrets,
) -> Result<(Option<Identity>, Vec<String>), String> {
    match (config.self_signed, config.encrypted_addresses().next()) {
        (_, None) => Ok((None, Vec::new())),
        (false, Some(_)) => {
            let certificates = read_certificates(config)?;
            let warnings = warnings(config, &certificates);
            Ok((identity_of(config, certificates, of_run)?, warnings))
        }
        (true, Some(_)) => {
            let identity = identity(config, vec![self_signed(config)?], of_run)?;
            Ok((Some(identity), Vec::new()))
        }
    }
}

/// The certificates and keys that files have now; `None` if there are no files for them.
pub fn read(config: &Config, of_run: &TicketSecrets) -> Result<Option<Identity>, String> {
    identity_of(config, read_certificates(config)?, of_run)
}

fn identity_of(
    config: &Config,
    certificates: Vec<Certificate>,
    of_run: &TicketSecrets,
) -> Result<Option<Identity>, String> {
    match certificates.is_empty() {
        true => Ok(None),
        false => identity(config, certificates, of_run).map(Some),
    }
}

/// What an operator should know of the certificates in the files.
fn warnings(config: &Config, certificates: &[Certificate]) -> Vec<String> {
    let now = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
    let of_each = config.tls.cert.iter().zip(certificates);
    let warnings = of_each.flat_map(|(path, certificate)| {
        [
            (certificate.ends <= now, "has expired"),
            (certificate.begins > now, "is not valid yet"),
            (
                certificate.is_rsa,
                "has an RSA key: a handshake takes eight times the CPU time of one with a P-256 key",
            ),
            (
                !certificate.is_in_order,
                "has certificates that are not in order, and some clients refuse them: each is to be followed by \
                 the one of its issuer",
            ),
        ]
        .into_iter()
        .filter(|(is_so, _)| *is_so)
        .map(move |(_, what)| format!("tls.cert {path} {what}"))
    });
    warnings.collect()
}

fn read_certificates(config: &Config) -> Result<Vec<Certificate>, String> {
    let pairs = config.tls.cert.iter().zip(&config.tls.key);
    let certificates = pairs.map(|(cert, key)| {
        let (chain, secret) = (read_file("tls.cert", cert)?, read_file("tls.key", key)?);
        Certificate::read(&chain, &secret)
            .map_err(|fault| format!("tls.cert {cert} and tls.key {key}: {fault}"))
    });
    certificates.collect()
}

fn read_file(setting: &str, path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{setting}: the file {path} cannot be read: {error}"))
}

fn self_signed(config: &Config) -> Result<Certificate, String> {
    let addresses = config.encrypted_addresses().filter_map(ListenAddress::ip);
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for ip in addresses.map(|address| address.ip()).filter(|ip: &IpAddr| !ip.is_unspecified()) {
        if !names.contains(&ip.to_string()) {
            names.push(ip.to_string());
        }
    }
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| format!("no certificate can be made: {error}"))?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    Certificate::read(chain.as_bytes(), key.as_bytes())
}

fn identity(
    config: &Config,
    certificates: Vec<Certificate>,
    of_run: &TicketSecrets,
) -> Result<Identity, String> {
    let tickets = config.ticket_secrets().map_or_else(
        || of_run.clone(),
        |secrets| TicketSecrets::new(secrets.into_iter().map(str::as_bytes)),
    );
    let clients = match &config.tls.client_ca {
        None => Clients::Unasked,
        Some(path) => Clients::Asked {
            authorities: read_file("tls.client_ca", path)?,
            is_required: config.tls.client_auth == ClientAuth::Required,
        },
    };
    let allows_tls12 = config.tls_version_min == TlsVersion::Tls12;
    Identity::new(IdentityParts { certificates, allows_tls12, tickets, clients }).map_err(|fault| {
        match &config.tls.client_ca {
            Some(path) => format!("tls.client_ca {path}: {fault}"),
            None => fault,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsConfig;

    #[test]
    fn a_certificate_is_made_for_the_addresses_and_only_if_one_is_needed() {
        let config = |listen: &str| Config {
            listen: vec![listen.parse().unwrap()],
            self_signed: true,
            ..Config::default()
        };
        for (listen, is_made) in [("127.0.0.1:0", false), ("192.0.2.1:443 tls", true)] {
            let identity = load(&config(listen), &TicketSecrets::random()).unwrap().0;
            assert_eq!(identity.is_some(), is_made, "{listen}");
        }
    }

    #[test]
    fn the_fault_of_a_file_names_it() {
        let files = |cert: &str, key: &str| TlsConfig {
            cert: vec![cert.to_owned()],
            key: vec![key.to_owned()],
            ..TlsConfig::default()
        };
        let config = Config {
            listen: vec!["127.0.0.1:0 tls".parse().unwrap()],
            tls: files("/nowhere/cert.pem", "/nowhere/key.pem"),
            ..Config::default()
        };
        let load = |config: &Config| load(config, &TicketSecrets::random());
        let fault = load(&config).unwrap_err();
        assert!(fault.contains("tls.cert") && fault.contains("/nowhere/cert.pem"), "{fault}");
        let config =
            Config { tls: files("/proc/sys/kernel/ostype", "/proc/sys/kernel/ostype"), ..config };
        assert!(load(&config).unwrap_err().contains("there is no certificate"));
    }
}
