//! The ring against an oracle: every event written is found once, whole and in order; every event
//! not written is counted. Each promise has a broken twin of the ring, which the same test must
//! catch.

use super::*;
use gracepoint_wire::arena::{PageEntry, PageState};
use gracepoint_wire::control::Mode;
use gracepoint_wire::packet::{HEADER, PacketHeader, parse_event_header};
use gracepoint_wire::schema::LOSS_ID;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What has been read back: per slot the packets in order, each with its events.
#[derive(Default)]
struct Found {
    next: BTreeMap<u32, u64>,
    waiting: BTreeMap<(u32, u64), Vec<u8>>,
    packets: BTreeMap<u32, Vec<(PacketHeader, Vec<Event>)>>,
}

struct Event {
    id: u32,
    ticks: u64,
    value: u64,
}

/// A consumer: copies full pages, and gives them back.
struct Consumer {
    file: std::fs::File,
    ring: Arc<Ring>,
    found: Found,
}

impl Consumer {
    fn new(ring: &Arc<Ring>) -> Consumer {
        let file = ring.arena.file().try_clone_to_owned().unwrap().into();
        Consumer { file, ring: Arc::clone(ring), found: Found::default() }
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    /// One look at the page table.
    fn drain(&mut self) {
        let header = *self.ring.arena.header();
        for page in 0..header.pages {
            let at = header.table_at + u64::from(page) * 32;
            let entry = PageEntry::parse(&self.read(at, 32)).unwrap();
            if entry.state != PageState::Full as u32 {
                continue;
            }
            let entry = PageEntry::parse(&self.read(at, 32)).unwrap();
            let bytes = self.read(header.page_at(page), entry.used as usize);
            assert!(self.ring.arena.give_back(page, entry.ordinal), "page {page} given back");
            self.found.waiting.insert((entry.slot, entry.ordinal), bytes);
        }
        self.found.settle();
    }

    /// At the end: closes what is open, and reads it.
    fn finish(mut self) -> Found {
        self.drain();
        self.ring.take_back();
        self.drain();
        assert!(self.found.waiting.is_empty(), "a page is missing");
        self.found
    }
}

impl Found {
    /// Takes pages in the order of their ordinals.
    fn settle(&mut self) {
        while let Some((&(slot, ordinal), _)) =
            self.waiting.iter().find(|((slot, n), _)| self.next.get(slot).unwrap_or(&0) == n)
        {
            let bytes = self.waiting.remove(&(slot, ordinal)).unwrap();
            self.next.insert(slot, ordinal + 1);
            self.read_page(slot, &bytes);
        }
    }

    fn read_page(&mut self, slot: u32, mut bytes: &[u8]) {
        let packets = self.packets.entry(slot).or_default();
        while !bytes.is_empty() {
            let header = PacketHeader::parse(bytes).unwrap();
            assert_eq!(header.stream, u64::from(slot));
            assert_eq!(header.seq, packets.len() as u64, "packets are counted without gaps");
            assert!(header.packet_bits != 0, "closed");
            if let Some((last, _)) = packets.last() {
                assert!(header.begin >= last.end, "packets do not overlap in time");
            }
            let events = read_events(&header, &bytes[HEADER..header.content_bytes() as usize]);
            packets.push((header, events));
            bytes = &bytes[header.packet_bytes() as usize..];
        }
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.packets.values().flatten().flat_map(|(_, events)| events)
    }

    fn values(&self, id: u32) -> Vec<u64> {
        self.events().filter(|e| e.id == id).map(|e| e.value).collect()
    }

