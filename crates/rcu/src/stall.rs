//! [`Stall`]: a grace period that does not end, as a value.
//!
//! Fields are for programs; `Display` is for people. [`Stall::links`] is the chain of who waits for whom,
//! as the edges of a graph: what waits → the grace period → the readers that it waits for. Waiters and readers have the
//! kernel's number for their thread, so that chains of several domains, or with other locks, can be
//! joined.

use crate::arch;
use crate::backtrace;
use crate::barrier;
use crate::clock;
use crate::counters::RANKS;
use crate::domain::Domain;
use crate::grace;
use crate::holdouts::{Holdout, Sightings, holdout};
use crate::kernel_state::KernelState;
use crate::region::{Reader, Region};
use crate::running::RunningCallback;
use crate::sites;
use crate::threads::{self, ThreadInfo};
use crate::waiters::{WaitCall, WaitKind};
use crate::wakers::RUNNER;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// A grace period, by its domain and its number there. (A domain that is not a `static` may go on with
/// the numbers of one that was dropped.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct GracePeriod {
    /// The domain's name.
    pub domain: &'static str,
    /// Which of its grace periods.
    pub number: u64,
}

/// How far a grace period has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It waits for sections that were entered before the last but one changed the active rank: stragglers.
    FirstScan,
    /// New sections go to the other rank; it waits for those that were open when it began.
    SecondScan,
}

/// A grace period that is running and has not ended, and everybody who is involved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The grace period.
    pub grace_period: GracePeriod,
    /// How far it has come.
    pub phase: Phase,
    /// How long it has been running: since a driver first left it unfinished.
    pub age: Duration,
    /// Threads that wait for it, or for the next one.
    pub waiters: Vec<Waiter>,
    /// Futures that wait, of which no thread is known.
    pub async_waiters: usize,
    /// The same by what they wait for.
    pub futures: HeldFutures,
    /// Callbacks that wait.
    pub callbacks: HeldCallbacks,
    /// Whom it waits for. Empty if they left while this was looked at.
    pub culprits: Vec<Culprit>,
    /// The system refuses `membarrier`, which it had when the program started (a seccomp filter since then).
    /// Then no grace period ends, whoever reads.
    pub barrier_refused: bool,
}

/// A thread that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// The thread's index.
    pub index: u32,
    /// The thread.
    pub thread: ThreadInfo,
    /// What it waits for.
    pub kind: WaitKind,
    /// What it called.
    pub call: WaitCall,
    /// For how long it has been waiting.
    pub waited: Duration,
    /// The grace period that it waits for: the one that runs, or the one after.
    pub grace_period: GracePeriod,
}

/// Callbacks that have not run, and wait for the running grace period or for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldCallbacks {
    /// How many.
    pub number: usize,
    /// The oldest has waited at least this long, if there is any.
    pub oldest: Option<Duration>,
    /// Some wait for the grace period that runs.
    pub for_running: bool,
    /// Some were queued after it had begun, and wait for the next. (Those of neither kind could run, if
    /// somebody ran them.)
    pub for_next: bool,
}

/// How many futures wait, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldFutures {
    /// For the grace period that runs. (All of them, if their list was in use when this was looked at.)
    pub for_running: usize,
    /// For the next.
    pub for_next: usize,
    /// For callbacks that another thread is running.
    pub for_callbacks: usize,
}

/// A reader that the grace period waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Culprit {
    /// Who it is, and how many sections it has open.
    pub reader: Holdout,
    /// How long ago its oldest open section was first seen by a driver.
    pub seen: Duration,
    /// Where and when it entered, if sections are noted; see [`Domain::note_call_sites`].
    pub entered: Option<Entered>,
    /// What the kernel says of the thread now, if it is known and can be asked.
    pub kernel: Option<KernelState>,
    /// Addresses of the thread's calls, the innermost first, if it was asked for them; see
    /// [`backtraces_by_signal`](crate::backtraces_by_signal).
    pub backtrace: Option<Vec<usize>>,
}

/// Where a read section was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entered {
    /// The call of `read`. Of an owner, its latest.
    pub at: &'static Location<'static>,
    /// How long ago; not known of owners and of unregistered threads.
    pub ago: Option<Duration>,
}

/// An edge of the graph of who waits for whom.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Link<'s> {
    /// Who waits.
    pub from: Node<'s>,
    /// For whom, or for what.
    pub to: Node<'s>,
}

