//! The keys of the server API with their rights: the sections `[api.keys.NAME]` of the settings file.

use super::limits::{API_KEY_BYTES_MAX, NAMESPACES_MAX};
use super::nearest::did_you_mean;
use super::secret::Secret;

/// A key of the server API, and what a request that shows it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The name of its section: 1..=64 bytes of letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The secret: 1..=[`API_KEY_BYTES_MAX`] visible ASCII characters, and never that of another key.
    pub secret: Secret,
    /// What it allows.
    pub rights: ApiRights,
}

/// What a request to the server API may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRights {
    /// The methods that may be called.
    pub methods: ApiMethods,
    /// The namespaces, with an empty name for channels without one; every channel if `None`.
    pub namespaces: Option<Vec<String>>,
}

/// A set of methods of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiMethods(u16);

macro_rules! api_rights {
    ($($(#[$doc:meta])* $name:ident => $word:literal, $of_channel:literal;)*) => {
        /// The right to call a method of the server API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ApiRight { $($(#[$doc])* $name,)* }

        impl ApiRight {
            /// Every right, one for each method or pair of methods.
            pub const ALL: &'static [ApiRight] = &[$(ApiRight::$name),*];

            /// The word for it in settings.
            pub fn word(self) -> &'static str {
                match self { $(ApiRight::$name => $word,)* }
            }

            /// Whether the method concerns channels, so that the right can be limited to namespaces.
            pub fn is_of_channels(self) -> bool {
                match self { $(ApiRight::$name => $of_channel,)* }
            }
        }
    };
}

api_rights! {
    /// To publish: the methods `publish` and `broadcast`, and `POST /publish`.
    Publish => "publish", true;
    /// To subscribe a client.
    Subscribe => "subscribe", true;
    /// To end a client's subscription.
    Unsubscribe => "unsubscribe", true;
    /// To end a client's connection.
    Disconnect => "disconnect", false;
    /// To prolong a client's connection.
    Refresh => "refresh", false;
    /// To read a history.
    History => "history", true;
    /// To remove a history.
    HistoryRemove => "history_remove", true;
    /// To list the subscribers of a channel.
    Presence => "presence", true;
    /// To count the subscribers of a channel.
    PresenceStats => "presence_stats", true;
    /// To list the channels; of a key that is limited to namespaces, those of the namespaces.
    Channels => "channels", true;
    /// To describe the nodes.
    Info => "info", false;
    /// To list connections.
    Connections => "connections", false;
    /// To block users and to unblock them: the methods `block_user` and `unblock_user`.
    BlockUser => "block_user", false;
    /// To call a procedure.
    Rpc => "rpc", false;
}

const _: () = assert!(ApiRight::ALL.len() <= 16, "one bit a right");

/// The keys of a section `[api.keys.NAME]`, with a short description of each.
pub const API_KEY_OPTIONS: [(&str, &str); 4] = [
    ("key", "The secret: 1 to 1024 visible ASCII characters"),
    (
        "key_file",
        "A file that contains the secret, instead of `key`; white space around it is ignored",
    ),
    (
        "methods",
        "What it allows: a list of methods, or `all`, which is the default; `publish` includes `broadcast`, \
         `block_user` includes `unblock_user`",
    ),
    (
        "namespaces",
        "The namespaces that it is limited to, \"\" for channels without one; without the list, all channels",
    ),
];

impl ApiKey {
    /// A key without a secret that allows everything.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), secret: Secret::default(), rights: ApiRights::all() }
    }

    /// Checks the key itself. The error is a sentence, and does not have the secret.
    pub fn check(&self) -> Result<(), String> {
        let section = format!("[api.keys.{}]", self.name);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(is_allowed) {
            return Err(format!(
                "{section}: a name has 1 to 64 characters: letters, digits, '_', '-' or '.'"
            ));
        }
        let secret = self.secret.expose();
        let is_visible = secret.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || !(1..=API_KEY_BYTES_MAX).contains(&secret.len()) {
            return Err(format!(
                "{section}: its key must be 1 to {API_KEY_BYTES_MAX} visible ASCII characters"
            ));
        }
        let Some(namespaces) = &self.rights.namespaces else { return Ok(()) };
        if namespaces.is_empty() || namespaces.len() > NAMESPACES_MAX + 1 {
            return Err(format!(
                "{section}: namespaces: it must be 1 to {} names",
                NAMESPACES_MAX + 1
            ));
        }
        let named = self.rights.methods.0 != ApiMethods::ALL.0;
        let mut whole = ApiRight::ALL.iter().filter(|right| !right.is_of_channels());
        match whole.find(|right| named && self.rights.methods.contains(**right)) {
            Some(right) => Err(format!(
                "{section}: methods: {} does not concern channels and cannot be limited to namespaces",
                right.word()
            )),
            None => Ok(()),
        }
    }
}

impl ApiRights {
    /// Every method, on every channel.
    pub fn all() -> Self {
        Self { methods: ApiMethods::ALL, namespaces: None }
    }

