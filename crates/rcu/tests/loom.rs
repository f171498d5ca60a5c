//! The algorithm under loom: every interleaving, and every value that weak memory lets a
//! relaxed load see, of small programs.
//!
//! The files of the algorithm are compiled here a second time, as they are, with loom's
//! types behind `crate::sync`. Three things are modelled, not run: the light and the heavy
//! barrier are SeqCst fences (that the real pair is as strong as that is what `tests/litmus.rs` tries
//! on the machine), and the increment is a relaxed `fetch_add`. What loom cannot do is here by
//! other means: signals and thread churn are in `tests/torture.rs`, `fork` in `tests/fork.rs`.
//!
//! For each thing the argument in `src/grace.rs` needs there is a *twin* that lacks it, and
//! the same program must then find the error. Those that lack one ordering, of an access or a fence, are in
//! `tests/loom/orderings.rs`: each ordering of these files has one there, or a reason why not.
//!
//! Programs of two threads are explored whole. Those of three would take hours, so
//! there an execution has at most two or three preemptions; `GRACEPOINT_LOOM=4 cargo test -p gracepoint-rcu
//! --release --test loom` raises that. `LOOM_LOG=trace … -- --nocapture NAME` shows the steps.

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
    indices "../src/indices.rs",
    owners "../src/owners.rs",
    engine "../src/engine.rs",
    fast "../src/fast.rs",
    jobs "../src/jobs.rs",
    marker "../src/marker.rs",
    record "../src/record.rs",
    waiters "../src/waiters.rs"
);

#[allow(dead_code, reason = "each of the two tests that have it uses a part")]
#[path = "loom/door.rs"]
mod door;
#[path = "loom/orderings.rs"]
mod orderings;
#[path = "loom/without_readers.rs"]
mod without_readers;

/// For `waiters`: whom a thread waits for. Addresses alone.
mod region {
    #[derive(Debug)]
    pub(crate) struct Region;
}

/// No thread has an index here.
mod threads {
    pub(crate) fn thread_index() -> Option<u32> {
        None
    }

    pub(crate) fn wait_entry(_: u32) -> Option<&'static crate::waiters::Entry> {
        None
    }
}

use counters::{Pair, RANKS, Slot, enter, enter_among_many, leave, leave_among_many};
use door::{arch, barrier, clock, running, stall, sync, system};
use engine::{Engine, Progress};
use grace::{Readers, Step};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread;
use owners::Owners;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize as Count;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    /// Nothing: as it ships.
    Sound,
    /// A scan reads the locks before the barrier and the unlocks after it.
    LocksFirst,
    /// The updater's barrier.
    NoHeavyBarrier,
    /// The readers' barriers.
    NoLightBarrier,
    /// The scan of the rank that was inactive when the grace period began.
    NoFirstScan,
    /// The scan of the old rank after the flip.
    NoSecondScan,
    /// A cookie accepts the end of the grace period that was running when it was taken.
    EarlyCookie,
    /// The end of a section is counted by a relaxed addition.
    RelaxedUnlock,
    /// A scan reads `unlock`s relaxed.
    RelaxedScan,
    /// `seq` is loaded relaxed, by who steps and by who asks whether a grace period has ended.
    RelaxedSeq,
    /// `seq` moves on by relaxed exchanges.
    RelaxedAdvance,
    /// Those exchanges alone that come with a heavy barrier before or after them in the same step: no error.
    RelaxedBesideBarrier,
    /// The end of an owned section is counted by a relaxed addition.
    RelaxedLeave,
    /// An owner's name is published before scans look at its entry.
    NameBeforeBit,
    /// A thread's index is taken by a relaxed exchange.
    RelaxedClaim,
    /// A thread's index is given back by a relaxed operation.
    RelaxedPutBack,
    /// A published pointer is loaded relaxed, and not as `RcuCell::load` does.
    RelaxedLoad,
}

/// An engine, and two threads' slots: 0 is the reader's, 1 the updater's own.
struct World {
    engine: Engine,
    slots: [Slot; 2],
    /// Where the program has owners.
    owners: Option<Owners<1, 1>>,
    twin: Twin,
    /// Set by the updater alone: which rank was inactive when the grace period began.
    inactive_at_start: AtomicUsize,
}

impl World {
    fn new(twin: Twin) -> Self {
        Self {
            engine: Engine::new(),
            slots: [Slot::new(), Slot::new()],
            owners: None,
            twin,
            inactive_at_start: AtomicUsize::new(1),
        }
    }

    fn with_owners(twin: Twin) -> Self {
        Self { owners: Some(Owners::new()), ..Self::new(twin) }
    }

