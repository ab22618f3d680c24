//! The command line: one file per command.
//!
//! **In and out.** In: arguments. Out: what a command prints, and its exit code.
//!
//! **Must not know.** Anything but the library's public face.

mod check;
mod serve;
mod settings;

use clap::{Parser, Subcommand};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "fantail",
    version,
    about = "An edge fan-out server: holds TCP and WebSocket clients by the million and hands them what is published",
    args_conflicts_with_subcommands = true,
    after_help = serve::EXAMPLES
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: settings::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default)
    #[command(after_help = serve::EXAMPLES)]
    Serve(settings::Arguments),
    /// Judge the settings and print each with its source, without serving
    Check(check::Arguments),
}

/// Runs what the command line asks for. The error is one line for the user.
pub fn run(arguments: Arguments) -> Result<(), String> {
    match arguments.command {
        None => serve::run(arguments.serve),
        Some(Command::Serve(serve)) => serve::run(serve),
        Some(Command::Check(check)) => check::run(check),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }
}
