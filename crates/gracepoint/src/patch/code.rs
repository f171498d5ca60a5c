//! Changing code that other threads execute.
//!
//! # What a site may look like
//! Three instructions, all of 5 bytes, at the same place within one aligned 8-byte word:
//!
//! | | bytes | effect |
//! |---|---|---|
//! | NOP | `0f 1f 44 00 00` | none: off |
//! | PASS | `a9`, any four | `test eax, imm32`: changes the flags, which a site does not preserve: off |
//! | JUMP | `e9`, distance | to the cold block: on |
//!
//! # `text`: one store
//! The pages of the batch become writable, and stay readable and executable. Each site changes by
//! one aligned 8-byte store: a processor that fetches the word gets the old instruction or the new
//! one. The pages become read-only again. Then one barrier. (And one before the first store of a batch, in both ways:
//! a process that may not have the last one, because a filter has come since, shall not begin.)
//!
//! # `mem`: bytes, through a harmless instruction
//! The kernel writes for us (`/proc/self/mem` ignores protection, for debuggers' sake), and promises
//! no order or size of its stores: only a single byte is sure to be the old one or the new one. So:
//!
//! 1. The first byte becomes that of PASS. What follows is now a number that nobody uses. Barrier:
//!    no thread executes the old instruction any more.
//! 2. The other four bytes become those of the new instruction. A thread that comes by in the middle
//!    executes PASS with a number that is half old, half new. Barrier: no thread holds such a half.
//! 3. The first byte becomes that of the new instruction. Barrier.
//!
//! At no step is there an instruction that a thread must not execute, whoever it is and whatever it
//! is doing; so a batch may stop anywhere, and the sites that it did not finish are off.
//!
//! The kernel patches itself with a breakpoint (`int3`) as the harmless instruction, and catches the
//! trap. A process cannot: a thread that executes `int3` while it blocks SIGTRAP (all signals
//! blocked, as in many worker threads and in handlers with a full mask) is killed by the kernel, with
//! the program (`tests/ladder.rs` shows it). PASS raises no signal, so the program's own SIGTRAP
//! handler and a debugger's breakpoints are none of our concern.
//!
//! # The barrier
//! `membarrier(SYNC_CORE)`: when it returns, every thread of the process that was running has
//! serialised its instruction stream, so that what it executes from then on was fetched after the
//! writes before the barrier; a thread that was not running serialises before it runs again. So after
//! the last barrier every later hit sees the new instruction. A thread that fetched the old
//! one before may still be in the cold block; what that uses is protected by grace periods.
//!
//! # Who else writes to text
//! Nobody writes these words but the holder of the tracer's lock. Bytes that are none of the three
//! instructions (a debugger's breakpoint, say) are left alone. `mem` writes the bytes between sites
//! that are near each other too, with what they were read as a moment before, to save system calls.
//!
//! # Fork
//! Text is a private mapping: a write in the child copies the page. `/proc/self/mem` is opened for
//! each batch, because a descriptor that was inherited is the parent's memory. Forks wait for the
//! tracer's lock, so a child never inherits half a batch.

use super::PatchError;
use crate::arch::{NOP, PASS, fits_one_word, jump};
use crate::module::Found;
use crate::sys;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};

/// A site and what it becomes.
pub(super) struct Change {
    module: usize,
    code: usize,
    bytes: [u8; 5],
}

/// Text that is written at once by `mem`; larger gaps between sites are left alone.
const NEAR: usize = 256;

/// What is to be written, by address: nothing where a site is as wanted already, or not ours to patch.
pub(super) fn changes(records: impl Iterator<Item = (Found, bool)>) -> Vec<Change> {
    let mut changes: Vec<Change> = records.filter_map(|(found, on)| change(found, on)).collect();
    changes.sort_unstable_by_key(|change| change.code);
    changes
}

fn change(Found { module, record }: Found, on: bool) -> Option<Change> {
    let code = record.code().filter(|&code| fits_one_word(code))?;
    let jump = jump(code, record.cold());
    let wanted = if on { jump? } else { NOP };
    let now = site_bytes(code);
    let expected = now == NOP || now[0] == PASS || Some(now) == jump;
    (expected && now != wanted).then_some(Change { module, code, bytes: wanted })
}

/// Is there a site that may be tried out?
pub(super) fn is_site(code: usize) -> bool {
    fits_one_word(code) && site_bytes(code) == NOP
}

/// The 5 bytes of a site.
fn site_bytes(code: usize) -> [u8; 5] {
    let mut bytes = [0; 5];
    bytes.copy_from_slice(&word(code).load(Relaxed).to_le_bytes()[code & 7..][..5]);
    bytes
}

/// The aligned word that a site lies in.
fn word(code: usize) -> &'static AtomicU64 {
    // SAFETY: `code` comes from a record whose object stays mapped under the tracer's lock; the
    // aligned word around it lies in the same page of its text.
    unsafe { AtomicU64::from_ptr((code & !7) as *mut u64) }
}

/// The barrier; see the top.
pub(super) fn barrier() -> Result<(), PatchError> {
    if gracepoint_rcu::heavy_barrier_code() {
        return Ok(());
    }
    Err(PatchError(
        "this system refuses membarrier(SYNC_CORE), which live patching needs; allow it, or build \
         the program with GRACEPOINT_PATCH=branch"
            .into(),
    ))
}

/// May the page of this site become writable?
pub(super) fn text_works(site: usize) -> bool {
    let page = page_of(site);
    // If the second call is refused too, the page was never made writable, or stays so.
    sys::protect_code(page.clone(), true).is_ok() & sys::protect_code(page, false).is_ok()
}

