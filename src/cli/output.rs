//! What a command prints, and the failure with which it may end.

use std::io::{self, Write};

/// The error of a command.
#[derive(Debug)]
pub struct Failure {
    /// One line for the user.
    pub message: String,
    /// The program's exit code.
    pub code: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, code: 1 }
    }
}

/// Prints to the standard output. A closed pipe is not an error.
pub fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Prints a message for the user, not for a program that reads the output.
#[expect(clippy::print_stderr, reason = "a message must not look like a part of the output")]
pub fn note(message: &str) {
    eprintln!("fantail: {message}");
}
