//! The arguments of the program: its commands, each run by its own file.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::output::Failure;
use super::{
    channels, check, config, connections, disconnect, doctor, publish, serve, settings, subscribe,
    token, top,
};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "fantail",
    version,
    about = "An edge fan-out server: delivers publications to millions of TCP and WebSocket clients",
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
    Serve(Box<settings::Arguments>),
    /// Check the settings and print each with its source, without serving
    Check(check::Arguments),
    /// Make a settings file from a configuration file of Centrifugo
    Config(config::Arguments),
    /// Report how many connections this host can hold, the bottleneck, and how to raise it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Arguments),
    /// Publish to a channel of a running server
    #[command(after_help = publish::EXAMPLES)]
    Publish(publish::Arguments),
    /// Subscribe to channels of a running server and print their publications
    #[command(after_help = subscribe::EXAMPLES)]
    Subscribe(subscribe::Arguments),
    /// List the channels of a running server
    #[command(after_help = channels::EXAMPLES)]
    Channels(channels::Arguments),
    /// List the connections of a running server
    #[command(after_help = connections::EXAMPLES)]
    Connections(connections::Arguments),
    /// Disconnect clients of a running server
    #[command(after_help = disconnect::EXAMPLES)]
    Disconnect(disconnect::Arguments),
    /// Make a token for a client
    #[command(after_help = token::EXAMPLES)]
    Token(Box<token::Arguments>),
    /// Show live statistics of a running server
    #[command(after_help = top::EXAMPLES)]
    Top(top::Arguments),
}

/// Runs the command of a command line. Returns the exit code of a command that did not fail.
pub fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        None => serve::run(arguments.serve)?,
        Some(Command::Serve(serve)) => serve::run(*serve)?,
        Some(Command::Check(check)) => check::run(check)?,
        Some(Command::Config(config)) => config::run(&config)?,
        Some(Command::Publish(publish)) => publish::run(publish)?,
        Some(Command::Subscribe(subscribe)) => subscribe::run(subscribe)?,
        Some(Command::Token(token)) => token::run(&token)?,
        Some(Command::Channels(channels)) => channels::run(channels)?,
        Some(Command::Connections(connections)) => connections::run(connections)?,
        Some(Command::Disconnect(disconnect)) => disconnect::run(disconnect)?,
        Some(Command::Top(top)) => top::run(top)?,
        Some(Command::Doctor(doctor)) => {
            let is_enough = doctor::run(&doctor)?;
            return Ok(if is_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lines_below_the_help_are_not_wrapped() {
        let all = Arguments::command();
        for command in all.get_subcommands().chain([&all]) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
        }
    }
}
