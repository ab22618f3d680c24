//! The page at `/`: one file, which no build step makes. It may use what stands in it, and this server; nothing else.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::answer::{Exchange, write_response};
use crate::protocol::http1::Head;
use crate::transport::context::Context;

/// What is said of the page.
#[derive(Debug)]
struct Page {
    etag: String,
    policy: String,
}

const HTML: &str = include_str!("page.html");

/// Known once it is asked for the first time.
static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

impl Page {
    /// Reads it, for its ETag and for the hashes of its one script and its one style sheet.
    fn new() -> Self {
        let [script, style] = ["script", "style"].map(|element| hash(content_of(HTML, element)));
        Self {
            etag: format!("\"{}\"", hash(HTML)),
            policy: format!(
                "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; \
                 img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
        }
    }
}

/// Answers `GET /`.
pub(super) fn write_page(head: &Head<'_>, exchange: Exchange, context: &mut Context<'_>) {
    let page = &*PAGE;
    // Asked for each time, and answered without a body as long as it is the same.
    let headers = [("ETag", page.etag.as_str()), ("Cache-Control", "no-cache")];
    if head.header("if-none-match").any(|tags| names(tags, &page.etag)) {
        return write_response(exchange, 304, &headers, "", b"", context);
    }
    let guards = [
        ("Content-Security-Policy", page.policy.as_str()),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ];
    let headers = [&headers[..], &guards].concat();
    let content_type = "text/html; charset=utf-8";
    write_response(exchange, 200, &headers, content_type, HTML.as_bytes(), context);
}

/// Whether a list of entity tags names this one, or any (RFC 9110 13.1.2: a weak one will do).
fn names(tags: &[u8], etag: &str) -> bool {
    tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        tag == etag.as_bytes() || tag == b"*"
    })
}

/// What stands in the first element of a name that has no attributes.
fn content_of<'h>(html: &'h str, element: &str) -> &'h str {
    let (_, rest) = html.split_once(&format!("<{element}>")).expect("the page has one");
    rest.split_once(&format!("</{element}>")).expect("it ends").0
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_along_all_that_it_needs() {
        for element in ["script", "style"] {
            assert_eq!(HTML.matches(&format!("<{element}")).count(), 1);
            assert!(!content_of(HTML, element).is_empty());
        }
        // What the policy would not let a browser do.
        for outside in ["src=", "style=", "http://", "https://", "onclick=\"", "@import", "url("] {
            assert!(!HTML.contains(outside), "{outside}");
        }
        assert!(HTML.len() < 64 * 1024, "it is sent as one answer");
    }

    #[test]
    fn hashes_are_as_browsers_compute_them() {
        assert_eq!(hash("abc"), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        assert_eq!(content_of("<p>a</p><b>c</b>", "b"), "c");
    }

    #[test]
    fn a_tag_is_found_among_others() {
        for tags in ["\"a\"", "*", "W/\"a\"", "\"b\", \"a\"", " \"a\" "] {
            assert!(names(tags.as_bytes(), "\"a\""), "{tags}");
        }
        for tags in ["", "a", "\"b\"", "\"aa\"", "w/\"a\""] {
            assert!(!names(tags.as_bytes(), "\"a\""), "{tags}");
        }
    }
}