    /// The options as text, in the order in which they are listed, without the secret.
    pub fn texts(&self) -> [(&'static str, String); 2] {
        let namespaces = self.namespaces.as_ref().map(|names| {
            names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
        });
        [
            ("methods", self.methods.text()),
            ("namespaces", namespaces.unwrap_or_else(|| "all".to_owned())),
        ]
    }
}

impl ApiMethods {
    /// Every method, those of later versions included.
    pub const ALL: Self = Self(u16::MAX);

    /// The methods of a list of words. An error is the part of a sentence that follows the option's name.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut methods = 0;
        for word in words {
            let right = ApiRight::ALL.iter().find(|right| right.word() == word);
            methods |= match (word.as_str(), right) {
                ("all", _) => Self::ALL.0,
                ("broadcast", _) => Self::of(ApiRight::Publish).0,
                ("unblock_user", _) => Self::of(ApiRight::BlockUser).0,
                (_, Some(right)) => Self::of(*right).0,
                (_, None) => {
                    let words = ApiRight::ALL.iter().map(|right| right.word());
                    let hint = did_you_mean(word, words);
                    return Err(format!("'{word}' is not a method of the server API{hint}"));
                }
            };
        }
        if methods == 0 { Err("it names no method".to_owned()) } else { Ok(Self(methods)) }
    }

    /// The set of one method.
    pub fn of(right: ApiRight) -> Self {
        Self(1 << right as u16)
    }

    /// Whether a method is among them.
    pub fn contains(self, right: ApiRight) -> bool {
        self.0 & Self::of(right).0 != 0
    }

    fn text(self) -> String {
        if self == Self::ALL {
            return "all".to_owned();
        }
        let words = ApiRight::ALL.iter().filter(|right| self.contains(**right));
        words.map(|right| right.word()).collect::<Vec<_>>().join(", ")
    }
}

/// The table of the options of a key in `README.md`.
pub(super) fn api_keys_markdown() -> String {
    let mut table = "| `[api.keys.NAME]` | what it is |\n|---|---|\n".to_owned();
    for (name, doc) in API_KEY_OPTIONS {
        table.push_str(&format!("| `{name}` | {doc} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn methods_are_read_from_words_and_shown_as_words() {
        for right in ApiRight::ALL {
            let methods = ApiMethods::parse(&words(&[right.word()])).unwrap();
            assert_eq!(methods.text(), right.word());
            for other in ApiRight::ALL {
                assert_eq!(methods.contains(*other), other == right);
                assert!(ApiMethods::ALL.contains(*other));
            }
        }
        let methods = ApiMethods::parse(&words(&["history", "broadcast"])).unwrap();
        assert_eq!(methods.text(), "publish, history");
        assert_eq!(ApiMethods::parse(&words(&["info", "all"])).unwrap(), ApiMethods::ALL);
        assert_eq!(ApiMethods::ALL.text(), "all");
        let fault = ApiMethods::parse(&words(&["publsh"])).unwrap_err();
        assert!(fault.contains("did you mean publish?"), "{fault}");
        assert!(ApiMethods::parse(&[]).is_err());
    }

    #[test]
    fn a_key_is_refused_without_its_secret_being_shown() {
        let key = |secret: &str| ApiKey { secret: secret.into(), ..ApiKey::new("a") };
        assert_eq!(key(&"x".repeat(API_KEY_BYTES_MAX)).check(), Ok(()));
        for secret in ["", "a secret", "geh\u{e9}im", &"x".repeat(API_KEY_BYTES_MAX + 1)] {
            let fault = key(secret).check().unwrap_err();
            assert!(fault.contains("[api.keys.a]: its key must be"), "{fault}");
            assert!(secret.is_empty() || !fault.contains(secret), "{fault}");
        }
        assert!(!format!("{:?}", key("hunter2")).contains("hunter2"));
        for name in ["", "a b", &"n".repeat(65)] {
            assert!(ApiKey { name: name.to_owned(), ..key("x") }.check().is_err(), "{name}");
        }
    }

    #[test]
    fn methods_that_do_not_concern_channels_are_not_limited_to_namespaces() {
        let with = |methods: &[&str], namespaces: &[&str]| {
            let rights = ApiRights {
                methods: ApiMethods::parse(&words(methods)).unwrap(),
                namespaces: Some(words(namespaces)),
            };
            ApiKey { secret: "x".into(), rights, ..ApiKey::new("a") }.check()
        };
        assert_eq!(with(&["all"], &["chat"]), Ok(()));
        assert_eq!(with(&["publish", "channels"], &["chat", ""]), Ok(()));
        let fault = with(&["publish", "disconnect"], &["chat"]).unwrap_err();
        assert!(fault.contains("disconnect does not concern channels"), "{fault}");
        assert!(with(&["publish"], &[]).is_err());
        let names = vec!["n"; NAMESPACES_MAX + 1];
        assert_eq!(with(&["publish"], &names), Ok(()));
        assert!(with(&["publish"], &[names, vec!["n"]].concat()).is_err());
    }
}
