//! The scenario `blind_spot`: functions are called from where a grace period might not look, while operations with
//! data of their own are registered and unregistered as fast as it goes. What they use must be there.

use crate::traced;
use gracepoint::{FunctionOps, FunctionSet, RegisteredOps};
use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const LIVE: u64 = 0x600d_da7a_600d_da7a;

pub(crate) static CALLS: AtomicU64 = AtomicU64::new(0);
static CONTROLLED: AtomicU64 = AtomicU64::new(0);
pub(crate) static BAD: AtomicU64 = AtomicU64::new(0);
static MADE: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);
/// Operations for some threads alone, for threads to switch on for themselves.
static CONTROL: Mutex<Option<Arc<RegisteredOps>>> = Mutex::new(None);
/// Threads by where they call from, as bits: a place that was never reached is no test.
static PLACES: AtomicU32 = AtomicU32::new(0);

const BEFORE_REGISTRATION: u32 = 1;
const IN_A_HANDLER: u32 = 2;
const IN_A_THREAD_LOCALS_DESTRUCTOR: u32 = 4;
const AT_THE_VERY_END: u32 = 8;
const EVERYWHERE: u32 = 15;

/// What operations captured.
struct Data([AtomicU64; 8]);

impl Data {
    fn new() -> Box<Data> {
        MADE.fetch_add(1, Relaxed);
        Box::new(Data([const { AtomicU64::new(LIVE) }; 8]))
    }

    fn check(&self) {
        for _ in 0..2 {
            let good = self.0.iter().all(|word| black_box(word).load(Relaxed) == LIVE);
            if !good {
                BAD.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.0.iter().for_each(|word| word.store(0xdead, Relaxed));
        FREED.fetch_add(1, Relaxed);
    }
}

/// A callback with data on the heap.
pub(crate) fn checked(
    calls: &'static AtomicU64,
) -> impl Fn(&gracepoint::FunctionCall) + Send + Sync {
    let data = Data::new();
    move |_| {
        data.check();
        calls.fetch_add(1, Relaxed);
    }
}

/// Registers and unregisters.
fn churn(set: &FunctionSet) {
    while !OVER.load(Relaxed) {
        let ops = FunctionOps::on(set).on_entry(checked(&CALLS)).on_exit(checked(&CALLS));
        let ops = ops.register().expect("registered");
        thread::yield_now();
        ops.unregister();
    }
}

/// The same with operations for some threads alone.
fn churn_control(set: &FunctionSet) {
    let replace = |new: Option<Arc<RegisteredOps>>| {
        let old =
            std::mem::replace(&mut *CONTROL.lock().unwrap_or_else(PoisonError::into_inner), new);
        drop(old);
    };
    while !OVER.load(Relaxed) {
        let ops = FunctionOps::on(set).per_thread().on_entry(checked(&CONTROLLED));
        replace(Some(Arc::new(ops.on_exit(checked(&CONTROLLED)).register().expect("registered"))));
        thread::yield_now();
    }
    replace(None);
}

fn enable_control() {
    if let Ok(control) = CONTROL.try_lock() {
        let ops = control.clone();
        drop(control);
        // Dropped here if it has been replaced meanwhile: unregistered on this thread.
        ops.iter().for_each(|ops| _ = ops.enable_here());
    }
}

fn hammer() {
    let mut x = 0;
    while !OVER.load(Relaxed) {
        enable_control();
        for _ in 0..256 {
            x = traced::outer(x & 0xffff);
        }
    }
    black_box(x);
}

extern "C" fn handler(_signal: libc::c_int) {
    traced::outer(1);
    PLACES.fetch_or(IN_A_HANDLER, Relaxed);
}

struct AtTheEnd;

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        traced::outer(2);
        PLACES.fetch_or(IN_A_THREAD_LOCALS_DESTRUCTOR, Relaxed);
    }
}

thread_local! {
    static GUARD: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
}

static KEY: AtomicU32 = AtomicU32::new(0);

/// Comes in each of the C library's rounds of destructors; in the last ones the thread has no index any more.
extern "C" fn round(value: *mut libc::c_void) {
    traced::outer(3);
    PLACES.fetch_or(AT_THE_VERY_END, Relaxed);
    let rounds = value as usize - 1;
    if rounds > 0 {
        // SAFETY: a key of our own; the value is a number that nobody reads through.
        unsafe { libc::pthread_setspecific(KEY.load(Relaxed), rounds as *const libc::c_void) };
    }
}

/// A thread whose first call is traced, and which goes on calling to its very end.
fn newborn() {
    traced::outer(4);
    PLACES.fetch_or(BEFORE_REGISTRATION, Relaxed);
    GUARD.set(Some(AtTheEnd));
    // SAFETY: as in `round`.
    unsafe { libc::pthread_setspecific(KEY.load(Relaxed), 4 as *const libc::c_void) };
    enable_control();
    traced::outer(5);
}

fn births() {
    while !OVER.load(Relaxed) {
        // A handle is there before the thread's first instruction has run, and so may be the signal.
        let threads = [(); 2].map(|()| thread::spawn(newborn));
        for thread in threads {
            use std::os::unix::thread::JoinHandleExt;
            // SAFETY: a thread that was not joined; the signal has a handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
            thread.join().expect("it ends well");
        }
    }
}

pub(crate) fn run(calls: u64) {
    let mut key = 0;
    // SAFETY: a key with a destructor of ours, and a handler for a signal that nobody else has.
    unsafe {
        assert_eq!(libc::pthread_key_create(&raw mut key, Some(round)), 0);
        KEY.store(key, Relaxed);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    let set = traced::all().find().expect("found before");
    let hammered = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: asks for a number.
            hammered.store(unsafe { libc::pthread_self() } as usize, Relaxed);
            hammer();
        });
        scope.spawn(births);
        scope.spawn(|| churn(&set));
        scope.spawn(|| churn_control(&set));
        let done = || {
            let reached = PLACES.load(Relaxed) == EVERYWHERE && CONTROLLED.load(Relaxed) > 0;
            CALLS.load(Relaxed) + CONTROLLED.load(Relaxed) >= calls && reached
        };
        while !done() && BAD.load(Relaxed) == 0 {
            let thread = hammered.load(Relaxed);
            if thread != 0 {
                // SAFETY: that thread ends after this loop.
                unsafe { libc::pthread_kill(thread as libc::pthread_t, libc::SIGUSR1) };
            }
            thread::sleep(Duration::from_micros(100));
        }
        OVER.store(true, Relaxed);
    });
    let begun = Instant::now();
    while FREED.load(Relaxed) < MADE.load(Relaxed) && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(1));
    }
    let [calls, controlled, made, freed, bad] =
        [&CALLS, &CONTROLLED, &MADE, &FREED, &BAD].map(|counter| counter.load(Relaxed));
    println!(
        "calls {calls}, for some threads {controlled}, data made {made}, freed {freed}, used after that {bad}"
    );
    println!("missed {}", gracepoint::missed_function_hits());
    assert!(bad == 0 && freed == made && controlled > 0);
    println!("blind_spot: none");
}
