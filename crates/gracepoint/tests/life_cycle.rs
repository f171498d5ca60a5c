//! Probes used in odd orders and places inside one process, as the documentation allows: nothing hangs,
//! nothing is called too late, everything captured is dropped once.
#![cfg(target_os = "linux")]

use gracepoint::{Detached, ErrorKind, Probe, Tracer, UseHook, trace};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Waits for what other threads are about to do.
#[track_caller]
fn until(mut what: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{} waits in vain", Location::caller());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `body` on a thread of its own, which must come to its end.
#[track_caller]
fn ends(body: impl FnOnce() + Send + 'static) {
    let (done, wait) = channel();
    let thread = thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    let result = wait.recv_timeout(Duration::from_secs(120));
    assert!(
        result != Err(std::sync::mpsc::RecvTimeoutError::Timeout),
        "{} hangs",
        Location::caller()
    );
    thread.join().unwrap();
}

/// Runs something when it is dropped.
struct AtDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[derive(gracepoint::Event)]
struct WaitedLater {
    n: u64,
}

/// What a probe captured goes on the callback thread, and may wait there for the last call of another: then
/// the thread drives the grace period itself.
#[test]
fn what_was_captured_may_wait_for_another_probe() {
    let tracer = Arc::new(Tracer::new("waits later"));
    let other = tracer.tracepoint::<WaitedLater>().attach(|_| {}).unwrap();
    let (told, results) = channel();
    let mut other = Some(other);
    let captured = AtDrop(move || {
        let result = other.take().unwrap().detach_wait().map_err(|error| error.kind());
        told.send((thread::current().name().map(str::to_owned), result)).unwrap();
    });
    let probe = tracer.tracepoint::<WaitedLater>().attach({
        let captured = Mutex::new(captured);
        move |_| drop(captured.lock())
    });
    trace!(WaitedLater { n: 1 });
    drop(probe.unwrap());
    let (name, result) = results.recv_timeout(Duration::from_secs(120)).expect("no deadlock");
    assert_eq!((name.as_deref(), result), (Some("gracepoint-rcu"), Ok(())));
    until(|| tracer.statistics().leaving == 0);
}

#[derive(gracepoint::Event)]
struct Owned;

/// A probe may own the tracer that it belongs to, and its own handle.
#[test]
fn a_probe_may_own_its_tracer_and_itself() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    static DROPS: AtomicU32 = AtomicU32::new(0);
    let tracer = Arc::new(Tracer::new("owned"));
    let own: Arc<Mutex<Option<Probe>>> = Arc::default();
    let witness = AtDrop(|| {
        DROPS.fetch_add(1, Relaxed);
    });
    let captured = Mutex::new((Arc::clone(&tracer), Arc::clone(&own), witness));
    let probe = tracer.tracepoint::<Owned>().attach(move |_| {
        CALLS.fetch_add(1, Relaxed);
        // Takes itself off: its handle goes inside its own call.
        let itself = captured.lock().unwrap().1.lock().unwrap().take();
        drop(itself);
    });
    *own.lock().unwrap() = Some(probe.unwrap());
    drop(tracer);
    for _ in 0..3 {
        trace!(Owned);
    }
    assert_eq!(CALLS.load(Relaxed), 1);
    until(|| DROPS.load(Relaxed) == 1);
    assert!(own.lock().unwrap().is_none());
}

#[derive(gracepoint::Event)]
struct Unwinding;

/// A hit in a destructor that runs because of a panic, with a probe that panics too.
#[test]
fn a_probe_may_panic_while_its_thread_unwinds() {
    let tracer = Tracer::new("unwinding");
    let probe = tracer.tracepoint::<Unwinding>().attach(|_| panic!("in the probe")).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _hit = AtDrop(|| trace!(Unwinding));
        panic!("in the program");
    }));
    let payload = outcome.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"in the program"));
    assert!(!probe.is_attached());
    assert_eq!(tracer.failures()[0].message, "in the probe");
    ends(move || probe.detach_wait().unwrap());
}

#[derive(gracepoint::Event)]
struct Bounded;

#[test]
fn any_bound_will_do() {
    for most in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let probe = Bounded::tracepoint().attach(|_| {}).unwrap();
        let ended = probe.detach_timeout(most).unwrap();
        // With no time at all it may or may not have been found out.
        assert!(ended || most < Duration::MAX, "{most:?}");
    }
}

