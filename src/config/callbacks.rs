//! The callbacks to a backend: the sections `[callbacks]` and `[callbacks.KIND]` of the settings file.

use std::fmt;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::events::{EventKind, EventSettings, event_options_markdown};
use super::limits::{
    CALLBACK_ANSWER_BYTES_CEILING, CALLBACK_CONNECTIONS_CEILING, CALLBACK_HEADERS_MAX,
    CALLBACK_PENDING_CEILING,
};
use super::units::{Bytes, Time, parse_bytes, parse_count, parse_seconds};

macro_rules! callback_kinds {
    ($($(#[$doc:meta])* $name:ident => $word:literal;)*) => {
        /// What a backend is asked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CallbackKind { $($(#[$doc])* $name,)* }

        impl CallbackKind {
            /// Every kind, in the order of [`Self::WORDS`].
            pub const ALL: &'static [CallbackKind] = &[$(CallbackKind::$name),*];

            /// The names of the kinds, in settings and as labels of metrics.
            pub const WORDS: &'static [&'static str] = &[$($word),*];
        }
    };
}

callback_kinds! {
    /// The identity of a client that connects without a token.
    Connect => "connect";
    /// Whether a client that has expired may go on.
    Refresh => "refresh";
    /// Whether a client may subscribe, and how.
    Subscribe => "subscribe";
    /// Whether a client may publish, and what.
    Publish => "publish";
    /// Whether a subscription that has expired may go on.
    SubRefresh => "sub_refresh";
    /// To call a procedure for a client.
    Rpc => "rpc";
    /// To take events.
    Events => "events";
}

/// The settings of all callbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// A file of certificates, in PEM, that are trusted in addition to those of the system.
    pub ca_file: Option<String>,
    /// Which events there are.
    pub events: EventSettings,
    /// The settings of each kind, in the order of [`CallbackKind::ALL`].
    kinds: [Callback; CallbackKind::ALL.len()],
}

/// The settings of the callbacks of one kind.
#[derive(Clone, PartialEq, Eq)]
pub struct Callback {
    /// The URL that is asked; `None` if the backend is not asked.
    pub endpoint: Option<Uri>,
    /// How long an answer may take, from the moment at which a worker asks.
    pub timeout: Duration,
    /// The headers of a client's HTTP request that are sent on.
    pub http_headers: Vec<HeaderName>,
    /// Headers of every request, unless the client sends one of the same name that is sent on.
    pub static_headers: Vec<(HeaderName, HeaderValue)>,
    /// The header that has the address of the client.
    pub client_address_header: Option<HeaderName>,
    /// Whether each request has what the backend keeps with the connection.
    pub include_connection_meta: bool,
    /// Most requests that wait for an answer or for a connection; further ones fail at once.
    pub pending_max: usize,
    /// Most connections to the backend.
    pub connections_max: usize,
    /// Bytes of the largest answer.
    pub answer_bytes_max: u64,
    /// The backend is not asked for a while when it has failed so many times in a row.
    pub failures_max: u32,
}

/// One option of a section `[callbacks.KIND]`, which `[callbacks]` sets for every kind.
#[derive(Debug)]
pub struct CallbackOption {
    /// The key in the section.
    pub name: &'static str,
    /// A short description.
    pub doc: &'static str,
    value: Value,
}

/// The type and range of an option's values, and their field. Ranges include both ends.
#[derive(Debug)]
enum Value {
    Endpoint,
    Time(Duration, Duration, fn(&mut Callback) -> &mut Duration),
    Count(u64, u64, fn(&mut Callback) -> &mut usize),
    Failures(u32, u32),
    Bytes(u64, u64, fn(&mut Callback) -> &mut u64),
    Switch(fn(&mut Callback) -> &mut bool),
    HttpHeaders,
    StaticHeaders,
    AddressHeader,
}

