//! The crate's one error: where decoding stopped and what was expected there.

use std::fmt;

/// Result of a decoder of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Bytes or text that do not follow the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    what: String,
}

impl Error {
    /// An error that says what was being read and what is wrong with it.
    pub fn new(what: impl Into<String>) -> Self {
        Error { what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}
