//! Static keys: one per event type, shared by all its sites. A key holds the event's probes and,
//! for sites that load and branch, the switch.
//!
//! # Function and data are one
//! The probes of a key are an immutable array of (function, data) pairs behind one pointer. A hit
//! loads the pointer once, inside a read section, and walks what it found; a change publishes a new
//! array and retires the old one. So no hit can call a function with another probe's data, and
//! no transition has to wait (design decision D4).
//!
//! Orderings: the array is written before the release store in [`Key::publish`], which pairs with
//! the acquire load in [`fire`]; without it a hit could walk an array that is not there yet. The
//! array is freed only after a grace period of [`TRACE`] that begins after the store.

use crate::event::{Event, EventDesc};
use crate::view::Encode;
use gracepoint_rcu::Domain;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};

/// Read sections of tracepoints.
pub(crate) static TRACE: Domain = Domain::new("gracepoint");

/// The ids of a span at its begin or end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SpanPoint {
    pub(crate) id: u64,
    pub(crate) parent: u64,
}

impl SpanPoint {
    /// The id of the span around this one.
    pub(crate) fn parent(&self) -> Option<u64> {
        (self.parent != 0).then_some(self.parent)
    }
}

/// The event of keys that have none.
#[derive(gracepoint_macros::Event)]
#[event(name = "gp:none", crate = "crate")]
struct NoEvent;

/// What an entry calls: its data, the event (null at the end of a span), the span's ids (null
/// where there is no span). True if it was recorded, or if the end of the span is wanted.
pub(crate) type Call = unsafe fn(*const (), *const (), *const SpanPoint) -> bool;

/// What a probe does when it is hit; an array ends with one whose `call` is `None`.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) call: Option<Call>,
    pub(crate) data: *const (),
}

// SAFETY: `data` is only handed to `call`, which is made for it and may run on any thread.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    pub(crate) const END: Entry = Entry { call: None, data: ptr::null() };
}

/// A probe in a key's array, which is in the order of calling. Hits look at the entry alone.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) entry: Entry,
    /// Not there where other probes are, too.
    #[cfg(gp_supported)]
    pub(crate) alone: Option<crate::session::Alone>,
    pub(crate) priority: i32,
    /// A session's, not a user's.
    pub(crate) session: bool,
}

impl Member {
    pub(crate) const END: Member = Member::new(Entry::END, i32::MIN, false);

    pub(crate) const fn new(entry: Entry, priority: i32, session: bool) -> Member {
        Member {
            entry,
            #[cfg(gp_supported)]
            alone: None,
            priority,
            session,
        }
    }
}

/// The key of an event type.
#[doc(hidden)]
pub struct Key {
    on: AtomicU32,
    /// It has no sites: see `dynamic.rs`.
    at_run_time: bool,
    /// Part of the change that is being made; of use to its maker alone, under the tracer's lock.
    marked: AtomicBool,
    /// One session is alone on it: the quick way is worth a try.
    #[cfg_attr(not(gp_supported), allow(dead_code, reason = "nothing is recorded"))]
    quick: AtomicBool,
    probes: AtomicPtr<Member>,
    pub(crate) desc: &'static EventDesc,
    /// The session writer, made for this event type.
    #[cfg(gp_supported)]
    pub(crate) record: Call,
    /// The same for several sessions at once.
    #[cfg(gp_supported)]
    pub(crate) record_all: Call,
    /// Encodes an event of this type, for probes that do not know it.
    pub(crate) encode: Encode,
    /// The function that it belongs to, instead of an event.
    #[cfg(gp_supported)]
    point: Option<&'static crate::function::Point>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("event", &self.desc.name()).finish_non_exhaustive()
    }
}

impl Key {
    /// The key of `E`; the derive makes exactly one static of it.
    pub const fn new<E: Event>() -> Key {
        Key {
            on: AtomicU32::new(0),
            at_run_time: false,
            marked: AtomicBool::new(false),
            quick: AtomicBool::new(false),
            probes: AtomicPtr::new(ptr::null_mut()),
            desc: E::DESC,
            #[cfg(gp_supported)]
            record: crate::session::record::<E>,
            #[cfg(gp_supported)]
            record_all: crate::session::record_all::<E>,
            encode: crate::view::encode::<E>,
            #[cfg(gp_supported)]
            point: None,
        }
    }

    /// The key of a point, whose events are [`Hit`](crate::dynamic::Hit)s.
    pub(crate) fn at_run_time(desc: &'static EventDesc) -> Key {
        Key {
            on: AtomicU32::new(0),
            at_run_time: true,
            marked: AtomicBool::new(false),
            quick: AtomicBool::new(false),
            probes: AtomicPtr::new(ptr::null_mut()),
            desc,
            #[cfg(gp_supported)]
            record: crate::session::record_hit,
            #[cfg(gp_supported)]
            record_all: crate::session::record_hit_all,
            encode: crate::view::encode_hit,
            #[cfg(gp_supported)]
            point: None,
        }
    }

    pub(crate) fn is_at_run_time(&self) -> bool {
        self.at_run_time
    }

    /// Whether there are probes to call: the switch of a point.
    #[inline(always)]
    pub(crate) fn has_probes(&self) -> bool {
        // Relaxed: it is for soon; `fire` looks again.
        !self.probes.load(Relaxed).is_null()
    }

    /// The key of a function with the attribute. It has no probes: its sites ask the function's operations.
    pub const fn of_function(point: &'static crate::function::Point) -> Key {
        #[cfg_attr(not(gp_supported), expect(unused_mut, reason = "there is nothing to put in"))]
        let mut key = Key::new::<NoEvent>();
        #[cfg(gp_supported)]
        {
            key.point = Some(point);
        }
        let _ = point;
        key
    }

