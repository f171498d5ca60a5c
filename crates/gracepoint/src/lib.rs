//! Tracepoints that a program carries in production for nothing, and that anyone allowed to can
//! switch on while it runs.
//!
//! Declare an event, put `trace!` where it happens, start the agent:
//!
//! ```
//! /// A key was looked up.
//! #[derive(gracepoint::Event)]
//! #[event(name = "kv:get")]
//! pub struct Get<'a> {
//!     /// The key as the client sent it.
//!     pub key: &'a str,
//!     pub hit: bool,
//! }
//!
//! fn get(key: &str) -> Option<u64> {
//!     let found = key.parse().ok();
//!     gracepoint::trace!(Get { key, hit: found.is_some() });
//!     found
//! }
//!
//! fn main() {
//!     if let Err(error) = gracepoint::init() {
//!         eprintln!("{error}"); // the program goes on, untraced
//!     }
//!     get("17");
//! }
//! ```
//!
//! Then, from another terminal: `gracepoint list -p PID`, `gracepoint record -p PID`, `gracepoint
//! report DIR`. The fields are evaluated only while somebody records the event; while nobody does,
//! the site is one 5-byte NOP (x86-64 Linux), or a load and a branch (other Linux, or built
//! with `GRACEPOINT_PATCH=branch` in the environment). On other systems, and with the feature
//! `off`, the macros type-check and do nothing.
//!
//! # Probes in the program
//! A [`Tracepoint`] calls closures of the program itself, without an agent or a recorder:
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! # #[derive(gracepoint::Event)]
//! # pub struct Get<'a> { pub key: &'a str, pub hit: bool }
//! let probe = Get::tracepoint().attach(|get: &Get<'_>| {
//!     if !get.hit {
//!         println!("no {}", get.key);
//!     }
//! }).expect("sites can be switched here");
//! gracepoint::trace!(Get { key: "17", hit: false });
//! probe.detach(); // as dropping it does; never waits for a hit under way
//! # }
//! ```
//!
//! [`Tracepoint`] says where a probe runs and what it may do, [`Probe`] how it ends, [`Tracer`] whose
//! it is, [`View`] what one probe on many tracepoints sees.
//!
//! # Environment
//! | variable | effect |
//! |---|---|
//! | `GRACEPOINT=off` | [`init`] does nothing |
//! | `GRACEPOINT_DIR` | directory of the agent's socket; must be the user's own, mode 0700 |
//! | `GRACEPOINT_PATCH=text` (or `mem`, `branch`) | insists on one way to switch sites, of those that the build has; see [`patching`] |
//! | `GRACEPOINT_RCU=fence` | grace periods work by fences on both sides, as where the kernel has no `membarrier` |
//! | `GRACEPOINT_RECORDER` | set by `gracepoint record -- CMD`: [`init`] waits up to 1 s for it |
//! | `GRACEPOINT_FLIGHT` | directory (on tmpfs, such as `/dev/shm/kv`) of a flight recorder: [`init`] begins to record into a file there, takes 10 ms more, and `gracepoint recover DIR` makes a trace of it, however the program ended; the directory must be the user's own, mode 0700, and is made if need be |
//! | `GRACEPOINT_FLIGHT_EVENTS` | which events, as patterns with commas between: `kv:*,http:*`; all by default |
//! | `GRACEPOINT_FLIGHT_SIZE` | size of that file, `16M` by default |
//!
//! All of it is ignored in programs that run with more rights than their caller.

#![cfg_attr(
    not(gp_supported),
    allow(dead_code, reason = "without support the macros type-check and nothing calls the rest")
)]

#[cfg(gp_supported)]
mod agent;
mod arch;
#[cfg(gp_supported)]
mod clock;
#[cfg(gp_supported)]
mod context;
#[cfg(gp_supported)]
mod drive;
pub mod dynamic;
mod error;
pub mod event;
pub mod field;
#[cfg(gp_supported)]
mod flight;
#[cfg_attr(not(gp_supported), path = "function/absent.rs")]
mod function;
mod grace;
mod hooks;
mod key;
#[cfg(gp_supported)]
mod limit;
mod macros;
#[cfg(gp_supported)]
mod module;
#[cfg(gp_supported)]
mod own_stack;
mod owner;
#[cfg(gp_supported)]
mod patch;
mod perf;
mod probe;
#[cfg(gp_supported)]
mod ring;
mod running;
#[cfg(gp_supported)]
mod sampler;
#[cfg(gp_supported)]
mod session;
mod site;
mod span;
#[cfg(gp_supported)]
mod start;
#[cfg(gp_supported)]
mod sys;
pub mod testing;
#[cfg(gp_supported)]
mod toggle;
mod tracepoint;
#[cfg_attr(not(gp_supported), path = "tracer/absent.rs")]
mod tracer;
mod view;
#[cfg(gp_supported)]
mod why;

