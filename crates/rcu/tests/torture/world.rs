//! What is tortured, and the oracle.
//!
//! Objects live in a pool that is never freed, so that a wrong engine shows as a *violation* and not
//! as undefined behaviour. Three things are violations:
//! * a reader finds an object that is *poisoned*, which is what is done to one after its grace period;
//! * an object changes while a reader is looking;
//! * an object is *too old*: a grace period began after its removal and ended before the section in which
//!   it was found. This needs no poison, and so no callback: it is the promise itself.
//!
//! As in the kernel's rcutorture, the ages of what readers saw are counted: how many grace periods
//! ended between an object's removal and the end of the section that had found it. 0 and 1 are right (the
//! one may have begun before the removal), 2 is a violation.

use crate::delays::Random;
use gracepoint_rcu::Domain;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

pub(crate) const OBJECTS: usize = 4096;
pub(crate) const PLACES: usize = 8;
const POISON: u64 = 0xdead_dead_dead_dead;
/// Ages above the last are counted with it.
const AGES: usize = 6;

/// An object is alive under a number of its own, or poisoned.
pub(crate) struct Object {
    number: AtomicU64,
    /// One more than `World::begun` and `World::ended` were just after the removal; 0 before.
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A domain, what it protects, and what was seen.
pub(crate) struct World {
    pub(crate) domain: Domain,
    objects: [Object; OBJECTS],
    pub(crate) places: [AtomicPtr<Object>; PLACES],
    pub(crate) free: Mutex<Vec<usize>>,
    pub(crate) numbers: AtomicU64,
    /// Grace periods of `pass_time`, which follow each other.
    begun: AtomicU64,
    ended: AtomicU64,
    pub(crate) violations: AtomicUsize,
    pub(crate) sections: AtomicUsize,
    pub(crate) poisoned: AtomicUsize,
    ages: [AtomicU64; AGES],
    /// In a forked child the free list may be locked by a thread that does not exist.
    pub(crate) is_child: AtomicBool,
}

impl World {
    pub(crate) const fn new(domain: Domain) -> Self {
        Self {
            domain,
            objects: [const {
                Object {
                    number: AtomicU64::new(POISON),
                    begun: AtomicU64::new(0),
                    ended: AtomicU64::new(0),
                }
            }; OBJECTS],
            places: [const { AtomicPtr::new(std::ptr::null_mut()) }; PLACES],
            free: Mutex::new(Vec::new()),
            numbers: AtomicU64::new(1),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            violations: AtomicUsize::new(0),
            sections: AtomicUsize::new(0),
            poisoned: AtomicUsize::new(0),
            ages: [const { AtomicU64::new(0) }; AGES],
            is_child: AtomicBool::new(false),
        }
    }

    pub(crate) fn fill(&self) {
        let mut free = self.free.lock().expect("the free list");
        free.clear();
        free.extend(0..OBJECTS);
        drop(free);
        for place in &self.places {
            place.store(self.fresh().expect("an object"), Ordering::Release);
        }
    }

    pub(crate) fn fresh(&self) -> Option<*mut Object> {
        let index = self.free.lock().expect("the free list").pop()?;
        let object = &self.objects[index];
        object.begun.store(0, Ordering::Relaxed);
        object.ended.store(0, Ordering::Relaxed);
        object.number.store(self.numbers.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(std::ptr::from_ref(object).cast_mut())
    }

    /// Publishes `new` in a place; what was there is removed by that.
    pub(crate) fn replace(&'static self, place: usize, new: *mut Object) -> &'static Object {
        let old = self.places[place].swap(new, Ordering::SeqCst);
        // SAFETY: as in `object_at`.
        let old: &'static Object = unsafe { &*old };
        // After the swap, in the one order of SeqCst: a later grace period began after the removal.
        let begun = self.begun.load(Ordering::SeqCst);
        old.ended.store(self.ended.load(Ordering::SeqCst) + 1, Ordering::Relaxed);
        old.begun.store(begun + 1, Ordering::Release);
        old
    }

    /// One grace period, by which ages are measured. By one thread only.
    pub(crate) fn pass_time(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.domain.synchronize().expect("outside");
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// What `free` is to real memory.
    pub(crate) fn poison(&self, object: &Object) {
        object.number.store(POISON, Ordering::Relaxed);
        self.poisoned.fetch_add(1, Ordering::Relaxed);
        if self.is_child.load(Ordering::Relaxed) {
            return;
        }
        let offset = std::ptr::from_ref(object).addr() - self.objects.as_ptr().addr();
        self.free.lock().expect("the free list").push(offset / size_of::<Object>());
    }

    fn object_at(&self, place: usize) -> &Object {
        // SAFETY: places hold addresses of `self.objects`, which are never freed; only
        // their contents tell whether they are alive.
        unsafe { &*self.places[place].load(Ordering::Acquire) }
    }

    fn is_good(&self, object: &Object, number: u64) -> bool {
        if number == POISON || object.number.load(Ordering::Relaxed) != number {
            return false;
        }
        let begun = object.begun.load(Ordering::Acquire);
        if begun == 0 {
            self.ages[0].fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let ended = self.ended.load(Ordering::SeqCst);
        let age = (ended + 1).saturating_sub(object.ended.load(Ordering::Relaxed)) as usize;
        self.ages[age.min(AGES - 1)].fetch_add(1, Ordering::Relaxed);
        ended < begun
    }

    /// One section: what it finds must be alive, stay the same, and not be too old. `linger` is
    /// what is done in the meantime.
    pub(crate) fn read(&self, place: usize, linger: impl FnOnce()) {
        let guard = self.domain.read();
        let object = self.object_at(place);
        let number = object.number.load(Ordering::Relaxed);
        linger();
        let good = self.is_good(object, number);
        drop(guard);
        self.judge(good);
    }

    /// Sections that nest, and that end in the order in which they began.
    pub(crate) fn read_overlapping(&self, random: &Random) {
        let place = random.below(PLACES as u64) as usize;
        let first = self.domain.read();
        random.delay();
        let a = self.object_at(place);
        let number = a.number.load(Ordering::Relaxed);
        let second = self.domain.read();
        let b = self.object_at(place);
        let later = b.number.load(Ordering::Relaxed);
        self.read(place, || random.delay());
        let good = self.is_good(a, number);
        drop(first);
        random.delay();
        let good = self.is_good(b, later) && good;
        drop(second);
        self.judge(good);
    }

    fn judge(&self, good: bool) {
        self.sections.fetch_add(1, Ordering::Relaxed);
        if !good {
            self.violations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `0: 90000, 1: 120, 2: 0, …`
    pub(crate) fn ages(&self) -> String {
        let count =
            |(age, count): (usize, &AtomicU64)| format!("{age}: {}", count.load(Ordering::Relaxed));
        self.ages.iter().enumerate().map(count).collect::<Vec<_>>().join(", ")
    }
}
