//! Every ordering by itself: the shipped text, but for one access that is weaker than it says.
//!
//! [`TWINS`] has a row for each acquire, release and fence of the files that [`SHIPPED`] names: where it is, and the
//! program that must go wrong without it. [`ARGUED`] has those for which there is none, with the reason. That no
//! ordering of these files is in neither is checked, and that each program is right without a twin.

use crate::counters::enter_among_many;
#[path = "protocols.rs"]
mod protocols;

use crate::door::weaken::{self, Access, Loses};
use crate::door::{arch, barrier, clock, sync, tell_of_twin};
use crate::engine::Engine;
use crate::without_readers::Nobody;
use crate::{Data, Object, Twin, World};
use loom::sync::Arc;
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize as Count, Ordering};
use std::task::{Wake, Waker};

use protocols::{
    a_lock_across_a_fork, amended_record, block_against_runners, changed_wait, job_against_end,
    marker_against_task, observer_is_whole, occupied_record, offered_and_withdrawn,
    offered_region_is_whole, two_owners_of_a_lock,
};

/// A program, whose count says in how many executions it came to what it is about.
type Program = fn(&Count);

/// An ordering that is missing: its file, the function, a part of the line of the access, what the access loses; and
/// the program that must go wrong.
type Row = (&'static str, &'static str, &'static str, Loses, &'static str, Program);

macro_rules! rows {
    ($($file:literal $within:literal $access:literal $loses:ident $program:ident),* $(,)?) => {
        &[$(($file, $within, $access, Loses::$loses, stringify!($program), $program)),*]
    };
}

