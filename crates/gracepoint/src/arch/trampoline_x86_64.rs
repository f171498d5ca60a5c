//! The trampolines of functions with sleds, and the thread's word that keeps them from themselves.
//!
//! # A sled that is on
//! | sled | off | on |
//! |---|---|---|
//! | entry, tail exit | `eb 09`, 9 bytes of NOP | `68 09 id id id` (push), `e8 distance` (call), `90` |
//! | exit | `c3`, 10 bytes of NOP | `68 09 id id id` (push), `e9 distance` (jmp) |
//!
//! The push keeps every register (`mov r10d, id`, which other runtimes use, is two bytes away from `eb 09`, and takes the
//! static chain's register). Its number has 09 as its lowest byte, so that *one byte* is the difference between on and
//! off: a store that no processor and no system call can do by halves. `patch/sleds.rs` has the rest.
//!
//! # What a trampoline does, and in which order
//! 1. The guard: the thread's word holds the stack pointer of the trampoline that the thread is in, or 0. If it is set,
//!    the hit comes from a function that a callback calls, or from a signal handler that interrupted a trampoline: it is
//!    counted and passed by. (A word *below* this stack pointer belongs to a trampoline that is no more:
//!    a handler that interrupted it has left by `longjmp`. Unless this is a handler on a signal stack that lies higher, so
//!    the system is asked. A section that was left like that stays open: what is taken off later is kept for good, and the
//!    stall is reported.) All this is before anything compiled runs, which may have sleds itself.
//! 2. Registers. Where a function begins: all that may hold arguments (rax, rcx, rdx, rsi, rdi, r8, r9, r10, xmm0 to xmm7).
//!    Where it has returned: all that the conventions of C and Rust may return in (rax, rdx, rcx, xmm0 to xmm3).
//!    Others belong to nobody at these places, or to the callee. Vectors wider than xmm: below. And the error
//!    number: a function may begin between a system call and the look at its error.
//! 3. The read section of `TRACE` is entered here, by the instructions of `gracepoint_rcu::assembly`, and left
//!    here. Only in between is anything loaded that may be freed (`function/ops.rs` has the argument). A thread that
//!    has no index yet, or not any more, and every thread where readers must fence, takes the way
//!    through `enter` and `leave`, compiled functions that may have sleds: the guard is set.
//!    (With the feature `canary` the array is found before the section is entered, a window of some instructions that the
//!    stepping test of `tests/functions` must find.)
//! 4. Each operation that wants the function is called, on an aligned stack.
//!
//! # Wide vectors
//! A function may have arguments or results in ymm0 to ymm7 or zmm0 to zmm7. A session's operation is compiled for
//! the machine's least common denominator and does not touch their upper parts unless it calls something that may
//! (`memset` does), which it does by `apart`. Others may touch anything (`Op::apart`), as every one may in a build for AVX or
//! without optimisation. Where one of these is published, the trampoline looks whether an upper part is not zero, and only then
//! keeps and restores them all; where all are zero `vzeroupper` leaves them so, and no instruction
//! has to wait for a mixed state.

use crate::function::{NO_DEPTH, Op, missed_hits, ops};
use crate::key::TRACE;
use crate::patch::island;
use gracepoint_rcu::assembly as rcu;
use std::arch::{asm, global_asm};
use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// 0: no vectors wider than xmm; 1: ymm; 2: zmm. Set before the first sled is on.
static VECTORS: AtomicU8 = AtomicU8::new(0);

/// Where a thread's error number lies, from its thread pointer: it is in the C library's static thread-local storage, so
/// the distance is the same for all. Set before the first sled is on.
static ERRNO: AtomicUsize = AtomicUsize::new(0);

global_asm!(
    include_str!("trampoline_x86_64.s"),
    ops = sym ops::OPS,
    op_entry = const offset_of!(Op, entry),
    op_exit = const offset_of!(Op, exit),
    op_data = const offset_of!(Op, data),
    op_words = const offset_of!(Op, words),
    op_len = const offset_of!(Op, len),
    op_apart = const offset_of!(Op, apart),
    op_size = const size_of::<Op>(),
    no_depth = const NO_DEPTH.cast_signed(),
    errno = sym ERRNO,
    sigaltstack = const libc::SYS_sigaltstack,
    on_stack = const libc::SS_ONSTACK,
    enter = sym enter,
    leave = sym leave,
    trace = sym TRACE,
    early = const cfg!(feature = "canary") as u8,
    missed = sym missed_hits::COUNT,
    vectors = sym VECTORS,
    slot_word = const rcu::SLOT_WORD,
    fast = const rcu::FAST,
    rank = const rcu::RANK,
    unlock = const rcu::UNLOCK,
    how = const rcu::HOW,
);

