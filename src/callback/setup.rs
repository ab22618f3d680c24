//! What the settings make of the thread of the callbacks. A reload replaces it as a whole.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::{HttpClient, new_client};
use super::endpoint::{Endpoint, Shared};
use super::keys::KeySource;
use crate::config::{CallbackKind, Callbacks, EventSettings, TokenKey};

/// The endpoints of callbacks and the URLs of keys, with a client for both.
pub struct Setup {
    client: HttpClient,
    /// In the order of [`CallbackKind::ALL`].
    endpoints: Vec<Option<Endpoint>>,
    events: EventSettings,
    sources: Vec<KeySource>,
}

/// A setup that the tasks of the thread use. A call that is under way keeps the one that it began with.
pub(super) struct Current {
    pub shared: Shared,
    /// In the order of [`CallbackKind::ALL`].
    pub endpoints: Vec<Option<Endpoint>>,
    pub events: EventSettings,
    /// Notified when a token names a key that is not known: one for each URL of keys.
    pub wanted: Vec<Arc<Notify>>,
}

impl Setup {
    /// What is configured. An error is a sentence.
    pub fn new(callbacks: &Callbacks, token_keys: &[TokenKey]) -> Result<Self, String> {
        let of = |kind: &CallbackKind| Endpoint::new(*kind, callbacks);
        let endpoints: Vec<_> = CallbackKind::ALL.iter().map(of).collect();
        let sources: Vec<_> = token_keys.iter().filter_map(KeySource::new).collect();
        let needs_tls = endpoints.iter().flatten().any(Endpoint::needs_tls)
            || sources.iter().any(KeySource::needs_tls);
        let idle_max = callbacks.kinds().map(|kind| callbacks.of(kind).connections_max).sum();
        let client = new_client(idle_max, needs_tls, callbacks.ca_file.as_deref())?;
        Ok(Self { client, endpoints, events: callbacks.events.clone(), sources })
    }

    /// Puts it to use, with what is counted across reloads: the bytes that are under way, of so many at most, and the
    /// time since the thread began. Returns the URLs of keys, too.
    pub(super) fn begin(
        self,
        bytes: Rc<Cell<usize>>,
        bytes_max: usize,
        began: Instant,
    ) -> (Current, Vec<KeySource>) {
        let Self { client, endpoints, events, sources } = self;
        let shared = Shared { client, bytes, bytes_max, began };
        let wanted = sources.iter().map(KeySource::wanted).collect();
        (Current { shared, endpoints, events, wanted }, sources)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Setup").finish_non_exhaustive()
    }
}