/// A node of that graph.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Node<'s> {
    /// A thread that waits.
    Waiter(&'s Waiter),
    /// So many futures that wait.
    Futures(usize),
    /// Callbacks that wait.
    Callbacks(&'s HeldCallbacks),
    /// A grace period.
    GracePeriod(GracePeriod),
    /// A reader, for whom it waits.
    Reader(&'s Culprit),
    /// A callback that runs, for which those behind it wait.
    Running(&'s RunningCallback),
}

impl Stall {
    /// Who waits for whom: waiters, futures and callbacks for a grace period, each for its own; the next grace period for
    /// the running one, and that for readers.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use gracepoint_rcu::Node;
    ///
    /// let guard = DOMAIN.read();
    /// let _cookie = DOMAIN.start_poll();
    /// while DOMAIN.poll() == gracepoint_rcu::Progress::Advanced {}
    /// for stall in DOMAIN.stalls() {
    ///     for link in stall.links() {
    ///         if let Node::Reader(culprit) = link.to {
    ///             println!("{:?} waits for {}", link.from, culprit.reader);
    ///         }
    ///     }
    /// }
    /// # drop(guard);
    /// ```
    #[must_use]
    pub fn links(&self) -> Vec<Link<'_>> {
        let running = Node::GracePeriod(self.grace_period);
        let next = GracePeriod { number: self.grace_period.number + 1, ..self.grace_period };
        let mut links = Vec::new();
        let mut link = |from, to| links.push(Link { from, to });
        let callbacks = Node::Callbacks(&self.callbacks);
        for waiter in &self.waiters {
            let to = match waiter.kind {
                WaitKind::GracePeriod => Node::GracePeriod(waiter.grace_period),
                WaitKind::Callbacks => callbacks,
            };
            link(Node::Waiter(waiter), to);
        }
        let HeldFutures { for_running, for_next, for_callbacks } = self.futures;
        let targets = [
            (for_running, running),
            (for_next, Node::GracePeriod(next)),
            (for_callbacks, callbacks),
        ];
        for (count, to) in targets.into_iter().filter(|(count, _)| *count != 0) {
            link(Node::Futures(count), to);
        }
        let HeldCallbacks { for_running, for_next, .. } = self.callbacks;
        if for_running {
            link(callbacks, running);
        }
        if for_next {
            link(callbacks, Node::GracePeriod(next));
        }
        let awaits_next =
            |waiter: &Waiter| waiter.kind == WaitKind::GracePeriod && waiter.grace_period == next;
        if for_next || self.futures.for_next != 0 || self.waiters.iter().any(awaits_next) {
            link(Node::GracePeriod(next), running);
        }
        for culprit in &self.culprits {
            link(running, Node::Reader(culprit));
        }
        links
    }

    /// What takes system calls, and is asked outside of the locks.
    pub(crate) fn look_closer(&mut self) {
        for culprit in &mut self.culprits {
            let thread = culprit.reader.thread.filter(|thread| !thread.ended);
            if let Some(thread) = thread {
                culprit.kernel = KernelState::of_thread(thread.tid);
                culprit.backtrace = backtrace::of_thread(thread.tid);
            }
        }
    }
}

impl Domain {
    /// The grace period that is running and was left unfinished, if there is one, and everybody who is
    /// involved, however young it is: whether its `age` is a stall is the caller's to say. At most one, since
    /// a domain runs one at a time.
    ///
    /// Allocates, and asks the kernel about threads that are waited for; takes no lock that a driver waits
    /// for.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use std::time::Duration;
    ///
    /// if !DOMAIN.synchronize_timeout(Duration::from_secs(1)).expect("not inside a section") {
    ///     for stall in DOMAIN.stalls() {
    ///         eprintln!("{stall}");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn stalls(&self) -> Vec<Stall> {
        let region = self.region();
        let now = clock::now();
        let stall = region.watch.with(|state| region.stall(&mut state.sightings, now));
        let mut stalls = Vec::from_iter(stall.flatten());
        stalls.iter_mut().for_each(Stall::look_closer);
        stalls
    }

    /// From now on, or no longer, sections are noted as they are entered: where (the call of `read`) and when. Then
    /// [`stalls`](Self::stalls) can say so.
    ///
    /// Off, it costs nothing. On, sections of this domain do without the fast path: about 60 ns each.
    /// Those that are open already are not noted. 4 MiB of addresses, and a page of memory per 64 threads.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.note_call_sites(true);
    /// let guard = DOMAIN.read();
    /// let _cookie = DOMAIN.start_poll();
    /// while DOMAIN.poll() == gracepoint_rcu::Progress::Advanced {}
    /// let stalls = DOMAIN.stalls();
    /// let entered = stalls[0].culprits[0].entered.expect("noted");
    /// assert_eq!(entered.at.line() + 5, line!());
    /// # drop(guard);
    /// ```
    pub fn note_call_sites(&self, on: bool) {
        self.region().sites.want(sites::CALL_SITES, on);
        if on {
            self.keep_off_fast_path();
        }
    }
}

impl Region {
    /// The running grace period; `None` if none runs, or if it moves on meanwhile.
    pub(crate) fn stall(&self, sightings: &mut Sightings, now: u64) -> Option<Stall> {
        let domain = self.engine.observed.name();
        let grace = &self.engine.grace;
        let sequence = grace.sequence();
        let number = grace::number(sequence)?;
        let waited = grace.waited_ranks();
        let mut culprits = Vec::new();
        sightings.look(self, now, |reader, rank, sections, sighting| {
            debug_assert!(rank < RANKS);
            if waited & (1 << rank) != 0 {
                let seen = Duration::from_nanos(now.saturating_sub(sighting.since));
                let entered = entered(self, reader, rank, now);
                let reader = holdout(domain, self, reader, rank, sections);
                culprits.push(Culprit { reader, seen, entered, kernel: None, backtrace: None });
            }
        });
        if grace.sequence() != sequence {
            return None;
        }
        let age = Duration::from_nanos(self.watch.age(number, now));
        let pending = self.pending();
        let waited = |since| Duration::from_nanos(clock::coarse().saturating_sub(since));
        let (for_running, for_next) = self.engine.callbacks_wait_for(number);
        let futures = self.held_futures(number);
        Some(Stall {
            grace_period: GracePeriod { domain, number },
            phase: if grace.has_flipped(number) { Phase::SecondScan } else { Phase::FirstScan },
            age,
            waiters: self.waiters(domain, Some(number), now),
            async_waiters: futures.for_running + futures.for_next + futures.for_callbacks,
            futures,
            callbacks: HeldCallbacks {
                number: pending,
                oldest: self.engine.oldest().map(waited),
                for_running: for_running && pending != 0,
                for_next: for_next && pending != 0,
            },
            culprits,
            barrier_refused: barrier::is_refused(),
        })
    }

    /// Futures that wait while the grace period of this number runs.
    fn held_futures(&self, running: u64) -> HeldFutures {
        let wakers = &self.engine.wakers;
        let kind = |until| match until {
            RUNNER => 2,
            cookie => usize::from(grace::number_of_cookie(cookie) > running),
        };
        match wakers.count_by(arch::thread_token(), kind) {
            Some([for_running, for_next, for_callbacks]) => {
                HeldFutures { for_running, for_next, for_callbacks }
            }
            None => HeldFutures { for_running: wakers.count(), ..HeldFutures::default() },
        }
    }

    /// Threads that wait for this domain; `running` is the number of the grace period that runs.
    pub(crate) fn waiters(
        &self,
        domain: &'static str,
        running: Option<u64>,
        now: u64,
    ) -> Vec<Waiter> {
        let waiter = |(index, thread): (u32, ThreadInfo)| {
            let wait = threads::wait_entry(index)?.of(self)?;
            let number = grace::number_of_cookie(wait.cookie);
            let number = running.map_or(number, |running| number.clamp(running, running + 1));
            Some(Waiter {
                index,
                thread,
                kind: wait.kind(),
                call: wait.call(),
                waited: Duration::from_nanos(now.saturating_sub(wait.since)),
                grace_period: GracePeriod { domain, number },
            })
        };
        threads::live_threads().filter_map(waiter).collect()
    }
}

/// Where a reader entered, if that was noted.
pub(crate) fn entered(
    region: &Region,
    reader: Reader<'_>,
    rank: usize,
    now: u64,
) -> Option<Entered> {
    match reader {
        Reader::Thread(index) => {
            let (at, when) = region.sites.entered(index, rank)?;
            Some(Entered { at, ago: Some(Duration::from_nanos(now.saturating_sub(when))) })
        }
        Reader::Unregistered => Some(Entered { at: region.sites.unregistered()?, ago: None }),
        Reader::Owner(owner) => Some(Entered { at: owner.site()?, ago: None }),
        Reader::Nameless => None,
    }
}

/// For people, in a few lines that end without a newline.
impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GracePeriod { domain, number } = self.grace_period;
        write!(f, "grace period {number} of domain {domain:?} has run for {:.1?}", self.age)?;
        for waiter in &self.waiters {
            write!(f, "\n  {waiter}")?;
        }
        if self.async_waiters != 0 {
            write!(f, "\n  {} futures wait", self.async_waiters)?;
        }
        if self.callbacks.number != 0 {
            write!(f, "\n  {} callbacks wait", self.callbacks.number)?;
        }
        for culprit in &self.culprits {
            write!(f, "\n  {culprit}")?;
        }
        if self.barrier_refused {
            f.write_str(
                "\n  the system refuses membarrier, which it did not when the program started: allow the call in \
                 the program's seccomp filter, or start the program with GRACEPOINT_RCU=fence",
            )?;
        } else if self.culprits.is_empty() {
            f.write_str("\n  no reader was seen inside; it needs somebody to drive it")?;
        }
        Ok(())
    }
}

/// For people: `thread 4243 (main) has waited for grace period 7 for 12.3s`.
impl fmt::Display for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ThreadInfo { tid, name, .. } = self.thread;
        write!(f, "thread {tid} ({name}) has waited for ")?;
        match self.kind {
            WaitKind::GracePeriod => write!(f, "grace period {}", self.grace_period.number)?,
            WaitKind::Callbacks => f.write_str("callbacks")?,
        }
        write!(f, " for {:.1?}", self.waited)
    }
}

/// For people: who is inside, since when, where, and what its thread does.
impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seen {:.1?} ago", self.reader, self.seen)?;
        if let Some(Entered { at, ago }) = self.entered {
            write!(f, ", entered at {at}")?;
            if let Some(ago) = ago {
                write!(f, " {ago:.1?} ago")?;
            }
        }
        if let Some(kernel) = &self.kernel {
            write!(f, "; it is {kernel}")?;
        }
        if let Some(backtrace) = &self.backtrace {
            f.write_str("; called from")?;
            for address in backtrace {
                write!(f, " {address:#x}")?;
            }
        }
        Ok(())
    }
}
