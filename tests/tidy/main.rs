//! The rules of the house that the compiler does not know: which room may import which, what is done in which room only, the
//! size of files, functions and types, and the words. What breaks a rule is named with its file and line.
//!
//! Each check is itself tested on small inputs that it must refuse.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bans;
mod circles;
mod floors;
mod map;
mod modules;
mod sizes;
mod source;
mod spread;
mod words;

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
