//! A setting: the type and range of its values, its field in [`Config`], and how it is parsed and shown.

use std::time::Duration;

use super::configuration::{ANY_ORIGIN, Config};
use super::listen_address::ListenAddress;
use super::log_levels::LogLevels;
use super::network::Network;
use super::origin::VARIABLE_PREFIX;
use super::secret::Secret;
use super::units::{Bytes, Time, parse_bytes, parse_count, parse_seconds};

/// One setting of the server.
#[derive(Debug)]
pub struct Setting {
    /// The key in the settings file, with its section: `limits.close_timeout`.
    pub name: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// A short description.
    pub doc: &'static str,
    /// Describes the default where it is not a value.
    pub default_note: Option<&'static str>,
    /// Whether a reload applies a new value to a running server.
    pub is_reloadable: bool,
    /// The type and range of its values, and its field.
    pub kind: SettingKind,
}

/// The type and range of a setting's values, and its field in [`Config`]. Ranges include both ends. One function gives
/// access to a field, for reading too: reading is rare, and uses a copy.
#[derive(Clone, Copy, Debug)]
pub enum SettingKind {
    /// Any number of addresses, IP:PORT or `unix:` and a path.
    Addresses(fn(&mut Config) -> &mut Vec<ListenAddress>),
    /// One of several words, by index.
    Choice(&'static [&'static str], fn(&Config) -> usize, fn(&mut Config, usize)),
    /// True or false.
    Switch(fn(&mut Config) -> &mut bool),
    /// True or false; if not set, it follows from other settings.
    SwitchIfGiven(fn(&mut Config) -> &mut Option<bool>),
    /// A whole number.
    Count(u64, u64, fn(&mut Config) -> &mut usize),
    /// A whole number; if not set, it follows from the host.
    CountIfGiven(u64, u64, fn(&mut Config) -> &mut Option<usize>),
    /// A number of bytes.
    Bytes(u64, u64, fn(&mut Config) -> &mut u64),
    /// A number of bytes; if not set, it follows from the host.
    BytesIfGiven(u64, u64, fn(&mut Config) -> &mut Option<u64>),
    /// A duration, with its minimum and maximum.
    Time(Duration, Duration, fn(&mut Config) -> &mut Duration),
    /// An optional secret of visible ASCII characters, with its minimum and maximum length. It is never shown.
    Secret(usize, usize, fn(&mut Config) -> &mut Option<Secret>),
    /// The file that a secret is read from: another way to set the same field.
    SecretFile(usize, usize, fn(&mut Config) -> &mut Option<Secret>),
    /// An optional text without control characters, with its minimum and maximum length in bytes.
    Text(usize, usize, fn(&mut Config) -> &mut Option<String>),
    /// Paths of files; with the maximum number.
    Files(usize, fn(&mut Config) -> &mut Vec<String>),
    /// Origins as browsers send them, or `*` for any; with the maximum number.
    Origins(usize, fn(&mut Config) -> &mut Vec<String>),
    /// Networks of addresses; with the maximum number.
    Networks(usize, fn(&mut Config) -> &mut Vec<Network>),
    /// Log levels, per room.
    Levels(fn(&mut Config) -> &mut LogLevels),
}

impl Setting {
    /// A row of the table.
    pub const fn row(
        name: &'static str,
        flag: &'static str,
        doc: &'static str,
        kind: SettingKind,
    ) -> Self {
        Self { name, flag, doc, default_note: None, is_reloadable: false, kind }
    }

    /// Adds a description of the default where it is not a value.
    pub const fn by_default(mut self, note: &'static str) -> Self {
        self.default_note = Some(note);
        self
    }

    /// Marks a setting that a reload applies to a running server.
    pub const fn reloadable(mut self) -> Self {
        self.is_reloadable = true;
        self
    }

