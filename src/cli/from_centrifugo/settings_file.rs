//! A settings file of fantail, as it is made.

use std::fmt::Write;
use std::time::Duration;

/// The settings, by section.
#[derive(Debug, Default)]
pub struct SettingsFile {
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    name: String,
    lines: Vec<String>,
}

/// A value of the file.
#[derive(Clone, Debug)]
pub enum Written {
    /// A text, in quotes.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
    /// What has no quotes: a number, true or false.
    Plain(String),
}

impl From<&str> for Written {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Written {
    fn from(is_set: bool) -> Self {
        Self::Plain(is_set.to_string())
    }
}

impl From<i64> for Written {
    fn from(number: i64) -> Self {
        Self::Plain(number.to_string())
    }
}

impl From<Duration> for Written {
    fn from(time: Duration) -> Self {
        let milliseconds = time.as_nanos().div_ceil(1_000_000);
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
        let unit = units.into_iter().find(|(factor, _)| milliseconds.is_multiple_of(*factor));
        let (factor, unit) = unit.unwrap_or((1, "ms"));
        Self::Text(format!("{} {unit}", milliseconds / factor))
    }
}

impl Written {
    /// A number of bytes.
    pub fn bytes(bytes: i64) -> Self {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.into_iter().find(|(factor, _)| bytes > 0 && bytes % factor == 0);
        let (factor, unit) = unit.unwrap_or((1, "B"));
        Self::Text(format!("{} {unit}", bytes / factor))
    }

    /// As it stands in the settings of a program, or in an array.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Text(text) | Self::Plain(text) => vec![text.clone()],
            Self::List(texts) => texts.clone(),
        }
    }

    fn toml(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Text(text) => quoted(text),
            Self::List(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
                let line = format!("[{}]", texts.join(", "));
                match line.len() {
                    ..100 => line,
                    _ => format!("[\n  {},\n]", texts.join(",\n  ")),
                }
            }
        }
    }
}

/// A text in quotes (TOML 1.0, strings): over several lines if it is a key in PEM.
fn quoted(text: &str) -> String {
    if text.starts_with("-----BEGIN ") && !text.contains(['\\', '"', '\r']) {
        return format!("\"\"\"\n{}\n\"\"\"", text.trim_end());
    }
    let json = serde_json::to_string(text).expect("a text is JSON");
    json.replace('\u{7f}', "\\u007f")
}

/// A text that no variable replaces anything in: `${` stands for itself.
pub fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// A text in which `${NAME}` is an environment variable, as it is in settings of fantail; any other `${` stands for
/// itself.
pub fn with_variables(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        out.push_str(before);
        let name = after.split_once('}').map_or("", |(name, _)| name);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        out.push_str(if is_name { "${" } else { "$${" });
        rest = after;
    }
    out + rest
}

/// Whether an environment variable is to be put into a text.
pub fn has_variables(text: &str) -> bool {
    text.replace("$${", "").contains("${")
}

impl SettingsFile {
    /// Adds a section, also if it stays empty.
    pub fn section(&mut self, name: &str) {
        self.lines(name);
    }

    /// Adds a line.
    pub fn set(&mut self, section: &str, key: &str, value: &Written) {
        let line = format!("{key} = {}", value.toml());
        self.lines(section).push(line);
    }

    /// Adds a comment.
    pub fn comment(&mut self, section: &str, text: &str) {
        self.lines(section).push(format!("# {text}"));
    }

    /// The lines of a section. Names with a dot are in quotes already.
    fn lines(&mut self, name: &str) -> &mut Vec<String> {
        let at = self.sections.iter().position(|section| section.name == name);
        let at = at.unwrap_or_else(|| {
            self.sections.push(Section { name: name.to_owned(), lines: Vec::new() });
            self.sections.len() - 1
        });
        &mut self.sections[at].lines
    }

    /// The text of the file. Sections stand in the order of their first lines, but the first one has no name.
    pub fn text(&self, head: &str) -> String {
        let mut text = head.to_owned();
        let (top, sections): (Vec<_>, Vec<_>) =
            self.sections.iter().partition(|section| section.name.is_empty());
        for section in top.into_iter().chain(sections) {
            // Writing to a String cannot fail.
            if !text.is_empty() {
                text.push('\n');
            }
            if !section.name.is_empty() {
                let _ = writeln!(text, "[{}]", section.name);
            }
            for line in &section.lines {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}
