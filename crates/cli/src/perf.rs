//! What the kernel tells of a program's threads, by its perf events: where they are on their CPUs, when
//! they leave them, and its own tracepoints. Nothing of it runs in the program.
//!
//! | module | what it does |
//! |---|---|
//! | `rings` | opens perf events of all threads, and reads their rings in order of time |
//! | `writer` | what was read, as packets of the trace |
//! | `modules` | where the program's objects lie, from `/proc` |
//! | `launch` | starts a command that is watched from its first instruction |
//! | `kernel`, `format` | the kernel's tracepoints beside a recording, taken by a helper process |
//! | `instance` | the same without perf events, by tracefs |
//! | `stat`, `own` | `perf stat`, and what it counts of a program's own |
//! | `tracefs` | the kernel's tracepoints |
//! | `beside`, `sides` | all of that, beside a recording |

pub(crate) mod beside;
pub(crate) mod format;
pub(crate) mod instance;
pub(crate) mod kernel;
pub(crate) mod launch;
pub(crate) mod modules;
mod own;
pub(crate) mod rings;
pub(crate) mod sides;
pub(crate) mod stat;
pub(crate) mod tracefs;
pub(crate) mod writer;
