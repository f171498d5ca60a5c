//! The ring of one handle: samples from any thread and any signal handler to one reader.
//!
//! # Why it is right
//! Slots carry a sequence number. Slot `i` of `n` is free for position `p` (with `p % n == i`) when its
//! number is `p`, and holds a sample when it is `p + 1`; the reader makes it `p + n`. A writer takes a position
//! by a compare-exchange of `head`, so two never write one slot; a writer that a signal handler interrupts
//! between that and its last store holds up the reader, and nobody else: handlers take the next
//! positions. A full ring loses the new sample, which is counted; nobody waits.
//!
//! The number is stored with release after the sample was written, and loaded with acquire by the reader
//! before it reads: without the pair the reader could see an old sample under a new number. The same pair
//! the other way round (the reader's store, the writer's load) keeps the writer from writing over what is
//! still being read.
//!
//! # Waking
//! Every `watermark`-th position writes to an eventfd, and so does every `watermark`-th loss: a writer that
//! was interrupted for long may make a ring full whose wakeups have all been seen, and then it is a
//! loss that wakes. The descriptor does not block, and `write` is fit for signal handlers. It is the
//! one system call that a hit makes, once for so many samples, and only where a watermark is asked for.

#[cfg(gp_supported)]
use crate::sys;
use std::fmt;
#[cfg(gp_supported)]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One hit that was chosen to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerfSample {
    /// When, on `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// The kernel's number of the thread.
    pub tid: u32,
    /// Hits since the sample before, this one included: its weight.
    pub hits: u64,
    /// All hits of the event so far, this one included, whatever was reset.
    pub count: u64,
    /// The span that begins here, if one does.
    pub span: Option<u64>,
    /// Which event of a group, in the order in which they were given; 0 of a single one.
    pub event: u32,
}

#[repr(align(64))]
struct Slot {
    sequence: AtomicU64,
    words: [AtomicU64; 5],
}

/// Samples of a handle, for one reader at a time.
///
/// Made by [`PerfAttr::ring`](crate::PerfAttr::ring). As a descriptor ([`AsFd`]) it can be read from (polled)
/// when a watermark's worth of samples has come since it was last drained.
pub struct PerfRing {
    slots: Box<[Slot]>,
    head: AtomicU64,
    lost: AtomicU64,
    /// Where the reader stands.
    tail: Mutex<u64>,
    watermark: u64,
    #[cfg(gp_supported)]
    wakes: OwnedFd,
}

impl PerfRing {
    /// Room for `samples` of them, rounded up to a power of two; a wakeup for each `watermark`.
    pub(super) fn new(samples: usize, watermark: usize) -> std::io::Result<PerfRing> {
        let slots = samples.clamp(2, 1 << 24).next_power_of_two();
        let slot = |n| Slot { sequence: AtomicU64::new(n as u64), words: Default::default() };
        Ok(PerfRing {
            slots: (0..slots).map(slot).collect(),
            head: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            tail: Mutex::new(0),
            watermark: watermark.clamp(1, slots) as u64,
            #[cfg(gp_supported)]
            wakes: sys::event_fd()?,
        })
    }

    fn slot(&self, at: u64) -> &Slot {
        &self.slots[at as usize & (self.slots.len() - 1)]
    }

    /// Puts a sample in. Fit for signal handlers.
    pub(super) fn push(&self, sample: &PerfSample) {
        self.push_as::<true>(sample);
    }

    /// With `LAST` the slot's number is stored last, as it must be; the other way is the tests' twin.
    #[inline(always)]
    fn push_as<const LAST: bool>(&self, sample: &PerfSample) {
        let mut at = self.head.load(Relaxed);
        loop {
            let sequence = self.slot(at).sequence.load(Acquire); // pairs with the store in `pop`
            if sequence == at {
                // Relaxed: the position is only a number; the slot's sequence orders its content.
                match self.head.compare_exchange_weak(at, at + 1, Relaxed, Relaxed) {
                    Ok(_) => break,
                    Err(now) => at = now,
                }
            } else if sequence < at {
                return self.lose();
            } else {
                at = self.head.load(Relaxed);
            }
        }
        let slot = self.slot(at);
        let words = [
            sample.at.as_nanos() as u64,
            u64::from(sample.tid) | u64::from(sample.event) << 32,
            sample.hits,
            sample.count,
            sample.span.unwrap_or(0),
        ];
        if !LAST {
            slot.sequence.store(at + 1, Release);
            std::thread::yield_now();
        }
        for (to, word) in slot.words.iter().zip(words) {
            to.store(word, Relaxed);
        }
        if LAST {
            slot.sequence.store(at + 1, Release); // pairs with the load in `pop`
        }
        if (at + 1).is_multiple_of(self.watermark) {
            self.wake();
        }
    }

    #[cold]
    fn lose(&self) {
        if self.lost.fetch_add(1, Relaxed).is_multiple_of(self.watermark) {
            self.wake();
        }
    }

    fn wake(&self) {
        #[cfg(gp_supported)]
        sys::signal_event(self.wakes.as_fd());
    }

