//! Where values come from: defaults, the file, the environment, flags; each overrides the one before.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::mem::discriminant;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::limits::SETTINGS_FILE_BYTES_MAX;
use super::nearest::did_you_mean;
use super::origin::VARIABLE_PREFIX;
use super::{
    ApiKey, CHANNEL_OPTIONS, Callbacks, ChannelOption, ChannelOptions, Config, ConfigError,
    FILE_VARIABLE, Namespaces, Origin, SETTINGS, Setting, SettingKind, TokenKey, without_effect,
};

mod api_keys;
mod callbacks;
mod token_keys;
mod value;
mod variables;

use api_keys::{read_api_keys, unknown_namespaces};
use callbacks::read_callbacks;
use token_keys::read_token_keys;
use value::{texts, with_range};
use variables::{Environment, Variable};

/// The settings file and the flags that a program was started with. [`Sources::load`] reads the file and the
/// environment anew each time.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The settings file; if `None`, the one named by [`FILE_VARIABLE`].
    pub file: Option<PathBuf>,
    /// The flags, at most one per setting.
    pub flags: Vec<Given>,
}

/// The text of a setting from one source.
#[derive(Clone)]
pub struct Given {
    /// The setting that it is for.
    pub setting: &'static Setting,
    /// One text, or any number for a list.
    pub texts: Vec<String>,
    /// Where it was set.
    pub origin: Origin,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings in effect.
    pub config: Config,
    /// The settings file, if there is one.
    pub file: Option<String>,
    /// Where each of [`SETTINGS`] was set, in their order.
    pub origins: Vec<Origin>,
    /// A sentence for each setting that was set and has no effect.
    pub warnings: Vec<String>,
}

/// Without the text of a secret.
impl fmt::Debug for Given {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, texts, origin } = self;
        let mut out = out.debug_struct("Given");
        out.field("setting", &setting.name).field("origin", origin);
        match setting.kind {
            SettingKind::Secret(..) => out.finish_non_exhaustive(),
            _ => out.field("texts", texts).finish(),
        }
    }
}

impl Sources {
    /// Reads the file and the environment. The error has all faults.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let variables = env::vars_os()
            .map(|(name, value)| (name.into_string(), value.into_string()))
            .filter_map(|(name, value)| Some((name.ok()?, value)));
        let environment: Vec<Variable> =
            variables.map(|(name, value)| (name, value.ok())).collect();
        let mut faults = Vec::new();
        let named = env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let file =
            self.file.clone().or(named).map(|path| (path.display().to_string(), read(&path)));
        let file = match file {
            Some((path, Ok(text))) => Some((path, text)),
            Some((path, Err(fault))) => {
                faults.push(format!("{path}: {fault}"));
                None
            }
            None => None,
        };
        let file = file.as_ref().map(|(path, text)| (path.as_str(), text.as_str()));
        assemble(file, environment, &self.flags, faults)
    }
}

