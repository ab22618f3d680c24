//! One backend, as one kind of callback asks it: one HTTP request after another over a bounded number of connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, decode_answer};
use super::body::write_body;
use super::call::{Call, Failure};
use super::circuit::Circuit;
use super::client::HttpClient;
use crate::config::limits::CALLBACK_QUEUE_SHARE_DIVISOR;
use crate::config::{CallbackKind, Callbacks, shown_url};

/// What one kind of callback has of its own.
pub(super) struct Endpoint {
    kind: CallbackKind,
    uri: Uri,
    /// The same for the log.
    pub(super) shown_uri: String,
    static_headers: Vec<(HeaderName, HeaderValue)>,
    /// The headers of clients that are sent on.
    http_headers: Vec<HeaderName>,
    /// The header that has the address of the client.
    address_header: Option<HeaderName>,
    timeout: Duration,
    /// Calls that wait for an answer or a connection.
    pending: Cell<usize>,
    pending_max: usize,
    connections: Semaphore,
    answer_bytes_max: usize,
    circuit: RefCell<Circuit>,
}

/// What all endpoints share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: HttpClient,
    /// Bytes of the requests and answers that are under way.
    pub(super) bytes: Rc<Cell<usize>>,
    /// As many as they may be; a request or an answer beyond them fails.
    pub(super) bytes_max: usize,
    /// When the service began.
    pub(super) began: Instant,
}

/// A request to the backend.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub body: Vec<u8>,
    /// The call whose headers are sent on.
    pub call: Option<&'a Call>,
    /// The signature of the body.
    pub signature: Option<HeaderValue>,
}

/// The header that has the signature of events.
const SIGNATURE: HeaderName = HeaderName::from_static("x-fantail-signature");

impl Endpoint {
    /// The endpoint of a kind; `None` if the backend is not asked.
    pub(super) fn new(kind: CallbackKind, callbacks: &Callbacks) -> Option<Self> {
        let callback = callbacks.of(kind);
        let uri = callback.endpoint.clone()?;
        Some(Self {
            kind,
            shown_uri: shown_url(&uri),
            uri,
            static_headers: callback.static_headers.clone(),
            http_headers: callback.http_headers.clone(),
            address_header: callback.client_address_header.clone(),
            timeout: callback.timeout,
            pending: Cell::new(0),
            pending_max: callback.pending_max,
            connections: Semaphore::new(callback.connections_max),
            answer_bytes_max: usize::try_from(callback.answer_bytes_max).unwrap_or(usize::MAX),
            circuit: RefCell::new(Circuit::new(callback.failures_max)),
        })
    }

    /// Whether its URL is https.
    pub(super) fn needs_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Asks the backend. Returns whether its circuit has opened by that, too.
    pub(super) async fn ask(
        &self,
        shared: &Shared,
        call: &Call,
    ) -> (Result<Answer, Failure>, bool) {
        if self.circuit.borrow().is_open(shared.began.elapsed()) {
            return (Err(Failure::CircuitOpen), false);
        }
        let _is_pending = match Counted::new(&self.pending, 1, self.pending_max) {
            Some(counted) => counted,
            None => return (Err(Failure::Rejected), false),
        };
        // A call that waits for its connection for long would be cut off in its exchange: the work of the backend
        // would be for nothing.
        let began = Instant::now();
        let queued_until = began + self.timeout / CALLBACK_QUEUE_SHARE_DIVISOR;
        let Ok(Ok(_connection)) = timeout_at(queued_until, self.connections.acquire()).await else {
            return (Err(Failure::Rejected), false);
        };
        if !self.circuit.borrow_mut().admits(shared.began.elapsed()) {
            return (Err(Failure::CircuitOpen), false);
        }
        let mut body = Vec::new();
        write_body(&mut body, call);
        let outgoing = Outgoing { body, call: Some(call), signature: None };
        let exchange = timeout_at(began + self.timeout, self.exchange(shared, outgoing));
        let result = exchange.await.unwrap_or(Err(Failure::Timeout));
        let decode = |body: Vec<u8>| decode_answer(self.kind, &body).map_err(|_| Failure::Invalid);
        let result = result.and_then(decode);
        let is_outage = result.as_ref().is_err_and(|failure| failure.is_outage());
        let has_opened = self.circuit.borrow_mut().note(is_outage, shared.began.elapsed());
        (result, has_opened)
    }

