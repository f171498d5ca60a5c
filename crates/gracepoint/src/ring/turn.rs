//! The slow path of the ring: turning pages, opening and closing packets, counting losses.
//!
//! Everything here runs with `depth` raised. Only the outermost writer of a slot turns its page:
//! it first sets `limit` to 0, which sends handlers that interrupt it to a borrowed slot, and only
//! then touches the rest of the [`Writer`].

use super::{BORROWED, GUEST, Reserved, Ring, TAKEN, Writer, keep, word};
use crate::arch::local;
use crate::sys;
use gracepoint_wire::packet::{
    CONTENT_AT, DISCARDED_AT, END_AT, EXTENDED_HEADER, HEADER, MAGIC, PACKET_AT, PacketHeader,
    extended_header, round_up,
};
use gracepoint_wire::schema::LOSS_ID;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, compiler_fence};

/// First borrowed slot.
const FIRST_BORROWED: u32 = gracepoint_rcu::MAX_THREADS as u32;
/// Bytes of a `gp:loss` record, but for its context.
const LOSS_RECORD: u64 = EXTENDED_HEADER as u64 + 12;

/// Whose packets a thread writes.
pub(crate) struct Owner {
    pub(crate) tid: u32,
    /// NUL-padded.
    pub(crate) name: [u8; 16],
}

pub(crate) fn owner(index: Option<u32>) -> Owner {
    match index.and_then(gracepoint_rcu::thread_info) {
        Some(info) => {
            let mut name = [0; 16];
            let known = info.name.as_bytes();
            name[..known.len()].copy_from_slice(known);
            Owner { tid: info.tid, name }
        }
        None => Owner { tid: sys::thread_id(), name: sys::thread_name() },
    }
}

impl Ring {
    /// Reserves space where the quick path could not. The result is on the thread's own slot or
    /// on a borrowed one; `None` means lost (and counted) or a forked child. On `None` the depth
    /// that the quick path raised is lowered again.
    #[cold]
    #[inline(never)]
    pub(super) fn slow(
        &self,
        index: Option<u32>,
        id: u32,
        len: usize,
    ) -> Option<(&Writer, Reserved)> {
        if !self.alive() {
            if let Some(index) = index {
                local::decrement(&self.writer(index).depth);
            }
            return None;
        }
        let (found, blamed) = match index {
            Some(index) if self.writer(index).depth.load(Relaxed) == 1 => {
                (self.slow_outermost(index, id, len), index)
            }
            _ => {
                if let Some(index) = index {
                    // A handler on top of a writer that may be in the middle of `turn`.
                    local::decrement(&self.writer(index).depth);
                }
                (self.borrow(index, id, len), FIRST_BORROWED)
            }
        };
        if found.is_none() {
            self.lose(blamed, id);
        }
        found
    }

    /// The same for the outermost writer of a thread's own slot.
    fn slow_outermost(&self, index: u32, id: u32, len: usize) -> Option<(&Writer, Reserved)> {
        let writer = self.writer(index);
        let found = match self.is_guest(writer, index) {
            // All borrowed slots may be in use, by threads that were preempted there: then a page after all.
            true => self.borrow(Some(index), id, len),
            false => None,
        };
        if found.is_none()
            && let Some(reserved) = self.turn(writer, index, &owner(Some(index)), id, len)
        {
            return Some((writer, reserved));
        }
        // What handlers wrote on top of us is whole, and left to us to publish.
        self.commit(writer);
        found
    }

    /// Does the next event of this slot's thread go to a borrowed slot? See "When pages are short".
    fn is_guest(&self, writer: &Writer, slot: u32) -> bool {
        if !keep(writer) {
            self.forget_taken(writer);
        }
        if writer.packet.load(Relaxed) != 0 || !self.arena.is_short() {
            return false;
        }
        // A handler in between raises it too, and is forgotten: one more event as a guest.
        self.guests(slot).is_some_and(|guests| {
            let before = guests.load(Relaxed);
            if before < GUEST {
                guests.store(before + 1, Relaxed);
            }
            before < GUEST
        })
    }

