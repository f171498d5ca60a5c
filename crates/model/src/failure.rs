//! What went wrong in an execution, and how it came to that, for people.

use crate::schedule::Schedule;
use std::fmt;

/// A thread that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Its name.
    pub thread: String,
    /// The functions that it is in, outermost first (see [`Context::call`](crate::Context::call)).
    pub calls: Vec<&'static str>,
    /// What it waits for.
    pub waits_for: String,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.thread)?;
        for call in &self.calls {
            write!(f, "{call} > ")?;
        }
        f.write_str(&self.waits_for)
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A [check](crate::Context::check) does not hold.
    Check {
        /// The thread.
        thread: String,
        /// What was claimed.
        claim: String,
    },
    /// A check at the [end](crate::Program::at_end) does not hold.
    End(String),
    /// An object was used after it was freed.
    UseAfterFree {
        /// The thread.
        thread: String,
        /// The object.
        object: String,
    },
    /// An object was freed twice.
    FreedTwice {
        /// The thread.
        thread: String,
        /// The object.
        object: String,
    },
    /// Nothing can move, and these threads are not done: those that must be, and those that
    /// serve them or are stalled, since it may be them that is waited for.
    Hang(Vec<Blocked>),
    /// More moves than [`Explorer::max_moves`](crate::Explorer::max_moves): threads that keep each other busy.
    Endless,
    /// A thread panicked.
    Panic {
        /// The thread.
        thread: String,
        /// What it said.
        message: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check { thread, claim } => write!(f, "{thread}: does not hold: {claim}"),
            Self::End(claim) => write!(f, "at the end: {claim}"),
            Self::UseAfterFree { thread, object } => {
                write!(f, "{thread} uses {object} after it was freed")
            }
            Self::FreedTwice { thread, object } => write!(f, "{thread} frees {object} again"),
            Self::Hang(blocked) => {
                f.write_str("hangs:")?;
                for thread in blocked {
                    write!(f, "\n    {thread}")?;
                }
                Ok(())
            }
            Self::Endless => f.write_str("does not come to an end"),
            Self::Panic { thread, message } => write!(f, "{thread} panicked: {message}"),
        }
    }
}

/// An execution that goes wrong. Its `Display` is the whole story.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The program's name.
    pub program: String,
    /// What went wrong.
    pub cause: Cause,
    /// How to see it again: [`Explorer::replay`](crate::Explorer::replay).
    pub schedule: Schedule,
    /// One line for each move.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.program, self.cause)?;
        writeln!(f, "schedule: {}", self.schedule)?;
        // Of one that does not end, the middle is left out.
        let shown = if self.story.len() > 200 { 80 } else { 200 };
        for (number, line) in (1..).zip(&self.story) {
            if number <= shown || number + 40 > self.story.len() {
                writeln!(f, "{number:5}  {line}")?;
            } else if number == shown + 1 {
                writeln!(f, "    …")?;
            }
        }
        Ok(())
    }
}
