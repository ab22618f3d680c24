//! Where the value of a setting was set, and the names of environment variables.

use std::fmt;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not set: the default.
    Default,
    /// In the file.
    File {
        /// The path, as it was given.
        path: String,
        /// The line number, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// By this flag, without its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => out.write_str("default"),
            Origin::File { path, line } => write!(out, "{path}:{line}"),
            Origin::Environment(variable) => out.write_str(variable),
            Origin::Flag(flag) => write!(out, "--{flag}"),
        }
    }
}

/// The variable that names the settings file.
pub const FILE_VARIABLE: &str = "FANTAIL_CONFIG";

/// The prefix of all environment variables of settings.
pub const VARIABLE_PREFIX: &str = "FANTAIL_";
