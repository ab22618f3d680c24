//! Measurement code of `bench` and `c1m`, shared so that their numbers are comparable.

mod histogram;
mod memory;
mod system;
pub mod tls;
mod tokens;
mod wire;

pub use histogram::Histogram;
pub use memory::{Resident, kernel_slab_bytes};
pub use system::{bind_address_no_port, cpu_clock_nanoseconds, preempt_others};
pub use tls::Tls;
pub use tokens::Tokens;
pub use wire::{Opening, Wire};
