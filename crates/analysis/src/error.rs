//! The crate's one error: what was being done, to what, and what to do next.

use std::path::Path;
use std::{fmt, io};

/// Result of reading or writing a trace.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in words that can be shown to the user.
#[derive(Debug)]
pub struct Error {
    what: String,
    io: Option<io::ErrorKind>,
}

impl Error {
    /// An error that says what was being done, to what, and what to do next.
    pub fn new(what: impl Into<String>) -> Error {
        Error { what: what.into(), io: None }
    }

    pub(crate) fn io(doing: &str, path: &Path, error: &io::Error) -> Error {
        Error {
            what: format!("cannot {doing} {}: {error}", path.display()),
            io: Some(error.kind()),
        }
    }

    pub(crate) fn output(error: &io::Error) -> Error {
        Error { what: format!("cannot write the output: {error}"), io: Some(error.kind()) }
    }

    /// A file could not be opened or read; not a matter of what is in it.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.io.is_some()
    }

    /// The reader of our output went away (`| head`); not worth a message.
    pub fn is_closed_pipe(&self) -> bool {
        self.io == Some(io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}