    /// The function that it belongs to.
    #[cfg(gp_supported)]
    pub(crate) fn point(&self) -> Option<&'static crate::function::Point> {
        self.point
    }

    /// Puts `array` in place of the current one. It must end with [`Member::END`] and live until a
    /// grace period after its own replacement.
    pub(crate) fn publish(&self, array: *mut Member) {
        #[cfg(gp_supported)]
        {
            // SAFETY: null or an array, which has at least its end; by the caller's promise it lives.
            let first = unsafe { array.as_ref() };
            // Relaxed: a word to go by. Who takes the quick way looks at the array itself.
            self.quick.store(first.is_some_and(|first| first.alone.is_some()), Relaxed);
        }
        self.probes.store(array, Release); // pairs with the load in `fire`
    }

    pub(crate) fn mark(&self, marked: bool) {
        self.marked.store(marked, Relaxed);
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Relaxed)
    }

    /// The switch of sites that load and branch.
    #[cfg_attr(not(gp_branch), allow(dead_code, reason = "patched sites have no switch"))]
    pub(crate) fn switch(&self, on: bool) {
        self.on.store(u32::from(on), Relaxed);
    }

    #[inline(always)]
    #[cfg_attr(not(gp_branch), allow(dead_code, reason = "patched sites have no switch"))]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed) != 0
    }
}

/// Calls the key's probes. True if one of them recorded the event, or wants the span's end.
///
/// # Safety
/// `event` is null or points to a value of the type that the key was made for.
#[inline(always)]
pub(crate) unsafe fn fire(key: &Key, event: *const (), span: *const SpanPoint) -> bool {
    // SAFETY: the caller's promise.
    unsafe { fire_those(key, event, span, |_| true) }
}

/// Calls those of the key's probes that `choose` chooses.
///
/// # Safety
/// As for [`fire`].
#[inline(always)]
unsafe fn fire_those(
    key: &Key,
    event: *const (),
    span: *const SpanPoint,
    choose: impl Fn(Call) -> bool,
) -> bool {
    let _section = TRACE.read();
    let mut at = key.probes.load(Acquire);
    let mut recorded = false;
    if !at.is_null() {
        // SAFETY: a published array ends with `Member::END`, and lives until a grace period after
        // it was replaced, so as long as this section.
        while let Entry { call: Some(call), data } = unsafe { (*at).entry } {
            if choose(call) {
                // SAFETY: function and data were put in as a pair; the event is the caller's promise.
                recorded |= unsafe { call(data, event, span) };
            }
            // SAFETY: this entry was not the last.
            at = unsafe { at.add(1) };
        }
    }
    recorded
}

/// Calls the session writers among the key's probes, and no others: counting sessions and probes of the
/// program know events, begins and ends.
///
/// # Safety
/// As for [`fire`].
#[inline]
pub(crate) unsafe fn fire_sessions(key: &Key, event: *const (), span: *const SpanPoint) -> bool {
    #[cfg(gp_supported)]
    let writes = |call| ptr::fn_addr_eq(call, key.record) || ptr::fn_addr_eq(call, key.record_all);
    #[cfg(not(gp_supported))]
    let writes = |_| false;
    // SAFETY: the caller's promise.
    unsafe { fire_those(key, event, span, writes) }
}

/// The cold path of `trace!`, for events that are handed over by reference.
#[doc(hidden)]
#[cold]
#[inline(never)]
pub fn emit<E: Event>(event: &E) {
    emit_here(event);
}

/// The same, where the caller is out of the way already.
#[doc(hidden)]
#[inline(always)]
pub fn emit_here<E: Event>(event: &E) {
    // SAFETY: `E::KEY` is the key of `E`.
    unsafe { fire(E::KEY, (&raw const *event).cast(), ptr::null()) };
}

/// The session that is alone on this key, with its entry's data, both of the section that they come with.
#[cfg(gp_supported)]
#[inline(always)]
fn alone_on(
    key: &Key,
) -> Option<(crate::session::Alone, *const (), gracepoint_rcu::QuickGuard<'_>)> {
    // For the sake of probes, which would enter and leave a section here, and again where they are called.
    if !key.quick.load(Relaxed) {
        return None;
    }
    let section = TRACE.read_quick()?;
    // SAFETY: null, or as in `fire_those` an array, which has at least its end.
    let first = unsafe { key.probes.load(Acquire).as_ref()? };
    Some((first.alone?, first.entry.data, section))
}

/// What a site does first, where the event's fields came in registers and may stay there: records it, if there
/// is one session and nothing out of the ordinary. False, and nothing has been done, if there is more to do.
#[doc(hidden)]
#[inline(always)]
pub fn emit_quickly<E: Event>(event: &E) -> bool {
    #[cfg(gp_supported)]
    {
        let len = event.quick_size();
        if len >= crate::field::NOT_QUICK {
            return false;
        }
        let Some((alone, data, section)) = alone_on(E::KEY) else { return false };
        // SAFETY: it was made from the entry's data, which lives as long as the array.
        unsafe { alone.record(data, event, len, section) }
    }
    #[cfg(not(gp_supported))]
    {
        let _ = event;
        false
    }
}

/// The same for a hit of a point, with the ids of its span: those that its role has are recorded.
#[inline(always)]
pub(crate) fn hit_quickly(key: &Key, hit: &crate::dynamic::Hit<'_>, span: &SpanPoint) -> bool {
    #[cfg(gp_supported)]
    {
        let Some((alone, data, section)) = alone_on(key) else { return false };
        // SAFETY: it was made from the entry's data, which lives as long as the array; points have keys of their
        // own.
        unsafe { alone.record_hit(data, hit, span, section) }
    }
    #[cfg(not(gp_supported))]
    {
        let _ = (key, hit, span);
        false
    }
}
