//! A recording: which events go into which ring, and the agent's verbs on it.

mod counting;
mod functions;
mod modules;

pub(crate) use counting::Counting;

use crate::context::Gathered;
use crate::event::Event;
use crate::key::{Call, Entry, SpanPoint, TRACE};
use crate::limit::{self, Limit, Verdict};
use crate::ring::arena::{Shape, counts_bytes};
use crate::ring::{Place, Ring};
use crate::tracer::KeyId;
use crate::{clock, function, glob_any, sys, tracer};
use functions::Recorder;
use gracepoint_wire::clock::{Clock, Triple};
use gracepoint_wire::control::{Create, Created, Failure, Limits, Mode, Module, Stopped};
use gracepoint_wire::schema::{
    Context, Declared, FIRST_USER_ID, Role, Schema, THROTTLE_ID, UNTHROTTLE_ID, loss_event,
    module_event, throttle_events,
};
use modules::Modules;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

/// Most sessions at once.
pub(crate) const MOST_SESSIONS: usize = 8;
/// Most sessions, ended ones that wait for a grace period included.
const MOST_RINGS: usize = 64;
/// Buffer of a session that does not ask for a size.
const DEFAULT_BUFFER: u64 = 16 << 20;
/// Smallest buffer: less would be a page or two.
const LEAST_BUFFER: u64 = 64 << 10;
/// Fewest pages, however many kinds of event are counted for each.
const LEAST_PAGES: u32 = 4;

/// Rings that threads and forked children have to know of: those of sessions, and of ended ones
/// that wait for a grace period.
static RINGS: [AtomicPtr<Ring>; MOST_RINGS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MOST_RINGS];

/// The data of a session's probe: where one event goes.
struct Target {
    ring: *const Ring,
    event: u32,
    begin: u32,
    end: u32,
    /// Not 0 where there is more to do than to write down the fields: [`LIMITED`], [`COUNTED`] and
    /// the bits of the context. One test decides.
    extras: u32,
    /// The program's pid, for the context.
    pid: u32,
    limit: Limit,
}

/// Bit of `Target::extras`: not every event is recorded.
const LIMITED: u32 = 1 << 31;
/// Bit of `Target::extras`: records are counted, since they may be written over.
const COUNTED: u32 = 1 << 30;

/// The sessions of one key, when there are several: the event is encoded once and copied.
pub(crate) struct Merged {
    /// Each leads to a `Target`.
    targets: Box<[*const ()]>,
    /// None of them has extras.
    plain: bool,
}

// SAFETY: the pointers are those of entries, which any thread may use.
unsafe impl Send for Merged {}

impl Merged {
    /// Most sessions that are merged; there are not so many.
    pub(crate) const MOST: usize = 64;

    /// Of sessions that are attached.
    pub(crate) fn new(targets: Box<[*const ()]>) -> Merged {
        // SAFETY: the data of a session's entry is a target that lives as long as it is attached.
        let plain = targets.iter().all(|data| unsafe { &*data.cast::<Target>() }.extras == 0);
        Merged { targets, plain }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.targets)
    }
}

/// See the top.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) ring: Box<Ring>,
    targets: Box<[Target]>,
    /// Keys, the writer made for each, and its target.
    keys: Vec<(KeyId, Call, usize)>,
    declared: Vec<Declared>,
    functions: Option<Box<Recorder>>,
    modules: Modules,
    made: Triple,
    context: Context,
    limits: Limits,
    /// When `adapt` last looked, on the coarse clock.
    adapted: AtomicU64,
    on: AtomicBool,
}

// SAFETY: a target's pointer leads to the ring that the same session owns; the ring is made for
// many threads.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