#[derive(gracepoint::Event)]
struct Crowded {
    n: u64,
}

/// Ten thousand probes on one tracepoint, which go in an order of their own while it is hit.
#[test]
fn ten_thousand_probes_are_called_once_each_and_go_in_any_order() {
    const MANY: u64 = 10_000;
    let tracer = Tracer::new("crowded");
    let (calls, drops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut probes: Vec<Option<Probe>> = (0..MANY)
        .map(|n| {
            let (calls, drops) = (Arc::clone(&calls), Arc::clone(&drops));
            let captured = AtDrop(move || {
                drops.fetch_add(1, Relaxed);
            });
            let priority = (n % 7) as i32 * if n % 2 == 0 { i32::MAX / 7 } else { i32::MIN / 7 };
            let probe = tracer.tracepoint::<Crowded>().priority(priority).attach(move |hit| {
                let _captured = &captured;
                calls.fetch_add(hit.n, Relaxed);
            });
            Some(probe.unwrap())
        })
        .collect();
    trace!(Crowded { n: 1 });
    assert_eq!(calls.load(Relaxed), MANY);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                trace!(Crowded { n: 0 });
            }
        });
        // 7919 has no divisor in common with their number, so each has its turn.
        for n in 0..MANY - 1 {
            drop(probes[(n * 7919 % MANY) as usize].take());
        }
        over.store(true, Relaxed);
    });
    calls.store(0, Relaxed);
    trace!(Crowded { n: 1 });
    assert_eq!(calls.load(Relaxed), 1, "one is left");
    drop((probes, tracer));
    until(|| drops.load(Relaxed) == MANY);
    trace!(Crowded { n: 1 });
    assert_eq!(calls.load(Relaxed), 1);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicU32);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Panics when it is woken.
struct Rude;

impl Wake for Rude {
    fn wake(self: Arc<Self>) {
        panic!("rude");
    }
}

#[derive(gracepoint::Event)]
struct Async;

fn poll(detached: &mut Detached, waker: &Waker) -> Poll<()> {
    Future::poll(Pin::new(detached), &mut Context::from_waker(waker))
}

/// Futures that are dropped half-way, polled by another task than before, polled again when they are ready,
/// or whose waker panics.
#[test]
fn futures_may_be_dropped_handed_on_and_polled_again() {
    let tracer = Tracer::new("async");
    let (entered, inside) = channel();
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let slow = tracer.tracepoint::<Async>().attach(move |_| {
        entered.send(()).unwrap();
        let _ = gate.lock().unwrap().recv();
    });
    let slow = slow.unwrap();
    let drops = Arc::new(AtomicU32::new(0));
    let others: Vec<Probe> = (0..4)
        .map(|_| {
            let drops = Arc::clone(&drops);
            let captured = AtDrop(move || {
                drops.fetch_add(1, Relaxed);
            });
            tracer.tracepoint::<Async>().priority(-1).attach(move |_| _ = &captured).unwrap()
        })
        .collect();
    let hit = thread::spawn(|| trace!(Async));
    inside.recv().unwrap();
    let [a, b, c, d] = <[Probe; 4]>::try_from(others).unwrap();
    let counters: [Arc<Counter>; 2] = Default::default();
    let wakers = counters.clone().map(Waker::from);
    // Dropped without a look, and after one.
    drop(a.detach_async());
    let mut half_way = b.detach_async();
    assert!(poll(&mut half_way, &wakers[0]).is_pending());
    drop(half_way);
    // Handed on: the last to ask is woken.
    let mut handed_on = c.detach_async();
    assert!(poll(&mut handed_on, &wakers[0]).is_pending());
    assert!(poll(&mut handed_on, &wakers[1]).is_pending());
    let mut rude = d.detach_async();
    assert!(poll(&mut rude, &Waker::from(Arc::new(Rude))).is_pending());
    slow.detach();
    open.send(()).unwrap();
    hit.join().unwrap();
    until(|| counters[1].0.load(Relaxed) == 1);
    for _ in 0..2 {
        assert!(poll(&mut handed_on, &wakers[0]).is_ready());
    }
    until(|| poll_ready(&mut rude) && drops.load(Relaxed) == 4);
    until(|| tracer.statistics().waiting_callbacks == 0);
    assert_eq!(counters[1].0.load(Relaxed), 1);
}

