//! Programs about the small protocols beside the engine; see `orderings.rs`.

use super::{meant, waker};
use crate::Object;
use crate::door::weaken;
use crate::fast::Fast;
use crate::jobs::Jobs;
use crate::marker::Marker;
use crate::observer::{Event, Observed, Observer};
use crate::record::{Known, LIVE};
use crate::trylock::TryLock;
use crate::waiters::{Entry, Wait};
use crate::without_readers;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize as Count, Ordering};

/// A callback that reaches a marker, against the task that waits for it.
pub(crate) fn marker_against_task(count: &Count) {
    let (marker, object) = (Arc::new(Marker::new()), Arc::new(Object::new(0)));
    let callback = {
        let (marker, object) = (Arc::clone(&marker), Arc::clone(&object));
        thread::spawn(move || {
            object.write(|value| *value = 1);
            marker.reach();
        })
    };
    let (woken, waker) = waker();
    let mut ready = marker.is_reached();
    if ready {
        object.read(|value| assert_eq!(*value, 1));
    } else {
        marker.waits(Some(waker));
        ready = marker.is_reached();
    }
    callback.join().expect("the callback");
    assert!(ready || woken.0.load(Ordering::Relaxed) != 0, "lost wakeup");
    marker.waits(None);
    meant(count);
}

/// Two threads that try to have the same lock.
pub(crate) fn two_owners_of_a_lock(count: &Count) {
    let lock = Arc::new(TryLock::new(0));
    let other = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || add_under(&lock, 64))
    };
    if add_under(&lock, 32) && other.join().expect("the other") {
        meant(count);
    }
}

/// The same, where one has the lock once more, for a fork.
pub(crate) fn a_lock_across_a_fork(count: &Count) {
    let lock = Arc::new(TryLock::new(0));
    let forks = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || {
            add_under(&lock, 64) && lock.try_lock_for_fork(64) && lock.unlock_after_fork(64)
        })
    };
    let added = add_under(&lock, 32);
    if forks.join().expect("who forks") && added {
        meant(count);
    }
}

fn add_under(lock: &TryLock<u32>, me: usize) -> bool {
    // What loom has to say is said when the lock is free again.
    let outcome = lock
        .try_lock(me)
        .map(|mut held| catch_unwind(AssertUnwindSafe(|| held.with(|value| *value += 1))));
    assert!(!matches!(outcome, Some(Err(_))), "two owners of a lock, out of order");
    outcome.is_some()
}

/// The places of one block, run by two runners, while the thread that gave them out ends.
pub(crate) fn block_against_runners(count: &Count) {
    without_readers::block_against_runners();
    meant(count);
}

/// An observer that is set while another thread has something to tell.
pub(crate) fn observer_is_whole(count: &Count) {
    struct Told(Object<u32>, std::sync::Arc<Count>);

    impl Observer for Told {
        fn event(&self, _: &str, _: &Event<'_>) {
            // A panic in here would end in `tell`.
            let read = catch_unwind(AssertUnwindSafe(|| self.0.read(|value| *value)));
            self.1.store(if read.is_ok() { 1 } else { 2 }, Ordering::Relaxed);
        }
    }

    weaken::EVERYTHING.set(true);
    let (observed, outcome) = (Arc::new(Observed::new()), std::sync::Arc::new(Count::new(0)));
    let told: &'static Told =
        Box::leak(Box::new(Told(Object::new(0), std::sync::Arc::clone(&outcome))));
    let setter = {
        let observed = Arc::clone(&observed);
        thread::spawn(move || {
            told.0.write(|value| *value = 1);
            observed.set(told);
        })
    };
    observed.tell(&Event::GracePeriodBegan { number: 1 });
    setter.join().expect("who sets it");
    match outcome.load(Ordering::Relaxed) {
        0 => {}
        1 => meant(count),
        _ => panic!("what was written before the observer was set is not seen"),
    }
    observed.clear();
    // SAFETY: leaked above, and told nothing any more.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(told).cast_mut()) });
}