/// Every option, in the order in which they are listed.
pub const CALLBACK_OPTIONS: &[CallbackOption] = &[
    CallbackOption {
        name: "endpoint",
        doc: "The URL that is asked, http or https; without it, the backend is not asked. In `[callbacks.KIND]` only",
        value: Value::Endpoint,
    },
    CallbackOption {
        name: "timeout",
        doc: "How long an answer may take, with the wait for a connection",
        value: Value::Time(Duration::from_millis(10), Duration::from_secs(60), |callback| {
            &mut callback.timeout
        }),
    },
    CallbackOption {
        name: "http_headers",
        doc: "The headers of a client's HTTP request that are sent on, such as \"Cookie\"; no others are",
        value: Value::HttpHeaders,
    },
    CallbackOption {
        name: "static_headers",
        doc: "Headers of every request, as \"Name: value\", unless the client's of that name is sent on; values \
              are not shown",
        value: Value::StaticHeaders,
    },
    CallbackOption {
        name: "client_address_header",
        doc: "The header of every request, such as \"X-Real-Ip\", that has the address of the client as the server \
              knows it; no header of this name that a client sends is sent on",
        value: Value::AddressHeader,
    },
    CallbackOption {
        name: "include_connection_meta",
        doc: "Whether each request has the `meta` of the client's token, or of the answer to `connect`",
        value: Value::Switch(|callback| &mut callback.include_connection_meta),
    },
    CallbackOption {
        name: "pending_max",
        doc: "Most requests that wait for an answer or a connection; further ones fail at once",
        value: Value::Count(1, CALLBACK_PENDING_CEILING, |callback| &mut callback.pending_max),
    },
    CallbackOption {
        name: "connections_max",
        doc: "Most connections to the backend, each with one request at a time",
        value: Value::Count(1, CALLBACK_CONNECTIONS_CEILING, |callback| {
            &mut callback.connections_max
        }),
    },
    CallbackOption {
        name: "answer_bytes_max",
        doc: "Largest answer; a larger one is a failure",
        value: Value::Bytes(64, CALLBACK_ANSWER_BYTES_CEILING, |callback| {
            &mut callback.answer_bytes_max
        }),
    },
    CallbackOption {
        name: "failures_max",
        doc: "Failures in a row after which the backend is not asked for a while: no connection, no answer in time, \
              or a status from 500 on",
        value: Value::Failures(1, 1_000_000),
    },
];

impl CallbackKind {
    /// The name of the kind.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// The kind with a name.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.word() == word)
    }
}

impl Callbacks {
    /// The settings of one kind.
    pub fn of(&self, kind: CallbackKind) -> &Callback {
        &self.kinds[kind as usize]
    }

    /// The settings of one kind, to change them.
    pub fn of_mut(&mut self, kind: CallbackKind) -> &mut Callback {
        &mut self.kinds[kind as usize]
    }

    /// The settings of every kind.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Callback> {
        self.kinds.iter_mut()
    }

    /// The headers that any kind sends on, each once.
    pub fn http_headers(&self) -> Vec<HeaderName> {
        let mut names: Vec<_> =
            self.kinds().flat_map(|kind| &self.of(kind).http_headers).cloned().collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        names
    }

    /// Whether any request has the address of the client.
    pub fn include_addresses(&self) -> bool {
        self.kinds().any(|kind| self.of(kind).client_address_header.is_some())
    }

    /// Whether any of these headers says who the user of a browser is, which adds it to the requests of every page.
    pub fn sends_on_credentials(&self) -> bool {
        let names = self.http_headers();
        names.iter().any(|name| matches!(name.as_str(), "cookie" | "authorization"))
    }

    /// Whether any request has what the backend keeps with a connection.
    pub fn include_meta(&self) -> bool {
        self.kinds().any(|kind| self.of(kind).include_connection_meta)
    }

    /// Whether the backend is notified of events of a kind.
    pub fn has_events(&self, kind: EventKind) -> bool {
        self.asks(CallbackKind::Events) && self.events.has(kind)
    }

    /// Whether the backend is asked.
    pub fn asks(&self, kind: CallbackKind) -> bool {
        self.of(kind).endpoint.is_some()
    }

    /// The kinds that the backend is asked.
    pub fn kinds(&self) -> impl Iterator<Item = CallbackKind> {
        CallbackKind::ALL.iter().copied().filter(|kind| self.asks(*kind))
    }
}

impl Default for Callback {
    fn default() -> Self {
        Self {
            endpoint: None,
            timeout: Duration::from_secs(1),
            http_headers: Vec::new(),
            static_headers: Vec::new(),
            client_address_header: None,
            include_connection_meta: false,
            pending_max: 1024,
            connections_max: 128,
            answer_bytes_max: 1024 * 1024,
            failures_max: 10,
        }
    }
}

/// Without the values of headers, which may be secrets.
impl fmt::Debug for Callback {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = out.debug_struct("Callback");
        for option in CALLBACK_OPTIONS {
            all.field(option.name, &option.text(self));
        }
        all.finish()
    }
}

