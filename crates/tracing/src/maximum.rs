//! The maximum level of `log`: as high as somebody wants records, and no higher, so that others cost a comparison.
//!
//! It is ours to set only where the logger is ours ([`install`]). Any other logger, that of `tracing-log` among them, has
//! others to serve beside us, so its level is left alone.
//!
//! # Who wants records
//! * A place that is on, for a session or a probe: those of its level.
//! * A session that is on and takes in what comes (`dynamic::awaited`): those up to its level.
//! * Whoever will ask which places there are. A place is known when it first makes a record, so while we are *learning*
//!   all records come. Learning begins when the logger is installed and whenever a tool asks for the list, and
//!   ends when [`ENOUGH`] records in a row were of places known before, and off, or when a session begins. A place whose
//!   first record comes later is not in the list until the next time; a recording takes it in all the same, since it
//!   is awaited then.
//! * The program, if it has set the level itself. That is found out when we come to set it: it is not what we set
//!   last. Nobody else needs the level, so a recording raises it for its time; afterwards it is the program's
//!   again. There is no learning beyond it.
//!
//! # No record is lost to an old answer
//! Whatever makes a record wanted is published first, and then [`follow`] is called, before whoever asked for it is
//! told that it is done. `follow` looks what is wanted and stores the level under one lock: of two that cross, the second
//! one sees both changes, and what it stores stays. (Looking before taking the lock is the twin in the tests: the first
//! one's old answer is stored last.)

use crate::records;
use gracepoint::dynamic::{self, Level};
use log::LevelFilter;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32};
use std::sync::{Mutex, PoisonError};

/// So many records in a row that were of no news to anybody end the learning.
pub(crate) const ENOUGH: u32 = 4096;

/// The level as we left it.
struct Set {
    /// The logger is ours.
    ours: bool,
    last: LevelFilter,
    /// What the program set itself.
    programs: Option<LevelFilter>,
}

static SET: Mutex<Set> = Mutex::new(Set { ours: false, last: LevelFilter::Off, programs: None });
/// Whether the places that make records are being learnt. Written under the lock.
static LEARNING: AtomicBool = AtomicBool::new(false);
/// Records in a row that were no news.
static NO_NEWS: AtomicU32 = AtomicU32::new(0);
/// The most verbose level that sessions await; 0 for none.
static AWAITED: AtomicU8 = AtomicU8::new(0);

/// Our logger is installed.
pub(crate) fn install() {
    SET.lock().unwrap_or_else(PoisonError::into_inner).ours = true;
    learn();
}

/// What is wanted may have changed: when this returns, the level follows.
pub(crate) fn follow() {
    let wanted = || {
        let learning = LEARNING.load(Relaxed) && dynamic::awaited().is_none();
        wanted(learning)
    };
    in_turn(&SET, wanted, |set, wanted| set.put(wanted));
}

/// A tool asks which places there are.
pub(crate) fn learn() {
    NO_NEWS.store(0, Relaxed);
    in_turn(&SET, || wanted(true), |set, wanted| set.put(wanted));
}

/// There is a new place.
pub(crate) fn has_news() {
    NO_NEWS.store(0, Relaxed);
}

/// A record came that nobody wants, from a place that is known.
#[inline]
pub(crate) fn no_news() {
    if LEARNING.load(Relaxed) && NO_NEWS.fetch_add(1, Relaxed) + 1 >= ENOUGH {
        learnt();
    }
}

#[cold]
fn learnt() {
    in_turn(&SET, || wanted(false), |set, wanted| set.put(wanted));
}

/// Whether a session records new places of this level, if its patterns match them.
pub(crate) fn is_awaited(level: Level) -> bool {
    AWAITED.load(Relaxed) >= level as u8
}

/// What is wanted.
struct Wanted {
    /// By sessions and probes.
    recorded: LevelFilter,
    /// To learn of places.
    learnt: LevelFilter,
}

/// Looks what is wanted, where places are to be learnt or not. Under the lock.
fn wanted(learning: bool) -> Wanted {
    LEARNING.store(learning, Relaxed);
    let awaited = dynamic::awaited().map_or(0, |level| level as u8);
    AWAITED.store(awaited, Relaxed);
    let on = records::most_verbose_on().map_or(0, |level| level as u8);
    let learnt = if learning { LevelFilter::Trace } else { LevelFilter::Off };
    Wanted { recorded: filter(awaited.max(on)), learnt }
}