fn poll_ready(detached: &mut Detached) -> bool {
    poll(detached, Waker::noop()).is_ready()
}

#[derive(gracepoint::Event)]
struct Hooked;

/// A hook that drops itself while it is called, and one that panics.
#[test]
fn a_hook_may_drop_itself_and_panic() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let tracer = Tracer::new("hooked");
    let own: Arc<Mutex<Option<UseHook>>> = Arc::default();
    let taken = Arc::clone(&own);
    let hook = tracer.tracepoint::<Hooked>().on_use(move |_| {
        TOLD.fetch_add(1, Relaxed);
        drop(taken.lock().unwrap().take());
    });
    *own.lock().unwrap() = Some(hook.unwrap());
    let bad = tracer.tracepoint::<Hooked>().on_use(|used| assert!(!used, "told of the first"));
    for _ in 0..3 {
        let probe = tracer.tracepoint::<Hooked>().attach(|_| {}).unwrap();
        trace!(Hooked);
        drop(probe);
    }
    assert_eq!(TOLD.load(Relaxed), 1);
    assert!(own.lock().unwrap().is_none());
    drop(bad);
}

#[derive(gracepoint::Event)]
struct Failing;

/// Who is told of a failure may attach, detach, and be the last to own the tracer.
#[test]
fn who_is_told_of_a_failure_may_do_anything() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let tracer = Arc::new(Tracer::new("failing"));
    let last = Mutex::new(Some(Arc::clone(&tracer)));
    tracer.on_failure(move |failure| {
        let tracer = last.lock().unwrap().take().expect("told once");
        assert_eq!(tracer.failures()[0], *failure);
        drop(tracer.tracepoint::<Failing>().attach(|_| {}).unwrap());
        drop(tracer);
        TOLD.fetch_add(1, Relaxed);
    });
    tracer.tracepoint::<Failing>().attach(|_| panic!("once")).unwrap().keep();
    drop(tracer);
    trace!(Failing);
    until(|| TOLD.load(Relaxed) == 1);
    trace!(Failing);
}

#[derive(gracepoint::Event)]
struct Forked {
    n: u32,
}

/// A child that is forked inside a probe: it may detach that probe, whose call it is in the middle of.
#[test]
fn a_probe_may_fork_and_the_child_may_detach_it() {
    static HELD: Mutex<Option<Probe>> = Mutex::new(None);
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let probe = Forked::tracepoint().attach(|hit| {
        CALLS.fetch_add(1, Relaxed);
        if hit.n == 0 {
            return;
        }
        // SAFETY: the child does what a forked child of this runtime may do, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let probe = HELD.lock().unwrap().take().unwrap();
            let refused = probe.detach_wait().map_err(|error| error.kind());
            CALLS.store(0, Relaxed);
            trace!(Forked { n: 0 });
            let good = refused == Err(ErrorKind::InsideProbe) && CALLS.load(Relaxed) == 0;
            let again = Forked::tracepoint().attach(|_| _ = CALLS.fetch_add(1, Relaxed));
            trace!(Forked { n: 0 });
            let good = good && again.is_ok() && CALLS.load(Relaxed) == 1;
            // SAFETY: ends the child.
            unsafe { libc::_exit(if good { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child ends well");
    });
    *HELD.lock().unwrap() = Some(probe.unwrap());
    trace!(Forked { n: 1 });
    assert_eq!(CALLS.load(Relaxed), 1);
    let probe = HELD.lock().unwrap().take().unwrap();
    assert!(probe.is_attached(), "no panic, and the child's detach is the child's");
    probe.detach_wait().unwrap();
}

#[derive(gracepoint::Event)]
struct Everything<'a> {
    n: u64,
    text: &'a str,
}

const EVERYTHING: &str = "life_cycle:everything n=7 text=\"seven\"";

/// Tracers come and go on several threads, with typed probes and patterns, while others hit: each takes its own
/// probes along.
#[test]
fn tracers_come_and_go_on_many_threads() {
    static OVER: AtomicBool = AtomicBool::new(false);
    static WRONG: OnceLock<String> = OnceLock::new();
    let drops = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !OVER.load(Relaxed) {
                    trace!(Everything { n: 7, text: "seven" });
                }
            });
        }
        let makers: Vec<_> = (0..3)
            .map(|maker| {
                let drops = Arc::clone(&drops);
                scope.spawn(move || {
                    for n in 0..300 {
                        let tracer = Tracer::new("short-lived");
                        let counted = Arc::clone(&drops);
                        let captured = AtDrop(move || {
                            counted.fetch_add(1, Relaxed);
                        });
                        let typed = tracer.tracepoint::<Everything<'_>>().attach(move |event| {
                            let _captured = &captured;
                            if (event.n, event.text) != (7, "seven") {
                                let _ = WRONG.set(format!("{} {}", event.n, event.text));
                            }
                        });
                        let counted = Arc::clone(&drops);
                        let captured = AtDrop(move || {
                            counted.fetch_add(1, Relaxed);
                        });
                        let all = tracer.tracepoints("life_cycle:every*").attach(move |view| {
                            let _captured = &captured;
                            if view.to_string() != EVERYTHING {
                                let _ = WRONG.set(view.to_string());
                            }
                        });
                        match (n + maker) % 3 {
                            0 => drop((typed.unwrap(), all.unwrap())),
                            1 => {
                                typed.unwrap().keep();
                                all.unwrap().keep();
                            }
                            _ => {
                                drop(tracer);
                                assert!(!typed.unwrap().is_attached());
                                all.unwrap().detach_wait().unwrap();
                            }
                        }
                    }
                })
            })
            .collect();
        makers.into_iter().for_each(|maker| maker.join().unwrap());
        OVER.store(true, Relaxed);
    });
    assert_eq!(WRONG.get(), None);
    until(|| drops.load(Relaxed) == 1800);
}

