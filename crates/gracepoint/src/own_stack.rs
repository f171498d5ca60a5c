//! Memory of the calling thread's stack that can be read without asking the kernel whether it is there.
//!
//! Whoever follows frame pointers reads where rubbish may lead him. The kernel can copy for him and say what is not there
//! ([`sys::peek`](crate::sys::peek)), but that is a system call which finds its code and tables in no cache when
//! it comes once in milliseconds: most of what a sample took. What lies between a stack pointer and the end of the stack
//! that it is on needs no asking, if that end is known: it cannot go away while the thread runs there.
//!
//! * **A thread's**: the C library keeps, in the thread's own descriptor, the block that it runs on (start, length, guard).
//!   The block is there from before the thread's first instruction until after its last, whoever
//!   has allocated it; nobody else changes these words meanwhile. Where in the descriptor they are is not documented
//!   (glibc has had these three in a row since it has threads). So a thread of ours is made with an odd length,
//!   and its descriptor looked through for what `pthread_getattr_np` says of it. What is not
//!   found exactly once is not known, on musl for instance.
//! * **The main thread's**: `[stack]` in `/proc/self/maps`, which the kernel lets grow and never takes away. What lies below of
//!   what it was when we looked is not known until the next look.
//!
//! A stack pointer that is on neither, such as that of a coroutine or of a handler on a signal stack, has nothing that is
//! known, and the kernel is asked as before. So is it for what a frame pointer says that leads out of the known part,
//! and where a stack pointer is in the guard already. A program that makes a hole in the used part of its own stack dies
//! of that itself when it returns through it.
//!
//! In a descriptor that belongs to another thread (a thread made by `clone` without one of its own) there is the other's
//! block, on which this one's stack pointer is not.

use crate::arch::local;
use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// Where in a thread's descriptor its block is; 0 while that is not known.
static BLOCK: AtomicUsize = AtomicUsize::new(0);
/// The main thread's stack: only the begin changes, downwards.
static MAIN: (AtomicU64, AtomicU64) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
/// Somebody was below the begin, and not far.
static BELOW_MAIN: AtomicBool = AtomicBool::new(false);
/// Both of them have been looked for.
static LOOKED: Once = Once::new();

/// As much of a descriptor is looked through; glibc's has 2.3 KiB.
const DESCRIPTOR: usize = 4096;
/// How far below its known begin a stack pointer is thought to be on the main thread's stack, for another look.
const FAR: u64 = 64 << 20;

/// Finds out what can be known. Not for handlers.
pub(crate) fn learn() {
    LOOKED.call_once(|| {
        look_at_main();
        if local::KNOWS_THREADS {
            // Its length is not one that a descriptor has anywhere by chance.
            let probe = std::thread::Builder::new().stack_size((237 << 10) + 4096);
            let found = probe.spawn(find_block).ok().and_then(|probe| probe.join().ok()).flatten();
            BLOCK.store(found.unwrap_or(0), Relaxed);
        }
    });
}

/// Looks again if the main thread's stack has grown. Not for handlers.
pub(crate) fn look_again() {
    if BELOW_MAIN.swap(false, Relaxed) {
        look_at_main();
    }
}

fn look_at_main() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let found = maps.lines().find(|line| line.ends_with("[stack]")).and_then(|line| {
        let (begin, rest) = line.split_once('-')?;
        let (end, rest) = rest.split_once(' ')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        rest.starts_with("rw").then_some((address(begin)?, address(end)?))
    });
    if let Some((begin, end)) = found {
        MAIN.1.store(end, Relaxed);
        // Release: pairs with the load in `known`, which sees the end to this begin; it never changes but from 0.
        MAIN.0.store(begin, Release);
    }
}

/// Where the calling thread's descriptor has its block, if there is one such place.
fn find_block() -> Option<usize> {
    let (low, len) = reported()?;
    let (descriptor, end) = (local::thread_pointer(), low + len);
    if !(low..end).contains(&descriptor) || !descriptor.is_multiple_of(8) {
        return None;
    }
    // SAFETY: between the descriptor and the end of the block that it is in, of a thread that runs: this one.
    let word = |at: usize| unsafe { local::word(descriptor + at as u64) };
    let is_block = |at: &usize| {
        let [start, len, guard] = [*at, at + 8, at + 16].map(word);
        start.checked_add(len) == Some(end) && start.checked_add(guard) == Some(low)
    };
    let most = DESCRIPTOR.min((end - descriptor) as usize).saturating_sub(24);
    let mut found = (8..most).step_by(8).filter(is_block);
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

/// What the C library says of the calling thread's stack: where it begins above its guard, and its length.
fn reported() -> Option<(u64, u64)> {
    // SAFETY: the attributes are written by the first call, read by the second and freed by the third; all three
    // get a place of ours.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return None;
        }
        let (mut start, mut len) = (std::ptr::null_mut(), 0);
        let failed =
            libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut len);
        libc::pthread_attr_destroy(&raw mut attributes);
        (failed == 0 && len > 0).then_some((start as u64, len as u64))
    }
}

/// From `sp` on, where the calling thread was interrupted or is: what it can read there. Empty where nothing is known.
/// Fit for signal handlers.
pub(crate) fn known(sp: u64) -> Range<u64> {
    // Acquire: pairs with the release in `look_at_main`.
    let begin = MAIN.0.load(Acquire);
    let end = MAIN.1.load(Relaxed);
    if (begin..end).contains(&sp) {
        return sp..end;
    }
    let block = BLOCK.load(Relaxed);
    if block != 0 {
        let descriptor = local::thread_pointer();
        // SAFETY: the calling thread's descriptor, which has words there: a thread of the same C library has had them.
        let [start, len, guard] =
            [0, 8, 16].map(|at| unsafe { local::word(descriptor + (block + at) as u64) });
        // The main thread's start is 0, and its descriptor is no part of its stack.
        let (low, high) = (start.saturating_add(guard), start.saturating_add(len));
        if start != 0 && (low..high).contains(&sp) && (sp..high).contains(&descriptor) {
            return sp..high;
        }
    }
    if sp < begin && sp >= begin.saturating_sub(FAR) && end != 0 {
        BELOW_MAIN.store(true, Relaxed);
    }
    0..0
}

