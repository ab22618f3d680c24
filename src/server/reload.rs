//! Reload on SIGHUP: reads the settings again and applies those that can change at run time.

use tracing::{error, info, warn};

use crate::config::{Config, ConfigError, SETTINGS, Setting, Sources};

use super::Controls;
use super::log::Log;
use super::tls;

/// The settings of a server and where they come from.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    running: Config,
    log: Log,
}

/// A setting whose value has changed.
#[derive(Debug)]
struct Change {
    setting: &'static Setting,
    from: String,
    to: String,
}

impl Reloader {
    /// A reloader for a server that runs with `running`, which was loaded from `sources`.
    pub fn new(sources: Sources, running: Config, log: Log) -> Self {
        Self { sources, running, log }
    }

    /// Loads the sources again and applies the settings that can change at run time. If the sources have a fault, no
    /// setting changes.
    pub(super) fn reload(&mut self, controls: &Controls) {
        let loaded = self.sources.load();
        let namespaces = &self.running.namespaces;
        let has_other_channels =
            loaded.as_ref().is_ok_and(|loaded| loaded.config.namespaces != *namespaces);
        let merged = loaded.and_then(|loaded| merge(&self.running, &loaded.config));
        let (config, changes) = match merged {
            Ok(merged) => merged,
            Err(ConfigError(faults)) => {
                for fault in faults {
                    error!(
                        reason = fault,
                        "settings are not reloaded, all of them stay as they are"
                    );
                }
                return;
            }
        };
        // The files may have another certificate although no setting has changed.
        let identity = if config.self_signed { Ok(None) } else { tls::read(&config) };
        let identity = match identity {
            Ok(identity) => identity,
            Err(reason) => {
                return error!(reason, "settings are not reloaded, all of them stay as they are");
            }
        };
        if has_other_channels {
            let setting = "channels";
            warn!(setting, "new channel options take effect at the next start");
        }
        let has_other_keys = config.api_keys != self.running.api_keys;
        let has_other_token_keys = config.token_keys != self.running.token_keys;
        self.log.set_levels(config.log_levels);
        controls.reconfigure(&config, identity);
        self.running = config;
        if has_other_keys {
            info!(setting = "api.keys", "a setting changed");
        }
        if has_other_token_keys {
            info!(setting = "auth.keys", "a setting changed");
        }
        if changes.is_empty() && !has_other_keys && !has_other_token_keys {
            info!("settings reloaded: nothing changed");
        }
        for Change { setting, from, to } in changes {
            let Setting { name: setting, is_reloadable, .. } = setting;
            if *is_reloadable {
                info!(setting, from, to, "a setting changed");
            } else {
                warn!(
                    setting,
                    from, to, "the new value of a setting takes effect at the next start"
                );
            }
        }
    }
}

/// The configuration to run with from now on, and every setting that differs in `wanted`, whether it can be applied or
/// not.
fn merge(running: &Config, wanted: &Config) -> Result<(Config, Vec<Change>), ConfigError> {
    let mut merged = running.clone();
    let mut changes = Vec::new();
    for setting in SETTINGS {
        if !setting.differs(running, wanted) {
            continue;
        }
        let (from, to) = (setting.shown(running), setting.shown(wanted));
        if setting.is_reloadable {
            setting.copy(wanted, &mut merged);
        }
        changes.push(Change { setting, from, to });
    }
    merged.api_keys.clone_from(&wanted.api_keys);
    merged.token_keys.clone_from(&wanted.token_keys);
    merged.check()?;
    Ok((merged, changes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ApiKey, TokenKey};

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config =
            Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
        change(&mut config);
        config
    }

    #[test]
    fn reloadable_settings_are_applied_and_every_change_is_reported() {
        let key = ApiKey { secret: "w".into(), ..ApiKey::new("writer") };
        let token_key = TokenKey::of_secret(&"s".into());
        let running = config(|config| {
            config.workers = Some(2);
            config.api_key = Some("old".into());
        });
        let wanted = config(|config| {
            config.close_timeout = Duration::from_secs(1);
            config.listen.clear();
            config.insecure = true;
            config.api_key = Some("new".into());
            config.api_keys = vec![key.clone()];
            config.token_keys = vec![token_key.clone()];
        });
        let (merged, changes) = merge(&running, &wanted).unwrap();
        assert_eq!(merged.close_timeout, Duration::from_secs(1));
        assert_eq!(merged.api_key, Some("new".into()));
        assert_eq!(merged.api_keys, [key]);
        assert_eq!(merged.token_keys, [token_key]);
        assert_eq!((merged.workers, merged.listen.len(), merged.insecure), (Some(2), 1, false));
        let changes: Vec<_> = changes
            .iter()
            .map(|change| (change.setting.name, change.from.as_str(), change.to.as_str()))
            .collect();
        let no_address = "127.0.0.1:8000 if no address but admin.listen is set";
        assert_eq!(
            changes,
            [
                ("listen", "127.0.0.1:0", no_address),
                ("workers", "2", "one per core"),
                ("insecure", "false", "true"),
                ("api.key", "hidden", "hidden"),
                ("limits.close_timeout", "5 s", "1 s"),
            ]
        );
        assert!(merge(&merged, &merged).unwrap().1.is_empty());
    }
}
