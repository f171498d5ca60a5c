//! Grace periods for programs in user space: read sections that cost two increments.
//!
//! A [`Domain`] has readers and updaters. A reader opens a section ([`Domain::read`]) and uses
//! what it finds behind published pointers. An updater removes something, and frees it when every
//! section that was open at that moment has ended: after a *grace period*. Readers never wait.
//! Updaters need not: grace periods are polled, so an updater can leave what it removed
//! ([`Domain::retire`]) and go on.
//!
//! ```
//! use gracepoint_rcu::Domain;
//! use std::sync::atomic::{AtomicPtr, Ordering};
//!
//! static DOMAIN: Domain = Domain::new("greeting");
//! static GREETING: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());
//!
//! fn publish(text: &str) {
//!     let new = Box::into_raw(Box::new(text.to_owned()));
//!     let old = GREETING.swap(new, Ordering::AcqRel);
//!     if !old.is_null() {
//!         // SAFETY: `old` came from Box::into_raw above, and the swap removed it: nobody else
//!         // takes it, and new sections do not find it.
//!         DOMAIN.retire(unsafe { Box::from_raw(old) });
//!     }
//! }
//!
//! fn greet() -> usize {
//!     let _guard = DOMAIN.read();
//!     // SAFETY: null, or published and freed only after this section.
//!     unsafe { GREETING.load(Ordering::Acquire).as_ref() }.map_or(0, String::len)
//! }
//!
//! publish("hello");
//! publish("good evening");
//! assert_eq!(greet(), 12);
//! DOMAIN.barrier().expect("not inside a section"); // "hello" is freed
//! ```
//!
//! [`RcuCell`] is the same without `unsafe`; [`domain!`] declares a domain whose cells open to its own
//! guards alone. A section that is held across `.await`, or handed to another thread, is that
//! of an [`OwnedGuard`].
//!
//! # What it costs and what it rests on
//!
//! A section is two increments of counters of the thread's own and no barrier; the updater's
//! `membarrier` system call supplies the order that is missing. Where that call is not to be had, or
//! with `GRACEPOINT_RCU=fence` in the environment, readers execute a fence ([`requested_strategy`]). Every thread
//! may read at any time: unregistered, in signal handlers, in destructors of thread-locals.
//!
//! # Who drives
//!
//! Grace periods move when [`Domain::poll`], [`Domain::drive`] or a waiting call is made, and
//! callbacks run in `drive` and [`Domain::barrier`]; no thread is started that nobody asked for. A domain that is
//! to look after itself has a thread of its own ([`Domain::with_thread`]), or hands its callbacks to an executor
//! ([`Domain::run_callbacks_on`]). Whoever waits drives in any case, so nobody waits for a thread that does
//! not run. Tasks await [`Domain::synchronized`] and [`Domain::barrier_async`] on any executor. An
//! [`Observer`] is told what happens, and [`Domain::stats`] says what there is to do.
//!
//! # When a grace period does not end
//!
//! [`Domain::stalls`] tells who waits, for which grace period, and which readers hold it up, as a value
//! ([`Stall`]); [`Domain::on_stall`] has it told by whoever drives. [`Domain::running_callback`] tells of a
//! callback that does not return, and what waits behind it. [`Domain::prove`] finds the mistakes that
//! lead there: leaked guards, sections that last too long; and pointers that are retired twice.
//!
//! # How it is checked
//!
//! * `tests/loom.rs` compiles the files of the algorithm with loom's types and explores small
//!   programs, each with twins that lack one part and must fail. `cargo test` runs it.
//! * `tests/loom_updaters.rs` does so for what wakes threads and tasks: that no wakeup is lost.
//! * `tests/loom/orderings.rs` weakens one ordering of these files at a time, each acquire, release and fence, and prints what
//!   happens then: no ordering is without a twin, or a reason why loom cannot show it.
//! * `tests/model` compiles them with the types of `gracepoint-model`, in which memory is x86's,
//!   readers execute no barrier, and `membarrier` is an instruction: every schedule of small programs, with
//!   a table of twins. What loom takes for granted, and the other way round. The kernel's SRCU-fast
//!   is there too, and hangs where these grace periods end (`teardown_stall`).
//! * `tests/litmus.rs` tries on the machine that `membarrier` and a compiler fence are a barrier, and
//!   that its twin, an ordinary fence in its place, is not.
//! * `tests/torture.rs` runs readers that linger, sleep and nest, updaters, delays, signals whose handlers read
//!   and sleep, thread churn and forks against an oracle. It prints its seed and the ages of what
//!   readers saw, in grace periods: 0 and 1 are right, 2 never is. `GRACEPOINT_TORTURE=100` takes minutes.
//! * Its canaries are the whole engine but for one thing: it looks at no reader, at one rank, at `lock`s first; its
//!   heavy barrier is missing, or is a fence. All are caught on a machine with two processors, in
//!   seconds (the last three by readers whose store buffers are full). In the model and loom alone are
//!   caught: what the compiler could do without the light barriers, a split increment, each scan left out by
//!   itself, cookies that come early, orderings that x86 has anyway, and all of the fence form but the first two.
//! * `tests/stopped.rs` stops drivers in the middle of their steps, beside which everybody goes on.
//! * `scripts/miri` runs what is neither assembly nor system call in Miri: pointers, lifetimes, data races. It cannot see the
//!   increments in assembly, `membarrier` (readers fence there), signals, `fork`, how a thread really ends, nor
//!   more than one interleaving of each test. The script has the list.
//! * `tests/refused.rs` has programs that may not call `membarrier`: from the start, and from later on, when nothing is
//!   freed any more and a stall says why.
//! * `tests/fork.rs` and `tests/fork_served.rs` fork while others read, drive and serve; `tests/threads.rs`,
//!   `tests/domain.rs`, `tests/executors.rs`, `tests/futures.rs`, `tests/owned.rs`, `tests/stalls.rs`, `tests/prove.rs`
//!   and `tests/deadlocks.rs` say what is promised, case by case; `tests/ui.rs` what does not compile.
//! * `cargo run --release --example pair` prints what sections cost, `--example updates` what grace periods
//!   and callbacks do; `-p gracepoint-bench -- reader` and `-- grace-period` do so beside liburcu, crossbeam-epoch,
//!   seize, haphazard, arc-swap and locks.
//!
//! All of it passes with `GRACEPOINT_RCU=fence` too. Not checked: processors other than x86-64
//! and systems other than Linux (which compile), and programs with more than 65,536 threads.
//!
//! The argument for the algorithm is at the top of `src/grace.rs`; `src/callbacks.rs` has the
//! queues', `src/blocks.rs` that of their memory, `src/engine.rs` and `src/wakers.rs` say why no wakeup is lost, `src/owners.rs` has the argument for
//! owned sections, `src/threads.rs` the registry's, and `src/fork.rs` says what a forked child can rely on.

