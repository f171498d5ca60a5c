//! Where one event goes: the data of a session's probe, and the functions that write into its ring.

use crate::context::{Gathered, Top};
use crate::event::Event;
use crate::field::NOT_QUICK;
use crate::key::SpanPoint;
use crate::limit::{Limit, Verdict};
use crate::ring::{Begun, Place, Quick, Ring, Unpublished, Writers, counter_after};
use gracepoint_rcu::QuickGuard;
use gracepoint_wire::schema::{Context, THROTTLE_ID, UNTHROTTLE_ID};
use std::sync::atomic::Ordering::Relaxed;

/// The data of a session's probe: where one event goes.
pub(super) struct Target {
    pub(super) ring: *const Ring,
    pub(super) event: u32,
    pub(super) begin: u32,
    pub(super) end: u32,
    /// Not 0 where there is more to do than to write down the fields: [`LIMITED`], [`UNCOMMON`] and
    /// the bits of the context. One test decides.
    pub(super) extras: u32,
    /// The program's pid, for the context.
    pub(super) pid: u32,
    pub(super) limit: Limit,
}

/// Bit of `Target::extras`: not every event is recorded.
pub(super) const LIMITED: u32 = 1 << 31;

/// Bit of `Target::extras`: the ring is not plain, or an id needs the longer header.
pub(super) const UNCOMMON: u32 = 1 << 30;

/// The sessions of one key, when there are several: the event is encoded once and copied.
pub(crate) struct Merged {
    /// Each leads to a `Target`.
    pub(super) targets: Box<[*const ()]>,
    /// The same, if none of them has extras; otherwise empty.
    plain: Box<[Alone]>,
}

// SAFETY: the pointers are those of entries, which any thread may use.
unsafe impl Send for Merged {}

impl Merged {
    /// Most sessions that are merged; there are not so many.
    pub(crate) const MOST: usize = 64;

    /// Of sessions that are attached.
    pub(crate) fn new(targets: Box<[*const ()]>) -> Merged {
        // SAFETY: the data of a session's entry is a target that lives as long as it is attached.
        let plain: Option<_> = targets.iter().map(|data| unsafe { Alone::new(*data) }).collect();
        Merged { targets, plain: plain.unwrap_or_default() }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.targets) + size_of_val(&*self.plain)
    }
}

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
    if span.is_null() && target.extras == 0 {
        // SAFETY: the caller's promise: where there is no span there is an event.
        let event = unsafe { &*event.cast::<E>() };
        let prepared = event.prepare();
        let ring = target.ring();
        let Some(place) = ring.place_plain(target.event, event.size(&prepared)) else {
            return false;
        };
        // SAFETY: the place has room for the `size` bytes that this writes.
        unsafe { event.write(&prepared, place.fields) };
        ring.publish(&place);
        return true;
    }
    // SAFETY: the caller's promise.
    let (event, span) = unsafe { (event.cast::<E>().as_ref(), span.as_ref()) };
    match (event, span) {
        // SAFETY: `data` is the caller's promise.
        (Some(event), span) => unsafe { record_each(&[data], event, span) },
        (None, span) => target.record_end(span),
    }
}

/// The data of a session's probe that is alone on its key, for those who record in line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alone {
    pub(super) writers: Writers,
    event: u32,
}

impl Alone {
    /// `None` if there is more to do than to write down the fields.
    ///
    /// # Safety
    /// `data` is that of a [`record`], whose session is alive.
    pub(crate) unsafe fn new(data: *const ()) -> Option<Alone> {
        // SAFETY: the caller's promise.
        let target = unsafe { &*data.cast::<Target>() };
        let writers = target.ring().writers().filter(|_| target.extras == 0)?;
        Some(Alone { writers, event: target.event })
    }

    /// [`record`] in line: the event has `len` bytes in the quick way. False, and nothing has been done, if
    /// something is out of the ordinary.
    ///
    /// # Safety
    /// This was made from `data`, whose session is alive until `section` ends; `len` is the event's
    /// `quick_size`, and not `NOT_QUICK`.
    #[inline(always)]
    pub(crate) unsafe fn record<E: Event>(
        self,
        data: *const (),
        event: &E,
        len: usize,
        section: QuickGuard<'_>,
    ) -> bool {
        // SAFETY: the ring lives as long as the session; the section keeps the thread's index.
        let Some(place) = (unsafe { self.writers.place(self.event, len) }) else { return false };
        // SAFETY: the place has room for the `quick_size` bytes that this writes.
        unsafe { event.write_quick(place.fields) };
        if let Err(unpublished) = place.publish() {
            // SAFETY: the caller's promise.
            unsafe { publish_and_leave(data, unpublished, section) };
        }
        true
    }
}

/// Ends the section too: so nothing is left to be done after a call that nearly never happens.
///
/// # Safety
/// `data` is that of a [`record`], whose session is alive until `section` ends.
#[cold]
#[inline(never)]
pub(super) unsafe fn publish_and_leave(
    data: *const (),
    unpublished: Unpublished<'_>,
    _section: QuickGuard<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe { publish_after_all(data, unpublished) };
}