    fn lost(&self) -> u64 {
        self.values(LOSS_ID).iter().sum()
    }
}

/// Test events are a u64, its complement and a tail of `value % 8` bytes `0xAA`.
fn read_events(header: &PacketHeader, mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut time = header.begin;
    while !bytes.is_empty() {
        let head = parse_event_header(bytes, time).expect("a whole header");
        assert!(head.ticks >= time && head.ticks <= header.end, "times are in order");
        time = head.ticks;
        bytes = &bytes[head.len..];
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (value, len) = if head.id == LOSS_ID {
            (word(4), 12)
        } else {
            assert_eq!(word(8), !word(0), "the event is whole");
            let len = 16 + (word(0) % 8) as usize;
            assert!(bytes[16..len].iter().all(|&b| b == 0xaa), "the event is whole");
            (word(0), len)
        };
        events.push(Event { id: head.id, ticks: head.ticks, value });
        bytes = &bytes[len..];
    }
    events
}

/// Records an event whose fields `fill` writes.
fn write(ring: &Ring, id: u32, len: usize, fill: impl FnOnce(*mut u8)) -> bool {
    // The plain way looks at `last`, and is late only for what a handler's handler does: the twin goes
    // the other way.
    let plain = ring.is_plain() && ring.twin != Twin::ClockFirst;
    // As a session writer does: first the quick way.
    let writers = ring.writers().filter(|_| plain);
    // SAFETY: the ring outlives the place, and the thread lives on.
    if let Some(place) = writers.and_then(|writers| unsafe { writers.place(id, len) }) {
        fill(place.fields);
        if let Err(left) = place.publish() {
            ring.publish_after_all(left);
        }
        return true;
    }
    let place = if plain { ring.place_plain(id, len) } else { ring.place(id, len) };
    let Some(place) = place else { return false };
    fill(place.fields);
    ring.publish(&place);
    true
}

fn put(ring: &Ring, id: u32, value: u64) -> bool {
    let tail = (value % 8) as usize;
    write(ring, id, 16 + tail, |at| {
        // SAFETY: `at` has room for 16 + tail bytes.
        unsafe {
            at.cast::<u64>().write_unaligned(value);
            at.add(8).cast::<u64>().write_unaligned(!value);
            at.add(16).write_bytes(0xaa, tail);
        }
    })
}

/// An event in the middle of which the thread lets others run; its value if it was recorded.
fn put_with_a_pause(ring: &Ring, value: u64) -> Option<u64> {
    let value = value * 8; // no tail
    let written = write(ring, 16, 16, |at| {
        // SAFETY: `at` has room for two words.
        unsafe { at.cast::<u64>().write_unaligned(value) };
        std::thread::yield_now();
        // SAFETY: as above.
        unsafe { at.add(8).cast::<u64>().write_unaligned(!value) };
    });
    written.then_some(value)
}

fn shaped(page_bytes: u32, pages: u32, mode: Mode, twin: Twin) -> Arc<Ring> {
    let mut ring = Ring::new(Shape { page_bytes, pages, ids: 20, mode, context: 0 }, None).unwrap();
    ring.arena.quiet = twin == Twin::OverwritesQuietly;
    Arc::new(Ring { twin, ..ring })
}

fn ring(page_bytes: u32, pages: u32) -> Arc<Ring> {
    shaped(page_bytes, pages, Mode::Discard, Twin::None)
}

#[test]
fn one_thread_many_pages() {
    let ring = ring(4096, 64);
    let mut consumer = Consumer::new(&ring);
    for value in 0..50_000 {
        assert!(put(&ring, 16, value));
        if value % 1000 == 0 {
            consumer.drain();
        }
    }
    let found = consumer.finish();
    assert!(found.values(16).iter().copied().eq(0..50_000));
    assert!(found.events().map(|e| e.ticks).is_sorted());
}

#[test]
fn what_does_not_fit_is_counted_and_the_count_is_in_the_trace() {
    let ring = ring(4096, 16);
    let mut consumer = Consumer::new(&ring);
    let mut kept = 0;
    for value in 0..10_000 {
        kept += u64::from(put(&ring, 17, value));
    }
    assert!(kept < 10_000 && kept > 16 * 100);
    assert_eq!(ring.arena.loss(17).lost.load(Relaxed), 10_000 - kept);
    assert_eq!(ring.arena.free_pages(), 0);
    consumer.drain();
    assert!(put(&ring, 18, 1), "there is space again, and the losses are written down");
    let found = consumer.finish();
    assert_eq!(found.values(17).len() as u64, kept);
    assert_eq!(found.lost(), 10_000 - kept);
    let discarded = found.packets.values().flatten().map(|(h, _)| h.discarded).max();
    assert_eq!(discarded, Some(10_000 - kept));
}

#[test]
fn larger_than_a_page_is_lost_and_disturbs_nobody() {
    let ring = ring(4096, 16);
    assert!(put(&ring, 16, 1));
    assert!(!write(&ring, 16, 5000, |_| unreachable!("nothing to write to")));
    assert!(put(&ring, 16, 2));
    assert_eq!(ring.arena.loss(16).lost.load(Relaxed), 1);
    assert_eq!(Consumer::new(&ring).finish().values(16), [1, 2]);
}

#[test]
fn short_lived_threads_share_pages() {
    let ring = ring(4096, 16);
    for value in 0..200 {
        let ring = Arc::clone(&ring);
        let thread = std::thread::spawn(move || {
            assert!(put(&ring, 16, value));
            // What `session::thread_ends` does for sessions.
            ring.leave(gracepoint_rcu::thread_index().unwrap());
        });
        thread.join().unwrap();
    }
    let found = Consumer::new(&ring).finish();
    let values: BTreeSet<u64> = found.values(16).into_iter().collect();
    assert_eq!(values.len(), 200);
    let owners: usize = found.packets.values().map(Vec::len).sum();
    assert_eq!(owners, 200, "each thread's packet is its own");
}

#[test]
fn thousands_of_short_lived_threads_pin_no_page_and_lose_no_event() {
    for mode in [Mode::Discard, Mode::Overwrite] {
        // Each event is in a packet of its own thread.
        let ring = shaped(4096, 1024, mode, Twin::None);
        let threads = 2_000;
        for value in 0..threads / 8 {
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let ring = &ring;
                    scope.spawn(move || {
                        assert!(put(ring, 16, value * 8 + n));
                        ring.leave(gracepoint_rcu::thread_index().unwrap());
                    });
                }
            });
        }
        // Slots are used again, so no more pages are open than threads were there at once.
        let most = gracepoint_rcu::high_water() as usize;
        assert!(ring.arena.owned_pages() <= most, "{} pages", ring.arena.owned_pages());
        assert_eq!(ring.arena.loss(16).lost.load(Relaxed), 0);
        ring.take_back();
        assert_eq!(ring.arena.owned_pages(), 0, "idle slots pin no page");
        let found = overwrite::Looker::new(&ring).look();
        assert_eq!(found.values(16).len() as u64, threads);
        assert!(found.pages.values().all(|events| !events.is_empty()), "no page is empty");
    }
}

