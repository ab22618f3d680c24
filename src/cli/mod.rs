//! The command line: one file per command.
//!
//! **In and out.** In: arguments. Out: the output of a command, and its exit code.
//!
//! **Must not know.** Private items of the library.

mod access;
mod announce;
mod api;
mod channels;
mod check;
mod client;
mod command_line;
mod config;
mod connections;
mod disconnect;
mod doctor;
mod from_centrifugo;
mod output;
mod publish;
mod serve;
mod settings;
mod subscribe;
mod token;
mod top;

pub use command_line::{Arguments, run};
