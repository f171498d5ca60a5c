//! Odd places to hit a tracepoint in: before `main` and after it, destructors of thread-locals, signal
//! handlers, forked children, the program's own allocator.

use crate::memory::{Alloc, TRACED};
use crate::program::{Gate, command, run, says, until};
use gracepoint::{Probe, Tracer};
use libtest_mimic::Failed;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};

#[derive(gracepoint::Event)]
#[event(name = "places:hit")]
struct Hit {
    n: u32,
}

/// A bit for each place whose hit has reached the probe.
static SEEN: AtomicU32 = AtomicU32::new(0);

fn attach_seen(tracer: &Tracer) -> Probe {
    let probe = tracer.tracepoint::<Hit>().attach(|hit| {
        SEEN.fetch_or(1 << hit.n, Relaxed);
    });
    probe.unwrap()
}

fn saw(n: u32) -> bool {
    SEEN.load(Relaxed) >> n & 1 == 1
}

/// Runs in every process of this file before `main`, and hits a tracepoint that nobody watches.
#[unsafe(link_section = ".init_array")]
#[used]
static EARLY: extern "C" fn() = early;

extern "C" fn early() {
    gracepoint::trace!(Hit { n: 0 });
    if std::env::args().any(|arg| arg == "main") {
        attach_seen(Tracer::global()).keep();
        gracepoint::trace!(Hit { n: 1 });
    }
}

/// Runs before the constructor of the sites: they are not known yet.
#[unsafe(link_section = ".init_array.00101")]
#[used]
static EARLIEST: extern "C" fn() = earliest;

extern "C" fn earliest() {
    if std::env::args().any(|arg| arg == "earliest") {
        attach_seen(Tracer::global()).keep();
        gracepoint::trace!(Hit { n: 20 });
    }
}

pub(crate) fn program_earliest() {
    gracepoint::trace!(Hit { n: 21 });
    println!("sites were known: {}, are on: {}", saw(20), saw(21));
}

pub(crate) fn test_earliest() -> Result<(), Failed> {
    says("earliest", "sites were known: false, are on: true")
}

/// After the destructor of the sites, which takes all probes off.
#[unsafe(link_section = ".fini_array.00101")]
#[used]
static LATE: extern "C" fn() = late;

extern "C" fn late() {
    SEEN.store(0, Relaxed);
    gracepoint::trace!(Hit { n: 3 });
    if saw(3) {
        // SAFETY: ends the process, badly: the probe may be gone.
        unsafe { libc::_exit(3) };
    }
}

extern "C" fn at_exit() {
    gracepoint::trace!(Hit { n: 2 });
    println!("before main: {}, in an exit handler: {}", saw(1), saw(2));
}

pub(crate) fn program_main() {
    // SAFETY: a function of this program without preconditions.
    unsafe { libc::atexit(at_exit) };
    std::thread::spawn(|| {
        loop {
            gracepoint::trace!(Hit { n: 4 });
        }
    });
    until(|| saw(4));
}

pub(crate) fn test_main() -> Result<(), Failed> {
    says("main", "before main: true, in an exit handler: true")
}

/// A forked child of a program with an agent leaves as any program does: probes go before the objects do.
pub(crate) fn program_fork_exit() {
    let Ok(gracepoint::Status::Listening(_)) = gracepoint::init() else { panic!("no agent") };
    attach_seen(Tracer::global()).keep();
    in_child(|| {
        gracepoint::trace!(Hit { n: 9 });
        // SAFETY: the destructors are those of this file, the runtime and the C library.
        unsafe { libc::exit(if saw(9) { 0 } else { 4 }) };
    });
    println!("the child left");
}

pub(crate) fn test_fork_exit() -> Result<(), Failed> {
    let folder = std::env::temp_dir().join(format!("gp-fork-exit-{}", std::process::id()));
    let mut command = command("fork-exit");
    command.env("GRACEPOINT_DIR", &folder);
    let output = run(command);
    let _ = std::fs::remove_dir_all(&folder);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("the child left") { Ok(()) } else { Err(text.into()) }
}

/// Hits when it is dropped, and goes on to hit in the next round of destructors.
struct AtTheEnd(u32);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        gracepoint::trace!(Hit { n: self.0 });
    }
}

thread_local! {
    static FIRST: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
    static SECOND: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
    static ROUNDS: Cell<u32> = const { Cell::new(0) };
}

static KEY: AtomicU32 = AtomicU32::new(0);

/// A destructor of the C library's own thread-locals, which comes again in each of its rounds; in the last
/// ones the runtime has let go of the thread.
extern "C" fn round(value: *mut libc::c_void) {
    let n = ROUNDS.with(|rounds| rounds.replace(rounds.get() + 1));
    gracepoint::trace!(Hit { n: 10 + n });
    // SAFETY: a key of our own that is there for ever.
    unsafe { libc::pthread_setspecific(KEY.load(Relaxed), value) };
}

