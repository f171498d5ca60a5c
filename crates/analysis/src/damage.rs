//! What is missing or wrong in a trace that can still be read.

use crate::escape::name;
use serde::Serialize;
use std::fmt;

/// Descriptions kept of one trace's damage; more are only counted.
const MOST: usize = 200;

/// One place where a trace is cut, contradicts itself or makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// File name inside the trace's directory; may hold any character, so escape it.
    pub file: String,
    /// Bytes from the file's beginning.
    pub offset: u64,
    /// What is wrong there, and what is missing because of it; may quote the file, so escape it
    /// (as `Display` does).
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, what) = (name(&self.file), name(&self.what));
        write!(f, "{file} at byte {}: {what}", self.offset)
    }
}

/// A bounded list of damage.
#[derive(Debug, Clone, Default)]
pub(crate) struct DamageLog {
    list: Vec<Damage>,
    beyond: u64,
}

impl DamageLog {
    pub(crate) fn add(&mut self, file: &str, offset: u64, what: impl Into<String>) {
        if self.list.len() < MOST {
            self.list.push(Damage { file: file.to_owned(), offset, what: what.into() });
            return;
        }
        self.beyond += 1;
        let last = &mut self.list[MOST - 1];
        last.what = format!("damage here and at {} further places, not listed", self.beyond);
    }

    pub(crate) fn list(&self) -> &[Damage] {
        &self.list
    }

    pub(crate) fn into_list(self) -> Vec<Damage> {
        self.list
    }
}