    /// How often a thread has been a guest. No borrowed slot is one.
    pub(super) fn guests(&self, slot: u32) -> Option<&AtomicU8> {
        // SAFETY: the mapping has a zeroed byte for each thread, accessed as an atomic by all.
        (slot < FIRST_BORROWED)
            .then(|| unsafe { AtomicU8::from_ptr(self.guests.base().add(slot as usize)) })
    }

    /// Reserves on a slot that is lent for one event.
    fn borrow(&self, index: Option<u32>, id: u32, len: usize) -> Option<(&Writer, Reserved)> {
        let owner = owner(index);
        let slot = self.lend()?;
        let writer = self.writer(slot);
        local::increment(&writer.depth);
        let reserved = self.turn(writer, slot, &owner, id, len);
        if reserved.is_none() {
            local::decrement(&writer.depth);
            self.take_home(slot);
        }
        reserved.map(|reserved| (writer, reserved))
    }

    /// A borrowed slot that nobody uses.
    fn lend(&self) -> Option<u32> {
        let mut lent = self.lent.load(Relaxed);
        loop {
            let bit = lent.trailing_ones();
            if bit >= BORROWED {
                return None;
            }
            // Acquire pairs with the release in `take_home`: the slot's last user is done with it.
            match self.lent.compare_exchange_weak(lent, lent | 1 << bit, AcqRel, Relaxed) {
                Ok(_) => return Some(FIRST_BORROWED + bit),
                Err(now) => lent = now,
            }
        }
    }

    fn take_home(&self, slot: u32) {
        self.lent.fetch_and(!(1 << (slot - FIRST_BORROWED)), Release);
    }

    /// After a commit that began on the slow path: gives a borrowed slot home.
    #[cold]
    pub(super) fn after_slow(&self, writer: &Writer) {
        let cell =
            (&raw const *writer as usize - self.writers.base() as usize) / size_of::<Writer>();
        let slot = cell as u32 - 1;
        if slot >= FIRST_BORROWED {
            self.take_home(slot);
        }
    }

    /// Finds space for a record on `slot`, whose outermost writer the caller is: goes on in the
    /// open packet, opens another one, or takes another page. `None` if there is none.
    fn turn(
        &self,
        writer: &Writer,
        slot: u32,
        owner: &Owner,
        id: u32,
        len: usize,
    ) -> Option<Reserved> {
        let need = (EXTENDED_HEADER + len) as u64;
        let page_bytes = u64::from(self.arena.header().page_bytes);
        loop {
            if !keep(writer) {
                self.forget_taken(writer);
            }
            writer.limit.store(0, Relaxed);
            // From here on handlers go elsewhere; the compiler must not move what follows up.
            compiler_fence(Ordering::SeqCst);
            if HEADER as u64 + need > page_bytes {
                return None; // larger than a page
            }
            if writer.packet.load(Relaxed) != 0 {
                self.make_room(writer, slot, owner, need);
            }
            if writer.packet.load(Relaxed) == 0 && !self.take_page(writer, slot, owner, need) {
                return None;
            }
            let end = self.page_end(writer);
            compiler_fence(Ordering::SeqCst);
            writer.limit.store(end, Relaxed);
            if let Some(reserved) = self.reserve(writer, id, len) {
                return Some(reserved);
            }
            // Handlers filled the page in the meantime.
        }
    }

    fn page_end(&self, writer: &Writer) -> u64 {
        let page_bytes = u64::from(self.arena.header().page_bytes);
        self.arena.page_address(writer.page.load(Relaxed)) + page_bytes
    }

