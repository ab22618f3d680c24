//! The program: command line → configuration → command → exit code.

fn main() {}
