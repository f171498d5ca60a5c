//! The arena's memory: a sealed memfd or a flight recorder's file, its tables, and which pages are
//! free. The layout is `gracepoint_wire::arena`'s.
//!
//! # Nothing here is read back
//! What may be written by others (a flight recorder's file cannot be sealed) is written by us and not
//! believed: what a page is, whose and which lies in a private word of its own ([`Arena::pages`]),
//! and the table in the arena is its copy for consumers. Of the arena itself only counters are read,
//! and the end of a packet, none of which leads anywhere: a scribbler spoils the trace, no more.
//!
//! # Discard mode
//! Free pages are bits of private words, taken by compare-exchange: no list, so no ABA problem,
//! and fit for signal handlers. The page table in the arena says the same for the consumer: a page
//! is `OWNED` only after its first packet's magic has been wiped, so nobody takes its old content
//! for new, and `FULL` only after everything else in its entry is written (release store, which
//! pairs with the consumer reading the entry again after it saw the state).
//!
//! # Overwrite mode
//! A hand goes round the pages; the next one under it that no thread owns is taken, whether it was
//! free or full. So it is the one that was taken longest ago, of those that are not being filled:
//! an idle thread's page is passed over, not written over. Taking is one compare-exchange of the
//! page's private word, fit for signal handlers; nobody waits, and with all pages owned the event is
//! lost as in discard mode.
//!
//! A consumer may be copying the page meanwhile. The order of stores on our side is
//! ```text
//! entry.state = FREE;  fence;  slot, ordinal, used;  fence;  the content;  entry.state = OWNED
//! ```
//! and on the consumer's: entry, entry again, content, entry a third time, with fences between. If
//! a byte of the copy is of the new content, then (our second fence, its last) the third look sees
//! the new slot and ordinal; one of the two differs, because a slot never uses an ordinal twice. If
//! the first look mixed old and new, then (our first fence, its first) the second look sees FREE or
//! later, and is not equal to the first unless the page is full, or owned, anew and whole.
//! The twin `OverwritesQuietly` leaves the entry as it was; `ring/tests/overwrite.rs` catches it, and
//! a consumer without the third look.
//!
//! # What was written over is counted
//! Each page has a private array with a counter for each event id, raised by its owner with every
//! record (one instruction, in this mode only), and added to the loss table and the slot's count
//! when the page is written over. To walk the page's records instead would cost several
//! nanoseconds for each, all at once in a page turn, and would have to believe what lies in the
//! page. `gp:loss` records are not written in this mode, because they would be written over too: the
//! table tells all losses, and whoever copies the pages puts it into the trace.

use crate::sys;
use gracepoint_wire::arena::{
    ArenaHeader, HEADER, LATE_BYTES, LATE_HEADER, LOSS_ENTRY, PAGE_ENTRY, PageState, SLOT_ENTRY,
    TRIPLE_AT, TRIPLE_LOCK_AT,
};
use gracepoint_wire::clock::{Source, Triple};
use gracepoint_wire::control::Mode;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// An entry of the loss table.
#[repr(C)]
pub(crate) struct Loss {
    /// Lost so far.
    pub(crate) lost: AtomicU64,
    /// Of these, already in the trace; in overwrite mode those that were written over.
    pub(crate) folded: AtomicU64,
}

/// An entry of the slot table.
#[repr(C)]
pub(crate) struct Slot {
    /// Events of this stream lost so far.
    pub(crate) discarded: AtomicU64,
    /// The latest owner.
    pub(crate) tid: AtomicU32,
    reserved: AtomicU32,
}

/// An entry of the page table.
#[repr(C)]
pub(crate) struct Page {
    state: AtomicU32,
    slot: AtomicU32,
    ordinal: AtomicU64,
    used: AtomicU32,
    reserved: [AtomicU32; 3],
}

const _: () = assert!(size_of::<Loss>() == LOSS_ENTRY);
const _: () = assert!(size_of::<Slot>() == SLOT_ENTRY);
const _: () = assert!(size_of::<Page>() == PAGE_ENTRY);
const _: () = assert!(super::SLOTS < 1 << 30, "a slot fits a tag");

