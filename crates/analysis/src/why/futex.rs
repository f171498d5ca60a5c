//! Who has the lock behind a futex, where that can be read.
//!
//! | lock | what its memory says |
//! |---|---|
//! | priority-inheritance futex | the kernel itself keeps the owner's number in the word |
//! | pthread mutex of glibc | the owner's number, 8 bytes behind the word |
//! | `pthread_join`, `JoinHandle::join` | the word is the number of the thread that is waited for |
//! | two priority-inheritance mutexes of glibc in a circle | the kernel refuses the second; glibc then sleeps for ever on a word of the thread's own stack |
//! | std's `Mutex`, `RwLock`, `Condvar`, `Once`, channels | nothing of an owner |
//! | parking_lot | the thread's own parker: the lock is not even named |
//!
//! Where it says nothing the owner is unknown. Nothing is guessed from who else is about.

use super::memory::Memory;
use crate::stuck::Frame;

/// A futex that a thread sleeps on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Futex {
    /// Where its word is.
    pub address: u64,
    /// What kind of lock it belongs to, as far as the stack says.
    pub kind: &'static str,
    /// The thread that has it, or that is waited for.
    pub owner: Option<u32>,
    /// The owner is who has to end, and not who has a lock.
    pub joined: bool,
}

const WAITERS_AND_DIED: u32 = 0xc000_0000;
/// Of the operation: neither private nor on which clock.
const OPERATION: u64 = 0x7f;
const LOCK_PI: u64 = 6;
const LOCK_PI2: u64 = 13;

/// The futex of a thread that is in the system call, by the call's arguments, where its stack ends (`sp`), and its
/// calls.
pub fn futex(
    memory: &impl Memory,
    arguments: [u64; 6],
    sp: u64,
    stack: &[Frame],
    is_thread: impl Fn(u32) -> bool,
) -> Futex {
    let (address, operation) = (arguments[0], arguments[1] & OPERATION);
    let word = memory.half(address);
    let kind = kind(stack);
    let mut futex = Futex { address, kind, owner: None, joined: false };
    if operation == LOCK_PI || operation == LOCK_PI2 {
        futex.kind = INHERITING;
        futex.owner = word.map(|word| word & !WAITERS_AND_DIED).filter(|tid| is_thread(*tid));
    } else if kind == PTHREAD {
        // `__lock` is followed by `__count` and `__owner`.
        futex.owner = memory.half(address.wrapping_add(8)).filter(|tid| is_thread(*tid));
    } else if kind == JOIN {
        futex.owner = word.filter(|tid| is_thread(*tid));
        futex.joined = futex.owner.is_some();
    } else if kind == UNKNOWN && address.checked_sub(sp).is_some_and(|above| above < NEAR) {
        futex.kind = OWN_STACK;
    }
    futex
}

impl Futex {
    /// Is it one that somebody has, whoever that is?
    pub(super) fn is_lock(&self) -> bool {
        let locks =
            [PTHREAD, INHERITING, STD_MUTEX, STD_RWLOCK, PARKING_LOT_MUTEX, PARKING_LOT_RWLOCK];
        locks.contains(&self.kind)
    }

    /// Is the word one that nobody else can know?
    pub(super) fn is_on_own_stack(&self) -> bool {
        self.kind == OWN_STACK
    }

    /// Is the address that of the thread's own parker, and not of the lock?
    pub(super) fn is_own_parker(&self) -> bool {
        [PARKING_LOT_MUTEX, PARKING_LOT_RWLOCK].contains(&self.kind)
    }
}

/// So far above the end of a stack are variables of the functions that sleep.
const NEAR: u64 = 512;
const UNKNOWN: &str = "futex";
const OWN_STACK: &str = "word on its own stack";
const PTHREAD: &str = "pthread mutex";
const INHERITING: &str = "priority-inheritance mutex";
const STD_MUTEX: &str = "Mutex of std";
const STD_RWLOCK: &str = "RwLock of std";
const PARKING_LOT_MUTEX: &str = "Mutex of parking_lot";
const PARKING_LOT_RWLOCK: &str = "RwLock of parking_lot";
const JOIN: &str = "end of a thread";

