//! The capacity of the host: how many connections it can hold, which limit is the bottleneck, and how to raise it.
//!
//! Reading and judging are separate: [`Host`] is plain data that was read; [`judge`] is a pure function, tested with
//! made-up hosts. The recommended values are those of `sysctl/90-fantail.conf`.

mod capacity;
mod facts;
mod inputs;
mod judgement;
mod read;
mod recommended;
#[cfg(test)]
mod tests;

pub use capacity::Bottleneck;
pub use facts::{Fact, Fix, Verdict};
pub use inputs::{Host, Plan};
pub use judgement::{Grouped, Judgement, judge};
