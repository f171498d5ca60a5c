//! What crosses the line between a traced program and its tools.
//!
//! The runtime (`gracepoint`) and the tools (`gracepoint-analysis`, `gracepoint-cli`) never link
//! each other; they share this crate, and nothing in it has a side effect:
//!
//! | module | what it fixes |
//! |---|---|
//! | [`schema`] | event descriptions: names, field types, the schema hash |
//! | [`packet`] | CTF 1.8 packets and the 5-byte event header |
//! | [`arena`]  | the sealed memfd in which a session's packets lie |
//! | [`clock`]  | raw ticks and the triples that turn them into time |
//! | [`counters`] | the memory of a session that counts |
//! | [`control`] | the messages on the agent's socket |
//! | [`profile`] | records about the kernel's side that a recorder writes itself |
//! | [`flight`] | the files of a flight recorder |
//! | [`tsdl`]   | the trace's `metadata` file, as text |
//! | [`glob`]   | the pattern language of `-e` |
//!
//! Everything here is part of ABI 1, written down in `docs/abi.md`. Numbers are little-endian.
//! Decoders take bytes that a hostile peer may have chosen: they return errors, never panic, and
//! never allocate more than the input's own size asks for.
#![forbid(unsafe_code)]

pub mod arena;
pub mod clock;
pub mod control;
pub mod counters;
pub mod error;
pub mod flight;
pub mod glob;
pub mod packet;
pub mod profile;
pub mod schema;
mod tlv;
pub mod tsdl;

pub use error::{Error, Result};

/// Version of everything in this crate that two processes must agree on.
///
/// Peers whose major versions differ by at most one speak to each other; see [`control::Hello`].
pub const ABI_MAJOR: u16 = 1;
/// Grows with additions that an older peer may skip. 1: overwrite mode, contexts, limits, sessions that
/// are kept, modules. 2: functions. 4: programs that sample themselves. `docs/abi.md` lists them.
pub const ABI_MINOR: u16 = 4;

/// File name of the hidden description beside a trace's `metadata` (what TSDL cannot say).
pub const SIDECAR: &str = ".gracepoint.json";
