//! Switching sites: NOP to jump and back, in the running process.
//!
//! # Protocol (one batch)
//! 1. The pages of all sites of the batch become writable, and stay readable and executable: other
//!    threads go on executing them.
//! 2. Each site changes by one aligned 8-byte store. The site's 5 bytes lie within that word, so a
//!    processor that fetches the word sees the old instruction or the new one.
//! 3. The pages become read-only again.
//! 4. One `membarrier(SYNC_CORE)` for the batch: when it returns, every running thread has
//!    serialised its instruction stream, so no later fetch sees the old instruction; a thread that
//!    is not running serialises before it runs again.
//!
//! A thread that fetched the old instruction before step 4 may still be in the cold block after
//! it. That is not this file's concern: what the cold block uses is protected by grace periods.
//!
//! The caller holds the tracer's lock: two batches would undo each other's protection changes.

use std::fmt;

/// Why sites could not be switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PatchError(pub(crate) String);

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(not(gp_branch))]
pub(crate) use code::switch;

#[cfg(gp_branch)]
pub(crate) fn switch(
    records: impl Iterator<Item = (crate::module::Found, bool)>,
) -> Result<(), PatchError> {
    for (found, on) in records {
        found.record.site().key.switch(on);
    }
    Ok(())
}

/// How this build switches sites: `patch` or `branch`.
pub(crate) fn patching() -> &'static str {
    if cfg!(gp_branch) { "branch" } else { "patch" }
}

#[cfg(not(gp_branch))]
mod code {
    use super::PatchError;
    use crate::arch::{NOP, fits_one_word, jump};
    use crate::module::Found;
    use crate::sys;
    use std::ops::Range;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::{Relaxed, Release};

    /// A word of code and what it becomes.
    struct Change {
        module: usize,
        word: usize,
        shift: usize,
        bytes: [u8; 5],
    }

    /// Switches each record's site on or off, as one batch.
    ///
    /// # Errors
    /// When the system refuses to make code writable or to synchronise instruction streams. Then
    /// no site has changed.
    pub(crate) fn switch(records: impl Iterator<Item = (Found, bool)>) -> Result<(), PatchError> {
        let changes: Vec<Change> = records.filter_map(|(found, on)| change(found, on)).collect();
        if changes.is_empty() {
            return Ok(());
        }
        if !gracepoint_rcu::heavy_barrier_code() {
            return Err(PatchError(
                "this system refuses membarrier(SYNC_CORE), which live patching needs; build the \
                 program with GRACEPOINT_PATCH=branch"
                    .into(),
            ));
        }
        let ranges = ranges(&changes);
        for (done, range) in ranges.iter().enumerate() {
            if let Err(error) = sys::protect_code(range.clone(), true) {
                // The one that failed may have changed in part.
                for range in &ranges[..=done] {
                    let _ = sys::protect_code(range.clone(), false);
                }
                return Err(PatchError(format!(
                    "this system refuses to make code writable ({error}); build the program with \
                     GRACEPOINT_PATCH=branch"
                )));
            }
        }
        for change in &changes {
            store(change);
        }
        for range in &ranges {
            // Failing here leaves pages writable that hold the right code; nothing can be done.
            let _ = sys::protect_code(range.clone(), false);
        }
        gracepoint_rcu::heavy_barrier_code();
        Ok(())
    }

    /// What to write for `record`; `None` where it already is so, or the site is not ours to patch.
    fn change(Found { module, record }: Found, on: bool) -> Option<Change> {
        let code = record.code()?;
        let wanted = if on { jump(code, record.cold())? } else { NOP };
        if !fits_one_word(code) {
            return None;
        }
        let (word, shift) = (code & !7, (code & 7) * 8);
        // SAFETY: a record's code is a mapped, aligned word of its object's text.
        let now = unsafe { AtomicU64::from_ptr(word as *mut u64) }.load(Relaxed);
        let mut current = [0; 5];
        current.copy_from_slice(&(now >> shift).to_le_bytes()[..5]);
        let expected = current == NOP || Some(current) == jump(code, record.cold());
        // Somebody else's bytes (a debugger's breakpoint, say) are left alone.
        (expected && current != wanted).then_some(Change { module, word, shift, bytes: wanted })
    }

    fn store(change: &Change) {
        // SAFETY: an aligned word of text that `switch` has just made writable; only one batch at
        // a time writes to text.
        let word = unsafe { AtomicU64::from_ptr(change.word as *mut u64) };
        let mut bytes = word.load(Relaxed).to_le_bytes();
        bytes[change.shift / 8..][..5].copy_from_slice(&change.bytes);
        word.store(u64::from_le_bytes(bytes), Release);
    }

    /// Page ranges that cover the changes. Gaps between sites of one object are bridged up to a
    /// bound, to save system calls: an object's executable segment is one mapping.
    fn ranges(changes: &[Change]) -> Vec<Range<usize>> {
        const BRIDGE: usize = 64 * 4096;
        let page = sys::page_size();
        let mut words: Vec<(usize, usize)> = changes.iter().map(|c| (c.word, c.module)).collect();
        words.sort_unstable();
        let mut ranges: Vec<(Range<usize>, usize)> = Vec::new();
        for (word, module) in words {
            let start = word & !(page - 1);
            match ranges.last_mut() {
                Some((last, of))
                    if start <= last.end || (*of == module && start - last.end < BRIDGE) =>
                {
                    last.end = last.end.max(start + page);
                    *of = module;
                }
                _ => ranges.push((start..start + page, module)),
            }
        }
        ranges.into_iter().map(|(range, _)| range).collect()
    }
}