mod arch;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64", not(miri)))]
#[doc(hidden)]
pub mod assembly;
mod backtrace;
mod barrier;
mod blocks;
mod callbacks;
#[cfg(feature = "canary")]
mod canary;
mod cell;
mod clock;
mod counters;
mod domain;
mod engine;
mod executor;
mod fast;
#[cfg_attr(not(unix), allow(dead_code, reason = "there is no fork there"))]
mod fork;
mod future;
mod grace;
mod guard;
mod holdouts;
mod indices;
mod jobs;
mod kernel_state;
mod marker;
#[cfg(all(target_os = "linux", not(miri)))]
mod mirror;
#[cfg(not(all(target_os = "linux", not(miri))))]
#[path = "mirror/absent.rs"]
mod mirror;
mod observer;
mod owners;
mod prove;
mod record;
mod region;
mod running;
mod sites;
mod stall;
mod start;
mod stats;
mod survey;
mod sync;
mod system;
mod threads;
mod trylock;
mod typed;
mod wait;
mod waiters;
mod wakers;
mod watch;

pub use backtrace::backtraces_by_signal;
pub use barrier::{
    Strategy, UnknownStrategy, heavy_barrier, heavy_barrier_code, requested_strategy, strategy,
};
#[cfg(feature = "canary")]
#[doc(hidden)]
pub use canary::Canary;
pub use cell::RcuCell;
pub use domain::{Cookie, Domain};
pub use engine::Progress;
pub use executor::{Executor, Job};
pub use future::{Barrier, Synchronized};
pub use guard::{Any, Guard, OwnedGuard, QuickGuard, ReadGuard};
pub use holdouts::Holdout;
pub use kernel_state::{KernelState, SystemCall};
#[doc(hidden)]
pub use mirror::word as mirror_word;
pub use observer::{Event, Observer};
pub use prove::{Checks, Finding};
pub use running::RunningCallback;
pub use stall::{
    Culprit, Entered, GracePeriod, HeldCallbacks, HeldFutures, Link, Node, Phase, Stall, Waiter,
};
pub use stats::Stats;
pub use survey::{Drives, Survey, survey};
pub use threads::{
    MAX_THREADS, ThreadInfo, ThreadName, high_water, live_threads, on_thread_exit, refresh_names,
    thread_index, thread_info, thread_line,
};
pub use typed::{AnyDomain, TypedDomain};
pub use wait::{BarrierError, Expedited, InReadSection};
pub use waiters::{WaitCall, WaitKind};
