//! The programs: each gets stuck in its own way, prints `stuck` when that is complete, and then who is to blame.

use crate::elsewhere;
use gracepoint_rcu::{Domain, Executor, Job};
use std::future::Future;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

/// The domain that gets stuck.
pub(crate) static DOMAIN: Domain = Domain::new("routes");

/// A request came.
#[derive(gracepoint::Event)]
#[event(name = "stuck:hit")]
struct Hit {
    n: u64,
}

/// The number of the thread that was asked for by the test.
static CULPRIT: AtomicU32 = AtomicU32::new(0);
static ENTERED: AtomicBool = AtomicBool::new(false);

pub(crate) fn main(kind: &str) -> ! {
    // The directory of the socket is the test's, and gone with it.
    let builder = gracepoint::Builder::new().name("stuck-program");
    let builder = if kind == "agent" { builder.log(never_returns) } else { builder };
    let builder =
        if kind == "watch" { builder.log(print).watch(Duration::from_millis(1)) } else { builder };
    builder.start().expect("an agent");
    match kind {
        "sleeping" | "watch" | "agent" => named("sleeper", sleeps_inside),
        "handler" => named("handled", || in_handler(libc::SIGUSR1, handler_that_waits)),
        "nested" => named("nested", nested),
        "dumps-core" => {
            may_dump_core();
            named("nested", nested);
        }
        "ended" => drop(thread::Builder::new().name("gone".into()).spawn(ends_inside)),
        "forgotten" => named("forgetful", forgets),
        "owned" => owned(),
        "callback-itself" => callback_that_waits_for_itself(),
        "callback-blocks" => callback_that_blocks(),
        "executor" => executor_that_stops(),
        "driver" => DOMAIN.call(|| {}),
        "busy" => named("busy", || {
            for n in 0.. {
                gracepoint::trace!(Hit { n });
            }
        }),
        "spinning" => named("spinner", spins_inside),
        "probe" => probe_that_blocks(),
        "storm" => named("stormy", || in_handler(libc::SIGUSR2, handler_that_raises)),
        "mutex" => mutex_of_pthread(libc::PTHREAD_PRIO_NONE),
        "pi-mutex" => mutex_of_pthread(libc::PTHREAD_PRIO_INHERIT),
        "deadlock-pi" => deadlock_of_pthread([libc::PTHREAD_PRIO_INHERIT; 2]),
        "deadlock-pthread" => deadlock_of_pthread([libc::PTHREAD_PRIO_NONE; 2]),
        "deadlock-mixed" => {
            deadlock_of_pthread([libc::PTHREAD_PRIO_INHERIT, libc::PTHREAD_PRIO_NONE]);
        }
        "deadlock-std" => {
            static LOCKS: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];
            deadlock(|which| drop_never(LOCKS[which].lock()));
        }
        "deadlock-lot" => {
            static LOCKS: [parking_lot::Mutex<()>; 2] = [const { parking_lot::Mutex::new(()) }; 2];
            deadlock(|which| drop_never(LOCKS[which].lock()));
        }
        "fork" => return_from_fork(),
        other => panic!("no program {other}"),
    }
    let reader = !["callback-itself", "callback-blocks", "executor", "driver", "probe", "busy"]
        .contains(&kind)
        && !kind.starts_with("deadlock");
    if reader {
        until(|| ENTERED.load(Ordering::SeqCst));
        named("updater", || DOMAIN.synchronize().expect("not inside a section"));
        // Somebody has left a grace period unfinished, and the updater is seen to wait.
        until(|| DOMAIN.stalls().iter().any(|stall| !stall.waiters.is_empty()));
    }
    println!("stuck");
    println!("culprit {}", CULPRIT.load(Ordering::SeqCst));
    loop {
        thread::park();
    }
}

/// Waits until something is so, which it will be for certain.
fn until(is: impl Fn() -> bool) {
    while !is() {
        thread::sleep(Duration::from_millis(1));
    }
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name.into()).spawn(run).expect("a thread");
}

/// The calling thread is to blame, and inside from here on.
fn mine() {
    CULPRIT.store(my_number(), Ordering::SeqCst);
    ENTERED.store(true, Ordering::SeqCst);
}

