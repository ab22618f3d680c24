//! The HTTP client: HTTP/1.1 with connections that are kept, TLS where the URL says so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::trust::{trust_file, trust_system};
use crate::config::limits::{CALLBACK_HEAD_BYTES_MAX, CALLBACK_IDLE_TIMEOUT};

/// A client with a pool of connections, shared by all callbacks.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that keeps at most `idle_max` idle connections to a host. It trusts the certificates of the system and
/// those of a file. Without an https URL neither is read.
pub(super) fn new_client(
    idle_max: usize,
    needs_tls: bool,
    ca_file: Option<&str>,
) -> Result<HttpClient, String> {
    let roots = if needs_tls { roots(ca_file)? } else { RootCertStore::empty() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS for callbacks: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(Duration::from_secs(60)));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_max_idle_per_host(idle_max)
        .pool_idle_timeout(CALLBACK_IDLE_TIMEOUT)
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(CALLBACK_HEAD_BYTES_MAX);
    Ok(builder.build(connector.wrap_connector(http)))
}

fn roots(ca_file: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    trust_system(&mut roots);
    if let Some(path) = ca_file {
        trust_file(&mut roots, path)
            .map_err(|error| format!("callbacks.ca_file: {path}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(
            "the system has no root certificates for https callbacks: install them (package \
                    ca-certificates), or set callbacks.ca_file"
                .to_owned(),
        );
    }
    Ok(roots)
}
