//! The registry: indices, names, thread exit, signal handlers.
//!
//! These tests share one process-wide registry and look at high and low indices, so they
//! take turns.
#![cfg(target_os = "linux")]

use gracepoint_rcu::{Domain, live_threads, refresh_names, thread_index, thread_info};
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc};
use std::thread;

static TURN: Mutex<()> = Mutex::new(());

/// Runs a test while no other does, on a thread of its own that has the lowest index: the
/// harness's threads must not come and go meanwhile with indices of theirs. Nor must the last
/// test's: a scope's end waits for its threads' closures, not for their destructors.
fn alone(test: impl FnOnce() + Send) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    named("test", || {
        assert_eq!(thread_index(), Some(0));
        while live_threads().any(|(index, info)| index != 0 && !info.ended) {
            thread::yield_now();
        }
        test();
    });
}

fn named<R: Send>(name: &str, f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(name.to_owned());
        builder.spawn_scoped(scope, f).expect("spawned").join().expect("joined")
    })
}

#[test]
fn an_index_is_used_again_lowest_first() {
    alone(|| {
        let mine = thread_index().expect("an index");
        let first = named("one", thread_index).expect("an index");
        // `join` returns when the kernel has cleared the thread's tid, after its destructors.
        for _ in 0..if cfg!(miri) { 5 } else { 300 } {
            let again = named("again", thread_index).expect("an index");
            assert_eq!(again, first, "the lowest free one");
        }
        assert_ne!(mine, first);
        assert!(gracepoint_rcu::high_water() > first.max(mine));
    });
}

#[test]
fn records_have_number_and_name() {
    alone(|| {
        let (index, tid) = named("worker-3", || {
            let index = thread_index().expect("an index");
            let info = thread_info(index).expect("alive");
            assert_eq!(info.name.to_string(), "worker-3");
            assert_eq!(info.name.as_bytes(), b"worker-3");
            assert_eq!(info.tid, tid());
            // SAFETY: PR_SET_NAME reads a C string.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"renamed".as_ptr()) };
            assert_eq!(
                thread_info(index).expect("alive").name.to_string(),
                "worker-3",
                "as it was"
            );
            refresh_names();
            assert_eq!(thread_info(index).expect("alive").name.to_string(), "renamed");
            assert!(live_threads().any(|(other, _)| other == index));
            (index, info.tid)
        });
        assert!(thread_info(index).is_none_or(|info| info.tid != tid), "it ended");
        assert!(thread_info(gracepoint_rcu::MAX_THREADS as u32).is_none());
    });
}

#[test]
fn a_first_section_may_be_in_a_signal_handler() {
    alone(|| {
        static DOMAIN: Domain = Domain::new("handler");
        static SEEN: AtomicU32 = AtomicU32::new(u32::MAX);
        extern "C" fn handler(_: libc::c_int) {
            let _outer = DOMAIN.read();
            let _inner = DOMAIN.read();
            SEEN.store(thread_index().unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        // SAFETY: the handler does what is being tested; the structure is fully initialised.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
        }
        named("in a handler", || {
            // SAFETY: errno's location is always valid; raise sends a signal with a handler.
            unsafe {
                *libc::__errno_location() = 77;
                libc::raise(libc::SIGUSR2);
                assert_eq!(*libc::__errno_location(), 77, "errno is the interrupted code's");
            }
            assert_eq!(Some(SEEN.load(Ordering::Relaxed)), thread_index());
        });
        DOMAIN.synchronize().expect("outside");
    });
}

#[test]
fn sections_in_destructors_of_thread_locals() {
    alone(|| {
        static DOMAIN: Domain = Domain::new("destructor");
        static READ: AtomicUsize = AtomicUsize::new(0);
        struct Reads;
        impl Drop for Reads {
            fn drop(&mut self) {
                let _guard = DOMAIN.read();
                READ.fetch_add(1, Ordering::Relaxed);
            }
        }
        thread_local! {
            static EARLY: Cell<Option<Reads>> = const { Cell::new(None) };
        }
        let before = named("probe", thread_index);
        // With a section before, and with the first one in the destructor.
        for first in [true, false] {
            named("destructor", move || {
                EARLY.set(Some(Reads));
                if first {
                    drop(DOMAIN.read());
                }
            });
        }
        assert_eq!(READ.load(Ordering::Relaxed), 2);
        DOMAIN.synchronize().expect("outside");
        assert_eq!(named("probe", thread_index), before, "no index was lost");
    });
}

#[test]
fn after_its_index_is_gone_a_thread_still_reads() {
    alone(|| {
        static DOMAIN: Domain = Domain::new("after the end");
        static LATE: AtomicUsize = AtomicUsize::new(0);
        static KEY: AtomicU32 = AtomicU32::new(0);
        /// Keeps going until it comes after the registry's own destructor. (In Miri there is no last round.)
        extern "C" fn late(round: *mut c_void) {
            let round = round.addr();
            let key = KEY.load(Ordering::Relaxed);
            if thread_index().is_some() {
                // SAFETY: the key exists; the value is a number.
                unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(round + 1)) };
            } else {
                let guard = DOMAIN.read();
                let cookie = DOMAIN.start_poll();
                for _ in 0..10 {
                    DOMAIN.poll();
                }
                assert!(!DOMAIN.poll_state(cookie), "the shared slot protects");
                assert!(DOMAIN.synchronize().is_err(), "and knows its thread");
                let holdouts = DOMAIN.holdouts();
                assert!(holdouts.iter().any(|holdout| holdout.index.is_none()), "{holdouts:?}");
                let stalls = DOMAIN.stalls();
                let text = stalls[0].to_string();
                assert!(text.contains("an unregistered thread is inside 1 read section"), "{text}");
                drop(guard);
                DOMAIN.synchronize().expect("outside");
                LATE.fetch_add(1, Ordering::Relaxed);
            }
        }
        let before = named("probe", thread_index);
        let mut key = 0;
        // SAFETY: the key goes to a variable of ours; the destructor has the right type.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(late)) }, 0);
        KEY.store(key, Ordering::Relaxed);
        named("late", || {
            thread_index().expect("an index");
            // SAFETY: the key exists; the value is a number.
            unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(1)) };
        });
        assert_eq!(LATE.load(Ordering::Relaxed), 1, "the last round was seen");
        assert_eq!(named("probe", thread_index), before, "and the index came back");
    });
}

