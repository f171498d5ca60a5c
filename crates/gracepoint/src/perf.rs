//! Perf events: handles that count (and sample) tracepoints and functions of the program, and what the system
//! does for its threads. After `perf_event_open`, but for what its closing costs: dropping a handle takes it off its
//! tracepoints and returns; whatever a hit under way still uses is freed when the hit has ended.
//!
//! | file | what |
//! |---|---|
//! | `perf/tracepoint.rs` | what a hit does; how handles are on and off, and why closing waits for nobody |
//! | `perf/ring.rs` | samples on their way to a reader |
//! | `perf/kernel.rs` | CPU clocks, page faults, switches of context, migrations |

#[cfg_attr(not(gp_supported), path = "perf/kernel_absent.rs")]
mod kernel;
mod ring;
mod tracepoint;

pub use ring::{PerfRing, PerfSample};

use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::function::{FunctionFilter, FunctionOps, FunctionSet, RegisteredOps};
use crate::key::Key;
use crate::probe::Body;
use crate::tracer;
use kernel::{Counter, Counts, Leaders, Whose};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracepoint::{Attached, Counted, FED, Feed, Pick, Samples, Tally};

/// What the system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SystemEvent {
    /// Nanoseconds of CPU time.
    CpuClock,
    /// Page faults, minor and major.
    PageFaults,
    /// Switches of context, voluntary or not.
    ContextSwitches,
    /// Moves of a thread to another CPU.
    Migrations,
}

#[derive(Debug, Clone)]
enum What {
    Tracepoint(&'static Key),
    Named(String),
    Function(FunctionFilter),
    System(SystemEvent),
}

impl What {
    /// What samples say was hit.
    fn name(&self) -> String {
        match self {
            What::Tracepoint(key) => key.desc.name(),
            What::Named(name) => name.clone(),
            What::Function(filter) => filter.to_string(),
            What::System(event) => format!("{event:?}"),
        }
    }
}

/// What a [`PerfEvent`] counts, of whom, and which hits it tells one by one.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use gracepoint::{PerfAttr, PerfEvent};
///
/// #[derive(gracepoint::Event)]
/// struct Get<'a> { key: &'a str }
///
/// let gets = PerfEvent::open(PerfAttr::tracepoint::<Get>().every(100).ring(1024, 64))
///     .expect("sites can be switched here");
/// for _ in 0..250 {
///     gracepoint::trace!(Get { key: "17" });
/// }
/// assert_eq!(gets.read().value, 250);
/// let mut weights = Vec::new();
/// gets.ring().expect("one was asked for").drain(|sample| weights.push(sample.hits));
/// assert_eq!(weights, [100, 100]);
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is counted before `PerfEvent::open`"]
pub struct PerfAttr {
    what: What,
    whose: Whose,
    inherit: bool,
    disabled: bool,
    pick: Pick,
    ring: Option<(usize, usize)>,
    feed: bool,
}

impl PerfAttr {
    fn new(what: What) -> PerfAttr {
        PerfAttr {
            what,
            whose: Whose::Process,
            inherit: false,
            disabled: false,
            pick: Pick::Every(1),
            ring: None,
            feed: false,
        }
    }

    /// Hits of the tracepoint of `E`: events, and begins of spans.
    pub fn tracepoint<E: Event>() -> PerfAttr {
        PerfAttr::new(What::Tracepoint(E::KEY))
    }

    /// Hits of the tracepoint of this name, which must have a site: `kv:get`.
    pub fn named(name: impl Into<String>) -> PerfAttr {
        PerfAttr::new(What::Named(name.into()))
    }

    /// Calls of functions whose path this pattern matches; [`FunctionFilter`] says more, and which can be traced. Their
    /// names are looked up when the handle is opened.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use gracepoint::{PerfAttr, PerfEvent};
    ///
    /// mod store {
    ///     #[gracepoint::function]
    ///     pub fn get(key: u32) -> u32 { key * 2 }
    /// }
    ///
    /// let calls = PerfEvent::open(PerfAttr::function("*::store::get")).expect("it has the attribute");
    /// store::get(1);
    /// assert_eq!(calls.read().value, 1);
    /// # }
    /// ```
    pub fn function(path: impl Into<String>) -> PerfAttr {
        PerfAttr::functions(FunctionFilter::new(path))
    }

    /// Calls of functions that are chosen so.
    pub fn functions(filter: FunctionFilter) -> PerfAttr {
        PerfAttr::new(What::Function(filter))
    }

