//! Domains that are wrong on purpose (feature `canary`): the whole engine as it ships, but for one part of
//! its scans. A torture test that does not catch them proves nothing; `tests/torture.rs` does.

use crate::counters::RANKS;
use crate::grace::Readers;
use crate::region::Region;
use crate::sync::{Ordering, fence};

/// What a domain lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Canary {
    /// Nothing.
    None,
    /// It looks at no reader.
    NeverWaits,
    /// It looks at one of the two ranks.
    OneRank,
    /// It reads the `lock`s before the `unlock`s.
    LocksFirst,
    /// There is no heavy barrier between the halves of a scan.
    NoHeavyBarrier,
    /// The heavy barrier is a fence of the updater's own.
    FenceForMembarrier,
}

impl Canary {
    /// What the first half of a scan sees, if that is wrong.
    pub(crate) fn unlocks(self, region: &Region) -> Option<[u64; RANKS]> {
        match self {
            Self::NeverWaits => Some([0; RANKS]),
            Self::OneRank => Some([region.unlocks()[0], 0]),
            Self::LocksFirst => Some(region.locks()),
            _ => None,
        }
    }

    /// What the second half of a scan sees, if that is wrong.
    pub(crate) fn locks(self, region: &Region) -> Option<[u64; RANKS]> {
        match self {
            Self::NeverWaits => Some([0; RANKS]),
            Self::OneRank => Some([region.locks()[0], 0]),
            Self::LocksFirst => Some(region.unlocks()),
            _ => None,
        }
    }

    pub(crate) fn has_no_heavy_barrier(self) -> bool {
        if self == Self::FenceForMembarrier {
            // Pairs with nothing: that is what is wrong.
            fence(Ordering::SeqCst);
        }
        matches!(self, Self::NoHeavyBarrier | Self::FenceForMembarrier)
    }
}
