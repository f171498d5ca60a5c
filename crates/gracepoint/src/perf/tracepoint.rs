//! Handles on tracepoints of the program: what a hit does, and how a handle is on and off.
//!
//! A handle that is on has an [`Attached`] in the tracer's state, like a probe: entries of probe arrays point
//! to its [`Place`]s, and it lives until a grace period after it was taken off. It is made anew each time the
//! handle is enabled, and shares the [`Tally`]s with the handle, so that a hit under way when the handle
//! is closed writes into memory that it owns together with the hit's probe array: closing waits for nobody.
//!
//! A hit runs no code of the program, allocates nothing and takes no lock. Counters are only added to;
//! a reset remembers where it was, and no write of a hit is lost by it.

use super::ring::{PerfRing, PerfSample};
use crate::dynamic::{Declaration, Point, declare};
use crate::error::Error;
use crate::key::{Entry, Key, SpanPoint};
use crate::probe::{Body, Head, Place as Found};
use crate::tracer::{self, KeyId};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Counters of an event that many threads hit. A power of two.
const SHARDS: usize = 8;

#[derive(Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

/// Which hits become samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    /// Every so many, from 1.
    Every(u64),
    /// At most one in so many nanoseconds.
    Apart(u64),
}

/// Where samples go, and which there are.
pub(super) struct Samples {
    pub(super) pick: Pick,
    pub(super) ring: Option<Arc<PerfRing>>,
    pub(super) feed: Option<Feed>,
    /// Position in its group.
    pub(super) event: u32,
}

/// The event of samples that feed sessions.
pub(super) const FED: &str = "perf:sample";

/// Samples as events for sessions.
pub(super) struct Feed {
    /// What was hit.
    name: String,
    point: &'static Point,
}

impl Feed {
    pub(super) fn new(name: String) -> Feed {
        static POINT: OnceLock<&'static Point> = OnceLock::new();
        let declaration = || Declaration {
            name: FED.into(),
            fields: ["of", "hits", "count", "span"].map(String::from).to_vec(),
            file: file!().into(),
            line: line!(),
            ..Declaration::default()
        };
        Feed { name, point: POINT.get_or_init(|| declare(declaration())) }
    }

    fn hit(&self, hits: u64, count: u64, span: Option<u64>) {
        self.point.event(|fields| {
            fields.str(0, &self.name);
            fields.u64(1, hits);
            fields.u64(2, count);
            if let Some(span) = span {
                fields.u64(3, span);
            }
        });
    }
}

/// The samples of an event.
pub(super) struct Sampler {
    pick: Pick,
    /// Before this moment no sample is taken ([`Pick::Apart`]).
    next_ns: AtomicU64,
    /// The count at the latest sample.
    last: AtomicU64,
    ring: Option<Arc<PerfRing>>,
    feed: Option<Feed>,
    /// Position in its group.
    event: u32,
}

/// What is counted of one event, of one thread or of all.
pub(super) struct Tally {
    /// One with samples, which need one order of all hits; else several.
    shards: Box<[Shard]>,
    /// The thread whose hits count; 0 for all.
    only: u32,
    sampler: Option<Sampler>,
}

impl Tally {
    pub(super) fn new(only: u32, sampled: Option<Samples>) -> Tally {
        let shards = if only != 0 || sampled.is_some() { 1 } else { SHARDS };
        let sampler = sampled.map(|Samples { pick, ring, feed, event }| Sampler {
            pick,
            next_ns: AtomicU64::new(0),
            last: AtomicU64::new(0),
            ring,
            feed,
            event,
        });
        Tally { shards: (0..shards).map(|_| Shard::default()).collect(), only, sampler }
    }

    /// Hits since it was made.
    pub(super) fn count(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.load(Relaxed)).fold(0, u64::wrapping_add)
    }

    fn bytes(&self) -> usize {
        let ring = self.sampler.as_ref().and_then(|sampler| sampler.ring.as_ref());
        let ring = ring.map_or(0, |ring| ring.bytes());
        size_of::<Self>() + size_of_val(&*self.shards) + ring
    }

    #[inline(always)]
    pub(super) fn hit(&self, span: Option<u64>) {
        let index = gracepoint_rcu::thread_index();
        if self.only != 0 && tid(index) != self.only {
            return;
        }
        let shard = &self.shards[index.unwrap_or(0) as usize & (self.shards.len() - 1)];
        let count = shard.0.fetch_add(1, Relaxed) + 1;
        if let Some(sampler) = &self.sampler {
            sampler.hit(count, span, || if self.only != 0 { self.only } else { tid(index) });
        }
    }
}

/// The kernel's number of the calling thread.
fn tid(index: Option<u32>) -> u32 {
    index.and_then(gracepoint_rcu::thread_info).map_or_else(own_tid, |info| info.tid)
}

