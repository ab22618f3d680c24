//! The keys of the server API: which one a request shows, and what it allows.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::config::limits::API_KEY_BYTES_MAX;
use crate::config::{ApiRight, ApiRights, Config, Namespaces};

/// The keys of the server API.
///
/// A shown key is compared by its digest with all of them, so that the time tells neither how much of it is right, nor
/// the length of a key, nor which key it is.
#[derive(Clone)]
pub struct ApiKeys {
    /// The digest of each key.
    digests: Vec<[u8; 32]>,
    /// What each key allows, in the same order.
    grants: Vec<Arc<ApiGrant>>,
    /// What a request may do if there are no keys: everything.
    open: Arc<ApiGrant>,
}

/// What a request to the server API may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiGrant(ApiRights);

/// Why a request to the server API is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    /// It shows no key.
    KeyMissing,
    /// It shows a key that does not exist.
    KeyUnknown,
    /// Its key does not allow the method, or not in this namespace.
    RightMissing,
}

impl ApiKeys {
    /// The keys of a configuration.
    pub fn new(config: &Config) -> Self {
        let all = config.api_key.iter().map(|secret| (secret, ApiRights::all()));
        let keys = config.api_keys.iter().map(|key| (&key.secret, key.rights.clone()));
        let (digests, grants) = all
            .chain(keys)
            .map(|(secret, rights)| {
                (digest(secret.expose().as_bytes()), Arc::new(ApiGrant(rights)))
            })
            .unzip();
        Self { digests, grants, open: Arc::new(ApiGrant(ApiRights::all())) }
    }

    /// Whether a request must show a key.
    pub fn are_required(&self) -> bool {
        !self.digests.is_empty()
    }

    /// What a request may do that shows these keys, as a rule one: what the first one allows that exists.
    pub fn admit<'k>(
        &self,
        shown: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Arc<ApiGrant>, ApiRefusal> {
        if !self.are_required() {
            return Ok(self.open.clone());
        }
        let mut refusal = ApiRefusal::KeyMissing;
        for key in shown {
            if let Some(grant) = self.find(key) {
                return Ok(grant.clone());
            }
            refusal = ApiRefusal::KeyUnknown;
        }
        Err(refusal)
    }

    fn find(&self, shown: &[u8]) -> Option<&Arc<ApiGrant>> {
        // No key is longer, and hashing takes time.
        if shown.len() > API_KEY_BYTES_MAX {
            return None;
        }
        let shown = digest(shown);
        let mut found = u32::MAX;
        for (index, key) in (0u32..).zip(&self.digests) {
            found.conditional_assign(&index, shown.ct_eq(key));
        }
        self.grants.get(found as usize)
    }
}

/// Without the digests, which would help to guess a weak key.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ApiKeys").field("count", &self.digests.len()).finish_non_exhaustive()
    }
}

impl ApiGrant {
    /// A grant of these rights.
    pub fn new(rights: ApiRights) -> Self {
        Self(rights)
    }

    /// Whether a method may be called, for now without a channel. What does not concern channels is not allowed by a
    /// grant for some namespaces.
    pub fn allows(&self, right: ApiRight) -> bool {
        let Self(ApiRights { methods, namespaces }) = self;
        methods.contains(right) && (namespaces.is_none() || right.is_of_channels())
    }

    /// Whether a method may be called for a channel.
    pub fn allows_on(&self, right: ApiRight, channel: &str) -> bool {
        self.allows(right) && self.covers(channel)
    }

    /// Whether it is for the namespace of a channel.
    pub fn covers(&self, channel: &str) -> bool {
        let Some(namespaces) = &self.0.namespaces else { return true };
        let name = Namespaces::name_of(channel);
        namespaces.iter().any(|namespace| namespace == name)
    }

    /// Whether it is for every channel.
    pub fn covers_all(&self) -> bool {
        self.0.namespaces.is_none()
    }
}

