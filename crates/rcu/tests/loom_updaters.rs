//! The orderings between updaters, under loom: that no wakeup is lost.
//!
//! As in `tests/loom.rs`, the files that ship are compiled here with loom's types. Three protocols
//! of `src/engine.rs` and `src/wakers.rs`: a callback against the domain's thread that is about to sleep (also one
//! that another has just taken in hand), a request against the same, and a task that registers against the end of a grace period. A *twin* leaves
//! one thing out, and must be caught: somebody sleeps although there is work, and nobody wakes it.
//!
//! Beside them, the blocks of `src/blocks.rs`: freed once, after everybody's last use of a place.

macro_rules! shipped {
    ($($name:ident $path:literal),*) => {$(
        #[allow(dead_code, unreachable_pub, reason = "compiled as it ships; this uses a part")]
        #[path = $path]
        mod $name;
    )*};
}

shipped!(
    counters "../src/counters.rs",
    grace "../src/grace.rs",
    trylock "../src/trylock.rs",
    blocks "../src/blocks.rs",
    callbacks "../src/callbacks.rs",
    observer "../src/observer.rs",
    wakers "../src/wakers.rs",
    engine "../src/engine.rs"
);

#[allow(dead_code, reason = "each of the two tests that have it uses a part")]
#[path = "loom/door.rs"]
mod door;
#[path = "loom/without_readers.rs"]
mod without_readers;

use door::{arch, barrier, clock, running, stall, sync};
use engine::Engine;
use loom::sync::Arc;
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize as Count, Ordering};
use std::task::{Wake, Waker};
use without_readers::{Nobody, block_against_runners};

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    /// Nothing: as it ships.
    Sound,
    /// The thread looks for work, then sleeps: it does not look again once it has said so.
    ChecksThenSleeps,
    /// The SeqCst fences.
    NoFences,
    /// A caller does not wake the thread that its callback found asleep.
    CallWakesNobody,
    /// The thread looks for work while somebody may be driving.
    LooksBesideDriver,
    /// A task that has registered does not look again.
    RegistersLast,
}

/// Explores `program`; true if nobody sleeps while there is work. `slept` counts executions in which
/// somebody slept at all: without any, nothing was tried.
fn explore(twin: Twin, program: impl Fn(Twin, &Count) + Sync + Send + 'static) -> bool {
    let slept = std::sync::Arc::new(Count::new(0));
    let seen = std::sync::Arc::clone(&slept);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 10_000;
    let outcome = catch_unwind(AssertUnwindSafe(move || {
        builder.check(move || {
            sync::FENCES.set(twin != Twin::NoFences);
            program(twin, &slept);
        });
    }));
    let Err(payload) = outcome else {
        assert_ne!(seen.load(Ordering::Relaxed), 0, "nobody ever slept");
        return true;
    };
    let text = payload.downcast_ref::<&str>().copied().unwrap_or("");
    assert!(text.contains("lost wakeup"), "failed otherwise: {text}");
    door::tell_of_twin(&format!("{twin:?}"), text);
    false
}

/// What the domain's thread does when there is nothing more to do, without what a twin leaves out.
fn fall_asleep(engine: &Engine, twin: Twin) -> bool {
    if twin == Twin::ChecksThenSleeps {
        if engine.has_callbacks() || engine.grace.is_wanted() {
            return false;
        }
        engine.announce_sleep();
        let _ = engine.leave_calls_to_wake(true);
        return true;
    }
    let has_work = || engine.has_callbacks() || engine.grace.is_wanted();
    if twin == Twin::LooksBesideDriver {
        engine.announce_sleep();
        return engine.leave_calls_to_wake(true) && !has_work();
    }
    engine.fall_asleep(96, true, has_work)
}

fn expect_no_sleeper(engine: &Engine, asleep: bool, woken: bool, slept: &Count) {
    slept.fetch_add(usize::from(asleep), Ordering::Relaxed);
    let work = engine.has_callbacks() || engine.grace.is_wanted();
    assert!(!(asleep && work && !woken), "lost wakeup");
    while engine.drive(&Nobody, 32) != engine::Progress::Idle {}
}

/// A callback against a thread that is about to sleep.
fn call_against_sleep(twin: Twin, slept: &Count) {
    let engine = Arc::new(Engine::new());
    let sleeper = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || fall_asleep(&engine, twin))
    };
    let woken = engine.call(|| {}) && twin != Twin::CallWakesNobody;
    let asleep = sleeper.join().expect("the thread");
    expect_no_sleeper(&engine, asleep, woken, slept);
}

/// The same, where the caller also makes a step, and goes: what it has in its hands meanwhile is work too.
fn call_and_poll_against_sleep(twin: Twin, slept: &Count) {
    let engine = Arc::new(Engine::new());
    let sleeper = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || fall_asleep(&engine, twin))
    };
    let woken = engine.call(|| {});
    engine.poll(&Nobody, 64);
    let asleep = sleeper.join().expect("the thread");
    expect_no_sleeper(&engine, asleep, woken, slept);
}

