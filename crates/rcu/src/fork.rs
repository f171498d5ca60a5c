//! What `fork` does to grace periods.
//!
//! The child has one thread, the one that forked. Without repair it would wait for ever for
//! sections of threads that it does not have, and find locks held by them.
//!
//! * *Before*, this thread takes the driver's lock of every domain, so that the child finds whole
//!   lists. A driver holds it for one bounded step, so this is short; a driver that does not
//!   give it up in [`PATIENCE`] (stopped by a debugger, say) is left alone, and the child then
//!   leaks that domain's callbacks.
//! * *In the parent* they are given back.
//! * *In the child* sections of other threads are forgotten and their indices freed; this
//!   thread keeps its index, with its new number, and its own sections. Callbacks that are
//!   queued stay queued, in the child too.
//!
//! *Owned* sections (`Domain::read_owned`) are kept in the child, whoever entered them: they belong to no
//! thread, so nobody knows which of them the child goes on with. That is the safe side, and may mean that
//! no grace period of the domain ends there any more; `Domain::forget_inherited` is the way out, for a
//! child that knows better. Reports tell sections that came from the parent.
//!
//! *Futures* that were pending are woken in the child as soon as somebody drives the domain there, asks it for a grace
//! period or gives it a callback. Not before: nothing is started in a child that nobody asked for, which may be about to
//! become another program; and a waker is code of others, that must not run inside of `fork`.
//!
//! What a lost thread was writing into a report's state (sightings, a stall's hook, what was retired
//! while its domain is proven) is begun anew; the hook is then gone.
//!
//! A reference that the forking thread has from **another** thread's section (a scoped thread
//! that uses its parent's guard, and forks) is not protected in the child. `fork` is unsafe
//! for reasons like this one.
//!
//! A child made behind libc's back (a bare `clone` system call) gets none of this: its grace periods
//! may never end. That is a leak, not a use after free.

use crate::arch;
use crate::backtrace;
use crate::region;
use crate::threads;
use std::time::{Duration, Instant};

/// How long a driver is waited for before a fork.
const PATIENCE: Duration = Duration::from_millis(100);

pub(crate) unsafe extern "C" fn before() {
    let me = arch::thread_token();
    let mut since = None;
    for region in region::all() {
        while !region.engine.prepare_fork(me) {
            let since = *since.get_or_insert_with(Instant::now);
            if since.elapsed() > PATIENCE {
                break;
            }
            std::thread::yield_now();
        }
    }
}

pub(crate) unsafe extern "C" fn in_parent() {
    let me = arch::thread_token();
    region::all().for_each(|region| region.engine.parent_after_fork(me));
}

pub(crate) unsafe extern "C" fn in_child() {
    let me = arch::thread_token();
    threads::child_after_fork(|index| {
        region::all().for_each(|region| region.forget_thread(index));
    });
    backtrace::child_after_fork(me);
    let none_of_mine = arch::shared_sections() == 0;
    for region in region::all() {
        if none_of_mine {
            // A shared slot does not say whose its sections are. If this thread has one
            // open itself, they are all kept, and a grace period may not end: the safe side.
            region.shared.balance();
        }
        region.owners().into_iter().for_each(|owners| owners.note_fork());
        region.watch.child_after_fork(&region.nameless, me);
        region.prover.child_after_fork(me);
        region.child_after_fork(me);
    }
}