/// The session writer for events of type `E`: what a session attaches to the key of `E`.
///
/// # Safety
/// `data` points to a `Target` whose session is alive while the read section lasts; `event` is null
/// (the end of a span) or points to an `E`; `span` points to a span's ids where it is not null,
/// which it is not where `event` is.
pub(crate) unsafe fn record<E: Event>(
    data: *const (),
    event: *const (),
    span: *const SpanPoint,
) -> bool {
    // SAFETY: the caller's promise.
    let target = unsafe { &*data.cast::<Target>() };
    // SAFETY: the caller's promise.
    let (event, span) = unsafe { (event.cast::<E>().as_ref(), span.as_ref()) };
    match (event, span) {
        (Some(event), None) if target.extras == 0 => {
            let prepared = event.prepare();
            let ring = target.ring();
            let Some(place) = ring.place::<false>(target.event, event.size(&prepared)) else {
                return false;
            };
            // SAFETY: the place has room for the `size` bytes that this writes.
            unsafe { event.write(&prepared, place.fields) };
            ring.publish(&place);
            true
        }
        // SAFETY: `data` is the caller's promise.
        (Some(event), span) => unsafe { record_each(&[data], event, span) },
        (None, span) => target.record_end(span),
    }
}

/// The same for several sessions.
///
/// # Safety
/// As for [`record`], but that `data` points to a [`Merged`] of such targets.
pub(crate) unsafe fn record_all<E: Event>(
    data: *const (),
    event: *const (),
    span: *const SpanPoint,
) -> bool {
    // SAFETY: the caller's promise.
    let Merged { targets, plain } = unsafe { &*data.cast::<Merged>() };
    // SAFETY: the caller's promise.
    let (event, span) = unsafe { (event.cast::<E>().as_ref(), span.as_ref()) };
    match event {
        // SAFETY: the caller's promise.
        Some(event) if *plain && span.is_none() => unsafe { record_plain(targets, event) },
        // SAFETY: the caller's promise.
        Some(event) => unsafe { record_each(targets, event, span) },
        None => {
            let mut recorded = false;
            for &target in targets {
                // SAFETY: the caller's promise.
                recorded |= unsafe { &*target.cast::<Target>() }.record_end(span);
            }
            recorded
        }
    }
}

/// [`record_each`] where there is neither a span nor anything extra.
///
/// # Safety
/// As for [`record_each`].
#[inline(always)]
unsafe fn record_plain<E: Event>(targets: &[*const ()], event: &E) -> bool {
    let prepared = event.prepare();
    let len = event.size(&prepared);
    // SAFETY: the caller's promise.
    let mut targets = targets.iter().map(|data| unsafe { &*data.cast::<Target>() });
    let first = targets.find_map(|t| Some((t.ring(), t.ring().place::<false>(t.event, len)?)));
    let Some((ring, place)) = first else { return false };
    // SAFETY: the place has room for the `size` bytes that this writes.
    unsafe { event.write(&prepared, place.fields) };
    for target in targets {
        if let Some(copy) = target.ring().place::<false>(target.event, len) {
            // SAFETY: both places have room for `len` bytes and are in different rings; the first
            // is written, and not published.
            unsafe { copy_record(place.fields, copy.fields, len) };
            target.ring().publish(&copy);
        }
    }
    ring.publish(&place);
    true
}

/// Copies `len` bytes; without a call where they are few.
///
/// # Safety
/// As for `copy_nonoverlapping`.
#[inline(always)]
unsafe fn copy_record(from: *const u8, to: *mut u8, len: usize) {
    const CHUNK: usize = 8;
    // SAFETY: the caller's promise; with at least a chunk, the last one ends where the record does.
    unsafe {
        if !(CHUNK..=8 * CHUNK).contains(&len) {
            return to.copy_from_nonoverlapping(from, len);
        }
        let chunk = |at: usize| {
            let bytes = from.add(at).cast::<[u8; CHUNK]>().read_unaligned();
            to.add(at).cast::<[u8; CHUNK]>().write_unaligned(bytes);
        };
        let mut at = 0;
        while at + CHUNK < len {
            chunk(at);
            at += CHUNK;
        }
        chunk(len - CHUNK);
    }
}

