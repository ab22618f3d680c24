//! The published keys of tokens: fetched when the server starts, from time to time, and when a token names another one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use jsonwebtoken::Algorithm;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::client::HttpClient;
use crate::auth::KeySet;
use crate::config::limits::{JWKS_BYTES_MAX, JWKS_INTERVAL, JWKS_PAUSE, JWKS_RETRY_INTERVAL};
use crate::config::{TokenKey, shown_url};

/// A URL at which keys are published.
#[derive(Debug)]
pub(super) struct KeySource {
    url: Uri,
    /// How long a fetch may take.
    timeout: Duration,
    algorithms: Vec<Algorithm>,
    /// Notified when a token names a key that is not known.
    wanted: Arc<Notify>,
    /// The numbers of keys in the last set, used and not.
    counts: Option<(usize, usize)>,
}

impl KeySource {
    /// Where a key of the settings is published; `None` if it is in the settings.
    pub(super) fn new(key: &TokenKey) -> Option<Self> {
        let (url, algorithms) = (key.jwks_url.clone()?, key.algorithms.clone());
        let timeout = key.jwks_timeout;
        Some(Self { url, timeout, algorithms, wanted: Arc::default(), counts: None })
    }

    /// Whether its URL is https.
    pub(super) fn needs_tls(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    pub(super) fn wanted(&self) -> Arc<Notify> {
        self.wanted.clone()
    }

    /// Waits until it is time to fetch the keys again: soon if one is wanted that is not known.
    pub(super) async fn pause(&self, has_failed: bool) {
        sleep(JWKS_PAUSE).await;
        let interval = if has_failed { JWKS_RETRY_INTERVAL } else { JWKS_INTERVAL };
        let _ = timeout(interval, self.wanted.notified()).await;
    }

    /// Fetches the keys; `None` if that fails, and those before are still good.
    pub(super) async fn fetch(&mut self, client: &HttpClient) -> Option<Arc<KeySet>> {
        let began = Instant::now();
        let fetched = timeout(self.timeout, self.exchange(client)).await.unwrap_or(Err("timeout"));
        let set = fetched.and_then(|document| self.read(&document, began.elapsed()));
        let url = shown_url(&self.url);
        match set {
            Ok(set) => {
                let counts = set.counts();
                if self.counts.replace(counts) != Some(counts) {
                    let (keys, skipped) = counts;
                    info!(%url, keys, skipped, "the keys of tokens are fetched");
                }
                Some(Arc::new(set))
            }
            Err(reason) => {
                warn!(%url, reason, "the keys of tokens cannot be fetched");
                None
            }
        }
    }

    fn read(&self, document: &[u8], age: Duration) -> Result<KeySet, &'static str> {
        let set = KeySet::parse(self.url.to_string(), document, &self.algorithms, age);
        set.map_err(|error| error.label())
    }

    async fn exchange(&self, client: &HttpClient) -> Result<Vec<u8>, &'static str> {
        let request = Request::get(self.url.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("fantail/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::new()))
            .map_err(|_| "unreachable")?;
        let answer = client.request(request).await.map_err(|_| "unreachable")?;
        if answer.status() != StatusCode::OK {
            return Err("status");
        }
        let (mut body, mut received) = (answer.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| "unreachable")?;
            let Some(data) = frame.data_ref() else { continue };
            if received.len() + data.len() > JWKS_BYTES_MAX {
                return Err("too_large");
            }
            received.extend_from_slice(data);
        }
        Ok(received)
    }
}