#[test]
fn a_thread_that_ends_inside_is_named_and_its_index_kept() {
    alone(|| {
        let domain = Domain::new("leaky");
        let index = named("leaker", || {
            #[expect(clippy::mem_forget, reason = "leaking a guard is what is tested")]
            std::mem::forget(domain.read());
            thread_index().expect("an index")
        });
        let cookie = domain.start_poll();
        for _ in 0..20 {
            domain.poll();
        }
        assert!(!domain.poll_state(cookie), "a leaked section never ends");
        let holdouts = domain.holdouts();
        assert_eq!(holdouts.len(), 1);
        let text = holdouts[0].to_string();
        // Threads have no names in Miri.
        let name = if cfg!(miri) { "" } else { "leaker" };
        let expected = format!("({name}) ended inside 1 read section of domain \"leaky\"");
        assert!(text.contains(&expected), "{text}");
        assert_ne!(named("next", thread_index), Some(index), "not used again");
        refresh_names();
        assert!(thread_info(index).expect("kept").ended);
        // The section's lifetime ends with its domain, and then the index can go too.
        drop(domain);
        refresh_names();
        assert!(thread_info(index).is_none());
        assert_eq!(named("next", thread_index), Some(index));
    });
}

#[test]
fn many_threads_at_once() {
    const MANY: usize = if cfg!(miri) { 5 } else { 200 };
    alone(|| {
        let all = Barrier::new(MANY);
        let mut indices: Vec<u32> = thread::scope(|scope| {
            let take = || {
                let index = thread_index().expect("an index");
                all.wait();
                index
            };
            let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("joined")).collect()
        });
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), MANY, "each its own");
    });
}

