//! What is known of the thread that has an index: a few words that are read while they may be written.
//!
//! A sequence lock that nobody waits for. `version` is made odd in a sense ([`CHANGING`]) before the fields are written,
//! and gets another number by that; it is read before and after them. Two pairs make that right:
//!
//! * *before:* the version that ends a change is stored with release and loaded with acquire, so who has seen it reads
//!   nothing older than that change's fields;
//! * *after:* between the store of the changing version and those of the fields is a release fence, and between the loads of the
//!   fields and the second one of the version an acquire fence, so who has read a field of a later change sees that the
//!   version is another.
//!
//! Without any of the four a name is told in halves of two threads' (twins in `tests/loom/orderings.rs`).

use crate::sync::{AtomicU32, AtomicU64, Ordering, constant, fence};
use crate::system::NAME_LEN;

pub(crate) const FREE: u32 = 0;
pub(crate) const LIVE: u32 = 1;
/// The thread ended inside a section.
pub(crate) const ENDED: u32 = 2;
/// Being written.
pub(crate) const CHANGING: u32 = 3;
const STATE: u32 = 3;

/// See the module's text. All zero is a free one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Known {
    /// Low two bits the state, the rest counts changes.
    pub(crate) version: AtomicU32,
    pub(crate) tid: AtomicU32,
    pub(crate) name: [AtomicU64; 2],
}

/// What belongs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) version: u32,
    pub(crate) tid: u32,
    pub(crate) name: [u8; NAME_LEN],
    pub(crate) ended: bool,
}

impl Known {
    constant! {
        #[allow(dead_code, reason = "for tests/loom/orderings.rs: elsewhere memory comes zeroed")]
        pub(crate) fn new() -> Self {
            Self {
                version: AtomicU32::new(0),
                tid: AtomicU32::new(0),
                name: [AtomicU64::new(0), AtomicU64::new(0)],
            }
        }
    }

    /// The state that it is in now.
    pub(crate) fn state(&self) -> u32 {
        self.version.load(Ordering::Relaxed) & STATE
    }

    /// Somebody who is not the owner changes it from version `from` to `state`, with another name if there is one,
    /// unless it is changed by another in between. (If the index changes hands just while this
    /// writes a name, the new owner shows that name until the next refresh.)
    pub(crate) fn amend(&self, from: u32, state: u32, name: Option<[u8; NAME_LEN]>) -> bool {
        let busy = (from | STATE).wrapping_add(STATE + 1);
        // Relaxed: the fence behind it is what orders it.
        if self.version.compare_exchange(from, busy, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return false;
        }
        // Pairs with the fence in `read`, as in `occupy`.
        fence(Ordering::Release);
        if let Some(name) = name {
            self.set_name(name);
        }
        // Not a store: the owner may have ended, and its index gone on, meanwhile.
        let done = (busy & !STATE) | state;
        self.version.compare_exchange(busy, done, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// The owner ends a change, or its ownership.
    pub(crate) fn end(&self, state: u32) {
        let version = self.version.load(Ordering::Relaxed);
        // Release: pairs with the acquire in `read`.
        self.version.store((version & !STATE) | state, Ordering::Release);
    }

    fn set_name(&self, name: [u8; NAME_LEN]) {
        let (low, high) = name.split_at(8);
        for (word, bytes) in self.name.iter().zip([low, high]) {
            let bytes = bytes.try_into().unwrap_or([0; 8]);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// The owner fills it in. Nobody else writes that of an index that was just taken,
    /// but a change by `refresh_names` may be under way; its outcome is overwritten.
    pub(crate) fn occupy(&self, tid: u32, name: [u8; NAME_LEN]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store((version | STATE).wrapping_add(STATE + 1), Ordering::Relaxed);
        // Pairs with the fence in `read`: the version is seen to change before the fields.
        fence(Ordering::Release);
        self.tid.store(tid, Ordering::Relaxed);
        self.set_name(name);
        self.end(LIVE);
    }

    /// What is in it, if it belongs together. A few tries, never a wait: the
    /// writer may be the code that this (a signal handler) interrupted.
    pub(crate) fn read(&self) -> Option<Read> {
        for _ in 0..3 {
            // Acquire: pairs with the releases in `end` and `amend`.
            let version = self.version.load(Ordering::Acquire);
            let state = version & STATE;
            if state == FREE {
                return None;
            }
            let tid = self.tid.load(Ordering::Relaxed);
            let mut name = [0; NAME_LEN];
            for (bytes, word) in name.chunks_exact_mut(8).zip(&self.name) {
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
            // Pairs with the release fences in `occupy` and `amend`: fields of a later change imply
            // that its version is seen.
            fence(Ordering::Acquire);
            if state != CHANGING && self.version.load(Ordering::Relaxed) == version {
                return Some(Read { version, tid, name, ended: state == ENDED });
            }
        }
        None
    }
}