const TWINS: &[Row] = rows![
    "engine.rs" "fn push" "compare_exchange_weak" Release handed_over_work,
    "engine.rs" "fn push" "self.asleep.swap" Release woken_and_asleep_again,
    "engine.rs" "fn done" "done.load" Acquire done_is_seen,
    "engine.rs" "fn oldest" "incoming.load" Acquire what_is_queued_is_seen,
    "engine.rs" "fn oldest" "oldest_filed.load" Acquire taken_meanwhile,
    "engine.rs" "fn oldest" "ran.since.load" Acquire taken_meanwhile,
    "engine.rs" "fn running" "now.kind.load" Acquire running_is_told,
    "engine.rs" "fn running" "now.since.load" Acquire running_is_told,
    "engine.rs" "fn collect" "incoming.load" Acquire what_is_collected_is_seen,
    "engine.rs" "fn run_ready" "ran.since.store" Release taken_meanwhile,
    "engine.rs" "fn take_ready" "ran.since.store" Release taken_meanwhile,
    "engine.rs" "fn take_ready" "oldest_filed.store" Release taken_meanwhile,
    "engine.rs" "fn run(" "now.since.store" Release running_is_told,
    "engine.rs" "fn run(" "now.kind.store" Release running_is_told,
    "engine.rs" "fn run(" "done.store" Release done_is_seen,
    "engine.rs" "fn announce_sleep" "fence(" Fence request_against_sleep,
    "engine.rs" "fn must_wake" "fence(" Fence request_against_sleep,
    "trylock.rs" "fn take" "compare_exchange" Acquire two_owners_of_a_lock,
    "trylock.rs" "fn drop" "owner.store" Release two_owners_of_a_lock,
    "trylock.rs" "fn unlock_after_fork" "owner.store" Release a_lock_across_a_fork,
    "blocks.rs" "fn take_away" "fetch_sub" Release block_against_runners,
    "blocks.rs" "fn take_away" "fence(" Fence block_against_runners,
    "wakers.rs" "fn register" "fence(" Fence task_against_end,
    "wakers.rs" "fn wake" "fence(" Fence task_against_end,
    "grace.rs" "fn is_done" "seq.load" Acquire driven_by_another,
    "grace.rs" "fn step" "seq.load" Acquire half_driven_by_another,
    "grace.rs" "fn advance" "compare_exchange" Release driven_by_another,
    "counters.rs" "fn forget" "fetch_add" Release forgotten_section,
    "counters.rs" "fn leave_among_many" "fetch_add" Release handed_over,
    "owners.rs" "fn publish" "length.store" Release two_owners,
    "indices.rs" "fn claim" "compare_exchange_weak" Acquire recycled_index,
    "indices.rs" "fn put_back" "fetch_and" Release recycled_index,
    "observer.rs" "fn set(" "observer.store" Release observer_is_whole,
    "observer.rs" "fn tell" "observer.load" Acquire observer_is_whole,
    "fast.rs" "fn get" "base.load" Acquire offered_region_is_whole,
    "fast.rs" "fn offer" "base.store" Release offered_region_is_whole,
    "fast.rs" "fn offer" "fence(" Fence offered_and_withdrawn,
    "fast.rs" "fn withdraw" "fence(" Fence offered_and_withdrawn,
    "jobs.rs" "fn enter" "fence(" Fence job_against_end,
    "jobs.rs" "fn enter" "fetch_sub" Release job_against_end,
    "jobs.rs" "fn end" "fence(" Fence job_against_end,
    "jobs.rs" "fn end" "inside.load" Acquire job_against_end,
    "marker.rs" "fn is_reached" "reached.load" Acquire marker_against_task,
    "marker.rs" "fn reach" "reached.store" Release marker_against_task,
    "marker.rs" "fn reach" "fence(" Fence marker_against_task,
    "marker.rs" "fn waits" "fence(" Fence marker_against_task,
    "record.rs" "fn amend" "fence(" Fence amended_record,
    "record.rs" "fn amend" "compare_exchange(busy" Release amended_record,
    "record.rs" "fn end" "version.store" Release occupied_record,
    "record.rs" "fn occupy" "fence(" Fence occupied_record,
    "record.rs" "fn read" "version.load" Acquire occupied_record,
    "record.rs" "fn read" "fence(" Fence occupied_record,
    "waiters.rs" "fn set" "cookie.store" Release changed_wait,
    "waiters.rs" "fn set" "since.store" Release changed_wait,
    "waiters.rs" "fn set" "kind.store" Release changed_wait,
    "waiters.rs" "fn set" "call.store" Release changed_wait,
    "waiters.rs" "fn set" "region.store(wait" Release changed_wait,
    "waiters.rs" "fn get" "region.load(Ordering::Acquire" Acquire changed_wait,
    "waiters.rs" "fn get" "cookie.load" Acquire changed_wait,
    "waiters.rs" "fn get" "since.load" Acquire changed_wait,
    "waiters.rs" "fn get" "kind.load" Acquire changed_wait,
    "waiters.rs" "fn get" "call.load" Acquire changed_wait,
];

/// Orderings without a twin here, and why.
const ARGUED: &[(&str, &str, &str, Loses, &str)] = &[
    (
        "engine.rs",
        "fn push",
        "compare_exchange_weak",
        Loses::Acquire,
        "who finds ASLEEP then exchanges `asleep`, and loom lets exchanges happen in the order of the program",
    ),
    ("engine.rs", "fn leave_calls_to_wake", "compare_exchange", Loses::Release, "its other half"),
    (
        "owners.rs",
        "fn find",
        "length.load",
        Loses::Acquire,
        "the barrier of the section that follows is an acquire fence in loom",
    ),
    (
        "grace.rs",
        "fn snapshot",
        "fence(",
        Loses::Fence,
        "a heavy barrier of loom's is a fence of the driver's; `NoSnapshotFence` in tests/model is the twin",
    ),
    (
        "counters.rs",
        "fn entered",
        "lock.load",
        Loses::Acquire,
        "in a report, of two reads that have nothing to pair with: increments are relaxed",
    ),
    (
        "owners.rs",
        "fn name",
        "length.load",
        Loses::Acquire,
        "without it half a name would be read, which is undefined; it pairs with the release in `publish`",
    ),
    (
        "observer.rs",
        "fn clear",
        "observer.swap",
        Loses::Acquire,
        "of a domain that nobody else can reach; it pairs with the release in `set`",
    ),
];