#[inline(never)]
fn sleeps_inside() {
    let _guard = DOMAIN.read();
    mine();
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn never_returns(_: &str) {
    // Whoever asks for a session makes the agent come here.
    println!("agent-stuck");
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn print(what: &str) {
    println!("log {what}");
}

/// Runs a handler on the calling thread.
fn in_handler(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: the handler does what handlers may do: system calls, atomics, a read section.
    unsafe {
        libc::signal(signal, handler as *const () as libc::sighandler_t);
        libc::raise(signal);
    }
}

extern "C" fn handler_that_waits(_: libc::c_int) {
    let _guard = DOMAIN.read();
    mine();
    loop {
        // SAFETY: waits for a signal that nobody sends.
        unsafe { libc::pause() };
    }
}

/// As a storm of interrupts: before one is over, the next is there.
extern "C" fn handler_that_raises(signal: libc::c_int) {
    if !ENTERED.load(Ordering::SeqCst) {
        elsewhere::forget(&DOMAIN);
        mine();
    }
    // SAFETY: tgkill takes three integers. The signal is blocked while its handler runs, so it comes when
    // this returns.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal) };
    for _ in 0..1_000_000 {
        std::hint::spin_loop();
    }
}

fn nested() {
    let _outer = DOMAIN.read();
    let middle = DOMAIN.read();
    let _inner = DOMAIN.read();
    drop(middle);
    mine();
    loop {
        thread::park();
    }
}

fn ends_inside() {
    mine();
    elsewhere::forget(&DOMAIN);
}

fn forgets() {
    DOMAIN.note_call_sites(true);
    elsewhere::forget(&DOMAIN);
    mine();
    loop {
        thread::park();
    }
}

async fn checkout() {
    let _guard = DOMAIN.read_owned("checkout");
    std::future::poll_fn(|_| Poll::<()>::Pending).await;
}

fn owned() {
    named("executor", || {
        let mut task = pin!(checkout());
        let mut context = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        ENTERED.store(true, Ordering::SeqCst);
        loop {
            thread::park();
        }
    });
}

fn spins_inside() {
    let _guard = DOMAIN.read();
    mine();
    loop {
        std::hint::spin_loop();
    }
}

/// The thread that runs the callback, waits for another, which waits for the callbacks.
fn callback_that_waits_for_itself() {
    DOMAIN.run_callbacks_on(Executor::Thread).expect("a thread");
    DOMAIN.call(|| {
        let waiter = thread::Builder::new().name("waiter".into());
        let waiter = waiter.spawn(|| DOMAIN.barrier().expect("not inside a section"));
        mine();
        waiter.expect("a thread").join().expect("it does not panic");
    });
    let waits = || DOMAIN.running_callback().is_some_and(|running| !running.waiters.is_empty());
    until(|| waits() && sleeps_in(CULPRIT.load(Ordering::SeqCst), libc::SYS_futex));
}

/// Whether a thread of this process sleeps in that system call.
fn sleeps_in(tid: u32, call: libc::c_long) -> bool {
    let line =
        std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).unwrap_or_default();
    line.split(' ').next() == Some(call.to_string().as_str())
}

/// A pipe that nobody writes to.
fn pipe() -> std::fs::File {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors, which are nobody else's.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        let _open = std::mem::ManuallyDrop::new(OwnedFd::from_raw_fd(ends[1]));
        OwnedFd::from_raw_fd(ends[0]).into()
    }
}

fn reads_for_ever() {
    mine();
    let _ = pipe().read(&mut [0]);
}

fn callback_that_blocks() {
    DOMAIN.run_callbacks_on(Executor::Thread).expect("a thread");
    DOMAIN.call(reads_for_ever);
    // Else the thread that waits would run it itself.
    until(|| ENTERED.load(Ordering::SeqCst));
    named("updater", || DOMAIN.barrier().expect("not inside a section"));
    let waits = || DOMAIN.running_callback().is_some_and(|running| !running.waiters.is_empty());
    until(|| waits() && sleeps_in(CULPRIT.load(Ordering::SeqCst), libc::SYS_read));
}

fn executor_that_stops() {
    static JOBS: Mutex<Vec<Job>> = Mutex::new(Vec::new());
    let executor = Executor::given(|job| JOBS.lock().expect("not poisoned").push(job));
    DOMAIN.run_callbacks_on(executor).expect("a thread");
    DOMAIN.call(|| {});
    until(|| !JOBS.lock().expect("not poisoned").is_empty());
}

