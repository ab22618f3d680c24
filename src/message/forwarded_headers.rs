//! The headers of a client's HTTP request that callbacks send on to the backend.

use std::sync::Arc;

use bytes::Bytes;

/// Headers in the order of the request. Their names are those of the settings: a client chooses values only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedHeaders(
    /// The name, in lower case, and the value of each.
    pub Vec<(Arc<str>, Bytes)>,
);

impl ForwardedHeaders {
    /// About how many bytes they keep on the heap.
    pub fn heap_bytes(&self) -> usize {
        let Self(headers) = self;
        headers.iter().map(|header| size_of_val(header) + header.1.len()).sum()
    }
}