/// Threads that are all there at once, each of which records so many events; one thread at a time, because of those
/// that are preempted in the middle of a record each has a slot and a page.
fn at_once(ring: &Arc<Ring>, threads: u64, each: u64) {
    let (all, turn) = (std::sync::Barrier::new(threads as usize), std::sync::Mutex::new(()));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (all, turn) = (&all, &turn);
            let record = move || {
                let one = turn.lock().unwrap();
                for n in 0..each {
                    assert!(put(ring, 16, thread * each + n), "there is room");
                }
                drop(one);
                all.wait();
            };
            let builder = std::thread::Builder::new().stack_size(128 << 10);
            builder.spawn_scoped(scope, record).expect("a thread");
        }
    });
}

#[test]
fn more_threads_than_pages_lose_nothing_while_there_is_room() {
    for mode in [Mode::Discard, Mode::Overwrite] {
        let ring = shaped(4096, 32, mode, Twin::None);
        at_once(&ring, 200, 2);
        assert_eq!(ring.arena.loss(16).lost.load(Relaxed), 0);
        assert!(ring.arena.owned_pages() < 32, "{} pages", ring.arena.owned_pages());
        let found = overwrite::Looker::new(&ring).look();
        let values: BTreeSet<u64> = found.values(16).into_iter().collect();
        assert_eq!(values.len(), 400);
    }
}

#[test]
fn who_records_much_gets_a_page_also_while_they_are_short() {
    let ring = ring(4096, 32);
    // First: no slot of a thread that has ended.
    let mine = gracepoint_rcu::thread_index().expect("an index");
    at_once(&ring, 20, 1);
    assert!(ring.arena.is_short());
    let many = 60;
    for value in 0..many {
        assert!(put(&ring, 17, value));
    }
    let found = Consumer::new(&ring).finish();
    assert!(found.values(17).into_iter().collect::<BTreeSet<_>>().len() as u64 == many);
    let own: usize = found.packets[&mine].iter().map(|(_, events)| events.len()).sum();
    assert_eq!(own as u64, many - u64::from(GUEST), "all but those that it recorded as a guest");
}

