//! Requests that wait for an answer of the backend, one of a session at most: what the session asks behind it is
//! deferred, so its requests keep their order.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::message::{ForwardedHeaders, Request, RequestId, SessionId};

/// All requests of a worker that wait for the backend.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The serial of the last call.
    serial: u32,
    requests: HashMap<SessionId, HeldRequest>,
    /// The headers that callbacks of a session send on, as long as its connection is open.
    headers: HashMap<SessionId, Arc<ForwardedHeaders>>,
    /// What the backend keeps with connections, as long as their clients are the same.
    metas: HashMap<SessionId, Bytes>,
    bytes: usize,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct HeldRequest {
    /// The serial of its call: what a client asked before it does not answer it.
    serial: u32,
    /// The reply's id; `None` if no reply is wanted.
    pub(super) id: Option<RequestId>,
    /// What is asked.
    pub(super) request: Request,
}

impl Held {
    /// Bytes of what waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the headers that callbacks of a session send on from now on.
    pub(super) fn set_headers(&mut self, session: SessionId, headers: ForwardedHeaders) {
        self.forget_headers(session);
        if headers != ForwardedHeaders::default() {
            self.bytes += headers.heap_bytes();
            self.headers.insert(session, Arc::new(headers));
        }
    }

    /// The headers that callbacks of a session send on.
    pub(super) fn headers(&self, session: SessionId) -> Option<Arc<ForwardedHeaders>> {
        self.headers.get(&session).cloned()
    }

    /// The connection of a session closes.
    pub(super) fn forget_headers(&mut self, session: SessionId) {
        if self.headers.is_empty() {
            return;
        }
        let headers = self.headers.remove(&session);
        self.bytes -= headers.map_or(0, |headers| headers.heap_bytes());
    }

    /// Takes what the backend keeps with a connection.
    pub(super) fn set_meta(&mut self, session: SessionId, meta: Bytes) {
        self.forget_meta(session);
        self.bytes += meta.len();
        self.metas.insert(session, meta);
    }

    /// What the backend keeps with a connection.
    pub(super) fn meta(&self, session: SessionId) -> Option<Bytes> {
        self.metas.get(&session).cloned()
    }

    /// The client of a session is another one from now on, or none.
    pub(super) fn forget_meta(&mut self, session: SessionId) {
        if !self.metas.is_empty() {
            self.bytes -= self.metas.remove(&session).map_or(0, |meta| meta.len());
        }
    }

    /// Whether a request of a session waits.
    pub(super) fn has(&self, session: SessionId) -> bool {
        !self.requests.is_empty() && self.requests.contains_key(&session)
    }

    /// Has a request wait, and returns the serial of its call.
    pub(super) fn push(
        &mut self,
        session: SessionId,
        id: Option<RequestId>,
        request: Request,
    ) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        let held = HeldRequest { serial: self.serial, id, request };
        self.bytes += held.bytes();
        let before = self.requests.insert(session, held);
        debug_assert!(before.is_none(), "a session has one request here");
        self.serial
    }

    /// Takes the request that a call was made for, unless its session has ended.
    pub(super) fn take(&mut self, session: SessionId, serial: u32) -> Option<HeldRequest> {
        let is_it = self.requests.get(&session).is_some_and(|held| held.serial == serial);
        is_it.then(|| self.forget(session)).flatten()
    }

    /// Takes the request of a session, whose answer is then ignored.
    pub(super) fn forget(&mut self, session: SessionId) -> Option<HeldRequest> {
        if self.requests.is_empty() {
            return None;
        }
        let held = self.requests.remove(&session)?;
        self.bytes -= held.bytes();
        Some(held)
    }
}

impl HeldRequest {
    /// What it keeps in memory, and its copy in the body of the call.
    fn bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.request.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(generation: u32) -> SessionId {
        SessionId { index: 0, generation }
    }

    fn call(name: &str) -> Request {
        Request::Call { procedure: name.into(), data: None }
    }

    #[test]
    fn an_answer_finds_its_request_once_and_no_other() {
        let mut held = Held::default();
        let serial = held.push(session(1), None, call("abc"));
        assert!(held.has(session(1)) && !held.has(session(2)));
        assert_eq!(held.bytes(), size_of::<HeldRequest>() + 6);
        assert!(held.take(session(2), serial).is_none(), "of another session");
        assert!(held.take(session(1), serial.wrapping_add(1)).is_none(), "of another call");
        assert!(held.take(session(1), serial).is_some());
        assert!(held.take(session(1), serial).is_none());
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn headers_are_counted_and_replaced_and_forgotten() {
        let mut held = Held::default();
        let headers = |value: &'static str| ForwardedHeaders(vec![("a".into(), value.into())]);
        held.set_headers(session(1), headers("long"));
        held.set_headers(session(1), headers("b"));
        assert_eq!(held.headers(session(1)).as_deref(), Some(&headers("b")));
        assert_eq!((held.headers(session(2)), held.bytes()), (None, headers("b").heap_bytes()));
        held.set_headers(session(1), ForwardedHeaders::default());
        assert_eq!((held.headers(session(1)), held.bytes()), (None, 0));
        held.set_headers(session(1), headers("b"));
        held.forget_headers(session(1));
        held.forget_headers(session(1));
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn what_the_backend_keeps_is_counted_and_replaced_and_forgotten() {
        let mut held = Held::default();
        held.set_meta(session(1), "long".into());
        held.set_meta(session(1), "{}".into());
        assert_eq!((held.meta(session(1)), held.bytes()), (Some("{}".into()), 2));
        assert_eq!(held.meta(session(2)), None);
        held.forget_meta(session(1));
        held.forget_meta(session(1));
        assert_eq!((held.meta(session(1)), held.bytes()), (None, 0));
    }

    #[test]
    fn a_request_of_a_session_that_ended_is_forgotten() {
        let mut held = Held::default();
        let first = held.push(session(1), None, call("a"));
        assert!(held.forget(session(1)).is_some());
        let second = held.push(session(1), None, call("b"));
        assert!(held.take(session(1), first).is_none(), "a late answer is for the first one");
        assert!(held.take(session(1), second).is_some());
        assert!(held.forget(session(1)).is_none());
        assert_eq!(held.bytes(), 0);
    }
}