impl CallbackOption {
    /// The option with a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CALLBACK_OPTIONS.iter().find(|option| option.name == name)
    }

    /// Sets the option from texts, one unless it is a list. An error is the part of a sentence that follows the
    /// option's name.
    pub fn parse(&self, texts: &[String], callback: &mut Callback) -> Result<(), String> {
        if let Value::StaticHeaders = self.value {
            if texts.len() > CALLBACK_HEADERS_MAX {
                return Err("there are too many".to_owned());
            }
            let headers = texts.iter().map(|text| header(text));
            callback.static_headers = headers.collect::<Result<_, _>>()?;
            return Ok(());
        }
        if let Value::HttpHeaders = self.value {
            if texts.len() > CALLBACK_HEADERS_MAX {
                return Err("there are too many".to_owned());
            }
            callback.http_headers =
                texts.iter().map(|text| name(text)).collect::<Result<_, _>>()?;
            return Ok(());
        }
        let [text] = texts else { return Err("it takes one value, not a list".to_owned()) };
        match self.value {
            Value::StaticHeaders | Value::HttpHeaders => {}
            Value::Endpoint => callback.endpoint = Some(endpoint(text)?),
            Value::AddressHeader => callback.client_address_header = Some(name(text)?),
            Value::Switch(field) => {
                *field(callback) = text.parse().map_err(|_| "it is true or false".to_owned())?;
            }
            Value::Time(min, max, field) => {
                *field(callback) = in_range(parse_seconds(text)?, min, max)?;
            }
            Value::Count(min, max, field) => {
                let count = in_range(parse_count(text)?, min, max)?;
                *field(callback) = usize::try_from(count).expect("ranges are small");
            }
            Value::Failures(min, max) => {
                let count = u32::try_from(parse_count(text)?).unwrap_or(u32::MAX);
                callback.failures_max = in_range(count, min, max)?;
            }
            Value::Bytes(min, max, field) => {
                *field(callback) = in_range(parse_bytes(text)?, min, max)?;
            }
        }
        Ok(())
    }

    /// The value as text. The values of headers and the query of a URL are left out.
    pub fn text(&self, callback: &Callback) -> String {
        let mut copy = callback.clone();
        match self.value {
            Value::Endpoint => callback.endpoint.as_ref().map(shown_url).unwrap_or_default(),
            Value::Time(_, _, field) => Time(*field(&mut copy)).to_string(),
            Value::Switch(field) => field(&mut copy).to_string(),
            Value::Count(_, _, field) => field(&mut copy).to_string(),
            Value::Failures(..) => callback.failures_max.to_string(),
            Value::Bytes(_, _, field) => Bytes(*field(&mut copy)).to_string(),
            Value::AddressHeader => {
                let header = callback.client_address_header.as_ref();
                header.map(HeaderName::to_string).unwrap_or_default()
            }
            Value::HttpHeaders => {
                let names = callback.http_headers.iter().map(HeaderName::as_str);
                names.collect::<Vec<_>>().join(", ")
            }
            Value::StaticHeaders => {
                let names = callback.static_headers.iter().map(|(name, _)| name.as_str());
                names.collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The range of values, as text.
    pub fn range(&self) -> String {
        match self.value {
            Value::Endpoint => "http://HOST… or https://HOST…".to_owned(),
            Value::Time(min, max, _) => format!("from {} to {}", Time(min), Time(max)),
            Value::Switch(_) => "true or false".to_owned(),
            Value::Count(min, max, _) => format!("from {min} to {max}"),
            Value::Failures(min, max) => format!("from {min} to {max}"),
            Value::Bytes(min, max, _) => format!("from {} to {}", Bytes(min), Bytes(max)),
            Value::AddressHeader => "the name of a header".to_owned(),
            Value::HttpHeaders => format!("up to {CALLBACK_HEADERS_MAX} names"),
            Value::StaticHeaders => format!("up to {CALLBACK_HEADERS_MAX}, each \"Name: value\""),
        }
    }
}

fn in_range<T: PartialOrd>(value: T, min: T, max: T) -> Result<T, String> {
    let is_in_range = (min..=max).contains(&value);
    is_in_range.then_some(value).ok_or_else(|| "it is out of range".to_owned())
}

/// A URL with a host and without a password, which would be shown in logs.
pub(super) fn endpoint(text: &str) -> Result<Uri, String> {
    let shown = text.split_once('?').map_or(text, |(shown, _)| shown);
    let fault = || format!("'{shown}' is not an http or https URL");
    let uri: Uri = text.parse().map_err(|_| fault())?;
    let authority = uri.authority().ok_or_else(fault)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return Err(fault());
    }
    if authority.as_str().contains('@') {
        return Err("a URL has no user and password: use static_headers".to_owned());
    }
    Ok(uri)
}

/// A URL as it is shown to users and in the log, without its query, which may have a key of the backend.
pub fn shown_url(url: &Uri) -> String {
    let mut text = url.to_string();
    if let Some(at) = text.find('?') {
        text.replace_range(at + 1.., "hidden");
    }
    text
}

/// A header as `Name: value`. Those that describe the body or the connection are set by the client.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (text, value) = text.split_once(':').ok_or("a header is \"Name: value\"")?;
    let fault = |_| format!("the value of '{text}' is not valid");
    let mut value = HeaderValue::from_str(value.trim()).map_err(fault)?;
    value.set_sensitive(true);
    Ok((name(text)?, value))
}

