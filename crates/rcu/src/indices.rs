//! The bitmap of thread indices that are taken.
//!
//! Orderings: giving back is a release on the bitmap and taking is an acquire. Without
//! that pair the new owner could read a counter older than the old owner's last increment
//! and, since increments are not atomic between threads, lose it: a grace period would
//! stall, or end too early. (Both twins are in `tests/loom.rs`.)

use crate::sync::{AtomicU64, Ordering};

/// Takes the lowest free index.
pub(crate) fn claim(taken: &[AtomicU64]) -> Option<u32> {
    for (position, word) in taken.iter().enumerate() {
        let mut seen = word.load(Ordering::Relaxed);
        while seen != u64::MAX {
            let bit = seen.trailing_ones();
            // Acquire: pairs with the release in `put_back`; see the module's text.
            match word.compare_exchange_weak(
                seen,
                seen | 1 << bit,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(position as u32 * 64 + bit),
                Err(now) => seen = now,
            }
        }
    }
    None
}

/// Gives an index back.
pub(crate) fn put_back(taken: &[AtomicU64], index: u32) {
    let bit = 1 << (index % 64);
    // Release: pairs with the acquire in `claim`.
    taken[index as usize / 64].fetch_and(!bit, Ordering::Release);
}