    /// What the system does for the program.
    pub fn system(event: SystemEvent) -> PerfAttr {
        PerfAttr::new(What::System(event))
    }

    /// Of the whole process, threads that come later included. The default.
    pub fn process(mut self) -> PerfAttr {
        self.whose = Whose::Process;
        self
    }

    /// Of the calling thread alone.
    pub fn this_thread(self) -> PerfAttr {
        self.thread(tracepoint::own_tid())
    }

    /// Of the thread with this number of the kernel's (`gettid`) alone, which must be one of this process.
    pub fn thread(mut self, tid: u32) -> PerfAttr {
        self.whose = Whose::Thread(tid);
        self
    }

    /// Also of threads that this thread makes from now on. Of the system's events alone: who made a thread
    /// is the kernel's knowledge. (A whole process has them anyway.)
    pub fn inherit(mut self, yes: bool) -> PerfAttr {
        self.inherit = yes;
        self
    }

    /// Opened without counting: [`PerfEvent::enable`] begins. Until then its tracepoint stays off.
    pub fn disabled(mut self) -> PerfAttr {
        self.disabled = true;
        self
    }

    /// One sample for every `n` hits, from 1; the default is 1. Of use with a [`ring`](Self::ring).
    pub fn every(mut self, n: u64) -> PerfAttr {
        self.pick = Pick::Every(n.max(1));
        self
    }

    /// At most so many samples per second, from 1, however many hits there are. Each tells how many it stands for.
    pub fn frequency(mut self, per_second: u64) -> PerfAttr {
        self.pick = Pick::Apart(1_000_000_000 / per_second.max(1));
        self
    }

    /// Its samples are events that sessions record: `perf:sample`, with the name of what was hit, how many hits the sample
    /// stands for, and their count so far. A recorder sees them beside everything else (`record -e 'perf:*'`);
    /// while none does they cost a load. Together with a [`ring`](Self::ring) or without one; of tracepoints and
    /// functions alone.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # #[derive(gracepoint::Event)] struct Get { n: u32 }
    /// use gracepoint::{PerfAttr, PerfEvent};
    /// let attr = PerfAttr::tracepoint::<Get>().frequency(100).feed();
    /// let sampled = PerfEvent::open(attr).expect("sites can be switched here");
    /// # }
    /// ```
    pub fn feed(mut self) -> PerfAttr {
        self.feed = true;
        self
    }

    /// A ring of its own with room for so many samples (rounded up to a power of two, 64 bytes each, at most
    /// 16 million), whose descriptor is ready when `watermark` more have come. Of tracepoints alone.
    pub fn ring(mut self, samples: usize, watermark: usize) -> PerfAttr {
        self.ring = Some((samples, watermark));
        self
    }
}

/// What was counted, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerfCount {
    /// Hits or occurrences since the last reset; nanoseconds of a CPU clock.
    pub value: u64,
    /// How long it has been enabled since it was opened.
    pub enabled: Duration,
    /// How long of that it has counted. The same: nothing here takes turns with others on too few counters.
    pub running: Duration,
}

/// What one event of a handle counts.
enum Source {
    /// The places (equal tracepoints of several objects are one), what they count together, and where that
    /// was at the last reset.
    Tracepoint {
        counted: Vec<Counted>,
        base: u64,
    },
    Function {
        functions: FunctionSet,
        tally: Arc<Tally>,
        base: u64,
        /// While it is on.
        on: Option<RegisteredOps>,
    },
    System {
        counter: Counter,
        sum: u64,
        seen: u64,
    },
}

impl Source {
    /// What is to be put on tracepoints.
    fn counted(&self) -> &[Counted] {
        match self {
            Source::Tracepoint { counted, .. } => counted,
            Source::Function { .. } | Source::System { .. } => &[],
        }
    }

    /// While `on`.
    fn value(&mut self, on: bool, counts: &mut Counts) -> u64 {
        match self {
            Source::Tracepoint { counted, base } => {
                let count = counted.first().map_or(0, |counted| counted.tally.count());
                count.wrapping_sub(*base)
            }
            Source::Function { tally, base, .. } => tally.count().wrapping_sub(*base),
            Source::System { counter, sum, seen } => {
                // Of a thread that has ended: what was last seen of it.
                if let Some(now) = on.then(|| counter.now(counts)).flatten() {
                    *sum += now.saturating_sub(*seen);
                    *seen = now;
                }
                *sum
            }
        }
    }