pub(crate) fn program_thread_locals() {
    let tracer = Tracer::new("thread-locals");
    // Deep inside itself, so that the depth of threads without an index is tried as well.
    let deep = tracer.tracepoint::<Hit>().attach(|hit| gracepoint::trace!(Hit { n: hit.n }));
    let (deep, probe) = (deep.unwrap(), attach_seen(&tracer));
    let mut key = 0;
    // SAFETY: makes a key with a destructor of ours.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(round)) }, 0);
    KEY.store(key, Relaxed);
    let thread = std::thread::spawn(move || {
        FIRST.set(Some(AtTheEnd(5)));
        gracepoint::trace!(Hit { n: 6 });
        SECOND.set(Some(AtTheEnd(7)));
        // SAFETY: the key is there; the value is not null, and nobody reads through it.
        unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) };
    });
    thread.join().unwrap();
    // Hits of a thread that joined have ended, whatever slot they used.
    assert!(deep.skipped() >= 7, "{}", deep.skipped());
    deep.detach_wait().unwrap();
    probe.detach_wait().unwrap();
    let all = [5, 6, 7, 10, 11, 12, 13];
    println!("seen: {}", all.into_iter().all(saw));
}

pub(crate) fn test_thread_locals() -> Result<(), Failed> {
    says("thread-locals", "seen: true")
}

static DEPTH: AtomicU32 = AtomicU32::new(0);
static DEEPEST: AtomicU32 = AtomicU32::new(0);

extern "C" fn handler(_signal: libc::c_int) {
    gracepoint::trace!(Hit { n: 8 });
}

pub(crate) fn program_signals() {
    // SAFETY: a handler for a signal of our own.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_NODEFER;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    let tracer = Tracer::new("signals");
    // Each call is interrupted by a handler whose hit calls it again.
    let probe = tracer.tracepoint::<Hit>().attach(|_| {
        DEEPEST.fetch_max(DEPTH.fetch_add(1, Relaxed) + 1, Relaxed);
        // SAFETY: raises a signal that has a handler.
        unsafe { libc::raise(libc::SIGUSR1) };
        DEPTH.fetch_sub(1, Relaxed);
    });
    let probe = probe.unwrap();
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGUSR1) };
    assert_eq!((DEEPEST.load(Relaxed), DEPTH.load(Relaxed), probe.skipped()), (4, 0, 1));
    println!("four deep");
}

pub(crate) fn test_signals() -> Result<(), Failed> {
    says("signals", "four deep")
}

/// Runs `body` in a forked child, which must end well.
fn in_child(body: impl FnOnce()) {
    // SAFETY: the child uses what a forked child of this runtime may use; that is what is tested.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child ends well");
}

/// Counts where it is dropped.
struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

pub(crate) fn program_fork() {
    static CLOSED: Gate = Gate::new();
    let tracer = Tracer::new("fork");
    let [before, after] = [const { AtomicU64::new(0) }; 2].map(Arc::new);
    let witness = Counted(Arc::clone(&before));
    let gone = tracer.tracepoint::<Hit>().attach(move |hit| {
        let _captured = &witness;
        if hit.n == 30 {
            CLOSED.pass();
        }
    });
    let reader = std::thread::spawn(|| gracepoint::trace!(Hit { n: 30 }));
    until(|| CLOSED.standing() == 1);
    gone.unwrap().detach(); // waits for the reader, in the parent
    let witness = Counted(Arc::clone(&after));
    let kept = tracer.tracepoint::<Hit>().attach(move |hit| {
        let _captured = &witness;
        SEEN.fetch_or(1 << hit.n, Relaxed);
    });
    let mut kept = Some(kept.unwrap());
    in_child(|| {
        gracepoint::trace!(Hit { n: 9 });
        assert!(saw(9), "a child's hits call the probes that it was born with");
        assert_eq!(tracer.statistics().waiting_callbacks, 0, "what waited is the parent's");
        assert!(tracer.stalls().is_empty(), "the sleeping reader is the parent's");
        kept.take().unwrap().detach_wait().unwrap();
        gracepoint::trace!(Hit { n: 10 });
        assert!(!saw(10));
        let again = attach_seen(&tracer);
        gracepoint::trace!(Hit { n: 11 });
        assert!(saw(11));
        drop(again);
        until(|| tracer.statistics().waiting_callbacks == 0);
        assert_eq!(after.load(Relaxed), 1, "what the child detached is dropped in the child");
        assert_eq!(before.load(Relaxed), 0, "what the parent detached is not");
    });
    gracepoint::trace!(Hit { n: 12 });
    assert!(saw(12) && !saw(9), "the parent's probe is where it was");
    CLOSED.open();
    reader.join().unwrap();
    until(|| before.load(Relaxed) == 1);
    kept.take().unwrap().detach_wait().unwrap();
    println!("each has its own");
}

pub(crate) fn test_fork() -> Result<(), Failed> {
    says("fork", "each has its own")
}