/// See the top.
pub(crate) struct Arena {
    header: ArenaHeader,
    /// Until a consumer gets it: a descriptor that is kept may be closed, or replaced, by a program
    /// that closes all it has.
    file: Option<OwnedFd>,
    memory: sys::Mapping,
    /// What each page is: see [`Tag`].
    pages: Box<[AtomicU64]>,
    /// Discard mode: a bit for each free page.
    free: Box<[AtomicU64]>,
    hint: AtomicUsize,
    /// Pages that can be taken: free ones, in overwrite mode all that no slot owns.
    available: AtomicU32,
    /// Overwrite mode: pages that have passed under the hand.
    hand: AtomicU64,
    /// Overwrite mode: events on each page, by id.
    counts: Option<sys::Mapping>,
    /// Bytes of late events.
    late_used: AtomicU64,
    #[cfg(test)]
    pub(super) quiet: bool,
}

/// How large a ring is, and what happens when it is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) page_bytes: u32,
    pub(crate) pages: u32,
    pub(crate) ids: u32,
    pub(crate) mode: Mode,
    /// Bytes of an empty context, all of them 0, before the fields of the tracer's own events.
    pub(crate) context: u32,
}

/// Bytes of the counters of one page.
pub(crate) fn counts_bytes(ids: u32) -> usize {
    (ids as usize * 2).next_multiple_of(8)
}

/// A page's private word: state (2 bits), slot (30 bits), ordinal (32 bits).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag(u64);

impl Tag {
    fn new(state: PageState, slot: u32, ordinal: u32) -> Tag {
        Tag(state as u64 | u64::from(slot) << 2 | u64::from(ordinal) << 32)
    }

    fn is(self, state: PageState) -> bool {
        self.0 & 3 == state as u64
    }

    fn slot(self) -> u32 {
        (self.0 >> 2) as u32 & 0x3fff_ffff
    }

    fn ordinal(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn now(self, state: PageState) -> Tag {
        Tag::new(state, self.slot(), self.ordinal())
    }
}

impl Arena {
    /// Makes the file, maps and seals it, and writes the header. With `file`, that one (new, empty,
    /// and not sealed) is the arena.
    ///
    /// # Errors
    /// When the memory or the descriptor cannot be had.
    pub(crate) fn new(shape: Shape, slots: u32, file: Option<OwnedFd>) -> io::Result<Arena> {
        let Shape { page_bytes, pages, ids, mode, context: _ } = shape;
        let mut header = ArenaHeader::lay_out(page_bytes, pages, ids, slots);
        let source = crate::clock::source();
        header.pid = std::process::id();
        header.clock = source as u32;
        header.boot_id = crate::clock::boot_id();
        header.mode = mode as u32;
        header.throttle_at = header.total;
        let late = crate::dynamic::registry::is_used();
        header.late_at = if late { header.tables_end() } else { 0 };
        let length = header.file_bytes();
        // The part for late events takes memory as far as it is used.
        let tables_end = header.tables_end() + if late { 4096 } else { 0 };
        let tables = [0..header.slot_at, header.table_at..tables_end];
        let sealed = file.is_none();
        let file = match file {
            Some(file) => {
                sys::allocate(file, length, &[0..header.slot_at, header.slot_at..length])?
            }
            None => sys::memory_file(c"gracepoint", length, &tables)?,
        };
        let memory = sys::Mapping::shared(file.as_fd(), length as usize)?;
        if sealed {
            sys::seal(&file, sys::NO_MORE_WRITERS)?;
        }
        memory.populate(0..header.slot_at as usize);
        memory.populate(header.table_at as usize..tables_end as usize);
        let words = (pages as usize).div_ceil(64);
        let free = (0..words).map(|w| AtomicU64::new(first_bits(pages as usize - w * 64)));
        let counts = match mode {
            Mode::Discard => None,
            // A counter cannot overflow: the shortest record has 5 bytes.
            Mode::Overwrite if page_bytes <= 5 << 16 => {
                Some(sys::Mapping::wiped_on_fork(pages as usize * counts_bytes(ids))?)
            }
            Mode::Overwrite => return Err(io::Error::other("pages too large to overwrite")),
        };
        let arena = Arena {
            header,
            file: Some(file),
            memory,
            pages: (0..pages).map(|_| AtomicU64::new(0)).collect(),
            free: free.collect(),
            hint: AtomicUsize::new(0),
            available: AtomicU32::new(pages),
            hand: AtomicU64::new(0),
            counts,
            late_used: AtomicU64::new(0),
            #[cfg(test)]
            quiet: false,
        };
        arena.write_header(source);
        Ok(arena)
    }