    /// Adds the headers of the client that are sent on, the static ones that none of these replaces, and the address of
    /// the client, whose header has nothing else. A value that HTTP does not allow is left out.
    fn add_headers(&self, to: &mut HeaderMap, call: Option<&Call>) {
        let forwarded =
            call.and_then(|call| call.headers.as_ref()).into_iter().flat_map(|headers| &headers.0);
        for (name, value) in forwarded {
            let known = self.http_headers.iter().find(|known| known.as_str() == &**name);
            let known = known.filter(|known| self.address_header.as_ref() != Some(*known));
            if let (Some(name), Ok(value)) = (known, HeaderValue::from_bytes(value)) {
                to.append(name, value);
            }
        }
        for (name, value) in &self.static_headers {
            if !self.http_headers.contains(name) || !to.contains_key(name) {
                to.append(name, value.clone());
            }
        }
        let Some(header) = &self.address_header else { return };
        to.remove(header);
        let address = call.and_then(|call| call.address).map(|address| address.to_string());
        if let Some(Ok(value)) = address.map(HeaderValue::try_from) {
            to.insert(header, value);
        }
    }

    /// Hands the backend events. Their circuit is the pause between two attempts.
    pub(super) async fn deliver(
        &self,
        shared: &Shared,
        outgoing: Outgoing<'_>,
    ) -> Result<(), Failure> {
        let exchange = timeout(self.timeout, self.exchange(shared, outgoing)).await;
        exchange.unwrap_or(Err(Failure::Timeout)).map(drop)
    }

    /// One request and the body of its answer.
    async fn exchange(&self, shared: &Shared, outgoing: Outgoing<'_>) -> Result<Vec<u8>, Failure> {
        let Outgoing { body, call, signature } = outgoing;
        let counted = Counted::new(&shared.bytes, body.len(), shared.bytes_max);
        let mut counted = counted.ok_or(Failure::Rejected)?;
        let mut request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("fantail/", env!("CARGO_PKG_VERSION")));
        if let Some(headers) = request.headers_mut() {
            self.add_headers(headers, call);
            signature.into_iter().for_each(|value| _ = headers.insert(SIGNATURE, value));
        }
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|_| Failure::Unreachable)?;
        let answer = shared.client.request(request).await.map_err(|_| Failure::Unreachable)?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.as_u16() >= 500 => return Err(Failure::ServerError),
            _ => return Err(Failure::Status),
        }
        let (mut body, mut received) = (answer.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Failure::Unreachable)?;
            let Some(data) = frame.data_ref() else { continue };
            if received.len() + data.len() > self.answer_bytes_max {
                return Err(Failure::TooLarge);
            }
            counted.add(data.len(), shared.bytes_max).ok_or(Failure::Rejected)?;
            received.extend_from_slice(data);
        }
        Ok(received)
    }
}

/// A part of a bounded number, given back on drop.
struct Counted<'a> {
    total: &'a Cell<usize>,
    own: usize,
}

impl<'a> Counted<'a> {
    /// Adds `own` to `total`; `None` if that makes more than `max`.
    fn new(total: &'a Cell<usize>, own: usize, max: usize) -> Option<Self> {
        let mut counted = Self { total, own: 0 };
        counted.add(own, max).map(|()| counted)
    }

    fn add(&mut self, more: usize, max: usize) -> Option<()> {
        let total = self.total.get().checked_add(more).filter(|total| *total <= max)?;
        self.total.set(total);
        self.own += more;
        Some(())
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_counted_up_to_its_maximum_and_given_back() {
        let total = Cell::new(0);
        let mut first = Counted::new(&total, 6, 10).unwrap();
        assert!(Counted::new(&total, 5, 10).is_none());
        let second = Counted::new(&total, 4, 10).unwrap();
        assert!(first.add(1, 10).is_none() && first.add(usize::MAX, 10).is_none());
        drop(second);
        assert_eq!(first.add(4, 10), Some(()));
        drop(first);
        assert_eq!(total.get(), 0);
    }
}
