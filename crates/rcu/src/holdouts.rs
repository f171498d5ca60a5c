//! Whom a grace period waits for, as values, and since when that is known.

use crate::counters::{self, RANKS};
use crate::domain::Domain;
use crate::region::{Reader, Region};
use crate::threads::{self, ThreadInfo};
use std::collections::BTreeMap;
use std::fmt;
use std::ptr;

/// The owner of owned sections that have no entry of their own; see [`Domain::read_owned`].
const NAMELESS: &str = "(owners without a name)";

/// A thread, or an owner, with open read sections that the running grace period waits for.
///
/// Its sections are certain: each was open while [`Domain::holdouts`] looked. When waiting
/// for sections of a rank that still gets new ones, a few of those may be among them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holdout {
    /// The domain's name.
    pub domain: &'static str,
    /// The thread's index; `None` for threads that have none, which are counted together, and for owners.
    pub index: Option<u32>,
    /// Who it is, if that is known.
    pub thread: Option<ThreadInfo>,
    /// The owner's name, if the sections are those of [`OwnedGuard`](crate::OwnedGuard)s.
    pub owner: Option<&'static str>,
    /// The rank that its sections count in, 0 or 1.
    pub rank: usize,
    /// How many sections it has open.
    pub sections: u64,
    /// How many of an owner's sections this process was forked with, at most; see
    /// [`Domain::forget_inherited`].
    pub inherited: u64,
}

/// For people: `thread 4242 (worker-3) is inside 1 read section of domain "gracepoint"`.
impl fmt::Display for Holdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, thread, sections, inherited, .. } = self;
        let plural = if *sections == 1 { "" } else { "s" };
        match (thread, self.owner) {
            (_, Some(owner)) => write!(f, "owner {owner:?} has")?,
            (Some(ThreadInfo { tid, name, ended: false, .. }), _) => {
                write!(f, "thread {tid} ({name}) is inside")?;
            }
            (Some(ThreadInfo { tid, name, ended: true, .. }), _) => {
                write!(f, "thread {tid} ({name}) ended inside")?;
            }
            (None, _) => write!(f, "an unregistered thread is inside")?,
        }
        write!(f, " {sections} read section{plural} of domain {domain:?}")?;
        if self.owner.is_some() {
            f.write_str(" open")?;
        }
        if *inherited != 0 {
            write!(f, ", {inherited} from before the fork")?;
        }
        Ok(())
    }
}

/// Whose sections, so that they are recognised when they are seen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Thread(u32),
    Unregistered,
    /// The address of its entry.
    Owner(usize),
    Nameless,
}

/// Open sections of one reader in one rank.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    /// When the one that was seen first, and is still open, was seen: by `clock::now`.
    pub(crate) since: u64,
    /// Sections that had been entered then.
    entered: u64,
    /// It was told already, to whom it concerns.
    pub(crate) told: bool,
}

/// What was seen, look by look.
///
/// A section has no name, but counts tell whether one that was seen is still there: while fewer were left in
/// all than had been entered when it was seen, at least one of those is open.
#[derive(Debug)]
pub(crate) struct Sightings(BTreeMap<(Key, usize), Sighting>);

impl Sightings {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Looks at all readers; `see` is given those who certainly have sections open.
    pub(crate) fn look(
        &mut self,
        region: &Region,
        now: u64,
        mut see: impl FnMut(Reader<'_>, usize, u64, &mut Sighting),
    ) {
        let mut before = std::mem::take(&mut self.0);
        for (reader, slots) in region.readers() {
            for rank in 0..RANKS {
                let sections = counters::certainly_open(slots, rank);
                if sections == 0 {
                    continue;
                }
                let place = (key(reader), rank);
                let known = before.remove(&place).filter(|sighting| {
                    let left = counters::left(slots, rank);
                    sighting.entered.wrapping_sub(left).cast_signed() > 0
                });
                let mut sighting = known.unwrap_or_else(|| Sighting {
                    since: now,
                    entered: counters::entered(slots, rank),
                    told: false,
                });
                see(reader, rank, sections, &mut sighting);
                self.0.insert(place, sighting);
            }
        }
    }
}

fn key(reader: Reader<'_>) -> Key {
    match reader {
        Reader::Thread(index) => Key::Thread(index),
        Reader::Unregistered => Key::Unregistered,
        Reader::Owner(owner) => Key::Owner(ptr::from_ref(owner).addr()),
        Reader::Nameless => Key::Nameless,
    }
}

/// What is told of a reader with this many sections open.
pub(crate) fn holdout(
    domain: &'static str,
    region: &Region,
    reader: Reader<'_>,
    rank: usize,
    sections: u64,
) -> Holdout {
    let mut holdout =
        Holdout { domain, index: None, thread: None, owner: None, rank, sections, inherited: 0 };
    match reader {
        Reader::Thread(index) => {
            holdout.index = Some(index);
            holdout.thread = threads::thread_info(index);
        }
        Reader::Unregistered => {}
        Reader::Owner(owner) => {
            holdout.owner = Some(owner.name().unwrap_or(NAMELESS));
            holdout.inherited = owner.inherited(rank).min(sections);
        }
        Reader::Nameless => {
            holdout.owner = Some(NAMELESS);
            holdout.inherited = region.watch.inherited_nameless(rank).min(sections);
        }
    }
    holdout
}

impl Domain {
    /// Whom the running grace period waits for; empty if none is running. Allocates.
    /// [`stalls`](Self::stalls) says more.
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
        for (reader, slots) in region.readers() {
            for rank in (0..RANKS).filter(|rank| waited & (1 << rank) != 0) {
                let sections = counters::certainly_open(slots, rank);
                if sections != 0 {
                    found.push(holdout(self.name(), region, reader, rank, sections));
                }
            }
        }
        found
    }
}
