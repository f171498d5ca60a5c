//! [`Tracer`]: whose probes they are, and what is reported of them.

use crate::error::Error;
use crate::event::{Event, EventDesc};
use crate::tracepoint::{Tracepoint, Tracepoints};
use crate::tracer::{self, Candidate};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// An owner of probes.
///
/// What it owns: the probes that are attached through it, their names, failures and counts. Dropping it detaches
/// them all, in one batch and without waiting, so tests that run in parallel and each have a tracer of
/// their own leave nothing behind and do not see each other's probes, failures or counts.
/// What it does not: tracepoints, their sites and the calling order on them, hooks of
/// [`Tracepoint::on_use`], grace periods and sessions are the process's. A hit calls the probes of all tracers.
///
/// [`Tracer::global`] is the one behind `Get::tracepoint()`, and is never dropped.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// #[derive(gracepoint::Event)]
/// struct Tick { n: u32 }
///
/// let tracer = gracepoint::Tracer::new("test");
/// let probe = tracer.tracepoint::<Tick>().name("ticks").attach(|tick| assert!(tick.n < 10));
/// let probe = probe.expect("sites can be switched here");
/// gracepoint::trace!(Tick { n: 10 }); // panics in the probe, not here
/// assert!(!probe.is_attached());
/// assert_eq!(tracer.failures()[0].probe, "ticks");
/// # }
/// ```
pub struct Tracer {
    id: u64,
    name: String,
}

static GLOBAL: Tracer = Tracer { id: 0, name: String::new() };

impl Tracer {
    /// A tracer of one's own. The name is for reports.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Tracer {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Tracer { id: NEXT.fetch_add(1, Relaxed), name: name.into() }
    }

    /// The process's default tracer.
    #[must_use]
    pub fn global() -> &'static Tracer {
        &GLOBAL
    }

    /// The name that it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The tracepoint of `E`, to attach probes that this tracer owns.
    pub fn tracepoint<E: Event>(&self) -> Tracepoint<'_, E> {
        Tracepoint::new(self)
    }

    /// All tracepoints whose name matches a pattern as of `gracepoint record -e`: `kv:*`.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// let none = gracepoint::Tracer::global().tracepoints("nothing:*").attach(|_| {});
    /// assert_eq!(none.expect_err("no such event").kind(), gracepoint::ErrorKind::NoMatch);
    /// # }
    /// ```
    pub fn tracepoints(
        &self,
        glob: impl Into<String>,
    ) -> Tracepoints<'_, impl FnMut(&EventDesc, &str) -> bool> {
        let glob = glob.into();
        Tracepoints::new(self, move |_: &EventDesc, name: &str| {
            gracepoint_wire::glob::matches(&glob, name)
        })
    }

    /// All tracepoints that the predicate accepts.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// #[derive(gracepoint::Event)]
    /// struct Sent { bytes: u64 }
    ///
    /// let sized = gracepoint::Tracer::global()
    ///     .tracepoints_where(|desc| desc.fields.iter().any(|field| field.name == "bytes"))
    ///     .attach(|view| println!("{:?}", view.get("bytes")));
    /// gracepoint::trace!(Sent { bytes: 1 });
    /// # drop(sized.expect("sites can be switched here"));
    /// # }
    /// ```
    pub fn tracepoints_where(
        &self,
        mut accepts: impl FnMut(&EventDesc) -> bool,
    ) -> Tracepoints<'_, impl FnMut(&EventDesc, &str) -> bool> {
        Tracepoints::new(self, move |desc: &EventDesc, _: &str| accepts(desc))
    }

    /// The candidates that `matches` accepts. The predicate is the program's code: it runs under no lock.
    pub(crate) fn select(
        &self,
        matches: &mut dyn FnMut(&EventDesc, &str) -> bool,
    ) -> Result<Vec<Candidate>, Error> {
        let mut found = tracer::candidates()?;
        found.retain(|candidate| matches(candidate.key.desc, &candidate.name));
        if found.is_empty() {
            let text = "no tracepoint of this program matches";
            return Err(Error::new(crate::ErrorKind::NoMatch, text));
        }
        Ok(found)
    }

    /// Probes that have panicked, the oldest first; at most the last 64.
    ///
    /// The panic itself was printed by the program's panic hook, unless it has replaced that.
    #[must_use]
    pub fn failures(&self) -> Vec<ProbeFailure> {
        tracer::failures(self.id)
    }

    /// A function that is told of each probe that has panicked, once, on the callback thread. It replaces the
    /// one before. [`failures`](Self::failures) has them in any case.
    ///
    /// ```
    /// gracepoint::Tracer::global().on_failure(|failure| eprintln!("{failure}"));
    /// ```
    pub fn on_failure(&self, tell: impl Fn(&ProbeFailure) + Send + Sync + 'static) {
        tracer::on_failure(self.id, Box::new(tell));
    }

    /// Threads that something detached waits for, and what they are running there. Of the whole process:
    /// memory that this tracer has given up may wait for another's probe.
    ///
    /// ```
    /// for stall in gracepoint::Tracer::global().stalls() {
    ///     println!("{stall}");
    /// }
    /// ```
    #[must_use]
    pub fn stalls(&self) -> Vec<Stall> {
        tracer::stalls()
    }

    /// Counts.
    ///
    /// ```
    /// let statistics = gracepoint::Tracer::global().statistics();
    /// println!("{} bytes wait for a grace period", statistics.waiting_bytes);
    /// ```
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        tracer::statistics(self.id)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        tracer::remove_all(self.id);
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A probe that panicked and was detached for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeFailure {
    /// The probe's name; empty without.
    pub probe: String,
    /// The event that it was called for.
    pub tracepoint: String,
    /// The panic's message.
    pub message: String,
}

/// For people: `probe "misses" of kv:get panicked and is detached: …`.
impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { probe, tracepoint, message } = self;
        write!(f, "probe {probe:?} of {tracepoint} panicked and is detached: {message}")
    }
}

/// A thread inside a read section that a grace period waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The thread, as the read sections know it: `thread 4242 (worker-3) is inside 1 read section …`.
    pub holdout: String,
    /// The kernel's number of the thread; `None` for threads without an index.
    pub tid: Option<u32>,
    /// It has been inside for at least so long: since a grace period first waited for it. `None` where that
    /// is not known (yet).
    pub seen: Option<Duration>,
    /// The user probes that it is running, innermost first, as (name, tracepoint). A session's writer is none.
    pub probes: Vec<(String, String)>,
}

/// For people: the holdout, then `, for at least 2.5s, running probe "slow" of kv:get`.
impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.holdout)?;
        if let Some(seen) = self.seen {
            write!(f, ", for at least {seen:.1?}")?;
        }
        for (probe, tracepoint) in &self.probes {
            write!(f, ", running probe {probe:?} of {tracepoint}")?;
        }
        Ok(())
    }
}

/// What there is and what was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Probes of this tracer that are attached.
    pub attached: u64,
    /// Probes of this tracer that are detached and wait for hits under way.
    pub leaving: u64,
    /// Hits for which a probe of this tracer was not called: four were running on the thread.
    pub skipped: u64,
    /// Probes of this tracer that have panicked.
    pub failures: u64,
    /// Callbacks that wait for a grace period, on behalf of the process's probes.
    pub waiting_callbacks: u64,
    /// Bytes that they keep, but for what probes have allocated themselves.
    pub waiting_bytes: usize,
}
