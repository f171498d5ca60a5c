//! Open spans of the subscriber: how many handles each has, and which call site it is of. No allocation
//! for a span; memory is that of the most spans that were open at once.
//!
//! # Slots
//! A span is a slot of one of [`SHARDS`] shards. A thread takes slots from its own shard, and any thread
//! gives them back to the one that they are of. Free slots are a stack, whose head has a tag that changes
//! with each exchange: a thread that was interrupted between reading the head and exchanging it notices
//! whatever happened meanwhile. Each thread keeps the [`KEPT`] slots that it freed last for itself, to open
//! the next spans without an exchange, and gives them back when it ends.
//!
//! # Ids
//! An id is the slot and how often it was used, marked as one of ours: the highest 17 bits are set. Those
//! of `gracepoint::span!` begin with the slot of a thread, and the last one, of threads that have none, does
//! not count so far.
//!
//! # Orderings
//! What a span's slot says is written before its id is handed out, and `tracing` hands ids on between
//! threads with orderings of its own. The count of handles is lowered with release, and the last to lower it
//! acquires: so the slot is given back after everything that was done with the span. The head of the free
//! slots is exchanged with acquire and release: whoever takes a slot sees the `next` that its giver wrote.
//! Who finds his handle to be the last does not lower the count by an exchange: handles are made from handles, so
//! nobody else can change it.
//!
//! # Notes
//! Of spans that are to be told of ([`tasks`](crate::tasks)) more is noted, in memory beside the slots. Who reads notes
//! does so while others write. A slot says in `uses` whose turn it is, before anything is noted, and the fence of
//! release in [`open`] pairs with that of acquire in `Shard::noted`: who has read a word of a later turn sees that
//! turn's number, and passes the slot over. The count of handles is set with release and read with acquire, so that a
//! span is seen with what was noted at its begin.

use crate::sites::{self, Site};
use crate::tasks::{Note, Noted};
use gracepoint::dynamic::{Point, PointCell};
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

const SHARDS: usize = 16;
/// Slots of a chunk, which is allocated at once.
const CHUNK: usize = 1024;
/// Chunks of a shard.
const CHUNKS: usize = 64;
const SLOT_BITS: u32 = (SHARDS * CHUNK * CHUNKS).trailing_zeros();
const MARK: u64 = 0x1_ffff << 47;
const USE_BITS: u32 = 47 - SLOT_BITS;
/// Id of the spans for which there was no slot.
pub(crate) const NOWHERE: u64 = u64::MAX;
/// Free slots that a thread keeps.
const KEPT: usize = 8;
/// Bit of `Slot::site`: the span has a note.
const NOTED: u32 = 1 << 31;

#[derive(Default)]
struct Slot {
    handles: AtomicU32,
    uses: AtomicU32,
    /// Number of the call site.
    site: AtomicU32,
    /// Its tracepoint, if the begin was recorded: what happens in the span goes there without a look at the site.
    point: PointCell,
    /// The free slot below this one, plus 1.
    next: AtomicU32,
}

struct Shard {
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
    /// Notes of the same slots; none where none was asked for.
    notes: [OnceLock<Box<[Note]>>; CHUNKS],
    /// Tag (32 bits) and the free slot on top, plus 1.
    free: AtomicU64,
    /// Slots that were ever used.
    used: AtomicU32,
}

static TABLE: [Shard; SHARDS] = [const {
    Shard {
        chunks: [const { OnceLock::new() }; CHUNKS],
        notes: [const { OnceLock::new() }; CHUNKS],
        free: AtomicU64::new(0),
        used: AtomicU32::new(0),
    }
}; SHARDS];

/// An open span.
pub(crate) struct Open {
    /// If the begin was recorded.
    pub(crate) point: Option<&'static Point>,
    /// Number of the call site, and bits.
    site: u32,
}

impl Open {
    /// Its call site.
    pub(crate) fn site(&self) -> Option<&'static Site> {
        sites::numbered(self.site & !NOTED)
    }

    /// A thread enters the span that has this id.
    #[inline]
    pub(crate) fn enters(&self, id: u64) {
        if self.site & NOTED != 0 {
            moved(id, Note::enter);
        }
    }

    /// It leaves it.
    #[inline]
    pub(crate) fn leaves(&self, id: u64) {
        if self.site & NOTED != 0 {
            moved(id, Note::leave);
        }
    }
}