unsafe extern "C" {
    fn gp1_function_entry();
    fn gp1_function_exit();
    fn gp1_function_tail();
    fn gp1_function_apart(call: unsafe extern "C" fn(usize) -> usize, argument: usize) -> usize;
}

unsafe extern "C" fn enter(_: usize) -> usize {
    rcu::enter(&TRACE)
}

unsafe extern "C" fn leave(pair: usize) -> usize {
    // SAFETY: the trampoline calls this once with what `enter` gave it, or with the pair that it counted.
    unsafe { rcu::leave(pair) };
    0
}

/// The functions that trampolines call, for the list of those that are never traced.
pub(crate) fn called() -> [usize; 2] {
    [enter, leave].map(|f: unsafe extern "C" fn(usize) -> usize| f as usize)
}

/// Calls `body` with the upper parts of wide vectors kept. For what runs in a trampoline.
#[inline(always)]
pub(crate) fn apart<R>(body: impl FnOnce() -> R) -> R {
    struct Parcel<F, R>(Option<F>, Option<R>);
    unsafe extern "C" fn open<F: FnOnce() -> R, R>(parcel: usize) -> usize {
        // SAFETY: the address of the parcel below, which is used by nobody else meanwhile.
        let parcel = unsafe { &mut *(parcel as *mut Parcel<F, R>) };
        parcel.1 = parcel.0.take().map(|body| body());
        0
    }
    fn open_of<F: FnOnce() -> R, R>(_: &Parcel<F, R>) -> unsafe extern "C" fn(usize) -> usize {
        open::<F, R>
    }
    let mut parcel = Parcel(Some(body), None);
    let open = open_of(&parcel);
    // SAFETY: calls `open` with the parcel's address.
    unsafe { gp1_function_apart(open, &raw mut parcel as usize) };
    match parcel.1 {
        Some(result) => result,
        None => unreachable!("the body was called"),
    }
}

/// Looks at the processor. Before the first sled is on.
pub(crate) fn prepare() {
    let widest = if std::arch::is_x86_feature_detected!("avx512f") {
        2
    } else {
        u8::from(std::arch::is_x86_feature_detected!("avx"))
    };
    VECTORS.store(widest, Relaxed);
    ERRNO.store(errno_distance(), Relaxed);
}

fn errno_distance() -> usize {
    let thread: usize;
    // SAFETY: the thread pointer is at `fs:[0]`.
    unsafe { asm!("mov {}, qword ptr fs:[0]", out(reg) thread, options(nostack, readonly)) };
    // SAFETY: has no precondition.
    let errno = unsafe { libc::__errno_location() };
    (errno as usize).wrapping_sub(thread)
}

/// Runs `f` on the thread's guard word; see the top.
#[inline(always)]
pub(crate) fn with_guard<R>(f: impl FnOnce(&AtomicUsize) -> R) -> R {
    let word: *const AtomicUsize;
    // SAFETY: the thread pointer is at `fs:[0]`; adding the block's offset gives its address. Nothing is written.
    unsafe {
        asm!(
            "mov {word}, qword ptr fs:[0]",
            "add {word}, qword ptr [rip + gp1_function_thread@GOTTPOFF]",
            word = out(reg) word,
            options(nostack, readonly),
        );
    }
    // SAFETY: a zeroed, aligned word that lives as long as the thread, and only it and its handlers use; the reference
    // does not leave `f`.
    f(unsafe { &*word })
}

/// A kind of sled, with the numbers of the compiler's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SledKind {
    Entry,
    Exit,
    Tail,
}

impl SledKind {
    /// The kind with this number in the map; `None` for those that are not about functions.
    pub(crate) fn of(number: u8) -> Option<SledKind> {
        match number {
            0 | 3 => Some(SledKind::Entry),
            1 => Some(SledKind::Exit),
            2 => Some(SledKind::Tail),
            _ => None,
        }
    }
}

/// Bytes of a sled.
pub(crate) const SLED: usize = 11;
/// Most functions that ids in sleds can name.
pub(crate) const MOST_IDS: u32 = 1 << 24;
/// First byte of a sled that is on.
const ON: u8 = 0x68;

/// The first byte of a sled that is off.
pub(crate) fn off(kind: SledKind) -> u8 {
    if kind == SledKind::Exit { 0xc3 } else { 0xeb }
}

