//! A domain in the model: the files that ship, slots for a few threads, and something to free.

use crate::counters::{self, Pair, RANKS, Slot};
use crate::door::{self, access, run};
use crate::grace::{Grace, Readers, Step};
use crate::trylock::TryLock;
use crate::{Form, Twin};
use gracepoint_model::{Context, Object, Program, Until, Word};
use std::cell::Cell;
use std::collections::HashMap;
use std::ptr;
use std::rc::Rc;

/// Everything that the threads of a program share. It does not change: what changes are the
/// words that its atomics stand for.
pub(crate) struct World {
    pub(crate) twin: Twin,
    pub(crate) form: Form,
    pub(crate) grace: Grace,
    pub(crate) slots: Vec<Slot>,
    driver: TryLock<()>,
    words: HashMap<String, Word>,
    /// How many slots a scan looks at.
    high_water: Word,
    /// Which rank was inactive when the grace period began; for the twins that skip a scan.
    pub(crate) inactive_at_start: Word,
    pub(crate) published: Word,
    /// An owned guard on its way to another thread: what was found, twice, and its rank.
    handed: Word,
    pub(crate) old: Object,
    pub(crate) new: Object,
}

impl World {
    pub(crate) fn new(name: &str, twin: Twin, form: Form, slots: usize) -> (Program, Rc<World>) {
        Self::with_newcomers(name, twin, form, slots, 0)
    }

    /// `slots`, of which the last `unseen` are of threads that have had no section.
    pub(crate) fn with_newcomers(
        name: &str,
        twin: Twin,
        form: Form,
        slots: usize,
        unseen: usize,
    ) -> (Program, Rc<World>) {
        Self::add(Program::new(format!("{name}, {twin:?}")), twin, form, slots, unseen)
    }

    /// Another domain in a program.
    pub(crate) fn add(
        mut program: Program,
        twin: Twin,
        form: Form,
        slots: usize,
        unseen: usize,
    ) -> (Program, Rc<World>) {
        let (old, new) = (program.object("the old object"), program.object("the new object"));
        let published = program.word("published", old.address());
        let handed = program.word("handed", 0);
        let high_water = program.word("high_water", (slots - unseen) as u64);
        let inactive_at_start = program.word("inactive_at_start", 1);
        let engine = ["rank", "seq", "needed", "attempts", "driver"].map(String::from);
        let counters = (0..slots).flat_map(|slot| {
            (0..RANKS).flat_map(move |rank| {
                ["lock", "unlock"].map(|half| format!("{half}[{slot}][{rank}]"))
            })
        });
        let (program, words, (grace, driver, slots)) =
            door::build(program, engine.into_iter().chain(counters), || {
                let grace = Grace::new();
                let driver = TryLock::new(());
                (grace, driver, (0..slots).map(|_| Slot::new()).collect())
            });
        let world = World {
            twin,
            form,
            grace,
            slots,
            driver,
            words,
            high_water,
            inactive_at_start,
            published,
            handed,
            old,
            new,
        };
        (program, Rc::new(world))
    }

    /// Adds a thread that runs `body`.
    pub(crate) fn thread(
        self: &Rc<Self>,
        program: &mut Program,
        name: &str,
        body: impl Fn(&World) + 'static,
    ) {
        let world = Rc::clone(self);
        program.thread(name, door::body(self.twin, self.form, move || body(&world)));
    }

    /// Adds a thread that may be waiting at the end.
    pub(crate) fn server(
        self: &Rc<Self>,
        program: &mut Program,
        name: &str,
        body: impl Fn(&World) + 'static,
    ) {
        let world = Rc::clone(self);
        program.server(name, door::body(self.twin, self.form, move || body(&world)));
    }

    /// As `domain::read` and the guard's `Drop`, in both forms.
    pub(crate) fn enter(&self, slot: usize) -> &Pair {
        let pair = counters::enter(&self.grace.rank, &self.slots[slot]);
        if self.form == Form::Fence && self.twin != Twin::NoReaderFence {
            access(Context::fence);
        }
        pair
    }

    /// A section that uses what is published.
    pub(crate) fn section(&self, slot: usize) {
        let hoisted = (self.twin == Twin::NoFenceInEnter).then(|| self.find());
        let pair = self.enter(slot);
        let object = hoisted.unwrap_or_else(|| self.find());
        if self.twin == Twin::NoFenceInLeave {
            counters::leave(pair);
            access(|cx| cx.touch(object));
        } else {
            access(|cx| cx.touch(object));
            counters::leave(pair);
        }
    }

