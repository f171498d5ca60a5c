//! The scenario *teardown-stall*: a reader sleeps inside a probe, signals storm every thread, and still
//! nothing hangs: probes come and go, other domains' grace periods end, the program exits; and it is
//! known who is to blame and what is kept for him.

use crate::memory::LIVE;
use crate::program::{Gate, is_full, says, until};
use gracepoint::{Probe, Tracer};
use gracepoint_rcu::Domain;
use libtest_mimic::Failed;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

/// The tracepoint whose probe sleeps.
#[derive(gracepoint::Event)]
#[event(name = "stall:same")]
pub(crate) struct Same {
    pub(crate) sleeps: bool,
}

/// Another.
#[derive(gracepoint::Event)]
#[event(name = "stall:other")]
pub(crate) struct Other {
    pub(crate) n: u64,
}

/// Hit by the handler of the storming signal.
#[derive(gracepoint::Event)]
#[event(name = "stall:storm")]
struct Storm;

pub(crate) static GATE: Gate = Gate::new();
static STORMS: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);
static OTHER_DOMAIN: Domain = Domain::new("other");

/// Most bytes that may be kept for each detached probe, beside what it captured.
const MOST_KEPT: usize = 512;

/// How long the reader sleeps at least in the long form.
const ASLEEP: Duration = Duration::from_secs(10);

/// A reader inside a probe, where it stays until the gate is opened.
pub(crate) fn sleeper(tracer: &Tracer) -> (Probe, std::thread::JoinHandle<()>) {
    let probe = tracer.tracepoint::<Same>().name("sleeper").attach(|same| {
        if same.sleeps {
            GATE.pass();
        }
    });
    let thread = std::thread::Builder::new().name("the-reader".into());
    let reader = thread.spawn(|| gracepoint::trace!(Same { sleeps: true })).unwrap();
    until(|| GATE.standing() == 1);
    (probe.unwrap(), reader)
}

/// What each probe of a cycle captures.
struct Captured(Arc<AtomicU64>);

impl Drop for Captured {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn cycle(tracer: &Tracer, n: u64, dropped: &Arc<AtomicU64>) {
    let captured = Captured(Arc::clone(dropped));
    let probe = if n.is_multiple_of(2) {
        tracer.tracepoint::<Same>().attach(move |_| _ = &captured.0)
    } else {
        tracer.tracepoint::<Other>().attach(move |_| _ = &captured.0)
    };
    probe.unwrap().detach();
}

extern "C" fn storm(_signal: libc::c_int) {
    gracepoint::trace!(Storm);
}

/// SIGPROF on every thread: by a timer, and by a thread that sends it to all in turn.
fn begin_storm() -> std::thread::JoinHandle<()> {
    // SAFETY: a handler for a signal of our own, and a timer of this process that raises it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = storm as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut());
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut());
    }
    std::thread::spawn(|| {
        let process = std::process::id().cast_signed();
        while !OVER.load(Relaxed) {
            for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
                let thread: i32 = task.file_name().to_str().unwrap().parse().unwrap();
                // SAFETY: a signal with a handler, to a thread of this process.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGPROF) };
            }
            std::thread::yield_now();
        }
    })
}

fn begin_hits() -> Vec<std::thread::JoinHandle<()>> {
    let hits = || {
        let mut n = 0;
        while !OVER.load(Relaxed) {
            gracepoint::trace!(Same { sleeps: false });
            gracepoint::trace!(Other { n });
            n += 1;
        }
    };
    (0..4).map(|_| std::thread::spawn(hits)).collect()
}

pub(crate) fn program() {
    let cycles: u64 = if is_full() { 100_000 } else { 10_000 };
    let tracer = Tracer::new("stall");
    let storms = tracer.tracepoint::<Storm>().attach(|_| {
        STORMS.fetch_add(1, Relaxed);
    });
    let (probe, reader) = sleeper(&tracer);
    let begun = Instant::now();
    let mut threads = begin_hits();
    threads.push(begin_storm());
    until(|| STORMS.load(Relaxed) > 100);

    let dropped = Arc::new(AtomicU64::new(0));
    cycle(&tracer, 0, &dropped); // whoever drives is there from now on
    let before = (LIVE.load(Relaxed), tracer.statistics().waiting_bytes);
    for n in 0..cycles {
        cycle(&tracer, n, &dropped);
    }
    let (live, waiting) = (LIVE.load(Relaxed), tracer.statistics().waiting_bytes);
    assert_eq!(GATE.standing(), 1, "the reader sleeps all the time");
    assert_eq!(dropped.load(Relaxed), 0, "nothing goes while he is inside");

    // What is kept for him: as it is counted for all to see, and as the allocator has it.
    let each = |now: usize, before: usize| (now - before) / cycles as usize;
    let counted = each(waiting, before.1);
    let allocated = each(live.cast_unsigned(), before.0.cast_unsigned());
    println!("kept for each cycle: {counted} bytes counted, {allocated} allocated");
    assert!(allocated <= MOST_KEPT + size_of::<Captured>(), "{allocated} bytes");
    assert!(counted >= allocated * 3 / 4, "{counted} bytes of {allocated} are visible");
    assert_eq!(tracer.statistics().leaving, cycles + 1);

    // He sleeps for ten seconds, in the long form.
    until(|| !is_full() || begun.elapsed() >= ASLEEP);

    // Who is to blame.
    let named = |stall: &gracepoint::Stall| {
        stall.holdout.contains("(the-reader)")
            && stall.probes == [("sleeper".to_owned(), "stall:same".to_owned())]
    };
    until(|| tracer.stalls().iter().any(|stall| named(stall) && stall.seen.is_some()));

    // Grace periods of others go on, and so does detaching the very probe that sleeps.
    OTHER_DOMAIN.synchronize().unwrap();
    probe.detach();
    let storms_so_far = STORMS.load(Relaxed);
    until(|| STORMS.load(Relaxed) > storms_so_far);

    GATE.open();
    reader.join().unwrap();
    until(|| dropped.load(Relaxed) == cycles + 1);
    until(|| tracer.statistics().leaving == 0);
    OVER.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(storms);
    until(|| tracer.statistics().waiting_callbacks == 0);
    assert_eq!(tracer.statistics().waiting_bytes, 0);
    let left = LIVE.load(Relaxed) - before.0;
    assert!(left < 64 << 10, "{left} bytes are not freed");
    println!("all is freed");
}

pub(crate) fn test() -> Result<(), Failed> {
    says("teardown-stall", "all is freed")
}

/// Leaves `main` while the reader sleeps in a probe and others run.
pub(crate) fn program_exit() {
    let tracer = Tracer::new("exit");
    let (probe, _reader) = sleeper(&tracer);
    begin_hits();
    begin_storm();
    let dropped = Arc::default();
    for n in 0..20 {
        cycle(&tracer, n, &dropped);
    }
    probe.detach();
    println!("leaving");
}

pub(crate) fn test_exit() -> Result<(), Failed> {
    says("exit", "leaving")
}
