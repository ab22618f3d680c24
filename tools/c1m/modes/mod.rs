//! What is done with the connections, mode by mode: each orders steps and reports what came of them.

pub mod echo;
pub mod fanout;
pub mod idle;
pub mod slow;
pub mod storm;
