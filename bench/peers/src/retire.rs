//! The retiring sides of seize and haphazard, which are unsafe because they free what they are given.

use seize::{Collector, reclaim};

/// Allocates `value` and retires it at once, as an updater does with what it removed.
pub fn retire<T: Send + 'static>(collector: &Collector, value: T) {
    let object = Box::into_raw(Box::new(value));
    // SAFETY: a Box of its own that nobody else has seen, retired once; `reclaim::boxed` is
    // what frees a Box.
    unsafe { collector.retire(object, reclaim::boxed) };
}

/// The same with haphazard's global domain.
pub fn retire_hazard<T: Send + 'static>(value: T) {
    let object = Box::into_raw(Box::new(value));
    // SAFETY: a Box of its own, which no hazard pointer guards because nobody else has seen it, retired once; valid
    // until it is reclaimed, and the global domain is never dropped.
    unsafe { haphazard::Domain::global().retire_ptr::<T, Box<T>>(object) };
}
