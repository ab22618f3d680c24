//! `fantail config`: makes settings files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use fantail::config::limits::SETTINGS_FILE_BYTES_MAX;

use super::from_centrifugo::{Format, convert};
use super::output::{note, say};

/// Arguments of `fantail config`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a settings file that is made from a configuration file of Centrifugo 6
    #[command(after_help = EXAMPLES)]
    FromCentrifugo {
        /// JSON, YAML or TOML, by the end of its name
        file: PathBuf,
    },
}

const EXAMPLES: &str = "\
The settings go to the standard output. What could not be carried over goes to the standard error, a
line for each key or each reason, and so do differences. Read them, then check the file.

Example:
  fantail config from-centrifugo config.yaml >fantail.toml
  fantail check --config fantail.toml";

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let Command::FromCentrifugo { file } = &arguments.command;
    let shown = file.display().to_string();
    let fault = |fault: String| format!("{shown}: {fault}");
    let format = Format::of(file).map_err(fault)?;
    let text = read(file).map_err(fault)?;
    let converted = convert(&text, format, &shown, &made_up_key()?).map_err(fault)?;
    note(&format!("{shown} is a configuration of Centrifugo 6, in {}", format.word()));
    for sentence in &converted.notes {
        note(sentence);
    }
    say(&converted.settings);
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SETTINGS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > SETTINGS_FILE_BYTES_MAX {
        return Err(format!("a file has at most {SETTINGS_FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// A secret that no program knows.
fn made_up_key() -> Result<String, String> {
    let mut bytes = [0; 24];
    rand::fill(&mut bytes).map_err(|_| "there are no random numbers".to_owned())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
