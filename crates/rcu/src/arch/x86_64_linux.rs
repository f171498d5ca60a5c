//! x86-64 Linux: `inc [reg]` and an initial-exec thread-local block.
//!
//! The symbol carries the ABI version and is hidden: two versions of this crate in one
//! program fail to link or live apart in two shared objects, but never share words that they lay
//! out differently. `.tbss` takes no room in the file and starts as zeros in every thread.

use super::{SLOT_WORD, ThreadWords};
use crate::sync::AtomicU64;
use std::arch::{asm, global_asm};
use std::mem::MaybeUninit;

global_asm!(
    ".pushsection .tbss.gp1_rcu_thread,\"awT\",@nobits",
    ".globl gp1_rcu_thread",
    ".hidden gp1_rcu_thread",
    ".p2align 6",
    "gp1_rcu_thread:",
    ".zero {size}",
    ".size gp1_rcu_thread, {size}",
    ".popsection",
    size = const size_of::<ThreadWords>(),
);

/// Adds one to a counter that only the calling thread and its signal handlers write.
///
/// The compiler moves no memory access across it (the asm block clobbers memory); the
/// processor may. A caller that needs the second kind of order needs a barrier as well.
#[inline(always)]
pub(crate) fn increment(counter: &AtomicU64) {
    // SAFETY: `counter` is a valid, aligned, writable u64 for as long as the borrow lives; the
    // instruction writes nothing but that word and the flags (which asm! assumes clobbered).
    // Aligned 8-byte accesses are single-copy atomic, so readers of the AtomicU64
    // elsewhere see old or new.
    unsafe { asm!("inc qword ptr [{}]", in(reg) counter.as_ptr(), options(nostack)) }
}

/// The same, with release: on this processor every store comes after all loads and stores before it, and the asm
/// block keeps the compiler from moving them.
#[inline(always)]
pub(crate) fn increment_release(counter: &AtomicU64) {
    increment(counter);
}

/// Begins to fetch the cache line at this address, for a write that comes soon. A hint: any address will do.
#[inline(always)]
pub(crate) fn prefetch(address: MaybeUninit<*const u8>) {
    // SAFETY: the instruction changes no register, no flag and no memory, whatever is in the register; where
    // nothing can be fetched it does nothing.
    unsafe { asm!("prefetchw [{}]", in(reg) address, options(nostack, readonly, preserves_flags)) }
}

/// The calling thread's `ThreadWords::slot`.
#[inline(always)]
pub(crate) fn slot_word() -> usize {
    let word: usize;
    // SAFETY: reads 8 bytes at SLOT_WORD in this thread's `gp1_rcu_thread` block, which exists
    // from the thread's start to its end; `slot` is there (asserted below).
    unsafe {
        asm!(
            "mov {word}, qword ptr [rip + gp1_rcu_thread@GOTTPOFF]",
            "mov {word}, qword ptr fs:[{word} + {slot}]",
            word = out(reg) word,
            slot = const SLOT_WORD,
            options(nostack, readonly, preserves_flags),
        );
    }
    word
}

/// Runs `f` on the calling thread's words.
pub(crate) fn with_thread<R>(f: impl FnOnce(&ThreadWords) -> R) -> R {
    let words: *const ThreadWords;
    // SAFETY: the x86-64 TLS ABI keeps the thread pointer itself at `fs:[0]`; adding the
    // block's offset gives its address. Nothing is written.
    unsafe {
        asm!(
            "mov {words}, qword ptr fs:[0]",
            "add {words}, qword ptr [rip + gp1_rcu_thread@GOTTPOFF]",
            words = out(reg) words,
            options(nostack, readonly),
        );
    }
    // SAFETY: the block is zeroed, aligned to 64 and `size_of::<ThreadWords>()` long (see the
    // global_asm! above), lives as long as the thread, and all-zero is a valid
    // ThreadWords (four atomics). The reference does not leave `f`.
    f(unsafe { &*words })
}

const _: () = assert!(std::mem::offset_of!(ThreadWords, slot) == SLOT_WORD);
const _: () = assert!(align_of::<ThreadWords>() == 64);