impl ApiRefusal {
    /// Every reason, in the order of [`Self::LABELS`].
    pub const ALL: [Self; 3] = [Self::KeyMissing, Self::KeyUnknown, Self::RightMissing];
    /// The labels that metrics have for the reasons.
    pub const LABELS: &'static [&'static str] = &["key_missing", "key_unknown", "right_missing"];

    /// The label of this reason.
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ApiKey, ApiMethods};

    fn key(name: &str, secret: &str, methods: &[&str], namespaces: Option<&[&str]>) -> ApiKey {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let rights = ApiRights {
            methods: ApiMethods::parse(&words(methods)).unwrap(),
            namespaces: namespaces.map(words),
        };
        ApiKey { secret: secret.into(), rights, ..ApiKey::new(name) }
    }

    fn keys() -> ApiKeys {
        let longest = "l".repeat(API_KEY_BYTES_MAX);
        ApiKeys::new(&Config {
            api_key: Some("root".into()),
            api_keys: vec![
                key("writer", "w", &["publish"], None),
                key("chat", "chat", &["all"], Some(&["chat", ""])),
                key("longest", &longest, &["info"], None),
            ],
            ..Config::default()
        })
    }

    fn admit(shown: &[&str]) -> Result<Arc<ApiGrant>, ApiRefusal> {
        keys().admit(shown.iter().map(|key| key.as_bytes()))
    }

    #[test]
    fn a_request_is_admitted_by_the_first_key_that_exists() {
        let [missing, unknown] = [ApiRefusal::KeyMissing, ApiRefusal::KeyUnknown];
        assert_eq!(admit(&[]), Err(missing));
        let longer = "l".repeat(API_KEY_BYTES_MAX + 1);
        for wrong in ["", "r", "roo", "root ", "Root", "rootw", "W", &longer] {
            assert_eq!(admit(&[wrong]), Err(unknown), "{wrong}");
            assert!(admit(&[wrong, "w"]).unwrap().allows(ApiRight::Publish));
        }
        assert!(admit(&["root"]).unwrap().allows(ApiRight::Info));
        assert!(!admit(&["w", "root"]).unwrap().allows(ApiRight::Info));
        assert!(admit(&[&longer[1..]]).unwrap().allows(ApiRight::Info));
        let open = ApiKeys::new(&Config::default());
        assert!(!open.are_required() && keys().are_required());
        for shown in [&[][..], &[&b"any"[..]]] {
            assert!(open.admit(shown.iter().copied()).unwrap().allows(ApiRight::Info));
        }
    }

    #[test]
    fn a_grant_allows_its_methods_in_its_namespaces_and_nothing_else() {
        let [root, writer, chat] = ["root", "w", "chat"].map(|key| admit(&[key]).unwrap());
        for right in ApiRight::ALL.iter().copied() {
            let is_publish = right == ApiRight::Publish;
            for channel in ["a", "chat:1", "chat:1:2", "chats:1", "other:1", ":1"] {
                assert!(root.allows(right) && root.allows_on(right, channel));
                assert_eq!(writer.allows_on(right, channel), is_publish, "{right:?} {channel}");
                // `:1` is in a namespace that cannot exist.
                let is_in = ["a", "chat:1", "chat:1:2", ":1"].contains(&channel);
                let expected = is_in && right.is_of_channels();
                assert_eq!(chat.allows_on(right, channel), expected, "{right:?} {channel}");
                assert_eq!(chat.covers(channel), is_in);
            }
            assert_eq!(writer.allows(right), is_publish);
            assert_eq!(chat.allows(right), right.is_of_channels());
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", keys());
        assert_eq!(shown, "ApiKeys { count: 4, .. }");
    }

    #[test]
    fn labels_are_in_the_order_of_the_reasons() {
        for (index, refusal) in ApiRefusal::ALL.into_iter().enumerate() {
            assert_eq!((refusal as usize, refusal.label()), (index, ApiRefusal::LABELS[index]));
        }
    }
}
