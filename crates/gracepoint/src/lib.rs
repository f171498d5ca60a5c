//! Tracepoints for Rust programs that cost a NOP until somebody switches them on

// Derived code names the crate by its outer path, here too.
extern crate self as gracepoint;

pub mod event;
pub mod field;
#[doc(hidden)]
pub mod key;

pub use gracepoint_macros::{Event, Field};

/// What generated code names; not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::{Event, EventDesc, FieldDesc};
    pub use crate::field::{Field, Text, TypeDesc, enum_size, write_enum};
    pub use crate::key::Key;
}
