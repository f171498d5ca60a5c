//! The crate's error: why tracing could not be started, or a probe not attached or waited for. The
//! program goes on.

use std::fmt;

/// Why [`init`](crate::init) did not start the agent, or what could not be done with a probe.
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
    /// The call was made from inside a probe that the thread is running, where it would wait for
    /// itself or for the change that it interrupted.
    InsideProbe,
    /// No tracepoint matches.
    NoMatch,
    /// The system does not let sites be switched.
    Patching,
    /// The kernel refuses a perf event or a descriptor.
    Refused,
    /// This system, or this build of the program, has no tracing.
    Unsupported,
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
            ErrorKind::Directory | ErrorKind::System => write!(f, "tracing is off: {}", self.text),
            _ => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for Error {}
