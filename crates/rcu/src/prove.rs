//! [`Domain::prove`]: mistakes that a domain cannot prevent, found while the program runs.
//!
//! A mode for tests and for hunting. While it is on, sections are noted as they are entered and left (`sites`), and
//! addresses that are retired are kept in a list until they are freed. What it finds are values
//! ([`Finding`]), fetched by [`Domain::findings`]; nothing is printed and nothing panics.
//!
//! What *the same value retired twice* can mean. A value that is retired by itself ([`Domain::retire`]) is
//! moved, so safe code cannot retire it again; two clones of an `Arc` are two values, and right.
//! It can happen to what is behind a pointer: two updaters both take the same node out, by a load
//! and a store where it should have been a `swap`, and both hand it on. So what is checked is
//! [`Domain::retire_ptr`], by address, from when it is called until the value is freed. (Afterwards the allocator may
//! give the address to another value.) The second call is then reported and does nothing else, so that
//! the program lives to tell. [`RcuCell`](crate::RcuCell) goes this way too.

use crate::clock;
use crate::domain::Domain;
use crate::holdouts::{Holdout, Sightings, holdout};
use crate::region::{Reader, Region};
use crate::sites;
use crate::stall::{self, Entered};
use crate::threads;
use crate::trylock::TryLock;
use crate::watch;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// What [`Domain::prove`] looks for.
///
/// ```
/// use gracepoint_rcu::Checks;
///
/// let checks = Checks::default().sections_shorter_than(std::time::Duration::from_millis(50));
/// # let _ = checks;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Checks {
    /// How long a thread, or an owner, may be inside. 1 s unless changed.
    pub longest_section: Duration,
}

impl Default for Checks {
    fn default() -> Self {
        Self { longest_section: Duration::from_secs(1) }
    }
}

impl Checks {
    /// Changes how long a section may last.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let checks = gracepoint_rcu::Checks::default().sections_shorter_than(Duration::from_millis(5));
    /// assert_eq!(checks.longest_section, Duration::from_millis(5));
    /// ```
    #[must_use]
    pub fn sections_shorter_than(mut self, longest: Duration) -> Self {
        self.longest_section = longest;
        self
    }
}

/// A mistake that was found. Each is reported once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A thread ended inside: it leaked its guard, and its section never ends.
    LeakedGuard {
        /// The thread that was.
        reader: Holdout,
        /// Where it entered, if that was while the domain was proven.
        entered: Option<Entered>,
    },
    /// A reader has been inside for too long.
    HeldTooLong {
        /// Who. With no sections open if it has left by now; then with no name if its thread has ended.
        reader: Holdout,
        /// For how long without a break, so far. Of an owner, since it was first seen.
        held: Duration,
        /// How long it may.
        limit: Duration,
        /// Where it entered.
        entered: Option<Entered>,
    },
    /// [`Domain::retire_ptr`] was called with an address that it had been called with before, and whose
    /// value is not freed yet.
    RetiredTwice {
        /// The address.
        address: usize,
        /// The call that will free it.
        first: &'static Location<'static>,
        /// The call that would have freed it again.
        second: &'static Location<'static>,
    },
}

/// For people.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entered = match self {
            Self::LeakedGuard { reader, entered } => {
                write!(f, "a guard was leaked: {reader}")?;
                entered
            }
            Self::HeldTooLong { reader, held, limit, entered } => {
                write!(f, "a section lasts too long ({held:.1?}, and {limit:.1?} is the limit): ")?;
                if reader.sections != 0 || reader.thread.is_none() {
                    write!(f, "{reader}")?;
                } else if let Some(thread) = reader.thread {
                    write!(f, "thread {} ({}) was inside", thread.tid, thread.name)?;
                }
                entered
            }
            Self::RetiredTwice { address, first, second } => {
                return write!(f, "{address:#x} is retired at {second}, and was at {first}");
            }
        };
        match entered {
            Some(entered) => write!(f, ", entered at {}", entered.at),
            None => Ok(()),
        }
    }
}

/// The state of a domain that is being proven.
#[derive(Debug)]
pub(crate) struct Prover {
    state: TryLock<State>,
}

