//! The arena's memory: a sealed memfd, its tables, and which pages are free. The layout is
//! `gracepoint_wire::arena`'s.
//!
//! Free pages are bits of private words, taken by compare-exchange: no list, so no ABA problem,
//! and fit for signal handlers. The page table in the arena says the same for the consumer: a page
//! is `OWNED` only after its first packet's magic has been wiped, so nobody takes its old content
//! for new, and `FULL` only after everything else in its entry is written (release store, which
//! pairs with the consumer reading the entry again after it saw the state).

use crate::sys;
use gracepoint_wire::arena::{
    ArenaHeader, HEADER, LOSS_ENTRY, PAGE_ENTRY, PageState, SLOT_ENTRY, TRIPLE_AT, TRIPLE_LOCK_AT,
};
use gracepoint_wire::clock::{Source, Triple};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// An entry of the loss table.
#[repr(C)]
pub(crate) struct Loss {
    /// Lost so far.
    pub(crate) lost: AtomicU64,
    /// Of these, already in the trace.
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

/// See the top.
pub(crate) struct Arena {
    header: ArenaHeader,
    /// Until a consumer gets it: a descriptor that is kept may be closed, or replaced, by a program
    /// that closes all it has.
    file: Option<OwnedFd>,
    memory: sys::Mapping,
    free: Box<[AtomicU64]>,
    hint: AtomicUsize,
}

impl Arena {
    /// Makes the file, maps and seals it, and writes the header.
    ///
    /// # Errors
    /// When the memory or the descriptor cannot be had.
    pub(crate) fn new(page_bytes: u32, pages: u32, ids: u32, slots: u32) -> io::Result<Arena> {
        let mut header = ArenaHeader::lay_out(page_bytes, pages, ids, slots);
        let source = crate::clock::source();
        header.pid = std::process::id();
        header.clock = source as u32;
        header.boot_id = crate::clock::boot_id();
        let tables = [0..header.slot_at, header.table_at..header.total];
        let file = sys::memory_file(c"gracepoint", header.total, &tables)?;
        let memory = sys::Mapping::shared(file.as_fd(), header.total as usize)?;
        sys::seal(&file, sys::NO_MORE_WRITERS)?;
        memory.populate(0..header.slot_at as usize);
        memory.populate(header.table_at as usize..header.total as usize);
        let words = (pages as usize).div_ceil(64);
        let free = (0..words).map(|w| AtomicU64::new(first_bits(pages as usize - w * 64)));
        let free = free.collect();
        let arena = Arena { header, file: Some(file), memory, free, hint: AtomicUsize::new(0) };
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

    /// Counters of a slot.
    pub(crate) fn slot(&self, slot: u32) -> &Slot {
        assert!(slot < self.header.slots, "slot beyond the table");
        // SAFETY: the slot table has `slots` entries.
        unsafe { self.entry(self.header.slot_at, slot) }
    }

    fn page(&self, page: u32) -> &Page {
        assert!(page < self.header.pages, "page beyond the table");
        // SAFETY: the page table has `pages` entries.
        unsafe { self.entry(self.header.table_at, page) }
    }

    /// Address of a page.
    pub(crate) fn page_address(&self, page: u32) -> u64 {
        self.memory.base() as u64 + self.header.page_at(page)
    }

    /// Takes a free page for `slot`; its first magic is wiped.
    pub(crate) fn take(&self, slot: u32, ordinal: u64) -> Option<u32> {
        let page = self.claim_free()?;
        // SAFETY: the page is ours alone: its bit was free and is not any more.
        unsafe { AtomicU32::from_ptr(self.page_address(page) as *mut u32) }.store(0, Relaxed);
        let entry = self.page(page);
        entry.slot.store(slot, Relaxed);
        entry.ordinal.store(ordinal, Relaxed);
        entry.used.store(0, Relaxed);
        entry.state.store(PageState::Owned as u32, Release); // after the magic and the entry
        Some(page)
    }

    fn claim_free(&self) -> Option<u32> {
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
                        return Some((index * 64) as u32 + bits.trailing_zeros());
                    }
                    Err(now) => bits = now,
                }
            }
        }
        None
    }

    /// Hands a page with `used` bytes of closed packets to the consumer.
    pub(crate) fn fill(&self, page: u32, used: u32) {
        let entry = self.page(page);
        entry.used.store(used, Relaxed);
        entry.state.store(PageState::Full as u32, Release);
    }

    /// Makes a page free again that the consumer has copied. False if it is not that page any more.
    pub(crate) fn give_back(&self, page: u32, ordinal: u64) -> bool {
        if page >= self.header.pages {
            return false;
        }
        let entry = self.page(page);
        let full = PageState::Full as u32;
        if entry.state.load(Acquire) != full || entry.ordinal.load(Relaxed) != ordinal {
            return false;
        }
        entry.state.store(PageState::Free as u32, Relaxed);
        self.free[page as usize / 64].fetch_or(1 << (page % 64), AcqRel);
        true
    }

    /// Events lost so far, of all kinds.
    pub(crate) fn lost(&self) -> u64 {
        let lost = |id| self.loss(id).lost.load(Relaxed);
        (0..self.header.ids).map(lost).fold(0, u64::saturating_add)
    }

    /// Pages that nobody owns or has filled.
    pub(crate) fn free_pages(&self) -> u32 {
        self.free.iter().map(|word| word.load(Relaxed).count_ones()).sum()
    }
}

/// A word whose lowest `n` bits are set.
fn first_bits(n: usize) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}
