//! Loom's side of the door: `crate::sync`, `crate::arch`, `crate::barrier` and `crate::clock` for files that ship.
//!
//! What a twin weakens inside of those is weakened here, by switches that are this thread's: loom runs all threads of a
//! program on the one that called it.

/// A line of the table of twins: what was broken, and what was found. Past the test's capture, so that it is there when
/// all is well.
pub(crate) fn tell_of_twin(twin: &str, found: &str) {
    use std::io::Write as _;
    let found = found.lines().next().unwrap_or_default();
    let line = format!("{twin:<64} → {found}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("a place to write to");
}

pub(crate) mod sync {
    use super::weaken::{self, is_left_out, weaken};
    pub(crate) use loom::sync::atomic::Ordering;
    pub(crate) use loom::thread::yield_now;
    use std::cell::{Cell, RefCell};
    use std::sync::{LockResult, TryLockError, TryLockResult};

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

    #[track_caller]
    pub(crate) fn fence(order: Ordering) {
        if FENCES.get() && !is_left_out() {
            loom::sync::atomic::fence(order);
        }
    }

    macro_rules! constant {
        ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
            $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
        };
    }
    pub(crate) use constant;

    fn load_order(order: Ordering, is_u64: bool) -> Ordering {
        if is_u64 && !ACQUIRES.get() { Ordering::Relaxed } else { order }
    }

    /// Loom's atomic, or the standard one where it is not explored; their accesses can be weakened.
    macro_rules! atomic {
        (@method $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty) => {
            #[track_caller]
            pub(crate) fn $name(&self, $($arg: $ty,)* order: Ordering) -> $ret {
                let order = weaken(order);
                match self {
                    Self::Explored(atomic) => atomic.$name($($arg,)* order),
                    Self::Plain(atomic) => atomic.$name($($arg,)* order),
                }
            }
        };
        (@exchange $name:ident, $value:ty, $number:expr, $weak:expr) => {
            #[track_caller]
            pub(crate) fn $name(
                &self,
                from: $value,
                to: $value,
                order: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let number: Option<fn($value) -> u64> = $number;
                let releases = number.is_none_or(|number| RELEASES_FROM.get()(number(from)));
                let order = if releases { weaken(order) } else { Ordering::Relaxed };
                // One that fails need not have read the newest value, as loom's has. (A loop has time for that.)
                if !$weak && weaken::STALE_FAILURES.get() {
                    let now = match self {
                        Self::Explored(atomic) => atomic.load(failure),
                        Self::Plain(atomic) => atomic.load(failure),
                    };
                    if now != from {
                        return Err(now);
                    }
                }
                match self {
                    Self::Explored(atomic) => atomic.$name(from, to, order, failure),
                    Self::Plain(atomic) => atomic.$name(from, to, order, failure),
                }
            }
        };
        ($name:ident $(<$t:ident>)?, $std:ident, $value:ty, $explored:expr, $number:expr, $(($method:ident($($arg:ident: $ty:ty),*) -> $ret:ty))*) => {
            pub(crate) enum $name $(<$t>)? {
                Explored(loom::sync::atomic::$std $(<$t>)?),
                Plain(std::sync::atomic::$std $(<$t>)?),
            }

            impl $(<$t>)? std::fmt::Debug for $name $(<$t>)? {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(stringify!($name))
                }
            }

            #[allow(dead_code, reason = "each file uses a part")]
            impl $(<$t>)? $name $(<$t>)? {
                pub(crate) fn new(value: $value) -> Self {
                    if $explored {
                        Self::Explored(loom::sync::atomic::$std::new(value))
                    } else {
                        Self::Plain(std::sync::atomic::$std::new(value))
                    }
                }

                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    let number: Option<fn($value) -> u64> = $number;
                    let order = load_order(weaken(order), number.is_some());
                    match self {
                        Self::Explored(atomic) => atomic.load(order),
                        Self::Plain(atomic) => atomic.load(order),
                    }
                }

                atomic!(@method store(value: $value) -> ());
                atomic!(@method swap(value: $value) -> $value);
                $(atomic!(@method $method($($arg: $ty),*) -> $ret);)*
                atomic!(@exchange compare_exchange, $value, $number, false);
                atomic!(@exchange compare_exchange_weak, $value, $number, true);
            }
        };
    }

    macro_rules! all_atomics {
        ($explored:expr) => {
            atomic!(AtomicBool, AtomicBool, bool, $explored, None,);
            atomic!(AtomicPtr<T>, AtomicPtr, *mut T, $explored, None,);
            atomic!(AtomicU32, AtomicU32, u32, $explored, None,);
            atomic!(AtomicUsize, AtomicUsize, usize, $explored, None,
                (fetch_add(value: usize) -> usize)
                (fetch_sub(value: usize) -> usize));
            atomic!(AtomicU64, AtomicU64, u64, $explored, Some(|number| number),
                (fetch_add(value: u64) -> u64)
                (fetch_max(value: u64) -> u64)
                (fetch_and(value: u64) -> u64)
                (fetch_or(value: u64) -> u64));
        };
    }

    all_atomics!(true);

    pub(crate) mod unexplored {
        //! Explored only in programs that are about them.

        use super::{Ordering, RELEASES_FROM, load_order, weaken};

        all_atomics!(weaken::EVERYTHING.get());
    }

    /// Loom's own is never found taken: it switches threads nowhere between taking and giving back.
    #[derive(Debug)]
    pub(crate) struct Mutex<T> {
        taken: loom::sync::atomic::AtomicBool,
        value: loom::cell::UnsafeCell<T>,
    }

    // SAFETY: as of the standard one: `taken` lets one thread at the value, and loom checks it.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            let taken = loom::sync::atomic::AtomicBool::new(false);
            Self { taken, value: loom::cell::UnsafeCell::new(value) }
        }

        pub(crate) fn try_lock(&self) -> TryLockResult<Locked<'_, T>> {
            let order = (Ordering::Acquire, Ordering::Relaxed);
            match self.taken.compare_exchange(false, true, order.0, order.1) {
                Ok(_) => Ok(Locked(self)),
                Err(_) => Err(TryLockError::WouldBlock),
            }
        }

        pub(crate) fn lock(&self) -> LockResult<Locked<'_, T>> {
            loop {
                match self.try_lock() {
                    Ok(locked) => return Ok(locked),
                    Err(_) => yield_now(),
                }
            }
        }
    }

    #[derive(Debug)]
    pub(crate) struct Locked<'m, T>(&'m Mutex<T>);

    impl<T> std::ops::Deref for Locked<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: taken by this, until it is dropped.
            self.0.value.with(|value| unsafe { &*value })
        }
    }

    impl<T> std::ops::DerefMut for Locked<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above, and this is borrowed by nobody else.
            self.0.value.with_mut(|value| unsafe { &mut *value })
        }
    }

    impl<T> Drop for Locked<'_, T> {
        fn drop(&mut self) {
            self.0.taken.store(false, Ordering::Release);
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

/// Twins that lack one ordering: an access, by the line of a file that ships, which then is weaker than it says.
pub(crate) mod weaken {
    use loom::sync::atomic::Ordering;
    use std::cell::Cell;
    use std::panic::Location;

    /// What an access loses.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Loses {
        Acquire,
        Release,
        /// A fence: all of it.
        Fence,
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Access {
        /// The end of its path.
        pub(crate) file: &'static str,
        pub(crate) line: u32,
        pub(crate) loses: Loses,
    }

    thread_local! {
        pub(crate) static ACCESS: Cell<Option<Access>> = const { Cell::new(None) };
        /// How often it was made.
        pub(crate) static MADE: Cell<u64> = const { Cell::new(0) };
        /// Whether the program explores what is unexplored in others.
        pub(crate) static EVERYTHING: Cell<bool> = const { Cell::new(false) };
        /// Whether exchanges that fail may have read an older value.
        pub(crate) static STALE_FAILURES: Cell<bool> = const { Cell::new(false) };
    }

    /// What the caller's caller's access loses, if it is the one.
    #[track_caller]
    fn loses() -> Option<Loses> {
        let Access { file, line, loses } = ACCESS.get()?;
        let at = Location::caller();
        if at.line() != line || !at.file().ends_with(file) {
            return None;
        }
        MADE.set(MADE.get() + 1);
        Some(loses)
    }

    #[track_caller]
    pub(crate) fn is_left_out() -> bool {
        loses() == Some(Loses::Fence)
    }

    #[track_caller]
    pub(crate) fn weaken(order: Ordering) -> Ordering {
        match (order, loses()) {
            (Ordering::AcqRel, Some(Loses::Acquire)) => Ordering::Release,
            (Ordering::AcqRel, Some(Loses::Release)) => Ordering::Acquire,
            (Ordering::Acquire, Some(Loses::Acquire))
            | (Ordering::Release, Some(Loses::Release)) => Ordering::Relaxed,
            (order, _) => order,
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

    #[track_caller]
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

/// Time stands still, unless a program wants each look at the clock to tell another time.
pub(crate) mod clock {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static NOW: Cell<u64> = const { Cell::new(1) };
        pub(crate) static TICK: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn now() -> u64 {
        NOW.set(NOW.get() + TICK.get());
        NOW.get()
    }

    pub(crate) fn coarse() -> u64 {
        now()
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

/// What is known of a thread.
pub(crate) mod system {
    pub(crate) const NAME_LEN: usize = 16;
}
