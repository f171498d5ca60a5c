//! A signal handler that records in the middle of a record, of a commit and of a page turn.
//!
//! The handler runs on the thread under test, which signals itself through a timer of its own
//! CPU time, so that the signal lands at arbitrary instructions.

use super::*;
use std::sync::atomic::AtomicPtr;
use std::sync::{Mutex, PoisonError};

static RING: AtomicPtr<Ring> = AtomicPtr::new(std::ptr::null_mut());
static HANDLED: AtomicU64 = AtomicU64::new(0);
static KEPT: AtomicU64 = AtomicU64::new(0);
/// The timer's signal belongs to the process: one of these tests at a time.
static ALONE: Mutex<()> = Mutex::new(());

const BY_HANDLER: u32 = 17;

extern "C" fn handler(_signal: libc::c_int) {
    // SAFETY: null, or the ring of the test that runs, which outlives its timer.
    if let Some(ring) = unsafe { RING.load(Acquire).as_ref() } {
        for _ in 0..3 {
            let value = HANDLED.fetch_add(1, Relaxed);
            KEPT.fetch_add(u64::from(put(ring, BY_HANDLER, value)), Relaxed);
        }
    }
}

/// A timer on the calling thread's CPU time that signals this thread.
struct Storm(libc::timer_t);

impl Storm {
    fn start() -> Storm {
        Storm::start_with(handler)
    }

    fn start_with(handler: extern "C" fn(libc::c_int)) -> Storm {
        // SAFETY: zeroed sigaction, sigevent and timer are valid to be filled in; the handler only
        // does what is allowed in one (that is what is tested).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGUSR2;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = std::mem::zeroed();
            let clock = libc::CLOCK_MONOTONIC;
            assert_eq!(libc::timer_create(clock, &raw mut event, &raw mut timer), 0);
            let every = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
            let spec = libc::itimerspec { it_interval: every, it_value: every };
            assert_eq!(libc::timer_settime(timer, 0, &raw const spec, std::ptr::null_mut()), 0);
            Storm(timer)
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `start`.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Writes an event and looks, while it is unfinished, whether somebody has published it.
fn put_watched(ring: &Ring, value: u64) -> bool {
    let writer = ring.writer(gracepoint_rcu::thread_index().unwrap());
    write(ring, 16, 16, |at| {
        // SAFETY: `at` has room for two words; tests write a multiple of 8, so no tail follows.
        unsafe { at.cast::<u64>().write_unaligned(value * 8) };
        let packet = writer.packet.load(Relaxed);
        // Leave the handler some time to come in the middle.
        for n in 0..10 {
            std::hint::black_box(n);
        }
        if packet != 0 {
            let committed = packet + word(packet, CONTENT_AT).load(Relaxed) / 8;
            let mine = packet..packet + 4096;
            assert!(!mine.contains(&(at as u64)) || committed <= at as u64, "published unfinished");
        }
        // SAFETY: as above.
        unsafe { at.add(8).cast::<u64>().write_unaligned(!(value * 8)) };
    })
}

/// With no writer under way on this thread: is all that has been written committed?
pub(super) fn is_published(ring: &Ring) -> bool {
    let writer = ring.writer(gracepoint_rcu::thread_index().unwrap());
    let (pos, packet) = (writer.pos.load(Relaxed), writer.packet.load(Relaxed));
    if packet == 0 {
        return true;
    }
    let committed = packet + word(packet, CONTENT_AT).load(Relaxed) / 8;
    // A handler in between makes the comparison void.
    committed == pos || writer.pos.load(Relaxed) != pos
}

/// Writes under a storm of signals until the handler has run `signals` times.
fn storm(twin: Twin, signals: u64) -> Result<(), String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ring = shaped(4096, 1024, Mode::Discard, twin);
    HANDLED.store(0, Relaxed);
    KEPT.store(0, Relaxed);
    RING.store(Arc::as_ptr(&ring).cast_mut(), Release);
    let mut consumer = Consumer::new(&ring);
    let mut kept = Vec::new();
    let mut value = 0;
    let timer = Storm::start();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while HANDLED.load(Relaxed) < signals * 3 {
            for _ in 0..1000 {
                if put_watched(&ring, value) {
                    kept.push(value);
                }
                value += 1;
                assert!(is_published(&ring), "the commit word lags behind");
            }
            consumer.drain();
        }
    }));
    drop(timer);
    RING.store(std::ptr::null_mut(), Release);
    outcome.map_err(|_| "the pages make no sense".to_owned())?;
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| consumer.finish()));
    let found = found.map_err(|_| "the pages make no sense at the end".to_owned())?;
    let mut values = found.values(16);
    values.sort_unstable(); // those that went to borrowed slots come last
    if !values.iter().copied().eq(kept.iter().map(|value| value * 8)) {
        return Err(format!("{} written, {} found", kept.len(), values.len()));
    }
    let nested = found.values(BY_HANDLER).len() as u64;
    if nested != KEPT.load(Relaxed) {
        return Err(format!("{} written by the handler, {nested} found", KEPT.load(Relaxed)));
    }
    let fired = value + HANDLED.load(Relaxed);
    let lost = ring.arena.loss(16).lost.load(Relaxed) + ring.arena.loss(17).lost.load(Relaxed);
    if kept.len() as u64 + nested + lost != fired {
        return Err(format!("{fired} fired, {lost} lost"));
    }
    Ok(())
}

#[test]
fn handlers_tear_nothing_disorder_nothing_lose_nothing() {
    storm(Twin::None, 20_000).unwrap();
}