/// A request against the same.
fn request_against_sleep(twin: Twin, slept: &Count) {
    let engine = Arc::new(Engine::new());
    let sleeper = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || fall_asleep(&engine, twin))
    };
    engine.grace.request(4);
    let woken = engine.must_wake();
    let asleep = sleeper.join().expect("the thread");
    expect_no_sleeper(&engine, asleep, woken, slept);
}

/// A callback and a request of two threads against a third that sleeps: one of them wakes it, once.
fn both_against_a_sleeper(twin: Twin, slept: &Count) {
    let engine = Arc::new(Engine::new());
    assert!(engine.fall_asleep(96, true, || false));
    let caller = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || engine.call(|| {}) && twin != Twin::CallWakesNobody)
    };
    engine.grace.request(4);
    let mut woken = engine.must_wake() && twin != Twin::CallWakesNobody;
    if woken {
        // It looks around, and sleeps again.
        engine.drive(&Nobody, 32);
        engine.drive(&Nobody, 32);
        woken = !fall_asleep(&engine, twin);
    }
    woken |= caller.join().expect("the caller");
    expect_no_sleeper(&engine, true, woken, slept);
}

struct Woken(Count);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task that registers, against the end of the grace period that it waits for.
fn task_against_end(twin: Twin, slept: &Count) {
    let engine = Arc::new(Engine::new());
    engine.grace.request(4);
    let driver = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            engine.poll(&Nobody, 64);
            engine.wake_tasks(64);
        })
    };
    let woken = std::sync::Arc::new(Woken(Count::new(0)));
    let waker = Waker::from(std::sync::Arc::clone(&woken));
    let mut ready = engine.grace.is_done(4);
    if !ready {
        engine.wakers.register(32, None, 4, &waker);
        ready = twin != Twin::RegistersLast && engine.grace.is_done(4);
        slept.fetch_add(usize::from(!ready), Ordering::Relaxed);
    }
    driver.join().expect("the driver");
    assert!(engine.grace.is_done(4));
    assert!(ready || woken.0.load(Ordering::Relaxed) != 0, "lost wakeup");
    engine.wakers.clear(32);
}

/// Whether blocks are freed once, after everybody's last use.
fn blocks_hold(fences: bool) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(move || {
        loom::model(move || {
            sync::FENCES.set(fences);
            block_against_runners();
        });
    }));
    let Err(payload) = outcome else { return true };
    let text = payload.downcast_ref::<String>().map_or("", |text| text);
    assert!(text.contains("Causality violation"), "failed otherwise: {text}");
    door::tell_of_twin("NoFences", text);
    false
}

#[test]
fn sound_block_against_runners() {
    assert!(blocks_hold(true));
}

#[test]
fn without_the_fence_a_block_is_freed_while_it_is_used() {
    assert!(!blocks_hold(false));
}

#[test]
fn sound_call_against_sleep() {
    assert!(explore(Twin::Sound, call_against_sleep));
}

/// The one word that is exchanged needs no fence.
#[test]
fn sound_call_against_sleep_without_fences() {
    assert!(explore(Twin::NoFences, call_against_sleep));
}

#[test]
fn sound_call_and_poll_against_sleep() {
    assert!(explore(Twin::Sound, call_and_poll_against_sleep));
}

#[test]
fn a_thread_that_looks_while_another_drives_loses_what_that_one_has_in_its_hands() {
    assert!(!explore(Twin::LooksBesideDriver, call_and_poll_against_sleep));
}

#[test]
fn sound_request_against_sleep() {
    assert!(explore(Twin::Sound, request_against_sleep));
}

#[test]
fn sound_both_against_a_sleeper() {
    assert!(explore(Twin::Sound, both_against_a_sleeper));
}

#[test]
fn sound_task_against_end() {
    assert!(explore(Twin::Sound, task_against_end));
}

#[test]
fn a_thread_that_checks_then_sleeps_loses_a_callback() {
    assert!(!explore(Twin::ChecksThenSleeps, call_against_sleep));
}

#[test]
fn a_thread_that_checks_then_sleeps_loses_a_request() {
    assert!(!explore(Twin::ChecksThenSleeps, request_against_sleep));
}

#[test]
fn without_fences_a_request_is_lost() {
    assert!(!explore(Twin::NoFences, request_against_sleep));
}

#[test]
fn a_call_that_wakes_nobody_is_lost() {
    assert!(!explore(Twin::CallWakesNobody, call_against_sleep));
    assert!(!explore(Twin::CallWakesNobody, both_against_a_sleeper));
}

#[test]
fn without_fences_a_task_is_not_woken() {
    assert!(!explore(Twin::NoFences, task_against_end));
}

#[test]
fn a_task_that_does_not_look_again_is_not_woken() {
    assert!(!explore(Twin::RegistersLast, task_against_end));
}
