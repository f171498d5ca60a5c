//! A recording: which events go into which ring, and the agent's verbs on it.

mod choice;
mod counting;
mod functions;
mod modules;
mod points;
mod sampling;
mod target;

pub(crate) use counting::Counting;
#[cfg(not(gp_branch))]
pub(crate) use functions::recorded_by;
pub(crate) use points::{record_hit, record_hit_all};
pub(crate) use sampling::Sampling;
pub(crate) use target::{Alone, Merged, record, record_all};

use crate::dynamic::registry::door;
use crate::key::{Call, Entry, TRACE};
use crate::limit::{self, Limit};
use crate::ring::Ring;
use crate::tracer::KeyId;
use crate::{clock, function, sys, tracer};
use choice::{Chosen, is_limited, shape};
use functions::Recorder;
use gracepoint_wire::clock::{Clock, Triple};
use gracepoint_wire::control::{Create, Created, ENTRY_ID, Failure, Limits, Module, Stopped};
use gracepoint_wire::packet::needs_extended;
use gracepoint_wire::schema::{Context, Declared, module_event, throttle_events};
use modules::Modules;
use points::{Late, Rules};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};
use std::sync::{Arc, Mutex};
use target::{LIMITED, Target, UNCOMMON};

/// Most sessions at once: each has a buffer, whose descriptor a forked child has to find and close.
pub(crate) const MOST_SESSIONS: usize = 32;
/// Most sessions, ended ones that wait for a grace period included.
const MOST_RINGS: usize = 128;

/// Rings that threads and forked children have to know of: those of sessions, and of ended ones
/// that wait for a grace period.
static RINGS: [AtomicPtr<Ring>; MOST_RINGS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MOST_RINGS];

/// See the top.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) ring: Box<Ring>,
    targets: Box<[Target]>,
    /// Keys, the writer made for each, and its target.
    keys: Vec<(KeyId, Call, usize)>,
    declared: Vec<Declared>,
    functions: Option<Box<Recorder>>,
    samples: Option<Box<Sampling>>,
    modules: Modules,
    made: Triple,
    context: Context,
    limits: Limits,
    /// Points that were declared since the session was made.
    late: Mutex<Late>,
    /// When `adapt` last looked, on the coarse clock.
    adapted: AtomicU64,
    on: AtomicBool,
}

// SAFETY: a target's pointer leads to the ring that the same session owns; the ring is made for
// many threads.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

fn failure(code: &str, text: impl Into<String>) -> Failure {
    Failure { code: code.into(), text: text.into() }
}

/// What there is to do for an event whose highest id is `id`; see [`Target::extras`].
fn extras(context: Context, limits: Limits, plain: bool, id: u32) -> u32 {
    context.bits()
        | if is_limited(limits) { LIMITED } else { 0 }
        | if plain && !needs_extended(id, 0) { 0 } else { UNCOMMON }
}

impl Session {
    /// The same for one of this session's.
    fn extras(&self, id: u32) -> u32 {
        extras(self.context, self.limits, self.ring.is_plain(), id)
    }

    /// Makes a session, still off, of the events that any glob matches, in `file` or in memory of its
    /// own. The descriptor is the arena's, for the consumer.
    ///
    /// # Errors
    /// `no-match`, `memory` or `busy`, in words for the user of the tool.
    pub(crate) fn create(
        id: u64,
        wanted: &Create,
        most_bytes: u64,
        file: Option<OwnedFd>,
    ) -> Result<(Arc<Session>, Option<OwnedFd>), Failure> {
        // Until the session has entered itself: see `dynamic/registry.rs`.
        let mut door = door();
        let rules = Rules::new(&wanted.globs, wanted.level);
        let functions = wanted.functions.as_ref();
        let functions = functions
            .map(|functions| functions::Chosen::of(functions, wanted.limits))
            .transpose()?;
        let Chosen { ids, keys, mut declared, next } =
            Chosen::of(&rules, functions.as_ref(), wanted.samples.is_some())?;
        if is_limited(wanted.limits) {
            declared.splice(1..1, throttle_events());
        }
        declared.push(module_event());
        declared.extend(functions.iter().flat_map(functions::Chosen::declared));
        declared.extend(wanted.samples.into_iter().flat_map(Sampling::declared));
        let shape = shape(wanted, next + points::reserve(wanted.mode), most_bytes)?;
        let mut ring = Ring::new(shape, file).map_err(|error| no_buffer(shape, &error))?;
        let file = ring.arena.take_file();
        let ring = Box::new(ring);
        let plain = ring.is_plain();
        let extras = |id| extras(wanted.context, wanted.limits, plain, id);
        let of = |[event, begin, end]: [u32; 3]| Target {
            ring: &raw const *ring,
            event,
            begin,
            end,
            // Of a point's span, four more follow that of the end.
            extras: extras(if end == 0 { event } else { event.max(end + 4) }),
            pid: std::process::id(),
            limit: Limit::new(wanted.limits.max_rate, wanted.limits.sample),
        };
        let targets = ids.into_iter().map(of).collect();
        let recorder =
            |chosen: functions::Chosen| chosen.recorder(&raw const *ring, extras(ENTRY_ID));
        let functions = functions.map(recorder).transpose()?.map(Box::new);
        let samples = wanted.samples.map(|wanted| Sampling::new(wanted, &ring)).transpose()?;
        let session = Arc::new(Session {
            id,
            targets,
            ring,
            samples: samples.map(Box::new),
            keys,
            declared,
            functions,
            modules: Modules::default(),
            made: clock::triple(clock::source()),
            context: wanted.context,
            limits: wanted.limits,
            late: Late::new(rules, next, wanted.mode),
            adapted: AtomicU64::new(clock::coarse_ns()),
            on: AtomicBool::new(false),
        });
        if !session.announce() {
            return Err(too_many());
        }
        door.enter(Arc::downgrade(&session));
        Ok((session, file))
    }