fn probe_that_blocks() {
    let probe = gracepoint::Tracer::global().tracepoint::<Hit>().name("slow");
    let probe = probe.attach(|hit: &Hit| {
        assert_eq!(hit.n, 7);
        reads_for_ever();
    });
    let probe = probe.expect("sites can be switched here");
    named("worker", || gracepoint::trace!(Hit { n: 7 }));
    until(|| sleeps_in(CULPRIT.load(Ordering::SeqCst), libc::SYS_read));
    named("detacher", move || drop(probe.detach_wait()));
    until(|| {
        let all = gracepoint_rcu::survey().into_iter().filter_map(|survey| survey.stall);
        all.into_iter().any(|stall| !stall.waiters.is_empty())
    });
}

/// The kernel may write a core file into the directory of the socket.
fn may_dump_core() {
    let dir = std::env::var_os("GRACEPOINT_DIR").expect("the test's");
    std::env::set_current_dir(dir).expect("a directory");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the one struct.
    unsafe {
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
    }
}

/// A mutex of the C library.
struct Pthread(std::cell::UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is made to be shared.
unsafe impl Sync for Pthread {}

impl Pthread {
    const fn new() -> Pthread {
        Pthread(std::cell::UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))
    }

    /// Before anybody else has seen it.
    fn speaks(&self, protocol: libc::c_int) {
        // SAFETY: the attributes are made before they are used; nobody has seen the mutex yet.
        unsafe {
            let mut attributes = std::mem::MaybeUninit::uninit();
            libc::pthread_mutexattr_init(attributes.as_mut_ptr());
            let known = libc::pthread_mutexattr_setprotocol(attributes.as_mut_ptr(), protocol);
            assert_eq!(known, 0, "the C library has this protocol");
            libc::pthread_mutex_init(self.0.get(), attributes.as_ptr());
        }
    }

    fn lock(&self) {
        // SAFETY: an initialised mutex that is never moved: all are statics.
        unsafe { libc::pthread_mutex_lock(self.0.get()) };
    }
}

/// A lock is kept for ever.
fn drop_never<T>(guard: T) {
    let _kept = std::mem::ManuallyDrop::new(guard);
}

fn my_number() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    unsafe { libc::gettid() }.cast_unsigned()
}

fn deadlock_of_pthread(protocols: [libc::c_int; 2]) {
    static LOCKS: [Pthread; 2] = [const { Pthread::new() }; 2];
    LOCKS.iter().zip(protocols).for_each(|(lock, protocol)| lock.speaks(protocol));
    deadlock(|which| LOCKS[which].lock());
}

/// Two threads, each of which has the lock that the other waits for.
fn deadlock(lock: fn(usize)) {
    static ASKS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    static BOTH: std::sync::Barrier = std::sync::Barrier::new(2);
    for (own, name) in ["left", "right"].into_iter().enumerate() {
        named(name, move || {
            lock(own);
            BOTH.wait();
            ASKS[own].store(my_number(), Ordering::SeqCst);
            lock(1 - own);
        });
    }
    // From there on the only futex that either sleeps in is that of the lock.
    let sleeps = |tid: &AtomicU32| match tid.load(Ordering::SeqCst) {
        0 => false,
        tid => sleeps_in(tid, libc::SYS_futex),
    };
    until(|| ASKS.iter().all(sleeps));
}

/// A reader waits for a mutex of pthread, which another thread has.
fn mutex_of_pthread(protocol: libc::c_int) {
    static MUTEX: Pthread = Pthread::new();
    static READER: OnceLock<u32> = OnceLock::new();
    MUTEX.speaks(protocol);
    let (send, locked) = channel();
    named("owner", move || {
        MUTEX.lock();
        send.send(my_number()).expect("received");
        loop {
            thread::park();
        }
    });
    let owner = locked.recv().expect("sent");
    named("reader", || {
        let _guard = DOMAIN.read();
        READER.get_or_init(my_number);
        MUTEX.lock();
    });
    until(|| READER.get().is_some_and(|tid| sleeps_in(*tid, libc::SYS_futex)));
    CULPRIT.store(owner, Ordering::SeqCst);
    ENTERED.store(true, Ordering::SeqCst);
}

/// The page is not a child's that was made behind the library's back: that one has no threads.
fn return_from_fork() {
    named("sleeper", sleeps_inside);
    until(|| ENTERED.load(Ordering::SeqCst));
    // SAFETY: the child touches nothing of the library, and only sleeps.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        loop {
            // SAFETY: waits for a signal that nobody handles; dies with the parent.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        }
    }
    CULPRIT.store(u32::try_from(child).expect("it was made"), Ordering::SeqCst);
}