#[derive(gracepoint::Event)]
#[event(name = "replaced:one")]
struct Replaced {
    n: u64,
}

#[derive(gracepoint::Event)]
#[event(name = "replaced:two")]
struct ReplacedToo;

/// Two threads hit while the probe is replaced again and again: each hit calls one, the old or the new.
#[test]
fn every_hit_calls_one_of_a_probe_and_its_replacement() {
    const TIMES: u64 = 3000;
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static HITS: AtomicU64 = AtomicU64::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    let tracer = Tracer::new("replaced");
    let drops = Arc::new(AtomicU64::new(0));
    let captured = || {
        let drops = Arc::clone(&drops);
        AtDrop(move || {
            drops.fetch_add(1, Relaxed);
        })
    };
    let first = captured();
    let probe = tracer.tracepoint::<Replaced>().attach(move |hit| {
        let _captured = &first;
        CALLS.fetch_add(hit.n, Relaxed);
    });
    let mut probe = probe.unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !OVER.load(Relaxed) {
                    trace!(Replaced { n: 1 });
                    HITS.fetch_add(1, Relaxed);
                }
            });
        }
        for n in 0..TIMES {
            let next = captured();
            if n % 3 == 0 {
                let all = tracer.tracepoints("replaced:*").priority(n as i32 % 5);
                all.replace(&mut probe, move |view| {
                    let _captured = &next;
                    let n = view.get("n").and_then(|n| n.as_u64());
                    CALLS.fetch_add(n.unwrap_or(1 << 40), Relaxed);
                })
                .unwrap();
            } else {
                tracer
                    .tracepoint::<Replaced>()
                    .replace(&mut probe, move |hit| {
                        let _captured = &next;
                        CALLS.fetch_add(hit.n, Relaxed);
                    })
                    .unwrap();
            }
            assert!(probe.is_attached());
        }
        OVER.store(true, Relaxed);
    });
    assert_eq!(CALLS.load(Relaxed), HITS.load(Relaxed), "none was missed, and none called two");
    // The last was of the typed kind: the other tracepoint is free.
    trace!(ReplacedToo);
    assert_eq!(CALLS.load(Relaxed), HITS.load(Relaxed));
    until(|| drops.load(Relaxed) == TIMES);
    probe.detach_wait().unwrap();
    trace!(Replaced { n: 1 });
    assert_eq!(CALLS.load(Relaxed), HITS.load(Relaxed));
    until(|| drops.load(Relaxed) == TIMES + 1);
}