#[test]
fn nobody_else_can_write_resize_or_map_the_arena_for_writing() {
    use std::os::fd::AsRawFd;
    let ring = ring(4096, 16);
    assert!(put(&ring, 16, 8));
    let file = std::fs::File::from(ring.arena.file().try_clone_to_owned().unwrap());
    // What a peer has is another description of the same memory.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    assert!(file.write_at(&[1], 5000).is_err(), "writing");
    assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err(), "resizing");
    for (protection, allowed) in
        [(libc::PROT_READ, true), (libc::PROT_READ | libc::PROT_WRITE, false)]
    {
        // SAFETY: a new mapping of a file of ours, which nobody uses.
        let at = unsafe {
            let null = std::ptr::null_mut();
            libc::mmap(null, 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_eq!(at != libc::MAP_FAILED, allowed, "mapping with {protection}");
    }
    assert_eq!(Consumer::new(&ring).finish().values(16), [8]);
}

#[test]
fn a_forked_child_writes_nothing_even_if_no_hook_has_run() {
    let ring = ring(4096, 16);
    assert!(put(&ring, 16, 1));
    // SAFETY: the system call alone: no handler runs in the child, which only writes and exits.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let refused = (0..1000).all(|n| !put(&ring, 16, n));
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child as i32, &raw mut status, 0) };
    assert_eq!(status, 0, "the child's events go nowhere");
    assert!(put(&ring, 16, 2));
    assert_eq!(ring.arena.loss(16).lost.load(Relaxed), 0);
    assert_eq!(Consumer::new(&ring).finish().values(16), [1, 2]);
}

/// One thread less, however it ends.
struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Threads write as fast as they can while pages are drained and taken back all the time.
fn hammer(twin: Twin) -> Result<(), String> {
    const THREADS: u64 = 4;
    const EACH: u64 = 60_000;
    let ring = shaped(4096, 256, Mode::Discard, twin);
    let running = Arc::new(AtomicUsize::new(THREADS as usize));
    let threads: Vec<_> = (0..THREADS)
        .map(|t| {
            let (ring, running) = (Arc::clone(&ring), Arc::clone(&running));
            std::thread::spawn(move || {
                let _leaves = Leaves(running);
                let mut kept = Vec::new();
                for n in 0..EACH {
                    let value = t * EACH + n;
                    if put(&ring, 16, value) {
                        kept.push(value);
                    }
                    if n % 1024 == 0 {
                        kept.extend(put_with_a_pause(&ring, THREADS * EACH + value));
                    }
                    if n % 512 == 0 {
                        std::thread::yield_now();
                    }
                }
                kept
            })
        })
        .collect();
    let read = std::panic::catch_unwind(|| {
        let mut consumer = Consumer::new(&ring);
        while running.load(Relaxed) > 0 {
            ring.take_back();
            consumer.drain();
        }
        consumer
    });
    let kept: BTreeSet<u64> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    let found = read.and_then(|consumer| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| consumer.finish()))
    });
    let found = found.map_err(|_| "the pages make no sense".to_owned())?;
    let values = found.values(16);
    let distinct: BTreeSet<u64> = values.iter().copied().collect();
    if values.len() != distinct.len() || distinct != kept {
        return Err(format!("{} written, {} found", kept.len(), values.len()));
    }
    let lost = ring.arena.loss(16).lost.load(Relaxed);
    if kept.len() as u64 + lost != THREADS * (EACH + EACH.div_ceil(1024)) {
        return Err(format!("{} kept and {lost} lost", kept.len()));
    }
    Ok(())
}

#[test]
fn pages_are_taken_back_from_under_busy_threads() {
    for _ in 0..3 {
        hammer(Twin::None).unwrap();
    }
}

#[test]
fn a_writer_that_does_not_look_at_the_claim_is_caught() {
    caught("claim", || hammer(Twin::IgnoresClaim));
}

#[test]
fn an_agent_that_does_not_look_at_the_depth_is_caught() {
    caught("depth", || hammer(Twin::IgnoresDepth));
}

/// Runs a broken twin until the oracle objects.
#[expect(clippy::print_stdout, reason = "the counterexample is the test's result")]
fn caught(what: &str, round: impl Fn() -> Result<(), String>) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = (0..200).find_map(|n| round().err().map(|e| (n, e)));
    std::panic::set_hook(hook);
    let (rounds, counterexample) = found.expect("the broken twin passes: the test proves nothing");
    println!("{what}: caught in round {rounds}: {counterexample}");
}

mod overwrite;
mod signals;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod steps;