/// May this site be written to? With the byte that is there.
pub(super) fn mem_works(site: usize) -> bool {
    memory().and_then(|memory| memory.write_all_at(&NOP[..1], site as u64)).is_ok()
}

pub(super) fn memory() -> io::Result<File> {
    File::options().write(true).open("/proc/self/mem")
}

/// Changes by one store each.
///
/// # Errors
/// When pages may not become writable; then nothing has changed.
pub(super) fn through_text(changes: &[Change]) -> io::Result<()> {
    let ranges = pages(changes.iter().map(|change| (change.module, change.code)));
    while_writable(&ranges, || {
        store(changes);
        Ok(())
    })
}

fn store(changes: &[Change]) {
    for change in changes {
        let word = word(change.code);
        let mut bytes = word.load(Relaxed).to_le_bytes();
        bytes[change.code & 7..][..5].copy_from_slice(&change.bytes);
        // Release: a probe that was published before is seen by who takes the jump (x86 keeps
        // stores in order anyhow).
        word.store(u64::from_le_bytes(bytes), Release);
    }
}

/// Runs `body` while these pages are writable.
///
/// # Errors
/// When they may not become it, and `body` was not run; and those of `body`.
pub(super) fn while_writable(
    ranges: &[Range<usize>],
    body: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let lock = |ranges: &[Range<usize>]| {
        for range in ranges {
            // Failing here leaves pages writable that hold the right code; nothing can be done.
            let _ = sys::protect_code(range.clone(), false);
        }
    };
    for (done, range) in ranges.iter().enumerate() {
        if let Err(error) = sys::protect_code(range.clone(), true) {
            // The one that failed may have changed in part.
            lock(&ranges[..=done]);
            return Err(io::Error::new(error.kind(), format!("mprotect: {error}")));
        }
    }
    let done = body();
    lock(ranges);
    done
}

fn page_of(code: usize) -> Range<usize> {
    let page = sys::page_size();
    let start = code & !(page - 1);
    start..start + page
}

/// Page ranges that cover the places (object and address), which are in order. Gaps between those of one
/// object are bridged up to a bound, to save system calls: an object's executable segment is one mapping.
pub(super) fn pages(places: impl Iterator<Item = (usize, usize)>) -> Vec<Range<usize>> {
    const BRIDGE: usize = 64 * 4096;
    let mut ranges: Vec<(Range<usize>, usize)> = Vec::new();
    for (module, code) in places {
        let page = page_of(code);
        match ranges.last_mut() {
            Some((last, of))
                if page.start <= last.end || (*of == module && page.start - last.end < BRIDGE) =>
            {
                last.end = last.end.max(page.end);
                *of = module;
            }
            _ => ranges.push((page, module)),
        }
    }
    ranges.into_iter().map(|(range, _)| range).collect()
}

/// Sites near each other, and the bytes from the first to the last.
struct Run<'a> {
    changes: &'a [Change],
    bytes: Vec<u8>,
}

impl Run<'_> {
    fn start(&self) -> usize {
        self.changes[0].code
    }

    /// Takes a step at each of the sites.
    fn edit(&mut self, step: &Step) {
        let start = self.start();
        for change in self.changes {
            step(&mut self.bytes[change.code - start..][..5], &change.bytes);
        }
    }
}

fn runs(changes: &[Change]) -> Vec<Run<'_>> {
    let near = |a: &Change, b: &Change| a.module == b.module && b.code - a.code < NEAR;
    let read = |changes: &[Change]| {
        let (first, last) = (changes[0].code, changes[changes.len() - 1].code + 5);
        // SAFETY: text of one object between two of its sites, which is mapped and readable.
        let byte = |at: usize| unsafe { AtomicU8::from_ptr(at as *mut u8) }.load(Relaxed);
        (first..last).map(byte).collect()
    };
    changes.chunk_by(near).map(|changes| Run { changes, bytes: read(changes) }).collect()
}

/// Changes a site some way towards its new bytes.
type Step = fn(&mut [u8], &[u8; 5]);

/// The three steps of `mem`; see the top.
const STEPS: [Step; 3] = [
    |site, _| site[0] = PASS,
    |site, new| site[1..].copy_from_slice(&new[1..]),
    |site, new| site[0] = new[0],
];

/// Changes byte by byte, by the three steps at the top but for the last barrier.
///
/// # Errors
/// When the kernel does not write; then each site is as it was, or off.
pub(super) fn through_mem(changes: &[Change]) -> io::Result<()> {
    let about = |error: io::Error| io::Error::new(error.kind(), format!("/proc/self/mem: {error}"));
    let memory = memory().map_err(about)?;
    let mut runs = runs(changes);
    for (number, step) in STEPS.iter().enumerate() {
        if number > 0 {
            barrier().map_err(|error| io::Error::other(error.0))?;
        }
        for run in &mut runs {
            run.edit(step);
            memory.write_all_at(&run.bytes, run.start() as u64).map_err(about)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At each step one byte changes, the first, or others do behind a first one that makes a number
    /// of them: whatever mixture a thread fetches is one of the three instructions.
    #[test]
    fn no_step_can_be_fetched_half() {
        let jump = jump(0x1000, 0x2345_6789).unwrap();
        let stuck = [PASS, 1, 2, 3, 4];
        for (old, new) in [(NOP, jump), (jump, NOP), (stuck, jump), (stuck, NOP)] {
            let mut now = old;
            for step in STEPS {
                let before = now;
                step(&mut now, &new);
                let rest = before[1..] != now[1..];
                assert!(!rest || (before[0], now[0]) == (PASS, PASS), "{before:x?} to {now:x?}");
            }
            assert_eq!(now, new);
        }
    }
}