    /// As `Domain::read_owned` finds the slot of an owner's name.
    fn owned_slot(&self) -> &Slot {
        const NAME: &str = "owner";
        let owners = self.owners.as_ref().expect("a program with owners");
        if self.twin == Twin::NameBeforeBit && owners.claim(0, NAME) {
            owners.publish(0, NAME);
            owners.show(0);
        }
        owners.find(NAME).map_or(&self.slots[0], |owner| &owner.slots[0])
    }

    fn leave_owned(&self, pair: &Pair) {
        if self.twin == Twin::RelaxedLeave {
            pair.unlock.fetch_add(1, Ordering::Relaxed);
        } else {
            leave_among_many(pair);
        }
    }

    fn sums(&self, locks: bool) -> [u64; RANKS] {
        let mut sums = [0; RANKS];
        for (rank, sum) in sums.iter_mut().enumerate() {
            let inactive = 1 - self.engine.grace.rank.get();
            let first = self.inactive_at_start.load(Ordering::Relaxed);
            let skip = match self.twin {
                Twin::NoFirstScan => rank == first,
                Twin::NoSecondScan => rank == inactive && rank != first,
                _ => false,
            };
            if !skip {
                let owned = self.owners.iter().flat_map(|owners| owners.used());
                for slot in self.slots.iter().chain(owned.flat_map(|owner| &owner.slots)) {
                    let pair = &slot.pairs[rank];
                    let sync::AtomicU64::Explored(unlock) = &pair.unlock else {
                        panic!("explored")
                    };
                    *sum += match (locks, self.twin) {
                        (true, _) => pair.lock.load(Ordering::Relaxed),
                        (_, Twin::RelaxedScan) => unlock.load(Ordering::Relaxed),
                        // Loom's own load, which `RelaxedSeq` does not weaken.
                        _ => unlock.load(Ordering::Acquire),
                    };
                }
            }
        }
        sums
    }

    /// Steps until the cookie is done, or for as long as there is a point in a program whose
    /// readers may be stopped anywhere. Never waits, so programs stay finite.
    fn try_finish(&self, cookie: u64) -> bool {
        for _ in 0..3 {
            if self.engine.grace.is_done(cookie) {
                return true;
            }
            self.engine.poll(self, 32);
        }
        self.engine.grace.is_done(cookie)
    }
}

impl Readers for World {
    fn unlocks(&self) -> [u64; RANKS] {
        self.sums(self.twin == Twin::LocksFirst)
    }

    fn locks(&self) -> [u64; RANKS] {
        self.sums(self.twin != Twin::LocksFirst)
    }

    fn heavy_barrier(&self) -> bool {
        if self.twin != Twin::NoHeavyBarrier {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
        true
    }
}

/// A cell that threads share; loom fails the program whose accesses are not ordered.
struct Object<T>(UnsafeCell<T>);

// SAFETY: not safe by itself: that its accesses exclude each other is what is being tested, and
// loom checks each one.
unsafe impl<T: Send> Sync for Object<T> {}

impl<T> Object<T> {
    fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    fn read<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        // SAFETY: loom has checked that nobody writes.
        self.0.with(|value| f(unsafe { &*value }))
    }

    fn write<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: loom has checked that nobody else is here.
        self.0.with_mut(|value| f(unsafe { &mut *value }))
    }
}

/// Two objects and which of them is published.
struct Data {
    published: AtomicUsize,
    objects: [Object<u32>; 2],
}

impl Data {
    fn new() -> Self {
        Self { published: AtomicUsize::new(0), objects: [Object::new(0), Object::new(1)] }
    }

    /// A section that reads what is published.
    fn read(&self, world: &World, slot: usize) {
        let pair = enter(&world.engine.grace.rank, &world.slots[slot]);
        self.check(self.published.load(Ordering::Acquire));
        leave(pair);
    }

    fn check(&self, index: usize) {
        let value = self.objects[index].read(|value| *value);
        assert_eq!(value as usize, index, "read after it was freed");
    }

    fn remove(&self) {
        self.published.store(1, Ordering::Release);
    }

    fn free(&self) {
        self.objects[0].write(|value| *value = 999);
    }
}

