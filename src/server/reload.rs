//! Reload on SIGHUP: reads the settings again and applies those that can change at run time.

use tracing::{error, info, warn};

use crate::callback::Setup;
use crate::config::{Config, ConfigError, SETTINGS, Setting, Sources};

use super::Controls;
use super::callbacks::are_needed;
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
        let applied = loaded.and_then(|loaded| self.apply(&loaded.config, controls));
        for fault in applied.err().into_iter().flat_map(|ConfigError(faults)| faults) {
            error!(reason = fault, "settings are not reloaded, all of them stay as they are");
        }
    }

    fn apply(&mut self, wanted: &Config, controls: &Controls) -> Result<(), ConfigError> {
        let has_thread = controls.setups.is_some();
        let (config, changes) = merge(&self.running, wanted, has_thread)?;
        let fault = |reason| ConfigError(vec![reason]);
        // The files may have another certificate although no setting has changed.
        let identity = match config.self_signed {
            true => None,
            false => tls::read(&config, &controls.tickets).map_err(fault)?,
        };
        let sections = changed_sections(&self.running, &config);
        let asks_others = sections.iter().any(|section| [CALLBACKS, TOKEN_KEYS].contains(section));
        let setup = (has_thread && asks_others)
            .then(|| Setup::new(&config.callbacks, &config.token_keys).map_err(fault))
            .transpose()?;
        if !has_thread && are_needed(wanted) {
            let setting = CALLBACKS;
            warn!(setting, "the first callback, or URL of keys, takes effect at the next start");
        }
        if wanted.namespaces != self.running.namespaces {
            let setting = "channels";
            warn!(setting, "new channel options take effect at the next start");
        }
        self.log.set_levels(config.log_levels);
        controls.reconfigure(&config, identity, setup);
        self.running = config;
        report(&sections, changes);
        Ok(())
    }
}

/// The sections of the settings file in which two configurations differ, and which a reload applies.
fn changed_sections(running: &Config, config: &Config) -> Vec<&'static str> {
    let sections = [
        ("api.keys", config.api_keys != running.api_keys),
        (CALLBACKS, config.callbacks != running.callbacks),
        (TOKEN_KEYS, config.token_keys != running.token_keys),
    ];
    sections.into_iter().filter(|section| section.1).map(|section| section.0).collect()
}

/// Logs what a reload has changed, and what it could not.
fn report(sections: &[&str], changes: Vec<Change>) {
    for setting in sections {
        info!(setting, "a setting changed");
    }
    if changes.is_empty() && sections.is_empty() {
        info!("settings reloaded: nothing changed");
    }
    for Change { setting, from, to } in changes {
        let Setting { name: setting, is_reloadable, .. } = setting;
        if *is_reloadable {
            info!(setting, from, to, "a setting changed");
        } else {
            warn!(setting, from, to, "the new value of a setting takes effect at the next start");
        }
    }
}

const CALLBACKS: &str = "callbacks";
const TOKEN_KEYS: &str = "auth.keys";

/// The configuration to run with from now on, and every setting that differs in `wanted`, whether it can be applied or
/// not. Callbacks can change where their thread runs.
fn merge(
    running: &Config,
    wanted: &Config,
    has_thread: bool,
) -> Result<(Config, Vec<Change>), ConfigError> {
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
    if has_thread {
        merged.callbacks.clone_from(&wanted.callbacks);
    }
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
        let (merged, changes) = merge(&running, &wanted, false).unwrap();
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
        assert!(merge(&merged, &merged, true).unwrap().1.is_empty());
    }
}