    /// A section of a reader that loads what is published before it enters.
    pub(crate) fn section_of_what_was_found(&self, slot: usize) {
        let object = self.find();
        let pair = self.enter(slot);
        access(|cx| cx.touch(object));
        counters::leave(pair);
    }

    /// A section on a slot that several threads share: locked instructions.
    pub(crate) fn section_on_shared(&self, slot: usize) {
        let pair = counters::enter_among_many(&self.grace.rank, &self.slots[slot]);
        let object = self.find();
        self.use_and_leave(pair, object);
    }

    /// The first half of an owned section: another thread goes on with what was found.
    pub(crate) fn enter_owned_and_hand_over(&self, slot: usize) {
        let pair = counters::enter_among_many(&self.grace.rank, &self.slots[slot]);
        let rank = usize::from(ptr::eq(pair, &raw const self.slots[slot].pairs[1])) as u64;
        let object = self.find();
        // A plain store, which is what a release store is here.
        access(|cx| cx.store(self.handed, object.address() * 2 + rank));
    }

    /// The second half, on the thread that was handed the guard.
    pub(crate) fn take_over_and_leave(&self, slot: usize) {
        let handed = access(|cx| cx.wait(self.handed, Until::AtLeast(1)));
        let pair = &self.slots[slot].pairs[(handed % 2) as usize];
        self.use_and_leave(pair, Object::at(handed / 2).unwrap_or(self.old));
    }

    fn use_and_leave(&self, pair: &Pair, object: Object) {
        if self.twin == Twin::NoFenceInLeave {
            counters::leave_among_many(pair);
            access(|cx| cx.touch(object));
        } else {
            access(|cx| cx.touch(object));
            counters::leave_among_many(pair);
        }
    }

    /// Uses what is published; for callers that are inside of a section.
    pub(crate) fn touch_published(&self) {
        let object = self.find();
        access(|cx| cx.touch(object));
    }

    fn find(&self) -> Object {
        Object::at(access(|cx| cx.load(self.published))).unwrap_or(self.old)
    }

    /// A first section: the slot comes into view before it is used.
    pub(crate) fn first_section(&self, slot: usize) {
        let raise = || access(|cx| cx.fetch_max(self.high_water, slot as u64 + 1));
        if self.twin == Twin::LateHighWater {
            let pair = self.enter(slot);
            let object = self.find();
            raise();
            access(|cx| cx.touch(object));
            counters::leave(pair);
        } else {
            raise();
            self.section(slot);
        }
    }

    /// A section in whose increments a signal handler may have a section of its own.
    pub(crate) fn interrupted_section(&self, slot: usize) {
        let pair = self.grace.rank.pair(&self.slots[slot]);
        // The handler's section is over before the interrupted code goes on: all of its effect
        // on this thread's counters is two increments of the same pair.
        PAIR_OF_SIGNAL.set(Some([pair.lock.word, pair.unlock.word]));
        self.section(slot);
        PAIR_OF_SIGNAL.set(None);
    }

    /// Publishes the new object. A plain store, which is what a release store is here.
    pub(crate) fn remove(&self) {
        access(|cx| cx.store(self.published, self.new.address()));
    }

    /// Asks for a grace period.
    pub(crate) fn start_poll(&self) -> u64 {
        let cookie = if self.twin == Twin::EarlyCookie {
            access(Context::fence);
            let seq = access(|cx| cx.load(self.words["seq"]));
            if seq & 3 == 0 { seq + 4 } else { (seq + 3) & !3 }
        } else {
            self.grace.snapshot()
        };
        self.grace.request(cookie);
        cookie
    }

    /// One step by whoever gets the lock; false if somebody is waited for.
    pub(crate) fn poll(&self, me: usize) -> bool {
        run().known.take();
        let Some(lock) = self.driver.try_lock(me) else {
            // What it is now is not known; that it is free is what to wait for.
            access(|cx| cx.wait(self.words["driver"], Until::Is(0)));
            return true;
        };
        let step = self.grace.step(self);
        drop(lock);
        !matches!(step, Step::Waiting(_))
    }

    /// One step beside whoever drives; as `Engine::poll`, for one who has run out of patience.
    pub(crate) fn poll_beside(&self) -> bool {
        run().known.take();
        !matches!(self.grace.step(self), Step::Waiting(_))
    }

    /// As `finish`, without ever asking for the lock.
    pub(crate) fn finish_beside(&self, cookie: u64) {
        while !self.grace.is_done(cookie) {
            if !self.poll_beside() {
                let known = run().known.take();
                access(|cx| cx.wait_for_change(&known));
            }
        }
    }

