//! The certificate of a server: read from files, or made for one run.

use std::fs;
use std::net::IpAddr;

use crate::config::{Config, ListenAddress, TlsVersion};
use crate::connection::tls::Identity;

/// The identity for the addresses of a configuration that are encrypted. If `tls.self_signed` is set, a certificate is
/// made for it.
pub fn load(config: &Config) -> Result<Option<Identity>, String> {
    match (config.self_signed, config.encrypted_addresses().next()) {
        (_, None) => Ok(None),
        (false, Some(_)) => read(config),
        (true, Some(_)) => self_signed(config).map(Some),
    }
}

/// The certificate and the key that files have now; `None` if there are no files for them.
pub fn read(config: &Config) -> Result<Option<Identity>, String> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
    let read = |setting: &str, path: &str| {
        fs::read(path)
            .map_err(|error| format!("{setting}: the file {path} cannot be read: {error}"))
    };
    let (chain, secret) = (read("tls.cert", cert)?, read("tls.key", key)?);
    let identity = Identity::new(&chain, &secret, allows_tls12(config));
    identity.map(Some).map_err(|fault| format!("tls.cert {cert} and tls.key {key}: {fault}"))
}

fn self_signed(config: &Config) -> Result<Identity, String> {
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
    Identity::new(chain.as_bytes(), key.as_bytes(), allows_tls12(config))
}

fn allows_tls12(config: &Config) -> bool {
    config.tls_version_min == TlsVersion::Tls12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_for_the_addresses_and_only_if_one_is_needed() {
        let config = |listen: &str| Config {
            listen: vec![listen.parse().unwrap()],
            self_signed: true,
            ..Config::default()
        };
        for (listen, is_made) in [("127.0.0.1:0", false), ("192.0.2.1:443 tls", true)] {
            let identity = load(&config(listen)).unwrap();
            assert_eq!(identity.is_some(), is_made, "{listen}");
        }
    }

    #[test]
    fn the_fault_of_a_file_names_it() {
        let config = Config {
            listen: vec!["127.0.0.1:0 tls".parse().unwrap()],
            tls_cert: Some("/nowhere/cert.pem".into()),
            tls_key: Some("/nowhere/key.pem".into()),
            ..Config::default()
        };
        let fault = load(&config).unwrap_err();
        assert!(fault.contains("tls.cert") && fault.contains("/nowhere/cert.pem"), "{fault}");
        let config = Config {
            tls_cert: Some("/proc/sys/kernel/ostype".into()),
            tls_key: Some("/proc/sys/kernel/ostype".into()),
            ..config
        };
        assert!(load(&config).unwrap_err().contains("there is no certificate"));
    }
}
