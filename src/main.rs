//! The program: parses the command line, runs the command, and returns its exit code.

use std::process::ExitCode;

use clap::Parser;

mod cli;

#[expect(clippy::print_stderr, reason = "the one place where errors meet the user")]
fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(arguments) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("fantail: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