/// Who finds the fast path open finds the region whole.
pub(crate) fn offered_region_is_whole(count: &Count) {
    let (fast, region) = (Arc::new(Fast::new()), Arc::new(Object::new(0)));
    let first = {
        let (fast, region) = (Arc::clone(&fast), Arc::clone(&region));
        thread::spawn(move || {
            region.write(|value| *value = 1);
            fast.offer(std::ptr::without_provenance_mut(1), || false);
        })
    };
    if !fast.get().is_null() {
        region.read(|value| assert_eq!(*value, 1));
        meant(count);
    }
    first.join().expect("the first");
}

/// The fast path does not stay open when it was withdrawn while it was offered.
pub(crate) fn offered_and_withdrawn(count: &Count) {
    let (fast, noting) = (Arc::new(Fast::new()), Arc::new(AtomicUsize::new(0)));
    let offers = {
        let (fast, noting) = (Arc::clone(&fast), Arc::clone(&noting));
        thread::spawn(move || {
            let is_noting = || noting.load(Ordering::Relaxed) != 0;
            if !is_noting() {
                fast.offer(std::ptr::without_provenance_mut(1), is_noting);
                return true;
            }
            false
        })
    };
    noting.store(1, Ordering::Relaxed);
    fast.withdraw();
    if offers.join().expect("who offers") {
        meant(count);
    }
    assert!(fast.get().is_null(), "the fast path stays open");
}

/// A late job against the end of its domain.
pub(crate) fn job_against_end(count: &Count) {
    let (jobs, domain) = (Arc::new(Jobs::new()), Arc::new(Object::new(0)));
    let job = {
        let (jobs, domain) = (Arc::clone(&jobs), Arc::clone(&domain));
        let generation = jobs.generation();
        thread::spawn(move || jobs.enter(generation, || domain.write(|value| *value = 1)))
    };
    jobs.end(|_| thread::yield_now());
    domain.write(|value| *value = 2);
    job.join().expect("the job");
    domain.read(|value| assert_eq!(*value, 2, "a job of a domain that has ended, out of order"));
    meant(count);
}

/// A record that changes hands while it is read.
pub(crate) fn occupied_record(count: &Count) {
    changed_record(count, |known, _| known.occupy(2, [2; 16]));
}

/// A record whose name is read again by another.
pub(crate) fn amended_record(count: &Count) {
    changed_record(count, |known, version| assert!(known.amend(version, LIVE, Some([2; 16]))));
}

fn changed_record(count: &Count, change: fn(&Known, u32)) {
    let known = Arc::new(Known::new());
    known.occupy(1, [1; 16]);
    let before = known.read().expect("whole");
    let writer = {
        let known = Arc::clone(&known);
        thread::spawn(move || change(&known, before.version))
    };
    if let Some(read) = known.read() {
        let name = if read.version == before.version { [1; 16] } else { [2; 16] };
        assert_eq!(read.name, name, "a record is torn");
        meant(count);
    }
    writer.join().expect("the writer");
}

/// A thread that waits for another domain than before, while its entry is read.
pub(crate) fn changed_wait(count: &Count) {
    let wait = |number: usize| Wait {
        region: std::ptr::without_provenance(number * 64),
        cookie: number as u64,
        since: number as u64,
        kind: number,
        call: number,
    };
    let entry = Arc::new(Entry::new());
    entry.set(wait(1));
    let thread = {
        let entry = Arc::clone(&entry);
        thread::spawn(move || entry.set(wait(2)))
    };
    let seen = entry.get();
    if !seen.region.is_null() {
        let number = seen.region.addr() / 64;
        let words = [seen.cookie as usize, seen.since as usize, seen.kind, seen.call];
        assert_eq!(words, [number; 4], "an entry is torn");
        meant(count);
    }
    thread.join().expect("the thread");
}
