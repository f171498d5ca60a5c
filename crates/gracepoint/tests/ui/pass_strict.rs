//! Every macro of the crate compiles where unsafe code is forbidden and all lints are errors.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, missing_debug_implementations)]
#![allow(dead_code, unreachable_pub, reason = "the items need to compile, no more")]
#![deny(unused_qualifications, single_use_lifetimes, unused_lifetimes, elided_lifetimes_in_paths)]
#![deny(clippy::all, clippy::pedantic)]

use std::fmt;

/// Shadows what generated code might name.
#[derive(Debug)]
pub struct Option;
/// Another.
#[derive(Debug)]
pub struct Text;
/// Another.
pub mod core {}
/// Another.
pub mod std_shadow {}

/// What came of it.
#[derive(Debug, Clone, Copy, gracepoint::Field)]
pub enum Outcome {
    /// There.
    Hit,
    /// Not there.
    Miss = 300,
}

/// Something that can only be shown.
#[derive(Debug)]
pub struct Shown;

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shown")
    }
}

/// A key was looked up.
#[derive(Debug, gracepoint::Event)]
#[event(name = "strict:get")]
pub struct Get<'a, 'b> {
    /// What was asked for.
    pub key: &'a str,
    /// Who asked.
    #[event(display)]
    pub by: &'b Shown,
    /// How it looks inside.
    #[event(debug, limit = 100)]
    pub inside: Shown,
    /// What came of it.
    pub outcome: Outcome,
}

/// Has a field for every name that generated code uses.
#[derive(Debug, gracepoint::Event)]
pub struct Names {
    /// One.
    pub at: u8,
    /// Two.
    pub prepared: u8,
    /// Three.
    #[event(debug)]
    pub key: u8,
}

/// Has no fields.
#[derive(Debug, gracepoint::Event)]
pub struct Started;

#[derive(Debug, gracepoint::Event)]
struct Private {
    text: String,
}

macro_rules! event {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty),* }) => {
        $(#[$meta])*
        #[derive(Debug, gracepoint::Event)]
        pub struct $name {
            $(
                /// A field.
                pub $field: $ty,
            )*
        }
    };
}

event! {
    /// Made by a macro.
    Made { one: u8, two: std::option::Option<String> }
}

/// An event inside a function, where a path cannot name it.
pub fn main() {
    #[derive(Debug, gracepoint::Event)]
    struct Local<'a> {
        bytes: &'a [u8],
    }
    let local = Local { bytes: &[1] };
    let private = Private { text: String::new() };
    assert!(local.bytes.len() == 1 && private.text.is_empty());
}

/// A static that a field is called like.
#[expect(non_upper_case_globals, reason = "fields are called like this")]
pub static lower: u8 = 1;
/// A constant that a field is called like.
#[expect(non_upper_case_globals, reason = "fields are called like this")]
pub const constant: u8 = 1;

/// Has fields that are called like other things in sight, here and where they are handed over.
#[derive(Debug, gracepoint::Event)]
pub struct Called {
    /// One.
    pub lower: u8,
    /// Two.
    pub constant: u8,
    /// Three.
    pub in_parts: u8,
    /// Four.
    pub in_registers: u8,
    /// Five.
    pub words: u8,
    /// Six.
    pub event: u8,
}

/// Has a type that says `Self`.
#[derive(Debug, gracepoint::Event)]
pub struct Own {
    /// One.
    pub bytes: [u8; Self::N],
}

impl Own {
    const N: usize = 3;
}

/// Has a keyword for a name, and what is not copied.
#[derive(Debug, gracepoint::Event)]
pub struct Raw<'a> {
    /// One.
    pub r#type: &'a str,
    /// Two.
    pub n: &'a mut u64,
}

/// Sites of all of them.
pub fn sites(text: &str) {
    gracepoint::trace!(Called {
        lower,
        constant,
        in_parts: 3,
        in_registers: 4,
        words: 5,
        event: 6
    });
    gracepoint::trace!(Own { bytes: [1; Own::N] });
    gracepoint::trace!(Raw { r#type: text, n: &mut 3 });
    gracepoint::trace!(Private { text: text.to_owned() });
    gracepoint::trace!(Started);
}
