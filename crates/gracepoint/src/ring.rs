//! The ring: how an event gets from a thread into a page of the arena.
//!
//! # Who owns what
//! Each ring slot has a [`Writer`]. Slots below [`gracepoint_rcu::MAX_THREADS`] belong to threads
//! (a slot is the thread's index); the [`BORROWED`] ones above are lent for a single event to
//! whoever cannot use its own: a thread without an index (being torn down), or a signal handler
//! that interrupted the turning of a page. A slot's owner alone writes its `Writer` and its page,
//! with two exceptions, `claim` and `floor`, by which the agent takes pages back (below).
//!
//! # Reserve, write, commit (safe against the thread's own signal handlers)
//! ```text
//! depth += 1                        one instruction
//! claim == 0 ?                      else: slow path
//! loop { pos; ticks; cmpxchg pos }  a handler that records in between makes the exchange fail
//! write header and fields
//! depth == 1 ?  commit word = pos   only the outermost writer publishes
//! depth -= 1
//! pos unchanged ?                   else a handler came after the store: publish again
//! ```
//! * The clock is read between loading `pos` and exchanging it, so records lie in the order of
//!   their times. (`last` only serves to choose the header: it may lag behind, which at worst
//!   makes a header extended without need, because it is never later than the record before.)
//! * An event that goes into several rings has one time in all of them: each ring's `pos` is loaded,
//!   then the clock is read, once, then each `pos` is exchanged. Between its own
//!   load and its own exchange nothing was recorded in any of them, so the order holds in each.
//! * What nearly every event takes is shorter: see `ring/quick.rs`. Left out is what most events do not need:
//!   another clock than the counter, long ids, counts. A record that needs the longer header, since much time has
//!   passed (or since the counter of this CPU is behind the last one's), goes the slow way.
//! * A nested writer never turns a page: `pos` only grows while `depth` is not 0, so an equal `pos`
//!   means that nothing happened, and `limit` and `packet` fit it.
//! * A record is complete when the commit word passes its end, also if the process is killed at
//!   any instruction.
//!
//! # Taking pages back from idle threads
//! The agent sets `claim` 0 → [`ASKED`], passes a heavy barrier and reads `depth`. The barrier pairs
//! with the order "raise `depth`, then load `claim`" in the writer, which costs it only a compiler
//! fence: either the agent sees the raised depth and withdraws, or the writer sees the claim. (That
//! pairing is store buffering, checked on the machine by `gracepoint-rcu`'s `tests/litmus.rs`.) If it
//! saw depth 0 it exchanges ASKED → [`TAKEN`]; a writer that meets ASKED exchanges it back to 0 and
//! keeps its page, and one that meets TAKEN forgets the page and goes on with another. Both sides
//! go on at once; nobody waits. The agent fixes the packet's end time in `floor` before the
//! exchange, so the next packet of that slot cannot begin before it.
//!
//! # When pages are short
//! A thread that records now and then would hold a page for a few bytes, and a thousand such threads a
//! buffer of a thousand pages. So while at most half of the pages can be taken, the first [`GUEST`] events
//! of a thread that has no page go to borrowed slots, whose pages all such threads share: each time in a
//! packet of their own, which takes three times the space of the event and a tenth of a page's. Who records
//! more gets a page, as ever. In overwrite mode the agent takes the pages of idle threads back meanwhile
//! ([`Ring::take_back`]), so that they can be written over; with a consumer that drains, it does so at its word.
//!
//! # When no page is free
//! In discard mode the event is lost. In overwrite mode the page taken longest ago goes, unless a
//! slot owns it: see `ring/arena.rs`. Each record then also raises a counter of its page, in
//! `reserve`: a page changes hands only with `depth` 0 or by its owner's own turn, so the counter is
//! always that of the page that the record is on.
//!
//! # fork
//! Writers lie in memory that is zero in a forked child: no page, and not [`Ring::alive`]. The
//! child takes the slow path at its first event and returns. It cannot write into its parent's
//! pages, which it does not even have mapped.

pub(crate) mod arena;
mod back;
mod quick;
mod turn;

use crate::arch::local;
use crate::{clock, sys};
use arena::{Arena, Shape};
use gracepoint_wire::clock::Source;
use gracepoint_wire::packet::{self, COMPACT_HEADER, CONTENT_AT, END_AT, EXTENDED_HEADER};
pub(crate) use quick::{Begun, Quick, Unpublished, Writers, counter_after};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence};
pub(crate) use turn::owner;

/// Slots that are lent for one event.
pub(crate) const BORROWED: u32 = 64;
/// All slots.
pub(crate) const SLOTS: u32 = gracepoint_rcu::MAX_THREADS as u32 + BORROWED;

