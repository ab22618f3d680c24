//! HTTP/1.1 and HTTP/1.0 of a server: RFC 9110, RFC 9112.
//!
//! **What it is.** [`parse_head`]: the head of a request. [`BodyDecoder`]: its body. [`query_pairs`]: its query.
//! [`x_forwarded_for`], [`forwarded()`]: the client that proxies name in its headers.
//! [`Response`]: an answer with a length; [`write_chunk`]: a piece of an answer without one.
//!
//! **In and out.** In: received bytes and [`HeadLimits`]. Out: a [`Head`] and [`BodyPart`]s that
//! borrow from them, or an [`HttpFault`] that names its status. Responses are appended to the
//! caller's vector.
//!
//! **Always true.** Request smuggling needs two servers that read one request differently, so every form that RFC 9112
//! lets a recipient repair is refused: bare line feeds, folded headers, spaces before a colon, two lengths. A fault
//! ends the connection after its answer, because the start of the next request is unknown.
//!
//! **Must not know.** Routes, the methods of a route, and the meaning of a body.

mod body;
mod fault;
mod forwarded;
mod head;
mod query;
mod request_line;
mod response;

pub use body::{BodyDecoder, BodyLength, BodyPart};
pub use fault::HttpFault;
pub use forwarded::{forwarded, x_forwarded_for};
pub use head::{HEAD_BYTES_CEILING, HEADERS_CEILING, Head, HeadLimits, parse_head};
pub use query::{QueryPair, QueryPairs, query_pairs};
pub use request_line::{Method, Version, is_token};
pub use response::{
    LAST_CHUNK, Response, begin_chunk, date_text, reason_phrase, write_chunk, write_continue,
    write_error,
};