const SHIPPED: &[(&str, &str)] = &[
    ("engine.rs", include_str!("../../src/engine.rs")),
    ("trylock.rs", include_str!("../../src/trylock.rs")),
    ("blocks.rs", include_str!("../../src/blocks.rs")),
    ("callbacks.rs", include_str!("../../src/callbacks.rs")),
    ("wakers.rs", include_str!("../../src/wakers.rs")),
    ("grace.rs", include_str!("../../src/grace.rs")),
    ("counters.rs", include_str!("../../src/counters.rs")),
    ("owners.rs", include_str!("../../src/owners.rs")),
    ("indices.rs", include_str!("../../src/indices.rs")),
    ("observer.rs", include_str!("../../src/observer.rs")),
    ("fast.rs", include_str!("../../src/fast.rs")),
    ("jobs.rs", include_str!("../../src/jobs.rs")),
    ("marker.rs", include_str!("../../src/marker.rs")),
    ("record.rs", include_str!("../../src/record.rs")),
    ("waiters.rs", include_str!("../../src/waiters.rs")),
];

/// The number of the first line with this text at or after the function's.
fn line_of(file: &str, within: &str, access: &str) -> usize {
    let text = SHIPPED.iter().find(|(name, _)| *name == file).expect("a file that ships").1;
    let lines = || text.lines().enumerate().filter(|(_, line)| !is_comment(line));
    let (begin, _) = lines().find(|(_, line)| line.contains(within)).expect(within);
    let mut after = lines().filter(|(number, line)| *number >= begin && line.contains(access));
    after.next().unwrap_or_else(|| panic!("no {access} in {within} of {file}")).0 + 1
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The orderings of a file: the line of the access, and what it could lose.
fn orderings(text: &str) -> Vec<(usize, Loses)> {
    const ACCESSES: [&str; 6] =
        [".load(", ".store(", ".swap(", ".compare_exchange", ".fetch_", "fence("];
    let lines: Vec<&str> =
        text.lines().map(|line| if is_comment(line) { "" } else { line }).collect();
    let is_access = |line: &&&str| ACCESSES.iter().any(|access| line.contains(access));
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        for (order, loses) in [
            ("Ordering::Acquire", &[Loses::Acquire][..]),
            ("Ordering::Release", &[Loses::Release]),
            ("Ordering::AcqRel", &[Loses::Acquire, Loses::Release]),
            ("Ordering::SeqCst", &[Loses::Fence]),
        ] {
            if !line.contains(order) {
                continue;
            }
            // Orderings that are named first are used after that.
            let at = if line.contains("let ") && !is_access(&line) || line.contains("let (order") {
                number + lines[number..].iter().position(|line| is_access(&line)).expect("a use")
            } else {
                lines[..=number].iter().rposition(|line| is_access(&line)).expect("an access")
            };
            let fence = lines[at].contains("fence(");
            let loses = if fence { &[Loses::Fence][..] } else { loses };
            found.extend(loses.iter().map(|loses| (at + 1, *loses)));
        }
    }
    found
}

