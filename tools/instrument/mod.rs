//! What both instruments, `bench` and `c1m`, measure with: one home, so that their numbers mean the same.

mod histogram;
mod memory;
mod system;

pub use histogram::Histogram;
pub use memory::{Resident, kernel_slab_bytes};
pub use system::{bind_address_no_port, cpu_clock_nanoseconds, preempt_others};
