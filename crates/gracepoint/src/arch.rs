//! What depends on the instruction set: the site macro, the local compare-exchange, the counter.
//!
//! | file | for |
//! |---|---|
//! | `x86_64.rs` | a 5-byte NOP that is patched; unlocked read-modify-write instructions; `rdtsc` |
//! | `trampoline_x86_64.rs`, `trampoline_x86_64.s` | what functions with sleds call |
//! | `stack_x86_64.rs`, `stack_portable.rs` | a call on another stack, where that can be done |
//! | `branch.rs` | any other Linux, or `GRACEPOINT_PATCH=branch`: a relaxed load and a branch |
//! | `none.rs` | systems without support: the macros type-check and do nothing |

#[cfg(all(gp_supported, gp_branch))]
mod branch;
#[cfg(gp_supported)]
mod module;
#[cfg(not(gp_supported))]
mod none;
#[cfg(all(gp_supported, not(gp_branch)))]
pub(crate) mod trampoline_x86_64;
#[cfg(all(gp_supported, not(gp_branch)))]
mod x86_64;

#[cfg(all(gp_supported, not(gp_branch)))]
pub(crate) use x86_64::{NOP, PASS, fits_one_word, jump};

/// Calls on another stack.
#[cfg(all(gp_supported, target_arch = "x86_64"))]
#[path = "arch/stack_x86_64.rs"]
pub(crate) mod stack;
#[cfg(all(gp_supported, not(target_arch = "x86_64")))]
#[path = "arch/stack_portable.rs"]
pub(crate) mod stack;

/// Instructions that are atomic towards this thread's own signal handlers and towards nobody else.
#[cfg(all(gp_supported, target_arch = "x86_64"))]
#[path = "arch/local_x86_64.rs"]
pub(crate) mod local;
#[cfg(all(gp_supported, not(target_arch = "x86_64")))]
#[path = "arch/local_portable.rs"]
pub(crate) mod local;
