//! The last callback that a task waits for, and the task's waker.
//!
//! As in `wakers`, the task puts its waker there and *then* looks again whether the marker was reached; who reaches it
//! says so and *then* looks for a waker; and between its two steps each has a SeqCst fence. The lock of the waker would
//! be order enough, were it waited for. But that could be for ever, in a forked child that does not have its owner. So
//! the callback only tries, and if it finds the lock taken, its owner sees afterwards that the marker was reached.
//! (Twins in `tests/loom/orderings.rs`.)

use crate::sync::{AtomicBool, Mutex, Ordering, constant, fence};
use std::sync::{PoisonError, TryLockError};
use std::task::Waker;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Marker {
    reached: AtomicBool,
    /// `None` once reached, or nobody waits. Locked for moments.
    waker: Mutex<Option<Waker>>,
}

impl Marker {
    constant! {
        pub(crate) fn new() -> Self {
            Self { reached: AtomicBool::new(false), waker: Mutex::new(None) }
        }
    }

    /// Whether the callbacks have run. If so, what they did is seen.
    pub(crate) fn is_reached(&self) -> bool {
        // Acquire: pairs with the release in `reach`.
        self.reached.load(Ordering::Acquire)
    }

    /// Puts a waker there, or takes it away. Then the caller looks again whether the marker was reached.
    pub(crate) fn waits(&self, waker: Option<Waker>) {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *place, waker);
        drop(place);
        drop(old);
        // Pairs with the fence in `reach`.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn reach(&self) {
        // Release: pairs with the acquire in `is_reached`; what the callbacks did is seen after.
        self.reached.store(true, Ordering::Release);
        // Pairs with the fence in `waits`: if the lock is found taken, its owner sees `reached` afterwards.
        fence(Ordering::SeqCst);
        let waker = match self.waker.try_lock() {
            Ok(mut place) => place.take(),
            Err(TryLockError::Poisoned(place)) => place.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