    /// The environment variable of the setting.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// Sets the value from text: from one text, or any number of them for a list. An error says what is wrong with the
    /// text. [`Setting::check`] checks the range.
    pub fn parse(&self, texts: &[String], config: &mut Config) -> Result<(), String> {
        if let SettingKind::Addresses(field) = self.kind {
            let addresses = texts.iter().map(|text| text.trim().parse());
            *field(config) = addresses.collect::<Result<_, _>>()?;
            return Ok(());
        }
        if let SettingKind::Origins(_, field) | SettingKind::Files(_, field) = self.kind {
            *field(config) = texts.iter().map(|text| text.trim().to_owned()).collect();
            return Ok(());
        }
        if let SettingKind::Networks(_, field) = self.kind {
            let networks = texts.iter().map(|text| text.trim().parse());
            *field(config) = networks.collect::<Result<_, _>>()?;
            return Ok(());
        }
        let [text] = texts else { return Err("it takes one value, not a list".to_owned()) };
        let text = text.trim();
        match self.kind {
            SettingKind::Addresses(_)
            | SettingKind::Files(..)
            | SettingKind::Origins(..)
            | SettingKind::Networks(..) => {}
            SettingKind::Choice(words, _, set) => {
                let index = words.iter().position(|word| *word == text.replace('-', "_"));
                let index = index.ok_or_else(|| no_value(text, &words.join(" or ")))?;
                set(config, index);
            }
            SettingKind::Switch(field) => {
                *field(config) = text.parse().map_err(|_| no_value(text, "true or false"))?;
            }
            SettingKind::SwitchIfGiven(field) => {
                let given = text.parse().map_err(|_| no_value(text, "true or false"))?;
                *field(config) = Some(given);
            }
            SettingKind::Count(_, _, field) => *field(config) = count(text)?,
            SettingKind::CountIfGiven(_, _, field) => *field(config) = Some(count(text)?),
            SettingKind::Bytes(_, _, field) => *field(config) = parse_bytes(text)?,
            SettingKind::BytesIfGiven(_, _, field) => *field(config) = Some(parse_bytes(text)?),
            SettingKind::Time(_, _, field) => *field(config) = parse_seconds(text)?,
            SettingKind::Secret(_, _, field) => *field(config) = Some(text.into()),
            SettingKind::SecretFile(_, max, field) => {
                *field(config) = Some(Secret::read(text, max)?);
            }
            SettingKind::Text(_, _, field) => *field(config) = Some(text.to_owned()),
            SettingKind::Levels(field) => *field(config) = LogLevels::parse(text)?,
        }
        Ok(())
    }

    /// Checks that the value is in its range. The error is a sentence with the setting, the value and the range. The
    /// configuration is not changed: [`SettingKind`] reaches fields through one function, which is for writing too.
    pub fn check(&self, config: &mut Config) -> Result<(), String> {
        let is_in_range = match self.kind {
            SettingKind::Addresses(_)
            | SettingKind::Choice(..)
            | SettingKind::Switch(_)
            | SettingKind::SwitchIfGiven(_)
            | SettingKind::Levels(_) => true,
            SettingKind::Count(min, max, field) => (min..=max).contains(&(*field(config) as u64)),
            SettingKind::CountIfGiven(min, max, field) => {
                field(config).is_none_or(|count| (min..=max).contains(&(count as u64)))
            }
            SettingKind::Bytes(min, max, field) => (min..=max).contains(field(config)),
            SettingKind::BytesIfGiven(min, max, field) => {
                field(config).is_none_or(|bytes| (min..=max).contains(&bytes))
            }
            SettingKind::Time(min, max, field) => (min..=max).contains(field(config)),
            SettingKind::Origins(max, field) => {
                let origins = field(config);
                origins.len() <= max && origins.iter().all(|origin| is_origin(origin))
            }
            SettingKind::Networks(max, field) => field(config).len() <= max,
            SettingKind::Files(max, field) => {
                let is_path = |path: &String| {
                    let is_plain = !path.contains(|character: char| character.is_control());
                    is_plain && (1..=PATH_BYTES_MAX).contains(&path.len())
                };
                field(config).len() <= max && field(config).iter().all(is_path)
            }
            SettingKind::Secret(min, max, field) | SettingKind::SecretFile(min, max, field) => {
                field(config).as_ref().map(Secret::expose).is_none_or(|secret| {
                    let is_visible = secret.bytes().all(|byte| byte.is_ascii_graphic());
                    is_visible && (min..=max).contains(&secret.len())
                })
            }
            SettingKind::Text(min, max, field) => field(config).as_ref().is_none_or(|text| {
                let is_plain = !text.contains(|character: char| character.is_control());
                is_plain && (min..=max).contains(&text.len())
            }),
        };
        if is_in_range {
            return Ok(());
        }
        Err(format!("{} is {}; it must be {}", self.name, self.text(config), self.range()))
    }