#[cold]
fn moved(id: u64, tell: impl Fn(&Note)) {
    if let Some(note) = find(id).and_then(|(place, _)| note_at(place)) {
        tell(note);
    }
}

/// The slots that this thread keeps, the ones freed last at the end. (Not for signal handlers, as little as
/// `tracing` is.)
struct Kept {
    slots: [Cell<u64>; KEPT],
    count: Cell<usize>,
}

thread_local!(static KEPT_HERE: Kept =
    const { Kept { slots: [const { Cell::new(0) }; KEPT], count: Cell::new(0) } });

impl Kept {
    fn take(&self) -> Option<u64> {
        let count = self.count.get().checked_sub(1)?;
        self.count.set(count);
        Some(self.slots[count].get())
    }

    /// False if there is no room.
    fn keep(&self, place: u64) -> bool {
        let count = self.count.get();
        let Some(free) = self.slots.get(count) else { return false };
        free.set(place);
        self.count.set(count + 1);
        true
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        while let Some(place) = self.take() {
            give(place);
        }
    }
}

fn own_shard() -> usize {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static SHARD: Cell<u32> = const { Cell::new(u32::MAX) });
    SHARD.with(|shard| {
        if shard.get() == u32::MAX {
            shard.set(NEXT.fetch_add(1, Relaxed));
        }
        shard.get() as usize % SHARDS
    })
}

impl Slot {
    #[inline]
    fn open(&self) -> Open {
        Open { point: self.point.get(), site: self.site.load(Relaxed) }
    }
}

impl Shard {
    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot> {
        let (chunk, slot) = (index as usize / CHUNK, index as usize % CHUNK);
        Some(&self.chunks.get(chunk)?.get()?[slot])
    }

    /// The same of one that was never used.
    fn new_slot(&self, index: u32) -> Option<&Slot> {
        let (chunk, slot) = (index as usize / CHUNK, index as usize % CHUNK);
        let chunk = self.chunks.get(chunk)?;
        Some(&chunk.get_or_init(|| (0..CHUNK).map(|_| Slot::default()).collect())[slot])
    }

    fn note(&self, index: u32) -> Option<&Note> {
        let (chunk, slot) = (index as usize / CHUNK, index as usize % CHUNK);
        let chunk = self.notes.get(chunk)?;
        Some(&chunk.get_or_init(|| (0..CHUNK).map(|_| Note::default()).collect())[slot])
    }

    /// The open span in this slot, if it has a note. Tests have something happen in `between`.
    fn noted(
        &self,
        number: usize,
        index: u32,
        between: impl FnOnce(),
    ) -> Option<(u64, &'static Site, Noted)> {
        let (chunk, at) = (index as usize / CHUNK, index as usize % CHUNK);
        let slot = self.chunks.get(chunk)?.get()?.get(at)?;
        // Acquire pairs with the release in `open`.
        if slot.handles.load(Acquire) == 0 || slot.site.load(Relaxed) & NOTED == 0 {
            return None;
        }
        let uses = slot.uses.load(Relaxed);
        let site = slot.open().site()?;
        between();
        let noted = self.note(index)?.look();
        fence(Acquire); // pairs with the fence in `open`
        let same = slot.handles.load(Relaxed) != 0 && slot.uses.load(Relaxed) == uses;
        same.then(|| (id_of(place_of(number, index), uses), site, noted))
    }

    fn take(&self) -> Option<(u32, &Slot)> {
        let mut head = self.free.load(Acquire);
        while let Some(index) = (head as u32).checked_sub(1) {
            let slot = self.slot(index)?;
            let next =
                head.wrapping_add(1 << 32) & !0xffff_ffff | u64::from(slot.next.load(Relaxed));
            match self.free.compare_exchange_weak(head, next, AcqRel, Acquire) {
                Ok(_) => return Some((index, slot)),
                Err(now) => head = now,
            }
        }
        let index = self.used.fetch_add(1, Relaxed);
        let slot = self.new_slot(index);
        if slot.is_none() {
            self.used.fetch_sub(1, Relaxed);
        }
        Some((index, slot?))
    }