/// Encodes the event into the first ring that has room, and copies it from there to the others. The
/// first is published last: until then its slot's `depth` is raised, so nobody takes the page away
/// that the others copy from.
///
/// Out of line: it is a second copy of the ring's code for each event type, which most types never use.
///
/// # Safety
/// Each of `targets`, at most [`Merged::MOST`], points to a `Target` whose session is alive while the
/// read section lasts.
#[inline(never)]
unsafe fn record_each<E: Event>(
    targets: &[*const ()],
    event: &E,
    span: Option<&SpanPoint>,
) -> bool {
    // SAFETY: the caller's promise.
    let target = |i: usize| unsafe { &*targets[i].cast::<Target>() };
    let id_in = |target: &Target| if span.is_some() { target.begin } else { target.event };
    let mut admitted = 0u64;
    for i in 0..targets.len() {
        let target = target(i);
        let admits = target.extras & LIMITED == 0 || target.admits(id_in(target));
        admitted |= u64::from(admits) << i;
    }
    if admitted == 0 {
        return false;
    }
    let prepared = event.prepare();
    let ids = if span.is_some() { 16 } else { 0 };
    let len = ids + event.size(&prepared);
    let mut first: Option<(&Ring, Place<'_>, *mut u8)> = None;
    while admitted != 0 {
        let target = target(admitted.trailing_zeros() as usize);
        admitted &= admitted - 1;
        let ring = target.ring();
        let Some((place, at)) = target.place(id_in(target), len) else { continue };
        if let Some((.., from)) = first {
            // SAFETY: both places have room for `len` bytes and are in different rings; the first
            // is written, and not published.
            unsafe { at.copy_from_nonoverlapping(from, len) };
            ring.publish(&place);
            continue;
        }
        // SAFETY: the place has room for two words, where there is a span, and `size` bytes.
        unsafe {
            if let Some(span) = span {
                at.cast::<u64>().write_unaligned(span.id);
                at.add(8).cast::<u64>().write_unaligned(span.parent);
            }
            event.write(&prepared, at.add(ids));
        }
        first = Some((ring, place, at));
    }
    match first {
        Some((ring, place, _)) => {
            ring.publish(&place);
            true
        }
        None => false,
    }
}

impl Target {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        // SAFETY: a target's ring lives as long as its session, and so as the target.
        unsafe { &*self.ring }
    }

    /// A place for the context, which is written, and `len` more bytes, where the pointer leads.
    #[inline(always)]
    fn place(&self, id: u32, len: usize) -> Option<(Place<'_>, *mut u8)> {
        let context = self.extras & !(LIMITED | COUNTED);
        if context != 0 {
            return self.place_with_context(context, id, len);
        }
        let place = self.ring().place::<true>(id, len)?;
        let at = place.fields;
        Some((place, at))
    }

    #[inline(never)]
    fn place_with_context(
        &self,
        context: u32,
        id: u32,
        len: usize,
    ) -> Option<(Place<'_>, *mut u8)> {
        let context = Gathered::now(Context::from_bits(context), self.pid);
        let bytes = context.bytes();
        let place = self.ring().place::<true>(id, bytes.len() + len)?;
        // SAFETY: the place has room for the context and `len` bytes.
        let at = unsafe {
            place.fields.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            place.fields.add(bytes.len())
        };
        Some((place, at))
    }

    /// The same for all types.
    #[inline(never)]
    fn record_end(&self, span: Option<&SpanPoint>) -> bool {
        let Some((place, at)) = self.place(self.end, 8) else {
            return false;
        };
        let id = span.map_or(0, |span| span.id);
        // SAFETY: the place has room for a word.
        unsafe { at.cast::<u64>().write_unaligned(id) };
        self.ring().publish(&place);
        true
    }

    /// Do the limits let this hit through? Counts it if not.
    #[inline(never)]
    fn admits(&self, id: u32) -> bool {
        let arena = &self.ring().arena;
        let drop = || {
            arena.throttled(id).lost.fetch_add(1, Relaxed);
            false
        };
        match self.limit.admit() {
            Verdict::Record => true,
            Verdict::RecordAndTell => {
                self.tell_unthrottle(id);
                true
            }
            Verdict::Drop => drop(),
            Verdict::DropAndTell => {
                self.tell(THROTTLE_ID, id, || self.limit.rate());
                drop()
            }
        }
    }

    fn tell_unthrottle(&self, id: u32) {
        let arena = &self.ring().arena;
        self.tell(UNTHROTTLE_ID, id, || {
            if arena.overwrites() {
                return 0; // the record may be written over: the table counts
            }
            let count = arena.throttled(id);
            let (told, all) = (count.folded.load(Relaxed), count.lost.load(Relaxed));
            // Whoever wins the exchange tells these.
            let won = count.folded.compare_exchange(told, all, Relaxed, Relaxed).is_ok();
            if won { all.saturating_sub(told) } else { 0 }
        });
    }

    /// Writes an event of the tracer's own about the events `of`.
    fn tell(&self, id: u32, of: u32, number: impl FnOnce() -> u64) {
        let context = self.ring().context as usize;
        let Some(place) = self.ring().place::<true>(id, context + 12) else { return };
        // SAFETY: the place has room for the context, a u32 and a u64.
        unsafe {
            place.fields.write_bytes(0, context);
            let at = place.fields.add(context);
            at.cast::<u32>().write_unaligned(of);
            at.add(4).cast::<u64>().write_unaligned(number());
        }
        self.ring().publish(&place);
    }
}