/// Combines the sources into a configuration. `faults` are those of reading them.
fn assemble(
    file: Option<(&str, &str)>,
    mut environment: Vec<Variable>,
    flags: &[Given],
    mut faults: Vec<String>,
) -> Result<Loaded, ConfigError> {
    environment.sort_unstable();
    let (mut given, mut warnings) = (Vec::new(), Vec::new());
    let mut config = Config::default();
    let path = file.map(|(path, _)| path.to_owned());
    if let Some(file) = file {
        let namespaces = std::mem::take(&mut config.namespaces);
        FileReader::new(file, &mut given, &mut faults, &mut warnings, namespaces)
            .read_into(&mut config, Environment::new(&environment));
    }
    read_environment(environment, &mut given, &mut faults, &mut warnings);
    given.extend_from_slice(flags);
    faults.extend(secrets_given_twice(&given));

    let mut origins = vec![Origin::Default; SETTINGS.len()];
    for Given { setting, texts, origin } in given {
        if let Err(fault) = setting.parse(&texts, &mut config) {
            let fault = match setting.kind {
                // The fault names the range itself.
                SettingKind::Addresses(_) | SettingKind::Networks(..) | SettingKind::Levels(_) => {
                    fault
                }
                _ => with_range(&fault, &setting.range()),
            };
            faults.push(format!("{origin}: {}: {fault}", setting.name));
        } else if let Err(fault) = setting.check(&mut config) {
            faults.push(format!("{origin}: {fault}"));
            // The default replaces it, so that checks that involve other settings see a value in its range.
            setting.copy(&Config::default(), &mut config);
        }
        let row = SETTINGS.iter().position(|row| row.name == setting.name);
        origins[row.expect("a setting is a row of the table")] = origin;
    }
    // An address for administration alone would leave clients without one.
    if [&config.listen, &config.tcp, &config.echo, &config.echo_tcp].iter().all(|a| a.is_empty()) {
        config.listen.push(SocketAddr::from(([127, 0, 0, 1], 8000)).into());
        config.tcp.push(SocketAddr::from(([127, 0, 0, 1], 8001)).into());
    }
    if config.self_signed {
        config.encrypt_all();
    }
    if faults.is_empty() {
        faults.extend(config.check_api_keys().err());
        faults.extend(config.check_token_keys().err());
    }
    if faults.is_empty() {
        match config.check() {
            Ok(()) => {
                warnings.extend(without_effect::of_settings(&config, &origins));
                warnings.extend(config.weak_secrets());
                warnings.extend(config.exposed_secrets());
                return Ok(Loaded { config, file: path, origins, warnings });
            }
            Err(ConfigError(found)) => {
                let addresses = where_addresses_are(&origins);
                faults.extend(found.into_iter().map(|fault| fault + &addresses));
            }
        }
    }
    Err(ConfigError(faults))
}

/// The places where addresses were set, because every fault of a configuration as a whole concerns its addresses.
fn where_addresses_are(origins: &[Origin]) -> String {
    let set: Vec<_> = SETTINGS
        .iter()
        .zip(origins)
        .filter(|(setting, _)| matches!(setting.kind, SettingKind::Addresses(_)))
        .filter(|(_, origin)| **origin != Origin::Default)
        .map(|(setting, origin)| format!("{} by {origin}", setting.name))
        .collect();
    if set.is_empty() { String::new() } else { format!(" (set: {})", set.join(", ")) }
}

