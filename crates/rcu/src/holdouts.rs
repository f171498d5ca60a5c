//! Whom a grace period waits for, as values.

use crate::counters::{Pair, RANKS, Slot};
use crate::domain::Domain;
use crate::threads::{self, ThreadInfo};
use std::fmt;

/// A thread with open read sections that the running grace period waits for.
///
/// Its sections are certain: each was open while [`Domain::holdouts`] looked. When waiting
/// for sections of a rank that still gets new ones, a few of those may be among them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holdout {
    /// The domain's name.
    pub domain: &'static str,
    /// The thread's index; `None` for threads that have none, which are counted together.
    pub index: Option<u32>,
    /// Who it is, if that is known.
    pub thread: Option<ThreadInfo>,
    /// The rank that its sections count in, 0 or 1.
    pub rank: usize,
    /// How many sections it has open.
    pub sections: u64,
}

/// For people: `thread 4242 (worker-3) is inside 1 read section of domain "gracepoint"`.
impl fmt::Display for Holdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, thread, sections, .. } = self;
        let plural = if *sections == 1 { "" } else { "s" };
        match thread {
            Some(ThreadInfo { tid, name, ended: false, .. }) => {
                write!(f, "thread {tid} ({name}) is inside")?;
            }
            Some(ThreadInfo { tid, name, ended: true, .. }) => {
                write!(f, "thread {tid} ({name}) ended inside")?;
            }
            None => write!(f, "an unregistered thread is inside")?,
        }
        write!(f, " {sections} read section{plural} of domain {domain:?}")
    }
}

impl Domain {
    /// Whom the running grace period waits for; empty if none is running. Allocates.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// let guard = DOMAIN.read();
    /// let _cookie = DOMAIN.start_poll();
    /// while DOMAIN.poll() == gracepoint_rcu::Progress::Advanced {}
    /// let holdouts = DOMAIN.holdouts();
    /// assert_eq!(holdouts[0].index, gracepoint_rcu::thread_index());
    /// println!("{}", holdouts[0]);
    /// # drop(guard);
    /// ```
    #[must_use]
    pub fn holdouts(&self) -> Vec<Holdout> {
        let region = self.region();
        let waited = region.engine.grace.waited_ranks();
        let mut found = Vec::new();
        let mut look = |index: Option<u32>, slot: &Slot| {
            for rank in (0..RANKS).filter(|rank| waited & (1 << rank) != 0) {
                let sections = Pair::certainly_open(&slot.pairs[rank]);
                if sections != 0 {
                    let thread = index.and_then(threads::thread_info);
                    found.push(Holdout { domain: self.name(), index, thread, rank, sections });
                }
            }
        };
        for (index, slot) in (0..).zip(region.slots()) {
            look(Some(index), slot);
        }
        look(None, &region.shared);
        found
    }
}
