//! What a thread of a program can do, and how it is stopped and run again.
//!
//! A thread's closure is run from its beginning for every step. [`Context`] answers the accesses that were
//! made before from a log, and stops the closure at the first one that is new: that is the thread's
//! next access, for the machine to make when the schedule says so.

use crate::program::{Object, Word};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::resume_unwind;
use std::rc::Rc;

/// Why an access has no result: the thread stops here for now. Pass it on with `?`.
#[derive(Debug)]
#[must_use = "a stopped thread must leave its closure"]
pub struct Stop(());

impl Stop {
    /// Leaves the closure by unwinding, for code that cannot return a [`Stop`], such as code that
    /// ships and is compiled against types of the model.
    ///
    /// # Panics
    /// It unwinds, and the explorer catches that; nothing is printed.
    pub fn unwind(self) -> ! {
        resume_unwind(Box::new(self))
    }
}

/// A result that a thread may not have yet.
pub type Step<T = ()> = Result<T, Stop>;

/// What a thread waits for a word to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Equal to this.
    Is(u64),
    /// Anything but this.
    IsNot(u64),
    /// This or more.
    AtLeast(u64),
}

impl Until {
    pub(crate) fn holds(self, value: u64) -> bool {
        match self {
            Self::Is(wanted) => value == wanted,
            Self::IsNot(unwanted) => value != unwanted,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => write!(f, "== {value}"),
            Self::IsNot(value) => write!(f, "!= {value}"),
            Self::AtLeast(value) => write!(f, ">= {value}"),
        }
    }
}

/// What a locked instruction does to a word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Add(u64),
    Max(u64),
    Swap(u64),
    Exchange { from: u64, to: u64 },
}

impl Change {
    pub(crate) fn of(self, old: u64) -> u64 {
        match self {
            Self::Add(value) => old.wrapping_add(value),
            Self::Max(value) => old.max(value),
            Self::Swap(value) => value,
            Self::Exchange { from, to } => {
                if old == from {
                    to
                } else {
                    old
                }
            }
        }
    }
}

/// One access.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Load(Word),
    Store(Word, u64),
    Increment(Word),
    Locked(Word, Change),
    Fence,
    Membarrier,
    Wait(Word, Until),
    WaitForChange(Vec<(Word, u64)>),
    Touch(Object),
    Free(Object),
    Choose(u64),
    Stall,
}

/// A thread's access to the machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    run: Rc<Run>,
}

#[derive(Debug)]
struct Run {
    log: Rc<Vec<u64>>,
    position: Cell<usize>,
    next: RefCell<Option<Op>>,
    failed: RefCell<Option<String>>,
    /// Names of the functions that the thread is in.
    calls: RefCell<Vec<&'static str>>,
}

impl Context {
    pub(crate) fn new(log: Rc<Vec<u64>>) -> Self {
        let run = Run {
            log,
            position: Cell::new(0),
            next: RefCell::new(None),
            failed: RefCell::new(None),
            calls: RefCell::new(Vec::new()),
        };
        Self { run: Rc::new(run) }
    }

    /// The access that the thread stopped at, and the check that stopped it.
    pub(crate) fn into_stopped(self) -> (Option<Op>, Option<String>, Vec<&'static str>) {
        (
            self.run.next.borrow_mut().take(),
            self.run.failed.borrow_mut().take(),
            self.run.calls.take(),
        )
    }

    fn op(&self, op: impl FnOnce() -> Op) -> Step<u64> {
        let position = self.run.position.get();
        if let Some(result) = self.run.log.get(position) {
            self.run.position.set(position + 1);
            return Ok(*result);
        }
        let mut next = self.run.next.borrow_mut();
        if next.is_none() && self.run.failed.borrow().is_none() {
            *next = Some(op());
        }
        Err(Stop(()))
    }