/// Events that a thread records as a guest on borrowed slots while pages are short, before it gets a page.
const GUEST: u8 = 16;

/// `claim`: the agent asks for the page.
const ASKED: u32 = 1;
/// `claim`: the agent has the page.
const TAKEN: u32 = 2;

/// State of one slot: a cache line. Zero means "no page".
#[repr(C, align(64))]
pub(crate) struct Writer {
    /// Address where the next record goes.
    pos: AtomicU64,
    /// Address that no record may pass; 0 sends everybody to the slow path.
    limit: AtomicU64,
    /// Ticks of a record not later than the one before `pos`.
    last: AtomicU64,
    /// Address of the open packet; 0 when the slot has no page.
    packet: AtomicU64,
    /// Writers under way on this slot: 1, and one more for each handler on top.
    depth: AtomicU32,
    /// 0, [`ASKED`] or [`TAKEN`].
    claim: AtomicU32,
    /// Index of the page.
    page: AtomicU32,
    /// Thread that the open packet belongs to.
    tid: AtomicU32,
    /// Packets closed so far.
    seq: AtomicU32,
    /// Pages taken so far.
    ordinal: AtomicU32,
    /// No later packet of this slot begins before this.
    floor: AtomicU64,
}

/// Space for one record, reserved and not yet committed.
#[derive(Clone, Copy)]
struct Reserved {
    pos: u64,
    end: u64,
    now: u64,
    extended: bool,
}

/// Where an event goes, between [`Ring::place`] and [`Ring::publish`].
pub(crate) struct Place<'a> {
    /// Where its fields go.
    pub(crate) fields: *mut u8,
    writer: &'a Writer,
    /// Address where its record ends; 0 if it was found slowly.
    end: u64,
    /// Its time; 0 if it was found slowly.
    now: u64,
}

impl<'a> Place<'a> {
    fn quick(fields: *mut u8, writer: &'a Writer, reserved: &Reserved) -> Self {
        Place { fields, writer, end: reserved.end, now: reserved.now }
    }
}

/// The ring of one session.
pub(crate) struct Ring {
    pub(crate) arena: Arena,
    writers: sys::Mapping,
    source: Source,
    /// See [`Shape`].
    pub(crate) context: u32,
    /// Which borrowed slots are in use, a bit each.
    lent: AtomicU64,
    /// How many events each thread has recorded as a [guest](Ring::is_guest).
    guests: sys::Mapping,
    /// Losses have been counted that are not yet in the trace.
    lossy: AtomicBool,
    #[cfg(test)]
    twin: Twin,
}

/// Ways in which tests break the ring, to show that they would notice.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twin {
    None,
    /// The writer does not look at `claim`.
    IgnoresClaim,
    /// The agent does not look at `depth`.
    IgnoresDepth,
    /// The clock is read before `pos` is loaded.
    ClockFirst,
    /// The outermost writer does not look again after publishing.
    PublishesOnce,
    /// The quick way stores `depth` without a look at it.
    StoresDepth,
    /// Writers publish whatever their depth.
    NestedPublishes,
    /// A page is written over without a word in its entry.
    OverwritesQuietly,
}

/// Is the ring this broken twin? `false`, known to the compiler, outside of tests.
macro_rules! twin {
    ($ring:expr, $twin:ident) => {{
        #[cfg(test)]
        let is = $ring.twin == crate::ring::Twin::$twin;
        #[cfg(not(test))]
        let is = false;
        is
    }};
}
use twin;

