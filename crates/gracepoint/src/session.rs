//! A recording: which events go into which ring, and the agent's verbs on it.

use crate::event::Event;
use crate::key::{Call, Entry, SpanPoint, TRACE};
use crate::ring::Ring;
use crate::ring::arena::{Shape, counts_bytes};
use crate::tracer::KeyId;
use crate::{clock, glob_any, sys, tracer};
use gracepoint_wire::clock::{Clock, Triple};
use gracepoint_wire::control::{Create, Created, Failure, Mode, Stopped};
use gracepoint_wire::schema::{Context, Declared, FIRST_USER_ID, Role, Schema, loss_event};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr};
use std::time::{Duration, Instant};

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
/// How long a stop waits for threads that are inside a read section before it names them.
const SETTLE: Duration = Duration::from_millis(500);

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
}

/// See the top.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) ring: Box<Ring>,
    targets: Box<[Target]>,
    /// Keys, the writer made for each, and its target.
    keys: Vec<(KeyId, Call, usize)>,
    declared: Vec<Declared>,
    context: Context,
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
        (Some(event), None) => {
            let prepared = event.prepare();
            let ring = target.ring();
            let Some(place) = ring.place(target.event, event.size(&prepared)) else {
                return false;
            };
            // SAFETY: the place has room for the `size` bytes that this writes.
            unsafe { event.write(&prepared, place.fields) };
            ring.publish(&place);
            true
        }
        (Some(event), Some(span)) => target.record_begin(event, span),
        (None, span) => target.record_end(span),
    }
}

impl Target {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        // SAFETY: a target's ring lives as long as its session, and so as the target.
        unsafe { &*self.ring }
    }

    /// Out of line: the begin of a span is a second copy of the ring's code for each event type,
    /// which most types never use.
    #[inline(never)]
    fn record_begin<E: Event>(&self, event: &E, span: &SpanPoint) -> bool {
        let prepared = event.prepare();
        let Some(place) = self.ring().place(self.begin, 16 + event.size(&prepared)) else {
            return false;
        };
        // SAFETY: the place has room for two words and `size` bytes.
        unsafe {
            place.fields.cast::<u64>().write_unaligned(span.id);
            place.fields.add(8).cast::<u64>().write_unaligned(span.parent);
            event.write(&prepared, place.fields.add(16));
        }
        self.ring().publish(&place);
        true
    }

    /// The same for all types.
    #[inline(never)]
    fn record_end(&self, span: Option<&SpanPoint>) -> bool {
        let Some(place) = self.ring().place(self.end, 8) else {
            return false;
        };
        let id = span.map_or(0, |span| span.id);
        // SAFETY: the place has room for a word.
        unsafe { place.fields.cast::<u64>().write_unaligned(id) };
        self.ring().publish(&place);
        true
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
        let mut events: Vec<_> = tracer::catalogue();
        events.retain(|known| glob_any(&wanted.globs, &known.schema.name));
        if events.is_empty() {
            return Err(failure("no-match", "no event matches"));
        }
        let mut numbers = Numbers { next: FIRST_USER_ID, declared: vec![loss_event()] };
        let mut ids = Vec::new();
        let mut keys = Vec::new();
        for known in events {
            keys.extend(known.keys.iter().map(|&(key, call)| (key, call, ids.len())));
            ids.push(numbers.declare(&known.schema, known.sites > 0, known.spans > 0));
        }
        let shape = shape(wanted, numbers.next, most_bytes)?;
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
        let of =
            |[event, begin, end]: [u32; 3]| Target { ring: &raw const *ring, event, begin, end };
        let targets = ids.into_iter().map(of).collect();
        let session = Arc::new(Session {
            id,
            targets,
            ring,
            keys,
            declared: numbers.declared,
            context: Context::default(),
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

    /// The reply to `Create`. `first` is a triple from the program's start, for a longer baseline.
    pub(crate) fn created(&self, first: Triple) -> Created {
        let source = clock::source();
        let mut clock = Clock {
            source,
            freq_hz: 1_000_000_000,
            boot_id: self.ring.arena.header().boot_id,
            triples: vec![first, clock::triple(source)],
        };
        clock.refine();
        Created { session: self.id, events: self.declared.clone(), clock, context: self.context }
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
        tracer::attach(&self.probes()).map_err(|error| failure("patching", error.to_string()))
    }

    /// Switches them off, waits a moment for hits under way, and closes the pages.
    pub(crate) fn stop(self: &Arc<Session>) -> Stopped {
        tracer::detach(&self.probes());
        let settled = settle(SETTLE);
        self.ring.take_back();
        let holdouts = if settled {
            Vec::new()
        } else {
            TRACE.holdouts().iter().map(ToString::to_string).collect()
        };
        Stopped { settled, holdouts, at: self.tick() }
    }

    /// Takes a clock triple and publishes it.
    pub(crate) fn tick(&self) -> Triple {
        let triple = clock::triple(clock::source());
        self.ring.arena.set_triple(&triple);
        triple
    }

    /// In overwrite mode: when threads hold most of the pages, takes back those of idle ones.
    pub(crate) fn free_idle_pages(&self) {
        let arena = &self.ring.arena;
        if arena.overwrites() && arena.owned_pages() * 2 > arena.header().pages as usize {
            self.ring.take_back();
        }
    }

    /// Ends the session: off, and freed once nobody can be inside.
    ///
    /// After a first grace period no hit writes to the ring any more, and it leaves the table of
    /// rings (until then a forked child must find it there: a fork may come in the middle of a
    /// record). After a second one no ending thread can still have found it in the table.
    pub(crate) fn end(self: Arc<Session>) {
        tracer::detach(&self.probes());
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
fn after_grace_period(
    pid: u32,
    session: Arc<Session>,
    then: impl FnOnce(Arc<Session>) + Send + 'static,
) {
    TRACE.call(move || {
        if std::process::id() == pid {
            then(session);
        } else {
            let _leaked = ManuallyDrop::new(session);
        }
    });
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
        format!("{MOST_SESSIONS} recordings of this program are under way already; end one"),
    )
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
    Ok(Shape { page_bytes: page as u32, pages, ids, mode })
}

/// Drives grace periods until all sections open now have ended; false after `most`.
fn settle(most: Duration) -> bool {
    let cookie = TRACE.start_poll();
    let deadline = Instant::now() + most;
    loop {
        let progress = TRACE.drive();
        if TRACE.poll_state(cookie) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        if let gracepoint_rcu::Progress::Pending(delay) = progress {
            std::thread::sleep(delay.min(Duration::from_millis(5)));
        }
    }
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
