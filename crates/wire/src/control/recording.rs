//! What a tool says of the session that it wants, and what an agent says of the one that it made.

use super::FunctionsWanted;
use crate::clock::{Clock, Triple};
use crate::schema::{Context, Declared, Level};

/// What the buffers do when they are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Mode {
    /// New events are lost and counted.
    #[default]
    Discard = 0,
    /// The oldest pages are written over, and their events counted as lost: a flight recorder.
    Overwrite = 1,
}

impl Mode {
    /// The mode with this number.
    pub fn from_u64(n: u64) -> Option<Mode> {
        [Mode::Discard, Mode::Overwrite].into_iter().find(|mode| *mode as u64 == n)
    }
}

/// Request: a new session, still off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// Which events; an event that any pattern matches is in.
    pub globs: Vec<String>,
    /// Bytes of all pages together; 0 for the program's default.
    pub buffer_bytes: u64,
    /// What to do when they are full.
    pub mode: Mode,
    /// What to add to each event.
    pub context: Context,
    /// What to leave out.
    pub limits: Limits,
    /// The session stays when the connection goes, until it is ended.
    pub keep: bool,
    /// What to call it; names of kept sessions differ within a program.
    pub name: String,
    /// What the tool calls itself, for `Show`.
    pub tool: String,
    /// Of events that have a level, those that are at least so urgent; `None` for all.
    pub level: Option<Level>,
    /// Which functions; `globs` may be empty where there are some.
    pub functions: Option<FunctionsWanted>,
    /// The program samples itself; `globs` may be empty then, too.
    pub samples: Option<SamplesWanted>,
}

/// Where threads are on their CPUs, as the program itself finds out: by a timer for each thread. For systems that
/// do not let a tool ask the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SamplesWanted {
    /// Samples for each second of a thread's CPU time.
    pub hz: u32,
    /// Most millionths of the program's CPU time that taking them may cost; above that they come at half the rate.
    pub max_cpu_ppm: u32,
    /// Bytes of stack to copy into each sample, instead of following frame pointers; 0 for none.
    pub stack_bytes: u32,
}

/// Which of the events that fire are recorded. What is left out is counted, and the counts are in
/// the trace. The default leaves out nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// At most so many per second of each kind of event; 0 for no limit.
    pub max_rate: u64,
    /// One of so many of each kind of event; 0 and 1 for all.
    pub sample: u64,
    /// At most so many millionths of a CPU's time for recording, in the whole program; 0 for no
    /// limit. The session lowers `max_rate` by itself to keep to it.
    pub max_overhead_ppm: u32,
}

/// An executable or shared object of the program, for `gp:module`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    /// When it was first seen to be loaded, in ticks.
    pub at: u64,
    /// Address of the first byte that is mapped.
    pub base: u64,
    /// Bytes from there to the end of its last segment.
    pub size: u64,
    /// The linker's build id; empty if there is none.
    pub build_id: Vec<u8>,
    /// Its file, as the program sees it.
    pub path: String,
}

/// Reply to `Flush`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flushed {
    /// So many pages were closed.
    pub pages: u32,
    /// Objects that this connection has not been told of.
    pub modules: Vec<Module>,
}

/// Reply to [`Create`] and to `Attach`; the arena's descriptor comes with it. Reply to `Count`, with that of the
/// [counts](crate::counters).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Names the session in later requests.
    pub session: u64,
    /// What the ids in its packets mean.
    pub events: Vec<Declared>,
    /// What its ticks mean.
    pub clock: Clock,
    /// What lies before the fields of each event.
    pub context: Context,
    /// The objects that the program has loaded, as far as the session has seen them.
    pub modules: Vec<Module>,
}

/// Reply to `Stop`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stopped {
    /// True when nobody can still be writing; else who is, in `holdouts`.
    pub settled: bool,
    /// Threads still inside a read section, as text: `thread 4242 (worker-3)`.
    pub holdouts: Vec<String>,
    /// The moment of the stop.
    pub at: Triple,
    /// Objects that this connection has not been told of.
    pub modules: Vec<Module>,
}
