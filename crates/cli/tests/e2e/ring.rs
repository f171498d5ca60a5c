//! A traced program's side of an arena, the simple way: one thread, `pwrite` into a memfd.

use gracepoint_wire::arena::{
    ArenaHeader, LOSS_ENTRY, PAGE_ENTRY, PageState, SLOT_ENTRY, TRIPLE_AT, TRIPLE_LOCK_AT,
};
use gracepoint_wire::clock::{Source, Triple};
use gracepoint_wire::packet::{HEADER, PacketHeader, compact_header, round_up};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const PAGE: u32 = 4096;
/// Bytes of a packet at most; several fit in a page.
const PACKET: usize = 1500;

/// An arena being filled.
pub(crate) struct Ring {
    pub(crate) file: File,
    pub(crate) header: ArenaHeader,
    slots: Vec<Slot>,
    /// Lost per id.
    pub(crate) lost: Vec<u64>,
    last: u64,
}

#[derive(Default, Clone)]
struct Slot {
    page: Option<u32>,
    ordinal: u64,
    /// Where the open packet begins in the page.
    at: usize,
    seq: u64,
    open: Option<(PacketHeader, Vec<u8>)>,
    discarded: u64,
    end: u64,
}

impl Ring {
    pub(crate) fn new(pages: u32, ids: u32, slots: u32) -> Ring {
        let mut header = ArenaHeader::lay_out(PAGE, pages, ids, slots);
        header.pid = std::process::id();
        header.clock = Source::Monotonic as u32;
        header.freq_hz = 1_000_000_000;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("fake", flags).unwrap());
        file.set_len(header.total).unwrap();
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        file.write_all_at(&header.to_bytes(), 0).unwrap();
        let lost = vec![0; ids as usize];
        let ring =
            Ring { file, header, slots: vec![Slot::default(); slots as usize], lost, last: 0 };
        ring.write_triple();
        ring
    }

    pub(crate) fn write_triple(&self) {
        let t = triple();
        for (at, word) in [
            (TRIPLE_LOCK_AT, 1),
            (TRIPLE_AT, t.ticks),
            (TRIPLE_AT + 8, t.mono_ns),
            (TRIPLE_AT + 16, t.real_ns),
            (TRIPLE_LOCK_AT, 2),
        ] {
            self.put(at as u64, word);
        }
    }

    /// A record of `id` with this payload in the stream of `slot`; false when it was lost.
    pub(crate) fn record(&mut self, slot: usize, id: u32, payload: &[u8]) -> bool {
        self.last = triple().ticks.max(self.last + 1);
        let now = self.last;
        let size = 5 + payload.len();
        if self.slots[slot]
            .open
            .as_ref()
            .is_some_and(|(_, body)| HEADER + body.len() + size > PACKET)
        {
            self.close_packet(slot);
        }
        if self.slots[slot].open.is_none() && !self.open_packet(slot, now) {
            self.lost[id as usize] += 1;
            self.slots[slot].discarded += 1;
            let (id, lost) = (u64::from(id), self.lost[id as usize]);
            self.put(self.header.loss_at + id * LOSS_ENTRY as u64, lost);
            let at = self.header.slot_at + (slot * SLOT_ENTRY) as u64;
            self.put(at, self.slots[slot].discarded);
            self.put(at + 8, 100 + slot as u64);
            return false;
        }
        let s = &mut self.slots[slot];
        let at = self.header.page_at(s.page.expect("a packet has a page")) + s.at as u64;
        let (header, body) = s.open.as_mut().expect("opened above");
        let from = HEADER + body.len();
        body.extend_from_slice(&compact_header(id, now).to_le_bytes()[..5]);
        body.extend_from_slice(payload);
        header.end = now;
        header.content_bits = (HEADER + body.len()) as u64 * 8;
        s.end = now;
        let (end, content) = (header.end, header.content_bits);
        let bytes = body[from - HEADER..].to_vec();
        self.file.write_all_at(&bytes, at + from as u64).unwrap();
        self.put(at + 24, end);
        self.put(at + 32, content);
        true
    }

    fn open_packet(&mut self, slot: usize, now: u64) -> bool {
        if self.slots[slot].page.is_some() && self.slots[slot].at + PACKET > PAGE as usize {
            self.finish_page(slot);
        }
        if self.slots[slot].page.is_none() && !self.take_page(slot) {
            return false;
        }
        let s = &mut self.slots[slot];
        let mut thread = [0; 16];
        thread[..6].copy_from_slice(b"writer");
        let header = PacketHeader {
            stream: slot as u64,
            begin: now,
            end: now,
            content_bits: HEADER as u64 * 8,
            packet_bits: 0,
            seq: s.seq,
            discarded: s.discarded,
            tid: 100 + slot as u32,
            thread,
        };
        let at = self.header.page_at(s.page.expect("taken above")) + s.at as u64;
        s.open = Some((header, Vec::new()));
        self.file.write_all_at(&header.to_bytes(), at).unwrap();
        true
    }

    fn close_packet(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        let Some((header, body)) = s.open.take() else { return };
        let at = self.header.page_at(s.page.expect("a packet has a page")) + s.at as u64;
        let size = round_up((HEADER + body.len()) as u64);
        s.at += size as usize;
        s.seq = header.seq + 1;
        self.put(at + 40, size * 8);
    }

    /// Closes what is open and queues the page.
    pub(crate) fn finish_page(&mut self, slot: usize) {
        self.close_packet(slot);
        let s = &mut self.slots[slot];
        let Some(page) = s.page.take() else { return };
        let used = s.at as u32;
        let at = self.entry_at(page);
        self.file.write_all_at(&used.to_le_bytes(), at + 16).unwrap();
        self.file.write_all_at(&(PageState::Full as u32).to_le_bytes(), at).unwrap();
    }

    fn take_page(&mut self, slot: usize) -> bool {
        let free = (0..self.header.pages).find(|&page| self.state(page).0 == 0);
        let Some(page) = free else { return false };
        let s = &mut self.slots[slot];
        let ordinal = s.ordinal;
        (s.page, s.at, s.ordinal) = (Some(page), 0, ordinal + 1);
        // What the page held before stays there, as in the real one, but for the first header.
        self.file.write_all_at(&[0; HEADER], self.header.page_at(page)).unwrap();
        let at = self.entry_at(page);
        self.file.write_all_at(&(slot as u32).to_le_bytes(), at + 4).unwrap();
        self.put(at + 8, ordinal);
        self.file.write_all_at(&(PageState::Owned as u32).to_le_bytes(), at).unwrap();
        true
    }

    fn state(&self, page: u32) -> (u32, u64) {
        let mut entry = [0; PAGE_ENTRY];
        self.file.read_exact_at(&mut entry, self.entry_at(page)).unwrap();
        let entry = gracepoint_wire::arena::PageEntry::parse(&entry).unwrap();
        (entry.state, entry.ordinal)
    }

    /// The consumer gives pages back.
    pub(crate) fn release(&mut self, pages: &[(u32, u64)]) {
        for &(page, ordinal) in pages {
            assert_eq!(self.state(page), (PageState::Full as u32, ordinal), "page {page}");
            let at = self.entry_at(page);
            self.file.write_all_at(&0u32.to_le_bytes(), at).unwrap();
        }
    }

    fn entry_at(&self, page: u32) -> u64 {
        self.header.table_at + u64::from(page) * PAGE_ENTRY as u64
    }

    pub(crate) fn put(&self, at: u64, word: u64) {
        self.file.write_all_at(&word.to_le_bytes(), at).unwrap();
    }

    /// Bytes of packets are overwritten: a broken program.
    pub(crate) fn scribble(&self, page: u32) {
        let noise: Vec<u8> = (0..PAGE).map(|i| (i * 37) as u8).collect();
        self.file.write_all_at(&noise, self.header.page_at(page)).unwrap();
    }
}

/// Now, on the fake's clock.
pub(crate) fn triple() -> Triple {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let mono_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Triple { ticks: mono_ns, mono_ns, real_ns: real.as_nanos() as u64 }
}
