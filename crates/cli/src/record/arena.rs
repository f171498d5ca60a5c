//! The arena of a session as a consumer sees it: a descriptor that is read with `pread` while the
//! traced program writes.
//!
//! Nothing read here is trusted: counts are bounded before anything is allocated, and bytes that
//! change between two reads can spoil what is recorded, no more.

use crate::failure::{Failure, Result};
use crate::quantity;
use gracepoint_wire::arena::{
    ArenaHeader, HEADER, LATE_BYTES, LATE_HEADER, LOSS_ENTRY, PAGE_ENTRY, PageEntry, PageState,
    SLOT_ENTRY, TRIPLE_AT, TRIPLE_LOCK_AT, parse_triple,
};
use gracepoint_wire::clock::Triple;
use gracepoint_wire::control::{Mode, late_events};
use gracepoint_wire::schema::{Declared, FIRST_USER_ID};
use rustix::fd::OwnedFd;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Largest table that is read, in bytes.
const TABLE_MOST: u64 = 64 << 20;

/// An arena and the tables read from it last.
#[derive(Debug)]
pub(crate) struct Arena {
    file: File,
    pub(crate) header: ArenaHeader,
    table: Vec<u8>,
}

/// Losses of one event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) id: u32,
    /// All that were lost.
    pub(crate) lost: u64,
    /// Those of them that the trace tells already; of a buffer that overwrites, those that were written over.
    pub(crate) folded: u64,
}

/// What the slot table says of one ring slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotLoss {
    pub(crate) slot: u32,
    pub(crate) discarded: u64,
    pub(crate) tid: u32,
}

