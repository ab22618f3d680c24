//! The certificates of a server: which one a client gets, and what is known of each.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureAlgorithm};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::provider::provider;

/// A chain of certificates with the key of the first one.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// The names that it is for, in lower case; a name may begin with `*.`.
    pub names: Vec<String>,
    /// When it begins to be valid, in seconds since 1970.
    pub begins: i64,
    /// When it ends, in seconds since 1970.
    pub ends: i64,
    /// Whether its key is of RSA.
    pub is_rsa: bool,
    /// Whether each certificate of the chain is issued by the next one.
    pub is_in_order: bool,
}

/// Chooses among certificates by the name that a client asks for.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    /// The certificates of each name, in the order of `all`.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Certificate {
    /// Reads a chain of certificates and the key of the first one, both in PEM. The error says what is wrong with them.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = read_certificates(chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
        let (mut names, mut links) = (Vec::new(), Vec::new());
        let (mut begins, mut ends) = (0, 0);
        for (at, certificate) in chain.iter().enumerate() {
            let (_, parsed) = X509Certificate::from_der(certificate)
                .map_err(|error| format!("certificate {}: {error}", at + 1))?;
            if at == 0 {
                names = dns_names(&parsed);
                begins = parsed.validity().not_before.timestamp();
                ends = parsed.validity().not_after.timestamp();
            }
            links.push((parsed.subject().as_raw().to_vec(), parsed.issuer().as_raw().to_vec()));
        }
        let is_in_order = links.windows(2).all(|pair| pair[0].1 == pair[1].0);
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| format!("the certificate and the key: {error}"))?;
        let is_rsa = key.key.algorithm() == SignatureAlgorithm::RSA;
        Ok(Self { key: Arc::new(key), names, begins, ends, is_rsa, is_in_order })
    }
}

impl Certificates {
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        let mut named: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                named.entry(name.clone()).or_default().push(certificate.key.clone());
            }
        }
        Self { all: certificates.iter().map(|it| it.key.clone()).collect(), named }
    }

    /// The certificates for a name: of the name itself, or of a name with `*` instead of its first label. All of
    /// them if there are none, or if the client asks for none.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_ref().and_then(|name| self.named.get(name));
        let wildcard = || {
            let (_, rest) = name.as_ref()?.split_once('.')?;
            self.named.get(&format!("*.{rest}"))
        };
        exact.or_else(wildcard).unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Certificates {
    /// The first one whose signatures the client can verify. Without one, it gets an alert.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut candidates = self.of(hello.server_name()).iter();
        let schemes = hello.signature_schemes();
        candidates.find(|it| it.key.choose_scheme(schemes).is_some()).cloned()
    }
}

/// The authorities whose certificates clients may show, from a file in PEM.
pub(super) fn read_authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("a certificate: {error}"))?;
    }
    Ok(roots)
}

/// The user that a client is by its certificate, which was verified: the first common name of its subject.
pub(super) fn user_of(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.into())
}

/// The provider decides which keys are understood.
fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificates: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate: it begins with -----BEGIN CERTIFICATE-----".into());
    }
    Ok(chain)
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

impl fmt::Debug for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Certificate({:?})", self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> Certificate {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = made.signing_key.serialize_pem();
        Certificate::read(made.cert.pem().as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_leads_to_its_certificate_or_to_one_for_all_names_beside_it() {
        let all = [made(&["one.test", "*.two.test"]), made(&["ONE.test", "a.two.test"])];
        let certificates = Certificates::new(&all);
        for (name, expected) in [
            (Some("one.test"), &[0, 1][..]),
            (Some("One.Test"), &[0, 1]),
            (Some("a.two.test"), &[1]),
            (Some("b.two.test"), &[0]),
            (Some("b.a.two.test"), &[0, 1]),
            (Some("two.test"), &[0, 1]),
            (Some("three"), &[0, 1]),
            (Some(""), &[0, 1]),
            (None, &[0, 1]),
        ] {
            let found = certificates.of(name);
            let expected: Vec<_> = expected.iter().map(|at| all[*at].key.cert.clone()).collect();
            let found: Vec<_> = found.iter().map(|it| it.cert.clone()).collect();
            assert_eq!(found, expected, "{name:?}");
        }
    }

    #[test]
    fn what_is_known_of_a_certificate_is_read() {
        let certificate = made(&["one.test"]);
        assert_eq!(certificate.names, ["one.test"]);
        assert!(certificate.begins < certificate.ends && !certificate.is_rsa);
        assert!(certificate.is_in_order);
        assert_eq!(format!("{certificate:?}"), "Certificate([\"one.test\"])");
    }

    #[test]
    fn the_user_of_a_certificate_is_its_common_name() {
        let mut of = rcgen::CertificateParams::default();
        of.distinguished_name = rcgen::DistinguishedName::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let unnamed = of.self_signed(&key).unwrap();
        assert_eq!(user_of(unnamed.der()), None);
        of.distinguished_name.push(rcgen::DnType::CommonName, "device 7");
        assert_eq!(user_of(of.self_signed(&key).unwrap().der()).as_deref(), Some("device 7"));
        assert_eq!(user_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