#[test]
fn every_ordering_has_a_twin_or_a_reason() {
    let twins = TWINS.iter().map(|(file, within, access, loses, ..)| (file, within, access, loses));
    let argued =
        ARGUED.iter().map(|(file, within, access, loses, _)| (file, within, access, loses));
    let mut known: Vec<_> = twins
        .chain(argued)
        .map(|(file, within, access, loses)| (*file, line_of(file, within, access), *loses))
        .collect();
    let mut there: Vec<_> = SHIPPED
        .iter()
        .flat_map(|(file, text)| {
            orderings(text).into_iter().map(|(line, loses)| (*file, line, loses))
        })
        .collect();
    let key = |(file, line, loses): &(&'static str, usize, Loses)| (*file, *line, *loses as u8);
    known.sort_unstable_by_key(key);
    there.sort_unstable_by_key(key);
    let missing: Vec<_> = there.iter().filter(|ordering| !known.contains(ordering)).collect();
    let gone: Vec<_> = known.iter().filter(|ordering| !there.contains(ordering)).collect();
    assert!(missing.is_empty() && gone.is_empty(), "in no row: {missing:?}; not there: {gone:?}");
    known.dedup();
    assert_eq!(known.len(), TWINS.len() + ARGUED.len(), "two rows are about the same");
    for (file, within, access, loses, reason) in ARGUED {
        tell_of_twin(
            &format!("{file}, {within}, {access} {loses:?}"),
            &format!("argued: {reason}"),
        );
    }
}

#[test]
fn every_missing_ordering_is_caught() {
    let mut missed = Vec::new();
    for (file, within, access, loses, name, program) in TWINS {
        let line = u32::try_from(line_of(file, within, access)).expect("a short file");
        let path = SHIPPED.iter().find(|(name, _)| name == file).expect("a file").0;
        let access_at = Access { file: path, line, loses: *loses };
        let (failure, made) = explore(Some(access_at), *program);
        let twin = format!("{file}:{line} {within} without its {loses:?}, {name}");
        match failure {
            Some(found) if !found.starts_with("nothing") => tell_of_twin(&twin, &found),
            _ => missed.push(format!("{twin} ({access}; made {made} times)")),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}

#[test]
fn every_program_is_right_with_all_orderings() {
    let mut programs: Vec<(&str, Program)> =
        TWINS.iter().map(|(_, _, _, _, name, program)| (*name, *program)).collect();
    programs.sort_unstable_by_key(|(name, _)| *name);
    programs.dedup_by_key(|(name, _)| *name);
    // Those have tests of their own.
    const ELSEWHERE: [&str; 4] =
        ["driven_by_another", "handed_over", "two_owners", "recycled_index"];
    programs.retain(|(name, _)| !ELSEWHERE.contains(name));
    let wrong: Vec<_> = programs
        .into_iter()
        .filter_map(|(name, program)| Some((name, explore(None, program).0?)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What went wrong, if anything did, and how often the access was made.
fn explore(access: Option<Access>, program: Program) -> (Option<String>, u64) {
    let counted = std::sync::Arc::new(Count::new(0));
    let seen = std::sync::Arc::clone(&counted);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    weaken::MADE.set(0);
    let outcome = catch_unwind(AssertUnwindSafe(move || {
        builder.check(move || {
            as_it_ships();
            weaken::ACCESS.set(access);
            program(&counted);
        });
    }));
    as_it_ships();
    let Err(payload) = outcome else {
        // Then it has shown nothing.
        let vain = seen.load(Ordering::Relaxed) == 0;
        let vain = vain.then(|| "nothing: the program never came to what it is about".to_owned());
        return (vain, weaken::MADE.get());
    };
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("");
    const EXPECTED: [&str; 8] = [
        "Causality violation",
        "read after it was freed",
        "an increment was lost",
        "lost wakeup",
        "out of order",
        "is not seen",
        "is torn",
        "stays open",
    ];
    assert!(EXPECTED.iter().any(|cause| text.contains(cause)), "failed otherwise: {text}");
    (Some(text.to_owned()), weaken::MADE.get())
}

/// Undoes what programs and twins set.
fn as_it_ships() {
    barrier::LIGHT.set(true);
    arch::RELEASES.set(true);
    sync::FENCES.set(true);
    sync::ACQUIRES.set(true);
    sync::RELEASES_FROM.set(|_| true);
    weaken::ACCESS.set(None);
    weaken::EVERYTHING.set(false);
    weaken::STALE_FAILURES.set(false);
    clock::NOW.set(1);
    clock::TICK.set(0);
}

fn meant(count: &Count) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn driven_by_another(count: &Count) {
    crate::driven_by_another(Twin::Sound, count);
}

fn handed_over(count: &Count) {
    crate::handed_over(Twin::Sound, count);
}

fn two_owners(count: &Count) {
    crate::two_owners(Twin::Sound, count);
}

fn recycled_index(count: &Count) {
    crate::recycled_index(Twin::Sound, count);
}

/// A callback that goes on with what its caller did, run by another, who has queued one before.
fn handed_over_work(count: &Count) {
    let (engine, object) = (Arc::new(Engine::new()), Arc::new(Object::new(0)));
    engine.call(|| ());
    let caller = {
        let (engine, object) = (Arc::clone(&engine), Arc::clone(&object));
        thread::spawn(move || {
            object.write(|value| *value = 1);
            engine.call(move || object.write(|value| *value += 1));
        })
    };
    // Not `drive`, which looks at the queue again, and by that at what the caller did.
    engine.poll(&Nobody, 32);
    engine.run_ready(32);
    assert_eq!(engine.panics(), 0, "a callback ran out of order with its caller");
    caller.join().expect("the caller");
    while engine.drive(&Nobody, 32) != crate::Progress::Idle {}
    object.read(|value| assert_eq!(*value, 2, "a callback ran out of order"));
    meant(count);
}

/// Callbacks are run by another; who sees that they are done sees what they did.
fn done_is_seen(count: &Count) {
    weaken::EVERYTHING.set(true);
    let (engine, object) = ready_to_run(1);
    let runner = run_on_another_thread(&engine);
    thread::yield_now();
    if engine.done() == 1 {
        object.read(|value| assert_eq!(*value, 1));
        meant(count);
    }
    runner.join().expect("the runner");
}

/// The same, of who sees that there are none any more, although they are taken meanwhile.
fn taken_meanwhile(count: &Count) {
    weaken::EVERYTHING.set(true);
    let (engine, object) = ready_to_run(1);
    let runner = run_on_another_thread(&engine);
    if !engine.has_callbacks() {
        object.read(|value| assert_eq!(*value, 1));
        meant(count);
    }
    runner.join().expect("the runner");
}

/// The time that is told of a callback which runs is its own.
fn running_is_told(count: &Count) {
    weaken::EVERYTHING.set(true);
    let (engine, _) = ready_to_run(2);
    clock::TICK.set(1);
    let before = clock::NOW.get();
    let runner = run_on_another_thread(&engine);
    if let Some(running) = engine.running() {
        assert_eq!(running.since, before + running.number, "when a callback began is not seen");
        meant(count);
    }
    runner.join().expect("the runner");
}

/// So many callbacks of one type, whose grace period has ended.
fn ready_to_run(callbacks: usize) -> (Arc<Engine>, Arc<Object<u32>>) {
    let (engine, object) = (Arc::new(Engine::new()), Arc::new(Object::new(0)));
    for _ in 0..callbacks {
        let object = Arc::clone(&object);
        engine.call(move || object.write(|value| *value += 1));
    }
    while engine.poll(&Nobody, 32) != crate::Progress::Idle {}
    assert!(engine.has_ready());
    (engine, object)
}

fn run_on_another_thread(engine: &Arc<Engine>) -> thread::JoinHandle<()> {
    let engine = Arc::clone(engine);
    thread::spawn(move || {
        engine.run_ready(64);
    })
}

/// A callback that is queued counts at once for who has seen it.
fn what_is_queued_is_seen(count: &Count) {
    queued_by_another(count, |_| ());
}

/// And when he has taken it.
fn what_is_collected_is_seen(count: &Count) {
    queued_by_another(count, |engine| {
        engine.poll(&Nobody, 32);
    });
}

fn queued_by_another(count: &Count, then: fn(&Engine)) {
    weaken::EVERYTHING.set(true);
    let engine = Arc::new(Engine::new());
    let caller = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            engine.call(|| ());
        })
    };
    if !engine.leave_calls_to_wake(true) {
        then(&engine);
        assert!(engine.has_callbacks(), "a callback that was queued is not seen");
        meant(count);
    }
    caller.join().expect("the caller");
    while engine.drive(&Nobody, 32) != crate::Progress::Idle {}
}

fn has_work(engine: &Engine) -> bool {
    engine.has_callbacks() || engine.grace.is_wanted()
}

/// A thread that a callback has woken sees it before it sleeps again.
fn woken_and_asleep_again(count: &Count) {
    let engine = Arc::new(Engine::new());
    assert!(engine.fall_asleep(96, true, || false));
    weaken::STALE_FAILURES.set(true);
    let caller = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || engine.call(|| ()))
    };
    let woken = !engine.is_asleep();
    let again = woken && engine.fall_asleep(96, true, || has_work(&engine));
    if woken {
        meant(count);
    }
    assert!(caller.join().expect("the caller"), "it was asleep");
    assert!(!again, "lost wakeup");
    weaken::STALE_FAILURES.set(false);
    while engine.drive(&Nobody, 32) != crate::Progress::Idle {}
}

/// A request against a thread that is about to sleep.
fn request_against_sleep(count: &Count) {
    let engine = Arc::new(Engine::new());
    let sleeper = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || engine.fall_asleep(96, true, || has_work(&engine)))
    };
    engine.grace.request(4);
    let woken = engine.must_wake();
    let asleep = sleeper.join().expect("the thread");
    assert!(!asleep || woken, "lost wakeup");
    meant(count);
    while engine.drive(&Nobody, 32) != crate::Progress::Idle {}
}

