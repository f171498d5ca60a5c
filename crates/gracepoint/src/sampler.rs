//! Samples that the program takes of itself, for systems that let no tool ask the kernel (`perf_event_open`
//! refused, as container runtimes do): each thread has a timer of its own CPU time, whose signal interrupts it,
//! and the handler writes down where that was.
//!
//! # What the handler may do
//! It interrupts anything: the allocator with its lock held, the loader, the ring in the middle of a record. So it
//! takes no lock, allocates nothing, calls no unwinder, keeps `errno`, and runs no code of the program. It follows
//! frame pointers in a copy of the stack that the kernel makes (`process_vm_readv`, 4 KiB at once), which is an
//! error, and no fault, where there is nothing to read. The copy lies on a [`desks::Desk`], in memory that was mapped
//! before: the signal stack that the handler runs on (a thread in its deepest recursion has no room on its own)
//! may have 8 KiB, of which the kernel's frame takes almost half where vectors are wide. So no other signal comes on
//! top of it. It may itself come on top of a handler of the program's that runs on such a stack (`SA_ONSTACK`), as
//! another signal of the program's may: who has such handlers gives their threads larger stacks.
//!
//! # Whose it is
//! One session at a time takes samples. The handler finds it in [`ACTIVE`], inside of a read section: the
//! session leaves the place when it is switched off and is freed two grace periods later. The signal is a
//! real-time one that nobody had a handler for, and stays ours: a signal that is late must not kill the program. A forked
//! child has the handler and no timers.
//!
//! # What it does to the program
//! A system call that sleeps is gone on with (`SA_RESTART`), but for those that never are (`nanosleep`, `epoll_wait`,
//! `poll`): they may return `EINTR`, though seldom, since a sleeping thread's CPU time stands still.
//! Threads that block all signals are not sampled, nor those that live shorter than [`LOOK`].

mod desks;

pub(crate) use desks::Desks;

use crate::key::TRACE;
use crate::session::Sampling;
use crate::sys;
use crate::sys::timers::{Info, Registers, Timer, handle_unused};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at which threads there are.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// Who takes the samples; null while nobody does.
static ACTIVE: AtomicPtr<Sampling> = AtomicPtr::new(ptr::null_mut());
/// The signal, once one was chosen.
static SIGNAL: Mutex<Option<c_int>> = Mutex::new(None);

/// Goes with the signals of our timers: nobody else's have it.
fn mark() -> usize {
    (&raw const ACTIVE).addr()
}

/// # Safety
/// Called by the system for a signal with `SA_SIGINFO`.
unsafe extern "C" fn handler(_: c_int, info: *const Info, context: *const c_void) {
    // SAFETY: the system's description of the signal, for this call.
    let Some(expirations) = unsafe { &*info }.expirations(mark()) else { return };
    let _errno = sys::Errno::keep();
    let _section = TRACE.read();
    // Acquire: pairs with the exchange in `begin`. SAFETY: whoever is found here is freed a grace period after it has
    // left the place, so not before this section ends.
    if let Some(sampling) = unsafe { ACTIVE.load(Acquire).as_ref() } {
        // SAFETY: the context that the system gives to handlers with SA_SIGINFO.
        let registers = unsafe { Registers::of(context) };
        sampling.take(&registers, expirations);
    }
}

/// The timers of all threads, which the agent looks after.
#[derive(Default)]
pub(crate) struct Timers {
    /// By thread: its timer, and how much CPU time it had at the last look.
    known: HashMap<u32, (Timer, u64)>,
    /// Threads that could have none at the latest look.
    refused: usize,
}

impl Timers {
    /// Gives threads that have come a timer, and takes those of threads that have gone away. So many could have
    /// none, if that was not so at the look before.
    pub(crate) fn look(&mut self, signal: c_int, period_ns: u64) -> Option<usize> {
        let before = std::mem::take(&mut self.refused);
        let now = threads();
        self.known.retain(|tid, _| now.contains(tid));
        let own = sys::thread_id(); // the agent does what the tool asks for, and is not the program's
        for tid in now.into_iter().filter(|&tid| tid != own) {
            let Some(cpu_ns) = sys::cpu_time(Some(tid)) else { continue };
            match self.known.get_mut(&tid) {
                // One that has less of it than before is another thread, with the number of one that has gone.
                Some((_, before)) if *before <= cpu_ns => *before = cpu_ns,
                _ => match Timer::of_thread(tid, signal, mark(), period_ns) {
                    Ok(timer) => drop(self.known.insert(tid, (timer, cpu_ns))),
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {} // it has gone
                    Err(_) => self.refused += 1,
                },
            }
        }
        (before == 0 && self.refused > 0).then_some(self.refused)
    }

    /// Another period for all.
    pub(crate) fn set(&self, period_ns: u64) {
        for (timer, _) in self.known.values() {
            let _ = timer.set(period_ns); // that it has gone shows at the next look
        }
    }
}

fn threads() -> Vec<u32> {
    let tid = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    entries.flatten().filter_map(tid).collect()
}

/// From now on `sampling` takes what comes. Says which signal it is; `None` if another session takes it.
///
/// # Errors
/// When there is no signal to be had.
///
/// # Safety
/// `sampling` lives until a grace period after [`end`].
pub(crate) unsafe fn begin(sampling: &Sampling) -> io::Result<Option<c_int>> {
    let signal = {
        let mut signal = SIGNAL.lock().unwrap_or_else(PoisonError::into_inner);
        match *signal {
            Some(signal) => signal,
            // SAFETY: `handler` keeps to what handlers may do; see the top.
            None => *signal.insert(unsafe { handle_unused(handler) }?),
        }
    };
    let this = ptr::from_ref(sampling).cast_mut();
    // Release: pairs with the load in `handler`, which sees the whole of it.
    let begun = ACTIVE.compare_exchange(ptr::null_mut(), this, AcqRel, Relaxed).is_ok();
    Ok(begun.then_some(signal))
}

/// In a forked child: what the parent samples for is the parent's, and the child may have recordings of its own.
pub(crate) fn child_after_fork() {
    ACTIVE.store(ptr::null_mut(), Relaxed);
}

/// Undoes `begin`; nothing if it is not this one's turn. Handlers under way may go on for a grace period.
pub(crate) fn end(sampling: &Sampling) {
    let this = ptr::from_ref(sampling).cast_mut();
    let _ = ACTIVE.compare_exchange(this, ptr::null_mut(), Release, Relaxed);
}
