//! Reads traces: decodes packets, merges streams by time, reports, counts, draws histograms.
//!
//! A trace is a directory: `metadata` (CTF 1.8's description language), any number of
//! `stream_<slot>` files, and the hidden sidecar `.gracepoint.json`. All of it was written by, or
//! on behalf of, a program that is not trusted: whatever the bytes are, nothing here panics or asks
//! for memory out of proportion, and a trace that is cut or damaged is read up to the damage, with
//! the rest reported as [`Damage`].
//!
//! | module | what it does |
//! |---|---|
//! | [`sidecar`] | reads and writes `.gracepoint.json` |
//! | [`metadata`] | reads the `metadata` file, back into the declarations that it was made from |
//! | [`trace`] | opens a directory: what is in it, what its clock means |
//! | [`read`] | events in order of time, one at a time |
//! | [`filter`], [`when`] | which of them: by name, thread, time, the last so many |
//! | [`value`] | what a field holds |
//! | [`report`] | events as lines of text or JSON |
//! | [`export`] | events and spans for Perfetto, Chrome and flame graphs |
//! | [`info`] | what a trace contains, counted without decoding values |
//! | [`live`] | events as they come, before there is a trace |
//! | [`spans`] | begin and end paired |
//! | [`profile`] | where the time went, by functions, threads and spans |
//! | [`slow`] | where the time of slow spans went |
//! | [`functions`] | calls: graph, table, names from an object's file |
//! | [`hints`] | what is missing in a trace, and what to do about that |
//! | [`hist`] | histogram of a field, or of the length of a span |
//! | [`hang`] | why a kernel is stuck, from the text of its log |
//! | [`why`] | why a program is stuck, from what it says or from its memory |
//! | [`stuck`] | the model of both: who waits for whom, and where that ends |
//!
//! ```
//! use gracepoint_analysis::{Trace, Value};
//!
//! # fn main() -> gracepoint_analysis::Result<()> {
//! let trace = Trace::open("tests/kv.trace")?;
//! let mut reader = trace.reader();
//! while let Some(event) = reader.next_event() {
//!     let key = event.kind.field("key").and_then(|index| event.value(index));
//!     if let Some(Value::Text(key)) = key {
//!         assert!(key.to_string_lossy().starts_with("key-"), "in {} at {}", event.name(), event.ns);
//!     }
//! }
//! assert!(reader.damage().is_empty());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod damage;
pub mod error;
mod escape;
pub mod export;
pub mod filter;
pub mod functions;
pub mod hang;
pub mod hints;
pub mod hist;
pub mod info;
pub mod live;
pub mod metadata;
mod plan;
pub mod profile;
pub mod read;
pub mod report;
pub mod sidecar;
pub mod slow;
pub mod spans;
mod stream;
pub mod stuck;
pub mod tally;
pub mod trace;
pub mod value;
pub mod when;
pub mod why;

pub use damage::Damage;
pub use error::{Error, Result};
pub use trace::{EventType, Trace};
pub use value::Value;