struct Woken(Count);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn waker() -> (std::sync::Arc<Woken>, Waker) {
    let woken = std::sync::Arc::new(Woken(Count::new(0)));
    (std::sync::Arc::clone(&woken), Waker::from(woken))
}

/// A task that registers, against the end of the grace period that it waits for.
fn task_against_end(count: &Count) {
    let engine = Arc::new(Engine::new());
    engine.grace.request(4);
    let driver = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            engine.poll(&Nobody, 64);
            engine.wake_tasks(64);
        })
    };
    let (woken, waker) = waker();
    engine.wakers.register(32, None, 4, &waker);
    let ready = engine.grace.is_done(4);
    driver.join().expect("the driver");
    assert!(ready || woken.0.load(Ordering::Relaxed) != 0, "lost wakeup");
    meant(count);
    engine.wakers.clear(32);
}

/// A section of an owner that is ended by who forgets it.
fn forgotten_section(count: &Count) {
    let (world, data) = (Arc::new(World::new(Twin::Sound)), Arc::new(Data::new()));
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || {
            let pair = enter_among_many(&world.engine.grace.rank, &world.slots[0]);
            data.check(data.published.load(Ordering::Acquire));
            pair.forget(1);
        })
    };
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    if world.try_finish(cookie) {
        data.free();
        meant(count);
    }
    reader.join().expect("the reader");
}

/// A grace period of which another has confirmed one rank, by his heavy barrier: who goes on needs none.
fn half_driven_by_another(count: &Count) {
    let (world, data) = (Arc::new(World::new(Twin::Sound)), Arc::new(Data::new()));
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || data.read(&world, 0))
    };
    let waiter = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || {
            if !matches!(world.engine.grace.sequence() & 3, 1 | 2) {
                return false;
            }
            world.engine.grace.step(&*world);
            if world.engine.grace.is_done(4) {
                data.free();
            }
            true
        })
    };
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    world.engine.grace.step(&*world);
    if waiter.join().expect("the waiter") {
        meant(count);
    }
    reader.join().expect("the reader");
}