/// Explores `program` (all of it, or up to so many preemptions of one execution); true if every execution of it is right, false if one of them read
/// what was freed. Any other failure is a failure of the test.
fn explore(
    twin: Twin,
    preemptions: Option<usize>,
    program: impl Fn(Twin, &Count) + Sync + Send + 'static,
) -> bool {
    let freed = std::sync::Arc::new(Count::new(0));
    let seen = std::sync::Arc::clone(&freed);
    let mut builder = loom::model::Builder::new();
    let deeper = std::env::var("GRACEPOINT_LOOM").ok().and_then(|bound| bound.parse().ok());
    builder.preemption_bound = preemptions.map(|bound| deeper.unwrap_or(bound));
    builder.max_branches = 10_000;
    let outcome = catch_unwind(AssertUnwindSafe(move || {
        builder.check(move || {
            barrier::LIGHT.set(twin != Twin::NoLightBarrier);
            arch::RELEASES.set(twin != Twin::RelaxedUnlock);
            sync::ACQUIRES.set(twin != Twin::RelaxedSeq);
            sync::RELEASES_FROM.set(match twin {
                Twin::RelaxedAdvance => |_| false,
                // From one rank that is left, which was found empty by plain reads.
                Twin::RelaxedBesideBarrier => |from| matches!(from & 3, 1 | 2),
                _ => |_| true,
            });
            program(twin, &freed);
        });
    }));
    let Err(payload) = outcome else {
        // A program in which the updater never gets to free proves nothing.
        assert_ne!(seen.load(Ordering::Relaxed), 0, "the program never freed anything");
        return true;
    };
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("");
    let expected = ["Causality violation", "read after it was freed", "an increment was lost"];
    assert!(expected.iter().any(|cause| text.contains(cause)), "failed otherwise: {text}");
    door::tell_of_twin(&format!("{twin:?}"), text);
    false
}

/// One reader against one removal.
fn one_reader(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || data.read(&world, 0))
    };
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    if world.try_finish(cookie) {
        data.free();
        freed.fetch_add(1, Ordering::Relaxed);
    }
    reader.join().expect("the reader");
    assert!(world.try_finish(cookie), "nobody is inside, so the grace period ends");
}

/// One who drives, and one who waits and steps beside him: what the heavy barrier of the one has made visible counts
/// for the other.
fn beside(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || data.read(&world, 0))
    };
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    let driver = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.engine.grace.step(&*world);
        })
    };
    world.engine.grace.step(&*world);
    if world.engine.grace.is_done(cookie) {
        data.free();
        freed.fetch_add(1, Ordering::Relaxed);
    }
    reader.join().expect("the reader");
    driver.join().expect("the driver");
}

/// A removal on one thread, whose grace period another drives, who has no fence but the heavy barrier.
fn driven_by_another(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || data.read(&world, 0))
    };
    let driver = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            for _ in 0..2 {
                world.engine.grace.step(&*world);
            }
        })
    };
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    thread::yield_now();
    if world.engine.grace.is_done(cookie) {
        data.free();
        freed.fetch_add(1, Ordering::Relaxed);
    }
    reader.join().expect("the reader");
    driver.join().expect("the driver");
}

/// Two readers: a section of one must not make up for one of the other.
fn two_readers(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let readers: Vec<_> = (0..2)
        .map(|slot| {
            let (world, data) = (Arc::clone(&world), Arc::clone(&data));
            thread::spawn(move || data.read(&world, slot))
        })
        .collect();
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    if world.try_finish(cookie) {
        data.free();
        freed.fetch_add(1, Ordering::Relaxed);
    }
    readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
}

/// A grace period that had to flip, then a removal: the reader may have loaded the rank
/// before the flip and enter after it.
fn straggler(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || data.read(&world, 0))
    };
    let own = enter(&world.engine.grace.rank, &world.slots[1]);
    let first = world.engine.grace.snapshot();
    world.engine.grace.request(first);
    world.engine.poll(&*world, 32);
    leave(own);
    if world.try_finish(first) {
        let inactive = 1 - world.engine.grace.rank.get();
        world.inactive_at_start.store(inactive, Ordering::Relaxed);
        data.remove();
        let cookie = world.engine.grace.snapshot();
        world.engine.grace.request(cookie);
        if world.try_finish(cookie) {
            data.free();
            freed.fetch_add(1, Ordering::Relaxed);
        }
    }
    reader.join().expect("the reader");
}

/// A removal while a grace period runs that has already confirmed one rank.
fn late_removal(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let own = enter(&world.engine.grace.rank, &world.slots[1]);
    world.engine.grace.request(world.engine.grace.snapshot());
    assert_eq!(world.engine.grace.step(&*world), Step::Advanced, "it flips");
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || data.read(&world, 0))
    };
    data.remove();
    let running = world.engine.grace.snapshot();
    let cookie = if twin == Twin::EarlyCookie { running - 4 } else { running };
    world.engine.grace.request(cookie);
    leave(own);
    if world.try_finish(cookie) {
        data.free();
        freed.fetch_add(1, Ordering::Relaxed);
    }
    reader.join().expect("the reader");
}