/// The first byte of a sled that is on.
pub(crate) fn on() -> u8 {
    ON
}

/// Is this what the compiler makes, or what it became under our hands?
pub(crate) fn is_sled(kind: SledKind, bytes: &[u8; SLED]) -> bool {
    const NOP: [u8; 9] = [0x66, 0x0f, 0x1f, 0x84, 0, 0, 2, 0, 0];
    let ours = bytes[1] == 0x09 && bytes[5] == if kind == SledKind::Exit { 0xe9 } else { 0xe8 };
    let first = bytes[0] == off(kind) || (ours && bytes[0] == ON);
    let rest = match kind {
        SledKind::Exit => bytes[3..8] == [0x0f, 0x1f, 0x84, 0, 0],
        _ => bytes[1] == 0x09 && bytes[2..] == NOP,
    };
    first && (ours || rest)
}

/// How the sleds of an object get to the trampolines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    /// By the stones at this address.
    Island(usize),
}

impl Way {
    /// For an object that lies there. `None` where there is none.
    pub(crate) fn of(object: &Range<usize>) -> Option<Way> {
        let all = TRAMPOLINES.map(|trampoline| trampoline as usize);
        let far = |end: usize| all.iter().any(|at| at.abs_diff(end) >= i32::MAX as usize);
        if far(object.start) || far(object.end) {
            return island::near(object, &all).map(Way::Island);
        }
        Some(Way::Direct)
    }

    fn to(self, kind: SledKind) -> usize {
        match self {
            Way::Direct => TRAMPOLINES[kind as usize] as usize,
            Way::Island(at) => at + kind as usize * island::STONE,
        }
    }
}

/// By [`SledKind`].
const TRAMPOLINES: [unsafe extern "C" fn(); 3] =
    [gp1_function_entry, gp1_function_exit, gp1_function_tail];

/// The dead bytes of a sled, and where they begin, that make it call for function `id` once its first byte says so.
/// `None` where the trampoline is out of reach.
pub(crate) fn dead_bytes(
    kind: SledKind,
    code: usize,
    id: u32,
    way: Way,
) -> Option<(usize, [u8; 9])> {
    let jump = if kind == SledKind::Exit { 0xe9 } else { 0xe8 };
    let distance = way.to(kind).wrapping_sub(code + 10).cast_signed();
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    let [i, j, k, 0] = id.to_le_bytes() else { return None };
    Some(match kind {
        SledKind::Exit => (1, [0x09, i, j, k, jump, a, b, c, d]),
        _ => (2, [i, j, k, jump, a, b, c, d, 0x90]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_and_off_differ_in_one_byte() {
        let off_entry = [0xeb, 0x09, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 2, 0, 0];
        let off_exit = [0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 2, 0, 0];
        for (kind, plain) in
            [(SledKind::Entry, off_entry), (SledKind::Tail, off_entry), (SledKind::Exit, off_exit)]
        {
            assert!(is_sled(kind, &plain));
            let near = gp1_function_exit as *const () as usize + 4096;
            let (at, dead) = dead_bytes(kind, near, 0x0012_3456, Way::Direct).expect("in reach");
            let mut bytes = plain;
            bytes[at..at + 9].copy_from_slice(&dead);
            assert_eq!(bytes[0], off(kind), "what was written is dead while the sled is off");
            assert_eq!(bytes[..5], [off(kind), 0x09, 0x56, 0x34, 0x12]);
            assert!(is_sled(kind, &bytes));
            bytes[0] = on();
            assert!(is_sled(kind, &bytes));
            assert!(dead_bytes(kind, near, MOST_IDS, Way::Direct).is_none());
            let far = near.wrapping_add(1 << 40);
            assert!(dead_bytes(kind, far, 1, Way::Direct).is_none());
            let (_, stepped) = dead_bytes(kind, far, 1, Way::Island(far)).expect("in reach");
            assert_ne!(stepped, dead);
        }
        assert!(!is_sled(SledKind::Entry, &[0x41, 0xba, 1, 0, 0, 0, 0xe8, 0, 0, 0, 0]));
    }

    #[test]
    fn the_error_number_lies_at_the_same_distance_in_all_threads() {
        let here = errno_distance();
        for _ in 0..3 {
            assert_eq!(std::thread::spawn(errno_distance).join().expect("well"), here);
        }
    }

    #[test]
    fn apart_hands_over_and_back() {
        prepare();
        let number = std::hint::black_box(41_u64);
        assert_eq!(apart(|| number + 1), 42);
    }
}