#[derive(Debug)]
struct State {
    checks: Checks,
    sightings: Sightings,
    /// What is retired and not freed, and where that was said.
    retired: BTreeMap<usize, &'static Location<'static>>,
    found: Vec<Finding>,
}

impl State {
    const fn new() -> Self {
        Self {
            checks: Checks { longest_section: Duration::from_secs(1) },
            sightings: Sightings::new(),
            retired: BTreeMap::new(),
            found: Vec::new(),
        }
    }
}

impl Prover {
    pub(crate) const fn new() -> Self {
        Self { state: TryLock::new(State::new()) }
    }

    /// For the next domain of the region.
    pub(crate) fn clear(&self, me: usize) {
        if let Some(mut state) = self.state.try_lock(me) {
            state.with(|state| *state = State::new());
        }
    }

    pub(crate) fn child_after_fork(&self, me: usize) {
        watch::begin_anew(&self.state, State::new(), me);
    }

    /// An address is retired. False if it is already.
    fn retire(&self, address: usize, second: &'static Location<'static>) -> bool {
        let fresh = watch::with(&self.state, |state| match state.retired.get(&address) {
            Some(first) => {
                let first = *first;
                state.found.push(Finding::RetiredTwice { address, first, second });
                false
            }
            None => state.retired.insert(address, second).is_none(),
        });
        fresh.unwrap_or(true)
    }

    /// The value at this address is about to be freed.
    fn free(&self, address: usize) {
        watch::with(&self.state, |state| state.retired.remove(&address));
    }
}

/// A value behind a pointer that readers may still refer to, to be dropped when none can.
///
/// A pointer and not a box, because a box that is moved claims that nobody else has a
/// reference to what is in it, and readers may have.
struct Retired<T> {
    value: *mut T,
    /// Whose list it is in.
    listed: Option<&'static Region>,
}

// SAFETY: it owns the value (`Domain::retire_ptr`'s contract), so sending it sends a `T`; that
// readers may share it meanwhile is for that contract too.
unsafe impl<T: Send> Send for Retired<T> {}

impl<T> Drop for Retired<T> {
    fn drop(&mut self) {
        // First: once it is freed, the address may be that of another value, which is retired in turn.
        if let Some(region) = self.listed {
            region.prover.free(self.value.addr());
        }
        // SAFETY: from `Box::into_raw` and ours since `retire_ptr`, by its contract; dropped by the
        // domain's callback: after the grace period, so no reference is left.
        drop(unsafe { Box::from_raw(self.value) });
    }
}

