//! Single instructions without a lock prefix. A signal is delivered between instructions, so each
//! of these is atomic towards handlers that run on the same thread; towards other threads it is an
//! ordinary load and an ordinary store. x86 keeps loads in order and stores in order.

use core::arch::asm;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

/// Raises `word` by one.
#[inline(always)]
pub(crate) fn increment(word: &AtomicU32) {
    // SAFETY: the operand is a live, aligned u32 in memory that this process may write. The
    // default (no `nomem`) makes the compiler keep all other accesses on their side of it.
    unsafe {
        asm!("inc dword ptr [{}]", in(reg) word.as_ptr(), options(nostack));
    }
}

/// Raises `word` by one.
#[inline(always)]
pub(crate) fn increment_short(word: &AtomicU16) {
    // SAFETY: as in `increment`, for a u16.
    unsafe {
        asm!("inc word ptr [{}]", in(reg) word.as_ptr(), options(nostack));
    }
}

/// Lowers `word` by one.
#[inline(always)]
pub(crate) fn decrement(word: &AtomicU32) {
    // SAFETY: as in `increment`.
    unsafe {
        asm!("dec dword ptr [{}]", in(reg) word.as_ptr(), options(nostack));
    }
}

/// Replaces `old` in `word` by `new`; false if something else was there.
#[inline(always)]
pub(crate) fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: as in `increment`, for a u64.
    unsafe {
        asm!(
            "cmpxchg qword ptr [{}], {}",
            in(reg) word.as_ptr(),
            in(reg) new,
            inlateout("rax") old => found,
            options(nostack),
        );
    }
    found == old
}

/// The time-stamp counter.
#[inline(always)]
pub(crate) fn counter() -> u64 {
    // SAFETY: user space may execute rdtsc wherever the kernel's own clocksource is the TSC, and
    // only there is it called; it has no other precondition.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The frame pointer: where code is built with frame pointers, the address of the innermost frame.
#[inline(always)]
pub(crate) fn frame_pointer() -> u64 {
    let frame;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    frame
}

/// Can threads be told by [`thread_pointer`]?
pub(crate) const KNOWS_THREADS: bool = true;

/// Where the C library has the calling thread's descriptor.
#[inline(always)]
pub(crate) fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: the first word of what `fs` points to is its address: that is how the ABI has thread-local variables.
    unsafe {
        asm!("mov {}, fs:0", out(reg) pointer, options(readonly, nostack, preserves_flags));
    }
    pointer
}

/// The word at an address. By an instruction of its own, which the compiler knows nothing about: a frame that it reads is of code
/// that was interrupted, or called us.
///
/// # Safety
/// It is there.
#[inline(always)]
pub(crate) unsafe fn word(address: u64) -> u64 {
    let word;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("mov {}, [{}]", out(reg) word, in(reg) address, options(readonly, nostack, preserves_flags));
    }
    word
}

/// Copies so many bytes from an address, in the same way.
///
/// # Safety
/// They are there, and `to` is the caller's, with room for them.
#[inline(always)]
pub(crate) unsafe fn copy(from: u64, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise. The direction flag is clear, as calls of the C ABI want it.
    unsafe {
        asm!(
            "rep movsb",
            inout("rsi") from => _,
            inout("rdi") to => _,
            inout("rcx") bytes => _,
            options(nostack, preserves_flags),
        );
    }
}
