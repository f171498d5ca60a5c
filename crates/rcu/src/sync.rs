//! The one door to atomics, fences and shared cells.
//!
//! The files that hold the algorithm (`counters`, `grace`, `trylock`, `blocks`, `callbacks`,
//! `engine`, and the small protocols beside it: `fast`, `jobs`, `marker`, `record`, `wakers`) name nothing but
//! `crate::sync`, `crate::arch` and `crate::barrier`.
//! `tests/loom.rs` compiles those same files a second time with doors of its own made
//! of loom's types, so that what is explored is the text that ships and not a copy.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence, fence,
};

/// Atomics of numbers and settings on which the algorithm does not rest. Here they are the same; loom's
/// twin of this explores them only in programs that are about them: others would take hours.
pub(crate) mod unexplored {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
}

/// Lets other threads run, in a loop that waits for one of them.
pub(crate) fn yield_now() {
    std::thread::yield_now();
}

/// A block of callbacks is about to be freed. Loom's twin of this checks that nobody uses it.
pub(crate) fn block_ends() {}

/// Declares a function that is `const` here and not under loom, whose atomics have no
/// const constructors.
macro_rules! constant {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use constant;

/// A cell whose accesses are ordered by a lock elsewhere. Loom's twin of it checks that
/// they are.
#[derive(Debug)]
pub(crate) struct Guarded<T>(std::cell::UnsafeCell<T>);

impl<T> Guarded<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Gives `f` the address of the value. Turning it into a reference is the caller's
    /// claim that nobody else has one.
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