/// The removal and its callback on one thread, the driver on another, and a reader.
fn callback(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let reader = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || data.read(&world, 0))
    };
    let updater = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || {
            data.remove();
            let object = Arc::clone(&data);
            world.engine.call(move || object.free());
            world.engine.drive(&*world, 64);
        })
    };
    for _ in 0..2 {
        world.engine.drive(&*world, 32);
    }
    if !world.engine.has_callbacks() {
        freed.fetch_add(1, Ordering::Relaxed);
    }
    reader.join().expect("the reader");
    updater.join().expect("the updater");
    while world.engine.drive(&*world, 32) != Progress::Idle {}
    assert!(!world.engine.has_callbacks());
    assert_eq!(world.engine.panics(), 0, "loom found the callback out of order");
}

/// Callbacks of two threads, two drivers: run once each, in order, none lost.
fn two_drivers(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let log = Arc::new(Object::new(Vec::new()));
    let queue = |world: &World, number: u32| {
        let log = Arc::clone(&log);
        world.engine.call(move || log.write(|log| log.push(number)));
    };
    let other = {
        let world = Arc::clone(&world);
        queue(&world, 1);
        thread::spawn(move || {
            world.engine.drive(&*world, 64);
        })
    };
    queue(&world, 2);
    world.engine.drive(&*world, 32);
    other.join().expect("the other driver");
    while world.engine.drive(&*world, 32) != Progress::Idle {}
    assert_eq!(world.engine.panics(), 0);
    log.read(|log| assert_eq!(log, &[1, 2]));
    freed.fetch_add(1, Ordering::Relaxed);
}

/// An owned section, which is entered on one thread and left on another.
fn handed_over(twin: Twin, freed: &Count) {
    let world = Arc::new(World::new(twin));
    let data = Arc::new(Data::new());
    let first = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || {
            let pair = enter_among_many(&world.engine.grace.rank, &world.slots[0]);
            let index = data.published.load(Ordering::Acquire);
            let rank = usize::from(std::ptr::eq(pair, &raw const world.slots[0].pairs[1]));
            thread::spawn(move || {
                data.check(index);
                world.leave_owned(&world.slots[0].pairs[rank]);
            })
        })
    };
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    if world.try_finish(cookie) {
        data.free();
        freed.fetch_add(1, Ordering::Relaxed);
    }
    first.join().expect("the first").join().expect("the second");
}

/// A thread that brings in an owner's name, and one that uses it.
fn two_owners(twin: Twin, freed: &Count) {
    let world = Arc::new(World::with_owners(twin));
    let data = Arc::new(Data::new());
    let first = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.owned_slot();
        })
    };
    let second = {
        let (world, data) = (Arc::clone(&world), Arc::clone(&data));
        thread::spawn(move || {
            let slot = world.owned_slot();
            let pair = enter_among_many(&world.engine.grace.rank, slot);
            data.check(data.published.load(Ordering::Acquire));
            world.leave_owned(pair);
        })
    };
    data.remove();
    let cookie = world.engine.grace.snapshot();
    world.engine.grace.request(cookie);
    if world.try_finish(cookie) {
        data.free();
        freed.fetch_add(1, Ordering::Relaxed);
    }
    first.join().expect("the first");
    second.join().expect("the second");
}

/// An index goes from one thread to another, and with it counters that are not added to atomically.
fn recycled_index(twin: Twin, freed: &Count) {
    let taken = Arc::new([sync::AtomicU64::new(1)]);
    let counter = Arc::new(AtomicU64::new(0));
    let increment = |counter: &AtomicU64| {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    };
    let old = {
        let (taken, counter) = (Arc::clone(&taken), Arc::clone(&counter));
        thread::spawn(move || {
            increment(&counter);
            if twin == Twin::RelaxedPutBack {
                taken[0].fetch_and(!1, Ordering::Relaxed);
            } else {
                indices::put_back(&taken[..], 0);
            }
        })
    };
    let claimed = if twin == Twin::RelaxedClaim {
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        taken[0].compare_exchange(0, 1, order.0, order.1).ok().map(|_| 0)
    } else {
        indices::claim(&taken[..])
    };
    let mine = claimed == Some(0);
    if mine {
        increment(&counter);
        freed.fetch_add(1, Ordering::Relaxed);
    }
    old.join().expect("the old owner");
    let count = counter.load(Ordering::Relaxed);
    assert_eq!(count, 1 + u64::from(mine), "an increment was lost");
}

