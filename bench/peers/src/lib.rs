//! Peers of the benchmarks that cannot be reached without unsafe code: liburcu, which is C, the retiring
//! side of seize, a count of the `membarrier` calls that a thread makes, and the calls of a switch; and a stack with frame pointers, in C.
//!
//! Everything that is offered here is safe to call. It is no part of the product.

mod deep;
mod liburcu;
mod membarriers;
mod retire;
#[cfg(target_os = "linux")]
mod switching;

pub use deep::deep;
pub use liburcu::{Liburcu, Registered, flavours};
pub use membarriers::{CountError, Counter};
pub use retire::{retire, retire_hazard};
#[cfg(target_os = "linux")]
pub use switching::Switching;
