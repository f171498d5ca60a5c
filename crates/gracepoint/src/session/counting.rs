//! A session that counts hits and records nothing: a few nanoseconds for each, no buffer, no loss.
//!
//! Counters are spread over [`SHARDS`] lines by the thread's index, so that threads seldom share
//! one. The end of a span is not counted: there are as many as begins.

use super::points::Rules;
use super::{Chosen, after_grace_period};
use crate::key::{Entry, SpanPoint};
use crate::tracer::{self, KeyId};
use crate::{clock, patch};
use gracepoint_wire::clock::{Clock, Triple};
use gracepoint_wire::control::{Count, Counts, Create, Created, Failure};
use gracepoint_wire::schema::{Context, Declared};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Lines of counters for each event. A power of two.
const SHARDS: usize = 16;

/// The data of a counting session's probe: the hits of one event.
struct Hits {
    shards: [Shard; SHARDS],
    /// Ids of the event and of its span's begin; 0 where it is not used so.
    event: u32,
    begin: u32,
}

#[derive(Default)]
#[repr(align(64))]
struct Shard {
    events: AtomicU64,
    begins: AtomicU64,
}

/// See the top.
pub(crate) struct Counting {
    pub(crate) id: u64,
    hits: Box<[Hits]>,
    keys: Vec<(KeyId, usize)>,
    declared: Vec<Declared>,
}

/// Counts a hit. Never recorded: a span that is only counted has no end to tell.
///
/// # Safety
/// `data` points to a `Hits` whose session is alive while the read section lasts.
unsafe fn count(data: *const (), event: *const (), span: *const SpanPoint) -> bool {
    // SAFETY: the caller's promise.
    let hits = unsafe { &*data.cast::<Hits>() };
    let shard = &hits.shards[gracepoint_rcu::thread_index().unwrap_or(0) as usize % SHARDS];
    if span.is_null() {
        shard.events.fetch_add(1, Relaxed);
    } else if !event.is_null() {
        shard.begins.fetch_add(1, Relaxed);
    }
    false
}

impl Counting {
    /// Makes a session, still off, that counts the events which any glob matches.
    ///
    /// # Errors
    /// `no-match`, in words for the user of the tool.
    pub(crate) fn create(id: u64, wanted: &Create) -> Result<Arc<Counting>, Failure> {
        let Chosen { ids, keys, declared, .. } =
            Chosen::of(&Rules::new(&wanted.globs, wanted.level), None, false)?;
        let hits = |[event, begin, _]: [u32; 3]| Hits { shards: Default::default(), event, begin };
        let keys = keys.into_iter().map(|(key, _, index)| (key, index)).collect();
        let hits = ids.into_iter().map(hits).collect();
        Ok(Arc::new(Counting { id, hits, keys, declared }))
    }

    fn probes(&self) -> Vec<(KeyId, Entry)> {
        let probe = |&(key, index): &(KeyId, usize)| {
            (key, Entry { call: Some(count), data: (&raw const self.hits[index]).cast() })
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
        self.hits.len() as u32
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
        for hits in &self.hits {
            let sum = |of: fn(&Shard) -> &AtomicU64| -> u64 {
                hits.shards.iter().map(|shard| of(shard).load(Relaxed)).sum()
            };
            let both = [(hits.event, sum(|s| &s.events)), (hits.begin, sum(|s| &s.begins))];
            counts.extend(
                both.into_iter()
                    .filter(|&(id, hits)| id != 0 && hits > 0)
                    .map(|(id, hits)| Count { id, hits }),
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
