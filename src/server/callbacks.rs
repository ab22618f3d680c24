//! The thread of the callbacks, if a callback is configured.

use std::thread;

use tracing::error;

use crate::callback::{Caller, Inbox, Service, Setup, Setups};
use crate::config::{CallbackKind, Config};
use crate::message::NodeId;
use crate::worker::{Budget, Mesh};

/// What the thread runs.
pub(super) struct Callbacks {
    service: Service,
    inboxes: Vec<Box<dyn Inbox>>,
    setups: Setups,
}

/// Stops the server if the thread panics: clients would wait for answers without end.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            error!("the thread of the callbacks panicked");
            (self.0)();
        }
    }
}

impl Callbacks {
    /// Makes ready what the thread needs, and the way in which workers ask it; `None` if neither a callback nor a URL
    /// of keys is configured. Workers use a descriptor that is opened here, so this comes before the first of them
    /// leaves the shared descriptor table.
    pub(super) fn new(
        config: &Config,
        node: NodeId,
        budgets: &[Budget],
        meshes: &[Mesh],
    ) -> Result<Option<(Self, Caller)>, String> {
        if !are_needed(config) {
            return Ok(None);
        }
        let memory_bytes_max = budgets.first().map_or(0, Budget::bytes_max);
        let events_max = config.callbacks.of(CallbackKind::Events).pending_max;
        let setup = Setup::new(&config.callbacks, &config.token_keys)?;
        let (service, caller, setups) = Service::new(setup, node, events_max, memory_bytes_max)?;
        let inboxes = meshes.iter().map(|mesh| Box::new(mesh.inbox()) as Box<dyn Inbox>).collect();
        Ok(Some((Self { service, inboxes, setups }, caller)))
    }

    /// The way to change what the thread asks.
    pub(super) fn setups(&self) -> Setups {
        self.setups.clone()
    }

    /// Runs until the workers have ended. What is opened here is not copied into the tables of workers, so this begins
    /// after they have left the shared table.
    pub(super) fn run(self, on_panic: impl Fn()) {
        let _guard = OnPanic(on_panic);
        self.service.run(self.inboxes);
    }
}

/// Whether a configuration needs the thread: for a callback, or for keys that are published at a URL.
pub(super) fn are_needed(config: &Config) -> bool {
    let has_urls = config.token_keys.iter().any(|key| key.jwks_url.is_some());
    has_urls || config.callbacks.kinds().next().is_some()
}