pub use error::{Error, ErrorKind};
#[doc(inline)]
pub use event::Event;
#[doc(inline)]
pub use field::Field;
pub use function::{
    FunctionCall, FunctionFilter, FunctionOps, FunctionSet, RegisteredOps, StaticFunctionOps,
    function_name, missed_function_hits,
};
pub use grace::rcu_events;
pub use gracepoint_macros::{Event, Field, function, functions};
pub use hooks::UseHook;
pub use owner::{ProbeFailure, Stall, Statistics, Tracer};
pub use perf::{PerfAttr, PerfCount, PerfEvent, PerfGroup, PerfRing, PerfSample, SystemEvent};
pub use probe::{Detached, Probe};
pub use span::Span;
pub use tracepoint::{Moment, Tracepoint, Tracepoints};
pub use view::{HitKind, Numbers, Value, View};

use std::path::PathBuf;

/// What [`init`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The agent listens on this socket.
    Listening(PathBuf),
    /// The environment says `GRACEPOINT=off`.
    Off,
    /// This system, or this build of the program, has no tracing.
    Unsupported,
}

/// Starts the agent with the defaults of [`Builder`].
///
/// Returns when the program can be traced. If `gracepoint record -- CMD` launched the program,
/// waits at most 1 s for that recorder to come, and until it has switched its events on.
///
/// Call it in the process that is to be traced, after it has become a daemon: the agent's thread
/// does not survive `fork`, and code that closes all descriptors of the process closes the agent's.
/// Either may call `init` again.
///
/// # Errors
/// See [`ErrorKind`]. The program can go on; its tracepoints stay off.
///
/// ```
/// match gracepoint::init() {
///     Ok(status) => println!("{status:?}"),
///     Err(error) => eprintln!("{error}"),
/// }
/// ```
pub fn init() -> Result<Status, Error> {
    Builder::new().start()
}

/// How this program's sites are switched.
///
/// | | |
/// |---|---|
/// | `text` | code is patched; its pages are writable for that moment |
/// | `mem` | code is patched through `/proc/self/mem`, where W^X policy refuses `text` |
/// | `refused` | code would have to be patched and the system refuses all ways; build with `GRACEPOINT_PATCH=branch` |
/// | `branch` | a load and a branch, by choice of the build or of the architecture |
/// | `none` | not at all: another system, or the feature `off` |
///
/// ```
/// assert!(["text", "mem", "refused", "branch", "none"].contains(&gracepoint::patching()));
/// ```
pub fn patching() -> &'static str {
    #[cfg(gp_supported)]
    return tracer::patching();
    #[cfg(not(gp_supported))]
    return "none";
}

/// Settings of the agent.
///
/// ```
/// let status = gracepoint::Builder::new()
///     .name("kv-server")
///     .directory(std::env::temp_dir().join(format!("gp-doc-{}", std::process::id())))
///     .most_memory(64 << 20)
///     .start();
/// # assert!(status.is_ok(), "{status:?}");
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens before `start`"]
pub struct Builder {
    name: Option<String>,
    directory: Option<PathBuf>,
    most_memory: Option<u64>,
    log: Option<fn(&str)>,
    sensitive: bool,
    watch: Option<std::time::Duration>,
}