impl Ring {
    /// A ring; with `file`, its arena is that (new, empty) file.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub(crate) fn new(shape: Shape, file: Option<OwnedFd>) -> io::Result<Ring> {
        let writers = sys::Mapping::wiped_on_fork((SLOTS as usize + 1) * size_of::<Writer>())?;
        let ring = Ring {
            arena: Arena::new(shape, SLOTS, file)?,
            writers,
            source: clock::source(),
            context: shape.context,
            lent: AtomicU64::new(0),
            guests: sys::Mapping::wiped_on_fork(gracepoint_rcu::MAX_THREADS)?,
            lossy: AtomicBool::new(false),
            #[cfg(test)]
            twin: Twin::None,
        };
        ring.cell(0).depth.store(1, Relaxed); // see `alive`
        Ok(ring)
    }

    /// A cell of the writers' memory; the first one is no writer.
    #[inline(always)]
    fn cell(&self, index: u32) -> &Writer {
        debug_assert!(index <= SLOTS);
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
        let writers = self.writers.base().cast::<Writer>();
        // SAFETY: the mapping holds SLOTS + 1 writers, zeroed, and all fields are atomics, for
        // which every bit pattern is valid.
        unsafe { &*writers.add(index as usize) }
    }

    #[inline(always)]
    fn writer(&self, slot: u32) -> &Writer {
        self.cell(slot + 1)
    }

    /// False in a forked child: the first cell was not 0, and fork has wiped it.
    fn alive(&self) -> bool {
        self.cell(0).depth.load(Relaxed) != 0
    }

    #[inline(always)]
    fn ticks(&self) -> u64 {
        clock::ticks(self.source)
    }

    /// May events with short ids take [`Ring::place_plain`]?
    pub(crate) fn is_plain(&self) -> bool {
        self.source == Source::Tsc && !self.arena.overwrites()
    }

    /// Finds a place for an event with `len` bytes of fields, which the caller must write to
    /// `Place::fields` before it calls [`Ring::publish`]. `None` if the event was lost (and counted),
    /// or if this is a forked child.
    #[inline(always)]
    pub(crate) fn place(&self, id: u32, len: usize) -> Option<Place<'_>> {
        let index = gracepoint_rcu::thread_index();
        let quick = match index {
            Some(index) => {
                let writer = self.writer(index);
                local::increment(&writer.depth);
                if writer.claim.load(Relaxed) == 0 || twin!(self, IgnoresClaim) {
                    self.reserve(writer, id, len).map(|reserved| (writer, reserved))
                } else {
                    None
                }
            }
            None => None,
        };
        match quick {
            Some((writer, reserved)) => {
                Some(Place::quick(put_header(id, &reserved), writer, &reserved))
            }
            None => self.place_slowly(index, id, len),
        }
    }

    /// [`Ring::place`] in a ring that [is plain](Ring::is_plain), for an id that fits into a compact
    /// header.
    #[inline(always)]
    pub(crate) fn place_plain(&self, id: u32, len: usize) -> Option<Place<'_>> {
        // SAFETY: the place borrows the ring, and the caller is the thread.
        match unsafe { self.plain_writers().place(id, len) } {
            Some(quick) => Some(quick.into_place()),
            None => self.place(id, len),
        }
    }

    /// `depth` is raised where there is an index.
    #[inline(always)]
    pub(crate) fn place_slowly(
        &self,
        index: Option<u32>,
        id: u32,
        len: usize,
    ) -> Option<Place<'_>> {
        let (writer, fields) = self.find_slowly(index, id, len)?;
        Some(Place { fields, writer, end: 0, now: 0 })
    }

    /// Two words, which come in registers: a whole place would come in memory, and for its sake the quick
    /// one would take that way too.
    #[cold]
    #[inline(never)]
    pub(crate) fn find_slowly(
        &self,
        index: Option<u32>,
        id: u32,
        len: usize,
    ) -> Option<(&Writer, *mut u8)> {
        let (writer, reserved) = self.slow(index, id, len)?;
        Some((writer, put_header(id, &reserved)))
    }

    /// Commits an event whose fields are written.
    #[inline(always)]
    pub(crate) fn publish(&self, place: &Place<'_>) {
        let &Place { writer, end: record_end, now, .. } = place;
        if record_end == 0 {
            return self.publish_slowly(writer);
        }
        if writer.depth.load(Relaxed) == 1 || twin!(self, NestedPublishes) {
            // The packet before `pos`: in a forked child both are 0 from some moment on, and then `pos` says so.
            let packet = writer.packet.load(Relaxed);
            compiler_fence(Ordering::SeqCst);
            let pos = writer.pos.load(Relaxed);
            // A handler that came in the meantime has recorded later than this event.
            let end = if pos == record_end { now } else { self.ticks() };
            if pos != 0 {
                // The packet of the record: there is one, since no page is closed with `depth` raised.
                put_mark(packet, pos, end);
            }
            local::decrement(&writer.depth);
            if writer.pos.load(Relaxed) != pos && !twin!(self, PublishesOnce) {
                self.publish_again(writer);
            }
            return;
        }
        local::decrement(&writer.depth);
    }

    #[cold]
    #[inline(never)]
    fn publish_slowly(&self, writer: &Writer) {
        self.commit(writer);
        self.after_slow(writer);
    }

    /// A handler recorded between the load of `pos` and the decrement and left the publishing to us; or
    /// after it, and published by itself. Again, to be sure.
    #[cold]
    #[inline(never)]
    fn publish_again(&self, writer: &Writer) {
        local::increment(&writer.depth);
        if keep(writer) {
            self.commit(writer);
        } else {
            local::decrement(&writer.depth); // the agent has published and taken the page
        }
    }

    /// Reserves space on the current page; `None` if there is none. `depth` is raised.
    #[inline(always)]
    fn reserve(&self, writer: &Writer, id: u32, len: usize) -> Option<Reserved> {
        loop {
            let early = if twin!(self, ClockFirst) { self.ticks() } else { 0 };
            let pos = writer.pos.load(Relaxed);
            let limit = writer.limit.load(Relaxed);
            let last = writer.last.load(Relaxed);
            // The clock must be read after `pos` (see the top); the processor keeps to program
            // order as far as its own signals are concerned, the compiler has to be told.
            compiler_fence(Ordering::SeqCst);
            let now = if twin!(self, ClockFirst) { early } else { self.ticks().max(last) };
            let extended = packet::needs_extended(id, now.wrapping_sub(last));
            let header = if extended { EXTENDED_HEADER } else { COMPACT_HEADER };
            let end = pos + (header + len) as u64;
            if end > limit {
                return None;
            }
            if local::replace(&writer.pos, pos, end) {
                writer.last.store(now, Relaxed);
                // No page is closed with `depth` raised, so this is the page of the record.
                if let Some(counter) = self.arena.counter(writer.page.load(Relaxed), id) {
                    local::increment_short(counter);
                }
                return Some(Reserved { pos, end, now, extended });
            }
        }
    }

    /// Publishes what has been written, by whomsoever, if this is the outermost writer, and lowers `depth`:
    /// what [`Ring::publish`] does, also where there may be no packet. Its end is now.
    fn commit(&self, writer: &Writer) {
        if writer.depth.load(Relaxed) == 1 || twin!(self, NestedPublishes) {
            loop {
                let pos = writer.pos.load(Relaxed);
                let packet = writer.packet.load(Relaxed);
                if packet != 0 {
                    put_mark(packet, pos, self.ticks().max(writer.last.load(Relaxed)));
                }
                local::decrement(&writer.depth);
                if writer.pos.load(Relaxed) == pos || twin!(self, PublishesOnce) {
                    return;
                }
                // As in `publish_again`.
                local::increment(&writer.depth);
                if !keep(writer) {
                    break; // the agent has published and taken the page
                }
            }
        }
        local::decrement(&writer.depth);
    }

    /// Forgets the slot's packet at its thread's end: the next owner opens its own.
    pub(crate) fn leave(&self, slot: u32) {
        self.writer(slot).limit.store(0, Relaxed);
        if let Some(guests) = self.guests(slot) {
            guests.store(0, Relaxed);
        }
    }
}