/// Reads the settings file.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SETTINGS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("the settings file cannot be read: {error}"))?;
    if bytes.len() as u64 > SETTINGS_FILE_BYTES_MAX {
        return Err(format!("a settings file has at most {SETTINGS_FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Reads settings from the text of the file.
struct FileReader<'a> {
    path: &'a str,
    text: &'a str,
    given: &'a mut Vec<Given>,
    faults: &'a mut Vec<String>,
    warnings: &'a mut Vec<String>,
    namespaces: Namespaces,
    /// The keys of the server API, each with the place of its section.
    api_keys: Vec<(usize, ApiKey)>,
    callbacks: Callbacks,
    token_keys: Vec<TokenKey>,
}

impl<'a> FileReader<'a> {
    fn new(
        (path, text): (&'a str, &'a str),
        given: &'a mut Vec<Given>,
        faults: &'a mut Vec<String>,
        warnings: &'a mut Vec<String>,
        namespaces: Namespaces,
    ) -> Self {
        let (api_keys, token_keys, callbacks) = (Vec::new(), Vec::new(), Callbacks::default());
        Self { path, text, given, faults, warnings, namespaces, api_keys, token_keys, callbacks }
    }

    /// Reads the file, and puts what is not a row of the table of settings into a configuration.
    fn read_into(mut self, config: &mut Config, environment: Environment<'_>) {
        self.read(environment);
        let unknown = unknown_namespaces(&self.api_keys, &self.namespaces);
        unknown.into_iter().for_each(|(at, fault)| self.fault(at, &fault));
        config.namespaces = self.namespaces;
        config.callbacks = self.callbacks;
        config.api_keys = self.api_keys.into_iter().map(|(_, key)| key).collect();
        config.token_keys = self.token_keys;
    }

    fn read(&mut self, mut environment: Environment<'_>) {
        match DeTable::parse(self.text) {
            Ok(mut table) => match environment.complete(table.get_mut()) {
                faults if faults.is_empty() => self.read_section("", table.get_ref()),
                // What is read without these variables would have faults that are not there.
                faults => faults.into_iter().for_each(|(at, fault)| self.fault(at, &fault)),
            },
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.fault(at, error.message());
            }
        }
    }

    fn read_section(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            if section.is_empty() && self.read_channels(key, value) {
                continue;
            }
            if section.is_empty() && key.get_ref() == "callbacks" {
                let (callbacks, faults) = read_callbacks(key, value);
                self.callbacks = callbacks;
                faults.into_iter().for_each(|(at, fault)| self.fault(at, &fault));
                continue;
            }
            if section == "api" && key.get_ref() == "keys" {
                let (keys, faults) = read_api_keys(key, value);
                self.api_keys = keys;
                faults.into_iter().for_each(|(at, fault)| self.fault(at, &fault));
                continue;
            }
            if section == "auth" && key.get_ref() == "keys" {
                let (keys, faults) = read_token_keys(key, value);
                self.token_keys = keys;
                faults.into_iter().for_each(|(at, fault)| self.fault(at, &fault));
                continue;
            }
            let name = match section {
                "" => key.get_ref().to_string(),
                _ => format!("{section}.{}", key.get_ref()),
            };
            let is_section = SETTINGS.iter().any(|setting| {
                setting.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.'))
            });
            match (Setting::named(&name), value.get_ref()) {
                (Some(setting), value_of) => match texts(value_of) {
                    Ok(texts) => {
                        let (path, line) = (self.path.to_owned(), self.line(value.span().start));
                        let origin = Origin::File { path, line };
                        self.given.push(Given { setting, texts, origin });
                    }
                    Err(fault) => {
                        let range = setting.range();
                        let fault = format!("{name} is {fault}; it must be {range}");
                        self.fault(value.span().start, &fault);
                    }
                },
                (None, DeValue::Table(table)) if is_section => self.read_section(&name, table),
                (None, _) if is_section => {
                    self.fault(key.span().start, &format!("{name} is a section: write [{name}]"));
                }
                (None, DeValue::Table(_)) => {
                    let hint = did_you_mean(&name, sections());
                    let known = sections().collect::<Vec<_>>().join(", ");
                    let fault = format!("unknown section [{name}]{hint} ({known})");
                    self.fault(key.span().start, &fault);
                }
                (None, _) => {
                    let hint = did_you_mean(&name, SETTINGS.iter().map(|setting| setting.name));
                    let fault = format!("unknown setting {name}{hint}");
                    self.fault(key.span().start, &fault);
                }
            }
        }
    }

    /// Takes `[channels]` and `[namespaces.NAME]`; returns whether this is one of them.
    fn read_channels(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> bool {
        let at = key.span().start;
        match (&**key.get_ref(), value.get_ref()) {
            ("channels", DeValue::Table(table)) => {
                let options = self.read_options("channels", table);
                let added = self.namespaces.set_default(options);
                self.take(at, added);
            }
            ("namespaces", DeValue::Table(table)) => {
                for (name, value) in table {
                    let at = name.span().start;
                    let DeValue::Table(table) = value.get_ref() else {
                        let name = name.get_ref();
                        self.fault(
                            at,
                            &format!("namespaces.{name} is a section: write [namespaces.{name}]"),
                        );
                        continue;
                    };
                    let options =
                        self.read_options(&format!("namespaces.{}", name.get_ref()), table);
                    let added = self.namespaces.add(name.get_ref(), options);
                    self.take(at, added);
                }
            }
            (name @ ("channels" | "namespaces"), _) => {
                let section = if name == "channels" { "channels" } else { "namespaces.NAME" };
                self.fault(at, &format!("{name} is a section: write [{section}]"));
            }
            _ => return false,
        }
        true
    }

    fn take(&mut self, at: usize, added: Result<(), String>) {
        if let Err(fault) = added {
            self.fault(at, &fault);
        }
    }

    fn read_options(&mut self, section: &str, table: &DeTable<'_>) -> ChannelOptions {
        let mut options = ChannelOptions::closed();
        let mut given = Vec::new();
        for (key, value) in table {
            let name = key.get_ref();
            let Some(option) = ChannelOption::named(name) else {
                let hint = match &**name {
                    // What the options of rights were called.
                    "subscribe" | "publish" | "history" => {
                        format!(", did you mean allow_{name}_for_client?")
                    }
                    _ => did_you_mean(name, CHANNEL_OPTIONS.iter().map(|option| option.name)),
                };
                let fault = format!("[{section}]: unknown option {name}{hint}");
                self.fault(key.span().start, &fault);
                continue;
            };
            given.push((option.name, value.span().start));
            let fault = match (value.get_ref(), texts(value.get_ref()).as_deref()) {
                (DeValue::Array(_), _) if !option.is_list() => {
                    Some("it takes one value, not a list".to_owned())
                }
                (_, Ok(texts)) => option.parse(&texts.join(" "), &mut options).err(),
                (_, Err(fault)) => Some(format!("it is {fault}")),
            };
            if let Some(fault) = fault {
                let fault = with_range(&fault, &option.range());
                self.fault(value.span().start, &format!("{section}.{name}: {fault}"));
            }
        }
        for (name, at) in given {
            if let Some(why) = without_effect::of_option(&options, name) {
                let place = format!("{}:{}", self.path, self.line(at));
                self.warnings.push(format!("{place}: {section}.{name} has no effect: {why}"));
            }
        }
        options
    }

    fn fault(&mut self, at: usize, sentence: &str) {
        let sentence = sentence.replace('\n', " ");
        self.faults.push(format!("{}:{}: {sentence}", self.path, self.line(at)));
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// The names of the file's sections, each once.
fn sections() -> impl Iterator<Item = &'static str> {
    let section = |setting: &Setting| setting.name.rsplit_once('.').map(|(section, _)| section);
    let of_settings = SETTINGS.iter().enumerate().filter_map(move |(row, setting)| {
        let name = section(setting)?;
        let is_first = SETTINGS[..row].iter().all(|before| section(before) != Some(name));
        is_first.then(|| &setting.name[..name.len()])
    });
    let others = [
        "api.keys.NAME",
        "auth.keys.NAME",
        "callbacks",
        "callbacks.KIND",
        "channels",
        "namespaces.NAME",
    ];
    of_settings.chain(others)
}

/// What is wrong where one source has a secret and a file to read it from.
fn secrets_given_twice(given: &[Given]) -> Vec<String> {
    let is_file = |given: &&Given| matches!(given.setting.kind, SettingKind::SecretFile(..));
    let twice = given.iter().filter(is_file).filter_map(|file| {
        let name = file.setting.other_way()?;
        let is_beside = |other: &&Given| {
            let (one, other_origin) = (discriminant(&file.origin), discriminant(&other.origin));
            other.setting.name == name && one == other_origin
        };
        let Given { setting, origin, .. } = given.iter().find(is_beside)?;
        let (one, other) = (file.setting.name, setting.name);
        Some(format!("{}: {one} and {other} (set by {origin}) exclude each other", file.origin))
    });
    twice.collect()
}

/// Reads settings from the environment; an empty variable counts as not set.
fn read_environment(
    environment: Vec<Variable>,
    given: &mut Vec<Given>,
    faults: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    let known: Vec<_> = SETTINGS.iter().map(|setting| (setting.variable(), setting)).collect();
    for (name, value) in environment {
        if name == FILE_VARIABLE || !name.starts_with(VARIABLE_PREFIX) {
            continue;
        }
        let Some((_, setting)) = known.iter().find(|(variable, _)| *variable == name) else {
            warnings.extend(without_effect::of_variable(&name, value.as_deref()));
            continue;
        };
        let Some(value) = value else {
            faults.push(format!("{name}: its value is not UTF-8"));
            continue;
        };
        if value.trim().is_empty() {
            continue;
        }
        let texts = match setting.kind {
            SettingKind::Addresses(_)
            | SettingKind::Files(..)
            | SettingKind::Origins(..)
            | SettingKind::Networks(..) => {
                value.split(',').map(|text| text.trim().to_owned()).collect()
            }
            _ => vec![value],
        };
        given.push(Given { setting, texts, origin: Origin::Environment(name) });
    }
}

#[cfg(test)]
mod tests;