    /// The value as text; empty if it is not set.
    pub fn text(&self, config: &Config) -> String {
        let mut copy = config.clone();
        match self.kind {
            SettingKind::Addresses(field) => {
                let addresses: Vec<_> = field(&mut copy).iter().map(ToString::to_string).collect();
                addresses.join(", ")
            }
            SettingKind::Choice(words, index, _) => words[index(config)].to_owned(),
            SettingKind::Switch(field) => field(&mut copy).to_string(),
            SettingKind::SwitchIfGiven(field) => {
                field(&mut copy).map(|given| given.to_string()).unwrap_or_default()
            }
            SettingKind::Count(_, _, field) => field(&mut copy).to_string(),
            SettingKind::CountIfGiven(_, _, field) => {
                field(&mut copy).map(|count| count.to_string()).unwrap_or_default()
            }
            SettingKind::Bytes(_, _, field) => Bytes(*field(&mut copy)).to_string(),
            SettingKind::BytesIfGiven(_, _, field) => {
                field(&mut copy).map(|bytes| Bytes(bytes).to_string()).unwrap_or_default()
            }
            SettingKind::Time(_, _, field) => Time(*field(&mut copy)).to_string(),
            SettingKind::Secret(_, _, field) => {
                let is_given = field(&mut copy).as_ref().is_some_and(|it| it.path().is_none());
                if is_given { HIDDEN.to_owned() } else { String::new() }
            }
            SettingKind::SecretFile(_, _, field) => {
                let path = field(&mut copy).as_ref().and_then(Secret::path);
                path.unwrap_or_default().to_owned()
            }
            SettingKind::Text(_, _, field) => field(&mut copy).clone().unwrap_or_default(),
            SettingKind::Origins(_, field) | SettingKind::Files(_, field) => {
                field(&mut copy).join(", ")
            }
            SettingKind::Networks(_, field) => {
                let networks: Vec<_> = field(&mut copy).iter().map(ToString::to_string).collect();
                networks.join(", ")
            }
            SettingKind::Levels(field) => field(&mut copy).to_string(),
        }
    }