impl Builder {
    /// The defaults: the executable's name; `$GRACEPOINT_DIR`, else `$XDG_RUNTIME_DIR/gracepoint`,
    /// else `/tmp/gracepoint-UID`; at most 1 GiB of buffers for one session.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// The program's name in `gracepoint ps` and for `--name`.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Where the socket lies. Tools look there only if `GRACEPOINT_DIR` or `-p PID` leads them.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.directory = Some(directory.into());
        self
    }

    /// Whether fields marked `#[event(sensitive)]` are recorded. By default they are masked: a record
    /// says that there is such a field, and nothing about its value.
    pub fn allow_sensitive(mut self, yes: bool) -> Builder {
        self.sensitive = yes;
        self
    }

    /// Most bytes of buffers that one session may ask for.
    pub fn most_memory(mut self, bytes: u64) -> Builder {
        self.most_memory = Some(bytes);
        self
    }

    /// Tells `log`, a sentence at a time, who makes, takes over, starts, stops and ends sessions of this
    /// program: `session 1 (main) made by pid 4242 (uid 1000)`. It is called on the agent's thread, which
    /// serves nobody meanwhile. `gracepoint show` tells the latest of it in any case.
    ///
    /// ```
    /// let builder = gracepoint::Builder::new().log(|what| eprintln!("tracing: {what}"));
    /// # drop(builder);
    /// ```
    pub fn log(mut self, log: fn(&str)) -> Builder {
        self.log = Some(log);
        self
    }

    /// Writes a report to the log ([`log`](Self::log), and `gracepoint show --log`) when a grace period of any
    /// domain of the program is older than `threshold`, a callback runs for longer, or callbacks wait for
    /// longer; again when it is twice as old, and at most one report a second. The agent's thread looks:
    /// twice per threshold, but not more often than each millisecond and not less than each second.
    ///
    /// With `gracepoint-tracing`, spans up to the level `INFO` are kept track of from then on, so that `gracepoint why`
    /// names tasks that are not polled (`gracepoint_tracing::watch_spans` has other levels).
    ///
    /// ```
    /// use std::time::Duration;
    /// let builder = gracepoint::Builder::new()
    ///     .log(|what| eprintln!("tracing: {what}"))
    ///     .watch(Duration::from_secs(10));
    /// # drop(builder);
    /// ```
    pub fn watch(mut self, threshold: std::time::Duration) -> Builder {
        self.watch = Some(threshold);
        self
    }

    /// Starts the agent; see [`init`].
    ///
    /// # Errors
    /// As [`init`].
    pub fn start(self) -> Result<Status, Error> {
        #[cfg(gp_supported)]
        return start::start(start::Options {
            name: self.name,
            directory: self.directory,
            most_bytes: self.most_memory.unwrap_or(1 << 30),
            hook: self.log,
            sensitive: self.sensitive,
            watch: self.watch,
        })
        .map(|path| path.map_or(Status::Off, Status::Listening));
        #[cfg(not(gp_supported))]
        return Ok(Status::Unsupported);
    }
}

#[cfg(gp_supported)]
fn glob_any(globs: &[String], name: &str) -> bool {
    globs.iter().any(|glob| gracepoint_wire::glob::matches(glob, name))
}

/// What the macros expand to. Not for use by hand: no stability but ABI 1's.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::{Event, EventDesc, FieldDesc};
    pub use crate::field::{Field, Text, TypeDesc};
    pub use crate::function::{Call, Point};
    pub use crate::key::{Key, emit, emit_here, emit_quickly};
    #[cfg(gp_supported)]
    pub use crate::module::{gp1_load_module, gp1_unload_module};
    pub use crate::site::{Site, SiteKind};
    #[cfg(gp_supported)]
    pub use crate::toggle::{Policy, Probes};

    /// Calls it. A closure that is handed to somebody who calls it once may give away what it has captured: a function's result may
    /// borrow from its arguments.
    #[inline(always)]
    pub fn once<R>(body: impl FnOnce() -> R) -> R {
        body()
    }

    /// The counter that ticks are read from where the kernel trusts it, for the benchmarks' floor; 0
    /// on machines without.
    #[inline(always)]
    pub fn counter() -> u64 {
        #[cfg(gp_supported)]
        return crate::arch::local::counter();
        #[cfg(not(gp_supported))]
        return 0;
    }

    /// Switches the sites of the events that `glob` matches, without probes: what a hit then finds
    /// is nothing. For tests and benchmarks of patching alone.
    ///
    /// # Errors
    /// Why the system refuses.
    pub fn switch_sites(glob: &str, on: bool) -> Result<(), String> {
        #[cfg(gp_supported)]
        return crate::tracer::switch_sites(glob, on).map_err(|error| error.to_string());
        #[cfg(not(gp_supported))]
        return Err(format!("no tracing here, so {glob} stays as it is ({on})"));
    }

    /// The switch of a site that loads and branches.
    #[cfg(all(gp_supported, gp_branch))]
    #[inline(always)]
    pub fn is_on(site: &Site) -> bool {
        site.key().is_on()
    }
}