fn filter(level: u8) -> LevelFilter {
    LevelFilter::iter().nth(level.into()).unwrap_or(LevelFilter::Trace)
}

/// Looks what is wanted and stores it, one at a time.
fn in_turn<S, W>(set: &Mutex<S>, wanted: impl FnOnce() -> W, put: impl FnOnce(&mut S, W)) {
    let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = wanted();
    put(&mut set, wanted);
}

impl Set {
    fn put(&mut self, wanted: Wanted) {
        if self.ours {
            let level = self.choose(log::max_level(), &wanted);
            log::set_max_level(level);
        }
    }

    /// The level to set where it is `now`.
    fn choose(&mut self, now: LevelFilter, wanted: &Wanted) -> LevelFilter {
        if now != self.last {
            self.programs = Some(now);
        }
        self.last = wanted.recorded.max(self.programs.unwrap_or(wanted.learnt));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::Ordering::SeqCst;

    fn set() -> Set {
        Set { ours: true, last: LevelFilter::Off, programs: None }
    }

    #[test]
    fn the_level_is_what_is_wanted_and_otherwise_the_programs() {
        use LevelFilter::{Debug, Info, Off, Trace, Warn};
        let mut level = Off; // the program's, as `log` has it at first
        let mut set = set();
        let mut put = |level: &mut LevelFilter, recorded, learnt| {
            *level = set.choose(*level, &Wanted { recorded, learnt });
            *level
        };
        assert_eq!(put(&mut level, Off, Trace), Trace, "learning");
        assert_eq!(put(&mut level, Off, Off), Off, "nobody wants any");
        assert_eq!(put(&mut level, Debug, Off), Debug, "recorded");
        assert_eq!(put(&mut level, Info, Off), Info, "less is");
        assert_eq!(put(&mut level, Off, Off), Off);
        level = Warn; // by the program
        assert_eq!(put(&mut level, Off, Trace), Warn, "nothing is learnt beyond it");
        assert_eq!(put(&mut level, Trace, Off), Trace, "a recording has more");
        assert_eq!(put(&mut level, Off, Off), Warn, "and it is the program's again");
        level = Off; // by the program, in the end
        assert_eq!(put(&mut level, Off, Trace), Off);
        assert_eq!(put(&mut level, Info, Off), Info);
        assert_eq!(put(&mut level, Off, Off), Off);
    }

    #[test]
    fn levels_and_numbers_agree() {
        let of = |level: Level| filter(level as u8).as_str().to_lowercase();
        assert!(Level::ALL.iter().all(|level| of(*level) == level.name()));
        assert_eq!(filter(0), LevelFilter::Off);
    }

    /// What is stored after two changes that cross: the first one looks, and is held up while the other thread makes
    /// its change and, but for the twin, waits for its turn.
    fn crossing(twin: bool) -> u32 {
        let (wanted, stored) = (AtomicU32::new(1), Mutex::new(0));
        let (looked, go) = (Barrier::new(2), Barrier::new(2));
        let store = |stored: &mut u32, wanted: u32| *stored = wanted;
        let turn = |look: &dyn Fn() -> u32| match twin {
            true => {
                let wanted = look();
                in_turn(&stored, || wanted, store);
            }
            false => in_turn(&stored, look, store),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                turn(&|| {
                    let old = wanted.load(SeqCst);
                    looked.wait();
                    go.wait();
                    old
                });
            });
            looked.wait();
            wanted.store(2, SeqCst);
            if twin {
                turn(&|| wanted.load(SeqCst)); // it need not wait for anybody
                go.wait();
            } else {
                assert!(stored.try_lock().is_err(), "whoever looks has the lock");
                let second = scope.spawn(|| turn(&|| wanted.load(SeqCst)));
                go.wait();
                second.join().expect("it has its turn");
            }
        });
        stored.into_inner().expect("nobody panicked")
    }

    #[test]
    fn an_old_answer_is_never_stored_last() {
        assert_eq!(crossing(false), 2);
        assert_eq!(crossing(true), 1, "the twin, which looks before its turn, loses the change");
    }
}
