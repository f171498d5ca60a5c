//! For callers that enter a read section in assembly, before any compiled function may run: the trampoline of
//! `gracepoint`'s function tracer, which may be in the middle of any function of this crate.
//!
//! The instructions are those of [`Domain::read`] and of a guard's drop, which have the argument:
//!
//! ```text
//! word = fs:[gp1_rcu_thread + SLOT_WORD]      base = [domain + FAST]
//! word & base == 0 ?                          enter() instead
//! pair = base + word + [base + RANK]
//! inc qword ptr [pair]                        … the section …
//! pair & HOW != 0 ?                           leave(pair) instead
//! inc qword ptr [pair + UNLOCK]
//! ```
//!
//! One instruction for each increment, so that a handler never comes half way; no barrier, which the
//! heavy one makes up for (`fast` is null where that is not to be had).

use crate::arch;
use crate::counters::Pair;
use crate::domain::{self, Domain};
use crate::guard::{self, Guard};
use std::mem::offset_of;

/// Where a thread's word is in its `gp1_rcu_thread`.
pub const SLOT_WORD: usize = arch::SLOT_WORD;
/// Where a domain's `fast` is.
pub const FAST: usize = domain::FAST;
/// Where the active rank is, from `base`.
pub const RANK: usize = domain::RANK;
/// Where a pair counts sections that were left; those that were entered are at 0.
pub const UNLOCK: usize = offset_of!(Pair, unlock);
/// Bits of a pair's address that say that it is left by [`leave`].
pub const HOW: usize = guard::HOW;

const _: () = assert!(offset_of!(Pair, lock) == 0);

/// Enters a section of `domain`; what is returned is for [`leave`].
#[must_use]
#[inline(never)]
pub fn enter(domain: &Domain) -> usize {
    domain.read().into_address()
}

/// Leaves a section.
///
/// # Safety
/// `pair` is what [`enter`] returned on this thread, or the pair that the instructions above counted up;
/// once.
#[inline(never)]
pub unsafe fn leave(pair: usize) {
    // SAFETY: the caller's promise.
    drop(unsafe { Guard::<guard::Any>::from_address(pair) });
}