/// A value that is written, published, and read.
fn published_value(twin: Twin, freed: &Count) {
    let data = Arc::new(Data::new());
    let reader = {
        let data = Arc::clone(&data);
        thread::spawn(move || {
            let relaxed = twin == Twin::RelaxedLoad;
            let order = if relaxed { Ordering::Relaxed } else { Ordering::Acquire };
            data.check(data.published.load(order));
        })
    };
    data.objects[1].write(|value| *value = 1);
    data.remove();
    freed.fetch_add(1, Ordering::Relaxed);
    reader.join().expect("the reader");
}

#[test]
fn sound_handed_over() {
    assert!(explore(Twin::Sound, Some(2), handed_over));
}

#[test]
fn sound_two_owners() {
    assert!(explore(Twin::Sound, Some(2), two_owners));
}

#[test]
fn sound_recycled_index() {
    assert!(explore(Twin::Sound, None, recycled_index));
}

#[test]
fn sound_published_value() {
    assert!(explore(Twin::Sound, None, published_value));
}

#[test]
fn owned_sections_left_relaxed_fail() {
    assert!(!explore(Twin::RelaxedLeave, Some(2), handed_over));
}

#[test]
fn owned_sections_without_light_barrier_fail() {
    assert!(!explore(Twin::NoLightBarrier, Some(2), handed_over));
}

#[test]
fn a_name_published_before_its_bit_fails() {
    assert!(!explore(Twin::NameBeforeBit, Some(2), two_owners));
}

#[test]
fn an_index_taken_or_given_back_relaxed_fails() {
    assert!(!explore(Twin::RelaxedClaim, None, recycled_index));
    assert!(!explore(Twin::RelaxedPutBack, None, recycled_index));
}

#[test]
fn a_pointer_loaded_relaxed_fails() {
    assert!(!explore(Twin::RelaxedLoad, None, published_value));
}

#[test]
fn sound_one_reader() {
    assert!(explore(Twin::Sound, None, one_reader));
}

#[test]
fn sound_driven_by_another() {
    assert!(explore(Twin::Sound, Some(2), driven_by_another));
}

#[test]
fn sound_beside() {
    assert!(explore(Twin::Sound, Some(2), beside));
}

#[test]
fn a_seq_loaded_relaxed_fails() {
    assert!(!explore(Twin::RelaxedSeq, Some(2), beside));
}

#[test]
fn a_seq_moved_relaxed_fails() {
    assert!(!explore(Twin::RelaxedAdvance, Some(2), driven_by_another));
}

#[test]
fn sound_with_a_seq_moved_relaxed_beside_a_heavy_barrier() {
    for program in [driven_by_another, beside] {
        assert!(explore(Twin::RelaxedBesideBarrier, Some(2), program));
    }
}

#[test]
fn an_end_counted_or_read_relaxed_fails() {
    assert!(!explore(Twin::RelaxedUnlock, Some(3), one_reader));
    assert!(!explore(Twin::RelaxedScan, Some(3), one_reader));
}

#[test]
fn sound_two_readers() {
    assert!(explore(Twin::Sound, Some(2), two_readers));
}

#[test]
fn sound_straggler() {
    assert!(explore(Twin::Sound, None, straggler));
}

#[test]
fn sound_late_removal() {
    assert!(explore(Twin::Sound, None, late_removal));
}

#[test]
fn sound_callback() {
    assert!(explore(Twin::Sound, Some(2), callback));
}

#[test]
fn sound_two_drivers() {
    assert!(explore(Twin::Sound, Some(2), two_drivers));
}

#[test]
fn without_heavy_barrier_it_fails() {
    assert!(!explore(Twin::NoHeavyBarrier, Some(2), driven_by_another));
}

#[test]
fn without_light_barrier_it_fails() {
    assert!(!explore(Twin::NoLightBarrier, Some(3), one_reader));
}

#[test]
fn with_locks_read_first_it_fails() {
    assert!(!explore(Twin::LocksFirst, Some(3), two_readers));
}

#[test]
fn without_first_scan_it_fails() {
    assert!(!explore(Twin::NoFirstScan, Some(3), straggler));
}

#[test]
fn without_second_scan_it_fails() {
    assert!(!explore(Twin::NoSecondScan, Some(3), one_reader));
}

#[test]
fn with_an_early_cookie_it_fails() {
    assert!(!explore(Twin::EarlyCookie, Some(3), late_removal));
}
