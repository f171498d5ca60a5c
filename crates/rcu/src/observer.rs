//! What a domain tells about its grace periods and callbacks, to whoever wants to know.
//!
//! The engine cannot use tracepoints, whose probes are freed by grace periods. So it calls an
//! [`Observer`], and pays for one load when there is none. Events are told outside of the engine's
//! locks, with two exceptions that are documented: what a callback did is told before the next one
//! runs.

use crate::running::RunningCallback;
use crate::stall::Stall;
use crate::sync::unexplored::{AtomicPtr, AtomicUsize};
use crate::sync::{Ordering, constant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

/// Something that happened in a domain. More kinds may come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A grace period has begun.
    #[non_exhaustive]
    GracePeriodBegan {
        /// Counts the grace periods of this domain's memory, from 1.
        number: u64,
    },
    /// A grace period has ended.
    #[non_exhaustive]
    GracePeriodEnded {
        /// The number that it began with.
        number: u64,
        /// Since it began. (If nobody observed then, to within a few milliseconds.)
        duration: Duration,
        /// How often it took a barrier on all running threads (`membarrier`).
        heavy_barriers: u64,
    },
    /// Callbacks have run, one after the other, on this thread.
    #[non_exhaustive]
    CallbacksRan {
        /// How many.
        count: usize,
        /// All of them together.
        duration: Duration,
    },
    /// A callback has panicked, and was caught.
    #[non_exhaustive]
    CallbackPanicked {
        /// What it panicked with, if that was text.
        message: &'e str,
    },
    /// A grace period does not end. Told where and as often as the hook of [`Domain::on_stall`](crate::Domain::on_stall)
    /// is called, whether there is a hook or not: when it is older than
    /// [`stalled_after`](crate::Domain::stalled_after), and again each time it is twice as old.
    #[non_exhaustive]
    GracePeriodStalled {
        /// Who waits, for what, and who holds it up.
        stall: &'e Stall,
    },
    /// A callback does not return. Told where and as often as the hook of
    /// [`Domain::on_callback_stall`](crate::Domain::on_callback_stall) is called, whether there is a hook or not.
    #[non_exhaustive]
    CallbackStalled {
        /// Which, where it runs, and what waits behind it.
        running: &'e RunningCallback,
    },
}

/// Is told what happens in a domain; see [`Domain::observe`](crate::Domain::observe).
///
/// It is called on the thread on which it happens, which is any that drives or waits, and must be
/// quick: a callback's events are told while other callbacks wait, the others outside of all locks.
/// Grace periods of two drivers may be told out of order (they have numbers). It may use
/// the domain (read, call, poll) but must not wait for it. If it panics, that is caught.
///
/// ```
/// use gracepoint_rcu::{Domain, Event, Observer};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// struct Longest(AtomicU64);
///
/// impl Observer for Longest {
///     fn event(&self, _domain: &str, event: &Event<'_>) {
///         if let Event::GracePeriodEnded { duration, .. } = event {
///             self.0.fetch_max(duration.as_nanos() as u64, Ordering::Relaxed);
///         }
///     }
/// }
///
/// static LONGEST: Longest = Longest(AtomicU64::new(0));
/// static DOMAIN: Domain = Domain::new("doc");
/// DOMAIN.observe(&LONGEST);
/// DOMAIN.synchronize().expect("not inside a section");
/// assert_ne!(LONGEST.0.load(Ordering::Relaxed), 0);
/// ```
pub trait Observer: Send + Sync {
    /// Something happened in the domain of that name.
    fn event(&self, domain: &str, event: &Event<'_>);
}

/// The observer of one domain, and the domain's name.
#[derive(Debug)]
pub(crate) struct Observed {
    observer: AtomicPtr<&'static dyn Observer>,
    /// The two halves of a `&'static str`; written only while nobody else has the domain.
    name: (AtomicPtr<u8>, AtomicUsize),
}

impl Observed {
    /// Where the two halves of the name are, for `mirror`.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 2] =
        [std::mem::offset_of!(Observed, name.0), std::mem::offset_of!(Observed, name.1)];

    constant! {
        pub(crate) fn new() -> Self {
            Self {
                observer: AtomicPtr::new(ptr::null_mut()),
                name: (AtomicPtr::new(ptr::null_mut()), AtomicUsize::new(0)),
            }
        }
    }

    /// Whether somebody wants to know.
    pub(crate) fn is_on(&self) -> bool {
        !self.observer.load(Ordering::Relaxed).is_null()
    }

    /// For a domain that is being made: nobody else may have it.
    pub(crate) fn set_name(&self, name: &'static str) {
        self.name.0.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        self.name.1.store(name.len(), Ordering::Relaxed);
    }

    /// The domain's name.
    pub(crate) fn name(&self) -> &'static str {
        let (start, len) = (&self.name.0, &self.name.1);
        let start = start.load(Ordering::Relaxed);
        if start.is_null() {
            return "";
        }
        // SAFETY: both halves of one `&'static str`: `set_name` alone writes them, and only before
        // the domain is published, by which its users see both.
        unsafe {
            let bytes = std::slice::from_raw_parts(start, len.load(Ordering::Relaxed));
            std::str::from_utf8_unchecked(bytes)
        }
    }

    /// From now on tells `observer`. What is told to the one before may still be under way.
    pub(crate) fn set(&self, observer: &'static dyn Observer) {
        let observer = Box::into_raw(Box::new(observer));
        // Release: pairs with the acquire in `tell`. The one before is kept, two words, because
        // somebody may be telling it something.
        self.observer.store(observer, Ordering::Release);
    }

    /// Forgets the observer: for a domain that is being dropped, which nobody else can reach.
    pub(crate) fn clear(&self) {
        let observer = self.observer.swap(ptr::null_mut(), Ordering::Acquire);
        if !observer.is_null() {
            // SAFETY: from `Box::into_raw` in `set`; nobody else can reach the domain.
            drop(unsafe { Box::from_raw(observer) });
        }
    }

    /// Tells the observer, if there is one.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        // Acquire: pairs with the release in `set`.
        let observer = self.observer.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw` in `set`, and freed only when nobody can
        // reach the domain.
        if let Some(observer) = unsafe { observer.as_ref() } {
            // What it panicked with is leaked: dropping it may panic again.
            if let Err(payload) =
                catch_unwind(AssertUnwindSafe(|| observer.event(self.name(), event)))
            {
                let _ = std::mem::ManuallyDrop::new(payload);
            }
        }
    }
}
