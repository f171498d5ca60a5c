//! Sites: where the macros stand in the source.
//!
//! A site is one expansion of `trace!` or `span!`. Its [`Site`] is a static of the user's crate, to
//! which the records of its compiled copies point; see `module.rs`.

use crate::key::Key;

/// What kind of macro made a site.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum SiteKind {
    /// `trace!`
    Event = 0,
    /// `span!`
    Span = 1,
    /// `#[function]`: the key is the function's alone.
    Function = 2,
}

/// One use of a macro in the source. ABI 1: the version comes first.
#[doc(hidden)]
#[derive(Debug)]
#[repr(C)]
pub struct Site {
    abi: u16,
    pub(crate) kind: SiteKind,
    pub(crate) line: u32,
    pub(crate) key: &'static Key,
    pub(crate) file: &'static str,
}

impl Site {
    /// Called by the macros.
    pub const fn new(key: &'static Key, kind: SiteKind, file: &'static str, line: u32) -> Site {
        Site { abi: gracepoint_wire::ABI_MAJOR, kind, line, key, file }
    }

    /// The site's key, for sites that load and branch.
    #[inline(always)]
    pub fn key(&self) -> &'static Key {
        self.key
    }
}