    /// The agent has taken the page, and closed the packet if anything was in it.
    fn forget_taken(&self, writer: &Writer) {
        debug_assert_eq!(writer.claim.load(Relaxed), TAKEN);
        if content(writer) > HEADER as u64 {
            writer.seq.store(writer.seq.load(Relaxed) + 1, Relaxed);
        }
        writer.limit.store(0, Relaxed);
        compiler_fence(Ordering::SeqCst);
        writer.packet.store(0, Relaxed);
        writer.pos.store(0, Relaxed);
        writer.claim.store(0, Release);
    }

    /// With a page: leaves room for `need` bytes in a packet of `owner`, or hands the page on.
    fn make_room(&self, writer: &Writer, slot: u32, owner: &Owner, need: u64) {
        let (pos, end) = (writer.pos.load(Relaxed), self.page_end(writer));
        let empty = content(writer) == HEADER as u64;
        if writer.tid.load(Relaxed) == owner.tid && pos + need <= end {
            return;
        }
        if empty && pos + need <= end {
            let at = writer.packet.load(Relaxed);
            self.open(writer, slot, owner, at);
            return;
        }
        let next = if empty { writer.packet.load(Relaxed) } else { self.close(writer, slot) };
        if writer.tid.load(Relaxed) != owner.tid && next + HEADER as u64 + need <= end {
            self.open(writer, slot, owner, next);
            return;
        }
        let page = writer.page.load(Relaxed);
        let used = next.min(end) - self.arena.page_address(page);
        self.arena.fill(page, used as u32);
        writer.packet.store(0, Relaxed);
        writer.pos.store(0, Relaxed);
    }

    /// Without a page: takes one, opens a packet and writes down what has been lost meanwhile.
    fn take_page(&self, writer: &Writer, slot: u32, owner: &Owner, need: u64) -> bool {
        let ordinal = writer.ordinal.load(Relaxed);
        let Some(page) = self.arena.take(slot, ordinal) else {
            return false;
        };
        writer.ordinal.store(ordinal.wrapping_add(1), Relaxed);
        writer.page.store(page, Relaxed);
        self.open(writer, slot, owner, self.arena.page_address(page));
        if self.lossy.load(Relaxed) && !self.arena.overwrites() {
            self.fold_losses(writer, need);
        }
        true
    }

    /// Opens a packet at address `at`. The magic comes last: before it, nothing is there.
    fn open(&self, writer: &Writer, slot: u32, owner: &Owner, at: u64) {
        let floor = writer.floor.load(Relaxed).max(writer.last.load(Relaxed));
        let begin = self.ticks().max(floor);
        let entry = self.arena.slot(slot);
        let header = PacketHeader {
            stream: slot.into(),
            begin,
            end: begin,
            content_bits: HEADER as u64 * 8,
            packet_bits: 0,
            seq: writer.seq.load(Relaxed).into(),
            discarded: entry.discarded.load(Relaxed),
            tid: owner.tid,
            thread: owner.name,
        };
        let bytes = header.to_bytes();
        // SAFETY: `at` is 8-aligned and at least a header's length before the end of a page that
        // this slot owns. The magic is written apart, by an atomic, because it is what readers of
        // an unfinished page look at first.
        unsafe {
            let magic = AtomicU32::from_ptr(at as *mut u32);
            magic.store(0, Relaxed);
            (at as *mut u8).add(4).copy_from_nonoverlapping(bytes[4..].as_ptr(), HEADER - 4);
            magic.store(MAGIC, Release);
        }
        entry.tid.store(owner.tid, Relaxed);
        writer.tid.store(owner.tid, Relaxed);
        writer.last.store(begin, Relaxed);
        writer.pos.store(at + HEADER as u64, Relaxed);
        writer.packet.store(at, Relaxed);
    }

    /// Closes the open packet, which is not empty. Returns where the next one may begin.
    fn close(&self, writer: &Writer, slot: u32) -> u64 {
        let packet = writer.packet.load(Relaxed);
        let end = self.end_of(packet);
        writer.floor.store(end, Relaxed);
        writer.seq.store(writer.seq.load(Relaxed) + 1, Relaxed);
        let discarded = self.arena.slot(slot).discarded.load(Relaxed);
        seal(packet, writer.pos.load(Relaxed), self.page_end(writer), end, discarded)
    }