    /// Drives until the cookie is done, sleeping while nothing changes.
    pub(crate) fn finish(&self, cookie: u64, me: usize) {
        while !self.grace.is_done(cookie) {
            if !self.poll(me) {
                let known = run().known.take();
                access(|cx| cx.wait_for_change(&known));
            }
        }
    }

    /// An agent that drives several domains up to the same cookie, and frees the old object of those that
    /// say so. It waits only when all of them wait.
    pub(crate) fn serve(worlds: &[(&World, bool)], cookie: u64) {
        let mut done = vec![false; worlds.len()];
        while done.contains(&false) {
            let mut known = Vec::new();
            let mut moved = false;
            for ((world, frees), done) in worlds.iter().zip(&mut done) {
                if *done {
                    continue;
                }
                let needed = world.words["needed"];
                let wanted = access(|cx| cx.load(needed));
                if wanted < cookie {
                    known.push((needed, wanted));
                } else if world.grace.is_done(cookie) {
                    if *frees {
                        world.free_old();
                    }
                    *done = true;
                } else if world.poll(64) {
                    moved = true;
                } else {
                    known.append(&mut run().known.take());
                }
            }
            if !moved && !known.is_empty() {
                access(|cx| cx.wait_for_change(&known));
            }
        }
    }

    /// Waits for others to drive.
    pub(crate) fn wait(&self, cookie: u64) {
        access(|cx| cx.wait(self.words["seq"], Until::AtLeast(cookie)));
    }

    /// Waits until somebody wants this cookie.
    pub(crate) fn wait_for_request(&self, cookie: u64) {
        access(|cx| cx.wait(self.words["needed"], Until::AtLeast(cookie)));
    }

    pub(crate) fn free_old(&self) {
        access(|cx| cx.free(self.old));
    }

    fn sums(&self, locks: bool) -> [u64; RANKS] {
        let skipped = |rank: usize| match self.twin {
            Twin::NoFirstScan | Twin::NoSecondScan => {
                let first = access(|cx| cx.load(self.inactive_at_start)) as usize;
                if self.twin == Twin::NoFirstScan {
                    rank == first
                } else {
                    rank == 1 - self.grace.rank.get() && rank != first
                }
            }
            _ => false,
        };
        let skipped = [0, 1].map(skipped);
        let high_water = access(|cx| cx.load(self.high_water)) as usize;
        let mut sums = [0; RANKS];
        for slot in self.slots.iter().take(high_water) {
            for (rank, sum) in sums.iter_mut().enumerate().filter(|(rank, _)| !skipped[*rank]) {
                let pair = &slot.pairs[rank];
                let word = if locks { pair.lock.word } else { pair.unlock.word };
                let value = access(|cx| cx.load(word));
                let run = run();
                let mut known = run.known.borrow_mut();
                known.retain(|(other, _)| *other != word);
                known.push((word, value));
                *sum += value;
            }
        }
        sums
    }

    fn barrier(&self) {
        let run = run();
        run.barriers.set(run.barriers.get() + 1);
        match (self.form, self.twin) {
            (_, Twin::NoHeavyBarrier) => {}
            (Form::Fence, _) | (_, Twin::FenceForMembarrier) => access(Context::fence),
            (Form::Membarrier, _) => access(Context::membarrier),
        }
    }
}

impl Readers for World {
    fn unlocks(&self) -> [u64; RANKS] {
        self.sums(self.twin == Twin::LocksFirst)
    }

    fn locks(&self) -> [u64; RANKS] {
        let sums = self.sums(self.twin != Twin::LocksFirst);
        if self.twin == Twin::BarrierLast {
            self.barrier();
        }
        door::catch_up();
        sums
    }

    fn heavy_barrier(&self) -> bool {
        if self.twin != Twin::BarrierLast {
            self.barrier();
        }
        true
    }
}

thread_local! {
    /// The counters that a handler on this thread would use, in this run.
    static PAIR_OF_SIGNAL: Cell<Option<[Word; 2]>> = const { Cell::new(None) };
}

/// Between the halves of an increment that is two instructions: a signal comes or not, once.
pub(crate) fn perhaps_a_signal() {
    let Some(pair) = PAIR_OF_SIGNAL.take() else { return };
    if access(|cx| cx.choose(2)) == 1 {
        for word in pair {
            access(|cx| cx.increment(word));
        }
    } else {
        PAIR_OF_SIGNAL.set(Some(pair));
    }
}
