//! `fantail check`: judges settings without serving, and prints what they are.

use clap::Args;

use fantail::config::{CHANNEL_OPTIONS, Origin, SETTINGS, markdown};

use super::settings;

/// What to check.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Print the list of settings, as it stands in the README
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    settings: settings::Arguments,
}

/// Runs the command.
#[expect(clippy::print_stdout, reason = "what was asked for")]
pub fn run(arguments: Arguments) -> Result<(), String> {
    if arguments.markdown {
        print!("{}", markdown());
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
    for (name, value, source) in rows {
        println!("{name:name_width$}  {value:value_width$}  {source}");
    }
    for (section, options) in loaded.config.namespaces.sections() {
        println!("\n[{section}]");
        for option in CHANNEL_OPTIONS {
            println!("{:name_width$}  {}", option.name, option.text(options));
        }
    }
    for variable in &loaded.strangers {
        println!("{variable} is no setting and has no effect");
    }
    Ok(())
}

fn source(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File { .. } => format!("file {origin}"),
        Origin::Environment(_) => format!("env {origin}"),
        Origin::Flag(_) => format!("flag {origin}"),
    }
}