impl Arena {
    /// Checks what came with `Created`.
    pub(crate) fn open(fd: OwnedFd) -> Result<Arena> {
        let refused = |why: String| {
            Failure::new(format!("the program's buffer cannot be used ({why}): try again"))
        };
        let file = File::from(fd);
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(refused("it is no memory".into()));
        }
        let mut bytes = [0; HEADER];
        file.read_exact_at(&mut bytes, 0).map_err(|e| refused(e.to_string()))?;
        let header = ArenaHeader::parse(&bytes).map_err(|e| refused(e.to_string()))?;
        Arena::with_header(file, header).map_err(refused)
    }

    /// An arena that is laid out like this.
    ///
    /// # Errors
    /// When the file is too short, or its tables are larger than any program's.
    pub(crate) fn with_header(
        file: File,
        header: ArenaHeader,
    ) -> std::result::Result<Arena, String> {
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        let tables = [
            u64::from(header.pages) * PAGE_ENTRY as u64,
            u64::from(header.slots) * SLOT_ENTRY as u64,
            u64::from(header.ids) * LOSS_ENTRY as u64,
        ];
        if length < header.file_bytes() || tables.iter().any(|&bytes| bytes > TABLE_MOST) {
            return Err("its size contradicts its header".into());
        }
        Ok(Arena { file, header, table: Vec::new() })
    }

    /// Does the program write over the oldest pages?
    pub(crate) fn overwrites(&self) -> bool {
        self.header.mode == Mode::Overwrite as u32
    }

    /// Bytes of all its pages.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.header.pages) * u64::from(self.header.page_bytes)
    }

    /// That it is more than what was `asked` for, if it is: there is a least.
    pub(crate) fn larger_than(&self, asked: u64) -> Option<String> {
        let bytes = self.bytes();
        (bytes > asked).then(|| {
            let (bytes, asked) = (quantity::bytes(bytes), quantity::bytes(asked));
            format!("the buffer has {bytes}, the least that there is, where {asked} were asked for")
        })
    }

    /// Reads the page table; [`Arena::entries`] are then those of this moment.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        self.table.resize(self.header.pages as usize * PAGE_ENTRY, 0);
        self.file.read_exact_at(&mut self.table, self.header.table_at)
    }

    /// The page table as last refreshed.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, PageEntry)> + '_ {
        let entries = self.table.chunks_exact(PAGE_ENTRY).filter_map(PageEntry::parse);
        (0u32..).zip(entries)
    }

    /// Entry `page` of the page table, read anew. What another read saw as full is then seen with
    /// the fields that were written before.
    pub(crate) fn entry(&self, page: u32) -> io::Result<PageEntry> {
        let mut bytes = [0; PAGE_ENTRY];
        let at = self.header.table_at + u64::from(page) * PAGE_ENTRY as u64;
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(PageEntry::parse(&bytes).expect("the array has the size of an entry"))
    }

    /// Reads the first `into.len()` bytes of a page, or from `from` on.
    pub(crate) fn read_page(&self, page: u32, from: usize, into: &mut [u8]) -> io::Result<()> {
        debug_assert!(from + into.len() <= self.header.page_bytes as usize, "stay in the page");
        self.file.read_exact_at(into, self.header.page_at(page) + from as u64)
    }

    /// The latest clock triple; `None` when it is being written all the time.
    pub(crate) fn triple(&self) -> Option<Triple> {
        const LEN: usize = TRIPLE_AT - TRIPLE_LOCK_AT + 24;
        for _ in 0..16 {
            let (mut bytes, mut after) = ([0; LEN], [0; 8]);
            self.file.read_exact_at(&mut bytes, TRIPLE_LOCK_AT as u64).ok()?;
            self.file.read_exact_at(&mut after, TRIPLE_LOCK_AT as u64).ok()?;
            let settled = bytes[..8] == after && after[0] & 1 == 0;
            if settled && after != [0; 8] {
                return parse_triple(&bytes[TRIPLE_AT - TRIPLE_LOCK_AT..]);
            }
        }
        None
    }

    /// The loss table, entries without losses left out.
    pub(crate) fn losses(&self) -> io::Result<Vec<Loss>> {
        let bytes = self.read_table(self.header.loss_at, self.header.ids, LOSS_ENTRY)?;
        let entries = (0u32..).zip(bytes.chunks_exact(LOSS_ENTRY));
        let losses = entries.map(|(id, b)| Loss { id, lost: word(b, 0), folded: word(b, 8) });
        Ok(losses.filter(|loss| loss.lost > 0).collect())
    }

    /// The throttle table: what limits left out, entries without any left out.
    pub(crate) fn throttled(&self) -> io::Result<Vec<Loss>> {
        if self.header.throttle_at == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.read_table(self.header.throttle_at, self.header.ids, LOSS_ENTRY)?;
        let entries = (0u32..).zip(bytes.chunks_exact(LOSS_ENTRY));
        let all = entries.map(|(id, b)| Loss { id, lost: word(b, 0), folded: word(b, 8) });
        Ok(all.filter(|entry| entry.lost > 0).collect())
    }

    /// The slot table, slots without losses left out.
    pub(crate) fn slot_losses(&self) -> io::Result<Vec<SlotLoss>> {
        let bytes = self.read_table(self.header.slot_at, self.header.slots, SLOT_ENTRY)?;
        let entries = (0u32..).zip(bytes.chunks_exact(SLOT_ENTRY));
        let slots = entries.map(|(slot, b)| SlotLoss {
            slot,
            discarded: word(b, 0),
            tid: word(b, 8) as u32,
        });
        Ok(slots.filter(|slot| slot.discarded > 0).collect())
    }

    /// Events that were declared since the session was made, in the order in which they were.
    pub(crate) fn late_events(&self) -> io::Result<Vec<Declared>> {
        let Some([bytes, _]) = self.late_words()? else { return Ok(Vec::new()) };
        let mut frames = vec![0; bytes.min(LATE_BYTES - LATE_HEADER) as usize];
        self.file.read_exact_at(&mut frames, self.header.late_at + LATE_HEADER)?;
        let mut events = late_events(&frames);
        let mut next = FIRST_USER_ID;
        events.retain(|event| {
            let good = event.id >= next && event.id < self.header.ids;
            next = if good { event.id + 1 } else { next };
            good
        });
        Ok(events)
    }

    /// Call sites for which the session had no room.
    pub(crate) fn refused(&self) -> u64 {
        self.late_words().ok().flatten().map_or(0, |[_, refused]| refused)
    }

    fn late_words(&self) -> io::Result<Option<[u64; 2]>> {
        if self.header.late_at == 0 {
            return Ok(None);
        }
        let mut words = [0; LATE_HEADER as usize];
        self.file.read_exact_at(&mut words, self.header.late_at)?;
        Ok(Some([word(&words, 0), word(&words, 8)]))
    }

    fn read_table(&self, at: u64, entries: u32, each: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; entries as usize * each];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

/// Whether an entry says that its page waits for the consumer.
pub(crate) fn is_full(entry: &PageEntry) -> bool {
    entry.state == PageState::Full as u32
}

/// Whether an entry says that a thread is filling its page.
pub(crate) fn is_owned(entry: &PageEntry) -> bool {
    entry.state == PageState::Owned as u32
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}