fn failure(code: &str, text: impl Into<String>) -> Failure {
    Failure { code: code.into(), text: text.into() }
}

impl Session {
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
        let functions = wanted.functions.as_ref();
        let functions = functions
            .map(|functions| functions::Chosen::of(functions, wanted.limits))
            .transpose()?;
        let Chosen { ids, keys, mut declared, next } =
            Chosen::of(&wanted.globs, functions.as_ref())?;
        if is_limited(wanted) {
            declared.splice(1..1, throttle_events());
        }
        declared.push(module_event());
        declared.extend(functions.iter().flat_map(functions::Chosen::declared));
        let shape = shape(wanted, next, most_bytes)?;
        let mut ring = Ring::new(shape, file).map_err(|error| {
            let bytes = u64::from(shape.page_bytes) * u64::from(shape.pages);
            failure(
                "memory",
                format!(
                    "a buffer of {bytes} bytes cannot be had ({error}); ask for less with --buffer"
                ),
            )
        })?;
        let file = ring.arena.take_file();
        let ring = Box::new(ring);
        let extras = wanted.context.bits()
            | if is_limited(wanted) { LIMITED } else { 0 }
            | if wanted.mode == Mode::Overwrite { COUNTED } else { 0 };
        let of = |[event, begin, end]: [u32; 3]| Target {
            ring: &raw const *ring,
            event,
            begin,
            end,
            extras,
            pid: std::process::id(),
            limit: Limit::new(wanted.limits.max_rate, wanted.limits.sample),
        };
        let targets = ids.into_iter().map(of).collect();
        let recorder = |chosen: functions::Chosen| chosen.recorder(&raw const *ring, extras);
        let functions = functions.map(recorder).transpose()?.map(Box::new);
        let session = Arc::new(Session {
            id,
            targets,
            ring,
            keys,
            declared,
            functions,
            modules: Modules::default(),
            made: clock::triple(clock::source()),
            context: wanted.context,
            limits: wanted.limits,
            adapted: AtomicU64::new(clock::coarse_ns()),
            on: AtomicBool::new(false),
        });
        if session.announce() { Ok((session, file)) } else { Err(too_many()) }
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
        if self.on.swap(true, Relaxed) {
            return Err(failure("session", "the session is started already"));
        }
        gracepoint_rcu::refresh_names();
        let refused = |error: crate::patch::PatchError| {
            self.switch_off();
            failure("patching", error.to_string())
        };
        tracer::attach(&self.probes()).map_err(refused)?;
        self.functions.iter().try_for_each(|f| function::attach(f.op())).map_err(refused)
    }

    /// Switches them off. Hits under way may go on until a grace period later; then [`settled`] has
    /// the last word.
    ///
    /// [`settled`]: Session::settled
    pub(crate) fn switch_off(&self) {
        self.detach();
        self.on.store(false, Relaxed);
    }

    fn detach(&self) {
        self.functions.iter().for_each(|functions| function::detach(functions.op().data));
        tracer::detach(&self.probes());
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
        let demand: Vec<u64> = self.targets.iter().map(|t| t.limit.take_demand()).collect();
        let Limits { max_overhead_ppm, max_rate, .. } = self.limits;
        let rates = limit::shares(&demand, elapsed, max_overhead_ppm, max_rate);
        for (target, rate) in self.targets.iter().zip(rates) {
            target.limit.set_rate(rate);
        }
    }

    /// Ends the session: off, and freed once nobody can be inside.
    ///
    /// After a first grace period no hit writes to the ring any more, and it leaves the table of
    /// rings (until then a forked child must find it there: a fork may come in the middle of a
    /// record). After a second one no ending thread can still have found it in the table.
    pub(crate) fn end(self: Arc<Session>) {
        self.detach();
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

/// The events of a session.
struct Chosen {
    /// Of each event: its id, its span's begin and its span's end; 0 where it is not used so.
    ids: Vec<[u32; 3]>,
    /// Keys, the session writer made for each, and its place in `ids`.
    keys: Vec<(KeyId, Call, usize)>,
    declared: Vec<Declared>,
    /// The first id that nobody has.
    next: u32,
}

impl Chosen {
    /// The events that any of `globs` matches, and those that belong to functions.
    ///
    /// # Errors
    /// `no-match`, if none does and there are no functions.
    fn of(globs: &[String], functions: Option<&functions::Chosen>) -> Result<Chosen, Failure> {
        let mut events: Vec<_> = tracer::catalogue();
        let theirs = functions.map(functions::Chosen::events).unwrap_or_default();
        let name = |known: &tracer::Known| known.schema.name.clone();
        events.retain(|known| glob_any(globs, &name(known)) || theirs.contains(&name(known)));
        if events.is_empty() && (functions.is_none() || !globs.is_empty()) {
            return Err(failure("no-match", "no event matches"));
        }
        let mut numbers = Numbers { next: FIRST_USER_ID, declared: vec![loss_event()] };
        let mut ids = Vec::new();
        let mut keys = Vec::new();
        for known in events {
            keys.extend(known.keys.iter().map(|&(key, call)| (key, call, ids.len())));
            ids.push(numbers.declare(&known.schema, known.sites > 0, known.spans > 0));
        }
        Ok(Chosen { ids, keys, declared: numbers.declared, next: numbers.next })
    }
}

/// Hands out ids.
struct Numbers {
    next: u32,
    declared: Vec<Declared>,
}

impl Numbers {
    /// Ids of an event, its span's begin and its span's end; unused ones are 0.
    fn declare(&mut self, schema: &Schema, event: bool, span: bool) -> [u32; 3] {
        let mut give = |used: bool, role: Role| {
            if !used {
                return 0;
            }
            let id = self.next;
            self.next += 1;
            self.declared.push(Declared { id, role, schema: schema.clone() });
            id
        };
        [give(event, Role::Event), give(span, Role::Begin), give(span, Role::End)]
    }
}

pub(crate) fn too_many() -> Failure {
    failure(
        "busy",
        format!(
            "{MOST_SESSIONS} recordings of this program are under way already; end one (gracepoint show)"
        ),
    )
}

/// May events be left out?
fn is_limited(wanted: &Create) -> bool {
    let Limits { max_rate, sample, max_overhead_ppm } = wanted.limits;
    max_rate > 0 || sample > 1 || max_overhead_ppm > 0
}

/// Pages for a buffer, and their size.
fn shape(wanted: &Create, ids: u32, most: u64) -> Result<Shape, Failure> {
    let (bytes, mode) = (wanted.buffer_bytes, wanted.mode);
    let bytes = if bytes == 0 { DEFAULT_BUFFER.min(most) } else { bytes.max(LEAST_BUFFER) };
    if bytes > most {
        return Err(failure(
            "memory",
            format!("a buffer of {bytes} bytes is more than the program allows ({most})"),
        ));
    }
    // Many pages rather than large ones: each thread that records holds one.
    let page = 1u64 << (bytes / 1024).clamp(4096, 65536).ilog2();
    // What is counted for each page is part of the buffer.
    let counts = if mode == Mode::Overwrite { counts_bytes(ids) as u64 } else { 0 };
    let pages = u32::try_from(bytes / (page + counts)).unwrap_or(u32::MAX).max(LEAST_PAGES);
    let context = wanted.context.empty_len() as u32;
    Ok(Shape { page_bytes: page as u32, pages, ids, mode, context })
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