    fn give(&self, index: u32, slot: &Slot) {
        let mut head = self.free.load(Relaxed);
        loop {
            slot.next.store(head as u32, Relaxed);
            let new = head.wrapping_add(1 << 32) & !0xffff_ffff | u64::from(index + 1);
            match self.free.compare_exchange_weak(head, new, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

/// A free slot, by its place among those of all shards.
fn take() -> Option<(u64, &'static Slot)> {
    if let Ok(Some(place)) = KEPT_HERE.try_with(Kept::take) {
        return Some((place, at(place)?));
    }
    let shard = own_shard();
    let (index, slot) = TABLE[shard].take()?;
    Some((place_of(shard, index), slot))
}

/// A slot is free again.
fn free(place: u64) {
    // At a thread's very end nothing is kept any more.
    if !KEPT_HERE.try_with(|kept| kept.keep(place)).unwrap_or(false) {
        give(place);
    }
}

/// Gives a free slot back to its shard.
#[cold]
fn give(place: u64) {
    let (shard, index) = split(place);
    if let Some(slot) = TABLE[shard].slot(index) {
        TABLE[shard].give(index, slot);
    }
}

#[inline]
fn place_of(shard: usize, index: u32) -> u64 {
    u64::from(index) * SHARDS as u64 + shard as u64
}

#[inline]
fn split(place: u64) -> (usize, u32) {
    (place as usize % SHARDS, (place / SHARDS as u64) as u32)
}

#[inline]
fn at(place: u64) -> Option<&'static Slot> {
    let (shard, index) = split(place);
    TABLE[shard].slot(index)
}

/// A span of this call site begins, with one handle; `begin` records that, and says whether it did. `note` fills
/// in its note, if it is to have one.
pub(crate) fn open(
    site: &Site,
    note: Option<impl FnOnce(&Note)>,
    begin: impl FnOnce(u64) -> bool,
) -> u64 {
    let Some((place, slot)) = take() else { return NOWHERE };
    let used = slot.uses.load(Relaxed).wrapping_add(1);
    slot.uses.store(used, Relaxed);
    let id = id_of(place, used);
    slot.point.set(site.point.filter(|_| begin(id)));
    let mut bits = 0;
    if let Some(fill) = note
        && let Some(note) = note_at(place)
    {
        fence(Release); // pairs with the fence in `Shard::noted`
        fill(note);
        bits = NOTED;
    }
    slot.site.store(site.number | bits, Relaxed);
    slot.handles.store(1, Release); // pairs with the load in `Shard::noted`
    id
}

#[cold]
fn note_at(place: u64) -> Option<&'static Note> {
    let (shard, index) = split(place);
    TABLE[shard].note(index)
}

/// Calls `tell` with the id, the call site and the note of each open span that has one.
pub(crate) fn each_noted(mut tell: impl FnMut(u64, &'static Site, Noted)) {
    for (number, shard) in TABLE.iter().enumerate() {
        for index in 0..shard.used.load(Relaxed) {
            if let Some((id, site, noted)) = shard.noted(number, index, || {}) {
                tell(id, site, noted);
            }
        }
    }
}

fn id_of(place: u64, used: u32) -> u64 {
    let uses = u64::from(used) & ((1 << USE_BITS) - 1);
    // All bits set means something else.
    match MARK | uses << SLOT_BITS | place {
        NOWHERE => NOWHERE & !(1 << SLOT_BITS),
        id => id,
    }
}

#[inline]
fn find(id: u64) -> Option<(u64, &'static Slot)> {
    if id == NOWHERE || id & MARK != MARK {
        return None;
    }
    let place = id & ((1 << SLOT_BITS) - 1);
    Some((place, at(place)?))
}

/// The open span with this id.
#[inline]
pub(crate) fn get(id: u64) -> Option<Open> {
    find(id).map(|(_, slot)| slot.open())
}

/// One more handle.
#[inline]
pub(crate) fn clone(id: u64) {
    if let Some((_, slot)) = find(id) {
        slot.handles.fetch_add(1, Relaxed);
    }
}

/// One handle less; if it was the last one, calls `end`, and then the slot is another span's.
#[inline]
pub(crate) fn drop(id: u64, end: impl FnOnce(Open)) -> bool {
    let Some((place, slot)) = find(id) else { return false };
    // Acquire, here and below, pairs with the release of whoever dropped other handles: what he did comes
    // before.
    if slot.handles.load(Acquire) == 1 {
        slot.handles.store(0, Relaxed);
    } else if slot.handles.fetch_sub(1, Release) != 1 {
        return false;
    } else {
        slot.handles.load(Acquire);
    }
    end(slot.open());
    free(place);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;

    /// A call site of the tests.
    fn site() -> &'static Site {
        struct Callsite;
        static CALLSITE: Callsite = Callsite;
        impl tracing_core::Callsite for Callsite {
            fn set_interest(&self, _: tracing_core::Interest) {}
            fn metadata(&self) -> &tracing_core::Metadata<'_> {
                &META
            }
        }
        static META: tracing_core::Metadata<'static> = tracing_core::metadata! {
            name: "x",
            target: "spans",
            level: tracing_core::Level::INFO,
            fields: &[],
            callsite: &CALLSITE,
            kind: tracing_core::Kind::SPAN
        };
        sites::of(&META)
    }

