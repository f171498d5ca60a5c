//! The retiring side of seize, which is unsafe because it frees what it is given.

use seize::{Collector, reclaim};

/// Allocates `value` and retires it at once, as an updater does with what it removed.
pub fn retire<T: Send + 'static>(collector: &Collector, value: T) {
    let object = Box::into_raw(Box::new(value));
    // SAFETY: a Box of its own that nobody else has seen, retired once; `reclaim::boxed` is
    // what frees a Box.
    unsafe { collector.retire(object, reclaim::boxed) };
}