    /// # Errors
    /// When the system does not let functions be switched.
    fn begin(&mut self, counts: &mut Counts) -> Result<(), Error> {
        match self {
            Source::System { counter, seen, .. } => *seen = counter.now(counts).unwrap_or(*seen),
            Source::Function { functions, tally, on, .. } => {
                let tally = Arc::clone(tally);
                let ops = FunctionOps::on(functions).on_entry(move |_| tally.hit(None));
                *on = Some(ops.register()?);
            }
            Source::Tracepoint { .. } => {}
        }
        Ok(())
    }

    /// Undoes `begin`. Never waits: a call under way has its own share of the tally.
    fn end(&mut self, counts: &mut Counts) {
        match self {
            Source::System { .. } => _ = self.value(true, counts),
            Source::Function { on, .. } => drop(on.take()),
            Source::Tracepoint { .. } => {}
        }
    }

    fn reset(&mut self, on: bool, counts: &mut Counts) {
        self.value(on, counts);
        match self {
            Source::Tracepoint { counted, base } => {
                *base = counted.first().map_or(0, |counted| counted.tally.count());
            }
            Source::Function { tally, base, .. } => *base = tally.count(),
            Source::System { sum, .. } => *sum = 0,
        }
    }
}

/// The rings that were asked for.
type Rings = Vec<Option<Arc<PerfRing>>>;

/// The events of a handle or of a group.
struct Core {
    state: Mutex<State>,
    name: &'static str,
}

struct State {
    sources: Vec<Source>,
    /// Since when it is enabled.
    since: Option<Instant>,
    enabled: Duration,
    /// Its places in the tracer, while it is enabled and has tracepoints.
    body: Option<Arc<Attached>>,
}

impl State {
    /// # Errors
    /// As [`Source::begin`]; then none has begun.
    fn begin(&mut self) -> Result<(), Error> {
        let mut counts = Counts::default();
        let begun = self.sources.iter_mut().try_for_each(|source| source.begin(&mut counts));
        begun.inspect_err(|_| self.end())
    }

    fn end(&mut self) {
        let mut counts = Counts::default();
        self.sources.iter_mut().for_each(|source| source.end(&mut counts));
    }
}