#[test]
fn handlers_tear_nothing_while_pages_are_written_over() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ring = shaped(4096, 8, Mode::Overwrite, Twin::None);
    HANDLED.store(0, Relaxed);
    KEPT.store(0, Relaxed);
    RING.store(Arc::as_ptr(&ring).cast_mut(), Release);
    let mut fired = 0;
    let timer = Storm::start();
    while HANDLED.load(Relaxed) < 20_000 {
        put_watched(&ring, fired);
        fired += 1;
        assert!(is_published(&ring), "the commit word lags behind");
    }
    drop(timer);
    RING.store(std::ptr::null_mut(), Release);
    let found = overwrite::Looker::new(&ring).look();
    for (id, fired) in [(16, fired), (BY_HANDLER, HANDLED.load(Relaxed))] {
        let (kept, lost) = (found.values(id).len() as u64, ring.arena.loss(id).lost.load(Relaxed));
        assert!(lost > 0, "pages were written over");
        assert_eq!(kept + lost, fired, "fired = recorded + lost, id {id}");
    }
}

#[test]
fn a_clock_read_before_the_position_is_caught() {
    caught("clock", || storm(Twin::ClockFirst, 5_000));
}

#[test]
fn a_commit_that_does_not_look_again_is_caught() {
    caught("republish", || storm(Twin::PublishesOnce, 5_000));
}

#[test]
fn a_nested_writer_that_publishes_is_caught() {
    caught("nested", || storm(Twin::NestedPublishes, 5_000));
}

#[test]
fn a_quick_writer_on_top_of_another_is_caught() {
    caught("quick", || storm(Twin::StoresDepth, 5_000));
}

/// The second of two rings into which everything goes.
static SECOND: AtomicPtr<Ring> = AtomicPtr::new(std::ptr::null_mut());

/// An event in both rings, as a session writer does it: was it recorded in each, with one time (0 if it has one of
/// its own)?
fn put_twice(rings: [&Ring; 2], id: u32, value: u64) -> [Option<u64>; 2] {
    let line = gracepoint_rcu::thread_line().unwrap();
    // SAFETY: the rings outlive the places, and the line is this thread's.
    let begun = rings.map(|ring| unsafe { ring.plain_writers().begin(line) });
    let now = counter_after();
    let places = begun.map(|begun| begun.and_then(|begun| begun.place(now, id, 16)));
    let fill = |fields: *mut u8| {
        // SAFETY: `fields` has room for two words; tests write a multiple of 8, so no tail follows.
        unsafe {
            fields.cast::<u64>().write_unaligned(value * 8);
            fields.add(8).cast::<u64>().write_unaligned(!(value * 8));
        }
    };
    places.iter().flatten().for_each(|place| fill(place.fields));
    let mut rings = rings.iter();
    places.map(|place| {
        let ring = rings.next().unwrap();
        let Some(place) = place else { return write(ring, id, 16, fill).then_some(0) };
        let time = place.time();
        if let Err(left) = place.publish() {
            ring.publish_after_all(left);
        }
        Some(time)
    })
}

extern "C" fn handler_of_two(_signal: libc::c_int) {
    // SAFETY: null, or the rings of the test that runs, which outlive its timer.
    let rings = unsafe { [RING.load(Acquire).as_ref(), SECOND.load(Acquire).as_ref()] };
    if let [Some(first), Some(second)] = rings {
        let value = HANDLED.fetch_add(1, Relaxed);
        let put = put_twice([first, second], BY_HANDLER, value);
        KEPT.fetch_add(put.iter().flatten().count() as u64, Relaxed);
    }
}

#[test]
fn two_rings_are_whole_and_in_order_with_one_reading_of_the_clock() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let rings = [(); 2].map(|()| shaped(4096, 1024, Mode::Discard, Twin::None));
    if !rings[0].is_plain() {
        return; // no counter to read: such an event is placed in each ring for itself
    }
    HANDLED.store(0, Relaxed);
    KEPT.store(0, Relaxed);
    RING.store(Arc::as_ptr(&rings[0]).cast_mut(), Release);
    SECOND.store(Arc::as_ptr(&rings[1]).cast_mut(), Release);
    let mut consumers = rings.each_ref().map(Consumer::new);
    let (mut fired, mut kept, mut same) = (0, 0, 0);
    assert!(gracepoint_rcu::thread_index().is_some(), "else there is no line");
    let timer = Storm::start_with(handler_of_two);
    while HANDLED.load(Relaxed) < 300 {
        for _ in 0..1000 {
            let put = put_twice([&rings[0], &rings[1]], 16, fired);
            kept += put.iter().flatten().count() as u64;
            same += u64::from(put[0].is_some_and(|time| time != 0) && put[0] == put[1]);
            fired += 1;
        }
        consumers.iter_mut().for_each(Consumer::drain);
    }
    drop(timer);
    RING.store(std::ptr::null_mut(), Release);
    SECOND.store(std::ptr::null_mut(), Release);
    // Whole, in order of their times, and counted: the consumer looks.
    let found = consumers.map(Consumer::finish);
    let count = |id| found.iter().map(|found| found.values(id).len() as u64).sum::<u64>();
    assert_eq!((count(16), count(BY_HANDLER)), (kept, KEPT.load(Relaxed)));
    let lost = |id| rings.iter().map(|ring| ring.arena.loss(id).lost.load(Relaxed)).sum::<u64>();
    assert_eq!(kept + lost(16), 2 * fired);
    assert_eq!(KEPT.load(Relaxed) + lost(BY_HANDLER), 2 * HANDLED.load(Relaxed));
    // All but those that turned a page or met a handler.
    assert!(same * 10 > fired * 9, "{same} of {fired} have one time");
}
