//! The crate's error: why tracing could not be started. The program goes on without it.

use std::fmt;

/// Why [`init`](crate::init) did not start the agent. Tracepoints stay off and cost a NOP.
#[derive(Debug)]
pub struct Error {
    pub(crate) kind: ErrorKind,
    pub(crate) text: String,
}

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// This process has an agent already.
    AlreadyStarted,
    /// The socket's directory cannot be used: not ours, open to others, or not to be written to.
    Directory,
    /// The socket or the thread could not be made.
    System,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into() }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::AlreadyStarted => f.write_str(&self.text),
            _ => write!(f, "tracing is off: {}", self.text),
        }
    }
}

impl std::error::Error for Error {}