impl Core {
    fn open(attrs: &[PerfAttr], name: &'static str) -> Result<(Core, Rings), Error> {
        let mut sources = Vec::with_capacity(attrs.len());
        let mut rings = Vec::with_capacity(attrs.len());
        let mut leaders = Leaders::default();
        for (event, attr) in (0..).zip(attrs) {
            let (source, ring) = open_source(attr, event, &mut leaders)?;
            sources.push(source);
            rings.push(ring);
        }
        let state = State { sources, since: None, enabled: Duration::ZERO, body: None };
        let core = Core { state: Mutex::new(state), name };
        if attrs.iter().any(|attr| !attr.disabled) {
            core.enable()?;
        }
        Ok((core, rings))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hooks of the program are told without our lock, so in between the handle may be disabled again. Whoever
    /// takes `body` away takes it off its tracepoints: if that came before it was on them, we do.
    fn enable(&self) -> Result<(), Error> {
        let attached = {
            let state = &mut *self.lock();
            if state.since.is_some() {
                return Ok(());
            }
            state.begin()?;
            let attached = Attached::new(state.sources.iter().flat_map(Source::counted), self.name);
            state.body.clone_from(&attached);
            state.since = Some(Instant::now());
            attached
        };
        let Some(attached) = attached else { return Ok(()) };
        let added = attached.add();
        let is_ours = {
            let state = &mut *self.lock();
            let is_ours = state.body.as_ref().is_some_and(|body| Arc::ptr_eq(body, &attached));
            if is_ours && added.is_err() {
                (state.body, state.since) = (None, None);
                state.end();
            }
            is_ours
        };
        if !is_ours && added.is_ok() {
            tracer::remove(&[attached as Arc<dyn Body>]);
        }
        added
    }

    /// Stops the clocks, and gives away what is to be taken off tracepoints.
    fn end(&self) -> Option<Arc<dyn Body>> {
        let state = &mut *self.lock();
        if let Some(since) = state.since.take() {
            state.enabled += since.elapsed();
            state.end();
        }
        state.body.take().map(|body| body as Arc<dyn Body>)
    }

    fn disable(&self) {
        // Not under our lock: hooks of the program are told.
        tracer::remove(self.end().as_slice());
    }

    fn reset(&self) {
        let state = &mut *self.lock();
        let (on, mut counts) = (state.since.is_some(), Counts::default());
        state.sources.iter_mut().for_each(|source| source.reset(on, &mut counts));
    }

    fn read(&self) -> Vec<PerfCount> {
        let state = &mut *self.lock();
        let on = state.since.is_some();
        let enabled = state.enabled + state.since.map_or(Duration::ZERO, |since| since.elapsed());
        let mut counts = Counts::default();
        let count = |source: &mut Source| PerfCount {
            value: source.value(on, &mut counts),
            enabled,
            running: enabled,
        };
        state.sources.iter_mut().map(count).collect()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.disable();
    }
}

fn open_source(
    attr: &PerfAttr,
    event: u32,
    leaders: &mut Leaders,
) -> Result<(Source, Option<Arc<PerfRing>>), Error> {
    let refuse = |text: &str| Err(Error::new(ErrorKind::Unsupported, text));
    let (keys, functions) = match &attr.what {
        What::System(_) if attr.ring.is_some() || attr.feed => {
            return refuse(
                "samples are of tracepoints and functions; `gracepoint profile` samples the CPU clock from \
                 outside",
            );
        }
        What::System(what) => {
            let counter = Counter::open(*what, attr.whose, attr.inherit, leaders)?;
            return Ok((Source::System { counter, sum: 0, seen: 0 }, None));
        }
        What::Named(name) if attr.feed && name == FED => {
            return refuse("samples of samples would never end: feed from another event");
        }
        What::Tracepoint(key) => (vec![*key], None),
        What::Named(name) => (named(name)?, None),
        What::Function(filter) => (Vec::new(), Some(filter.find()?)),
    };
    let only = match attr.whose {
        Whose::Process => 0,
        Whose::Thread(_) if attr.inherit => {
            return refuse(
                "who made a thread is not known where a tracepoint is hit or a function called: count the \
                 whole process, or each thread",
            );
        }
        Whose::Thread(tid) => tid,
    };
    let ring = attr.ring.map(|(samples, watermark)| open_ring(samples, watermark)).transpose()?;
    let sampled = (attr.feed || ring.is_some()).then(|| Samples {
        pick: attr.pick,
        ring: ring.clone(),
        feed: attr.feed.then(|| Feed::new(attr.what.name())),
        event,
    });
    let tally = Arc::new(Tally::new(only, sampled));
    if let Some(functions) = functions {
        return Ok((Source::Function { functions, tally, base: 0, on: None }, ring));
    }
    let counted = |key| Counted { key, tally: Arc::clone(&tally) };
    let counted = keys.into_iter().map(counted).collect();
    Ok((Source::Tracepoint { counted, base: 0 }, ring))
}

fn open_ring(samples: usize, watermark: usize) -> Result<Arc<PerfRing>, Error> {
    let failed =
        |error| Error::new(ErrorKind::Refused, format!("no descriptor for a ring: {error}"));
    PerfRing::new(samples, watermark).map(Arc::new).map_err(failed)
}

fn named(name: &str) -> Result<Vec<&'static Key>, Error> {
    let mut found = tracer::candidates()?;
    found.retain(|candidate| candidate.name == name);
    if found.is_empty() {
        let text = format!("no tracepoint of this program is called {name:?}");
        return Err(Error::new(ErrorKind::NoMatch, text));
    }
    Ok(found.into_iter().map(|candidate| candidate.key).collect())
}

/// A handle that counts, and maybe samples. Dropping it closes it, and never waits.
///
/// It may be used from any thread, but not from signal handlers. It belongs to the process that opened it: in
/// a forked child the copy of it counts what the child does where that is a tracepoint, and goes on
/// telling of the parent where it is an event of the kernel.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use gracepoint::{PerfAttr, PerfEvent, SystemEvent};
///
/// let faults = PerfEvent::open(PerfAttr::system(SystemEvent::PageFaults)).expect("always there");
/// drop(vec![1u8; 1 << 20]);
/// println!("{} page faults in {:?}", faults.read().value, faults.read().enabled);
/// # }
/// ```
pub struct PerfEvent {
    core: Core,
    ring: Option<Arc<PerfRing>>,
}

impl PerfEvent {
    /// Opens a handle, which counts from now on unless it is opened [`disabled`](PerfAttr::disabled).
    ///
    /// # Errors
    /// [`ErrorKind::NoMatch`] without such a tracepoint or thread; [`ErrorKind::Refused`] when the kernel refuses and
    /// there is no other source; [`ErrorKind::Unsupported`] for what cannot be counted so; and as
    /// [`Tracepoint::attach`](crate::Tracepoint::attach).
    #[allow(clippy::needless_pass_by_value, reason = "it is made for this call")]
    pub fn open(attr: PerfAttr) -> Result<PerfEvent, Error> {
        let (core, rings) = Core::open(std::slice::from_ref(&attr), "perf event")?;
        Ok(PerfEvent { core, ring: rings.into_iter().flatten().next() })
    }