    /// Reads a word: the thread's own newest store that is still in its buffer, or memory.
    pub fn load(&self, word: Word) -> Step<u64> {
        self.op(|| Op::Load(word))
    }

    /// Writes a word, into the thread's buffer.
    pub fn store(&self, word: Word, value: u64) -> Step {
        self.op(|| Op::Store(word, value)).map(drop)
    }

    /// `inc [word]`: one instruction, not atomic to other threads, stored into the buffer.
    pub fn increment(&self, word: Word) -> Step {
        self.op(|| Op::Increment(word)).map(drop)
    }

    /// Adds atomically, and drains the buffer. Returns the value before.
    pub fn fetch_add(&self, word: Word, value: u64) -> Step<u64> {
        self.op(|| Op::Locked(word, Change::Add(value)))
    }

    /// Raises a word to `value` atomically, and drains the buffer. Returns the value before.
    pub fn fetch_max(&self, word: Word, value: u64) -> Step<u64> {
        self.op(|| Op::Locked(word, Change::Max(value)))
    }

    /// Replaces atomically, and drains the buffer. Returns the value before.
    pub fn swap(&self, word: Word, value: u64) -> Step<u64> {
        self.op(|| Op::Locked(word, Change::Swap(value)))
    }

    /// Compares and exchanges, and drains the buffer. Returns the value before: it happened if that
    /// is `from`.
    pub fn compare_exchange(&self, word: Word, from: u64, to: u64) -> Step<u64> {
        self.op(|| Op::Locked(word, Change::Exchange { from, to }))
    }

    /// A full fence: drains the thread's buffer.
    pub fn fence(&self) -> Step {
        self.op(|| Op::Fence).map(drop)
    }

    /// `membarrier(PRIVATE_EXPEDITED)`: every thread executes a full fence before this returns.
    pub fn membarrier(&self) -> Step {
        self.op(|| Op::Membarrier).map(drop)
    }

    /// Blocks until the word, as this thread sees it, is as wanted. Returns its value.
    pub fn wait(&self, word: Word, until: Until) -> Step<u64> {
        self.op(|| Op::Wait(word, until))
    }

    /// Blocks until one of the words is no longer what the thread knows. What a loop that polls
    /// comes to, without its vain rounds.
    pub fn wait_for_change(&self, known: &[(Word, u64)]) -> Step {
        self.op(|| Op::WaitForChange(known.to_vec())).map(drop)
    }

    /// Uses an object, which must not have been freed.
    pub fn touch(&self, object: Object) -> Step {
        self.op(|| Op::Touch(object)).map(drop)
    }

    /// Frees an object.
    pub fn free(&self, object: Object) -> Step {
        self.op(|| Op::Free(object)).map(drop)
    }

    /// A number below `count`; all of them are explored.
    pub fn choose(&self, count: u64) -> Step<u64> {
        self.op(|| Op::Choose(count))
    }

    /// Never goes on, through no fault of the program: stopped by a debugger, starved by a storm of
    /// interrupts. Its buffer drains all the same.
    pub fn stall(&self) -> Step {
        self.op(|| Op::Stall).map(drop)
    }

    /// Fails the program unless `holds`. No access: it costs no step.
    pub fn check(&self, holds: bool, claim: &str) -> Step {
        if holds {
            return Ok(());
        }
        // After a stop (which code that unwinds may have met) nothing is known.
        if self.run.next.borrow().is_none() {
            *self.run.failed.borrow_mut() = Some(claim.to_owned());
        }
        Err(Stop(()))
    }

    /// Runs `body` as a function of this name, which schedules and reports of hangs show.
    pub fn call<T>(&self, name: &'static str, body: impl FnOnce(&Self) -> Step<T>) -> Step<T> {
        self.run.calls.borrow_mut().push(name);
        // Not popped when stopped: the names are then where the thread is.
        let result = body(self)?;
        self.run.calls.borrow_mut().pop();
        Ok(result)
    }
}
