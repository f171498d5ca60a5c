//! The arena of a session: one sealed memfd that the traced program writes and a consumer reads
//! with `pread`. Five parts, each at an offset that the header names:
//!
//! ```text
//! header      4096 bytes, below
//! loss table  one entry per declared id: u64 lost, u64 folded (already in the trace as gp:loss; in
//!             overwrite mode those that were written over)
//! slot table  one entry per ring slot: u64 discarded, u32 tid, u32 reserved
//! page table  one entry per page: u32 state, u32 slot, u64 ordinal, u32 used, u32+u64 reserved
//! pages       pages of packets
//! throttle table  one entry per declared id: u64 left out by limits, u64 folded (already in the
//!             trace as gp:unthrottle); after `total`, where older tools do not look
//! late events [`LATE_BYTES`] after that: u64 bytes that follow, u64 call sites for which there was no
//!             room, then a frame for each event that was declared after the session was made
//! ```
//!
//! In discard mode a page is `FREE`, then `OWNED` by one ring slot that fills it, then `FULL`. The consumer copies
//! full pages in the order of their ordinals (per slot, from 0) and gives them back by message; the
//! agent checks the ordinal and makes them free again. The memfd is sealed against shrinking,
//! growing and writing from outside; a consumer needs no right to write.
//!
//! In overwrite mode nobody gives pages back: a full page is made `FREE`, then `OWNED` again by
//! whoever writes over it. A consumer copies a page at any time, and looks at its entry twice before
//! and once after: what it copied counts if slot and ordinal are the same and the page was not
//! `FREE` ([`PageEntry::continues`]). An ordinal is used once for each slot.

use crate::clock::{Source, Triple};
use crate::{Error, Result};

/// First word of an arena: `GPARENA1`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"GPARENA1");
/// Bytes of the header.
pub const HEADER: usize = 4096;
/// Bytes of a loss table entry.
pub const LOSS_ENTRY: usize = 16;
/// Bytes of a slot table entry.
pub const SLOT_ENTRY: usize = 16;
/// Bytes of a page table entry.
pub const PAGE_ENTRY: usize = 32;
/// Offset in the header of the latest clock triple's sequence lock (u64; odd while written).
pub const TRIPLE_LOCK_AT: usize = 128;
/// Offset in the header of the latest clock triple.
pub const TRIPLE_AT: usize = 136;

/// State of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum PageState {
    /// Anyone may take it.
    Free = 0,
    /// One ring slot fills it.
    Owned = 1,
    /// Waits for the consumer.
    Full = 2,
}

/// The constant part of an arena's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaHeader {
    /// Bytes of a page.
    pub page_bytes: u32,
    /// How many pages.
    pub pages: u32,
    /// Entries of the loss table.
    pub ids: u32,
    /// Entries of the slot table.
    pub slots: u32,
    /// Where the loss table begins.
    pub loss_at: u64,
    /// Where the slot table begins.
    pub slot_at: u64,
    /// Where the page table begins.
    pub table_at: u64,
    /// Where the pages begin.
    pub pages_at: u64,
    /// Bytes of the whole.
    pub total: u64,
    /// The traced program's pid as it sees itself.
    pub pid: u32,
    /// Where ticks come from.
    pub clock: u32,
    /// Ticks per second as measured at the start.
    pub freq_hz: u64,
    /// The machine's boot id.
    pub boot_id: [u8; 16],
    /// What happens when the pages are full, a [`Mode`](crate::control::Mode) as a number.
    pub mode: u32,
    /// Where the throttle table begins; 0 where there is none.
    pub throttle_at: u64,
    /// Where the late events begin; 0 where there are none.
    pub late_at: u64,
}

/// Bytes of the part with late events.
pub const LATE_BYTES: u64 = 1 << 20;
/// Bytes of its two words.
pub const LATE_HEADER: u64 = 16;

/// Smallest and largest page.
pub const PAGE_RANGE: std::ops::RangeInclusive<u32> = 4096..=(1 << 20);

