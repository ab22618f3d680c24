//! The check of a configuration: the range of every setting, and the relations between settings.

use std::fmt;

use super::callbacks::CallbackKind;
use super::configuration::Config;
use super::limits::{
    API_KEYS_MAX, JWKS_URLS_MAX, TOKEN_KEYS_MAX, TOKEN_KEYS_TRIED_MAX, TOKEN_SECRET_BYTES_SAFE,
};
use super::listen_address::ListenAddress;
use super::settings::SETTINGS;
use super::token_keys::TokenKey;

/// The faults of a configuration: at least one, each a sentence that names the setting, the value and the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Checks the range of every setting, and what settings need of one another. The error has the first fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut copy = self.clone();
        let ranges = SETTINGS.iter().try_for_each(|setting| setting.check(&mut copy));
        ranges
            .and_then(|()| self.check_api_keys())
            .and_then(|()| self.check_token_keys())
            .and_then(|()| self.check_relations())
            .map_err(|fault| ConfigError(vec![fault]))
    }

    /// Checks the keys of the server API. A secret of two keys would have the rights of either.
    pub(super) fn check_api_keys(&self) -> Result<(), String> {
        if self.api_keys.len() > API_KEYS_MAX {
            return Err(format!("api.keys: there are at most {API_KEYS_MAX}"));
        }
        let mut seen: Vec<_> = self.api_key.iter().map(|secret| ("api.key", secret)).collect();
        for key in &self.api_keys {
            key.check()?;
            if let Some((other, _)) = seen.iter().find(|(_, secret)| **secret == key.secret) {
                return Err(format!("[api.keys.{}]: {other} has the same key", key.name));
            }
            seen.push((&key.name, &key.secret));
        }
        Ok(())
    }

    /// Checks the keys of tokens. Which of them verifies a token must be clear from its header, but for a few.
    pub(super) fn check_token_keys(&self) -> Result<(), String> {
        if self.token_keys.len() > TOKEN_KEYS_MAX {
            return Err(format!("auth.keys: there are at most {TOKEN_KEYS_MAX}"));
        }
        let urls: Vec<_> = self.token_keys.iter().filter_map(|key| key.jwks_url.as_ref()).collect();
        if urls.len() > JWKS_URLS_MAX {
            return Err(format!("auth.keys: there are at most {JWKS_URLS_MAX} with a jwks_url"));
        }
        let is_twice = |at: usize| urls[..at].contains(&urls[at]);
        if let Some(at) = (0..urls.len()).find(|at| is_twice(*at)) {
            return Err(format!("auth.keys: {} is the jwks_url of two", urls[at]));
        }
        for (at, key) in self.token_keys.iter().enumerate() {
            key.check()?;
            if key.jwks_url.is_some() {
                continue;
            }
            let before = &self.token_keys[..at];
            let section = format!("[auth.keys.{}]", key.name);
            let shares = |other: &&TokenKey, algorithm| {
                other.jwks_url.is_none()
                    && other.id == key.id
                    && other.algorithms.contains(algorithm)
            };
            for algorithm in &key.algorithms {
                let mut same = before.iter().filter(|other| shares(other, algorithm));
                if key.id.is_none() && same.clone().count() >= TOKEN_KEYS_TRIED_MAX {
                    return Err(format!(
                        "{section}: at most {TOKEN_KEYS_TRIED_MAX} keys without a kid can be for {algorithm:?}"
                    ));
                }
                if key.id.is_some()
                    && let Some(other) = same.next()
                {
                    let other = &other.name;
                    return Err(format!("{section}: {other} has the same kid and algorithm"));
                }
            }
        }
        Ok(())
    }

    /// Checks that what channels ask a backend has an endpoint.
    fn check_callbacks(&self) -> Result<(), String> {
        for (section, options) in self.namespaces.sections() {
            for (option, kind, is_set) in [
                ("callback_subscribe", CallbackKind::Subscribe, options.callback_subscribe),
                ("callback_publish", CallbackKind::Publish, options.callback_publish),
                ("callback_sub_refresh", CallbackKind::SubRefresh, options.callback_sub_refresh),
            ] {
                if is_set && !self.callbacks.asks(kind) {
                    let word = kind.word();
                    return Err(format!("[{section}]: {option} needs callbacks.{word}.endpoint"));
                }
            }
        }
        Ok(())
    }

    /// Checks that the channels of users have a namespace that exists.
    fn check_personal_channel(&self) -> Result<(), String> {
        match self.personal.prefix() {
            Some(prefix) if self.namespaces.find(&prefix).is_none() => {
                let name = prefix.trim_end_matches(":#");
                Err(format!("auth.personal_channel_namespace: there is no [namespaces.{name}]"))
            }
            _ => Ok(()),
        }
    }

    /// A warning for each secret of tokens or tickets that is so short that it may be guessed.
    pub(super) fn weak_secrets(&self) -> impl Iterator<Item = String> {
        let secret = self.hmac_secret.iter().map(|secret| ("auth.hmac_secret".to_owned(), secret));
        let of_hmac = self.token_keys.iter().filter(|key| key.is_secret());
        let keys = of_hmac.map(|key| (format!("[auth.keys.{}]: key", key.name), &key.key));
        let weak = secret.chain(keys).filter(|(_, it)| it.expose().len() < TOKEN_SECRET_BYTES_SAFE);
        let of_tokens = weak.map(|(name, _)| {
            format!(
                "{name} has fewer than {TOKEN_SECRET_BYTES_SAFE} bytes: anyone with a token can try to guess it"
            )
        });
        let is_weak = |secret: &&str| secret.len() < TOKEN_SECRET_BYTES_SAFE;
        let of_tickets = self.ticket_secrets().into_iter().flatten().find(is_weak).map(|_| {
            format!(
                "tls.ticket_secret has one of fewer than {TOKEN_SECRET_BYTES_SAFE} bytes: any client with a \
                 ticket can try to guess it"
            )
        });
        of_tokens.chain(of_tickets)
    }

    /// A warning for each file of a secret that every user of this host can read.
    pub(super) fn exposed_secrets(&self) -> impl Iterator<Item = String> {
        let of_settings = SETTINGS.iter().filter_map(|setting| setting.exposed(self));
        let api_keys = self.api_keys.iter().map(|key| ("api.keys", &key.name, &key.secret));
        let token_keys = self.token_keys.iter().filter(|key| key.is_secret());
        let token_keys = token_keys.map(|key| ("auth.keys", &key.name, &key.key));
        let of_keys = api_keys.chain(token_keys).filter_map(|(section, name, secret)| {
            secret.warning(&format!("[{section}.{name}]: key_file"))
        });
        of_settings.chain(of_keys)
    }

    /// Checks the relations between settings.
    fn check_relations(&self) -> Result<(), String> {
        self.check_callbacks()?;
        self.check_personal_channel()?;
        let addresses = || self.addresses();
        if addresses().next().is_none() {
            return Err(
                "no address to listen on: set --listen, --tcp, --echo or --echo-tcp".to_owned()
            );
        }
        if addresses().count() > usize::from(u8::MAX) {
            return Err("more than 255 addresses to listen on".to_owned());
        }
        // Listeners share their ports among workers, so the kernel would deal connections out to both services.
        let mut seen = Vec::new();
        for address in addresses().filter(|address| !address.is_any_port()) {
            if seen.contains(&&address.bind) {
                return Err(format!("{} is set twice: each address has one service", address.bind));
            }
            seen.push(&address.bind);
        }
        let proxied =
            |address: &&ListenAddress| address.expects_proxy_header && address.ip().is_some();
        if let Some(proxied) = addresses().find(proxied)
            && self.trusted_proxies.is_empty()
        {
            return Err(format!(
                "{proxied} expects the PROXY protocol, and proxy.trusted does not say from which networks"
            ));
        }
        if let Some(encrypted) = self.encrypted_addresses().next()
            && !self.self_signed
            && (self.tls.cert.is_empty() || self.tls.key.is_empty())
        {
            return Err(format!(
                "{encrypted} has no certificate: set tls.cert and tls.key, or tls.self_signed to try it out"
            ));
        }
        if self.encrypted_addresses().next().is_some() && self.tls.cert.len() != self.tls.key.len()
        {
            let (certs, keys) = (self.tls.cert.len(), self.tls.key.len());
            return Err(format!(
                "tls.cert has {certs} files and tls.key {keys}: each has its own key"
            ));
        }
        if let Some(open) = addresses().find(|address| !address.is_local())
            && !self.insecure
            && let Some(reason) = self.lets_anyone_in()
        {
            return Err(format!(
                "{open} can be reached from other hosts, and {reason}; or bind to a loopback address, or pass \
                 --insecure to let anyone connect, subscribe and publish"
            ));
        }
        Ok(())
    }

    /// Why every client that reaches the server may use it, and what to set against that; `None` if clients have to
    /// prove who they are, and the server API has a key or only this host reaches it.
    fn lets_anyone_in(&self) -> Option<&'static str> {
        if self.echo.iter().chain(&self.echo_tcp).any(|address| !address.is_local()) {
            return Some("an echo answers anyone");
        }
        let is_known = self.demands_certificates() || self.asks_who_connects();
        if !self.verifies_tokens() && !is_known {
            return Some(
                "clients do not have to prove who they are: set auth.hmac_secret, or a key in auth.keys",
            );
        }
        (!self.has_api_key() && !self.is_admin_loopback()).then_some(
            "the server API needs no key: set api.key, or have it served on a loopback address by admin.listen",
        )
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{CallbackOption, ChannelOptions, limits};

    fn config() -> Config {
        Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() }
    }

    #[test]
    fn the_defaults_pass_and_an_address_is_needed() {
        assert_eq!(config().check(), Ok(()));
        assert!(Config::default().check().unwrap_err().to_string().contains("--listen"));
    }

    #[test]
    fn an_address_has_one_service() {
        let mut twice = config();
        twice.tcp.push("127.0.0.1:0".parse().unwrap());
        assert_eq!(twice.check(), Ok(()), "the kernel chooses two ports");
        twice.echo.push("127.0.0.1:9000".parse().unwrap());
        assert_eq!(twice.check(), Ok(()));
        twice.tcp.push("127.0.0.1:9000".parse().unwrap());
        assert!(twice.check().unwrap_err().to_string().contains("127.0.0.1:9000 is set twice"));
    }

    #[test]
    fn a_channel_that_asks_a_backend_needs_its_endpoint() {
        type Set = fn(&mut ChannelOptions) -> &mut bool;
        let sets: [(Set, CallbackKind); 3] = [
            (|options| &mut options.callback_subscribe, CallbackKind::Subscribe),
            (|options| &mut options.callback_publish, CallbackKind::Publish),
            (|options| &mut options.callback_sub_refresh, CallbackKind::SubRefresh),
        ];
        for (set, kind) in sets {
            let mut options = ChannelOptions::closed();
            *set(&mut options) = true;
            let mut asks = config();
            asks.namespaces.add("chat", options).unwrap();
            let fault = asks.check().unwrap_err().to_string();
            let needed = format!("callbacks.{}.endpoint", kind.word());
            assert!(fault.contains("[namespaces.chat]: ") && fault.contains(&needed), "{fault}");
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&["http://a/".to_owned()], asks.callbacks.of_mut(kind)).unwrap();
            assert_eq!(asks.check(), Ok(()));
        }
    }

    #[test]
    fn the_channels_of_users_need_a_namespace_that_exists() {
        let mut users = config();
        users.personal.namespace = Some("own".to_owned());
        assert_eq!(users.check(), Ok(()), "without effect, which is a warning");
        users.personal.are_on = true;
        assert!(users.check().unwrap_err().to_string().contains("no [namespaces.own]"));
        users.namespaces.add("own", ChannelOptions::closed()).unwrap();
        assert_eq!(users.check(), Ok(()));
        users.personal.namespace = None;
        assert_eq!((users.check(), users.personal.prefix()), (Ok(()), Some("#".to_owned())));
    }

    #[test]
    fn an_open_address_needs_insecure() {
        let mut open = config();
        open.tcp.push("0.0.0.0:8001".parse().unwrap());
        assert!(open.check().unwrap_err().to_string().contains("--insecure"));
        open.insecure = true;
        assert_eq!(open.check(), Ok(()));
    }

    #[test]
    fn an_open_address_needs_authentication_and_a_key_of_the_server_api() {
        let open = || Config { listen: vec!["0.0.0.0:8000".parse().unwrap()], ..Config::default() };
        let secret = || Some("a-secret-of-clients-that-is-long-enough".into());
        let key = || Some("key-of-a-backend".into());
        let local = || vec!["127.0.0.1:8001".parse().unwrap()];
        for (config, fault) in [
            (open(), Some("auth.hmac_secret")),
            (Config { api_key: key(), ..open() }, Some("auth.hmac_secret")),
            (Config { hmac_secret: secret(), ..open() }, Some("api.key")),
            (Config { hmac_secret: secret(), api_key: key(), ..open() }, None),
            (Config { hmac_secret: secret(), admin: local(), ..open() }, None),
            (
                Config { hmac_secret: secret(), admin: open().listen, listen: local(), ..open() },
                Some("api.key"),
            ),
            (
                Config {
                    hmac_secret: secret(),
                    api_key: key(),
                    echo: open().listen,
                    listen: local(),
                    ..open()
                },
                Some("echo"),
            ),
        ] {
            let shown = format!("{config:?}");
            match fault {
                None => assert_eq!(config.check(), Ok(()), "{shown}"),
                Some(words) => {
                    let error = config.check().unwrap_err().to_string();
                    assert!(error.contains(words) && error.contains("--insecure"), "{error}");
                    assert_eq!(Config { insecure: true, ..config }.check(), Ok(()), "{shown}");
                }
            }
        }
    }

    #[test]
    fn an_address_that_expects_a_proxy_needs_its_network() {
        let mut proxied = config();
        proxied.listen.push("127.0.0.1:1 proxy".parse().unwrap());
        assert!(proxied.check().unwrap_err().to_string().contains("proxy.trusted"));
        proxied.trusted_proxies.push("127.0.0.0/8".parse().unwrap());
        assert_eq!(proxied.check(), Ok(()));
        proxied.listen.push("127.0.0.1:1".parse().unwrap());
        assert!(proxied.check().unwrap_err().to_string().contains("127.0.0.1:1 is set twice"));
        let socket = vec!["unix:/run/a proxy".parse().unwrap()];
        assert_eq!(Config { listen: socket, ..config() }.check(), Ok(()), "its mode decides");
    }

    #[test]
    fn origins_are_accepted_as_browsers_send_them() {
        let with = |origins: &[&str]| {
            let origins = origins.iter().map(|&origin| origin.to_owned()).collect();
            Config { origins, ..config() }
        };
        assert_eq!(config().allows_any_origin(), None);
        assert_eq!(with(&["http://a", "*"]).allows_any_origin(), Some(true));
        let listed = with(&["https://example.org", "http://[::1]:8080", "capacitor://localhost"]);
        assert_eq!(listed.check(), Ok(()));
        assert_eq!(listed.allows_any_origin(), Some(false));
        for bad in [
            "",
            "example.org",
            "https://a/",
            "https://",
            "://a",
            "https://A",
            "http://a b",
            "http://a,b",
            "https://a:443",
            "http://a:80",
            "https://*.a",
            "*://a",
        ] {
            let fault = with(&[bad]).check().unwrap_err();
            assert!(fault.to_string().contains("http.origins"), "{bad}: {fault}");
        }
        let many = vec!["http://a"; limits::ORIGINS_MAX + 1];
        assert!(with(&many).check().is_err());
    }

    #[test]
    fn values_are_accepted_at_their_limits_and_refused_one_past() {
        let with = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.check()
        };
        let with_key = |key: &str| Config { api_key: Some(key.into()), ..config() }.check();
        assert!(with(|c| c.workers = Some(limits::WORKERS_MAX)).is_ok());
        assert!(with(|c| c.workers = Some(limits::WORKERS_MAX + 1)).is_err());
        assert!(with(|c| c.workers = Some(0)).is_err());
        assert!(with(|c| c.message_bytes_max = limits::MESSAGE_BYTES_CEILING).is_ok());
        let past = with(|c| c.message_bytes_max = limits::MESSAGE_BYTES_CEILING + 1)
            .unwrap_err()
            .to_string();
        assert!(past.contains("message_bytes_max") && past.contains("67108865"), "{past}");
        assert!(with(|c| c.send_queue_bytes_max = 4096).is_ok());
        assert!(with(|c| c.send_queue_bytes_max = 4095).is_err());
        assert!(with(|c| c.api_key = Some("x".repeat(limits::API_KEY_BYTES_MAX).into())).is_ok());
        assert!(
            with(|c| c.api_key = Some("x".repeat(limits::API_KEY_BYTES_MAX + 1).into())).is_err()
        );
        for bad in ["", "a b", "é", "a\n"] {
            let fault = with_key(bad).unwrap_err().to_string();
            assert!(fault.contains("api.key is hidden"), "{bad:?}: {fault}");
        }
        assert!(with(|c| c.close_timeout = Duration::from_millis(100)).is_ok());
        assert!(with(|c| c.close_timeout = Duration::ZERO).is_err());
        assert!(with(|c| c.close_timeout = Duration::from_secs(86_400)).is_ok());
        assert!(with(|c| c.close_timeout = Duration::from_secs(86_401)).is_err());
    }
}
