//! The headers of a request that callbacks send on to the backend.

use bytes::Bytes;

use crate::message::ForwardedHeaders;
use crate::protocol::http1::Head;
use crate::transport::context::{Context, Output};

/// Hands the worker the headers of a request whose names are in the settings, if there are any such names.
pub(super) fn note_headers(head: &Head<'_>, context: &mut Context<'_>) {
    let names = &context.settings.forwarded_headers;
    if names.is_empty() {
        return;
    }
    let values = names.iter().flat_map(|name| {
        head.header(name).map(|value| (name.clone(), Bytes::copy_from_slice(value)))
    });
    let headers = ForwardedHeaders(values.collect());
    context.outputs.push(Output::Forwarded(Box::new(headers)));
}
