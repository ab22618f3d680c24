//! `fantail check`: checks the settings and prints each with its source, without serving.

use std::fmt::Write;

use clap::Args;

use fantail::config::{
    CALLBACK_OPTIONS, CHANNEL_OPTIONS, CallbackKind, EVENT_OPTIONS, Origin, SETTINGS, markdown,
};
use fantail::server::check_certificates;

use super::output::say;
use super::settings;

/// Arguments of `fantail check`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Print the list of settings, as it stands in src/config/README.md
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    settings: settings::Arguments,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    if arguments.markdown {
        say(&markdown());
        return Ok(());
    }
    let loaded = arguments.settings.sources.load().map_err(|error| error.to_string())?;
    let rows: Vec<_> = SETTINGS
        .iter()
        .zip(&loaded.origins)
        .map(|(setting, origin)| (setting.name, setting.shown(&loaded.config), source(origin)))
        .collect();
    let value_width = rows.iter().map(|(_, value, _)| value.len()).max().unwrap_or(0);
    let name_width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (name, value, source) in rows {
        let _ = writeln!(text, "{name:name_width$}  {value:value_width$}  {source}");
    }
    for (section, options) in loaded.config.namespaces.sections() {
        let _ = writeln!(text, "\n[{section}]");
        for option in CHANNEL_OPTIONS {
            let _ = writeln!(text, "{:name_width$}  {}", option.name, option.text(options));
        }
    }
    for key in &loaded.config.api_keys {
        let _ = writeln!(text, "\n[api.keys.{}]\n{:name_width$}  hidden", key.name, "key");
        for (option, value) in key.rights.texts() {
            let _ = writeln!(text, "{option:name_width$}  {value}");
        }
    }
    for kind in loaded.config.callbacks.kinds() {
        let _ = writeln!(text, "\n[callbacks.{}]", kind.word());
        for option in CALLBACK_OPTIONS {
            let value = option.text(loaded.config.callbacks.of(kind));
            let _ = writeln!(text, "{:name_width$}  {value}", option.name);
        }
        for (name, ..) in EVENT_OPTIONS.iter().filter(|_| kind == CallbackKind::Events) {
            let value = loaded.config.callbacks.events.text(name);
            let _ = writeln!(text, "{name:name_width$}  {value}");
        }
    }
    for key in &loaded.config.token_keys {
        let _ = writeln!(text, "\n[auth.keys.{}]", key.name);
        for (option, value) in key.texts() {
            let _ = writeln!(text, "{option:name_width$}  {value}");
        }
    }
    for warning in &loaded.warnings {
        let _ = writeln!(text, "\nwarning: {warning}");
    }
    match check_certificates(&loaded.config) {
        Ok(warnings) => warnings.iter().for_each(|it| {
            let _ = writeln!(text, "\nwarning: {it}");
        }),
        Err(fault) => {
            let _ = writeln!(text, "\nwarning: here the server would not start: {fault}");
        }
    }
    if loaded.config.trusts_this_host() {
        let _ = writeln!(text, "\nnote: {TRUSTS_THIS_HOST}");
    }
    say(&text);
    Ok(())
}

const TRUSTS_THIS_HOST: &str = "api.key is not set, so every process on this host may \
    publish and call the server API; so may every client of a proxy on this host";

fn source(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File { .. } => format!("file {origin}"),
        Origin::Environment(_) => format!("env {origin}"),
        Origin::Flag(_) => format!("flag {origin}"),
    }
}