/// A probe that knows whether it has been detached.
fn attach_watched(tracer: &Tracer) -> Result<(Probe, Arc<AtomicBool>), gracepoint::Error> {
    let gone = Arc::new(AtomicBool::new(false));
    let known = Arc::clone(&gone);
    let probe = tracer.tracepoint::<Hit>().attach(move |_| {
        let counter = if known.load(Relaxed) { &CALLS_TOO_LATE } else { &CALLS };
        counter.fetch_add(1, Relaxed);
    });
    probe.map(|probe| (probe, gone))
}

static CALLS: AtomicU32 = AtomicU32::new(0);
static CALLS_TOO_LATE: AtomicU32 = AtomicU32::new(0);

/// A probe of the allocator that attaches and detaches others, under whatever lock the allocation is.
pub(crate) fn program_allocator() {
    static REFUSED: AtomicU32 = AtomicU32::new(0);
    let tracer = Arc::new(Tracer::new("allocator"));
    let ready: Vec<_> = (0..100).map(|_| attach_watched(&tracer).unwrap()).collect();
    let ready = Arc::new(Mutex::new(ready));
    let (inner, pool) = (Arc::clone(&tracer), Arc::clone(&ready));
    let root = tracer.tracepoint::<Alloc>().attach(move |alloc| {
        assert!(alloc.size > 0);
        TRACED.set(false);
        // Attached before the other goes, to leave the site on.
        let attached = attach_watched(&inner);
        if attached.is_err() {
            REFUSED.fetch_add(1, Relaxed);
        }
        let old = pool.lock().unwrap().pop();
        if let Some((old, gone)) = old {
            old.detach();
            gone.store(true, Relaxed);
            gracepoint::trace!(Hit { n: 0 });
        }
        drop(attached);
        TRACED.set(true);
    });
    TRACED.set(true);
    for _ in 0..20 {
        drop(attach_watched(&tracer).unwrap());
    }
    TRACED.set(false);
    drop(root);
    assert!(REFUSED.load(Relaxed) > 0, "no allocation came in the middle of a change");
    until(|| tracer.statistics().leaving == 0 && tracer.statistics().waiting_callbacks == 0);
    let left = ready.lock().unwrap().len() as u32;
    assert!(left < 100);
    CALLS.store(0, Relaxed);
    gracepoint::trace!(Hit { n: 0 });
    assert_eq!((CALLS.load(Relaxed), CALLS_TOO_LATE.load(Relaxed)), (left, 0));
    assert_eq!((tracer.statistics().attached, tracer.failures().len()), (left.into(), 0));
    println!("no deadlock");
}

pub(crate) fn test_allocator() -> Result<(), Failed> {
    says("allocator", "no deadlock")
}

/// A program without an agent forks while another thread holds the tracer's lock most of the time.
pub(crate) fn program_fork_while_attaching() {
    let tracer = Tracer::new("attaching");
    let over = AtomicBool::new(false);
    drop(attach_seen(&tracer));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                drop(attach_seen(&tracer));
            }
        });
        for _ in 0..100 {
            in_child(|| {
                let probe = attach_seen(&tracer);
                gracepoint::trace!(Hit { n: 13 });
                assert!(saw(13));
                probe.detach_wait().unwrap();
            });
        }
        over.store(true, Relaxed);
    });
    println!("100 children ended");
}

pub(crate) fn test_fork_while_attaching() -> Result<(), Failed> {
    says("fork-while-attaching", "100 children ended")
}

/// Ends the program when it is dropped.
struct Exits;

impl Drop for Exits {
    fn drop(&mut self) {
        println!("from the callback thread");
        std::process::exit(0);
    }
}

/// Keeps a thread at hits, and another in the middle of one for ever.
fn others(tracer: &Tracer) -> Probe {
    static NEVER: Gate = Gate::new();
    let sleeper = tracer.tracepoint::<Hit>().priority(1).attach(|hit| {
        if hit.n == 15 {
            NEVER.pass();
        }
    });
    std::thread::spawn(|| gracepoint::trace!(Hit { n: 15 }));
    until(|| NEVER.standing() == 1);
    std::thread::spawn(|| {
        loop {
            gracepoint::trace!(Hit { n: 16 });
        }
    });
    sleeper.unwrap()
}

/// The program ends in the middle of a hit, by its exit handlers, while others are in the middle of theirs.
pub(crate) fn program_exit_in_probe() {
    let tracer = Tracer::new("exit");
    let _sleeper = others(&tracer);
    let _exits = tracer.tracepoint::<Hit>().attach(|hit| {
        if hit.n == 17 {
            println!("from a probe");
            std::process::exit(0);
        }
    });
    gracepoint::trace!(Hit { n: 17 });
}

/// The same where a probe's captures are dropped.
pub(crate) fn program_exit_in_callback() {
    let tracer = Tracer::new("exit");
    let exits = Exits;
    let probe = tracer.tracepoint::<Hit>().attach(move |_| _ = &exits);
    probe.unwrap().detach();
    until(|| false);
}

pub(crate) fn test_exit_inside() -> Result<(), Failed> {
    says("exit-in-probe", "from a probe")?;
    says("exit-in-callback", "from the callback thread")
}
