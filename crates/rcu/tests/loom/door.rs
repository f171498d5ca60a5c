//! Loom's side of the door: `crate::sync`, `crate::arch`, `crate::barrier` and `crate::clock` for files that ship.
//!
//! What a twin weakens inside of those is weakened here, by switches that are this thread's: loom runs all threads of a
//! program on the one that called it.

pub(crate) mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    pub(crate) use loom::thread::yield_now;
    use std::cell::{Cell, RefCell};

    thread_local! {
        /// Whether there are fences.
        pub(crate) static FENCES: Cell<bool> = const { Cell::new(true) };
        /// Whether loads of `AtomicU64`s acquire if they say so.
        pub(crate) static ACQUIRES: Cell<bool> = const { Cell::new(true) };
        /// From which values exchanges of `AtomicU64`s release if they say so.
        pub(crate) static RELEASES_FROM: Cell<fn(u64) -> bool> = const { Cell::new(|_| true) };
        /// The places of a block whose end is explored.
        pub(crate) static PLACES: RefCell<Option<Places>> = const { RefCell::new(None) };
        pub(crate) static ENDED: Cell<u32> = const { Cell::new(0) };
    }

    /// Stands for a block's memory: using a place reads it, the block's end writes it.
    pub(crate) type Places = std::sync::Arc<loom::cell::UnsafeCell<()>>;

    pub(crate) fn block_ends() {
        ENDED.set(ENDED.get() + 1);
        let places = PLACES.with_borrow(Clone::clone);
        places.expect("a program of blocks").with_mut(|_| ());
    }

    pub(crate) fn fence(order: Ordering) {
        if FENCES.get() {
            loom::sync::atomic::fence(order);
        }
    }

    pub(crate) mod unexplored {
        pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
    }

    macro_rules! constant {
        ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
            $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
        };
    }
    pub(crate) use constant;

    /// Loom's, with loads and exchanges that a twin can weaken.
    #[derive(Debug)]
    pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(loom::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            self.0.load(if ACQUIRES.get() { order } else { Ordering::Relaxed })
        }

        pub(crate) fn compare_exchange(
            &self,
            from: u64,
            to: u64,
            order: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            let order = if RELEASES_FROM.get()(from) { order } else { Ordering::Relaxed };
            self.0.compare_exchange(from, to, order, failure)
        }
    }

    impl std::ops::Deref for AtomicU64 {
        type Target = loom::sync::atomic::AtomicU64;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    #[derive(Debug)]
    pub(crate) struct Guarded<T>(loom::cell::UnsafeCell<T>);

    impl<T> Guarded<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            self.0.with_mut(f)
        }
    }
}

pub(crate) mod arch {
    use super::sync::{AtomicU64, Ordering};
    use crate::blocks::Shelf;

    /// Nobody has an index.
    pub(crate) fn slot_word() -> usize {
        0
    }

    /// No thread has one, so callbacks are boxed: blocks are explored by themselves.
    pub(crate) fn with_shelf<R>(_: impl FnOnce(&Shelf) -> R) -> Option<R> {
        None
    }

    pub(crate) fn prefetch(_: std::mem::MaybeUninit<*const u8>) {}

    thread_local! {
        /// Whether the end of a section is counted with release.
        pub(crate) static RELEASES: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
    }

    pub(crate) fn increment_release(counter: &AtomicU64) {
        counter.fetch_add(1, if RELEASES.get() { Ordering::Release } else { Ordering::Relaxed });
    }

    pub(crate) fn increment(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) mod barrier {
    use super::sync::{Ordering, fence};
    use std::cell::Cell;

    thread_local! {
        /// Whether readers have barriers.
        pub(crate) static LIGHT: Cell<bool> = const { Cell::new(true) };
    }

    pub(crate) fn light() {
        if LIGHT.get() {
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn either() {
        light();
    }
}

/// Time stands still.
pub(crate) mod clock {
    pub(crate) fn now() -> u64 {
        1
    }

    pub(crate) fn coarse() -> u64 {
        1
    }
}

/// What an observer may be told of; nobody tells it here.
pub(crate) mod stall {
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct Stall;
}

/// As `stall`.
pub(crate) mod running {
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct RunningCallback;
}