    /// Makes the ring known to threads that end and to forked children.
    fn announce(&self) -> bool {
        let ring = (&raw const *self.ring).cast_mut();
        RINGS
            .iter()
            .any(|place| place.compare_exchange(ptr::null_mut(), ring, AcqRel, Relaxed).is_ok())
    }

    /// The reply to `Create` and to `Attach`. `first` is a triple from the program's start, for a
    /// longer baseline; the one before the last is from when the session was made.
    pub(crate) fn created(&self, first: Triple) -> Created {
        let source = clock::source();
        let mut clock = Clock {
            source,
            freq_hz: 1_000_000_000,
            boot_id: self.ring.arena.header().boot_id,
            triples: vec![first, self.made, clock::triple(source)],
        };
        clock.refine();
        self.modules.look(clock.triples.last().map_or(0, |now| now.ticks));
        Created {
            session: self.id,
            events: self.declared.clone(),
            clock,
            context: self.context,
            modules: self.modules.all(),
        }
    }

    fn probes(&self) -> Vec<(KeyId, Entry)> {
        let probe = |&(key, call, target): &(KeyId, Call, usize)| {
            let data = (&raw const self.targets[target]).cast();
            (key, Entry { call: Some(call), data })
        };
        self.keys.iter().map(probe).collect()
    }

    /// Switches the session's events on.
    ///
    /// # Errors
    /// `patching`: the system does not let sites be switched. `session`: it is on already.
    pub(crate) fn start(self: &Arc<Session>) -> Result<(), Failure> {
        if self.is_on() {
            return Err(failure("session", "the session is started already"));
        }
        gracepoint_rcu::refresh_names();
        let refused = |error: crate::patch::PatchError| {
            self.switch_off(); // what was taken in meanwhile, too
            failure("patching", error.to_string())
        };
        tracer::attach(&self.probes_from_now_on(&self.on, true)).map_err(refused)?;
        self.functions.iter().try_for_each(|f| function::attach(f.op())).map_err(refused)?;
        self.samples
            .iter()
            .try_for_each(|samples| samples.begin())
            .inspect_err(|_| self.switch_off())
    }

    /// Switches them off. Hits under way may go on until a grace period later; then [`settled`] has
    /// the last word.
    ///
    /// [`settled`]: Session::settled
    pub(crate) fn switch_off(&self) {
        self.samples.iter().for_each(|samples| samples.end());
        self.functions.iter().for_each(|functions| function::detach(functions.op().data));
        tracer::detach(&self.probes_from_now_on(&self.on, false));
    }