/// By the innermost function that tells.
fn kind(stack: &[Frame]) -> &'static str {
    const KINDS: &[(&str, &str)] = &[
        ("lll_lock_wait", PTHREAD),
        ("pthread_mutex_lock", PTHREAD),
        ("pthread_join", JOIN),
        ("pthread_clockjoin", JOIN),
        ("pthread_timedjoin", JOIN),
        ("thread::unix::Thread::join", JOIN),
        ("pthread_cond_", "pthread condition variable"),
        ("parking_lot::raw_mutex", PARKING_LOT_MUTEX),
        ("parking_lot::raw_rwlock", PARKING_LOT_RWLOCK),
        ("parking_lot", "parking_lot"),
        ("mutex::futex::Mutex::lock", STD_MUTEX),
        ("rwlock::futex::RwLock", STD_RWLOCK),
        ("condvar::futex", "Condvar of std"),
        ("once::futex", "Once of std"),
        ("mpmc", "channel of std"),
        ("thread_parking::futex", "parked thread"),
        ("thread::park", "parked thread"),
    ];
    // The parker is what most others of std rest on: what is further out says more.
    let found = stack.iter().take(16).filter_map(|frame| {
        // `<path::Type>::method` and `path::Type::method` are the same.
        let function = frame.function.replace(['<', '>'], "");
        KINDS.iter().find(|(part, _)| function.contains(part)).map(|(_, kind)| *kind)
    });
    let mut best = UNKNOWN;
    for kind in found {
        if [UNKNOWN, "parked thread", "parking_lot"].contains(&best) {
            best = kind;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::memory::Mapping;
    use super::*;

    const SP: u64 = 1 << 32;

    struct Words(Vec<u8>);

    impl Memory for Words {
        fn read_some(&self, address: u64, into: &mut [u8]) -> usize {
            let from = self.0.get(address as usize..).unwrap_or_default();
            let len = from.len().min(into.len());
            into[..len].copy_from_slice(&from[..len]);
            len
        }

        fn mappings(&self) -> &[Mapping] {
            &[]
        }

        fn now(&self) -> Option<u64> {
            None
        }
    }

    fn frames(functions: &[&str]) -> Vec<Frame> {
        let frame =
            |function: &&str| Frame { function: (*function).to_owned(), ..Frame::default() };
        functions.iter().map(frame).collect()
    }

    #[test]
    fn owners_are_read_where_there_are_some_and_never_guessed() {
        // A word with the flag for waiters, a count, an owner.
        let words =
            Words([0x8000_0007_u32, 1, 8, 0].iter().flat_map(|w| w.to_le_bytes()).collect());
        let known = |tid: u32| tid == 7 || tid == 8;
        let pi = futex(&words, [0, 6 | 128, 0, 0, 0, 0], SP, &[], known);
        assert_eq!((pi.owner, pi.kind), (Some(7), "priority-inheritance mutex"));
        let wait = [0, 128, 2, 0, 0, 0];
        let pthread = futex(&words, wait, SP, &frames(&["syscall", "__GI___lll_lock_wait"]), known);
        assert_eq!(pthread.owner, Some(8));
        assert_eq!(
            futex(&words, wait, SP, &frames(&["__GI___lll_lock_wait"]), |_| false).owner,
            None
        );
        let std = frames(&["syscall", "<std::sys::sync::mutex::futex::Mutex>::lock_contended"]);
        let std = futex(&words, wait, SP, &std, known);
        assert_eq!((std.owner, std.kind), (None, "Mutex of std"));
        assert_eq!(futex(&words, wait, SP, &[], known).kind, "futex");
        let gone = futex(&words, [1 << 40, 6, 0, 0, 0, 0], SP, &[], known);
        assert_eq!(gone.owner, None);
    }

    #[test]
    fn what_a_lock_is_made_of_says_less_than_the_lock() {
        let words = Words(Vec::new());
        let kind = |functions: &[&str]| {
            futex(&words, [0, 128, 2, 0, 0, 0], SP, &frames(functions), |_| false).kind
        };
        let parker = "<parking_lot_core::thread_parker::imp::ThreadParker as ThreadParkerT>::park";
        let lock = "<parking_lot::raw_mutex::RawMutex>::lock_slow";
        assert_eq!(kind(&["syscall", parker, lock]), "Mutex of parking_lot");
        assert_eq!(kind(&["syscall", parker]), "parking_lot");
        let receive = "std::sync::mpmc::list::Channel<T>::recv";
        let parked = ["syscall", "std::sys::sync::thread_parking::futex::Parker::park", receive];
        assert_eq!(kind(&parked), "channel of std");
        // A word that only its own thread can know.
        let at = |address, functions: &[&str]| {
            futex(&words, [address, 128, 0, 0, 0, 0], SP, &frames(functions), |_| false).kind
        };
        assert_eq!(at(SP + 4, &[]), "word on its own stack");
        assert_eq!((at(SP - 4, &[]), at(SP + 512, &[])), ("futex", "futex"));
        assert_eq!(at(SP + 4, &[lock]), "Mutex of parking_lot");
    }
}