    /// A moment not before the last record of the packet at `packet`, which ends now. What the
    /// packet says of it is believed where it is possible: another CPU's counter may be ahead of
    /// ours, but not by much, and the word may have been scribbled on.
    pub(super) fn end_of(&self, packet: u64) -> u64 {
        const AHEAD: u64 = 1 << 20;
        let (now, noted) = (self.ticks(), word(packet, END_AT).load(Relaxed));
        if noted.wrapping_sub(now) < AHEAD { noted } else { now }
    }

    /// Counts a lost event, of its kind and of its stream.
    fn lose(&self, slot: u32, id: u32) {
        self.arena.loss(id).lost.fetch_add(1, Relaxed);
        self.arena.slot(slot).discarded.fetch_add(1, Relaxed);
        self.lossy.store(true, Relaxed);
    }

    /// Writes `gp:loss` records into the fresh packet, as long as `need` bytes stay free. Handlers
    /// are elsewhere (`limit` is 0), so this thread alone moves `pos`.
    fn fold_losses(&self, writer: &Writer, need: u64) {
        self.lossy.store(false, Relaxed);
        let end = self.page_end(writer);
        let context = self.context as usize;
        let length = LOSS_RECORD + context as u64;
        for id in 0..self.arena.header().ids {
            let loss = self.arena.loss(id);
            let folded = loss.folded.load(Relaxed);
            let lost = loss.lost.load(Relaxed);
            if lost <= folded {
                continue;
            }
            let pos = writer.pos.load(Relaxed);
            if pos + length + need > end {
                self.lossy.store(true, Relaxed); // the rest at the next turn
                return;
            }
            // Whoever wins the exchange writes these down; the others find nothing left.
            if loss.folded.compare_exchange(folded, lost, AcqRel, Relaxed).is_err() {
                continue;
            }
            let now = self.ticks().max(writer.last.load(Relaxed));
            let header = extended_header(LOSS_ID, now);
            let at = pos as *mut u8;
            // SAFETY: the `length` bytes from `pos` lie before `end`, in a page that this slot owns.
            unsafe {
                at.copy_from_nonoverlapping(header.as_ptr(), EXTENDED_HEADER);
                at.add(EXTENDED_HEADER).write_bytes(0, context);
                let fields = at.add(EXTENDED_HEADER + context);
                fields.cast::<u32>().write_unaligned(id);
                fields.add(4).cast::<u64>().write_unaligned(lost - folded);
            }
            writer.last.store(now, Relaxed);
            writer.pos.store(pos + length, Relaxed);
        }
    }
}

/// Bytes of the open packet, header included; 0 without one.
pub(super) fn content(writer: &Writer) -> u64 {
    writer.pos.load(Relaxed).saturating_sub(writer.packet.load(Relaxed))
}

/// Ends the packet at `packet` whose content ends at `pos`: pads it, wipes the magic of what could
/// follow, and only then says how long it is. Returns the address after it.
pub(super) fn seal(packet: u64, pos: u64, page_end: u64, end: u64, discarded: u64) -> u64 {
    let next = packet + round_up(pos - packet);
    // SAFETY: the padding lies in the page, whose length is a multiple of 8, as is every packet's
    // place; so does the next magic where it is written. The caller's slot owns the page.
    unsafe {
        (pos as *mut u8).write_bytes(0, (next - pos) as usize);
        if next < page_end {
            AtomicU32::from_ptr(next as *mut u32).store(0, Relaxed);
        }
    }
    word(packet, END_AT).store(end, Relaxed);
    word(packet, DISCARDED_AT).store(discarded, Relaxed);
    word(packet, CONTENT_AT).store((pos - packet) * 8, Release);
    word(packet, PACKET_AT).store((next - packet) * 8, Release);
    next
}
