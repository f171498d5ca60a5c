//! What is set up when the program (or the shared object) is loaded.
//!
//! At load time because then there is one thread: registering `membarrier(SYNC_CORE)` costs
//! 15 ms later; the pthread key is among the first, which need no allocation; `getenv` races with
//! nobody. If the constructor did not run (a system without one), the first read section does
//! all of it but the fork handlers.

use crate::barrier;
use crate::sync::{AtomicBool, Ordering};
use crate::system;
use crate::threads;

static DONE: AtomicBool = AtomicBool::new(false);

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static AT_LOAD: extern "C" fn() = at_load;

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
extern "C" fn at_load() {
    prepare();
    system::on_fork(crate::fork::before, crate::fork::in_parent, crate::fork::in_child);
}

fn prepare() {
    let _errno = system::Errno::keep();
    barrier::decide();
    system::prepare_exit_notice(threads::thread_ends);
    // Release: who sees it set sees the above done.
    DONE.store(true, Ordering::Release);
}

/// Makes sure that everything is set up.
#[inline]
pub(crate) fn ensure() {
    // A reference to the constructor, so that the linker takes the object that holds it.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    std::hint::black_box(&AT_LOAD);
    if !DONE.load(Ordering::Acquire) {
        prepare();
    }
}