/// What the process has in memory, in bytes. Miri refuses to tell.
fn resident() -> usize {
    if cfg!(miri) {
        return 0;
    }
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    // SAFETY: asks for a number.
    pages.expect("the second number") * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

#[test]
fn ten_thousand_threads_come_and_go_and_memory_stays() {
    static DOMAIN: Domain = Domain::new("churn");
    const MANY: usize = if cfg!(miri) { 30 } else { 10_000 };
    const AT_ONCE: usize = if cfg!(miri) { 6 } else { 100 };
    /// Threads that are all there at the same time, and all read.
    fn generation() {
        let all = Barrier::new(AT_ONCE);
        thread::scope(|scope| {
            let spawn = |_| {
                // A small stack, so that a hundred are quickly made.
                let builder = thread::Builder::new().stack_size(64 << 10);
                let reader = || {
                    let guard = DOMAIN.read();
                    DOMAIN.retire([0_u8; 64]);
                    all.wait();
                    drop(guard);
                };
                builder.spawn_scoped(scope, reader).expect("spawned")
            };
            let threads: Vec<_> = (0..AT_ONCE).map(spawn).collect();
            // With their destructors, so that no generation's stacks are there beside the next one's.
            threads.into_iter().for_each(|thread| thread.join().expect("joined"));
        });
        DOMAIN.barrier().expect("outside");
    }
    alone(|| {
        // So many, that the allocator has made all its arenas by then.
        (0..if cfg!(miri) { 1 } else { 50 }).for_each(|_| generation());
        let mut sizes = vec![resident()];
        // 10,000 slots and as many records would be more than a megabyte, each time. What the allocator
        // and the C library keep grows, too, but comes to an end.
        let flat = (0..5).any(|_| {
            (0..MANY / AT_ONCE).for_each(|_| generation());
            sizes.push(resident());
            sizes[sizes.len() - 1] < sizes[sizes.len() - 2] + (1 << 20)
        });
        assert!(flat, "{sizes:?}");
        let high = gracepoint_rcu::high_water();
        // Another test of this process has 200 at once.
        assert!(high <= 2 * AT_ONCE as u32 + 10, "{high} indices for {AT_ONCE} threads at once");
        assert_eq!(DOMAIN.pending_callbacks(), 0);
        assert!(DOMAIN.holdouts().is_empty());
    });
}

/// A thread that has ended for this crate but not for the kernel: in a destructor that comes after ours.
static LINGERS: Mutex<Option<(mpsc::Sender<u32>, mpsc::Receiver<()>)>> = Mutex::new(None);
static LINGERS_KEY: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn linger(round: *mut c_void) {
    // In the last of four rounds, and of keys in their order.
    if round.addr() < 4 {
        let next = std::ptr::without_provenance(round.addr() + 1);
        // SAFETY: the test's own key.
        unsafe { libc::pthread_setspecific(LINGERS_KEY.load(Ordering::Relaxed), next) };
        return;
    }
    let ends = LINGERS.lock().expect("the ends").take();
    if let Some((here, leave)) = ends {
        here.send(0).expect("received");
        let _ = leave.recv();
    }
}

/// A thread that leaks a guard of `domain`, and then lingers; what is given to `then` is the thread's index.
fn with_one_that_lingers<R>(domain: Arc<Domain>, then: impl FnOnce(u32) -> R) -> R {
    let mut key = 0;
    // SAFETY: a key of the test's own, made after the crate's.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(linger)) }, 0);
    LINGERS_KEY.store(key, Ordering::Relaxed);
    let (here, lingers) = mpsc::channel();
    let (leave, left) = mpsc::channel();
    *LINGERS.lock().expect("the ends") = Some((here, left));
    let thread = thread::spawn(move || {
        #[expect(clippy::mem_forget, reason = "leaking a guard is what is tested")]
        std::mem::forget(domain.read());
        // SAFETY: the key is there.
        unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(1)) };
        thread_index().expect("an index")
    });
    lingers.recv().expect("it lingers");
    let ended = live_threads().find(|(_, info)| info.ended);
    let result = catch_unwind(AssertUnwindSafe(|| then(ended.expect("its end was noticed").0)));
    leave.send(()).expect("received");
    let index = thread.join().expect("joined");
    // SAFETY: nobody has a value for it any more.
    unsafe { libc::pthread_key_delete(key) };
    assert_eq!(ended.map(|(index, _)| index), Some(index));
    result.unwrap_or_else(|payload| resume_unwind(payload))
}

#[test]
fn a_thread_that_ended_inside_stays_known_as_ended() {
    alone(|| {
        let domain = Arc::new(Domain::new("ended inside"));
        let index = with_one_that_lingers(Arc::clone(&domain), |index| {
            refresh_names();
            assert!(thread_info(index).expect("kept").ended, "whatever the kernel knows");
            index
        });
        assert!(thread_info(index).expect("kept").ended);
        drop(domain);
        refresh_names();
        assert!(thread_info(index).is_none(), "its section is gone");
    });
}

/// The kernel need not have forgotten the thread for that, nor its number be nobody else's by then.
#[test]
fn the_index_of_a_thread_that_ended_inside_goes_with_the_domain() {
    /// Which index was told of, on which thread: threads of other tests may still be ending.
    static TOLD: Mutex<Vec<(u32, u32)>> = Mutex::new(Vec::new());
    alone(|| {
        gracepoint_rcu::on_thread_exit(|index| TOLD.lock().expect("a list").push((index, tid())));
        let domain = Arc::new(Domain::new("ended inside"));
        let (mut first, mut second) = (0, 0);
        let index = with_one_that_lingers(Arc::clone(&domain), |index| {
            first = thread_info(index).expect("kept").tid;
            drop(domain); // The thread's was dropped when it returned.
            refresh_names();
            assert!(thread_info(index).is_none(), "its section is gone");
            let next = named("next", || (thread_index(), tid()));
            assert_eq!(next.0, Some(index), "it is used again");
            second = next.1;
            index
        });
        gracepoint_rcu::on_thread_exit(|_| ());
        let told = TOLD.lock().expect("a list");
        for thread in [(index, first), (index, second)] {
            let count = told.iter().filter(|told| **told == thread).count();
            assert_eq!(count, 1, "{thread:?} once: {told:?}");
        }
    });
}

fn tid() -> u32 {
    // SAFETY: gettid takes nothing.
    unsafe { libc::syscall(libc::SYS_gettid) }.try_into().expect("a thread's number")
}
