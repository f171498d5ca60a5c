//! Every schedule of small concurrent programs on a machine with store buffers, in which
//! `membarrier` is an instruction.
//!
//! For tests of algorithms whose readers execute no barrier because an updater makes the kernel
//! execute it for them. No other tool models that system call.
//!
//! ```
//! use gracepoint_model::{Explorer, Program};
//!
//! // Two threads raise a flag and look at the other's: the store-buffering litmus test.
//! let program = |heavy: bool| {
//!     let mut program = Program::new("store buffering");
//!     let (x, y) = (program.word("x", 0), program.word("y", 0));
//!     program.thread("reader", move |cx| {
//!         cx.store(x, 1)?; // and a compiler fence, which is no instruction
//!         cx.load(y)
//!     });
//!     program.thread("updater", move |cx| {
//!         cx.store(y, 1)?;
//!         if heavy {
//!             cx.membarrier()?;
//!         }
//!         cx.load(x)
//!     });
//!     program
//! };
//! assert!(Explorer::new().explore(&program(false)).reached(&[0, 0]));
//! assert!(!Explorer::new().explore(&program(true)).reached(&[0, 0]));
//! ```
//!
//! # The machine
//!
//! x86-TSO: each thread has a first-in-first-out buffer of stores that only it sees (loads
//! take its newest entry for their word), and that drains into memory at any time, one
//! entry after the other. A locked instruction and a fence drain it first. Loads are not
//! reordered, and compilers do not reorder: a program that a compiler might reorder
//! is written in the order in which it would run. So what a *compiler fence* is worth is shown by
//! a program without it, written reordered.
//!
//! `membarrier` makes each thread execute a full barrier at a moment of its own between the call and
//! the return: the call returns once every buffer has been seen empty since. (A buffer that is
//! empty at the call has had its moment. Draining all of them in one instant is
//! one of the schedules, so what holds here holds for that stronger machine too.)
//!
//! What is allowed is therefore less than what Rust's memory model allows; loom explores that, and has
//! no membarrier. A word is 64 bits; increments without a lock prefix are a load and a buffered
//! store, made by one instruction.
//!
//! # Programs
//!
//! A thread is a closure that makes each access through a [`Context`] and leaves at once when one of them
//! says so (`?`). It is run again from its beginning for each of its steps, with the results
//! of the accesses that it has made; so it must be deterministic and keep nothing outside of
//! local variables. That is also what makes states comparable: a thread is the list of
//! results it has got, and a state that was reached before is not explored again.
//!
//! # What is found
//!
//! Failed checks ([`Context::check`], [`Program::at_end`]), a [`touch`](Context::touch) of
//! an object after its [`free`](Context::free), freeing twice, panics, and hangs: threads that are not
//! done where nothing can move. Each comes as a [`Failure`] with a [`Schedule`], which prints, parses, and can be
//! [replayed](Explorer::replay).
#![forbid(unsafe_code)]

mod context;
mod explore;
mod failure;
mod machine;
mod program;
mod schedule;

pub use context::{Context, Step, Stop, Until};
pub use explore::{Explorer, Report};
pub use failure::{Blocked, Cause, Failure};
pub use program::{End, Object, Outcome, Program, Word};
pub use schedule::{Move, NotASchedule, Schedule};