/// Two words of `known`, if it has them.
///
/// # Safety
/// `known` is what [`known`] has told, and the thread has not left since what was below the stack pointer then.
pub(crate) unsafe fn pair(known: &Range<u64>, at: u64) -> Option<[u64; 2]> {
    let inside = at >= known.start && known.end.checked_sub(16).is_some_and(|last| at <= last);
    // SAFETY: the caller's promise: it is memory of the stack that the thread is on.
    inside.then(|| unsafe { [local::word(at), local::word(at + 8)] })
}

/// Copies words from the begin of `known` on, as many as there is room for; how many.
///
/// # Safety
/// As [`pair`].
pub(crate) unsafe fn copy(known: &Range<u64>, into: &mut [u64]) -> usize {
    let words = ((known.end - known.start) / 8).min(into.len() as u64) as usize;
    // SAFETY: the caller's promise; and any bits are words.
    unsafe { local::copy(known.start, into.as_mut_ptr().cast(), words * 8) };
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> u64 {
        let local = 0_u8;
        std::hint::black_box((&raw const local).addr() as u64)
    }

    /// What is known on a thread with a stack of so many bytes is what the C library says of it.
    fn check_thread(len: usize) {
        let builder = std::thread::Builder::new().stack_size(len);
        let check = || {
            let outer = 0x1234_5678_9abc_def0_u64;
            let at = std::hint::black_box(&raw const outer).addr() as u64;
            let (known, (low, len)) = (known(address()), reported().unwrap());
            assert_eq!(known.end, low + len);
            assert!(known.contains(&at), "{known:x?} {at:x}");
            // SAFETY: of this thread, in a call of it.
            let words = |at| unsafe { pair(&known, at) };
            assert_eq!(words(at).map(|words| words[0]), Some(outer));
            assert!(words(known.end - 16).is_some());
            for outside in [known.end - 15, known.end, known.start - 1, 8, u64::MAX] {
                assert_eq!(words(outside), None);
            }
            assert!(super::known(low.wrapping_sub(1)).is_empty(), "the guard");
            assert!(super::known(known.end).is_empty(), "above");
        };
        builder.spawn(check).unwrap().join().unwrap();
    }

    #[test]
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    fn threads_know_where_their_stacks_end() {
        learn();
        [64 << 10, 2 << 20, (1 << 20) + 4096].into_iter().for_each(check_thread);
    }

    #[test]
    fn the_main_threads_stack_is_known_by_all() {
        learn();
        look_again();
        // The environment as the kernel has put it there, above all frames.
        // SAFETY: the auxiliary vector has the address of sixteen bytes of the kernel's.
        let at = unsafe { libc::getauxval(libc::AT_RANDOM) };
        let known = known(at & !7);
        assert!(known.contains(&at) && known.end.is_multiple_of(4096), "{known:x?} {at:x}");
        // SAFETY: above it, on the main thread's stack, which stays.
        assert!(unsafe { pair(&known, known.end - 16) }.is_some());
    }

    #[test]
    fn of_other_memory_nothing_is_known() {
        learn();
        let heap = Box::new([0_u64; 64]);
        for at in [heap.as_ptr().addr() as u64, (&raw const MAIN).addr() as u64, 0, u64::MAX] {
            assert!(known(at).is_empty());
        }
        // Another thread's stack is not this one's.
        let (told, other) = std::sync::mpsc::channel();
        let (leave, stay) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            told.send(address()).unwrap();
            let _ = stay.recv();
        });
        assert!(known(other.recv().unwrap()).is_empty());
        drop(leave);
        thread.join().unwrap();
    }

    /// A thread whose stack the program has allocated, and that goes to another one for a while.
    #[test]
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    fn stacks_of_the_programs_own_are_known_and_coroutines_are_not() {
        extern "C" fn check(_: *mut libc::c_void) -> *mut libc::c_void {
            let (low, len) = reported().unwrap();
            let inside = known(address());
            let mut other = vec![0_u128; 4096];
            let mut outside = 0..1;
            let top = other.as_mut_ptr_range().end.cast();
            // SAFETY: the end of memory of our own, enough for a few calls.
            unsafe { crate::arch::stack::call_on(top, || outside = known(address())) };
            let right = inside.end == low + len && inside.start >= low && outside.is_empty();
            std::ptr::without_provenance_mut(usize::from(right))
        }
        learn();
        let mut stack = vec![0_u128; 16 << 10];
        let mut right = std::ptr::null_mut();
        // SAFETY: a thread on memory that outlives it: it is joined here.
        unsafe {
            let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
            let mut thread: libc::pthread_t = 0;
            let (base, len) = (stack.as_mut_ptr().cast(), size_of_val(&*stack));
            assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
            assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, base, len), 0);
            let made = libc::pthread_create(
                &raw mut thread,
                &raw const attributes,
                check,
                std::ptr::null_mut(),
            );
            assert_eq!(made, 0);
            assert_eq!(libc::pthread_join(thread, &raw mut right), 0);
            libc::pthread_attr_destroy(&raw mut attributes);
        }
        assert_eq!(right.addr(), 1);
    }
}