#[cold]
pub(super) fn own_tid() -> u32 {
    #[cfg(gp_supported)]
    return crate::sys::thread_id();
    #[cfg(not(gp_supported))]
    return 0;
}

fn now_ns() -> u64 {
    #[cfg(gp_supported)]
    return crate::clock::ticks(gracepoint_wire::clock::Source::Monotonic);
    #[cfg(not(gp_supported))]
    return 0;
}

impl Sampler {
    fn hit(&self, count: u64, span: Option<u64>, tid: impl FnOnce() -> u32) {
        let now = match self.pick {
            Pick::Every(n) if !count.is_multiple_of(n) => return,
            Pick::Every(_) => now_ns(),
            Pick::Apart(apart) => {
                let (now, next) = (now_ns(), self.next_ns.load(Relaxed));
                // Whoever moves it takes the sample. The grid is kept, unless it was left behind.
                let then = if next + apart > now { next + apart } else { now + apart };
                if now < next
                    || self.next_ns.compare_exchange(next, then, Relaxed, Relaxed).is_err()
                {
                    return;
                }
                now
            }
        };
        // Two samples at once may find each other's counts in any order: a later one weighs nothing then.
        let hits = count.saturating_sub(self.last.fetch_max(count, Relaxed));
        if let Some(ring) = &self.ring {
            let (at, tid) = (Duration::from_nanos(now), tid());
            ring.push(&PerfSample { at, tid, hits, count, span, event: self.event });
        }
        if let Some(feed) = &self.feed {
            feed.hit(hits, count, span);
        }
    }
}

/// An event that is counted.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) key: &'static Key,
    pub(super) tally: Arc<Tally>,
}

/// See the top.
pub(super) struct Attached {
    head: Head,
    places: Box<[Place]>,
}

/// An event of a handle that is on: the data of the entry in its probe array.
struct Place {
    counted: Counted,
    /// The `Attached` that this is part of. Written before the place is shared; publishing it orders that.
    of: AtomicPtr<Attached>,
}

/// Counts a hit. Never recorded: a span that is only counted has no end to tell.
///
/// # Safety
/// `data` points to a `Place` of an `Attached` that lives while the read section lasts; `span` is null or
/// points to a span's ids.
unsafe fn hit(data: *const (), event: *const (), span: *const SpanPoint) -> bool {
    // SAFETY: the caller's promise.
    let place = unsafe { &*data.cast::<Place>() };
    // SAFETY: the caller's promise.
    let span = unsafe { span.as_ref() };
    // SAFETY: set before the place was shared, to the value that it is part of.
    let head = unsafe { &(*place.of.load(Relaxed)).head };
    if !event.is_null() && !head.is_dead() {
        place.counted.tally.hit(span.map(|span| span.id));
    }
    false
}

impl Attached {
    /// Of these events; `None` of none.
    pub(super) fn new<'c>(
        counted: impl Iterator<Item = &'c Counted>,
        name: &str,
    ) -> Option<Arc<Attached>> {
        let place = |counted: &Counted| Place {
            counted: counted.clone(),
            of: AtomicPtr::new(std::ptr::null_mut()),
        };
        let places: Box<[Place]> = counted.map(place).collect();
        if places.is_empty() {
            return None;
        }
        let head = Head::new(0, places.len(), Some(name.to_owned()), 0);
        let attached = Arc::new(Attached { head, places });
        for place in &attached.places {
            place.of.store(Arc::as_ptr(&attached).cast_mut(), Relaxed);
        }
        Some(attached)
    }

    /// Begins to count, everywhere in one batch. Once.
    ///
    /// # Errors
    /// As [`Tracepoint::attach`](crate::Tracepoint::attach).
    pub(super) fn add(self: &Arc<Attached>) -> Result<(), Error> {
        let entry = |place: &Place| {
            let entry = Entry { call: Some(hit), data: std::ptr::from_ref(place).cast() };
            (place.counted.key, entry)
        };
        tracer::add(self.clone(), self.places.iter().map(entry).collect(), None)
    }
}

impl Body for Attached {
    fn head(&self) -> &Head {
        &self.head
    }

    fn places(&self) -> Box<dyn Iterator<Item = Found> + '_> {
        let found = |place: &Place| Found {
            key: KeyId::of(place.counted.key),
            data: std::ptr::from_ref(place).cast(),
        };
        Box::new(self.places.iter().map(found))
    }

    fn tracepoint(&self, place: usize) -> String {
        self.places.get(place).map_or_else(String::new, |place| place.counted.key.desc.name())
    }

    fn len(&self) -> usize {
        self.places.len()
    }

    fn bytes(&self) -> usize {
        let tallies: usize = self.places.iter().map(|place| place.counted.tally.bytes()).sum();
        size_of_val(self) + size_of_val(&*self.places) + self.head.name().len() + tallies
    }

    unsafe fn drop_captured(&self) {
        // Nothing of the program's: what there is goes with the allocation.
    }
}
