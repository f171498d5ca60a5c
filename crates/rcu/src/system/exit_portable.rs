//! How a thread's end is noticed where there are no pthread keys: a thread-local's destructor.

use crate::sync::{AtomicPtr, Ordering};
use std::ptr;

/// What to call when a thread that asked for it ends.
static THEN: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

struct Notice;

impl Drop for Notice {
    fn drop(&mut self) {
        let then = THEN.load(Ordering::Acquire);
        if !then.is_null() {
            // SAFETY: `prepare_exit_notice` is the one that writes it, with this type.
            let then = unsafe { std::mem::transmute::<*mut (), fn()>(then) };
            then();
        }
    }
}

thread_local! {
    static NOTICE: Notice = const { Notice };
}

/// `then` is called on a thread that asked for it when its thread-locals are destroyed.
pub(crate) fn prepare_exit_notice(then: fn()) {
    THEN.store(then as *mut (), Ordering::Release);
}

/// Asks for the notice on this thread. False if it will not come, because the thread's
/// thread-locals are already being destroyed.
pub(crate) fn notify_exit() -> bool {
    NOTICE.try_with(|_| ()).is_ok()
}