/// After raising `depth`: does the slot still own its page? Denies the agent if it has only asked.
fn keep(writer: &Writer) -> bool {
    // The agent may withdraw what it has asked between the two: then the exchange finds 0.
    writer.claim.load(Relaxed) == 0
        || writer.claim.compare_exchange(ASKED, 0, AcqRel, Acquire) != Err(TAKEN)
}

/// Commits what lies before `pos` in the packet at `packet`, whose last record is not later than `end`.
#[inline(always)]
fn put_mark(packet: u64, pos: u64, end: u64) {
    word(packet, END_AT).store(end, Relaxed);
    // The commit: whoever sees this word (the consumer, or the reader of a dead program's pages) sees
    // what lies before it.
    word(packet, CONTENT_AT).store((pos - packet) * 8, Release);
}

/// Writes the event header; returns where the fields go.
#[inline(always)]
fn put_header(id: u32, reserved: &Reserved) -> *mut u8 {
    let at = reserved.pos as *mut u8;
    if reserved.extended {
        put_extended_header(at, id, reserved.now);
        return at.wrapping_add(EXTENDED_HEADER);
    }
    let header = packet::compact_header(id, reserved.now);
    // SAFETY: `reserve` gave this thread the bytes from `pos` to `end`, of which the header is the
    // first five; they lie in a page that stays mapped while the session's read section lasts.
    unsafe {
        at.cast::<u32>().write_unaligned(header as u32);
        at.add(4).write((header >> 32) as u8);
    }
    at.wrapping_add(COMPACT_HEADER)
}

#[cold]
fn put_extended_header(at: *mut u8, id: u32, now: u64) {
    let header = packet::extended_header(id, now);
    // SAFETY: as in `put_header`, with fourteen bytes.
    unsafe { at.copy_from_nonoverlapping(header.as_ptr(), header.len()) };
}

/// A word of the packet header at `packet`.
#[inline(always)]
fn word<'a>(packet: u64, at: usize) -> &'a AtomicU64 {
    // SAFETY: `packet` is the address of a packet that the caller's slot owns; packets start on 8
    // bytes and `at` is a multiple of 8 inside the header; the arena outlives the read section in
    // which all of this runs.
    unsafe { AtomicU64::from_ptr((packet as *mut u8).add(at).cast()) }
}

#[cfg(test)]
mod tests;
