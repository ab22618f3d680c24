//! A conversion that is under way.

use fantail::config::{Config, Setting};

use super::document::Document;
use super::keys;
use super::settings_file::{SettingsFile, Written, has_variables};

/// What is converted, and what has been made of it.
#[derive(Debug, Default)]
pub struct Conversion {
    /// The keys of the configuration.
    pub from: Document,
    /// The settings that have been made of it.
    pub to: SettingsFile,
    /// Sentences about what is not carried over.
    pub notes: Vec<String>,
    /// An API key for a server whose API is not to be called.
    pub made_up_key: String,
    /// Whether clients reach the server from this host only.
    pub is_loopback: bool,
    /// Whether the server API has an address of its own.
    pub has_admin: bool,
    /// Whether clients, or calls of the server API, prove nothing.
    pub is_insecure: bool,
    /// Whether clients have to prove who they are.
    pub has_proof: bool,
    /// Whether every client has every right.
    pub is_open: bool,
    /// The file of certificates that backends are checked against, with its key.
    pub callbacks_ca: Option<(String, Written)>,
}

impl Conversion {
    /// Says why a key is not carried over, or in what the result differs.
    pub fn note(&mut self, key: &str, why: &str) {
        self.notes.push(format!("{key}: {why}"));
    }

    /// Sets a setting from a key, unless it is the default. A value that fantail refuses is not set.
    pub fn set(&mut self, key: &str, name: &'static str, value: &Written) {
        let setting = Setting::named(name).expect("the name of a setting");
        let texts = value.texts();
        if !texts.iter().any(|text| has_variables(text)) {
            let mut config = Config::default();
            let checked =
                setting.parse(&texts, &mut config).and_then(|()| setting.check(&mut config));
            if let Err(fault) = checked {
                let fault = fault.replace('\n', " ");
                self.note(key, &format!("not carried over as {name}: {fault}"));
                return;
            }
            let is_default = setting.text(&config) == setting.text(&Config::default());
            if is_default && !ALWAYS.contains(&name) {
                return;
            }
        }
        let (section, name) = name.rsplit_once('.').unwrap_or(("", name));
        self.to.set(section, name, value);
    }

    /// Sets what depends on more than one key, and says what is not carried over.
    pub fn finish(&mut self) {
        if !self.is_loopback && (!self.has_proof || self.is_insecure) {
            let who = if self.has_proof { "calls of the server API" } else { "clients" };
            self.to.comment("", &format!("{who} prove nothing, as with Centrifugo"));
            self.set("client.insecure", "insecure", &true.into());
        }
        if let Some((_, file)) = self.callbacks_ca.take() {
            self.to.set("callbacks", "ca_file", &file);
        }
        self.report_the_rest();
    }

    /// Says what has not been looked at, and why.
    fn report_the_rest(&mut self) {
        let faults = std::mem::take(&mut self.from.faults);
        for (key, fault) in faults {
            self.note(&key, &fault);
        }
        let mut groups: Vec<(&'static str, Vec<&str>)> = Vec::new();
        let mut unknown = Vec::new();
        for (path, value) in self.from.left() {
            if !keys::is_known(path) {
                unknown.push(format!("{path}: Centrifugo 6.9 has no such key{}", near(path)));
                continue;
            }
            let is_needed = keys::need(path).is_none_or(|need| self.from.differs(&need));
            if keys::is_default(path, value) || keys::is_always(path) || !is_needed {
                continue;
            }
            let reason = keys::reason(path);
            match groups.iter_mut().find(|(other, _)| *other == reason) {
                Some((_, paths)) => paths.push(path),
                None => groups.push((reason, vec![path])),
            }
        }
        let grouped =
            groups.iter().map(|(reason, paths)| format!("{}: {reason}", paths.join(", ")));
        let all: Vec<_> = grouped.chain(unknown).collect();
        self.notes.extend(all);
    }
}

/// Settings that are written whether or not they are the default.
const ALWAYS: &[&str] = &["listen", "auth.anonymous", "http.page", "statistics", "log.level"];

/// ", did you mean KEY?", if a key is near.
fn near(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or(path);
    let same = keys::names().find(|key| key.rsplit('.').next() == Some(last));
    same.map_or_else(String::new, |key| format!(", did you mean {key}?"))
}
