//! What makes rare interleavings likely: choices from a seed, delays at points where one might matter, and
//! signals, whose handler reads and sometimes sleeps. A handler may come at any instruction of the engine, so
//! each of them is a point at which a thread is held up now and then: between a rank and its increment, between
//! the halves of a scan, inside the lock of the driver.

use crate::world::{PLACES, World};
use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// xorshift64*: small, and repeatable from its seed.
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    /// Often nothing, sometimes some spins, rarely a turn for another thread, very rarely a sleep.
    pub(crate) fn delay(&self) {
        match self.below(1 << 14) {
            0 => thread::sleep(Duration::from_micros(self.below(500))),
            1..32 => thread::yield_now(),
            32..2048 => self.spin(400),
            _ => {}
        }
    }

    pub(crate) fn spin(&self, most: u64) {
        for _ in 0..self.below(most) {
            std::hint::spin_loop();
        }
    }
}

pub(crate) fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

pub(crate) fn seed() -> u64 {
    number_from("GRACEPOINT_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64) | 1
    })
}

/// Which world signal handlers read.
static SIGNALLED: AtomicPtr<World> = AtomicPtr::new(std::ptr::null_mut());
pub(crate) static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_signal: libc::c_int) {
    // SAFETY: the location of errno is always valid; what is interrupted must not see it change.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: null or a static world.
    if let Some(world) = unsafe { SIGNALLED.load(Ordering::Acquire).as_ref() } {
        let turn = SIGNALS.fetch_add(1, Ordering::Relaxed);
        // nanosleep and sched_yield are allowed in handlers.
        world.read(turn % PLACES, || match turn % 16 {
            3 => thread::sleep(Duration::from_micros(turn as u64 * 7 % 300)),
            5 | 11 => thread::yield_now(),
            _ => {}
        });
        if turn % 32 == 17 {
            thread::sleep(Duration::from_micros(turn as u64 * 13 % 1000));
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// A signal every few hundred microseconds, to whichever thread runs, until dropped.
pub(crate) struct Signals(());

impl Signals {
    pub(crate) fn read(world: &'static World) -> Self {
        SIGNALLED.store(std::ptr::from_ref(world).cast_mut(), Ordering::Release);
        set_timer(300);
        Self(())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        set_timer(0);
        SIGNALLED.store(std::ptr::null_mut(), Ordering::Release);
    }
}

fn set_timer(micros: libc::suseconds_t) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the handler only does what a handler may (it reads, which is being tested, and
    // sleeps); the structures are fully initialised and live during the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()), 0);
    }
}