    /// Goes on counting. Nothing where it counts already.
    ///
    /// # Errors
    /// As [`Tracepoint::attach`](crate::Tracepoint::attach).
    pub fn enable(&self) -> Result<(), Error> {
        self.core.enable()
    }

    /// Counts no more, until it is enabled again. A hit under way may still be counted.
    pub fn disable(&self) {
        self.core.disable();
    }

    /// The value is 0 from now on; the times go on.
    pub fn reset(&self) {
        self.core.reset();
    }

    /// What was counted.
    #[must_use]
    pub fn read(&self) -> PerfCount {
        self.core.read().into_iter().next().unwrap_or_default()
    }

    /// The ring that was asked for.
    #[must_use]
    pub fn ring(&self) -> Option<&PerfRing> {
        self.ring.as_deref()
    }

    /// Closes many at once, in one batch with one barrier: what dropping each would take a barrier for each.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # #[derive(gracepoint::Event)] struct A { n: u32 }
    /// # #[derive(gracepoint::Event)] struct B { n: u32 }
    /// use gracepoint::{PerfAttr, PerfEvent};
    /// let attrs = [PerfAttr::tracepoint::<A>(), PerfAttr::tracepoint::<B>()];
    /// let handles: Vec<_> = attrs.into_iter().map(|attr| PerfEvent::open(attr).unwrap()).collect();
    /// PerfEvent::close_all(handles);
    /// # }
    /// ```
    pub fn close_all(handles: impl IntoIterator<Item = PerfEvent>) {
        let handles: Vec<PerfEvent> = handles.into_iter().collect();
        let bodies: Vec<_> = handles.iter().filter_map(|handle| handle.core.end()).collect();
        tracer::remove(&bodies);
    }
}

impl fmt::Debug for PerfEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerfEvent").field("count", &self.read()).finish_non_exhaustive()
    }
}

/// Several events that are enabled, disabled, reset and read together, in one pass each. Dropping closes them.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use gracepoint::{PerfAttr, PerfGroup, SystemEvent};
///
/// #[derive(gracepoint::Event)]
/// struct Get { n: u32 }
///
/// let group = PerfGroup::open([
///     PerfAttr::tracepoint::<Get>(),
///     PerfAttr::system(SystemEvent::CpuClock),
/// ]).expect("sites can be switched here");
/// gracepoint::trace!(Get { n: 1 });
/// let [gets, cpu] = group.read()[..] else { unreachable!("two were opened") };
/// println!("{} ns of CPU time for each", cpu.value / gets.value);
/// # }
/// ```
pub struct PerfGroup {
    core: Core,
    rings: Rings,
}

impl PerfGroup {
    /// Opens a group, which counts from now on unless all of its events are opened
    /// [`disabled`](PerfAttr::disabled).
    ///
    /// # Errors
    /// As [`PerfEvent::open`]; then none is open.
    pub fn open(attrs: impl IntoIterator<Item = PerfAttr>) -> Result<PerfGroup, Error> {
        let attrs: Vec<PerfAttr> = attrs.into_iter().collect();
        let (core, rings) = Core::open(&attrs, "perf group")?;
        Ok(PerfGroup { core, rings })
    }

    /// As [`PerfEvent::enable`], all in one batch.
    ///
    /// # Errors
    /// As [`Tracepoint::attach`](crate::Tracepoint::attach); then none is enabled.
    pub fn enable(&self) -> Result<(), Error> {
        self.core.enable()
    }

    /// As [`PerfEvent::disable`], all in one batch.
    pub fn disable(&self) {
        self.core.disable();
    }

    /// As [`PerfEvent::reset`].
    pub fn reset(&self) {
        self.core.reset();
    }

    /// What was counted of each, in the order in which they were given; the times are the same for all.
    #[must_use]
    pub fn read(&self) -> Vec<PerfCount> {
        self.core.read()
    }

    /// The ring of one of them, if it was asked for.
    #[must_use]
    pub fn ring(&self, event: usize) -> Option<&PerfRing> {
        self.rings.get(event)?.as_deref()
    }
}

impl fmt::Debug for PerfGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerfGroup").field("counts", &self.read()).finish_non_exhaustive()
    }
}

const _: () = {
    const fn goes_anywhere<T: Send + Sync + 'static>() {}
    goes_anywhere::<PerfEvent>();
    goes_anywhere::<PerfGroup>();
};