impl ArenaHeader {
    /// Lays out an arena; offsets follow from the counts. Pages are within [`PAGE_RANGE`].
    pub fn lay_out(page_bytes: u32, pages: u32, ids: u32, slots: u32) -> ArenaHeader {
        let up = |n: u64| n.next_multiple_of(4096);
        let loss_at = HEADER as u64;
        let slot_at = up(loss_at + u64::from(ids) * LOSS_ENTRY as u64);
        let table_at = up(slot_at + u64::from(slots) * SLOT_ENTRY as u64);
        let pages_at = up(table_at + u64::from(pages) * PAGE_ENTRY as u64);
        let total = pages_at + u64::from(pages) * u64::from(page_bytes);
        ArenaHeader {
            page_bytes,
            pages,
            ids,
            slots,
            loss_at,
            slot_at,
            table_at,
            pages_at,
            total,
            pid: 0,
            clock: 0,
            freq_hz: 0,
            boot_id: [0; 16],
            mode: 0,
            throttle_at: 0,
            late_at: 0,
        }
    }

    /// Where the throttle table ends.
    pub fn tables_end(&self) -> u64 {
        let table = u64::from(self.ids) * LOSS_ENTRY as u64;
        if self.throttle_at == 0 { self.total } else { self.total + table.next_multiple_of(4096) }
    }

    /// Bytes of the whole file, the throttle table and the late events included.
    pub fn file_bytes(&self) -> u64 {
        self.tables_end() + if self.late_at == 0 { 0 } else { LATE_BYTES }
    }

    /// The header's first 128 bytes.
    pub fn to_bytes(&self) -> [u8; TRIPLE_LOCK_AT] {
        let mut b = [0; TRIPLE_LOCK_AT];
        b[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        b[8..12].copy_from_slice(&u32::from(crate::ABI_MAJOR).to_le_bytes());
        for (i, n) in [self.page_bytes, self.pages, self.ids, self.slots].into_iter().enumerate() {
            b[12 + i * 4..16 + i * 4].copy_from_slice(&n.to_le_bytes());
        }
        b[28..32].copy_from_slice(&self.pid.to_le_bytes());
        let offsets = [self.loss_at, self.slot_at, self.table_at, self.pages_at, self.total];
        for (i, n) in offsets.into_iter().enumerate() {
            b[32 + i * 8..40 + i * 8].copy_from_slice(&n.to_le_bytes());
        }
        b[72..76].copy_from_slice(&self.clock.to_le_bytes());
        b[80..88].copy_from_slice(&self.freq_hz.to_le_bytes());
        b[88..104].copy_from_slice(&self.boot_id);
        b[104..108].copy_from_slice(&self.mode.to_le_bytes());
        b[112..120].copy_from_slice(&self.throttle_at.to_le_bytes());
        b[120..128].copy_from_slice(&self.late_at.to_le_bytes());
        b
    }

    /// Reads a header and checks that every part lies inside the whole.
    ///
    /// # Errors
    /// When it is no arena, of another version, or its parts overlap or exceed the whole.
    pub fn parse(bytes: &[u8]) -> Result<ArenaHeader> {
        let b: &[u8; TRIPLE_LOCK_AT] =
            bytes.first_chunk().ok_or_else(|| Error::new("arena header is cut short"))?;
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let u64_at = |at| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u64_at(0) != MAGIC {
            return Err(Error::new("not an arena"));
        }
        if u32_at(8) != u32::from(crate::ABI_MAJOR) {
            return Err(Error::new(format!(
                "arena of version {}, which this tool does not know",
                u32_at(8)
            )));
        }
        let (page_bytes, pages, ids, slots) = (u32_at(12), u32_at(16), u32_at(20), u32_at(24));
        let contradicts = || Error::new("arena header contradicts itself");
        // First, because with larger pages the sum of all could exceed 64 bits.
        if !PAGE_RANGE.contains(&page_bytes) || page_bytes % 4096 != 0 {
            return Err(contradicts());
        }
        let mut header = ArenaHeader::lay_out(page_bytes, pages, ids, slots);
        let named = [u64_at(32), u64_at(40), u64_at(48), u64_at(56), u64_at(64)];
        let computed =
            [header.loss_at, header.slot_at, header.table_at, header.pages_at, header.total];
        if named != computed {
            return Err(contradicts());
        }
        header.pid = u32_at(28);
        header.clock = u32_at(72);
        header.freq_hz = u64_at(80);
        header.boot_id.copy_from_slice(&b[88..104]);
        header.mode = u32_at(104);
        header.throttle_at = u64_at(112);
        if header.throttle_at != 0 && header.throttle_at != header.total {
            return Err(Error::new("arena header contradicts itself"));
        }
        header.late_at = u64_at(120);
        if header.late_at != 0 && header.late_at != header.tables_end() {
            return Err(Error::new("arena header contradicts itself"));
        }
        Ok(header)
    }

    /// Where the ticks of this arena come from.
    pub fn source(&self) -> Source {
        u8::try_from(self.clock).ok().and_then(Source::from_u8).unwrap_or(Source::Monotonic)
    }

    /// Offset of page `index`.
    pub fn page_at(&self, index: u32) -> u64 {
        self.pages_at + u64::from(index) * u64::from(self.page_bytes)
    }
}

/// An entry of the page table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEntry {
    /// See [`PageState`]; other numbers are a broken peer's.
    pub state: u32,
    /// The ring slot that owns or filled it.
    pub slot: u32,
    /// Position among the pages of that slot.
    pub ordinal: u64,
    /// Bytes of closed packets in a full page.
    pub used: u32,
}

