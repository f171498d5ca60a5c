//! Programs that use `tracing` or `log` become traceable with one line.
//!
//! ```
//! // As the program's only subscriber:
//! let started = gracepoint_tracing::init();
//! # assert!(started.is_ok(), "{started:?}");
//! ```
//!
//! Every `tracing` call site of the program and of its dependencies, and every `log` record, is then a
//! tracepoint `target:name` with a level, typed fields and its place in the source, which `gracepoint list`
//! shows and `gracepoint record -e 'hyper::*' --level debug` switches on from another terminal. An event that
//! the macro gave no name has the name of its file and its line: `hyper::proto::h1::conn:conn.rs:228`.
//! A call site that is off costs what it costs with no subscriber at all: its interest is `never`. So does a record of
//! `log` while nobody records anything, where the logger is ours: `log`'s maximum level is off then. While somebody
//! does, a record that is off costs a look-up, since `log` has no call sites that could be told; how targets that a
//! program makes up at run time are bounded: `records.rs`.
//!
//! Beside another subscriber, as a layer:
//!
//! ```
//! use tracing_subscriber::prelude::*;
//! let subscriber = tracing_subscriber::registry().with(gracepoint_tracing::layer());
//! # drop(subscriber);
//! ```
//!
//! # What is recorded
//! Integers, floats, truth values and text keep their types; what is recorded through `Debug` or `Display` is
//! rendered, cut at 1 KiB. Spans have a begin, an end, and for each time that a thread works in them an
//! enter and an exit (`gracepoint export` draws the polls of a task as slices of its threads); values that
//! are recorded later; and what they follow from. With the feature `opentelemetry`, and `tracing-opentelemetry`'s
//! layer in the same registry, events and begins of spans have the ids `otel_trace` and `otel_span` of the
//! span that they are in.
//! (A span begins in the one around it: its own ids are on what happens inside.)
//!
//! # When call sites are known
//! `tracing` tells of a call site when it is first hit, so `gracepoint list` has those that were hit since
//! this was installed. A recording under way takes later ones in, from their first hit on, if its patterns
//! match them. How none is lost: `sites.rs`.
//!
//! A place that makes records of `log` is known when it first makes one that comes to us: all do after [`init`], and
//! again after each `gracepoint list`, until 4,096 in a row have brought nothing new or a recording begins. So a place
//! that is missing in the list, because it made its first record between two of those times, is there in the list after
//! the next; and a recording has it without having been listed. The level that a program sets with
//! `log::set_max_level` stands while nobody records, and is what places are learnt up to; a recording raises it for
//! its time (`maximum.rs`).
//!
//! # The other direction
//! [`forward`] hands Gracepoint's own events to `tracing` or `log`.

#![forbid(unsafe_code)]

mod current;
mod forward;
mod layer;
mod maximum;
#[cfg(feature = "opentelemetry")]
mod otel;
mod records;
mod sites;
mod spans;
mod subscriber;
mod table;
mod tasks;
mod visit;

pub use forward::{Forward, Forwarding, forward};
pub use layer::{Installed, LayerOf, OnSites, layer};
pub use subscriber::Bridge;
pub use tracing_core::LevelFilter;

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use tracing_core::Dispatch;

/// Why the program cannot be traced.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The agent did not start; call sites are there, and stay off.
    Agent(String),
    /// The program has a subscriber already.
    Subscriber,
}

/// For people, with what to do.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Agent(why) => write!(f, "the program cannot be traced: {why}"),
            Error::Subscriber => f.write_str(
                "a global subscriber is installed already: give it our layer, \
                 `.with(gracepoint_tracing::layer())`, instead of calling `init`",
            ),
        }
    }
}

impl std::error::Error for Error {}

/// Makes the program traceable: installs a subscriber and a logger that hand everything to Gracepoint, and
/// starts the agent, as [`gracepoint::init`] does.
///
/// Where a logger is installed already, it stays, and `log` records are not bridged. Where there is none, `log`'s maximum
/// level is set from here on as recordings need it.
///
/// # Errors
/// [`Error::Subscriber`] if there is a global subscriber; [`Error::Agent`] as for [`gracepoint::init`]. The
/// program can go on in any case.
pub fn init() -> Result<gracepoint::Status, Error> {
    init_with(gracepoint::Builder::new())
}

/// The same, with settings of the agent.
///
/// ```
/// let started = gracepoint_tracing::init_with(gracepoint::Builder::new().name("kv"));
/// # drop(started);
/// ```
///
/// # Errors
/// As [`init`].
pub fn init_with(builder: gracepoint::Builder) -> Result<gracepoint::Status, Error> {
    if is_off() {
        return start(builder);
    }
    // Before the agent, which may wait for a recorder: what that asks for need not be there yet.
    sites::announce();
    let dispatch = Dispatch::new(Bridge::new());
    tracing_core::dispatcher::set_global_default(dispatch).map_err(|_| Error::Subscriber)?;
    records::install();
    start(builder)
}

/// Keeps track of spans up to this level from now on, though nobody records them, so that `gracepoint why` can name
/// tasks that are not polled: the spans that they are in, with fields, and since when; and polls that do not return.
/// [`gracepoint::Builder::watch`] does the same up to `INFO`. `OFF` ends it.
///
/// While it is on, call sites of these spans are on, too. A span takes 160 bytes while it is open, and its fields are
/// rendered at its begin (96 bytes of text); to enter and to leave it reads a clock each.
///
/// ```
/// use gracepoint_tracing::LevelFilter;
/// gracepoint_tracing::watch_spans(LevelFilter::DEBUG);
/// # gracepoint_tracing::watch_spans(LevelFilter::OFF);
/// ```
pub fn watch_spans(level: LevelFilter) {
    tasks::set_level(level);
    sites::follow();
}

/// Starts the agent, unless it runs.
fn start(builder: gracepoint::Builder) -> Result<gracepoint::Status, Error> {
    static FIRST: Mutex<Option<gracepoint::Status>> = Mutex::new(None);
    let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    match builder.start() {
        Ok(status) => Ok(first.insert(status).clone()),
        Err(error) if error.kind() == gracepoint::ErrorKind::AlreadyStarted => {
            // By us, or by the program itself.
            Ok(first.clone().unwrap_or(gracepoint::Status::Listening(std::path::PathBuf::new())))
        }
        Err(error) => Err(Error::Agent(error.to_string())),
    }
}

/// Whether the environment says `GRACEPOINT=off`.
fn is_off() -> bool {
    std::env::var_os("GRACEPOINT").is_some_and(|value| value == "off")
}