    /// The value as it is shown to a user: [`Setting::text`], or the description of the default if it is not set.
    pub fn shown(&self, config: &Config) -> String {
        let texts = [self.text(config), self.default_text(), "none".to_owned()];
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// A warning if the value is a file of a secret that every user of this host can read.
    pub(super) fn exposed(&self, config: &Config) -> Option<String> {
        let SettingKind::SecretFile(_, _, field) = self.kind else { return None };
        field(&mut config.clone()).as_ref()?.warning(self.name)
    }

    /// The setting that sets the same secret in the other way: its text, or the file that it is read from.
    pub(super) fn other_way(&self) -> Option<String> {
        match self.kind {
            SettingKind::Secret(..) => Some(format!("{}_file", self.name)),
            SettingKind::SecretFile(..) => Some(self.name.strip_suffix("_file")?.to_owned()),
            _ => None,
        }
    }

    /// Whether two configurations have different values of the setting.
    pub fn differs(&self, one: &Config, other: &Config) -> bool {
        match self.kind {
            SettingKind::Secret(_, _, field) | SettingKind::SecretFile(_, _, field) => {
                let is_of_file = matches!(self.kind, SettingKind::SecretFile(..));
                let secret = |config: &Config| {
                    field(&mut config.clone()).take().filter(|it| it.path().is_some() == is_of_file)
                };
                secret(one) != secret(other) || self.text(one) != self.text(other)
            }
            _ => self.text(one) != self.text(other),
        }
    }

    /// Copies the value from one configuration to another.
    pub fn copy(&self, from: &Config, to: &mut Config) {
        let mut from = from.clone();
        match self.kind {
            SettingKind::Addresses(field) => field(to).clone_from(field(&mut from)),
            SettingKind::Choice(_, index, set) => set(to, index(&from)),
            SettingKind::Switch(field) => *field(to) = *field(&mut from),
            SettingKind::SwitchIfGiven(field) => *field(to) = *field(&mut from),
            SettingKind::Count(_, _, field) => *field(to) = *field(&mut from),
            SettingKind::CountIfGiven(_, _, field) => *field(to) = *field(&mut from),
            SettingKind::Bytes(_, _, field) => *field(to) = *field(&mut from),
            SettingKind::BytesIfGiven(_, _, field) => *field(to) = *field(&mut from),
            SettingKind::Time(_, _, field) => *field(to) = *field(&mut from),
            SettingKind::Secret(_, _, field) | SettingKind::SecretFile(_, _, field) => {
                field(to).clone_from(field(&mut from));
            }
            SettingKind::Text(_, _, field) => field(to).clone_from(field(&mut from)),
            SettingKind::Origins(_, field) | SettingKind::Files(_, field) => {
                field(to).clone_from(field(&mut from));
            }
            SettingKind::Networks(_, field) => field(to).clone_from(field(&mut from)),
            SettingKind::Levels(field) => *field(to) = *field(&mut from),
        }
    }

    /// The range of values, as text: "from 1 to 128".
    pub fn range(&self) -> String {
        match self.kind {
            SettingKind::Addresses(_) => ADDRESSES.to_owned(),
            SettingKind::Choice(words, ..) => words.join(" or "),
            SettingKind::Switch(_) | SettingKind::SwitchIfGiven(_) => "true or false".to_owned(),
            SettingKind::Count(min, max, _) | SettingKind::CountIfGiven(min, max, _) => {
                format!("from {min} to {max}")
            }
            SettingKind::Bytes(min, max, _) | SettingKind::BytesIfGiven(min, max, _) => {
                format!("from {} to {}", Bytes(min), Bytes(max))
            }
            SettingKind::Time(min, max, _) => format!("from {} to {}", Time(min), Time(max)),
            SettingKind::SecretFile(min, max, _) => {
                format!("a file with {min} to {max} visible ASCII characters")
            }
            SettingKind::Secret(min, max, _) => {
                format!("{min} to {max} visible ASCII characters")
            }
            SettingKind::Text(min, max, _) => {
                format!("{min} to {max} bytes without control characters")
            }
            SettingKind::Origins(max, _) => format!(
                "*, or up to {max} origins as browsers send them: lower case, no default port, no patterns"
            ),
            SettingKind::Files(max, _) => format!("up to {max} paths"),
            SettingKind::Networks(max, _) => {
                format!("up to {max} networks such as 10.0.0.0/8, or addresses")
            }
            SettingKind::Levels(_) => "a level, and levels per module".to_owned(),
        }
    }

    /// The default as text, or its description; empty if there is no default.
    pub fn default_text(&self) -> String {
        self.default_note.map_or_else(|| self.text(&Config::default()), str::to_owned)
    }
}

/// Whether a text is an origin as browsers send it (RFC 6454 6.2), or [`ANY_ORIGIN`].
fn is_origin(text: &str) -> bool {
    let is_plain = |text: &str| {
        let is_allowed = |byte: u8| {
            byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/?#,\"".contains(&byte)
        };
        !text.is_empty() && text.bytes().all(is_allowed)
    };
    let parts = text.split_once("://");
    let is_sent = |scheme: &str, host: &str| {
        // Browsers omit a default port (RFC 6454 6.2). Patterns are not supported.
        let default_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "/",
        };
        !host.ends_with(default_port) && !text.contains('*')
    };
    text == ANY_ORIGIN
        || parts.is_some_and(|(scheme, host)| {
            is_plain(scheme) && is_plain(host) && is_sent(scheme, host)
        })
}

/// PATH_MAX of Linux.
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// The form of addresses to listen on.
const ADDRESSES: &str = "IP:PORT or unix:PATH, any number of them; followed by ` tls`, TLS is spoken; by \
    ` no-tickets` too, without session tickets; by ` proxy`, a PROXY protocol header is expected; by ` deflate`, \
    WebSockets may be compressed";

/// Shown instead of a secret.
const HIDDEN: &str = "hidden";

fn count(text: &str) -> Result<usize, String> {
    usize::try_from(parse_count(text)?).map_err(|_| no_value(text, "a whole number"))
}

fn no_value(text: &str, wanted: &str) -> String {
    format!("'{text}' is not {wanted}")
}
