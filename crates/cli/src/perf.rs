//! What the kernel tells of a program's threads, by its perf events: where they are on their CPUs, when
//! they leave them, and its own tracepoints. Nothing of it runs in the program.
//!
//! | module | what it does |
//! |---|---|
//! | `rings` | opens perf events of all threads, and reads their rings in order of time |
//! | `writer` | what was read, as packets of the trace |
//! | `modules` | where the program's objects lie, from `/proc` |
//! | `beside` | all of that, beside a recording |

pub(crate) mod beside;
pub(crate) mod modules;
pub(crate) mod rings;
pub(crate) mod writer;
