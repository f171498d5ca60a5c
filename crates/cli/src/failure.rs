//! Why a command ends early: one line for stderr and the exit status.

use crate::escape::shown;
use std::fmt;

/// Result of a step of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The command cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read our output went away (`| head`): not an error, and nothing to say.
    ClosedPipe,
    /// `what: what to do next`, and the exit status.
    Said {
        /// Without the leading `gracepoint: `. May span lines; parts from outside are escaped.
        text: String,
        /// 1: the answer is no; 2: an error; 125 to 127: a command could not be run; 130: Ctrl-C.
        status: u8,
    },
}

impl Failure {
    /// An error: exit 2.
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure::Said { text: text.into(), status: 2 }
    }

    /// The answer is no: exit 1.
    pub(crate) fn no(text: impl Into<String>) -> Failure {
        Failure::Said { text: text.into(), status: 1 }
    }

    /// The same words with another exit status.
    pub(crate) fn with_status(self, status: u8) -> Failure {
        match self {
            Failure::Said { text, .. } => Failure::Said { text, status },
            closed => closed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::ClosedPipe => f.write_str("the reader of the output is gone"),
            Failure::Said { text, .. } => f.write_str(text),
        }
    }
}

impl From<gracepoint_analysis::Error> for Failure {
    fn from(error: gracepoint_analysis::Error) -> Failure {
        if error.is_closed_pipe() {
            Failure::ClosedPipe
        } else {
            Failure::new(shown(&error.to_string()))
        }
    }
}