/// The name of a header.
fn name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.trim().as_bytes())
        .map_err(|_| format!("'{text}' is not the name of a header"))?;
    match OWN_HEADERS.contains(&name.as_str()) {
        true => Err(format!("'{text}' is set by the server itself")),
        false => Ok(name),
    }
}

/// Headers that the HTTP client sets.
const OWN_HEADERS: [&str; 7] =
    ["connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];

/// The table of callback options in `README.md`.
pub(super) fn callback_options_markdown() -> String {
    let mut table =
        "| option of `[callbacks]`, `[callbacks.KIND]` | default | range | what it is |\n"
            .to_owned()
            + "|---|---|---|---|\n";
    let default = Callback::default();
    for option in CALLBACK_OPTIONS {
        table.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            option.name,
            option.text(&default),
            option.range(),
            option.doc
        ));
    }
    table.push_str(
        "| `ca_file` |  | a file | Certificates, in PEM, that are trusted in addition to those of the system. In \
         `[callbacks]` only |\n\n",
    );
    table + &event_options_markdown()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, texts: &[&str], callback: &mut Callback) -> Result<(), String> {
        let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
        CallbackOption::named(name).unwrap().parse(&texts, callback)
    }

    #[test]
    fn values_are_accepted_at_their_limits_and_refused_one_past() {
        let mut callback = Callback::default();
        for (name, fine, bad) in [
            ("timeout", vec!["10 ms", "60 s"], vec!["9 ms", "61 s"]),
            ("pending_max", vec!["1", "65536"], vec!["0", "65537"]),
            ("connections_max", vec!["1", "1024"], vec!["0", "1025", "-1"]),
            ("answer_bytes_max", vec!["64", "16 MiB"], vec!["63", "17 MiB"]),
            ("include_connection_meta", vec!["true", "false"], vec!["", "1", "yes"]),
            ("failures_max", vec!["1", "1000000"], vec!["0", "1000001", "99999999999"]),
            (
                "endpoint",
                vec!["http://a", "https://a.example:8443/x?y=1", "http://[::1]:1/"],
                vec!["", "a", "/x", "ftp://a/", "http://", "http://u:p@a/", "http://a b/"],
            ),
            (
                "http_headers",
                vec!["Cookie", "x-real-ip"],
                vec!["", "a b", "a: b", "Host", "content-length"],
            ),
            ("client_address_header", vec!["X-Real-Ip"], vec!["", "a b", "a: b", "Host"]),
            (
                "static_headers",
                vec!["A: b", "X-Key:k", "a:"],
                vec!["a", ": b", "a b: c", "a: b\nc: d", "Host: x", "content-length: 1"],
            ),
        ] {
            for text in fine {
                assert_eq!(parse(name, &[text], &mut callback), Ok(()), "{name} = {text}");
            }
            for text in bad {
                assert!(parse(name, &[text], &mut callback).is_err(), "{name} = {text}");
            }
        }
        let many = vec!["a: b"; CALLBACK_HEADERS_MAX];
        assert_eq!(parse("static_headers", &many, &mut callback), Ok(()));
        let many = vec!["a: b"; CALLBACK_HEADERS_MAX + 1];
        assert!(parse("static_headers", &many, &mut callback).is_err());
        let many = vec!["a"; CALLBACK_HEADERS_MAX];
        assert_eq!(parse("http_headers", &many, &mut callback), Ok(()));
        let many = vec!["a"; CALLBACK_HEADERS_MAX + 1];
        assert!(parse("http_headers", &many, &mut callback).is_err());
        assert!(parse("timeout", &["1 s", "1 s"], &mut callback).is_err());
    }

    #[test]
    fn values_of_headers_and_queries_are_not_shown() {
        let mut callback = Callback::default();
        for (url, shown) in [
            ("https://a:1/x?key=secret", "https://a:1/x?hidden"),
            ("http://a?secret", "http://a/?hidden"),
            ("http://a/x", "http://a/x"),
        ] {
            parse("endpoint", &[url], &mut callback).unwrap();
            let option = CallbackOption::named("endpoint").unwrap();
            assert_eq!(option.text(&callback), shown);
            assert!(!format!("{callback:?}").contains("secret"));
        }
        parse("static_headers", &["X-Key: secret", "X-Other: x"], &mut callback).unwrap();
        let option = CallbackOption::named("static_headers").unwrap();
        assert_eq!(option.text(&callback), "x-key, x-other");
        assert!(!format!("{callback:?}").contains("secret"));
    }

    #[test]
    fn each_kind_has_its_word() {
        for kind in CallbackKind::ALL.iter().copied() {
            assert_eq!(CallbackKind::named(kind.word()), Some(kind));
        }
        assert_eq!(CallbackKind::named("other"), None);
    }
}