    fn pop(&self, tail: &mut u64) -> Option<PerfSample> {
        let slot = self.slot(*tail);
        // Pairs with the store in `push`.
        if slot.sequence.load(Acquire) != *tail + 1 {
            return None;
        }
        let [at, who, hits, count, span] = [0, 1, 2, 3, 4].map(|n| slot.words[n].load(Relaxed));
        // Pairs with the load in `push`: what is above is read before it is written over.
        slot.sequence.store(*tail + self.slots.len() as u64, Release);
        *tail += 1;
        Some(PerfSample {
            at: Duration::from_nanos(at),
            tid: who as u32,
            hits,
            count,
            span: (span != 0).then_some(span),
            event: (who >> 32) as u32,
        })
    }

    /// Takes out what has come, oldest first, and makes the descriptor unready.
    ///
    /// Threads that take out at the same time share the samples. Not for signal handlers.
    pub fn drain(&self, mut take: impl FnMut(PerfSample)) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the samples are looked at: what comes later wakes again.
        #[cfg(gp_supported)]
        sys::clear_event(self.wakes.as_fd());
        while let Some(sample) = self.pop(&mut tail) {
            take(sample);
        }
    }

    /// Samples that found the ring full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.slots)
    }
}

#[cfg(gp_supported)]
impl AsFd for PerfRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakes.as_fd()
    }
}

impl fmt::Debug for PerfRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerfRing")
            .field("samples", &self.slots.len())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, gp_supported))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const THREADS: u64 = 3;
    const EACH: u64 = 20_000;

    /// A sample whose words all tell the same number.
    fn sample(n: u64) -> PerfSample {
        let at = Duration::from_nanos(n);
        PerfSample { at, tid: n as u32, hits: n, count: n, span: Some(n), event: n as u32 }
    }

    fn is_whole(found: &PerfSample) -> bool {
        *found == sample(found.count)
    }

    static IN_HANDLER: std::sync::OnceLock<std::sync::Arc<PerfRing>> = std::sync::OnceLock::new();
    static HANDLED: AtomicU64 = AtomicU64::new(0);

    extern "C" fn handler(_: libc::c_int) {
        let n = (THREADS + 1) * EACH + HANDLED.fetch_add(1, Relaxed);
        if let Some(ring) = IN_HANDLER.get() {
            ring.push(&sample(n));
        }
    }

    /// Threads push; one takes out. How many samples came whole, and how many torn.
    fn race(ring: &PerfRing, push: impl Fn(&PerfSample) + Copy + Send) -> (Vec<u64>, u64) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut whole, mut torn) = (Vec::new(), 0);
                loop {
                    let last = over.load(Acquire); // pairs with the store below
                    ring.drain(|found| match is_whole(&found) {
                        true => whole.push(found.count),
                        false => torn += 1,
                    });
                    if last {
                        return (whole, torn);
                    }
                }
            });
            let pusher = |thread| move || (1..EACH).for_each(|n| push(&sample(thread * EACH + n)));
            let pushers: Vec<_> = (1..=THREADS).map(|thread| scope.spawn(pusher(thread))).collect();
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            over.store(true, Release); // pairs with the load above
            reader.join().unwrap()
        })
    }

    /// Every sample comes out once and whole, or is counted as lost; also those of signal handlers that
    /// interrupt a push.
    #[test]
    fn samples_of_threads_and_handlers_come_whole_or_are_counted() {
        let ring = std::sync::Arc::new(PerfRing::new(256, 16).unwrap());
        assert!(IN_HANDLER.set(std::sync::Arc::clone(&ring)).is_ok());
        // SAFETY: a handler for a signal that nothing else in this crate's tests uses.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut());
        }
        let (mut whole, torn) = race(&ring, |sample| {
            if sample.count % 16 == 0 {
                // SAFETY: a signal with a handler, to this thread.
                unsafe { libc::raise(libc::SIGURG) };
            }
            ring.push(sample);
        });
        let pushed = THREADS * (EACH - 1) + HANDLED.load(Relaxed);
        assert_eq!(torn, 0);
        assert_eq!(whole.len() as u64 + ring.lost(), pushed);
        whole.sort_unstable();
        let before = whole.len();
        whole.dedup();
        assert_eq!(whole.len(), before, "none comes twice");
        assert!(HANDLED.load(Relaxed) > 1000);
    }

    #[test]
    fn a_ring_that_numbers_a_slot_before_it_is_written_is_caught() {
        let caught = (0..100).any(|_| {
            let ring = PerfRing::new(256, 16).unwrap();
            race(&ring, |sample| ring.push_as::<false>(sample)).1 > 0
        });
        assert!(caught);
    }

    /// A writer that was interrupted for long, in a ring that others have filled meanwhile: what they lose
    /// wakes the reader.
    #[test]
    fn a_full_ring_wakes_by_what_it_loses() {
        let ring = PerfRing::new(4, 4).unwrap();
        (1..=4).for_each(|n| ring.push(&sample(n)));
        sys::clear_event(ring.as_fd()); // the wakeup was seen when nothing was to be had yet
        ring.push(&sample(5));
        let mut fds = [sys::Wait {
            fd: std::os::fd::AsRawFd::as_raw_fd(&ring.as_fd()),
            read: true,
            write: false,
            ready: false,
        }];
        sys::poll(&mut fds, 0);
        assert!(fds[0].ready);
    }
}
