//! Which certificates of servers are trusted: by callbacks, and by the program as a client.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Trusts the certificates of the system. One that cannot be read is passed over: others may do.
pub fn trust_system(roots: &mut RootCertStore) {
    for certificate in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(certificate);
    }
}

/// Trusts the certificates of a file in PEM, of which there must be one. The error says what is wrong with the file.
pub fn trust_file(roots: &mut RootCertStore, path: impl AsRef<Path>) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let before = roots.len();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.len() == before {
        true => Err("there is no certificate in it".to_owned()),
        false => Ok(()),
    }
}