impl Domain {
    /// Drops and frees what is at `value` after a grace period. Like [`retire`](Self::retire), for what
    /// readers find behind a pointer.
    ///
    /// Allocates now and then; never waits. Inside of sections too, and from `Drop`; not in signal handlers.
    ///
    /// # Safety
    /// `value` came from [`Box::into_raw`]; nothing takes it from where readers find it any more, nobody else
    /// frees it or retires it, and it is used only by readers in sections of this domain that were entered
    /// before it was removed. If those are on other threads, `T` is `Sync`.
    ///
    /// While the domain is [proven](Self::prove), a second call with the same address is reported and does nothing.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use std::sync::atomic::{AtomicPtr, Ordering};
    ///
    /// static CONFIG: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());
    ///
    /// for text in ["one", "two"] {
    ///     let new = Box::into_raw(Box::new(text.to_owned()));
    ///     let old = CONFIG.swap(new, Ordering::AcqRel);
    ///     if !old.is_null() {
    ///         // SAFETY: from Box::into_raw above; the swap removed it, for one caller alone.
    ///         unsafe { DOMAIN.retire_ptr(old) };
    ///     }
    /// }
    /// DOMAIN.barrier().expect("not inside a section");
    /// ```
    #[track_caller]
    pub unsafe fn retire_ptr<T: Send + 'static>(&self, value: *mut T) {
        let region = self.region();
        // Values without a size have no address of their own.
        let listed = (region.sites.is_proving() && size_of::<T>() != 0).then_some(region);
        let here = Location::caller();
        if listed.is_none_or(|region| region.prover.retire(value.addr(), here)) {
            let retired = Retired { value, listed };
            self.call(move || drop(retired));
        }
    }

    /// Switches on checks of how this domain is used, for debugging: leaked guards, sections that last too long,
    /// pointers that are retired twice. [`findings`](Self::findings) tells what they find.
    ///
    /// Sections then cost what they cost with [`note_call_sites`](Self::note_call_sites), and `retire_ptr` takes a
    /// lock. Sections that are open already, and what is retired already, are not checked. Call
    /// it again to change the limits.
    ///
    /// ```
    /// use gracepoint_rcu::{Checks, Domain, Finding};
    ///
    /// let domain = Domain::new("doc");
    /// domain.prove(Checks::default());
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| std::mem::forget(domain.read())).join().expect("it ends");
    /// });
    /// let findings = domain.findings();
    /// assert!(matches!(findings[..], [Finding::LeakedGuard { .. }]), "{findings:?}");
    /// println!("{}", findings[0]);
    /// ```
    pub fn prove(&self, checks: Checks) {
        let region = self.region();
        watch::with(&region.prover.state, |state| state.checks = checks);
        region.sites.want(sites::PROVING, true);
        self.keep_off_fast_path();
    }

    /// Switches the checks of [`prove`](Self::prove) off. What was found is kept.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.prove(gracepoint_rcu::Checks::default());
    /// DOMAIN.stop_proving();
    /// ```
    pub fn stop_proving(&self) {
        self.region().sites.want(sites::PROVING, false);
    }

    /// What the checks of [`prove`](Self::prove) have found since this was last called; it looks at all
    /// readers first. Empty if the domain is not being proven. Allocates.
    ///
    /// An owner's sections are timed from when a call of this saw them first. The example is at
    /// [`prove`](Self::prove).
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let region = self.region();
        let now = clock::now();
        let mut found = Vec::new();
        if !region.sites.is_proving() {
            return watch::with(&region.prover.state, |state| std::mem::take(&mut state.found))
                .unwrap_or_default();
        }
        watch::with(&region.prover.state, |state| {
            found = std::mem::take(&mut state.found);
            let limit = state.checks.longest_section;
            state.sightings.look(region, now, |reader, rank, sections, sighting| {
                if sighting.told {
                    return;
                }
                let finding =
                    self.examine(region, reader, rank, now, limit, sections, sighting.since);
                sighting.told = finding.is_some();
                found.extend(finding);
            });
            found.extend(self.overlong_stays(region, limit));
        });
        found
    }

    /// A reader that has sections open.
    #[allow(clippy::too_many_arguments, reason = "what one look at a reader yields")]
    fn examine(
        &self,
        region: &Region,
        reader: Reader<'_>,
        rank: usize,
        now: u64,
        limit: Duration,
        sections: u64,
        since: u64,
    ) -> Option<Finding> {
        let entered = stall::entered(region, reader, rank, now);
        let seen = Duration::from_nanos(now.saturating_sub(since));
        let held = entered.and_then(|entered| entered.ago).unwrap_or(seen);
        let reader = holdout(self.name(), region, reader, rank, sections);
        if reader.thread.is_some_and(|thread| thread.ended) {
            Some(Finding::LeakedGuard { reader, entered })
        } else if held > limit {
            Some(Finding::HeldTooLong { reader, held, limit, entered })
        } else {
            None
        }
    }

    /// Stays that have ended.
    fn overlong_stays(&self, region: &Region, limit: Duration) -> Vec<Finding> {
        let finding = |index: u32| {
            let stay = region.sites.take_longest(index)?;
            let held = Duration::from_nanos(stay.length);
            let mut reader = holdout(self.name(), region, Reader::Thread(index), 0, 0);
            // The index may have gone to another thread.
            reader.thread = reader.thread.filter(|thread| thread.tid == stay.tid);
            let entered = stay.location.map(|at| Entered { at, ago: None });
            (held > limit).then_some(Finding::HeldTooLong { reader, held, limit, entered })
        };
        (0..threads::high_water()).filter_map(finding).collect()
    }
}
