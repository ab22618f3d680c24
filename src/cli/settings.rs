//! The flags of the settings, generated from the table of settings, and `--config`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use fantail::config::{
    Config, FILE_VARIABLE, Given, Origin, SETTINGS, Setting, SettingKind, Sources,
};

/// The settings given on the command line.
#[derive(Debug)]
pub struct Arguments {
    /// The sources of the settings: the file and the flags.
    pub sources: Sources,
}

impl Args for Arguments {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .long(FILE)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(format!("Settings file, TOML [default: ${FILE_VARIABLE}, or none]"));
        command.arg(file).args(SETTINGS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Arguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = SETTINGS.iter().filter_map(|setting| {
            let texts = match setting.kind {
                SettingKind::Switch(_) => {
                    matches.get_flag(setting.flag).then(|| vec!["true".to_owned()])
                }
                _ => matches.get_many::<String>(setting.flag).map(|texts| texts.cloned().collect()),
            };
            texts.map(|texts| Given { setting, texts, origin: Origin::Flag(setting.flag) })
        });
        let file = matches.get_one::<PathBuf>(FILE).cloned();
        Ok(Self { sources: Sources { file, flags: flags.collect() } })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

const FILE: &str = "config";

/// The flag of a setting. Text that cannot be parsed is refused here, as an error of clap; ranges are checked when all
/// sources are loaded.
fn flag(setting: &'static Setting) -> Arg {
    let default = match setting.default_text() {
        text if text.is_empty() || matches!(setting.kind, SettingKind::Switch(_)) => String::new(),
        text => format!(" [default: {text}]"),
    };
    let choices = match setting.kind {
        SettingKind::Choice(words, ..) => format!(" [possible values: {}]", words.join(", ")),
        SettingKind::SwitchIfGiven(_) => " [possible values: true, false]".to_owned(),
        _ => String::new(),
    };
    let parse = move |text: &str| {
        let texts = [text.to_owned()];
        let parsed = setting.parse(&texts, &mut Config::default());
        parsed.map(|()| text.to_owned()).map_err(|fault| {
            // clap quotes the value itself.
            let rest = fault.strip_prefix(&format!("'{text}' ")).map(|rest| format!("it {rest}"));
            rest.unwrap_or(fault)
        })
    };
    let flag = Arg::new(setting.flag).long(setting.flag).value_parser(parse);
    let (flag, more) = match setting.kind {
        SettingKind::Addresses(_) => {
            (flag.value_name("ADDR").action(ArgAction::Append), "; may be given more than once")
        }
        SettingKind::Origins(..) => {
            (flag.value_name("ORIGIN").action(ArgAction::Append), "; may be given more than once")
        }
        SettingKind::Networks(..) => {
            (flag.value_name("NETWORK").action(ArgAction::Append), "; may be given more than once")
        }
        SettingKind::Files(..) => {
            (flag.value_name("FILE").action(ArgAction::Append), "; may be given more than once")
        }
        SettingKind::Choice(..) => (flag.value_name("WORD"), ""),
        SettingKind::Switch(_) => {
            (Arg::new(setting.flag).long(setting.flag).action(ArgAction::SetTrue), "")
        }
        SettingKind::SwitchIfGiven(_) => (flag.value_name("BOOL"), ""),
        SettingKind::Count(..) | SettingKind::CountIfGiven(..) => (flag.value_name("N"), ""),
        SettingKind::Bytes(..) | SettingKind::BytesIfGiven(..) => (flag.value_name("BYTES"), ""),
        SettingKind::Time(..) => (flag.value_name("TIME"), ""),
        SettingKind::SecretFile(..) => (flag.value_name("FILE"), ""),
        SettingKind::Secret(..) => {
            (flag.value_name("SECRET"), "; better given in the file or the environment")
        }
        SettingKind::Text(..) => (flag.value_name("TEXT"), ""),
        SettingKind::Levels(_) => (flag.value_name("LEVELS"), ""),
    };
    let heading = match setting.name.split_once('.') {
        Some(("limits", _)) => Some("Limits"),
        Some(("log", _)) => Some("Log"),
        _ => None,
    };
    flag.help(format!("{}{more}{default}{choices}", setting.doc)).help_heading(heading)
}
