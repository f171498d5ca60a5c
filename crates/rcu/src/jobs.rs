//! Jobs that were handed to somebody's executor, against the end of their domain.
//!
//! A job may come at any time: after its domain was dropped, and after its region went to another. So it counts itself
//! in, and then looks whether the generation is the one that it was made in; who ends the domain begins another
//! generation, and then waits until nobody is inside. Between its two steps each has a SeqCst fence, so at least one
//! sees the other: a job that is inside is waited for, or it does nothing. That it has left is counted with release,
//! which the wait acquires: what the job did comes before what follows. (Twins in `tests/loom/orderings.rs`.)

use crate::sync::{AtomicU64, AtomicUsize, Ordering, constant, fence};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Jobs {
    generation: AtomicU64,
    inside: AtomicUsize,
}

impl Jobs {
    constant! {
        pub(crate) fn new() -> Self {
            Self { generation: AtomicU64::new(0), inside: AtomicUsize::new(0) }
        }
    }

    /// What a job that is made now is given. Relaxed: it is made by who serves the domain, which ends after that.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Runs `f`, if the domain of that generation is still there: then it waits for the end of this.
    pub(crate) fn enter(&self, generation: u64, f: impl FnOnce()) {
        self.inside.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `end`.
        fence(Ordering::SeqCst);
        if self.generation.load(Ordering::Relaxed) == generation {
            f();
        }
        // Release: pairs with the acquire in `end`.
        self.inside.fetch_sub(1, Ordering::Release);
    }

    /// Makes late jobs do nothing, and waits for those that run: `pause` is told how often it was called before.
    pub(crate) fn end(&self, mut pause: impl FnMut(usize)) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
        let mut vain = 0;
        // Acquire: pairs with the release in `enter`.
        while self.inside.load(Ordering::Acquire) != 0 {
            pause(vain);
            vain += 1;
        }
    }

    /// In a forked child, which has so many threads inside.
    pub(crate) fn child_after_fork(&self, inside: usize) {
        self.inside.store(inside, Ordering::Relaxed);
    }
}