    fn write_header(&self, source: Source) {
        let bytes = self.header.to_bytes();
        debug_assert!(bytes.len() <= HEADER);
        // SAFETY: the mapping begins with the header's 4096 bytes; nobody reads it yet.
        unsafe { self.memory.base().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.set_triple(&crate::clock::triple(source));
    }

    pub(crate) fn header(&self) -> &ArenaHeader {
        &self.header
    }

    #[cfg(test)]
    pub(crate) fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_ref().expect("nobody took it").as_fd()
    }

    /// The descriptor, for the consumer. The memory stays.
    pub(crate) fn take_file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }

    /// The address range, for a forked child.
    pub(crate) fn range(&self) -> (usize, usize) {
        (self.memory.base() as usize, self.memory.len())
    }

    /// Publishes the latest clock triple under its sequence lock. One writer: the agent.
    pub(crate) fn set_triple(&self, triple: &Triple) {
        let lock = self.word(TRIPLE_LOCK_AT);
        let version = lock.load(Relaxed);
        lock.store(version | 1, Relaxed);
        fence(Ordering::Release); // the odd version is seen before any of the new words
        for (i, value) in [triple.ticks, triple.mono_ns, triple.real_ns].into_iter().enumerate() {
            self.word(TRIPLE_AT + i * 8).store(value, Relaxed);
        }
        lock.store((version | 1) + 1, Release); // the words are seen before the even version
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= HEADER);
        // SAFETY: an aligned word inside the header, accessed as an atomic by all after `new`.
        unsafe { AtomicU64::from_ptr(self.memory.base().add(at).cast()) }
    }

    /// The entry at index `i` of the table of `T` at offset `at`.
    ///
    /// # Safety
    /// A table with more than `i` entries of type `T` begins at `at`.
    unsafe fn entry<T>(&self, at: u64, i: u32) -> &T {
        // SAFETY: the caller's promise; tables are aligned to 4096 bytes, and their entries are
        // made of atomics, valid for every bit pattern.
        unsafe { &*self.memory.base().add(at as usize).cast::<T>().add(i as usize) }
    }

    /// Loss counters of an id.
    pub(crate) fn loss(&self, id: u32) -> &Loss {
        assert!(id < self.header.ids, "id of another session");
        // SAFETY: the loss table has `ids` entries.
        unsafe { self.entry(self.header.loss_at, id) }
    }

    /// Counters of what limits have left out of an id.
    pub(crate) fn throttled(&self, id: u32) -> &Loss {
        assert!(id < self.header.ids, "id of another session");
        // SAFETY: the throttle table has `ids` entries.
        unsafe { self.entry(self.header.throttle_at, id) }
    }

    /// Counters of a slot.
    pub(crate) fn slot(&self, slot: u32) -> &Slot {
        assert!(slot < self.header.slots, "slot beyond the table");
        // SAFETY: the slot table has `slots` entries.
        unsafe { self.entry(self.header.slot_at, slot) }
    }

    /// The entry that consumers see, and the private word.
    fn page(&self, page: u32) -> (&Page, &AtomicU64) {
        let word = &self.pages[page as usize];
        // SAFETY: the page table has `pages` entries, as many as there are words.
        (unsafe { self.entry(self.header.table_at, page) }, word)
    }

    /// Address of a page.
    pub(crate) fn page_address(&self, page: u32) -> u64 {
        self.memory.base() as u64 + self.header.page_at(page)
    }

    /// Takes a page for `slot`; its first magic is wiped.
    pub(crate) fn take(&self, slot: u32, ordinal: u32) -> Option<u32> {
        let tag = Tag::new(PageState::Owned, slot, ordinal);
        let page = match &self.counts {
            None => self.claim_free(tag)?,
            Some(_) => self.claim_oldest(tag)?,
        };
        // Relaxed: a number to go by. It may be below 0 for a moment, and is then far above what is short.
        self.available.fetch_sub(1, Relaxed);
        let (entry, _) = self.page(page);
        #[cfg(test)]
        let quiet = self.quiet;
        #[cfg(not(test))]
        let quiet = false;
        if !quiet {
            // The order is argued at the top.
            entry.state.store(PageState::Free as u32, Relaxed);
            fence(Release);
            entry.slot.store(slot, Relaxed);
            entry.ordinal.store(ordinal.into(), Relaxed);
            entry.used.store(0, Relaxed);
            fence(Release);
        }
        // SAFETY: the page is ours alone: its private word says so, and did not before.
        unsafe { AtomicU32::from_ptr(self.page_address(page) as *mut u32) }.store(0, Relaxed);
        if !quiet {
            entry.state.store(PageState::Owned as u32, Release); // after the magic and the entry
        }
        Some(page)
    }

    fn claim_free(&self, tag: Tag) -> Option<u32> {
        let words = self.free.len();
        let first = self.hint.load(Relaxed);
        for i in 0..words {
            let index = (first + i) % words;
            let word = &self.free[index];
            let mut bits = word.load(Relaxed);
            while bits != 0 {
                // Acquire pairs with the release in `give_back`: the consumer's reading of the old
                // content is over before the new content is written.
                match word.compare_exchange_weak(bits, bits & (bits - 1), Acquire, Relaxed) {
                    Ok(_) => {
                        self.hint.store(index, Relaxed);
                        let page = (index * 64) as u32 + bits.trailing_zeros();
                        self.pages[page as usize].store(tag.0, Relaxed);
                        return Some(page);
                    }
                    Err(now) => bits = now,
                }
            }
        }
        None
    }

    /// The page taken longest ago that nobody owns; what was on it is counted as lost.
    fn claim_oldest(&self, tag: Tag) -> Option<u32> {
        for _ in 0..self.pages.len() {
            let index = self.hand.fetch_add(1, Relaxed) % self.pages.len() as u64;
            let word = &self.pages[index as usize];
            let old = Tag(word.load(Relaxed));
            // Acquire pairs with the release in `fill`: the counters of the page's last owner.
            let claim = || word.compare_exchange(old.0, tag.0, Acquire, Relaxed).is_ok();
            if !old.is(PageState::Owned) && claim() {
                let page = index as u32;
                if old.is(PageState::Full) {
                    // Before anything is counted: a consumer that copies the page now shall see
                    // that it is going.
                    #[cfg(test)]
                    let quiet = self.quiet;
                    #[cfg(not(test))]
                    let quiet = false;
                    if !quiet {
                        self.page(page).0.state.store(PageState::Free as u32, Relaxed);
                    }
                    self.count_overwritten(page, old.slot());
                }
                return Some(page);
            }
        }
        None
    }

    /// Counters of the records on a page, by id; none in discard mode.
    #[inline(always)]
    pub(crate) fn counter(&self, page: u32, id: u32) -> Option<&AtomicU16> {
        let counts = self.counts.as_ref()?;
        debug_assert!(page < self.header.pages && id < self.header.ids);
        let at = page as usize * counts_bytes(self.header.ids) + id as usize * 2;
        // SAFETY: the mapping has `counts_bytes(ids)` bytes for each page, zeroed, and `page` and
        // `id` come from private memory: the slot's own state, and a session's targets.
        Some(unsafe { AtomicU16::from_ptr(counts.base().add(at).cast()) })
    }

    fn count_overwritten(&self, page: u32, slot: u32) {
        let mut sum = 0;
        for id in 0..self.header.ids {
            let Some(counter) = self.counter(page, id) else { return };
            let n = counter.load(Relaxed);
            if n > 0 {
                counter.store(0, Relaxed);
                self.loss(id).folded.fetch_add(n.into(), Relaxed);
                self.loss(id).lost.fetch_add(n.into(), Relaxed);
                sum += u64::from(n);
            }
        }
        self.slot(slot).discarded.fetch_add(sum, Relaxed);
    }

    /// Hands a page with `used` bytes of closed packets to the consumer.
    pub(crate) fn fill(&self, page: u32, used: u32) {
        let (entry, word) = self.page(page);
        let tag = Tag(word.load(Relaxed));
        #[cfg(test)]
        if self.quiet {
            entry.slot.store(tag.slot(), Relaxed);
            entry.ordinal.store(tag.ordinal().into(), Relaxed);
        }
        entry.used.store(used, Relaxed);
        let full = tag.now(PageState::Full).0;
        if self.counts.is_some() {
            entry.state.store(PageState::Full as u32, Release);
            // Last: from here on the page may be written over. Release pairs with `claim_oldest`.
            word.store(full, Release);
            self.available.fetch_add(1, Relaxed);
        } else {
            // First: as soon as the entry says so, the consumer may give the page back.
            word.store(full, Release);
            entry.state.store(PageState::Full as u32, Release);
        }
    }

    /// Makes a page free again that the consumer has copied. False if it is not that page any more,
    /// or nobody has to give pages back.
    pub(crate) fn give_back(&self, page: u32, ordinal: u64) -> bool {
        if page >= self.header.pages || self.counts.is_some() {
            return false;
        }
        let (entry, word) = self.page(page);
        let tag = Tag(word.load(Acquire));
        if !tag.is(PageState::Full) || u64::from(tag.ordinal()) != ordinal {
            return false;
        }
        entry.state.store(PageState::Free as u32, Relaxed);
        word.store(tag.now(PageState::Free).0, Relaxed);
        self.free[page as usize / 64].fetch_or(1 << (page % 64), AcqRel);
        self.available.fetch_add(1, Relaxed);
        true
    }

    /// Appends frames of late events. False if there is no room for them. One writer at a time: the caller
    /// is behind the door of `dynamic/registry.rs`.
    pub(crate) fn append_late(&self, frames: &[u8]) -> bool {
        let Some(count) = self.late_word(0) else { return false };
        // Not read back from where others may write: see the top.
        let used = self.late_used.load(Relaxed);
        let end = used + frames.len() as u64;
        if end > LATE_BYTES - LATE_HEADER {
            return false;
        }
        let at = (self.header.late_at + LATE_HEADER + used) as usize;
        // SAFETY: `at` and the frames lie in the part for late events, which the mapping has, and whose
        // bytes beyond the count nobody else writes or needs.
        unsafe {
            let to = self.memory.base().add(at);
            to.copy_from_nonoverlapping(frames.as_ptr(), frames.len());
        }
        self.late_used.store(end, Relaxed);
        count.store(end, Release); // pairs with the consumer, which reads the count before the frames
        true
    }

    /// Counts a call site for which there was no room.
    pub(crate) fn refuse_late(&self) {
        if let Some(refused) = self.late_word(8) {
            refused.fetch_add(1, Relaxed);
        }
    }

    fn late_word(&self, at: usize) -> Option<&AtomicU64> {
        let start = Some(self.header.late_at as usize).filter(|&start| start != 0)?;
        debug_assert!(at < LATE_HEADER as usize);
        // SAFETY: an aligned word in the part for late events, accessed as an atomic by all.
        Some(unsafe { AtomicU64::from_ptr(self.memory.base().add(start + at).cast()) })
    }

    /// Events lost so far, of all kinds.
    pub(crate) fn lost(&self) -> u64 {
        let lost = |id| self.loss(id).lost.load(Relaxed);
        (0..self.header.ids).map(lost).fold(0, u64::saturating_add)
    }

    /// Is this overwrite mode?
    pub(crate) fn overwrites(&self) -> bool {
        self.counts.is_some()
    }

    /// Can at most half of the pages be taken?
    pub(crate) fn is_short(&self) -> bool {
        self.available.load(Relaxed) <= self.header.pages / 2
    }

    /// Pages that some slot owns.
    pub(crate) fn owned_pages(&self) -> usize {
        let owned = |word: &&AtomicU64| Tag(word.load(Relaxed)).is(PageState::Owned);
        self.pages.iter().filter(owned).count()
    }

    /// Pages that nobody owns or has filled.
    pub(crate) fn free_pages(&self) -> u32 {
        let free = |word: &&AtomicU64| Tag(word.load(Relaxed)).is(PageState::Free);
        self.pages.iter().filter(free).count() as u32
    }
}

/// A word whose lowest `n` bits are set.
fn first_bits(n: usize) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}