/// # Safety
/// `data` is that of a [`record`], whose session is alive.
#[cold]
#[inline(never)]
unsafe fn publish_after_all(data: *const (), unpublished: Unpublished<'_>) {
    // SAFETY: the caller's promise.
    unsafe { &*data.cast::<Target>() }.ring().publish_after_all(unpublished);
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
    let merged = unsafe { &*data.cast::<Merged>() };
    let targets = &merged.targets;
    // SAFETY: the caller's promise.
    let (event, span) = unsafe { (event.cast::<E>().as_ref(), span.as_ref()) };
    match event {
        // SAFETY: the caller's promise.
        Some(event) if span.is_none() => unsafe { record_plain(merged, event) },
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

/// [`record_each`] with one reading of the clock for all, where there is neither a span nor anything extra: see the
/// top of `ring.rs`.
///
/// # Safety
/// As for [`record_each`], for all of `merged`.
#[inline(always)]
unsafe fn record_plain<E: Event>(merged: &Merged, event: &E) -> bool {
    const AT_ONCE: usize = 8;
    let (Merged { targets, plain }, len) = (merged, event.quick_size());
    let line = gracepoint_rcu::thread_line()
        .filter(|_| (1..=AT_ONCE).contains(&plain.len()) && len < NOT_QUICK);
    let Some(line) = line else {
        // SAFETY: the caller's promise.
        return unsafe { record_each(targets, event, None) };
    };
    let mut begun: [Option<Begun<'_>>; AT_ONCE] = [None; AT_ONCE];
    for (begun, alone) in begun.iter_mut().zip(plain) {
        // SAFETY: the session is alive by the caller's promise, and the line is this thread's.
        *begun = unsafe { alone.writers.begin(line) };
    }
    let now = counter_after();
    let mut first: Option<(*const (), Quick<'_>)> = None;
    let mut recorded = false;
    // Each that has begun gets its place or withdraws, also when others have none.
    for ((begun, alone), data) in begun.iter().zip(plain).zip(targets) {
        let Some(place) = begun.and_then(|begun| begun.place(now, alone.event, len)) else {
            // SAFETY: the caller's promise.
            recorded |= unsafe { record_each(&[*data], event, None) };
            continue;
        };
        if let Some((_, first)) = &first {
            // SAFETY: both places have room for `len` bytes and are in different rings; the first
            // is written, and not published.
            unsafe { copy_record(first.fields, place.fields, len) };
            publish(*data, place);
        } else {
            // SAFETY: the place has room for the `quick_size` bytes that this writes.
            unsafe { event.write_quick(place.fields) };
            first = Some((*data, place));
        }
    }
    let Some((data, place)) = first else { return recorded };
    publish(data, place);
    true
}

/// `data` is that of the session in whose ring the place is.
#[inline(always)]
fn publish(data: *const (), place: Quick<'_>) {
    if let Err(unpublished) = place.publish() {
        // SAFETY: who has a place has a session that is alive.
        unsafe { publish_after_all(data, unpublished) };
    }
}

/// Copies `len` bytes; without a call where they are few.
///
/// # Safety
/// As for `copy_nonoverlapping`.
#[inline(always)]
pub(super) unsafe fn copy_record(from: *const u8, to: *mut u8, len: usize) {
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
    pub(super) fn ring(&self) -> &Ring {
        // SAFETY: a target's ring lives as long as its session, and so as the target.
        unsafe { &*self.ring }
    }

    /// A place for the context, which is written, and `len` more bytes, where the pointer leads.
    #[inline(always)]
    pub(super) fn place(&self, id: u32, len: usize) -> Option<(Place<'_>, *mut u8)> {
        self.place_in(id, len, Top::Here)
    }

    /// The same with this as the top of the stack.
    #[inline(always)]
    pub(super) fn place_in(
        &self,
        id: u32,
        len: usize,
        top: Top<'_>,
    ) -> Option<(Place<'_>, *mut u8)> {
        let context = self.extras & !(LIMITED | UNCOMMON);
        if context != 0 {
            return self.place_with_context(context, id, len, top);
        }
        let place = self.ring().place(id, len)?;
        let at = place.fields;
        Some((place, at))
    }

    #[inline(never)]
    fn place_with_context(
        &self,
        context: u32,
        id: u32,
        len: usize,
        top: Top<'_>,
    ) -> Option<(Place<'_>, *mut u8)> {
        let context = Gathered::now(Context::from_bits(context), self.pid, top);
        let bytes = context.bytes();
        let place = self.ring().place(id, bytes.len() + len)?;
        // SAFETY: the place has room for the context and `len` bytes.
        let at = unsafe {
            place.fields.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            place.fields.add(bytes.len())
        };
        Some((place, at))
    }

    /// The same for all types.
    #[inline(never)]
    pub(super) fn record_end(&self, span: Option<&SpanPoint>) -> bool {
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
    pub(super) fn admits(&self, id: u32) -> bool {
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
        let Some(place) = self.ring().place(id, context + 12) else { return };
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