    /// After `switch_off` and, if `settled`, a grace period: closes the pages of threads that are not
    /// writing.
    pub(crate) fn settled(&self, settled: bool) -> Stopped {
        self.ring.take_back();
        let (holdouts, at) = (holdouts(settled), self.tick());
        Stopped { settled, holdouts, at, modules: self.news() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Kinds of event in it.
    pub(crate) fn kinds(&self) -> u32 {
        self.targets.len() as u32
    }

    /// Functions that it records.
    pub(crate) fn functions(&self) -> u64 {
        self.functions.as_ref().map_or(0, |functions| functions.count())
    }

    /// Takes a clock triple and publishes it; sees what was loaded since.
    pub(crate) fn tick(&self) -> Triple {
        let triple = clock::triple(clock::source());
        self.ring.arena.set_triple(&triple);
        self.modules.look(triple.ticks);
        triple
    }

    /// Objects that whoever drains the session has not been told of.
    pub(crate) fn news(&self) -> Vec<Module> {
        self.modules.news()
    }

    /// In overwrite mode: when threads hold most of the pages, takes back those of idle ones.
    pub(crate) fn free_idle_pages(&self) {
        let arena = &self.ring.arena;
        if arena.overwrites() && arena.owned_pages() * 2 > arena.header().pages as usize {
            self.ring.take_back();
        }
    }

    /// Does the program sample itself for this session?
    pub(crate) fn samples(&self) -> bool {
        self.samples.is_some()
    }

    /// What samples of itself have cost the program, if it takes any.
    pub(crate) fn cost_of_samples(&self) -> Option<String> {
        self.samples.as_ref().map(|samples| samples.cost())
    }

    /// Looks after the threads that are sampled, and after what that costs.
    pub(crate) fn tend_samples(&self) {
        self.samples.iter().for_each(|samples| samples.tend());
    }

    /// Do the rates follow the load?
    pub(crate) fn adapts(&self) -> bool {
        self.limits.max_overhead_ppm > 0
    }

    /// With a limit on overhead: sets the rates anew, by what came since the last time.
    pub(crate) fn adapt(&self) {
        if !self.adapts() {
            return;
        }
        let now = clock::coarse_ns();
        let elapsed = now.saturating_sub(self.adapted.swap(now, Relaxed));
        let mut demand: Vec<u64> = self.targets.iter().map(|t| t.limit.take_demand()).collect();
        self.late_limits(|limit| demand.push(limit.take_demand()));
        let Limits { max_overhead_ppm, max_rate, .. } = self.limits;
        let rates = limit::shares(&demand, elapsed, max_overhead_ppm, max_rate);
        let mut rates = rates.into_iter();
        for (target, rate) in self.targets.iter().zip(&mut rates) {
            target.limit.set_rate(rate);
        }
        // One that came in between has the highest rate until the next time.
        self.late_limits(|limit| limit.set_rate(rates.next().unwrap_or(max_rate)));
    }

    /// Ends the session: off, and freed once nobody can be inside.
    ///
    /// After a first grace period no hit writes to the ring any more, and it leaves the table of
    /// rings (until then a forked child must find it there: a fork may come in the middle of a
    /// record). After a second one no ending thread can still have found it in the table.
    pub(crate) fn end(self: Arc<Session>) {
        self.switch_off();
        let pid = std::process::id();
        after_grace_period(pid, self, move |session| {
            session.withdraw();
            after_grace_period(pid, session, drop);
        });
    }

    /// Undoes `announce`, when no thread can be in the ring any more.
    fn withdraw(&self) {
        let ring = (&raw const *self.ring).cast_mut();
        for place in &RINGS {
            let _ = place.compare_exchange(ring, ptr::null_mut(), AcqRel, Relaxed);
        }
    }
}

/// Calls `then` with the session after a grace period, unless that is in a forked child, which has
/// inherited the call: what the session names (addresses, a descriptor) is the parent's, and may be
/// something else in the child by now.
fn after_grace_period<T: Send + Sync + 'static>(
    pid: u32,
    session: Arc<T>,
    then: impl FnOnce(Arc<T>) + Send + 'static,
) {
    TRACE.call(move || {
        if std::process::id() == pid {
            then(session);
        } else {
            let _leaked = ManuallyDrop::new(session);
        }
    });
}

/// Who is inside a read section, as text, unless all that were have left.
pub(crate) fn holdouts(settled: bool) -> Vec<String> {
    if settled { Vec::new() } else { tracer::stalls().iter().map(ToString::to_string).collect() }
}

fn no_buffer(shape: crate::ring::arena::Shape, error: &std::io::Error) -> Failure {
    let bytes = u64::from(shape.page_bytes) * u64::from(shape.pages);
    let text =
        format!("a buffer of {bytes} bytes cannot be had ({error}); ask for less with --buffer");
    failure("memory", text)
}

pub(crate) fn too_many() -> Failure {
    failure(
        "busy",
        format!(
            "{MOST_SESSIONS} recordings of this program are under way already; end one (gracepoint show)"
        ),
    )
}

/// At a thread's end: its slot's next owner opens packets of its own.
pub(crate) fn thread_ends(index: u32) {
    let _section = TRACE.read();
    for place in &RINGS {
        // SAFETY: a ring is freed a grace period after it was taken out of the table, so not before
        // this section ends, which found it there.
        if let Some(ring) = unsafe { place.load(Acquire).as_ref() } {
            ring.leave(index);
        }
    }
    crate::span::leave(index);
}

/// In a forked child: memory for stores that the fork interrupted; the parent's rings are not ours.
pub(crate) fn child_after_fork() {
    crate::sampler::child_after_fork();
    counting::child_after_fork();
    for place in &RINGS {
        // SAFETY: the child has a copy of the session's private memory, which nobody frees: the
        // call that would do it in the parent leaks it here.
        if let Some(ring) = unsafe { place.load(Relaxed).as_ref() } {
            let (base, len) = ring.arena.range();
            sys::fill_hole(base, len);
        }
        place.store(ptr::null_mut(), Relaxed);
    }
}