    /// Four threads open and close spans, some of them on another thread than the one that opened them:
    /// no two open spans have one id, and each closes once.
    #[test]
    fn open_spans_have_ids_of_their_own() {
        let site = site();
        let handed: Mutex<Vec<u64>> = Mutex::new(Vec::new());
        let alive: Mutex<HashSet<u64>> = Mutex::new(HashSet::new());
        let close = |id: u64| {
            assert!(alive.lock().unwrap().remove(&id), "{id:x} is not open");
            assert!(drop(id, |open| assert_eq!(open.site, site.number)));
        };
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (handed, alive, close) = (&handed, &alive, &close);
                scope.spawn(move || {
                    let mut random = thread + 1;
                    for _ in 0..20_000 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let id = open(site, None::<fn(&Note)>, |_| true);
                        assert_ne!(id, NOWHERE);
                        assert!(alive.lock().unwrap().insert(id), "{id:x} is open already");
                        clone(id);
                        assert!(!drop(id, |_| panic!("there is a handle left")));
                        let mut handed = handed.lock().unwrap();
                        handed.push(id);
                        let at = (random >> 33) as usize % handed.len();
                        let other = (handed.len() > 50).then(|| handed.swap_remove(at));
                        std::mem::drop(handed);
                        other.map(close);
                    }
                });
            }
        });
        handed.into_inner().unwrap().into_iter().for_each(close);
        let used: u32 = TABLE.iter().map(|shard| shard.used.load(Relaxed)).sum();
        assert!(used < 400, "slots are used again: {used}");
    }

    /// Two thousand threads one after the other, each of which keeps the slots of the spans that it closed.
    #[test]
    fn what_a_thread_keeps_it_gives_back() {
        let site = site();
        let thread = || {
            let ids: Vec<u64> =
                (0..KEPT + 2).map(|_| open(site, None::<fn(&Note)>, |_| false)).collect();
            for id in ids {
                assert!(drop(id, |open| assert!(open.point.is_none())));
            }
        };
        for _ in 0..2_000 {
            std::thread::spawn(thread).join().unwrap();
        }
        let used: u32 = TABLE.iter().map(|shard| shard.used.load(Relaxed)).sum();
        assert!(used < 2_000, "slots are used again: {used}");
    }

    /// A span whose note says that it is its own parent.
    fn open_noted() -> u64 {
        let own = Cell::new(0);
        let note = |note: &Note| note.begin(own.get(), |_| {});
        open(site(), Some(note), |id| {
            own.set(id);
            true
        })
    }

    /// The slot is another span's when its note is read: that is not told as the first one's.
    #[test]
    fn a_note_is_told_of_its_own_span_alone() {
        let first = open_noted();
        let (number, index) = split(find(first).expect("ours").0);
        let shard = &TABLE[number];
        let told = shard.noted(number, index, || {}).expect("it is open, and has a note");
        assert_eq!((told.0, told.2.parent()), (first, first));
        let second = Cell::new(0);
        let told = shard.noted(number, index, || {
            assert!(drop(first, |_| {}));
            // The slot that was given back last is the next that is taken, by this thread.
            second.set(open_noted());
        });
        assert_eq!(find(second.get()).map(|(place, _)| split(place)), Some((number, index)));
        assert!(told.is_none(), "the first has ended");
        // Without the second look at whose turn it is, this would have been told of the first.
        let twin = shard.note(index).expect("it has one").look().parent();
        assert_eq!((twin, twin == first), (second.get(), false));
        assert!(drop(second.get(), |_| {}));
        assert!(shard.noted(number, index, || {}).is_none(), "nothing is open");
    }
}
