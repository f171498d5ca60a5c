//! What goes from an arena to the files, page by page; and that no arena whatever makes it panic or
//! write something else than packets.

use super::super::{residue, snapshot, streams::Streams};
use super::*;
use gracepoint_wire::arena::{ArenaHeader, HEADER as ARENA_HEADER, PAGE_ENTRY, PageState};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const PAGES: u32 = 8;
const SLOTS: u32 = 4;

/// An arena in a memfd, and a directory for the streams.
struct Scene {
    memory: File,
    header: ArenaHeader,
    dir: PathBuf,
    copier: Copier,
    /// Ticks from packet to packet; 0 for a clock that stands still.
    gap: u64,
}

impl Scene {
    fn new() -> Scene {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gracepoint-copy-{}-{n}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let header = ArenaHeader::lay_out(4096, PAGES, 20, SLOTS);
        let fd = memfd_create("arena", MemfdFlags::CLOEXEC).unwrap();
        let memory = File::from(fd.try_clone().unwrap());
        memory.set_len(header.total).unwrap();
        memory.write_all_at(&header.to_bytes(), 0).unwrap();
        let copier = Copier::new(Arena::open(fd).unwrap(), Streams::new(&dir));
        Scene { memory, header, dir, copier, gap: 10 }
    }

    /// Writes an entry of the page table.
    fn entry(&self, page: u32, state: PageState, slot: u32, ordinal: u64, used: u32) {
        let mut bytes = [0; PAGE_ENTRY];
        bytes[..4].copy_from_slice(&(state as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&slot.to_le_bytes());
        bytes[8..16].copy_from_slice(&ordinal.to_le_bytes());
        bytes[16..20].copy_from_slice(&used.to_le_bytes());
        let at = self.header.table_at + u64::from(page) * PAGE_ENTRY as u64;
        self.memory.write_all_at(&bytes, at).unwrap();
    }

    /// Writes a packet of 24 bytes of content; returns where the next one may be.
    fn packet(&self, page: u32, at: u64, slot: u32, seq: u64, open: bool) -> u64 {
        let header = PacketHeader {
            stream: slot.into(),
            begin: 1000 + seq * self.gap,
            end: 1000 + seq * self.gap + self.gap / 2,
            content_bits: (HEADER as u64 + 24) * 8,
            packet_bits: if open { 0 } else { (HEADER as u64 + 24) * 8 },
            seq,
            ..PacketHeader::default()
        };
        let at = self.header.page_at(page) + at;
        self.memory.write_all_at(&header.to_bytes(), at).unwrap();
        self.memory.write_all_at(&[seq as u8; 24], at + HEADER as u64).unwrap();
        at + HEADER as u64 + 24 - self.header.page_at(page)
    }

    /// A full page of one packet.
    fn full(&self, page: u32, slot: u32, ordinal: u64) {
        let used = self.packet(page, 0, slot, ordinal, false);
        self.entry(page, PageState::Full, slot, ordinal, used as u32);
    }

    /// Sequence numbers in the file of a slot.
    fn written(&self, slot: u64) -> Vec<u64> {
        let bytes = std::fs::read(self.dir.join(format!("stream_{slot}"))).unwrap_or_default();
        let (mut at, mut end, mut seqs) = (0, 0, Vec::new());
        while at < bytes.len() {
            let header = PacketHeader::parse(&bytes[at..]).expect("a file holds packets");
            assert!(header.packet_bits > 0 && header.packet_bits.is_multiple_of(64));
            assert!(header.begin >= end && header.end >= header.begin, "time goes on");
            end = header.end;
            seqs.push(header.seq);
            at += header.packet_bytes() as usize;
        }
        assert_eq!(at, bytes.len(), "a file ends at a packet's end");
        seqs
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn pages_go_in_the_order_of_their_ordinals() {
    let mut scene = Scene::new();
    scene.full(3, 0, 0);
    for (page, ordinal) in [(6, 0), (5, 1), (2, 2), (1, 3), (0, 4)] {
        scene.full(page, 1, ordinal);
    }
    let done = scene.copier.copy_full().unwrap();
    assert_eq!(done, [(3, 0), (6, 0), (5, 1), (2, 2), (1, 3), (0, 4)]);
    assert_eq!(scene.written(1), [0, 1, 2, 3, 4]);
    // Not given back yet, and not copied twice.
    assert_eq!(scene.copier.copy_full().unwrap(), []);
}

#[test]
fn times_that_were_scribbled_on_spoil_one_packet_and_not_the_stream() {
    // Where: a packet's begin and end, in the middle of a page and at the end of one.
    const BEGIN_AT: u64 = END_AT as u64 - 8;
    for (word, nth, left) in [
        (END_AT as u64, 0, [0, 1, 2, 3].as_slice()),
        (END_AT as u64, 1, &[0, 1, 2, 3]),
        (BEGIN_AT, 0, &[1, 2, 3]),
        (BEGIN_AT, 1, &[0, 2, 3]),
    ] {
        let mut scene = Scene::new();
        scene.header.mode = 1;
        scene.copier.arena.header.mode = 1;
        let mut places = Vec::new();
        for (page, seq) in [(0, 0), (1, 2)] {
            let next = scene.packet(page, 0, 1, seq, false);
            let used = scene.packet(page, next, 1, seq + 1, false);
            scene.entry(page, PageState::Full, 1, page.into(), used as u32);
            places.extend([scene.header.page_at(page), scene.header.page_at(page) + next]);
        }
        let far = 1_u64 << 60;
        scene.memory.write_all_at(&far.to_le_bytes(), places[nth] + word).unwrap();
        if word == BEGIN_AT {
            scene.memory.write_all_at(&far.to_le_bytes(), places[nth] + END_AT as u64).unwrap();
        }
        snapshot::copy(&mut scene.copier, 5000).unwrap();
        let first = left[0];
        let wanted: Vec<u64> = left.iter().map(|seq| seq - first).collect();
        assert_eq!(scene.written(1), wanted, "word {word} of packet {nth}");
    }
}

#[test]
fn a_page_waits_for_its_predecessor() {
    let mut scene = Scene::new();
    scene.full(0, 1, 1);
    scene.packet(4, 0, 1, 0, false);
    scene.entry(4, PageState::Owned, 1, 0, 0);
    assert_eq!(scene.copier.copy_full().unwrap(), []);
    scene.full(4, 1, 0);
    assert_eq!(scene.copier.copy_full().unwrap(), [(4, 0), (0, 1)]);
    assert_eq!(scene.written(1), [0, 1]);
}

#[test]
fn a_predecessor_that_does_not_exist_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.full(0, 1, 3);
    scene.full(1, 1, 4);
    assert_eq!(scene.copier.copy_full().unwrap(), [(0, 3), (1, 4)]);
    assert_eq!(scene.written(1), [3, 4]);
}

#[test]
fn an_open_packet_is_closed_at_its_mark() {
    let mut scene = Scene::new();
    let at = scene.packet(6, 0, 2, 0, false);
    let at = scene.packet(6, at, 2, 1, true);
    // Remains of an older use of the page: never part of the stream.
    scene.packet(6, at, 2, 0, false);
    scene.entry(6, PageState::Owned, 2, 0, 0);
    scene.copier.copy_owned(|_| 7).unwrap();
    assert_eq!(scene.written(2), [0, 1]);
    assert_eq!(scene.copier.slots[&2].discarded, 7, "the last packet tells the losses");
}

#[test]
fn remains_of_an_older_use_are_left_out() {
    for gap in [10, 0] {
        let mut scene = Scene::new();
        scene.gap = gap;
        scene.full(0, 2, 0);
        scene.copier.copy_full().unwrap();
        // The slot took the page again and has not opened a packet yet: what is there was copied.
        scene.entry(0, PageState::Owned, 2, 1, 0);
        scene.copier.copy_owned(|_| 0).unwrap();
        assert_eq!(scene.written(2), [0]);
        // Nor is another slot's packet taken for one's own.
        scene.entry(0, PageState::Owned, 3, 0, 0);
        scene.copier.copy_owned(|_| 0).unwrap();
        assert!(scene.written(3).is_empty());
    }
}

/// Xorshift: the same arenas every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[test]
fn no_arena_makes_it_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..1000 {
        let mut scene = Scene::new();
        for page in 0..PAGES {
            let (slot, mut at) = (random.below(5) as u32, 0);
            for seq in 0..random.below(6) {
                at = scene.packet(page, at, slot, seq, random.below(4) == 0);
            }
            let state = [PageState::Free, PageState::Owned, PageState::Full];
            let ordinal = [0, 1, 2, u64::MAX][random.below(4) as usize];
            let used = [at as u32, 4096, u32::MAX, 3][random.below(4) as usize];
            scene.entry(page, state[random.below(3) as usize], slot, ordinal, used);
        }
        for _ in 0..random.below(40) {
            // Anywhere behind the header, and often in a packet's header.
            let page = scene.header.page_at(random.below(PAGES.into()) as u32);
            let rest = scene.header.total - ARENA_HEADER as u64;
            let at = [page + random.below(300), ARENA_HEADER as u64 + random.below(rest)];
            let byte = [0xff, 0, random.next() as u8][random.below(3) as usize];
            scene.memory.write_all_at(&[byte], at[random.below(2) as usize]).unwrap();
        }
        scene.copier.copy_full().unwrap();
        scene.copier.copy_full().unwrap();
        scene.copier.copy_owned(|slot| u64::from(slot) * (u64::MAX / 4)).unwrap();
        residue::write(&mut scene.copier, 5000).unwrap();
        (0..=u64::from(SLOTS)).for_each(|slot| drop(scene.written(slot)));
    }
}
