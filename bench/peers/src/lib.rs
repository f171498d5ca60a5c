//! Peers of the benchmarks that cannot be reached without unsafe code: liburcu, which is C, the retiring
//! side of seize, and a count of the `membarrier` calls that a thread makes; and a stack with frame pointers, in C.
//!
//! Everything that is offered here is safe to call. It is no part of the product.

mod deep;
mod liburcu;
mod membarriers;
mod retire;

pub use deep::deep;
pub use liburcu::{Liburcu, Registered, flavours};
pub use membarriers::{CountError, Counter};
pub use retire::{retire, retire_hazard};
