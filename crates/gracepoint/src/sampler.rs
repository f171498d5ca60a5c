//! Samples that the program takes of itself, for systems that let no tool ask the kernel (`perf_event_open`
//! refused, as container runtimes do): each thread has a timer of its own CPU time, whose signal interrupts it,
//! and the handler writes down where that was.
//!
//! # What the handler may do
//! It interrupts anything: the allocator with its lock held, the loader, the ring in the middle of a record. So it
//! takes no lock, allocates nothing, calls no unwinder, keeps `errno`, and runs no code of the program. It follows
//! frame pointers in the part of the thread's stack that cannot go away ([`own_stack`](crate::own_stack)); where that
//! is not known, or a pointer leads out of it, in a copy that the kernel makes (`process_vm_readv`, 4 KiB at once), which
//! is an error, and no fault, where there is nothing to read. The copy lies on a [`desks::Desk`], in memory that was
//! mapped before.
//!
//! # What it takes of the program's stack
//! The kernel's frame of a signal, and little more. That frame has all registers: 3.5 KiB where vectors are wide. So the
//! handler asks for the thread's signal stack (a thread in its deepest recursion has no room on its own), which may have
//! 8 KiB; no other signal comes on top of it; and the first thing that it does is to go to a stack of [`STACKS`]
//! (on x86-64; elsewhere it stays where it is). It may itself come on top of handlers of the program's that run on such a
//! stack (`SA_ONSTACK`): then there are the kernel's frames of both, as with any two signals. Two fit on 8 KiB where vectors
//! are wide, three do not, whosever they are: a program in which several such handlers run at once gives its threads
//! larger stacks (`AT_MINSIGSTKSZ` says what one frame may take).
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
use crate::sys::timers::{Info, Registers, Timer, handle_unused};
use crate::{arch, clock, function, sys};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Between two looks at which threads there are.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// Who takes the samples; null while nobody does.
static ACTIVE: AtomicPtr<Sampling> = AtomicPtr::new(ptr::null_mut());
/// The signal, once one was chosen.
static SIGNAL: Mutex<Option<c_int>> = Mutex::new(None);

/// What handlers run on, from the first [`begin`] to the end: a handler that is late must find it.
static STACKS: OnceLock<Desks> = OnceLock::new();
/// Expirations of handlers that found no stack. The next one's sample has their weight.
static MISSED: AtomicU64 = AtomicU64::new(0);

/// Goes with the signals of our timers: nobody else's have it.
fn mark() -> usize {
    (&raw const ACTIVE).addr()
}

/// # Safety
/// Called by the system for a signal with `SA_SIGINFO`.
unsafe extern "C" fn handler(_: c_int, info: *const Info, context: *const c_void) {
    let begun = clock::ticks(clock::source());
    // SAFETY: the system's description of the signal, for this call.
    let Some(expirations) = unsafe { &*info }.expirations(mark()) else { return };
    let Some(mut stack) = STACKS.get().and_then(Desks::take) else {
        MISSED.fetch_add(expirations, Relaxed);
        return;
    };
    // SAFETY: the stack is this handler's alone until `stack` is dropped, after the call; its end is that of a page. No
    // other handler runs meanwhile on this thread: the signal's mask has all. `context` is the system's.
    unsafe { arch::stack::call_on(stack.top(), || sample(context, expirations, begun)) };
}

/// What a handler does, on a stack of ours.
///
/// # Safety
/// Called by [`handler`] with what the system gave it.
unsafe fn sample(context: *const c_void, expirations: u64, begun: u64) {
    let _errno = sys::Errno::keep();
    let _unheard = function::Unheard::new();
    let _section = TRACE.read();
    // Acquire: pairs with the exchange in `begin`. SAFETY: whoever is found here is freed a grace period after it has
    // left the place, so not before this section ends.
    if let Some(sampling) = unsafe { ACTIVE.load(Acquire).as_ref() } {
        // SAFETY: the context that the system gives to handlers with SA_SIGINFO.
        let registers = unsafe { Registers::of(context) };
        sampling.take(&registers, expirations + MISSED.swap(0, Relaxed), begun);
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
        if STACKS.get().is_none() {
            let _ = STACKS.set(Desks::stacks()?); // under the lock: nobody else does
        }
        match *signal {
            Some(signal) => signal,
            // SAFETY: `handler` keeps to what handlers may do; see the top. Stacks are there before it is.
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
    STACKS.get().inspect(|stacks| stacks.child_after_fork());
}

/// Undoes `begin`; nothing if it is not this one's turn. Handlers under way may go on for a grace period.
pub(crate) fn end(sampling: &Sampling) {
    let this = ptr::from_ref(sampling).cast_mut();
    let _ = ACTIVE.compare_exchange(this, ptr::null_mut(), Release, Relaxed);
}