impl PageEntry {
    /// Reads the entry at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<PageEntry> {
        let b: &[u8; PAGE_ENTRY] = bytes.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        Some(PageEntry {
            state: u32_at(0),
            slot: u32_at(4),
            ordinal: u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32,
            used: u32_at(16),
        })
    }

    /// Was what was copied from a page between two looks at its entry, `before` and this one,
    /// written over meanwhile by nobody? The argument is at the top of `ring/arena.rs` of the
    /// runtime.
    ///
    /// ```
    /// use gracepoint_wire::arena::PageEntry;
    /// let before = PageEntry { state: 1, slot: 3, ordinal: 7, used: 0 };
    /// let full = PageEntry { state: 2, used: 4000, ..before };
    /// assert!(full.continues(&before));
    /// assert!(!before.continues(&full));
    /// assert!(!PageEntry { ordinal: 8, ..full }.continues(&before));
    /// assert!(!PageEntry { state: 0, ..before }.continues(&before));
    /// ```
    pub fn continues(&self, before: &PageEntry) -> bool {
        let in_use = |state| state == PageState::Owned as u32 || state == PageState::Full as u32;
        in_use(before.state)
            && in_use(self.state)
            && self.state >= before.state
            && (self.slot, self.ordinal) == (before.slot, before.ordinal)
    }
}

/// Reads a triple at the start of `bytes`.
pub fn parse_triple(bytes: &[u8]) -> Option<Triple> {
    let b: &[u8; 24] = bytes.first_chunk()?;
    let word = |i: usize| {
        let mut w = [0; 8];
        w.copy_from_slice(&b[i * 8..i * 8 + 8]);
        u64::from_le_bytes(w)
    };
    Some(Triple { ticks: word(0), mono_ns: word(1), real_ns: word(2) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_lies_are_refused() {
        let mut h = ArenaHeader::lay_out(65536, 256, 40, 65536);
        h.pid = 12;
        h.clock = 1;
        h.freq_hz = 2_000_000_000;
        h.boot_id = [7; 16];
        h.mode = 1;
        h.throttle_at = h.total;
        h.late_at = h.tables_end();
        assert_eq!(ArenaHeader::parse(&h.to_bytes()), Ok(h));
        assert_eq!(h.page_at(2) - h.page_at(1), 65536);
        for at in [0, 8, 12, 16, 33, 60, 65, 114, 121] {
            let mut b = h.to_bytes();
            b[at] ^= 0x55;
            assert!(ArenaHeader::parse(&b).is_err(), "byte {at}");
        }
        // Found by the fuzzer: the sum of such pages exceeds 64 bits.
        let mut vast = h.to_bytes();
        vast[12..28].fill(0xff);
        assert!(ArenaHeader::parse(&vast).is_err());
        let huge = ArenaHeader::lay_out(1 << 20, u32::MAX, u32::MAX, u32::MAX);
        assert!(ArenaHeader::parse(&huge.to_bytes()).is_ok());
    }
}
