//! A session that counts hits and records nothing: a few nanoseconds for each, no buffer, no loss.
//!
//! Counters are spread over [`LINES`] lines by the thread's index, so that threads seldom share
//! one. The end of a span is not counted: there are as many as begins. They lie in a memory file that the tool has as
//! well, so that it can tell what a program has counted that is no more, whatever ended it.

use super::points::Rules;
use super::{Chosen, after_grace_period, failure};
use crate::key::{Entry, SpanPoint};
use crate::tracer::{self, KeyId};
use crate::{clock, patch, sys};
use gracepoint_wire::clock::{Clock, Triple};
use gracepoint_wire::control::{Count, Counts, Create, Created, Failure};
use gracepoint_wire::counters::{BLOCK, LINE, LINES};
use gracepoint_wire::schema::{Context, Declared};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

/// The data of a counting session's probe: the hits of one event, as `gracepoint_wire::counters` has them.
#[repr(C, align(64))]
struct Hits {
    /// Ids of the event and of its span's begin; 0 where it is not used so.
    ids: [AtomicU32; 2],
    shards: [Shard; LINES],
}

#[repr(C, align(64))]
struct Shard {
    events: AtomicU64,
    begins: AtomicU64,
}

const _: () = assert!(size_of::<Hits>() == BLOCK && size_of::<Shard>() == LINE);

/// See the top.
pub(crate) struct Counting {
    pub(crate) id: u64,
    memory: sys::Mapping,
    /// In `memory`.
    kinds: usize,
    keys: Vec<(KeyId, usize)>,
    declared: Vec<Declared>,
}

/// Those that there are, for forked children.
static ALL: [AtomicPtr<Counting>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];
/// More than an agent allows, with what waits for a grace period; further ones are not made.
const MOST: usize = 128;

/// Counts a hit. Never recorded: a span that is only counted has no end to tell.
///
/// # Safety
/// `data` points to a `Hits` whose session is alive while the read section lasts.
unsafe fn count(data: *const (), event: *const (), span: *const SpanPoint) -> bool {
    // SAFETY: the caller's promise.
    let hits = unsafe { &*data.cast::<Hits>() };
    let shard = &hits.shards[gracepoint_rcu::thread_index().unwrap_or(0) as usize % LINES];
    if span.is_null() {
        shard.events.fetch_add(1, Relaxed);
    } else if !event.is_null() {
        shard.begins.fetch_add(1, Relaxed);
    }
    false
}

impl Counting {
    /// Makes a session, still off, that counts the events which any glob matches. Its memory is for the tool, too.
    ///
    /// # Errors
    /// `no-match` or `memory`, in words for the user of the tool.
    pub(crate) fn create(id: u64, wanted: &Create) -> Result<(Arc<Counting>, OwnedFd), Failure> {
        let Chosen { ids, keys, declared, .. } =
            Chosen::of(&Rules::new(&wanted.globs, wanted.level), None, false)?;
        let (memory, file) = memory(ids.len())
            .map_err(|e| failure("memory", format!("no memory for the counts: {e}")))?;
        let keys = keys.into_iter().map(|(key, _, index)| (key, index)).collect();
        let counting = Arc::new(Counting { id, memory, kinds: ids.len(), keys, declared });
        for (hits, [event, begin, _]) in counting.hits().iter().zip(ids) {
            hits.ids[0].store(event, Relaxed);
            hits.ids[1].store(begin, Relaxed);
        }
        let this = Arc::as_ptr(&counting).cast_mut();
        let free = |place: &&AtomicPtr<Counting>| {
            place.compare_exchange(ptr::null_mut(), this, Release, Relaxed).is_ok()
        };
        if ALL.iter().find(free).is_none() {
            return Err(failure("busy", "too many sessions count: end some (gracepoint show)"));
        }
        Ok((counting, file))
    }

    fn hits(&self) -> &[Hits] {
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
        let base = self.memory.base().cast::<Hits>();
        // SAFETY: the mapping has room for so many, and its size is sealed; they are atomics, of which any bits are a
        // number.
        unsafe { std::slice::from_raw_parts(base, self.kinds) }
    }

    fn probes(&self) -> Vec<(KeyId, Entry)> {
        let probe = |&(key, index): &(KeyId, usize)| {
            (key, Entry { call: Some(count), data: (&raw const self.hits()[index]).cast() })
        };
        self.keys.iter().map(probe).collect()
    }

    /// The reply to `Count`: what is counted.
    pub(crate) fn created(&self, first: Triple) -> Created {
        let source = clock::source();
        let triples = vec![first, clock::triple(source)];
        let boot_id = clock::boot_id();
        let mut clock = Clock { source, freq_hz: 1_000_000_000, boot_id, triples };
        clock.refine();
        let context = Context::default();
        Created {
            session: self.id,
            events: self.declared.clone(),
            clock,
            context,
            modules: Vec::new(),
        }
    }

    pub(crate) fn kinds(&self) -> u32 {
        self.kinds as u32
    }

    /// Switches the counting on.
    ///
    /// # Errors
    /// When the system does not let sites be switched.
    pub(crate) fn switch_on(&self) -> Result<(), patch::PatchError> {
        tracer::attach(&self.probes())
    }

    pub(crate) fn switch_off(&self) {
        tracer::detach(&self.probes());
    }

    /// All counts so far.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Vec::new();
        for hits in self.hits() {
            let sum = |of: fn(&Shard) -> &AtomicU64| -> u64 {
                hits.shards.iter().map(|shard| of(shard).load(Relaxed)).sum()
            };
            let [event, begin] = &hits.ids;
            let both = [(event, sum(|s| &s.events)), (begin, sum(|s| &s.begins))];
            counts.extend(
                both.into_iter()
                    .map(|(id, hits)| Count { id: id.load(Relaxed), hits })
                    .filter(|count| count.id != 0 && count.hits > 0),
            );
        }
        Counts { at: clock::triple(clock::source()), counts }
    }

    /// Ends the session: off, and freed when no hit can be inside any more.
    pub(crate) fn end(self: Arc<Counting>) {
        self.switch_off();
        after_grace_period(std::process::id(), self, drop);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let this = ptr::from_mut(self);
        for place in &ALL {
            let _ = place.compare_exchange(this, ptr::null_mut(), Relaxed, Relaxed);
        }
    }
}

/// For so many events, and nobody else's to write to.
fn memory(kinds: usize) -> io::Result<(sys::Mapping, OwnedFd)> {
    let len = (kinds * BLOCK) as u64;
    // All of it now: a hit must not find that there is none.
    let file = sys::memory_file(c"gracepoint-counts", len, std::slice::from_ref(&(0..len)))?;
    let mapping = sys::Mapping::shared(file.as_fd(), len as usize)?;
    sys::seal(&file, sys::NO_MORE_WRITERS)?;
    mapping.populate(0..len as usize);
    Ok((mapping, file))
}

/// In a forked child, whose hits are not the parent's: memory of its own, that nobody reads.
pub(super) fn child_after_fork() {
    for place in &ALL {
        // SAFETY: as for rings: the child has a copy of the session, which nobody frees.
        if let Some(counting) = unsafe { place.load(Acquire).as_ref() } {
            sys::fill_hole(counting.memory.base().addr(), counting.memory.len());
        }
        place.store(ptr::null_mut(), Relaxed);
    }
}
